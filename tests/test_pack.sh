#!/bin/bash
# rn50 pack, unpack and inspect as scripts see them: exit codes, Ctrl-C, a full disk, an index that cannot be kept.
#   tests/test_pack.sh PATH/rn50
source "$(dirname "$0")/script.sh" "$1"
export XDG_CACHE_HOME=$work/cache

# Two classes of 200 pictures of 120 KB: hard links to one file a class.
for class in a b; do
    mkdir -p set/train/$class set/val/$class
    { printf 'P6 200 200 255\n'; head -c 120000 /dev/zero | tr '\0' $class; } >set/val/$class/0.ppm
    for i in $(seq 200); do ln set/val/$class/0.ppm set/train/$class/$i.ppm; done
done
echo 'epochs = 3' >set/rn50.toml

# --- exit codes ----------------------------------------------------------------------------------------------------------
run pack nowhere out
check "no data: 3" eval 'is 3 && says "nowhere: the folder cannot be read"'
run pack set
check "no OUT: 2" eval 'is 2 && says "OUT is missing"'
run pack set set
check "OUT that is full of something else: 3" eval 'is 3 && says "is not empty"'
run pack set /proc/nowhere
check "OUT that cannot be made: 3" is 3

# --- Ctrl-C, and on ------------------------------------------------------------------------------------------------------
"$program" pack set packed --shard-mb 1 --workers 1 >out 2>err &
pid=$!
for _ in $(seq 1000); do
    [ -e packed/train-000002.tar ] && break
    sleep 0.01
done
kill -INT $pid
wait $pid
code=$?
check "Ctrl-C: 130, and the finished shards are kept" eval \
    'is 130 && says "the same command goes on" && [ -e packed/train-000001.tar ] && ! ls packed/*.tmp-* 2>/dev/null'
run train packed
check "a half packed set is refused: 3" eval 'is 3 && says "packing it was not finished"'
before=$(stat -c %Y%Z packed/train-000000.tar)
run pack set packed --shard-mb 2
check "other options are refused: 2" eval 'is 2 && says "was begun with"'
run pack set packed --shard-mb 1
check "the same command goes on where it was" eval \
    'is 0 && prints "402 pictures" && [ "$before" = "$(stat -c %Y%Z packed/train-000000.tar)" ]'
run pack set packed --shard-mb 1
check "and a third time there is nothing to do" eval 'is 0 && prints "nothing was left to do"'
check "the defaults of the set go with it" cmp set/rn50.toml packed/rn50.toml
run pack set whole --shard-mb 1 --workers 4 --quiet
check "what was interrupted equals what was not" diff -r -x '*.rn50idx' packed whole

# --- what pictures become ------------------------------------------------------------------------------------------------
run pack set encoded --format folder --encode jpeg
check "--encode jpeg says how many pictures lost something" eval \
    'is 0 && says "402 pictures without loss" && says "quality 90" && [ -e encoded/val/a/0.ppm.jpg ]'
run pack set lossless --format folder --encode png --longest 100
check "--encode png loses nothing" eval 'is 0 && ! says "without loss" && [ -e lossless/val/a/0.ppm.png ]'
run pack set other --encode gif
check "an unknown --encode: 2" eval 'is 2 && says "keep"'

# --- inspect -------------------------------------------------------------------------------------------------------------
run inspect packed --json --verify --sample 399
check "inspect --json: one object, every picture verified" eval \
    'is 0 && prints "\"format\":\"WebDataset\"" && prints "\"pictures\":400" && prints "\"verified\":400,\"bad\":0" &&
     prints "\"path\":\"b/99.ppm\"" && [ "$(wc -l <out)" = 1 ]'
run inspect set
check "inspect of a folder: a table" eval 'is 0 && prints "120,015" && prints "train 0: set/train/a/1.ppm"'
run unpack packed unpacked
check "unpack gives the folder back" eval 'is 0 && diff -r set/train unpacked/train && diff -r set/val unpacked/val'

# --- pictures that cannot be read ----------------------------------------------------------------------------------------
ln -s /nowhere/mounted.ppm set/val/b/1.ppm
"$program" pack set away --max-bad 1 >out 2>err &
job=$!
for _ in $(seq 200); do
    grep -q "tried again" err && break
    sleep 0.05
done
kill -INT $job
wait $job
code=$?
job=
check "a picture that cannot be read is waited for, and Ctrl-C ends that" eval \
    'is 130 && says "set/val/b/1.ppm: cannot be read: No such file" "the same command goes on" && [ ! -e away/bad.txt ]'
rm set/val/b/1.ppm && ln set/val/b/0.ppm set/val/b/1.ppm
run pack set away --max-bad 1
check "and once it is there the same command packs it" eval 'is 0 && prints "403 pictures"'
rm set/val/b/1.ppm
(ulimit -n 40; run inspect packed --verify; exit $code)
code=$?
check "few open files allowed: read all the same" is 0

# --- things that go wrong ------------------------------------------------------------------------------------------------
echo broken >set/val/a/bad.jpg
run pack set strict --max-bad 0
check "too many bad pictures: 3" eval 'is 3 && says "1 of 403 pictures cannot be used"'
run pack set lenient --format tfrecord
check "a bad picture is left out, listed and said" eval \
    'is 0 && says "1 bad picture is left out" && grep -q "^set/val/a/bad.jpg	" lenient/bad.txt && prints "402 pictures"'
(ulimit -f 1000; run pack set full --format lmdb; exit $code)
code=$?
check "no room: 3" is 3
(ulimit -f 1000; run pack set full_tar; exit $code)
code=$?
check "no room for a shard: 3, and nothing half written is left" eval 'is 3 && ! ls full_tar/*.tmp-* full_tar/*.tar 2>/dev/null'
rm packed/train-000000.tar.rn50idx && mkdir packed/train-000000.tar.rn50idx
run inspect packed
check "an index that cannot stand beside its shard goes to the cache, which is said" eval \
    'is 0 && says "are kept in $XDG_CACHE_HOME/rn50" && ls cache/rn50/*-train-000000.tar.rn50idx >/dev/null'
run inspect packed
check "and is found there" eval 'is 0 && ! says "reading through"'
rm -r cache && touch cache
run inspect packed
check "where no index can be kept, that is said" eval 'is 0 && says "are made anew each time"'
head -c 500000 packed/train-000001.tar >half && cp half packed/train-000001.tar
run inspect packed
check "a shard that is cut short: 3, by name" eval 'is 3 && says "packed/train-000001.tar: the tar archive is cut short"'
exit $failed
