#!/bin/bash
# A file of another shape in the midst of others, in the order of the files: thousands of bad records one behind the
# other, and as many that are too long. With the policy at skip the run goes on behind them, in training and in
# evaluation; over a stop and a resume it is the same run, with each record counted once.
. "$(dirname "$0")/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
make_data
head -n 40 "$DATA/train.jsonl" > a.jsonl
seq 3000 | sed 's/.*/{"text": "record &"}/' > b.jsonl
words=$(yes twelve | head -n 100 | tr '\n' ' ')
seq 2000 | sed "s/.*/{\"prompt\": \"$words &\", \"completion\": \"x\"}/" > c.jsonl
sed -n '41,80p' "$DATA/train.jsonl" > d.jsonl
settings="data.train=[$PWD/a.jsonl,$PWD/b.jsonl,$PWD/c.jsonl,$PWD/d.jsonl] data.shuffle=false data.bad_record=skip"
settings="$settings data.eval=[$PWD/b.jsonl,$PWD/d.jsonl] data.bad_records_max=0"
settings="$settings data.max_length=90 checkpoint.interval=1"
settings="$settings train.num_steps=12 train.global_batch_size=8 train.tp_size=1 rollout.prefetch_steps=1"

# 40 good records are 5 steps; the sixth takes its records from behind 5000 others.
# shellcheck disable=SC2086
write_job job.yaml run $settings
start_job
wait_for_step 3
kill -INT "$CONTROLLER"
finish_job 5
start_job
wait_for_step 7
kill -9 "$CONTROLLER"
wait "$CONTROLLER" 2> /dev/null || true
nothing_left
run_job
manifest=$RUN/checkpoints/step_00000012/manifest.json
grep -q '"bad_records": 3000' "$manifest" || fail "the checkpoint does not count 3000 bad records"
grep -q '"rejected_bad_record": 3000' "$manifest" || fail "nor by reason"
grep -q '"rejected_too_long": 2000' "$manifest" || fail "the checkpoint does not count 2000 that are too long"
grep -q "b.jsonl:1: the record is of no known shape" "$RUN/events.jsonl" || fail "the first one was not named"
"$BIN/controller" data audit "$RUN" > audit.txt || fail "the audit found: $(cat audit.txt)"

# shellcheck disable=SC2086
write_job quiet.yaml quiet $settings
run_job
cmp "$PWD/quiet/ledger.jsonl" "$PWD/run/ledger.jsonl" || fail "a stop and a kill changed what was consumed"
[ "$(digest_of "$PWD/quiet")" = "$(digest_of "$PWD/run")" ] || fail "a stop and a kill changed the weights"

# More than there may be: that many are met, whatever stands before them.
# shellcheck disable=SC2086
write_job limit.yaml limit $settings data.bad_records_max=2999 data.eval=null
start_job
finish_job 3
tail -n 8 "$RUN.out" | grep -q "more than 2999 records of the train set were bad (data.bad_records_max)" ||
    fail "no reason was given"
tail -n 8 "$RUN.out" | grep -q "b.jsonl:3000" || fail "the last one was not named"

# No record can be trained at all: that is said, not waited for.
# shellcheck disable=SC2086
write_job none.yaml none $settings data.train=["$PWD/b.jsonl"] data.eval=null
start_job
finish_job 3
tail -n 8 "$RUN.out" | grep -q "there is hardly anything to train on" || fail "no reason was given"
# Nor is an epoch of which nothing was trained a success.
# shellcheck disable=SC2086
write_job epoch.yaml epoch $settings data.train=["$PWD/d.jsonl"] data.eval=null data.max_length=4 train.num_steps=0 \
    train.num_epochs=1
start_job
finish_job 3
tail -n 8 "$RUN.out" | grep -q "40 of the 40 records of the run were rejected" || fail "no reason was given"
nothing_left
echo "a file of bad records is passed over"
