"""Measures PyTorch's optimizers on the GPU, with the shapes and method of device.cu.

    python3 bench/device_torch.py [ROUNDS]

Prints one line that says so if there is no PyTorch, or no GPU that it supports.
"""
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


def main(rounds):
    print("PyTorch", torch.__version__, "on", torch.cuda.get_device_name())
    optimizers = {"sgd": (torch.optim.SGD, 12), "adamw": (torch.optim.AdamW, 28)}
    shapes = [("65536", 1, 1 << 16), ("1048576", 1, 1 << 20), ("16777216", 1, 1 << 24), ("1000x64", 1000, 64), ("1000x1000", 1000, 1000)]
    for shape, tensors, n in shapes:
        for name, (optimizer, size) in optimizers.items():
            steps = {}
            for way in "fused", "foreach":
                weights = [torch.ones(n, device="cuda", requires_grad=True) for _ in range(tensors)]
                for w in weights:
                    w.grad = torch.full_like(w, 0.001)
                steps[way] = optimizer(weights, lr=0.001, **{way: True}).step
            if name == "adamw":
                def clip_and_step(weights=weights, step=torch.optim.AdamW(weights, lr=0.001, fused=True).step):
                    torch.nn.utils.clip_grad_norm_(weights, 1)
                    step()
                steps["fused, clip"] = clip_and_step
            times = {way: [] for way in steps}
            for _ in range(rounds):
                for way, step in steps.items():
                    times[way].append(seconds(step))
            for way in steps:
                t = statistics.median(times[way])
                print(f"{name:<10} {shape:>10}  {'torch ' + way:<16} {t * 1e6:12.2f} us {size * tensors * n / t * 1e-9:9.2f} GB/s")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
