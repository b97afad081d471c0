#!/bin/bash
# Installs the packages that rn50 needs and this machine lacks, through apt-get, dnf or yum. Where nothing is missing it
# returns at once and touches no network. Without root rights and without a sudo that asks no password it prints the command.
# What rn50 can do without (several ranks on CPUs) is installed too where that goes by itself; it is tried once.
set -euo pipefail
cd "$(dirname "$0")/.."

installed() { # every package given
    if command -v dpkg-query >/dev/null; then
        [ "$(dpkg-query -W -f '${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed)" = $# ]
    else
        rpm -q "$@" >/dev/null 2>&1
    fi
}

tried=build/deps/optional-packages-tried
mapfile -t needed < <(tools/probe.sh --all-packages necessary)
mapfile -t useful < <(tools/probe.sh --all-packages optional)
missing=() optional=()
# A library may be there without its package (built from source), so the probe has the last word.
installed "${needed[@]}" || mapfile -t missing < <(tools/probe.sh --packages necessary build/deps)
[ -e "$tried" ] || installed "${useful[@]}" || mapfile -t optional < <(tools/probe.sh --packages optional build/deps)
[ $((${#missing[@]} + ${#optional[@]})) = 0 ] && exit 0

if command -v apt-get >/dev/null; then
    manager=apt-get
    install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends)
    refresh=(apt-get update)
    # A fresh image has no list of packages.
    listed=$(find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | head -1)
elif command -v dnf >/dev/null || command -v yum >/dev/null; then
    manager=$(command -v dnf || command -v yum)
    install=("$manager" install -y)
    # EPEL has the libraries; CentOS 7 keeps its newer compilers in another repository still.
    extras=(epel-release)
    grep -qs '^VERSION_ID="7' /etc/os-release && extras+=(centos-release-scl)
    refresh=("$manager" install -y "${extras[@]}")
    listed=yes
else
    [ ${#missing[@]} = 0 ] && exit 0
    echo "This system has neither apt-get nor dnf nor yum. Install what these packages hold: ${missing[*]}" >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo)
    elif [ ${#missing[@]} = 0 ]; then
        exit 0 # the probe's table tells of what is optional
    else
        echo "Installing needs root. Run this, then make again:" >&2
        if [ "$manager" = apt-get ]; then
            echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]} ${optional[*]}" >&2
        else
            echo "    sudo $manager install -y ${extras[*]} && sudo $manager install -y ${missing[*]}" >&2
        fi
        exit 1
    fi
fi

run() {
    echo "+ $*"
    "${as_root[@]}" "$@"
}

# The list of packages is fetched when there is none, or when it turns out too old.
get() { # PACKAGES...
    if [ -z "$listed" ]; then
        run "${refresh[@]}"
        listed=yes
        run "${install[@]}" "$@"
    elif ! run "${install[@]}" "$@"; then
        run "${refresh[@]}" && run "${install[@]}" "$@"
    fi
}

if [ ${#missing[@]} != 0 ]; then
    echo "missing packages: ${missing[*]}"
    get "${missing[@]}"
fi
if [ ${#optional[@]} != 0 ]; then
    echo "missing packages, which are optional: ${optional[*]}"
    mkdir -p "$(dirname "$tried")"
    touch "$tried"
    get "${optional[@]}" || echo "not to be had: ${optional[*]}; rn50 works without"
fi
