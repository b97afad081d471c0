#!/bin/bash
# Training in several ranks on CPUs: the same results as one rank, signals, and ranks that die.
#   tests/test_ranks.sh PROGRAM [SCRATCH]
set -uo pipefail
program=$(readlink -f "${1:?usage: tests/test_ranks.sh PROGRAM [SCRATCH]}")
draw=$(find "$(dirname "$program")" -maxdepth 2 -name make_defects -type f | head -1)
scratch=${2:-$(mktemp -d)}
[ -n "${2:-}" ] || trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch" && cd "$scratch" || exit 1
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT "${!SLURM_@}" "${!OMPI_@}"
failed=0

run() { timeout 100 "$program" "$@" >out 2>err; code=$?; }
check() { # WHAT CONDITION...
    local what=$1
    shift
    if "$@"; then echo "ok   $what"; else
        echo "FAIL $what (exit code $code)"
        sed 's/^/     err: /' err
        failed=1
    fi
}
is() { [ "$code" = "$1" ]; }
says() {
    local words
    for words in "$@"; do grep -qF -- "$words" err || return 1; done
}
fails() { is "$1" && shift && says "$@"; }
events() { grep -c "\"event\":\"$2\"" "$1/metrics.jsonl"; }
losses() { grep '"event":"step"' "$1/metrics.jsonl" | sed 's/.*"loss":\([0-9.e+-]*\).*/\1/'; }
# Whether each loss of two runs is nearer than the bound.
near() { # A B BOUND
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

run train data "${tiny[@]}" --ranks 2 --out lacking
if fails 4 "need Gloo"; then
    check "without Gloo: says what to install" says "build anew"
    exit $failed
fi
rm -rf lacking

# --- the same as one rank ------------------------------------------------------------------------------------------------
run train data "${tiny[@]}" --batch-size 16 --out one
check "one rank" is 0
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --sync-bn --out two
check "two ranks: 0, one line a step, one report" eval \
    'is 0 && [ "$(events two start) $(events two step) $(events two eval) $(events two end)" = "1 20 4 1" ] && [ -s two/report.html ]'
check "two ranks: only rank 0 speaks" eval '! grep -q "^rank 1" err && [ "$(grep -c "^data: " err)" = 1 ] && says "ranks: 2 by Gloo"'
check "two ranks of 8 give the losses of one of 16 (dropout and augmentation on)" near one two 1e-5
check "an uneven evaluation is that of one rank" eval \
    '[ "$(evaluation one top1)" = "$(evaluation two top1)" ] && [ "$(evaluation one macro_f1)" = "$(evaluation two macro_f1)" ]'
run train data "${tiny[@]}" --batch-size 4 --ranks 4 --sync-bn --out four
check "four ranks of 4 too" eval 'is 0 && near one four 1e-5'
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --out apart
check "control: without --sync-bn the losses are others" eval 'is 0 && ! near one apart 1e-3'
run train --config two/run.toml --out again
check "run.toml repeats the run bit for bit" eval \
    'is 0 && cmp -s two/last.safetensors again/last.safetensors && cmp -s two/best.safetensors again/best.safetensors'

# --- stop and go on ------------------------------------------------------------------------------------------------------
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --sync-bn --max-steps 7 --out parts
run train --resume auto --out parts --max-steps 0
check "a resumed run of two ranks equals an uninterrupted one bit for bit" eval \
    'is 0 && cmp -s two/last.safetensors parts/last.safetensors'
run train --resume auto --out parts --ranks 3
check "another number of ranks is refused" fails 2 "ranks = 2"

long=("${tiny[@]}" --epochs 500 --batch-size 8 --ranks 2 --peer-timeout 3)
launch() { # OUT: starts a long run, waits for its first evaluation; sets launcher and ranks
    "$program" train data "${long[@]}" --out "$1" >out 2>err &
    launcher=$!
    for _ in $(seq 300); do
        [ -s "$1/state.safetensors" ] && break
        sleep 0.1
    done
    mapfile -t ranks < <(for pid in $(pgrep -P "$launcher"); do
        echo "$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^RANK=//p') $pid"
    done | sort -n | cut -d' ' -f2)
    started=$SECONDS
}
ended() { # waits for the launcher; sets code and took
    wait "$launcher"
    code=$?
    took=$((SECONDS - started))
}
gone() { ! kill -0 "${ranks[@]}" 2>/dev/null; }

launch term
kill -TERM "${ranks[1]}"
ended
check "a signal at one rank saves and stops all: 143" eval 'is 143 && says "saving step" && gone'
launch term2
kill -TERM "$launcher"
ended
check "a signal at the launcher does too" eval 'is 143 && says "saving step" && gone'

# --- death ---------------------------------------------------------------------------------------------------------------
launch kill1
kill -9 "${ranks[1]}"
ended
check "kill -9 of rank 1: 6, with rank, host and cause" eval 'fails 6 "rank 1 on $(hostname) was lost" "its process has ended" "--resume auto" && gone'
check "kill -9: noticed at once" [ "$took" -le 6 ]
steps=$(events kill1 step)
run train --resume auto --out kill1 --max-steps "$((steps + 3))"
check "kill -9: the run goes on from its last checkpoint" eval 'is 0 && says "resumed at step" && [ "$(events kill1 end)" = 1 ]'
launch kill0
kill -9 "${ranks[0]}"
ended
check "kill -9 of rank 0: 6" eval 'fails 6 "rank 1: error: rank 0" "was lost" && gone'
launch stop1
kill -STOP "${ranks[1]}"
ended
check "kill -STOP of rank 1: 6, no sign of life" eval 'fails 6 "rank 1 on $(hostname) was lost: no sign of life for 3 s" && gone'
check "kill -STOP: over within timeout and grace" [ "$took" -le 24 ]
launch stop0
kill -STOP "${ranks[0]}"
ended
check "kill -STOP of rank 0: 6" eval 'fails 6 "rank 1: error: rank 0" && gone'

# --- started by others ---------------------------------------------------------------------------------------------------
port=$((20000 + RANDOM % 20000))
as_rank() { # RANK ARGUMENTS...: one rank of two
    local rank=$1
    shift
    RANK=$rank WORLD_SIZE=2 LOCAL_RANK=$rank LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
        timeout 60 "$program" train "$@"
}
as_rank 1 data "${tiny[@]}" --epochs 1 --batch-size 8 --lr 0.002 --out differ >out1 2>err1 &
as_rank 0 data "${tiny[@]}" --epochs 1 --batch-size 8 --out differ >out 2>err
code=$?
wait $!
check "ranks with other options are refused with the difference" fails 2 "rank 0 has lr = 0.001, rank 1 has lr = 0.002"
cp -r data fewer
rm "$(find fewer/train -name '*.jpg' | head -1)"
as_rank 1 fewer "${tiny[@]}" --epochs 1 --batch-size 8 --out differ >out1 2>err1 &
as_rank 0 data "${tiny[@]}" --epochs 1 --batch-size 8 --out differ >out 2>err
code=$?
wait $!
check "ranks with other data too" fails 2 "rank 0 has pictures to train on = 80, rank 1 has pictures to train on = 79"
as_rank 1 data "${tiny[@]}" --epochs 1 --batch-size 8 --out torchrun >out1 2>err1 &
as_rank 0 data "${tiny[@]}" --epochs 1 --batch-size 8 --out torchrun >out 2>err
code=$?
wait $!
check "ranks that torchrun's variables tell of" eval 'is 0 && says "ranks: 2 by Gloo" && [ ! -s out1 ] && [ ! -s err1 ]'
as_rank 0 data "${tiny[@]}" --peer-timeout 1 --out alone >out 2>err
code=$?
check "a rank that never arrives: 6, with its name" fails 6 "rank 1 of 2 did not arrive within 1 s"
as_rank 1 data "${tiny[@]}" --peer-timeout 1 --out alone >out 2>err
code=$?
check "no rank 0: 6, with its address" fails 6 "rank 0 does not answer at 127.0.0.1:$((port + 1))"
as_rank 0 data "${tiny[@]}" --ranks 3 --out alone >out 2>err
code=$?
check "--ranks against the launcher's number: 2" fails 2 "does not fit the 2 ranks"
exit $failed
