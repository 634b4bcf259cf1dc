"""Fits a small network to a noisy sine on a GPU: CuPy computes the gradients, and gradus takes the steps on CuPy's stream.

    pip install cupy-cuda13x
    pip install ./bindings/python --config-settings=cmake.define.GRADUS_CUDA=ON

Ends with one line that says so where CuPy, a GPU or CUDA in gradus is missing.
"""

import sys

import gradus

try:
    import cupy
except ImportError:
    cupy = None


def leave_out(why):
    print(f"cupy_line: left out, as {why}")
    sys.exit()


def gpu_count():
    try:
        return cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver
        return 0


def losses(recipe, steps=500, **numbers):
    """The mean square error, step by step."""
    rng = cupy.random.default_rng(1)
    x = rng.random((256, 1)) * 6 - 3
    y = cupy.sin(2 * x) + 0.05 * rng.standard_normal(x.shape)
    w = {"w1": rng.standard_normal((1, 32)), "b1": rng.standard_normal(32), "w2": rng.standard_normal((32, 1)) / 6, "b2": cupy.zeros(1)}

    g = {name: cupy.zeros_like(value) for name, value in w.items()}
    with cupy.cuda.Stream() as stream:
        opt = gradus.Optimizer(recipe, stream=stream, **numbers)
        for name in w:
            opt.add(name, w[name], g[name])  # views: steps change w
        found = []
        for t in range(steps):
            h = cupy.tanh(x @ w["w1"] + w["b1"])
            d = 2 * (h @ w["w2"] + w["b2"] - y) / len(x)
            dh = d @ w["w2"].T * (1 - h * h)
            g["w2"][:], g["b2"][:], g["w1"][:], g["b1"][:] = h.T @ d, d.sum(0), x.T @ dh, dh.sum(0)
            opt.step(lr_scale=min(1, 2 * (1 - t / steps)), max_grad_norm=1.0)  # enqueued, and not waited for
            found.append((d * d).sum() * len(x) / 4)
        moments = cupy.from_dlpack(opt.state("w1")["exp_avg"]) if recipe != "sgd" else None  # a view of the state
        if moments is not None and not cupy.isfinite(moments).all():
            sys.exit("cupy_line: the state is not finite")
        return [float(x) for x in found]


if __name__ == "__main__":
    if not gradus.has_cuda:
        leave_out("gradus was built without CUDA")
    if cupy is None:
        leave_out("CuPy is not installed")
    if gpu_count() == 0:
        leave_out("there is no GPU")
    for recipe, lr in (("sgd", 0.1), ("adamw", 0.01), ("adams", 0.01)):
        curve = losses(recipe, lr=lr)
        print(f"{recipe:6} {curve[0]:.4f} -> {curve[-1]:.4f}")
