"""Runs that go from PyTorch to gradus and back agree with PyTorch's own: torch_exchange.py PROGRAM FOLDER [RECORDED]

PROGRAM is torch_exchange.cpp's. With RECORDED, a file is written there instead: what tests/checkpoint.cpp reads.
"""

import array
import itertools
import math
import pathlib
import subprocess
import sys
import traceback
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
try:
    import torch
    import safetensors.torch
    import torch_checkpoint
except ImportError as error:
    print(f"{error}: the exchange with PyTorch is not tested here")
    sys.exit(77)  # skipped

torch.set_num_threads(1)
SHAPES = {"layer.bias": (3,), "layer.weight": (3, 4), "other.weight": (5, 6)}
CASES = {
    "sgd": ("sgd", torch.optim.SGD, dict(lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.01)),
    "sgd_nesterov": ("sgd", torch.optim.SGD, dict(lr=0.05, momentum=0.9, nesterov=True)),
    "sgd_plain": ("sgd", torch.optim.SGD, dict(lr=0.05, weight_decay=0.01)),
    "adam": ("adam", torch.optim.Adam, dict(lr=0.01, weight_decay=0.01)),
    "adamw": ("adamw", torch.optim.AdamW, dict(lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)),
    "amsgrad": ("amsgrad", torch.optim.Adam, dict(lr=0.01, betas=(0.9, 0.9), amsgrad=True)),
    "radam": ("radam", torch.optim.RAdam, dict(lr=0.01, weight_decay=0.01)),
    "radam_decoupled": ("radam", torch.optim.RAdam, dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)),
    "nadam": ("nadam", torch.optim.NAdam, dict(lr=0.01, weight_decay=0.1, momentum_decay=0.01)),
    "nadam_decoupled": ("nadam", torch.optim.NAdam, dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)),
    "adamax": ("adamax", torch.optim.Adamax, dict(lr=0.01, weight_decay=0.1)),
    "adadelta": ("adadelta", torch.optim.Adadelta, dict(lr=0.5, rho=0.8, weight_decay=0.1)),
    "adagrad": ("adagrad", torch.optim.Adagrad, dict(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.1)),
    "rmsprop": ("rmsprop", torch.optim.RMSprop, dict(lr=0.01, weight_decay=0.1)),
    "rmsprop_momentum": ("rmsprop", torch.optim.RMSprop, dict(lr=0.01, alpha=0.9, momentum=0.9)),
    "rmsprop_centered": ("rmsprop", torch.optim.RMSprop, dict(lr=0.01, alpha=0.9, momentum=0.9, centered=True)),
}


class Run:
    """The problem of tests/golden/README.md, with names and shapes; the bias in a group of its own, undecayed."""

    def __init__(self, optimizer, options):
        state = 11

        def draw():
            nonlocal state
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            return (state >> 11) / 9007199254740992.0

        self.parameters, self.coefficients = {}, {}
        for name, shape in SHAPES.items():
            rows = [(-1 + 2 * draw(), 0.1 + 1.9 * draw(), -0.5 + draw()) for _ in range(math.prod(shape))]
            weights = torch.tensor([row[0] for row in rows], dtype=torch.float64).reshape(shape)
            self.parameters[name] = torch.nn.Parameter(weights)
            self.coefficients[name] = rows
        named = {n: self.parameters[n] for n in ("layer.weight", "other.weight", "layer.bias")}
        self.named = named
        self.optimizer = optimizer([{"params": [named["layer.weight"], named["other.weight"]]},
                                    {"params": [named["layer.bias"]], "weight_decay": 0}], foreach=False, **options)

    def go(self, start, end):
        for t in range(start, end):
            for name, p in self.parameters.items():
                g = [a * x + b * math.sin(3 * x + 0.1 * t) for x, (_, a, b) in zip(p.detach().flatten().tolist(), self.coefficients[name])]
                p.grad = torch.tensor(g, dtype=torch.float64).reshape(p.shape)
            self.optimizer.step()

    def difference(self, other):
        """The largest one, relative to 1e-3 + |x|."""
        return max(((a - b).abs() / (1e-3 + b.abs())).max().item()
                   for a, b in ((self.parameters[n].detach(), other.parameters[n].detach()) for n in SHAPES))


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 3:
        run = Run(CASES["amsgrad"][1], CASES["amsgrad"][2])
        run.go(0, 8)
        torch_checkpoint.save(run.optimizer, run.named.items(), sys.argv[3], metadata={"note": "written by Python's safetensors"})
        return 0
    failed = 0
    torch.set_default_dtype(torch.float64)  # NAdam's product of momenta then is in float64, as gradus's is
    for name, (recipe, optimizer, options) in CASES.items():
        def gradus(start, end, source):
            nonzero = ",".join(name for name in ("momentum", "centered") if options.get(name))
            arguments = [recipe, nonzero, source, str(folder / "gradus.safetensors"), str(start), str(end)]
            subprocess.run([program, *arguments], check=True)

        worst = 0.0
        # Stops before and after RAdam begins to rectify, and one before the first step.
        for there, back, end in ((0, 3, 60), (4, 30, 60), (30, 60, 90)):
            whole, run = Run(optimizer, options), Run(optimizer, options)
            run.go(0, there)
            torch_checkpoint.save(run.optimizer, run.named.items(), str(folder / "torch.safetensors"))
            gradus(there, back, str(folder / "torch.safetensors"))
            resumed = Run(optimizer, {**options, "lr": 1.0})  # the file's is what counts
            torch_checkpoint.load(resumed.optimizer, resumed.named.items(), str(folder / "gradus.safetensors"))
            whole.go(0, back)
            worst = max(worst, resumed.difference(whole))
            resumed.go(back, end)
            whole.go(back, end)
            worst = max(worst, resumed.difference(whole))
            # The tool's files, turned over once more, stay what they are.
            torch_checkpoint.save(resumed.optimizer, resumed.named.items(), str(folder / "torch.safetensors"))
            again = Run(optimizer, options)
            torch_checkpoint.load(again.optimizer, again.named.items(), str(folder / "torch.safetensors"))
            again.go(end, end + 5)
            resumed.go(end, end + 5)
            worst = max(worst, again.difference(resumed))
        print(f"{name:16} torch -> gradus -> torch, three round trips: largest difference {worst:.1e}")
        failed += not worst < 1e-12
    torch.set_default_dtype(torch.float32)
    failed += not command_line_agrees(folder)
    for test in (runs_before_the_first_step, names_go_by_identity, files_go_by_names, other_optimizers_are_refused, other_precisions, odd_models):
        try:
            test(program, folder)
            print(f"{test.__name__}: good")
        except Exception:
            traceback.print_exc()
            failed += 1
    return 1 if failed else 0


def command_line_agrees(folder):
    """The tool as a command, on what torch.save wrote, gives the same file, and back the same tensors."""
    run = Run(CASES["amsgrad"][1], CASES["amsgrad"][2])
    run.go(0, 5)
    before = {"optimizer": run.optimizer.state_dict(), "model": run.named, "epoch": 3}
    torch.save(before, folder / "run.pt")
    torch_checkpoint.save(run.optimizer, run.named.items(), str(folder / "torch.safetensors"))
    tool = [sys.executable, "-B", torch_checkpoint.__file__]
    subprocess.run([*tool, "to-gradus", folder / "run.pt", folder / "command.safetensors"], check=True)
    subprocess.run([*tool, "from-gradus", folder / "command.safetensors", folder / "run.pt", folder / "back.pt"], check=True)
    after = torch.load(folder / "back.pt", weights_only=True)
    same = (safetensors.torch.load_file(folder / "torch.safetensors").keys() == safetensors.torch.load_file(folder / "command.safetensors").keys()
            and after["epoch"] == 3 and after["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
            and all(torch.equal(after["model"][n], p) for n, p in run.named.items())
            and all(torch.equal(after["optimizer"]["state"][i][slot], x)
                    for i, state in before["optimizer"]["state"].items() for slot, x in state.items()))
    wrong = subprocess.run([*tool, "to-gradus", folder / "run.pt", folder / "nowhere" / "x"], capture_output=True, text=True)
    print("the command line:", "the same" if same else "DIFFERENT", "-", wrong.stderr.strip().splitlines()[-1])
    return same and wrong.returncode == 1 and "Traceback" not in wrong.stderr


def runs_before_the_first_step(_, folder):
    """Some of PyTorch's optimizers make their state when they are made, others in the first step."""
    path = str(folder / "fresh.safetensors")
    for name, (_, optimizer, options) in CASES.items():
        run, other = Run(optimizer, options), Run(optimizer, {**options, "lr": 1.0})
        torch_checkpoint.save(run.optimizer, run.named.items(), path)
        torch_checkpoint.load(other.optimizer, other.named.items(), path)
        run.go(0, 3)
        other.go(0, 3)
        assert other.difference(run) == 0, name


# ── which name is whose ──────────────────────────────────────────────────────────────────────────────────────────────


def refused(part, call):
    try:
        call()
    except ValueError as error:
        assert part in str(error), f"expected {part!r} in: {error}"
        return
    raise AssertionError(f"expected a refusal with {part!r}")


def warned(part, call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    assert (part is None and not found) or any(part and part in str(w.message) for w in found), [str(w.message) for w in found]
    return result


def stepped(optimizer, steps=3):
    """Takes steps by gradients that differ from parameter to parameter."""
    for t in range(steps):
        for k, p in enumerate(p for g in optimizer.param_groups for p in g["params"]):
            if p.requires_grad:
                p.grad = torch.full_like(p, 1 + k + 0.5 * t)
        optimizer.step()
    return optimizer


def parameters(**shapes):
    return {name: torch.nn.Parameter(torch.full(shape, 1.0 + k)) for k, (name, shape) in enumerate(shapes.items())}


def load_file(path):
    return safetensors.torch.load_file(path)


def names_go_by_identity(_, folder):
    path = str(folder / "identity.safetensors")
    for order in itertools.permutations("abc"):
        for groups in (lambda p: [{"params": p}], lambda p: [{"params": p[:1]}, {"params": p[1:], "lr": 0.5}]):
            for kind, options in ((torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.RAdam, {})):
                model = parameters(a=(3,), b=(3,), c=(3,))
                optimizer = stepped(kind(groups([model[n] for n in order]), lr=0.1, **options))
                torch_checkpoint.save(optimizer, model.items(), path)
                slot = "momentum_buffer" if kind is torch.optim.SGD else "exp_avg"
                for name, p in model.items():
                    assert torch.equal(load_file(path)[f"state/{name}/{slot}"], optimizer.state[p][slot]), (order, name)
                    assert torch.equal(load_file(path)[f"parameters/{name}"], p.detach())
                # Into an optimizer of the same groups, whatever the order in them.
                other = parameters(c=(3,), b=(3,), a=(3,))
                resumed = kind(groups([other[n] for n in (order[0], order[2], order[1])]), lr=7, **options)
                torch_checkpoint.load(resumed, other.items(), path)
                for name, p in other.items():
                    assert torch.equal(resumed.state[p][slot], optimizer.state[model[name]][slot])
                    assert torch.equal(p, model[name])
    model = parameters(a=(3,), b=(3,))
    optimizer = torch.optim.Adam(model.values())
    refused("parameter 1 of group 0, of shape (3,), is none of the named ones",
            lambda: torch_checkpoint.save(optimizer, [("a", model["a"])], path))
    refused("a is the name of two tensors", lambda: torch_checkpoint.save(optimizer, [("a", model["a"]), ("a", model["b"])], path))
    torch_checkpoint.save(optimizer, model, path)
    larger = parameters(a=(4,), b=(3,))
    refused("has 3 elements; expected 4, of shape (4,)", lambda: torch_checkpoint.load(torch.optim.Adam(larger.values()), larger, path))
    more = parameters(a=(3,), b=(3,), c=(3,))
    refused("gradus/group_of/c is missing", lambda: torch_checkpoint.load(torch.optim.Adam(more.values()), more, path))
    fewer = parameters(a=(3,))
    warned("(parameters/b, state/b/exp_avg, state/b/exp_avg_sq, …) are left out",
           lambda: torch_checkpoint.load(torch.optim.Adam(fewer.values()), fewer, path))


def files_go_by_names(_, folder):
    path = str(folder / "names.safetensors")

    def run(names, order, kind=torch.optim.AdamW, named=False, **shapes):
        model = parameters(**shapes)
        given = [(n, model[n]) if named else model[n] for n in order]
        optimizer = stepped(kind(given, lr=0.1))
        state_dict, values = optimizer.state_dict(), {n: p.detach() for n, p in model.items()}
        torch_checkpoint.to_gradus(state_dict, values, path, **names)
        for name in order:
            assert torch.equal(load_file(path)[f"state/{name}/exp_avg"], optimizer.state[model[name]]["exp_avg"].flatten()), name
        fresh, there = torch_checkpoint.from_gradus(path, state_dict, values, **names)
        for index, state in state_dict["state"].items():
            assert torch.equal(fresh["state"][index]["exp_avg"], state["exp_avg"])
        assert all(torch.equal(there[n], values[n]) for n in order)

    same, different = dict(a=(3,), b=(3,)), dict(a=(3,), b=(2, 2), c=(4,))
    # Shapes tell, whatever the order; and the optimizer need not have all.
    for order in ("abc", "cab", "bca", "cb"):
        run({}, order, **different)
    # Where they do not, the optimizer's own names do, or those that are passed.
    refused("parameter 0 of the optimizer of shape (3,) may be any of 2 tensors of the model (a, b); expected one: pass their names",
            lambda: run({}, "ba", **same))
    refused("may be any of 2 tensors", lambda: run({}, "b", **same))
    if "param_names" in torch.optim.AdamW(parameters(a=(3,)).items(), lr=0.1).state_dict()["param_groups"][0]:
        run({}, "ba", named=True, **same)
    run({"names": ["b", "a"]}, "ba", **same)
    run({"in_order": True}, "ab", **same)
    refused("1 different names for 2 parameters", lambda: run({"names": ["b", "b"]}, "ba", **same))
    refused("x, parameter 1 of the optimizer, is not in the model", lambda: run({"names": ["b", "x"]}, "ba", **same))
    refused("the state of parameter 0 has shape (4,), and a (3,)", lambda: run({"names": ["a", "c"]}, "ca", **different))
    refused("the state of parameter 0 has shape (2, 2), and a (3,)", lambda: run({"in_order": True}, "bac", **different))
    refused("the optimizer has 1 parameters and the model 2 tensors", lambda: run({"in_order": True}, "a", **same))
    # Without state there is nothing that tells.
    model = parameters(a=(3,), b=(2,))
    plain = torch.optim.SGD(model.values(), lr=0.1)
    refused("which has no state, may be any of 2", lambda: torch_checkpoint.to_gradus(plain.state_dict(), model, path))

    # As a command, with names in a file.
    model = parameters(a=(3,), b=(3,))
    optimizer = stepped(torch.optim.AdamW([model["b"], model["a"]]))
    torch.save({"optimizer": optimizer.state_dict(), "model": {n: p.detach() for n, p in model.items()}}, folder / "names.pt")
    (folder / "names.txt").write_text("b\na\n")
    command = ["to-gradus", str(folder / "names.pt"), path]
    refused("--in-order", lambda: torch_checkpoint.main(command))
    torch_checkpoint.main([*command, "--names", str(folder / "names.txt")])
    assert torch.equal(load_file(path)["state/a/exp_avg"], optimizer.state[model["a"]]["exp_avg"])


def other_optimizers_are_refused(_, folder):
    path = str(folder / "others.safetensors")

    class Derived(torch.optim.AdamW):
        pass

    class Other(torch.optim.AdamW):
        def step(self, closure=None):
            pass

    tried = 0
    for name in ("ASGD", "Rprop", "SparseAdam", "Adafactor", "Muon", "LBFGS"):
        kind = getattr(torch.optim, name, None)
        if kind is None:
            continue
        tried += 1
        model = parameters(a=(3, 2))
        for options in ({}, {"momentum": 0.9}, {"decoupled_weight_decay": True}):
            try:
                optimizer = kind(model.values(), lr=0.1, **options)
            except (TypeError, ValueError):
                continue
            refused("expected SGD, Adam, AdamW, RAdam, NAdam, Adamax,", lambda: torch_checkpoint.save(optimizer, model, path))
            refused("expected SGD, Adam, AdamW, RAdam, NAdam, Adamax,", lambda: torch_checkpoint.load(optimizer, model, path))
            refused("expected what SGD, Adam, AdamW, RAdam, NAdam, Adamax,", lambda: torch_checkpoint.to_gradus(optimizer.state_dict(), model, path))
    assert tried >= 5
    # Nor by a name that is not theirs: their state says what they are.
    for kind, recipe in ((torch.optim.NAdam, "radam"), (torch.optim.Adamax, "adam"), (torch.optim.RMSprop, "sgd")):
        model = parameters(a=(3,))
        optimizer = stepped(kind(model.values(), lr=0.1))
        for call in (lambda: torch_checkpoint.save(optimizer, model, path, recipe=recipe),
                     lambda: torch_checkpoint.to_gradus(optimizer.state_dict(), model, path, recipe=recipe)):
            try:
                call()
            except ValueError as error:
                assert "the state of parameter 0 has" in str(error) or "has no" in str(error), error
            else:
                raise AssertionError(f"{kind} went through as {recipe}")
    model = parameters(a=(3,))
    refused("maximize is True", lambda: torch_checkpoint.save(torch.optim.Adam(model.values(), maximize=True), model, path))
    refused("AdamW with amsgrad", lambda: torch_checkpoint.save(torch.optim.AdamW(model.values(), amsgrad=True), model, path))
    warned("taken for torch.optim.AdamW, whose step it has", lambda: torch_checkpoint.save(Derived(model.values()), model, path))
    refused("Other; expected SGD", lambda: torch_checkpoint.save(Other(model.values()), model, path))
    warned(None, lambda: torch_checkpoint.save(Other(model.values()), model, path, recipe="adamw"))
    # What is no hyperparameter does not matter, nor does an lr that is a tensor, and it stays one.
    optimizer = torch.optim.Adam([{"params": [model["a"]], "name": "mine"}], lr=torch.tensor(0.25), capturable=False, foreach=False)
    torch.optim.lr_scheduler.StepLR(optimizer, 5)
    torch_checkpoint.save(optimizer, model, path)
    refused("keys of your own", lambda: torch_checkpoint.to_gradus(optimizer.state_dict(), model, path))
    torch_checkpoint.to_gradus(optimizer.state_dict(), model, path, recipe="adam")
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["gradus/group/0/lr"] == "0.25"
    resumed = torch.optim.Adam(model.values(), lr=torch.tensor(0.5))
    torch_checkpoint.load(resumed, model, path)
    lr = resumed.param_groups[0]["lr"]
    assert isinstance(lr, torch.Tensor) and lr.item() == 0.25
    # An older PyTorch's state_dicts do not say which of two they are; Adamax's and RAdam's do by their state.
    for kind, recipe in ((torch.optim.Adamax, "adamax"), (torch.optim.RAdam, "radam"), (torch.optim.NAdam, "nadam")):
        old = stepped(kind(model.values())).state_dict()
        for g in old["param_groups"]:
            g.pop("decoupled_weight_decay", None)
        torch_checkpoint.to_gradus(old, model, path)
        with safetensors.safe_open(path, "pt") as file:
            assert file.metadata()["gradus/recipe"] == recipe
    for kind, keys in ((torch.optim.Adam, "Adam's or AdamW's"), (torch.optim.RAdam, "RAdam's or Adamax's")):
        old = kind(model.values()).state_dict()
        for g in old["param_groups"]:
            g.pop("decoupled_weight_decay", None)
        refused(keys, lambda: torch_checkpoint.to_gradus(old, model, path))
        torch_checkpoint.to_gradus(old, model, path, recipe="radam" if kind is torch.optim.RAdam else "adamw")


# ── other precisions, frozen and tied parameters, buffers ────────────────────────────────────────────────────────────


def other_precisions(program, folder):
    def floats(path):
        numbers = array.array("f")
        numbers.frombytes(path.read_bytes())
        return torch.tensor(numbers, dtype=torch.float32)

    def fresh(dtype=torch.float32):
        model = {"w": torch.nn.Parameter(torch.zeros(7, 100, dtype=dtype)), "b": torch.nn.Parameter(torch.zeros(12, dtype=dtype))}
        return model, torch.optim.Adam(model.values(), amsgrad=True)

    for precision in ("block8", "bfloat16", "master"):
        path = folder / f"{precision}.safetensors"
        subprocess.run([program, precision, path], check=True)
        kinds = {str(x.dtype) for key, x in load_file(path).items() if key.endswith("exp_avg")}
        assert kinds == {{"block8": "torch.uint8", "bfloat16": "torch.bfloat16", "master": "torch.float32"}[precision]}
        model, optimizer = fresh()
        warned(None, lambda: torch_checkpoint.load(optimizer, model.items(), str(path)))
        for name, p in model.items():
            state = optimizer.state[p]
            assert state["step"] == 20
            for slot in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                expected = floats(folder / f"{precision}.safetensors.{name}.{slot}").reshape(p.shape)
                assert torch.equal(state[slot], expected), (precision, name, slot)
                assert expected.abs().max() > 0 and (slot == "exp_avg" or expected.min() >= 0)
            assert (state["exp_avg"] < 0).any()
            kept = "state/{}/master" if precision == "master" else "parameters/{}"
            assert torch.equal(p.detach().flatten(), load_file(path)[kept.format(name)])
        stepped(optimizer)
        # What goes back has no codes and no master weights.
        torch_checkpoint.save(optimizer, model.items(), str(folder / "back.safetensors"))
        assert {x.dtype for x in load_file(folder / "back.safetensors").values()} == {torch.float32, torch.uint64}
    # Every code that there is, against what it stands for.
    for signed in (False, True):
        table = torch_checkpoint.dynamic_map(signed)
        assert table[0] == 0 and table[127 if signed else 255] == 1 and len(table.unique()) == (255 if signed else 256)
        codes = torch.arange(600) % 256
        decoded = torch_checkpoint.decode(codes.to(torch.uint8), torch.tensor([2.0, 0.0, 4.0]), signed)
        assert decoded[:256].eq(2 * table).all() and decoded[256:512].eq(0).all() and decoded[512:].eq(4 * table[:88]).all()
    # Parameters as short as the file's keep those; the master weights are lost, and that is said.
    model, optimizer = fresh(torch.bfloat16)
    path = str(folder / "master.safetensors")
    warned("the master weights of 2 tensors (w, …) are left out", lambda: torch_checkpoint.load(optimizer, model.items(), path))
    assert torch.equal(model["w"].detach().flatten(), load_file(path)["parameters/w"])
    # Codes without their scales, or with too few.
    tensors = load_file(folder / "block8.safetensors")
    with safetensors.safe_open(folder / "block8.safetensors", "pt") as file:
        metadata = file.metadata()
    for scales in (None, torch.ones(2)):
        broken = {k: x for k, x in tensors.items() if k != "state/w/exp_avg_scale"} | ({"state/w/exp_avg_scale": scales} if scales is not None else {})
        safetensors.torch.save_file(broken, folder / "broken.safetensors", metadata)
        model, optimizer = fresh()
        refused("expected a scale for each 256 of them in state/w/exp_avg_scale",
                lambda: torch_checkpoint.load(optimizer, model.items(), str(folder / "broken.safetensors")))
        assert not optimizer.state and model["w"].eq(0).all()


class Odd(torch.nn.Module):
    """Tied weights, buffers and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.frozen = torch.nn.Linear(3, 3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.head(self.frozen(self.norm(self.embedding(x))))


def odd_models(_, folder):
    path = str(folder / "odd.safetensors")

    def made(parameters_of):
        torch.manual_seed(3)
        model = Odd()
        return model, torch.optim.AdamW(parameters_of(model), lr=0.01)

    def go(model, optimizer, start, end):
        for t in range(start, end):
            optimizer.zero_grad()
            model(torch.tensor([t % 5, (t + 1) % 5, (2 * t) % 5])).square().sum().backward()
            optimizer.step()

    all_of = lambda m: m.parameters()
    trained = lambda m: [p for p in m.parameters() if p.requires_grad]
    names = {"embedding.weight", "norm.weight", "norm.bias"}
    for parameters_of, expected in ((all_of, names | {"frozen.weight", "frozen.bias"}), (trained, names)):
        for named in (lambda m: m.named_parameters(), lambda m: m.named_parameters(remove_duplicate=False)):
            model, optimizer = made(parameters_of)
            go(model, optimizer, 0, 5)
            torch_checkpoint.save(optimizer, named(model), path)
            file = load_file(path)
            assert {key.removeprefix("parameters/") for key in file if key.startswith("parameters/")} == expected
            with safetensors.safe_open(path, "pt") as opened:
                frozen = {key for key in opened.metadata() if key.startswith("gradus/frozen/")}
            assert frozen == {f"gradus/frozen/{n}" for n in expected - names}
            resumed, other = made(parameters_of)
            resumed.norm.load_state_dict(model.norm.state_dict())  # buffers are the model's, not the optimizer's
            warned(None, lambda: torch_checkpoint.load(other, named(resumed), path))
            assert resumed.head.weight is resumed.embedding.weight
            go(model, optimizer, 5, 9)
            go(resumed, other, 5, 9)
            assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), resumed.state_dict().values()))
    # From files: tied weights count once, and buffers not at all; where a tensor is frozen, names are needed.
    model, optimizer = made(trained)
    go(model, optimizer, 0, 5)
    torch.save({"optimizer": optimizer.state_dict(), "model": model.state_dict()}, folder / "odd.pt")
    run = torch.load(folder / "odd.pt", weights_only=True)
    refused("the optimizer has 3 parameters and the model 5 tensors", lambda: torch_checkpoint.to_gradus(run["optimizer"], run["model"], path, in_order=True))
    by_name = {"names": ["embedding.weight", "norm.weight", "norm.bias"]}
    torch_checkpoint.to_gradus(run["optimizer"], run["model"], path, **by_name)
    assert torch.equal(load_file(path)["state/norm.bias/exp_avg"], optimizer.state[model.norm.bias]["exp_avg"])
    model, optimizer = made(all_of)
    model.requires_grad_(True)
    go(model, optimizer, 0, 5)
    torch.save({"optimizer": optimizer.state_dict(), "model": model.state_dict()}, folder / "odd.pt")
    torch_checkpoint.main(["to-gradus", str(folder / "odd.pt"), path, "--in-order"])
    assert torch.equal(load_file(path)["state/frozen.bias/exp_avg"], optimizer.state[model.frozen.bias]["exp_avg"])
    torch_checkpoint.main(["from-gradus", path, str(folder / "odd.pt"), str(folder / "odd_back.pt"), "--in-order"])
    back = torch.load(folder / "odd_back.pt", weights_only=True)
    assert all(torch.equal(x, model.state_dict()[n]) for n, x in back["model"].items())
    assert back["model"]["head.weight"].data_ptr() == back["model"]["embedding.weight"].data_ptr()


if __name__ == "__main__":
    sys.exit(main())
