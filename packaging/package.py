"""Makes gradus's packages, and takes each in as a user would: builds a consumer with it, and runs it.

    package.py [--work FOLDER] [--compiler CXX] [NAME...]

Without names it makes all. The packages are left in FOLDER (build/packages). The consumer (tests/consumers) checks the version
and the default backend. Ends with 77 if nothing could be tried, because something is not installed.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent
CONSUMERS = SOURCE / "tests/consumers"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]


class Skipped(Exception):
    """Something is not installed; says what."""


class Failed(Exception):
    """What was tried, and what it said."""


def run(*command, cwd=None, env=None, check=True):
    command = [str(word) for word in command]
    result = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, errors="replace")
    if check and result.returncode:
        raise Failed(f"{shlex.join(command)} ends with {result.returncode}:\n{result.stdout[-6000:]}")
    return result.stdout


def needs(program, package):
    found = shutil.which(program)
    if not found:
        raise Skipped(f"needs {program} (Debian: {package})")
    return found


def version():
    config = (SOURCE / "include/gradus/config.hpp").read_text(encoding="utf-8")
    return ".".join(re.search(rf"GRADUS_VERSION_{part} (\d+)", config)[1] for part in ("MAJOR", "MINOR", "PATCH"))


def has_xsimd(compiler):
    probe = "#if !__has_include(<xsimd/xsimd.hpp>)\n#error\n#endif\n"
    return subprocess.run([compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"], input=probe, text=True, capture_output=True).returncode == 0


def shown(language, words):
    """The block of docs/install.md in this language that has these words: what is tried is what is shown."""
    page = (SOURCE / "docs/install.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)
    found = [text for text in blocks if text.strip() == words] or [text for text in blocks if words in text]
    if len(found) != 1:
        raise Failed(f"docs/install.md has {len(found)} blocks of {language} with {words}; expected one")
    return found[0]


def files():
    """The files of the repository: those of git where there is git, so that no build folder gets in."""
    listed = subprocess.run(["git", "-C", SOURCE, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True)
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*") if path.is_file() and path.relative_to(SOURCE).parts[0] != "build"]
    return sorted(name for name in set(names) if (SOURCE / name).is_file())


def make_archive(work):
    """gradus-VERSION.tar.gz, the same for the same files; returns its path and its SHA-256."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", compresslevel=6) as tar:
        for name in files():
            info = tar.gettarinfo(SOURCE / name, f"gradus-{version()}/{name}")
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            with open(SOURCE / name, "rb") as content:
                tar.addfile(info, content)
    bytes_of = bytearray(data.getvalue())
    bytes_of[4:8] = bytes(4)  # gzip's own time
    path = work / f"gradus-{version()}.tar.gz"
    path.write_bytes(bytes_of)
    return path, hashlib.sha256(bytes_of).hexdigest()


class Packager:
    def __init__(self, work, compiler, debian):
        self.work, self.compiler, self.debian = work, compiler, debian
        self.backend = "simd" if has_xsimd(compiler) else "scalar"
        self.folder = None  # of the package that is being made

    def consumer(self, flags, name="consumer", source="main.cpp", backend=None, compiler=None):
        """Compiles a consumer with these flags, and runs it."""
        program = self.folder / name
        run(compiler or self.compiler, "-std=c++20", "-O1", *STRICT, *flags, CONSUMERS / source, "-o", program)
        return self.check(program, backend)

    def check(self, program, backend=None):
        return run(program, version(), backend or self.backend)

    def project(self, text, source="main.cpp"):
        """A project of CMake's whose program is the consumer."""
        project = self.folder / "project"
        project.mkdir(parents=True, exist_ok=True)
        shutil.copy(CONSUMERS / source, project / "main.cpp")
        (project / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.22)\nproject(consumer LANGUAGES CXX)\n"
                                                f"add_executable(my_program main.cpp)\n{text}\n", encoding="utf-8")
        return project

    def cmake(self, project, *options, build=None, cmake="cmake"):
        build = build or self.folder / "build"
        run(cmake, "-S", project, "-B", build, f"-DCMAKE_CXX_COMPILER={self.compiler}", "-DCMAKE_CXX_FLAGS=-O1", *options)
        run(cmake, "--build", build)
        return build / "my_program"

    def installed(self):
        """A folder that gradus's headers are installed in."""
        prefix = self.folder / "prefix"
        run("cmake", "-S", SOURCE, "--preset", "headers", "-B", self.folder / "gradus", f"-DCMAKE_CXX_COMPILER={self.compiler}")
        run("cmake", "--install", self.folder / "gradus", "--prefix", prefix)
        return prefix

    # The ways in. The first line of each text is what a user types.

    def single_header(self):
        """python3 tools/single_header.py build/gradus/gradus.hpp"""
        # The page's commands with the page's program. -march is left out, so that the program runs wherever its test does.
        (self.folder / "main.cpp").write_text(shown("cpp", "gradus/gradus.hpp"), encoding="utf-8")
        commands = shown("sh", "single_header").replace("tools/", shlex.quote(f"{SOURCE}/tools/"), 1)
        commands = commands.replace("g++", self.compiler).replace("-O3 -march=native", "-O0")
        run("sh", "-ec", commands, cwd=self.folder)
        said = run(self.folder / "a.out").strip()
        if said != f"gradus {version().rpartition('.')[0]} runs on the backend {self.backend}":
            raise Failed(f"the program of docs/install.md says: {said}")
        header = pathlib.Path(shutil.copy(self.folder / "build/gradus/gradus.hpp", self.work))
        compilers = [name for name in dict.fromkeys([self.compiler, "g++", "clang++"]) if shutil.which(name)]
        said, tried = set(), []
        for compiler in compilers:
            for backend in dict.fromkeys([self.backend, "scalar"] if compiler == self.compiler else [self.backend]):
                flags = [compiler, "-std=c++20", "-O0", *STRICT, f'-DCONSUMER_HEADER="{header}"', "-DCONSUMER_PARTS"]
                flags += ["-DGRADUS_NO_XSIMD"] if backend == "scalar" else []
                objects = []
                for unit in ("main", "parts"):
                    objects.append(self.folder / f"{unit}.o")
                    run(*flags, "-c", CONSUMERS / f"{unit}.cpp", "-o", objects[-1])
                run(compiler, *objects, "-pthread", "-o", self.folder / "consumer")
                said.add(run(self.folder / "consumer", version(), backend, self.folder / "run.safetensors").split("\n", 1)[1])
                tried.append(f"{compiler} {backend}")
        run(self.compiler, "-std=c++20", "-O0", *STRICT, "-I", SOURCE / "include", "-I", SOURCE / "backends/simd/include", "-DCONSUMER_PARTS_ALONE",
            CONSUMERS / "parts.cpp", "-pthread", "-o", self.folder / "folders")
        said.add(run(self.folder / "folders", self.folder / "run.safetensors"))
        if len(said) != 1:
            raise Failed(f"the single header and the folders give different bits:\n{''.join(said)}")
        return f"{header.stat().st_size // 1024} KiB; two units, with {', '.join(tried)}: the folders' bits"

    def pkg_config(self):
        """g++ -std=c++20 main.cpp $(pkg-config --cflags gradus)"""
        pkg_config = needs("pkg-config", "pkgconf")
        prefix = self.installed()
        # It may be moved.
        moved = self.folder / "moved"
        prefix.rename(moved)
        env = {"PKG_CONFIG_PATH": str(next(moved.rglob("gradus.pc")).parent)}
        found = run(pkg_config, "--modversion", "gradus", env=env).strip()
        if found != version():
            raise Failed(f"pkg-config says version {found}; expected {version()}")
        self.consumer(shlex.split(run(pkg_config, "--cflags", "gradus", env=env)))
        return f"version {found}, also after the folder was moved"

    def find_package(self):
        """find_package(gradus 0.1 REQUIRED COMPONENTS simd)"""
        prefix = self.installed()
        component = "simd" if self.backend == "simd" else ""
        major, minor, _ = version().split(".")
        plain = shown("cmake", f"find_package(gradus {major}.{minor} REQUIRED)")
        wanted = shown("cmake", "COMPONENTS simd") if component else plain
        self.check(self.cmake(self.project(wanted), f"-DCMAKE_PREFIX_PATH={prefix}"))
        for refused in (f"{major}.{int(minor) + 1}", f"{int(major) + 1}.0"):
            try:
                run("cmake", "-S", self.project(plain.replace(f"gradus {major}.{minor}", f"gradus {refused}")), "-B", self.folder / "refused",
                    f"-DCMAKE_CXX_COMPILER={self.compiler}", f"-DCMAKE_PREFIX_PATH={prefix}")
            except Failed as error:
                if f'compatible with requested version "{refused}"' not in " ".join(str(error).split()):
                    raise
            else:
                raise Failed(f"find_package(gradus {refused}) accepts version {version()}")
        return f"version {major}.{minor} found, later ones refused" + (f"; component {component}" if component else "")

    def fetch_content(self):
        """FetchContent_Declare(gradus URL …/gradus-0.1.0.tar.gz URL_HASH SHA256=…)"""
        archive, digest = make_archive(self.work)
        text = shown("cmake", "FetchContent_Declare").replace(f"https://example.org/{archive.name}", archive.as_uri())
        self.check(self.cmake(self.project(text.replace("SHA256=…", f"SHA256={digest}"))))
        wrong = run("cmake", "-S", self.project(text.replace("SHA256=…", f"SHA256={'0' * 64}")), "-B", self.folder / "refused",
                    f"-DCMAKE_CXX_COMPILER={self.compiler}", check=False)
        if "does not match expected" not in wrong and "HASH mismatch" not in wrong:
            raise Failed(f"an archive with another hash was not refused:\n{wrong[-3000:]}")
        return f"{archive.name}, {archive.stat().st_size // 1024} KiB; another hash refused"

    def deb(self):
        """cmake --preset deb && cpack -G DEB --config build/deb/CPackConfig.cmake"""
        needs("dpkg-deb", "dpkg")
        run("cmake", "-S", SOURCE, "--preset", "deb", "-B", self.folder / "gradus", f"-DCMAKE_CXX_COMPILER={self.compiler}")
        run("cpack", "-G", "DEB", "--config", self.folder / "gradus/CPackConfig.cmake", "-B", self.folder)
        made = list(self.folder.glob("*.deb"))
        if [path.name for path in made] != [f"libgradus-dev_{version()}_all.deb"]:
            raise Failed(f"cpack made {made}; expected libgradus-dev_{version()}_all.deb alone")
        package = pathlib.Path(shutil.copy(made[0], self.work))
        notes = [f"{package.name}, {package.stat().st_size // 1024} KiB"]
        root = self.folder / "root"
        run("dpkg-deb", "-x", package, root)
        # Against an unpacked package and nothing else of gradus: by path, by pkg-config, by CMake.
        self.consumer(["-I", root / "usr/include"])
        text = "find_package(gradus REQUIRED CONFIG)\ntarget_link_libraries(my_program PRIVATE gradus::gradus)"
        self.check(self.cmake(self.project(text), f"-DCMAKE_PREFIX_PATH={root}/usr"))
        notes.append("unpacked into an empty root")
        if shutil.which("lintian"):
            # The address of a maintainer and the changelog are for a distribution to give.
            run("lintian", "--fail-on", "error,warning", "--suppress-tags", "bogus-mail-host,no-changelog", "--allow-root", package)
            notes.append("lintian finds no fault")
        if self.debian:
            notes.append(self.in_debian(package))
        return "; ".join(notes)

    def in_debian(self, package):
        """Installs the package in a tree of Debian's with a compiler in it, compiles and runs there, and removes it again."""
        if not shutil.which("mmdebstrap") or os.geteuid() != 0:
            return "not installed in a bare Debian, which needs mmdebstrap and root"
        tree = self.work / "debian"
        if not (tree / "usr/bin/g++").exists():
            shutil.rmtree(tree, ignore_errors=True)
            run("mmdebstrap", "--variant=apt", "--include=g++,libxsimd-dev", "bookworm", tree)
        shutil.copy(package, tree / "tmp")
        shutil.copy(CONSUMERS / "main.cpp", tree / "tmp/main.cpp")
        run("chroot", tree, "apt-get", "install", "-y", "--no-install-recommends", f"/tmp/{package.name}")
        run("chroot", tree, "g++", "-std=c++20", "-O1", *STRICT, "/tmp/main.cpp", "-o", "/tmp/consumer")
        said = run("chroot", tree, "/tmp/consumer", version(), "simd").strip()
        run("chroot", tree, "apt-get", "purge", "-y", "libgradus-dev")
        if list((tree / "usr").rglob("*gradus*")):
            raise Failed("apt-get purge leaves files of gradus behind")
        return f"installed, used and purged in a bare Debian ({said.split(':')[0]})"

    def presets(self):
        """cmake --preset headers && cmake --install build/headers --prefix PREFIX"""
        prefix = self.installed()
        run(self.compiler, "-std=c++20", "-O1", *STRICT, "-I", prefix / "include", CONSUMERS / "main.cpp", "-o", self.folder / "consumer")
        self.check(self.folder / "consumer")
        run("cmake", "-S", SOURCE, "--preset", "libraries", "-B", self.folder / "libraries", f"-DCMAKE_CXX_COMPILER={self.compiler}")
        return "headers installed and used; libraries configured"

    def meson(self):
        """dependency('gradus', fallback: ['gradus', 'gradus_dep'])"""
        meson = needs("meson", "meson")
        needs("ninja", "ninja-build")
        archive, digest = make_archive(self.work)
        wrap = (SOURCE / "packaging/meson/gradus.wrap.in").read_text(encoding="utf-8")
        for name, value in (("VERSION", version()), ("URL", archive.as_uri()), ("SHA256", digest)):
            wrap = wrap.replace(f"@{name}@", value)
        (self.work / "gradus.wrap").write_text(wrap, encoding="utf-8")
        project = self.folder / "project"
        (project / "subprojects").mkdir(parents=True)
        (project / "subprojects/gradus.wrap").write_text(wrap, encoding="utf-8")
        shutil.copy(CONSUMERS / "main.cpp", project)
        (project / "meson.build").write_text(
            "project('consumer', 'cpp', default_options: ['cpp_std=c++20', 'warning_level=3', 'werror=true', 'optimization=1'])\n"
            f"{shown('meson', 'dependency')}"
            "consumer = executable('consumer', 'main.cpp', dependencies: gradus)\n"
            f"test('consumer', consumer, args: ['{version()}', '{self.backend}'])\n", encoding="utf-8")
        env = {"CXX": self.compiler}
        run(meson, "setup", self.folder / "build", project, env=env)
        run(meson, "test", "-C", self.folder / "build", env=env)
        return "gradus.wrap, with the archive and its hash"

    def conan(self):
        """conan create packaging/conan"""
        conan = needs("conan", "none; PyPI has conan")
        c_compiler = self.compiler.replace("clang++", "clang").replace("g++", "gcc")
        env = {"CONAN_HOME": str(self.folder / "conan"), "CXX": self.compiler, "CC": c_compiler}
        run(conan, "profile", "detect", env=env)
        settings = ["-s", "compiler.cppstd=20"]
        recipe = SOURCE / "packaging/conan"
        # The consumer's folder is a copy, because Conan writes into it.
        test = self.folder / "packaging/conan/test_package"
        shutil.copytree(recipe / "test_package", test)
        (self.folder / "tests").mkdir()
        shutil.copytree(CONSUMERS, self.folder / "tests/consumers")
        run(conan, "create", recipe, *settings, "-o", "gradus/*:simd=False", "-tf", test, env=env)
        if self.backend != "simd":
            return "without xsimd"
        # The installed xsimd stands for ConanCenter's.
        where = run(self.compiler, "-std=c++20", "-E", "-include", "xsimd/xsimd.hpp", "-x", "c++", "/dev/null")
        include = re.search(r'"(/[^"]*)/xsimd/xsimd.hpp"', where)[1]
        (self.folder / "xsimd").mkdir()
        (self.folder / "xsimd/conanfile.py").write_text(
            "from conan import ConanFile\nfrom conan.tools.files import copy\n\n\nclass Xsimd(ConanFile):\n"
            "    name, version, package_type = 'xsimd', '8.1.0', 'header-library'\n\n    def package(self):\n"
            f"        copy(self, 'xsimd/*', '{include}', self.package_folder + '/include')\n", encoding="utf-8")
        run(conan, "create", self.folder / "xsimd", *settings, env=env)
        run(conan, "create", recipe, *settings, "-tf", test, env=env)
        return "without and with xsimd, for which the installed one stands in"

    def vcpkg(self):
        """vcpkg install gradus --overlay-ports=gradus/packaging/vcpkg/ports"""
        port = SOURCE / "packaging/vcpkg/ports/gradus"
        manifest = json.loads((port / "vcpkg.json").read_text(encoding="utf-8"))
        self.check_manifest(manifest)
        # vcpkg itself is on no registry of packages. The port is run with the four functions of vcpkg that it calls.
        (self.folder / "functions.cmake").write_text("""
function(vcpkg_cmake_configure)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "SOURCE_PATH" "OPTIONS")
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${arg_SOURCE_PATH} -B ${BUILD} -DCMAKE_CXX_COMPILER=${COMPILER}
    -DCMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR} ${arg_OPTIONS} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
function(vcpkg_cmake_install)
  execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD} --target install COMMAND_ERROR_IS_FATAL ANY)
endfunction()
function(vcpkg_cmake_config_fixup)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "CONFIG_PATH;PACKAGE_NAME" "")
  file(RENAME ${CURRENT_PACKAGES_DIR}/${arg_CONFIG_PATH} ${CURRENT_PACKAGES_DIR}/share/gradus)
  file(GLOB left ${CURRENT_PACKAGES_DIR}/share/cmake/*)
  if(NOT left)
    file(REMOVE_RECURSE ${CURRENT_PACKAGES_DIR}/share/cmake)
  endif()
  # vcpkg rewrites this path, because the files have moved one folder up.
  file(GLOB configs ${CURRENT_PACKAGES_DIR}/share/gradus/*.cmake)
  foreach(config IN LISTS configs)
    file(READ ${config} text)
    string(REPLACE "/../../../" "/../../" text "${text}")
    string(REGEX REPLACE "get_filename_component\\\\(_IMPORT_PREFIX \\"\\\\\\${CMAKE_CURRENT_LIST_FILE}\\" PATH\\\\)[^#]*#"
           "get_filename_component(_IMPORT_PREFIX \\"\\${CMAKE_CURRENT_LIST_DIR}/../..\\" ABSOLUTE)\\n#" text "${text}")
    file(WRITE ${config} "${text}")
  endforeach()
endfunction()
function(vcpkg_install_copyright)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" "FILE_LIST")
  configure_file(${arg_FILE_LIST} ${CURRENT_PACKAGES_DIR}/share/gradus/copyright COPYONLY)
endfunction()
include(${PORT}/portfile.cmake)
""", encoding="utf-8")
        packages = self.folder / "packages"
        run("cmake", f"-DPORT={port}", f"-DBUILD={self.folder / 'gradus'}", f"-DCOMPILER={self.compiler}", f"-DCURRENT_PACKAGES_DIR={packages}",
            "-P", self.folder / "functions.cmake")
        for path in ("share/gradus/copyright", "share/gradus/gradusConfig.cmake", "include/gradus/gradus.hpp"):
            if not (packages / path).exists():
                raise Failed(f"the port installs no {path}")
        text = "find_package(gradus CONFIG REQUIRED)\ntarget_link_libraries(my_program PRIVATE gradus::gradus)"
        self.check(self.cmake(self.project(text), f"-DCMAKE_PREFIX_PATH={packages}"))
        return "the port and its manifest; run with stand-ins for vcpkg's four functions, because vcpkg is on no registry"

    @staticmethod
    def check_manifest(manifest):
        """vcpkg.json as vcpkg's documentation describes it."""
        known = {"name", "version", "description", "license", "dependencies", "default-features", "features"}
        if set(manifest) - known or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", manifest["name"]) or not re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"]):
            raise Failed(f"vcpkg.json: {manifest}")
        for feature in manifest["default-features"]:
            if feature not in manifest["features"]:
                raise Failed(f"vcpkg.json has the default feature {feature}, which is none of its features")
        lists = [manifest["dependencies"], *(feature["dependencies"] for feature in manifest["features"].values())]
        for dependency in (entry for entries in lists for entry in entries):
            if not isinstance(dependency, str) and set(dependency) - {"name", "host", "version>=", "features", "platform"}:
                raise Failed(f"vcpkg.json: {dependency}")

    def spack(self):
        """spack repo add, then spack install gradus"""
        recipe = SOURCE / "packaging/spack/package.py"
        compile(recipe.read_text(encoding="utf-8"), str(recipe), "exec")
        return "the recipe is read by Python; Spack itself is on no registry"

    def nix(self):
        """nix-build -E 'with import <nixpkgs> {}; callPackage ./packaging/nix {}'"""
        nix = needs("nix-instantiate", "nix-bin")
        # Evaluated with stand-ins for nixpkgs, which is on no registry; not built.
        stubs = ("{ lib = { cleanSource = x: x; licenses.mit = \"MIT\"; platforms.all = []; }; stdenv.mkDerivation = x: x; "
                 "cmake = \"cmake\"; xsimd = \"xsimd\"; }")
        said = run(nix, "--eval", "--strict", "-E", f"(import {SOURCE}/packaging/nix {stubs}).version",
                   env={"NIX_STATE_DIR": str(self.folder / "state"), "NIX_STORE_DIR": str(self.folder / "store")}).strip().split("\n")[-1]
        if said != f'"{version()}"':
            raise Failed(f"the expression has the version {said}; expected {version()}")
        return "the expression is evaluated with stand-ins for nixpkgs, and not built"

    def compiled(self):
        """target_link_libraries(my_program PRIVATE gradus::compiled)"""
        # Installed; as a folder of the project it is the same target, which the pages' test configures.
        gradus, prefix = self.folder / "gradus", self.folder / "prefix"
        run("cmake", "-S", SOURCE, "-B", gradus, f"-DCMAKE_CXX_COMPILER={self.compiler}", f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DGRADUS_COMPILED=ON",
            "-DGRADUS_COMPILED_PRECISIONS=float", "-DGRADUS_COMPILED_FLAGS=-O0")
        run("cmake", "--build", gradus, "--target", "install")
        text = "find_package(gradus REQUIRED COMPONENTS compiled)\n" + shown("cmake", "target_link_libraries(my_program PRIVATE gradus::compiled)")
        run(self.cmake(self.project(text, "any.cpp"), f"-DCMAKE_PREFIX_PATH={prefix}"))
        # A unit that would not have compiled the same code does not link.
        said = []
        library = next(prefix.rglob("libgradus_compiled.a"))
        wider = ["-mavx512f"] if platform.machine() in ("x86_64", "AMD64") else ["-fno-exceptions", "-ffast-math"]
        for flags in (wider, ["-fno-exceptions"], ["-ffast-math"], ["-D_GLIBCXX_DEBUG"], ["-DGRADUS_NO_XSIMD"]):
            try:
                run(self.compiler, "-std=c++20", "-O0", "-DGRADUS_COMPILED_FLOAT", "-DCONSUMER_ANY_ALONE", *flags, "-I", SOURCE / "include", "-I", SOURCE / "backends/simd/include",
                    CONSUMERS / "any.cpp", library, "-o", self.folder / "mixed")
            except Failed as error:
                if "same_flags_as_gradus_compiled" not in str(error):
                    raise
                said.append(flags[0])
            else:
                if flags != ["-DGRADUS_NO_XSIMD"] or self.backend == "simd":
                    raise Failed(f"a unit with {flags[0]} links with gradus::compiled")
        return f"any_optimizer<float> with the recipe's bits; units with {', '.join(said)} do not link"

    def module(self):
        """import gradus;"""
        compiler = next((found for found in map(shutil.which, ("clang++-21", "clang++-20", "clang++-19")) if found), None)
        if not compiler:
            raise Skipped("needs clang++ 19 or later (Debian: clang-19)")
        module, unit = self.folder / "gradus.pcm", CONSUMERS / "module.cpp"
        flags = [compiler, "-std=c++20", "-O0", "-Wall", "-Wextra", "-Werror"]
        precompile = ["-I", SOURCE / "include", "-I", SOURCE / "backends/dispatch/include", "--precompile", SOURCE / "compiled/gradus.cppm", "-o", module]
        run(*flags, *precompile)
        run(*flags, f"-fmodule-file=gradus={module}", unit, module, "-o", self.folder / "consumer")
        said = run(self.folder / "consumer").strip()
        run(*flags, *precompile, "-DGRADUS_MODULE_DISPATCH")
        run(*flags, f"-fmodule-file=gradus={module}", "-DCONSUMER_DISPATCH", "-c", unit, "-o", self.folder / "dispatch.o")
        return f"{pathlib.Path(compiler).name}: {said}; a unit with backend::dispatch compiles"


WAYS = ["single_header", "pkg_config", "find_package", "fetch_content", "presets", "deb", "meson", "conan", "vcpkg", "spack", "nix", "compiled", "module"]


def check_versions():
    """The version stands in config.hpp, and where a tool cannot read it from there."""
    places = {"CMakeLists.txt": r"project\(gradus VERSION ([\d.]+)", "CITATION.cff": r"(?m)^version: ([\d.]+)", "meson.build": r"version: '([\d.]+)'",
              "packaging/vcpkg/ports/gradus/vcpkg.json": r'"version": "([\d.]+)"', "packaging/spack/package.py": r'version\("([\d.]+)"',
              "packaging/nix/default.nix": r'version = "([\d.]+)"'}
    for name, pattern in places.items():
        found = re.search(pattern, (SOURCE / name).read_text(encoding="utf-8"))
        if not found or found[1] != version():
            raise Failed(f"{name} has the version {found and found[1]}; expected config.hpp's {version()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=SOURCE / "build/packages")
    parser.add_argument("--compiler", default=os.environ.get("CXX", "g++"))
    parser.add_argument("--debian", action="store_true", help="install the .deb in a bare Debian, too, which is made once")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WAYS))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(WAYS)
    if unknown:
        sys.exit(f"package.py: {', '.join(sorted(unknown))}; expected some of {', '.join(WAYS)}")
    try:
        check_versions()
    except Failed as error:
        sys.exit(f"package.py: {error}")
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    packager = Packager(work, arguments.compiler, arguments.debian)
    rows, failed, tried = [], False, 0
    for name in arguments.names or WAYS:
        packager.folder = work / "tried" / name
        shutil.rmtree(packager.folder, ignore_errors=True)
        packager.folder.mkdir(parents=True)
        make = getattr(packager, name)
        started = time.monotonic()
        try:
            result = make()
            tried += 1
        except Skipped as reason:
            result = f"skipped: {reason}"
        except Failed as error:
            failed = True
            print(f"{name}: {error}\n", flush=True)
            result = "FAILED"
        rows.append((name, f"`{make.__doc__.strip()}`", result, f"{time.monotonic() - started:.0f} s"))
        print(f"{name}: {result}", flush=True)
    print("\n| way in | command | result | took |\n|---|---|---|--:|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.exit(1 if failed else 0 if tried else 77)


if __name__ == "__main__":
    main()
