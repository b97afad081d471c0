#!/bin/bash
# Runs fuzzers that are built: tests/fuzz/run.sh FOLDER SECONDS NAME...
# What a fuzzer learns stays in FOLDER/corpus/NAME, and it starts from there and from the files that the tests read. An input
# that breaks something is kept as FOLDER/found/NAME-*, and fails the run.
set -uo pipefail
folder=$1 seconds=$2
shift 2
tests=$(cd "$(dirname "$0")/.." && pwd)

number() { # VALUE BYTES: little-endian
    local value=$1 i
    for ((i = 0; i < $2; ++i, value >>= 8)); do
        # shellcheck disable=SC2059
        printf "\\x$(printf %02x $((value & 255)))"
    done
}
text() { number ${#1} 8 && printf %s "$1"; }

varint() { # VALUE: of protobuf
    local value=$1
    for (( ; value > 127; value >>= 7)); do number $((value & 127 | 128)) 1; done
    number "$value" 1
}

datums() { # FOLDER: Caffe's Datum, one of raw planes (3 x 1 x 2, label 1) and some of encoded pictures
    local picture
    printf '\x08\x03\x10\x01\x18\x02\x22\x06abcdef\x28\x01' >"$1/planes"
    for picture in rgb.png gray.jpg rgb.bmp; do
        { printf '\x22' && varint "$(stat -c %s "$tests/golden/pictures/$picture")" && cat "$tests/golden/pictures/$picture" &&
            printf '\x28\x02\x38\x01'; } >"$1/$picture"
    done
}

bitmap() { # BITS COMPRESSION COLORS BYTES_OF_MASKS: 6 x 2 pixels, which follow
    local i
    printf BM && number 0 8 && number $((54 + 4 * $3 + $4)) 4
    number 40 4 && number 6 4 && number 2 4 && number 1 2 && number "$1" 2 && number "$2" 4
    number 0 12 && number "$3" 4 && number 0 4
    for ((i = 0; i < $3; ++i)); do number $((i * 0x010203)) 4; done
}

png_with_text() { # TYPE: a PNG with a chunk of that type, of which the text follows on stdin
    local text
    text=$(mktemp) && cat >"$text"
    head -c 33 "$tests/golden/pictures/stored.png" # behind the header
    printf '\0\0\0' && number "$(stat -c %s "$text")" 1 && printf %s "$1" && cat "$text" && number 0 4
    tail -c +34 "$tests/golden/pictures/stored.png"
    rm "$text"
}

odd_pictures() { # FOLDER: BMPs and texts that no golden picture has
    { bitmap 8 1 5 0 && printf '\3\1\0\3\2\3\4\0\0\0\0\2\1\0\2\3\0\1'; } >"$1/rle8.bmp"
    { bitmap 4 2 5 0 && printf '\3\x12\0\3\x34\x10\0\0\6\x22\0\1'; } >"$1/rle4.bmp"
    { bitmap 16 3 0 12 && number 0xF800 4 && number 0x7E0 4 && number 0x1F 4 && number 0x12345678 24; } >"$1/masks.bmp"
    { printf BM && number 0 8 && number 32 4 && number 12 4 && number 3 2 && number 2 2 && number 1 2 && number 1 2 &&
        number 0x010203 3 && number 0xFEDCBA 3 && number 0x40 4 && number 0xA0 4; } >"$1/os2.bmp"
    { printf 'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>' | png_with_text iTXt; } >"$1/xmp.png"
    { printf 'Raw profile type exif\0\nexif\n 34\n4578696600004d4d002a0000000800010112000300000001000600000000\n' |
        png_with_text tEXt; } >"$1/raw_exif.png"
    { printf 'Raw profile type exif\0\0\x78\1\1\4\0\xfb\xff\n\n\n4\0\0\0\0' | png_with_text zTXt; } >"$1/packed_exif.png"
}

index() { # what follows the head of an index: two class names, a reason, two samples (see ShardIndex::pack)
    number 2 8 && text crack && text dent
    number 1 8 && text 'no label' && number 3 8 && text a.jpg
    text one.jpgtwo.jpg
    number 2 8
    number 512 8 && number 100 8 && number 1 8 && number 0 4 && number 7 8
    number 700 8 && number 300 8 && number 2 8 && number 1 4 && number 14 8
}

manifest() { # a pack that has written one shard of two
    cat <<'JSON'
{"rn50_pack": 1, "complete": false, "format": "webdataset", "longest": 512, "shortest": 0, "quality": 90, "part_bytes": 1000,
 "restart_markers": true, "splits": [{"name": "train", "pictures": 9, "fingerprint": 123, "next": 5, "complete": false,
 "parts": [{"file": "train-000000.tar", "pictures": 4, "bytes": 900}], "bad": [{"name": "a.jpg", "reason": "empty"}]}]}
JSON
}

seeds() { # NAME FOLDER: puts files that the parser knows into the folder
    case $1 in
        datum) datums "$2" ;;
        index) index >"$2/index" ;;
        manifest) manifest >"$2/manifest" ;;
        jpeg | restarts) cp "$tests"/golden/pictures/*.jpg "$2" ;;
        picture)
            find "$tests/golden/pictures" -type f ! -name '*.rgb' -exec cp {} "$2" \;
            odd_pictures "$2"
            ;;
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
