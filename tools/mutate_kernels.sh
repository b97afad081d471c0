#!/bin/bash
# Breaks the kernels of cuda/ in every place where it is easy to break them, one place at a time in a copy of the tree, and
# asks the op tests on the emulator to notice:
#   - each __syncthreads() is left out,
#   - each comparison with a bound inside a kernel lets one element more through.
# The copy is built once, with a switch at each place; RN50_MUTANT throws one of them. The tests run under the address and
# undefined-behaviour sanitizers. A mutant that nobody notices fails the run.
#   tools/mutate_kernels.sh [FILE...]        all of cuda/, or these files of it; JOBS=2 mutants at a time
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
sanitize=SANITIZE=address,undefined
tests=build/sanitize-address-undefined/rn50_tests
# The tests of kernels; a missed barrier shows in one order of threads at least. Those of convolutions take most of the
# time, for the emulated products, and are asked last.
filter='*test_ops_*,*test_*_kernels*'
products='conv*,a packed*'
bounds='channels|dst_channels|src_channels|out_channels|columns|rows|count|classes|batch|pixels|threads|tiles|end|height|width|out_height|out_width|lanes|row_threads|packed'

# One more changes nothing here: both sides of the choice are the same number then; or a thread looks at four more
# elements and finds each of them behind the end.
harmless='rows_per_tile < rows \?|block_threads \+ threadIdx\.x\) \* 4; i < count;'

(cd "$root" && make --no-print-directory "$sanitize" build-tests) >"$copy/build.log" || exit 1
(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$copy" 2>/dev/null)
mkdir -p "$copy/build"
cp -a "$root/build/deps" "$root/build/sanitize-address-undefined" "$copy/build"
cd "$copy" || exit 1

cat >cuda/mutant.h <<'CODE'
#pragma once
#include <cstdlib>
/// 1 for the mutant that RN50_MUTANT names.
inline int mutant(int number) {
    static const int chosen = std::getenv("RN50_MUTANT") ? std::atoi(std::getenv("RN50_MUTANT")) : 0;
    return chosen == number ? 1 : 0;
}
CODE

# Lines of kernels and device functions that match a pattern: "LINE:TEXT".
sites() { # FILE PATTERN
    awk -v pattern="$2" '
        /__global__|__device__/ { inside = 1 }
        inside && $0 ~ pattern { print NR ":" $0 }
        /^}/ { inside = 0 }' "$1"
}

names=()
place() { # FILE LINE SED WHAT: puts a switch there; @ in SED stands for the mutant's number
    local number=$((${#names[@]} + 1)) before
    before=$(sed -n "$2p" "$1")
    sed -i -E "$2${3//@/$number}" "$1"
    if [ "$before" = "$(sed -n "$2p" "$1")" ]; then
        echo "GONE    $1:$2 $4"
        exit 1
    fi
    names+=("$1:$2 $4")
}
files=("$@")
[ ${#files[@]} = 0 ] && files=(cuda/*.cu cuda/*.cuh)
for file in "${files[@]}"; do
    while IFS=: read -r line _; do
        place "$file" "$line" 's/__syncthreads\(\);/if (!mutant(@)) __syncthreads();/' "without its barrier"
    done < <(sites "$file" '__syncthreads\\(\\)')
    while IFS=: read -r line text; do
        [[ $text =~ $harmless ]] && continue
        # a < b and a >= b with one more on the right are a <= b and a > b
        place "$file" "$line" "s/( <| >=) (([a-z_]+[.])?($bounds))\\b/\\1 (\\2 + mutant(@))/" "with one element more"
    done < <(sites "$file" "( <| >=) ([a-z_]+[.])?($bounds)([^a-zA-Z_]|\$)")
    sed -i '1i #include "mutant.h"' "$file"
done
echo "${#names[@]} places"
make --no-print-directory -j"${JOBS:-2}" RN50_HOME="$root" "$sanitize" build-tests >build.log 2>&1 || {
    grep -m5 error build.log
    exit 1
}

sound() { # NUMBER LOG: whether nobody notices
    local options=(--no-colors=true --abort-after=1 "--source-file=$filter")
    RN50_MUTANT=$1 timeout 1800 "$tests" "${options[@]}" "--test-case-exclude=$products" >"$2" 2>&1 &&
        RN50_MUTANT=$1 timeout 1800 "$tests" "${options[@]}" "--test-case=$products" >"$2" 2>&1
}

attempt() { # NUMBER WHAT
    local log=mutant_$1.log by
    if sound "$1" "$log"; then
        echo "MISSED  $2"
        return
    fi
    by=$(grep -m1 -oE 'AddressSanitizer: [a-z-]+|runtime error: [^,]*|_kernel: .*' "$log")
    echo "caught  $2, by ${by:-$(sed -nE 's/^TEST CASE: *(.*)/\1/p' "$log" | head -1)}"
}
sound 0 sound.log || {
    echo "the tests fail without any mutant:"
    tail -20 sound.log
    exit 1
}
for number in $(seq "${#names[@]}"); do
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n; done
    attempt "$number" "${names[number - 1]}" | tee -a results &
done
wait
echo "$(grep -c '^caught' results) caught, $(grep -c '^MISSED' results) missed"
! grep -q '^MISSED' results
