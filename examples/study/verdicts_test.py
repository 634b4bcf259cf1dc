#!/usr/bin/env python3
"""Five verdicts of docs/paper.md, derived again from the logs. Shares nothing with the report: reads the packed file by itself,
and has Student's quantiles from a table."""
import json
import lzma
import pathlib
import re
import statistics
import unittest

HERE = pathlib.Path(__file__).resolve().parent
QUANTILE = {3: 4.302653, 4: 3.182446, 5: 2.776445}  # of 97.5 %, by the number of pairs

with lzma.open(HERE / "results" / "study.jsonl.xz", "rt") as packed:
    RUNS = [json.loads(line) for line in packed]
PAGE = (HERE.parents[1] / "docs" / "paper.md").read_text()


def ends(field, **run):
    """{seed: the field in the run's last line} of the runs with exactly these settings. At lr 0.01, seed 1 chose what the
    others test."""
    out = {}
    for r in RUNS:
        if run["lr"] == 0.01 and r["run"].get("seed") == 1:
            continue
        if all(r["run"].get(k) == v for k, v in run.items()):
            out[r["run"]["seed"]] = r["done"]["sharpness"] if field == "sharpness" else r["epochs"][-1][field]
    return out


def interval(a, b, field):
    """Of a less b, over the seeds of both."""
    of_a, of_b = ends(field, **a), ends(field, **b)
    d = [of_a[seed] - of_b[seed] for seed in sorted(of_a.keys() & of_b.keys())]
    half = QUANTILE[len(d)] * statistics.stdev(d) / len(d) ** 0.5
    return statistics.fmean(d), statistics.fmean(d) - half, statistics.fmean(d) + half


def word(low, high, claimed_sign):
    if low > 0 or high < 0:
        return "holds" if (low > 0) == (claimed_sign > 0) else "does not"
    return "open"


USUAL = dict(model="vgg_bn", schedule="step", batch=32, images=5000)
SHORT, STRONG = USUAL | dict(epochs=16, lr=0.001), USUAL | dict(epochs=16, lr=0.01)
LONG, SGD = USUAL | dict(epochs=48, lr=0.001), USUAL | dict(epochs=16, lr=0.03)
# A phrase of the claim, of the test in its row; the two sides, what is measured, the sign that the claim gives.
VERDICTS = [
    ("Decay that does not follow the learning rate", "λ = 0.05", SGD | dict(optimizer="sgd_independent", weight_decay=0.0015),
     SGD | dict(optimizer="sgd_decoupled", weight_decay=0.05), "test_error", 1),
    ("Stronger weight decay ends with larger gradients", "AdamW 0.1 against 0 (k)",
     STRONG | dict(optimizer="adamw", weight_decay=0.1), STRONG | dict(optimizer="adam", weight_decay=0.0), "grad_norm", 1),
    ("SWD is a negative feedback", "6e-3 against 5e-4 (k)", STRONG | dict(optimizer="adams", weight_decay=0.006),
     STRONG | dict(optimizer="adams", weight_decay=0.0005), "decay_factor", -1),
    ("AdamS ends in flatter minima than AdamW", "matched to 0.5 (k)", STRONG | dict(optimizer="adams", weight_decay=0.006),
     STRONG | dict(optimizer="adamw", weight_decay=0.5), "sharpness", -1),
    ("AdamS is best with each optimizer at its best λ", "against adamw", STRONG | dict(optimizer="adams", weight_decay=0.001),
     STRONG | dict(optimizer="adamw", weight_decay=0.1), "test_error", -1),
]


class Verdicts(unittest.TestCase):
    def test_five_agree_with_the_page(self):
        for claim, test, a, b, field, sign in VERDICTS:
            with self.subTest(claim):
                mean, low, high = interval(a, b, field)
                row = next(line for line in PAGE.splitlines() if line.startswith("|") and claim in line)
                said = re.search(r"\*\*([a-z ]+)\*\* (?:(?!\*\*).)*?" + re.escape(test) + r": ([+−][\d.]+)(?:\\\*)? \(([+−]?[\d.]+) to "
                                 r"([+−]?[\d.]+)\)", row)
                self.assertIsNotNone(said, f"{test} is not in: {row}")
                self.assertEqual(said[1], word(low, high, sign))
                for text, value in zip(said.groups()[1:], (mean, low, high)):
                    digits = len(text.partition(".")[2])
                    self.assertAlmostEqual(float(text.replace("−", "-")), value, delta=0.51 * 10 ** -digits)

    def test_a_verdict_follows_its_interval(self):
        self.assertEqual([word(0.1, 2, 1), word(0.1, 2, -1), word(-2, -0.1, -1), word(-0.1, 2, 1)],
                         ["holds", "does not", "holds", "open"])


if __name__ == "__main__":
    unittest.main()
