#!/usr/bin/env python3
"""Checkpoints of torch.optim turned into gradus's, and back: SGD, Adam (with amsgrad too), AdamW, RAdam, NAdam, Adamax,
Adadelta, Adagrad, RMSprop.

In a program, where parameters are known by being the same tensors, whatever their order:

    import torch_checkpoint
    torch_checkpoint.save(optimizer, model.named_parameters(), "run.safetensors")
    torch_checkpoint.load(optimizer, model.named_parameters(), "run.safetensors")

From files that torch.save wrote, with the two state_dicts under the keys "optimizer" and "model":

    torch_checkpoint.py to-gradus RUN.pt RUN.safetensors
    torch_checkpoint.py from-gradus RUN.safetensors RUN.pt NEW.pt     RUN.pt gives shapes, names and groups

There the optimizer numbers its parameters. It says their names only if it was made of model.named_parameters(); else
shapes have to tell, or --in-order or --names does.

Needs the packages torch (2.3 or later) and safetensors. docs/checkpoint.md has the layout of gradus's files.
"""

import argparse
import array
import codecs
import inspect
import json
import math
import os
import re
import stat
import sys
import warnings

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

if not hasattr(torch, "uint64"):
    raise ImportError(f"torch_checkpoint needs PyTorch 2.3 or later, and this is {torch.__version__}")

def named(*names, **others):
    """gradus's names with torch's: the same, or others."""
    return {**{name: name for name in names}, **others}


ADAM = named("lr", "eps", "weight_decay", beta1="betas", beta2="betas")
# Of each recipe: its hyperparameters and its slots, by gradus's names with torch's.
RECIPES = {
    "sgd": (named("lr", "momentum", "dampening", "nesterov", "weight_decay"), named("momentum_buffer")),
    "adam": (ADAM, named("exp_avg", "exp_avg_sq")),
    "adamw": (ADAM, named("exp_avg", "exp_avg_sq")),
    "amsgrad": (ADAM, named("exp_avg", "exp_avg_sq", "max_exp_avg_sq")),
    "radam": (named("decoupled_weight_decay", **ADAM), named("exp_avg", "exp_avg_sq")),
    "nadam": (named("momentum_decay", "decoupled_weight_decay", **ADAM), named("exp_avg", "exp_avg_sq")),
    "adamax": (ADAM, named("exp_avg", "exp_inf")),
    "adadelta": (named("lr", "rho", "eps", "weight_decay"), named("acc_delta", exp_avg_sq="square_avg")),
    "adagrad": (named("lr", "lr_decay", "weight_decay", "eps", initial_accumulator="initial_accumulator_value"), named("sum")),
    "rmsprop": (named("lr", "alpha", "eps", "weight_decay", "momentum", "centered"),
                named("momentum_buffer", "grad_avg", exp_avg_sq="square_avg")),
}
SCALARS = {"nadam": ("mu_product",)}  # numbers of each tensor
NEEDS = {"momentum_buffer": "momentum", "grad_avg": "centered"}  # slots that are there if a hyperparameter is not 0
NONNEGATIVE = ("exp_avg_sq", "max_exp_avg_sq", "exp_inf", "acc_delta", "sum")
# What param_groups have besides hyperparameters. PyTorch's other optimizers have keys that are in no set below.
COMMON = {"params", "param_names", "maximize", "foreach", "capturable", "differentiable", "fused", "initial_lr"}
RADAM_KEYS = {"lr", "betas", "eps", "weight_decay", "decoupled_weight_decay"}
KEYS = {torch.optim.SGD: {"lr", "momentum", "dampening", "nesterov", "weight_decay"}, torch.optim.RAdam: RADAM_KEYS,
        torch.optim.Adam: RADAM_KEYS | {"amsgrad"}, torch.optim.NAdam: RADAM_KEYS | {"momentum_decay"},
        torch.optim.Adadelta: {"lr", "rho", "eps", "weight_decay"}, torch.optim.RMSprop: set(RECIPES["rmsprop"][0].values()),
        torch.optim.Adagrad: set(RECIPES["adagrad"][0].values())}
KNOWN = (*KEYS, torch.optim.AdamW, torch.optim.Adamax)
EXPECTED = "SGD, Adam, AdamW, RAdam, NAdam, Adamax, Adadelta, Adagrad or RMSprop"


def kind_by_keys(keys, state):
    """The class of a param_group with these keys, and of parameters with this state; None if it is none of those known."""
    if keys == KEYS[torch.optim.Adam] - {"decoupled_weight_decay"}:
        raise ValueError("the param_groups do not say whether they are Adam's or AdamW's; name the recipe")
    if keys == RADAM_KEYS - {"decoupled_weight_decay"}:  # Adamax's, or those of an older RAdam
        slots = {slot for entry in state.values() for slot in entry}
        if "exp_inf" in slots:
            return torch.optim.Adamax
        if "exp_avg_sq" in slots:
            return torch.optim.RAdam
        raise ValueError("the param_groups do not say whether they are RAdam's or Adamax's; name the recipe")
    return next((kind for kind, known in KEYS.items() if keys == known or
                 (kind is torch.optim.NAdam and keys == known - {"decoupled_weight_decay"})), None)


def recipe_of(groups, kind=None, state={}):
    """The gradus recipe that does what torch does with these param_groups. `kind`: the optimizer's class, if it is known."""
    found = set()
    for g in groups:
        keys = set(g) - COMMON
        of = kind or kind_by_keys(keys, state)
        if of is None:
            raise ValueError(f"a param_group has {sorted(keys)}; expected what {EXPECTED} has and nothing else "
                             "(if it is one of them with keys of your own, name the recipe)")
        if of in (torch.optim.Adam, torch.optim.AdamW):
            decoupled = g.get("decoupled_weight_decay", of is torch.optim.AdamW)
            if g["amsgrad"] and decoupled and g["weight_decay"] != 0:
                raise ValueError("AdamW with amsgrad is none of gradus's recipes")
            found.add("amsgrad" if g["amsgrad"] else "adamw" if decoupled else "adam")
        else:
            found.add(of.__name__.lower())
    if len(found) != 1:
        raise ValueError(f"the param_groups are of {sorted(found)}; expected one recipe for all")
    return found.pop()


def kind_of(optimizer):
    """The class in torch.optim whose steps an optimizer takes."""
    if type(optimizer) in KNOWN:
        return type(optimizer)
    name = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    for kind in (torch.optim.AdamW, *KNOWN):  # which may be derived from Adam
        if isinstance(optimizer, kind) and inspect.unwrap(type(optimizer).step) is inspect.unwrap(kind.step):
            warnings.warn(f"the optimizer is of {name}; it is taken for torch.optim.{kind.__name__}, whose step it has")
            return kind
    raise ValueError(f"the optimizer is of {name}; expected {EXPECTED} of torch.optim "
                     "(if it takes the same steps as one of them, name the recipe)")


def kept_slots(recipe, numbers):
    """The slots that there are with these hyperparameters, by gradus's names with torch's."""
    return {slot: other for slot, other in RECIPES[recipe][1].items() if slot not in NEEDS or numbers[NEEDS[slot]] != 0}


def check_groups(groups, recipe):
    for g in groups:
        if g.get("maximize"):
            raise ValueError("maximize is True; gradus minimises: turn the gradients' sign")
        missing = set(RECIPES[recipe][0].values()) - set(g) - {"decoupled_weight_decay"}
        if missing:
            raise ValueError(f"a param_group has no {sorted(missing)}; expected those of {recipe}")


def check_state(state_dict, recipe):
    """A state with more in it is another optimizer's: NAdam's has mu_product, Adamax's exp_inf."""
    known = [*RECIPES[recipe][1].values(), *SCALARS.get(recipe, ())]
    for index, state in state_dict["state"].items():
        surplus = set(state) - set(known) - {"step"}
        if surplus:
            raise ValueError(f"the state of parameter {index} has {sorted(surplus)}; expected nothing but "
                             f"{known} and step, as {recipe} has")


def number_of(group, name, torch_name):
    value = group.get(torch_name, False) if name == "decoupled_weight_decay" else group[torch_name]
    if torch_name == "betas":
        value = value[name == "beta2"]
    return float(value)


def same_kind(old, value):
    """A hyperparameter as what stood there before: a bool, a tensor or a number."""
    return torch.full_like(old, value) if isinstance(old, torch.Tensor) else bool(value) if isinstance(old, bool) else value


# ── which name is whose ──────────────────────────────────────────────────────────────────────────────────────────────


def names_by_identity(optimizer, named_parameters):
    """name -> tensor of the optimizer's parameters, and their names by their index in its state_dict."""
    names, parameters = {}, {}
    for name, parameter in named_parameters.items() if hasattr(named_parameters, "items") else named_parameters:
        if parameters.setdefault(name, parameter) is not parameter:
            raise ValueError(f"{name} is the name of two tensors; expected names that differ")
        names.setdefault(id(parameter), name)  # tied weights are one tensor, under its first name
    found = {}
    for k, (group, packed) in enumerate(zip(optimizer.param_groups, optimizer.state_dict()["param_groups"])):
        for i, (index, parameter) in enumerate(zip(packed["params"], group["params"])):
            if id(parameter) not in names:
                raise ValueError(f"parameter {i} of group {k}, of shape {tuple(parameter.shape)}, is none of the named ones; "
                                 "expected the names of all that the optimizer has")
            found[index] = names[id(parameter)]
    return {name: parameters[name] for name in found.values()}, found


def indices_of(state_dict):
    return [i for g in state_dict["param_groups"] for i in g["params"]]


def shape_of(state_dict, index):
    """A parameter's shape, if it has state that tells."""
    return next((tuple(x.shape) for slot, x in state_dict["state"].get(index, {}).items()
                 if slot not in ("step", "mu_product") and isinstance(x, torch.Tensor)), None)


def names_by_shape(state_dict, model, in_order):
    """The names of a state_dict's parameters, by index, where there can be no other."""
    tensors, seen = {}, set()
    for name, x in model.items():
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            continue  # a count of batches
        if in_order and name.rsplit(".", 1)[-1] in ("running_mean", "running_var"):
            continue  # buffers of normalisation
        place = (x.untyped_storage().data_ptr(), x.storage_offset(), tuple(x.shape), x.stride())
        if x.numel() == 0 or place not in seen:  # tied weights have two names
            tensors[name] = tuple(x.shape)
        seen.add(place)
    indices = indices_of(state_dict)
    how = ('pass their names (--names FILE, or names=[...]); or, if the optimizer was given model.parameters() in its order, '
           'say so (--in-order, or in_order=True)')
    if in_order:
        if len(indices) != len(tensors):
            raise ValueError(f"the optimizer has {len(indices)} parameters and the model {len(tensors)} tensors that may be they; "
                             "expected as many: pass the parameters' names (--names FILE, or names=[...])")
        return dict(zip(indices, tensors))
    found = {}
    for index in indices:
        shape = shape_of(state_dict, index)
        fitting = [name for name, s in tensors.items() if shape in (None, s)]
        if len(fitting) != 1 or fitting[0] in found.values():
            of_shape = f" of shape {shape}" if shape is not None else ", which has no state,"
            raise ValueError(f"parameter {index} of the optimizer{of_shape} may be any of {len(fitting)} tensors of the model" +
                             (f" ({', '.join(fitting[:3])}{', …' if len(fitting) > 3 else ''})" if fitting else "") +
                             f"; expected one: {how}")
        found[index] = fitting[0]
    return found


def names_of(state_dict, model, names=None, in_order=False):
    """The names of a state_dict's parameters, by index: those given, else its own, else by the shapes of the model's."""
    indices = indices_of(state_dict)
    own = [n for g in state_dict["param_groups"] for n in g.get("param_names", [])]
    if isinstance(names, dict):
        found = names
    elif names is not None:
        names = list(names)
        if len(names) != len(indices) or len(set(names)) != len(names):
            raise ValueError(f"{len(set(names))} different names for {len(indices)} parameters; expected one each, in the "
                             "order of the optimizer's")
        found = dict(zip(indices, names))
    elif len(own) == len(indices):
        found = dict(zip(indices, own))
    else:
        found = names_by_shape(state_dict, model, in_order)
    for index, name in found.items():
        if name not in model:
            raise ValueError(f"{name}, parameter {index} of the optimizer, is not in the model; expected its names "
                             "(pass them with --names FILE, or names=[...])")
        shape = shape_of(state_dict, index)
        if shape is not None and shape != tuple(model[name].shape):
            raise ValueError(f"the state of parameter {index} has shape {shape}, and {name} {tuple(model[name].shape)}; "
                             "expected the same: is this its name?")
        if not model[name].is_floating_point():
            raise ValueError(f"{name} is of {model[name].dtype}; expected real floating-point numbers")
    return found


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────────


def to_gradus(state_dict, model, path, recipe=None, with_parameters=True, metadata=None, names=None, in_order=False, frozen=()):
    """Writes an optimizer's state_dict.

    model     name -> tensor: at least the optimizer's parameters
    names     of the optimizer's parameters: in its order, or by their index in the state_dict
    in_order  the model's tensors, without buffers, are the optimizer's parameters in its order
    frozen    names of those that take no part in steps
    """
    groups = state_dict["param_groups"]
    recipe = recipe or recipe_of(groups, state=state_dict["state"])
    check_groups(groups, recipe)
    check_state(state_dict, recipe)
    numbers = RECIPES[recipe][0]
    names = names_of(state_dict, model, names, in_order)
    header = {"gradus/format": "1", "gradus/version": "torch " + torch.__version__, "gradus/recipe": recipe,
              "gradus/groups": str(len(groups))}
    tensors = {}
    for k, group in enumerate(groups):
        value = {name: number_of(group, name, torch_name) for name, torch_name in numbers.items()}
        header.update({f"gradus/group/{k}/{name}": repr(x) for name, x in value.items()})
        for index in group["params"]:
            name, state = names[index], state_dict["state"].get(index, {})
            parameter = model[name].detach()
            header[f"gradus/group_of/{name}"] = str(k)
            if name in frozen:
                header[f"gradus/frozen/{name}"] = "1"
            moments = {slot: state.get(other) for slot, other in kept_slots(recipe, value).items()}
            fresh = all(m is None for m in moments.values())
            if recipe == "rmsprop" and not fresh and "grad_avg" in moments:  # gradus keeps the variance
                moments["exp_avg_sq"] = moments["exp_avg_sq"] - moments["grad_avg"].square()
            # SGD counts no steps in torch; that there is a buffer says that the first is over.
            step = int(state["step"]) if "step" in state else int(not fresh)
            tensors[f"state/{name}/step"] = torch.tensor([step], dtype=torch.uint64)
            for scalar in SCALARS.get(recipe, ()):
                tensors[f"state/{name}/{scalar}"] = torch.tensor([float(state.get(scalar, 1))], dtype=torch.float64)
            for slot, moment in moments.items():
                moment = torch.full_like(parameter, value.get("initial_accumulator", 0)) if moment is None else moment
                if moment.shape != parameter.shape or not moment.is_floating_point():
                    raise ValueError(f"{slot} of {name} is of {moment.dtype} and shape {tuple(moment.shape)}; expected "
                                     f"floating-point numbers of shape {tuple(parameter.shape)}")
                tensors[f"state/{name}/{slot}"] = moment.detach().cpu().contiguous().flatten().clone()
            if with_parameters:
                tensors[f"parameters/{name}"] = parameter.cpu().contiguous().flatten().clone()
    save_file(tensors, path, {**(metadata or {}), **header})


def dynamic_map(signed):
    """What the 8-bit codes of include/gradus/number/half.hpp stand for, as a share of their block's scale."""
    decades = 7 if signed else 8
    top = 0.1 * (10 - 9.0 / (1 << (decades - 1)))
    value = [0.0] * 256
    for j in range(decades):
        for i in range(1 << j):
            code = (1 << j) + i
            value[code] = (1 + 9 * (i / (1 << j))) / 10.0 ** (decades - j) / top
            if signed:
                value[code + 128] = -value[code]
    return torch.tensor(value, dtype=torch.float64).to(torch.float32)


def decode(codes, scales, signed):
    """The numbers that 8-bit codes stand for, 256 to a scale, as gradus decodes them."""
    return dynamic_map(signed)[codes.long()] * scales.repeat_interleave(256)[: codes.numel()]


# ── gradus's files, whoever wrote them ───────────────────────────────────────────────────────────────────────────────


def shown(text):
    """A text of a file for an error message."""
    text = json.dumps(text, ensure_ascii=False)
    return text if len(text) <= 400 else f"{text[:400]}… ({len(text)} characters)"


class Reader:
    """A safetensors file, checked as strictly as gradus::load does.

    Whatever is in the header, it takes at most four times its length in memory: only the strings and tensors that are
    wanted are kept, and the others are counted.
    """

    DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "U64": torch.uint64,
              "I64": torch.int64, "U32": torch.uint32, "I32": torch.int32, "U16": torch.uint16, "I16": torch.int16, "U8": torch.uint8,
              "I8": torch.int8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    LONGEST_HEADER, LONGEST_NAME, MOST_STRINGS = 100_000_000, 65536, 10_000
    SPACE = re.compile(rb"[ \t\n\r]*")
    PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')  # one class of characters, because the memory of a repeated group grows with the text
    ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
    NUMBER = re.compile(rb"(?:0|[1-9][0-9]{0,19})(?![0-9])")

    def __init__(self, path, strings, tensors):
        """strings, tensors: which of them are wanted."""
        self.path, self.strings, self.tensors = path, strings, tensors
        self.metadata, self.entries = {}, {}  # name -> string, key -> (type, number of elements, offset)
        self.others, self.other_names = 0, []  # tensors that are not wanted, and the first three of their names
        self.begins, self.ends, self.hashes = array.array("Q"), array.array("Q"), array.array("q")
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path}: is not a regular file")
            size = status.st_size
            if size < 8:
                raise ValueError(f"{path}: size is {size}; expected at least the 8 bytes of the header's length")
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, self.LONGEST_HEADER):
                raise ValueError(f"{path}: the header's length is {length}; expected at most {min(size - 8, self.LONGEST_HEADER)}")
            self.text = file.read(length)
            self.start, self.size, self.at = 8 + length, size - 8 - length, 0
            if len(self.text) != length:
                raise ValueError(f"{path}: cannot be read")
            self.parse()
            del self.text, self.begins, self.ends, self.hashes
            self.values = {key: self.tensor(file, key) for key in self.entries}  # key -> its elements, one after the other

    def refuse(self, expected):
        raise ValueError(f"{self.path}: header, byte {self.at}: expected {expected}")

    def take(self, c):
        self.at = self.SPACE.match(self.text, self.at).end()
        there = self.text[self.at:self.at + 1] == c
        self.at += there
        return there

    def expect(self, c):
        if not self.take(c):
            self.refuse(f"'{c.decode()}'")

    def raw(self):
        """The place of a string, without its quotes, and whether it has escapes."""
        self.expect(b'"')
        begin, escapes = self.at, False
        while True:
            self.at = self.PLAIN.match(self.text, self.at).end()
            if self.text[self.at:self.at + 1] == b'"':
                self.at += 1
                return begin, self.at - 1, escapes
            escape = self.ESCAPE.match(self.text, self.at)
            if not escape:
                self.refuse("the rest of a string, in UTF-8 and without control characters, or an escape of JSON")
            self.at, escapes = escape.end(), True

    def string(self):
        begin, end, escapes = self.raw()
        if end - begin > self.LONGEST_NAME:
            self.refuse(f"a string of at most {self.LONGEST_NAME} bytes")
        if not escapes:
            return self.text[begin:end].decode()
        text = json.loads(self.text[begin - 1:end + 1])
        if any("\ud800" <= c <= "\udfff" for c in text):
            self.refuse("both halves of a surrogate pair")
        return text

    def natural(self):
        self.at = self.SPACE.match(self.text, self.at).end()
        number = self.NUMBER.match(self.text, self.at)
        if not number or int(number[0]) >= 1 << 64:
            self.refuse("a whole number below 2^64, without sign or leading zeros")
        self.at = number.end()
        return int(number[0])

    def keys(self):
        """The keys of an object, one after the other; the caller reads the values."""
        self.expect(b"{")
        if self.take(b"}"):
            return
        while True:
            key = self.string()
            self.expect(b":")
            yield key
            if not self.take(b","):
                break
        self.expect(b"}")

    def parse(self):
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for i in range(0, len(self.text), 1 << 16):
                decoder.decode(self.text[i:i + (1 << 16)])
            decoder.decode(b"", True)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: header: expected UTF-8") from error
        if self.text[:1] != b"{":
            self.refuse("'{' as the header's first character")
        has_metadata = False
        for key in self.keys():
            if key != "__metadata__":
                self.tensor_entry(key)
                continue
            if has_metadata:
                self.refuse('"__metadata__" once')
            has_metadata = True
            hashes, own = array.array("q"), 0
            for name in self.keys():
                hashes.append(hash(name))
                own += not name.startswith("gradus/")
                if own > self.MOST_STRINGS:
                    self.refuse(f"at most {self.MOST_STRINGS} strings that are not gradus's")
                if name in self.strings:
                    self.metadata[name] = self.string()
                else:
                    self.raw()
            self.check_unique(hashes, "metadata")
        self.at = self.SPACE.match(self.text, self.at).end()
        if self.at != len(self.text):
            self.refuse("nothing after the header's last '}'")
        self.check_tensors()

    def tensor_entry(self, key):
        fields = {}
        for field in self.keys():
            if field in fields:
                self.refuse(f"each field of tensor {shown(key)} once")
            if field == "dtype":
                fields[field] = self.string()
            elif field == "shape":
                self.expect(b"[")
                elements = 1
                if not self.take(b"]"):
                    while True:
                        elements *= self.natural()
                        if elements >= 1 << 64:
                            self.refuse("a shape of fewer than 2^64 bytes")
                        if not self.take(b","):
                            break
                    self.expect(b"]")
                fields[field] = elements
            elif field == "data_offsets":
                self.expect(b"[")
                begin = self.natural()
                self.expect(b",")
                fields[field] = begin, self.natural()
                self.expect(b"]")
            else:
                self.refuse(f"dtype, shape or data_offsets, not {shown(field)}")
        if len(fields) != 3:
            self.refuse(f"dtype, shape and data_offsets of tensor {shown(key)}")
        (begin, end), elements, dtype = fields["data_offsets"], fields["shape"], fields["dtype"]
        if begin > end or end > self.size:
            self.refuse(f"data_offsets of tensor {shown(key)} in order and within the {self.size} bytes there are")
        if dtype in self.DTYPES and elements * self.DTYPES[dtype].itemsize != end - begin:
            self.refuse(f"as many bytes for tensor {shown(key)} as its dtype and shape take")
        self.begins.append(begin)
        self.ends.append(end)
        self.hashes.append(hash(key))
        if key in self.tensors:
            self.entries[key] = dtype, elements, begin
        else:
            self.others += 1
            self.other_names = sorted([*self.other_names, key[:100]])[:3]

    def check_unique(self, hashes, what):
        """Of two keys in 2^64 the hashes are the same. Which keys, differs from run to run."""
        if hashes and (torch.frombuffer(hashes, dtype=torch.int64).sort().values.diff() == 0).any():
            raise ValueError(f"{self.path}: header: expected each {what} once")

    def check_tensors(self):
        """No key is there twice, and every byte belongs to one tensor."""
        at = 0
        if self.begins:
            self.check_unique(self.hashes, "tensor")
            begins, ends = (torch.frombuffer(x, dtype=torch.int64) for x in (self.begins, self.ends))
            order = ends.argsort(stable=True)
            order = order[begins[order].argsort(stable=True)]
            begins, ends = begins[order], ends[order]
            wrong = torch.nonzero(begins[1:] != ends[:-1])
            if begins[0] != 0 or len(wrong):
                i = int(wrong[0]) + 1 if begins[0] == 0 else 0
                raise ValueError(f"{self.path}: a tensor's bytes begin at {begins[i]}; expected {ends[i - 1] if i else 0}, "
                                 "where the one before it ends")
            at = int(ends[-1])
        if at != self.size:
            raise ValueError(f"{self.path}: the tensors end at byte {at} of the data; expected {self.size}, the file's end")

    def tensor(self, file, key):
        dtype, elements, begin = self.entries[key]
        if dtype not in self.DTYPES:
            raise ValueError(f"{self.path}: {key} is of {shown(dtype)}; expected a type that gradus has")
        if elements == 0:
            return torch.empty(0, dtype=self.DTYPES[dtype])
        file.seek(self.start + begin)
        data = bytearray(elements * self.DTYPES[dtype].itemsize)
        if file.readinto(data) != len(data):
            raise ValueError(f"{self.path}: cannot be read")
        return torch.frombuffer(data, dtype=self.DTYPES[dtype])


def from_gradus(path, state_dict, model, recipe=None, names=None, in_order=False):
    """A state_dict like the one given, with what is in the file; and the file's parameters, name -> tensor, if it has them.

    The arguments are those of to_gradus. Moments come out in their parameter's type, 8-bit ones decoded; master weights
    become the parameters where these are of 32 bits or more.
    """
    groups = state_dict["param_groups"]
    recipe = recipe or recipe_of(groups, state=state_dict["state"])
    check_groups(groups, recipe)
    check_state(state_dict, recipe)
    numbers = RECIPES[recipe][0]
    names = names_of(state_dict, model, names, in_order)
    slots = ["step", "master", *SCALARS.get(recipe, ())] + [f"{slot}{end}" for slot in RECIPES[recipe][1] for end in ("", "_scale")]
    file = Reader(path, {"gradus/format", "gradus/recipe", "gradus/groups", *(f"gradus/group_of/{name}" for name in names.values()),
                         *(f"gradus/lr_scale/{k}" for k in range(len(groups))),
                         *(f"gradus/group/{k}/{n}" for k in range(len(groups)) for n in numbers)},
                  {"state//seed", *(f"parameters/{name}" for name in names.values()),
                   *(f"state/{name}/{slot}" for name in names.values() for slot in slots)})
    metadata = file.metadata
    tensors = file.values
    if metadata.get("gradus/format") != "1":
        raise ValueError(f'{path}: gradus/format is {shown(metadata.get("gradus/format"))}; expected 1')

    def of(key):
        if key not in metadata:
            raise ValueError(f"{path}: {key} is missing")
        return metadata[key]

    def number(key):
        text = of(key)
        try:
            x = float(text)
        except ValueError:
            x = math.nan
        if not math.isfinite(x):
            raise ValueError(f"{path}: {key} is {shown(text)}; expected a number")
        return x

    used = set()

    def values(key, parameter):
        x = tensors.get(key)
        if x is None:
            raise ValueError(f"{path}: {key} is missing")
        used.add(key)
        slot = key.rsplit("/", 1)[1]
        if key.startswith("state/") and x.dtype == torch.uint8:
            scales = tensors.get(key + "_scale")
            if scales is None or scales.dtype != torch.float32 or scales.numel() != (x.numel() + 255) // 256:
                raise ValueError(f"{path}: {key} has 8-bit codes; expected a scale for each 256 of them in {key}_scale")
            used.add(key + "_scale")
            x = decode(x.flatten(), scales.flatten(), slot not in NONNEGATIVE)
        if not x.is_floating_point():
            raise ValueError(f"{path}: {key} is of {x.dtype}; expected floating-point numbers")
        if x.numel() != parameter.numel():
            raise ValueError(f"{path}: {key} has {x.numel()} elements; expected {parameter.numel()}, of shape {tuple(parameter.shape)}")
        return x.reshape(parameter.shape).to(parameter.dtype)

    def number_at(key):
        if key not in tensors or tensors[key].numel() != 1:
            raise ValueError(f"{path}: {key} is missing, or is not one number")
        used.add(key)
        return tensors[key].reshape(()).to(torch.float64)

    def count_at(key):
        x = number_at(key)
        if tensors[key].is_floating_point() or not 0 <= x < 1 << 53:
            raise ValueError(f"{path}: {key} is {x.item():g}, of {tensors[key].dtype}; expected a whole number below 2^53")
        return int(x)

    if of("gradus/recipe") != recipe or of("gradus/groups") != str(len(groups)):
        raise ValueError(f'{path}: {shown(of("gradus/recipe"))} in {shown(of("gradus/groups"))} groups; expected {recipe} in {len(groups)}')
    new_groups, state, new_parameters, masters_lost = [], {}, {}, []
    for k, group in enumerate(groups):
        value = {n: number(f"gradus/group/{k}/{n}") for n in numbers}
        if f"gradus/lr_scale/{k}" in metadata:
            value["lr"] *= number(f"gradus/lr_scale/{k}")  # torch's groups have lr alone
        changed = {t: same_kind(group[t], value[n]) for n, t in numbers.items() if t != "betas" and t in group}
        if "beta1" in value:
            changed["betas"] = tuple(same_kind(old, value[n]) for old, n in zip(group["betas"], ("beta1", "beta2")))
        new_groups.append({**group, **changed})
        for index in group["params"]:
            name = names[index]
            if of(f"gradus/group_of/{name}") != str(k):
                raise ValueError(f'{path}: {name} is in group {shown(of(f"gradus/group_of/{name}"))}; expected {k}')
            parameter = model[name]
            step = count_at(f"state/{name}/step")
            has_parameters, has_master = f"parameters/{name}" in tensors, f"state/{name}/master" in tensors
            if has_parameters:
                new_parameters[name] = values(f"parameters/{name}", parameter)
            if has_master and has_parameters and parameter.element_size() >= 4:
                new_parameters[name] = values(f"state/{name}/master", parameter)
            elif has_master:
                used.add(f"state/{name}/master")
                masters_lost.append(name)
            kept = kept_slots(recipe, value)
            moments = {other: values(f"state/{name}/{slot}", parameter) for slot, other in kept.items()}
            scalars = {key: number_at(f"state/{name}/{key}") for key in SCALARS.get(recipe, ())}
            if step == 0 and recipe != "adagrad":
                continue  # torch makes the state of a parameter in its first step, but Adagrad's at once
            if recipe == "rmsprop" and "grad_avg" in moments:
                moments["square_avg"] = moments["square_avg"] + moments["grad_avg"].square()
            state[index] = {**moments, **scalars}
            if recipe != "sgd":
                state[index]["step"] = torch.tensor(float(step), dtype=torch.float64 if step >= 1 << 24 else torch.float32)
    if masters_lost:
        warnings.warn(f"{path}: the master weights of {len(masters_lost)} tensors ({masters_lost[0]}, …) are left out: PyTorch's "
                      "optimizers keep none, and go on from the parameters as they are rounded")
    unused = set(tensors) - used - {"state//seed"}  # nothing is rounded by chance there
    left, left_names = len(unused) + file.others, sorted([*unused, *file.other_names])[:3]
    if left:
        warnings.warn(f"{path}: {left} of its tensors ({', '.join(left_names)}{', …' if left > 3 else ''}) are left out: "
                      "the optimizer has nothing under these names")
    return {"state": state, "param_groups": new_groups}, new_parameters


def save(optimizer, named_parameters, path, recipe=None, **options):
    """Writes a torch optimizer, and its parameters, as a checkpoint that gradus::load reads.

    named_parameters  names for all of the optimizer's parameters, in any order; others are left out
    """
    recipe = recipe or recipe_of(optimizer.param_groups, kind_of(optimizer))
    parameters, names = names_by_identity(optimizer, named_parameters)
    frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    to_gradus(optimizer.state_dict(), parameters, path, recipe=recipe, names=names, frozen=frozen, **options)


def load(optimizer, named_parameters, path, recipe=None):
    """Loads a checkpoint of gradus's into a torch optimizer of the same groups, and into its parameters."""
    recipe = recipe or recipe_of(optimizer.param_groups, kind_of(optimizer))
    parameters, names = names_by_identity(optimizer, named_parameters)
    state_dict, values = from_gradus(path, optimizer.state_dict(), parameters, recipe=recipe, names=names)
    optimizer.load_state_dict(state_dict)
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    there = commands.add_parser("to-gradus")
    there.add_argument("run"), there.add_argument("out")
    back = commands.add_parser("from-gradus")
    back.add_argument("file"), back.add_argument("run"), back.add_argument("out")
    for command in (there, back):
        command.add_argument("--optimizer", default="optimizer", help="the key of the optimizer's state_dict")
        command.add_argument("--model", default="model", help="the key of the model's state_dict")
        command.add_argument("--recipe", choices=RECIPES, help="where the state_dict does not say")
        which = command.add_mutually_exclusive_group()
        which.add_argument("--names", metavar="FILE", help="the names of the optimizer's parameters, in its order, one a line")
        which.add_argument("--in-order", action="store_true", help="the optimizer was given model.parameters(), in their order")
    o = parser.parse_args(arguments)
    run = torch.load(o.run, map_location="cpu", weights_only=True)
    state_dict, model = run[o.optimizer], run[o.model]
    options = {"recipe": o.recipe, "in_order": o.in_order}
    if o.names:
        with open(o.names, encoding="utf-8") as file:
            options["names"] = file.read().splitlines()
    if o.command == "to-gradus":
        to_gradus(state_dict, model, o.out, **options)
    else:
        run[o.optimizer], values = from_gradus(o.file, state_dict, model, **options)
        with torch.no_grad():
            for name, value in values.items():
                model[name].copy_(value)  # in place, so that tied weights stay tied
        torch.save(run, o.out)


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"torch_checkpoint: {message}", file=sys.stderr)
    try:
        main()
    except KeyError as error:
        sys.exit(f"torch_checkpoint: {error} is missing")
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        sys.exit(f"torch_checkpoint: {error}")
