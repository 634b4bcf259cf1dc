#!/usr/bin/env bash
# Runs the program of mpi.cpp over several numbers of ranks.
# mpi.sh device PROGRAM MPIRUN WORK  the program of mpi_device.cpp
# mpi.sh bits PROGRAM MPIRUN WORK    results and checkpoints are the same for all numbers of ranks
# mpi.sh fail PROGRAM MPIRUN WORK    whatever one rank does, the others end with a sentence, and in time
set -uo pipefail
what=$1 program=$2 mpirun=$3 work=$4
rm -rf "$work"
mkdir -p "$work"

# More ranks than cores, as root, without a network, and quiet.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_plm_rsh_agent=
failed=0
fault() { printf '%s\n' "$*"; failed=1; }
ranks() { # ranks N ARGUMENT...: the program's words are in $work/said
  local n=$1
  shift
  timeout -k 5 "${limit:-60}" "$mpirun" -n "$n" "$program" "$@" >"$work/said" 2>&1
}

if [ "$what" = device ]; then
  for n in 1 2 4; do ranks $n || fault "$n ranks: exit $?" "$(cat "$work/said")"; done
elif [ "$what" = bits ]; then
  from=plain
  for n in 1 3 2 8 4; do
    ranks $n bits "$work" $from || fault "$n ranks: exit $?" "$(cat "$work/said")"
    from=$n
  done
  ranks 1 plain "$work" 8 || fault "plain from 8 ranks: exit $?" "$(cat "$work/said")"
  # Every number of ranks has the same hashes; 3 ranks cannot share eight microbatches.
  for n in 2 4 8; do cmp "$work/hashes.1" "$work/hashes.$n" || failed=1; done
  grep -v microbatches "$work/hashes.1" | cmp - "$work/hashes.3" || failed=1
  [ "$(wc -l < "$work/hashes.1")" -ge 9 ] || fault "hashes are missing"
  for file in "$work"/*.plain; do
    for n in 1 2 3 4 8; do cmp "$file" "${file%.plain}.$n" || failed=1; done
  done
else
  # The deadline of the program is 2 s.
  expect() { # expect RANKS KIND TEXT [TIMES [FILE]]: a nonzero exit in time, and the sentence, on at least so many ranks
    local begin code try limit=20
    # On a busy machine Open MPI's mpirun itself may never return after MPI_Abort, when every rank has said its sentence
    # and is gone; so a run that hangs is tried again.
    for try in 1 2 3; do
      begin=$SECONDS code=0
      ranks "$1" fail "$2" ${5:+"$5"} || code=$?
      [ $code -eq 124 ] || [ $code -eq 137 ] || break
    done
    [ $code -ne 0 ] && [ $code -ne 124 ] || fault "$2 on $1 ranks: exit $code"
    [ $((SECONDS - begin)) -le 12 ] || fault "$2 on $1 ranks: took $((SECONDS - begin)) s"
    run="$2 on $1 ranks"
    says "$3" "${4:-1}"
  }
  says() { # says TEXT TIMES: so did the last run, so often
    local said
    said=$(grep -cF -- "$1" "$work/said")
    [ "$said" -ge "$2" ] || fault "$run: $said times '$1' in:" "$(cat "$work/said")"
  }
  n=3
  expect $n names "the ranks' lists differ in commit(): tensor 1 is \"b\" of 100 elements on rank 0, and another, or in another group, on rank $((n - 1))" $n
  expect $n sizes "tensor 1 is \"b\" of 100 elements on rank 0" $n
  expect $n lists "tensor 2 is missing on rank 0" $n
  expect $n hyperparameters "different hyperparameters, options, masks or frozen tensors" $n
  expect $n options "the ranks disagree in step 2" $n
  expect $n freeze "the ranks disagree in step 2" $n
  expect $n refused "step 2 failed on rank $((n - 1))" $((n - 1))
  says "lr_scale is -1; expected" 1
  expect $n throw "a rank throws" 1
  says "waited 2000 ms in step 2" $((n - 1))
  expect $n stall "waited 2000 ms in step 2" $((n - 1))
  expect $n quit "" 0
  expect $n skip "waited 2000 ms in step" 1
  expect $n other_call "" 0
  expect $n die "" 0
  # The old file stays, or a new one is whole: both have the size of a whole one.
  expect 3 full "which could not be written" 1 "$work/full"
  says "save() failed on rank 2" 2
  expect 3 kill "" 0 "$work/kill"
  for file in full kill; do
    [ "$(stat -c %s "$work/$file")" -eq "$(head -c 8 "$work/$file" | od -An -tu8 | awk '{ print $1 + 8 + 800000 + 8 }')" ] ||
      fault "after $file, the checkpoint is not whole"
  done
  [ ! -e "$work/full.partial" ] || fault "a save that failed leaves a partial file"
  ranks 2 fail nothing || fault "no failure: exit $?" "$(cat "$work/said")"
fi
[ $failed -ne 0 ] || rm -rf "$work"
exit $failed
