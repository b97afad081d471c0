# All of cuda/ under older compilers of CUDA; sourced by check_compat.sh, whose functions and folders it uses.
#
# nvcc 12.4 is the oldest whose driver and front end are to be had without NVIDIA's site: Debian's nvidia-cuda-toolkit,
# which is unpacked here and not installed. Its headers come from PyPI's wheels, and so do the headers and the assembler
# of CUDA 12.2, to which 12.4's front end is then held.
debian=http://deb.debian.org/debian/pool/non-free/n/nvidia-cuda-toolkit/nvidia-cuda-toolkit_12.4.131~12.4.1-2_amd64.deb
wheels_12_4='nvidia-cuda-runtime-cu12==12.4.127 nvidia-cuda-nvcc-cu12==12.4.131'
wheels_12_2='nvidia-cuda-runtime-cu12==12.2.140 nvidia-cuda-nvcc-cu12==12.2.140'
old_architectures='75 80 86 89 90'
assembled_architectures='75 89' # one without bf16's arithmetic, one with it

unpack_wheels() { # FOLDER WHEELS: whole
    local wheel
    rm -rf "$1.wheels"
    # shellcheck disable=SC2086  # a list of words
    python3 -m pip download -q --no-deps -d "$1.wheels" $2 || return 1
    for wheel in "$1.wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$1" || return 1; done
    rm -r "$1.wheels"
}

# A toolkit as NVIDIA lays it out, of Debian's programs and the wheels' headers.
fetch_nvcc_12_4() {
    local to=$folder/nvcc12.4 parts=$folder/nvcc12.4.parts
    [ -e "$to/complete" ] && return
    echo "fetching Debian's nvcc 12.4, and $wheels_12_4 $wheels_12_2 ..."
    rm -rf "$to" "$parts"
    mkdir -p "$to"/{bin,include,lib64,nvvm} "$parts"
    python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' "$debian" "$parts/toolkit.deb" &&
        dpkg-deb -x "$parts/toolkit.deb" "$parts/debian" && unpack_wheels "$parts/12.4" "$wheels_12_4" &&
        unpack_wheels "$folder/nvcc12.2" "$wheels_12_2" || return 1
    cp -r "$parts"/debian/usr/lib/nvidia-cuda-toolkit/bin/{nvcc,cicc,crt} \
        "$parts"/debian/usr/bin/{cudafe++,ptxas,fatbinary,bin2c,nvlink} "$to/bin/"
    cp -r "$parts/debian/usr/lib/nvidia-cuda-toolkit/libdevice" "$to/nvvm/"
    cp -r "$parts"/12.4/nvidia/cuda_runtime/include/. "$parts"/12.4/nvidia/cuda_nvcc/include/. "$to/include/"
    cp "$parts/12.4/nvidia/cuda_runtime/lib/libcudart.so.12" "$to/lib64/"
    chmod +x "$folder/nvcc12.2/nvidia/cuda_nvcc/bin/ptxas"
    cat >"$to/bin/nvcc.profile" <<'PROFILE'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
INCLUDES += -isystem "$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64"
PROFILE
    rm -r "$parts"
    touch "$to/complete"
}

# A file of kernels for every architecture by 12.4; and by 12.4's front end with the headers of 12.2, its PTX named as that
# of 12.2 (ISA 8.2, which is all that the code may use then) and assembled by 12.2.
old_kernels() { # FILE LIBRARY_INCLUDES
    local file=$1 includes=$2 name a to=$folder/objects/12.4 gencode=()
    local headers=$folder/nvcc12.2/nvidia
    local common="-std=c++17 -O3 --expt-relaxed-constexpr -ccbin $cxx -Isrc -Icuda"
    local host=-Xcompiler=-fPIC,-march=x86-64-v2,-ffp-contract=off,-fopenmp,-Wall,-Wextra,-Wshadow,-Werror
    name=$(basename "$file")
    mkdir -p "$to"
    for a in $old_architectures; do gencode+=(-gencode "arch=compute_$a,code=sm_$a"); done
    # shellcheck disable=SC2086
    attempt "nvcc 12.4: $file" nvcc $common $host "${gencode[@]}" $includes '-DRN50_CUDA_ARCHS="none"' \
        -Werror all-warnings -c "$file" -o "$to/$name.o"
    for a in $assembled_architectures; do
        # shellcheck disable=SC2086
        attempt "12.4's front end, 12.2's headers and assembler, sm_$a: $file" old_ptx "$to/$name" "$a" \
            nvcc $common -I"$headers/cuda_runtime/include" -I"$headers/cuda_nvcc/include" $includes \
            '-DRN50_CUDA_ARCHS="none"' -arch=compute_$a -ptx "$file" -o "$to/$name.ptx"
    done
}

old_ptx() { # NAME ARCHITECTURE COMMAND...: which writes NAME.ptx
    local name=$1 a=$2
    shift 2
    "$@" || return 1
    sed -i 's/^\.version 8\.[3-9]$/.version 8.2/' "$name.ptx"
    "$folder/nvcc12.2/nvidia/cuda_nvcc/bin/ptxas" -arch="sm_$a" "$name.ptx" -o "$name.cubin"
}

old_compilers() {
    echo "older compilers: nvcc 12.4, ptxas 12.2, $(basename "$cxx")"
    begin
    if ! fetch_nvcc_12_4 || ! fetch oldest "$oldest"; then
        echo "  they could not be fetched: nothing is proven about older compilers"
        unproven+=("that the kernels compile with nvcc before $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'): it could not be fetched")
        return
    fi
    local libraries="$folder/oldest/nvidia" file objects=()
    local includes="-isystem $libraries/cudnn/include -isystem $libraries/cublas/include -isystem $libraries/nccl/include"
    local path=$PATH
    PATH=$PWD/$folder/nvcc12.4/bin:$PATH
    for file in cuda/*.cu; do
        old_kernels "$file" "$includes"
        objects+=("$folder/objects/12.4/$(basename "$file").o")
    done
    for file in cuda/*.cpp; do
        # shellcheck disable=SC2086
        attempt "CUDA 12.4's headers: $file" $cxx $flags -O1 -fPIC -isystem "$folder/nvcc12.4/include" $includes -c "$file" \
            -o "$folder/objects/12.4/$(basename "$file").o"
        objects+=("$folder/objects/12.4/$(basename "$file").o")
    done
    PATH=$path
    # What it lacks comes from the program; a name of CUDA's that is in none of its libraries would be one more.
    attempt "rn50_cuda.so links to libcudart.so.12, libcudnn.so.8 and libcublasLt.so.12" $cxx -shared -fopenmp \
        "${objects[@]}" -Wl,--version-script=cuda/exports.map "$folder/nvcc12.4/lib64/libcudart.so.12" \
        "$libraries/cudnn/lib/libcudnn.so.8" "$libraries/cublas/lib/libcublasLt.so.12" -lpthread -ldl \
        -o "$folder/rn50_cuda.so" &&
        attempt "rn50_cuda.so: no name of CUDA's is missing" all_found "$libraries"
    proves "all of cuda/ compiles with nvcc 12.4 and $(basename "$cxx") for sm_${old_architectures// /, sm_} without a warning, rn50_cuda.so links, and ptxas 12.2 makes machine code (sm_${assembled_architectures// /, sm_}) of what 12.4's front end makes of it with the headers of 12.2"
    unproven+=("device code under the front end of nvcc 12.2 itself, which is in no wheel and in no package of Debian's")
}

all_found() { # LIBRARIES
    local missing
    missing=$(comm -23 <(nm -D --undefined-only "$folder/rn50_cuda.so" | awk '{ sub(/@.*/, "", $2); print $2 }' |
        grep -E '^(__)?(cuda|cudnn|cublas|nccl|nvml|cu[A-Z])' | sort -u) \
        <(nm -D --defined-only "$folder/nvcc12.4/lib64/libcudart.so.12" "$1"/cudnn/lib/*.so.8 "$1"/cublas/lib/*.so.12 |
            awk 'NF == 3 { sub(/@.*/, "", $3); print $3 }' | sort -u))
    [ -z "$missing" ] || { echo "missing: $missing" && return 1; }
}
