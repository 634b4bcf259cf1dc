#!/usr/bin/env python3
"""The study's experiments: lists and runs them, packs their logs, and draws figures and tables from the logs alone.

  study.py list   [--quick] [--only a,c]                                  the runs, and the work by experiment and model
  study.py run    [--quick] [--only a,c] [--jobs N] --worker PATH --out DIR [--data DIR] [--text FILE]
  study.py report [--quick] --logs DIR --out DIR                          tables.md and one SVG a figure; trains nothing
  study.py pack   --logs DIR --out DIR                                    all finished logs in one file, DIR/study.jsonl

A run that is done is skipped; one that was stopped goes on from its last epoch. `report` reads what `pack` wrote, too.
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

# ---------------------------------------------------------------------------------------------------- sizes
IMAGES = 12000
EPOCHS = 15
SEEDS = (1, 2, 3)
FEW_SEEDS = (1, 2)            # where three would cost too much
HEAT_IMAGES, HEAT_EPOCHS = 6000, 8
LONG_IMAGES, LONG_EPOCHS = 4000, 60
LSTM_EPOCHS = 6
BATCH = 128
DECAYS = (0, 1e-4, 5e-4, 2e-3, 5e-3)
FEW_DECAYS = (0, 5e-4, 5e-3)
USUAL = 5e-4
OPTIMIZERS = ("sgd", "sgds", "adam", "adamw", "adams", "amsgrad", "yogi", "adabound", "padam", "radam")
LR = {"sgd": 0.1, "sgds": 0.1, "sgd_decoupled": 0.1, "sgd_independent": 0.1, "padam": 0.1}  # all others:
ADAPTIVE_LR = 1e-3
# Seconds that an image costs, forward and backward, as a multiple of vgg's; an epoch of the LSTM in such images.
# They serve the estimate of the time left alone.
COST = {"mlp": 0.03, "vgg": 1.0, "vgg_bn": 1.15, "resnet": 2.0}
LSTM_EPOCH, COMMAND = 20000, 40000
TEST_IMAGES = 10000 / 3       # forward only

KEYS = ("model", "optimizer", "lr", "weight_decay", "schedule", "milestones", "t_0", "t_mult", "epochs", "images",
        "batch", "seed")


# ---------------------------------------------------------------------------------------------------- runs
def lr_of(optimizer):
    return LR.get(optimizer, ADAPTIVE_LR)


def decay_factor(optimizer, lr):
    """What a strength is multiplied by to give the optimizer's weight_decay. A strength is what L2 and SWD are given;
    AdamW's is divided by 0.001, as in the paper; Equation 1's is multiplied by lr, so that it agrees with Equation 2's
    until lr drops."""
    return 1 / ADAPTIVE_LR if optimizer == "adamw" else lr if optimizer == "sgd_independent" else 1


def six(x):
    return float(f"{x:.6g}")


def strength(run):
    return six(run["weight_decay"] / decay_factor(run["optimizer"], run["lr"]))


def runs(models, optimizers, strengths=(USUAL,), seeds=(1,), lrs=None, **changes):
    """One description for each combination. `lrs`: multiples of the optimizer's own."""
    out = []
    for seed in seeds:  # outermost: all rows of a table have their first seed early
        for model in models:
            for optimizer in optimizers:
                for multiple in lrs or (1,):
                    for s in strengths:
                        lr = six(lr_of(optimizer) * multiple)
                        run = dict(model=model, optimizer=optimizer, lr=lr,
                                   weight_decay=six(s * decay_factor(optimizer, lr)), schedule="step",
                                   milestones=[0.4, 0.8], t_0=1, t_mult=2, epochs=EPOCHS, images=IMAGES, batch=BATCH,
                                   seed=seed)
                        assert set(changes) <= set(run), changes
                        out.append(run | changes)
    return out


def command(name):
    return [{"command": name}]


def small(models, optimizers, strengths=(USUAL,), seeds=(1,), lrs=None, **changes):
    return runs(models, optimizers, strengths, seeds, lrs, **({"epochs": 2, "images": 1500} | changes))


def key(run):
    """Equal for equal descriptions, however their numbers are written."""
    def plain(x):
        return [plain(y) for y in x] if isinstance(x, list) else x if isinstance(x, str) else six(x)
    return json.dumps({k: plain(v) for k, v in run.items()}, sort_keys=True)


def name(run):
    """A file name: what mostly differs in words, the rest as a hash."""
    if "command" in run:
        return run["command"]
    text = f"{run['model']}-{run['optimizer']}-lr{run['lr']:g}-wd{run['weight_decay']:g}-{run['schedule']}"
    text += f"-{run['epochs']}x{run['images']}-seed{run['seed']}"
    rest = {k: run[k] for k in ("milestones", "t_0", "t_mult", "batch")}
    if rest != dict(milestones=[0.4, 0.8], t_0=1, t_mult=2, batch=BATCH):
        text += "-" + hashlib.sha256(key(rest).encode()).hexdigest()[:6]
    return text


def work(run, epochs=None):
    """In images of vgg's, for the estimate of the time left."""
    if "command" in run:
        return COMMAND if epochs is None else 0
    epochs = run["epochs"] if epochs is None else epochs
    each = LSTM_EPOCH if run["model"] == "lstm" else COST[run["model"]] * (run["images"] + TEST_IMAGES)
    return epochs * each


# ---------------------------------------------------------------------------------------------------- experiments
# Tables are pivots: (what is shown, a field of the last epoch or of the last line, the rows' fields, the columns' field).
ERROR = ("test error, %", "test_error")
NORM = ("gradient norm, last epoch", "grad_norm")
L2S = ("sgd", "adam", "adamw")
SWD = ("adams", "adamw", "adam")

EXPERIMENTS = {
    "a": dict(
        title="Vanilla weight decay under a stepped learning rate", paper="Figure 1, Theorem 1",
        question="Does decay that is not multiplied by the learning rate (Equation 1) generalise worse, with larger "
                 "gradients, than decay that is (Equation 2), and leave the stationary point that it had reached?",
        full=runs(["vgg_bn"], ["sgd_independent", "sgd_decoupled"], seeds=SEEDS) + command("theorem"),
        quick=small(["mlp"], ["sgd_independent", "sgd_decoupled"], seeds=FEW_SEEDS) + command("theorem"),
        tables=[(*ERROR, ["model"], "optimizer"), (*NORM, ["model"], "optimizer")]),
    "b": dict(
        title="Gradient norms over weight decays", paper="Figures 2 and 3",
        question="Does stronger weight decay end in larger gradients, with and without BatchNorm, and whether or not "
                 "the L2 term counts?",
        full=runs(["vgg_bn"], L2S, DECAYS) + runs(["vgg"], L2S, FEW_DECAYS),
        quick=small(["vgg_bn", "mlp"], L2S, (0, USUAL)),
        tables=[(*NORM, ["model", "optimizer"], "strength"),
                ("gradient norm with the L2 term, last epoch", "grad_norm_l2", ["model", "optimizer"], "strength"),
                ("norm of the whole gradient, last epoch", "probe_grad_norm", ["model", "optimizer"], "strength"),
                (*ERROR, ["model", "optimizer"], "strength")]),
    "c": dict(
        title="What SWD does", paper="Figures 4, 5 and 6",
        question="Does the decay factor settle by negative feedback whatever the initial strength, and are AdamS's "
                 "gradients smaller than AdamW's and Adam's?",
        full=runs(["vgg_bn"], ["adams"], (5e-5, 5e-4, 5e-3)) + runs(["vgg_bn"], SWD, seeds=SEEDS),
        quick=small(["mlp"], ["adams"], (5e-5, 5e-4, 5e-3)) + small(["mlp"], SWD, seeds=FEW_SEEDS),
        tables=[("decay factor, last epoch", "decay_factor", ["model", "optimizer"], "strength"),
                (*NORM, ["model", "optimizer"], "strength")]),
    "d": dict(
        title="Sharpness", paper="Figures 6 and 8",
        question="Are the minima that AdamS finds flatter than AdamW's, over weight decays?",
        full=runs(["vgg_bn"], SWD, DECAYS), quick=small(["mlp"], SWD, (0, USUAL)),
        tables=[("top eigenvalue of the Hessian", "sharpness", ["model", "optimizer"], "strength"),
                (*ERROR, ["model", "optimizer"], "strength")]),
    "e": dict(
        title="Ten optimizers", paper="Tables 1 and 2, Figures 9, 14 and 15",
        question="How do the optimizers rank by test error, and is AdamS the best of the adaptive ones?",
        full=runs(["vgg_bn"], OPTIMIZERS, seeds=SEEDS) + runs(["mlp"], OPTIMIZERS, seeds=SEEDS) +
        runs(["vgg"], OPTIMIZERS, seeds=FEW_SEEDS) + runs(["vgg_bn"], OPTIMIZERS, (1e-4,), seeds=FEW_SEEDS),
        quick=small(["mlp"], OPTIMIZERS, seeds=FEW_SEEDS),
        tables=[(*ERROR, ["model", "strength"], "optimizer"),
                ("loss on training data", "probe_loss", ["model", "strength"], "optimizer")]),
    "f": dict(
        title="Learning rate and weight decay together", paper="Figures 10, 11 and 16",
        question="Over how much of the plane of learning rate and weight decay is each optimizer good, and whose best "
                 "point is best?",
        full=runs(["vgg_bn"], SWD, (5e-5, 5e-4, 2e-3, 5e-3), lrs=(0.1, 0.3, 1, 3), epochs=HEAT_EPOCHS,
                  images=HEAT_IMAGES),
        quick=small(["mlp"], SWD, (5e-4, 5e-3), lrs=(0.3, 1)),
        tables=[(*ERROR, ["optimizer", "lr"], "strength")]),
    "g": dict(
        title="Cosine annealing with warm restarts", paper="Figures 12 and 20",
        question="Does the order of the optimizers hold under another schedule?",
        full=runs(["vgg_bn"], ["adams", "adamw", "adam", "sgd", "sgds"], seeds=SEEDS, schedule="warm_restarts"),
        quick=small(["mlp"], ["adams", "adamw", "adam", "sgd", "sgds"], schedule="warm_restarts", epochs=3),
        tables=[(*ERROR, ["model"], "optimizer"), (*NORM, ["model"], "optimizer")]),
    "h": dict(
        title="A language model", paper="Figure 13",
        question="Is L2 better than decoupled and scheduled decay for an LSTM, as the paper finds?",
        full=runs(["lstm"], ["adam", "adamw", "adams"], (1e-6, 1e-5, 1e-4, 5e-4), epochs=LSTM_EPOCHS),
        quick=runs(["lstm"], ["adam", "adamw", "adams"], (1e-5,), epochs=1),
        tables=[("perplexity of the test text", "perplexity", ["model", "optimizer"], "strength")]),
    "i": dict(
        title="Long training", paper="Figure 17",
        question="Does the order hold when training goes on four times as long?",
        full=runs(["vgg_bn"], ["adams", "adamw", "adam", "sgd"], seeds=FEW_SEEDS, epochs=LONG_EPOCHS,
                  images=LONG_IMAGES),
        quick=small(["mlp"], ["adams", "adamw", "adam", "sgd"], epochs=4),
        tables=[(*ERROR, ["model"], "optimizer"), ("loss on training data", "probe_loss", ["model"], "optimizer")]),
    "j": dict(
        title="What a step costs", paper="the paper's remark that SWD costs next to nothing",
        question="How long does each optimizer's step take on the same network, and what share of training is it?",
        full=command("time"), quick=command("time"), tables=[]),
}


def planned(only, size):
    """Of each experiment, its runs, each once."""
    letters = only.split(",") if only else EXPERIMENTS
    for letter in letters:
        if letter not in EXPERIMENTS:
            raise SystemExit(f"study: no experiment {letter!r}; there are {', '.join(EXPERIMENTS)}")
    return {letter: list({key(r): r for r in EXPERIMENTS[letter][size]}.values()) for letter in letters}


def unique(plan):
    return list({key(r): r for rs in plan.values() for r in rs}.values())


def list_command(o):
    seen, total = set(), {}
    for letter, rs in planned(o.only, o.size).items():
        new = [r for r in rs if key(r) not in seen]
        seen.update(map(key, rs))
        images = {}
        for r in new:
            if "command" not in r:
                unit = r["epochs"] if r["model"] == "lstm" else r["epochs"] * r["images"]
                images[r["model"]] = images.get(r["model"], 0) + unit
                total[r["model"]] = total.get(r["model"], 0) + unit
        print(f"{letter}. {EXPERIMENTS[letter]['title']}: {len(rs)} runs, {len(new)} new; {amounts(images)}")
        print("".join(f"   {name(r)}\n" for r in new), end="")
    print(f"{len(seen)} runs; {amounts(total)}")


def amounts(images):
    return ", ".join(f"{m} {n} epochs" if m == "lstm" else f"{m} {n / 1e6:.2f} M images" for m, n in images.items()) or "–"


# ---------------------------------------------------------------------------------------------------- running
def lines_of(path):
    """A log's lines; a last one that was cut off in writing does not count."""
    out = []
    try:
        for line in path.read_text().splitlines():
            out.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return out


def is_done(run, path):
    if "command" in run:  # written beside its place and renamed when complete
        return path.exists()
    lines = lines_of(path)
    return bool(lines) and "done" in lines[-1]


class Worker:
    """One run in a process of its own."""

    def __init__(self, o, run):
        base = o.out / name(run)
        self.run, self.log = run, pathlib.Path(f"{base}.jsonl")
        self.state, self.errors = pathlib.Path(f"{base}.safetensors"), pathlib.Path(f"{base}.err")
        if "command" in run:
            self.written = pathlib.Path(f"{base}.part")
            self.written.unlink(missing_ok=True)
            arguments = [run["command"], "--log", self.written]
        else:
            self.written = self.log
            description = pathlib.Path(f"{base}.json")
            description.write_text(json.dumps(run) + "\n")
            arguments = ["run", description, "--log", self.log, "--state", self.state]
        for option in ("data", "text"):
            if getattr(o, option):
                arguments += [f"--{option}", getattr(o, option)]
        self.had = self.epochs()
        with open(self.errors, "w") as errors:
            # A session of its own: Ctrl-C is the scheduler's to pass on.
            self.process = subprocess.Popen([o.worker, *arguments], stdout=errors, stderr=errors, start_new_session=True,
                                            env=os.environ | {"OMP_NUM_THREADS": "1"})

    def epochs(self):
        return 0 if "command" in self.run else sum("epoch" in line for line in lines_of(self.log))

    def finish(self):
        """None, or why it failed."""
        if self.process.returncode == 0 and "command" in self.run and self.written.exists():
            self.written.replace(self.log)
        if self.process.returncode == 0 and is_done(self.run, self.log):
            for path in (self.state, self.errors):
                path.unlink(missing_ok=True)
            return None
        said = self.errors.read_text().strip().splitlines()[-5:]
        return f"{name(self.run)}: exit status {self.process.returncode}: " + ("\n  ".join(said) or "it said nothing")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def clock(seconds):
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def run_command(o):
    def interrupt(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)
    o.out.mkdir(parents=True, exist_ok=True)
    every = unique(planned(o.only, o.size))
    queue = [r for r in every if not is_done(r, o.out / f"{name(r)}.jsonl")]
    queue.sort(key=lambda r: r != {"command": "time"})  # first, and alone: it wants a quiet machine
    left = sum(map(work, queue))
    finished, failures, running = len(every) - len(queue), [], []
    start, done_here, shown = time.monotonic(), 0, 0.0

    def progress(last=""):
        nonlocal shown
        now, live = time.monotonic(), sys.stdout.isatty()
        if not last and now - shown < (1 if live else 60):
            return
        shown = now
        partly = sum(work(w.run, min(w.epochs(), w.run.get("epochs", 0)) - w.had) for w in running)
        speed = (done_here + partly) / max(now - start, 1e-9)
        text = f"study: {finished} of {len(every)} runs, {clock(now - start)}"
        text += f", about {clock((left - partly) / speed)} left" if speed and left > partly else ""
        text += f", {len(failures)} failed" if failures else ""
        print(("\r" if live else "") + f"{text}  {last}" + ("\x1b[K" if live else ""), end="" if live else "\n", flush=True)

    try:
        while queue or running:
            alone = {"command": "time"}
            while queue and len(running) < o.jobs and not any(alone == w.run for w in running):
                if queue[0] == alone and running:
                    break
                running.append(Worker(o, queue.pop(0)))
                left -= work(running[-1].run, running[-1].had) if running[-1].had else 0
            time.sleep(0.05)
            for w in [w for w in running if w.process.poll() is not None]:
                running.remove(w)
                trouble = w.finish()
                here = work(w.run) - (work(w.run, w.had) if w.had else 0)
                left -= here
                if trouble:
                    failures.append(trouble)
                    print(f"\nstudy: {trouble}", file=sys.stderr, flush=True)
                else:
                    done_here += here
                    finished += 1
                progress(name(w.run))
            progress()
    except KeyboardInterrupt:
        for w in running:
            w.stop()
        print(f"\nstudy: stopped; the same command goes on from here ({finished} of {len(every)} runs are done)")
        return 130
    print(f"\nstudy: {finished} of {len(every)} runs are done, {len(failures)} failed, in {clock(time.monotonic() - start)}")
    return 1 if failures else 0


# ---------------------------------------------------------------------------------------------------- logs
class Log:
    """A finished run: its description, its epochs' lines (of a command: its lines), its last line."""

    def __init__(self, run, head, epochs, done):
        self.run, self.head, self.done = run, head, done
        self.diverged = any(e.get("diverged") for e in epochs)
        self.epochs = [e for e in epochs if not e.get("diverged")]

    def value(self, field):
        """At the end of the run; None where there is none."""
        if self.diverged or not self.epochs:
            return None
        return self.done.get("sharpness") if field == "sharpness" else measured(self.epochs[-1], field)


def measured(epoch, field):
    if field == "perplexity":
        return math.exp(epoch["test_loss"])
    return epoch.get(field)


def read_logs(folder):
    """All finished runs by key, from logs as the worker writes them and from packed ones."""
    out = {}
    for path in sorted(folder.glob("*.jsonl")):
        lines = lines_of(path)
        if lines and "epochs" in lines[0]:  # packed
            logs = [Log(x["run"], x["head"], x["epochs"], x["done"]) for x in lines]
        elif path.stem in ("theorem", "time"):
            logs = [Log({"command": path.stem}, {}, lines, {"done": True})]
        elif lines and "done" in lines[-1]:
            head = {k: v for k, v in lines[0].items() if k != "run"}
            logs = [Log(lines[0]["run"], head, lines[1:-1], lines[-1])]
        else:
            logs = []
        out |= {key(log.run): log for log in logs}
    return out


def shortened(x):
    if isinstance(x, float):
        return six(x)
    if isinstance(x, dict):
        return {k: shortened(v) for k, v in x.items()}
    return [shortened(v) for v in x] if isinstance(x, list) else x


def pack_command(o):
    logs = read_logs(o.logs)
    o.out.mkdir(parents=True, exist_ok=True)
    path = o.out / "study.jsonl"
    with open(path, "w") as file:
        for log in sorted(logs.values(), key=lambda log: name(log.run)):
            epochs = log.epochs + ([{"diverged": True}] if log.diverged else [])
            line = {"run": log.run, "head": log.head, "epochs": shortened(epochs), "done": shortened(log.done)}
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    print(f"study: {len(logs)} runs in {path}, {path.stat().st_size / 1e6:.2f} MB")


# ---------------------------------------------------------------------------------------------------- tables
def of(run, field):
    return strength(run) if field == "strength" else run.get(field)


def groups(rs, fields):
    """Runs by the values of fields, in the order of the plan; numbers ascend."""
    out = {}
    for r in rs:
        if "command" not in r:
            out.setdefault(tuple(of(r, f) for f in fields), []).append(r)
    numeric = [i for i, f in enumerate(fields) if f in ("strength", "lr")]
    order = list(out)
    return {k: out[k] for k in sorted(out, key=lambda k: [k[i] if i in numeric else
                                                          min(j for j, other in enumerate(order) if other[i] == k[i])
                                                          for i in range(len(k))])}


def found(rs, logs):
    return [logs[key(r)] for r in rs if key(r) in logs]


def mean_sd(values):
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def figure_text(x, field=""):
    return f"{x:.2f}" if field == "test_error" else f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"


def cell(rs, logs, field):
    here = found(rs, logs)
    values = [v for v in (log.value(field) for log in here) if v is not None]
    diverged = sum(log.diverged for log in here)
    text = "–"
    if values:
        mean, sd = mean_sd(values)
        text = figure_text(mean, field) + (f" ± {figure_text(sd, field)}" if sd is not None else "")
    if diverged:
        text = f"{diverged} diverged" if not values else f"{text} ({diverged} diverged)"
    return text if not here or len(here) == len(rs) else f"{text} ({len(here)} of {len(rs)})"


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def label(x, field):
    return f"λ = {x:g}" if field == "strength" else f"{x:g}" if isinstance(x, float) else str(x)


def pivot(rs, logs, field, rows, column):
    columns = [k[0] for k in groups(rs, [column])]
    body = []
    for row, members in groups(rs, rows).items():
        cells = groups(members, [column])
        body.append([label(x, f) for x, f in zip(row, rows)] +
                    [cell(cells[(c,)], logs, field) if (c,) in cells else "" for c in columns])
    return markdown(rows + [label(c, column) for c in columns], body)


def theorem_table(log):
    """Each kind's distance from stationarity just before lr drops, and at the end."""
    body = []
    for kind, lines in by_kind(log).items():
        before = [x for x in lines if x["lr"] == lines[0]["lr"]][-1]
        body.append([kind] + [figure_text(x["stationarity"]) for x in (before, lines[-1])])
    return markdown(["weight decay", "gradient norm of the objective before lr drops", "at the end"], body)


def by_kind(log):
    out = {}
    for x in log.epochs:
        out.setdefault(x["kind"], []).append(x)
    return out


def time_table(log):
    return markdown(["optimizer", "µs a step", "ns a parameter", "share of a training step"], [
        [x["optimizer"], figure_text(x["ns_per_step"] / 1e3), figure_text(x["ns_per_parameter"]),
         f"{100 * x['share_of_step']:.2f} %"] for x in sorted(log.epochs, key=lambda x: x["ns_per_parameter"])])


def speed_table(logs):
    models = {}
    for log in logs.values():
        if "model" in log.run:
            for e in log.epochs:
                m = models.setdefault(log.run["model"], [0, 0, 0, 0.0, 0.0])
                for i, x in enumerate((e["epoch"] == 1, 1, e["examples"], e["seconds"], e["optimizer_seconds"])):
                    m[i] += x
    return markdown(["model", "runs", "epochs", "examples", "hours of training", "examples/s, one process", "optimizer's share"],
                    [[m, str(n), str(epochs), str(examples), f"{s / 3600:.2f}", figure_text(examples / s), f"{100 * opt / s:.2f} %"]
                     for m, (n, epochs, examples, s, opt) in sorted(models.items()) if s > 0])


# ---------------------------------------------------------------------------------------------------- main
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command_name in ("list", "run", "report", "pack"):
        p = commands.add_parser(command_name)
        if command_name != "pack":
            p.add_argument("--quick", dest="size", action="store_const", const="quick", default="full")
            p.add_argument("--full", dest="size", action="store_const", const="full")
        if command_name in ("list", "run"):
            p.add_argument("--only", help="letters of experiments, with commas")
        if command_name == "run":
            p.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
            p.add_argument("--worker", required=True)
            p.add_argument("--data", help="passed on to the worker")
            p.add_argument("--text", help="passed on to the worker")
        if command_name in ("report", "pack"):
            p.add_argument("--logs", type=pathlib.Path, required=True)
        if command_name != "list":
            p.add_argument("--out", type=pathlib.Path, required=True)
    o = parser.parse_args()
    return {"list": list_command, "run": run_command}[o.command](o)


if __name__ == "__main__":
    sys.exit(main())
