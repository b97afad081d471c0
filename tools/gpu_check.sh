#!/bin/bash
# What only a machine with a GPU can show: the tests on it, speed and memory and losses beside PyTorch, training to an
# accuracy, compute-sanitizer, each kernel beside a copy. Stages run in the order of their worth, each within a time limit,
# and write each figure as soon as it is known; one that fails does not stop the others, unless nothing can be measured at
# all. A table comes last. docs/gpu_check.md tells more.
#
#   tools/gpu_check.sh
#
# Settings, from the environment:
#   STAGES="doctor tests ..."   which, in this order; docs/gpu_check.md lists them
#   TOTAL=540           seconds for all of them together; what does not fit is skipped, and said
#   OUT=build/gpu_check where the results are written: summary.json, table.txt, logs.txt
#   WORK=build/gpu_check  everything else: STAGE.log, STAGE.json, pictures, runs; what stages found in earlier calls stays
#   BUNDLE=build/gpu    what tools/gpu_bundle.sh gathered; without it, the programs of this tree
#   PYTHON=python3      one that has torch, for the comparisons
#   DATA=               a demo set that is there already (make data); otherwise one is drawn
#   PHOTOS=             a folder of JPEGs by class, for loading; otherwise the bundle's photographs, or the demo set at 1024 px
#   EPOCH_COUNT=8192 EPOCH_WORKERS="16 4 1" EPOCH_RIVAL_WORKERS="16 4"  of the stage epochs: pictures, and workers
#   RN50_NVJPEG=gpu     nvJPEG without the GPU's hardware engine
#   RN50_AUTOTUNE_SECONDS=30  what each program may spend on timing convolutions
#   DEVICE=cpu SMOKE=1  the script itself, in a few minutes on a machine without a GPU: tiny sizes, no figure of worth
#
# Exit status: 0, all stages passed; 1, one failed; 2, it cannot begin; 3, stopped, because nothing can be measured here.
set -uo pipefail
export LC_ALL=C # numbers have points

root=$(cd "$(dirname "$0")/.." && pwd)
self=$root/tools/$(basename "$0")
all_stages="doctor tests steps losses train sanitizer kernels shares precisions compile ranks graphs loading epochs resume"
export STAGES=${STAGES:-$all_stages}
export DEVICE=${DEVICE:-cuda} SMOKE=${SMOKE:-0} PYTHON=${PYTHON:-python3} DATA=${DATA:-} PHOTOS=${PHOTOS:-}
export RN50_AUTOTUNE_SECONDS=${RN50_AUTOTUNE_SECONDS:-30}
absolute() {
    case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}
[ "$SMOKE" = 1 ] && smoke=_smoke || smoke=
export TOTAL=${TOTAL:-$([ "$SMOKE" = 1 ] && echo 1500 || echo 540)}
WORK=$(absolute "${WORK:-$root/build/gpu_check$smoke}")
OUT=$(absolute "${OUT:-$WORK}")
BUNDLE=$(absolute "${BUNDLE:-$root/build/gpu}")
export WORK OUT BUNDLE RN50_PLAN_CACHE=$WORK/plans

# shellcheck disable=SC2034,SC2154  # the stages read these, and set others
if [ "$SMOKE" = 1 ]; then
    export OMP_WAIT_POLICY=passive # such a machine has other work too
    side=64 batches="8 4" graph_batches="2" step_count=3 seconds=0.5 second_turn=5 loss_side=64 loss_batch=8 loss_steps=6 loss_count=24
    train_options=(--epochs 1) train_count=64 accuracy=0 kernel_batch=2 kernel_side=64
    photo_side=256 photo_count=64 loading_workers="1 2" loading_batch=8 loading_steps=4
    epoch_count=64 epoch_batch=8 epoch_workers=1 epoch_rival_workers=1
    rank_steps=4 rank_side=64 rank_batch=4
else
    side=224 batches="256 64" graph_batches="1 8 32" step_count=60 seconds=4 second_turn=30 loss_side=224 loss_batch=64 loss_steps=50 loss_count=512
    train_options=() train_count=1600 accuracy=93 kernel_batch=256 kernel_side=224
    photo_side=1024 photo_count=400 loading_workers="1 4 8 16" loading_batch=64 loading_steps=12
    epoch_count=${EPOCH_COUNT:-8192} epoch_batch=128 epoch_workers=${EPOCH_WORKERS:-16 4 1} epoch_rival_workers=${EPOCH_RIVAL_WORKERS-16 4}
    rank_steps=60 rank_side=224 rank_batch=64
fi
if [ "$DEVICE" = cpu ]; then precisions="fp32"; else precisions="fp16 bf16 tf32"; fi
# shellcheck disable=SC2034
main_precision=${precisions%% *}

for part in common libraries checks figures learning; do
    # shellcheck source=SCRIPTDIR/gpu_check/common.sh
    source "$root/tools/gpu_check/$part.sh"
done

if [ "${1:-}" = --stage ]; then
    "stage_$2"
    exit
fi

# Seconds that a stage is promised: the first eight have 540 together.
limit_of() {
    [ "$SMOKE" = 0 ] || { echo 120 && return; }
    case $1 in
        doctor) echo 50 ;;
        tests) echo 95 ;;
        steps) echo 160 ;;
        losses) echo 60 ;;
        train) echo 50 ;;
        sanitizer) echo 70 ;;
        kernels) echo 25 ;;
        shares) echo 30 ;;
        precisions) echo 100 ;;
        compile) echo 120 ;;
        ranks) echo 90 ;;
        graphs) echo 60 ;;
        loading) echo 100 ;;
        epochs) echo 240 ;;
        resume) echo 40 ;;
    esac
}

# time_for NAME LATER_STAGES...: what it is promised, or more where the call has more than the later ones are promised.
time_for() {
    local limit spare=$((TOTAL - SECONDS)) left=$((TOTAL - SECONDS)) name
    limit=$(limit_of "$1")
    shift
    for name in "$@"; do spare=$((spare - $(limit_of "$name"))); done
    [ $spare -le "$limit" ] || limit=$spare
    [ "$limit" -le $left ] || limit=$left
    echo "$limit"
}

run_stage() { # NAME SECONDS
    export stage=$1
    local limit=$2 status=0 started=$SECONDS word
    : >"$WORK/$stage.log"
    if [ -n "$stopped" ]; then
        word="SKIPPED stopped by $stopped"
    elif [ "$limit" -lt 10 ]; then
        word="SKIPPED no time left"
    else
        echo "--- $stage (at most $limit s)"
        STAGE_ENDS=$(($(date +%s) + limit)) timeout --kill-after=5 "$limit" bash "$self" --stage "$stage" \
            >"$WORK/$stage.log" 2>&1 || status=$?
        case $status in
            0) word=ok ;;
            124 | 137) word="FAILED at its limit of $limit s" ;;
            "$skip_status") word="SKIPPED $(cat "$WORK/$stage.skip" 2>/dev/null)" ;;
            "$stop_status") word="FAILED: stops all others" stopped=$stage ;;
            *) word="FAILED with status $status" ;;
        esac
    fi
    write_json "$word" $((SECONDS - started))
    {
        printf '%-10s %4d s  %s\n' "$stage" $((SECONDS - started)) "$word"
        [ ! -s "$WORK/$stage.lines" ] || sed 's/^/    /' "$WORK/$stage.lines"
        if [ "${word%% *}" = FAILED ] || [ "${word%% *}" = FAILED: ]; then
            tail -8 "$WORK/$stage.log" | cut -c1-200 | sed 's/^/    | /'
            driver_errors | sed 's/^/    | driver: /'
        fi
        [ ! -s "$WORK/$stage.goals" ] || sed 's/^/    /' "$WORK/$stage.goals"
    } | tee "$WORK/$stage.table"
    [ "$word" = ok ] || { [ "$SMOKE" = 1 ] && [ $status = "$skip_status" ]; }
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
    [ "$PYTHON_RUNS" = 0 ] || is_json "$(cat "$OUT/summary.json")" || echo "$OUT/summary.json is not valid JSON" >&2
    {
        for name in $all_stages; do cat "$WORK/$name.table" 2>/dev/null; done
        printf '\ngoals\n'
        for name in $all_stages; do sed 's/^/    /' "$WORK/$name.goals" 2>/dev/null; done
    } >"$OUT/table.txt"
    for name in $all_stages; do
        [ ! -e "$WORK/$name.log" ] || { printf '\n==> %s <==\n' "$name" && cuts "$WORK/$name.log"; }
    done >"$OUT/logs.txt"
}

for name in $STAGES; do
    [ -n "$(SMOKE=0 limit_of "$name")" ] || { echo "there is no stage $name, only $all_stages" >&2 && exit 2; }
done
mkdir -p "$WORK" "$OUT"
PYTHON_RUNS=0
! "$PYTHON" -I -S -c 'import json' 2>/dev/null || PYTHON_RUNS=1
STAGE_ENDS=$(($(date +%s) + TOTAL))
export PYTHON_RUNS STAGE_ENDS
for name in $STAGES; do rm -f "$WORK/$name".{facts,lines,goals,skip,json,log,table}; done
choose_programs
failed=0 stopped=
set -f
# shellcheck disable=SC2086  # a list
set -- $STAGES
set +f
while [ $# -gt 0 ]; do
    run_stage "$1" "$(time_for "$@")" || failed=1
    write_summary # at once: the machine may be taken away
    shift
done
echo
echo "=== $DEVICE, $(date -u +%Y-%m-%dT%H:%MZ), $SECONDS s; $OUT/summary.json, $OUT/table.txt"
cat "$OUT/table.txt"
[ -z "$stopped" ] || { echo "stopped by $stopped: see there" && exit 3; }
exit $failed
