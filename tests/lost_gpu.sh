# A GPU that is lost in the middle of a run, an imaginary one; sourced by test_cuda_module.sh after several_gpus.sh.
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
