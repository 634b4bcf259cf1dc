"""Compiles the code of the pages, of the site's pages of the optimizers and of the headers' comments as a reader would, and runs
what can be run.

    docs.py host SOURCE WORK COMPILER [FLAG...]      all pages but docs/gpu.md and what includes Thrust, and the headers
    docs.py thrust SOURCE WORK COMPILER [FLAG...]    docs/gpu.md and docs/guide.md's Thrust on the system that the flags choose
    docs.py cuda SOURCE WORK NVCC [FLAG...]          these for CUDA, and the rule of one's own; compiled only

A block in a page is
 - a quote of the header with the page's name if its first line is indented: that header must have it, white space aside;
 - a program if it has a main;
 - a fragment otherwise: declarations, or statements, which go into a function. What it needs and does not declare is in
   tests/docs/given*.hpp.

A block of CMake is configured in a project with a program my_program, where gradus is a subfolder, installed, and an archive.

An HTML comment on the line before a block, which readers do not see, may say <!-- continues --> (the block before it on the
page), <!-- compiled only -->, or <!-- from FILE -->: that file of the repository, which is tested otherwise, must have it. In a
header, an example is what is indented by five spaces behind the `///` of the file's comment, at the top.
"""

import ast
import os
import pathlib
import re
import subprocess
import sys

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]
FRAGMENT = ["-Wno-shadow", "-Wno-unused", "-Wno-unused-parameter"]  # it hides what is given, and shows more than it uses
INCLUDE = ["tools/conformance", "include", "backends/simd/include", "backends/dispatch/include", "backends/thrust/include", "backends/mpi/include", "tests/docs"]
CUDA = ["-std=c++20", "--expt-relaxed-constexpr", "-diag-suppress", "186,177", "-Werror", "all-warnings", "-Xcompiler", "-fsyntax-only"]


def mpi_flags():
    """The flags of an MPI that is installed; None without."""
    for wrapper in ("mpicxx", "mpicxx.openmpi", "mpicxx.mpich"):
        try:
            shown = subprocess.run([wrapper, "-show"], capture_output=True, text=True, check=True).stdout.split()[1:]
        except (OSError, subprocess.CalledProcessError):
            continue
        return [re.sub("^-I", "-isystem", flag) for flag in shown]
    return None


class Block:
    def __init__(self, path, line, text, language="cpp", mark=""):
        self.path, self.line, self.text, self.language, self.mark = path, line, text, language, mark
        self.is_header = path.suffix == ".hpp"
        self.is_quote = language == "cpp" and not self.is_header and text[:1].isspace()
        self.is_program = bool(re.search(r"^int main\(", text, re.M))
        self.is_declarations = bool(re.search(r"^(template|struct|class|namespace) ", text, re.M))
        self.runs = mark != "compiled only" and not re.search(r"backend::dispatch|cuda", text)

    def includes(self):
        return re.findall(r"^#include <[^>]+>", self.text, re.M)

    def body(self):
        return re.sub(r"^#include .*", "", self.text, flags=re.M)

    def located(self, text):
        return f'#line {self.line} "{self.path}"\n{text}\n'


def blocks_of_page(path, text=None):
    blocks, lines, k = [], (text or path.read_text(encoding="utf-8")).split("\n"), 0
    while k < len(lines):
        start = re.fullmatch(r"```(\w+)", lines[k])
        if not start:
            k += 1
            continue
        end = next((j for j in range(k + 1, len(lines)) if lines[j] == "```"), None)
        if end is None:
            sys.exit(f"{path}:{k + 1}: a block that does not end")
        mark = re.fullmatch(r"<!-- (.*) -->", lines[k - 1]) if k else None
        mark = mark[1] if mark else ""
        text = "\n".join(lines[k + 1:end])
        if mark == "continues":
            before = blocks[-1]  # with as many lines between as the page has, for the compiler's messages
            gap = "\n" * (k + 2 - before.line - before.text.count("\n"))
            blocks[-1] = Block(path, before.line, before.text + gap + text, start[1], before.mark)
        elif mark in ("", "compiled only") or mark.startswith("from "):
            blocks.append(Block(path, k + 2, text, start[1], mark))
        else:
            sys.exit(f"{path}:{k}: '{mark}'; expected 'continues', 'compiled only' or 'from FILE'")
        k = end + 1
    return blocks


def blocks_of_header(path):
    """The examples in the comment of the file."""
    blocks, example, start = [], [], 0
    for k, line in enumerate(path.read_text(encoding="utf-8").split("\n") + [""], 1):
        if line.startswith("///     "):
            start = start or k
            example.append(line[8:])
        elif line == "///" and example:
            example.append("")
        else:
            if example:
                blocks.append(Block(path, start, "\n".join(example).rstrip()))
            example, start = [], 0
            if not line.startswith("///") and not line.startswith("#pragma once"):
                break
    return blocks


def blocks_of_optimizers(source):
    """Those of the site's pages of the optimizers, but what is included from the headers."""
    sys.path.insert(0, str(source / "tools/site"))
    import optimizers  # noqa: PLC0415

    pages = {source / f"docs/optimizers/{name}.md": text.split("\n## Its code\n")[0] for name, (_, text) in optimizers.pages().items()}
    return [block for path, text in pages.items() for block in blocks_of_page(path, text)]


def squeeze(text):
    return re.sub(r"\s+", "", text)


class Checker:
    def __init__(self, mode, source, work, compiler, flags):
        self.mode, self.source, self.work, self.compiler, self.flags = mode, source, work, compiler, flags
        self.faults, self.units, self.seen = 0, 0, 0
        work.mkdir(parents=True, exist_ok=True)
        if mode == "cuda" and "--Ofast-compile" in subprocess.run([compiler, "--help"], capture_output=True, text=True).stdout:
            self.flags = [*flags, "-Ofc", "max"]

    def fault(self, where, text):
        self.faults += 1
        print(f"{where}\n{text}\n", flush=True)

    def build(self, where, name, text, flags=(), run=True):
        self.units += 1
        source = self.work / f"{name}.{'cu' if self.mode == 'cuda' else 'cpp'}"
        source.write_text(text, encoding="utf-8")
        strict = CUDA if self.mode == "cuda" else ["-std=c++20", "-O0", *STRICT]
        command = [self.compiler, *strict, *flags, *(f"-I{self.source / folder}" for folder in INCLUDE)]
        program = self.work / name
        command += [str(source), "-o", str(program)] if run else ["-c", str(source), "-o", f"{program}.o"]
        command += self.flags  # a library stands behind what uses it
        if "comm/mpi.hpp" in text:
            if mpi_flags() is None:
                return print(f"{where}: left out, because no MPI is installed")
            command += mpi_flags()
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            return self.fault(where, f"does not compile: {' '.join(command)}\n{(result.stderr + result.stdout)[:6000]}")
        if run:
            try:
                # A program that is not started by mpirun is one rank.
                result = subprocess.run([str(program)], cwd=self.work, capture_output=True, text=True, timeout=120)
            except subprocess.TimeoutExpired:
                return self.fault(where, "does not end")
            if result.returncode:
                self.fault(where, f"ends with {result.returncode}\n{result.stdout}{result.stderr}")

    def quote(self, block):
        headers = list((self.source / "include/gradus").rglob(f"{block.path.stem}.hpp"))
        if len(headers) != 1:
            return self.fault(f"{block.path}:{block.line}", f"quotes {block.path.stem}.hpp; there are {len(headers)} of it")
        header = headers[0]
        if squeeze(block.text) not in squeeze(header.read_text(encoding="utf-8")):
            self.fault(f"{block.path}:{block.line}", f"{header.name} does not have what is quoted here:\n{block.text}")

    def excerpt(self, block):
        file = self.source / block.mark.removeprefix("from ")
        if not file.is_file() or squeeze(block.text) not in squeeze(file.read_text(encoding="utf-8")):
            self.fault(f"{block.path}:{block.line}", f"{file} does not have what is shown here:\n{block.text}")

    def fragments(self, blocks):
        """Those that include the same are one translation unit, a function each; for nvcc, which takes long over the headers, all."""
        units = {}
        for block in blocks:
            includes = block.includes()
            header = f"#include <gradus/{str(block.path).split('include/gradus/')[-1]}>"
            if block.is_header and header not in includes:
                includes.insert(0, header)
            own = any("gradus/" in line for line in block.includes())
            has_opt = re.search(r"(optimizer|>) opt\b", block.text)
            if self.mode != "host":
                includes += ['#include "given_thrust.hpp"']
            elif not own or (re.search(r"\bopt\b", block.text) and not has_opt):
                includes += ['#include "given.hpp"', '#include "given_opt.hpp"']
            else:
                includes += ['#include "given.hpp"']
            units.setdefault((tuple(includes), block.runs and self.mode != "cuda"), []).append(block)
        if self.mode == "cuda":
            together = dict.fromkeys(line for includes, _ in units for line in includes)
            units = {((*together, '#include "rule.hpp"'), False): blocks}
        for number, ((includes, run), members) in enumerate(units.items()):
            text = "\n".join(includes) + "\n"
            for k, block in enumerate(members):
                body = block.located(block.body())
                if re.search(r"^template <>", block.text, re.M):
                    text += body  # of a template that stands in namespace gradus
                elif block.is_declarations:
                    text += f"namespace page_{k} {{\n{body}}}\n"
                else:
                    text += f"static void fragment_{k}()\n{{\n{body}}}\n"
            calls = "".join(f"  fragment_{k}();\n" for k, block in enumerate(members) if not block.is_declarations)
            where = "fragments " + ", ".join(f"{b.path}:{b.line}" for b in members)
            self.build(where, f"fragments_{number}", f"{text}int main()\n{{\n{calls}}}\n", [] if self.mode == "cuda" else FRAGMENT, run)

    def c_fragment(self, block):
        """A program in C, or statements with arrays that are given; compiled only, because libgradus takes minutes."""
        text = "\n".join(block.includes()) + "\n#include <stdio.h>\n#include <gradus.h>\nextern float w[], dw[];\nextern size_t n;\nvoid fragment(void);\nvoid fragment(void)\n{\n"
        source = self.work / "fragment.c"
        source.write_text(block.located(block.text) if block.is_program else f"{text}{block.located(block.body())}}}\n", encoding="utf-8")
        command = [os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-unused", "-fsyntax-only",
                   f"-I{self.source / 'bindings/c/include'}", f"-I{self.source / 'tools/conformance'}", str(source)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            self.fault(f"{block.path}:{block.line}", f"does not compile as C:\n{result.stderr[:6000]}")

    def configure(self, where, *command):
        result = subprocess.run(["cmake", *map(str, command)], capture_output=True, text=True)
        if result.returncode:
            self.fault(where, f"CMake does not configure it:\n{(result.stderr + result.stdout)[:6000]}")

    def cmake(self, blocks):
        sys.path.insert(0, str(self.source / "packaging"))
        import package  # noqa: PLC0415

        compiler = f"-DCMAKE_CXX_COMPILER={self.compiler}"
        self.configure("an installation", "-S", self.source, "-B", self.work / "cmake/gradus", compiler)
        self.configure("an installation", "--install", self.work / "cmake/gradus", "--prefix", self.work / "cmake/prefix")
        archive, digest = package.make_archive(self.work / "cmake")
        for block in blocks:
            where, project = f"{block.path}:{block.line}", self.work / f"cmake/{block.path.stem}_{block.line}"
            project.mkdir(exist_ok=True)
            (project / "main.cpp").touch()
            if not (project / "gradus").exists():
                (project / "gradus").symlink_to(self.source)
            text = block.text.replace("https://example.org/gradus-0.1.0.tar.gz", archive.as_uri()).replace("SHA256=…", f"SHA256={digest}")
            if not re.search(r"^(add_subdirectory|find_package|FetchContent_MakeAvailable)", text, re.M):
                text = f"add_subdirectory(gradus)\n{text}"
            (project / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.22)\nproject(page LANGUAGES CXX)\n"
                                                    f"add_executable(my_program main.cpp)\n{text}\n", encoding="utf-8")
            self.configure(where, "-S", project, "-B", project / "build", compiler, f"-DCMAKE_PREFIX_PATH={self.work}/cmake/prefix")

    def rule(self, path, text):
        """The rule of one's own, without the main that shows it; for nvcc a block beside the fragments."""
        text = re.split(r"^int main\(", text, flags=re.M)[0]
        parts = re.split(r"^struct (\w+)", text, flags=re.M)
        rules = [name for name, rest in zip(parts[1::2], parts[2::2]) if "value_slot =" in rest]
        if len(rules) != 1:
            return self.fault(path, f"the second moments found are {rules}; expected one")
        if self.mode == "cuda":
            return Block(path, 1, f"{text}\nint faults() {{ return faults_of<{rules[0]}>(); }}\n")
        body = f'#line 1 "{path}"\n{text}\n#include "rule.hpp"\nint main() {{ return faults_of<{rules[0]}>(); }}\n'
        self.build(f"the rule of {path}", f"rule_{path.stem}", body, FRAGMENT)

    def rules(self):
        page = self.source / "CONTRIBUTING.md"
        taught = [b for b in blocks_of_page(page) if b.language == "cpp" and "value_slot" in b.text]
        if len(taught) != 1:
            self.fault(page, f"{len(taught)} blocks have a second moment; expected one")
        example = self.source / "examples/custom_rule.cpp"
        found = [self.rule(page, block.text) for block in taught] + [self.rule(example, example.read_text(encoding="utf-8"))]
        return [block for block in found if block]

    def run(self):
        gpu = self.source / "docs/gpu.md"
        of_thrust = [b for b in blocks_of_page(self.source / "docs/guide.md") if "backend/thrust.hpp" in b.text]
        if self.mode == "host":
            pages = [self.source / "README.md", self.source / "CONTRIBUTING.md", *sorted((self.source / "docs").glob("**/*.md"))]
            blocks = [b for page in pages if page != gpu for b in blocks_of_page(page)]
            blocks = [b for b in blocks if all((b.path, b.line) != (x.path, x.line) for x in of_thrust)]
            blocks += blocks_of_optimizers(self.source)
            headers = [*(self.source / "include/gradus").glob("**/*.hpp"), *(self.source / "backends").glob("**/*.hpp")]
            blocks += [b for h in sorted(headers) if "thrust" not in h.name for b in blocks_of_header(h)]
        else:
            blocks = blocks_of_page(gpu) + of_thrust + blocks_of_header(self.source / "backends/thrust/include/gradus/backend/thrust.hpp")
            if self.mode == "thrust":
                blocks = [b for b in blocks if "cuda" not in b.text]
        self.seen = len(blocks)
        for block in blocks:
            if block.mark.startswith("from "):
                self.excerpt(block)
        blocks = [b for b in blocks if not b.mark.startswith("from ")]
        cpp = [b for b in blocks if b.language == "cpp"]
        for block in cpp:
            if block.is_quote:
                self.quote(block)
            elif block.is_program:
                self.build(f"{block.path}:{block.line}", f"program_{block.path.stem}_{block.line}", block.located(block.text), run=block.runs)
        rules = self.rules() if self.mode != "thrust" else []
        self.fragments([b for b in cpp if not b.is_quote and not b.is_program] + rules)
        if cmake := [b for b in blocks if b.language == "cmake"]:
            self.cmake(cmake)
        for block in blocks:
            where = f"{block.path}:{block.line}"
            if block.language == "python":
                try:
                    ast.parse(block.text)
                except SyntaxError as e:
                    self.fault(where, str(e))
            elif block.language == "c":
                self.c_fragment(block)
            elif block.language == "sh" and subprocess.run(["bash", "-n", "-c", block.text]).returncode:
                self.fault(where, "bash does not read it")
        print(f"{self.seen} blocks, {self.units} translation units, {self.faults} faults")
        return 1 if self.faults or not cpp else 0


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    mode, source, work, compiler, *flags = sys.argv[1:]
    sys.exit(Checker(mode, pathlib.Path(source), pathlib.Path(work), compiler, flags).run())
