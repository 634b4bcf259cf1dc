"""The pages' code runs as it stands, and so do the examples."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from support import ROOT

PAGES = {path: re.findall(r"^```python\n(.*?)^```", (ROOT / path).read_text(), re.S | re.M) for path in ("docs/python.md", "bindings/python/README.md")}
BLOCKS = [pytest.param(block, id=f"{pathlib.Path(path).stem}-{k}") for path, blocks in PAGES.items() for k, block in enumerate(blocks)]


def test_pages_have_code() -> None:
    assert all(PAGES.values())


@pytest.mark.parametrize("block", BLOCKS)
def test_code_of_pages(block: str, tmp_path: pathlib.Path) -> None:
    if "import torch" in block:
        pytest.importorskip("torch")
    subprocess.run([sys.executable, "-c", block], check=True, cwd=tmp_path)


def test_example(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib")
    done = subprocess.run([sys.executable, "-B", ROOT / "examples" / "python" / "line.py", tmp_path / "line.svg"], check=True, capture_output=True, text=True)
    ends = [tuple(map(float, line.split()[1::2])) for line in done.stdout.splitlines()]
    assert len(ends) == 3 and all(end < start / 50 for start, end in ends)
    assert (tmp_path / "line.svg").stat().st_size > 10_000


def test_example_with_jax() -> None:
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    done = subprocess.run([sys.executable, "-B", ROOT / "examples" / "python" / "jax_line.py"], check=True, capture_output=True, text=True)
    *curves, difference = done.stdout.splitlines()
    assert len(curves) == 3
    for line in curves:
        start, end = map(float, line.split()[2::2])
        assert end < start / 50
    assert float(difference.split()[-1]) < 1e-3  # in float32, and both learn


def test_example_with_cupy() -> None:
    """Which says what is missing here; without a GPU it cannot do more."""
    done = subprocess.run([sys.executable, "-B", ROOT / "examples" / "python" / "cupy_line.py"], check=True, capture_output=True, text=True)
    assert done.stdout == "cupy_line: left out, as gradus was built without CUDA\n"
