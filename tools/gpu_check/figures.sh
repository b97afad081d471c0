# shellcheck shell=bash
# shellcheck disable=SC2154  # what is not assigned here is a setting of gpu_check.sh
# Sourced by gpu_check.sh: the stages that measure speed and memory. Each figure is noted and said as soon as it is known.

# our_step BATCH PRECISION MEMORY FILE [OPTION...]: rn50's images/s and megabytes, as JSON.
our_step() {
    local status=0
    ours 100 "$rn50" bench step --device "$DEVICE" --precision "$2" --batch-size "$1" --image-size "$side" --memory "$3" \
        --max-steps "$step_count" "${@:5}" --json >"$4" 2>"$4.said" || status=$?
    cat "$4.said" "$4"
    if [ $status != 0 ] || [ ! -s "$4" ]; then
        say "rn50, $2, batch $1, $3: FAILED with status $status: $(tail -1 "$4.said" | cut -c1-200)"
        rm -f "$4"
        return 1
    fi
    note "rn50 $2 $1 $3 $(basename "$4")" "$(cat "$4")"
    ! grep -q 'timing convolutions has taken' "$4.said" ||
        say "rn50, $2, batch $1: not all convolutions were timed within RN50_AUTOTUNE_SECONDS=$RN50_AUTOTUNE_SECONDS: a run of its own is faster"
}

# their_step MODE PRECISION BATCH FILE: PyTorch's.
their_step() {
    [ "$torch" = 1 ] || return 0 # then rn50 stands alone
    within 120 "$PYTHON" "$root/tools/torch_bench.py" --device "$DEVICE" --mode "$1" --precision "$2" --batch-size "$3" \
        --image-size "$side" --seconds "$seconds" >"$4" 2>"$4.said"
    local status=$?
    cat "$4.said" "$4"
    note "torch $1 $2 $3 $(basename "$4")" "$(cat "$4")"
    [ $status = 0 ] || say "PyTorch, $1, $2, batch $3: FAILED with status $status: $(tail -1 "$4.said" | cut -c1-200)"
    return $status
}

# compared WHAT OURS_FILES THEIRS_FILES: the best of several runs' images/s, and memory, side by side. Leaves the two ratios
# in $speed and $memory.
compared() {
    local our their our_mb their_mb
    # shellcheck disable=SC2086  # lists of files
    our=$(best $2) their=$(best $3)
    our_mb=$(number memory_mb "${2%% *}") their_mb=$(number memory_mb "${3%% *}")
    speed=$(ratio "$our" "$their" 3) memory=$(ratio "$our_mb" "$their_mb" 3)
    if [ -n "$their" ]; then
        say "$(printf '%-34s rn50 %9.1f   PyTorch %9.1f images/s   %sx    %8.0f of %8.0f MB   %sx' "$1" "${our:-0}" "$their" \
            "$speed" "${our_mb:-0}" "${their_mb:-0}" "$memory")"
    else
        say "$(printf '%-34s rn50 %9.1f   PyTorch      none images/s   %8.0f MB' "$1" "${our:-0}" "${our_mb:-0}")"
    fi
    note "ratio: $1" "{\"speed\": \"$speed\", \"memory\": \"$memory\"}"
}

memory_line() { # OURS THEIRS: what the plans leave out
    say "$(printf '    memory, MB: rn50 planned %.0f, taken %.0f; PyTorch %.0f, %.0f while cuDNN was tried out, %.0f reserved' \
        "$(number memory_mb "$1")" "$(number memory_taken_mb "$1")" "$(number memory_mb "$2")" \
        "$(number search_mb "$2")" "$(number reserved_mb "$2")")"
}

# pair BATCH TURN: rn50, then PyTorch eager. In turns: clocks and temperature move.
pair() {
    local batch=$1 turn=$2 ours="" theirs="" i t=$WORK/steps
    for ((i = 1; i <= turn; i++)); do
        ours="$ours $t/ours.$main_precision.$batch.full.$i"
        theirs="$theirs $t/eager.$main_precision.$batch.$i"
    done
    our_step "$batch" "$main_precision" full "$t/ours.$main_precision.$batch.full.$turn" || return
    their_step eager "$main_precision" "$batch" "$t/eager.$main_precision.$batch.$turn" || status=1
    compared "$main_precision, batch $batch$([ "$turn" = 1 ] || echo ", best of $turn")" "${ours# }" "${theirs# }"
    [ ! -s "$t/eager.$main_precision.$batch.1" ] || [ "$turn" != 1 ] || memory_line "${ours# }" "${theirs# }"
    [ "$batch" = "${batches%% *}" ] || return 0
    judge "images/s beside PyTorch eager, $main_precision, batch $batch" "$speed" at-least 1
    [ "$turn" != 1 ] || judge "memory beside PyTorch eager, $main_precision, batch $batch" "$memory" at-most 0.85
}

lean() { # BATCH
    local batch=$1 t=$WORK/steps
    our_step "$batch" "$main_precision" lean "$t/ours.$main_precision.$batch.lean.1" || return
    compared "$main_precision, batch $batch, lean" "$t/ours.$main_precision.$batch.lean.1" "$t/eager.$main_precision.$batch.1"
    [ "$batch" != "${batches%% *}" ] || judge "lean memory beside PyTorch eager, $main_precision, batch $batch" "$memory" at-most 0.72
}

torch_or_alone() {
    torch=1
    has_torch && return
    torch=0
    say "$PYTHON has no PyTorch with torchvision to compare with: rn50 stands alone"
}

stage_steps() {
    local status=0 batch torch speed memory
    need_gpu
    torch_or_alone
    mkdir -p "$WORK/steps"
    rm -f "$WORK"/steps/{ours,eager}."$main_precision".* # of an earlier call, which this one is not to be compared with
    for batch in $batches; do
        if ! pair "$batch" 1; then
            status=1
            [ "$batch" = "${batches%% *}" ] || continue
            say "rn50 makes no step: PyTorch is not measured"
            return 1
        fi
        lean "$batch" || status=1
    done
    for batch in $batches; do # as far as time suffices: a single run may have been unlucky
        [ "$(stage_left)" -gt "$second_turn" ] || break
        pair "$batch" 2 || status=1
    done
    return $status
}

stage_precisions() {
    local status=0 batch=${batches%% *} precision torch speed memory t=$WORK/steps
    need_gpu
    [ "$precisions" != "$main_precision" ] || skip "$main_precision is the only precision here"
    torch_or_alone
    mkdir -p "$t"
    for precision in ${precisions#"$main_precision"}; do
        our_step "$batch" "$precision" full "$t/ours.$precision.$batch.full.1" || { status=1 && continue; }
        their_step eager "$precision" "$batch" "$t/eager.$precision.$batch.1" || status=1
        compared "$precision, batch $batch" "$t/ours.$precision.$batch.full.1" "$t/eager.$precision.$batch.1"
    done
    return $status
}

# What a step gains that is recorded as a CUDA graph, at batches so small that launches may cost more than kernels do.
stage_graphs() {
    local status=0 batch turn option t=$WORK/graphs
    need_gpu
    mkdir -p "$t"
    rm -f "$t"/*
    for batch in $graph_batches; do
        for turn in 1 2; do # in turns: clocks and temperature move
            for option in no yes; do
                our_step "$batch" "$main_precision" full "$t/$option.$batch.$turn" --cuda-graph $option || return
                ! grep -q 'steps are not recorded' "$t/$option.$batch.$turn.said" || { # said by rn50, with the reason
                    say "$(grep -m1 'steps are not recorded' "$t/$option.$batch.$turn.said" | cut -c1-200)"
                    [ "$DEVICE" = cpu ] || status=1
                }
            done
        done
        say "$(printf '%s, batch %d: op by op %9.1f   recorded %9.1f images/s   %sx' "$main_precision" "$batch" \
            "$(best "$t/no.$batch.1" "$t/no.$batch.2")" "$(best "$t/yes.$batch.1" "$t/yes.$batch.2")" \
            "$(ratio "$(best "$t/yes.$batch.1" "$t/yes.$batch.2")" "$(best "$t/no.$batch.1" "$t/no.$batch.2")" 3)")"
    done
    return $status
}

stage_compile() {
    local status=0 batch torch=1 speed memory ours t=$WORK/steps
    need_gpu
    need_torch
    [ "$SMOKE" = 0 ] || skip "compiling takes minutes on a processor"
    mkdir -p "$t"
    for batch in $batches; do
        ours=$t/ours.$main_precision.$batch.full.1
        [ -s "$ours" ] || our_step "$batch" "$main_precision" full "$ours" || return
        their_step compile "$main_precision" "$batch" "$t/compile.$main_precision.$batch" || status=1
        compared "$main_precision, batch $batch, torch.compile" "$ours $([ ! -s "${ours%1}2" ] || echo "${ours%1}2")" \
            "$t/compile.$main_precision.$batch"
    done
    return $status
}

# Passes over less than this are a matter of launches, not of bandwidth; and some are not over this GPU's memory alone.
least_bytes=32000000
stage_kernels() {
    local precision status=0 found group name bytes us rate part word
    need_gpu
    for precision in $precisions; do
        [ "$precision" != tf32 ] || continue # fp32's passes
        found=$WORK/kernels.$precision
        rm -f "$found.words"
        ours 60 "$rn50" bench kernels --device "$DEVICE" --precision "$precision" --batch-size "$kernel_batch" \
            --image-size "$kernel_side" --json >"$found" || { status=1 && continue; }
        note "$precision" "$(cat "$found")"
        say "$precision, batch $kernel_batch: a copy moves $(printf '%.0f' "$(number copy_gb_s "$found")") GB/s; of that"
        while IFS='|' read -r group name bytes us rate part; do
            word=$(awk -v name="$name" -v bytes="$bytes" -v part="$part" -v least=$least_bytes -v smoke="$SMOKE" 'BEGIN {
                if (name ~ /^copy/ || bytes < least || smoke == 1) print ""
                else print (part >= 0.8) ? "reached" : "MISSED 80%" }')
            say "$(awk -v g="$group" -v n="$name" -v u="$us" -v r="$rate" -v p="$part" -v w="$word" \
                'BEGIN { printf "  %-34s %-26s %10.1f us %8.1f GB/s %5.0f%%  %s", g, n, u, r, 100 * p, w }')"
            [ -z "$word" ] || echo "$word|$group, $name" >>"$found.words"
        done < <(grep -o '{"group"[^}]*}' "$found" |
            sed 's/.*"group":"\([^"]*\)","name":"\([^"]*\)","bytes":\([^,]*\),"us":\([^,]*\),"gb_s":\([^,]*\),"of_copy":\([^}]*\)}/\1|\2|\3|\4|\5|\6/')
        judge "passes over memory at 80% of a copy or more, $precision" \
            "$(awk '/^reached/ { n++ } END { if (NR) print n / NR }' "$found.words" 2>/dev/null)" at-least 1
    done
    return $status
}

stage_shares() {
    local batch=${batches%% *} ncu ncu_batch=${batches##* }
    need_gpu
    say "a step at batch $batch by operation, each waited for (so their sum is more than a step):"
    ours 60 "$rn50" bench step --device "$DEVICE" --precision "$main_precision" --batch-size "$batch" --image-size "$side" \
        --max-steps 5 --verbose 2>"$WORK/shares.by_op" || { cat "$WORK/shares.by_op" && return 1; }
    cat "$WORK/shares.by_op"
    note by_op "$(quoted "$(cat "$WORK/shares.by_op")")"
    # Convolutions by phase, the rest by op.
    while IFS= read -r line; do say "$line"; done < <(awk '$NF ~ /%$/ && $1 != "all" {
            name = $1; for (i = 2; i <= NF - 3; i++) name = name " " $i
            if (name ~ /^(conv1|layer)/) name = "convolutions " $(NF - 3)
            ms[name] += $(NF - 1); sum += $(NF - 1) }
        END { for (n in ms) printf "%10.2f ms  %5.1f%%  %s\n", ms[n], 100 * ms[n] / sum, n }' "$WORK/shares.by_op" | sort -rn)
    [ "$DEVICE" = cuda ] || return 0
    ncu=$(command -v ncu || find -L /opt/nvidia/nsight-compute /usr/local/cuda*/bin -maxdepth 2 -name ncu -print -quit 2>/dev/null)
    [ -n "$ncu" ] || { say "no ncu on this machine: no shares by kernel" && return 0; }
    # Once without it, so that convolutions are timed then and not under the profiler; the smaller batch, for ncu runs each
    # kernel alone, under its own clock; shares are what counts.
    local one=(bench step --device cuda --precision "$main_precision" --batch-size "$ncu_batch" --image-size "$side" --max-steps 1)
    ours 60 "$rn50" "${one[@]}" || return 1
    ours 90 "$ncu" --clock-control none --metrics gpu__time_duration.sum --csv "$rn50" "${one[@]}" \
        >"$WORK/shares.ncu" 2>"$WORK/shares.ncu.err" || { say "ncu: $(tail -1 "$WORK/shares.ncu.err") $(grep -m1 '==ERROR==' "$WORK/shares.ncu")" && return 1; }
    "$PYTHON" "$root/tools/gpu_check/kernel_times.py" "$WORK/shares.ncu" >"$WORK/shares.by_kernel" || return
    say "by kernel (ncu, batch $ncu_batch, all steps of a short run):"
    while IFS= read -r line; do say "$line"; done <"$WORK/shares.by_kernel"
    note by_kernel "$(quoted "$(cat "$WORK/shares.by_kernel")")"
}
