#!/usr/bin/env bash
# Compiles nccl.cu with nvcc and links it with NCCL; runs it where there is a GPU.
# nccl.sh SOURCE WORK [NVCC]; NCCL is CUDA's own or in the folder NCCL_ROOT
set -euo pipefail
source=$1 work=$2 nvcc=${3:-nvcc}
[[ $nvcc = *NOTFOUND ]] && nvcc=nvcc
command -v "$nvcc" >/dev/null || { echo "nccl: skipped, as there is no nvcc"; exit 77; }
flags=(${NCCL_ROOT:+-I"$NCCL_ROOT/include"})
echo '#include <nccl.h>' > "$work.cu"
"$nvcc" "${flags[@]}" -E "$work.cu" -o /dev/null 2>/dev/null || { echo "nccl: skipped, as there is no nccl.h"; exit 77; }
host=()
[ "$(uname -m)" = x86_64 ] && host=(-Xcompiler -march=x86-64-v3)  # fused multiply-adds, as the GPU has
library=(-lnccl)
[ -z "${NCCL_ROOT:-}" ] || library=("$NCCL_ROOT/lib/libnccl.so.2" -Xlinker "-rpath=$NCCL_ROOT/lib")
"$nvcc" -std=c++20 -O1 --expt-relaxed-constexpr -diag-suppress 186 -arch=sm_90 "${host[@]}" "${flags[@]}" -I"$source/include" \
        -I"$source/backends/thrust/include" -I"$source/backends/nccl/include" "$source/tests/comm/nccl.cu" -o "$work" "${library[@]}"
code=0
"$work" || code=$?
[ $code -eq 77 ] || exit $code  # compiled and linked is all that is to be had without a GPU
