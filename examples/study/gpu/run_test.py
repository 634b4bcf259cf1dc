#!/usr/bin/env python3
"""The study for GPUs at a toy size on a CPU: run_test.py STEPS, a library that steps.cu became. Exit status 77 without PyTorch."""
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
try:
    import torch
except ImportError:
    print("study/gpu is skipped, as PyTorch is not installed (./dev test --all puts it into build/torch)")
    sys.exit(77)
import network  # noqa: E402
import run  # noqa: E402
import train  # noqa: E402

STEPS = sys.argv.pop(1) if len(sys.argv) > 1 else sys.exit(__doc__)
TOY = ("--toy", "--device", "cpu", "--steps", STEPS, "--width", "2", "--batch", "32")


class Network(unittest.TestCase):
    def test_resnet18_has_the_papers_size(self):
        self.assertEqual(sum(p.numel() for p in network.resnet18().parameters()), 11_172_810)

    def test_crops_and_flips_are_slices(self):
        images = torch.arange(2 * 28 * 28).float().view(2, 1, 28, 28) + 1
        got = network.cropped_and_flipped(images, torch.tensor([[4, 4], [6, 1]]), torch.tensor([False, True]))
        self.assertTrue(torch.equal(got[0], images[0]))
        whole = torch.nn.functional.pad(images[1], (4, 4, 4, 4))
        self.assertTrue(torch.equal(got[1], whole[:, 6:34, 1:29].flip(2)))

    def test_top_eigenvalue(self):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
        x, y = torch.randn(20, 1, 2, 2), torch.randint(0, 2, (20,))
        start = torch.nn.utils.parameters_to_vector(model.parameters()).detach()

        def loss(theta):
            shapes, at, named = [(n, p.shape) for n, p in model.named_parameters()], 0, {}
            for n, shape in shapes:
                named[n] = theta[at:at + math.prod(shape)].view(shape)
                at += math.prod(shape)
            return torch.nn.functional.cross_entropy(torch.func.functional_call(model, named, (x,)), y)

        whole = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, start))[-1]
        self.assertAlmostEqual(network.top_eigenvalue(model, x, y, 20) / float(whole), 1, delta=1e-3)


class Runs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)

    def tool(self, logs, *arguments):
        said = subprocess.run([sys.executable, "-B", HERE / "run.py", "--logs", self.path / logs, *TOY, *arguments], text=True,
                              capture_output=True)
        return said.returncode, said.stdout + said.stderr

    def train(self, where, *arguments, **changes):
        """The exit status, and the log without times."""
        description = dict(optimizer="adams", lr=1e-2, weight_decay=1e-4, epochs=3, batch=32, seed=1, width=2)
        folder = self.path / where
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps(description | changes))
        o = train.options([str(folder / "run.json"), "--steps", STEPS, "--log", str(folder / "log.jsonl"), "--state",
                           str(folder / "state"), "--toy", "--device", "cpu", *arguments])
        status = train.train(o)
        return status, [{k: v for k, v in line.items() if k != "seconds"} for line in run.lines_of(folder / "log.jsonl")]

    def test_the_plan_runs_whole_and_is_not_repeated(self):
        status, said = self.tool("all", "--epochs", "2", "--seeds", "1", "--processes", "2")
        self.assertEqual(status, 0, said)
        self.assertIn("6 of 6 runs are done", said)
        logs = {p.stem: run.lines_of(p) for p in (self.path / "all").glob("*.jsonl")}
        pilot = next(lines for name, lines in logs.items() if name.startswith("adams-lr0.001-wd0.0005"))
        matched = next(lines for name, lines in logs.items() if name.startswith("adams") and lines is not pilot)
        factor = sum(line["decay_factor"] for line in pilot[1:]) / 2
        self.assertAlmostEqual(matched[0]["run"]["weight_decay"] * factor / 0.5, 1, delta=0.06)
        for lines in logs.values():
            last = lines[-1]
            for field in ("train_loss", "grad_norm", "test_error", "test_loss", "weight_norm", "sharpness", "decay_sum"):
                self.assertTrue(math.isfinite(last[field]), field)
        # AdamW takes lr · 0.5 in each of the four steps of an epoch; both epochs are behind one drop or before it.
        adamw = next(lines for name, lines in logs.items() if name.startswith("adamw"))
        self.assertAlmostEqual(adamw[-1]["decay_sum"], 0.5 * 4 * sum(line["lr"] for line in adamw[1:]), delta=1e-12)
        status, said = self.tool("all", "--epochs", "2", "--seeds", "1")
        self.assertEqual((status, said), (0, "6 of 6 runs are done\n"))
        status, said = self.tool("all", "--epochs", "2", "--seeds", "1", "--table")
        self.assertEqual(said.count("\n"), 8)

    def test_no_epoch_is_begun_after_the_time(self):
        status, said = self.tool("none", "--epochs", "2", "--seeds", "1", "--minutes", "0")
        self.assertEqual((status, said), (0, "0 of 5 runs are done\n"))
        self.assertEqual(self.train("late", "--until", "1")[0], run.STOPPED)

    def test_a_killed_run_goes_on_with_the_same_bits(self):
        status, whole = self.train("whole")
        self.assertEqual((status, len(whole)), (0, 4))
        self.assertLess(whole[-1]["train_loss"], whole[1]["train_loss"])
        replace, written = train.os.replace, []

        def killed(*files):  # between the second epoch's state and its line in the log
            replace(*files)
            written.append(files)
            if len(written) == 2:
                raise KeyboardInterrupt
        train.os.replace = killed
        try:
            with self.assertRaises(KeyboardInterrupt):
                self.train("part")
        finally:
            train.os.replace = replace
        self.assertEqual(len(run.lines_of(self.path / "part" / "log.jsonl")), 2)
        self.assertEqual(self.train("part"), (0, whole))
        self.assertEqual(len(list((self.path / "part" / "state").glob("weights-*"))), 1)

    def test_refusals(self):
        for change, said in ((dict(optimizer="frog"), "frog"), (dict(lr=-1), "lr is -1"), (dict(speed=1), "the keys")):
            with self.assertRaisesRegex((RuntimeError, ValueError), said):
                self.train("wrong", **change)
        self.assertEqual(self.train("one", epochs=1)[0], 0)
        with self.assertRaisesRegex(ValueError, "the state of another run"):
            self.train("one", epochs=1, seed=2)


if __name__ == "__main__":
    unittest.main()
