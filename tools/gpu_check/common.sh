# shellcheck shell=bash
# shellcheck disable=SC2154  # what is not assigned here is a setting of gpu_check.sh
# Sourced by gpu_check.sh: what a stage writes, how its figures are judged, how long it may take.
#
# A stage's files in $WORK: STAGE.log, what it said; .facts, lines `"key": JSON`; .json, these in one object; .lines, what
# stands below it in the table; .goals, its judged figures; .skip, why it had nothing to do; .table, its part of the table.

skip_status=77 # the exit status of a stage that has nothing to do here
stop_status=78 # of one after which no other is worth its time

quoted() { # TEXT: as a JSON string
    printf '"%s"' "$(printf '%s' "$1" | tr '\n\t' '  ' | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

is_json() { # TEXT
    if [ "$PYTHON_RUNS" = 1 ]; then
        printf '%s' "$1" | "$PYTHON" -I -S -c 'import json, sys
def no_number(name): raise ValueError(name)
json.load(sys.stdin, parse_constant=no_number)' 2>/dev/null
    else
        [[ $1 =~ ^\{.*\}$ || $1 =~ ^\[.*\]$ || $1 =~ ^\".*\"$ || $1 =~ ^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$ ]]
    fi
}

# What a program printed is JSON only if it came to its end: of one that was killed it is kept as text.
json_or_text() { # TEXT
    local one
    one=$(printf '%s' "$1" | tr '\n' ' ' | sed 's/ *$//')
    if [ -z "$one" ]; then
        printf 'null'
    elif is_json "$one"; then
        printf '%s' "$one"
    else
        quoted "$one"
    fi
}

# note KEY JSON: a fact of this stage, on disk at once.
note() {
    printf '%s: %s\n' "$(quoted "$1")" "$(json_or_text "$2")" >>"$WORK/$stage.facts"
    write_json running 0
}

# say TEXT...: a line below the stage in the last table.
say() {
    printf '%s\n' "$*" | tee -a "$WORK/$stage.lines"
}

# Ends the stage: it has nothing to do, for this reason.
skip() { # REASON...
    printf '%s' "$*" >"$WORK/$stage.skip"
    exit $skip_status
}

# Ends the call: what was found makes all other stages a waste of the GPU's time.
stop() { # REASON...
    say "STOP: $*"
    note stopped "$(quoted "$*")"
    exit $stop_status
}

write_json() { # STATUS SECONDS
    local facts="" mine=$WORK/$stage.json.$BASHPID # several write at once where groups of tests run side by side
    [ ! -s "$WORK/$stage.facts" ] || facts=$(sed '$!s/$/,/' "$WORK/$stage.facts")
    printf '{"stage": %s, "status": %s, "when": "%s", "device": "%s", "smoke": %s, "seconds": %s, "facts": {%s}}\n' \
        "$(quoted "$stage")" "$(quoted "$1")" "$(date -u +%Y-%m-%dT%H:%MZ)" "$DEVICE" "$SMOKE" "$2" "$facts" |
        tr '\n' ' ' >"$mine"
    mv "$mine" "$WORK/$stage.json"
}

# --- figures

# number KEY FILE: the first value of a key in JSON; nothing where there is none.
number() {
    [ ! -s "$2" ] || grep -o "\"$1\": *[-+0-9.eE]*" "$2" | head -1 | sed 's/.*: *//'
}

ratio() { # A B DIGITS
    awk -v a="${1:-0}" -v b="${2:-0}" -v d="${3:-2}" 'BEGIN { if (b > 0 && a > 0) printf "%.*f", d, a / b; else printf "-" }'
}

best() { # FILE...: the most images/s of several runs; nothing where none has any
    local file value top=""
    for file in "$@"; do
        value=$(number images_per_s "$file" 2>/dev/null)
        top=$(awk -v a="$top" -v b="$value" 'BEGIN { print (b + 0 > a + 0) ? b : a }')
    done
    echo "$top"
}

# judge NAME FIGURE at-least|at-most LIMIT: whether a goal is reached, for the table; a later figure takes an earlier one's
# place. A goal that is missed is no failure of the stage.
judge() {
    local name=$1 figure=${2:--} way=$3 limit=$4 word
    word=$(awk -v v="$figure" -v l="$limit" -v way="$way" -v smoke="$SMOKE" 'BEGIN {
        if (v !~ /^[-+]?[0-9]/) print "not measured"
        else if (smoke == 1) print "smoke test"
        else print (way == "at-least" ? v + 0 >= l + 0 : v + 0 <= l + 0) ? "reached" : "MISSED" }')
    touch "$WORK/$stage.goals"
    awk -v name="$name: " 'substr($0, 14, length(name)) != name' "$WORK/$stage.goals" >"$WORK/$stage.goals.new"
    printf '%-12s %s: %s, %s %s\n' "$word" "$name" "$figure" "${way/-/ }" "$limit" >>"$WORK/$stage.goals.new"
    mv "$WORK/$stage.goals.new" "$WORK/$stage.goals"
    note "goal: $name" "$(printf '{"figure": "%s", "%s": %s, "verdict": "%s"}' "$figure" "$way" "$limit" "$word")"
}

# --- time

stage_left() { # seconds of this stage, less what it needs to end itself
    echo $((STAGE_ENDS - $(date +%s) - 3))
}

# within SECONDS COMMAND...: at most so long, and never past the stage's end: a process that a stage starts with a time of
# its own is not ended together with the stage, and would go on computing beside the next one.
within() {
    local most=$1 left
    shift
    left=$(stage_left)
    [ "$most" -lt "$left" ] || most=$left
    if [ "$most" -lt 1 ]; then
        echo "no time left for: $*"
        return 124
    fi
    timeout --kill-after=3 "$most" "$@"
}

# ours SECONDS PROGRAM ARGUMENTS...: with the libraries of the machine, of its Python, and what was lent.
ours() {
    LD_LIBRARY_PATH=$OUR_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} within "$@"
}

# --- what a stage needs

need_gpu() {
    [ "$DEVICE" = cpu ] || [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1 || skip "no GPU"
}

has_torch() { # without loading it, which takes seconds
    "$PYTHON" -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") and u.find_spec("torchvision")))' 2>/dev/null
}
need_tests() {
    [ -x "$tests" ] || skip "rn50_tests could not be built here"
    [ -d "$root/tests/golden" ] || skip "tests/golden is not here: copy tests/ along with tools/"
}
need_torch() {
    has_torch || skip "$PYTHON has no PyTorch with torchvision to compare with"
}

draw_data() {
    [ -z "$DATA" ] || { echo "$DATA" && return; }
    [ -d "$WORK/data/train" ] || ours 40 "$make_defects" --out "$WORK/data" --count "$train_count" >&2 || return
    echo "$WORK/data"
}

# The driver's word on a GPU that failed, where this machine lets it be read.
driver_errors() {
    dmesg 2>/dev/null | grep -i 'xid' | tail -5
}

# cuts FILE: standard output, of which no more than the beginning and the end of a long file.
cuts() {
    local most=1000000 head=200000
    if [ "$(stat -c %s "$1")" -le $most ]; then
        cat "$1"
    else
        head -c $head "$1"
        printf '\n\n... %s bytes in all; the whole stands in %s ...\n\n' "$(stat -c %s "$1")" "$1"
        tail -c $((most - head)) "$1"
    fi
}
