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

ops=src/backend/cpu/ops.cpp kernels=src/backend/cpu/kernels.cpp
mutate "batch norm backward without the mean of dz" $ops 's/(gradient\.mean_dz.* = ).*;/\10;/'
mutate "batch norm backward without the part along the normalised value" $ops 's/(gradient\.slope.* = ).*;/\10;/'
mutate "batch norm backward without gamma" $ops 's/(gradient\.factor.* = )gamma.as<float>\(\)\[c\] \* /\1/'
mutate "the running variance divides by the count" $ops 's/count - 1\)/count)/'
mutate "the residual gradient overwritten: = for += in the block" src/model/block.cpp 's/diff_x\.write = Write::add/diff_x.write = Write::overwrite/'
mutate "the residual gradient overwritten: = for += in the kernel" $kernels 's/if \(t\.add\)/if (false)/'
mutate "eps 1e-3" src/model/net.h 's/norm_eps = 1e-5f/norm_eps = 1e-3f/'
mutate "eps 1e-4" src/model/net.h 's/norm_eps = 1e-5f/norm_eps = 1e-4f/'
mutate "momentum 0.01" src/model/net.h 's/norm_momentum = 0\.1f/norm_momentum = 0.01f/'
mutate "momentum as Keras means it" src/model/net.h 's/norm_momentum = 0\.1f/norm_momentum = 0.9f/'
mutate "the decay of AdamW coupled: L2 in its gradient" $kernels \
    's/const Vec decayed = .*;/const Vec decayed = load(p + i, k);/; s/(const Vec gradient = load\(g \+ i, k\) \* s\.multiplier);/\1 + load(p + i, k) * (s.decay \/ s.lr);/'
mutate "AdamW decays every parameter" src/backend/cpu/optimizer.cpp 's/adam\.decay = range\.decay \? (.*) : 0;/adam.decay = \1;/'
mutate "the warm-up a step behind" src/train/schedule.cpp 's/step \+ 1\)/step)/'
mutate "the cosine a step ahead" src/train/schedule.cpp 's/\(step - warmup_steps\)/(step + 1 - warmup_steps)/'
mutate "the trainer asks for the next step's rate" src/train/fit.cpp 's/schedule\.at\(state\(\)\.step\);/schedule.at(state().step + 1);/'
exit $((missed > 0))
