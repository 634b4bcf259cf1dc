"""Fits a small network to a noisy sine: JAX computes the gradients, gradus takes the steps, and Optax's Adam is compared with.

    pip install ./bindings/python jax optax

JAX's arrays are never written to, so the weights are NumPy's, which JAX reads. Its gradients are new arrays at each step; gradus
views them through DLPack. It copies neither.
"""

import gradus
import jax
import numpy as np
import optax


def problem():
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, (256, 1)).astype(np.float32)
    y = (np.sin(2 * x) + 0.05 * rng.standard_normal(x.shape)).astype(np.float32)
    w = {"w1": rng.standard_normal((1, 32)), "b1": rng.standard_normal(32), "w2": rng.standard_normal((32, 1)) / 6, "b2": np.zeros(1)}
    return x, y, {name: value.astype(np.float32) for name, value in w.items()}


def loss(w, x, y):
    h = jax.numpy.tanh(x @ w["w1"] + w["b1"])
    return ((h @ w["w2"] + w["b2"] - y) ** 2).mean()


value_and_grad = jax.jit(jax.value_and_grad(loss))


def with_gradus(recipe, steps=300, **numbers):
    """The losses, step by step."""
    x, y, w = problem()
    opt = gradus.Optimizer(recipe, **numbers)
    for name in w:
        opt.add(name, w[name])  # no gradients yet
    found = []
    for _ in range(steps):
        value, g = jax.block_until_ready(value_and_grad(w, x, y))  # JAX has read w when it is ready: steps may write to it
        for name in w:
            opt.rebind(name, w[name], g[name])
        opt.step()
        found.append(float(value))
    return found


def with_optax(transform, steps=300):
    """The same with one of Optax's optimizers."""
    x, y, w = problem()
    state = transform.init(w)
    found = []
    for _ in range(steps):
        value, g = value_and_grad(w, x, y)
        updates, state = transform.update(g, state, w)
        w = optax.apply_updates(w, updates)
        found.append(float(value))
    return found


if __name__ == "__main__":
    curves = {"gradus adam": with_gradus("adam", lr=0.01), "optax adam": with_optax(optax.adam(0.01)), "gradus adams": with_gradus("adams", lr=0.01)}
    for name, curve in curves.items():
        print(f"{name:12} {curve[0]:.4f} -> {curve[-1]:.4f}")
    same = max(abs(a - b) for a, b in zip(curves["gradus adam"], curves["optax adam"]))
    print(f"largest difference between the losses of the two Adams: {same:.1e}")
