"""Records muon.txt from torch.optim.Muon (README.md): python3 muon.py > muon.txt, with PyTorch 2.9 or later.

PyTorch runs Newton–Schulz in bfloat16. All cases but muon_bfloat16 have it run in double: PyTorch's own function with this
one word replaced."""

import inspect
import math

import torch
from torch.optim import _muon

import problem

SEED, SHAPES, STEPS, DROPS = 12, [(4, 6), (6, 4), (5, 5), (3,)], 60, (40, 50)
CASES = [
    ("muon", {}),
    ("muon_plain", {"nesterov": False}),
    ("muon_match_rms_adamw", {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3}),
    ("muon_bfloat16", {}),
]


def tensors_of_problem():
    made = problem.rows(SEED, [math.prod(shape) for shape in SHAPES])
    return [[torch.tensor(column, dtype=torch.float64).reshape(shape) for column in zip(*rows)] for rows, shape in zip(made, SHAPES)]


def record(name, options):
    original = _muon._zeropower_via_newtonschulz
    if name != "muon_bfloat16":
        source = inspect.getsource(original)
        assert source.count("torch.bfloat16") == 1
        scope = dict(vars(_muon))
        exec(source.replace("torch.bfloat16", "torch.float64"), scope)
        _muon._zeropower_via_newtonschulz = scope["_zeropower_via_newtonschulz"]
    try:
        tensors = tensors_of_problem()
        weights = [torch.nn.Parameter(theta) for theta, _, _ in tensors]
        lr, decay, momentum = 0.02, 0.1, 0.9
        muon = torch.optim.Muon(weights[:-1], lr=lr, weight_decay=decay, momentum=momentum, **options)
        adamw = torch.optim.AdamW(weights[-1:], lr=lr, weight_decay=0)
        print(f'case {name} oracle "torch.optim.Muon and AdamW" lr={lr} weight_decay={decay} momentum={momentum} '
              f'nesterov={int(options.get("nesterov", True))} ns_steps={options.get("ns_steps", 5)} '
              f'match_rms_adamw={int("adjust_lr_fn" in options)}')
        for t in range(1, STEPS + 1):
            for optimizer in muon, adamw:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.1 if t in DROPS else 1
            for weight, (_, a, b) in zip(weights, tensors):
                theta = weight.detach()
                weight.grad = a * theta + b * torch.sin(3 * theta + 0.1 * t)
            muon.step()
            adamw.step()
            if t <= 3 or t % 10 == 0:
                print("at", t, *(float(x).hex() for weight in weights for x in weight.detach().flatten()))
    finally:
        _muon._zeropower_via_newtonschulz = original


print("problem seed", SEED, "sizes", ",".join(str(math.prod(shape)) for shape in SHAPES), "steps", STEPS, "drops",
      ",".join(map(str, DROPS)))
for case in CASES:
    record(*case)
