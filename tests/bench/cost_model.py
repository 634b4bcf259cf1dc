#!/usr/bin/env python3
"""The model of a sharded step's cost: its limits, and the table in docs/distributed.md, which must be what it prints.

  cost_model.py SOURCE
"""
import pathlib
import re
import subprocess
import sys
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1))
sys.path.insert(0, str(SOURCE / "bench"))
import cost_model  # noqa: E402

CPU, GPU = cost_model.MACHINES["cpu"], cost_model.MACHINES["gpu"]


class CostModel(unittest.TestCase):
    def test_bytes_are_the_ideal(self):
        for ranks in (2, 3, 8, 4096):
            self.assertAlmostEqual(cost_model.cost(CPU, 10**9, ranks)["sent"], 8e9 * (ranks - 1) / ranks, delta=1)
            self.assertAlmostEqual(cost_model.cost(GPU, 10**9, ranks)["sent"], 4e9 * (ranks - 1) / ranks, delta=1)

    def test_one_rank_is_the_plain_step(self):
        c = cost_model.cost(CPU, 10**9, 1)
        self.assertEqual(c["sent"], 0)
        self.assertAlmostEqual(c["total"], 28e9 / CPU["memory_rate"])  # AdamW in float moves 28 bytes a parameter
        self.assertEqual(c["total"], c["unsharded"])
        self.assertEqual(c["memory"], 16e9)
        self.assertEqual(c["unsharded_memory"], 16e9)

    def test_without_latency_the_time_is_that_of_the_bytes(self):
        c = cost_model.cost(CPU | {"latency": 0, "memory_rate": 1e30}, 10**9, 8)
        self.assertAlmostEqual(c["total"], 7e9 / CPU["far_rate"])
        near = cost_model.cost(GPU | {"latency": 0, "memory_rate": 1e30}, 10**9, 8)
        self.assertAlmostEqual(near["total"], 3.5e9 / GPU["near_rate"])

    def test_a_bucket_has_a_page_for_each_rank(self):
        self.assertEqual(cost_model.cost(CPU, 10**9, 8, bucket=1)["buckets"], -(-10**9 // (8 * 4096)))
        self.assertEqual(cost_model.cost(CPU, 10**9, 8, bucket=10**10)["buckets"], 1)

    def test_things_beside_each_other(self):
        self.assertEqual(cost_model.beside(3, 2, 1), 5)
        self.assertEqual(cost_model.beside(2, 3, 4), 3.5)

    def test_units(self):
        self.assertEqual([cost_model.seconds(x) for x in (0, 2e-6, 0.0123, 1376)], ["0 µs", "2.00 µs", "12.3 ms", "1376 s"])
        self.assertEqual(cost_model.bytes_of(8e9), "8.00 GB")

    def test_bad_arguments_are_named(self):
        for argument in (["--ranks", "0"], ["--parameters", "x"], ["--latency", "-1"], ["--ranks", "1.5"]):
            run = subprocess.run([sys.executable, "-B", SOURCE / "bench/cost_model.py", *argument], capture_output=True, text=True)
            self.assertEqual(run.returncode, 2)
            self.assertIn(argument[0], run.stderr)

    def test_the_page_shows_what_it_prints(self):
        page = (SOURCE / "docs/distributed.md").read_text()
        command = re.search(r"^python3 bench/cost_model\.py (.*)$", page, re.M)
        self.assertIsNotNone(command)
        run = subprocess.run([sys.executable, "-B", SOURCE / "bench/cost_model.py", *command[1].split()],
                             capture_output=True, text=True, check=True)
        self.assertIn(run.stdout, page)


if __name__ == "__main__":
    unittest.main()
