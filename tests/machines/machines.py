"""Builds tests for other machines, runs them under emulation, and compares their bits and checkpoints with x86-64's.

    machines.py [--work FOLDER] [--jobs N] [--page FILE] [--short] [NAME...]

Without names it tries all machines. Results go into the table of FILE between <!-- machines --> and <!-- end of machines -->;
rows of machines that were not tried stay. What has passed is not run again unless it has changed. --short only exchanges checkpoints. Ends with 77 if no machine could be tried, because
something is not installed.

  bits         tests/bits: hashes of long trajectories, recorded on x86-64
  golden       tests/golden: trajectories of other implementations, within rounding
  checkpoints  exchange.cpp: files equal x86-64's to the byte, and each machine resumes from the other's
  threads      tests/executor/thread_pool
  files        tests/checkpoint: replaced_file and random_access_file
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
TESTS = SOURCE / "tests"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]
# Wrong conclusions of g++ 12 from inlined code; see tests/CMakeLists.txt.
DOUBTFUL = [f"-Wno-error={name}" for name in ("restrict", "array-bounds", "maybe-uninitialized", "stringop-overflow", "stringop-overread")]
FAILS = "**fails**"
COLUMNS = ("bits", "golden", "checkpoints", "threads", "files")


class Failed(Exception):
    """What was run, and what it said."""


@dataclasses.dataclass(eq=False)
class Check:
    """A test program: its sources under tests, and the compiler's flags."""
    sources: tuple
    flags: tuple = ("-O1",)
    arguments: tuple = ()
    main: bool = True                # whether it takes support/main.cpp


CHECKS = {
    "bits": Check(("bits/trajectories.cpp",)),
    "golden": Check(("golden.cpp",), ("-O0", "-DGRADUS_TEST_DOUBLE_ONLY")),
    "checkpoints": Check(("machines/exchange.cpp",), main=False),
    "threads": Check(("executor/thread_pool.cpp",)),
    "files": Check(("checkpoint/replaced_file.cpp", "checkpoint/random_access_file.cpp"), ("-O0",)),
}


@dataclasses.dataclass(eq=False)
class Machine:
    """How to compile and run for a machine."""
    name: str
    title: str
    fused: bool                      # the family of bits
    compiler: str
    flags: tuple = ()
    link: tuple = ("-static",)       # the linker's flags
    emulator: tuple = ()
    debian: tuple = ()               # packages of the compiler and the emulator
    environment: dict = dataclasses.field(default_factory=dict)
    suffix: str = ""                 # of programs
    changes: dict = dataclasses.field(default_factory=dict)  # other checks than CHECKS has, by column
    differs: tuple = ()              # checkpoints whose last bits differ by the C library's pow, log and expm1
    limits: dict = dataclasses.field(default_factory=dict)   # what replaces a check in the table, by column

    def check(self, column):
        return self.changes.get(column, CHECKS[column])

    def missing(self):
        return [program for program in self.programs() if not shutil.which(program)]

    def programs(self):
        return self.compiler, self.emulator[0]


# Under qemu a process's memory cannot be limited, because qemu has its own there; and two hundred kills take long, and would
# test this machine's kernel again.
UNDER_QEMU = {"threads": dataclasses.replace(CHECKS["threads"], arguments=("--test-case-exclude=*cannot start threads*",)),
              "files": dataclasses.replace(CHECKS["files"], arguments=("--test-case-exclude=*two hundred kills*",))}

# WebAssembly has neither fork() nor limits, and emscripten's files neither locks nor modes.
WITHOUT_PROCESSES = {
    "threads": dataclasses.replace(CHECKS["threads"], arguments=("--test-case-exclude=*fork*,*idle pool*",)),
    "files": dataclasses.replace(CHECKS["files"], arguments=("--test-case=*by a path*,*links are followed*",))}


def linux(name, title, fused, triple, qemu, packages, **others):
    return Machine(name, title, fused, f"{triple}-g++", flags=others.pop("flags", ()), emulator=(f"qemu-{qemu}-static",),
                   debian=(packages, "qemu-user-static"), changes={**UNDER_QEMU, **others.pop("changes", {})}, **others)


MACHINES = [
    linux("aarch64", "aarch64", True, "aarch64-linux-gnu", "aarch64", "g++-aarch64-linux-gnu"),
    linux("riscv64", "riscv64", True, "riscv64-linux-gnu", "riscv64", "g++-riscv64-linux-gnu"),
    linux("ppc64le", "ppc64le", True, "powerpc64le-linux-gnu", "ppc64le", "g++-powerpc64le-linux-gnu"),
    linux("s390x", "s390x (big-endian)", True, "s390x-linux-gnu", "s390x", "g++-s390x-linux-gnu"),
    linux("armhf", "armhf (32 bits)", False, "arm-linux-gnueabihf", "arm", "g++-arm-linux-gnueabihf",
          flags=("-D_FILE_OFFSET_BITS=64", "-Wno-psabi")),
    linux("i386", "i386 (32 bits, SSE2)", False, "i686-linux-gnu", "i386", "g++-i686-linux-gnu",
          flags=("-D_FILE_OFFSET_BITS=64", "-msse2", "-mfpmath=sse")),
    Machine("windows", "Windows x86-64", False, "x86_64-w64-mingw32-g++-posix", ("-march=x86-64", "-Wa,-mbig-obj"), ("-static",), ("/usr/lib/wine/wine64",),
            ("g++-mingw-w64-x86-64-posix", "wine64"), {"WINEDEBUG": "-all", "WINEPREFIX": "{work}/wine"}, suffix=".exe",
            differs=("radam.safetensors",),
            changes={"files": Check(("checkpoint/replaced_file/windows.cpp",), ("-O0",), main=False),
                     # Without inlining and with SIMD, the names are too many and too long for mingw's object files.
                     "golden": Check(("golden.cpp",), ("-O1", "-DGRADUS_TEST_DOUBLE_ONLY", "-DGRADUS_NO_XSIMD"))}),
    Machine("wasm", "WebAssembly", False, "em++",
            ("-fexceptions", "-pthread"), ("-sNODERAWFS=1", "-sINITIAL_MEMORY=512MB", "-sEXIT_RUNTIME=1", "-sPROXY_TO_PTHREAD=1"),
            ("node", "--no-experimental-fetch"),  # emscripten 3.1.6 would fetch programs, and node has no fetch of files
            ("emscripten", "nodejs"), {"NODE_PATH": "/usr/share/nodejs"}, suffix=".js", changes=WITHOUT_PROCESSES),
]

# What the others are compared with.
HERE = {True: Machine("x86-64-v3", "x86-64 with FMA", True, "g++", ("-march=x86-64-v3",), ()),
        False: Machine("x86-64", "x86-64", False, "g++", ("-march=x86-64",), ())}


def run(command, limit=3000, cwd=None, environment=None):
    try:
        result = subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                timeout=limit, text=True, errors="replace")
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{shlex.join(str(word) for word in command)} runs for more than {limit} s") from e
    if result.returncode:
        raise Failed(f"{shlex.join(str(word) for word in command)} ends with {result.returncode}:\n{result.stdout[-6000:]}")
    return result.stdout


def is_newer(file, files):
    """Whether a file exists, and is newer than others, which exist too."""
    return os.path.exists(file) and all(os.path.exists(f) and os.path.getmtime(f) <= os.path.getmtime(file) for f in files)


class Builder:
    """Compiles into a folder, and what is newer than its sources not again."""

    def __init__(self, machine, work):
        self.machine, self.folder = machine, work / machine.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = {name: value.format(work=work) for name, value in machine.environment.items()}
        self.include = work / "include"  # of this machine's headers only those that fit all machines
        self.include.mkdir(exist_ok=True)
        for library in ("xsimd", "doctest"):
            link = self.include / library
            if not link.exists():
                link.symlink_to(pathlib.Path("/usr/include") / library)

    def compile(self, source, flags):
        out = self.folder / (source.replace("/", "_").removesuffix(".cpp") + ".o")
        said = out.with_suffix(".d")
        if said.exists():
            if is_newer(out, said.read_text(encoding="utf-8").replace("\\\n", " ").split(":", 1)[1].split()):
                return out
        m = self.machine
        self.run([m.compiler, "-std=c++20", *flags, *WARNINGS, *(DOUBTFUL if "g++" in m.compiler else []), *m.flags, f"-I{SOURCE}/include",
             f"-I{SOURCE}/backends/simd/include", f"-I{TESTS}", "-isystem", self.include, f'-DGRADUS_TEST_DATA="{TESTS}"', "-MMD",
             "-c", TESTS / source, "-o", out])
        return out

    def sources(self, columns):
        """All that these checks compile, each once, with its flags."""
        all_of_them = {}
        for column in columns:
            check = self.machine.check(column)
            for source in check.sources:
                all_of_them[source] = check.flags
            if check.main:
                all_of_them["support/main.cpp"] = ("-O1",)
        return all_of_them

    def link(self, column):
        check = self.machine.check(column)
        sources = [*check.sources, *(["support/main.cpp"] if check.main else [])]
        objects = [self.compile(s, self.sources([column])[s]) for s in sources]
        out = self.folder / f"test_{column}{self.machine.suffix}"
        if is_newer(out, objects):
            return out
        self.run([self.machine.compiler, *self.machine.flags, *objects, "-pthread", *self.machine.link, "-o", out])
        return out

    def run(self, command, **where):
        return run(command, environment=self.environment, **where)

    def emulate(self, program, *arguments, **where):
        return self.run([*self.machine.emulator, program, *arguments], **where)


def exchange(builder, here):
    """Compares the checkpoints of two machines, and resumes each from the other's. Returns the machine's default backend."""
    theirs, ours = builder.link("checkpoints"), here.link("checkpoints")
    folder = builder.folder / "exchange"
    shutil.rmtree(folder, ignore_errors=True)

    def steps(b, program, begin, end, load, save):
        (folder / save).mkdir(parents=True, exist_ok=True)
        return b.emulate(program, begin, end, load, save, cwd=folder)

    steps(here, ours, 0, 11, "-", "ours11")
    steps(here, ours, 0, 40, "-", "ours40")
    backend = steps(builder, theirs, 0, 11, "-", "theirs11").splitlines()[-1]
    steps(builder, theirs, 0, 40, "-", "theirs40")
    steps(here, ours, 11, 40, "theirs11", "ours_from_theirs")
    steps(builder, theirs, 11, 40, "ours11", "theirs_from_ours")
    names = sorted(f.name for f in (folder / "ours40").iterdir())
    if len(names) != 5:
        raise Failed(f"exchange.cpp has saved {names}; expected 5 checkpoints")
    different = [f"{other}/{name}" for one, other in (("ours11", "theirs11"), ("ours40", "theirs40"), ("ours40", "ours_from_theirs"),
                                                      ("ours40", "theirs_from_ours"))
                 for name in names if name not in builder.machine.differs and (folder / one / name).read_bytes() != (folder / other / name).read_bytes()]
    if different:
        raise Failed(f"these checkpoints in {folder} differ from x86-64's: {', '.join(different)}")
    return backend


def try_check(column, builder, here):
    """The cells of the table that a check fills."""
    started, cells = time.time(), {}
    try:
        if column == "checkpoints":
            cells["backend"] = exchange(builder, here)
            said = f"all of x86-64's bytes, by the {cells['backend']} backend"
        else:
            program, arguments = builder.link(column), builder.machine.check(column).arguments
            passed = builder.folder / f"{column}.passed"  # with these arguments
            if not is_newer(passed, [program]) or passed.read_text(encoding="utf-8").splitlines()[0] != shlex.join(arguments):
                with tempfile.TemporaryDirectory(dir=builder.folder) as folder:
                    said = builder.emulate(program, "--no-colors=true", *arguments, cwd=folder)
                said = re.findall(r"^\[doctest\] test cases:.*", said, re.MULTILINE)[0]
                passed.write_text(f"{shlex.join(arguments)}\n{said}\n", encoding="utf-8")
            said = passed.read_text(encoding="utf-8").splitlines()[1]
        but = [name.removesuffix(".safetensors") for name in builder.machine.differs] if column == "checkpoints" else []
        cells[column] = "pass" + (f", but for {' and '.join(but)}" if but else "")
    except Failed as e:
        said, cells = str(e), {column: FAILS}
    print(f"{builder.machine.name}: {column}: {cells[column]} ({time.time() - started:.0f} s): {said}", flush=True)
    return cells


def try_machine(machine, here, columns, work, jobs):
    """The cells of the machine's row."""
    columns = [c for c in columns if c not in machine.limits]
    builder = Builder(machine, work)

    def compile_first(task):
        try:
            task[0].compile(*task[1:])
        except Failed:
            pass  # each program that needs it says so when it is linked

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        tasks = [(b, *s) for b, names in ((builder, columns), (here, ["checkpoints"])) for s in b.sources(names).items()]
        list(pool.map(compile_first, tasks))
        cells = {"backend": "", **machine.limits}
        for filled in pool.map(lambda column: try_check(column, builder, here), columns):
            cells.update(filled)
    return cells


def version_of(machine):
    """Compiler and emulator, with their versions."""
    def version(program):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace").stdout.splitlines()
        line = re.sub(r"\([^()]*\)|^\S+ version", "", said[0].replace(program, "", 1)) if said else ""
        found = re.search(r"\d+(\.\d+)*", line)
        return os.path.basename(program) + (f" {found[0]}" if found else "")
    return ", ".join(version(p) for p in machine.programs())


def row_of(machine, cells):
    family = "fused" if machine.fused else "unfused"
    cells = {**cells, "bits": f"{cells['bits']}, {family}"}
    return f"| {machine.title} | {version_of(machine)} | {' | '.join(cells[c] for c in COLUMNS)} | {cells['backend']} |"


def write_table(page, rows):
    """Replaces the rows of these machines, in the order of MACHINES."""
    text = page.read_text(encoding="utf-8")
    before, old, after = re.fullmatch(r"(.*<!-- machines -->\n)(.*)(<!-- end of machines -->.*)", text, re.DOTALL).groups()
    kept = {line.split("|")[1].strip(): line for line in old.splitlines() if line.startswith("| ")}
    kept.update((m.title, row) for m, row in rows.items())
    head = [f"| machine | compiler, emulator | {' | '.join(COLUMNS)} | backend |", "|---" * (len(COLUMNS) + 3) + "|"]
    lines = head + [kept[m.title] for m in MACHINES if m.title in kept]
    page.write_text(before + "\n".join(lines) + "\n" + after, encoding="utf-8")


def main():
    names = [m.name for m in MACHINES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="build/machines", type=pathlib.Path)
    parser.add_argument("--jobs", default=os.cpu_count(), type=int)
    parser.add_argument("--page", type=pathlib.Path)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--list", action="store_true", help="print each name with its programs and their Debian packages")
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(names))
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names))
    if unknown:
        parser.error(f"no machine is called {' or '.join(unknown)}; expected {' '.join(names)}")
    if arguments.list:
        for m in MACHINES:
            print(m.name, *(f"{program}={package}" for program, package in zip(m.programs(), m.debian)))
        return 0
    cpu = pathlib.Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpu.exists() or not {"fma", "avx2"} <= set(cpu.read_text(encoding="utf-8").split()):
        print("machines: needs x86-64 Linux with AVX2 and FMA to compare with")
        return 77
    work = arguments.work.resolve()
    columns = ["checkpoints"] if arguments.short else list(COLUMNS)
    here = {fused: Builder(machine, work) for fused, machine in HERE.items()}
    rows, failed = {}, False
    by_name = {m.name: m for m in MACHINES}
    for machine in [by_name[name] for name in arguments.names or names]:
        if missing := machine.missing():
            print(f"machines: needs {' and '.join(missing)} for {machine.name} (Debian: {' '.join(machine.debian)})")
            continue
        cells = try_machine(machine, here[machine.fused], columns, work, arguments.jobs)
        failed = failed or FAILS in cells.values()
        if not arguments.short:
            rows[machine] = row_of(machine, cells)
            print(rows[machine], flush=True)
            if arguments.page:
                write_table(arguments.page, rows)
        else:
            rows[machine] = ""
    return 1 if failed else 0 if rows else 77


if __name__ == "__main__":
    sys.exit(main())
