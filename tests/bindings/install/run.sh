#!/usr/bin/env bash
# A C library as it is installed: found by CMake and by pkg-config, compiled with, linked with, and run.
#
#   run.sh ROOT WORK CC COMPONENT LIBRARY... [-DOPTION...]
#
# COMPONENT is c or c_cuda; LIBRARY... are its files as another build has made them, which saves compiling them here. The
# options are for the build that installs them.
set -euo pipefail
root=$(realpath "$1") work=$2 cc=$3 component=$4
shift 4
libraries=() options=()
for argument in "$@"; do
  case $argument in -D*) options+=("$argument") ;; *) libraries+=("$argument") ;; esac
done
package=gradus${component#c}
pkgconf=gradus_${component#c_}
define=$(printf '%s' "${component#c}" | tr a-z A-Z)
rm -rf "$work"
mkdir -p "$work/project" "$work/build/bindings/c"
quietly() { "$@" >"$work/log.txt" 2>&1 || { cat "$work/log.txt"; echo "install: $* failed"; exit 1; }; }

quietly cmake -S "$root" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$work/prefix" "-DGRADUS_C$define=ON" "${options[@]}"
for library in "${libraries[@]}"; do
  case $library in *.a) cp "$library" "$work/build/bindings/c" ;; *) cp -P "${library%.so*}".so* "$work/build/bindings/c" ;; esac
done
quietly cmake --install "$work/build"

expected="include/gradus.h
${define:+include/gradus_cuda.h
}lib/lib$package.so
lib/lib$package.so.0
lib/pkgconfig/$pkgconf.pc"
while read -r file; do
  [ -e "$work/prefix/$file" ] || { find "$work/prefix" -not -path '*/include/gradus/*'; echo "install: expected $file"; exit 1; }
done <<< "$expected"

main=$(realpath "$(dirname "$0")/main.c")
cat > "$work/project/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES C)
find_package(gradus 0.1 REQUIRED COMPONENTS $component)
add_executable(consumer $main)
target_compile_options(consumer PRIVATE -std=c11 -Wall -Wextra -Wpedantic -Werror)
target_compile_definitions(consumer PRIVATE CONSUMER$define)
target_link_libraries(consumer PRIVATE gradus::$component)
END
quietly cmake -S "$work/project" -B "$work/consumer" -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$work/prefix"
quietly cmake --build "$work/consumer"
"$work/consumer/consumer"

command -v pkg-config >/dev/null || { echo "install: pkg-config is left out, as it is not installed (Debian: pkg-config)"; exit; }
export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig
read -ra flags <<< "$(pkg-config --cflags --libs "$pkgconf")"
[ "$(pkg-config --modversion "$pkgconf")" = "$("$work/consumer/consumer" version)" ]
quietly "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror "-DCONSUMER$define" "$main" "${flags[@]}" -o "$work/by_pkg_config"
LD_LIBRARY_PATH=$work/prefix/lib "$work/by_pkg_config"
