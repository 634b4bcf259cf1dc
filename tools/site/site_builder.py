#!/usr/bin/env python3
"""Builds gradus's site: site_builder.py build|serve|environment SOURCE ENVIRONMENT

MkDocs with the theme Material, in a virtual environment that this makes. A warning of MkDocs is an error, and links.py checks
every link, anchor and loaded file. The site is in SOURCE/build/site. `serve` shows it at http://127.0.0.1:8000 and builds a
page anew when it changes.
"""

import fcntl
import os
import pathlib
import subprocess
import sys
import time

import links

PACKAGES = ["mkdocs==1.*", "mkdocs-material==9.*", "pymdown-extensions<14", "Markdown==3.*", "Pygments==2.*"]


def make_environment(folder):
    """Does nothing if it is there. Fails with CalledProcessError where PyPI is out of reach."""
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who comes second waits, and finds it done
        if python.exists() and subprocess.run([python, "-c", "import material, mkdocs"], capture_output=True).returncode == 0:
            return
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2", *PACKAGES], check=True)
        print(f"site: MkDocs is in {folder} after {time.monotonic() - started:.0f} s")


def mkdocs(source, environment, *arguments):
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([environment / "bin" / "python", "-m", "mkdocs", *arguments], cwd=source, env=settings).returncode


def build(source, environment):
    """The number of faults, and what was checked in a sentence."""
    if mkdocs(source, environment, "build", "--strict", "--quiet"):
        return 1, "MkDocs did not build the site"
    pages, inside, outside, faults = links.check(source / "build" / "site")
    for fault in faults[:50]:
        print(f"site: {fault}")
    return len(faults) + (not pages), f"{pages} pages, {inside} links checked, {outside} links to other sites, {len(faults)} faults"


def main():
    command, source, environment = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3]).absolute()
    make_environment(environment)
    if command == "environment":
        return 0
    if command == "serve":
        return mkdocs(source, environment, "serve", "--strict")
    faults, sentence = build(source, environment)
    print(f"site: {sentence}")
    if not faults:
        print(f"site: {(source / 'build' / 'site' / 'index.html').as_uri()}")
    return int(faults > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"site: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
