#!/bin/bash
# Breaks the kernels of cuda/ in every place where it is easy to break them, one place at a time in a copy of the tree, and
# asks the op tests on the emulator to notice:
#   - each __syncthreads() is left out,
#   - each comparison with a bound inside a kernel lets one element more through.
# The copy is built once, with a switch at each place; RN50_MUTANT throws one of them. Kernels, emulator and arenas are
# under the address and undefined-behaviour sanitizers there; all else is what is built already. First each test case runs
# alone without any mutant, which tells how long it takes and which switches it comes by; a mutant is then shown to these
# cases only, the quickest first. One that nobody notices fails the run.
#   tools/mutate_kernels.sh [FILE...]        all of cuda/, or these files of it; JOBS=2 mutants at a time
#   tools/mutate_kernels.sh --list           the places alone
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tests=build/rn50_tests
instrument='-O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-maybe-uninitialized -Wno-sign-compare'
# Vectors made in the code that is not instrumented do not tell which of their elements are in use.
export ASAN_OPTIONS=detect_container_overflow=0:detect_odr_violation=0
filter='--source-file=*test_ops_*,*test_*_kernels*'
list=
if [ "${1:-}" = --list ]; then
    list=1
    shift
fi

names='bytes|channels|dst_channels|src_channels|out_channels|columns|rows|src_rows|count|classes|batch|pixels|threads|tiles|end'
names+='|height|width|out_height|out_width|lanes|row_threads|column_rows|merge_rows|packed|k|block_threads / 32'
# a < b, a <= b, a > b and a >= b let one element more through, or fewer be held back, with one more on the right.
bound="( <| <=| >| >=) (([a-z_]+[.])?($names))([^a-zA-Z_0-9(]|\$)"

# One more changes nothing here: both sides of the choice are the same number then; or a thread looks at four more
# elements and finds each of them behind the end; or the loop is over a tile's sums, of which the template fixes the
# number.
harmless='rows_per_tile < rows \?|block_threads \+ threadIdx\.x\) \* 4; i < count;|int i = 0; i < k;'

if [ -z "$list" ]; then
    (cd "$root" && make --no-print-directory build-tests) >"$copy/build.log" || exit 1
fi
(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$copy" 2>/dev/null)
if [ -z "$list" ]; then
    mkdir "$copy/build"
    for built in deps src tests tools flags sources librn50.a; do cp -a "$root/build/$built" "$copy/build" || exit 1; done
fi
cd "$copy" || exit 1

cat >cuda/mutant.h <<'CODE'
#pragma once
#include <cstdio>
#include <cstdlib>
#include <set>
/// The switches that a test case comes by, written to the file that RN50_REACHED names.
struct ReachedMutants {
    std::set<int> numbers;
    ~ReachedMutants() {
        const char* const path = std::getenv("RN50_REACHED");
        FILE* const file = path != nullptr ? std::fopen(path, "w") : nullptr;
        if (file == nullptr) return;
        for (const int number : numbers)
            std::fprintf(file, "%d\n", number);
        std::fclose(file);
    }
};
inline ReachedMutants reached_mutants;
inline const int chosen_mutant = std::getenv("RN50_MUTANT") ? std::atoi(std::getenv("RN50_MUTANT")) : 0;
/// 1 for the mutant that RN50_MUTANT names.
inline int mutant(int number) {
    if (chosen_mutant == 0) reached_mutants.numbers.insert(number);
    return chosen_mutant == number ? 1 : 0;
}
CODE

# Lines of kernels and device functions that match a pattern: "LINE:TEXT".
sites() { # FILE PATTERN
    awk -v pattern="$2" '
        /__global__|__device__/ { inside = 1 }
        inside && $0 ~ pattern { print NR ":" $0 }
        /^}/ { inside = 0 }' "$1"
}

places=()
place() { # FILE LINE SED WHAT: puts a switch there; @ in SED stands for the mutant's number
    local number=$((${#places[@]} + 1)) before
    before=$(sed -n "$2p" "$1")
    sed -i -E "$2${3//@/$number}" "$1"
    if [ "$before" = "$(sed -n "$2p" "$1")" ]; then
        echo "GONE    $1:$2 $4"
        exit 1
    fi
    places+=("$1:$2 $4")
}
files=("$@")
[ ${#files[@]} = 0 ] && files=(cuda/*.cu cuda/*.cuh)
for file in "${files[@]}"; do
    while IFS=: read -r line _; do
        place "$file" "$line" 's/__syncthreads\(\);/if (!mutant(@)) __syncthreads();/' "without its barrier"
    done < <(sites "$file" '__syncthreads\\(\\)')
    while IFS=: read -r line text; do
        [[ $text =~ $harmless ]] && continue
        while [[ $(sed -n "${line}p" "$file") =~ $bound ]]; do  # a line may hold several
            what="${BASH_REMATCH[1]# } ${BASH_REMATCH[2]}"
            place "$file" "$line" "s~$bound~\\1 (\\2 + mutant(@))\\5~" "one more let through: $what"
        done
    done < <(sites "$file" "${bound//\\/\\\\}")
    sed -i '1i #include "mutant.h"' "$file"
done
echo "${#places[@]} places"
if [ -n "$list" ]; then
    printf '%s\n' "${places[@]}"
    exit 0
fi
touch tests/simt*.cpp src/tensor/arena.cpp
make --no-print-directory -j"${JOBS:-2}" RN50_HOME="$root" EMULATOR_FLAGS="$instrument" build/rn50_tests >build.log 2>&1 || {
    grep -m5 error build.log
    exit 1
}

# Each case alone: its time in ms to cases/NUMBER.ms, what it comes by to cases/NUMBER.
mkdir cases
mapfile -t cases < <("$tests" --no-colors=true "$filter" --list-test-cases | grep -v '^\[doctest\]\|^====*$')
run_case() { # NUMBER: a comma would end the filter, so that any character stands for it
    timeout 1800 "$tests" --no-colors=true --abort-after=1 "$filter" --test-case="${cases[$1]//,/?}"
}
wait_for_a_core() { while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n; done; }
for i in "${!cases[@]}"; do
    wait_for_a_core
    {
        started=$(date +%s%3N)
        RN50_REACHED=cases/$i run_case "$i" >"cases/$i.log" 2>&1 || touch "cases/$i.failed"
        echo $(($(date +%s%3N) - started)) >"cases/$i.ms"
    } &
done
wait
if compgen -G 'cases/*.failed' >/dev/null; then
    echo "tests fail without any mutant:"
    for i in "${!cases[@]}"; do [ -e "cases/$i.failed" ] && echo "    ${cases[i]}"; done
    exit 1
fi
by_time=$(for i in "${!cases[@]}"; do echo "$(cat "cases/$i.ms") $i"; done | sort -n | cut -d' ' -f2)
echo "${#cases[@]} test cases, $((($(cat cases/*.ms | paste -sd+)) / 1000)) s"

attempt() { # NUMBER WHAT
    local log=mutant_$1.log i by shown=0
    for i in $by_time; do
        grep -qx "$1" "cases/$i" || continue
        shown=$((shown + 1))
        RN50_MUTANT=$1 run_case "$i" >"$log" 2>&1 && continue
        by=$(grep -m1 -oE 'AddressSanitizer: [a-z-]+|runtime error: [^,]*|_kernel: .*' "$log")
        echo "caught  $2, by ${by:-${cases[i]}}"
        return
    done
    echo "MISSED  $2, by $shown test cases that come by"
}
for number in $(seq "${#places[@]}"); do
    wait_for_a_core
    attempt "$number" "${places[number - 1]}" | tee -a results &
done
wait
echo "$(grep -c '^caught' results) caught, $(grep -c '^MISSED' results) missed"
! grep -q '^MISSED' results
