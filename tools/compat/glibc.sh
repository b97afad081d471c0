# What the built program asks of the C library beside glibc 2.17, that of CentOS 7; sourced by check_compat.sh, whose functions
# it uses.
#
# The names of the functions are compared, not their versions: a program built on a new system asks for the newest version
# of each, one that is built on the old system for the old one. A name is old when this system's glibc still offers it in a
# version of 2.17 or before.

# In 2.17 under another binary name, which its header gives (stat, fstat, lstat, fcntl64), or asked for by the headers of a
# libstdc++ that was built on a newer glibc, and by those of devtoolset-11 not.
known_newer='__libc_single_threaded fcntl64 fstat lstat pthread_cond_clockwait stat'

old_glibc() {
    echo "glibc 2.17, of CentOS 7"
    begin
    local built=() file
    for file in rn50 rn50_cuda.so build/rn50_tests build/cuda_library_tests build/make_defects; do [ -e "$file" ] && built+=("$file"); done
    if [ ${#built[@]} = 0 ]; then
        unproven+=("that a glibc of 2.17 does: nothing is built (make, make build-tests)")
        return
    fi
    attempt "${built[*]}: every function that is called was there by 2.17" all_old "${built[@]}"
    proves "${built[*]} call no function that glibc 2.17 has not"
    unproven+=("that devtoolset-11 builds it on CentOS 7: its archives could not be reached; of libstdc++ it needs what GCC 11 added to <filesystem> and <charconv>, which devtoolset-11 brings in libstdc++_nonshared.a")
}

all_old() { # PROGRAMS
    local old new
    old=$(for file in $(ldconfig -p | sed -n 's/.*(libc6,x86-64[^)]*) => //p' | grep -E '/(libc|libm|libpthread|libdl|librt|ld-linux-x86-64)\.so\.[0-9]$'); do
        nm -D --defined-only "$file"
    done | awk '{ sub(/@@/, "@", $3); split($3, part, "@"); if (part[2] ~ /^GLIBC_2\.([0-9]|1[0-7])(\.[0-9]+)?$/) print part[1] }' | sort -u)
    new=$(for file in "$@"; do nm -D --undefined-only "$file"; done | awk '$2 ~ /@GLIBC_/ { sub(/@.*/, "", $2); print $2 }' |
        sort -u | comm -23 - <(echo "$old") | grep -vxF "$(tr ' ' '\n' <<<"$known_newer")")
    [ -z "$new" ] || { echo "newer than 2.17:" $new && return 1; }
}
