# What the tests of the program as scripts see it share, to be sourced with the program's path:
#     source "$(dirname "$0")/script.sh" "$1"
# It goes to a folder of its own that is removed at the end. A test ends with `exit $failed`.
set -uo pipefail
tests=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
program=$(realpath "$1")
work=$(mktemp -d)
job=  # a process in the background that must not outlive the test
trap '[ -z "$job" ] || kill -9 "$job" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0
code=0

run() { # ARGUMENTS of the program: leaves stdout in `out`, stderr in `err`, the exit code in `code`
    "$program" "$@" >out 2>err
    code=$?
}
check() { # NAME COMMAND...: passes when the command does; what the program said is shown when it does not
    local name=$1
    shift
    if "$@"; then
        echo "ok $name"
    else
        echo "FAIL $name (exit code $code)"
        head -c 2000 out | head -20 | sed 's/^/    out: /'
        tail -n 20 err | sed 's/^/    err: /'
        failed=1
    fi
}
is() { [ "$code" = "$1" ]; }
has() { # FILE WORDS...: each stands in it
    local file=$1 words
    shift
    for words in "$@"; do grep -qF -- "$words" "$file" || return 1; done
}
says() { has err "$@"; }
prints() { has out "$@"; }
