#!/usr/bin/env python3
"""One run of the study on a GPU: PyTorch computes the gradients of ResNet-18, gradus on Thrust takes the steps.

  train.py RUN.json --steps steps.so --log LOG.jsonl --state FOLDER [--data FOLDER | --toy] [--device cuda] [--until SECONDS]

RUN.json: optimizer (sgd, adam, adamw, adams), lr, weight_decay, epochs, batch, seed, width. After each epoch a line is added to the
log and all that the run needs to go on is in the state's folder. --until is a time (seconds since 1970): an epoch that would
pass it is not begun, and the exit status is 75.
"""
import argparse
import ctypes
import json
import os
import pathlib
import sys
import time

import torch
from torch.nn import functional

import network

STOPPED = 75
PROBE = 512
RUN_KEYS = ("optimizer", "lr", "weight_decay", "epochs", "batch", "seed", "width")


class Steps:
    """gradus's optimizer over the model's memory."""

    def __init__(self, library, run, model, stream):
        self.library = ctypes.CDLL(str(pathlib.Path(library).resolve()))
        self.library.study_error.restype = ctypes.c_char_p
        self.opt = ctypes.c_void_p()
        double, pointer = ctypes.c_double, ctypes.c_void_p
        self.call("study_create", run["optimizer"].encode(), double(run["lr"]), double(run["weight_decay"]), double(0.9),
                  pointer(stream), ctypes.byref(self.opt))
        for name, p in model.named_parameters():
            if p.grad is None or p.grad.stride() != p.stride():
                raise ValueError(f"{name} has no gradient that lies as it does; expected one of the same strides")
            self.call("study_add", self.opt, name.encode(), pointer(p.data_ptr()), pointer(p.grad.data_ptr()),
                      ctypes.c_size_t(p.numel()))

    def call(self, function, *arguments):
        if getattr(self.library, function)(*arguments):
            raise RuntimeError(f"{function}: {self.library.study_error().decode()}")

    def step(self, lr_scale):
        self.call("study_step", self.opt, ctypes.c_double(lr_scale))

    def decay_factor(self):
        factor = ctypes.c_double()
        self.call("study_decay_factor", self.opt, ctypes.byref(factor))
        return factor.value

    def save(self, file):
        self.call("study_save", self.opt, str(file).encode())

    def load(self, file):
        self.call("study_load", self.opt, str(file).encode())


class Gradients:
    """Forward and backward of a batch into the parameters' gradients; on CUDA as a captured graph over memory that stays."""

    def __init__(self, model, batch, device):
        self.model, self.device = model, device
        self.images = torch.zeros(batch, 1, network.SIDE, network.SIDE, device=device)
        self.labels = torch.zeros(batch, dtype=torch.long, device=device)
        self.loss, self.norms = torch.zeros((), device=device), torch.zeros((), device=device)
        self.graph = None
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        if device.type == "cuda":
            buffers = [b.clone() for b in model.buffers()]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):  # libraries choose their algorithms and take their memory
                    self.compute()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.compute()
            for b, kept in zip(model.buffers(), buffers):
                b.copy_(kept)
            self.start()

    def start(self):
        self.loss.zero_()
        self.norms.zero_()

    def compute(self):
        gradients = [p.grad for p in self.model.parameters()]
        torch._foreach_zero_(gradients)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self.model(self.images)
        loss = functional.cross_entropy(output.float(), self.labels)
        loss.backward()
        self.loss += loss.detach()
        self.norms += torch.stack(torch._foreach_norm(gradients)).norm()

    def __call__(self, images, labels):
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay() if self.graph else self.compute()


def lr_scale(epoch, epochs):
    """A tenth from 40 % of the run on, a hundredth from 80 % on."""
    return 0.1 ** sum(epoch >= fraction * epochs for fraction in (0.4, 0.8))


@torch.no_grad()
def test(model, images, labels):
    """Error in percent and mean loss."""
    model.eval()
    wrong, loss = 0, 0.0
    for i in range(0, len(images), 500):
        output = model(network.normalised(images[i:i + 500]))
        wrong += int((output.argmax(1) != labels[i:i + 500]).sum())
        loss += float(functional.cross_entropy(output, labels[i:i + 500], reduction="sum"))
    model.train()
    return 100 * wrong / len(images), loss / len(images)


def read_run(path):
    run = json.loads(path.read_text())
    if set(run) != set(RUN_KEYS):
        raise ValueError(f"{path} has the keys {', '.join(sorted(run))}; expected {', '.join(sorted(RUN_KEYS))}")
    return run


def train(o):
    run = read_run(o.run)
    device = torch.device(o.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(run["seed"])
    data = network.toy() if o.toy else network.load(o.data)
    (images, labels), (test_images, test_labels) = ([x.to(device) for x in data[part]] for part in ("train", "test"))
    batch, steps = run["batch"], len(images) // run["batch"]
    model = network.resnet18(run["width"]).to(device, memory_format=torch.channels_last)  # the layout of the fastest convolutions
    model.train()
    gradients = Gradients(model, batch, device)
    opt = Steps(o.steps, run, model, torch.cuda.current_stream().cuda_stream if device.type == "cuda" else None)
    o.state.mkdir(parents=True, exist_ok=True)
    rest, lines, epoch = o.state / "rest.pt", [], 0
    if rest.exists():
        kept = torch.load(rest, weights_only=True)
        if kept["run"] != run:
            raise ValueError(f"{o.state} is the state of another run, {kept['run']}; expected {run}")
        opt.load(o.state / kept["weights"])
        for b, value in zip(model.buffers(), kept["buffers"]):
            b.copy_(value)
        lines, epoch = kept["lines"], kept["epoch"]
    else:
        lines = [{"run": run, "parameters": sum(p.numel() for p in model.parameters()), "torch": str(torch.__version__),
                  "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}]
    o.log.write_text("".join(json.dumps(line) + "\n" for line in lines))

    longest = 0.0
    while epoch < run["epochs"]:
        if time.time() + longest > o.until:
            return STOPPED
        start, scale = time.time(), lr_scale(epoch, run["epochs"])
        g = torch.Generator().manual_seed(run["seed"] * 1_000_003 + epoch)
        order = torch.randperm(len(images), generator=g).to(device)
        shifts, flips = torch.randint(0, 9, (len(images), 2), generator=g).to(device), (torch.rand(
            len(images), generator=g) < 0.5).to(device)
        gradients.start()
        decay, factors = 0.0, []
        for k in range(steps):
            here = order[k * batch:(k + 1) * batch]
            gradients(network.cropped_and_flipped(network.normalised(images[here]), shifts[here], flips[here]), labels[here])
            opt.step(scale)
            if run["optimizer"] == "adams" and (k % 20 == 10 or k == steps - 1):  # asking waits for the step
                factors.append(opt.decay_factor())
        strength = {"adamw": run["weight_decay"],
                    "adams": run["weight_decay"] * sum(factors) / max(1, len(factors))}.get(run["optimizer"], 0.0)
        decay = strength * run["lr"] * scale * steps
        error, test_loss = test(model, test_images, test_labels)
        line = {"epoch": epoch + 1, "lr": run["lr"] * scale, "train_loss": float(gradients.loss) / steps,
                "grad_norm": float(gradients.norms) / steps, "test_error": error, "test_loss": test_loss,
                "weight_norm": float(torch.stack(torch._foreach_norm([p.detach() for p in model.parameters()])).norm()),
                "decay_factor": sum(factors) / len(factors) if factors else None, "effective_decay": strength,
                "decay_sum": decay + (lines[-1].get("decay_sum", 0.0)), "seconds": time.time() - start}
        epoch += 1
        if epoch == run["epochs"]:
            count = 32 if o.toy else PROBE
            line["sharpness"] = network.top_eigenvalue(model, network.normalised(images[:count]), labels[:count])
        lines.append(line)
        weights = f"weights-{epoch}.safetensors"
        opt.save(o.state / weights)
        torch.save({"run": run, "epoch": epoch, "weights": weights, "lines": lines,
                    "buffers": [b.clone() for b in model.buffers()]}, o.state / "rest.new")
        os.replace(o.state / "rest.new", rest)
        for old in o.state.glob("weights-*.safetensors"):
            if old.name != weights:
                old.unlink()
        with open(o.log, "a") as log:
            log.write(json.dumps(line) + "\n")
        longest = max(longest, time.time() - start)
    return 0


def options(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--steps", required=True, help="what steps.cu became")
    parser.add_argument("--log", type=pathlib.Path, required=True)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--toy", action="store_true", help="made-up images, for tests")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--until", type=float, default=float("inf"))
    return parser.parse_args(arguments)


def main():
    try:
        return train(options())
    except (OSError, RuntimeError, ValueError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
