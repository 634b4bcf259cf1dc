"""The source distribution: it has all of gradus that the module is compiled from, and compiles from that alone."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tarfile

import gradus
import pytest
from support import ROOT

SOURCES = ("CMakeLists.txt", "LICENSE", "cmake", "compiled", "include", "backends", "bindings/c")


def test_source_distribution(tmp_path: pathlib.Path) -> None:
    build = pytest.importorskip("scikit_build_core.build")
    command = f"import {build.__name__} as build; print(build.build_sdist({str(tmp_path)!r}))"
    made = subprocess.run([sys.executable, "-c", command], cwd=ROOT / "bindings" / "python", check=True, capture_output=True, text=True).stdout
    name = f"gradus-{gradus.__version__}"
    assert made.split()[-1] == f"{name}.tar.gz"
    with tarfile.open(tmp_path / f"{name}.tar.gz") as archive:
        assert all(member.isfile() for member in archive.getmembers())
        archive.extractall(tmp_path)
    unpacked = tmp_path / name
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", *SOURCES], capture_output=True, text=True).stdout.split()
    if tracked:  # where this is a checkout
        assert {str(path.relative_to(unpacked / "cpp")) for path in (unpacked / "cpp").rglob("*") if path.is_file()} == set(tracked)
    metadata = (unpacked / "PKG-INFO").read_text()
    assert f"Version: {gradus.__version__}\n" in metadata and "License-Expression: MIT\n" in metadata
    assert {"module.cpp", "arrays.hpp", "CMakeLists.txt", "pyproject.toml", "README.md"} <= {path.name for path in unpacked.iterdir()}

    # Everything that the module includes of gradus is in it.
    nanobind = subprocess.run([sys.executable, "-m", "nanobind", "--cmake_dir"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["cmake", "-S", unpacked, "-B", tmp_path / "build", f"-Dnanobind_DIR={nanobind}", f"-DPython_EXECUTABLE={sys.executable}",
                    "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"], check=True, capture_output=True)
    commands = json.loads((tmp_path / "build" / "compile_commands.json").read_text())
    (compile_module,) = [c["command"] for c in commands if c["file"].endswith("/module.cpp")]
    before, _, _ = compile_module.partition(" -o ")
    listed = subprocess.run(f"{before} -M {unpacked}/module.cpp", shell=True, check=True, capture_output=True, text=True).stdout
    used = [word for word in listed.replace("\\\n", " ").split() if "/gradus/" in word or word.endswith("gradus.h")]
    assert len(used) > 30 and all(word.startswith(str(tmp_path)) for word in used)
