#!/bin/bash
# Breaks the kernels of cuda/ in every place where it is easy to break them, one at a time in a copy of the tree, and asks
# the op tests on the emulator to notice:
#   - each __syncthreads() is deleted,
#   - each comparison with a bound inside a kernel lets one element more through (< becomes <=, >= becomes >).
# The tests run under the address and undefined-behaviour sanitizers. A mutation that nobody notices fails the run.
#   tools/mutate_kernels.sh [FILE...]        all of cuda/, or these files of it
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
sanitize=SANITIZE=address,undefined
tests=build/sanitize-address-undefined/rn50_tests
# The shortest way to the answer: ops alone; a missed barrier shows in one order of threads at least.
filter='*test_ops_*'
bounds='channels|dst_channels|src_channels|out_channels|columns|rows|count|classes|batch|pixels|threads|tiles|end|height|width|out_height|out_width|lanes|row_threads|packed'

# One more changes nothing here: both sides of the choice are the same number then.
harmless='rows_per_tile < rows \?'

(cd "$root" && make --no-print-directory "$sanitize" build-tests) >"$copy/build.log" || exit 1
(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$copy" 2>/dev/null)
mkdir -p "$copy/build"
cp -a "$root/build/deps" "$root/build/sanitize-address-undefined" "$copy/build"
cd "$copy" || exit 1

# Lines of kernels and device functions that match a pattern: "LINE:TEXT".
sites() { # FILE PATTERN
    awk -v pattern="$2" '
        /__global__|__device__/ { inside = 1 }
        inside && $0 ~ pattern { print NR ":" $0 }
        /^}/ { inside = 0 }' "$1"
}

caught=0 missed=0
attempt() { # FILE LINE SED WHAT
    cp "$1" original
    sed -i -E "$2$3" "$1"
    local where="$1:$2 $4"
    if cmp -s "$1" original; then
        echo "GONE    $where"
        missed=$((missed + 1))
    elif ! make --no-print-directory -j"${JOBS:-2}" RN50_HOME="$root" "$sanitize" build-tests >build.log 2>&1; then
        echo "BROKEN  $where"
        grep -m3 error build.log
        missed=$((missed + 1))
    elif timeout 900 "$tests" --no-colors=true --abort-after=1 --source-file="$filter" >tests.log 2>&1; then
        echo "MISSED  $where"
        missed=$((missed + 1))
    else
        local by
        by=$(grep -m1 -oE 'AddressSanitizer: [a-z-]+|runtime error: [^,]*|_kernel: .*' tests.log)
        echo "caught  $where, by ${by:-$(sed -nE 's/^TEST CASE: *(.*)/\1/p' tests.log | head -1)}"
        caught=$((caught + 1))
    fi
    cp original "$1"
}

files=("$@")
[ ${#files[@]} = 0 ] && files=(cuda/*.cu cuda/*.cuh)
for file in "${files[@]}"; do
    while IFS=: read -r line _; do
        attempt "$file" "$line" 's/__syncthreads\(\);/(void)0;/' "without its barrier"
    done < <(sites "$file" '__syncthreads\\(\\)')
    while IFS=: read -r line text; do
        [[ $text =~ $harmless ]] && continue
        if [[ $text == *">="* ]]; then
            attempt "$file" "$line" "s/>= (([a-z_]+[.])?($bounds))\\b/> \\1/" "with > for >="
        else
            attempt "$file" "$line" "s/ < (([a-z_]+[.])?($bounds))\\b/ <= \\1/" "with <= for <"
        fi
    done < <(sites "$file" "( <| >=) ([a-z_]+[.])?($bounds)([^a-zA-Z_]|\$)")
done
echo "$caught caught, $missed missed"
[ $missed = 0 ]
