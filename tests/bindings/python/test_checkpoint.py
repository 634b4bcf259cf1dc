"""Checkpoints and pickling: to the bit, between C and Python too; files that do not fit are refused."""

from __future__ import annotations

import copy
import os
import pathlib
import pickle
import subprocess
from typing import Any

import gradus
import numpy as np
import pytest
from support import refused

PROGRAM = os.environ.get("GRADUS_EXCHANGE", "")
in_c = pytest.mark.skipif(not PROGRAM, reason="GRADUS_EXCHANGE names no program: exchange.c is not compiled")


class Run:
    """What exchange.c does."""

    def __init__(self, recipe: str, dtype: Any = np.float32, load: pathlib.Path | None = None):
        self.w = ((np.arange(42) % 13 - 6) / 8).astype(dtype)
        self.g = np.zeros_like(self.w)
        self.opt = gradus.Optimizer(recipe, lr=0.01)
        group = self.opt.add_group(lr=0.02)
        self.opt.add("a", self.w[:37], self.g[:37])
        self.opt.add("b/c", self.w[37:], self.g[37:], group=group)
        if load:
            self.opt.load(load)

    def go(self, start: int, end: int) -> "Run":
        for t in range(start, end):
            self.g[:] = self.w * self.w.dtype.type(0.25) + ((7 * np.arange(42) + 3 * t) % 11 - 5) / 64
            self.opt.step()
        return self

    def bits(self) -> bytes:
        return self.w.tobytes() + self.opt.dumps()


def go_in_c(recipe: str, dtype: str, start: int, end: int, load: Any, save: pathlib.Path) -> None:
    subprocess.run([PROGRAM, recipe, dtype, str(start), str(end), str(load), str(save)], check=True)


@pytest.mark.parametrize("recipe", gradus.recipes())
def test_resumed_runs_have_the_same_bits(recipe: str, tmp_path: pathlib.Path) -> None:
    for dtype in (np.float32, np.float64, np.float16):
        whole = Run(recipe, dtype).go(0, 20)
        stopped = Run(recipe, dtype).go(0, 11)
        stopped.opt.save(tmp_path / "run.safetensors", parameters=True)
        assert Run(recipe, dtype, tmp_path / "run.safetensors").go(11, 20).bits() == whole.bits()


@in_c
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("recipe", gradus.recipes())
def test_runs_go_to_c_and_back(recipe: str, dtype: str, tmp_path: pathlib.Path) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    whole = Run(recipe, dtype).go(0, 30)
    go_in_c(recipe, dtype, 0, 10, "-", a)
    there = Run(recipe, dtype, a).go(10, 20)
    there.opt.save(b, parameters=True)
    go_in_c(recipe, dtype, 20, 30, b, a)
    assert Run(recipe, dtype, a).bits() == whole.bits()
    whole.opt.save(b, parameters=True)
    assert a.read_bytes() == b.read_bytes()


def test_pickles_and_copies_go_on_with_the_same_bits() -> None:
    whole = Run("adams").go(0, 20)
    for again in (lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy):
        run = Run("adams").go(0, 11)
        copied: Run = again(run)
        assert repr(copied.opt) == repr(run.opt) and copied.opt.hyperparameters(1)["lr"] == 0.02
        run.go(11, 20)  # the copy has arrays of its own
        assert run.bits() == whole.bits()
        # Views of one array are pickled as arrays of their own, so the parts are bound anew.
        copied.opt.rebind("a", copied.w[:37], copied.g[:37])
        copied.opt.rebind("b/c", copied.w[37:], copied.g[37:])
        assert copied.go(11, 20).bits() == whole.bits()


def test_pickled_arrays_stay_shared() -> None:
    w, g = np.ones(3), np.ones(3)
    opt = gradus.Optimizer("sgd", lr=1.0)
    opt.add("w", w, g)
    opt.add("frozen", np.ones(2))
    opt.freeze("w")
    opt2, w2 = pickle.loads(pickle.dumps((opt, w)))
    opt2.step()
    assert w2[0] == 1
    opt2.unfreeze("w")
    opt2.step()
    assert w2[0] == 0 and w[0] == 1


def test_metadata_and_reports(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "über.safetensors"
    run = Run("adamw").go(0, 3)
    run.opt.save(str(path), metadata={"epoch": "3", "naïve": "yes"})
    other = Run("adamw")
    report = other.opt.load(path)
    assert report.metadata == {"epoch": "3", "naïve": "yes"} and report.differences == [] and report.settings and not report.parameters
    assert other.opt.dumps() == run.opt.dumps()
    adams = Run("adams")
    with refused("differ in"):
        adams.opt.load(path)
    lenient = adams.opt.load(path, lenient=True)
    assert any("adams" in d for d in lenient.differences) and lenient.afresh == []
    assert np.array_equal(adams.opt.state("a")["exp_avg"], run.opt.state("a")["exp_avg"])
    double = Run("adamw", np.float64)
    with refused("F32"):
        double.opt.load(path)
    double.opt.load(path, convert=True)
    assert np.array_equal(double.opt.state("a")["exp_avg"], run.opt.state("a")["exp_avg"])
    run.opt.set_hyperparameters(lr=0.5)
    run.opt.load(path, settings=False)
    assert run.opt.hyperparameters()["lr"] == 0.5


def test_files_that_do_not_fit_are_refused_and_change_nothing(tmp_path: pathlib.Path) -> None:
    run = Run("adamw").go(0, 3)
    before = run.bits()
    with refused("No such file", OSError):
        run.opt.load(tmp_path / "nowhere")
    with refused("nowhere", OSError):
        run.opt.save(tmp_path / "nowhere" / "x")
    good = run.opt.dumps(parameters=True)
    for damaged in (b"", b"x", good[:-1], good[:100], b"\xff" * 8 + good[8:], good[:8] + b"[" + good[9:]):
        with refused("checkpoint"):
            run.opt.loads(damaged)
    with pytest.raises(TypeError):
        run.opt.load(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        run.opt.loads("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        run.opt.load("a\0b")
    with pytest.raises(TypeError):
        run.opt.dumps(metadata={"a": 1})  # type: ignore[dict-item]
    assert run.bits() == before


def test_pickles_that_were_tampered_with_are_refused() -> None:
    good = Run("adamw").go(0, 3).opt.__getstate__()
    tensor = good[3][0]  # type: ignore[index]
    for k, bad in ((0, "nope"), (0, 1), (1, -1), (1, "x"), (2, []), (2, [1]), (2, [{"lr": "x"}]), (2, None), (3, None), (3, [1]), (3, [(1, 2)]),
                   (3, [tensor, tensor]), (3, [("a", [1.0], None, 0)]), (3, [tensor[:3] + (9,)]), (4, b""), (4, "x"), (4, good[4][:-1])):  # type: ignore[index]
        with pytest.raises((ValueError, TypeError)):
            gradus.Optimizer.__new__(gradus.Optimizer).__setstate__((*good[:k], bad, *good[k + 1:]))
    for short in ((), good[:4], (*good, 1)):
        with refused("the state is not what a pickled optimizer has"):
            gradus.Optimizer.__new__(gradus.Optimizer).__setstate__(short)
    again = gradus.Optimizer.__new__(gradus.Optimizer)
    again.__setstate__(good)
    assert again.names() == ["a", "b/c"]


@pytest.mark.filterwarnings("ignore:nanobind")
def test_an_optimizer_is_made_once() -> None:
    run = Run("adamw").go(0, 3)
    before = run.bits()
    with pytest.raises(TypeError):
        run.opt.__init__("sgd")  # type: ignore[misc]
    with pytest.raises(TypeError):
        run.opt.__setstate__(run.opt.__getstate__())
    assert run.bits() == before
