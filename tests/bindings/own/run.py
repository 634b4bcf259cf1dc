#!/usr/bin/env python3
"""libgradus and the Python package with recipes of one's own, by CMake's GRADUS_RECIPES: run.py ROOT WORK CXX CC [ENVIRONMENT]

The header has the recipe that CONTRIBUTING.md teaches, as the page has it, and believing.hpp's. ENVIRONMENT is the folder of
the Python package's tests (tests/bindings/python/run.py); without it, or where it cannot be made, only C is tested.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
from run import environment, quickly  # noqa: E402

RECIPES = "sgd;adamw;warm;mine::believing"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]


def run(*command, **how):
    return subprocess.run([str(x) for x in command], check=True, **how)


def refused(root, work, sentence, *definitions):
    """Configuring with these fails, and CMake says the sentence."""
    shutil.rmtree(work / "refused", ignore_errors=True)
    made = subprocess.run(["cmake", "-S", root, "-B", work / "refused", *definitions], capture_output=True, text=True)
    said = re.sub(r"\s+", " ", made.stderr)
    if made.returncode == 0 or sentence not in said:
        sys.exit(f"{definitions}: expected a refusal with: {sentence}\ngot: {said}")


def write_header(root, work):
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (taught,) = [block for block in re.findall(r"^```cpp\n(.*?)^```", page, re.S | re.M) if "\nstruct warm {" in block]
    header = work / "recipes of mine.hpp"  # a name with spaces
    text = "#pragma once\n" + re.split(r"^int main\(", taught, flags=re.M)[0] + f'#include "{HERE}/believing.hpp"\n'
    if not header.exists() or header.read_text(encoding="utf-8") != text:  # or all would be compiled again
        header.write_text(text, encoding="utf-8")
    return header


def main():
    root, work = (pathlib.Path(x).absolute() for x in sys.argv[1:3])
    cxx, cc = sys.argv[3:5]
    work.mkdir(parents=True, exist_ok=True)
    header = write_header(root, work)
    refused(root, work, "GRADUS_RECIPES has 'wa rm'; expected all, or the name of a struct", "-DGRADUS_RECIPES=all;wa rm")
    refused(root, work, "which is no file; expected the header with your recipes", "-DGRADUS_RECIPES=warm", "-DGRADUS_RECIPES_HEADER=/none.hpp")
    refused(root, work, "expected 'all' for a gradus::dispatch that is installed", "-DGRADUS_RECIPES=sgd", "-DGRADUS_DISPATCH=ON")

    build = work / "build"
    definitions = [f"-DGRADUS_RECIPES={RECIPES}", f"-DGRADUS_RECIPES_HEADER={header}"]
    run("cmake", "-S", root, "-B", build, "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0", f"-DCMAKE_CXX_COMPILER={cxx}", f"-DCMAKE_CXX_FLAGS=-I{root}/tests", *definitions)
    run("cmake", "--build", build, "--target", "gradus_c_shared", "gradus_c_static")
    library = build / "bindings/c/libgradus.a"
    for kind, link in (("shared", [build / "bindings/c/libgradus.so", f"-Wl,-rpath,{build}/bindings/c"]), ("static", [library, "-lstdc++", "-pthread"])):
        run(cc, *STRICT, f"-I{root}/bindings/c/include", HERE / "own.c", "-o", work / f"own_{kind}", *link, "-lm")
        run(work / f"own_{kind}", work)
    if os.uname().machine == "x86_64":  # no code for a wider instruction set can be taken for other code of the program
        run(root / "tests/backend/dispatch_leaks.sh", "nm", "objdump", library, work / "own_static")

    if len(sys.argv) < 6:
        return
    try:
        python = environment(pathlib.Path(sys.argv[5]).absolute())
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"{error}: the Python package is not tested here, because its tools could not be installed")
        return
    package = work / "package"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--upgrade", f"--target={package}",
        *(f"--config-settings=cmake.define.{d[2:]}" for d in definitions), f"--config-settings=cmake.define.GRADUS_LIBRARY={library}",
        f"--config-settings=cmake.define.CMAKE_CXX_FLAGS=-I{root}/tests", *quickly(), f"--config-settings=build-dir={work}/module", root / "bindings/python")
    run(python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "test_own.py", env={**os.environ, "PYTHONPATH": str(package)}, cwd=work)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}")
