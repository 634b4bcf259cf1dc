#!/usr/bin/env bash
# The units of libgradus_cuda have the kernels of their recipes, and these keep nothing in local memory: cuda_kernels.sh PTXAS FOLDER RECIPES,
# with FOLDER/float/*.ptx and so on, as nvcc --keep leaves them, and the number of recipes. How well the kernels are compiled is
# tested in backend/thrust_cuda.sh.
set -euo pipefail
ptxas=$1 folder=$2 recipes=$3
for precision in float double bfloat16 float16; do
  ptx=$(find "$folder/$precision" -name '*.ptx' | head -1)
  [ -n "$ptx" ] || { echo "cuda_kernels: there is no PTX in $folder/$precision"; exit 1; }
  arch=$(sed -n 's/^\.target \(sm_[0-9a-z]*\).*/\1/p' "$ptx")
  "$ptxas" -v -arch="$arch" "$ptx" -o "$folder/$precision/kernels.cubin" 2>"$folder/$precision/ptxas.log"
  for kernel in first_look second_look update_pack; do
    count=$(grep -c "Compiling entry function .*$kernel" "$folder/$precision/ptxas.log" || true)
    printf '%-9s %-12s %2d kernels, at most %s registers\n' "$precision" "$kernel" "$count" \
      "$(awk -v kernel="$kernel" '/Compiling entry/ { on = index($0, kernel) } on && /Used [0-9]+ registers/ { sub(/.*Used /, ""); if ($0 + 0 > most) most = $0 + 0 } END { print most + 0 }' "$folder/$precision/ptxas.log")"
    [ "$count" -ge "$recipes" ] || { echo "cuda_kernels: expected at least $recipes kernels, one a recipe"; exit 1; }
  done
  if grep 'stack frame' "$folder/$precision/ptxas.log" | grep -vq ' 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads'; then
    grep -B1 'stack frame' "$folder/$precision/ptxas.log" | grep -v ' 0 bytes stack frame, 0 bytes spill'
    echo "cuda_kernels: a kernel in $precision has local memory"
    exit 1
  fi
done
