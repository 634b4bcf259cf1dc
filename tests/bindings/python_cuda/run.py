#!/usr/bin/env python3
"""The Python package with CUDA, over host memory: run.py ROOT WORK STATIC SHARED ENVIRONMENT

STATIC and SHARED are libgradus_cuda compiled over Thrust's system for one CPU, for which memory of a device is memory of the
host. The package is linked with STATIC, and its steps are compared with those of SHARED. ENVIRONMENT is the folder of the
package's other tests (tests/bindings/python/run.py).
"""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
from run import environment, quickly  # noqa: E402


def main() -> int:
    root, work, static, shared, folder = (pathlib.Path(x).absolute() for x in sys.argv[1:6])
    try:
        python = environment(folder)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"{error}: the Python package is not tested here, because its tools could not be installed")
        return 77  # skipped
    package = work / "package"
    define = "--config-settings=cmake.define."
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--upgrade",
                    f"--target={package}", f"{define}GRADUS_CUDA=ON", f"{define}GRADUS_THRUST_SYSTEM=CPP", f"{define}GRADUS_LIBRARY={static}",
                    *quickly(), f"--config-settings=build-dir={work}/module",
                    root / "bindings" / "python"], check=True)
    paths = os.pathsep.join(str(x) for x in (package, HERE.parent / "python"))
    return subprocess.run([python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE],
                          env={**os.environ, "PYTHONPATH": paths, "GRADUS_SHARED": str(shared)}, cwd=work).returncode


if __name__ == "__main__":
    sys.exit(main())
