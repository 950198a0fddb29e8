#!/bin/bash
# The same job gives the same weights, bit for bit: run twice, with one and three rollout workers, stopped and resumed.
. "$(dirname "$0")/lib.sh"
make_data

write_job a.yaml run_a
run_job
nothing_left
expected=$(digest_of "$RUN")
grep -q '"eval/loss"' "$RUN/metrics.jsonl" || fail "no evaluation was made"

write_job b.yaml run_b rollout.num_workers=3 rollout.lease_size=3
run_job
[ "$(digest_of "$RUN")" = "$expected" ] || fail "three rollout workers made other weights"

write_job c.yaml run_c
start_job
wait_for_step 13
kill -INT "$CONTROLLER"
finish_job 5
nothing_left
ls -d "$RUN"/checkpoints/step_* > /dev/null || fail "Ctrl-C did not commit"
run_job
grep -q resuming "$RUN/events.jsonl" || fail "the second start did not say that it resumes"
[ "$(digest_of "$RUN")" = "$expected" ] || fail "a stopped and resumed run made other weights"
metrics_ascend
nothing_left

run_job # once more: there is nothing to do, and it says so at once
[ "$(digest_of "$RUN")" = "$expected" ] || fail "a finished run was changed"
echo "same weights: $expected"
