#!/bin/bash
# The working thread of one process hangs for ever while its loop thread goes on beating. The controller says where it
# stands, and after cluster.progress_s starts another in its place; the run ends with the weights of an undisturbed one.
# usage: test_no_progress.sh PLACE   (data_source: a read; rollout: a record; train: a rank that loads a checkpoint)
. "$(dirname "$0")/../e2e/lib.sh"
case $1 in
data_source) fault="data_source pread train.jsonl" role=data_source ;;
rollout) fault="rollout_worker cJSON_Delete -" role=rollout ;;
train) fault="train_worker pread /model-" role=train ;;
*) fail "unknown place $1" ;;
esac
make_data
STEPS=21
expected=$(undisturbed_digest)
[ -n "$expected" ] || fail "the undisturbed run failed"

write_job stuck.yaml stuck cluster.heartbeat_ms=100 cluster.progress_s=3 cluster.restarts_max=30
if [ "$1" = train ]; then # a checkpoint to load
    start_job
    wait_for_step 13
    kill -INT "$CONTROLLER"
    finish_job 5
fi
TROUPE_FAULT="$fault hang $PWD/strike" LD_PRELOAD=$BIN/../tests/faults/libfaulty.so start_job
[ "$1" = train ] || wait_for_step 4
touch strike
finish_job 0
nothing_left
[ ! -e strike ] || fail "the fault did not strike"
grep -q '"event":"no_progress"' "$RUN/events.jsonl" || fail "nobody said that it stands still"
grep -q "\"name\":\"$role.*no progress for [0-9]* s (cluster.progress_s)" "$RUN/events.jsonl" ||
    fail "no $role was restarted for want of progress"
[ "$(digest_of "$RUN")" = "$expected" ] || fail "a stuck $1 changed the weights"
echo "same weights after a stuck $1: $expected"
