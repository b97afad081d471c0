# shellcheck shell=bash
# shellcheck disable=SC2154  # what is not assigned here is a setting of gpu_check.sh
# Sourced by gpu_check.sh: the stages that train, and that load pictures.

stage_train() {
    local data status=0
    need_gpu
    data=$(draw_data) || return
    rm -rf "$WORK/run"
    # By the CPU's decoder: which one is faster is the loading stage's question, and their pixels differ.
    ours 150 "$rn50" train "$data" --device "$DEVICE" --precision "$main_precision" --decode region --out "$WORK/run" \
        "${train_options[@]}" || status=$?
    [ -e "$WORK/run/metrics.jsonl" ] || return 1
    note precision "$(quoted "$main_precision")"
    grep '"eval"' "$WORK/run/metrics.jsonl" | tail -1 >"$WORK/train.last"
    note last_eval "$(cat "$WORK/train.last")"
    note images_per_s "$(number images_per_s "$WORK/train.last")"
    grep '"end"' "$WORK/run/metrics.jsonl" >"$WORK/train.end"
    note end "$(cat "$WORK/train.end")"
    if [ $status != 0 ] || [ ! -s "$WORK/train.end" ]; then
        say "demo set, $main_precision: ended with status $status; last: $(cat "$WORK/train.last")"
        return 1
    fi
    say "demo set, $main_precision: top-1 $(number top1 "$WORK/train.end")% (at least $accuracy is asked)," \
        "$(number images_per_s "$WORK/train.last" | cut -d. -f1) images/s in the last epoch"
    awk -v got="$(number top1 "$WORK/train.end")" -v asked="$accuracy" 'BEGIN { exit !(got != "" && got + 0 >= asked) }'
}

# A run that was ended in the middle and goes on makes the very steps of one that was not.
stage_resume() {
    local data way status=0 run
    need_gpu
    data=$(draw_data) || return
    rm -rf "$WORK"/resume.*
    local options=(--device "$DEVICE" --precision "$main_precision" --decode region --epochs 4 "${train_options[@]}")
    ours 60 "$rn50" train "$data" "${options[@]}" --out "$WORK/resume.whole" || return
    for way in TERM KILL; do
        run=$WORK/resume.$way
        # The signal is for rn50 itself, not for the timeout around it.
        ours 60 "$rn50" train "$data" "${options[@]}" --out "$run" --save-minutes 0.01 &
        while kill -0 $! 2>/dev/null && [ ! -s "$run/state.safetensors" ]; do sleep 0.05; done
        pkill -$way -f -- "^$rn50 train .*--out $run " || say "SIG$way came too late: the run had ended"
        wait $!
        ours 60 "$rn50" train "$data" "${options[@]}" --out "$run" --save-minutes 0.01 --resume auto || status=1
        if cmp -s "$run/last.safetensors" "$WORK/resume.whole/last.safetensors"; then
            say "ended by SIG$way and resumed: the weights of a run that was not, bit for bit"
        else
            say "ended by SIG$way and resumed: OTHER weights than those of a run that was not"
            status=1
        fi
    done
    return $status
}

percent() { # KEY: of the losses
    awk -v x="$(number "$1" "$WORK/losses.found")" 'BEGIN { printf "%.3f%%", 100 * x }'
}

stage_losses() {
    local status=0 set=$WORK/loss_set scale=1024
    need_gpu
    need_torch
    # Pictures of the very size of the net's input: nothing is resampled, so both programs see the same numbers.
    [ -d "$set/train" ] || ours 30 "$make_defects" --out "$set" --size "$loss_side" --count "$loss_count" || return
    within 40 "$PYTHON" "$root/tools/torch_losses.py" init "$WORK/init.safetensors" --classes 8 || return
    rm -rf "$WORK/loss_run"
    ours 90 "$rn50" train "$set" --device "$DEVICE" --precision "$main_precision" --init "$WORK/init.safetensors" \
        --out "$WORK/loss_run" --augment none --dropout 0 --loss-scale $scale --image-size "$loss_side" \
        --batch-size "$loss_batch" --lr 1e-4 --warmup-epochs 1 --max-steps "$loss_steps" || return
    within 90 "$PYTHON" "$root/tools/torch_losses.py" compare "$WORK/loss_run" "$set" "$WORK/init.safetensors" --device "$DEVICE" \
        >"$WORK/losses.found" || status=$?
    cat "$WORK/losses.found"
    note losses "$(cat "$WORK/losses.found")"
    [ -s "$WORK/losses.found" ] || { say "torch_losses.py ended with status $status and no figures" && return 1; }
    say "$loss_steps steps, $main_precision, scale $scale: smoothed loss within" \
        "$(percent difference) of the first loss of PyTorch's (limit $(percent limit);" \
        "PyTorch itself, NCHW: $(percent torch_own_difference))"
    return $status
}

# A folder of classes with more pictures than a batch: PHOTOS, the bundle's photographs several times over, or drawn ones.
loading_set() {
    local copy picture
    [ -z "$PHOTOS" ] || { echo "$PHOTOS" && return; }
    if [ ! -d "$WORK/pictures" ] && [ -d "$BUNDLE/photos" ]; then
        mkdir -p "$WORK/pictures.new/a" "$WORK/pictures.new/b"
        for copy in 1 2 3 4 5 6 7 8; do
            for picture in "$BUNDLE"/photos/*; do
                cp "$picture" "$WORK/pictures.new/$([ $((copy % 2)) = 0 ] && echo a || echo b)/$copy-$(basename "$picture")"
            done
        done
        mv "$WORK/pictures.new" "$WORK/pictures"
    elif [ ! -d "$WORK/pictures" ]; then
        ours 60 "$make_defects" --out "$WORK/pictures.new" --size "$photo_side" --count "$photo_count" >&2 || return
        mv "$WORK/pictures.new/train" "$WORK/pictures"
    fi
    echo "$WORK/pictures"
}

# A set for whole epochs: as many files as asked, copies of loading_set's in turn, in 8 classes.
epoch_set() {
    local photos set=$WORK/epoch_set.$epoch_count
    if [ ! -d "$set" ]; then
        photos=$(loading_set) || return
        rm -rf "$set.new"
        mkdir -p "$set.new"/{0..7}
        find -L "$photos" -type f | sort | awk -v count="$epoch_count" -v set="$set.new" '
            { from[n++] = $0 }
            END { for (i = 0; i < count; i++) printf "%s%c%s/%d/%06d.jpg%c", from[i % n], 0, set, i % 8, i, 0 }' |
            xargs -0 -n 2 -P 8 cp || return
        mv "$set.new" "$set"
    fi
    echo "$set"
}

# our_epochs SET WORKERS DECODE: rn50's images/s of the last of two epochs, in $WORK/epochs.ours.WORKERS.DECODE.
our_epochs() {
    local last=$WORK/epochs.ours.$2.$3 run=$WORK/epochs.run status=0
    rm -rf "$run" "$last"
    ours 90 "$rn50" train "$1" --val-split 0.02 --device "$DEVICE" --precision "$main_precision" --image-size "$side" \
        --batch-size "$epoch_batch" --epochs 2 --warmup-epochs 1 --workers "$2" --decode "$3" --out "$run" \
        >"$last.said" 2>&1 || status=$?
    cat "$last.said"
    [ $status != 0 ] || grep '"eval"' "$run/metrics.jsonl" 2>/dev/null | tail -1 >"$last"
    if [ $status != 0 ] || [ ! -s "$last" ]; then
        say "rn50, $2 workers, --decode $3: FAILED with status $status: $(tail -1 "$last.said" | cut -c1-200)"
        return 1
    fi
    note "rn50, $2 workers, --decode $3" "$(cat "$last")"
}

# The way of decoding that --decode auto chose, beside the other one in the same run.
judge_choice() { # SET WORKERS
    local chosen=$WORK/epochs.ours.$2.auto words other
    words=$(grep -m1 -o 'decoding: .*' "$chosen.said") || return 0 # nothing to choose from: no nvJPEG
    say "$2 workers: $words"
    case $words in *'--decode gpu') other=region ;; *'--decode region') other=gpu ;; *) return 0 ;; esac
    our_epochs "$1" "$2" $other || return
    other=$WORK/epochs.ours.$2.$other
    judge "--decode auto beside the other way, $2 workers" \
        "$(ratio "$(number images_per_s "$chosen")" "$(number images_per_s "$other")")" at-least 0.9
}

their_epochs() { # SET WORKERS
    local last=$WORK/epochs.theirs.$2 status=0
    rm -f "$last"
    [[ " $epoch_rival_workers " == *" $2 "* ]] && has_torch || return 0
    within 120 "$PYTHON" "$root/tools/torch_recipe.py" "$1" --device "$DEVICE" --precision "$main_precision" --workers "$2" \
        --image-size "$side" --batch-size "$epoch_batch" --epochs 2 >"$last.all" 2>"$last.said" || status=$?
    cat "$last.said" "$last.all"
    if [ $status != 0 ]; then
        say "PyTorch, $2 workers: FAILED with status $status: $(tail -1 "$last.said" | cut -c1-200)"
        return 1
    fi
    tail -1 "$last.all" >"$last"
    note "torch, $2 workers" "$(cat "$last")"
}

epoch_words() { # FILE
    if [ ! -s "$1" ]; then
        echo "    not run"
    else
        printf '%7.0f images/s, %2.0f%% waiting for data' "$(number images_per_s "$1")" \
            "$(awk -v x="$(number data_wait "$1")" 'BEGIN { print 100 * x }')"
    fi
}

# Whole epochs from JPEG files: `rn50 train` beside the usual recipe with PyTorch's DataLoader.
stage_epochs() {
    local status=0 set workers ours theirs
    need_gpu
    set=$(epoch_set) || return
    for workers in $epoch_workers; do
        our_epochs "$set" "$workers" auto || { status=1 && continue; }
        their_epochs "$set" "$workers" || status=1
        ours=$WORK/epochs.ours.$workers.auto theirs=$WORK/epochs.theirs.$workers
        say "$(printf '%2d workers: rn50 %s   PyTorch %s   %sx' "$workers" "$(epoch_words "$ours")" "$(epoch_words "$theirs")" \
            "$(ratio "$(number images_per_s "$ours")" "$(number images_per_s "$theirs")")")"
        judge_choice "$set" "$workers" || status=1
    done
    return $status
}

# loading_rate WAY FOLDER DECODE WORKERS TURN: images/s of the loader alone, in a file and noted.
loading_rate() {
    local file=$WORK/loading.$1.$4.$5
    ours 40 "$rn50" bench loader "$2" --val-split 0.01 --device "$DEVICE" --decode "$3" --workers "$4" \
        --batch-size "$loading_batch" --image-size "$side" --max-steps "$loading_steps" --json >"$file" || return
    note "$1, $4 workers, turn $5" "$(cat "$file")"
}

# What decodes faster, by the number of workers, and how far the GPU's pixels are from the CPU's.
stage_loading() {
    local status=0 photos packed=$WORK/pictures_marked turn workers line gpu=1 said=$WORK/loading.said
    need_gpu
    rm -rf "$packed" "$WORK"/loading.{region,marked,nvjpeg}.*
    photos=$(loading_set) || return
    if [ -x "$tests" ]; then
        RN50_TEST_PHOTOS=$photos run_tests 60 '*test_decoding*' '' >"$said" 2>&1 || status=1
    fi
    cuts "$said"
    if [ "$DEVICE" = cpu ]; then
        gpu=0
    elif grep -q 'nvJPEG is not tested' "$said"; then
        say "$(grep -m1 -o 'nvJPEG is not tested.*' "$said")"
        gpu=0 status=1
    else
        grep -oE 'nvJPEG [0-9].*|crops of .*' "$said" >"$WORK/loading.pixels" || status=1
        while IFS= read -r line; do say "$line"; done <"$WORK/loading.pixels"
        note pixels "$(quoted "$(cat "$WORK/loading.pixels")")"
    fi
    ours 60 "$rn50" pack "$photos" "$packed" --format folder --restart-markers --quiet || return
    for turn in 1 2; do
        for workers in $loading_workers; do
            loading_rate region "$photos" region "$workers" $turn || status=1
            loading_rate marked "$packed" region "$workers" $turn || status=1
            [ $gpu = 0 ] || loading_rate nvjpeg "$photos" gpu "$workers" $turn || status=1
            say "$(printf '%2d workers: %7.0f images/s by the CPU, %7.0f with restart markers, %s by nvJPEG%s' "$workers" \
                "$(best "$WORK/loading.region.$workers".[12])" "$(best "$WORK/loading.marked.$workers".[12])" \
                "$([ $gpu = 0 ] && echo none || printf '%7.0f' "$(best "$WORK/loading.nvjpeg.$workers".[12])")" \
                "$([ $turn = 1 ] || echo ', best of 2')")"
        done
    done
    return $status
}
