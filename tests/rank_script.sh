# What the tests of several ranks share, to be sourced with the program's path: the helpers of script.sh, the demo set in
# `data`, and a tiny recipe for it. Exits 0 where the program was built without Gloo, after a look at what it says.
source "$(dirname "${BASH_SOURCE[0]}")/script.sh" "$1"
draw=$(find "$(dirname "$program")" -maxdepth 2 -name make_defects -type f | head -1)
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT "${!SLURM_@}" "${!OMPI_@}" "${!PMIX_@}"
# Threads that spin while they wait for one another crawl where something else wants the cores.
export OMP_WAIT_POLICY=passive

run() { # ARGUMENTS of the program: as script.sh's, ended where ranks wait for each other for ever
    timeout 100 "$program" "$@" >out 2>err
    code=$?
}
fails() { is "$1" && shift && says "$@"; } # CODE WORDS...
events() { grep -c "\"event\":\"$2\"" "$1/metrics.jsonl"; }
losses() { grep '"event":"step"' "$1/metrics.jsonl" | sed 's/.*"loss":\([0-9.e+-]*\).*/\1/' | head -n "${first:-1000}"; }
near() { # A B BOUND: each loss of two runs, or the `first` ones, are nearer than the bound
    paste <(losses "$1") <(losses "$2") |
        awk -v bound="$3" '{ d = $1 - $2; if (d < 0) d = -d; if (d > bound || $2 == "") far = 1 } END { exit far || NR == 0 }'
}
evaluation() { grep '"event":"eval"' "$1/metrics.jsonl" | tail -1 | sed 's/.*"'"$2"'":\([0-9.]*\).*/\1/'; }

if ! "$draw" --out data --size 64 --count 80 >out 2>err; then
    echo "FAIL the demo set could not be drawn by ${draw:-make_defects}, which is not beside $program"
    cat err
    exit 1
fi
rm data/rn50.toml
tiny=(--device cpu --model resnet18 --image-size 32 --warmup-epochs 1 --seed 3 --epochs 4 --optimizer sgd --lr 0.001)

run train data "${tiny[@]}" --ranks 2 --max-steps 1 --batch-size 4 --out lacking
if fails 4 "need Gloo"; then
    check "without Gloo: says what to install" says "build anew"
    exit $failed
fi
