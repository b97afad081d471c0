#!/bin/bash
# Training in several ranks on CPUs: the same results as one rank, whoever starts them, and going on in other numbers.
#   tests/test_ranks.sh PATH/rn50
source "$(dirname "$0")/rank_script.sh" "$1"

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
run train --config two/run.toml --save-minutes 0.00001 --out again
check "run.toml repeats the run bit for bit, however often it saves" eval \
    'is 0 && cmp -s two/last.safetensors again/last.safetensors && cmp -s two/best.safetensors again/best.safetensors'

# --- stop and go on ------------------------------------------------------------------------------------------------------
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --sync-bn --max-steps 7 --out parts
run train --resume auto --out parts --max-steps 0
check "a resumed run of two ranks equals an uninterrupted one bit for bit" eval \
    'is 0 && cmp -s two/last.safetensors parts/last.safetensors'

# --- another number of ranks ---------------------------------------------------------------------------------------------
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --sync-bn --max-steps 7 --out seven
for ranks in 1 4; do
    cp -r seven "as$ranks"
    run train --resume auto --out "as$ranks" --max-steps 0 --ranks "$ranks"
    check "a run of two ranks goes on in $ranks from the same picture on, with the same losses" eval \
        'is 0 && near two "as$ranks" 1e-5 && says "before by 2 ranks of 8: as before 16 pictures in a step"'
done
run train --resume auto --out seven --ranks 3
check "3 ranks cannot share 16 pictures: refused, with the numbers that can" fails 2 "cannot go on with 3 ranks" "1, 2, 4, 8, 16"
run train --resume auto --out seven --ranks 4 --batch-size 8
check "ranks with more pictures in a step are refused" fails 2 "must stay 16"

# --- steps of several batches --------------------------------------------------------------------------------------------
run train data "${tiny[@]}" --batch-size 8 --accumulate 2 --out added
check "two batches added up train as two ranks do without --sync-bn" eval 'is 0 && near apart added 1e-5 && [ "$(events added step)" = 20 ]'
run train data "${tiny[@]}" --batch-size 8 --accumulate 2 --max-steps 7 --out added7
run train --resume auto --out added7 --max-steps 0
check "such a run goes on bit for bit" eval 'is 0 && cmp -s added/last.safetensors added7/last.safetensors'
run train data "${tiny[@]}" --batch-size 4 --accumulate 2 --ranks 2 --sync-bn --out added2
check "and in two ranks that share each batch" eval 'is 0 && near added added2 1e-5 && [ "$(events added2 step)" = 20 ]'

# --- pictures that nobody can read, classes that are uneven --------------------------------------------------------------
cp -r data odd
mapfile -t broken < <(find odd/train -name '*.jpg' | sort | sed -n '1p;20p;40p')
for picture in "${broken[@]}"; do : >"$picture"; done
uneven=$(find odd/train -name '*.jpg' | sort | tail -1 | xargs dirname)
find "$uneven" -name '*.jpg' | sort | tail -6 | xargs rm
run train odd "${tiny[@]}" --batch-size 16 --class-weights auto --max-bad 0.1 --epochs 2 --out odd1
run train odd "${tiny[@]}" --batch-size 8 --ranks 2 --sync-bn --class-weights auto --max-bad 0.1 --epochs 2 --out odd2
check "weights of classes and bad pictures: two ranks train as one" eval 'is 0 && near odd1 odd2 1e-5 && [ "$(events odd2 step)" = 8 ]'
check "what any rank could not read is listed, once" eval \
    '[ "$(wc -l <odd1/bad_pictures.txt)" -ge 2 ] && diff <(sort odd1/bad_pictures.txt) <(sort odd2/bad_pictures.txt) && [ "$(grep -c skipped err)" = 1 ]'
run train odd "${tiny[@]}" --batch-size 8 --ranks 2 --max-bad 0.03 --out odd3
check "--max-bad counts the bad pictures of all ranks" eval \
    'fails 3 "3 of 74 pictures cannot be used" "--max-bad" && [ "$(grep -c "error: 3 of 74" err)" = 2 ]'  # no rank alone
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --mixup 0.4 --cutmix 1 --epochs 1 --out mixed
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --mixup 0.4 --cutmix 1 --epochs 1 --max-steps 2 --out mixed2
run train --resume auto --out mixed2 --max-steps 0
check "mixed pictures: a resumed run of two ranks equals an uninterrupted one bit for bit" eval \
    'is 0 && [ "$(events mixed step)" = 5 ] && cmp -s mixed/last.safetensors mixed2/last.safetensors && ! near apart mixed 1e-3'

# --- shards, and a disk that goes away -----------------------------------------------------------------------------------
run pack data packed --format tfrecord
rm packed/*.rn50idx
run train packed "${tiny[@]}" --batch-size 8 --ranks 2 --sync-bn --max-steps 5 --out shards
check "shards without an index: one rank makes it, the others wait, and all train as on the folder" eval \
    'is 0 && says "the other ranks wait for the indices" && first=5 near shards two 1e-5 && ls packed/*.rn50idx >/dev/null'
run train packed "${tiny[@]}" --batch-size 8 --ranks 2 --max-steps 1 --out indexed
check "with an index nobody waits" eval 'is 0 && ! says "the other ranks wait"'
cp -r data lent
timeout 300 "$program" train lent "${tiny[@]}" --epochs 100000 --batch-size 8 --ranks 2 --sync-bn --out away >out 2>err &
job=$!
for _ in $(seq 600); do
    grep -q '"event":"eval"' away/metrics.jsonl 2>/dev/null && break
    sleep 0.05
done
mv lent elsewhere
wait "$job"
code=$?
job=
mv elsewhere lent
at=$(events away step)
check "a folder that is gone: 3, and no rank counts a picture as bad" eval \
    'fails 3 "cannot be read: No such file" "rn50 train --resume auto --out away" && [ ! -s away/bad_pictures.txt ]'
run train --resume auto --out away --max-steps $((at + 2))
check "and the ranks go on where they were, or where the epoch began" eval \
    'is 0 && says "resumed at step" && [ "$(sed -n "s/.*resumed at step \([0-9]*\).*/\1/p" err)" -ge $((at - 5)) ]'

# --- on the wire ---------------------------------------------------------------------------------------------------------
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --sync-bn --wire bf16 --bucket-mb 4 --max-steps 5 --out brain
check "gradients that travel as bf16: near, not the same" eval \
    'is 0 && first=5 near two brain 2e-3 && ! cmp -s two/last.safetensors brain/last.safetensors && says "gradients on the wire"'

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
check "ranks with other data too" fails 2 "rank 0 has train = 80 pictures, rank 1 has train = 79 pictures"
both_refuse() { # DATA OF RANK 1 WORDS...: both ranks end with 2 and the words
    local other=$1
    shift
    as_rank 1 "$other" "${tiny[@]}" --epochs 1 --batch-size 8 --out differ >out1 2>err1 &
    as_rank 0 data "${tiny[@]}" --epochs 1 --batch-size 8 --out differ >out 2>err
    code=$?
    wait $!
    [ $? = 2 ] && fails 2 "$@" && has err1 "$@"
}
cp -r data renamed
picture=$(find renamed/train -name '*.jpg' | sort | head -1)
mv "$picture" "${picture%.jpg}-too.jpg"
check "as many pictures of other names are other data" both_refuse renamed "rank 0 has train = 80 pictures with names and labels"
cp -r data lacking-hard && rm -r lacking-hard/hard
check "a split that one rank lacks is refused at the start" both_refuse lacking-hard "rank 0 has hard = 8 pictures, rank 1 has nothing like it"
ONEDNN_MAX_CPU_ISA=SSE41 as_rank 1 data "${tiny[@]}" --precision mixed --batch-size 8 --out differ >out1 2>err1 &
as_rank 0 data "${tiny[@]}" --precision mixed --batch-size 8 --out differ >out 2>err
code=$?
wait $!
check "mixed that is bf16 on one rank and fp32 on the other is refused; where no rank has bf16 they train" eval \
    'is 0 || fails 2 "rank 0 has precision = bf16, rank 1 has precision = fp32"'
rm -rf differ
# Rank 1 sees a copy of the run's folder that is older.
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --max-steps 2 --out shared
mkdir -p elsewhere && cp -r shared elsewhere/shared && ln -s ../data elsewhere/data
run train --resume auto --out shared --max-steps 4
(cd elsewhere && as_rank 1 --resume auto --out shared --max-steps 6 >../out1 2>../err1) &
as_rank 0 --resume auto --out shared --max-steps 6 >out 2>err
code=$?
wait $!
others=$?
check "a resumed run goes on from rank 0's state, whatever lies on the other ranks" eval \
    '[ $others = 0 ] && is 0 && says "resumed at step 4" && [ "$(events shared step)" = 6 ]'
run train data "${tiny[@]}" --batch-size 8 --ranks 2 --max-steps 6 --out straight
check "and equals an uninterrupted one bit for bit" eval 'is 0 && cmp -s straight/last.safetensors shared/last.safetensors'
run train data "${tiny[@]}" --batch-size 8 --ranks 3 --out /proc/nope
check "the exit code is that of the rank that had a reason, and nothing is said to be saved" eval \
    'fails 3 "/proc/nope" "nothing was saved yet" && ! says "checkpoints"'
run train data "${tiny[@]}" --batch-size 8 --ranks 3 --warmup-epochs 9 --max-steps 1 --out warned
check "a warning about all ranks is given once" eval 'is 0 && [ "$(grep -c "is longer than the run" err)" = 1 ]'
SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_JOB_ID=1 run train data "${tiny[@]}" --batch-size 8 --ranks 2 --max-steps 1 --out batch
check "the script of a Slurm job starts its own ranks" eval 'is 0 && says "ranks: 2 by Gloo"'
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
