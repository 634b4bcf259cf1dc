"""Drop-in replacements for torch.optim, one a recipe of gradus.

    from gradus.torch import AdamW
    optimizer = AdamW(model.parameters(), lr=1e-3, max_grad_norm=1.0)

They are torch.optim.Optimizers on the CPU, and on CUDA if the package was built with it (gradus.has_cuda): parameter groups, schedulers, hooks, closures, GradScaler and state_dict work
as PyTorch's, and a state_dict goes to PyTorch's own class and back where it has the optimizer. Arguments have PyTorch's
names, order and defaults, and three more:

max_grad_norm   clips the norm of all gradients in the step, without torch.nn.utils.clip_grad_norm_
skip_nonfinite  skips a step with a gradient that is infinite or NaN
threads         for steps of large models; None: torch.get_num_threads()

`foreach`, `fused` and `capturable` are accepted and change nothing; `differentiable` is refused. Steps are in place and
leave the gradients as they are. On CUDA they are enqueued on the current stream. 16-bit parameters have master weights in float32 and moments in float32.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.utils.dlpack

from . import DeviceArray, StepReport, has_cuda, recipes
from . import Optimizer as _Native

# What the classes are called; others in CapWords.
_NAMES = {"sgd": "SGD", "sgds": "SGDS", "adamw": "AdamW", "adams": "AdamS", "amsgrad": "AMSGrad", "adabound": "AdaBound",
          "radam": "RAdam", "rmsprop": "RMSprop", "adabelief": "AdaBelief", "adopt": "ADOPT", "ademamix": "AdEMAMix", "nadam": "NAdam",
          "schedule_free_adamw": "ScheduleFreeAdamW", "lamb": "LAMB", "stable_adamw": "StableAdamW", "cautious_adamw": "CautiousAdamW", "adais": "AdaiS"}
# PyTorch's names where gradus's differ, for hyperparameters and for state.
_TORCH_HYPERPARAMETERS = {"adagrad": {"initial_accumulator": "initial_accumulator_value"}}
_TORCH_STATE = {"rmsprop": {"exp_avg_sq": "square_avg"}, "adadelta": {"exp_avg_sq": "square_avg"}}
# Those that PyTorch has too: their parameter groups have all entries of PyTorch's.
_TORCH_CLASSES = {"sgd", "adam", "adamw", "radam", "nadam", "adamax", "adadelta", "adagrad", "rmsprop"}
# The arguments of every class, beside hyperparameters: those that are entries of groups, and gradus's own.
_FLAGS: dict[str, Any] = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}
_OPTIONS: dict[str, Any] = {"max_grad_norm": None, "skip_nonfinite": False, "threads": None}

_Options = tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], float, "float | None", bool, bool]  # of _step_parameters


@functools.cache
def _decays_by_mean_square(recipe: str) -> bool:
    """Whether a step needs a mean over the whole model."""
    one, opt = torch.ones(1), _Native(recipe)
    opt.add("one", one, torch.ones(1))
    return opt.step().mean_square is not None


def _same_form(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient in the parameter's order of dimensions in memory."""
    if (gradient.layout is not torch.strided or gradient.shape != parameter.shape or gradient.dtype != parameter.dtype
            or gradient.device != parameter.device):
        raise ValueError(f"gradus: a gradient is {gradient.layout} of {gradient.dtype} and shape {tuple(gradient.shape)} on {gradient.device}; expected "
                         f"a dense one of {parameter.dtype} and shape {tuple(parameter.shape)} on {parameter.device}, as its parameter")
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient.detach())


def _number(key: str, x: Any) -> float:
    if isinstance(x, torch.Tensor) and x.numel() != 1:
        raise ValueError(f"gradus: Tensor {key} must be 1-element, and has shape {tuple(x.shape)}")
    return float(x)


_Place = tuple[torch.dtype, torch.device]  # a native has the parameters of one


def _place_of(p: torch.Tensor) -> _Place:
    return p.dtype, p.device


def _current_stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream


def _is_captured() -> bool:
    """Whether steps are being captured for a graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _tensor_of(slot: Any) -> torch.Tensor:
    """A view of a slot of state."""
    view: torch.Tensor = torch.utils.dlpack.from_dlpack(slot) if isinstance(slot, DeviceArray) else torch.from_numpy(slot)
    return view


def _check_parameter(p: torch.Tensor) -> None:
    if p.device.type != "cpu" and not (has_cuda and p.device.type == "cuda"):
        expected = "the CPU or CUDA" if has_cuda else "the CPU" + (", because this package was built without CUDA" if p.device.type == "cuda" else "")
        raise ValueError(f"gradus: a parameter of shape {tuple(p.shape)} is on {p.device}; expected {expected}")
    if p.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16) or p.layout is not torch.strided:
        raise ValueError(f"gradus: a parameter of shape {tuple(p.shape)} is {p.layout} of {p.dtype}; expected a dense one of float32, float64, "
                         "bfloat16 or float16")


class RecipeOptimizer(torch.optim.Optimizer):
    """What the classes have in common."""

    _recipe: str
    _fields: dict[str, tuple[str, int | None]]  # gradus's hyperparameter -> the entry of a group, and the place in it
    _extras: dict[str, Any]  # the entries of a group that PyTorch's class has beside the arguments
    _watched: Callable[[dict[str, Any]], Any]  # what of a group a step depends on
    _step_supports_amp_scaling = True  # GradScaler then sets grad_scale and found_inf

    def _set_up(self, params: Any, given: dict[str, Any]) -> None:
        self._begin({name: given.pop(name) for name in _OPTIONS})
        super().__init__(params, {**self._extras, **given})

    def _begin(self, options: dict[str, Any]) -> None:
        self.max_grad_norm: float | None = options["max_grad_norm"]
        self.skip_nonfinite: bool = options["skip_nonfinite"]
        self.threads: int | None = options["threads"]
        self._report: StepReport | None = None
        self._forget()

    def _forget(self) -> None:
        """Drops all state."""
        self._natives: dict[_Place, _Native] = {}
        self._on_cuda: list[tuple[torch.device, _Native]] = []  # those of them whose steps are enqueued
        self._was_captured = False
        self._known: dict[torch.Tensor, tuple[_Native, str]] = {}
        self._seen: list[Any] = []  # what the natives know of the groups
        self._has_tensors = False
        self._maximize = False
        self._state: defaultdict[Any, Any] = defaultdict(dict)
        self._state_is_old = False

    # ── groups and hyperparameters

    def _native_recipe(self, group: dict[str, Any]) -> str:
        if self._recipe not in ("adam", "adamw"):
            return self._recipe
        if not group["amsgrad"]:
            return "adamw" if group["decoupled_weight_decay"] else "adam"
        if group["decoupled_weight_decay"]:
            raise ValueError(f"gradus: amsgrad is True for {type(self).__name__}; expected False, because no recipe has it with decoupled weight decay")
        return "amsgrad"

    def _numbers(self, group: dict[str, Any]) -> dict[str, Any]:
        return {name: _number(key, group[key] if place is None else group[key][place]) for name, (key, place) in self._fields.items()}

    def _check(self, group: dict[str, Any]) -> None:
        for key, _ in self._fields.values():
            if key not in group:
                raise ValueError(f"gradus: a parameter group has no {key}; expected one of {type(self).__name__}")
        group = {**self.defaults, **group}
        if group["differentiable"]:
            raise ValueError("gradus: differentiable is True; expected False, because steps are not recorded for differentiation")
        _Native(self._native_recipe(group), **self._numbers(group))  # checks them

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, whose parameters start with their own step counts."""
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
            for p in self.param_groups[-1]["params"]:
                _check_parameter(p)
        except Exception:
            self.param_groups.pop()
            raise

    def _bring_groups(self) -> None:
        """Gives the natives the groups' hyperparameters as they are now."""
        groups = self.param_groups
        for what, values in (("amsgrad or decoupled_weight_decay", {self._native_recipe(g) for g in groups}),
                             ("maximize", {bool(g["maximize"]) for g in groups})):
            if len(values) > 1:
                raise ValueError(f"gradus: the groups differ in {what}; expected the same for all")
        self._maximize = bool(groups[0]["maximize"])
        for native in self._natives.values():
            if native.recipe != self._native_recipe(groups[0]):
                raise ValueError("gradus: amsgrad or decoupled_weight_decay was changed after the first step; expected the same throughout")
            self._bring_groups_to(native)
        self._seen = [self._watched(g) for g in groups]
        self._has_tensors = any(isinstance(x, torch.Tensor) for entries in self._seen for x in entries)

    def _bring_groups_to(self, native: _Native) -> None:
        for k, group in enumerate(self.param_groups):
            numbers = self._numbers(group)
            if k == native.group_count:
                native.add_group(**numbers)
                continue
            before = native.hyperparameters(k)
            if any(bool(before.get(switch)) != bool(numbers.get(switch)) for switch in ("momentum", "centered")):
                self._state.clear()  # which views buffers that come and go with these
                self._state_is_old = True
            if before != numbers:
                native.set_hyperparameters(k, **numbers)

    def _adopt(self, p: torch.Tensor, group: int) -> None:
        """Makes state for a parameter."""
        _check_parameter(p)
        place = _place_of(p)
        if p in self._known and self._known[p][0] is self._natives.get(place):
            raise ValueError(f"gradus: a parameter of shape {tuple(p.shape)} occurs twice in the groups; expected each parameter once")
        if p in self._known:
            raise ValueError(f"gradus: a parameter of shape {tuple(p.shape)} has become {p.dtype} on {p.device}; expected the dtype and device of its first step")
        native = self._natives.get(place)
        if native is None:
            recipe = self._native_recipe(self.param_groups[0])
            if self._natives and (self.max_grad_norm is not None or self.skip_nonfinite or _decays_by_mean_square(recipe)):
                other = next(iter(self._natives))
                raise ValueError(f"gradus: a parameter is {p.dtype} on {p.device} and others are {other[0]} on {other[1]}; expected one "
                                 f"{'dtype' if p.dtype is not other[0] else 'device'}, because max_grad_norm, skip_nonfinite and a scheduled weight decay act "
                                 "on the whole model")
            native = _Native(recipe, threads=torch.get_num_threads() if self.threads is None else self.threads,
                             stream=_current_stream(p.device) if p.device.type == "cuda" else None, **self._numbers(self.param_groups[0]))
            self._bring_groups_to(native)
            self._natives[place] = native
            if p.device.type == "cuda":
                self._on_cuda.append((p.device, native))
        name = str(len(self._known))
        native._add_parameter(name, p, group)
        self._known[p] = (native, name)

    # ── steps

    @property
    def report(self) -> StepReport | None:
        """The last step's report, None before the first. Waits for a device."""
        if self._report is not None and self._on_cuda:
            return list(self._natives.values())[-1].report()
        return self._report

    def step(self, closure: Any = None) -> Any:
        """Takes a step with all parameters that have gradients.

        A closure is called first, with gradients enabled, and what it returns is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf, grad_scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found_inf is not None and float(found_inf):
            return loss
        groups = self.param_groups
        if self._has_tensors or [self._watched(g) for g in groups] != self._seen:
            self._bring_groups()
        options: _Options = (_same_form, 1.0 if grad_scale is None else 1 / float(grad_scale), self.max_grad_norm, self.skip_nonfinite, self._maximize)
        captures = has_cuda and bool(self._on_cuda or not self._natives) and _is_captured()
        self._was_captured = self._was_captured or captures
        for device, native in self._on_cuda:
            native.stream = _current_stream(device)
        result: StepReport | list[tuple[torch.Tensor, int]] | None
        while True:
            if len(self._natives) == 1:
                (native,) = self._natives.values()
                result = native._step_parameters([g["params"] for g in groups], *options, True, captures)
            else:
                result = self._step_several(options, captures)
            if isinstance(result, StepReport):
                self._report = result
                break
            if not result:  # nothing has a gradient yet
                break
            if captures:
                raise ValueError("gradus: a parameter has its first gradient while a graph is captured; expected a step before the capture, which makes its state")
            for p, group in result:
                self._adopt(p, group)
        self._state_is_old = True
        return loss

    def _step_several(self, options: _Options, captures: bool) -> StepReport | list[tuple[torch.Tensor, int]] | None:
        """A step of none or several natives, which differ in dtype or device; or the parameters that are not known yet."""
        natives, groups = self._natives, self.param_groups
        if not natives:
            return [(p, k) for k, g in enumerate(groups) for p in g["params"] if p.grad is not None]
        parts = []
        for i, (place, native) in enumerate(natives.items()):
            parts.append((native, [[p for p in g["params"] if _place_of(p) == place or (i == 0 and _place_of(p) not in natives)] for g in groups]))
        unknown: list[tuple[torch.Tensor, int]] = []
        for native, parameters in parts:  # bound, so that a step of all or of none follows
            found = native._step_parameters(parameters, *options, False, captures)
            unknown += found if isinstance(found, list) else []
        if unknown:
            return unknown
        return [native._step_parameters(parameters, *options, True, captures) for native, parameters in parts][-1]

    # ── state

    def _torch_key(self, key: str) -> str:
        return _TORCH_STATE.get(self._recipe, {}).get(key, key)

    @property
    def state(self) -> Any:
        """Of each parameter that has taken a step: its slots, which view gradus's state, and its numbers, which are copies."""
        if self._state_is_old or self._was_captured:  # replays of a graph count steps, too
            self._state_is_old = False
            for native in self._natives.values():
                slots = native._slots() if any(not self._state.get(p) for p in self._known) else {}
                numbers = native._numbers()
                for p, (owner, name) in self._known.items():
                    if owner is native:
                        self._show(p, slots.get(name, {}), numbers[name])
        return self._state

    @state.setter
    def state(self, values: Mapping[Any, Any]) -> None:
        self._forget()
        if values:
            self._load(values)

    def _show(self, p: torch.Tensor, slots: dict[str, Any], numbers: dict[str, float]) -> None:
        """Brings a parameter's entry up to date."""
        entry = self._state[p]
        if not entry:
            entry["step"] = None  # so that it comes first
            entry.update({self._torch_key(key): _tensor_of(x) for key, x in slots.items()})
        for key, x in numbers.items():
            entry[key] = torch.tensor(x, dtype=torch.float32 if key == "step" else torch.float64)
        if self._recipe == "sgd":  # which counts no steps in PyTorch
            del entry["step"]
        if "grad_avg" in entry:  # RMSprop keeps the variance, and PyTorch the mean square
            entry.setdefault("variance", entry["square_avg"])
            entry["square_avg"] = entry["variance"] + entry["grad_avg"].square()
        if not entry:
            del self._state[p]

    def _load(self, values: Mapping[Any, Any]) -> None:
        """Makes state from PyTorch's entries, or from this class's."""
        found = [(p, k, values[p]) for k, g in enumerate(self.param_groups) for p in g["params"] if values.get(p)]
        if not found:
            return
        self._bring_groups()
        for p, k, _ in found:
            self._adopt(p, k)
        for native in self._natives.values():
            slots, numbers = native._slots(), native._numbers()
            given: dict[str, dict[str, float]] = {}
            for p, _, entry in found:
                owner, name = self._known[p]
                if owner is not native:
                    continue
                if "grad_avg" in entry and "square_avg" in entry:
                    entry = {**entry, "square_avg": entry["variance"] if "variance" in entry else entry["square_avg"] - entry["grad_avg"].square()}
                for key, view in slots[name].items():
                    value = entry.get(self._torch_key(key))
                    if value is None:
                        continue
                    if value.shape != p.shape:
                        raise ValueError(f"gradus: the state {self._torch_key(key)} has shape {tuple(value.shape)}; expected {tuple(p.shape)}, as its parameter")
                    _tensor_of(view).copy_(value.detach())
                given[name] = {key: float(entry[key]) for key in numbers[name] if entry.get(key) is not None}
                if "step" not in given[name]:
                    if self._recipe != "sgd":
                        raise ValueError(f"gradus: the state of a parameter of shape {tuple(p.shape)} has no step; expected the number of its steps")
                    given[name]["step"] = 1.0 if entry.get("momentum_buffer") is not None else 0.0
            native._set_numbers(given)
        self._state_is_old = True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state_dict of this class, or of PyTorch's class of the same name. One that does not fit changes nothing."""
        loaded: dict[str, Any] = {}

        def look(_: Any, final: dict[str, Any]) -> None:  # after all hooks that change it, and before state is rounded to the parameters' dtype
            for group in final["param_groups"]:
                self._check(group)
            loaded.update(final)

        hook = self.register_load_state_dict_pre_hook(look)
        self._loaded: dict[str, Any] | None = loaded
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
            self._loaded = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        before = dict(self.__dict__)
        try:
            values = state.get("state", {})
            loaded = before.get("_loaded")
            if loaded:
                numbers = [number for g in loaded["param_groups"] for number in g["params"]]
                parameters = [p for g in state["param_groups"] for p in g["params"]]
                values = {p: loaded["state"].get(number) for number, p in zip(numbers, parameters)}
            if "gradus" in state:
                self._begin(state["gradus"])
            super().__setstate__({key: x for key, x in state.items() if key not in ("state", "gradus")})
            for group in self.param_groups:
                for key, x in self.defaults.items():
                    group.setdefault(key, x)
            self._forget()
            self._load(values)
        except Exception:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "gradus": {name: getattr(self, name) for name in _OPTIONS}}


def _arguments(recipe: str, numbers: dict[str, float]) -> tuple[dict[str, Any], dict[str, tuple[str, int | None]]]:
    """A class's arguments with their defaults in PyTorch's order, and where each hyperparameter is found in a group."""
    arguments: dict[str, Any] = {}
    fields: dict[str, tuple[str, int | None]] = {}
    betas = [name for name in numbers if name in ("beta0", "beta1", "beta2", "beta3")]
    for name, default in sorted(numbers.items(), key=lambda item: isinstance(item[1], bool)):  # switches last
        if name in betas:
            arguments["betas"] = tuple(numbers[b] for b in betas)
            fields[name] = ("betas", betas.index(name))
        else:
            key = _TORCH_HYPERPARAMETERS.get(recipe, {}).get(name, name)
            arguments[key] = default
            fields[name] = (key, None)
    if recipe in ("adam", "adamw"):
        arguments["amsgrad"] = False
    return arguments, fields


def _make_class(recipe: str, numbers: dict[str, float]) -> type[RecipeOptimizer]:
    name = _NAMES.get(recipe, "".join(word.capitalize() for word in recipe.split("_")))
    arguments, fields = _arguments(recipe, numbers)
    extras = getattr(torch.optim, name)([torch.zeros(1)]).defaults if recipe in _TORCH_CLASSES else {}
    extras = {key: x for key, x in extras.items() if key not in arguments}
    if recipe in ("adam", "adamw"):
        extras.setdefault("decoupled_weight_decay", recipe == "adamw")
    keyword_only = {**_FLAGS, **({"decoupled_weight_decay": False} if recipe == "adam" else {}), **_OPTIONS}
    kinds = inspect.Parameter
    signature = inspect.Signature([kinds("self", kinds.POSITIONAL_OR_KEYWORD), kinds("params", kinds.POSITIONAL_OR_KEYWORD),
                                   *(kinds(key, kinds.POSITIONAL_OR_KEYWORD, default=x) for key, x in arguments.items()),
                                   *(kinds(key, kinds.KEYWORD_ONLY, default=x) for key, x in keyword_only.items())])

    def __init__(self: RecipeOptimizer, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        del given["self"]
        self._set_up(given.pop("params"), given)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    watched = [*dict.fromkeys(key for key, _ in fields.values()), "maximize",
               *(["amsgrad", "decoupled_weight_decay"] if recipe in ("adam", "adamw") else [])]
    known = f"torch.optim.{name}, and its state_dict goes there and back." if recipe in _TORCH_CLASSES else "one of torch.optim."
    return type(name, (RecipeOptimizer,), {
        "__init__": __init__, "__module__": __name__, "__qualname__": name,
        "__doc__": f"gradus's {recipe} as a torch.optim.Optimizer; used as {known}\n\nparams  an iterable of parameters, of groups, or of (name, parameter)",
        "_recipe": recipe, "_fields": fields, "_extras": extras, "_watched": staticmethod(operator.itemgetter(*watched))})


_CLASSES = {recipe: _make_class(recipe, numbers) for recipe, numbers in recipes().items()}


def optimizer_class(recipe: str) -> Callable[..., RecipeOptimizer]:
    """The class of a recipe by its name, such as "adamw"; also of a recipe of your own."""
    if recipe not in _CLASSES:
        raise ValueError(f"gradus: recipe is {recipe!r}; expected one of {', '.join(_CLASSES)}")
    return _CLASSES[recipe]


__all__ = ["RecipeOptimizer", "optimizer_class"]
for _class in _CLASSES.values():
    if _class.__name__ not in globals():  # a recipe of one's own may be called as something else here
        globals()[_class.__name__] = _class
        __all__.append(_class.__name__)
del _class
