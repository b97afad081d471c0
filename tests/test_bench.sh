#!/bin/bash
# rn50 bench kernels as scripts see it, on the CPU: which passes there are, that the numbers fit together.
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
exit $failed
