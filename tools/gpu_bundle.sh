#!/bin/bash
# Gathers into build/gpu what tools/gpu_check.sh needs on a machine with a GPU where nothing can be installed: the programs
# and the GPU module, stripped, and the libraries that may lack there. Build first, for that machine's GPU:
#
#   make test CUDA_ARCHS=90 && tools/gpu_bundle.sh 90
#
#   tools/gpu_bundle.sh [ARCH]   ARCH (90) is that GPU's compute capability: a module without machine code for it is refused
#   PHOTOS=FOLDER       some of its JPEGs go along, to measure loading with; otherwise the demo set is drawn there
#   NVJPEG=FILE         libnvjpeg.so of the module's CUDA version, for machines without; otherwise the toolkit's, if it has it
#   MOST_MB=54          what the folder may have
#
# It runs where the C library is at least as new as this one's. Copy the folder and this tree's tools/ and tests/ to the
# other machine, into one folder, and start tools/gpu_check.sh there.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-90}
bundle=${BUNDLE:-build/gpu}
most_mb=${MOST_MB:-54} most_photos=64

programs=(rn50 rn50_cuda.so build/rn50_tests build/make_defects)
for program in "${programs[@]}"; do
    [ -e "$program" ] || { echo "$program is not built yet: make test CUDA_ARCHS=$arch" >&2 && exit 1; }
done

# In the module's own words; every figure from a module that the driver must compile first would be worth nothing.
said=$(./rn50 doctor --json || true)
codes=$(grep -o '"topic":"GPU module"[^}]*' <<<"$said" | sed -n 's/.*, code for \([^"]*\)".*/\1/p')
if [[ " $codes " != *" sm_$arch "* ]]; then
    echo "rn50_cuda.so holds code for ${codes:-nothing that could be read (./rn50 doctor tells why)}, not for sm_$arch: make test CUDA_ARCHS=$arch" >&2
    exit 1
fi

rm -rf "$bundle"
mkdir -p "$bundle/lib"
for program in "${programs[@]}"; do
    strip -o "$bundle/$(basename "$program")" "$program"
done
chmod +x "$bundle"/rn50*

# Not of the system's C library and of the compiler's C++ one, which belong to the machine; not CUDA's, which are large
# and must fit its driver: gpu_check.sh looks for them there, and unpacks of these what is lacking.
for program in "${programs[@]}"; do
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }'
done | sort -u |
    grep -vE '^(libc|libm|libdl|librt|libpthread|libresolv|ld-linux.*|libstdc\+\+|libgcc_s|libcuda|libcud.*|libcublas.*|libnv.*|libnccl)\.so' |
    while read -r name path; do
        cp -L "$path" "$bundle/lib/$name"
        strip --strip-unneeded "$bundle/lib/$name" 2>/dev/null || true
        gzip -9 "$bundle/lib/$name"
    done

nvjpeg=${NVJPEG:-$(find -L /usr/local/cuda/lib64 -maxdepth 1 -name 'libnvjpeg.so.??' -print -quit 2>/dev/null || true)}
if [ -n "$nvjpeg" ]; then
    mkdir "$bundle/spare"
    cp -L "$nvjpeg" "$bundle/spare/$(basename "$nvjpeg")"
fi
if [ -n "${PHOTOS:-}" ]; then
    mkdir "$bundle/photos"
    number=0
    while read -r path; do
        number=$((number + 1))
        cp -L "$path" "$bundle/photos/$(printf '%03d' $number).jpg"
        [ $number -lt $most_photos ] || break
    done < <(find -L "$PHOTOS" -type f -iname '*.jpg' | sort)
fi
size=$(du -sm "$bundle" | cut -f1)
du -ak "$bundle" | sort -rn | sed -n '2,12p'
echo "$bundle: $size MB, module for $codes"
if [ "$size" -gt "$most_mb" ]; then
    echo "that is more than MOST_MB=$most_mb MB: fewer or smaller PHOTOS" >&2
    exit 1
fi
