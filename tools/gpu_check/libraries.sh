# shellcheck shell=bash
# shellcheck disable=SC2154  # what is not assigned here is a setting of gpu_check.sh
# Sourced by gpu_check.sh: the programs to run, carried or built here, and the libraries that they find.

# Where the driver, cuDNN and CUDA's libraries may be: the system's folders, the toolkit's, those of Python packages.
library_places() {
    printf '%s\n' /usr/local/cuda/lib64 /usr/local/cuda*/lib64 /usr/local/cuda*/targets/x86_64-linux/lib \
        /usr/lib/x86_64-linux-gnu /usr/lib64
    "$PYTHON" -c 'import glob, os, sys
for p in sys.path:
    print(*sorted(glob.glob(os.path.join(p, "nvidia", "*", "lib"))), sep="\n")' 2>/dev/null
    echo /usr/local/nvidia/lib64 # last: in some containers the driver's
}

# Of these, which hold one that is looked for.
library_folders() {
    local folder
    library_places | while read -r folder; do
        [ -d "$folder" ] || continue
        [ -z "$(find -L "$folder" -maxdepth 1 \( -name 'libcudnn*.so*' -o -name 'libcublasLt.so*' -o -name 'libcudart.so*' \
            -o -name 'libnvrtc.so*' -o -name 'libnvJitLink.so*' -o -name 'libnvjpeg.so*' -o -name 'libnccl.so*' \
            -o -name 'libcuda.so*' \) -print -quit 2>/dev/null)" ] || echo "$folder"
    done | awk '!seen[$0]++'
}

# What the machine lacks is taken from the bundle, and nothing else of it.
lend_libraries() {
    local program name
    mkdir -p "$WORK/lib"
    for _ in 1 2 3; do # a library that was lent may lack one itself
        for program in "$rn50" "$tests" "$make_defects" "$WORK"/lib/*; do
            [ -e "$program" ] || continue
            LD_LIBRARY_PATH=$WORK/lib ldd "$program" 2>/dev/null | awk '/not found/ { print $1 }' | while read -r name; do
                if [ -e "$BUNDLE/lib/$name.gz" ]; then
                    gzip -dc "$BUNDLE/lib/$name.gz" >"$WORK/lib/$name"
                elif [ -e "$BUNDLE/lib/$name" ]; then
                    ln -sf "$BUNDLE/lib/$name" "$WORK/lib/$name"
                fi
            done
        done
    done
}

programs_of() { # FOLDER FOLDER_OF_TESTS
    rn50=$1/rn50 tests=$2/rn50_tests make_defects=$2/make_defects
    export rn50 tests make_defects
}

find_libraries() {
    local folders
    lend_libraries
    folders=$(library_folders | paste -sd:)
    export OUR_LIBRARIES=$WORK/lib${folders:+:$folders}:$BUNDLE/spare # the last: of what rn50 opens by itself
}

# Why the programs do not start on this machine; nothing where they do.
start_fault() {
    local program said
    for program in "$rn50" "$tests"; do
        [ -x "$program" ] || continue
        said=$(ours 30 "$program" --version 2>&1) && continue
        printf '%s' "$(basename "$program"): $(printf '%s' "$said" | tail -1)"
        return
    done
}

# Programs for this machine, of this tree, in the tree: for where the carried ones do not start.
build_here() {
    local arch gpu_only=() log=$WORK/build.log
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d '. ')
    printf '#include <dnnl.hpp>\n' | "${CXX:-g++}" -std=c++17 -x c++ -fsyntax-only - 2>/dev/null || gpu_only=(GPU_ONLY=1)
    echo "building here${arch:+ for sm_$arch}${gpu_only[*]:+, without the CPU backend (no oneDNN)}: $log"
    local how=(${arch:+CUDA_ARCHS="$arch"} "${gpu_only[@]}" WERROR=0)
    (cd "$root" && within 240 make "${how[@]}" all && within 60 make "${how[@]}" build-make-defects) >"$log" 2>&1 ||
        { tail -5 "$log" && return 1; }
    # Without its tests a program is still worth measuring.
    (cd "$root" && within 200 make "${how[@]}" -j"$(nproc)" build-tests) >>"$log" 2>&1 || tail -2 "$log"
    programs_of "$root" "$root/build"
    find_libraries
}

# Settles which programs are run, and says so. Exits where none can be.
choose_programs() {
    local program fault
    if [ -x "$BUNDLE/rn50" ]; then programs_of "$BUNDLE" "$BUNDLE"; else programs_of "$root" "$root/build"; fi
    for program in "$rn50" "$tests" "$make_defects"; do
        [ -x "$program" ] || { echo "$program is not there: build it, or carry build/gpu here (tools/gpu_bundle.sh)" >&2 && exit 2; }
    done
    find_libraries
    fault=$(start_fault)
    if [ -n "$fault" ]; then
        echo "the programs in $(dirname "$rn50") do not start here: $fault"
        if ! command -v make >/dev/null || ! { [ -x /usr/local/cuda/bin/nvcc ] || command -v nvcc >/dev/null; }; then
            echo "and nothing can be built here: make and nvcc are needed" >&2
            exit 3
        fi
        build_here || { echo "and building here failed: $WORK/build.log" >&2 && exit 3; }
        fault=$(start_fault)
        [ -z "$fault" ] || { echo "nor do those built here: $fault" >&2 && exit 3; }
    fi
    echo "programs: those in $(dirname "$rn50")"
}
