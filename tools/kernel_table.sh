#!/bin/bash
# Registers, spills and shared memory of every kernel, by GPU generation, as a table in Markdown on stdout.
#   tools/kernel_table.sh NVCC FILE...       FILE: what `nvcc -Xptxas -v` said while it compiled one source
set -euo pipefail
nvcc=$1
shift
release=$("$nvcc" --version | sed -nE 's/.*release [^,]*, V(.*)/\1/p')

cat <<EOT
# The kernels of the GPU module

Written by \`make dist\`, from what ptxas of CUDA $release said. By compute capability: registers a thread, and bytes of
spills (stores + loads) where there are any. Shared memory is static, in bytes a block.

A kernel may have the registers that are left to it by the blocks of 256 threads which its launch bounds ask for on a
multiprocessor: 255 for one block, 128 for two, 80 for three, 64 for four. Where ptxas spills, it needs more than that, or
gives up a word or two to stand at 32, 40, 48 or 64 registers, with which one more block is resident.

EOT
# ptxas tells one kernel and architecture after the other: name, then spills, then registers and shared memory.
cat "$@" | c++filt | sed -E 's/\(anonymous namespace\):://g; s/\((float|int|bool|unsigned int|long)\)//g; s/rn50::(cuda::)?//g' | awk '
/Compiling entry function/ {
    arch = $0
    sub(/.* for .sm_/, "", arch)
    sub(/[^0-9].*/, "", arch)
    name = $0
    sub(/^[^\x27]*\x27/, "", name)
    sub(/\x27 for .*/, "", name)
    sub(/^void /, "", name)
    # Arguments say nothing here; those of the template stay.
    depth = 0
    for (i = 1; i <= length(name); i++) {
        c = substr(name, i, 1)
        if (c == "<") depth++
        if (c == ">") depth--
        if (c == "(" && depth == 0) { name = substr(name, 1, i - 1); break }
    }
    if (!(arch in seen)) { seen[arch] = 1; archs[++arch_count] = arch + 0 }
    if (!(name in shared)) { shared[name] = 0; names[++name_count] = name }
    next
}
/bytes spill stores/ { for (i = 1; i < NF; i++) if ($(i + 2) == "spill") spill += $i }
/Used [0-9]+ registers/ {
    for (i = 1; i < NF; i++) {
        if ($i == "Used") registers = $(i + 1)
        if ($(i + 1) == "bytes" && $(i + 2) ~ /^smem/ && $i > shared[name]) shared[name] = $i
    }
    cell[name, arch] = registers (spill > 0 ? " (" spill " B)" : "")
    spill = 0
}
END {
    for (i = 1; i <= arch_count; i++)
        for (j = i + 1; j <= arch_count; j++)
            if (archs[j] < archs[i]) { t = archs[i]; archs[i] = archs[j]; archs[j] = t }
    line = "| kernel | shared |"
    rule = "|---|---|"
    for (i = 1; i <= arch_count; i++) { line = line " " archs[i] " |"; rule = rule "---|" }
    print line
    print rule
    for (n = 1; n <= name_count; n++) {
        line = "| `" names[n] "` | " shared[names[n]] " |"
        for (i = 1; i <= arch_count; i++) line = line " " cell[names[n], archs[i]] " |"
        print line
    }
}'
