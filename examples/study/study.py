#!/usr/bin/env python3
"""The study's experiments: lists and runs them, packs their logs, and draws figures and tables from the logs alone.

  study.py list   [--quick] [--only a,c]                                  the runs, and the work by experiment and model
  study.py run    [--quick] [--only a,c] [--jobs N] [--kept DIR] --worker PATH --out DIR [--data DIR] [--text FILE]
  study.py report [--quick] --logs DIR [DIR ...] --out DIR [--page FILE]  tables.md, one SVG a figure, and a page's table of claims;
                                                                          trains nothing
  study.py pack   [--quick] --logs DIR [DIR ...] --out DIR                all finished logs in one file, DIR/study.jsonl.xz

A run that is done is skipped, also one that is in the logs that --kept names; one that was stopped goes on from its last epoch.
With --only, experiments run in the order of their letters there. `report` and `pack` read what `pack` wrote, too.
"""
import argparse
import fcntl
import functools
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time

from experiments import EXPERIMENTS, key, name, planned, refuse, unique, work
from logs import lines_of, pack_command, read_logs


# ---------------------------------------------------------------------------------------------------- listing
def list_command(o):
    seen, total = set(), {}
    for letter, rs in planned(o.only, o.size).items():
        new = [r for r in rs if key(r) not in seen]
        seen.update(map(key, rs))
        images = {}
        for r in new:
            if "command" not in r:
                unit = r["epochs"] * r["images"]
                images[r["model"]] = images.get(r["model"], 0) + unit
                total[r["model"]] = total.get(r["model"], 0) + unit
        print(f"{letter}. {EXPERIMENTS[letter]['title']}: {len(rs)} runs, {len(new)} new; {amounts(images)}")
        print("".join(f"   {name(r)}\n" for r in new), end="")
    print(f"{len(seen)} runs; {amounts(total)}")


def amounts(images):
    said = (f"{m} {n / 1e6:.2f} M {'characters' if m == 'lstm' else 'images'}" for m, n in images.items())
    return ", ".join(said) or "–"


# ---------------------------------------------------------------------------------------------------- running
def is_done(run, path):
    if "command" in run:  # written beside its place and renamed when complete
        return path.exists()
    lines = lines_of(path)
    return bool(lines) and "done" in lines[-1]


@functools.cache
def about():
    """What made the logs: the commit, and the class of machine."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=pathlib.Path(__file__).parent, text=True,
                         capture_output=True)
    cpus = pathlib.Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpus.read_text()) if cpus.exists() else None
    return {"commit": git.stdout.strip() or "unknown",
            "machine": f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores"}


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
            arguments = ["run", description, "--log", self.log, "--state", self.state, "--about", json.dumps(about())]
        for option in ("data", "text"):
            if getattr(o, option):
                arguments += [f"--{option}", getattr(o, option)]
        self.had = self.epochs()
        with open(self.errors, "w") as errors:
            # A session of its own: Ctrl-C is the scheduler's to pass on.
            self.process = subprocess.Popen([o.worker, *arguments], stdout=errors, stderr=errors, pass_fds=[o.lock],
                                            start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    def epochs(self):
        return 0 if "command" in self.run else max((line.get("epoch", 0) for line in lines_of(self.log)), default=0)

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
    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(stop, interrupt)
    if not os.access(o.worker, os.X_OK):
        refuse(f"--worker is {o.worker}; expected a program")
    o.out.mkdir(parents=True, exist_ok=True)
    o.lock = os.open(o.out / ".lock", os.O_CREAT | os.O_RDWR)  # the workers hold it too
    try:
        fcntl.flock(o.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        refuse(f"another study is running in {o.out}, or a worker that one has left behind")
    kept = read_logs([o.kept], o.size) if o.kept else {}
    every = [r for r in unique(planned(o.only, o.size)) if key(r) not in kept]
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
        print(f"\r{text}  {last}\x1b[K" if live else f"{text}  {last}", end="" if live else "\n", flush=True)

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
        print(f"\nstudy: stopped; the same command goes on from here ({finished} of {len(every)} runs are done)")
        return 130
    finally:
        for w in running:
            w.stop()
    print(f"\nstudy: {finished} of {len(every)} runs are done, {len(failures)} failed, "
          f"in {clock(time.monotonic() - start)}")
    return 1 if failures else 0


# ---------------------------------------------------------------------------------------------------- main
def report_command(o):
    import report  # not at the top, because SciPy takes its time and the other commands do not need it
    return report.report_command(o)


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it is {text}; expected 1 or more")
    return int(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command_name in ("list", "run", "report", "pack"):
        p = commands.add_parser(command_name)
        p.add_argument("--quick", dest="size", action="store_const", const="quick", default="full")
        p.add_argument("--full", dest="size", action="store_const", const="full")
        if command_name in ("list", "run"):
            p.add_argument("--only", help="letters of experiments, with commas")
        if command_name == "run":
            p.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)))
            p.add_argument("--worker", required=True)
            p.add_argument("--kept", type=pathlib.Path, help="a folder of logs whose runs are not repeated")
            p.add_argument("--data", help="passed on to the worker")
            p.add_argument("--text", help="passed on to the worker")
        if command_name in ("report", "pack"):
            p.add_argument("--logs", type=pathlib.Path, nargs="+", required=True)
        if command_name == "report":
            p.add_argument("--page", type=pathlib.Path, help="its table of claims is written anew")
        if command_name != "list":
            p.add_argument("--out", type=pathlib.Path, required=True)
    o = parser.parse_args()
    return {"list": list_command, "run": run_command, "report": report_command, "pack": pack_command}[o.command](o)


if __name__ == "__main__":
    sys.exit(main())
