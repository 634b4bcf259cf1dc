"""Recipes of one's own in Python: the page's warm, and mine::believing (run.py here installs the package with them)."""

from __future__ import annotations

import contextlib
import copy
import pathlib
import pickle
import re
from collections.abc import Iterator
from typing import Any

import gradus
import numpy as np
import pytest


@contextlib.contextmanager
def refused(part: str) -> Iterator[None]:
    with pytest.raises(ValueError, match=re.escape(part)):
        yield


def gradient(w: Any, t: int) -> Any:
    return 0.5 * w + np.cos(0.11 * np.arange(w.size) + 0.3 * t)


def warm(steps: int, lr: float, inertia: float, warmth: float, weight_decay: float) -> Any:
    """The recipe as a plain loop."""
    w = np.sin(0.37 * np.arange(1000))
    m, v, product = np.zeros_like(w), np.zeros_like(w), 1.0
    for t in range(1, steps + 1):
        g = gradient(w, t)
        beta = inertia * (1 - warmth**t)
        product *= beta
        m = beta * m + (1 - beta) * g
        v = 0.999 * v + 0.001 * g * g
        w = w - lr * weight_decay * w - lr * m / (1 - product) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


NUMBERS = {"lr": 0.01, "inertia": 0.9, "warmth": 0.7, "weight_decay": 0.1}


def made(**numbers: float) -> tuple[Any, Any, Any]:
    w = np.sin(0.37 * np.arange(1000))
    g = np.zeros_like(w)
    opt = gradus.Optimizer("warm", **numbers)
    opt.add("w", w, g)
    return opt, w, g


def go(opt: Any, w: Any, g: Any, start: int, end: int) -> None:
    for t in range(start, end):
        g[:] = gradient(w, t)
        opt.step()


def test_names_defaults_and_ranges() -> None:
    assert gradus.recipes() == {
        "sgd": gradus.recipes()["sgd"], "adamw": gradus.recipes()["adamw"], "warm": {"lr": 1e-3, "inertia": 0.95, "warmth": 0.5, "weight_decay": 1e-2},
        "believing": {"lr": 1e-3, "alpha": 0.25, "plain": False, "beta2": 0.99, "weight_decay": 1e-2}}
    assert gradus.recipes()["believing"]["plain"] is False
    with refused("warmth is 1.5; expected a number in [0, 1)"):
        gradus.Optimizer("warm", warmth=1.5)
    with refused("plain is 1 and alpha is 1; expected alpha below 1"):
        gradus.Optimizer("believing", plain=True, alpha=1)
    with refused('hyperparameter of warm is "beta1"; expected one of lr, inertia, warmth, weight_decay'):
        gradus.Optimizer("warm", beta1=0.9)
    with refused("expected one of sgd, adamw, warm, believing"):
        gradus.Optimizer("adam")
    opt, _, _ = made()
    with refused("inertia is -1; expected a number in [0, 1)"):
        opt.set_hyperparameters(inertia=-1)
    assert opt.hyperparameters() == gradus.recipes()["warm"]


def test_steps_state_and_checkpoints(tmp_path: pathlib.Path) -> None:
    opt, w, g = made(**NUMBERS)
    go(opt, w, g, 1, 16)
    opt.save(tmp_path / "own.safetensors", parameters=True)
    resumed, w2, g2 = made()
    resumed.load(tmp_path / "own.safetensors")
    assert resumed.hyperparameters() == NUMBERS
    copied = pickle.loads(pickle.dumps(opt))
    assert copied.recipe == "warm" and np.array_equal(copied.state("w")["warm_avg"], opt.state("w")["warm_avg"])
    go(opt, w, g, 16, 31)
    go(resumed, w2, g2, 16, 31)
    assert np.array_equal(w, w2)
    assert np.abs(w - warm(30, **NUMBERS)).max() < 1e-12
    assert set(opt.state("w")) == {"warm_avg", "exp_avg_sq"}
    other = gradus.Optimizer("adamw")
    other.add("w", w, g)
    with refused("warm"):
        other.load(tmp_path / "own.safetensors")


def test_a_scheduled_decay_reports() -> None:
    w = np.ones(1000, np.float32)
    opt = gradus.Optimizer("believing", plain=True)
    opt.add("w", w, w.copy())
    report = opt.step()
    assert report.mean_square is not None and report.decay_factor is not None and (w < 1).all()
    assert opt.hyperparameters()["plain"] is True
    assert set(opt.state("w")) == {"trace", "exp_avg_var"}


def test_gradus_torch_has_its_class() -> None:
    torch = pytest.importorskip("torch")
    import gradus.torch

    kind = gradus.torch.optimizer_class("warm")
    assert kind is gradus.torch.Warm and set(gradus.torch.__all__[2:]) == {"SGD", "AdamW", "Warm", "Believing"}
    p = torch.nn.Parameter(torch.from_numpy(np.sin(0.37 * np.arange(1000))))
    optimizer = kind([p], **NUMBERS)

    def train(p: Any, optimizer: Any, start: int, end: int) -> None:
        for t in range(start, end):
            p.grad = torch.from_numpy(gradient(p.detach().numpy(), t))
            optimizer.step()

    train(p, optimizer, 1, 16)
    assert set(optimizer.state[p]) == {"step", "warm_avg", "exp_avg_sq", "beta_product"}
    q = copy.deepcopy(p)
    other = kind([q])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(p, optimizer, 16, 31)
    train(q, other, 16, 31)
    assert torch.equal(p, q) and np.abs(p.detach().numpy() - warm(30, **NUMBERS)).max() < 1e-12
    with refused("warmth is 2; expected a number in [0, 1)"):
        kind([p], warmth=2)
