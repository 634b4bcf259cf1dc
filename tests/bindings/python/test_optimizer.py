"""gradus.Optimizer over NumPy arrays: trajectories, groups, state, steps, and what is refused."""

from __future__ import annotations

import array
import gc
import inspect
import signal
import threading
import time
import weakref
from typing import Any

import gradus
import numpy as np
import pytest
from support import Recording, difference, gradient, numbers_of, recordings, refused


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def optimizer(recipe: str = "adamw", n: int = 8, **numbers: float) -> tuple[gradus.Optimizer, np.ndarray, np.ndarray]:
    opt, w, g = gradus.Optimizer(recipe, **numbers), ones(n), np.linspace(-1, 1, n, dtype=np.float32)
    opt.add("w", w, g)
    return opt, w, g


# ── right ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype, nearness", [(np.float64, {True: 1e-12, False: 1e-10}), (np.float32, {True: 5e-4, False: 5e-3})])
@pytest.mark.parametrize("case", recordings(), ids=repr)
def test_follows_recorded_trajectories(case: Recording, dtype: Any, nearness: dict[bool, float]) -> None:
    opt = gradus.Optimizer(case.recipe, **numbers_of(case))
    undecayed = opt.add_group(weight_decay=0)
    model = [(w.astype(dtype), np.empty_like(w, dtype), a, b) for w, a, b in case.tensors()]
    for k, (w, g, _, _) in enumerate(model):
        opt.add(str(k), w, g, group=undecayed if k == len(model) - 1 else 0)
    worst = 0.0
    for t in range(1, case.steps + 1):
        for w, g, a, b in model:
            g[:] = gradient(w.astype(float), a, b, t)
        opt.step(lr_scale=case.lr_scale(t))
        if t in case.at:
            worst = max(worst, difference(np.concatenate([m[0] for m in model]), case.at[t]))
    assert len(case.at) >= 8
    assert worst < nearness[case.problem["seed"] == "7"]


def test_every_recipe_has_a_recorded_trajectory() -> None:
    assert {c.recipe for c in recordings()} == set(gradus.recipes())


def test_copy_average_writes_the_weights_that_schedule_free_averages() -> None:
    opt, w, g = optimizer("schedule_free_adamw", lr=0.25, beta1=0.5)
    average = np.zeros_like(w)
    opt.step()
    opt.step()
    opt.copy_average("w", average)
    # Gradients are taken halfway between the fast weights, w + z_minus_y, and their average.
    np.testing.assert_allclose(w, 0.5 * (w + opt.state("w")["z_minus_y"]) + 0.5 * average, rtol=1e-6)
    assert np.any(average != w)
    with refused('averages of tensor "w" are float64; expected float32, as its parameters'):
        opt.copy_average("w", average.astype(float))
    with refused('averages of tensor "w" have shape (7,); expected (8,)'):
        opt.copy_average("w", average[:7])
    with refused("are read-only"):
        average.flags.writeable = False
        opt.copy_average("w", average)
    other, w, g = optimizer("adamw")
    with refused("the optimizer is adamw; expected one that averages weights"):
        other.copy_average("w", w)


def test_first_step_of_adamw_is_what_the_equation_says() -> None:
    opt, w, g = optimizer(lr=0.1, weight_decay=0.5)
    g[:] = 2
    opt.step()
    np.testing.assert_allclose(w, 1 * (1 - 0.1 * 0.5) - 0.1, rtol=1e-6)
    np.testing.assert_allclose(opt.state("w")["exp_avg"], 0.2, rtol=1e-6)
    assert opt.step_count("w") == 1


@pytest.mark.parametrize("recipe", gradus.recipes())
def test_threads_give_the_same_bits(recipe: str) -> None:
    n = 300_001
    results = []
    for threads in (1, 3):
        rng = np.random.default_rng(1)
        w, g = rng.standard_normal(n, np.float32), rng.standard_normal(n, np.float32)
        opt = gradus.Optimizer(recipe, threads=threads)
        opt.add("w", w, g)
        for _ in range(3):
            opt.step(max_grad_norm=1.0)
        results.append(w.tobytes())
    assert results[0] == results[1]


# ── groups, tensors, state ───────────────────────────────────────────────────────────────────────────────────────────


def test_recipes_list_hyperparameters_with_defaults() -> None:
    all_recipes = gradus.recipes()
    assert all_recipes["adamw"] == {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 1e-2}
    assert all_recipes["sgd"]["nesterov"] is False
    for name, numbers in all_recipes.items():
        assert gradus.Optimizer(name).hyperparameters() == numbers
        assert gradus.Optimizer(name, **numbers).recipe == name


def test_groups_have_their_own_hyperparameters() -> None:
    opt = gradus.Optimizer("sgd", lr=0.5)
    slow = opt.add_group(lr=0.25)
    a, b, g = ones(3), ones(3), ones(3)
    opt.add("a", a, g)
    opt.add("b", b, g, group=slow)
    opt.step()
    assert a[0] == 0.5 and b[0] == 0.75
    opt.set_hyperparameters(slow, lr=0.0)
    opt.step()
    assert a[0] == 0.0 and b[0] == 0.75
    assert opt.hyperparameters(slow)["lr"] == 0 and opt.hyperparameters()["lr"] == 0.5
    assert opt.group_count == 2 and len(opt) == 2 and opt.names() == ["a", "b"]
    assert opt.parameter_count == 6 and opt.state_bytes == 0


def test_groups_made_before_the_dtype_is_known_stay() -> None:
    opt = gradus.Optimizer("sgd", lr=0.5, threads=2)
    group = opt.add_group(lr=0.125)
    w = ones(3, dtype=np.float64)
    assert opt.dtype is None
    opt.add("w", w, ones(3, dtype=np.float64), group=group)
    opt.step()
    assert opt.dtype == "float64" and w[0] == 0.875 and opt.threads == 2


def test_state_is_a_view_of_the_parameters_shape() -> None:
    opt = gradus.Optimizer("adam")
    w, g = ones(2, 3), ones(2, 3)
    opt.add("w", w, g)
    opt.step()
    state = opt.state("w")
    assert set(state) == {"exp_avg", "exp_avg_sq"} and state["exp_avg"].shape == (2, 3)
    first = state["exp_avg"].copy()
    opt.step()
    assert not np.array_equal(first, state["exp_avg"])
    state["exp_avg"][:] = 7
    assert np.all(opt.state("w")["exp_avg"] == 7)


@pytest.mark.parametrize("recipe, slots", [("adams", {"exp_avg", "exp_avg_sq"}), ("nadam", {"exp_avg", "exp_avg_sq"}), ("sgd", set())])
def test_state_has_slots_only_in_double_too(recipe: str, slots: set[str]) -> None:
    opt = gradus.Optimizer(recipe)
    opt.add("w", ones(1, dtype=np.float64), ones(1, dtype=np.float64))
    assert set(opt.state("w")) == slots


def test_order_of_dimensions_is_kept() -> None:
    rng = np.random.default_rng(3)
    w, g = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 5))
    turned = np.asfortranarray(w), np.asfortranarray(g)
    plain, fortran = gradus.Optimizer("adamw"), gradus.Optimizer("adamw")
    plain.add("w", w, g)
    fortran.add("w", *turned)
    plain.step()
    fortran.step()
    assert np.array_equal(w, turned[0])
    assert np.array_equal(plain.state("w")["exp_avg"], fortran.state("w")["exp_avg"])


def test_freeze_rebind_remove() -> None:
    opt, w, g = optimizer("sgd", lr=1.0)
    opt.freeze("w")
    opt.step()
    assert w[0] == 1
    opt.unfreeze("w")
    other, other_g = ones(8), ones(8)
    opt.rebind("w", other, other_g)
    opt.step()
    assert w[0] == 1 and other[0] == 0 and opt.step_count("w") == 1
    opt.rebind("w", other)  # without gradients
    opt.step()
    assert other[0] == 0
    with refused("no gradients"):
        opt.unfreeze("w")
    opt.remove("w")
    assert len(opt) == 0 and opt.parameter_count == 0
    opt.add("w", w, g)


def test_tensors_after_a_removed_one_are_still_found() -> None:
    opt, a, b, g = gradus.Optimizer("sgd", lr=1.0), ones(3), ones(4), ones(4)
    opt.add("a", a, ones(3))
    opt.add("b", b, g)
    opt.remove("a")
    opt.freeze("b")
    opt.step()
    assert b[0] == 1 and opt.names() == ["b"]


def test_step_options_and_report() -> None:
    opt, w, g = optimizer("sgd", lr=1.0)
    g[:] = 3
    report = opt.step(max_grad_norm=1.0, grad_scale=0.5)
    assert report.applied and report.grad_norm == pytest.approx(1.5 * 8**0.5)
    assert w[0] == pytest.approx(1 - 1 / 8**0.5)
    assert report.mean_square is None and report.decay_factor is None and not report.decay_clamped
    assert repr(report).startswith("StepReport(applied=True, grad_norm=4.24") and not report.pending
    assert repr(opt.report()) == repr(report) and opt.device == "cpu" and opt.stream == 0
    g[3] = np.nan
    before = w.copy()
    assert not opt.step(skip_nonfinite=True).applied
    assert np.array_equal(w, before)
    g[:] = 1
    opt.step(lr=0.25)
    opt.step(lr_scale=0.25, maximize=True)
    np.testing.assert_allclose(w, before, rtol=1e-6)
    assert opt.step(grad_norm_sq=8.0).grad_norm == pytest.approx(8**0.5)
    adams, _, _ = optimizer("adams", weight_decay=0.1)
    report = adams.step()
    assert report.mean_square is not None and report.decay_factor == pytest.approx(report.mean_square**-0.5)


def test_scalars_and_empty_arrays() -> None:
    opt = gradus.Optimizer("sgd", lr=1.0)
    w = np.array(1.0)
    opt.add("scalar", w, np.array(0.5))
    opt.add("empty", np.empty((0, 3)), np.empty((0, 3)))
    opt.step()
    assert w == 0.5 and opt.state("empty") == {}


def test_float16_has_master_weights() -> None:
    opt, w, g = gradus.Optimizer("sgd", lr=1e-4), ones(4, dtype=np.float16), ones(4, dtype=np.float16)
    opt.add("w", w, g)
    for _ in range(10):
        opt.step()  # each step is too small for float16
    assert w[0] == np.float16(1 - 1e-3)
    np.testing.assert_allclose(opt.state("w")["master"], 1 - 1e-3, rtol=1e-6)
    w[:] = 2
    opt.reset_master("w")
    assert np.all(opt.state("w")["master"] == 2)


def test_other_buffers() -> None:
    opt, w = gradus.Optimizer("sgd", lr=1.0), array.array("d", [1, 2, 3])
    opt.add("w", w, memoryview(array.array("d", [1, 1, 1])))  # type: ignore[arg-type]
    opt.step()
    assert list(w) == [0, 1, 2]


def test_repr_tells_what_it_is() -> None:
    opt, _, _ = optimizer("sgd", lr=0.5, nesterov=True, momentum=0.9)
    assert repr(opt) == ('gradus.Optimizer("sgd", lr=0.5, momentum=0.9, dampening=0.0, nesterov=True, weight_decay=0.0, '
                         "threads=1) of 1 tensors, 8 parameters in float32")
    assert gradus.instruction_set() in ("baseline", "avx2_fma", "avx512", "neon")


def test_everything_public_has_a_docstring() -> None:
    for kind in (gradus.Optimizer, gradus.StepReport, gradus.LoadReport):
        for name, member in inspect.getmembers(kind):
            if not name.startswith("_"):
                assert inspect.getdoc(member), f"{kind.__name__}.{name}"
    assert inspect.getdoc(gradus.Optimizer) and inspect.getdoc(gradus.recipes) and inspect.getdoc(gradus.instruction_set)


# ── lifetimes ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Weak(np.ndarray):
    """Arrays that can be watched."""


def test_arrays_live_while_they_are_bound() -> None:
    def watched(n: int) -> tuple[Any, Any]:
        x = ones(n).view(Weak)
        return x, weakref.ref(x)

    opt = gradus.Optimizer("sgd", lr=1.0)
    w, w_ref = watched(1000)
    g, g_ref = watched(1000)
    opt.add("w", w, g)
    del w, g
    gc.collect()
    assert w_ref() is not None and g_ref() is not None
    opt.step()
    assert w_ref()[0] == 0
    opt.rebind("w", ones(1000), g_ref())
    gc.collect()
    assert w_ref() is None and g_ref() is not None
    del opt
    gc.collect()
    assert g_ref() is None


def test_what_is_refused_holds_no_array() -> None:
    opt, _, _ = optimizer()
    x = ones(3).view(Weak)
    ref = weakref.ref(x)
    with refused("have shape (4,); expected (3,)"):
        opt.add("x", x, ones(4))
    del x
    gc.collect()
    assert ref() is None


def test_state_outlives_the_optimizer_and_blocks_what_would_free_it() -> None:
    opt, _, _ = optimizer("sgd", momentum=0.9)
    opt.step()
    buffer = opt.state("w")["momentum_buffer"]
    with refused("cannot be removed while arrays from state() live", BufferError):
        opt.remove("w")
    with refused("momentum is 0, which frees state", BufferError):
        opt.set_hyperparameters(momentum=0)
    opt.set_hyperparameters(momentum=0.5, lr=0.25)
    del opt
    gc.collect()
    assert buffer.sum() == pytest.approx(0, abs=1e-6) and buffer[0] == -1
    opt, _, _ = optimizer("sgd", momentum=0.9)
    kept = opt.state("w")
    del kept
    opt.set_hyperparameters(momentum=0)
    opt.remove("w")


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Elsewhere:
    """An array on a GPU."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 1)

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("what is on another device is not exported")


def test_arrays_that_do_not_fit_are_refused_with_their_names() -> None:
    opt, w, g = optimizer()
    locked = ones(3)
    locked.flags.writeable = False
    opt.add("locked gradients", ones(3), locked)
    with refused('parameters of tensor "x" are read-only'):
        opt.add("x", locked, ones(3))
    with refused('parameters of tensor "x", of shape (2,), are not contiguous'):
        opt.add("x", ones(4)[::2], ones(2))
    with refused('gradients of tensor "x", of shape (2,), are not contiguous'):
        opt.add("x", ones(2), ones(4)[::-2])
    with refused('gradients of tensor "x", of shape (4,), are not contiguous'):
        opt.add("x", ones(4), np.broadcast_to(np.float32(1), 4))
    with refused('parameters of tensor "x" are float64; expected float32, as the first tensor\'s'):
        opt.add("x", ones(2, dtype=np.float64), ones(2, dtype=np.float64))
    with refused('gradients of tensor "x" are float64; expected float32, as its parameters'):
        opt.add("x", ones(2), ones(2, dtype=np.float64))
    with refused('gradients of tensor "x" have shape (3, 2); expected (2, 3), as its parameters'):
        opt.add("x", ones(2, 3), ones(3, 2))
    with refused("another order of dimensions in memory than its parameters"):
        opt.add("x", ones(2, 3), np.asfortranarray(ones(2, 3)))
    for dtype in (np.int64, np.complex64, np.bool_):
        with refused(f'parameters of tensor "x" are {np.dtype(dtype).name}; expected float32'):
            opt.add("x", ones(2, dtype=dtype), ones(2, dtype=dtype))
    with refused('parameters of tensor "x" are on CUDA 1; expected an array on the CPU'):
        opt.add("x", Elsewhere(), ones(2))
    with refused('gradients of tensor "x" are on CUDA 1; expected an array on the CPU'):
        opt.add("x", ones(2), Elsewhere())

    class Interface:
        """An array that only Numba and the like know."""

        __cuda_array_interface__: dict[str, Any] = {}

    with refused('parameters of tensor "x" are on a CUDA device; expected an array on the CPU, because this package was built without CUDA'):
        opt.add("x", Interface(), ones(2))
    for thing in ([1.0, 2.0], 3.0, "w", None, ones(2, dtype=">f4")):
        with refused('parameters of tensor "x" are of type ', TypeError):
            opt.add("x", thing, ones(2))  # type: ignore[arg-type]
    with refused('name is "w", which another tensor has'):
        opt.add("w", ones(2), ones(2))
    with refused('name is ""'):
        opt.add("", ones(2), ones(2))
    with refused('parameters of tensor "x" overlap the parameters of tensor "w"'):
        opt.add("x", w, ones(8))
    with refused('gradients of tensor "x" overlap its parameters'):
        y = ones(4)
        opt.add("x", y, y)
    with refused("group is 1; expected less than 1"):
        opt.add("x", ones(2), ones(2), group=1)
    with refused('parameters of tensor "w" have shape (9,); expected (8,), as its state'):
        opt.rebind("w", ones(9), ones(9))
    assert opt.names() == ["w", "locked gradients"]
    opt.step()


def test_numbers_and_names_that_do_not_fit_are_refused() -> None:
    with refused('optimizer is "adamx"; expected one of sgd'):
        gradus.Optimizer("adamx")
    with refused('("weight_decay"?)'):
        gradus.Optimizer("adamw", wd=1)
    with refused("beta1 is 1.5; expected"):
        gradus.Optimizer("adamw", beta1=1.5)
    with refused("lr is 'x'; expected a number", TypeError):
        gradus.Optimizer("adamw", lr="x")  # type: ignore[arg-type]
    with refused("threads", ValueError):
        gradus.Optimizer("adamw", threads=5000)
    assert not gradus.has_cuda
    with refused("stream is 5; expected None, because this package was built without CUDA"):
        gradus.Optimizer("adamw", stream=5)
    with refused("the optimizer is on the host"):
        gradus.Optimizer("adamw").set_options()
    opt, w, _ = optimizer()
    for options, part in (({"lr_scale": -1}, "lr_scale is -1"), ({"lr": np.inf}, "lr is inf"), ({"grad_scale": 0}, "grad_scale is 0"),
                          ({"max_grad_norm": np.nan}, "max_grad_norm is"), ({"grad_norm_sq": -1}, "grad_norm_sq is -1"),
                          ({"decay_scale": np.nan}, "decay_scale is"), ({"lr": 1, "lr_scale": 2}, "lr_scale is 2 with lr 1")):
        with refused(part):
            opt.step(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        opt.step(0.5)  # type: ignore[misc]
    with pytest.raises(TypeError):
        opt.step(lr_scle=0.5)  # type: ignore[call-arg]
    for call in (opt.state, opt.freeze, opt.unfreeze, opt.remove, opt.step_count, opt.reset_master):
        with refused('tensor is "nope"'):
            call("nope")
    with refused("has no master weights"):
        opt.reset_master("w")
    with refused("group is 3"):
        opt.hyperparameters(3)
    with refused("hyperparameter of adamw is"):
        opt.set_hyperparameters(momentum=1)
    assert np.all(w == 1)


@pytest.mark.filterwarnings("ignore:nanobind")
def test_an_uninitialised_object_is_refused() -> None:
    opt = gradus.Optimizer.__new__(gradus.Optimizer)
    with pytest.raises((TypeError, RuntimeError)):
        opt.step()


def test_calls_that_meet_another_threads_are_refused() -> None:
    n = 1 << 23
    opt, w, g = gradus.Optimizer("adamw"), ones(n), ones(n)
    opt.add("w", w, g)
    failures: list[str] = []
    done = threading.Event()

    def steps() -> None:
        while not done.is_set():
            try:
                opt.step()
            except RuntimeError as error:
                failures.append(str(error))

    threads = [threading.Thread(target=steps) for _ in range(3)]
    for t in threads:
        t.start()
    for _ in range(200):
        try:
            opt.rebind("w", w, g)
            opt.state("w")
        except RuntimeError as error:
            failures.append(str(error))
        time.sleep(0.001)
    done.set()
    for t in threads:
        t.join()
    assert failures and all("in use by another thread" in f for f in failures)
    assert opt.step().applied


def test_other_threads_run_during_a_step() -> None:
    n = 1 << 24
    opt, w = gradus.Optimizer("adamw"), ones(n)
    opt.add("w", w, ones(n))
    counted, during = 0, 0
    stepping = threading.Event()

    def step() -> None:
        stepping.set()
        for _ in range(5):
            opt.step()
        stepping.clear()

    thread = threading.Thread(target=step)
    thread.start()
    while thread.is_alive():
        counted += 1
        during += stepping.is_set()
        time.sleep(0)
    assert during > 5


def test_keyboard_interrupts_leave_whole_steps() -> None:
    n = 1 << 20
    opt, w, g = gradus.Optimizer("sgd", lr=1.0), np.zeros(n, np.float32), ones(n)
    opt.add("w", w, g)
    with pytest.raises(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        old = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            while True:
                opt.step()
        finally:
            signal.signal(signal.SIGALRM, old)
    assert w[0] < 0 and np.all(w == w[0]) and opt.step_count("w") == -w[0]
    assert opt.step().applied
