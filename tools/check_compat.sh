#!/bin/bash
# Holds cuda/ against the oldest and the newest versions of CUDA's libraries, without a GPU, and against older compilers, the
# decoding of pictures against a libjpeg that has no parts, and the program against an old glibc, and says what that proves.
#
#   tools/check_compat.sh [--all-architectures | --pictures | --oldest | --compilers | --newest | --glibc]
#
# The last five do one part alone. The oldest headers and libraries come from PyPI's wheels (1.3 GB once, into build/compat,
# which git ignores), nvcc 12.4 from Debian's non-free packages (90 MB); the newest are those of the installed toolkit. The
# compiler of the host is GCC 11 where it is there (CXX names another). The newest nvcc compiles all kernels for sm_75 and
# sm_90, or for every architecture that it knows. This is a tool: the tests need no network.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
folder=build/compat
cxx=${CXX:-$(command -v g++-11 || echo g++)}
toolkit=${CUDA_HOME:-/usr/local/cuda}
nvcc=$toolkit/bin/nvcc
flags="-std=c++17 -march=x86-64-v2 -DRN50_NCCL -Wall -Wextra -Wshadow -Werror -Isrc -Icuda"
oldest='nvidia-cudnn-cu12==8.9.7.29 nvidia-cuda-runtime-cu12==12.2.140 nvidia-cublas-cu12==12.2.5.6
        nvidia-cuda-nvcc-cu12==12.2.140 nvidia-nccl-cu12==2.16.5'
libraries='cuda/check.cpp cuda/conv_graph.cpp cuda/conv_timing.cpp cuda/conv_planner.cpp cuda/conv_products.cpp cuda/plan_cache.cpp cuda/gemm.cpp cuda/libraries.cpp
           cuda/driver_meter.cpp
           cuda/nccl_library.cpp cuda/nccl_meeting.cpp cuda/nccl_collectives.cpp'
below='src/base/*.cpp src/tensor/*.cpp src/comm/*.cpp src/backend/backend.cpp src/backend/checks.cpp src/backend/conv.cpp
       src/backend/types.cpp src/backend/cuda_module.cpp src/backend/elf.cpp'
nvjpeg='nvidia-nvjpeg-cu12==12.2.0.2 nvidia-nvjpeg==13.3.2.43' # not part of every toolkit
mkdir -p "$folder/objects"
failed=0 proven=() unproven=()

# What a stretch of attempts proves, unless one of them failed.
begin() { before=$failed; }
proves() { if [ "$failed" = "$before" ]; then proven+=("$1"); else unproven+=("$1: see FAILED above"); fi; }

attempt() { # WHAT COMMAND...: one line, and what was said when it fails
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "  ok      $what"
    else
        echo "  FAILED  $what"
        sed 's/^/          /' <<<"$said" | head -20
        failed=$((failed + 1))
        return 1
    fi
}

report() {
    echo
    printf 'proven:     %s\n' "${proven[@]}"
    printf 'not proven: %s\n' "${unproven[@]}"
    echo "$failed failed"
    [ "$failed" = 0 ]
}

fetch() { # FOLDER WHEELS: for their headers and libraries
    local to=$folder/$1 wheel
    [ -e "$to/complete" ] && return
    echo "fetching $2 ..."
    mkdir -p "$folder/wheels"
    # shellcheck disable=SC2086  # a list of words
    python3 -m pip download -q --no-deps -d "$folder/wheels" $2 || return 1
    for wheel in "$folder"/wheels/*.whl; do
        python3 - "$wheel" "$to" <<'PYTHON' || return 1
import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
for name in wheel.namelist():
    if "/include/" in name or "/lib/lib" in name:
        wheel.extract(name, sys.argv[2])
PYTHON
    done
    rm -r "$folder/wheels"
    touch "$to/complete"
}

# A host compiler reads the kernels too when it is told the names that only nvcc knows.
device_names() {
    cat <<'NAMES'
#pragma once
#include <cuda_runtime.h>
#undef __launch_bounds__
#define __launch_bounds__(...)
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;
void __syncthreads();
void __syncwarp(unsigned = ~0u);
void __threadfence();
template <class T> T __shfl_sync(unsigned, T, int, int = 32);
template <class T> T __shfl_xor_sync(unsigned, T, int, int = 32);
template <class T> T __shfl_down_sync(unsigned, T, unsigned, int = 32);
template <class T> T __shfl_up_sync(unsigned, T, unsigned, int = 32);
unsigned __ballot_sync(unsigned, int);
int __any_sync(unsigned, int);
int __all_sync(unsigned, int);
template <class T> T atomicAdd(T*, T);
template <class T> T atomicOr(T*, T);
template <class T> T atomicMax(T*, T);
float __fmul_rn(float, float);
float __fadd_rn(float, float);
float __fsub_rn(float, float);
float __fdiv_rn(float, float);
float __fsqrt_rn(float);
float __frcp_rn(float);
float rsqrtf(float);
float __uint_as_float(unsigned);
template <class T> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, T*);
#define RN50_CUDA_ARCHS "none"
int __float_as_int(float);
float __int_as_float(int);
NAMES
}

headers() { # NAME INCLUDES: everything that a host compiler can read
    local name=$1 includes=$2 file
    for file in cuda/*.cpp; do
        # shellcheck disable=SC2086
        attempt "$name, $(basename "$cxx"): $file" $cxx $flags $includes -fsyntax-only "$file"
    done
    for file in cuda/*.cu; do
        # shellcheck disable=SC2086
        attempt "$name, $(basename "$cxx"), host part: $file" $cxx $flags $includes -Wno-attributes -Wno-unused \
            -Wno-unknown-pragmas \
            -include "$folder/device_names.h" -x c++ -fsyntax-only "$file"
    done
}

library_tests() { # NAME INCLUDES NCCL: the tests on make-believe libraries, compiled against these headers, and the NCCL
    local name=$1 includes=$2 tests
    tests=$(ls tests/cuda_libraries/*.cpp | grep -v -e late -e fit_on_streams -e test_graph_nccl) # those need the whole program
    # shellcheck disable=SC2086
    attempt "$name: the tests of the libraries' layer compile" $cxx -O1 $flags $includes -Itests -Itests/cuda_libraries \
        -DRN50_TESTS_DIR="\"$PWD/tests\"" \
        $tests tests/main.cpp tests/naive.cpp tests/streams.cpp tests/simt_memory.cpp $libraries cuda/picture_decoders.cpp cuda/upload.cpp $below \
        -lpthread -ldl -o "$folder/library_tests" &&
        attempt "$name: the tests of the libraries' layer pass, and libnccl.so.2 has what is called" \
            env RN50_TEST_NCCL="$3" "$folder/library_tests"
}

nvjpeg_fits() { # VERSION INCLUDES LIBRARY HEADER_FOLDER: what rn50 knows of nvJPEG beside its header and its library
    local version=$1 includes=$2 library=$3 headers=$4 name
    sed -n 's/^ *\(RN50_LOOK([A-Za-z]*);\).*/\1/p' cuda/picture_decoders.cpp >"$folder/nvjpeg_functions.h"
    # shellcheck disable=SC2086
    attempt "nvJPEG $version: every declaration fits its header" $cxx $flags $includes -isystem "$headers" -I"$folder" \
        -fsyntax-only tools/compat/nvjpeg_matches.cpp
    nm -D --defined-only "$library" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort >"$folder/nvjpeg_symbols"
    for name in $(sed 's/RN50_LOOK(\(.*\));/nvjpeg\1/' "$folder/nvjpeg_functions.h"); do
        grep -qx "$name" "$folder/nvjpeg_symbols" || attempt "nvJPEG $version: $name is in its library" false
    done
}

# The program on a libjpeg that decodes whole pictures alone, as libjpeg-turbo 1.2.90 of CentOS 7 does: the functions of
# newer ones may not be named, and the pipeline's tests hold without them.
whole_jpegs() {
    local objects=$folder/objects/whole_jpegs file isa common
    common="-O1 -std=c++17 -march=x86-64-v2 -Wall -Wextra -Wshadow -Werror -Wno-psabi -Isrc -Itests"
    mkdir -p "$objects"
    cat >"$folder/old_libjpeg.h" <<'NAMES'
#include <cstdio>
#include <jpeglib.h>
#pragma GCC poison jpeg_crop_scanline jpeg_skip_scanlines
NAMES
    # shellcheck disable=SC2086
    attempt "libjpeg without parts: jpeg.cpp names no function of a newer one" \
        $cxx $common -include "$folder/old_libjpeg.h" -c src/pipeline/jpeg.cpp -o "$objects/jpeg.o" || return
    for file in src/{base,tensor,format,pipeline}/*.cpp tests/{main,jpeg_support}.cpp \
        tests/test_pipeline_{decode,formats,region,restarts,augment,huffman}.cpp; do
        case $file in */kernels.cpp | */jpeg.cpp) continue ;; esac
        # shellcheck disable=SC2086
        attempt "libjpeg without parts: $file" $cxx $common -DRN50_TESTS_DIR="\"$PWD/tests\"" -c "$file" \
            -o "$objects/$(tr / _ <<<"$file").o"
    done
    for isa in v2 v3 v4; do
        # shellcheck disable=SC2086
        attempt "libjpeg without parts: src/pipeline/kernels.cpp ($isa)" $cxx ${common/x86-64-v2/x86-64-$isa} \
            -DRN50_ISA=$isa -c src/pipeline/kernels.cpp -o "$objects/kernels_$isa.o"
    done
    # shellcheck disable=SC2086
    attempt "libjpeg without parts: it links" $cxx "$objects"/*.o -ljpeg -llmdb -lpthread -ldl -o "$folder/whole_jpegs" &&
        attempt "libjpeg without parts: the tests of decoding pass" "$folder/whole_jpegs"
}

old_libjpeg() {
    echo "libjpeg-turbo before 1.5: whole pictures alone"
    begin
    whole_jpegs
    proves "pictures decode alike, whole and by regions, where libjpeg has neither jpeg_crop_scanline nor jpeg_skip_scanlines"
    unproven+=("that the headers of libjpeg-turbo 1.2.90 compile: they are in no wheel")
}

oldest_libraries() {
    echo "oldest: CUDA 12.2, cuDNN 8.9, NCCL 2.16"
    begin
    if fetch oldest "$oldest"; then
        old=$folder/oldest/nvidia
        old_includes="-isystem $old/cuda_runtime/include -isystem $old/cudnn/include -isystem $old/cublas/include
                      -isystem $old/cuda_nvcc/include -isystem $old/nccl/include"
        headers oldest "$old_includes"
        library_tests oldest "$old_includes" "$old/nccl/lib/libnccl.so.2"
        # shellcheck disable=SC2086
        attempt "oldest: every function that is called is in libcudnn.so.8, libcublasLt.so.12 and libcudart.so.12" \
            $cxx $flags $old_includes -fPIC -shared -Wl,--no-undefined $libraries $below "$old/cudnn/lib/libcudnn.so.8" \
            "$old/cublas/lib/libcublasLt.so.12" "$old/cuda_runtime/lib/libcudart.so.12" -lpthread -ldl -o "$folder/libraries.so"
        proves "the host code of cuda/ compiles against CUDA 12.2, cuDNN 8.9 and NCCL 2.16 with $(basename "$cxx"), and its libraries' layer links to them"
    else
        echo "  the wheels could not be fetched: nothing is proven about the oldest versions"
        unproven+=("everything about the oldest versions: PyPI could not be reached")
    fi
    begin
    if fetch nvjpeg "$nvjpeg"; then
        found=$folder/nvjpeg/nvidia
        nvjpeg_fits 12.2 "${old_includes:--isystem $toolkit/include}" "$found/nvjpeg/lib/libnvjpeg.so.12" "$found/nvjpeg/include"
        nvjpeg_fits 13.3 "-isystem $toolkit/include" "$found/cu13/lib/libnvjpeg.so.13" "$found/cu13/include"
        proves "cuda/nvjpeg_api.h says what the headers of nvJPEG 12.2 and 13.3 say, and their libraries have every function"
    else
        unproven+=("that cuda/nvjpeg_api.h fits nvJPEG: PyPI could not be reached")
    fi
}

newest_libraries() {
    echo "newest: the toolkit in $toolkit"
    if [ -x "$nvcc" ]; then
        new_includes="-isystem $toolkit/include"
        headers newest "$new_includes"
        library_tests newest "$new_includes" "$toolkit/lib64/libnccl.so.2"
        begin
        architectures=(-gencode arch=compute_75,code=sm_75 -gencode arch=compute_90,code=sm_90)
        [ "$which" = --all-architectures ] && architectures=(-arch=all)
        for file in cuda/*.cu; do
            attempt "newest, nvcc: $file" "$nvcc" -std=c++17 --expt-relaxed-constexpr "${architectures[@]}" -Isrc -Icuda \
                -DRN50_CUDA_ARCHS='"none"' -Xcompiler -Wall,-Wextra -c "$file" -o "$folder/objects/$(basename "$file").o"
        done
        proves "all of cuda/ compiles with $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/nvcc \1/p') (${architectures[*]##*code=})"
        wrapped=$(printf -- '-Wl,--wrap=%s ' cudnn{BackendCreateDescriptor,BackendSetAttribute,BackendFinalize,Create,Destroy,SetStream} \
            cuda{GetDevice,GetDeviceProperties,DeviceGetAttribute,DriverGetVersion})
        # shellcheck disable=SC2086
        if grep -qs CUDNN_ATTR_ENGINE_DEVICEPROP "$toolkit"/include/cudnn_graph.h &&
            attempt "newest: the survey of plans compiles" $cxx -O1 $flags $new_includes tools/compat/plans_without_gpu.cpp \
                ${libraries/cuda\/gemm.cpp cuda\/libraries.cpp*/} $below -L"$toolkit/lib64" -Wl,-rpath,"$toolkit/lib64" \
                -lcudnn -lcublasLt -lcudart -lpthread -ldl $wrapped -o "$folder/plans_without_gpu"; then
            "$folder/plans_without_gpu" | sed 's/^/    /'
            case ${PIPESTATUS[0]} in
                0) proven+=("the installed cuDNN has a deterministic plan for every convolution of ResNet-50 and of the tests, and makes it again, from sm_75 (bf16: sm_80) to sm_120") ;;
                2) unproven+=("which plans cuDNN offers: it does not take the description of a GPU") ;;
                *) failed=$((failed + 1)) ;;
            esac
        fi
    else
        echo "  no nvcc there: nothing is proven about the newest versions"
        unproven+=("everything about the newest versions: there is no toolkit in $toolkit (CUDA_HOME names another)")
    fi
    unproven+=("that the plans run, their numbers and their speed: that takes a GPU")
    unproven+=("which plans cuDNN 8.9 offers: it answers only on a GPU")
}

device_names >"$folder/device_names.h"
source tools/compat/compilers.sh
source tools/compat/glibc.sh
which=${1:-}
case $which in
    --pictures) old_libjpeg ;;
    --oldest) oldest_libraries ;;
    --compilers) old_compilers ;;
    --newest) newest_libraries ;;
    --glibc) old_glibc ;;
    '' | --all-architectures)
        old_libjpeg
        oldest_libraries
        old_compilers
        newest_libraries
        old_glibc
        ;;
    *) echo "usage: tools/check_compat.sh [--all-architectures | --pictures | --oldest | --compilers | --newest | --glibc]" >&2 && exit 2 ;;
esac
report
