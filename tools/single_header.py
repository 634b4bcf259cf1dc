"""Writes gradus as one header, for projects that take in a single file:

    python3 tools/single_header.py build/gradus/gradus.hpp

It has all that needs no dependency (the optimizers and any_optimizer, checkpoints, threads, Muon, presets), and the SIMD backend, which
is used where xsimd is installed, as with the folders. The code is the headers', in the order in which they include each other.
Two things are different: what they include of the standard library stands once at the top, and the macros of other libraries
(macros_off.hpp) are set aside once for all of it.
"""

import pathlib
import re
import sys

ROOTS = ["gradus.hpp", "checkpoint.hpp", "backend/parallel.hpp", "executor/thread_pool.hpp", "muon.hpp", "presets.hpp"]
FOLDERS = ["include", "backends/simd/include"]
INCLUDE = re.compile(r"#include <([^>]+)>$")

TOP = """\
// gradus {version} in one header: first-order optimizers for C++20. Made by tools/single_header.py; do not edit.
// Steps use the processor's vector instructions if xsimd (8.1 or later) is on the include path, and the compiler's flags allow
// them (-march=native). executor::thread_pool needs -pthread. Do not mix with gradus's folders in one program's translation unit.
//
{licence}
#ifndef GRADUS_SINGLE_HEADER
#define GRADUS_SINGLE_HEADER
"""


class Amalgamation:
    def __init__(self, source):
        self.source = source
        self.emitted, self.system, self.body = set(), [], []

    def text(self, header):
        for folder in FOLDERS:
            path = self.source / folder / header
            if path.exists():
                return path.read_text(encoding="utf-8").split("\n")
        sys.exit(f"single_header: {header} is in none of {FOLDERS}")

    @staticmethod
    def conditions(lines):
        """Each line with the number of #if that it stands in."""
        depth = 0
        for line in lines:
            word = re.match(r"#\s*(\w+)", line)
            if word and word[1] == "endif":
                depth -= 1
            yield line, depth
            if word and word[1] in ("if", "ifdef", "ifndef"):
                depth += 1

    def always(self, header, found):
        """The headers that a header includes whatever the macros, itself among them."""
        if header in found:
            return found
        found.add(header)
        for line, depth in self.conditions(self.text(header)):
            include = INCLUDE.match(line)
            if include and depth == 0 and include[1].startswith("gradus/") and "macros_o" not in line:
                self.always(include[1], found)
        return found

    def emit(self, header, needed, conditional=False):
        """Writes a header after those that it includes. `needed` are the headers that are included unconditionally from
        somewhere: where the first to include such a one is conditional, it is written before the condition."""
        if header in self.emitted:
            return
        self.emitted.add(header)
        start, opened = len(self.body), None
        for line, depth in self.conditions(self.text(header)):
            line = re.sub(r"__has_include\(<gradus/[^>]*>\)", "1", line)
            if depth == 0 and re.match(r"#\s*if", line):
                opened = len(self.body)
            include = INCLUDE.match(line)
            if line == "#pragma once" or line.startswith("#include <gradus/macros_o"):
                continue
            if not include:
                self.body.append(line)
            elif include[1].startswith("gradus/"):
                if depth > 0:
                    before, self.body = self.body[opened:], self.body[:opened]
                    for other in sorted(self.always(include[1], set())):
                        if other in needed:
                            self.emit(other, needed)
                    self.body += before
                    opened = len(self.body) - len(before)
                self.emit(include[1], needed, conditional or depth > 0)
            elif depth > 0:
                self.body.append(line)
            elif include[1] == "xsimd/xsimd.hpp" and conditional:
                self.body.append(line)
            else:
                self.system.append(include[1])
        if start < len(self.body):
            self.body.append("")

    def write(self):
        roots = [f"gradus/{root}" for root in ROOTS]
        needed = set()
        for root in roots:
            self.always(root, needed)
        self.emit("gradus/config.hpp", needed)
        config, self.body = self.body, []
        for root in roots:
            self.emit(root, needed)
        foreign = [name for name in self.system if "/" in name]
        if foreign:
            sys.exit(f"single_header: {foreign} would be included whether installed or not")
        version = ".".join(re.search(rf"GRADUS_VERSION_{part} (\d+)", "\n".join(config))[1] for part in ("MAJOR", "MINOR", "PATCH"))
        licence = (self.source / "LICENSE").read_text(encoding="utf-8").strip()
        commented = "\n".join(f"// {line}".rstrip() for line in licence.split("\n"))
        includes = [f"#include <{name}>" for name in sorted(set(self.system))]
        parts = [TOP.format(version=version, licence=commented), *config, *includes, *self.text("gradus/macros_off.hpp"), *self.body,
                 *self.text("gradus/macros_on.hpp"), "#endif  // GRADUS_SINGLE_HEADER", ""]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source = pathlib.Path(__file__).resolve().parent.parent
    out = pathlib.Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(Amalgamation(source).write(), encoding="utf-8")


if __name__ == "__main__":
    main()
