#!/bin/bash
# A disk that is slow, one that is full when the ledger grows, and one that does not flush metrics.
# usage: test_disk.sh slow | full_ledger | metrics | full
. "$(dirname "$0")/../e2e/lib.sh"
if [ "$1" = full ] && [ "${INSIDE:-}" = "" ]; then # a file system of its own takes a mount namespace
    flags=--mount
    [ "$(id -u)" = 0 ] || flags="--user --map-root-user --mount"
    # shellcheck disable=SC2086
    if ! unshare $flags true 2>/dev/null; then
        echo "skipped: no mount namespace may be made here"
        exit 77
    fi
    # shellcheck disable=SC2086
    INSIDE=yes exec unshare $flags bash "$(realpath "$0")" full
fi
make_data
STEPS=21
expected=$(undisturbed_digest)
[ -n "$expected" ] || fail "the undisturbed run failed"
library=$BIN/../tests/faults/libfaulty.so

# Every flush of the optimizer's state takes longer than cluster.progress_s allows a thread to stand still.
slow() {
    write_job slow.yaml slow cluster.heartbeat_ms=100 cluster.progress_s=6 cluster.restarts_max=0 checkpoint.interval=21
    TROUPE_FAULT="train_worker fsync /optimizer- sleep=10 -" LD_PRELOAD=$library start_job
    finish_job 0
    ! grep -q gang_restart "$RUN/events.jsonl" || fail "ranks were restarted while they flushed"
}

# The run ends with what happened and what to do, and goes on when there is room again.
full_ledger() {
    write_job full.yaml full checkpoint.interval=5
    TROUPE_FAULT="controller write ledger.jsonl errno=28 $PWD/strike" LD_PRELOAD=$library start_job
    wait_for_step 8
    touch strike
    finish_job 4
    [ ! -e strike ] || fail "the fault did not strike"
    for text in "ledger" "No space left on device" "newest whole checkpoint: $RUN" "same command"; do
        tail -n 5 "$RUN.out" | grep -q "$text" || fail "the message does not say: $text"
    done
    nothing_left
    run_job
}

# Lines of metrics are flushed before each checkpoint; where they cannot be, that costs no checkpoint.
metrics() {
    write_job metrics.yaml metrics
    TROUPE_FAULT="controller fsync metrics.jsonl errno=5 -" LD_PRELOAD=$library start_job
    finish_job 0
    told=$(grep -c metrics_not_flushed "$RUN/events.jsonl" || true)
    [ "$told" = 3 ] || fail "the metrics were flushed $told times, for checkpoints after 10, 20 and 21 steps"
}

# ends_for_want_of_room: with what happened, what is committed and what to do, and nothing torn behind it.
ends_for_want_of_room() {
    finish_job 4
    nothing_left
    tail -n 8 "$RUN.out" >last
    for text in "No space left on device" "$PWD/small" "same command"; do
        grep -qF "$text" last || fail "the message does not say: $text"
    done
    for file in metrics events ledger; do
        [ ! -s "$RUN/$file.jsonl" ] || [ "$(tail -c 1 "$RUN/$file.jsonl")" = "" ] || fail "$file.jsonl has a torn line"
        ! grep -vnE '^\{"[^{]*(\{[^{}]*\}[^{]*)*\}$' "$RUN/$file.jsonl" || fail "$file.jsonl has a line that is none"
    done
}

# The disk of the run folder is filled up whatever the run is about, and has room again when its command is given again.
full() {
    mkdir -p small
    mount -t tmpfs -o size=64m small small
    write_job full.yaml small/full
    for step in 4 11 13; do
        start_job
        wait_for_step "$step"
        kill -STOP "$CONTROLLER" # or the run may end before there is no room
        head -c 128M /dev/zero >small/filler 2>/dev/null || true
        kill -CONT "$CONTROLLER"
        ends_for_want_of_room
        if [ "$step" = 11 ]; then # and given again too soon
            start_job
            ends_for_want_of_room
        fi
        rm small/filler
    done
    run_job
    metrics_ascend
    "$BIN/controller" data audit "$RUN" >out || fail "$(cat out)"
}

$1
nothing_left
[ "$(digest_of "$RUN")" = "$expected" ] || fail "the disk changed the weights"
echo "same weights: $expected"
