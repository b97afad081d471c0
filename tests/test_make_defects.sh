#!/bin/bash
# Holds the program that draws the demo set to its promises: the same files for any number of threads, the counts and
# sizes asked for, a mask for each defect, and errors that scripts can tell apart.
#   tests/test_make_defects.sh PATH/make_defects
set -uo pipefail
program=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

check() {  # NAME COMMAND...: passes when the command does
    local name=$1
    shift
    if "$@"; then
        echo "ok $name"
    else
        echo "FAIL $name"
        failed=1
    fi
}
draw() { "$program" "$@" >log 2>&1; }
sums() { (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum); }
same() { [ "$(sums "$1")" = "$(sums "$2")" ]; }
different() { ! same "$1" "$2"; }
files() { find "$1" -type f -name "$2" 2>/dev/null | wc -l; }
equal() { [ "$1" = "$2" ] || { echo "     is '$1', should be '$2'"; return 1; }; }
exits() {  # STATUS WORDS COMMAND...: the status, and words that the message must hold
    local status=$1 words=$2
    shift 2
    "$@" >log 2>&1
    equal $? "$status" && { grep -q -- "$words" log || { cat log; return 1; }; }
}
# Width and height of a PNG, from its header.
png_size() { od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4 "x" $7 * 256 + $8 }'; }
# Width and height of a JPEG, from its frame header (FF C0, length, precision, height, width).
jpeg_size() {
    od -An -v -tx1 "$1" | tr -d ' \n' | sed -E 's/.*ffc0001108(....)(....).*/\1 \2/' |
        { read -r height width; echo "$((16#$width))x$((16#$height))"; }
}

small="--size 64 --count 80"
check draws draw --out one $small --seed 7 --threads 1
check draws_with_three_threads draw --out three $small --seed 7 --threads 3
check draws_another_seed draw --out other $small --seed 8 --threads 3
check any_number_of_threads_draws_the_same same one three
check another_seed_draws_another_set different one other
check no_two_pictures_are_alike equal "$(sums one | grep -F .jpg | cut -d' ' -f1 | sort -u | wc -l)" 108

check train_count equal "$(files one/train '*.jpg')" 80
check val_count equal "$(files one/val '*.jpg')" 20
check hard_count equal "$(files one/hard '*.jpg')" 8
check classes_by_name equal "$(ls one/train | tr '\n' ' ')" "crack dent inclusion none pit rolled_in_scale scratch stain "
for class in one/train/*; do
    check "ten_pictures_in_$(basename "$class")" equal "$(files "$class" '*.jpg')" 10
done
check only_pictures_in_class_folders equal "$(find one/train one/val one/hard -type f ! -name '*.jpg' | wc -l)" 0
check recipe_is_there grep -q '^image-size' one/rn50.toml
check nothing_half_done_is_left test ! -e one/.drawing

check sound_pictures_have_no_mask equal "$(ls -d one/masks/*/none 2>/dev/null)" ""
masks_stand_beside() {
    local split class picture mask
    for picture in one/{train,val,hard}/*/*.jpg; do
        class=$(basename "$(dirname "$picture")")
        [ "$class" = none ] && continue
        split=$(basename "$(dirname "$(dirname "$picture")")")
        mask=one/masks/$split/$class/$(basename "$picture" .jpg).png
        [ -f "$mask" ] || { echo "     $mask is missing"; return 1; }
    done
}
check each_defect_has_a_mask masks_stand_beside
check no_two_masks_are_alike equal "$(sums one/masks | cut -d' ' -f1 | sort -u | wc -l)" "$(files one/masks '*.png')"

check size_of_pictures equal "$(jpeg_size one/train/dent/00003.jpg)" 64x64
check size_of_masks equal "$(png_size one/masks/train/dent/00003.png)" 64x64
check draws_large draw --out large --size 1000 --count 8
check size_is_honoured equal "$(jpeg_size large/train/stain/00000.jpg)" 1000x1000
check size_of_large_masks equal "$(png_size large/masks/train/stain/00000.png)" 1000x1000
check draws_many_classes draw --out many --size 64 --count 456 --classes 456
check many_classes equal "$(ls many/train | wc -l) $(ls many/train | head -1) $(ls many/train | tail -1)" "456 class_000 class_455"
check classes_have_different_meanings equal "$(cut -f2 many/classes.txt | sort -u | wc -l)" 456
check two_classes draw --out two --size 64 --count 8 --classes 2
check two_classes_by_name equal "$(ls two/train | tr '\n' ' ')" "none scratch "

check help_exits_0 exits 0 "class_000" "$program" --help
check unknown_option_exits_2 exits 2 "--colour" "$program" --out x --colour red
check too_many_classes_exits_2 exits 2 "--classes" "$program" --out x --classes 457
check too_few_pictures_exits_2 exits 2 "--count" "$program" --out x --classes 8 --count 7
check bad_number_exits_2 exits 2 "--size" "$program" --out x --size big
touch plain
check unwritable_output_exits_3 exits 3 "cannot make the folder plain/set" "$program" --out plain/set $small
check existing_set_exits_3 exits 3 "already there" "$program" --out one $small
check existing_set_is_kept same one three
mkdir tuned && echo "epochs = 3" >tuned/rn50.toml
check draws_beside_a_recipe exits 0 "stays as it is" "$program" --out tuned $small --seed 7
check tuned_recipe_is_kept equal "$(cat tuned/rn50.toml)" "epochs = 3"
# A file may take one block here: the first picture cannot be written, as on a full disk.
full_disk() { (trap '' XFSZ; ulimit -f 1; exec "$program" "$@"); }
check full_disk_exits_3 exits 3 "cannot write full/" full_disk --out full --size 256 --count 8
check full_disk_leaves_nothing equal "$(ls -A full)" ""
exit $failed
