#!/usr/bin/env python3
"""Compares the loops of tests/kernel/hooks.cpp: a recipe that uses no hook must have the same instructions as in a kernel
that has none, for AVX2 and for AVX-512, opcode by opcode.

    hooks.py SOURCE_DIR WORK_DIR COMPILER
"""

import collections
import pathlib
import re
import shutil
import subprocess
import sys

SETS = {
    "avx2": ["-march=x86-64", "-mavx2", "-mfma"],
    "avx512": ["-march=x86-64", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"],
}
PADDING = re.compile(r"(nop|data16|cs$|xchg$)")  # to align a loop
SKIPPED = 77


def opcodes(object_file):
    """The number of each opcode, by (recipe, whether it is the kernel with hooks)."""
    text = subprocess.run(["objdump", "-dC", "--no-show-raw-insn", object_file], capture_output=True, text=True, check=True).stdout
    functions, counts = {}, None
    for line in text.splitlines():
        if start := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            name = re.search(r"hooks::(with_hooks|without)<gradus::(?:\w+::)?(\w+), float>", start[1])
            counts = functions.setdefault((name[2], name[1] == "with_hooks"), collections.Counter()) if name else None
        elif counts is not None and (instruction := re.match(r"\s+[0-9a-f]+:\s+(\S+)", line)):
            if not PADDING.match(instruction[1]):
                counts[instruction[1]] += 1
    return functions


def main(source, work, compiler):
    if not shutil.which("objdump"):
        print("hooks: skipped, as there is no objdump")
        return SKIPPED
    work = pathlib.Path(work)
    work.mkdir(parents=True, exist_ok=True)
    bad = False
    for name, flags in SETS.items():
        object_file = work / f"{name}.o"
        command = [compiler, "-std=c++20", "-O3", "-DNDEBUG", *flags, f"-I{source}/include", f"-I{source}/backends/simd/include",
                   "-c", f"{source}/tests/kernel/hooks.cpp", "-o", object_file]
        subprocess.run(command, check=True)
        functions = opcodes(object_file)
        recipes = sorted({recipe for recipe, _ in functions})
        if len(recipes) != 10:
            print(f"hooks: expected the loops of 10 recipes in both kernels, found {recipes}")
            bad = True
        for recipe in recipes:
            ours, plain = functions[recipe, True], functions[recipe, False]
            different = {op: (ours[op], plain[op]) for op in ours | plain if ours[op] != plain[op]}
            print(f"{name:7} {recipe:9} {ours.total():4} instructions{', differing: ' + str(different) if different else ''}")
            bad = bad or bool(different) or ours.total() < 50
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
