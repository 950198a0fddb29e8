#!/usr/bin/env bash
# Builds targets in a configured folder and shows how it gets on: ninja's own status line on a terminal, a line every
# ten seconds elsewhere, nothing when there is nothing to build. What the compiler says is shown when it fails.
# usage: deploy/build.sh FOLDER TARGET...
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: deploy/build.sh FOLDER TARGET..." >&2
    exit 2
fi
folder=$1 log=$1/build.log begin=$SECONDS
shift
every=${BUILD_SAID_EVERY:-10}

# A dry run tells whether there is work; one that itself must configure anew says so too.
if ninja -C "$folder" -n "$@" 2>/dev/null | grep -q "no work to do"; then exit 0; fi
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then exec ninja -C "$folder" "$@"; fi

ninja -C "$folder" "$@" >"$log" 2>&1 &
builder=$!
trap 'kill $builder 2>/dev/null || true' EXIT
said=$begin
while kill -0 $builder 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - said)) -lt "$every" ]; then continue; fi
    said=$SECONDS
    at=$(grep -oE '^\[[0-9]+/[0-9]+\]' "$log" | tail -n 1 || true)
    echo "building: step ${at:-1} after $((SECONDS - begin)) s"
done
if ! wait $builder; then
    grep -vE '^\[[0-9]+/|^ninja: Entering' "$log" | tail -n 60 >&2
    exit 1
fi
echo "built in $((SECONDS - begin)) s"
