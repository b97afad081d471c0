#!/bin/bash
# A tiny run from end to end: what it leaves behind, that it repeats itself bit for bit, stops at a signal, goes on as if
# it had never stopped, and refuses what it cannot use.
#   tests/test_train.sh PATH/rn50
source "$(dirname "$0")/script.sh" "$1"
draw=
for folder in "$(dirname "$program")" "$(dirname "$program")/build"; do
    [ -x "$folder/make_defects" ] && draw=$folder/make_defects
done
# Threads that spin while they wait for one another crawl where something else wants the cores.
export OMP_WAIT_POLICY=passive

limited() { # KILOBYTES ARGUMENTS: the same where files cannot grow further, as on a full disk
    local kilobytes=$1
    shift
    (ulimit -f "$kilobytes" && exec "$program" "$@") >out 2>err
    code=$?
}
start() { # ARGUMENTS: the same in the background, until its first step is done; sets `job`
    local folder
    # A background job of a script ignores SIGINT unless somebody resets that.
    env --default-signal=INT "$program" "$@" >out 2>err &
    job=$!
    folder=$(sed 's/.*--out \([^ ]*\).*/\1/' <<<"$*")
    for _ in $(seq 1200); do
        grep -q '"event":"step"' "$folder/metrics.jsonl" 2>/dev/null && return
        kill -0 "$job" 2>/dev/null || return
        sleep 0.05
    done
}
finish() { # SIGNAL: sends it to the job and waits for its end
    kill -s "$1" "$job"
    wait "$job" 2>/dev/null
    code=$?
    job=
}
fails() { # CODE WORDS...
    is "$1" && shift && says "$@"
}
same() { cmp -s "$1" "$2"; }
same_run() { same "$1/last.safetensors" "$2/last.safetensors" && same "$1/best.safetensors" "$2/best.safetensors"; }
events() { grep -c "\"event\":\"$2\"" "$1/metrics.jsonl"; }
steps() { grep '"event":"step"' "$1/metrics.jsonl" | sed 's/.*"step":\([0-9]*\),.*/\1/' | tr '\n' ' '; }
pictures() { find "$@" -name '*.jpg' | sort; }

if ! "$draw" --out data --size 64 --count 80 >out 2>err; then
    echo "FAIL the demo set could not be drawn by ${draw:-make_defects}, which is not beside $program"
    cat err
    exit 1
fi
rm data/rn50.toml
tiny=(--model resnet18 --image-size 32 --batch-size 16 --warmup-epochs 1 --seed 3 --epochs 2)

# --- a run and what it leaves --------------------------------------------------------------------------------------------
run train data "${tiny[@]}" --out a --workers 1
check "train: 0" is 0
for file in run.toml metrics.jsonl best.safetensors last.safetensors state.safetensors report.html; do
    check "train: leaves $file" test -s "a/$file"
done
check "train: one start, a line a step, an evaluation an epoch, one end" eval \
    '[ "$(events a start) $(events a eval) $(events a end)" = "1 2 1" ] && [ "$(steps a)" = "1 2 3 4 5 6 7 8 9 10 " ]'
check "train: tells device, data, net, memory and epochs on stderr, results on stdout" eval \
    'says "device: " "data: 80 train, 20 val, 8 hard pictures; 8 classes" "memory plan: " "epoch 2/2" && grep -q "top-1" out'
for key in epoch step loss lr images_per_s data_wait loss_scale grad_norm memory_mb; do
    check "metrics: a step has $key" eval '[ "$(grep "\"event\":\"step\"" a/metrics.jsonl | grep -c "\"$key\":[0-9.]")" = 10 ]'
done
for key in top1 top5 macro_f1; do
    check "metrics: an evaluation has $key" eval '[ "$(grep "\"event\":\"eval\"" a/metrics.jsonl | grep -c "\"$key\":[0-9.]")" = 2 ]'
done
# Linear warm-up over 5 steps, then 1e-4 * (1 + cos(pi * k / 5)) / 2 for k = 0..4.
rates() { grep '"event":"step"' "$1/metrics.jsonl" | sed 's/.*"lr":\([^,]*\),.*/\1/' | awk '{ printf "%.3e ", $1 }'; }
expected="2.000e-05 4.000e-05 6.000e-05 8.000e-05 1.000e-04 1.000e-04 9.045e-05 6.545e-05 3.455e-05 9.549e-06 "
check "train: the learning rate of each step" eval '[ "$(rates a)" = "$expected" ]'
run train --config a/run.toml --out b --workers 3
check "train: run.toml repeats the run bit for bit, whatever the workers" eval 'is 0 && same_run a b'
run train data "${tiny[@]}" --seed 4 --out c --max-steps 10
check "train: another seed, another net" eval 'is 0 && ! same a/last.safetensors c/last.safetensors'
run train data "${tiny[@]}" --out a
check "train: never writes over a run" fails 2 "a holds a run already"

# --- uneven classes ------------------------------------------------------------------------------------------------------
mkdir uneven
cp -r data/val uneven/val
for class in data/train/*/; do
    name=$(basename "$class")
    mkdir -p "uneven/train/$name"
    keep=$([ "$name" = pit ] && echo 2 || echo 10)
    find "$class" -name '*.jpg' | sort | head -"$keep" | xargs -I{} cp {} "uneven/train/$name/"
done
even=(--class-weights auto --sampler balanced --label-smoothing 0.1)
run train uneven "${tiny[@]}" --out u0 --max-steps 1
check "imbalance: said, with what would help" eval 'is 0 && says "to 2 of pit (5.0 to 1); nothing is done about it"'
run train uneven "${tiny[@]}" "${even[@]}" --out u1 --workers 1
check "imbalance: said, with what is done" eval \
    'is 0 && says "each class is drawn equally often, and the loss weighs classes from 0.90 to 4.50" "favour rare ones"'
run train uneven "${tiny[@]}" "${even[@]}" --out u2 --workers 3 --max-steps 6
run train --out u2 --resume auto --max-steps 0
check "imbalance: resumed equals uninterrupted bit for bit, whatever the workers" eval 'is 0 && same_run u1 u2'
run train uneven "${tiny[@]}" --label-smoothing 0.1 --sampler balanced --out u3
check "imbalance: class weights change the net" eval 'is 0 && ! same u1/last.safetensors u3/last.safetensors'

# --- mixed pictures ------------------------------------------------------------------------------------------------------
mixed=(--mixup 0.4 --cutmix 1 --class-weights auto)
run train data "${tiny[@]}" "${mixed[@]}" --out m1 --workers 1
check "mixing: trains" is 0
run train data "${tiny[@]}" "${mixed[@]}" --out m2 --workers 3 --max-steps 7
run train --out m2 --resume auto --max-steps 0
check "mixing: resumed equals uninterrupted bit for bit, whatever the workers" eval 'is 0 && same_run m1 m2'
check "mixing: makes another net" eval '! same m1/last.safetensors a/last.safetensors'

# --- stop and go on ------------------------------------------------------------------------------------------------------
run train data "${tiny[@]}" --out d --max-steps 7
check "train: --max-steps ends early" eval 'is 0 && [ "$(steps d)" = "1 2 3 4 5 6 7 " ]'
run train --out d --resume auto --lr 1
check "train: a resumed run refuses another recipe" fails 2 "lr = 1"
sha1sum d/*.safetensors >sums
limited 20000 train --out d --resume auto --max-steps 0
check "disk full: 3, with the file's name" fails 3 "writing d/last.safetensors"
check "disk full: what was saved before is untouched, nothing half-written stays" eval \
    'sha1sum -c --quiet sums && [ -z "$(find d -name "*.tmp-*")" ]'
run train --out d --resume auto --max-steps 0
check "train: a resumed run equals an uninterrupted one bit for bit" eval 'is 0 && same_run a d'
check "train: its metrics are one history" eval '[ "$(steps d)" = "$(steps a)" ] && [ "$(events d end)" = 1 ]'

long=("${tiny[@]}" --epochs 100000)
start train data "${long[@]}" --out e
finish INT
at=$(steps e | wc -w)
check "SIGINT: 130, and says how to go on" fails 130 "rn50 train --resume auto --out e"
run train --out e --resume auto --max-steps $((at + 3))
run train data "${long[@]}" --out f --max-steps $((at + 3))
check "SIGINT: resumed equals uninterrupted bit for bit" eval 'is 0 && same e/last.safetensors f/last.safetensors'
rm -r f
start train data "${long[@]}" --out f
finish TERM
check "SIGTERM: saves and exits 143" eval 'is 143 && [ -s f/state.safetensors ]'
run predict f/last.safetensors data/val/none
check "SIGTERM: what was saved can be used" is 0
saved() { # FOLDER: waits for its first saved state
    for _ in $(seq 600); do
        [ -s "$1/state.safetensors" ] && break
        sleep 0.02
    done
}
start train data "${tiny[@]}" --out g
saved g
finish KILL
run train --out g --resume auto
check "kill -9: the run goes on from its last epoch" eval 'is 0 && same_run a g && [ "$(steps g)" = "$(steps a)" ]'
rm -rf g
start train data "${long[@]}" --epochs 2 --batch-size 2 --save-minutes 0.00001 --out g
saved g
finish KILL
at=$(steps g | wc -w)
run train --out g --resume auto --save-minutes 0 --max-steps $((at + 3))
check "kill -9 within the first epoch: the run goes on from the last step that was saved" eval \
    'is 0 && says "resumed at step" && ! says "resumed at step 0" && [ "$at" -lt 40 ]'
run train data "${long[@]}" --epochs 2 --batch-size 2 --out g2 --max-steps $((at + 3))
check "and equals what was never killed bit for bit" eval 'is 0 && same g/last.safetensors g2/last.safetensors && [ "$(steps g)" = "$(steps g2)" ]'
limited 20000 train data "${tiny[@]}" --save-minutes 0.00001 --out g3
check "disk full within an epoch: said, and the run goes on to the epoch's end" eval \
    'fails 3 "writing g3/last.safetensors" "the run goes on and will try again" && [ "$(steps g3)" = "1 2 3 4 5 " ]'
rm -rf g2 g3
rm -rf c e f g && mkdir e && cp d/run.toml e
run train --out e --resume auto
check "kill -9 in the first epoch: the run starts again" eval 'is 0 && says "starts from its beginning" && same_run a e'
run train --out nowhere --resume auto
check "resume: auto without a run and without pictures to begin one is 3" fails 3 "nowhere holds no run to resume"
run train --resume nowhere
check "resume: no such run is 3" fails 3 "nowhere does not exist"
restarted=(train data "${tiny[@]}" --seed 5 --resume auto --out r1)
run "${restarted[@]}" --max-steps 1
check "resume: auto begins a run where none is, and says so" eval 'is 0 && says "r1 holds no run yet: a new one begins there"'
run "${restarted[@]}" --max-steps 2
check "resume: and the same command goes on with it" eval 'is 0 && says "resumed at step 1" && ! says "holds no run yet"'
rm -r r1
head -c 1000000 a/state.safetensors >e/state.safetensors
run train --out e --resume auto
check "resume: a damaged state is 3, by name" fails 3 e/state.safetensors "cut short"
cp -r data more && cp "$(pictures data/train | head -n 1)" more/train/none/again.jpg
run train more --out d --resume auto
check "resume: other pictures are 3, with their numbers" fails 3 "80 pictures" "81"
rm -rf more e
cp -r data more && picture=$(pictures more/train | head -n 1) && mv "$picture" "$(dirname "$picture")/renamed.jpg"
cp -r d e && run train more --out e --resume auto
check "resume: as many pictures with other names are 3" fails 3 "e cannot be resumed: it trained on other pictures" "80 as before"
cp d/run.toml d/metrics.jsonl e && LC_ALL=C sed 's/fingerprint/fingerprinX/' d/state.safetensors >e/state.safetensors
run train more --out e --resume auto
check "resume: the state of an earlier version, which knows their number alone, is taken" is 0
rm -rf more e

# --- a disk that goes away -----------------------------------------------------------------------------------------------
cp -r data lent
start train lent "${long[@]}" --max-bad 0.5 --out h
mv lent elsewhere
wait "$job"
code=$?
job=
at=$(steps h | wc -w)
check "a folder that is gone: tried for half a minute, then 3, saved, and no picture counts as bad" eval \
    'fails 3 "tried again for 30 seconds" "cannot be read: No such file" "saving step $at to h" "then go on with: rn50 train --resume auto --out h" &&
     [ ! -s h/bad_pictures.txt ]'
mv elsewhere lent
run train --out h --resume auto --max-steps $((at + 3))
check "and goes on where it was" eval 'is 0 && says "resumed at step $at"'
run train lent "${long[@]}" --out h2 --max-steps $((at + 3))
check "bit for bit as if nothing had been" eval 'is 0 && same h/last.safetensors h2/last.safetensors'
rm -rf h h2 lent

# --- the checkpoint in use -----------------------------------------------------------------------------------------------
run eval a data --json
number='[0-9]+(\.[0-9]+)?'
check "eval: one object with the contract's keys" eval \
    'is 0 && [ "$(wc -l <out)" = 1 ] &&
     grep -qE "^\{\"top1\":$number,\"top5\":$number,\"macro_f1\":$number,\"loss\":$number,\"images\":20," out'
best=$(grep '"event":"end"' a/metrics.jsonl | grep -o '"top1":[0-9.]*')
check "eval: what train measured" grep -qF "$best" out
run eval a data
check "eval: tables" eval 'is 0 && grep -q "by class" out && grep -q "true" out'
run predict a/best.safetensors data/val/none data/val/pit
check "predict: path, class and probability between tabs" eval \
    'is 0 && [ "$(cut -f 1 out)" = "$(pictures data/val/none data/val/pit)" ] && ! grep -vqP "^\S+\.jpg\t\w+\t[01]\.\d+$" out'
echo text >bad.jpg
good=$(pictures data/val/none | head -n 1)
run predict a/best.safetensors bad.jpg "$good" --json
check "predict: a bad picture stands in its place" eval \
    'is 0 && [ "$(wc -l <out)" = 2 ] && sed -n 1p out | grep -q "^{\"path\":\"bad.jpg\",\"error\":" &&
     sed -n 2p out | grep -qE "^\{\"path\":\"$good\",\"class\":\"[a-z_]+\",\"probability\":$number,\"top5\":\[\[\"[a-z_]+\",$number\]"'
run predict a/best.safetensors bad.jpg
check "predict: no picture could be read: 3" is 3
run predict a "$good" --dump-tensor input.safetensors
check "predict: dumps the net's input" eval 'is 0 && head -c 400 input.safetensors | grep -q "\"dtype\":\"F32\",\"shape\":\[1,3,32,32\]"'
head -c 100000 a/best.safetensors >cut.safetensors
run predict cut.safetensors "$good"
check "predict: a damaged checkpoint is 3, by name" fails 3 cut.safetensors
cp a/best.safetensors flipped.safetensors
printf '~' | dd of=flipped.safetensors bs=1 seek=9 conv=notrunc 2>/dev/null
run predict flipped.safetensors "$good"
check "predict: a damaged header is 3, by name" fails 3 flipped.safetensors
run predict a/state.safetensors "$good"
check "predict: a state is no checkpoint" fails 3 a/state.safetensors best.safetensors
run train data "${tiny[@]}" --model resnet34 --init a/best.safetensors --out h
check "init: weights of another architecture are 3, naming a tensor and its shape" fails 3 layer "64x64x3x3"
run bench infer --model resnet18 --image-size 32 --batch-size 2 --max-steps 2 --json
check "bench infer: one object with the contract's keys" eval \
    'is 0 && grep -qE "^\{\"images_per_s\":$number,\"memory_mb\":$number,\"memory_taken_mb\":$number,\"device\":\".*\",\"precision\":\"fp32\",\"batch_size\":2,\"image_size\":32\}$" out'
run bench step --model resnet18 --image-size 32 --batch-size 2 --max-steps 2 --verbose
check "bench step: a rate, and the time by operation" eval 'is 0 && grep -q "images/s" out && says "time by operation" "all"'

# --- every other way to train, at once: a flat folder of two classes -----------------------------------------------------
mkdir flat && cp -r data/train/none data/train/pit flat
others=(--augment none --resize letterbox --memory lean --optimizer sgd --lr 0.01 --label-smoothing 0.1 --dropout 0.5 --clip-norm 1)
run train flat "${tiny[@]}" --out i --max-steps 1
check "data: no val is 3, and says how to split" fails 3 "--val-split"
run train flat "${tiny[@]}" "${others[@]}" --val-split 0.2 --init a/best.safetensors --out i
check "train: on a flat folder, with all that is not default" eval 'is 0 && says "16 train, 4 val" && [ "$(steps i)" = "1 2 " ]'
check "init: another number of classes means a new classifier, said so" says "the classifier starts anew"
run train flat "${tiny[@]}" --val-split 0.2 --batch-size 17 --out j
check "data: fewer pictures than a batch is 3, with what fits" fails 3 "--batch-size 16"
run train flat "${tiny[@]}" --val-split 0.2 --optimizer sgd --lr 1000 --warmup-epochs 0 --epochs 20 --out j
check "train: a loss that is no number is 5, with the step" fails 5 "diverged" "at step" "not finite first: the activations before " "--lr"
run train flat "${tiny[@]}" --val-split 0.2 --precision bf16 --out k
check "train: bf16 where the device has it, else 4" eval 'is 0 || fails 4 bf16'

# --- grey pictures -------------------------------------------------------------------------------------------------------
run train flat "${tiny[@]}" --val-split 0.2 --channels 1 --jitter 0.3 --out g1 --workers 1
check "grey: trains, and says that there is no colour" eval 'is 0 && says "32 px grey" "saturation of colours has nothing to do"'
check "grey: the first layer takes one channel" eval 'head -c 40000 g1/best.safetensors | grep -q "\"conv1.weight\":{[^}]*\"shape\":\[64,1,7,7\]"'
run train flat "${tiny[@]}" --val-split 0.2 --channels 1 --jitter 0.3 --out g2 --workers 3 --max-steps 1
run train --out g2 --resume auto --max-steps 0
check "grey: resumed equals uninterrupted bit for bit" eval 'is 0 && same_run g1 g2'
run predict g1 "$good" --dump-tensor grey.safetensors
check "grey: predict follows the checkpoint" eval 'is 0 && head -c 400 grey.safetensors | grep -q "\"dtype\":\"F32\",\"shape\":\[1,1,32,32\]"'
run eval g1 flat --val-split 0.2 --seed 3
check "grey: eval follows the checkpoint" is 0
run train flat "${tiny[@]}" --val-split 0.2 --channels 1 --init a/best.safetensors --out g3 --max-steps 1
check "grey: weights for colour are summed, said so" eval 'is 0 && says "conv1.weight is for 3 channels: it is summed over them for 1"'
run train flat "${tiny[@]}" --val-split 0.2 --init g1/best.safetensors --out g4 --max-steps 1
check "grey: weights for grey do not fit colour, and --channels is named" fails 3 "64x1x7x7" "--channels"

# --- 16 bits -------------------------------------------------------------------------------------------------------------
square() { printf "P5 8 8 $1\n" && printf "$2%.0s" {1..64}; } # MAXIMUM PIXEL: a PGM
mkdir -p deep/a deep/b eight/a eight/b
for i in 1 2 3 4; do
    square 65535 '\x0f\xff' >deep/a/$i.pgm
    square 65535 '\x01\x23' >deep/b/$i.pgm
    square 255 '\xff' >eight/a/$i.pgm
    square 255 '\x12' >eight/b/$i.pgm # 0x123 * 255 / 0xfff = 18.1
done
deep=(--val-split 0.25 --batch-size 2)
run train deep "${tiny[@]}" "${deep[@]}" --epochs 1 --out d16
check "16 bits: a run asks whether bits are unused" eval 'is 0 && says "4,095 of 65,535" "17 grey levels" "--bits 12?"'
run train deep "${tiny[@]}" "${deep[@]}" --epochs 1 --bits 12 --out d12
check "16 bits: and does not once they are given" eval 'is 0 && ! says "--bits"'
run predict d12 deep/a/1.pgm --dump-tensor deep.safetensors
run predict d12 eight/a/1.pgm --dump-tensor eight.safetensors
check "16 bits: predict takes as many as the checkpoint says" cmp -s deep.safetensors eight.safetensors
run predict d16 deep/a/1.pgm --dump-tensor deep.safetensors
check "16 bits: and all of them where it says none" eval 'is 0 && ! cmp -s deep.safetensors eight.safetensors'
for set in deep eight; do run eval d12 $set --json && mv out eval.$set; done
check "16 bits: eval does so too" eval 'grep -q "\"images\":8" eval.deep && cmp -s eval.deep eval.eight'
run eval d16 deep --json
check "16 bits: and all of them" eval 'is 0 && ! cmp -s out eval.eight'

# --- data and options of no use ------------------------------------------------------------------------------------------
run train nowhere "${tiny[@]}"
check "data: a missing folder is 3" fails 3 nowhere
mkdir empty
run train empty "${tiny[@]}"
check "data: an empty folder is 3, and says where pictures go" fails 3 empty/train/CLASS
run train bad.jpg "${tiny[@]}"
check "data: a file in place of a folder is 3" fails 3 bad.jpg "neither a folder nor a shard"
mkdir one && cp -r data/train/none one
run train one "${tiny[@]}" --val-split 0.2
check "data: a single class is 3" fails 3 "single class"
run train data "${tiny[@]}" --out bad.jpg
check "out: a file in place of the folder is 3" fails 3 "bad.jpg is not a folder"
run train data "${tiny[@]}" --bach-size 3
check "options: an unknown one is 2, with the one that was meant" fails 2 "did you mean --batch-size"
cp -r data odd && mv odd/val/pit odd/val/unheard
run train odd "${tiny[@]}" --out l
check "data: a class that only val has is 3, by name" fails 3 unheard
rm -r odd/val/unheard
broken=$(pictures odd/train | sed -n '1p;20p;40p;60p')
{ read -r zero && read -r cut && read -r text && read -r mislabelled; } <<<"$broken"
: >"$zero"
run train odd "${tiny[@]}" --out l
check "data: more than 1% bad pictures is 3, by name" fails 3 "$zero" "--max-bad"
check "data: they are listed even so" grep -qF "$zero" l/bad_pictures.txt
head -c 700 data/"${cut#odd/}" >"$cut"
echo "no picture" >"$text"
printf 'GIF89a and so on' >"$mislabelled"
run train odd "${tiny[@]}" --out m --max-bad 0.1
check "data: --max-bad lets it go on, and warns of a class that val lacks" eval \
    'is 0 && says "skipped odd/train" "no picture of class pit"'
check "data: bad pictures are listed by name with the reason" eval \
    '[ "$(cut -f 1 m/bad_pictures.txt | sort)" = "$broken" ] && [ "$(cut -f 2 m/bad_pictures.txt | grep -c .)" = 4 ]'
check "data: and counted" grep -q "4 bad pictures" out
run train data "${tiny[@]}" --image-size 4096 --batch-size 4096 --out n
check "memory: a batch beyond it is 4 before the first step, with the largest that fits" eval \
    'fails 4 "batch 4096 at 4096 px" && { says "the largest batch that fits is --batch-size " || says "not even one picture"; } &&
     [ ! -e n ]'

exit $failed
