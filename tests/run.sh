#!/bin/bash
# Runs the structural checks (tests/check_*.sh), the tests of whole programs (tests/test_NAME.sh, given the path of the
# program NAME, or else of rn50), then the doctest programs. The last line is "N passed, N failed": scripts and doctest
# cases together.
#   tests/run.sh BUILD_FOLDER RN50_PROGRAM
set -uo pipefail
build=$1 rn50=$2
here=$(dirname "$0")
passed=0 failed=0
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT

# The largest program computes on one core for as long as all else takes: all at once, the rest two at a time.
"$build/rn50_tests" --no-colors=true >"$work/rn50_tests" 2>&1 &
running=$!

script() { # SCRIPT ARGUMENTS...: what it says is shown when it fails
    local name said started=$SECONDS
    name=$(basename "$1")
    said=$(bash "$@" 2>&1)
    if [ $? = 0 ]; then
        echo "ok      $name ($((SECONDS - started)) s)"
        touch "$work/$name.passed"
    else
        printf 'FAILED  %s\n%s\n' "$name" "$(sed 's/^/        /' <<<"$said")"
        touch "$work/$name.failed"
    fi
}

for check in "$here"/check_*.sh; do
    script "$check"
done
for test in "$here"/test_*.sh; do
    name=$(basename "$test" .sh)
    program=$build/${name#test_}
    [ -x "$program" ] || program=$rn50
    while [ "$(jobs -rp | wc -l)" -ge 3 ]; do sleep 0.2; done # with the program above
    script "$test" "$program" &
done
# Last, because some of these look at what goes on at the same time.
libraries=
if [ -e "$build/cuda_library_tests" ]; then
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do sleep 0.2; done
    "$build/cuda_library_tests" --no-colors=true >"$work/cuda_library_tests" 2>&1 &
    libraries=$!
fi

add_cases() { # NAME STATUS: of a doctest program that has written to $report
    local name=$1 status=$2 cases_passed cases_failed
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

wait $running
status=$?
[ -z "$libraries" ] || wait $libraries
library_status=$?
wait
for result in "$work"/*.passed; do [ ! -e "$result" ] || passed=$((passed + 1)); done
for result in "$work"/*.failed; do [ ! -e "$result" ] || failed=$((failed + 1)); done
report=$work/rn50_tests
cat "$report"
add_cases rn50_tests $status
report=$work/cuda_library_tests
if [ -e "$report" ]; then
    cat "$report"
    add_cases cuda_library_tests $library_status
else
    echo "left out: cuda_library_tests, which needs the headers of CUDA and cuDNN"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
