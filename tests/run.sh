#!/bin/bash
# Runs the structural checks (tests/check_*.sh) and then the doctest program. The last line is "N passed, N failed": the
# checks and the doctest cases together.
#   tests/run.sh PATH/rn50_tests
set -uo pipefail
program=$1
here=$(dirname "$0")
passed=0 failed=0

for check in "$here"/check_*.sh; do
    if said=$(bash "$check" 2>&1); then
        passed=$((passed + 1))
        echo "ok      $(basename "$check")"
    else
        failed=$((failed + 1))
        echo "FAILED  $(basename "$check")"
        sed 's/^/        /' <<<"$said"
    fi
done

report=$(mktemp)
trap 'rm -f "$report"' EXIT
"$program" --no-colors=true 2>&1 | tee "$report"
status=${PIPESTATUS[0]}
# [doctest] test cases:  12 |  11 passed | 1 failed | 0 skipped
read -r cases_passed cases_failed < <(awk '/^\[doctest\] test cases:/ { p = $6; f = $9 } END { print p + 0, f + 0 }' "$report")
passed=$((passed + cases_passed))
failed=$((failed + cases_failed))
if [ "$status" != 0 ] && [ "$cases_failed" = 0 ]; then
    echo "rn50_tests ended with status $status before it could report"
    failed=$((failed + 1))
fi
if [ "$cases_passed" = 0 ]; then
    echo "rn50_tests passed no case at all"
    [ "$failed" != 0 ] || failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
