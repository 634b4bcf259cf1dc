"""The compilers of the matrix: where they are, and how those that are not installed are brought into a folder.

Debian's own are installed as packages (./dev does it). A newer Debian is unpacked into a folder, and its compilers run
there by chroot. libc++ is unpacked for each version, because the packages exclude each other. The package ziglang on PyPI
brings clang with its own libc++."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
NEWER = "trixie"
MIRROR = "http://deb.debian.org/debian"
INSTALLED = ["g++-11", "g++-12", "clang-13", "clang-14", "clang-15", "clang-16", "clang-19", "clang-22"]
IN_NEWER = ["g++-13", "g++-14", "clang-17", "clang-18"]
OF_ZIG = {"20": "0.15.2", "21": "0.16.0"}  # clang's version, ziglang's
SOURCES_OF_LIBCXX = "0.17.1"  # the ziglang that has the sources of libc++ 22, for the memory sanitizer


def quiet(*command, **options):
    return subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)


@functools.cache
def may_mount():
    """Whether a command may have mounts of its own."""
    return quiet("unshare", "--mount", "mount", "--bind", "/proc", "/proc").returncode == 0


class Compiler:
    """One compiler. `missing` says why it is not here, or is empty."""

    def __init__(self, name, work):
        self.name, self.missing = name, ""
        self.kind, self.version = name.split("-")
        self.gnu = self.kind == "g++"
        self.root = None  # of a system that is entered by chroot
        self.libcxx = None  # folder of its libc++
        self.command = [name if self.gnu else "clang++-" + self.version]
        self.zig = self.version in OF_ZIG and not self.gnu
        if name in IN_NEWER:
            self.root = work / NEWER
            if os.geteuid() != 0:
                self.missing = f"runs in Debian {NEWER} by chroot, which only root may"
            elif not (self.root / "usr/bin" / self.command[0]).exists():
                self.missing = f"Debian {NEWER} is not in {self.root}: mmdebstrap brings it"
        elif self.zig:
            program = work / ("zig-" + OF_ZIG[self.version]) / "ziglang/zig"
            # Its own sanitizer is on at -O0 unless it is told otherwise.
            self.command = [str(program), "c++", "-target", "x86_64-linux-gnu.2.36", "-fno-sanitize=undefined"]
            if not program.exists():
                self.missing = f"PyPI's ziglang {OF_ZIG[self.version]} is not installed in {program.parents[1]}"
        elif not shutil.which(self.command[0]):
            self.missing = f"Debian's {name} is not installed"
        if not self.gnu and not self.zig:
            folder = (self.root or work) / "libc++" / self.version / "usr/lib" / f"llvm-{self.version}"
            if (folder / "include/c++/v1").is_dir():
                self.libcxx = folder

    def full_version(self):
        """As the compiler says it."""
        text = self.run(["--version"], None).stdout
        return re.search(r"\d+\.\d+\.\d+", text).group()

    def standard_library(self, which):
        """Flags for libstdc++ or libc++."""
        if which == "libstdc++":
            if self.version == "17":
                return ["--gcc-install-dir=/usr/lib/gcc/x86_64-linux-gnu/13"]  # it cannot read libstdc++ 14's tuple as C++23
            # Zig knows no other library than its own.
            return ["-nostdinc++", "-nostdlib++", "-isystem", "/usr/include/c++/12", "-isystem", "/usr/include/x86_64-linux-gnu/c++/12",
                    "/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.so",
                    "/usr/lib/gcc/x86_64-linux-gnu/12/libgcc.a", "/lib/x86_64-linux-gnu/libgcc_s.so.1", "-Wno-unused-command-line-argument"] if self.zig else []
        if self.zig:
            return ["/usr/lib/gcc/x86_64-linux-gnu/12/libgcc.a"]  # what asks for the processor's name; Zig has its own libc++
        lib = "/libc++/" + str(self.libcxx).split("/libc++/")[1] if self.root else self.libcxx
        return ["-stdlib=libc++", "-nostdinc++", "-isystem", f"{lib}/include/c++/v1", f"-L{lib}/lib", f"-Wl,-rpath,{lib}/lib",
                "-Wno-unused-command-line-argument"]

    def run(self, flags, folder, timeout=900):
        """Compiles in a folder of ours, which is seen as the same path by a compiler in another root."""
        return self.enter(self.command + [str(flag) for flag in flags], folder, timeout)

    def enter(self, command, folder, timeout=900):
        if self.root:
            # A sanitizer finds the stack's end in /proc, which is there as long as the command runs. Containers may forbid that.
            into = ["unshare", "--mount", "sh", "-c", 'mount --bind /proc "$0/proc" && exec chroot "$0" "$@"'] if may_mount() else ["chroot"]
            command = [*into, str(self.root), "sh", "-c", 'cd "$0" && exec "$@"', "/gradus" if folder else "/", *command]
        return subprocess.run(command, cwd=None if self.root else folder, text=True, capture_output=True, timeout=timeout)


def all_compilers(work):
    order = {name: int(name.split("-")[1]) for name in INSTALLED + IN_NEWER + ["clang-" + v for v in OF_ZIG]}
    return [Compiler(name, work) for name in sorted(order, key=lambda name: (name[0] == "c", order[name]))]


def unpack_libcxx(version, to, root=None):
    """libc++ of one version from Debian's packages, without installing it."""
    enter = ["chroot", str(root)] if root else []
    to.mkdir(parents=True, exist_ok=True)
    inside = "/" + str(to.relative_to(root)) if root else str(to)
    # Of the same package, some Debians have only the name that ends in t64.
    for package in [f"libc++-{version}-dev", f"libc++abi-{version}-dev", f"libunwind-{version}-dev",
                    *(name + version + end for name in ("libc++1-", "libc++abi1-", "libunwind-") for end in ("", "t64"))]:
        subprocess.run([*enter, "sh", "-c", f'cd "{inside}" && apt-get download -qq {package} && dpkg -x {package}_*.deb . ; rm -f *.deb'],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def bring(work):
    """Brings what is not here yet, and says what cannot be had."""
    work.mkdir(parents=True, exist_ok=True)
    newer = work / NEWER
    if os.geteuid() == 0 and not (newer / "usr/bin/clang++-18").exists():
        if shutil.which("mmdebstrap"):
            print(f"matrix: unpacking Debian {NEWER} into {newer}", flush=True)
            packages = ",".join(IN_NEWER + ["g++-14-multilib", "libxsimd-dev", "libclang-rt-18-dev"])
            done = quiet("mmdebstrap", "--variant=apt", f"--include={packages}", NEWER, newer, MIRROR)
            if done.returncode:
                print(f"matrix: Debian {NEWER} could not be had: {done.stderr.strip().splitlines()[-1:]}")
                shutil.rmtree(newer, ignore_errors=True)
    for version, package in [*OF_ZIG.items(), ("22", SOURCES_OF_LIBCXX)]:
        folder = work / f"zig-{package}"
        if not folder.exists():
            print(f"matrix: installing ziglang {package}, which has clang {version}", flush=True)
            done = quiet(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, f"ziglang=={package}")
            if done.returncode:
                print(f"matrix: ziglang {package} could not be had")
                shutil.rmtree(folder, ignore_errors=True)
    for compiler in all_compilers(work):
        if compiler.gnu or compiler.zig or compiler.missing or compiler.libcxx or not shutil.which("apt-get"):
            continue
        base = compiler.root or work
        if compiler.root:
            quiet("chroot", compiler.root, "apt-get", "update")
        print(f"matrix: unpacking libc++ {compiler.version}", flush=True)
        unpack_libcxx(compiler.version, base / "libc++" / compiler.version, compiler.root)
