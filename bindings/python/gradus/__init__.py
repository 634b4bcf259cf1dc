"""First-order optimizers, composed of rules: `gradus.Optimizer` over NumPy's and other arrays, `gradus.torch` for PyTorch.

    opt = gradus.Optimizer("adams", lr=1e-3, weight_decay=5e-4)
    opt.add("w", w, dw)  # viewed, never copied
    while training:
        compute(w, dw)
        opt.step()
"""

from ._gradus import DeviceArray, LoadReport, Optimizer, StepReport, has_cuda, instruction_set, recipes
from ._gradus import version as __version__
from ._types import SupportsCudaArrayInterface, SupportsDLPack

for _class in (DeviceArray, LoadReport, Optimizer, StepReport):
    _class.__module__ = "gradus"

__all__ = ["DeviceArray", "LoadReport", "Optimizer", "StepReport", "SupportsCudaArrayInterface", "SupportsDLPack", "__version__", "has_cuda", "instruction_set", "recipes"]
