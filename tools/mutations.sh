#!/bin/bash
# Plants defects one by one in a copy of the tree and asks the tests to notice. A mutation which no test catches, or
# whose place in the code is no longer found, fails the run.
#   tools/mutations.sh [NAME...]        all mutations, or those whose name contains one of the arguments
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Tests of the numbers: the others cannot see these mutations and take their time.
filter=${RN50_MUTATION_TESTS:-*test_ops_*,*test_net*,*test_schedule*,*test_trainer*,*test_train*}
missed=0

(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy" 2>/dev/null)
cd "$copy" || exit 1

build() { make --no-print-directory -j"${JOBS:-2}" build-tests >build.log 2>&1; }
run_tests() { timeout 900 build/rn50_tests --no-colors=true --source-file="$filter" >tests.log 2>&1; }
caught_by() { awk '/^TEST CASE:/ { sub(/^TEST CASE: */, ""); if (!seen[$0]++) print "        " $0 }' tests.log; }

# mutate NAME FILE SED
mutate() {
    local name=$1 file=$2 edit=$3
    if [ ${#wanted[@]} != 0 ]; then
        local some
        for some in "${wanted[@]}"; do [[ $name == *"$some"* ]] && break; some=; done
        [ -n "$some" ] || return 0
    fi
    cp "$file" original
    sed -i -E "$edit" "$file"
    if cmp -s "$file" original; then
        echo "GONE    $name: nothing in $file matches $edit"
        missed=$((missed + 1))
    elif ! build; then
        echo "BROKEN  $name: does not compile"
        grep -m3 error build.log
        missed=$((missed + 1))
    elif run_tests; then
        echo "MISSED  $name"
        missed=$((missed + 1))
    else
        echo "caught  $name, by"
        caught_by
    fi
    cp original "$file"
}

wanted=("$@")
echo "building the tests as they are"
build || { tail build.log; exit 1; }
run_tests || { echo "the tests fail without any mutation"; tail tests.log; exit 1; }

# MUTATIONS
exit $((missed > 0))
