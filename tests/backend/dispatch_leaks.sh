#!/usr/bin/env bash
# dispatch_leaks.sh NM OBJDUMP LIBRARY PROGRAM: nothing that is compiled for a wider instruction set in LIBRARY (gradus::dispatch)
# can be taken for the code of a PROGRAM, built without -march, that links with it.
set -euo pipefail
nm=$1 objdump=$2 library=$3 program=$4
failed=0

# Of each wide object, the program can see its table and what lies in the object's own namespace. And nothing in it runs
# before main: no constructor of a global.
for unit in avx2_fma avx512; do
  own="6gradus$((${#unit} + 9))${unit}_dispatch"
  symbols=$("$nm" "$library" 2>/dev/null | awk -v unit="$unit" '/:$/ { inside = index($0, unit ".cpp") == 1 } inside && NF == 3 { print $2, $3 }')
  grep -q " gradus_dispatch_$unit\$" <<<"$symbols" || { echo "no object of $unit was found in $library"; failed=1; }
  leaks=$(awk -v own="$own" -v table="gradus_dispatch_$unit" \
    '($1 ~ /[A-Zuvw]/ && $1 != "U" && $2 != table && !index($2, own)) || $2 ~ /^_GLOBAL__/' <<<"$symbols")
  [ -z "$leaks" ] || { printf 'symbols of %s that the program can share, or that run at its start:\n%s\n' "$unit" "$leaks"; failed=1; }
done

# In the program, only those namespaces' functions have instructions with the prefixes of AVX, AVX2, FMA and AVX-512, all of
# whose names start with v or k.
functions=$("$objdump" -d --no-show-raw-insn "$program" | awk '
  /^[0-9a-f]+ <.*>:$/ { name = $2 }
  $1 ~ /:$/ && ($2 ~ /^v/ || $2 ~ /^k[a-z]+[bwdq]$/) { if (!seen[name]++) print name }')
wide='6gradus(17avx2_fma|15avx512)_dispatch'
grep -Eq "$wide" <<<"$functions" || { echo "no wide function was found in $program"; failed=1; }
leaks=$(grep -Ev "$wide" <<<"$functions" || true)
[ -z "$leaks" ] || { printf 'functions of %s that hold wide instructions:\n%s\n' "$program" "$leaks"; failed=1; }
exit $failed
