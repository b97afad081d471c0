#!/bin/bash
# Plants defects one by one in a copy of the tree and asks the tests to notice: names the test that fails first. A mutation
# which no test catches, or whose place in the code is no longer found, fails the run.
#   tools/mutations.sh [NAME...]        all mutations, or those whose name contains one of the arguments
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Tests of the numbers: the others cannot see these mutations and take their time.
filter=${RN50_MUTATION_TESTS:-*test_ops_*,*test_blocks*,*test_net*,*test_model*,*test_schedule*,*test_pipeline*,*test_augment*}
missed=0

# What is built already is taken along.
(cd "$root" && make --no-print-directory build-program build-tests build-make-defects) >"$copy/build.log" || exit 1
(cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$copy" 2>/dev/null)
cp -a "$root/build" "$root/rn50" "$copy"
cd "$copy" || exit 1

build() {
    make --no-print-directory -j"${JOBS:-2}" RN50_HOME="$root" "$@" >build.log 2>&1
}
# The loop of a training is seen by its end-to-end test alone.
run_tests() { # FILE
    if [ "$1" = src/train/fit.cpp ]; then
        build build-program && bash tests/test_train.sh ./rn50 >tests.log 2>&1
    else
        build/rn50_tests --no-colors=true --abort-after=1 --source-file="$filter" >tests.log 2>&1
    fi
}
caught_by() {
    sed -nE 's/^TEST CASE: *(.*)/        \1/p; s/^FAIL (.*)/        \1/p' tests.log | head -1
}

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
    elif ! build build-tests; then
        echo "BROKEN  $name: does not compile"
        grep -m3 error build.log
        missed=$((missed + 1))
    elif run_tests "$file"; then
        echo "MISSED  $name"
        missed=$((missed + 1))
    else
        echo "caught  $name, by"
        caught_by
    fi
    cp original "$file"
}

wanted=("$@")
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
mutate "the trainer asks for the next step's rate" src/train/fit.cpp 's/(return options_\.schedule\.at\(step)/\1 + 1/'
mutate "the loss without the weight of the label's class" $ops 's/(own = .*) \* weight\(label\)/\1/'
mutate "the loss divided by the batch in place of its weights" $ops 's/targets\.total > 0 \?/false ?/'
mutate "the partner's share for the label" src/pipeline/mix.cpp 's/dst\[i\] \* share \+ with\[i\] \* rest/dst[i] * rest + with[i] * share/'
mutate "CutMix's share of a rectangle that the edges do not cut" src/pipeline/mix.cpp 's/\(1 - cut\) \* Mix::whole/(cut < 2 ? share : cut) * Mix::whole/'
mutate "the batch rolled the other way" src/pipeline/mix.cpp 's/labels\[i > 0 \? i - 1 : count - 1\]/labels[(i + 1) % count]/'
mutate "the balanced sampler starts anew each epoch" src/pipeline/sampler.cpp 's/\(k % count\)/((k - first) % count)/'
mutate "the balanced sampler keeps its first order" src/pipeline/sampler.cpp 's/k \/ count != round/k == first/; s/round = k \/ count/round = 0/'
mutate "repeated pictures are augmented alike" src/pipeline/loader.cpp 's/index \| static_cast<int64_t>\(draw\.repeat\) << 32/index/'
mutate "what cannot be read counts as a bad picture" src/pipeline/loader.cpp 's/unread != nullptr && !unread->gone\(\)/unread != nullptr \&\& unread->error() < 0/'
mutate "each picture of a lost disk is waited for" src/pipeline/patience.cpp 's/\*patience\.over = true;//'
mutate "a fingerprint without labels" src/pipeline/source.cpp 's/value_ = crc32c\(&label, sizeof label, value_\)/static_cast<void>(label)/'
mutate "equalize without its half step" src/pipeline/policy.cpp 's/below = step \/ 2/below = 0/'
mutate "rotation clockwise" src/pipeline/policy.cpp 's/exact_sine_cosine\(-degrees\)/exact_sine_cosine(degrees)/'
mutate "blur repeats the edge" src/pipeline/filters.cpp 's/return i < 0 \? -i/return i < 0 ? 0/'
mutate "erasing never tries again" src/pipeline/augment.cpp 's/h >= size \|\| w >= size\) continue/h >= size || w >= size) return {}/'
mutate "the kernel's contrast about the grey before the other jitters" cuda/augment.cu 's/step < 3 && change\.order/step < 0 \&\& change.order/'
exit $((missed > 0))
