#!/bin/bash
# A disk that is slow, and one that is full when the ledger grows.
# usage: test_disk.sh slow | full_ledger
. "$(dirname "$0")/../e2e/lib.sh"
make_data
expected=$(undisturbed_digest)
[ -n "$expected" ] || fail "the undisturbed run failed"
library=$BIN/../tests/faults/libfaulty.so

# Every flush of the optimizer's state takes longer than cluster.progress_s allows a thread to stand still.
slow() {
    write_job slow.yaml slow cluster.heartbeat_ms=100 cluster.progress_s=3 cluster.restarts_max=0
    TROUPE_FAULT="train_worker fsync /optimizer- sleep=5 -" LD_PRELOAD=$library start_job
    finish_job 0
    ! grep -q gang_restart "$RUN/events.jsonl" || fail "ranks were restarted while they flushed"
}

# The run ends with what happened and what to do, and goes on when there is room again.
full_ledger() {
    write_job full.yaml full
    TROUPE_FAULT="controller write ledger.jsonl errno=28 $PWD/strike" LD_PRELOAD=$library start_job
    wait_for_step 13
    touch strike
    finish_job 4
    [ ! -e strike ] || fail "the fault did not strike"
    for text in "ledger" "No space left on device" "newest whole checkpoint: $RUN" "same command"; do
        tail -n 5 "$RUN.out" | grep -q "$text" || fail "the message does not say: $text"
    done
    nothing_left
    run_job
}

$1
nothing_left
[ "$(digest_of "$RUN")" = "$expected" ] || fail "the disk changed the weights"
echo "same weights: $expected"
