#!/bin/bash
# What only a machine with a GPU can show: the tests on it, training to an accuracy, speed and memory and losses beside
# PyTorch, each kernel beside a copy, compute-sanitizer. Stages run in the order of their worth, each within a time limit,
# and write what they find at once; one that fails does not stop the others. A table comes last. docs/gpu_check.md tells more.
#
#   tools/gpu_check.sh
#
# Settings, from the environment:
#   STAGES="doctor tests train ranks steps loading losses kernels shares sanitizer"   which, in this order
#   TOTAL=540           seconds for all of them together; what does not fit is skipped, and said
#   OUT=build/gpu_check where the results are written: summary.json, table.txt, logs.txt
#   WORK=build/gpu_check  everything else: STAGE.log, STAGE.json, pictures, runs; what stages found in earlier calls stays
#   BUNDLE=build/gpu    what tools/gpu_bundle.sh gathered; without it, the programs of this tree
#   PYTHON=python3      one that has torch, for the comparisons
#   DATA=               a demo set that is there already (make data); otherwise one is drawn
#   PHOTOS=             a folder of JPEGs by class, for loading; otherwise the bundle's photographs, or the demo set at 1024 px
#   DEVICE=cpu SMOKE=1  the script itself, in a few minutes on a machine without a GPU: tiny sizes, no figure of worth
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
self=$root/tools/$(basename "$0")
all_stages="doctor tests train ranks steps loading losses kernels shares sanitizer"
export STAGES=${STAGES:-$all_stages}
export TOTAL=${TOTAL:-540} DEVICE=${DEVICE:-cuda} SMOKE=${SMOKE:-0} PYTHON=${PYTHON:-python3} DATA=${DATA:-} PHOTOS=${PHOTOS:-}
absolute() {
    case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}
[ "$SMOKE" = 1 ] && smoke=_smoke || smoke=
WORK=$(absolute "${WORK:-$root/build/gpu_check$smoke}")
OUT=$(absolute "${OUT:-$WORK}")
BUNDLE=$(absolute "${BUNDLE:-$root/build/gpu}")
export WORK OUT BUNDLE

if [ -x "$BUNDLE/rn50" ]; then
    rn50=$BUNDLE/rn50 tests=$BUNDLE/rn50_tests make_defects=$BUNDLE/make_defects
else
    rn50=$root/rn50 tests=$root/build/rn50_tests make_defects=$root/build/make_defects
fi

no_gpu=77 # the exit status of a stage that found none
if [ "$SMOKE" = 1 ]; then
    side=64 batches="8 4" step_count=3 seconds=0.5 loss_side=64 loss_batch=8 loss_steps=6 loss_count=24
    train_options=(--epochs 1) train_count=64 accuracy=0 kernel_batch=2 kernel_side=64
    photo_side=256 photo_count=64 loading_workers="1 2" loading_batch=8 loading_steps=4
    rank_steps=4 rank_side=64 rank_batch=4
else
    side=224 batches="256 64" step_count=60 seconds=4 loss_side=224 loss_batch=64 loss_steps=50 loss_count=512
    train_options=() train_count=1600 accuracy=93 kernel_batch=256 kernel_side=224
    photo_side=1024 photo_count=400 loading_workers="1 4 8 16" loading_batch=64 loading_steps=12
    rank_steps=60 rank_side=224 rank_batch=64
fi
if [ "$DEVICE" = cpu ]; then precisions="fp32"; else precisions="fp16 bf16 tf32"; fi
main_precision=${precisions%% *}

# --- what stages write ---------------------------------------------------------------------------------------------------

quoted() { # TEXT: as a JSON string
    printf '"%s"' "$(printf '%s' "$1" | tr '\n\t' '  ' | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

# note KEY JSON: a fact of this stage, on disk at once.
note() {
    printf '%s: %s\n' "$(quoted "$1")" "$2" >>"$WORK/$stage.facts"
    write_json running 0
}

# say TEXT...: a line below the stage in the last table.
say() {
    printf '%s\n' "$*" | tee -a "$WORK/$stage.lines"
}

write_json() { # STATUS SECONDS
    local facts=""
    [ ! -s "$WORK/$stage.facts" ] || facts=$(sed '$!s/$/,/' "$WORK/$stage.facts")
    printf '{"stage": %s, "status": %s, "when": "%s", "device": "%s", "smoke": %s, "seconds": %s, "facts": {%s}}\n' \
        "$(quoted "$stage")" "$(quoted "$1")" "$(date -u +%Y-%m-%dT%H:%MZ)" "$DEVICE" "$SMOKE" "$2" "$facts" |
        tr '\n' ' ' >"$WORK/$stage.json.tmp"
    mv "$WORK/$stage.json.tmp" "$WORK/$stage.json"
}

# number KEY FILE: the first value of a key in JSON.
number() {
    grep -o "\"$1\": *[-+0-9.eE]*" "$2" | head -1 | sed 's/.*: *//'
}

ratio() { # A B DIGITS
    awk -v a="${1:-0}" -v b="${2:-0}" -v d="${3:-2}" 'BEGIN { if (b > 0 && a > 0) printf "%.*f", d, a / b; else printf "-" }'
}

# --- the libraries -------------------------------------------------------------------------------------------------------

# Folders that hold cuDNN and CUDA's libraries: the system's, the toolkit's, those that came with Python packages.
library_folders() {
    local folder
    {
        printf '%s\n' /usr/local/cuda/lib64 /usr/local/cuda*/lib64 /usr/local/cuda*/targets/x86_64-linux/lib \
            /usr/lib/x86_64-linux-gnu /usr/lib64
        "$PYTHON" -c 'import glob, os, sys
for p in sys.path:
    print(*glob.glob(os.path.join(p, "nvidia", "*", "lib")), sep="\n")' 2>/dev/null
    } | while read -r folder; do
        [ -d "$folder" ] && compgen -G "$folder/lib*.so*" | grep -qE '/lib(cudnn|cublasLt|cudart|nvrtc|nvJitLink|nvjpeg)' &&
            echo "$folder"
    done | awk '!seen[$0]++'
}

# What the machine lacks is taken from the bundle, and nothing else of it.
lend_libraries() {
    local program name
    mkdir -p "$WORK/lib"
    for _ in 1 2 3; do # a library that was lent may lack one itself
        for program in "$rn50" "$tests" "$make_defects" "$WORK"/lib/*; do
            [ -e "$program" ] || continue
            LD_LIBRARY_PATH=$WORK/lib ldd "$program" 2>/dev/null | awk '/not found/ { print $1 }' | while read -r name; do
                [ ! -e "$BUNDLE/lib/$name" ] || ln -sf "$BUNDLE/lib/$name" "$WORK/lib/$name"
            done
        done
    done
}

# ours PROGRAM ARGUMENTS...: with the libraries of the machine, of its Python, and what was lent.
ours() {
    LD_LIBRARY_PATH=$OUR_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"
}

need_gpu() {
    [ "$DEVICE" = cpu ] || [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1 || {
        echo "no NVIDIA GPU on this machine"
        exit $no_gpu
    }
}

has_torch() {
    "$PYTHON" -c 'import torch, torchvision' && return
    say "$PYTHON has no PyTorch with torchvision to compare with"
    return 1
}

draw_data() {
    [ -z "$DATA" ] || { echo "$DATA" && return; }
    [ -d "$WORK/data/train" ] || ours "$make_defects" --out "$WORK/data" --count "$train_count" >&2 || return
    echo "$WORK/data"
}

# --- stages: each runs in a shell of its own -----------------------------------------------------------------------------

stage_doctor() {
    local status=0
    ours "$rn50" doctor --json >"$WORK/doctor.found" || status=$?
    note doctor "$(cat "$WORK/doctor.found")"
    note doctor_status $status
    ours "$rn50" doctor
    [ "$DEVICE" = cpu ] || nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.used --format=csv,noheader
    need_gpu
    status=0
    ours "$rn50" doctor --self-test --device "$DEVICE" --json >"$WORK/doctor.self_test" || status=$?
    cat "$WORK/doctor.self_test"
    note self_test "$(cat "$WORK/doctor.self_test")"
    say "self-test: $(grep -o '"fault":""' "$WORK/doctor.self_test" | wc -l) of" \
        "$(grep -o '"fault":' "$WORK/doctor.self_test" | wc -l) ops agree with the reference"
    return $status
}

# Tests by the files they stand in.
op_tests='*test_ops_*'
device_tests="$op_tests,*test_blocks*,*test_net*,*test_passes*,*test_decoding*"
[ "$SMOKE" = 0 ] || device_tests='*test_ops_loss*,*test_ops_norm*'

run_tests() { # FILES [LAUNCHER...]: on this device alone; the CPU and the emulator have their runs elsewhere
    local files=$1
    shift
    RN50_TESTS_DIR=$([ -d "$BUNDLE/tests" ] && echo "$BUNDLE/tests" || echo "$root/tests") RN50_TEST_ON=$DEVICE \
        ours "$@" "$tests" --no-colors=true "--source-file=$files"
}

stage_tests() {
    local status=0
    need_gpu
    run_tests "$device_tests" | tee "$WORK/tests.said" || status=$?
    awk '/^\[doctest\] test cases:/ { print $6, $9 }' "$WORK/tests.said" >"$WORK/tests.counted"
    read -r passed failed <"$WORK/tests.counted" || return 1
    note passed "$passed"
    note failed "$failed"
    say "$passed test cases passed, $failed failed"
    if [ "$DEVICE" = cuda ] && grep -q 'cuda is not tested' "$WORK/tests.said"; then
        say "the GPU was not tested: $(grep -m1 'cuda is not tested' "$WORK/tests.said")"
        return 1
    fi
    return $status
}

stage_train() {
    local data
    need_gpu
    data=$(draw_data) || return
    rm -rf "$WORK/run"
    ours "$rn50" train "$data" --device "$DEVICE" --precision "$main_precision" --out "$WORK/run" "${train_options[@]}" || return
    grep '"end"' "$WORK/run/metrics.jsonl" >"$WORK/train.end" || return
    note end "$(cat "$WORK/train.end")"
    note precision "$(quoted "$main_precision")"
    note images_per_s "$(grep '"eval"' "$WORK/run/metrics.jsonl" | tail -1 >"$WORK/train.last" && number images_per_s "$WORK/train.last")"
    say "demo set, $main_precision: top-1 $(number top1 "$WORK/train.end")% (at least $accuracy is asked)," \
        "$(number images_per_s "$WORK/train.last" | cut -d. -f1) images/s in the last epoch"
    awk -v got="$(number top1 "$WORK/train.end")" -v asked="$accuracy" 'BEGIN { exit !(got >= asked) }'
}

# ranks_run NAME BATCH ARGUMENTS...: a short training; its images/s and the mean loss of its last half go to NAME.rate, .loss
ranks_run() {
    local name=$1 batch=$2 run=$WORK/ranks_$1
    shift 2
    rm -rf "$run"
    ours "$rn50" train "$data" --device "$DEVICE" --precision "$main_precision" --batch-size "$batch" --epochs 50 \
        --warmup-epochs 1 --max-steps $rank_steps --image-size $rank_side --out "$run" "$@" || return
    grep '"event":"step"' "$run/metrics.jsonl" | tail -n $((rank_steps / 2)) >"$WORK/ranks.steps"
    sed 's/.*"images_per_s":\([0-9.e+]*\).*/\1/' "$WORK/ranks.steps" | sort -g |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }' >"$WORK/ranks.$name.rate"
    sed 's/.*"loss":\([0-9.e+-]*\).*/\1/' "$WORK/ranks.steps" | awk '{ s += $1 } END { print s / NR }' >"$WORK/ranks.$name.loss"
}

stage_ranks() {
    local status=0 gpus=2 several=(--gpus 2) data
    need_gpu
    run_tests '*test_gpu_ranks*' | tee "$WORK/ranks.said" || return
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
    ranks_run one $rank_batch && ranks_run two $rank_batch "${several[@]}" && ranks_run large $((2 * rank_batch)) &&
        ranks_run synced $rank_batch "${several[@]}" --sync-bn || status=1
    [ $status = 0 ] || return 1
    note rates "{\"one\": $(cat "$WORK/ranks.one.rate"), \"two\": $(cat "$WORK/ranks.two.rate")}"
    note losses "{\"one rank, twice the batch\": $(cat "$WORK/ranks.large.loss"), \"two ranks, sync-bn\": $(cat "$WORK/ranks.synced.loss")}"
    say "two ranks: $(ratio "$(cat "$WORK/ranks.two.rate")" "$(cat "$WORK/ranks.one.rate")" 3)x the images/s of one, batch $rank_batch each"
    say "two ranks with sync-bn, mean loss $(cat "$WORK/ranks.synced.loss"); one rank with twice the batch $(cat "$WORK/ranks.large.loss")"
    awk -v a="$(cat "$WORK/ranks.synced.loss")" -v b="$(cat "$WORK/ranks.large.loss")" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(d <= 0.05 * b) }'
}

# our_step BATCH PRECISION MEMORY FILE: images/s and megabytes, as JSON.
our_step() {
    ours "$rn50" bench step --device "$DEVICE" --precision "$2" --batch-size "$1" --image-size $side --memory "$3" \
        --max-steps $step_count --json >"$4" && note "rn50 $2 $1 $3 $(basename "$4")" "$(cat "$4")"
}

# their_steps MODE PRECISION BATCHES FILE: a line of JSON for each batch size, noted as it comes.
their_steps() {
    local line
    : >"$4"
    [ "$torch" = 1 ] || return # then rn50 stands alone
    "$PYTHON" "$root/tools/torch_bench.py" --device "$DEVICE" --mode "$1" --precision "$2" --batch-size "$3" \
        --image-size $side --seconds $seconds | while read -r line; do
        echo "$line" >>"$4"
        note "torch $1 $2 $(number batch_size <(echo "$line")) $(basename "$4")" "$line"
    done
}

# best FILE...: of turns, the one that was fastest.
best() {
    local file value top=0
    for file in "$@"; do
        [ -s "$file" ] || continue
        value=$(number images_per_s "$file")
        top=$(awk -v a="$top" -v b="${value:-0}" 'BEGIN { print (b > a) ? b : a }')
    done
    echo "$top"
}

step_line() { # WHAT OURS_FILES THEIRS_FILES: images/s and memory side by side
    local our their our_mb their_mb
    # shellcheck disable=SC2086  # lists of files
    our=$(best $2) their=$(best $3)
    our_mb=$(number memory_mb "${2%% *}" 2>/dev/null) their_mb=$(number memory_mb "${3%% *}" 2>/dev/null)
    say "$(printf '%-34s rn50 %9.1f   PyTorch %9.1f images/s   %sx    %8.0f of %8.0f MB   %sx' "$1" "${our:-0}" "${their:-0}" \
        "$(ratio "$our" "$their")" "${our_mb:-0}" "${their_mb:-0}" "$(ratio "$our_mb" "$their_mb")")"
    note "ratio: $1" "$(printf '{"speed": "%s", "memory": "%s"}' "$(ratio "$our" "$their" 3)" "$(ratio "$our_mb" "$their_mb" 3)")"
}

line_of() { # FILE BATCH: PyTorch's line of one batch size, in a file of its own
    grep "\"batch_size\": $2," "$1" >"$1.$2" 2>/dev/null
    echo "$1.$2"
}

stage_steps() {
    local status=0 turn batch precision torch=1 t=$WORK/steps
    need_gpu
    has_torch || torch=0
    mkdir -p "$t"
    for turn in 1 2; do # in turns: clocks and temperature move
        for batch in $batches; do
            our_step "$batch" "$main_precision" full "$t/ours.$main_precision.$batch.full.$turn" || status=1
        done
        their_steps eager "$main_precision" "${batches// /,}" "$t/eager.$main_precision.$turn" || status=1
    done
    for batch in $batches; do
        step_line "$main_precision, batch $batch" \
            "$t/ours.$main_precision.$batch.full.1 $t/ours.$main_precision.$batch.full.2" \
            "$(line_of "$t/eager.$main_precision.1" "$batch") $(line_of "$t/eager.$main_precision.2" "$batch")"
    done
    for batch in $batches; do
        our_step "$batch" "$main_precision" lean "$t/ours.$main_precision.$batch.lean.1" || status=1
        step_line "$main_precision, batch $batch, lean" "$t/ours.$main_precision.$batch.lean.1" \
            "$t/eager.$main_precision.1.$batch"
    done
    for batch in $batches; do
        [ "$SMOKE" = 0 ] || break # compiling takes minutes on a processor
        their_steps compile "$main_precision" "$batch" "$t/compile.$main_precision.$batch" || status=1
        step_line "$main_precision, batch $batch, torch.compile" \
            "$t/ours.$main_precision.$batch.full.1 $t/ours.$main_precision.$batch.full.2" \
            "$t/compile.$main_precision.$batch"
    done
    for precision in ${precisions#"$main_precision"}; do
        batch=${batches%% *}
        our_step "$batch" "$precision" full "$t/ours.$precision.$batch.full.1" || status=1
        their_steps eager "$precision" "$batch" "$t/eager.$precision.1" || status=1
        step_line "$precision, batch $batch" "$t/ours.$precision.$batch.full.1" "$t/eager.$precision.1"
    done
    return $status
}

# A folder of classes with more pictures than a batch: PHOTOS, the bundle's photographs several times over, or drawn ones.
loading_set() {
    local copy picture
    [ -z "$PHOTOS" ] || { echo "$PHOTOS" && return; }
    if [ ! -d "$WORK/pictures" ] && [ -d "$BUNDLE/photos" ]; then
        mkdir -p "$WORK/pictures.new/a" "$WORK/pictures.new/b"
        for copy in 1 2 3 4 5 6 7 8; do
            for picture in "$BUNDLE"/photos/*; do
                cp "$picture" "$WORK/pictures.new/$([ $((copy % 2)) = 0 ] && echo a || echo b)/$copy-$(basename "$picture")"
            done
        done
        mv "$WORK/pictures.new" "$WORK/pictures"
    elif [ ! -d "$WORK/pictures" ]; then
        ours "$make_defects" --out "$WORK/pictures.new" --size "$photo_side" --count "$photo_count" >&2 || return
        mv "$WORK/pictures.new/train" "$WORK/pictures"
    fi
    echo "$WORK/pictures"
}

# loading_rate WAY FOLDER DECODE WORKERS TURN: images/s of the loader alone, in a file and noted.
loading_rate() {
    local file=$WORK/loading.$1.$4.$5
    ours "$rn50" bench loader "$2" --val-split 0.01 --device "$DEVICE" --decode "$3" --workers "$4" \
        --batch-size "$loading_batch" --image-size $side --max-steps "$loading_steps" --json >"$file" || return
    note "$1, $4 workers, turn $5" "$(cat "$file")"
}

# What decodes faster, by the number of workers, and how far the GPU's pixels are from the CPU's.
stage_loading() {
    local status=0 photos packed=$WORK/pictures_marked turn workers line gpu=1
    need_gpu
    rm -rf "$packed" "$WORK"/loading.{region,marked,nvjpeg}.*
    photos=$(loading_set) || return
    RN50_TEST_PHOTOS=$photos run_tests '*test_decoding*' | tee "$WORK/loading.said" || status=1
    if [ "$DEVICE" = cpu ]; then
        gpu=0
    elif grep -q 'nvJPEG is not tested' "$WORK/loading.said"; then
        say "$(grep -m1 -o 'nvJPEG is not tested.*' "$WORK/loading.said")"
        gpu=0 status=1
    else
        grep -oE 'nvJPEG [0-9].*|crops of .*' "$WORK/loading.said" >"$WORK/loading.pixels" || status=1
        while IFS= read -r line; do say "$line"; done <"$WORK/loading.pixels"
        note pixels "$(quoted "$(cat "$WORK/loading.pixels")")"
    fi
    ours "$rn50" pack "$photos" "$packed" --format folder --restart-markers --quiet || return
    for turn in 1 2; do
        for workers in $loading_workers; do
            loading_rate region "$photos" region "$workers" $turn || status=1
            loading_rate marked "$packed" region "$workers" $turn || status=1
            [ $gpu = 0 ] || loading_rate nvjpeg "$photos" gpu "$workers" $turn || status=1
        done
    done
    for workers in $loading_workers; do
        say "$(printf '%2d workers: %7.0f images/s by the CPU, %7.0f with restart markers, %s by nvJPEG' "$workers" \
            "$(best "$WORK/loading.region.$workers".[12])" "$(best "$WORK/loading.marked.$workers".[12])" \
            "$([ $gpu = 0 ] && echo none || printf '%7.0f' "$(best "$WORK/loading.nvjpeg.$workers".[12])")")"
    done
    return $status
}

percent() { # KEY: of the losses
    awk -v x="$(number "$1" "$WORK/losses.found")" 'BEGIN { printf "%.3f%%", 100 * x }'
}

stage_losses() {
    local status=0 set=$WORK/loss_set scale=1024
    need_gpu
    has_torch || return
    # Pictures of the very size of the net's input: nothing is resampled, so both programs see the same numbers.
    [ -d "$set/train" ] || ours "$make_defects" --out "$set" --size $loss_side --count $loss_count || return
    "$PYTHON" "$root/tools/torch_losses.py" init "$WORK/init.safetensors" --classes 8 || return
    rm -rf "$WORK/loss_run"
    ours "$rn50" train "$set" --device "$DEVICE" --precision "$main_precision" --init "$WORK/init.safetensors" \
        --out "$WORK/loss_run" --augment none --dropout 0 --loss-scale $scale --image-size $loss_side \
        --batch-size $loss_batch --lr 1e-4 --warmup-epochs 1 --max-steps $loss_steps || return
    "$PYTHON" "$root/tools/torch_losses.py" compare "$WORK/loss_run" "$set" "$WORK/init.safetensors" --device "$DEVICE" \
        >"$WORK/losses.found" || status=$?
    cat "$WORK/losses.found"
    [ -s "$WORK/losses.found" ] || return 1
    note losses "$(cat "$WORK/losses.found")"
    say "$loss_steps steps, $main_precision, scale $scale: smoothed loss within" \
        "$(percent difference) of the first loss of PyTorch's (limit $(percent limit);" \
        "PyTorch itself, NCHW: $(percent torch_own_difference))"
    return $status
}

stage_kernels() {
    local precision status=0
    need_gpu
    for precision in $precisions; do
        [ "$precision" != tf32 ] || continue # fp32's passes
        ours "$rn50" bench kernels --device "$DEVICE" --precision "$precision" --batch-size $kernel_batch \
            --image-size $kernel_side --json >"$WORK/kernels.$precision" || { status=1 && continue; }
        note "$precision" "$(cat "$WORK/kernels.$precision")"
        say "$precision, batch $kernel_batch: a copy moves $(printf '%.0f' "$(number copy_gb_s "$WORK/kernels.$precision")") GB/s; of that"
        grep -o '{"group"[^}]*}' "$WORK/kernels.$precision" | sed 's/.*"group":"\([^"]*\)","name":"\([^"]*\)".*"us":\([^,]*\),"gb_s":\([^,]*\),"of_copy":\([^}]*\)}/\1|\2|\3|\4|\5/' |
            while IFS='|' read -r group name us rate part; do
                say "$(awk -v g="$group" -v n="$name" -v u="$us" -v r="$rate" -v p="$part" \
                    'BEGIN { printf "  %-34s %-26s %10.1f us %8.1f GB/s %5.0f%%", g, n, u, r, 100 * p }')"
            done
    done
    return $status
}

stage_shares() {
    local batch=${batches%% *} ncu
    need_gpu
    say "a step at batch $batch by operation, each waited for (so their sum is more than a step):"
    ours "$rn50" bench step --device "$DEVICE" --precision "$main_precision" --batch-size "$batch" --image-size $side \
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
    ncu=$(command -v ncu || compgen -G '/opt/nvidia/nsight-compute/*/ncu' | tail -1 || true)
    [ -n "$ncu" ] || { say "no ncu on this machine: no shares by kernel" && return 0; }
    # Smaller, for ncu runs each kernel alone, under its own clock; shares are what counts.
    ours "$ncu" --clock-control none --metrics gpu__time_duration.sum --csv "$rn50" bench step --device cuda \
        --precision "$main_precision" --batch-size 64 --image-size $side --max-steps 1 >"$WORK/shares.ncu" 2>"$WORK/shares.ncu.err" ||
        { say "ncu: $(tail -1 "$WORK/shares.ncu.err")" && return 1; }
    "$PYTHON" - "$WORK/shares.ncu" >"$WORK/shares.by_kernel" <<'PY' || return
import collections, csv, re, sys
rows = [line for line in open(sys.argv[1]) if line.startswith('"')]
times, calls = collections.Counter(), collections.Counter()
for row in csv.DictReader(rows):
    if row.get("Metric Name") != "gpu__time_duration.sum":
        continue
    unit = {"ns": 1, "nsecond": 1, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9, "second": 1e9}
    name = re.sub(r"\(anonymous namespace\)::|<unnamed>::|^void ", "", row["Kernel Name"])
    name = re.sub(r"[<(].*", "", name)[:60]
    times[name] += float(row["Metric Value"].replace(",", "")) * unit[row["Metric Unit"]]
    calls[name] += 1
total = sum(times.values())
for name, value in times.most_common(25):
    print(f"  {name:60} {calls[name]:6} calls {value / 1e6:9.3f} ms {100 * value / total:5.1f}%")
PY
    say "by kernel (ncu, batch 64, all steps of a short run):"
    while IFS= read -r line; do say "$line"; done <"$WORK/shares.by_kernel"
    note by_kernel "$(quoted "$(cat "$WORK/shares.by_kernel")")"
}

stage_sanitizer() {
    local tool sanitizer status=0 one
    need_gpu
    sanitizer=$(command -v compute-sanitizer || compgen -G '/usr/local/cuda*/bin/compute-sanitizer' | tail -1 || true)
    if [ -z "$sanitizer" ]; then
        say "no compute-sanitizer on this machine"
        return 1
    fi
    for tool in memcheck racecheck; do
        one=0
        run_tests "$op_tests" timeout $((${LIMIT:-110} / 2)) "$sanitizer" --tool $tool --error-exitcode 9 \
            --print-limit 20 >"$WORK/sanitizer.$tool" 2>&1 || one=$?
        tail -5 "$WORK/sanitizer.$tool"
        note "$tool" "{\"exit\": $one, \"said\": $(quoted "$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$WORK/sanitizer.$tool" | tail -1)")}"
        say "$tool: exit $one, $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$WORK/sanitizer.$tool" | tail -1)"
        [ $one = 0 ] || status=1
    done
    return $status
}

# --- running them --------------------------------------------------------------------------------------------------------

limit_of() {
    [ "$SMOKE" = 0 ] || { echo 300 && return; }
    case $1 in
        doctor) echo 75 ;;
        tests) echo 180 ;;
        train) echo 100 ;;
        ranks) echo 150 ;;
        steps) echo 240 ;;
        loading) echo 120 ;;
        losses) echo 75 ;;
        kernels) echo 40 ;;
        shares) echo 90 ;;
        sanitizer) echo 400 ;;
    esac
}

run_stage() { # NAME
    export stage=$1
    local left=$((TOTAL - SECONDS)) limit status=0 started=$SECONDS word
    limit=$(limit_of "$stage")
    [ -n "$limit" ] || { echo "there is no stage $stage" >&2 && exit 2; }
    : >"$WORK/$stage.log"
    if [ $left -lt 10 ]; then
        word="SKIPPED no time left"
    else
        [ $limit -lt $left ] || limit=$left
        echo "--- $stage (at most $limit s)"
        LIMIT=$limit timeout --kill-after=10 $limit bash "$self" --stage "$stage" >"$WORK/$stage.log" 2>&1 || status=$?
        case $status in
            0) word=ok ;;
            124 | 137) word="FAILED at its limit of $limit s" ;;
            "$no_gpu") word="SKIPPED no GPU" ;;
            *) word="FAILED with status $status" ;;
        esac
    fi
    write_json "$word" $((SECONDS - started))
    {
        printf '%-10s %4d s  %s\n' "$stage" $((SECONDS - started)) "$word"
        [ ! -s "$WORK/$stage.lines" ] || sed 's/^/    /' "$WORK/$stage.lines"
        [ "${word%% *}" != FAILED ] || tail -8 "$WORK/$stage.log" | cut -c1-200 | sed 's/^/    | /'
    } | tee "$WORK/$stage.table"
    [ "$word" = ok ]
}

# All stages that have run, in this call or an earlier one.
write_summary() {
    local name separator=""
    {
        printf '{"stages": ['
        for name in $all_stages; do
            [ -s "$WORK/$name.json" ] || continue
            printf '%s' "$separator"
            separator=", "
            cat "$WORK/$name.json"
        done
        printf ']}\n'
    } >"$OUT/summary.json"
    for name in $all_stages; do cat "$WORK/$name.table"; done >"$OUT/table.txt" 2>/dev/null
    for name in $all_stages; do tail -n +1 -v "$WORK/$name.log"; done >"$OUT/logs.txt" 2>/dev/null
}

export RN50_PLAN_CACHE=$WORK/plans
if [ "${1:-}" = --stage ]; then
    "stage_$2"
    exit
fi
for program in "$rn50" "$tests" "$make_defects"; do
    [ -x "$program" ] || { echo "$program is not there: build it, or carry build/gpu here (tools/gpu_bundle.sh)" >&2 && exit 2; }
done
mkdir -p "$WORK" "$OUT"
for name in $STAGES; do rm -f "$WORK/$name".{facts,lines,json,log,table}; done
lend_libraries
folders=$(library_folders | paste -sd:)
export OUR_LIBRARIES=$WORK/lib${folders:+:$folders}:$BUNDLE/spare # the last: of what rn50 opens by itself
failed=0
for name in $STAGES; do
    run_stage "$name" || failed=1
    write_summary # at once: the machine may be taken away
done
echo
echo "=== $DEVICE, $(date -u +%Y-%m-%dT%H:%MZ), $SECONDS s; $OUT/summary.json, $OUT/table.txt"
cat "$OUT/table.txt"
exit $failed
