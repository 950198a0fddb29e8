#!/bin/bash
# The controller as process 1, as in a container whose only program it is: the job runs to its end and nothing is left
# of it. Skipped where this user may not make a process namespace.
. "$(dirname "$0")/lib.sh"
spaces="--pid --fork --mount-proc --kill-child"
[ "$(id -u)" = 0 ] || spaces="--user --map-root-user $spaces"
# shellcheck disable=SC2086
unshare $spaces true 2> /dev/null || { echo "skipped: no process namespaces here"; exit 77; }
make_data

write_job job.yaml run train.num_steps=3
code=0
# shellcheck disable=SC2086
timeout 120 unshare $spaces "$BIN/controller" --config "$JOB" $SETTINGS > "$RUN.out" 2>&1 || code=$?
[ "$code" = 0 ] || fail "the controller ended with code $code"
grep -q '"step":3[,}]' "$RUN/metrics.jsonl" || fail "step 3 was not reached"
nothing_left
