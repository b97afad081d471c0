#!/bin/bash
# What must not stand in the files of the project: paths of the machine it was written on, and notes of unfinished work.
#   tests/check_words.sh [ROOT]
set -uo pipefail
cd "${1:-$(dirname "$0")/..}" || exit 1

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    files=$(git ls-files)
else
    files=$(find . -type f -not -path './build*' -not -path './runs/*' -not -path './data/*' -not -path './.git/*')
fi
# Brackets keep the patterns from matching themselves.
private='(^|[^a-zA-Z0-9_.*-])/(wor[k]|tmp/[w]|hom[e]/[a-z]+|roo[t])/'
unfinished='\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b|for no[w],|WI[P]\b'
status=0
# shellcheck disable=SC2086  # no name in this tree holds a space
grep -nIE "$private" $files && status=1
# shellcheck disable=SC2086
grep -nIE "$unfinished" $files && status=1
exit $status
