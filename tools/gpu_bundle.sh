#!/bin/bash
# Gathers into build/gpu what tools/gpu_check.sh needs on a machine with a GPU where nothing can be installed: the programs
# and the GPU module, stripped, the libraries that may lack there, the tests' files. Build first, for that machine's GPU:
#
#   make CUDA_ARCHS=90 && make test && tools/gpu_bundle.sh
#
#   PHOTOS=FOLDER       some of its JPEGs go along, to measure loading with; otherwise the demo set is drawn there
#   NVJPEG=FILE         libnvjpeg.so of the module's CUDA version, for machines without; otherwise the toolkit's, if it has it
#
# It runs where the C library is at least as new as this one's. The folder needs nothing else: copy it, with tools/, to
# the other machine (or into a copy of this tree there) and start tools/gpu_check.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
bundle=${BUNDLE:-build/gpu}
most_mb=60 most_photos=64

programs=(rn50 rn50_cuda.so build/rn50_tests build/make_defects)
for program in "${programs[@]}"; do
    [ -e "$program" ] || { echo "$program is not built yet" >&2 && exit 1; }
done
rm -rf "$bundle"
mkdir -p "$bundle/lib" "$bundle/tests"
for program in "${programs[@]}"; do
    strip -o "$bundle/$(basename "$program")" "$program"
done
chmod +x "$bundle"/rn50*

# Not of the system's C library and of the compiler's C++ one, which belong to the machine; not CUDA's, which are large
# and must fit its driver: gpu_check.sh looks for them there.
for program in "${programs[@]}"; do
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }'
done | sort -u |
    grep -vE '^(libc|libm|libdl|librt|libpthread|libresolv|ld-linux.*|libstdc\+\+|libgcc_s|libcuda|libcud.*|libcublas.*|libnv.*|libnccl)\.so' |
    while read -r name path; do
        cp -L "$path" "$bundle/lib/$name"
        strip --strip-unneeded "$bundle/lib/$name" 2>/dev/null || true
    done

cp -r tests/golden "$bundle/tests/golden"

nvjpeg=${NVJPEG:-$(compgen -G "/usr/local/cuda/lib64/libnvjpeg.so.??" | tail -1 || true)}
if [ -n "$nvjpeg" ]; then
    mkdir "$bundle/spare"
    cp -L "$nvjpeg" "$bundle/spare/$(basename "$nvjpeg")"
fi
if [ -n "${PHOTOS:-}" ]; then
    mkdir "$bundle/photos"
    find -L "$PHOTOS" -type f -iname '*.jpg' | sort | head -n $most_photos | nl -n rz -w 3 | while read -r number path; do
        cp -L "$path" "$bundle/photos/$number.jpg"
    done
fi
size=$(du -sm "$bundle" | cut -f1)
du -sk "$bundle"/* "$bundle"/lib/* | sort -rn | head -20
echo "$bundle: $size MB"
if [ "$size" -ge $most_mb ]; then
    echo "that is more than $most_mb MB" >&2
    exit 1
fi
