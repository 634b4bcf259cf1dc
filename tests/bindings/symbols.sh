#!/usr/bin/env bash
# The library exports the functions that its headers declare, and nothing else.
# symbols.sh NM LIBRARY HEADER...
set -euo pipefail
diff <("$1" -D --defined-only "$2" | awk '{ print $2, $3 }' | sort) \
     <(cat "${@:3}" | tr '\n' ' ' | grep -oE 'GRADUS_API [^;]*;' | grep -oE 'gradus_[a-z_0-9]+\(' | awk '!seen[$0]++ { sub(/\($/, ""); print "T", $0 }' | sort)
