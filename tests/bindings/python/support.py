"""What the tests share: the problem of tests/golden/README.md, refused calls, and recipes."""

from __future__ import annotations

import contextlib
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import gradus
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"


@contextlib.contextmanager
def refused(part: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """The block raises this kind of exception, and its sentence has this part."""
    with pytest.raises(kind, match=re.escape(part)) as found:
        yield
    assert type(found.value) is kind


class Recording:
    """One recorded case of a golden file."""

    def __init__(self, problem: dict[str, str], words: list[str]):
        self.problem, self.name = problem, words[1]
        self.numbers = {k: float(v) for k, _, v in (w.partition("=") for w in words if "=" in w)}
        self.recipe = max((r for r in gradus.recipes() if f"{self.name}_".startswith(f"{r}_")), key=len)
        self.at: dict[int, list[float]] = {}

    def __repr__(self) -> str:
        return self.name

    @property
    def steps(self) -> int:
        return int(self.problem["steps"])

    def lr_scale(self, t: int) -> float:
        """The schedule: 0.1 from each of the drops on, which count from 1."""
        return math.prod(0.1 for drop in self.problem["drops"].split(",") if t >= int(drop))

    def tensors(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The weights, and the two coefficients of the gradient, of each tensor."""
        s = int(self.problem["seed"])
        made = []
        for size in self.problem["sizes"].split(","):
            rows = np.empty((int(size), 3))
            for row in rows:
                for k in range(3):
                    s = (s * 6364136223846793005 + 1442695040888963407) % 2**64
                    row[k] = (s >> 11) / 9007199254740992.0
            made.append((-1 + 2 * rows[:, 0], 0.1 + 1.9 * rows[:, 1], -0.5 + rows[:, 2]))
        return made


def gradient(w: Any, a: Any, b: Any, t: int) -> Any:
    return a * w + b * np.sin(3 * w + 0.1 * t)


def recordings() -> list[Recording]:
    """All recorded cases of recipes; two are compositions, which have no name."""
    cases: list[Recording] = []
    for file in ("trajectories.txt", "beyond.txt"):
        problem: dict[str, str] = {}
        for line in (GOLDEN / file).read_text().splitlines():
            words = line.split()
            if words[:1] == ["problem"]:
                problem = dict(zip(words[1::2], words[2::2]))
            elif words[:1] == ["case"]:
                cases.append(Recording(problem, words))
            elif words[:1] == ["at"]:
                cases[-1].at[int(words[1])] = [float.fromhex(x) for x in words[2:]]
    return [c for c in cases if c.name not in ("adams_amsgrad", "adamw_cautious_decay")]


def numbers_of(case: Recording) -> dict[str, float]:
    decoupled = {"decoupled_weight_decay": 1.0} if case.name.endswith("_decoupled") else {}
    return {**case.numbers, **decoupled}


def difference(got: Any, expected: Any) -> float:
    """The largest one, relative to 1e-3 + |x|; infinity if anything is NaN."""
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    worst = np.max(np.abs(got - expected) / (1e-3 + np.abs(expected)))
    return math.inf if np.isnan(worst) else float(worst)
