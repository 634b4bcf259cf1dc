"""gradus.torch against torch.optim: the same trajectories, arguments, groups, state_dict, schedulers, GradScaler, hooks."""

from __future__ import annotations

import collections
import copy
import gc
import inspect
import io
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import gradus
import numpy as np
import pytest
from support import refused

torch = pytest.importorskip("torch")
import gradus.torch as drop_in  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def in_double() -> Any:
    """PyTorch then keeps NAdam's product of momenta in float64, as gradus always does."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# Each class that PyTorch has too, with settings that use all of it.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}), ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3, "maximize": True}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}), ("Adam", {"lr": 0.01, "betas": (0.8, 0.9), "amsgrad": True}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}), ("AdamW", {"maximize": True}),
    ("RAdam", {"lr": 0.01, "weight_decay": 0.1}), ("RAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "momentum_decay": 0.01}), ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adamax", {"lr": 0.01, "weight_decay": 0.1}), ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("RMSprop", {"lr": 0.01, "weight_decay": 0.1}), ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.9, "centered": True})]
IDS = [f"{name}-{'-'.join(options)}" for name, options in CASES]
RECIPES = {c._recipe: c for c in vars(drop_in).values() if isinstance(c, type) and issubclass(c, drop_in.RecipeOptimizer) and c is not drop_in.RecipeOptimizer}


def model(dtype: Any = None, seed: int = 1) -> Any:
    """A small network with several shapes; some weights lie in another order in memory."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Flatten(), torch.nn.Linear(12, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2))
    return net.to(dtype or torch.float64, memory_format=torch.channels_last)


def loss_of(net: Any, t: int) -> Any:
    generator = torch.Generator().manual_seed(t)
    dtype = next(net.parameters()).dtype
    x = torch.randn(8, 2, 4, 4, generator=generator, dtype=torch.float64).to(dtype)
    return (net(x) - x.mean((2, 3))).square().mean()


def groups_of(net: Any) -> list[dict[str, Any]]:
    weights, biases = [p for p in net.parameters() if p.ndim > 1], [p for p in net.parameters() if p.ndim == 1]
    return [{"params": weights}, {"params": biases, "weight_decay": 0.0, "lr": 0.02}]


def train(net: Any, optimizer: Any, start: int, end: int, each: Callable[[int], Any] = lambda t: None) -> list[float]:
    losses = []
    for t in range(start, end):
        optimizer.zero_grad()
        loss = loss_of(net, t)
        loss.backward()
        optimizer.step()
        each(t)
        losses.append(loss.item())
    return losses


def pair(name: str, options: dict[str, Any], grouped: bool = True, **more: Any) -> tuple[Any, Any, Any, Any]:
    """A model and PyTorch's optimizer; the same model and gradus's."""
    theirs, ours = model(), model()
    kind = getattr(torch.optim, name)
    return (theirs, kind(groups_of(theirs) if grouped else theirs.parameters(), foreach=False, **options),
            ours, getattr(drop_in, name)(groups_of(ours) if grouped else ours.parameters(), **options, **more))


def assert_near(theirs: Any, ours: Any, nearness: float = 1e-12) -> None:
    for a, b in zip(theirs.parameters(), ours.parameters()):
        torch.testing.assert_close(b, a, rtol=nearness, atol=nearness)


def assert_same_bits(a: Any, b: Any) -> None:
    for p, q in zip(a.parameters(), b.parameters()):
        assert torch.equal(p, q)


# ── the same as torch.optim ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name, options", CASES, ids=IDS)
def test_follows_torch(name: str, options: dict[str, Any], in_double: None) -> None:
    theirs, their_optimizer, ours, our_optimizer = pair(name, options)
    train(theirs, their_optimizer, 0, 60)
    train(ours, our_optimizer, 0, 60)
    assert_near(theirs, ours)
    assert our_optimizer.report.applied


@pytest.mark.parametrize("name, options", CASES, ids=IDS)
def test_state_dict_goes_to_torch_and_back(name: str, options: dict[str, Any], in_double: None) -> None:
    theirs, their_optimizer, ours, our_optimizer = pair(name, options)
    train(theirs, their_optimizer, 0, 11)
    train(ours, our_optimizer, 0, 11)
    here, there = our_optimizer.state_dict(), their_optimizer.state_dict()
    assert here["state"].keys() == there["state"].keys()
    for number, state in there["state"].items():
        assert here["state"][number].keys() - {"variance"} == {k for k, x in state.items() if x is not None}
        for key in here["state"][number].keys() - {"variance"}:
            x = here["state"][number][key]
            torch.testing.assert_close(x.double(), torch.as_tensor(state[key]).double(), rtol=1e-10, atol=1e-12)
            assert x.shape == torch.as_tensor(state[key]).shape and (x.dtype == torch.as_tensor(state[key]).dtype or key == "step")
    for ours_group, theirs_group in zip(here["param_groups"], there["param_groups"]):
        assert theirs_group.keys() <= ours_group.keys()
    # Exchanged, as files are, they go on as before.
    def copied(x: Any) -> Any:
        file = io.BytesIO()
        torch.save(x, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    other_theirs, other_their_optimizer, other_ours, other_our_optimizer = pair(name, {**options, "lr": 1.0})
    other_theirs.load_state_dict(ours.state_dict())
    other_ours.load_state_dict(theirs.state_dict())
    other_their_optimizer.load_state_dict(copied(here))
    other_our_optimizer.load_state_dict(copied(there))
    train(theirs, their_optimizer, 11, 40)
    train(other_theirs, other_their_optimizer, 11, 40)
    train(other_ours, other_our_optimizer, 11, 40)
    assert_near(theirs, other_theirs, 1e-11)
    assert_near(theirs, other_ours, 1e-11)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_resumed_runs_have_the_same_bits(recipe: str, dtype: Any) -> None:
    options = {name: value for name, value in (("momentum", 0.9), ("centered", True)) if name in gradus.recipes()[recipe]}
    whole, stopped, resumed = model(dtype), model(dtype), model(dtype, seed=2)
    train(whole, RECIPES[recipe](groups_of(whole), **options), 0, 20)
    optimizer = RECIPES[recipe](groups_of(stopped), **options)
    train(stopped, optimizer, 0, 11)
    resumed.load_state_dict(stopped.state_dict())
    again = RECIPES[recipe](groups_of(resumed), **options)
    again.load_state_dict(optimizer.state_dict())
    train(resumed, again, 11, 20)
    assert_same_bits(whole, resumed)


def test_tensors_without_dlpacks_table_of_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in PyTorch of before it."""
    monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__", raising=False)
    assert not hasattr(torch.nn.Parameter, "__dlpack_c_exchange_api__")
    for dtype in (torch.float64, torch.bfloat16):
        slow, fast = model(dtype), model(dtype)
        train(slow, drop_in.AdamW(slow.parameters(), lr=0.01), 0, 10)
        monkeypatch.undo()
        train(fast, drop_in.AdamW(fast.parameters(), lr=0.01), 0, 10)
        assert_same_bits(slow, fast)
        monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__", raising=False)
    p = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = drop_in.AdamW([p])
    p.grad = torch.ones(3, 2).to_sparse()
    with refused("a gradient is torch.sparse_coo"):
        optimizer.step()
    p.grad = torch.ones(3, 2).t().contiguous().t()
    optimizer.step()
    gradient = weakref.ref(p.grad)
    optimizer.zero_grad()
    gc.collect()
    assert gradient() is None


def test_state_of_another_class_is_taken_over() -> None:
    """AdamW's moments for AdamS, whose sum of second moments is then computed anew."""
    net, other = model(), model(seed=2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    train(net, optimizer, 0, 5)
    other.load_state_dict(net.state_dict())
    adams = drop_in.AdamS(other.parameters(), lr=0.01, weight_decay=0.0)
    adams.load_state_dict({**optimizer.state_dict(), "param_groups": adams.state_dict()["param_groups"]})
    optimizer.param_groups[0]["weight_decay"] = 0.0
    train(net, optimizer, 5, 15)
    train(other, adams, 5, 15)
    assert_near(net, other)
    v = sum(s["exp_avg_sq"].sum().item() for s in optimizer.state.values())
    assert adams.state_dict()["state"][0]["exp_avg_sq_sum"].item() == pytest.approx(v, rel=1e-9)
    assert adams.report.mean_square == pytest.approx(v / (1 - 0.999**15) / sum(p.numel() for p in net.parameters()), rel=1e-9)


def test_threads_that_call_one_optimizer_are_refused() -> None:
    p = torch.nn.Parameter(torch.ones(1 << 22))
    p.grad = torch.ones_like(p)
    optimizer, failures = drop_in.AdamW([p]), []
    optimizer.step()

    def steps() -> None:
        for _ in range(10):
            try:
                optimizer.step()
            except RuntimeError as error:
                failures.append(str(error))

    threads = [threading.Thread(target=steps) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures and all("in use by another thread" in f for f in failures)
    assert optimizer.state[p]["step"] == 31 - len(failures)


def test_steps_have_the_bits_of_gradus() -> None:
    net, twin = model(torch.float32), model(torch.float32)
    optimizer = drop_in.AdamS(net.parameters(), lr=0.01, max_grad_norm=0.1)
    plain = gradus.Optimizer("adams", lr=0.01)
    for k, p in enumerate(twin.parameters()):
        p.grad = torch.zeros_like(p)
        plain.add(str(k), p, p.grad)
    for t in range(10):
        train(net, optimizer, t, t + 1)
        for p in twin.parameters():
            p.grad.zero_()
        loss_of(twin, t).backward()
        report = plain.step(max_grad_norm=0.1)
    assert_same_bits(net, twin)
    assert repr(report) == repr(optimizer.report)


def test_every_recipe_has_a_class() -> None:
    assert set(RECIPES) == set(gradus.recipes())
    assert set(drop_in.__all__) == {"RecipeOptimizer", "optimizer_class", *(c.__name__ for c in RECIPES.values())}
    assert {recipe: drop_in.optimizer_class(recipe) for recipe in RECIPES} == RECIPES
    with refused("recipe is 'adamww'; expected one of sgd, "):
        drop_in.optimizer_class("adamww")
    for recipe, kind in RECIPES.items():
        net = model()
        losses = train(net, kind(net.parameters(), **({"lr": 1.0} if recipe == "adadelta" else {"lr": 0.01})), 0, 30)
        assert min(losses[-5:]) < losses[0] and np.isfinite(losses).all()


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_arguments_are_torchs(name: str) -> None:
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    ours = inspect.signature(getattr(drop_in, name)).parameters
    assert set(theirs) <= set(ours)
    for key, p in theirs.items():
        assert ours[key].default == p.default or key == "params"
    flags = {"foreach", "maximize", "capturable", "differentiable", "fused"}
    assert [k for k in ours if k in theirs and k not in flags] == [k for k in theirs if k not in flags]
    optimizer = getattr(drop_in, name)([torch.nn.Parameter(torch.ones(2))], foreach=True, fused=True)
    assert optimizer.defaults["foreach"] and optimizer.defaults["fused"]


# ── PyTorch's own list of what its optimizers are tested with ────────────────────────────────────────────────────────


def database() -> list[Any]:
    """PyTorch's entries for the optimizers that gradus has too; none where its wheel does not have the list."""
    try:
        from torch.testing._internal.common_optimizers import optim_db
    except ImportError:
        return []
    return [info for info in optim_db if hasattr(drop_in, info.optim_cls.__name__)]


INPUTS = [pytest.param(info.optim_cls.__name__, i, id=f"{info.optim_cls.__name__}-{i.desc}")
          for info in database() for i in info.optim_inputs_func(device="cpu")]
ERRORS = [pytest.param(info.optim_cls.__name__, e, id=f"{info.optim_cls.__name__}-{e.optimizer_error_input.desc}")
          for info in database() for e in info.optim_error_inputs_func(device="cpu", dtype=torch.float32)]


def test_pytorchs_list_is_found() -> None:
    pytest.importorskip("torch.testing._internal.common_optimizers")
    assert len(INPUTS) > 50 and len(ERRORS) > 60


@pytest.mark.parametrize("name, given", INPUTS)
def test_settings_that_pytorch_tests(name: str, given: Any, in_double: None) -> None:
    if name == "AdamW" and given.kwargs.get("amsgrad"):
        with refused("amsgrad is True for AdamW"):
            drop_in.AdamW(model().parameters(), **given.kwargs)
        return
    theirs, their_optimizer, ours, our_optimizer = pair(name, given.kwargs, grouped=False)
    train(theirs, their_optimizer, 0, 20)
    train(ours, our_optimizer, 0, 20)
    assert_near(theirs, ours, 1e-8 if isinstance(given.kwargs.get("lr"), torch.Tensor) else 1e-12)  # the tensor is float32


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, case", ERRORS)
def test_mistakes_that_pytorch_tests(name: str, case: Any) -> None:
    """What PyTorch refuses or warns of, so does gradus; but its foreach makes no difference for tensors as numbers."""
    given, kind = case.optimizer_error_input, case.error_type
    params = [torch.nn.Parameter(torch.ones(2))] if given.params is None else given.params
    make = getattr(drop_in, name)
    if issubclass(kind, Warning):
        with pytest.warns(kind, match=case.error_regex):
            make(params, **given.kwargs)
    elif "foreach" in given.desc or "foreach" in case.error_regex or "both floats or both" in given.desc:
        make(params, **given.kwargs)
    else:
        with pytest.raises(kind, match=None if "Invalid" in case.error_regex else case.error_regex):
            make(params, **given.kwargs)


# ── how torch uses optimizers ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [
    lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.05, total_steps=40),  # which changes betas too
    lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t))], ids=["step", "cosine", "one cycle", "lambda"])
def test_schedulers(make: Any) -> None:
    for name, options in (("AdamW", {"lr": 0.01}), ("SGD", {"lr": 0.1, "momentum": 0.9})):
        theirs, their_optimizer, ours, our_optimizer = pair(name, options)
        for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
            scheduler = make(optimizer)
            train(net, optimizer, 0, 30, lambda t: scheduler.step())
        assert_near(theirs, ours)


def test_lr_as_a_tensor_changed_in_place() -> None:
    theirs, their_optimizer, ours, our_optimizer = pair("AdamW", {}, grouped=False)
    for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
        lr = torch.tensor(0.01, dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = lr
        train(net, optimizer, 0, 20, lambda t: lr.mul_(0.9))
    assert_near(theirs, ours)


def test_none_gradients_and_set_to_none() -> None:
    for to_none in (True, False):
        theirs, their_optimizer, ours, our_optimizer = pair("AdamW", {"lr": 0.01, "weight_decay": 0.1})
        for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
            for t in range(12):
                optimizer.zero_grad(set_to_none=to_none)
                loss_of(net, t).backward()
                if t % 3 == 1:
                    net[4].weight.grad = None  # this step leaves it as it is, its step count too
                if t < 5:
                    net[0].bias.grad = None  # its first step is late
                optimizer.step()
            optimizer.zero_grad()
            optimizer.step()  # nothing has a gradient
        assert_near(theirs, ours)
        assert our_optimizer.state[ours[0].bias]["step"] == 7 and our_optimizer.state[ours[4].weight]["step"] == 8


def test_parameters_added_later() -> None:
    theirs, their_optimizer, ours, our_optimizer = pair("Adam", {"lr": 0.01}, grouped=False)
    for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
        train(net, optimizer, 0, 5)
        extra = torch.nn.Linear(2, 2).double()
        torch.nn.init.constant_(extra.weight, 0.5)
        torch.nn.init.constant_(extra.bias, 0.25)
        net.append(extra)
        optimizer.add_param_group({"params": extra.parameters(), "lr": 0.1})
        train(net, optimizer, 5, 20)
    assert_near(theirs, ours)


def test_parameters_taken_out_and_moved_between_groups() -> None:
    theirs, their_optimizer, ours, our_optimizer = pair("Adam", {"lr": 0.01})
    for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
        train(net, optimizer, 0, 5)
        first = optimizer.param_groups[0]["params"].pop(0)
        train(net, optimizer, 5, 10)
        optimizer.param_groups[1]["params"].append(first)
        train(net, optimizer, 10, 20)
    assert_near(theirs, ours)


def test_parameters_with_other_memory_and_gradients_of_any_form() -> None:
    theirs, their_optimizer, ours, our_optimizer = pair("Adam", {"lr": 0.01}, grouped=False)
    for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
        for t in range(12):
            optimizer.zero_grad()
            loss_of(net, t).backward()
            net[2].weight.grad = net[2].weight.grad.t().contiguous().t()
            net[4].bias.grad = torch.ones((), dtype=torch.float64).expand(2)
            if t == 6:
                for p in net.parameters():
                    p.data = p.data.clone()
            optimizer.step()
    assert_near(theirs, ours)


def test_closures() -> None:
    theirs, their_optimizer, ours, our_optimizer = pair("SGD", {"lr": 0.1, "momentum": 0.9})
    results = []
    for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
        def closure() -> Any:
            optimizer.zero_grad()
            loss = loss_of(net, 0)
            loss.backward()
            return loss

        with torch.no_grad():
            results.append([optimizer.step(closure).item() for _ in range(10)])
    assert results[0] == pytest.approx(results[1], rel=1e-12)
    assert_near(theirs, ours)


@pytest.mark.parametrize("unscales", [False, True])
def test_grad_scaler(unscales: bool) -> None:
    theirs, their_optimizer, ours, our_optimizer = pair("AdamW", {"lr": 0.01})
    scales = []
    for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
        for t in range(20):
            optimizer.zero_grad()
            scaler.scale(loss_of(net, t)).backward()
            if t in (3, 11):
                net[2].weight.grad[0, 0] = float("inf")
            if unscales:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        scales.append(scaler.get_scale())
    assert scales[0] == scales[1] != 1024
    assert_near(theirs, ours)
    assert our_optimizer.state[ours[2].weight]["step"] == 18


def test_max_grad_norm_clips_as_torch_does() -> None:
    theirs, their_optimizer, ours, our_optimizer = pair("SGD", {"lr": 0.1, "momentum": 0.9}, max_grad_norm=0.05)
    for t in range(30):
        their_optimizer.zero_grad()
        loss_of(theirs, t).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        their_optimizer.step()
        train(ours, our_optimizer, t, t + 1)
        assert our_optimizer.report.grad_norm == pytest.approx(norm.item(), rel=1e-9)
    assert_near(theirs, ours, 1e-6)  # PyTorch adds 1e-6 to the norm


def test_skip_nonfinite() -> None:
    net = model()
    optimizer = drop_in.Adam(net.parameters(), skip_nonfinite=True)
    train(net, optimizer, 0, 3)
    before = copy.deepcopy(net)
    loss_of(net, 3).backward()
    net[2].weight.grad[0, 0] = float("nan")
    optimizer.step()
    assert not optimizer.report.applied and optimizer.state[net[2].weight]["step"] == 3
    assert_same_bits(before, net)


def test_hooks() -> None:
    net = model()
    optimizer, calls = drop_in.AdamW(net.parameters()), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.register_state_dict_post_hook(lambda o, d: {**d, "note": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, d: {k: x for k, x in d.items() if k != "note"})
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append("loaded"))
    train(net, optimizer, 0, 1)
    state = optimizer.state_dict()
    assert state["note"] == 1
    optimizer.load_state_dict(state)
    assert calls == ["before", "after", "loaded"] and len(optimizer._optimizer_load_state_dict_pre_hooks) == 1


def test_named_parameters() -> None:
    net, other = model(), model(seed=3)
    optimizer = drop_in.AdamW(net.named_parameters())
    train(net, optimizer, 0, 3)
    state = optimizer.state_dict()
    assert state["param_groups"][0]["param_names"] == [n for n, _ in net.named_parameters()]
    drop_in.AdamW(other.named_parameters()).load_state_dict(state)


def test_copies_and_pickles() -> None:
    for again in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        net = model(torch.bfloat16)
        optimizer = drop_in.NAdam(groups_of(net), max_grad_norm=1.0)
        train(net, optimizer, 0, 7)
        net2, optimizer2 = again((net, optimizer))
        assert optimizer2.max_grad_norm == 1.0
        train(net, optimizer, 7, 15)
        train(net2, optimizer2, 7, 15)
        assert_same_bits(net, net2)


def test_state_is_a_view_and_can_be_reset() -> None:
    net = model()
    optimizer = drop_in.Adam(net.parameters())
    assert len(optimizer.state) == 0 and optimizer.state[net[0].weight] == {}
    train(net, optimizer, 0, 2)
    state = optimizer.state[net[0].weight]
    assert list(state) == ["step", "exp_avg", "exp_avg_sq"] and state["exp_avg"].shape == net[0].weight.shape
    assert state["exp_avg"].stride() == net[0].weight.stride()
    before = state["exp_avg"].clone()
    train(net, optimizer, 2, 3)
    assert not torch.equal(before, state["exp_avg"]) and optimizer.state[net[0].weight]["step"] == 3
    with torch.no_grad():
        state["exp_avg"].zero_()
    assert optimizer.state_dict()["state"][0]["exp_avg"].abs().sum() == 0
    optimizer.state = collections.defaultdict(dict)
    assert len(optimizer.state) == 0
    train(net, optimizer, 3, 4)
    assert optimizer.state[net[0].weight]["step"] == 1


def test_momentum_that_comes_and_goes() -> None:
    theirs, their_optimizer, ours, our_optimizer = pair("SGD", {"lr": 0.1}, grouped=False)
    for net, optimizer in ((theirs, their_optimizer), (ours, our_optimizer)):
        train(net, optimizer, 0, 3)
        assert all("momentum_buffer" not in s for s in optimizer.state.values())
        optimizer.param_groups[0]["momentum"] = 0.9
        train(net, optimizer, 3, 6)
        assert all("momentum_buffer" in s for s in optimizer.state.values()) and len(optimizer.state) == 6
    assert_near(theirs, ours)
    our_optimizer.param_groups[0]["momentum"] = 0
    train(ours, our_optimizer, 6, 7)
    assert len(our_optimizer.state) == 0


def test_gradients_are_not_kept_alive() -> None:
    net = model()
    optimizer = drop_in.AdamW(net.parameters())
    train(net, optimizer, 0, 2)
    gradient = weakref.ref(net[0].weight.grad)
    optimizer.zero_grad()
    gc.collect()
    assert gradient() is None
    parameter = weakref.ref(net[0].weight)
    del net, optimizer
    gc.collect()
    assert parameter() is None


def test_optimizers_in_hooks_of_the_backward_pass() -> None:
    """One optimizer a parameter, which steps as soon as the gradient is there."""
    theirs, ours = model(), model()
    for net, kind in ((theirs, torch.optim.Adam), (ours, drop_in.Adam)):
        for p in net.parameters():
            def hook(p: Any, optimizer: Any = kind([p], lr=0.01)) -> None:
                optimizer.step()
                optimizer.zero_grad()

            p.register_post_accumulate_grad_hook(hook)
        for t in range(10):
            loss_of(net, t).backward()
    assert_near(theirs, ours)


def test_cycles_of_parameters_and_optimizers_are_collected() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = drop_in.Adam([p])
    p.optimizer = optimizer
    optimizer.step()
    refs = weakref.ref(p), weakref.ref(optimizer)
    del p, optimizer
    gc.collect()
    assert refs[0]() is None and refs[1]() is None


def test_bfloat16_has_masters_and_learns_what_bfloat16_cannot_hold() -> None:
    theirs, ours = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16)), torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    for p, optimizer in ((theirs, torch.optim.SGD([theirs], lr=1e-3)), (ours, drop_in.SGD([ours], lr=1e-3))):
        for _ in range(100):
            p.grad = torch.ones_like(p)
            optimizer.step()
    assert theirs[0] == 1 and ours[0].item() == pytest.approx(0.9, abs=4e-3)
    assert optimizer.state[ours]["master"].dtype is torch.float32


def test_several_dtypes() -> None:
    def both(kind: Any) -> Any:
        a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = kind([a, b], lr=0.1)
        for t in range(5):
            a.grad = torch.full_like(a, 0.5 + t)
            b.grad = torch.full_like(b, 0.5 + t) if t > 1 else None
            optimizer.step()
        return a, b, optimizer

    a, b, _ = both(torch.optim.Adam)
    c, d, optimizer = both(drop_in.Adam)
    torch.testing.assert_close(c, a)
    torch.testing.assert_close(d, b)
    assert {p.dtype for p in optimizer.state} == {torch.float32, torch.float64}
    with refused("expected one dtype, because max_grad_norm"):
        both(lambda p, lr: drop_in.Adam(p, lr=lr, max_grad_norm=1.0))
    with refused("expected one dtype, because max_grad_norm"):
        both(drop_in.AdamS)


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_does_not_fit_is_refused() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    for options, part in (({"lr": -1.0}, "lr is -1"), ({"betas": (0.9, 1.0)}, "beta2 is 1"), ({"eps": float("nan")}, "eps is"),
                          ({"differentiable": True}, "differentiable is True; expected False")):
        with refused(part):
            drop_in.Adam([p], **options)
    with refused("amsgrad is True for AdamW"):
        drop_in.AdamW([p], amsgrad=True)
    with refused("nesterov"):
        drop_in.SGD([p], nesterov=True)
    for call in (lambda: drop_in.Adam([p], momentum=0.9), lambda: drop_in.Adam(), lambda: drop_in.Adam(p)):
        with pytest.raises(TypeError):
            call()
    with refused("optimizer got an empty parameter list"):
        drop_in.Adam([])
    with refused("is on meta; expected the CPU"):
        drop_in.Adam([torch.nn.Parameter(torch.ones(3, device="meta"))])
    with refused("torch.complex64; expected a dense one"):
        drop_in.Adam([torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))])
    with refused("lr is -1"):
        drop_in.Adam([p]).add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": -1.0})
    optimizer = drop_in.Adam([p])
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "maximize": True})
    p.grad = torch.ones(3)
    with refused("the groups differ in maximize"):
        optimizer.step()
    optimizer.param_groups[1]["maximize"] = False
    optimizer.param_groups[0]["lr"] = -1.0
    with refused("lr is -1"):
        optimizer.step()
    assert torch.equal(p, torch.ones(3))


def test_gradients_and_parameters_that_change_are_refused() -> None:
    p = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = drop_in.Adam([p])
    p.grad = torch.ones(3, 2).to_sparse()
    with refused("a gradient is torch.sparse_coo"):
        optimizer.step()
    p.grad = torch.ones(3, 2)
    optimizer.step()
    p.data = torch.ones(2, 3)
    p.grad = None
    with refused("parameter 0 has shape (2, 3); expected (3, 2)"):
        optimizer.step()
    p.data = torch.ones(3, 2, dtype=torch.float64)
    with refused("parameter 0 is float64; expected float32"):
        optimizer.step()
    gaps = torch.nn.Parameter(torch.ones(4, 4)[:, ::2])
    gaps.grad = torch.ones(4, 2)
    with refused("are not contiguous"):
        drop_in.Adam([gaps]).step()
    twice = torch.nn.Parameter(torch.ones(3))
    twice.grad = torch.ones(3)
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = drop_in.Adam([twice, twice])
    for _ in range(2):  # when its state is made, and later
        with refused("occurs twice in the groups"):
            optimizer.step()
    tied = torch.ones(6)
    a, b = torch.nn.Parameter(tied[:4]), torch.nn.Parameter(tied[2:])
    a.grad, b.grad = torch.ones(4), torch.ones(4)
    with refused("overlap"):
        drop_in.Adam([a, b]).step()


def test_state_dicts_that_do_not_fit_change_nothing() -> None:
    net = model()
    optimizer = drop_in.Adam(groups_of(net), lr=0.01)
    train(net, optimizer, 0, 3)
    good = copy.deepcopy(optimizer.state_dict())

    def changed(change: Callable[[Any], Any]) -> Any:
        bad = copy.deepcopy(good)
        change(bad)
        return bad

    for bad, part in ((changed(lambda d: d["param_groups"].pop()), "different number of parameter groups"),
                      (changed(lambda d: d["param_groups"][0].update(lr=-1)), "lr is -1"),
                      (changed(lambda d: d["param_groups"][0].pop("eps")), "has no eps"),
                      (changed(lambda d: d["state"][0].update(exp_avg=torch.ones(2))), "the state exp_avg has shape (2,)"),
                      (changed(lambda d: d["state"][0].pop("step")), "has no step")):
        with refused(part):
            optimizer.load_state_dict(bad)
        again = optimizer.state_dict()
        assert again["param_groups"] == good["param_groups"]
        for number, state in good["state"].items():
            assert all(torch.equal(again["state"][number][k], x) for k, x in state.items())
    optimizer.load_state_dict(good)
    train(net, optimizer, 3, 5)
