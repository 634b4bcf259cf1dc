"""First-order optimizers, composed of rules: `gradus.Optimizer` over NumPy arrays, `gradus.torch` for PyTorch.

    opt = gradus.Optimizer("adams", lr=1e-3, weight_decay=5e-4)
    opt.add("w", w, dw)  # viewed, never copied
    while training:
        compute(w, dw)
        opt.step()
"""

from ._gradus import LoadReport, Optimizer, StepReport, instruction_set, recipes
from ._gradus import version as __version__
from ._types import SupportsDLPack

for _class in (LoadReport, Optimizer, StepReport):
    _class.__module__ = "gradus"

__all__ = ["LoadReport", "Optimizer", "StepReport", "SupportsDLPack", "__version__", "instruction_set", "recipes"]
