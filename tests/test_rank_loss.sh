#!/bin/bash
# Ranks that are stopped, killed or hang: every other rank notices, says which one, and ends.
#   tests/test_rank_loss.sh PATH/rn50
source "$(dirname "$0")/rank_script.sh" "$1"

long=("${tiny[@]}" --epochs 500 --batch-size 8 --ranks 2 --peer-timeout 3)
declare -A launchers ranks_of begun
pictures=data
launch() { # OUT: starts a long run on $pictures, waits for its first evaluation; sets launcher and ranks
    "$program" train "$pictures" "${long[@]}" --out "$1" >"$1.out" 2>"$1.err" &
    launcher=$!
    for _ in $(seq 300); do
        [ -s "$1/state.safetensors" ] && break
        sleep 0.1
    done
    mapfile -t ranks < <(for pid in $(pgrep -P "$launcher"); do
        echo "$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^RANK=//p') $pid"
    done | sort -n | cut -d' ' -f2)
    launchers[$1]=$launcher
    ranks_of[$1]="${ranks[*]}"
    begun[$1]=$SECONDS
}
ended() { # OUT: waits for the launcher; sets code and took
    timeout 90 tail --pid="${launchers[$1]}" -f /dev/null || kill "${launchers[$1]}"
    wait "${launchers[$1]}"
    code=$?
    took=$((SECONDS - begun[$1]))
    read -ra ranks <<<"${ranks_of[$1]}"
    cp "$1.out" out
    cp "$1.err" err
}
gone() { ! kill -0 "${ranks[@]}" 2>/dev/null; }

launch term
kill -TERM "${ranks[1]}"
ended term
check "a signal at one rank saves and stops all: 143" eval 'is 143 && says "saving step" && gone'
launch term2
kill -TERM "$launcher"
ended term2
check "a signal at the launcher does too" eval 'is 143 && says "saving step" && gone'

# --- death ---------------------------------------------------------------------------------------------------------------
launch kill1
kill -9 "${ranks[1]}"
ended kill1
check "kill -9 of rank 1: 6, with rank, host and cause" eval 'fails 6 "rank 1 on $(hostname) was lost" "its process has ended" "--resume auto" && gone'
check "kill -9: noticed at once" [ "$took" -le 6 ]
steps=$(events kill1 step)
run train --resume auto --out kill1 --max-steps "$((steps + 3))"
check "kill -9: the run goes on from its last checkpoint" eval 'is 0 && says "resumed at step" && [ "$(events kill1 end)" = 1 ]'
launch kill0
kill -9 "${ranks[0]}"
ended kill0
check "kill -9 of rank 0: 6" eval 'fails 6 "rank 1: error: rank 0" "was lost" && gone'
# What follows waits more than it works: all at once.
launch stop1
kill -STOP "${ranks[1]}"
launch stop0
kill -STOP "${ranks[0]}"
long+=(--peer-timeout 2 --max-bad 0.5)
for run in eval signal; do
    cp -r data pictures-$run
done
launch hang
# Rank 0 opens the list of bad pictures at the first one, and a pipe that nobody reads is never open.
mkfifo hang/bad_pictures.txt
: >"$(find data/train -name '*.jpg' | head -1)"
ended stop1
check "kill -STOP of rank 1: 6, no sign of life" eval 'fails 6 "rank 1 on $(hostname) was lost: no sign of life for 3 s" && gone'
check "kill -STOP: over within timeout and grace" [ "$took" -le 24 ]
ended stop0
check "kill -STOP of rank 0: 6" eval 'fails 6 "rank 1: error: rank 0" && gone'
ended hang
check "a rank that hangs though its heartbeats live: 6, with its name" eval \
    'fails 6 "rank 1: error: rank 0 on $(hostname) was lost: it lives, but has not come to the next collective for" "in which the others wait" && gone'
check "a hang: over within 20 steps, timeout and grace" [ "$took" -le 60 ]

# --- waits that are no hang of a step ---------------------------------------------------------------------------------------
rests() { # OUT: waits until the run makes no steps
    local before=none
    while [ "$before" != "$(events "$1" step)" ]; do
        before=$(events "$1" step)
        sleep 3
    done
}
hang_in_evaluation() { # OUT, whose own pictures are pictures-OUT
    pictures=pictures-$1
    launch "$1"
    mkfifo "$1/bad_pictures.txt"
    : >"$(find "$pictures/val" -name '*.jpg' | head -1)"
}
hang_in_evaluation signal
long+=(--hang-timeout 5)
hang_in_evaluation eval
rests signal
read -ra ranks <<<"${ranks_of[signal]}"
kill -TERM "${ranks[1]}"
ended signal
check "a signal ends a rank that waits for one that hangs: 6" eval \
    'fails 6 "rank 1: error: rank 0 on $(hostname) was lost" "it evaluates" && gone'
ended eval
check "a hang in an evaluation: 6, with its name" eval \
    'fails 6 "rank 1: error: rank 0 on $(hostname) was lost: it lives, but has not come to the next collective for" "it evaluates" && gone'
exit $failed
