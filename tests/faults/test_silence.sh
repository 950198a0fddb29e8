#!/bin/bash
# SIGSTOP of one process of a running job: it is there, but silent. The controller suspects it, counts it as dead after
# cluster.dead_ms and starts another in its place; the run ends with the weights of an undisturbed one.
# usage: test_silence.sh ACTOR   (rollout-0, train-1, data_source)
. "$(dirname "$0")/../e2e/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
actor=$1
make_data
STEPS=21
expected=$(undisturbed_digest)
[ -n "$expected" ] || fail "the undisturbed run failed"

write_job silent.yaml silent cluster.heartbeat_ms=100 cluster.suspect_ms=1000 cluster.dead_ms=3000 \
    cluster.restarts_max=30
start_job
wait_for_step 4
pid=$(actor_pid "$actor")
kill -STOP "$pid" || fail "could not stop $actor"
finish_job 0
nothing_left
grep -q "\"name\":\"$actor\",\"state\":\"suspect\"" "$RUN/events.jsonl" || fail "$actor was never suspected"
grep -q "silent for [0-9]* ms (cluster.dead_ms)" "$RUN/events.jsonl" || fail "nobody was found silent"
kill -0 "$pid" 2> /dev/null && fail "the silent process $pid is still there"
[ "$(digest_of "$RUN")" = "$expected" ] || fail "silence of $actor changed the weights"
echo "same weights after the silence of $actor: $expected"
