"""The study's logs: read as the worker writes them, packed into one file, and asked for what they measured."""
import json
import lzma
import math

from experiments import COMMANDS, entrant, key, name, planned, refuse, setting, six, strength, unique


# ---------------------------------------------------------------------------------------------------- reading
def lines_of(path):
    """A log's lines; a last one that was cut off in writing does not count."""
    out = []
    try:
        for line in path.read_text().splitlines():
            out.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return out


def packed_lines(path):
    """The lines of a file that `pack` wrote: one line for each run."""
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (EOFError, ValueError, lzma.LZMAError) as error:
        refuse(f"{path} is damaged ({error}); expected JSON lines, compressed by xz")


class Log:
    """A finished run: its description, its lines, a line an epoch (of a command: its lines), its last line."""

    def __init__(self, run, head, epochs, done):
        self.run, self.head, self.done = run, head, done
        self.diverged = any(e.get("diverged") for e in epochs)
        self.epochs = [e for e in epochs if not e.get("diverged")]

    def value(self, field):
        """At the end of the run; None where there is none."""
        if self.diverged or not self.epochs:
            return None
        if field in OF_THE_RUN:
            return OF_THE_RUN[field](self)
        return measured(self.epochs[-1] | {"sharpness": self.done.get("sharpness")}, field)


def effective_decay(log, weight=lambda e: 1):
    """The mean over the epochs' ends of what an epoch's steps take from the weights, over lr: AdamW's λ, AdamS's λ/√v̄.
    None for other decays, which do not shrink all weights alike."""
    if log.run["optimizer"] == "adamw":
        return log.run["weight_decay"]
    if log.run["optimizer"] != "adams":
        return None
    return log.run["weight_decay"] * (sum(weight(e) * e["decay_factor"] for e in log.epochs) /
                                      sum(weight(e) for e in log.epochs))


def spike(log):
    """The largest ratio of an epoch's gradient norm to the mean of its neighbours'."""
    norms = [e["grad_norm"] for e in log.epochs if "grad_norm" in e]
    return max((2 * here / (before + after) for before, here, after in zip(norms, norms[1:], norms[2:])), default=None)


OF_THE_RUN = {"effective_decay": effective_decay, "weighted_decay": lambda log: effective_decay(log, lambda e: e["lr"]),
              "spike": spike}
# Where a network does not depend on the scale of its weights, gradients go as 1/‖θ‖ and the Hessian as 1/‖θ‖²: what is
# left after multiplying with these is not decay's mere shortening of the weights.
DERIVED = {"perplexity": ("test_loss", math.exp),
           "gap": ("test_loss", "probe_loss", lambda test, probe: test - probe),
           "probe_square": ("probe_grad_norm", lambda g: g * g),
           "scaled_grad_norm": ("grad_norm", "weight_norm", lambda g, w: g * w),
           "scaled_sharpness": ("sharpness", "weight_norm", lambda h, w: h * w * w)}


def measured(epoch, field):
    """None where it was not measured: the test is not taken in every epoch."""
    *sources, f = DERIVED.get(field, (field, lambda x: x))
    values = [epoch.get(source) for source in sources]
    return None if None in values else f(*values)


def read_logs(folders, size):
    """The plan's finished runs by key, from logs as the worker writes them and from packed ones; a later folder's count."""
    wanted = set(map(key, unique(planned(None, size))))
    out = {}
    for path in (p for folder in folders for p in sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.xz")])):
        lines = packed_lines(path) if path.suffix == ".xz" else lines_of(path)
        if path.suffix == ".xz":
            logs = [Log(x["run"], x["head"], x["epochs"], x["done"]) for x in lines]
        elif path.stem in COMMANDS:
            rows = [x for x in lines if "kind" in x or "optimizer" in x]  # no head and no last line needed
            logs = [Log({"command": path.stem}, {}, rows, {"done": True})]
        elif lines and "done" in lines[-1]:
            head = {k: v for k, v in lines[0].items() if k != "run"}
            logs = [Log(lines[0]["run"], head, lines[1:-1], lines[-1])]
        else:
            logs = []
        for log in logs:  # rounded as packed ones are, so that both give the same figures
            log.epochs, log.done = shortened(log.epochs), shortened(log.done)
            if key(log.run) in wanted:
                out[key(log.run)] = log
    return out


def shortened(x):
    if isinstance(x, float):
        return six(x)
    if isinstance(x, dict):
        return {k: shortened(v) for k, v in x.items()}
    return [shortened(v) for v in x] if isinstance(x, list) else x


# ---------------------------------------------------------------------------------------------------- groups of runs
FIELDS_OF_RUNS = {"strength": strength, "setting": setting, "entrant": entrant}


def of(run, field):
    return FIELDS_OF_RUNS[field](run) if field in FIELDS_OF_RUNS else run.get(field)


def groups(rs, fields):
    """Runs by the values of fields, in the order of the plan; numbers ascend."""
    out = {}
    for r in rs:
        if "command" not in r:
            out.setdefault(tuple(of(r, f) for f in fields), []).append(r)
    numeric = [i for i, f in enumerate(fields) if f in ("strength", "setting", "lr", "batch", "epochs")]
    order = list(out)
    return {k: out[k] for k in sorted(out, key=lambda k: [k[i] if i in numeric else
                                                          min(j for j, other in enumerate(order) if other[i] == k[i])
                                                          for i in range(len(k))])}


def found(rs, logs):
    return [logs[key(r)] for r in rs if key(r) in logs]


def label(x, field):
    return f"λ = {x:g}" if field in ("strength", "setting") else f"{x:g}" if isinstance(x, float) else str(x)


def by_kind(log):
    out = {}
    for x in log.epochs:
        out.setdefault(x["kind"], []).append(x)
    return out


# ---------------------------------------------------------------------------------------------------- packing
def pack_command(o):
    logs = read_logs(o.logs, o.size)
    o.out.mkdir(parents=True, exist_ok=True)
    path, text = o.out / "study.jsonl.xz", ""
    for log in sorted(logs.values(), key=lambda log: name(log.run)):
        epochs = log.epochs + ([{"diverged": True}] if log.diverged else [])
        line = {"run": log.run, "head": log.head, "epochs": epochs, "done": log.done}
        text += json.dumps(line, separators=(",", ":")) + "\n"
    # xz stores no time, so the same logs give the same bytes.
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"study: {len(logs)} runs in {path}, {path.stat().st_size / 1e6:.2f} MB")
