#!/bin/bash
# rn50 bench as scripts see it, on the CPU: which rows there are, that the numbers fit together.
#   tests/test_bench.sh PATH/rn50
source "$(dirname "$0")/script.sh" "$1"

small=(--device cpu --batch-size 2 --image-size 32 --max-steps 1)
"$program" bench kernels "${small[@]}" --json --quiet >out 2>err
code=$?
check "bench kernels --json: one object, nothing on stderr" eval \
    '[ $code = 0 ] && [ ! -s err ] && [ "$(wc -l <out)" = 1 ] && grep -q "^{\"device\":.*\"batch_size\":2,\"image_size\":32,.*}$" out'
for pass in copy join zero "norm from batch" "norm backward" "copy to the device" "max pool" "max pool backward" "avg pool" \
    "avg pool backward" dropout "softmax cross-entropy" "check gradients" AdamW "update running statistics"; do
    check "bench kernels times: $pass" grep -q "\"name\":\"$pass\"" out
done
# Stage 1 of pictures of 32 px: 2 x 8 x 8 x 256 floats, read and written.
check "bench kernels counts the bytes" grep -qF '{"group":"stage 1: 2x8x8x256","name":"copy","bytes":262144,' out
check "bench kernels: GB/s are bytes by time" eval \
    'grep -o "\"bytes\":[0-9]*,\"us\":[-0-9.e]*,\"gb_s\":[-0-9.e]*" out | tr ":," "  " |
     awk "{ gap = \$2 / \$4 / 1000 / \$6 - 1; if (gap > 1e-6 || gap < -1e-6) bad = 1; n++ } END { exit bad || n < 15 }"'
check "bench kernels: a copy is all of a copy" grep -q '"name":"copy",[^}]*"of_copy":1.0}' out

"$program" bench kernels "${small[@]}" --optimizer sgd >out 2>err
code=$?
check "bench kernels: a table, SGD instead of AdamW" eval \
    '[ $code = 0 ] && grep -q "^stage 1: 2x8x8x256$" out && grep -qE "^  copy .* 100%$" out && grep -q "^  SGD " out && ! grep -q AdamW out'
"$program" bench step "${small[@]}" --model resnet18 --verbose >out 2>err
code=$?
check "bench step --verbose: the time by operation" eval '[ $code = 0 ] && grep -q "ms a step" err && grep -q "optimizer step" err'
"$program" bench step "${small[@]}" --model resnet18 --json >out 2>err
code=$?
# What is taken holds what is planned, and the program's own with it.
check "bench step --json: memory as planned and as taken" eval \
    '[ $code = 0 ] && [ "$(wc -l <out)" = 1 ] &&
     sed "s/.*\"memory_mb\":\([0-9.]*\),\"memory_taken_mb\":\([0-9.]*\),.*/\1 \2/" out |
     awk "{ exit !(NF == 2 && \$1 > 100 && \$2 > \$1 / 2 && \$2 < 10 * \$1) }"'

# --- loading -------------------------------------------------------------------------------------------------------------
run bench loader --device cpu --workers 1 --batch-size 4 --image-size 32 --max-steps 9
check "bench loader: without DATA it draws pictures of twice the side" eval \
    'is 0 && says "100,000 drawn pictures of 64 px, 1 worker" && prints "(9 calls)" "batch 4 at 32 px"'
mkdir -p pile/a pile/b
for i in 1 2 3; do
    { printf 'P6 40 40 255\n'; head -c 4800 /dev/urandom; } | tee pile/a/$i.ppm >pile/b/$i.ppm
done
run bench loader pile "${small[@]}" --workers 1
check "bench loader: needs no val" eval 'is 0 && says "6 pictures, 1 worker" && prints "(1 calls)"'

# --- several ranks -------------------------------------------------------------------------------------------------------
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT "${!SLURM_@}" "${!OMPI_@}"
export OMP_WAIT_POLICY=passive
timeout 100 "$program" bench comm --device cpu --ranks 2 --max-steps 1 --json --quiet >out 2>err
code=$?
if [ $code = 4 ] && says "need Gloo"; then exit $failed; fi
check "bench comm --json: one object, sizes up to ResNet-50's gradients, beside one TCP stream" eval \
    '[ $code = 0 ] && [ ! -s err ] && [ "$(wc -l <out)" = 1 ] && [ "$(grep -o "\"bytes\":" out | wc -l)" = 9 ] &&
     prints "\"bytes\":4096," "\"bytes\":102228128," && grep -qE "\"stream_gb_s\":[0-9.]*[1-9]" out'
check "bench comm: with two ranks as many bytes are sent as are averaged" eval \
    'grep -o "\"bytes\":[0-9]*,\"average_us\":[-0-9.e]*,\"sent_gb_s\":[-0-9.e]*" out | tr ":," "  " |
     awk "{ gap = \$2 / \$4 / 1000 / \$6 - 1; if (gap > 1e-6 || gap < -1e-6) bad = 1; n++ } END { exit bad || n != 9 }"'
run bench step "${small[@]}" --model resnet18 --ranks 2 --sync-bn --bucket-mb 4 --wire bf16
check "bench step --ranks: the pictures of all ranks, told once" eval \
    'is 0 && [ "$(wc -l <out)" = 1 ] && prints "each of 2 ranks" && says "ranks: 2 by Gloo" "gradients on the wire"'
run bench buckets "${small[@]}" --model resnet18 --ranks 2
check "bench buckets: a step by --bucket-mb, one of them the best" eval \
    'is 0 && prints "each of 2 ranks" "100.0%" && [ "$(grep -cE "^ *(0|1|2|4|8|16|25|50) +[0-9.]+ +[0-9.]+%$" out)" = 8 ]'
run bench comm --device cpu
check "bench comm of one rank: 2" eval 'is 2 && says "several ranks"'
run bench infer --ranks 2
check "bench infer of several: 2" eval 'is 2 && says "one process"'
exit $failed
