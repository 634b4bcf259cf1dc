#!/usr/bin/env python3
"""Installs the Python package into an environment of its own, and runs its tests: run.py ROOT FOLDER LIBRARY [EXCHANGE]

LIBRARY is libgradus.a, which the package is linked with instead of compiling it again, and EXCHANGE is exchange.c's
program; without it nothing is tested. PyTorch comes from the Python that runs this, if that has it.
"""

import os
import pathlib
import shutil
import subprocess
import sys

TOOLS = ("nanobind==3.1.*; python_version >= '3.10'", "nanobind==2.*; python_version < '3.10'", "scikit-build-core", "numpy", "pytest", "mypy", "matplotlib", "expecttest",
         "jax; python_version >= '3.11'", "optax; python_version >= '3.11'",
         "keras; python_version >= '3.11'")


def environment(folder: pathlib.Path) -> pathlib.Path:
    """The Python of the environment, with the tools."""
    python = folder / "bin" / "python"
    done = folder / "done.txt"
    if not done.exists() or done.read_text() != "\n".join(TOOLS):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2", *TOOLS], check=True)
        done.write_text("\n".join(TOOLS))
    found = subprocess.run([sys.executable, "-c", "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])"],
                           capture_output=True, text=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "torch.pth").write_text(found.stdout if found.returncode == 0 else "")
    return python


def quickly() -> list[str]:
    """Options of pip, for further builds of the package: the module as the compiler is done with it soonest."""
    defines = ["CMAKE_CXX_FLAGS_DEBUG=-O0", *(["CMAKE_CXX_COMPILER=clang++"] if shutil.which("clang++") else [])]
    return ["--config-settings=cmake.build-type=Debug", "--config-settings=install.strip=false", *(f"--config-settings=cmake.define.{x}" for x in defines)]


def main() -> int:
    root, folder, library, *exchange = (pathlib.Path(x).absolute() for x in sys.argv[1:5])
    try:
        python = environment(folder)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"{error}: the Python package is not tested here, because its tools could not be installed")
        return 77  # skipped
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps",
                    "--force-reinstall", f"--config-settings=cmake.define.GRADUS_LIBRARY={library}",
                    f"--config-settings=build-dir={folder}/package", root / "bindings" / "python"], check=True)
    if not exchange:
        return 0
    return subprocess.run([python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *sys.argv[5:], root / "tests" / "bindings" / "python"],
                          env={**os.environ, "GRADUS_EXCHANGE": str(exchange[0])}, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
