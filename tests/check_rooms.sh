#!/bin/bash
# The rooms of the house: includes point downward only, each library stays in its room, and no code of a model or of the
# trainer depends on how the program was built.
#   tests/check_rooms.sh [ROOT]
set -uo pipefail
cd "${1:-$(dirname "$0")/..}" || exit 1

files=$(find src cuda tools tests \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) | sort)

# shellcheck disable=SC2086  # no name in this tree holds a space
awk '
BEGIN {
    # room -> the rooms it may include (itself too)
    knows["base"] = ""
    knows["tensor"] = "base"
    knows["backend"] = "tensor base"
    knows["comm"] = "backend tensor base"
    knows["model"] = "backend tensor base"
    knows["format"] = "tensor base"
    knows["pipeline"] = "format backend tensor base"
    knows["report"] = "base"
    knows["train"] = "model comm pipeline format backend tensor base"
    knows["cli"] = "train report model comm pipeline format backend tensor base"
    knows["cuda"] = "backend comm tensor base"
    knows["tools"] = "base"
}
function bad(text) { print FILENAME ":" FNR ": " text; failures++ }
function room_of(path,   parts) {
    split(path, parts, "/")
    return parts[1] == "src" ? parts[2] : parts[1]
}
FNR == 1 {
    room = room_of(FILENAME)
    probe = FILENAME ~ /^tools\/probes\//
    if (room != "tests" && !(room in knows)) bad("the room " room " is not in the list of rooms")
}
/^[ \t]*#[ \t]*include[ \t]*[<"]/ {
    name = $0
    sub(/^[^<"]*[<"]/, "", name)
    sub(/[>"].*/, "", name)
    if (name ~ /^(cuda|cudnn|nccl|cublas|cupti|nvtx|nvml|driver_types|curand|cooperative_groups|mma)[a-zA-Z0-9_.]*(\.h|\.hpp|\/.*)?$/ && \
        room != "cuda" && !probe && !(room == "tests" && $0 ~ /include[ \t]*"/))
        bad("<" name "> belongs in cuda/")
    if (name ~ /dnnl/ && FILENAME !~ /^src\/backend\/cpu\// && !probe) bad("<" name "> belongs in src/backend/cpu/")
    if (name ~ /(^|\/)\.\.(\/|$)/) bad("include by way of ..: " name)
    if ($0 !~ /include[ \t]*"/ || room == "tests") next
    if (name !~ /\//) {
        if (FILENAME ~ /^src\//) bad("includes are relative to src/: " name)
        next
    }
    other = name
    sub(/\/.*/, "", other)
    if (!(other in knows) || other == room) next
    if (index(" " knows[room] " ", " " other " ") == 0) bad("the room " room " must not know " other ": " name)
}
/(^|[^A-Za-z_])cuda(Malloc|Free)(Async|Managed|3D|Pitch)?[ \t]*\(/ && room == "cuda" && FILENAME != "cuda/ledger.h" {
    bad("device memory is taken and given back by cuda/ledger.h")
}
/^[ \t]*#[ \t]*(if|ifdef|ifndef|elif)/ && room ~ /^(model|train)$/ { bad("conditional compilation in " room ": " $0) }
END { exit failures > 0 }
' $files
