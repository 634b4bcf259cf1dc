"""Measures a step of AdamW in float32 through C, Python and PyTorch, in one process: bench/python.py PYTHON_STEPS [ROUNDS [THREADS]]

PYTHON_STEPS is the library of python_steps.c. `./dev bench --python` builds it and runs this. Each number is the shortest of
ROUNDS rounds, in which the contenders take turns.
"""

import ctypes
import sys
import time

import gradus
import gradus.torch
import torch

SHAPES = [(1, 16), (1000, 16), (1000, 64), (1000, 1000), (1, 1 << 20), (1, 1 << 24)]


def tensors(count, size):
    made = [torch.nn.Parameter(torch.ones(size)) for _ in range(count)]
    for p in made:
        p.grad = torch.full_like(p, 1e-3)
    return made


def in_c(library, parameters, threads):
    """seconds(steps) of the C library."""
    def pointers(all_of):
        return (ctypes.c_void_p * len(all_of))(*(t.data_ptr() for t in all_of))

    library.adamw_of.restype, library.seconds_of_steps.restype = ctypes.c_void_p, ctypes.c_double
    sizes = (ctypes.c_size_t * len(parameters))(*(p.numel() for p in parameters))
    opt = library.adamw_of(pointers(parameters), pointers([p.grad for p in parameters]), sizes, ctypes.c_size_t(len(parameters)), threads)
    return lambda steps, kept=parameters: library.seconds_of_steps(ctypes.c_void_p(opt), steps)


def of(step):
    def seconds(steps):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return time.perf_counter() - start
    return seconds


def bound(parameters, threads):
    opt = gradus.Optimizer("adamw", threads=threads)
    for k, p in enumerate(parameters):
        opt.add(str(k), p, p.grad)
    return opt.step


def main(path, rounds=15, threads=1):
    torch.set_num_threads(threads)
    library = ctypes.CDLL(path)
    print(f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}, gradus {gradus.__version__} on {gradus.instruction_set()}, {threads} threads; "
          "microseconds a step")
    names = ("C", "Optimizer", "gradus.torch", "torch fused", "torch foreach")
    print("| tensors | " + " | ".join(names) + " | fused / Optimizer | fused / gradus.torch |\n|---|" + "--:|" * (len(names) + 2))
    for count, size in SHAPES:
        contenders = [in_c(library, tensors(count, size), threads), of(bound(tensors(count, size), threads)),
                      of(gradus.torch.AdamW(tensors(count, size)).step),
                      *(of(torch.optim.AdamW(tensors(count, size), **{way: True}).step) for way in ("fused", "foreach"))]
        steps = [max(1, int(0.02 / max(c(1), c(1)))) for c in contenders]
        best = [float("inf")] * len(contenders)
        for _ in range(rounds):
            for k, c in enumerate(contenders):
                best[k] = min(best[k], c(steps[k]) / steps[k] * 1e6)
        print(f"| {count} of {size} | " + " | ".join(f"{x:.2f}" if x < 100 else f"{x:.0f}" for x in best) +
              f" | {best[3] / best[1]:.1f} | {best[3] / best[2]:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
