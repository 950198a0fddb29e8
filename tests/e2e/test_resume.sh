#!/bin/bash
# The same run folder with another job: resume never, fewer steps; and a checkpoint as the model of another job.
. "$(dirname "$0")/lib.sh"
make_data

STEPS=6 write_job job.yaml run
run_job
expected=$(digest_of "$RUN")

# A run folder that has a checkpoint is not begun anew over it.
SETTINGS="--set checkpoint.resume=never"
start_job
finish_job 4
tail -n 3 "$RUN.out" | grep -q "checkpoint.resume is never, but this run has a checkpoint" || fail "no reason was given"
[ "$(digest_of "$RUN")" = "$expected" ] || fail "the refused run touched the checkpoint"

# Fewer steps than are done: it says so and ends.
SETTINGS="--set train.num_steps=3"
run_job
grep -q "the checkpoint stands at step 6, the job asks for 3 steps" "$RUN.out" ||
    fail "it did not say why it does nothing"
[ "$(digest_of "$RUN")" = "$expected" ] || fail "the shorter run touched the checkpoint"

# More steps: it goes on.
SETTINGS="--set train.num_steps=8"
run_job
grep -q '"step":8[,}]' "$RUN/metrics.jsonl" || fail "step 8 was not reached"

# A checkpoint is a model folder: another job begins at its step 1 with these weights.
model=$RUN/checkpoints/step_00000008
last_loss=$(sed -n 's/.*"step":8,"train\/loss":\([0-9.]*\).*/\1/p' "$RUN/metrics.jsonl")
STEPS=2 write_job other.yaml other model.path="$model" model.init=pretrained
run_job
first_loss=$(sed -n 's/.*"step":1,"train\/loss":\([0-9.]*\).*/\1/p' "$RUN/metrics.jsonl")
awk -v a="$first_loss" -v b="$last_loss" 'BEGIN { exit !(a > 0 && b > 0 && a < b + 0.5) }' ||
    fail "the first loss is $first_loss, the model stood at $last_loss"
[ -d "$RUN/checkpoints/step_00000002" ] || fail "the other job did not count from its own beginning"
nothing_left
echo "one folder, five jobs"
