#!/usr/bin/env python3
"""The study at the paper's size, on one GPU: ResNet-18 (11 million parameters) on Fashion-MNIST with crops and flips.

  run.py --logs DIR [--minutes 10] [--processes 4] [--seeds 3] [--epochs 16] [--data DIR]    trains as long as it may
  run.py --logs DIR --table                                                                  a table of what is done; trains nothing

The same command goes on where the last one stopped. The runs that decide most come first: AdamS and AdamW at the paper's strengths
and no decay, then AdamS at the strength that matches AdamW's, which follows from the first run's 1/√v̄, then L2 and SGD.
nvcc compiles gradus's steps on the spot; --steps names a library that is compiled already.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
STOPPED = 75  # as train.py's
ADAMW, SWD = 0.5, 5e-4
FIELDS = (("error, %", "test_error", "{:.2f}"), ("training loss", "train_loss", "{:.3g}"), ("gradient norm", "grad_norm", "{:.3g}"),
          ("‖θ‖", "weight_norm", "{:.3g}"), ("top eigenvalue", "sharpness", "{:.3g}"), ("1/√v̄", "decay_factor", "{:.0f}"),
          ("Σ of effective decay", "decay_sum", "{:.3g}"))


def lines_of(path):
    """A log's lines; one that was cut off does not count."""
    out = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                out.append(json.loads(line))
            except ValueError:
                break
    return out


def is_done(run, path):
    lines = lines_of(path)
    return bool(lines) and lines[0]["run"] == run and lines[-1].get("epoch") == run["epochs"]


def name(run):
    return (f"{run['optimizer']}-lr{run['lr']:g}-wd{run['weight_decay']:g}-{run['epochs']}x{run['batch']}-w{run['width']}-"
            f"seed{run['seed']}")


def mean_factor(lines):
    """1/√v̄ over a run."""
    return statistics.fmean(x["decay_factor"] for x in lines[1:])


def matched_decay(logs, pilot):
    """AdamS's λ for which λ/√v̄ was AdamW's λ on average in the pilot; None until that is done."""
    path = logs / f"{name(pilot)}.jsonl"
    return float(f"{ADAMW / mean_factor(lines_of(path)):.2g}") if is_done(pilot, path) else None


def planned(o):
    """The runs in their order, as far as they are known."""
    def run(optimizer, weight_decay, seed, lr=1e-3):
        return dict(optimizer=optimizer, lr=lr, weight_decay=weight_decay, epochs=o.epochs, batch=o.batch, seed=seed,
                    width=o.width)
    strength = matched_decay(o.logs, run("adams", SWD, 1))
    out = []
    for seed in range(1, o.seeds + 1):
        out += [run("adams", SWD, seed), run("adamw", ADAMW, seed), run("adam", 0, seed)]
        out += [run("adams", strength, seed)] if strength else []
    for seed in range(1, o.seeds + 1):
        out += [run("adam", SWD, seed), run("sgd", SWD, seed, 0.1)]
    return out


def compiled(o):
    """The library of steps."""
    if o.steps:
        return o.steps
    library = o.logs / "steps.so"
    if not library.exists():
        subprocess.run(["nvcc", "-shared", "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-diag-suppress", "186", "-Xcompiler",
                        "-fPIC", "-arch=native", f"-I{ROOT}/include", f"-I{ROOT}/backends/thrust/include", HERE / "steps.cu",
                        "-o", library.with_suffix(".new")], check=True)
        library.with_suffix(".new").replace(library)
    return library


def train(o):
    until = time.time() + 60 * o.minutes
    library, running, tried, failures = compiled(o), [], set(), 0
    while True:
        waiting = [r for r in planned(o) if name(r) not in tried and not is_done(r, o.logs / f"{name(r)}.jsonl")]
        while waiting and len(running) < o.processes and time.time() < until:
            r = waiting.pop(0)
            tried.add(name(r))
            description, errors = o.logs / f"{name(r)}.json", o.logs / f"{name(r)}.err"
            description.write_text(json.dumps(r) + "\n")
            command = [sys.executable, HERE / "train.py", description, "--steps", library, "--log", o.logs / f"{name(r)}.jsonl",
                       "--state", o.logs / f"{name(r)}.state", "--until", str(until), "--device", o.device]
            command += ["--toy"] if o.toy else ["--data", o.data] if o.data else []
            with open(errors, "w") as said:
                running.append((r, errors, subprocess.Popen(command, stderr=said)))
        if not running:
            break
        time.sleep(0.1)
        for r, errors, process in [x for x in running if x[2].poll() is not None]:
            running.remove((r, errors, process))
            word = {0: "done", STOPPED: "stopped; the same command goes on"}.get(process.returncode)
            if word is None:
                failures += 1
                word = "failed: " + " ".join(errors.read_text().strip().splitlines()[-1:])
            print(f"{name(r)}: {word}", flush=True)
    every = planned(o)
    print(f"{sum(is_done(r, o.logs / f'{name(r)}.jsonl') for r in every)} of {len(every)} runs are done")
    return 1 if failures else 0


def table(o):
    """Of the last epochs, a line a run."""
    print("| run | " + " | ".join(title for title, _, _ in FIELDS) + " |")
    print("|---|" + "--:|" * len(FIELDS))
    for r in planned(o):
        path = o.logs / f"{name(r)}.jsonl"
        if is_done(r, path):
            last = lines_of(path)[-1]
            cells = ["" if last.get(f) is None else form.format(last[f]) for _, f, form in FIELDS]
            print(f"| {name(r)} | " + " | ".join(cells) + " |")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=pathlib.Path, required=True)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--minutes", type=float, default=10)
    for option, default in (("processes", 4), ("seeds", 3), ("epochs", 16), ("batch", 128), ("width", 64)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--data")
    parser.add_argument("--toy", action="store_true", help="made-up images, for tests")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=pathlib.Path)
    o = parser.parse_args()
    o.logs.mkdir(parents=True, exist_ok=True)
    return table(o) if o.table else train(o)


if __name__ == "__main__":
    sys.exit(main())
