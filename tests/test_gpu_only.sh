#!/bin/bash
# make GPU_ONLY=1: the program without the CPU backend, which asks for neither oneDNN nor Gloo. The rules are looked at
# without running them; then the few files that are another way are compiled and linked with what is built already.
#   tests/test_gpu_only.sh PATH/rn50
source "$(dirname "$0")/script.sh" "$1"
root=$(cd "$tests/.." && pwd)
build=
for folder in "$(dirname "$program")" "$(dirname "$program")/build"; do
    [ -e "$folder/src/base/error.o" ] && build=$folder
done

# Another tree with the same files, for which the probe has found everything.
for name in Makefile src cuda tests tools; do ln -s "$root/$name" .; done
mkdir -p build/deps
for library in onednn gloo libjpeg lmdb; do echo 1 >build/deps/$library.version; done
plan() { # NAME=VALUE...: what make would do
    make --no-print-directory -n NVCC= "$@" build-program >out 2>err
    code=$?
}
linked() { grep -- '--whole-archive' out; }
unset MAKEFLAGS MAKELEVEL GPU_ONLY SANITIZE
plan
check "the usual program has both" eval 'is 0 && linked | grep -q -- "-ldnnl" && linked | grep -q -- "-lgloo" && prints "src/backend/cpu/" "-DRN50_GLOO"'
plan GPU_ONLY=1
check "GPU_ONLY=1: neither oneDNN nor Gloo is linked" eval 'is 0 && linked | grep -q -- "-ljpeg" && ! linked | grep -qE -- "-ldnnl|-lgloo"'
check "GPU_ONLY=1: no file of the CPU backend is compiled, and Gloo's is told" eval \
    '! prints "src/backend/cpu/" && ! prints "-DRN50_GLOO" && grep "src/backend/factory.cpp" out | grep -q -- "-DRN50_GPU_ONLY"'

cxx=${CXX:-g++}
if [ -z "$build" ] || ! command -v "${cxx%% *}" >/dev/null; then
    echo "left out: the program itself, which needs the objects beside $program and a compiler"
    exit $failed
fi
# shellcheck disable=SC2206  # lists of words
compiler=($cxx -std=c++17 -march=x86-64-v2 -fopenmp -O0 "-I$root/src" ${CPPFLAGS:-} ${LDFLAGS:-})
case $build in *sanitize-*) compiler+=("-fsanitize=$(basename "$build" | sed 's/sanitize-//; s/-/,/g')") ;; esac
for file in backend/factory comm/gloo; do
    "${compiler[@]}" -DRN50_GPU_ONLY -c "$root/src/$file.cpp" -o "$(basename $file).o" 2>err
done
find "$build/src" -name '*.o' ! -path '*/backend/cpu/*' ! -name factory.o ! -name gloo.o >objects
"${compiler[@]}" factory.o gloo.o $(cat objects) -Wl,--dynamic-list="$root/src/exports.list" -ljpeg -llmdb -lpthread -ldl \
    -o rn50 >out 2>err
code=$?
check "GPU_ONLY=1: all else links without them" is 0
program=$work/rn50
run train nowhere --device cpu
check "GPU_ONLY=1: --device cpu is 4, with what to do" eval 'is 4 && says "this build has no CPU backend" "without GPU_ONLY=1"'
RN50_CUDA_MODULE='' run train nowhere
check "GPU_ONLY=1: without a GPU nothing else computes" eval 'is 4 && says "no rn50_cuda.so" && ! says "the CPU computes"'
RN50_CUDA_MODULE='' run doctor
check "GPU_ONLY=1: doctor misses the GPU" eval 'is 4 && prints "✗ GPU" "not ready to train" && ! prints "CPU backend"'
exit $failed
