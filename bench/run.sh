#!/usr/bin/env bash
# Runs all benchmarks and draws the report. A run takes about five minutes, or with --full under twenty; --full goes up to
# 64 Mi parameters and installs the peers that are Python packages (PyTorch with all its libraries: 5 GB) in a folder venv
# beside BUILD. With a model only that model's tensors are measured.
#
#   bench/run.sh BUILD OUT [--full] [MODEL.txt]   BUILD: where the `bench` preset was built; OUT: the report's folder;
#                                                 MODEL.txt: a line for each tensor, its name and its dimensions
set -euo pipefail -f  # -f: the filters are no file names
bench=$(cd "$(dirname "$0")" && pwd)
build=$1 out=$2 full= model=
shift 2
for argument in "$@"; do
  if [ "$argument" = --full ]; then full=--full; else model=$argument; fi
done
python=python3
venv=$(dirname "$build")/venv
mkdir -p "$out"
find "$out" -maxdepth 1 \( -name '*.json' -o -name '*.svg' -o -name '*.log' -o -name 'report.*' -o -name checkpoints.txt \) -delete
threads=$(nproc)

# The tasks: seconds on a machine of two cores (only for the estimate), a name, a command.
seconds=() names=() commands=()
plan() { seconds+=("$1") names+=("$2"); shift 2; commands+=("$*"); }

measure() { # measure OUTPUT REPETITIONS MIN_TIME PROGRAM [ARGUMENT...], a program that uses Google Benchmark
  local output=$1 repetitions=$2 min_time=$3
  shift 3
  # Threads that spin while waiting stall each other if there are fewer cores than busy threads.
  OMP_WAIT_POLICY=passive "$@" --benchmark_repetitions="$repetitions" --benchmark_min_time="$min_time" \
    --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true \
    --benchmark_out="$out/$output.json" --benchmark_out_format=json >/dev/null 2>"$out/$output.log" || cat "$out/$output.log" >&2
}
suite() { # suite NAME FILTER REPETITIONS MIN_TIME
  measure "suite-$1" "$3" "$4" "$build/bench/suite" --benchmark_filter="^$2(/real_time)?\$"
}
choices() { measure choices "$1" "$2" "$build/bench/choices"; }
own_model() { measure suite-model "$1" 0.01 "$build/bench/own_model" "$model"; }
install_peers() {
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  local have=("$venv/bin/python" -c)
  # A peer that cannot be installed is left out; the report says why.
  { "${have[@]}" 'import torch, safetensors, ninja, wheel' || "${pip[@]}" torch safetensors numpy ninja scikit-build-core setuptools wheel
    "${have[@]}" 'import ggml' || "${pip[@]}" --no-deps ggml-py
    "${have[@]}" 'from importlib.metadata import version; version("deepspeed")' ||
      DS_BUILD_OPS=0 "${pip[@]}" --no-build-isolation --no-deps deepspeed hjson py-cpuinfo psutil tqdm msgpack einops \
        packaging pydantic pydantic-core annotated-types typing-inspection
  } >"$out/install.log" 2>&1 || echo "bench: some peers could not be installed; see $out/install.log"
}
peers() { # peers NAME [ARGUMENT...]
  local name=$1
  shift
  if [ -x "$venv/bin/python" ]; then python=$venv/bin/python; fi
  if [ -n "$model" ]; then set -- "$@" --model "$model"; fi
  PATH="$venv/bin:$PATH" "$python" "$bench/peers/peers.py" "$build/bench/peers/libpeers.so" "$out/$name.json" "$@" >/dev/null 2>"$out/$name.log" || cat "$out/$name.log" >&2
}
checkpoints() { "$build/bench/checkpoints" "$out" >"$out/checkpoints.txt" || rm "$out/checkpoints.txt"; }
compile_time() { python3 "$bench/compile_time.py" "$out/compile_time.json" "$@"; }

all='(step|twin|traffic)/.*' one_thread='(twin|traffic|step/[^/]*/[^/]*/[^/]*/serial)/.*float' float='(step|twin|traffic)/.*float'
small=(4096 65536 1048576 1000x64 1000x1000)
if [ "$full" ]; then plan 300 "installing the peers" install_peers; fi
if [ "$model" ]; then
  plan 60 "every step" own_model "$([ "$full" ] && echo 5 || echo 3)"
  plan 30 "peers" peers peers --rounds 5
  [ "$threads" -eq 1 ] || plan 30 "peers on all threads" peers peers-threads --rounds 5 --threads "$threads"
elif [ "$full" ]; then
  for shape in "${small[@]}"; do plan 20 "suite, $shape" suite "$shape" "$all/$shape" 9 0.02; done
  plan 90 "suite, 16 Mi" suite 16777216 "$all/16777216" 5 0.02
  plan 130 "suite, 64 Mi" suite 67108864 "$float/67108864" 3 0.02
  plan 3 "suite, adding tensors" suite add "add/.*" 5 0.02
  plan 140 "choices" choices 9 0.02
  plan 200 "peers" peers peers --rounds 9
  [ "$threads" -eq 1 ] || plan 60 "peers on all threads" peers peers-threads --rounds 9 --threads "$threads"
  plan 60 "recipes that PyTorch has" peers recipes --recipes --rounds 9 --shapes 65536,16777216
  plan 60 "compile time" compile_time --compilers g++,clang++
  plan 8 "checkpoints" checkpoints
else
  for shape in "${small[@]}"; do plan 8 "suite, $shape" suite "$shape" "$all/$shape" 5 0.01; done
  plan 40 "suite, 16 Mi" suite 16777216 "$one_thread/16777216" 3 0.01
  plan 2 "suite, adding tensors" suite add "add/.*" 3 0.01
  plan 60 "choices" choices 5 0.01
  plan 30 "peers" peers peers --rounds 5 --shapes 65536,1048576,16777216,1000x64,1000x1000
  [ "$threads" -eq 1 ] || plan 20 "peers on all threads" peers peers-threads --rounds 5 --threads "$threads" --shapes 65536,1048576,16777216
  plan 30 "recipes that PyTorch has" peers recipes --recipes --rounds 5 --shapes 65536,16777216
  plan 30 "compile time" compile_time --rounds 3
  plan 8 "checkpoints" checkpoints
fi

total=0 done=0
for s in "${seconds[@]}"; do total=$((total + s)); done
started=$SECONDS
for i in "${!names[@]}"; do
  elapsed=$((SECONDS - started))
  # The estimate follows the plan at first, and increasingly the time measured on this machine.
  left=$((total - done))
  [ $done -gt 0 ] && left=$(((total - done) * elapsed / done))
  printf 'bench: [%2d/%d] %-24s about %d:%02d left\n' $((i + 1)) ${#names[@]} "${names[i]}" $((left / 60)) $((left % 60))
  ${commands[i]}
  done=$((done + seconds[i]))
done
python3 "$bench/report.py" "$out" --command "./dev bench${full:+ $full}${model:+ --model $(basename "$model" .txt)}" ${model:+--model "$model"} >/dev/null
printf 'bench: %s in %d:%02d\n' "$out/report.md" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
