#!/usr/bin/env bash
# Installs the Debian 12 packages that Troupe is built from, those that are missing and no others.
# usage: deploy/setup.sh [--test] [--list]
#   --test  also what tests/run.sh needs
#   --list  only print the packages
# Uses apt with its own configuration; sudo only when not root. Nothing is printed when nothing is missing.
set -euo pipefail

packages=(
    gcc libc6-dev cmake ninja-build pkg-config protobuf-c-compiler # tools
    libzmq3-dev libprotobuf-c-dev libuv1-dev                       # messages, event loop
    libcjson-dev libyaml-dev libpcre2-dev libutf8proc-dev          # texts
    libdnnl-dev                                                    # matrix products on the CPU
    libssl-dev libxxhash-dev                                       # digests
    zlib1g-dev libzstd-dev                                         # compressed data
    libgmp-dev libcurl4-openssl-dev libseccomp-dev                 # rewards: numbers, servers, sandbox
    libmicrohttpd-dev                                              # serving a model over HTTP
    uthash-dev                                                     # hash tables
)
test_packages=(libcmocka-dev g++ python3 clang libclang-rt-14-dev curl)

list_only=no
for argument in "$@"; do
    case $argument in
    --test) packages+=("${test_packages[@]}") ;;
    --list) list_only=yes ;;
    -h | --help)
        sed -n '2,6s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "setup.sh: unknown option $argument, expected --test or --list" >&2
        exit 2
        ;;
    esac
done
if [ $list_only = yes ]; then
    printf '%s\n' "${packages[@]}"
    exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup.sh: no apt on this system: install the counterparts of these Debian 12 packages," >&2
    echo "then run the build by hand (cmake --preset release && cmake --build build):" >&2
    echo "  ${packages[*]}" >&2
    exit 4
fi

installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
    grep -qx "installed $package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup.sh: not root and there is no sudo. As root, run:" >&2
        echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 4
    fi
    as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() { # what it does, in a line; all of apt's own words only when it fails
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1; then
        cat "$log" >&2
        echo "setup.sh: failed: $*" >&2
        exit 4
    fi
}

echo "installing ${#missing[@]} packages: ${missing[*]}"
# The lists are fetched only when they do not know a package.
if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then run apt-get update; fi
run apt-get install -y --no-install-recommends "${missing[@]}"
