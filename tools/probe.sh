#!/bin/bash
# Looks for every library that rn50 stands on by compiling, linking and running a small program with it (tools/probes/).
#
#   tools/probe.sh [--show | --packages KIND | --all-packages KIND] [FOLDER]
#
# FOLDER (default build/deps) keeps the results: they are looked up again only when the compiler, the flags, the probes or
# the system's installed packages changed. Without an option the banner is printed after a fresh look; --show always
# prints it; --packages prints nothing but the packages that are missing, one a line, for this system's package manager;
# --all-packages them all, missing or not, without looking. KIND is necessary, or optional: what serves machines without a
# GPU too.
# Reads CXX, CPPFLAGS, LDFLAGS, NVCC (empty: nothing of CUDA is looked for) and GPU_ONLY (not empty: oneDNN is not needed,
# CUDA is). Exit status: 0, or 1 when something necessary is missing.
set -uo pipefail
cd "$(dirname "$0")/.."

mode=fresh kind=necessary
case "${1:-}" in
    --show) mode=show; shift ;;
    --packages | --all-packages) mode=${1#--}; kind=$2; shift 2 ;;
esac
folder=${1:-build/deps}
: "${CXX:=g++}" "${CPPFLAGS:=}" "${LDFLAGS:=}" "${GPU_ONLY:=}"
: "${NVCC=$(PATH=/usr/local/cuda/bin:$PATH command -v nvcc)}"
cuda_home=$(dirname "$(dirname "$(readlink -f "${NVCC:-/none/bin/nvcc}")")")
cuda_flags="-I$cuda_home/include -L$cuda_home/lib64 -Wl,-rpath,$cuda_home/lib64"

# name | probe | need: yes, speed, ranks, gpu, gpus | libraries | package of Debian and Ubuntu | of CentOS, RHEL and Fedora
table='C++ compiler|compiler|yes||g++|gcc-c++
OpenMP|openmp|yes||g++|gcc-c++
oneDNN|onednn|yes|-ldnnl|libdnnl-dev|onednn-devel
libjpeg-turbo|libjpeg|yes|-ljpeg|libjpeg62-turbo-dev|libjpeg-turbo-devel
libjpeg, parts|libjpeg_partial|speed|-ljpeg|libjpeg62-turbo-dev|libjpeg-turbo-devel
LMDB|lmdb|yes|-llmdb|liblmdb-dev|lmdb-devel
stb_image|stb_image|yes||libstb-dev|stb_image-devel
stb_image_write|stb_image_write|yes||libstb-dev|stb_image_write-devel
stb_easy_font|stb_easy_font|yes||libstb-dev|stb_easy_font-devel
CLI11|cli11|yes||libcli11-dev|cli11-devel
nlohmann-json|nlohmann_json|yes||nlohmann-json3-dev|json-devel
doctest|doctest|yes||doctest-dev|doctest-devel
Gloo|gloo|ranks|-lgloo -lpthread|libgloo-dev|gloo-devel
CUDA toolkit|cuda|gpu|-lcudart|cuda-toolkit-12-2|cuda-toolkit-12-2
cuDNN|cudnn|gpu|-lcudnn|libcudnn8-dev|libcudnn8-devel
cuBLASLt|cublaslt|gpu|-lcublasLt|libcublas-dev-12-2|libcublas-devel-12-2
NCCL, header|nccl|gpus||libnccl-dev|libnccl-devel'
# A program for GPUs alone turns what is necessary around.
[ -n "$GPU_ONLY" ] && table=$(sed -E '/^oneDNN/d; /^(CUDA toolkit|cuDNN|cuBLASLt)\|/s/\|gpu\|/|gpu-only|/' <<<"$table")
system=$(. /etc/os-release 2>/dev/null && echo "$ID-${VERSION_ID%%.*}")
case $system in
    ubuntu-*) table=${table/libjpeg62-turbo-dev/libjpeg-turbo8-dev} ;;
    fedora-*) ;;
    *-7) table=${table//gcc-c++/devtoolset-11-gcc-c++} ;;
    *-8) table=${table//gcc-c++/gcc-toolset-11-gcc-c++} ;;
esac

try() { # name probe need libraries...: leaves FOLDER/PROBE.version, or .error with what the compiler said
    local probe=$2 need=$3 libraries=$4 flags="-std=c++17 -O0 -fopenmp -march=x86-64-v2"
    rm -f "$folder/$probe".{version,error}
    if [[ $need == gpu* ]]; then
        [ -x "$NVCC" ] || { echo "no nvcc: NVCC='$NVCC'" >"$folder/$probe.error"; return; }
        flags+=" $cuda_flags"
    fi
    # shellcheck disable=SC2086  # flags are lists of words
    if $CXX $flags $CPPFLAGS "tools/probes/$probe.cpp" $LDFLAGS $libraries -o "$folder/$probe" >"$folder/$probe.error" 2>&1 &&
        "$folder/$probe" >"$folder/$probe.out" 2>>"$folder/$probe.error"; then
        head -1 "$folder/$probe.out" >"$folder/$probe.version"
        rm -f "$folder/$probe.error"
    fi
    rm -f "$folder/$probe" "$folder/$probe.out"
}

look() {
    local row name probe need libraries running=0
    while IFS='|' read -r name probe need libraries _; do
        try "$name" "$probe" "$need" "$libraries" &
        running=$((running + 1))
        if [ $running -ge "$(nproc)" ]; then wait; running=0; fi
    done <<<"$table"
    wait
}

necessary() { [ "$1" = yes ] || [ "$1" = gpu-only ]; }

banner() {
    local name probe need libraries apt rpm missing=0 note
    echo "rn50 stands on (found by building a program with each):"
    while IFS='|' read -r name probe need libraries apt rpm; do
        note=""
        [ "$need" = speed ] && note=" (optional: training crops are decoded without the rest; libjpeg-turbo 1.5)"
        [ "$need" = ranks ] && note=" (optional: several processes on CPUs)"
        [ "$need" = gpu ] && note=" (optional: training on a GPU)"
        [ "$need" = gpus ] && note=" (optional: training on several GPUs; libnccl.so.2 is loaded when they train)"
        if [ -f "$folder/$probe.version" ]; then
            printf '  ✓ %-14s %s%s\n' "$name" "$(cat "$folder/$probe.version")" "$note"
            continue
        fi
        printf '  ✗ %-14s missing%s\n' "$name" "$note"
        case $need in
            gpu*) printf '%19s%s\n' '' "from NVIDIA's repository: apt-get install $apt | dnf install $rpm" ;;
            *) printf '%19sDebian, Ubuntu: apt-get install %s\n%19sCentOS, RHEL (EPEL): dnf install %s\n' '' "$apt" '' "$rpm" ;;
        esac
        if necessary "$need"; then
            missing=1
            if [ "$probe" = compiler ]; then
                printf '%19swhy: %s\n' '' "$(grep -v '^ *$' "$folder/$probe.error" | head -1 | cut -c1-160)"
                echo "  Without a compiler (GCC 11 or newer; CXX=... chooses one) nothing else can be looked for."
                break
            fi
            printf '%19swhy: %s\n' '' "$(grep -m1 -E 'error|not found|No such|cannot|no nvcc' "$folder/$probe.error" | cut -c1-160)"
        fi
    done <<<"$table"
    if [ $missing = 1 ]; then
        echo "rn50 cannot be built without the ones marked ✗ that are not optional. 'make setup' installs them."
        echo "Libraries outside the system's folders: make CPPFLAGS=-I... LDFLAGS='-L... -Wl,-rpath,...'. Details: $folder/*.error"
    fi
}

packages() { # missing | all: of this kind
    local name probe need libraries apt rpm of
    [ "$kind" = optional ] && of=ranks || of=yes
    while IFS='|' read -r name probe need libraries apt rpm; do
        [ "$need" = "$of" ] || continue
        [ "$1" = missing ] && [ -f "$folder/$probe.version" ] && continue
        if command -v apt-get >/dev/null; then echo "$apt"; else echo "$rpm"; fi
    done <<<"$table" | sort -u
}

[ $mode = all-packages ] && { packages all; exit 0; }

mkdir -p "$folder"
key=$({
    echo "$CXX|$CPPFLAGS|$LDFLAGS|$NVCC|$cuda_home|$GPU_ONLY"
    $CXX --version 2>&1
    cat tools/probe.sh tools/probes/*.cpp
    stat -L -c '%n %Y' /var/lib/dpkg/status /var/lib/rpm /usr/lib/sysimage/rpm /etc/ld.so.cache "$cuda_home" 2>/dev/null
} | cksum)
if [ "$key" != "$(cat "$folder/key" 2>/dev/null)" ]; then
    look
    [ "$mode" = fresh ] && mode=show
fi

required=0
while IFS='|' read -r name probe need _; do
    necessary "$need" && [ ! -f "$folder/$probe.version" ] && required=1
done <<<"$table"
# A failure is looked at afresh each time: somebody is mending it.
if [ $required = 0 ]; then echo "$key" >"$folder/key"; else rm -f "$folder/key"; fi

case $mode in
    show) if [ $required = 0 ]; then banner; else banner >&2; fi ;;
    packages) packages missing ;;
esac
exit $required
