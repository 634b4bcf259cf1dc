#!/usr/bin/env bash
# abi.sh accepts the headers as they are, and notices changes of a function, a parameter, a struct and an enumerator.
# abi_notices.sh CXX HEADERS STORED SCRATCH
set -euo pipefail
cxx=$1 headers=$2 stored=$3 scratch=$4 here=$(dirname "$0")
command -v abidiff >/dev/null || exit 77

# changed SED_SCRIPT WORDS: with the headers so changed, abi.sh fails, and says WORDS.
changed() {
  rm -rf "$scratch/changed"
  mkdir -p "$scratch/changed"
  cp "$headers"/*.h "$scratch/changed"
  sed -Ei "$1" "$scratch/changed"/*.h
  if diff -rq "$headers" "$scratch/changed" >/dev/null; then echo "abi_notices: $1 changes nothing"; exit 1; fi
  if "$here/abi.sh" "$cxx" "$scratch/changed" "$stored" "$scratch" > "$scratch/said.txt"; then
    echo "abi_notices: expected abi.sh to fail for $1"; exit 1
  fi
  for word in "$2" 'To accept it: '; do
    grep -qF -- "$word" "$scratch/said.txt" || { cat "$scratch/said.txt"; echo "abi_notices: for $1 expected: $word"; exit 1; }
  done
}

"$here/abi.sh" "$cxx" "$headers" "$stored" "$scratch"
changed '/GRADUS_API.* gradus_unfreeze/d' gradus_unfreeze
changed 's/(gradus_set_lr\(gradus_optimizer\*, )size_t/\1int/' gradus_set_lr
changed 's/^GRADUS_API size_t (gradus_state_bytes)/GRADUS_API int \1/' gradus_state_bytes
changed 's/^  double lr_scale; .*//' lr_scale
changed 's/^  int maximize;/  int64_t maximize;/' maximize
changed 's/GRADUS_IO, /GRADUS_FILE, GRADUS_IO, /' GRADUS_FILE
changed 's/^GRADUS_API const char\* gradus_version/GRADUS_API int gradus_more(void);\n&/' gradus_more
