#!/usr/bin/env bash
# Proves README's two commands on a fresh Debian 12: bootstraps one into a folder, clones the committed tree into it,
# and there runs deploy/quickstart.sh (twice) and tests/run.sh. Prints the time of each.
# usage: tests/e2e/fresh_debian.sh [--keep] [--only quickstart|tests] [FOLDER]
#   FOLDER  where the system is made (default: a new one below /var/tmp; about 3 GB); removed at the end unless --keep
# Needs root and debootstrap. Packages come from the Debian sources of this machine's own apt configuration.
# Exits 0 when both commands passed, 77 when this machine cannot do it.
set -euo pipefail

keep=no only=all folder=
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=yes ;;
    --only)
        only=${2:?--only takes quickstart or tests}
        shift
        ;;
    -h | --help)
        sed -n '2,8s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    -*)
        echo "fresh_debian.sh: unknown option $1" >&2
        exit 2
        ;;
    *) folder=$1 ;;
    esac
    shift
done

cannot() {
    echo "fresh_debian.sh: skipped: $*"
    exit 77
}
[ "$(id -u)" = 0 ] || cannot "needs root"
command -v debootstrap >/dev/null || cannot "needs debootstrap (apt-get install debootstrap)"
unshare --mount --pid --fork true 2>/dev/null || cannot "needs to make mount and process namespaces"
source_tree=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)

# "ADDRESS CODENAME main" for each Debian 12 source that apt knows here.
sources=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Identifier: Packages' |
    grep -E ' bookworm(-updates|-security)? main$' || true)
mirror=$(awk '$2 == "bookworm" { print $1; exit }' <<<"$sources")
[ -n "$mirror" ] || cannot "this machine's apt has no source of Debian 12 (bookworm)"

if [ -z "$folder" ]; then folder=$(mktemp -d /var/tmp/troupe-debian.XXXXXXXX); fi
mkdir -p "$folder"
system=$folder/system
clean_up() { # nothing stays mounted: the mounts live in a namespace that ends with its last process
    if [ $keep = yes ]; then echo "kept: $system"; else rm -rf --one-file-system "$folder"; fi
}
trap clean_up EXIT

report=()
timed() { # WHAT COMMAND...
    local what=$1 start=$SECONDS code=0
    shift
    echo "=== $what"
    "$@" || code=$?
    report+=("$(printf '%5d s  %s%s' $((SECONDS - start)) "$what" "$([ $code = 0 ] || echo "  FAILED ($code)")")")
    return $code
}

make_system() { # set -e does not reach into a function whose outcome is looked at
    local proxy=
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    http_proxy=${http_proxy:-$proxy} debootstrap --variant=minbase --include=git,ca-certificates \
        bookworm "$system" "$mirror" >"$folder/debootstrap.log" 2>&1 ||
        { tail -20 "$folder/debootstrap.log" && return 1; }
    sed 's/^/deb /' <<<"$sources" >"$system/etc/apt/sources.list" || return 1
    apt-config dump | grep -E '^Acquire::(https?|Check|Retries|Max)' >"$system/etc/apt/apt.conf.d/90host"
    cp /etc/resolv.conf /etc/hosts "$system/etc/" &&
        cp /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/" && # whom this machine trusts
        git clone -q --no-local "$source_tree" "$system/root/troupe"
}

# Runs a command in the new system's clone, with its own processes, /proc, /dev and /dev/shm.
inside() {
    unshare --mount --pid --fork --kill-child bash -euc '
        system=$1; shift
        mount --make-rprivate /
        mount -t proc proc "$system/proc"
        mount --rbind /sys "$system/sys"
        mount -t tmpfs -o mode=755 dev "$system/dev"
        for name in null zero full random urandom tty; do
            touch "$system/dev/$name"; mount --bind "/dev/$name" "$system/dev/$name"
        done
        ln -s /proc/self/fd "$system/dev/fd"
        mkdir "$system/dev/shm" "$system/dev/pts"
        mount -t tmpfs -o mode=1777 shm "$system/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=666 devpts "$system/dev/pts"
        ln -s pts/ptmx "$system/dev/ptmx"
        exec chroot "$system" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
            bash -c "cd /root/troupe && exec \"\$@\"" inside "$@"
    ' namespaces "$system" "$@" </dev/null
}

failed=0
timed "debootstrap of Debian 12 (minbase, with git)" make_system || exit 1
if [ $only != tests ]; then
    timed "deploy/quickstart.sh, first time" inside deploy/quickstart.sh || failed=1
    timed "deploy/quickstart.sh, second time" inside deploy/quickstart.sh || failed=1
fi
if [ $only != quickstart ]; then
    timed "tests/run.sh" inside tests/run.sh || failed=1
fi

echo
printf '%s\n' "${report[@]}"
commit=$(git -C "$source_tree" rev-parse --short HEAD)
if [ $failed = 0 ]; then
    case $only in all) what="both commands" ;; quickstart) what="the quickstart" ;; *) what="tests/run.sh" ;; esac
    echo "$what passed on a fresh Debian 12, commit $commit, $(nproc) CPUs"
else
    echo "FAILED on a fresh Debian 12, commit $commit"
fi
exit $failed
