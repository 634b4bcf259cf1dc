"""Type hints: mypy --strict accepts the package, and what its users write; and finds their mistakes."""

from __future__ import annotations

import ast
import pathlib
import shutil
import subprocess
import sys

import pytest
from support import ROOT

pytest.importorskip("mypy")

USE = '''
import gradus
import numpy as np

opt = gradus.Optimizer("adams", lr=1e-3, weight_decay=5e-4, threads=2)
g: int = opt.add_group(weight_decay=0.0)
w, dw = np.ones(3, np.float32), np.ones(3, np.float32)
opt.add("w", w, dw, group=g)
r: gradus.StepReport = opt.step(lr_scale=1.0, max_grad_norm=1.0, skip_nonfinite=True)
norm: float | None = r.grad_norm
m = opt.state("w")["exp_avg"].sum()
opt.save("run.safetensors", parameters=True)
names: list[str] = opt.load("run.safetensors").afresh
lr: float = gradus.recipes()["adams"]["lr"]
version: str = gradus.__version__
'''


TORCH_USE = '''
import torch
from gradus.torch import AdamS, RecipeOptimizer, optimizer_class

model = torch.nn.Linear(2, 2)
optimizer: RecipeOptimizer = AdamS(model.parameters(), lr=1e-3, betas=(0.9, 0.99), max_grad_norm=1.0)
other: torch.optim.Optimizer = optimizer
by_name: RecipeOptimizer = optimizer_class("adamw")(model.parameters(), lr=1e-3)
optimizer.step()
loss: float = optimizer.step(lambda: 1.0)
'''


def mypy(*arguments: str, cwd: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={sys.prefix}/mypy_cache", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_mypy_accepts_the_package_and_its_use(tmp_path: pathlib.Path) -> None:
    (tmp_path / "use.py").write_text(USE)
    result = mypy("-p", "gradus")
    assert result.returncode == 0, result.stdout
    result = mypy(str(tmp_path / "use.py"))
    assert result.returncode == 0, result.stdout


def test_mypy_accepts_gradus_torch_and_its_use(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("torch")
    import gradus

    (tmp_path / "use.py").write_text(TORCH_USE)
    result = mypy(str(tmp_path / "use.py"))
    assert result.returncode == 0, result.stdout
    # The code behind the stub.
    shutil.copytree(pathlib.Path(gradus.__file__).parent, tmp_path / "gradus", ignore=shutil.ignore_patterns("torch.pyi"))
    result = mypy("-p", "gradus", cwd=tmp_path)
    assert result.returncode == 0, result.stdout


def test_the_stub_of_gradus_torch_is_what_torch_stub_prints() -> None:
    pytest.importorskip("torch")
    import gradus

    printed = subprocess.run([sys.executable, ROOT / "tools" / "torch_stub.py"], capture_output=True, text=True, check=True).stdout
    assert pathlib.Path(gradus.__file__).with_name("torch.pyi").read_text() == printed


def test_mypy_finds_mistakes(tmp_path: pathlib.Path) -> None:
    mistakes = (('opt.step(lr_scle=1)', 'call-arg'), ('opt.add("v", [1.0], dw)', 'arg-type'), ('opt.step().norm', 'attr-defined'),
                ('gradus.Optimizer("sgd", lr="x")', 'arg-type'), ('opt.save(3)', 'arg-type'), ('x: int = opt.dtype', 'assignment'))
    files = [tmp_path / f"use{k}.py" for k in range(len(mistakes))]
    for file, (line, _) in zip(files, mistakes):
        file.write_text(USE + line)
    said = mypy(*map(str, files)).stdout
    for file, (_, error) in zip(files, mistakes):
        (found,) = [line for line in said.splitlines() if f"{file.name}:" in line and " error: " in line]
        assert found.endswith(f"[{error}]"), said
    assert f"Found {len(files)} errors" in said, said


def test_the_stub_has_what_the_module_has() -> None:
    from gradus import _gradus

    stub = ast.parse(pathlib.Path(_gradus.__file__).with_name("_gradus.pyi").read_text())
    declared = {n.name if not isinstance(n, ast.AnnAssign) else ast.unparse(n.target)
                for n in stub.body if isinstance(n, (ast.ClassDef, ast.FunctionDef, ast.AnnAssign))}
    assert declared == {n for n in dir(_gradus) if not n.startswith("_")}
    for kind in (n for n in stub.body if isinstance(n, ast.ClassDef)):
        members = {n.name for n in kind.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
        assert members == {n for n in dir(getattr(_gradus, kind.name)) if not n.startswith("_")}
