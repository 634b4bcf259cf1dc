"""The cells of the matrix that need more than flags. Each function is given its cell."""

import re
import subprocess

import compilers

# Of clang's -Weverything: what no C++20 library can heed, or is a matter of taste.
MATTERS_OF_STYLE = ["c++98-compat", "c++98-compat-pedantic", "pre-c++14-compat", "pre-c++17-compat", "pre-c++20-compat-pedantic", "c++20-compat", "padded",
                    "float-equal", "unsafe-buffer-usage", "unknown-warning-option", "missing-prototypes", "global-constructors", "exit-time-destructors",
                    "covered-switch-default", "ctad-maybe-unsupported", "old-style-cast", "weak-vtables", "unused-member-function", "used-but-marked-unused",
                    "disabled-macro-expansion", "reserved-macro-identifier", "unsafe-buffer-usage-in-libc-call", "nrvo", "missing-designated-field-initializers"]


class Failed(Exception):
    pass


# Headers that are halves of something, or need other libraries.
NEED_MORE = re.compile(r"/macros_|/interop/(?!element)|/gemm/(eigen|blas)|/executor/tbb")


def one_unit(cell):
    """Every header of gradus, the last first, and both units of the others in one."""
    here = cell.matrix.folder(cell.compiler)
    headers = [p.relative_to(here / folder) for folder in ("include", "backends/simd/include") for p in (here / folder).rglob("*.hpp")]
    lines = [f"#include <{header}>\n" for header in sorted(headers, reverse=True) if not NEED_MORE.search(str(header))]
    lines += ["#define WITH_BITS\n", *(f'#include "matrix/{name}.cpp"\n' for name in ("bits", "use"))]
    (cell.folder / "one.cpp").write_text("".join(lines))
    cell.compile([*cell.flags(), f"{cell.seen}/one.cpp", "-o", f"{cell.seen}/program"])
    cell.execute(f"{cell.seen}/program")


def precompiled(cell):
    (cell.folder / "all.hpp").write_text("#include <gradus/checkpoint.hpp>\n#include <gradus/any_optimizer.hpp>\n#include <gradus/gradus.hpp>\n")
    if cell.compiler.gnu:
        cell.compile([*cell.flags(), "-x", "c++-header", f"{cell.seen}/all.hpp", "-o", f"{cell.seen}/all.hpp.gch"])
        use = ["-include", f"{cell.seen}/all.hpp", "-Winvalid-pch"]
    else:
        cell.compile([*cell.flags(), "-x", "c++-header", f"{cell.seen}/all.hpp", "-o", f"{cell.seen}/all.pch"])
        use = ["-include-pch", f"{cell.seen}/all.pch"]
    cell.compile([*cell.flags(), *use, cell.units()[1], "-o", f"{cell.seen}/program"])
    cell.execute(f"{cell.seen}/program")


def module(cell):
    """The unit of compiled/, and the consumer that imports it."""
    flags = [f"-std={cell.row.std}", *cell.row.flags]
    pcm = f"{cell.seen}/gradus.pcm"
    cell.compile([*flags, f"-I{cell.here}/include", "--precompile", f"{cell.here}/compiled/gradus.cppm", "-o", pcm])
    cell.compile([*flags, f"-fmodule-file=gradus={pcm}", f"{cell.here}/tests/consumers/module.cpp", pcm, "-o", f"{cell.seen}/program"])
    cell.execute(f"{cell.seen}/program")


def no_exceptions(cell):
    cell.compile([*cell.flags(), f"{cell.here}/tests/no_exceptions.cpp", "-o", f"{cell.seen}/program"])
    cell.execute(f"{cell.seen}/program")


def memory_libcxx(cell):
    """libc++ under the memory sanitizer, from the sources that ziglang brings for its own use; made once."""
    work = cell.matrix.work
    folder = work / "libc++-memory"
    if (folder / "libc++.a").exists():
        return folder
    lib = work / f"zig-{compilers.SOURCES_OF_LIBCXX}" / "ziglang/lib"
    if not lib.is_dir() or not cell.compiler.libcxx:
        raise Failed(f"needs the sources of libc++ from PyPI's ziglang {compilers.SOURCES_OF_LIBCXX}, and Debian's libc++-22-dev")
    objects = folder / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c++23", "-O1", "-g1", "-fsanitize=memory", "-fsanitize-memory-track-origins", "-fPIC", "-nostdinc++", "-w", "-DNDEBUG",
             "-D_LIBCPP_BUILDING_LIBRARY", "-D_LIBCXXABI_BUILDING_LIBRARY", "-DLIBCXX_BUILDING_LIBCXXABI", "-D_GNU_SOURCE",
             "-isystem", f"{cell.compiler.libcxx}/include/c++/v1", f"-I{lib}/libcxx/src", f"-I{lib}/libcxx/libc", f"-I{lib}/libcxxabi/include",
             f"-I{lib}/libcxxabi/src", f"-I{lib}/libcxx"]
    skipped = {"cxa_noexception.cpp", "print.cpp"}
    made = []
    for source in sorted([*(lib / "libcxx/src").rglob("*.cpp"), *(lib / "libcxxabi/src").rglob("*.cpp")]):
        if source.name in skipped or {"pstl", "experimental", "support"} & set(source.parts) or source.name == "new.cpp":
            continue
        made.append(objects / ("_".join(source.parts[-3:]) + ".o"))
        cell.compile([*flags, "-c", source, "-o", made[-1]], f"{source.name} of libc++ does not compile")
    subprocess.run(["ar", "rcs", str(folder / "libc++.a"), *map(str, made)], check=True)
    return folder


def memory(cell):
    folder = memory_libcxx(cell)
    include = ["-nostdinc++", "-isystem", f"{cell.compiler.libcxx}/include/c++/v1", "-stdlib=libc++", "-nostdlib++"]
    cell.compile([*cell.flags(), *include, "-DWITH_BITS", *cell.units(), folder / "libc++.a", "-lgcc_s", "-o", f"{cell.seen}/program"])
    cell.execute(f"{cell.seen}/program")
