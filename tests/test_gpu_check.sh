#!/bin/bash
# tools/gpu_check.sh on a make-believe machine with a GPU: programs, driver, PyTorch and compute-sanitizer are small scripts
# that say what the case wants to hear. What counts is when it stops, what it leaves behind, and how it judges.
#   tests/test_gpu_check.sh PATH/rn50
source "$(dirname "$0")/script.sh" "$1"
tools=$tests/../tools
unset STAGES TOTAL DATA PHOTOS SMOKE RN50_AUTOTUNE_SECONDS SANITIZER
export DEVICE=cuda BUNDLE=$work/bundle WORK=$work/check OUT=$work/results PYTHON=$work/bin/python3 PATH=$work/bin:$PATH
mkdir -p bin "$BUNDLE/lib"

stub() { # FILE: a program with the text of standard input
    { echo '#!/bin/bash' && cat; } >"$1"
    chmod +x "$1"
}
stub bin/nvidia-smi <<<'echo "GPU 0: Make-Believe"'
stub bin/dmesg <<<'echo "NVRM: Xid (PCI:0000:01:00): 31, MMU fault"'
# Where there is a Python, what is written is checked with it.
stub bin/python3 <<'END'
case "$*" in
    *find_spec*) [ -e "$work/no_torch" ] && exit 1 || exit 0 ;;
    *torch_bench.py*)
        echo "$*" >>"$work/torch_ran"
        echo '{"images_per_s": 1000, "memory_mb": 10000, "search_mb": 12000, "reserved_mb": 13000, "batch_size": 256}' ;;
    *torch_recipe.py*)
        echo '{"epoch": 1, "images_per_s": 400, "data_wait": 0.1}'
        echo '{"epoch": 2, "images_per_s": 1000, "data_wait": 0.59}' ;;
    *) exec /usr/bin/python3 "$@" ;;
esac
END
stub "$BUNDLE/make_defects" <<<'exit 1'
stub "$BUNDLE/rn50_tests" <<'END'
[ "$1" != --version ] || exit 0
echo "$* arena=${RN50_ARENA:-} autotune=${RN50_AUTOTUNE:-}" >>"$work/tests_ran"
case "$*" in
    *test_ops_conv.cpp*) [ ! -e "$work/crash" ] || kill -SEGV $$ ;;
    *test_ops_loss*) [ ! -e "$work/slow" ] || { echo "0.1 s: dropout" && sleep 30; } ;;
esac
echo '[doctest] test cases:  3 |  3 passed | 0 failed | 0 skipped'
END
stub "$BUNDLE/rn50" <<'END'
case "$*" in
    --version) [ ! -e "$work/too_old" ] || { echo "version GLIBC_2.99 not found" >&2 && exit 1; } ;;
    *--self-test*)
        [ ! -e "$work/no_op" ] || exit 4
        echo '{"device":"Make-Believe","reference":"a CPU"}'
        echo '{"op":"join","precision":"fp32","distance":0.0,"tolerance":1e-5,"ms":1.0,"fault":"","device_lost":false}'
        [ ! -e "$work/dies" ] || { printf '{"op":"max po' && kill -SEGV $$; }
        echo '{"passed":true,"ops":1,"failed":0}' ;;
    doctor*)
        echo '{"ready":true,"findings":[{"topic":"GPU 0","state":"good","text":"Make-Believe, compute capability 9.0","remedy":""},{"topic":"GPU module",'"$(cat "$work/module")"'}]}' ;;
    *step*lean*) echo '{"images_per_s":900.5,"memory_mb":7300.0,"memory_taken_mb":7500.0}' ;;
    *step*)
        echo "$*" >>"$work/steps_ran"
        [ ! -e "$work/no_step" ] || { echo "error: no room" >&2 && exit 4; }
        case "$*" in *"cuda-graph yes"*)
            [ ! -e "$work/no_graph" ] || echo "warning: --cuda-graph: steps are not recorded and go op by op: no room" >&2
            echo '{"images_per_s":1320.6,"memory_mb":8400.0,"memory_taken_mb":9000.0}'
            exit ;;
        esac
        echo '{"images_per_s":1100.5,"memory_mb":8400.0,"memory_taken_mb":9000.0}' ;;
    train*)
        echo "$*" >>"$work/trained"
        case "$*" in
            *auto*) rate=2000 && echo "decoding: nvJPEG makes 1,500 images/s, the CPU 900: --decode gpu" >&2 ;;
            *region*) rate=$(cat "$work/cpu_rate") && [ "$rate" != none ] || exit 4 ;;
        esac
        while [ "$1" != --out ]; do shift; done
        mkdir -p "$2"
        printf '{"event":"eval","images_per_s":500.0,"data_wait":0.9}\n{"event":"eval","images_per_s":%s.0,"data_wait":0.25}\n' \
            "$rate" >"$2/metrics.jsonl" ;;
    *kernels*) echo '{"copy_gb_s":3000.0,"passes":[{"group":"stage 1","name":"join","bytes":100000000,"us":40.0,"gb_s":2500.0,"of_copy":0.83},{"group":"stage 1","name":"apply","bytes":100000000,"us":50.0,"gb_s":2000.0,"of_copy":0.66},{"group":"stage 1","name":"small","bytes":1000,"us":5.0,"gb_s":1.0,"of_copy":0.01}]}' ;;
esac
END
good='"state":"good","text":"rn50_cuda.so, CUDA 13.0, code for sm_89 sm_90 compute_75","remedy":""'
export work

check_gpu() { # STAGES: on a machine as the files in $work say; leaves the table in `out`
    rm -rf "$WORK" "$OUT" torch_ran steps_ran tests_ran
    STAGES=$1 TOTAL=${TOTAL:-60} "$tools/gpu_check.sh" >out 2>err
    code=$?
    rm -f crash slow too_old no_op dies no_step no_torch
}
valid() { # whether the summary is JSON, where a Python can tell
    [ -s "$OUT/summary.json" ] && { [ ! -x /usr/bin/python3 ] || /usr/bin/python3 -m json.tool "$OUT/summary.json" >/dev/null 2>err; }
}

# --- it stops where nothing can be measured
echo '"state":"missing","text":"rn50_cuda.so needs libcudnn.so.9, which is not found","remedy":"install it"' >module
check_gpu "doctor steps"
check "a module that does not load stops the call: 3" eval \
    'is 3 && valid && prints "the GPU module does not load: rn50_cuda.so needs libcudnn.so.9" "SKIPPED stopped by doctor" && [ ! -e steps_ran ] && [ ! -e torch_ran ]'
echo '"state":"good","text":"rn50_cuda.so, CUDA 13.0, code for sm_89 compute_75","remedy":""' >module
check_gpu "doctor steps"
check "a module without machine code for this GPU stops the call: 3" eval \
    'is 3 && valid && prints "no machine code for this GPU (sm_90), only sm_89 compute_75" && [ ! -e steps_ran ]'
echo "$good" >module
touch no_op
check_gpu "doctor steps"
check "a self-test without one op stops the call: 3" eval 'is 3 && valid && prints "ran not one op" && [ ! -e steps_ran ]'
touch too_old
stub bin/make <<<'echo "no rule to make anything" && exit 2'
stub bin/nvcc <<<'exit 1'
check_gpu "doctor"
check "programs that do not start and cannot be built: 3" eval \
    'is 3 && prints "do not start here: rn50: version GLIBC_2.99 not found" "building here" "no rule to make anything"'
rm bin/make bin/nvcc
check_gpu "doctor stairs"
check "a stage that there is not: 2" eval 'is 2 && says "no stage stairs"'

# --- it goes on where one thing fails, and what it leaves is whole
touch dies
check_gpu "doctor"
check "a self-test that dies: what it told is kept, as JSON" eval \
    'is 1 && valid && prints "1 of 1 ops agree" "did not come to its end" "driver: NVRM: Xid" && grep -q "\"self_test\": \[{\"op\":\"join\"" "$OUT/summary.json"'
touch crash slow
TOTAL=24 check_gpu "tests kernels"
check "tests: a crash and a time limit leave the other groups, and are named" eval \
    'is 1 && valid && prints "conv: FAILED, ended with status 139" "loss: FAILED at its limit; the last case that ended: 0.1 s: dropout" "norm        3 passed" "24 test cases passed" && grep -q "^kernels " out'
check "tests: nothing of a stage outlives it" eval '! ps -eo args | grep -q "^sleep 30$"'
stub bin/ldd <<<'echo "	libfar.so.1 => not found"'
echo "a library" | gzip >"$BUNDLE/lib/libfar.so.1.gz"
check_gpu "doctor tests"
check "all is well: 0" eval 'is 0 && valid && prints "30 test cases passed, 0 failed"'
check "a library that the machine lacks is unpacked from the bundle" eval '[ "$(cat "$WORK/lib/libfar.so.1")" = "a library" ]'
rm bin/ldd

# --- figures and goals
check_gpu "steps kernels"
check "steps: goals reached" eval \
    'is 0 && valid && prints "reached      images/s beside PyTorch eager, fp16, batch 256: 1.101, at least 1" \
     "reached      memory beside PyTorch eager, fp16, batch 256: 0.840, at most 0.85"'
check "steps: goals missed are no failure" eval 'prints "MISSED       lean memory beside PyTorch eager, fp16, batch 256: 0.730, at most 0.72"'
check "steps: memory as planned, as taken, and PyTorch's while it tried out" eval \
    'prints "rn50 planned 8400, taken 9000; PyTorch 10000, 12000 while"'
check "kernels: each pass is judged, small ones are not" eval \
    'grep -q "join .* 83%  reached" out && grep -q "apply .* 66%  MISSED 80%" out && grep -qE "small .* 1% *$" out &&
     prints "MISSED       passes over memory at 80% of a copy or more, fp16: 0.5, at least 1"'
check_gpu "graphs"
check "graphs: steps op by op and recorded, by batch" eval \
    'is 0 && valid && prints "fp16, batch 8: op by op    1100.5   recorded    1320.6 images/s   1.200x" &&
     [ "$(grep -c "cuda-graph yes" steps_ran)" = 6 ]'
touch no_graph
check_gpu "graphs"
check "graphs: a step that is not recorded fails, with the reason" eval \
    'is 1 && valid && prints "warning: --cuda-graph: steps are not recorded and go op by op: no room"'
rm no_graph
touch no_step
check_gpu "steps"
check "steps: without a step of rn50, none of PyTorch" eval 'is 1 && valid && prints "no room" "PyTorch is not measured" && [ ! -e torch_ran ]'
touch no_torch
check_gpu "steps losses"
check "without PyTorch rn50 stands alone" eval \
    'is 1 && valid && prints "has no PyTorch" "1100.5" "not measured images/s beside PyTorch" && [ ! -e torch_ran ] && grep -q "^losses .*SKIPPED" out'

# --- whole epochs
export EPOCH_COUNT=5 EPOCH_WORKERS="4 1" EPOCH_RIVAL_WORKERS=4
mkdir -p "$BUNDLE/photos" && echo a >"$BUNDLE/photos/a b.jpg" && echo c >"$BUNDLE/photos/c.jpg"
echo 1600 >cpu_rate
check_gpu "epochs"
check "epochs: the last of them, beside PyTorch's where that is asked for" eval \
    'is 0 && valid && prints "4 workers: rn50    2000 images/s, 25% waiting for data   PyTorch    1000 images/s, 59% waiting for data   2.00x" \
     "1 workers: rn50    2000 images/s, 25% waiting for data   PyTorch     not run   -x"'
check "epochs: what auto chose is judged beside the other way" eval \
    'prints "nvJPEG makes 1,500 images/s" "reached      --decode auto beside the other way, 4 workers: 1.25, at least 0.9" &&
     [ "$(grep -c "decode region" trained)" = 2 ] && ! grep -q "decode gpu" trained'
check "epochs: as many files as asked, copies in turn" eval \
    '[ "$(find "$WORK/epoch_set.5" -type f | wc -l)" = 5 ] && [ "$(cat "$WORK"/epoch_set.5/*/* | tr -d "\n")" = acaca ]'
echo 2500 >cpu_rate
check_gpu "epochs"
check "epochs: a wrong choice is a goal missed" eval 'is 0 && prints "MISSED       --decode auto beside the other way, 1 workers: 0.80, at least 0.9"'
echo none >cpu_rate
check_gpu "epochs"
check "epochs: a run that fails is said" eval 'is 1 && valid && prints "rn50, 4 workers, --decode region: FAILED with status 4"'

# --- compute-sanitizer
stub bin/compute-sanitizer <<'END'
[ "$1" != --help ] || { cat "$work/sanitizer_help" && exit 0; }
echo "$*" >>"$work/sanitized"
case "$*" in
    *memcheck*test_ops_conv.cpp*) echo "========= Invalid __global__ write of size 4 bytes" && echo "========= ERROR SUMMARY: 1 error" && exit 9 ;;
    *racecheck*test_ops_loss*) echo "========= RACECHECK SUMMARY: 0 hazards displayed" ;;
    *) while [ "${1##*/}" != rn50_tests ]; do shift; done && "$@" && echo "========= ERROR SUMMARY: 0 errors" ;;
esac
END
echo "  --kernel-name arg" >sanitizer_help
touch slow
TOTAL=13 check_gpu "sanitizer"
check "sanitizer: each group has its verdict, found, clean or short of time" eval \
    'is 1 && valid && prints "memcheck conv: 1 FAULTS (status 9)" "Invalid __global__ write" "memcheck norm: no fault" \
     "memcheck loss: no fault as far as its time sufficed (1 cases)" "racecheck norm: no fault"'
check "sanitizer: racecheck leaves out the groups with cuDNN" eval '! prints "racecheck conv" && ! prints "racecheck infer"'
check "sanitizer: own kernels, each tensor alone, no timing" eval \
    'grep -q "tool memcheck --report-api-errors no --kernel-name kns=4rn504cuda" sanitized && grep -q "test_ops_norm.* arena=separate autotune=0" tests_ran'
echo "  --filter arg" >sanitizer_help
rm -f sanitized
check_gpu "sanitizer"
check "sanitizer: an old one checks all kernels, and that is said" eval 'prints "cannot choose kernels by name" && ! grep -q kernel-name sanitized'

# --- what is carried there
BUNDLE=$work/none "$tools/gpu_bundle.sh" 999 >out 2>err
code=$?
check "gpu_bundle: a module without code for the asked GPU is refused" eval '[ $code != 0 ] && says "CUDA_ARCHS=999" && [ ! -e none ]'
exit $failed
