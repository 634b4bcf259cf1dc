#!/usr/bin/env python3
"""Measures the cost of including gradus: the compiler's processor time, preprocessed lines, and code size.

  compile_time.py OUT.json [--rounds N] [--compilers g++,clang++]

Each case is compiled N times with -std=c++20 -O2, in turn with the others, and the median is reported. Measures processor
time, because other programs on the machine hardly lengthen it.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ONE = """
#include <vector>
void train(std::vector<float>& weights, const std::vector<float>& gradients)
{
  gradus::optimizer<gradus::adamw> opt;
  opt.add(weights, gradients);
  opt.step();
}
"""
ENGINE = """
bool step(std::span<float> w, std::span<const float> g, std::span<float> m, std::span<float> v, std::uint64_t t)
{
  const auto rule = gradus::adamw{}.rule();
  const auto formula = gradus::prepare<float>(rule, gradus::make_step_scalars(rule, t, 1));
  return gradus::update(gradus::backend::scalar{}, formula, w, g, {m, v});
}
"""
ANY = """
#include <vector>
void train(const char* name, std::vector<float>& weights, const std::vector<float>& gradients)
{
  gradus::RECIPES opt(name);
  opt.add(weights, gradients);
  opt.step();
}
"""
CASES = (
    # name, flags, source
    ("an empty file", [], ""),
    ("`<vector>` and `<string>`", [], "#include <vector>\n#include <string>\n"),
    ("`<gradus/kernel.hpp>`", [], "#include <gradus/kernel.hpp>\n"),
    ("the same and the scalar backend, one step of AdamW", [], "#include <gradus/backend/scalar.hpp>\n#include <gradus/recipes.hpp>\n" + ENGINE),
    ("`<gradus/gradus.hpp>` without xsimd", ["-DGRADUS_NO_XSIMD"], "#include <gradus/gradus.hpp>\n"),
    ("the same, one optimizer", ["-DGRADUS_NO_XSIMD"], "#include <gradus/gradus.hpp>\n" + ONE),
    ("`<xsimd/xsimd.hpp>`", ["-march=native"], "#include <xsimd/xsimd.hpp>\n"),
    ("`<gradus/gradus.hpp>` with xsimd", ["-march=native"], "#include <gradus/gradus.hpp>\n"),
    ("the same, one optimizer, with xsimd", ["-march=native"], "#include <gradus/gradus.hpp>\n" + ONE),
    ("any_optimizer of two recipes, with xsimd", ["-march=native"],
     "#include <gradus/gradus.hpp>\n" + ANY.replace("RECIPES", "any_optimizer_of<float, gradus::sgd, gradus::adamw>")),
    ("any_optimizer of all recipes, with xsimd", ["-march=native"],
     "#include <gradus/gradus.hpp>\n" + ANY.replace("RECIPES", "any_optimizer<float>")),
    ("the same, with gradus::compiled", ["-march=native", "-DGRADUS_COMPILED_FLOAT"],
     "#include <gradus/gradus.hpp>\n" + ANY.replace("RECIPES", "any_optimizer<float>")),
)


def processor_seconds(command):
    before = os.times()
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main():
    options = argparse.ArgumentParser()
    options.add_argument("out", type=pathlib.Path)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--compilers", default="g++")
    o = options.parse_args()
    rows, missing = [], {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for compiler in o.compilers.split(","):
            if not shutil.which(compiler):
                missing[compiler] = "not installed"
                continue
            for i, (name, flags, source) in enumerate(CASES):
                path = pathlib.Path(folder) / f"case{i}.cpp"
                path.write_text(source)
                base = [compiler, "-std=c++20", "-O2", f"-I{ROOT}/include", f"-I{ROOT}/backends/simd/include", *flags, str(path)]
                text = subprocess.run([*base, "-E", "-P"], capture_output=True)
                if text.returncode:
                    missing[f"{compiler}: {name}"] = text.stderr.decode().splitlines()[0]
                    continue
                jobs.append((compiler, name, [*base, "-c", "-o", f"{folder}/out.o"], text.stdout.count(b"\n"), []))
        for _ in range(o.rounds):
            for compiler, name, command, lines, samples in jobs:
                samples.append(processor_seconds(command))
        for compiler, name, command, lines, samples in jobs:
            subprocess.run(command, check=True)
            size = subprocess.run(["size", f"{folder}/out.o"], capture_output=True, text=True).stdout.split()
            rows.append({"name": f"compile/{compiler}/{name}", "compiler": compiler, "case": name, "seconds": statistics.median(samples),
                         "preprocessed_lines": lines, "text_bytes": int(size[6]) if len(size) > 6 else None})
    o.out.write_text(json.dumps({"context": {"rounds": o.rounds, "flags": "-std=c++20 -O2", "missing": missing},
                                 "benchmarks": rows}, indent=1))


sys.exit(main())
