"""Fits a small network to a noisy sine with three optimizers of gradus, and draws their losses: line.py [PICTURE]

    pip install ./bindings/python matplotlib
"""

import sys

import gradus
import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402


def losses(recipe, steps=500, **numbers):
    """The mean square error, step by step."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, (256, 1))
    y = np.sin(2 * x) + 0.05 * rng.standard_normal(x.shape)
    w = {"w1": rng.standard_normal((1, 32)), "b1": rng.standard_normal(32), "w2": rng.standard_normal((32, 1)) / 6, "b2": np.zeros(1)}

    g = {name: np.zeros_like(value) for name, value in w.items()}
    opt = gradus.Optimizer(recipe, **numbers)
    for name in w:
        opt.add(name, w[name], g[name])  # views: steps change w
    found = []
    for t in range(steps):
        h = np.tanh(x @ w["w1"] + w["b1"])
        d = 2 * (h @ w["w2"] + w["b2"] - y) / len(x)
        dh = d @ w["w2"].T * (1 - h * h)
        g["w2"][:], g["b2"][:], g["w1"][:], g["b1"][:] = h.T @ d, d.sum(0), x.T @ dh, dh.sum(0)
        opt.step(lr_scale=min(1, 2 * (1 - t / steps)), max_grad_norm=1.0)
        found.append(float((d * d).sum() * len(x) / 4))
    return found


if __name__ == "__main__":
    for recipe, lr in (("sgd", 0.1), ("adamw", 0.01), ("adams", 0.01)):
        curve = losses(recipe, lr=lr)
        print(f"{recipe:6} {curve[0]:.4f} -> {curve[-1]:.4f}")
        pyplot.semilogy(curve, label=f"{recipe}, lr {lr}")
    pyplot.xlabel("step")
    pyplot.ylabel("mean square error")
    pyplot.legend()
    pyplot.savefig(sys.argv[1] if len(sys.argv) > 1 else "line.svg")
