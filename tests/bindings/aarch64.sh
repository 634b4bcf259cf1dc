#!/usr/bin/env bash
# libgradus for aarch64, run under qemu: its checkpoints are to the byte those of x86-64 with fma, and each goes on from the
# other's.
#
#   aarch64.sh ROOT WORK EXCHANGE [RECIPES]
#
# EXCHANGE is exchange.c's program for this machine, WORK a folder that is kept, and RECIPES separated by semicolons, or "all",
# which takes minutes to compile. Needs g++-aarch64-linux-gnu and qemu-user-static (Debian); ends with 77 without them.
set -euo pipefail
root=$(realpath "$1") work=$2 exchange=$(realpath "$3") recipes=${4:-sgd;adamw;adams;lamb}
for program in aarch64-linux-gnu-g++ qemu-aarch64-static; do
  command -v "$program" >/dev/null || { echo "aarch64: skipped, as there is no $program (Debian: g++-aarch64-linux-gnu qemu-user-static)"; exit 77; }
done
grep -qw fma /proc/cpuinfo || { echo "aarch64: skipped, as this machine has no fma to compare with"; exit 77; }
mkdir -p "$work/include"
work=$(realpath "$work")
ln -sfn /usr/include/xsimd "$work/include/xsimd"  # and nothing else of this machine's headers
cmake -S "$root" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
      -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_PREFIX_PATH="$work" \
      "-DGRADUS_RECIPES=$recipes" >/dev/null
cmake --build "$work/build" --target gradus_c_shared gradus_c_static
libraries=$work/build/bindings/c
aarch64-linux-gnu-gcc -std=c11 -Wall -Wextra -Werror -I"$root/bindings/c/include" "$root/tests/bindings/python/exchange.c" -o "$work/exchange" \
  -L"$libraries" -l:libgradus.a -lstdc++ -lm -lpthread
"$(dirname "$0")/symbols.sh" aarch64-linux-gnu-nm "$libraries/libgradus.so" "$root/bindings/c/include/gradus.h"

on_aarch64() { qemu-aarch64-static -L /usr/aarch64-linux-gnu "$work/exchange" "$@"; }
cd "$work"
if [ "$recipes" = all ]; then
  recipes=$(sed -n 's/^case \([a-z_0-9]*\).*/\1/p' "$root"/tests/golden/*.txt | sort -u | tr '\n' ';')
fi
compared=0
for recipe in ${recipes//;/ }; do
  for dtype in float32 float64; do
    if ! on_aarch64 "$recipe" "$dtype" 0 40 - theirs 2>said.txt; then
      grep -q 'optimizer is' said.txt || { cat said.txt; exit 1; }  # the name of a case that is no recipe's
      continue
    fi
    "$exchange" "$recipe" "$dtype" 0 40 - ours
    cmp theirs ours || { echo "aarch64: $recipe in $dtype differs"; exit 1; }
    "$exchange" "$recipe" "$dtype" 0 11 - ours
    on_aarch64 "$recipe" "$dtype" 11 40 ours resumed
    cmp theirs resumed || { echo "aarch64: $recipe in $dtype does not go on as it would have"; exit 1; }
    compared=$((compared + 1))
  done
done
[ "$compared" -ge 6 ] || { echo "aarch64: compared only $compared runs"; exit 1; }
echo "aarch64: $compared runs of 40 steps have the bytes of x86-64"
