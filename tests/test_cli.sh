#!/bin/bash
# The program as scripts see it: exit codes, what goes to stdout and what to stderr, doctor on odd machines.
#   tests/test_cli.sh PATH/rn50
source "$(dirname "$0")/script.sh" "$1"

silent_out() { [ ! -s out ]; }
both() { is "$1" && says "$2" && silent_out; }

# --- usage ---------------------------------------------------------------------------------------------------------------
run
check "no arguments: usage, told on stderr" both 2 "Usage: rn50 COMMAND"
run --help
check "--help: 0, on stdout" eval 'is 0 && prints "Usage: rn50 COMMAND" && [ ! -s err ]'
run --version
check "--version" eval 'is 0 && grep -qE "^rn50 [0-9]+\.[0-9]+\.[0-9]+$" out'
run trian data
check "unknown command: 2 and a suggestion" both 2 "did you mean rn50 train?"
run train data --epoch 3
check "unknown option: 2 and a suggestion" both 2 "did you mean --epochs?"
run train data --batch-size none
check "wrong value: 2, with what is allowed" both 2 "--batch-size none is not a whole number"
run train
check "missing argument: 2 and the usage" both 2 "usage: rn50 train DATA"
mkdir -p recipe/train && printf 'epochs = 3\nbatchsize = 4\n' >recipe/rn50.toml
run train recipe
check "unknown key: 2, with file, line and suggestion" eval 'both 2 "recipe/rn50.toml:2: unknown option batchsize" && says "did you mean batch-size?"'
run train recipe --config nowhere.toml
check "missing --config: 3, by name" both 3 "nowhere.toml: No such file"
for command in train eval predict preview bench pack unpack inspect doctor; do
    run $command --help
    check "$command --help: every option with its default" eval \
        'is 0 && [ "$(grep -c -- "^  --" out)" -gt 0 ] && [ "$(grep -c -- "^  --" out)" = "$(grep -c "(default: " out)" ]'
done
if [ -w /dev/full ]; then
    "$program" --help >/dev/full 2>err
    code=$?
    check "results that cannot be written are an error" eval 'is 3 && says "could not be written"'
fi

# --- doctor --------------------------------------------------------------------------------------------------------------
run doctor
check "doctor: ready, on stdout" eval 'is 0 && prints "✓ cores" && prints "✓ CPU backend" && prints "ready to train" && [ ! -s err ]'
run doctor --json
check "doctor --json: one object" eval 'is 0 && [ "$(wc -l <out)" = 1 ] && grep -q "^{\"ready\":true,\"findings\":\[.*\]}$" out'
mkdir bare && cd bare && chmod 555 . && env -i "$program" doctor >../out 2>../err
code=$?
cd ..
check "doctor: in an empty environment and a folder of no use" is 0

# A driver that claims two GPUs, and one that has none to give; without a GPU module, whose libraries would believe them.
export RN50_CUDA_MODULE=
if command -v "${CXX:-g++}" >/dev/null; then
    cat >driver.cpp <<'DRIVER'
#include <cstdio>
#include <cstring>
extern "C" {
int cuInit(unsigned) { return INIT; }
int cuDriverGetVersion(int* v) { *v = 12020; return 0; }
int cuDeviceGetCount(int* n) { *n = 2; return 0; }
int cuDeviceGet(int* device, int i) { *device = i; return 0; }
int cuDeviceGetName(char* name, int size, int) { std::snprintf(name, size, "Imaginary 4090"); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = 24000000000; return 0; }
int cuDeviceGetAttribute(int* value, int which, int) { *value = which == 75 ? 8 : 9; return 0; }
int cuGetErrorString(int, const char** text) { *text = "no device of that kind"; return 0; }
}
DRIVER
    mkdir -p good broken odd
    "${CXX:-g++}" -shared -fPIC -DINIT=0 driver.cpp -o good/libcuda.so.1 &&
        "${CXX:-g++}" -shared -fPIC -DINIT=100 driver.cpp -o broken/libcuda.so.1 &&
        echo 'extern "C" int nothing() { return 0; }' | "${CXX:-g++}" -x c++ -shared -fPIC - -o odd/libcuda.so.1
    LD_LIBRARY_PATH=good run doctor
    check "doctor: names the GPUs that a driver gives" eval \
        'is 0 && prints "up to CUDA 12.2" && prints "GPU 1" && prints "Imaginary 4090, 24.0 GB, compute capability 8.9"'
    LD_LIBRARY_PATH=broken run doctor
    check "doctor: a driver without a GPU" eval 'is 0 && prints "gives no GPU: no device of that kind"'
    LD_LIBRARY_PATH=odd run doctor
    check "doctor: a library that is no driver" eval 'is 0 && prints "GPU"'
fi

# --- data that is not there ----------------------------------------------------------------------------------------------
run train nowhere
check "train: missing folder is 3, by name" both 3 "nowhere"
run predict nowhere.safetensors a.jpg
check "predict: missing checkpoint is 3, by name" both 3 "nowhere.safetensors"
run eval nowhere.safetensors .
check "eval: missing checkpoint is 3, by name" both 3 "nowhere.safetensors"

# --- preview -------------------------------------------------------------------------------------------------------------
for place in train/a train/b val/a val/b; do
    mkdir -p shop/$place
    for i in 1 2 3; do
        { printf 'P6 40 40 255\n'; head -c 4800 /dev/urandom; } >shop/$place/$i.ppm
    done
done
run preview shop --out sheet.png --image-size 32 --augment trivial --rotate90 --count 4
check "preview: a PNG of so many rows" eval 'is 0 && says "sheet.png: " && [ "$(head -c 4 sheet.png | tail -c 3)" = PNG ]'
cp sheet.png first.png
run preview shop --out sheet.png --image-size 32 --augment trivial --rotate90 --count 4
check "preview: the same again" eval 'is 0 && cmp -s sheet.png first.png'
run preview shop --out sheet.png --image-size 32 --augment trivial --rotate90 --count 4 --seed 1
check "preview: another seed, another picture" eval 'is 0 && ! cmp -s sheet.png first.png'
run preview shop --out mixed.png --image-size 32 --augment trivial --rotate90 --count 4 --mixup 0.4
check "preview: shows mixed pictures" eval 'is 0 && ! cmp -s mixed.png first.png'
run preview shop --out grey.png --image-size 32 --augment trivial --rotate90 --count 4 --channels 1
check "preview: grey pictures, and that colours have no saturation" eval \
    'is 0 && says "saturation of colours has nothing to do" && ! cmp -s grey.png first.png'
run preview shop --out nowhere/sheet.png
check "preview: a folder that is not there is 3" both 3 "nowhere/sheet.png"
# Without val, and with pictures that cannot be used: the first of the one class, a cut one of the other.
mkdir -p pile/a pile/b
cp shop/train/a/1.ppm pile/a/2.ppm
cp shop/train/a/2.ppm pile/a/3.ppm
cp shop/train/b/2.ppm pile/b/2.ppm
run preview pile --out good.png --image-size 32 --count 3
check "preview: needs no val" eval 'is 0 && says "good.png: "'
echo rubbish >pile/a/1.ppm
head -c 2000 shop/train/b/1.ppm >pile/b/1.ppm
run preview pile --out sheet.png --image-size 32 --count 3
check "preview: pictures that cannot be used are skipped by name" eval \
    'is 0 && says "skipped pile/a/1.ppm: " "skipped pile/b/1.ppm: " && [ "$(grep -c skipped err)" = 2 ]'
for picture in pile/*/*.ppm; do echo rubbish >$picture; done
run preview pile --out sheet.png --image-size 32
check "preview: none that can be used is 3" both 3 "no picture can be used"
run preview shop
check "preview: needs a file to write" both 2 "--out FILE.png is missing"

exit $failed
