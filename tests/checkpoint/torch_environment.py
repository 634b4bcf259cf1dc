#!/usr/bin/env python3
"""Makes a virtual environment with PyTorch and safetensors, for torch_exchange.py: torch_environment.py FOLDER

PyTorch's wheel for Linux wants CUDA's libraries beside it, of which it takes 4 GB, and none of them does anything here. So it is
installed without them, and what the loader misses are empty libraries made by the C compiler: every function in them
returns 0, and none is called where there is no GPU. Where this does not do, all is installed as PyTorch wants it.
"""

import fcntl
import os
import pathlib
import re
import subprocess
import sys
import time

TORCH, PACKAGES = "torch==2.15.0", ("safetensors==0.8.0", "numpy", "typing-extensions", "sympy", "mpmath", "filelock", "jinja2", "markupsafe",
                                    "networkx", "fsspec", "nvidia-cuda-runtime==13.2.*")


def install(python, *packages):
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--retries", "2", *packages], check=True)


def works(python):
    """Says so by taking a step; the first time, Python compiles what it imports for that, and keeps it: half of each later import."""
    keeping = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    step = "import torch, safetensors.torch; torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]).step()"
    return python.exists() and subprocess.run([python, "-c", step], capture_output=True, env=keeping).returncode == 0


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout


def make_missing_libraries(folder):
    """Empty libraries for those that the ones in this folder need, and that are not to be found."""
    libraries = sorted(folder.glob("*.so"))
    needed = output("ldd", folder / "libtorch_python.so").splitlines()
    missing = {line.split()[0]: set() for line in needed if line.endswith("=> not found")}  # its functions, with their versions
    defined, wanted = set(), set()
    for library in libraries:
        file_of = {}  # version -> library
        for line in output("readelf", "-V", "-W", library).splitlines():
            if match := re.search(r"File: (\S+)", line):
                file = match[1]
            elif match := re.search(r"Name: (\S+)", line):
                file_of[match[1]] = file
        for line in output("readelf", "--dyn-syms", "-W", library).splitlines():
            fields = line.split()
            if len(fields) < 8 or fields[4] not in ("GLOBAL", "WEAK"):
                continue
            name, _, version = fields[7].partition("@")
            if fields[6] != "UND":
                defined.add(name)
            elif not version:
                wanted.add(name)
            elif file_of.get(version) in missing:
                missing[file_of[version]].add((name, version))
    unversioned = {name for name in wanted - defined if re.match(r"cu|nv|nccl", name)}
    for library, functions in missing.items():
        source = "\n".join(f"long {name}(void) {{ return 0; }}" for name in sorted({n for n, _ in functions} | unversioned))
        versions = "\n".join(f"{v} {{ global: {' '.join(f'{n};' for n, w in sorted(functions) if w == v)} }};"
                             for v in sorted({v for _, v in functions}))
        script = folder / "versions.map"
        script.write_text(versions)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-fno-builtin", "-x", "c", "-", "-o", folder / library,
                        f"-Wl,-soname,{library}", *([f"-Wl,--version-script={script}"] if versions else [])],
                       input=source, text=True, check=True)
        script.unlink()


def main():
    folder = pathlib.Path(sys.argv[1]).absolute()
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who comes second waits, and finds it done
        if works(python):
            return
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install(python, "--no-deps", TORCH, *PACKAGES)
        try:
            make_missing_libraries(next(folder.glob("lib/python*/site-packages/torch/lib")))
        except (subprocess.CalledProcessError, StopIteration, OSError) as error:
            print(f"torch_environment: {error}; all of CUDA is installed", file=sys.stderr)
        if not works(python):
            install(python, TORCH, *PACKAGES)
        if not works(python):
            sys.exit("torch_environment: PyTorch is installed and cannot be imported")
        print(f"torch_environment: PyTorch is in {folder} after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"torch_environment: {error}")
