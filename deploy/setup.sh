#!/usr/bin/env bash
# Installs the Debian 12 packages that Troupe is built from, those that are missing and no others.
# usage: deploy/setup.sh [--test] [--arrow] [--list]
#   --test   also what tests/run.sh needs
#   --arrow  also Apache Arrow, which reads Parquet and Arrow files: Debian has no package of it, so its headers and
#            libraries are taken out of one version of the Python package pyarrow (from the package index that pip is
#            set up for; 55 MB, checked against its SHA-256) and put into .arrow beside the sources
#   --list   only print the packages
# Uses apt with its own configuration; sudo only when not root. Nothing is printed when nothing is missing.
set -euo pipefail

packages=(
    gcc libc6-dev cmake ninja-build pkg-config protobuf-c-compiler # tools
    libzmq3-dev libprotobuf-c-dev libuv1-dev                       # messages, event loop
    libcjson-dev libyaml-dev libpcre2-dev libutf8proc-dev          # texts
    libdnnl-dev                                                    # matrix products on the CPU
    libssl-dev libxxhash-dev                                       # digests
    zlib1g-dev libzstd-dev                                         # compressed data
    libgmp-dev libcurl4-openssl-dev libseccomp-dev                 # rewards, the Hub: numbers, servers, sandbox
    libmicrohttpd-dev                                              # serving a model over HTTP
    uthash-dev                                                     # hash tables
)
test_packages=(libcmocka-dev g++ python3 clang lld libclang-rt-14-dev curl)
arrow_packages=(g++ python3 python3-pip)
arrow_version=26.0.1
declare -A arrow_sha256=(
    [x86_64]=39cb0f2418282c24bea6ceda77b03e5a8f0a5766b63a8bf194d4e2a2c423548c
    [aarch64]=22a96a225de107eb9acd1ad9a818198ca832df2a4c0952412f754a7ed2105a98
)

list_only=no with_arrow=no
for argument in "$@"; do
    case $argument in
    --test) packages+=("${test_packages[@]}") ;;
    --arrow)
        packages+=("${arrow_packages[@]}")
        with_arrow=yes
        ;;
    --list) list_only=yes ;;
    -h | --help)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "setup.sh: unknown option $argument, expected --test, --arrow or --list" >&2
        exit 2
        ;;
    esac
done
if [ $list_only = yes ]; then
    printf '%s\n' "${packages[@]}"
    exit 0
fi

# install_arrow: include/, libarrow.so.N and libparquet.so.N into .arrow, unless this version is there.
install_arrow() {
    local folder scratch wheel machine
    folder=$(cd "$(dirname "$0")/.." && pwd)/.arrow
    machine=$(uname -m)
    if [ "$(cat "$folder/VERSION" 2>/dev/null)" = $arrow_version ]; then return; fi
    if [ -z "${arrow_sha256[$machine]:-}" ]; then
        echo "setup.sh: no Apache Arrow is known for $machine: Parquet and Arrow files will not be read" >&2
        exit 4
    fi
    echo "fetching Apache Arrow $arrow_version"
    scratch=$(mktemp -d "$folder.XXXXXX" 2>/dev/null || mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$scratch'" EXIT
    if ! python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 \
        --platform "manylinux_2_28_$machine" -d "$scratch" "pyarrow==$arrow_version" 2>"$scratch/log"; then
        cat "$scratch/log" >&2
        echo "setup.sh: pyarrow $arrow_version could not be fetched" >&2
        exit 4
    fi
    wheel=$(ls "$scratch"/pyarrow-*.whl)
    if ! echo "${arrow_sha256[$machine]}  $wheel" | sha256sum --check --status; then
        echo "setup.sh: ${wheel##*/} is not the file that it should be (SHA-256 differs)" >&2
        exit 4
    fi
    python3 -m zipfile -e "$wheel" "$scratch/wheel"
    mkdir "$scratch/arrow"
    (cd "$scratch/wheel" &&
        mv pyarrow/include pyarrow/libarrow.so.* pyarrow/libparquet.so.* pyarrow-*.dist-info/licenses "$scratch/arrow")
    echo $arrow_version >"$scratch/arrow/VERSION"
    rm -rf "$folder"
    mv "$scratch/arrow" "$folder"
    touch "${folder%/.arrow}/common/dataset/arrow/CMakeLists.txt" # builds that are there look for it again
    rm -rf "$scratch"
    trap - EXIT
}

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
if [ ${#missing[@]} = 0 ]; then
    if [ $with_arrow = yes ]; then install_arrow; fi
    exit 0
fi

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
if [ $with_arrow = yes ]; then install_arrow; fi
