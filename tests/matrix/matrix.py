"""Compiles gradus with every compiler and set of flags that can be had, runs what they make, and writes the table.

    matrix.py [--work FOLDER] [--only PATTERN] [--list] [--jobs N] [--afresh] [--known] [--bring] [--short]

Without --only, all cells are tried, and the table in docs/platforms.md is written anew. What has passed with the same
sources and flags is not tried again, so that a run which was stopped goes on; --afresh tries it again. --known tries nothing,
and writes what has passed so far. --short tries what continuous integration runs, and writes nothing.

A cell compiles with all warnings as errors and runs what it has compiled. What it does is its row's `kind`:

    bits       bits.cpp: the recorded bits of every optimizer
    use        use.cpp, without optimization: a run as users write it, and its recorded bits
    both       one after the other
    whole      a program of both units with the row's flags
    flags      ../flags.cpp: every recipe to rounding, as a build without such flags has it
    syntax     both units are looked at, and not run
    refused    a unit must not compile, and the compiler must say why in the words of the row
    own        a function of the row does it
"""

import argparse
import concurrent.futures
import datetime
import hashlib
import inspect
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

import compilers
import special

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PAGE = SOURCE / "docs/platforms.md"
FOLDERS = ["include", "backends", "compiled", "tests"]

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wdouble-promotion", "-Wundef", "-Werror"]
# What g++ concludes from the flow of inlined code is often wrong: seen, but no error.
OF_GNU = ["-Wno-error=" + name for name in ("restrict", "array-bounds", "maybe-uninitialized", "stringop-overflow", "stringop-overread", "tsan")]
OF_CLANG = ["-Wcomma", "-Wshadow-all", "-Wextra-semi", "-Wfloat-conversion"]

GNU = ["g++-11", "g++-12", "g++-13", "g++-14"]
CLANG = ["clang-" + v for v in "13 14 15 16 17 18 19 20 21 22".split()]
ALL = GNU + CLANG
ENDS = ["g++-11", "g++-14", "clang-13", "clang-22"]  # the oldest and the newest
USUAL = ["g++-12", "clang-22"]


class Row:
    def __init__(self, section, name, flags, on, kind="bits", std="c++20", library="libstdc++", says="", short=(), function=None):
        self.section, self.name, self.flags, self.on, self.kind = section, name, flags.split(), on, kind
        self.std, self.library, self.says, self.short, self.function = std, library, says, short, function


def rows():
    made = []

    def row(*arguments, **named):
        made.append(Row(*arguments, **named))

    s = "Standards, instruction sets and libraries"
    row(s, "C++17", "-std=c++17", ALL, kind="refused", says="gradus needs C++20")
    row(s, "C++20, baseline, `-O1`", "-O1", ALL, kind="both", short=("g++-11", "clang-13"))
    row(s, "C++23, x86-64-v3", "-march=x86-64-v3", ALL, kind="use", std="c++2b")
    row(s, "C++26, x86-64-v4", "-march=x86-64-v4", ["g++-14"] + CLANG[4:], kind="use", std="c++2c", short=("clang-22",))
    row(s, "libc++, C++20, x86-64-v3", "-march=x86-64-v3", CLANG, kind="use", library="libc++")
    row(s, "libc++, C++26, baseline", "", ["clang-19", "clang-20", "clang-21", "clang-22"], kind="use", std="c++2c", library="libc++")
    row(s, "`-march=x86-64-v2`", "-O1 -march=x86-64-v2", USUAL)
    row(s, "`-march=native`", "-O2 -march=native", ENDS)
    row(s, "without xsimd", "-O1 -march=x86-64-v3 -DGRADUS_NO_XSIMD", ENDS)
    s = "Optimization"
    for level in ["-O0", "-O3", "-Os"]:
        row(s, f"`{level}`", f"{level} -march=x86-64-v3", ENDS if level != "-Os" else USUAL)
    row(s, "`-O3 -funroll-loops -fno-strict-aliasing`", "-O3 -funroll-loops -fno-strict-aliasing", USUAL)
    row(s, "`-funsigned-char`", "-funsigned-char", USUAL, kind="use")
    s = "Flags that allow other arithmetic"
    some = ["g++-12", "clang-14", "clang-19", "clang-22"]
    row(s, "`-ffast-math`", "-O2 -ffast-math", ALL, kind="flags", short=("clang-22",))
    row(s, "`-ffast-math`, x86-64-v4", "-O2 -ffast-math -march=x86-64-v4", ["g++-12", "clang-19", "clang-22"], kind="flags")
    row(s, "`-Ofast`, x86-64-v3", "-Ofast -march=x86-64-v3 -Wno-deprecated", USUAL, kind="flags")
    row(s, "`-ffast-math -fno-finite-math-only`", "-O3 -ffast-math -fno-finite-math-only", some, kind="flags")
    row(s, "`-funsafe-math-optimizations`", "-O2 -funsafe-math-optimizations", some, kind="flags")
    row(s, "`-ffinite-math-only`", "-O2 -ffinite-math-only", some, kind="flags")
    row(s, "`-fassociative-math -fno-signed-zeros -fno-trapping-math`", "-O2 -fassociative-math -fno-signed-zeros -fno-trapping-math", USUAL, kind="flags")
    row(s, "`-freciprocal-math`", "-O2 -freciprocal-math", USUAL, kind="flags")
    row(s, "`-fno-signed-zeros -fno-trapping-math -fno-math-errno`", "-O2 -fno-signed-zeros -fno-trapping-math -fno-math-errno", USUAL)
    row(s, "`-frounding-math`", "-O2 -frounding-math", USUAL)
    row(s, "`-ffp-contract=fast`, x86-64-v3", "-O2 -ffp-contract=fast -march=x86-64-v3", ["g++-12"])  # its default
    # clang may fuse the product and the difference in a cautious step.
    row(s, "the same, to rounding", "-O2 -ffp-contract=fast -march=x86-64-v3", ["clang-14", "clang-22"], kind="flags")
    row(s, "`-ffp-contract=off`, x86-64-v3", "-O2 -ffp-contract=off -march=x86-64-v3", USUAL)
    # Literals of double are then of another type.
    row(s, "`-fsingle-precision-constant`", "-fsingle-precision-constant", ["g++-12"], kind="refused", says="no matching function for call to")
    row(s, "`-fcx-limited-range -fexcess-precision=fast`", "-O2 -fcx-limited-range -fexcess-precision=fast", ["g++-12"])
    row(s, "`-fapprox-func`", "-O2 -fapprox-func", ["clang-14", "clang-22"], kind="flags")
    row(s, "`-ffp-model=fast`", "-O2 -ffp-model=fast -Wno-overriding-option", ["clang-22"], kind="flags")
    row(s, "`-ffp-model=aggressive`", "-O2 -ffp-model=aggressive", ["clang-22"], kind="flags")
    row(s, "`-ffp-model=strict`", "-O2 -ffp-model=strict", ["clang-22"])
    row(s, "`-fdenormal-fp-math=positive-zero`", "-O2 -fdenormal-fp-math=positive-zero", ["clang-22"], kind="flags")
    row(s, "`-mfpmath=387`", "-O2 -mfpmath=387", ["g++-12", "g++-14"], kind="flags")
    s = "32 bits"
    on = ["g++-11", "g++-12", "clang-13", "clang-22"]
    row(s, "`-m32`, SSE2", "-m32 -msse2 -mfpmath=sse -D_FILE_OFFSET_BITS=64 -O1", on, kind="both")
    row(s, "`-m32 -march=x86-64-v3`", "-m32 -march=x86-64-v3 -mfpmath=sse -O2", USUAL)
    row(s, "`-m32` without SSE2", "-m32 -march=i686 -mno-sse -O2", ["g++-11", "g++-12", "clang-14", "clang-22"], kind="flags")
    row(s, "`-m32` without SSE2, `-ffast-math`", "-m32 -march=i686 -mno-sse -O2 -ffast-math", USUAL, kind="flags")
    s = "Units and linking"
    row(s, "link-time optimization", "-O2 -flto -march=x86-64-v3", ["g++-11", "g++-12", "g++-14"], kind="whole")
    row(s, "link-time optimization with lld", "-O2 -flto -fuse-ld=lld -march=x86-64-v3", ["clang-22"], kind="whole")
    row(s, "the same, `-flto=thin`", "-O2 -flto=thin -fuse-ld=lld -march=x86-64-v3", ["clang-22"], kind="whole")
    row(s, "`-static`", "-O1 -static", ["g++-12"], kind="whole")
    row(s, "all headers and both units in one", "-O0 -march=x86-64-v3", ["g++-12", "g++-14", "clang-22"], kind="own", function=special.one_unit)
    row(s, "precompiled header", "-O1", ["g++-12", "g++-14", "clang-14", "clang-22"], kind="own", function=special.precompiled)
    row(s, "the module", "-O1", ["clang-17", "clang-18", "clang-19", "clang-22"], kind="own", function=special.module)
    row(s, "`-fno-exceptions -fno-rtti`", "-O0 -fno-exceptions -fno-rtti", ["g++-14", "clang-22"], kind="own", function=special.no_exceptions)
    s = "Sanitizers"
    on = ["g++-12", "g++-14", "clang-14", "clang-22"]
    row(s, "address, undefined", "-O1 -g1 -march=x86-64-v3 -fsanitize=address,undefined -fno-sanitize-recover=all", on, kind="whole")
    row(s, "thread", "-O1 -g1 -fsanitize=thread", ["g++-12", "clang-14", "clang-22"], kind="whole")
    row(s, "integer, implicit conversions that lose bits", "-O1 -g1 -fsanitize=implicit-integer-truncation,local-bounds,float-divide-by-zero,float-cast-overflow "
        "-fno-sanitize-recover=all", ["clang-22"], library="libc++", kind="whole")
    row(s, "memory, with libc++ built so", "-O1 -g1 -fsanitize=memory -fno-sanitize-recover=all", ["clang-22"], kind="own", function=special.memory)
    s = "Hardening"
    row(s, "`-D_FORTIFY_SOURCE=3`", "-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3", ["g++-12", "g++-14", "clang-22"], kind="whole")
    row(s, "`-D_GLIBCXX_ASSERTIONS`", "-D_GLIBCXX_ASSERTIONS", USUAL, kind="use")
    row(s, "`-D_GLIBCXX_DEBUG`", "-D_GLIBCXX_DEBUG", USUAL, kind="use")
    row(s, "libc++, hardened, debug mode", "-O1 -D_LIBCPP_HARDENING_MODE=_LIBCPP_HARDENING_MODE_DEBUG", ["clang-18", "clang-19", "clang-22"], kind="use", library="libc++")
    row(s, "libc++, assertions", "-O1 -D_LIBCPP_ENABLE_ASSERTIONS=1", ["clang-15", "clang-16"], kind="use", library="libc++")
    row(s, "`-fhardened`", "-O2 -fhardened -Wno-error=hardened", ["g++-14"], kind="whole")
    row(s, "the parts of `-fhardened`", "-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -D_GLIBCXX_ASSERTIONS -ftrivial-auto-var-init=pattern -fPIE -pie "
        "-fstack-protector-strong -fstack-clash-protection -fcf-protection=full -Wl,-z,relro,-z,now -Wno-unused-command-line-argument", ["g++-12", "clang-22"], kind="whole")
    s = "Warnings"
    row(s, "`-Weverything`, but for style", "-Weverything " + " ".join("-Wno-" + name for name in special.MATTERS_OF_STYLE), ["clang-14", "clang-22"], kind="syntax")
    row(s, "g++'s own", "-Wduplicated-cond -Wduplicated-branches -Wlogical-op -Wcast-align=strict -Wnon-virtual-dtor -Woverloaded-virtual "
        "-Wmissing-declarations -Wredundant-decls -Wcast-qual -Wformat=2 -Wnull-dereference", ["g++-11", "g++-14"], kind="syntax")
    return made


class Failed(Exception):
    pass


class Cell:
    def __init__(self, matrix, row, compiler):
        self.matrix, self.row, self.compiler = matrix, row, compiler
        self.name = f"{compiler.name} {row.name}".replace("`", "")

    @property
    def here(self):
        """Our folder, by the path that the compiler sees."""
        return self.matrix.inside(self.compiler)

    def strict(self):
        return STRICT + (OF_GNU if self.compiler.gnu else OF_CLANG)

    def flags(self, std=None):
        here = self.here
        own = self.row.flags
        if self.compiler.zig:
            own = [re.sub(r"^-march=(.*)", lambda found: "-mcpu=" + found[1].replace("-", "_"), flag) for flag in own]
        return ([] if any(flag.startswith("-std=") for flag in self.row.flags) else [f"-std={std or self.row.std}"]) + [
            *self.strict(), *own, f"-I{here}/include", f"-I{here}/backends/simd/include", f"-I{here}/tests",
            f'-DGRADUS_TEST_DATA="{here}/tests"', "-pthread", *self.compiler.standard_library(self.row.library), *self.headers()]

    def headers(self):
        """Where a compiler does not look by itself."""
        if self.compiler.zig:
            return ["-idirafter", "/usr/include"]
        # asm/errno.h: Debian's gcc-multilib has a link to it, but excludes cross compilers.
        return ["-idirafter", "/usr/include/x86_64-linux-gnu"] if "-m32" in self.row.flags else []

    def compile(self, arguments, what="does not compile"):
        done = self.compiler.run(arguments, self.folder)
        if done.returncode:
            raise Failed(what + ": " + "\n".join(line for line in done.stderr.splitlines() if re.search("error|undefined|Error", line))[:1500])
        return done

    def execute(self, *command, **named):
        done = self.compiler.enter(["timeout", "600", *map(str, command)], self.seen)
        if done.returncode:
            raise Failed(f"ends with {done.returncode}: " + (done.stdout + done.stderr)[-1500:])
        return done.stdout

    def run(self):
        slug = re.sub(r"[^a-z0-9+]+", "_", self.name.lower())
        self.folder = self.matrix.folder(self.compiler) / "cells" / slug
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.seen = f"{self.here}/cells/{slug}"
        self.compiler_folder = self.folder
        try:
            if self.row.kind == "own":
                self.row.function(self)
            else:
                getattr(self, "kind_" + self.row.kind)()
            return "limit" if self.row.kind == "refused" else "pass", ""
        except (Failed, special.Failed) as failure:
            return "FAIL", str(failure)
        except subprocess.TimeoutExpired:
            return "FAIL", "takes too long"
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def units(self):
        return [f"{self.here}/tests/matrix/bits.cpp", f"{self.here}/tests/matrix/use.cpp"]

    def kind_bits(self):
        self.compile([*self.flags(), "-DALONE", self.units()[0], "-o", f"{self.seen}/program"])
        self.execute(f"{self.seen}/program")

    def kind_use(self):
        self.compile([*self.flags(), "-O0", self.units()[1], "-o", f"{self.seen}/program"])
        self.execute(f"{self.seen}/program")

    def kind_both(self):
        self.kind_use()
        self.kind_bits()

    def kind_whole(self):
        self.compile([*self.flags(), "-DWITH_BITS", *self.units(), "-o", f"{self.seen}/program"])
        self.execute(f"{self.seen}/program")

    def look_at(self, unit):
        # Zig, told -fsyntax-only, looks for the object that this does not make.
        only = ["-O0", "-c", "-o", f"{self.seen}/looked_at.o"] if self.compiler.zig else ["-fsyntax-only"]
        self.compile([*self.flags(), *only, unit])

    def kind_syntax(self):
        for unit in self.units():
            self.look_at(unit)

    def kind_refused(self):
        done = self.compiler.run([*self.flags(), "-fsyntax-only", self.units()[1]], self.folder)
        if done.returncode == 0:
            raise Failed("compiles; expected a refusal")
        if self.row.says not in done.stderr:
            raise Failed(f"does not say '{self.row.says}', but: {done.stderr[:500]}")

    def kind_flags(self):
        if self.row.flags[1:] == ["-ffast-math"]:  # some compilers warn under it
            self.look_at(self.units()[1])
        self.compile([*self.flags(), f"{self.here}/tests/flags.cpp", "-o", f"{self.seen}/program"])
        self.execute(f"{self.seen}/program", "compare", self.matrix.strict_walks(self))


class Matrix:
    def __init__(self, work):
        self.work = work
        self.all = compilers.all_compilers(work)
        self.by_name = {c.name: c for c in self.all}
        self.cells = [Cell(self, row, self.by_name[name]) for row in rows() for name in row.on]

    def folder(self, compiler):
        return (compiler.root / "gradus") if compiler.root else self.work / "here"

    def inside(self, compiler):
        return "/gradus" if compiler.root else str(self.work / "here")

    def copy_sources(self, used):
        """A copy of the sources for each root. Keeps a digest of what cells compile."""
        digest, compiled = hashlib.sha256(), hashlib.sha256()
        for folder in FOLDERS:
            for path in sorted((SOURCE / folder).rglob("*")):
                if path.suffix in (".hpp", ".cpp", ".cppm", ".txt") and path.is_file() and "golden" not in path.parts:
                    name = str(path.relative_to(SOURCE))
                    digest.update(name.encode() + path.read_bytes())
                    if folder != "tests" or re.match("tests/(matrix/|support/|bits/expected.txt|flags.cpp|no_exceptions.cpp|consumers/module.cpp)", name):
                        compiled.update(name.encode() + path.read_bytes())
        self.digest = compiled.hexdigest()
        for target in {self.folder(c) for c in used}:
            mark = target / "copied"  # another run may be reading them
            if mark.exists() and mark.read_text() == digest.hexdigest():
                continue
            for folder in FOLDERS:
                shutil.rmtree(target / folder, ignore_errors=True)
                shutil.copytree(SOURCE / folder, target / folder)
            mark.write_text(digest.hexdigest())

    def key(self, cell):
        """All that a cell's result depends on, but the compiler's program."""
        row = cell.row
        code = [inspect.getsource(special if row.function else getattr(Cell, "kind_" + row.kind)), inspect.getsource(Cell.compile)]
        parts = [self.digest, cell.name, row.says, code, cell.flags()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def strict_walks(self, cell):
        """What every recipe gives without such flags, as ../flags.cpp records it."""
        path = self.folder(cell.compiler) / "walks"
        if not path.exists():
            shutil.copy(self.walks, path)
        return f"{cell.here}/walks"

    def record_walks(self):
        compiler = next(c for c in self.all if not c.missing and not c.root and c.gnu)
        folder = self.folder(compiler)
        self.walks = self.work / "walks"
        include = [f"-I{folder}/{name}" for name in ("include", "backends/simd/include", "tests")]
        program = folder / "record"
        done = compiler.run(["-std=c++20", "-O1", *include, folder / "tests/flags.cpp", "-o", program], folder)
        if done.returncode or subprocess.run([program, "record", self.walks]).returncode:
            sys.exit("matrix: tests/flags.cpp without flags fails: " + done.stderr[:2000])
        for c in self.all:
            (self.folder(c) / "walks").unlink(missing_ok=True)


def table(matrix, results):
    """The rows by section, with a column for each compiler."""
    versions = [c.name.split("-") for c in matrix.all]
    lines = ["| | " + " | ".join(f"{kind}&nbsp;{version}" for kind, version in versions) + " |", "|---|" + ":-:|" * len(versions)]
    section = None
    for row in rows():
        if row.section != section:
            section = row.section
            lines.append(f"| **{section}** |" + " |" * len(versions))
        entries = []
        for compiler in matrix.all:
            entries.append(results.get(f"{compiler.name} {row.name}".replace("`", ""), {}).get("result", ""))
        lines.append(f"| {row.name} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def write_page(matrix, results):
    text = PAGE.read_text(encoding="utf-8")
    counts = {what: sum(r["result"] == what for r in results.values()) for what in ("pass", "limit", "absent", "FAIL", "not yet")}
    here = ", ".join(f"{c.name.replace('-', ' ')} ({c.full_version()})" for c in matrix.all if not c.missing)
    missing = "".join(f"\n\nNot there: {c.name.replace('-', ' ')}, {c.missing}." for c in matrix.all if c.missing)
    body = (f"<!-- compilers: written by ./dev test --matrix -->\n{table(matrix, results)}\n\n"
            f"{len(results)} cells: {counts['pass']} pass, {counts['limit']} are limits, {counts['absent']} could not be tried, {counts['FAIL']} fail"
            + (f", {counts['not yet']} have not been tried yet with these sources" if counts["not yet"] else "") +
            f". {datetime.date.today()}, {platform.system()} on {platform.machine()}: {here}.{missing}\n<!-- end of compilers -->")
    text, found = re.subn(r"<!-- compilers.*?<!-- end of compilers -->", lambda _: body, text, flags=re.S)
    if found != 1:
        sys.exit("matrix: docs/platforms.md lacks the marks of its table")
    PAGE.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", default=str(SOURCE / "build/matrix"))
    parser.add_argument("--only", help="a regular expression of cells' names")
    parser.add_argument("--list", action="store_true", help="prints the names of the cells")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--afresh", action="store_true", help="tries again what has passed")
    parser.add_argument("--known", action="store_true", help="writes the table of what has passed with these sources, and tries nothing")
    parser.add_argument("--bring", action="store_true", help="brings the compilers that are no packages of this system, and ends")
    parser.add_argument("--short", action="store_true", help="tries what continuous integration runs")
    options = parser.parse_args()
    work = pathlib.Path(options.work).resolve()
    if options.bring:
        return compilers.bring(work)
    matrix = Matrix(work)
    cells = [c for c in matrix.cells if (not options.only or re.search(options.only, c.name)) and
             (not options.short or c.compiler.name in c.row.short)]
    if options.list:
        print("\n".join(c.name + (f"  (not here: {c.compiler.missing})" if c.compiler.missing else "") for c in cells))
        return 0
    if not cells:
        sys.exit(f"matrix: no cell matches '{options.only}'; --list prints them")
    work.mkdir(parents=True, exist_ok=True)
    present = [c for c in cells if not c.compiler.missing]
    if not present:
        print("matrix: needs", ", ".join(sorted({c.compiler.name for c in cells})))
        return 77
    matrix.copy_sources({c.compiler for c in present} | {next(c for c in matrix.all if not c.missing and not c.root)})
    if not options.known and any(c.row.kind == "flags" for c in present):
        matrix.record_walks()
    records = work / "results"
    records.mkdir(exist_ok=True)
    results = {}

    def attempt(cell):
        if cell.compiler.missing:
            return cell, {"result": "absent", "text": cell.compiler.missing}
        record = records / f"{matrix.key(cell)}.json"
        if record.exists() and not options.afresh:
            return cell, json.loads(record.read_text())
        if options.known:
            return cell, {"result": "not yet", "text": ""}
        begun = time.monotonic()
        result, text = cell.run()
        done = {"result": result, "text": text, "seconds": round(time.monotonic() - begun, 1)}
        if result != "FAIL":
            record.write_text(json.dumps(done))
        return cell, done

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for done in concurrent.futures.as_completed([pool.submit(attempt, cell) for cell in cells]):
            cell, result = done.result()
            results[cell.name] = result
            print(f"{result['result']:6} {result.get('seconds', 0):6} s  {cell.name}", flush=True)
            if result["result"] == "FAIL":
                print("       " + result["text"].replace("\n", "\n       "), flush=True)
    failed = [name for name, r in results.items() if r["result"] == "FAIL"]
    if not options.only and not options.short:
        write_page(matrix, results)
        print(table(matrix, results))
    absent = sum(r["result"] == "absent" for r in results.values())
    absent += sum(r["result"] == "not yet" for r in results.values())
    print(f"\nmatrix: {len(results) - len(failed) - absent} passed, {len(failed)} failed" + (f", {absent} skipped" if absent else ""))
    if any(c.compiler.missing for c in cells):
        print("matrix: skipped for want of", ", ".join(sorted({c.compiler.name for c in cells if c.compiler.missing})))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
