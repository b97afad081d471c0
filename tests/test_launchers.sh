#!/bin/bash
# Ranks that real launchers start, as far as they are installed and work here: mpirun, srun, torchrun.
#   tests/test_launchers.sh PATH/rn50
source "$(dirname "$0")/rank_script.sh" "$1"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
pids=()
tiny+=(--threads 1 --workers 1 --batch-size 4 --max-steps 2)

under() { # NAME COMMAND...: two ranks train under the launcher, which COMMAND is
    local launcher=$1
    shift
    timeout 60 "$@" "$program" train data "${tiny[@]}" --resume auto --out "$launcher" >out 2>err
    code=$?
    check "$launcher: two ranks train" eval 'is 0 && says "holds no run yet" "ranks: 2 by Gloo" && [ "$(events "$launcher" step)" = 2 ]'
}
lacks() { echo "ok (left out: $1)"; }
works() { timeout 15 "$@" true >out 2>err; }

mpi=(mpirun --oversubscribe -n 2)
if command -v mpirun >/dev/null && works "${mpi[@]}" && [ "$("${mpi[@]}" printenv OMPI_COMM_WORLD_SIZE 2>/dev/null | head -1)" = 2 ]; then
    under mpirun "${mpi[@]}"
    for job in mpi1 mpi2; do # at once: neither takes the other's port
        timeout 60 "${mpi[@]}" "$program" train data "${tiny[@]}" --out $job >$job.out 2>$job.err &
        pids[${#pids[@]}]=$!
    done
    code=0
    for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
    cat mpi1.err mpi2.err >err
    check "mpirun: two runs at once" is 0
else
    lacks "needs Open MPI's mpirun"
fi
slurm=(srun --immediate=5 --overlap -n 2)
if command -v srun >/dev/null && works "${slurm[@]}"; then
    under srun "${slurm[@]}"
else
    lacks "needs a Slurm that gives two tasks at once"
fi
# A fresh port by --standalone; the module where the command is not installed.
torch=(torchrun)
command -v torchrun >/dev/null || torch=(python3 -m torch.distributed.run)
torch+=(--no_python --standalone --nproc_per_node 2) # PyTorch before 2.0 knows no others
if command -v python3 >/dev/null && works "${torch[@]}"; then
    under torchrun "${torch[@]}"
else
    lacks "needs PyTorch's torchrun"
fi
exit $failed
