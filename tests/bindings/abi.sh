#!/usr/bin/env bash
# The ABI that programs are compiled against, the functions and types of gradus.h and gradus_cuda.h, is the one that
# gradus.abi describes. Needs libabigail (Debian: abigail-tools).
#
#   abi.sh CXX HEADERS STORED SCRATCH            compares, by abidiff; CXX is g++
#   abi.sh CXX HEADERS STORED SCRATCH --accept   writes the description anew
#
# The description is of a library of empty functions made from the headers, because the real one's debugging information is
# mostly of what is behind the opaque pointer. That the real one has the same functions is what symbols.sh compares.
set -euo pipefail
cxx=$1 headers=$(realpath "$2") stored=$3 scratch=$4
if ! command -v abidiff >/dev/null; then
  echo "abi: skipped, as there is no abidiff"
  exit 77
fi
mkdir -p "$scratch"
{
  echo '#include <gradus_cuda.h>'
  cat "$headers/gradus.h" "$headers/gradus_cuda.h" | grep -v '^#' | tr '\n' ' ' | grep -oE 'GRADUS_API [^;]*;' |
    sed -E 's/GRADUS_API (.*);/extern "C" __attribute__((visibility("default"))) \1 { __builtin_trap(); }/'
} > "$scratch/abi.cpp"
(cd "$scratch" && "$cxx" -std=c++20 -g -O0 -fPIC -shared -fvisibility=hidden -I"$headers" abi.cpp -o libabi.so)
if [ "${5:-}" = --accept ]; then
  abidw --no-corpus-path --no-comp-dir-path --no-architecture --no-show-locs --no-elf-needed --type-id-style hash \
        "$scratch/libabi.so" --out-file "$stored"
  exit
fi
if ! abidiff --no-architecture --no-corpus-path "$stored" "$scratch/libabi.so" > "$scratch/changes.txt" 2>&1; then
  cat "$scratch/changes.txt"
  echo "abi: the ABI has changed. If programs compiled before could stop working, undo the change, or raise SOVERSION."
  echo "To accept it: $0 $cxx $headers $stored $scratch --accept"
  exit 1
fi
