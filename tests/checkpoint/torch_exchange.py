"""Runs that go from PyTorch to gradus and back agree with PyTorch's own: torch_exchange.py PROGRAM FOLDER [RECORDED]

PROGRAM is torch_exchange.cpp's. With RECORDED, a file is written there instead: what tests/checkpoint.cpp reads.
"""

import math
import pathlib
import subprocess
import sys

try:
    import torch
    import safetensors.torch
except ImportError as error:
    print(f"{error}: the exchange with PyTorch is not tested here")
    sys.exit(0)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import torch_checkpoint

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
    for name, (recipe, optimizer, options) in CASES.items():
        def gradus(start, end, source):
            arguments = [recipe, str(options.get("momentum", 0)), source, str(folder / "gradus.safetensors"), str(start), str(end)]
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
    failed += not command_line_agrees(folder)
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


sys.exit(main())
