#!/usr/bin/env bash
# Compiles every recipe's kernel over CUDA and looks into it, which needs nvcc but no GPU; then, where there is a GPU, runs
# thrust_gpu.cpp and the golden trajectories on it:
#
#   thrust_cuda.sh INCLUDE_DIR SOURCE_DIR SCRATCH_DIR [NVCC]
#
# For sm_80 and sm_90, on the latter in more precisions, each recipe must have one kernel that updates elements. It accesses
# whole packs 16 bytes at a time (8 for 16-bit numbers, 4 for 8-bit codes), and moves the bytes a parameter that the algorithm
# needs and no more, with no local memory, no arithmetic in double and no call. The kernels that measure and decide have a
# batch of loads in flight, and no local memory. Prints those bytes, the registers a thread and the occupancy by them. Where
# GRADUS_TEST_PRECISIONS is set, only the precisions that it names are looked at, only for sm_90, and all but the first with a few
# recipes.
set -euo pipefail
include="-I$1/include -I$1/backends/thrust/include" source=$2 scratch=$3 nvcc=${4:-nvcc}
[[ $nvcc = *NOTFOUND ]] && nvcc=nvcc
if ! command -v "$nvcc" >/dev/null || ! command -v "$(dirname "$(command -v "$nvcc")")/ptxas" >/dev/null; then
  echo "thrust_cuda: skipped, as there is no nvcc"
  exit 77
fi
ptxas=$(dirname "$(command -v "$nvcc")")/ptxas
mkdir -p "$scratch"

look() { # look PTX LOG PRECISION RECIPES, which are all if none is named
  awk -v precision="$3" -v log_file="$2" -v recipes=" $4 " '
    function short_name(s) { gsub(/[0-9]+/, " ", s); return s }
    BEGIN {
      # recipe: which rules, slots, the forms of the kernel, and the slots of all forms together. A momentum of 0 and a
      # second moment that is not centered have forms of their own.
      known["momentum none constant l2"] = "sgd 1 2 1";              known["momentum none constant stable"] = "sgds 1 2 1"
      known["ema ema adaptive l2"] = "adam 2 1 2";                   known["ema ema adaptive decoupled"] = "adamw 2 1 2"
      known["ema ema adaptive scheduled"] = "adams 2 1 2";           known["ema ema_max adaptive l2"] = "amsgrad 3 1 3"
      known["ema yogi adaptive l2"] = "yogi 2 1 2";                  known["ema ema bounded l2"] = "adabound 2 1 2"
      known["ema ema_max partially_adaptive l2"] = "padam 3 1 3";    known["ema ema rectified l2_or_decoupled"] = "radam 2 1 2"
      known["none sum decaying l2"] = "adagrad 1 1 1";               known["rms_ratio ema constant l2"] = "adadelta 2 1 2"
      known["ema infinity_norm by_norm l2"] = "adamax 2 1 2";        known["ema belief adaptive_above decoupled"] = "adabelief 2 1 2"
      known["normalized_momentum ema_about_mean constant l2"] = "rmsprop 3 4 8"
      known["normalized_ema ema_from_first constant decoupled"] = "adopt 2 1 2"
      known["nesterov_ema ema adaptive l2_or_decoupled"] = "nadam 2 1 2"
      known["ema_and_difference ema adaptive proximal"] = "adan 4 1 4"
      known["schedule_free ema one none"] = "schedule_free_adamw 2 1 2"
      known["two_emas ema adaptive decoupled"] = "ademamix 3 1 3";   known["sign_of_ema none constant decoupled"] = "lion 1 1 1"
      known["adaptive_inertia ema constant l2"] = "adai 3 1 3";      known["adaptive_inertia ema constant decoupled"] = "adais 3 1 3"
      known["ema ema trust_ratio decoupled"] = "lamb 2 1 2";         known["ema ema rms_clipped decoupled"] = "stable_adamw 2 1 2"
      known["ema ema cautious decoupled"] = "cautious_adamw 2 1 2"
      # Beside the remainders lies one bit a parameter, which is not counted. The atomic that changes it makes nvcc use
      # generic addresses.
      space = precision == "remainders" ? "(global\\.)?" : "global\\."
      read_theta = 4; write_theta = precision == "masters" ? 4 + 2 : 4
      gradient = precision == "masters" || precision == "remainders" ? 2 : 4; slot = precision == "short_moments" ? 2 : 4
      while ((getline line < log_file) > 0) {
        if (line ~ /Compiling entry function/) { split(line, part, "\047"); kernel = part[2] }
        if (line ~ /stack frame/) stack[kernel] = line
        if (line ~ /Used [0-9]+ registers/) { sub(/.*Used /, "", line); registers[kernel] = line + 0 }
      }
      printf "%-10s %6s %10s %10s %10s\n", "recipe", "bytes", "accesses", "registers", "occupancy"
    }
    /\.entry/ && /update_pack/ {
      on = 1; loads = stores = moved = 0; complaint = ""
      match($0, /_Z[A-Za-z0-9_]+/); kernel = substr($0, RSTART, RLENGTH)
      rules = kernel; sub(/.*composition/, "", rules); sub(/prepared.*/, "", rules)
      n = split(rules, part, /12first_moment|13second_moment|9step_size|5decay/); name = ""
      for (i = 2; i <= n; ++i) { match(part[i], /^[0-9]+/); name = name (i > 2 ? " " : "") substr(part[i], RLENGTH + 1, substr(part[i], 1, RLENGTH)) }
    }
    on && $0 ~ "ld\\." space "v[24]\\.(f32|u16|b16)" { ++loads; moved += /f32/ ? 16 : 8 }
    on && $0 ~ "st\\." space "v[24]\\.(f32|u16|b16)" { ++stores; moved += /f32/ ? 16 : 8 }
    on && $0 ~ space "v2" && !/v2\.u8/ { complaint = complaint " an access of half a pack;" }
    on && /\.local/ { complaint = complaint " local memory;" }
    on && /\.f64/ && !/ld\.param/ { complaint = complaint " double precision;" }
    on && /\tcall/ { complaint = complaint " a call;" }
    on && /^}/ {
      on = 0
      if (!(name in known)) { print "thrust_cuda: a kernel of no recipe: " name; bad = 1; next }
      split(known[name], r, " "); slots = r[2]
      # Thrust has the body several times in one kernel: by the stores, how often.
      theta_stores = 1 + (precision == "masters" || precision == "remainders")
      a_pass_stores = r[3] * theta_stores + r[4]
      bytes = read_theta + write_theta + gradient + 2 * slots * slot
      copies = stores / a_pass_stores
      expected = r[3] * (read_theta + write_theta + gradient) + 2 * r[4] * slot
      if (copies < 1 || copies != int(copies)) complaint = complaint " " stores " stores;"
      else if (moved != 4 * copies * expected) complaint = complaint " " moved / 4 / copies " bytes a parameter, not " expected ";"
      if (stack[kernel] !~ / 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/) complaint = complaint stack[kernel] ";"
      if (!(kernel in registers)) complaint = complaint " no word of ptxas;"
      if (seen[r[1]]++) complaint = complaint " a second kernel;"
      # 64 warps a processor of 65536 registers, given by 256 a warp, in blocks of 8 warps.
      a_warp = int((registers[kernel] * 32 + 255) / 256) * 256
      blocks = a_warp ? int(int(16384 / a_warp) * 4 / 8) : 0; if (blocks > 8) blocks = 8
      printf "%-10s %6d %7d+%2d %10d %9d%%\n", r[1], bytes, copies ? loads / copies : loads, copies ? stores / copies : stores, registers[kernel], blocks * 8 * 100 / 64
      if (complaint != "") { print "thrust_cuda: " r[1] " has" complaint; bad = 1 }
    }
    END {
      for (k in known) {
        split(known[k], r, " ")
        expected_here = recipes ~ /^ *$/ || index(recipes, " " r[1] " ")
        if (expected_here && !seen[r[1]]) { print "thrust_cuda: no kernel of " r[1]; bad = 1 }
      }
      exit bad
    }' "$1"
}

# The kernels of warps: two that measure and decide, and one that updates 8-bit codes.
look_at_warps() { # look_at_warps PTX LOG PRECISION.
  awk -v precision="$3" -v log_file="$2" '
    BEGIN {
      while ((getline line < log_file) > 0) {
        if (line ~ /Compiling entry function/) { split(line, part, "\047"); kernel = part[2] }
        if (line ~ /stack frame/) stack[kernel] = line
        if (line ~ /Used [0-9]+ registers/) { sub(/.*Used /, "", line); registers[kernel] = line + 0 }
      }
      gradient = precision == "masters" || precision == "remainders" ? "ld.global.u16" : precision == "doubles" ? "ld.global.f64" : "ld.global.f32"
      batch = precision == "doubles" ? 16 : 32
      printf "%-12s %8s %10s %10s\n", "warps of", "kernels", "registers", "occupancy"
    }
    /\.entry/ && /run_warps/ {
      on = 1; complaint = ""; gradients = loads = stores = doubles = 0
      match($0, /_Z[A-Za-z0-9_]+/); kernel = substr($0, RSTART, RLENGTH)
      match(kernel, /first_look|second_look|update_codes/); name = substr(kernel, RSTART, RLENGTH)
    }
    on && index($0, gradient) { ++gradients }
    on && name == "update_codes" && /ld\.global\.v4\.(f32|u8)/ { loads += /f32/ ? 16 : 4 }
    on && name == "update_codes" && /st\.global\.v4\.(f32|u8)/ { stores += /f32/ ? 16 : 4 }
    on && /\.local/ { complaint = complaint " local memory;" }
    on && /\t(ld|st)\.(v[24]\.)?[fusb][0-9]+/ { complaint = complaint " a generic access;" }
    on && /\.f64/ && !/ld\.param/ { ++doubles }
    on && /^}/ {
      on = 0
      if (stack[kernel] !~ / 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/) complaint = complaint stack[kernel] ";"
      if (name == "first_look" && gradients < batch) complaint = complaint " only " gradients " loads of gradients, not a batch of " batch ";"
      if (name == "update_codes") {
        if (doubles) complaint = complaint " double precision;"
        # θ and g in floats, and each slot in codes; 8 parameters a lane; with momentum 0 a kernel has a second body.
        split(kernel, part, /device_tensor[^L]*Lm/); slots = part[2] + 0; idle = kernel ~ /momentum/
        expected = 8 * (4 + 4 + 4 + 2 * slots) + idle * 8 * (4 + 4 + 4)
        if (kernel ~ /normalized_momentum/) expected = 8 * (4 * (4 + 4 + 4) + 2 * 8)  # four bodies, with 3, 2, 2 and 1 slots
        if (kernel ~ /ema_and_difference/) expected -= 16  # nvcc stores one of the two packs of weights element by element
        # A formula with flags loads them four at a time, too.
        if (loads + stores < expected || loads + stores > expected + 8) complaint = complaint " " loads + stores " bytes, not " expected ";"
      }
      a_warp = int((registers[kernel] * 32 + 255) / 256) * 256
      blocks = a_warp ? int(16384 / a_warp) : 0; if (blocks > 16) blocks = 16  # of 4 warps
      if (blocks * 100 / 16 < least[name] || !seen[name]) least[name] = blocks * 100 / 16
      if (registers[kernel] > most[name]) most[name] = registers[kernel]
      ++seen[name]
      if (complaint != "") { print "thrust_cuda: " name " has" complaint; bad = 1 }
    }
    END {
      for (k in seen) printf "%-12s %8d %10d %9d%%\n", k, seen[k], most[k], least[k]
      if (!seen["first_look"] || !seen["second_look"]) { print "thrust_cuda: no kernel that decides"; bad = 1 }
      if (precision == "codes" && !seen["update_codes"]) { print "thrust_cuda: no kernel of codes"; bad = 1 }
      exit bad
    }' "$1"
  command -v cuobjdump >/dev/null || return 0
  # In machine code: how many loads of gradients precede the first that is added. A few may come late.
  cuobjdump -sass "${1%.ptx}.cubin" | awk -v gradient="$([ "$3" = doubles ] && echo '\.64' || ([[ $3 = @(masters|remainders) ]] && echo '\.U16'))" \
      -v batch="$([ "$3" = doubles ] && echo 16 || echo 32)" '
    function close_kernel() { if (name != "" && longest < batch * 3 / 4) { print "thrust_cuda: " name " has only " longest " loads in flight"; bad = 1 } }
    /Function :/ { close_kernel(); name = /first_look/ ? "first_look" : ""; run = longest = 0 }
    name != "" && /DFMA/ { run = 0 }
    name != "" && $0 ~ "LDG\\.E" gradient " R" { if (++run > longest) longest = run }
    END { close_kernel(); exit bad }'
}

# Recipes with: no momentum, a mean square, four bodies, four slots, flags, sums over tensors.
few="sgd adams rmsprop adan nadam lamb"
chosen=${GRADUS_TEST_PRECISIONS:-}
for arch in sm_80 sm_90; do
  for precision in ${chosen:-single masters remainders short_moments codes doubles}; do
    [ $arch = sm_80 ] && { [ $precision != single ] || [ "$chosen" ]; } && continue
    out=$scratch/$precision.$arch
    defined=(); recipes=
    [ $precision = single ] && defined+=(-DGRADUS_TEST_GRAPH)
    if [ "$chosen" ] && [ $precision != "${chosen%% *}" ]; then
      recipes=$few
      defined+=("-DGRADUS_TEST_RECIPES=$(sed 's/[a-z_]*/gradus::&/g; s/ /\\,/g' <<<"$few")")  # nvcc takes a comma for the end
    fi
    "$nvcc" "${defined[@]}" -std=c++20 -O3 --expt-relaxed-constexpr -diag-suppress 186 $include -arch=$arch -ptx \
            -DGRADUS_TEST_PRECISION=$precision "$source/thrust_cuda.cu" -o "$out.ptx"
    "$ptxas" -v -arch=$arch "$out.ptx" -o "$out.cubin" 2>"$out.log"
    printf '\n%s, %s\n' "$arch" "$precision${recipes:+, $recipes}"
    [ $precision = codes ] || [ $precision = doubles ] || look "$out.ptx" "$out.log" "$precision" "$recipes"
    look_at_warps "$out.ptx" "$out.log" "$precision"
  done
done

# A rule of a program's own, of which one function is not marked GRADUS_HOST_DEVICE, does not compile; with all marked it does.
for unmarked in 0 1 2 3; do
  log=$scratch/host_only_rule.$unmarked.log compiles=1
  "$nvcc" -std=c++20 --expt-relaxed-constexpr -diag-suppress 186 $include -arch=sm_80 -ptx -DGRADUS_TEST_UNMARKED=$unmarked \
          "$source/../compile_fail/host_only_rule.cu" -o "$scratch/host_only_rule.ptx" >"$log" 2>&1 || compiles=0
  if [ $unmarked = 0 ] && [ $compiles = 0 ]; then
    echo "thrust_cuda: a rule of a program's own does not compile:"; cat "$log"; exit 1
  elif [ $unmarked != 0 ] && { [ $compiles = 1 ] || ! grep -q 'error.*calling a __host__ function' "$log"; }; then
    echo "thrust_cuda: expected nvcc to refuse function $unmarked of host_only_rule.cu, as it is for the host only; got:"; cat "$log"; exit 1
  fi
done

# run NAME FLAG...: the test program of that name
run() {
  local program=$scratch/$(basename "$1")
  "$nvcc" -std=c++20 -c "$source/../support/main.cpp" -o "$scratch/main.o"  # for the host alone
  "$nvcc" -x cu -std=c++20 "${speed[@]}" --expt-relaxed-constexpr -diag-suppress 186 $include -I"$source/.." "${host[@]}" "${@:2}" \
          -DGRADUS_TEST_DATA="\"$source/..\"" "$source/../$1.cpp" -Xlinker "$scratch/main.o" -o "$program"
  "$program"
}
# Sharded steps: no kernel needs a stack or spills; run where a GPU is.
run_ranks() { # run_ranks FLAG...
  local program=$scratch/thrust_ranks_gpu
  "$nvcc" -x cu -std=c++20 "${speed[@]}" --expt-relaxed-constexpr -diag-suppress 186 -Xptxas -v $include -I"$source/.." "${host[@]}" "$@" \
          "$source/thrust_ranks_gpu.cpp" -o "$program" 2>"$program.log" || { cat "$program.log"; return 1; }
  awk '/Compiling entry function/ { split($0, part, "\047"); kernel = part[2] }
       kernel ~ /first_measure|first_verdict|second_measure|second_verdict|update_from|add_pieces_of_one/ && /stack frame/ {
         ++seen; if (!/ 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/) { print "thrust_cuda: " kernel ":" $0; bad = 1 } }
       END { if (!seen) { print "thrust_cuda: no kernel of a sharded step"; bad = 1 }; exit bad }' "$program.log"
  "$program" || [ $? -eq 77 ]
}
host=()
[ "$(uname -m)" = x86_64 ] && host=(-Xcompiler -march=x86-64-v3)  # fused multiply-adds, as the GPU has
speed=(-O1)
if command -v nvidia-smi >/dev/null && nvidia-smi -L | grep '^GPU'; then
  run backend/thrust_gpu -arch=native
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
      echo "thrust_cuda: $tool"
      compute-sanitizer --tool $tool --error-exitcode 1 "$scratch/thrust_gpu" --test-case='*agrees with the CPU*,graph:*' | tail -3
    done
  fi
  run_ranks -arch=native
  run golden -arch=native -include "$source/../support/thrust_under_test.hpp"
else
  speed=(-O0)  # of the host's code
  quick=()
  if "$nvcc" --help | grep -e --Ofast-compile >/dev/null; then quick=(-Ofc max); fi
  run backend/thrust_gpu -arch=sm_90 -DGRADUS_TEST_NO_GPU "${quick[@]}"
  run_ranks -arch=sm_90
  echo "thrust_cuda: CUDA was compiled and inspected, not run, as nvidia-smi finds no GPU"
fi
