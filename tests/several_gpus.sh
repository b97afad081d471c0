# --gpus on imaginary GPUs, sourced by test_cuda_module.sh: who is started on which, and what does not fit.
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT "${!SLURM_@}" "${!OMPI_@}"
export RN50_CUDA_MODULE=$work/whole.so IMAGINARY_NOTES=$work/notes
draw=$(find "$(dirname "$program")" -maxdepth 2 -name make_defects -type f | head -1)
"$draw" --out data --size 64 --count 40 >out 2>err
tiny=(train data --model resnet18 --image-size 32 --batch-size 4 --warmup-epochs 1 --epochs 1 --optimizer sgd --lr 0.001
    --max-steps 3)
on_gpus() { # GPUS ARGUMENTS...: with as many imaginary GPUs in the machine
    local present=$1
    shift
    rm -f notes
    IMAGINARY_GPU=$present timeout 100 "$program" "${tiny[@]}" "$@" >out 2>err
    code=$?
}
noted() { # LINES: who was on what, in any order
    [ "$(sort notes | sed 's/^rank //')" = "$(printf '%s\n' "$@" | sort)" ]
}

on_gpus 3 --gpus 4 --out few
check "--gpus: more than there are" eval 'is 4 && says "--gpus 4: this machine shows 3 GPUs" "--gpus all"'
on_gpus 3 --gpus 0,3 --out few
check "--gpus: one that there is not" eval 'is 4 && says "--gpus 0,3: this machine shows 3 GPUs, counted from 0"'
on_gpus 3 --gpus 2 --device cpu --out few
check "--gpus and --device cpu" eval 'is 2 && says "--gpus 2 and --device cpu exclude each other"'
on_gpus 3 --gpus 2 --ranks 3 --out few
check "--gpus and another --ranks" eval 'is 2 && says "--gpus 2 makes 2 ranks, --ranks asks for 3"'
on_gpus 3 --gpus 2 --out few
check "--gpus without NCCL: what to install, said once" eval \
    'is 4 && says "several GPUs need NCCL" "set IMAGINARY_NCCL" && [ "$(grep -c "need NCCL" err)" = 1 ]'
RN50_CUDA_MODULE='' on_gpus 0 --gpus 2 --out few
check "--gpus without a module: an error, not the CPU" eval 'is 4 && says "no rn50_cuda.so"'
check "nothing of that was begun" [ ! -e few ]
IMAGINARY_GPU=2 "$program" doctor >out 2>err
check "doctor: several GPUs without NCCL" prints "! NCCL         not found: training on several GPUs needs it" "libnccl2"
export IMAGINARY_NCCL=1
IMAGINARY_GPU=2 NCCL_SOCKET_IFNAME==nothing0 "$program" doctor >out 2>err
check "doctor: NCCL's versions, the way between GPUs, network, shared memory" prints "✓ NCCL         2.18.3, built with 2.16.5" \
    "a run says which ways it takes" "! GPU to GPU   no peer-to-peer" "! network      NCCL_SOCKET_IFNAME==nothing0 names no interface" "/dev/shm"
IMAGINARY_GPU=1 "$program" doctor >out 2>err
check "doctor: one GPU needs none of that" eval '! prints "GPU to GPU"'
on_gpus 1 --gpus all --out alone
check "--gpus all, where there is one: alone" eval 'is 0 && noted "none on GPU 0 of all" && ! says "ranks:"'

check "where it is the only one, nothing is said of others" eval '! says "GPUs trains"'
on_gpus 2 --out one
check "one of two: says how to take both" eval 'is 0 && noted "none on GPU 0 of all" && says "one of 2 GPUs trains; --gpus all takes them all"'
on_gpus 2 --gpus 1 --out one1
check "--gpus 1 of two: as was asked" eval 'is 0 && ! says "GPUs trains"'

if ! "$program" "${tiny[@]}" --device cpu --ranks 2 --out cpu 2>err >out && says "need Gloo"; then
    echo "ok (imaginary NCCL needs Gloo)"
    return
fi
on_gpus 3 --gpus 2 --out two
check "--gpus 2: one rank on each of the first two" eval 'is 0 && noted "0 on GPU 0 of all" "1 on GPU 1 of all"'
check "--gpus 2: says ranks, engine, GPUs and batch" says "ranks: 2 by NCCL 2.0.0, on 2 x Imaginary 3090, batch 4 each, 8 in a step"
check "and by which way NCCL goes, from its log" says "NCCL goes by the host's memory (SHM/direct/direct; 1 link)"
NCCL_DEBUG=WARN NCCL_DEBUG_FILE=$work/theirs on_gpus 3 --gpus 2 --out theirs_run
check "a log that the user has asked for stays the user's" eval 'is 0 && ! says "NCCL goes by" && grep -q "via SHM" theirs'
mkdir -p home && echo NCCL_DEBUG=WARN >home/.nccl.conf
HOME=$work/home on_gpus 3 --gpus 2 --out conf_run
check "also by NCCL's own file" eval 'is 0 && ! says "NCCL goes by"'
on_gpus 3 --config two/run.toml --out again
check "run.toml repeats it on as many" eval 'is 0 && noted "0 on GPU 0 of all" "1 on GPU 1 of all" && cmp -s two/last.safetensors again/last.safetensors'
check "two GPUs give what two CPUs give" cmp -s two/last.safetensors cpu/last.safetensors
on_gpus 3 --gpus all --out all
check "--gpus all: three" eval 'is 0 && [ "$(wc -l <notes)" = 3 ] && says "ranks: 3 by NCCL"'
on_gpus 4 --gpus 0,2 --out list
check "--gpus 0,2: CUDA sees these two" eval 'is 0 && noted "0 on GPU 0 of 0,2" "1 on GPU 1 of 0,2"'
CUDA_VISIBLE_DEVICES=4,GPU-5,6 on_gpus 3 --gpus 1,2 --out list2
check "--gpus 1,2: of those that are visible" eval 'is 0 && noted "0 on GPU 0 of GPU-5,6" "1 on GPU 1 of GPU-5,6"'
on_gpus 2 --ranks 2 --out ranks
check "--ranks on GPUs: one each" eval 'is 0 && noted "0 on GPU 0 of all" "1 on GPU 1 of all"'
on_gpus 2 --ranks 3 --out ranks3
check "more ranks than GPUs" eval 'is 2 && says "this machine shows 2 GPUs, and this is its rank 2" "two ranks would be on one GPU"'
IMAGINARY_FAULT=1 on_gpus 2 --gpus 2 --out fault
check "an engine that fails on one rank: its words and remedy, and the other's loss" eval \
    'is 4 && says "ncclCommInitRankConfig: imaginary" "imagine less" "rank 1 on"'

port=$((20000 + RANDOM % 20000))
as_rank() { # RANK ARGUMENTS...: one of two that others have started
    local rank=$1
    shift
    RANK=$rank WORLD_SIZE=2 LOCAL_RANK=$rank LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
        IMAGINARY_GPU=1 timeout 60 "$program" "${tiny[@]}" "$@"
}
rm -f notes
as_rank 1 --out started >out1 2>err1 &
as_rank 0 --out started >out 2>err
code=$?
wait $!
check "ranks that see one GPU each take it" eval 'is 0 && noted "0 on GPU 0 of all" "1 on GPU 0 of all"'
as_rank 0 --gpus 3 --out started3 >out 2>err
code=$?
check "--gpus against who starts the ranks" eval 'is 2 && says "--gpus 3 does not fit the 2 ranks"'
