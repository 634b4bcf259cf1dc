#!/usr/bin/env bash
# ./dev answers --help, and refuses a word that it does not know, before it installs or builds anything.
# dev.sh SOURCE WORK
set -euo pipefail
source=$1 work=$2
rm -rf "$work"
mkdir -p "$work/bin"
# Stand-ins for whatever installs or builds: they leave a trace.
for tool in apt-get sudo cmake ninja; do
  printf '#!/bin/sh\necho "$0 $*" >> "%s/traces"\nexit 1\n' "$work" > "$work/bin/$tool"
  chmod +x "$work/bin/$tool"
done
export PATH="$work/bin:$PATH"

failed=0
fault() { printf '%s\n' "$*"; failed=1; }

# expect CODE TEXT [ARGUMENT...]: ./dev ends with CODE, and says TEXT on stdout (0) or stderr (else).
expect() {
  local code=$1 text=$2 got=0 said
  shift 2
  "$source/dev" "$@" >"$work/out" 2>"$work/err" </dev/null || got=$?
  [ "$got" -eq "$code" ] || fault "./dev $*: exit $got; expected $code"
  if [ "$code" -eq 0 ]; then said=$work/out; else said=$work/err; fi
  grep -qF -- "$text" "$said" || fault "./dev $*: does not say '$text':" "$(cat "$said")"
  [ ! -e "$work/traces" ] || { fault "./dev $*: called" "$(cat "$work/traces")"; rm "$work/traces"; }
}

for word in help --help -h; do expect 0 './dev bench' $word; done
for word in --help -h; do
  expect 0 './dev demo' demo $word
  expect 0 './dev test' test $word
  expect 0 './dev bench' bench $word
  expect 0 './dev study report' study $word
done
expect 0 baseline test avx2 --help
expect 0 compile_fail test --help
expect 0 rules/decay test --help
expect 0 clang-format format --help
expect 0 clang-tidy tidy --help
expect 0 build/site docs --help
expect 0 --serve docs -h
for word in single_header deb conan compiled; do expect 0 $word package --help; done
expect 1 'docs --pictures takes nothing else' docs --serve --pictures
for word in --full --model --ranks gpt2 resnet18 vit lstm small safetensors 'layer1.weight 768 3072'; do expect 0 "$word" bench --help; done
expect 0 'Images a step' demo --epochs 3 --help
expect 0 '--ranks' demo --help
expect 1 'goes with --epochs and --images' demo --ranks 2 --lr 1
expect 1 '--ranks has no value' demo --ranks
# Every option of the demo, and of nothing else.
"$source/dev" demo --help > "$work/out"
for option in $(grep -o 'add_option("--[a-z-]*' "$source/examples/fashion_mnist.cpp" | cut -d'"' -f2); do
  grep -q -- "^  $option  *[A-Z]" "$work/out" || fault "./dev demo --help does not explain $option"
done

expect 2 './dev bench'
expect 2 '"nonsense"' nonsense
expect 2 '"--halp"' --halp
expect 2 '"bogus"' test bogus
expect 2 'takes nothing else' test --matrix a b
expect 2 'takes nothing else' test --matrix --bogus
expect 2 '"bogus"' test baseline bogus
for machine in aarch64 s390x windows wasm; do expect 0 $machine test --help; done
expect 2 '"rules/decay"' test --machines s390x rules/decay
expect 2 '"--all"' test --machines --all
expect 2 'test --machines takes nothing else' test baseline --machines
expect 2 '"base"' test base
expect 2 '"--fuz"' test --fuz
expect 2 '"schedul"' test schedule schedul
expect 2 'golden' test goldn
expect 2 '"deca"' test deca
expect 2 '"rules/"' test rules/
expect 2 '"ules/decay"' test ules/decay
expect 2 '--fuzz takes nothing else' test baseline --fuzz
expect 2 "\"--hours\"" fuzz --hours 2
expect 1 "expected a whole number from 1" fuzz --minutes 0
expect 1 "expected a whole number from 1" torture --kills -3
expect 1 '"5x"; expected a whole number from 1' fuzz --minutes=5x
expect 1 '"0"; expected a whole number from 1' torture --steps=0
expect 2 "\"--kill\"" torture --kill 3
expect 2 '--all takes nothing else' test --all schedule
expect 2 '"include"' format include
expect 2 '"--fix"' tidy --fix
expect 2 '"--server"' docs --server
expect 2 '"single"' package single
expect 2 '"--epoch"' demo --epoch 3
expect 2 '"--epoch=3"' demo --lr -1 --epoch=3
expect 2 '"tenth"' demo tenth
expect 2 '"--ful"' bench --ful
expect 1 'bench --ranks takes nothing else' bench --ranks --full
expect 2 '"--ful"' bench --model gpt2 --ful
expect 2 '"gpt2"' bench gpt2
expect 2 '"gpt2"' bench --full gpt2
expect 2 '"--full=3"' bench --full=3
expect 2 '"--model=gpt2"' bench --model=gpt2
expect 2 '--model has no value' bench --full --model
expect 2 '""' bench --model ''
expect 2 '"--ful"' study --jobs 2 --ful
expect 2 'study report takes nothing else' study report --full
expect 2 '""' test ''

# And the stand-ins would have noticed.
for words in bench "bench --model gpt2" "test schedule" "test rules/decay" "test decay" "test rules"; do
  rm -f "$work/traces"
  "$source/dev" $words >/dev/null 2>&1 </dev/null && fault "./dev $words: passed without tools"
  [ -s "$work/traces" ] || fault "./dev $words: the stand-ins leave no traces"
done
exit $failed
