# A GPU that is lost in the middle of a run, whose gradients overflow or whose libraries take memory, and a run that a
# signal stops: on an imaginary one, which is left work ahead as a GPU is; sourced by test_cuda_module.sh
# after several_gpus.sh.
lasting=("${tiny[@]}" --epochs 2 --max-steps 0)
steps_a_epoch=10
runs() { # STEP ARGUMENTS: of this process's GPU, which is lost in that step; 0: never
    local lost=$1
    shift
    IMAGINARY_GPU=1 IMAGINARY_LOSS=$lost timeout 100 "$program" "$@" >out 2>err
    code=$?
}
runs 0 "${lasting[@]}" --out whole
check "a GPU that lives: the run to compare with" eval \
    'is 0 && [ "$(grep -c "\"event\":\"step\"" whole/metrics.jsonl)" = $((2 * steps_a_epoch)) ]'
runs 3 "${lasting[@]}" --out lost
check "a GPU lost before anything is saved: 4, in the library's words, with what to do" eval \
    'is 4 && says "wait for the GPU: an imaginary fault" "the GPU was lost" && ! says "what was saved last"'
check "nothing half-written stays" [ -z "$(find lost -name '*.safetensors*')" ]
runs 0 train --resume auto --out lost
check "and the run starts again" eval 'is 0 && cmp -s whole/last.safetensors lost/last.safetensors'
rm -r lost
runs $((steps_a_epoch + 3)) "${lasting[@]}" --out lost
check "a GPU lost in the second epoch: 4, and how to go on" eval \
    'is 4 && says "an imaginary fault" "what was saved last is kept; go on with: rn50 train --resume auto --out lost"'
check "the first epoch is kept" eval 'ls lost/best.safetensors lost/last.safetensors lost/state.safetensors >/dev/null'
runs 0 train --resume auto --out lost
check "resumed on another GPU, it equals what was never lost, bit for bit" eval \
    'is 0 && cmp -s whole/last.safetensors lost/last.safetensors && cmp -s whole/best.safetensors lost/best.safetensors'

# What lies beside the arena, and a rehearsal of which nothing stays in what is computed.
export IMAGINARY_LIBRARIES_MB=411
runs 0 "${lasting[@]}" --out rehearsed
check "what lies beside the arena is told by name, the libraries' part when it is measured" eval \
    'is 0 && says "  exchange of the ranks            4.0 MB" "  CUDA context and libraries     411.0 MB, measured; 24.0 GB stay free"'
check "both stand in the report" eval 'grep -q "exchange of the ranks  *4.0 MB" rehearsed/report.html &&
    grep -q "CUDA context and libraries  *411.0 MB" rehearsed/report.html'
memory_of() { grep -o '"memory_mb":[0-9.]*' "$1/metrics.jsonl" | head -1 | cut -d: -f2; }
check "memory_mb is the plan's number: the arena and what is named beside it" eval \
    '[ "$(awk "BEGIN { print $(memory_of rehearsed) - $(memory_of whole) }")" = 4 ]'
check "a rehearsed run equals one that is not, bit for bit" cmp -s whole/last.safetensors rehearsed/last.safetensors
runs 1 "${lasting[@]}" --out unrehearsed
check "a rehearsal that fails ends the run before its first step" eval \
    'is 4 && says "a rehearsal before the first step failed, with 24.0 GB of GPU memory free: wait for the GPU" && ! grep -qs "\"event\":\"step\"" unrehearsed/metrics.jsonl'
unset IMAGINARY_LIBRARIES_MB

overflowing() { # GOOD_STEP STEPS FOLDER: a run in which each GOOD_STEPth step alone has finite gradients
    IMAGINARY_GPU=1 IMAGINARY_GOOD_STEP=$1 timeout 100 "$program" "${tiny[@]}" --epochs 10 --max-steps "$2" --out "$3" >out 2>err
    code=$?
}
overflowing 1000 60 never
check "50 steps left out in a row: 5, with the step, the first gradient and what is kept" eval \
    'is 5 && says "gradients were not finite for 50 steps in a row at step 50 (epoch 5)" \
         "not finite first: the gradient of conv1.weight" "never/best.safetensors keeps the weights of epoch 1" "lower --lr"'
check "that steps are left out is said once" eval '[ "$(grep -c "the step is left out" err)" = 1 ]'
overflowing 40 85 seldom
check "83 of 85 steps left out, but no 50 in a row: the run goes on" eval 'is 0 && says "step 1: the gradients are not finite"'

# A signal finds one step more under way than its reading; with several ranks one more that is read.
for gpus in 1 2; do
    out=stopped$gpus
    IMAGINARY_GPU=$gpus IMAGINARY_PAUSE=100 timeout 100 "$program" "${tiny[@]}" --epochs 100 --max-steps 0 --batch-size 2 \
        --gpus $gpus --out $out >out 2>err &
    job=$!
    for _ in $(seq 1200); do
        grep -q '"event":"step"' $out/metrics.jsonl 2>/dev/null && break
        sleep 0.05
    done
    kill -TERM "$job"
    wait "$job"
    code=$?
    job=
    at=$(grep -c '"event":"step"' $out/metrics.jsonl)
    check "$gpus GPUs: a signal within an epoch: 143, and the step of the last line is saved" eval \
        'is 143 && says "stopping: saving step $at to $out" && [ "$at" -lt $((20 / gpus)) ]'
    IMAGINARY_GPU=$gpus "$program" train --resume auto --out $out --max-steps $((at + 2)) >out 2>err
    IMAGINARY_GPU=$gpus "$program" "${tiny[@]}" --epochs 100 --batch-size 2 --gpus $gpus --out straight$gpus \
        --max-steps $((at + 2)) >out 2>err
    code=$?
    check "and the run goes on bit for bit" cmp -s straight$gpus/last.safetensors $out/last.safetensors
done
