#!/usr/bin/env python3
"""Checkpoints of torch.optim turned into gradus's, and back: SGD, Adam, AdamW, Adam with amsgrad, RAdam.

In a program:

    import torch_checkpoint
    torch_checkpoint.save(optimizer, model.named_parameters(), "run.safetensors")
    torch_checkpoint.load(optimizer, model.named_parameters(), "run.safetensors")

From files that torch.save wrote, with the two state_dicts under the keys "optimizer" and "model":

    torch_checkpoint.py to-gradus RUN.pt RUN.safetensors
    torch_checkpoint.py from-gradus RUN.safetensors RUN.pt NEW.pt     RUN.pt gives shapes, names and groups

Needs the packages torch and safetensors. docs/checkpoint.md has the layout of gradus's files.
"""

import argparse
import sys

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

ADAM = {"lr": "lr", "beta1": "betas", "beta2": "betas", "eps": "eps", "weight_decay": "weight_decay"}
# Of each recipe: its hyperparameters by gradus's names, with torch's, and its slots.
RECIPES = {
    "sgd": ({n: n for n in ("lr", "momentum", "dampening", "nesterov", "weight_decay")}, ("momentum_buffer",)),
    "adam": (ADAM, ("exp_avg", "exp_avg_sq")),
    "adamw": (ADAM, ("exp_avg", "exp_avg_sq")),
    "amsgrad": (ADAM, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")),
    "radam": ({**ADAM, "decoupled_weight_decay": "decoupled_weight_decay"}, ("exp_avg", "exp_avg_sq")),
}


def recipe_of(groups):
    """The gradus recipe that does what torch does with these param_groups."""
    found = set()
    for g in groups:
        if g.get("maximize"):
            raise ValueError("maximize is True; gradus minimises: turn the gradients' sign")
        if "momentum" in g and "betas" not in g:
            found.add("sgd")
        elif "amsgrad" in g:
            if "decoupled_weight_decay" not in g:
                raise ValueError("the param_groups do not say whether they are Adam's or AdamW's; name the recipe")
            decoupled = g["decoupled_weight_decay"] and g["weight_decay"] != 0
            if g["amsgrad"] and decoupled:
                raise ValueError("AdamW with amsgrad is none of gradus's recipes")
            found.add("amsgrad" if g["amsgrad"] else "adamw" if g["decoupled_weight_decay"] else "adam")
        elif "betas" in g and "decoupled_weight_decay" in g:
            found.add("radam")
        else:
            raise ValueError(f"param_groups have {sorted(g)}; expected those of SGD, Adam, AdamW or RAdam")
    if len(found) != 1:
        raise ValueError(f"the param_groups are of {sorted(found)}; expected one recipe for all")
    return found.pop()


def number_of(group, name, torch_name):
    value = group[torch_name]
    if torch_name == "betas":
        value = value[name == "beta2"]
    return float(value)


def names_of(state_dict, names):
    """The names of the parameters by their index in the state_dict: its own where it has them, else those given, in order."""
    indices = [i for g in state_dict["param_groups"] for i in g["params"]]
    own = [n for g in state_dict["param_groups"] for n in g.get("param_names", [])]
    names = own if len(own) == len(indices) else list(names)
    if len(names) != len(indices):
        raise ValueError(f"{len(names)} names for {len(indices)} parameters; expected one each, in the order of the optimizer's")
    return dict(zip(indices, names))


def to_gradus(state_dict, parameters, path, recipe=None, with_parameters=True, metadata=None):
    """Writes an optimizer's state_dict. `parameters`: name -> tensor, in the order of the optimizer's parameters."""
    groups = state_dict["param_groups"]
    recipe = recipe or recipe_of(groups)
    numbers, slots = RECIPES[recipe]
    names = names_of(state_dict, parameters)
    header = {"gradus/format": "1", "gradus/version": "torch " + torch.__version__, "gradus/recipe": recipe,
              "gradus/groups": str(len(groups))}
    tensors = {}
    for k, group in enumerate(groups):
        for name, torch_name in numbers.items():
            header[f"gradus/group/{k}/{name}"] = repr(number_of(group, name, torch_name))
        for index in group["params"]:
            name, state = names[index], state_dict["state"].get(index, {})
            parameter = parameters[name].detach()
            header[f"gradus/group_of/{name}"] = str(k)
            kept = () if recipe == "sgd" and group["momentum"] == 0 else slots
            moments = {s: state.get(s) for s in kept}
            fresh = all(m is None for m in moments.values())
            # SGD counts no steps in torch; that there is a buffer says that the first is over.
            step = int(state["step"]) if "step" in state else int(not fresh)
            tensors[f"state/{name}/step"] = torch.tensor([step], dtype=torch.uint64)
            for slot, moment in moments.items():
                moment = torch.zeros_like(parameter) if moment is None else moment
                tensors[f"state/{name}/{slot}"] = moment.detach().cpu().contiguous().flatten().clone()
            if with_parameters:
                tensors[f"parameters/{name}"] = parameter.cpu().contiguous().flatten().clone()
    save_file(tensors, path, {**(metadata or {}), **header})


def from_gradus(path, state_dict, parameters):
    """A state_dict like the one given, with what is in the file; and the file's parameters, name -> tensor, if it has them."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    if metadata.get("gradus/format") != "1":
        raise ValueError(f'{path}: gradus/format is {metadata.get("gradus/format")}; expected 1')
    groups = state_dict["param_groups"]
    recipe = recipe_of(groups)
    if metadata["gradus/recipe"] != recipe or metadata["gradus/groups"] != str(len(groups)):
        raise ValueError(f'{path}: {metadata["gradus/recipe"]} in {metadata["gradus/groups"]} groups; expected {recipe} in {len(groups)}')
    numbers, slots = RECIPES[recipe]
    names = names_of(state_dict, parameters)
    new_groups, state, new_parameters = [], {}, {}
    for k, group in enumerate(groups):
        value = {n: float(metadata[f"gradus/group/{k}/{n}"]) for n in numbers}
        changed = {t: bool(value[n]) if isinstance(group[t], bool) else value[n] for n, t in numbers.items() if t != "betas"}
        if "beta1" in value:
            changed["betas"] = (value["beta1"], value["beta2"])
        new_groups.append({**group, **changed})
        for index in group["params"]:
            name = names[index]
            if metadata[f"gradus/group_of/{name}"] != str(k):
                raise ValueError(f'{path}: {name} is in group {metadata[f"gradus/group_of/{name}"]}; expected {k}')
            shape = parameters[name].shape
            step = int(tensors[f"state/{name}/step"].reshape(-1)[0])
            if f"parameters/{name}" in tensors:
                new_parameters[name] = tensors[f"parameters/{name}"].reshape(shape)
            if step == 0:
                continue  # torch makes the state of a parameter in its first step
            state[index] = {s: tensors[f"state/{name}/{s}"].reshape(shape) for s in slots if f"state/{name}/{s}" in tensors}
            if recipe != "sgd":
                state[index]["step"] = torch.tensor(float(step), dtype=torch.float64 if step >= 1 << 24 else torch.float32)
    return {"state": state, "param_groups": new_groups}, new_parameters


def save(optimizer, named_parameters, path, **options):
    """Writes a torch optimizer, and its parameters, as a checkpoint that gradus::load reads."""
    to_gradus(optimizer.state_dict(), dict(named_parameters), path, **options)


def load(optimizer, named_parameters, path):
    """Loads a checkpoint of gradus's into a torch optimizer of the same groups, and into its parameters."""
    parameters = dict(named_parameters)
    state_dict, values = from_gradus(path, optimizer.state_dict(), parameters)
    optimizer.load_state_dict(state_dict)
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    there = commands.add_parser("to-gradus")
    there.add_argument("run"), there.add_argument("out")
    there.add_argument("--recipe", choices=RECIPES, help="where the state_dict does not say")
    back = commands.add_parser("from-gradus")
    back.add_argument("file"), back.add_argument("run"), back.add_argument("out")
    for command in (there, back):
        command.add_argument("--optimizer", default="optimizer", help="the key of the optimizer's state_dict")
        command.add_argument("--model", default="model", help="the key of the model's state_dict")
    o = parser.parse_args()
    run = torch.load(o.run, map_location="cpu", weights_only=True)
    state_dict, model = run[o.optimizer], run[o.model]
    if o.command == "to-gradus":
        to_gradus(state_dict, model, o.out, recipe=o.recipe)
    else:
        run[o.optimizer], values = from_gradus(o.file, state_dict, model)
        model.update(values)
        torch.save(run, o.out)


if __name__ == "__main__":
    try:
        main()
    except KeyError as error:
        sys.exit(f"torch_checkpoint: {error} is missing")
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        sys.exit(f"torch_checkpoint: {error}")
