#!/bin/bash
# Runs fuzzers that are built: tests/fuzz/run.sh FOLDER SECONDS NAME...
# What a fuzzer learns stays in FOLDER/corpus/NAME, and it starts from there and from the files that the tests read. An input
# that breaks something is kept as FOLDER/found/NAME-*, and fails the run.
set -uo pipefail
folder=$1 seconds=$2
shift 2
tests=$(cd "$(dirname "$0")/.." && pwd)

seeds() { # NAME FOLDER: puts files that the parser knows into the folder
    case $1 in
        jpeg) cp "$tests"/golden/pictures/*.jpg "$2" ;;
        picture) find "$tests/golden/pictures" -type f ! -name '*.rgb' -exec cp {} "$2" \; ;;
        safetensors) cp "$tests"/golden/*.safetensors "$2" ;;
        tar | tfrecord) cp "$tests"/data/shards/*."$1" "$2" ;;
        store) # a greeting, a value, the question for it, a heartbeat, a farewell
            {
                printf '\0\0\0\x19H\0\0\0\x10rn50 store 2 1 h\0\0\0\0'
                printf '\0\0\0\x0bS\0\0\0\1k\0\0\0\1v\0\0\0\x0aG\0\0\0\1k\0\0\0\0'
                printf '\0\0\0\x22B\0\0\0\x145 7 s 0.5 0 0123abcd\0\0\0\5other\0\0\0\x0cX\0\0\0\3bad\0\0\0\0'
            } >"$2/a_rank" ;;
        lmdb) cp "$tests"/data/shards/*.mdb "$2" ;;
    esac
}

mkdir -p "$folder/found"
failed=0
for name in "$@"; do
    mkdir -p "$folder/corpus/$name" "$folder/seeds/$name"
    seeds "$name" "$folder/seeds/$name"
    log=$folder/$name.log
    # 2 GB for everything and 256 MB for one allocation: absurd sizes in a file must not be believed.
    "$folder/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="$folder/found/$name-" "$folder/corpus/$name" "$folder/seeds/$name" >"$log" 2>&1
    status=$?
    inputs=$(sed -nE 's/^stat::number_of_executed_units: *//p' "$log")
    if [ $status = 0 ]; then
        printf '✓ %-12s %12s inputs in %s s, %s kept\n' "$name" "${inputs:-?}" "$seconds" "$(ls "$folder/corpus/$name" | wc -l)"
    else
        printf '✗ %-12s %s\n' "$name" "$(grep -m1 -E 'ERROR|runtime error|SUMMARY' "$log"); see $log"
        failed=1
    fi
done
exit $failed
