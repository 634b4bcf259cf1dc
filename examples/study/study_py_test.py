#!/usr/bin/env python3
"""Tests of study.py: with a worker that only pretends to train, and with the one that STUDY_WORKER names."""
import argparse
import contextlib
import functools
import io
import json
import lzma
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True  # no files in the source tree
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import cells  # noqa: E402
import claims  # noqa: E402
import experiments  # noqa: E402
import figures  # noqa: E402
import logs as study_logs  # noqa: E402
import report  # noqa: E402
import stats  # noqa: E402
import svg  # noqa: E402

# Logs as the worker's, of figures that follow from the description. FAKE_FAIL: a run whose name has this fails;
# FAKE_SLOW: seconds an epoch.
WORKER = r'''
import json, math, os, sys, time
args = sys.argv[1:]
log = open(args[args.index("--log") + 1], "a")
def write(**line):
    log.write(json.dumps(line) + "\n"); log.flush()
assert os.environ["OMP_NUM_THREADS"] == "1"
if args[0] == "theorem":
    for kind in ("independent", "coupled", "l2"):
        for step in range(0, 400, 4):
            write(kind=kind, step=step, lr=0.1 if step < 200 else 0.01, loss=1 / (1 + step),
                  stationarity=math.exp(-step / 15) + (0.1 if kind == "independent" and step >= 200 else 0))
elif args[0] == "bound":
    for l in (0, 0.1, 1):
        for n in (50, 2000):
            write(kind="bound", **{"lambda": l}, epochs=n, least=0.01 / n, last=0.02 / n, last_of_loss=0.03 / n, bound=(1 + l) / n)
elif args[0] == "time":
    for i, n in enumerate(("sgd", "adam", "adamw", "adams")):
        write(optimizer=n, model="vgg_bn", ns_per_step=1e5 * (i + 1),
              ns_per_parameter=0.5 * (i + 1), share_of_step=0.01 * (i + 1))
else:
    run = json.load(open(args[1]))
    if os.environ.get("FAKE_FAIL", "nothing") in args[1]:
        print("gradus: lr is -1, expected a positive number"); sys.exit(3)
    state = args[args.index("--state") + 1]
    start = int(open(state).read()) if os.path.exists(state) else 0
    if not start:
        write(run=run, commit="abc", machine="a machine", parameters=1000, tensors=10)
    seed = run["seed"]
    for e in range(start + 1, run["epochs"] + 1):
        time.sleep(float(os.environ.get("FAKE_SLOW", 0)))
        write(epoch=e, lr=run["lr"], train_loss=1 / e, probe_loss=0.9 / e, test_loss=1.1 / e,
              test_error=10 + seed + (run["optimizer"] == "adamw") + 5 / e if e % 2 == run["epochs"] % 2 else None, grad_norm=1 + run["weight_decay"] / e, grad_norm_l2=2, grad_norm_max=3, probe_grad_norm=0.5, weight_norm=3.25,
              decay_factor=30 * e if run["optimizer"] == "adams" else None, clamped=0,
              seconds=1.5, optimizer_seconds=0.1, examples=100)
        open(state, "w").write(str(e))
    write(done=True, sharpness=12.5, seconds=3)
'''


@functools.cache
def full_logs():
    return study_logs.read_logs([HERE / "results"], "full")


@functools.cache
def full_figures():
    """{file: (figure, its SVG)} of docs."""
    drawn = {}
    for letter, rs in experiments.planned(None, "full").items():
        for file, _, draw in figures.FIGURES[letter]:
            figure = draw(rs, full_logs())
            drawn[file] = figure, figures.svg_of(figure)
    return drawn


def tool(*arguments, **environment):
    return subprocess.run([sys.executable, HERE / "study.py", *map(str, arguments)], text=True, capture_output=True,
                          env=os.environ | environment)


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)
        self.worker = self.path / "worker"
        self.worker.write_text(f"#!{sys.executable}\n" + WORKER)
        self.worker.chmod(0o755)
        self.logs = self.path / "logs"

    def run_study(self, *arguments, **environment):
        return tool("run", "--quick", "--worker", self.worker, "--out", self.logs, *arguments, **environment)


@unittest.skipUnless("STUDY_WORKER" in os.environ, "STUDY_WORKER names no worker")
class RealWorker(Folder):
    """With the worker itself."""

    def setUp(self):
        super().setUp()
        self.worker = os.environ["STUDY_WORKER"]

    def train(self, description, log, kill_after=None):
        """The finished process; kill_after: epochs after which it is killed."""
        path = self.path / "run.json"
        path.write_text(json.dumps(description))
        log, state = self.path / f"{log}.jsonl", self.path / f"{log}.safetensors"
        worker = subprocess.Popen([self.worker, "run", path, "--log", log, "--state", state], text=True,
                                  stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while kill_after and worker.poll() is None:
            if sum("epoch" in line for line in study_logs.lines_of(log)) >= kill_after:
                worker.kill()
            time.sleep(0.01)
        said = worker.communicate()[1]
        return worker.returncode, said

    def outcome(self, log):
        """All but times, and all numbers of the checkpoint."""
        lines = study_logs.lines_of(self.path / f"{log}.jsonl")
        for line in lines:
            for key in ("seconds", "optimizer_seconds"):
                line.pop(key, None)
        state = (self.path / f"{log}.safetensors").read_bytes()
        return lines, state[8 + int.from_bytes(state[:8], "little"):]

    def test_a_killed_run_goes_on_with_the_same_bits(self):
        for model, optimizer, images, batch in (("resnet", "adams", 100, 20), ("lstm", "sgd_decoupled", 9000, 8)):
            run = experiments.runs([model], [optimizer], epochs=4, images=images, batch=batch)[0]
            self.assertEqual(self.train(run, f"{model}-whole"), (0, ""))
            self.assertEqual(self.train(run, f"{model}-cut", kill_after=2)[0], -signal.SIGKILL)
            self.assertNotIn("done", self.outcome(f"{model}-cut")[0][-1])
            self.assertEqual(self.train(run, f"{model}-cut"), (0, ""))
            whole = self.outcome(f"{model}-whole")
            self.assertEqual(self.outcome(f"{model}-cut"), whole)
            # Killed after the last epoch, and between a state and its log.
            (self.path / f"{model}-cut.jsonl").write_text("")
            self.assertEqual(self.train(run, f"{model}-cut"), (0, ""))
            self.assertEqual(self.outcome(f"{model}-cut"), whole)

    def test_long_runs_have_fifty_lines(self):
        run = experiments.runs(["mlp"], ["sgd"], epochs=200, images=64)[0]
        self.assertEqual(self.train(run, "long"), (0, ""))
        lines = self.outcome("long")[0]
        self.assertEqual([x["epoch"] for x in lines[1:-1]], list(range(4, 201, 4)))
        self.assertEqual([x["epoch"] for x in lines[1:-1] if "test_error" in x], list(range(8, 201, 8)))
        self.assertTrue(all(x["grad_norm_max"] >= x["grad_norm"] for x in lines[1:-1]))
        self.assertEqual(self.train(run, "cut", kill_after=20)[0], -signal.SIGKILL)
        self.assertEqual(self.train(run, "cut"), (0, ""))
        self.assertEqual(self.outcome("cut"), self.outcome("long"))

    def test_theorem_2s_bound(self):
        self.assertEqual(subprocess.run([self.worker, "bound", "--log", self.path / "bound.jsonl"]).returncode, 0)
        rows = study_logs.lines_of(self.path / "bound.jsonl")
        self.assertEqual(len(rows), 25)
        at = {(x["lambda"], x["epochs"]): x for x in rows}
        for (decay, epochs), x in at.items():
            self.assertLess(0, x["least"])
            self.assertLess(x["least"], x["bound"])
            self.assertLessEqual(x["least"], x["last"])
            if decay == 0:
                self.assertEqual(x["last"], x["last_of_loss"])
            # With the same lr, the bound is as 1/√T but for the largest ‖θ‖ on the way.
            self.assertAlmostEqual(x["bound"] / at[decay, 50]["bound"] * (epochs / 50) ** 0.5, 1, delta=0.35)
            self.assertGreaterEqual(x["bound"], at[0, epochs]["bound"])

    def test_refusals_name_what_is_wrong(self):
        run = experiments.runs(["mlp"], ["adam"], epochs=1, images=200)[0]
        for change, said in (({"lr": -1}, "lr is -1"), ({"model": "cnn"}, 'model is "cnn"'), ({"speed": 1}, "the key speed"),
                             ({"schedule": "linear"}, 'schedule is "linear"'), ({"images": 5}, "images is 5"),
                             ({"optimizer": "frog"}, "frog")):
            status, message = self.train(run | change, "wrong")
            self.assertEqual(status, 1)
            self.assertIn(said, message)
        del run["seed"]
        self.assertIn("no key seed", self.train(run, "wrong")[1])

    def test_a_part_of_the_quick_study(self):
        said = self.run_study("--only", "a,c,h")
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
        tool("report", "--quick", "--logs", self.logs, "--out", self.path / "out")
        text = (self.path / "out" / "tables.md").read_text()
        for letter in "ah":
            section = text[text.index(f"\n## {letter}"):].split("\n## ")[1].split("Effective decay")[0]
            self.assertNotIn("–", [x.strip() for x in section.split("|")], section)
        # Equation 1's decay leaves the stationary point when lr drops, Equation 2's and L2's do not.
        rows = study_logs.lines_of(self.logs / "theorem.jsonl")
        left = {x["kind"]: x["stationarity"] for x in rows if x["step"] == 8000}
        self.assertGreater(left["independent"], 1e-2)
        self.assertLess(max(left["coupled"], left["l2"]), 1e-9)


class Expansion(unittest.TestCase):
    def test_descriptions_have_the_workers_keys_and_files_of_their_own(self):
        for size in ("quick", "full"):
            every = experiments.unique(experiments.planned(None, size))
            self.assertEqual(len({experiments.name(r) for r in every}), len(every))
            for r in every:
                if "command" not in r:
                    self.assertEqual(set(r), set(experiments.KEYS))
                self.assertRegex(experiments.name(r), r"^[\w.+-]+$")

    def test_a_run_that_two_experiments_share_is_one(self):
        plan = experiments.planned("b,d", "full")
        b, d = ({experiments.key(r) for r in plan[letter]} for letter in "bd")
        self.assertTrue(b & d)
        self.assertEqual(len(experiments.unique(plan)), len(b | d))

    def test_decay_of_each_optimizer(self):
        names = ("sgd", "adamw", "adams", "sgd_independent")
        wd = {o: experiments.runs(["mlp"], [o])[0]["weight_decay"] for o in names}
        self.assertEqual(wd, {"sgd": 5e-4, "adamw": 0.5, "adams": 5e-4, "sgd_independent": 1.5e-5})
        for o in wd:
            self.assertEqual(experiments.strength(experiments.runs(["mlp"], [o], lrs=(0.3,))[0]), 5e-4)

    def test_names_tell_runs_apart_by_every_key(self):
        run = experiments.runs(["mlp"], ["adam"])[0]
        others = dict(model="vgg", optimizer="sgd", lr=0.5, weight_decay=0.5, schedule="constant", milestones=[0.5],
                      t_0=2, t_mult=3, epochs=1, images=1, batch=1, seed=9)
        names = {experiments.name(run | {k: v}) for k, v in others.items()}
        self.assertEqual(len(names | {experiments.name(run)}), len(experiments.KEYS) + 1)

    def test_list(self):
        said = tool("list", "--quick", "--only", "a,j")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn("theorem", said.stdout)
        self.assertNotEqual(tool("list", "--only", "z").returncode, 0)


class Scheduling(Folder):
    def test_runs_skips_and_resumes(self):
        said = self.run_study("--only", "a")
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
        self.assertIn("5 of 5 runs are done, 0 failed", said.stdout)
        self.assertFalse(list(self.logs.glob("*.safetensors")) + list(self.logs.glob("*.part")))
        # One is done, one was cut off after its first epoch.
        logs = sorted(self.logs.glob("mlp*.jsonl"))
        before = [p.read_text() for p in logs]
        logs[0].write_text("".join(before[0].splitlines(True)[:2]))
        logs[0].with_suffix(".safetensors").write_text("1")
        times = [p.stat().st_mtime_ns for p in logs]
        self.assertEqual(self.run_study("--only", "a").returncode, 0)
        self.assertEqual([p.read_text() for p in logs], before)
        self.assertEqual([p.stat().st_mtime_ns for p in logs[1:]], times[1:])

    def test_kept_logs_are_not_repeated(self):
        self.assertEqual(self.run_study("--only", "a").returncode, 0)
        packed = self.path / "packed"
        self.assertEqual(tool("pack", "--quick", "--logs", self.logs, "--out", packed).returncode, 0)
        new = self.path / "new"
        said = tool("run", "--quick", "--worker", self.worker, "--out", new, "--kept", packed, "--only", "m,a")
        self.assertIn("3 of 3 runs are done", said.stdout)
        # Both together are one set of logs, and experiments run in the order of the letters.
        self.assertEqual(tool("pack", "--quick", "--logs", packed, new, "--out", packed).returncode, 0)
        runs = [line["run"] for line in study_logs.packed_lines(packed / "study.jsonl.xz")]
        self.assertEqual(len(runs), 8)
        self.assertEqual(list(experiments.planned("m,a", "quick")), ["m", "a"])

    def test_a_failing_worker_does_not_hold_up_the_others(self):
        said = self.run_study("--only", "a", FAKE_FAIL="independent")
        self.assertEqual(said.returncode, 1)
        self.assertIn("lr is -1, expected a positive number", said.stderr)
        self.assertIn("3 of 5 runs are done, 2 failed", said.stdout)

    def test_an_interrupt_stops_the_workers(self):
        process = subprocess.Popen([sys.executable, HERE / "study.py", "run", "--quick", "--only", "i", "--worker",
                                    self.worker, "--out", self.logs], env=os.environ | {"FAKE_SLOW": "0.5"},
                                   stdout=subprocess.PIPE, text=True)
        while not any(len(study_logs.lines_of(p)) > 1 for p in self.logs.glob("*.jsonl")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=15)
        self.assertEqual(process.returncode, 130)
        self.assertIn("goes on from here", said)
        size = sum(p.stat().st_size for p in self.logs.glob("*.jsonl"))
        time.sleep(0.8)
        self.assertEqual(sum(p.stat().st_size for p in self.logs.glob("*.jsonl")), size)
        self.assertEqual(self.run_study("--only", "i").returncode, 0)


class Refusals(Folder):
    def test_wrong_arguments(self):
        for arguments, said in ((("--jobs", "0"), "it is 0; expected 1 or more"), (("--only", "z"), "no experiment 'z'")):
            got = self.run_study(*arguments)
            self.assertEqual(got.returncode, 2)
            self.assertIn(said, got.stderr)
        got = tool("run", "--worker", self.path / "none", "--out", self.logs)
        self.assertIn("expected a program", got.stderr)

    def test_one_study_at_a_time_in_a_folder(self):
        first = subprocess.Popen([sys.executable, HERE / "study.py", "run", "--quick", "--only", "c", "--worker", self.worker,
                                  "--out", self.logs], stdout=subprocess.DEVNULL, env=os.environ | {"FAKE_SLOW": "2"})
        while not list(self.logs.glob("*.jsonl")):
            time.sleep(0.02)
        first.kill()  # its workers do not notice
        first.wait()
        got = self.run_study("--only", "c")
        self.assertIn("another study is running", got.stderr)
        while self.run_study("--only", "c").returncode != 0:
            time.sleep(0.2)


class Report(Folder):
    def report(self, logs, out):
        with contextlib.redirect_stdout(None):
            report.report_command(argparse.Namespace(logs=[logs], out=self.path / out, size="quick", page=None))
        return {p.name: p.read_text() for p in (self.path / out).iterdir()}

    def section(self, files, letter):
        return files["tables.md"].split(f"## {letter}. ")[1].split("\n## ")[0]

    def test_draws_every_figure_and_packs(self):
        self.assertEqual(self.run_study().returncode, 0)
        files = self.report(self.logs, "report")
        names = [f"{file}.svg" for figures in figures.FIGURES.values() for file, _, _ in figures]
        self.assertEqual(set(files), {"tables.md", *names})
        self.assertEqual(set(figures.FIGURES), set(experiments.EXPERIMENTS))
        self.assertLess(sum(map(len, files.values())), 2e5)
        for file in names:
            self.assertIn("</svg>", files[file])
            self.assertIn(f"]({file})", files["tables.md"])
        # Three seeds, whose errors are 11 + 5/2, 12 + 5/2 and 13 + 5/2, and AdamW's by 1 larger; 2.48 = 4.303/√3.
        row = next(line for line in self.section(files, "e").splitlines() if line.startswith("| mlp | λ = 0.0005"))
        self.assertEqual(row.split(" | ")[2], "14.50 ± 2.48")
        self.assertEqual(row.count("14.50 ± 2.48"), 10)
        self.assertIn("| 1.00, p < 0.001 |", self.section(files, "e").split("less that of adams")[1])
        self.assertIn("Runs: 33 of 33", self.section(files, "e"))
        self.assertIn("| mlp | adams | 60 | 60 | 60 |", self.section(files, "c"))  # decay factors
        # λ times the mean of 30 and 60, and that mean weighted by lr, which is the same in both epochs.
        self.assertRegex(self.section(files, "e").split("Effective decay")[1], r"\| 0\.5 \| 0\.0225 \|")
        self.assertIn("| mlp | adam |  | – |  |", self.section(files, "c"))
        self.assertIn("| independent | 2.11e-06 | 0.1 |", self.section(files, "a"))
        self.assertIn("12.5", self.section(files, "d"))
        self.assertIn("| 132 |", self.section(files, "d"))  # 12.5 · 3.25²
        self.assertIn("| vgg_bn | sgd | 3.25 |", self.section(files, "b"))  # 1 · 3.25
        self.assertIn("| adams | 400 | 2 | 4.00 % |", self.section(files, "j"))
        self.assertIn("| 0.1 | 2000 | 5e-06 | 0.00055 | 1e-05 | 1.5e-05 |", self.section(files, "m"))
        self.assertIn("| lstm | adam | 3 |", self.section(files, "h"))  # exp(1.1)
        # The same again, and from packed logs, to the byte.
        said = tool("pack", "--quick", "--logs", self.logs, "--out", self.path / "packed")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertEqual([p.name for p in (self.path / "packed").iterdir()], ["study.jsonl.xz"])
        lines = study_logs.packed_lines(self.path / "packed/study.jsonl.xz")
        self.assertEqual(len(lines), len(list(self.logs.glob("*.jsonl"))))
        self.assertEqual({frozenset(line) for line in lines}, {frozenset(("run", "head", "epochs", "done"))})
        again = self.report(self.path / "packed", "again")
        for file, text in files.items():
            self.assertEqual(again[file] == text, True, file)
        self.assertEqual(tool("pack", "--quick", "--logs", self.path / "packed", "--out", self.path / "twice").returncode, 0)
        self.assertEqual((self.path / "twice/study.jsonl.xz").read_bytes(), (self.path / "packed/study.jsonl.xz").read_bytes())

    def test_a_damaged_pack_is_refused(self):
        self.logs.mkdir()
        whole = lzma.compress(b'{"run": {}}\n' * 1000)
        for damaged in (b"", whole[:-20], b"no xz", lzma.compress(b'{"run"')):
            (self.logs / "study.jsonl.xz").write_bytes(damaged)
            said = tool("report", "--logs", self.logs, "--out", self.path / "out")
            self.assertEqual(said.returncode, 2, said.stderr)
            self.assertIn("study.jsonl.xz is damaged", said.stderr)

    def test_the_tables_and_figures_in_docs_are_from_the_logs_here(self):
        paper = HERE.parents[1] / "docs" / "paper"
        logs = full_logs()
        self.assertEqual(report.tables(logs, "full"), (paper / "tables.md").read_text())
        page = (paper.parent / "paper.md").read_text()
        self.assertEqual(report.page_with_claims(page, logs), page)
        for file, (_, text) in full_figures().items():
            self.assertEqual(text, (paper / f"{file}.svg").read_text(), file)
        self.assertEqual({p.name for p in paper.iterdir()}, {"tables.md", *(f"{file}.svg" for file in full_figures())})
        for link in re.findall(r"\]\(paper/([^)#]+)\)", page):
            self.assertTrue((paper / link).exists(), link)

    def test_the_page_says_which_runs_are_missing(self):
        page = f"before\n{report.MARKS[0]}stale text\n{report.MARKS[1]}after\n"
        made = report.page_with_claims(page, {})
        self.assertIn("**not run** λ = 0.05, λ = 0.005", made)
        self.assertIn("not done yet: 13 of 13 in a, ", made)
        self.assertNotIn("stale", made)
        self.assertEqual((made[:7], made[-6:]), ("before\n", "after\n"))
        self.assertEqual(report.page_with_claims(made, {}), made)
        whole = {experiments.key(r): study_logs.Log(r, {}, [], {}) for r in experiments.unique(experiments.planned(None, "full"))}
        self.assertEqual(report.progress(whole), "")

    def test_what_is_missing_leaves_gaps(self):
        self.logs.mkdir()
        run, other = experiments.small(["mlp"], ["sgd"], seeds=(1, 2))
        def log(r, *lines):
            text = "".join(json.dumps(line) + "\n" for line in ({"run": r, "commit": "abc", "machine": "m"}, *lines))
            (self.logs / f"{experiments.name(r)}.jsonl").write_text(text)
        # One as another program writes numbers; one that diverged; one that is not done.
        log(run | {"lr": run["lr"] * (1 + 1e-15), "seed": 1.0},
            {"epoch": 1, "test_error": 12.25, "examples": 1, "seconds": 1, "optimizer_seconds": 0},
            {"done": True, "sharpness": None})
        log(other, {"epoch": 1, "diverged": True}, {"done": True, "sharpness": None})
        log(experiments.small(["mlp"], ["adam"])[0], {"epoch": 1, "test_error": 99})
        files = self.report(self.logs, "one")
        self.assertIn("Runs: 0 of", self.section(files, "f"))
        text = self.section(files, "e")
        self.assertIn("| 12.25 (1 diverged) (2 of 3) | – |", text)
        self.assertNotIn("99", text)


class Statistics(unittest.TestCase):
    def test_intervals(self):
        # Student's quantiles for 2 and 4 degrees of freedom: 4.3027 and 2.7764.
        self.assertAlmostEqual(stats.mean_and_half([1, 2, 3])[1], 4.3027 / 3 ** 0.5, places=4)
        self.assertAlmostEqual(stats.mean_and_half([1, 2, 3, 4, 5])[1], 2.7764 * (2.5 / 5) ** 0.5, places=4)
        self.assertIsNone(stats.mean_and_half([1, 2])[1])

    def test_verdicts(self):
        around = stats.Difference([1, 2, 3])  # -0.48 to 4.48
        self.assertEqual([around.verdict(side) for side in (1, -1)], ["open", "open"])
        self.assertAlmostEqual(around.p, 0.0742, places=4)
        above = stats.Difference([2, 2.2, 2.4])
        self.assertEqual([above.verdict(side) for side in (1, -1)], ["holds", "does not"])
        # No more than 0.5 above: shown where the whole interval is below 0.5, refuted where it is above 0.
        self.assertEqual(stats.Difference([0, 0.1, 0.2]).verdict(-1, 0.5), "holds")
        self.assertEqual(stats.Difference([0, 1, 2]).verdict(-1, 0.5), "open")
        self.assertEqual(above.verdict(-1, 0.5), "does not")
        same = stats.Difference([0.0, 0.0, 0.0])
        self.assertEqual((same.verdict(1), same.p), ("open", 1))

    def test_holm(self):
        # 0.005 < 0.05/4 and 0.01 < 0.05/3, but 0.03 > 0.05/2.
        self.assertEqual(stats.holm([0.01, 0.04, 0.03, 0.005]), [True, False, False, True])
        self.assertEqual(stats.holm([]), [])

    def test_a_claim_is_given_its_words(self):
        run = experiments.runs(["mlp"], ["adams", "adamw"], seeds=(1, 2, 3, 4, 5))
        logs = {}
        for r in run:
            here = {"test_error": 10 + r["seed"] + (0.5 + 0.01 * r["seed"] if r["optimizer"] == "adamw" else 0)}
            logs[experiments.key(r)] = study_logs.Log(r, {}, [here], {})
        a, w = ([r for r in run if r["optimizer"] == o] for o in ("adams", "adamw"))
        tests = [claims.less("less", a, w, "test_error"), claims.more("more", a, w, "test_error"),
                 claims.less("missing", a, experiments.runs(["mlp"], ["sgd"]), "test_error")]
        text = claims.verdict_text(dict(tests=tests), logs, {id(tests[0])})
        self.assertEqual(text, "**holds** less: −0.53\\* (−0.55 to −0.51); **does not** more: −0.53 (−0.55 to −0.51); "
                               "**not run** missing")


class Figures(unittest.TestCase):
    """Those in docs."""

    @classmethod
    def setUpClass(cls):
        cls.drawn = {file: figure for file, (figure, _) in full_figures().items()}

    def test_ticks_do_not_overlap(self):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        for file, figure in self.drawn.items():
            renderer = FigureCanvasAgg(figure).get_renderer()
            figure.draw(renderer)
            for ax in figure.axes:
                for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
                    low, high = sorted(axis.get_view_interval())
                    labels = [x for t in axis.get_major_ticks() for x in (t.label1, t.label2)
                              if low <= t.get_loc() <= high and x.get_visible() and x.get_text() and not x.get_rotation()]
                    boxes, texts = [x.get_window_extent(renderer) for x in labels], [x.get_text() for x in labels]
                    for i, box in enumerate(boxes):
                        self.assertEqual(box.count_overlaps(boxes[i + 1:]), 0, f"{file}: {texts}")

    def test_lines_differ_by_more_than_their_colour(self):
        safe = {x.lower() for x in (figures.BLACK, figures.ORANGE, figures.SKY, figures.GREEN, figures.BLUE, figures.VERMILLION,
                                    figures.PURPLE)}
        for file, figure in self.drawn.items():
            for ax in figure.axes:
                looks = [(line.get_marker(), str(line.get_linestyle())) for line in ax.get_legend_handles_labels()[0]
                         if hasattr(line, "get_marker")]
                self.assertEqual(len(looks), len(set(looks)), file)
                for line in ax.lines:
                    self.assertIn(str(line.get_color()).lower(), safe, file)

    def test_the_heat_maps_colours_cover_their_cells(self):
        figure = self.drawn["f_heat"]
        maps = [ax.collections[0] for ax in figure.axes[:3]]
        errors = [x for m in maps for x in m.get_array()]
        self.assertEqual({(m.norm.vmin, m.norm.vmax) for m in maps}, {(min(errors), max(errors))})


class Choices(unittest.TestCase):
    """What pilot runs chose, from the logs."""

    @classmethod
    def setUpClass(cls):
        cls.logs = full_logs()

    def test_matched_strengths_match(self):
        matched = [log for log in self.logs.values() if experiments.is_matched(log.run)]
        # A map's runs may have the same λ, but its learning rates and lengths are others.
        matched = [log for log in matched if log.run["epochs"] != 8 or log.run["batch"] != 32]
        self.assertGreater(len(matched), 10)
        for log in matched:
            for field in ("effective_decay", "weighted_decay"):
                reached = log.value(field) / (1000 * experiments.setting(log.run))
                self.assertAlmostEqual(reached, 1, delta=0.25, msg=f"{log.run}, {field}")

    def test_best_decays_are_seed_ones(self):
        best = claims.best_decays(self.logs)
        self.assertEqual(set(best), set(experiments.BEST))
        for optimizer, weight_decay in best.items():
            self.assertEqual(weight_decay, experiments.BEST[optimizer] * experiments.decay_factor(optimizer, 0.01))


class Lighter(unittest.TestCase):
    """Figures keep what they show."""

    def test_a_path_keeps_its_points_to_a_tenth(self):
        self.assertEqual(svg.path_data("M 0.04 10 \nL 10.06 10 \nL 10.06 -2.5 \nL 12 1 \nL 11 0 \nL 11.04 0 \nz\n"),
                         "M0 10h10.1v-12.5l1.9 3.5-1-1h0z")
        self.assertEqual(svg.path_data("M 1 2 L 3 4 M 5 6 C 5 7 6 8 6 9", 10, -1), "M11 1l2 2M15 5c0 1 1 2 1 3")
        # A thousand rounded steps end where they would have ended without rounding.
        steps = svg.path_data("M 0 0 " + " ".join(f"L {0.134 * k:.6f} {0.5 * k:.6f}" for k in range(1, 1001)))
        self.assertAlmostEqual(sum(svg.numbers(steps)[2::2]), 134, delta=0.06)

    def test_every_text_line_dot_and_style_is_kept(self):
        plt = figures.pyplot()
        figure, ax = plt.subplots()
        ax.errorbar([1, 2, 3], [1, 2, 500], [0.5, 0.5, 0.5], marker="o", capsize=2, color="#123456", label="a < b & c")
        ax.fill_between([1, 2], [1, 2], [3, 4], color="#fedcba", alpha=0.2, linewidth=0)
        ax.set(yscale="log", title="title", ylabel="up")
        ax.legend()
        text = io.StringIO()
        figure.savefig(text, format="svg")
        plt.close(figure)
        before, after = (svg.xml.fromstring(x) for x in (text.getvalue(), svg.lighter(text.getvalue())))
        self.assertGreater(len(text.getvalue()), 3 * len(svg.lighter(text.getvalue())))
        def texts(root):
            return ["".join("".join(e.itertext()).split()) for e in root.iter(svg.SVG + "text")]
        self.assertEqual(texts(after), texts(before))
        self.assertIn("a<b&c", texts(after))
        drawn = [e for e in before.iter() if e.tag in (svg.SVG + "path", svg.SVG + "use")]
        defined = [e for d in before.iter(svg.SVG + "defs") for e in d.iter(svg.SVG + "path")]
        kept = [e for e in after.iter() if e.tag in (svg.SVG + "path", svg.SVG + "use") and e.get("class")]
        self.assertEqual(len(kept), len(drawn) - len(defined))
        styles = after.find(svg.SVG + "style").text
        for style in ("fill:#fedcba;fill-opacity:0.2", "fill:none;stroke:#123456;stroke-width:1.3;stroke-linecap:square",
                      "fill:#123456;stroke:#123456"):
            self.assertIn("{" + style + "}", styles)
        for e in after.iter():
            for name in (e.get("class") or "").split():
                self.assertIn(f".{name}{{", styles)


if __name__ == "__main__":
    unittest.main()
