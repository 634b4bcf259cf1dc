"""Measures PyTorch's optimizers on the GPU, with the shapes and method of device.cu.

    python3 bench/device_torch.py [ROUNDS [MODEL.txt]]

A model is a text with a tensor a line, its name and its dimensions. Prints one line that says so if there is no PyTorch, or no GPU that it supports.
"""
import math
import pathlib
import statistics
import sys
import time

try:
    import torch
except ImportError:
    sys.exit(print("device_torch: there is no PyTorch here"))
if not torch.cuda.is_available():
    sys.exit(print("device_torch: PyTorch finds no GPU"))


def seconds(step):
    """The time of one step. Queues as many steps as take a fiftieth of a second, and waits once."""
    n = 1
    while True:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n):
            step()
        torch.cuda.synchronize()
        taken = time.perf_counter() - start
        if taken > 0.02:
            return taken / n
        n *= 2


def shapes_of(model):
    if model:
        return {model.stem: [math.prod(int(d) for d in line.split()[1:]) for line in model.read_text().splitlines()]}
    return {"65536": [1 << 16], "1048576": [1 << 20], "16777216": [1 << 24], "1000x64": [64] * 1000, "1000x1000": [1000] * 1000}


def main(rounds, model=None):
    print("PyTorch", torch.__version__, "on", torch.cuda.get_device_name())
    # The bytes are those of device.cu.
    contenders = [("sgd", "fused", 12), ("sgd", "foreach", 12), ("adamw", "fused", 28), ("adamw", "foreach", 28), ("adamw", "fused, clipped", 32)]
    for shape, sizes in shapes_of(model).items():
        steps = {}
        for name, way, _ in contenders:
            weights = [torch.ones(n, device="cuda", requires_grad=True) for n in sizes]
            for w in weights:
                w.grad = torch.full_like(w, 0.001)
            optimizer = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name](weights, lr=0.001, **{way.split(",")[0]: True})

            def clipped(weights=weights, optimizer=optimizer):
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
            steps[name, way] = clipped if "clipped" in way else optimizer.step
        times = {key: [] for key in steps}
        for _ in range(rounds):
            for key, step in steps.items():
                times[key].append(seconds(step))
        for name, way, size in contenders:
            t = statistics.median(times[name, way])
            print(f"{name:<14} {shape:>10}  {'torch ' + way:<20} {t * 1e6:12.2f} us {size * sum(sizes) / t * 1e-9:9.2f} GB/s")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 9, pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None)
