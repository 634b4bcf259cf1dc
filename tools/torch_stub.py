#!/usr/bin/env python3
"""Prints gradus/torch.pyi, the types of gradus.torch: tools/torch_stub.py > bindings/python/gradus/torch.pyi

The classes are made from the list of recipes, which type checkers cannot follow.
"""

import inspect
from typing import Any

import gradus.torch

HEAD = '''# Printed by tools/torch_stub.py; tests/bindings/python/test_types.py compares.
from collections.abc import Callable
from typing import overload

import torch
from torch.optim.optimizer import ParamsT

from gradus import StepReport

__all__: list[str]

class RecipeOptimizer(torch.optim.Optimizer):
    """{doc}"""

    max_grad_norm: float | None
    skip_nonfinite: bool
    threads: int | None
    @property
    def report(self) -> StepReport | None:
        """{report}"""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

def optimizer_class(recipe: str) -> Callable[..., RecipeOptimizer]:
    """{by_name}"""
'''
TYPES = {"lr": "float | torch.Tensor", "foreach": "bool | None", "fused": "bool | None", "max_grad_norm": "float | None", "threads": "int | None"}


def type_of(name: str, default: Any) -> str:
    if isinstance(default, tuple):
        return f"tuple[{', '.join(['float'] * len(default))}]"
    return TYPES.get(name, "bool" if isinstance(default, bool) else "float")


def stub() -> str:
    text = HEAD.format(doc=inspect.getdoc(gradus.torch.RecipeOptimizer), report=inspect.getdoc(gradus.torch.RecipeOptimizer.report), by_name=inspect.getdoc(gradus.torch.optimizer_class))
    for name in gradus.torch.__all__[2:]:
        kind = getattr(gradus.torch, name)
        arguments, starred = [], False
        for key, p in list(inspect.signature(kind).parameters.items())[1:]:
            if p.kind is p.KEYWORD_ONLY and not starred:
                starred = True
                arguments.append("*")
            arguments.append(f"{key}: {type_of(key, p.default)} = {p.default!r}")
        lines = "\n".join(f"    {line}".rstrip() for line in (inspect.getdoc(kind) or "").splitlines())
        text += f'\nclass {name}(RecipeOptimizer):\n    """{lines.strip()}"""\n\n'
        text += f"    def __init__(self, params: ParamsT, {', '.join(arguments)}) -> None: ...\n"
    return text


if __name__ == "__main__":
    print(stub(), end="")
