# shellcheck shell=bash
# shellcheck disable=SC2154  # what is not assigned here is a setting of gpu_check.sh
# Sourced by gpu_check.sh: the stages that ask whether it is right. Each stage runs in a shell of its own.

# --- doctor

finding() { # TOPIC FIELD: of what doctor found
    grep -o "{\"topic\":\"$1\"[^}]*}" "$WORK/doctor.found" | head -1 | sed "s/.*\"$2\":\"\([^\"]*\)\".*/\1/"
}

# Every figure of another build than this GPU's own would be worth nothing: PTX is compiled at its first start, for minutes.
need_module() {
    local capability text
    text=$(finding "GPU module" text)
    [ "$(finding "GPU module" state)" = good ] || stop "the GPU module does not load: ${text:-there is none}; $(finding "GPU module" remedy)"
    [ "$(finding "GPU 0" state)" = good ] || stop "the GPU cannot be used: $(finding GPU text)$(finding "GPU 0" text); $(finding GPU remedy)$(finding "GPU 0" remedy)"
    capability=$(finding "GPU 0" text | sed -n 's/.*compute capability \([0-9]*\)\.\([0-9]*\).*/\1\2/p')
    note capability "$(quoted "$capability")"
    [[ " ${text##*code for } " == *" sm_$capability "* ]] ||
        stop "the GPU module holds no machine code for this GPU (sm_$capability), only ${text##*code for }: make CUDA_ARCHS=$capability, then tools/gpu_bundle.sh $capability"
    say "$(finding "GPU 0" text); module with code for ${text##*code for }"
}

stage_doctor() {
    local status=0 found=$WORK/doctor.found ops=$WORK/doctor.self_test ran
    ours 40 "$rn50" doctor --json >"$found" || status=$?
    note doctor "$(cat "$found")"
    note doctor_status $status
    sed 's/},{"topic"/}\n{"topic"/g' "$found"
    [ "$DEVICE" = cpu ] || nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.used --format=csv,noheader
    need_gpu
    [ "$DEVICE" = cpu ] || need_module
    status=0
    ours 60 "$rn50" doctor --self-test --device "$DEVICE" --json >"$ops" || status=$?
    cat "$ops"
    note self_test "[$(grep '^{"op":.*}$' "$ops" | paste -sd,)]"
    ran=$(grep -c '^{"op":.*}$' "$ops")
    [ "$ran" -gt 0 ] || stop "the self-test ran not one op (status $status): $(tail -2 "$WORK/doctor.log" | tr '\n' ' ')"
    say "self-test: $(grep -c '^{"op":.*"fault":"",' "$ops") of $ran ops agree with the reference"
    grep '^{"op":.*}$' "$ops" | grep -v '"fault":"",' | head -8 |
        sed 's/{"op":"\([^"]*\)","precision":"\([^"]*\)".*"fault":"\(.*\)","device_lost.*/\1 in \2: \3/' | while read -r line; do
        say "  $line"
    done
    ! grep -q '"device_lost":true' "$ops" || say "  with that op the GPU was lost: none after it was tried"
    tail -1 "$ops" | grep -q '"passed"' || say "  the self-test did not come to its end (status $status)"
    return $status
}

# --- the tests on this device

# A group a line: its name, the files of its tests, some of their cases ("" for all). Each group runs in a process of its own,
# so that a fault that ends one leaves the others; the longest come first.
all_groups="nets50|*test_net.cpp|50 layers*
nets18|*test_net.cpp|18 layers*
conv|*test_ops_conv.cpp|
blocks|*test_blocks.cpp|
infer|*test_ops_infer.cpp|
norm|*test_ops_norm.cpp,*test_passes.cpp|
gray|*test_gray_net.cpp|
between|*test_ops_between.cpp,*test_ops_convert.cpp,*test_ops_contract.cpp|
loss|*test_ops_loss.cpp,*test_ops_optimizer.cpp|
decoding|*test_decoding.cpp|"
op_groups="conv|*test_ops_conv.cpp|
infer|*test_ops_infer.cpp|
norm|*test_ops_norm.cpp,*test_passes.cpp|
between|*test_ops_between.cpp,*test_ops_convert.cpp|
loss|*test_ops_loss.cpp,*test_ops_optimizer.cpp|"
if [ "$SMOKE" = 1 ]; then
    all_groups=$(grep -E '^(norm|loss)' <<<"$all_groups")
    op_groups=$all_groups
fi

# run_tests SECONDS FILES CASES [LAUNCHER...]: on this device alone; the CPU and the emulator have their runs elsewhere.
run_tests() {
    local seconds=$1 files=$2 cases=$3
    shift 3
    RN50_TESTS_DIR=$root/tests RN50_TEST_ON=$DEVICE ours "$seconds" "$@" "$tests" --no-colors=true --duration=true \
        "--source-file=$files" ${cases:+"--test-case=$cases"}
}

# in_parallel COMMAND...: the command with each line of standard input as its last argument, as many at once as the cores
# carry: the tests compute their references on one core each. Fails when one does.
in_parallel() {
    local line most=$(($(nproc) / 2))
    [ "$most" -ge 2 ] || most=2 # one that hangs must not keep all others waiting
    rm -f "$WORK/$stage.failed"
    while read -r line; do
        while [ "$(jobs -rp | wc -l)" -ge $most ]; do sleep 0.2; done
        ("$@" "$line" || : >"$WORK/$stage.failed") </dev/null &
    done
    wait
    [ ! -e "$WORK/$stage.failed" ]
}

test_group() { # GROUP: its verdict as soon as it is known
    local name files cases status=0 said started=$SECONDS passed=0 failed=0
    IFS='|' read -r name files cases <<<"$1"
    said=$WORK/tests.$name
    run_tests 240 "$files" "$cases" >"$said" 2>&1 || status=$?
    read -r passed failed < <(awk '/^\[doctest\] test cases:/ { print $6, $9 }' "$said")
    note "$name" "{\"status\": $status, \"passed\": ${passed:-0}, \"failed\": ${failed:-0}, \"seconds\": $((SECONDS - started))}"
    case $status in
        0) say "$(printf '%-9s %3d passed, %4d s' "$name" "$passed" $((SECONDS - started)))" ;;
        1) say "$(printf '%-9s %3d passed, %d FAILED, %4d s' "$name" "${passed:-0}" "${failed:-0}" $((SECONDS - started)))" ;;
        124) say "$name: FAILED at its limit; the last case that ended: $(grep -E '^[0-9.]+ s: ' "$said" | tail -1)" ;;
        *) say "$name: FAILED, ended with status $status after $(grep -E '^[0-9.]+ s: ' "$said" | tail -1)" ;;
    esac
    if [ $status != 0 ]; then
        awk '/^TEST CASE:/ { name = $0 } /ERROR: |lost in/ { if (name != "") print name; name = ""; print }' "$said" | head -8 |
            cut -c1-180 | while IFS= read -r line; do say "    $line"; done
        return 1
    fi
    ! grep -q 'cuda is not tested' "$said" || { say "$name: $(grep -m1 'cuda is not tested' "$said")" && return 1; }
}

stage_tests() {
    local status=0
    need_gpu
    need_tests
    # Only blocks and nets time their plans; that some of these run too is enough here.
    export OMP_NUM_THREADS=2 RN50_AUTOTUNE_SECONDS=10
    in_parallel test_group <<<"$all_groups" || status=1
    while IFS='|' read -r name _; do cuts "$WORK/tests.$name"; done <<<"$all_groups"
    say "$(grep -ho '"passed": [0-9]*' "$WORK/tests.facts" | awk '{ n += $2 } END { print n + 0 }') test cases passed," \
        "$(grep -ho '"failed": [0-9]*' "$WORK/tests.facts" | awk '{ n += $2 } END { print n + 0 }') failed"
    return $status
}

# --- compute-sanitizer

# sanitize TOOL SECONDS GROUP: what it found, also where its time did not suffice.
sanitize() {
    local tool=$1 seconds=$2 name files cases status=0 said faults options=()
    IFS='|' read -r name files cases <<<"$3"
    # cuDNN tries calls that may fail; rn50 looks at what its own return.
    [ "$tool" != memcheck ] || options=(--report-api-errors no)
    said=$WORK/sanitizer.$tool.$name
    # Each tensor in memory of its own, or its ends are not seen.
    RN50_ARENA=separate RN50_AUTOTUNE=0 run_tests "$seconds" "$files" "$cases" "$sanitizer" --tool "$tool" "${options[@]}" "${own_kernels[@]}" \
        --error-exitcode 9 --print-limit 20 >"$said" 2>&1 || status=$?
    faults=$(grep -cE '^=+ +(Invalid|Misaligned|Error: |Warning: Race|Race reported|Potential (WAW|WAR|RAW) hazard|Barrier error|Program hit)' "$said")
    note "$tool $name" "{\"status\": $status, \"faults\": $faults, \"said\": $(quoted "$(grep -E '(ERROR|RACECHECK) SUMMARY' "$said" | tail -1)")}"
    if grep -q 'Device not supported' "$said"; then
        say "$tool $name: compute-sanitizer does not work on this machine (device not supported)"
    elif [ $status = 0 ]; then
        say "$tool $name: no fault"
    elif [ $status = 124 ] && [ "$faults" = 0 ]; then
        say "$tool $name: no fault as far as its time sufficed ($(grep -cE '^[0-9.]+ s: ' "$said") cases)"
        return 0
    elif [ "$faults" = 0 ]; then
        say "$tool $name: no fault of memory, but the tests ended with status $status: $(grep -m1 -E 'ERROR: |^=+ Error' "$said" | cut -c1-120)"
    else
        say "$tool $name: $faults FAULTS (status $status) $(grep -E '(ERROR|RACECHECK) SUMMARY' "$said" | tail -1)"
        grep -E -A2 '^=+ +(Invalid|Misaligned|Error: |Race reported|Program hit)' "$said" | head -6 | cut -c1-160 |
            while IFS= read -r line; do say "    $line"; done
    fi
    return $status
}

stage_sanitizer() {
    local tool status=0 name seconds groups
    need_gpu
    need_tests
    [ "$DEVICE" = cuda ] || [ -n "${SANITIZER:-}" ] || skip "compute-sanitizer is for GPUs"
    sanitizer=${SANITIZER:-$(command -v compute-sanitizer || find -L /usr/local/cuda*/bin /usr/local/cuda*/compute-sanitizer -maxdepth 1 -name compute-sanitizer -print -quit 2>/dev/null)}
    [ -n "$sanitizer" ] || skip "no compute-sanitizer on this machine"
    export OMP_NUM_THREADS=2
    # cuDNN's kernels are NVIDIA's to check, and thousands; ours stand in namespace rn50::cuda.
    own_kernels=(--kernel-name kns=4rn504cuda)
    if ! grep -q -e '--kernel-name' <<<"$("$sanitizer" --help 2>&1)"; then
        own_kernels=()
        say "this compute-sanitizer cannot choose kernels by name: all are checked, cuDNN's too"
    fi
    for tool in memcheck racecheck; do
        seconds=$(stage_left) # the first takes 3 parts of 5, the second what is left
        [ $tool = racecheck ] || seconds=$((seconds * 3 / 5))
        groups=$op_groups
        # Under racecheck cuDNN's kernels end with illegal accesses and the tool with an error of its own, though it is told
        # to look at rn50's alone. Those that use shared memory, which it watches, are in the other groups, but for one.
        [ $tool = memcheck ] || groups=$(grep -vE '^(conv|infer)' <<<"$op_groups")
        in_parallel sanitize $tool "$seconds" <<<"$groups" || status=1
        while IFS='|' read -r name _; do cuts "$WORK/sanitizer.$tool.$name"; done <<<"$groups"
    done
    return $status
}

# --- several ranks

# ranks_run NAME BATCH ARGUMENTS...: a short training; its images/s and the mean loss of its last half go to NAME.rate, .loss
ranks_run() {
    local name=$1 batch=$2 run=$WORK/ranks_$1
    shift 2
    rm -rf "$run"
    ours 60 "$rn50" train "$data" --device "$DEVICE" --precision "$main_precision" --batch-size "$batch" --epochs 50 \
        --warmup-epochs 1 --max-steps "$rank_steps" --image-size "$rank_side" --decode region --out "$run" "$@" || return
    grep '"event":"step"' "$run/metrics.jsonl" | tail -n $((rank_steps / 2)) >"$WORK/ranks.steps"
    sed 's/.*"images_per_s":\([0-9.e+]*\).*/\1/' "$WORK/ranks.steps" | sort -g |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }' >"$WORK/ranks.$name.rate"
    sed 's/.*"loss":\([0-9.e+-]*\).*/\1/' "$WORK/ranks.steps" | awk '{ s += $1 } END { print s / NR }' >"$WORK/ranks.$name.loss"
}

stage_ranks() {
    local status=0 gpus=2 several=(--gpus 2) data rates losses
    need_gpu
    need_tests
    run_tests 60 '*test_gpu_ranks*' '' >"$WORK/ranks.said" 2>&1 || status=$?
    cat "$WORK/ranks.said"
    [ $status = 0 ] || return 1
    if [ "$DEVICE" = cpu ]; then
        several=(--ranks 2)
    else
        gpus=$(nvidia-smi -L | grep -c '^GPU ')
    fi
    if grep -q 'are not tested' "$WORK/ranks.said"; then
        say "$(grep -m1 -o 'ranks on .* are not tested.*' "$WORK/ranks.said")"
        return 1
    fi
    say "one rank by $(sed -n 's/.*MESSAGE: \(NCCL.*\|Gloo.*\)/\1/p' "$WORK/ranks.said" | head -1): every collective, and training as without"
    if [ "$gpus" -lt 2 ]; then
        say "one GPU: nothing of several"
        return
    fi
    data=$(draw_data) || return
    ranks_run one "$rank_batch" && ranks_run two "$rank_batch" "${several[@]}" && ranks_run large $((2 * rank_batch)) &&
        ranks_run synced "$rank_batch" "${several[@]}" --sync-bn || return 1
    rates=("$(cat "$WORK/ranks.one.rate")" "$(cat "$WORK/ranks.two.rate")")
    losses=("$(cat "$WORK/ranks.large.loss")" "$(cat "$WORK/ranks.synced.loss")")
    note rates "{\"one\": ${rates[0]}, \"two\": ${rates[1]}}"
    note losses "{\"one rank, twice the batch\": ${losses[0]}, \"two ranks, sync-bn\": ${losses[1]}}"
    say "two ranks: $(ratio "${rates[1]}" "${rates[0]}" 3)x the images/s of one, batch $rank_batch each"
    say "two ranks with sync-bn, mean loss ${losses[1]}; one rank with twice the batch ${losses[0]}"
    awk -v a="${losses[1]}" -v b="${losses[0]}" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(d <= 0.05 * b) }'
}
