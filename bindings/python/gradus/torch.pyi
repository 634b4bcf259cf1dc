# Printed by tools/torch_stub.py; tests/bindings/python/test_types.py compares.
from collections.abc import Callable
from typing import overload

import torch
from torch.optim.optimizer import ParamsT

from gradus import StepReport

__all__: list[str]

class RecipeOptimizer(torch.optim.Optimizer):
    """What the classes have in common."""

    max_grad_norm: float | None
    skip_nonfinite: bool
    threads: int | None
    @property
    def report(self) -> StepReport | None:
        """The last step's report, None before the first. Waits for a device."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

def optimizer_class(recipe: str) -> Callable[..., RecipeOptimizer]:
    """The class of a recipe by its name, such as "adamw"; also of a recipe of your own."""

class SGD(RecipeOptimizer):
    """gradus's sgd as a torch.optim.Optimizer; used as torch.optim.SGD, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class SGDS(RecipeOptimizer):
    """gradus's sgds as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Adam(RecipeOptimizer):
    """gradus's adam as a torch.optim.Optimizer; used as torch.optim.Adam, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, decoupled_weight_decay: bool = False, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class AdamW(RecipeOptimizer):
    """gradus's adamw as a torch.optim.Optimizer; used as torch.optim.AdamW, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.01, amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class AdamS(RecipeOptimizer):
    """gradus's adams as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0001, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class AMSGrad(RecipeOptimizer):
    """gradus's amsgrad as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Yogi(RecipeOptimizer):
    """gradus's yogi as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.01, betas: tuple[float, float] = (0.9, 0.999), eps: float = 0.001, weight_decay: float = 0.0, initial_accumulator: float = 1e-06, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class AdaBound(RecipeOptimizer):
    """gradus's adabound as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, final_lr: float = 0.1, gamma: float = 0.001, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Padam(RecipeOptimizer):
    """gradus's padam as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.1, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, partial: float = 0.25, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class RAdam(RecipeOptimizer):
    """gradus's radam as a torch.optim.Optimizer; used as torch.optim.RAdam, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, decoupled_weight_decay: bool = False, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Adagrad(RecipeOptimizer):
    """gradus's adagrad as a torch.optim.Optimizer; used as torch.optim.Adagrad, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Adadelta(RecipeOptimizer):
    """gradus's adadelta as a torch.optim.Optimizer; used as torch.optim.Adadelta, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 1.0, rho: float = 0.9, eps: float = 1e-06, weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Adamax(RecipeOptimizer):
    """gradus's adamax as a torch.optim.Optimizer; used as torch.optim.Adamax, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.002, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class RMSprop(RecipeOptimizer):
    """gradus's rmsprop as a torch.optim.Optimizer; used as torch.optim.RMSprop, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.01, alpha: float = 0.99, eps: float = 1e-08, weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class AdaBelief(RecipeOptimizer):
    """gradus's adabelief as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-16, weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class ADOPT(RecipeOptimizer):
    """gradus's adopt as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.9999), eps: float = 1e-06, weight_decay: float = 0.0, clip_exponent: float = 0.25, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class AdEMAMix(RecipeOptimizer):
    """gradus's ademamix as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float, float] = (0.9, 0.999, 0.9999), alpha: float = 5.0, t_alpha_beta3: float = 0.0, eps: float = 1e-08, weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Lion(RecipeOptimizer):
    """gradus's lion as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.0001, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class NAdam(RecipeOptimizer):
    """gradus's nadam as a torch.optim.Optimizer; used as torch.optim.NAdam, and its state_dict goes there and back.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.002, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, momentum_decay: float = 0.004, decoupled_weight_decay: bool = False, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Adan(RecipeOptimizer):
    """gradus's adan as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float, float] = (0.98, 0.92, 0.99), eps: float = 1e-08, weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class ScheduleFreeAdamW(RecipeOptimizer):
    """gradus's schedule_free_adamw as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.0025, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.0, warmup_steps: float = 0.0, r: float = 0.0, weight_lr_power: float = 2.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class LAMB(RecipeOptimizer):
    """gradus's lamb as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-06, weight_decay: float = 0.01, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class StableAdamW(RecipeOptimizer):
    """gradus's stable_adamw as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-08, weight_decay: float = 0.01, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class CautiousAdamW(RecipeOptimizer):
    """gradus's cautious_adamw as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 0.001, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-08, weight_decay: float = 0.01, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class Adai(RecipeOptimizer):
    """gradus's adai as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 1.0, betas: tuple[float, float] = (0.1, 0.99), eps: float = 0.001, weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...

class AdaiS(RecipeOptimizer):
    """gradus's adais as a torch.optim.Optimizer; used as one of torch.optim.

    params  an iterable of parameters, of groups, or of (name, parameter)"""

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 1.0, betas: tuple[float, float] = (0.1, 0.99), eps: float = 0.001, weight_decay: float = 0.0, *, maximize: bool = False, foreach: bool | None = None, capturable: bool = False, differentiable: bool = False, fused: bool | None = None, max_grad_norm: float | None = None, skip_nonfinite: bool = False, threads: int | None = None) -> None: ...
