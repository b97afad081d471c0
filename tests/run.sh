#!/bin/bash
# Runs the structural checks (tests/check_*.sh), the tests of whole programs (tests/test_NAME.sh, given the path of the
# program NAME, or else of rn50), then the doctest programs. The last line is "N passed, N failed": scripts and doctest
# cases together.
#   tests/run.sh BUILD_FOLDER RN50_PROGRAM
set -uo pipefail
build=$1 rn50=$2
here=$(dirname "$0")
passed=0 failed=0

script() { # SCRIPT ARGUMENTS...: what it says is shown when it fails
    local said started=$SECONDS
    if said=$(bash "$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok      $(basename "$1") ($((SECONDS - started)) s)"
    else
        failed=$((failed + 1))
        echo "FAILED  $(basename "$1")"
        sed 's/^/        /' <<<"$said"
    fi
}

for check in "$here"/check_*.sh; do
    script "$check"
done
for test in "$here"/test_*.sh; do
    [ -e "$test" ] || continue
    name=$(basename "$test" .sh)
    program=$build/${name#test_}
    [ -x "$program" ] || program=$rn50
    script "$test" "$program"
done

report=$(mktemp)
trap 'rm -f "$report"' EXIT
cases() { # DOCTEST_PROGRAM: adds its cases
    local name status cases_passed cases_failed
    name=$(basename "$1")
    "$1" --no-colors=true 2>&1 | tee "$report"
    status=${PIPESTATUS[0]}
    # [doctest] test cases:  12 |  11 passed | 1 failed | 0 skipped
    read -r cases_passed cases_failed < <(awk '/^\[doctest\] test cases:/ { p = $6; f = $9 } END { print p + 0, f + 0 }' "$report")
    passed=$((passed + cases_passed))
    failed=$((failed + cases_failed))
    if [ "$status" != 0 ] && [ "$cases_failed" = 0 ]; then
        echo "$name ended with status $status before it could report"
        failed=$((failed + 1))
    elif [ "$cases_passed" = 0 ] && [ "$cases_failed" = 0 ]; then
        echo "$name ran no case at all"
        failed=$((failed + 1))
    fi
}

cases "$build/rn50_tests"
if [ -e "$build/cuda_library_tests" ]; then
    cases "$build/cuda_library_tests"
else
    echo "left out: cuda_library_tests, which needs the headers of CUDA and cuDNN"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
