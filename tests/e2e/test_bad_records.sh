#!/bin/bash
# Lines that are no conversation: skipped and counted once each (over epochs, evaluations, a stop and a resume), up to
# data.bad_records_max; and a bad line in the evaluation file is found before the training is done.
. "$(dirname "$0")/lib.sh"
make_data
good=$DATA/train.jsonl
head -n 40 "$good" > train.jsonl
sed -i '3s/.*/{"messages": [{"role": "user"/; 17s/.*/not JSON at all/; 29s/.*/{"messages": []}/' train.jsonl
head -n 10 "$DATA/eval.jsonl" > eval.jsonl
sed -i '4s/.*/neither/; 5s/.*/nor/' eval.jsonl
settings="data.train=[$PWD/train.jsonl] data.eval=[$PWD/eval.jsonl] data.bad_record=skip data.bad_records_max=3"
settings="$settings eval.interval=5 eval.before_train=true checkpoint.interval=4"

# Three bad records in 37 good ones, 12 epochs: as many as there may be.
# shellcheck disable=SC2086
write_job job.yaml run $settings
start_job
wait_for_step 11
kill -INT "$CONTROLLER"
finish_job 5
run_job
[ "$(grep -c sample_skipped "$RUN/events.jsonl")" -gt 0 ] || fail "it was not said what was skipped"
grep -q "train.jsonl:17" "$RUN/events.jsonl" || fail "the bad line was not named"
grep -q '"bad_records": 3' "$RUN/checkpoints/step_00000030/manifest.json" || fail "the checkpoint counts others than 3"
expected=$(digest_of "$RUN")

# Undisturbed it is the same.
# shellcheck disable=SC2086
write_job job2.yaml run2 $settings
run_job
[ "$(digest_of "$RUN")" = "$expected" ] || fail "a stop and a resume changed the weights"
# Of 12 epochs each brings the three lines: each is named once, and what it comes to is said to the end.
[ "$(grep -c "train.jsonl:17" "$RUN/events.jsonl")" -eq 1 ] || fail "a bad line was not named once"
grep -q " skipped=[678]\.[0-9]%(bad_record)" "$RUN.out" || fail "the progress lines do not tell of so many"
grep -q 'records_skipped records=3[0-9] share="[678]\.[0-9] %, mostly bad_record"' "$RUN.out" ||
    fail "the end does not tell of so many"
grep -q '"counts": {"rejected_bad_record": 3[0-9],' "$RUN/checkpoints/step_00000030/manifest.json" ||
    fail "the checkpoint does not count them by reason"

# One more than there may be.
# shellcheck disable=SC2086
write_job job3.yaml run3 $settings data.bad_records_max=2
start_job
finish_job 3
tail -n 4 "$RUN.out" | grep -q "more than 2 records of the train set were bad (data.bad_records_max)" ||
    fail "no reason was given"

# Met in the midst of training, it costs nothing: the step in work is committed, and it is said how to go on.
head -n 40 "$good" > late.jsonl
echo 'no JSON' >> late.jsonl
late="data.train=[$PWD/late.jsonl]"
late="$late data.shuffle=false train.global_batch_size=4 checkpoint.interval=0 train.num_steps=12"
# shellcheck disable=SC2086
write_job job5.yaml run5 $late
start_job
finish_job 3
last=$(ls "$RUN/checkpoints" | grep step_ | tail -n 1)
[ -n "$last" ] || fail "what was trained before the bad record is lost"
step=$((10#${last#step_}))
[ "$(grep -c '"train/loss"' "$RUN/metrics.jsonl")" -eq "$step" ] || fail "steps after $last are lost"
tail -n 8 "$RUN.out" | grep -q "late.jsonl:41" || fail "the bad line was not named"
tail -n 8 "$RUN.out" | grep -q "Step $step is committed" || fail "it was not said what is committed"
# shellcheck disable=SC2086
write_job job5.yaml run5 $late data.bad_record=skip
run_job
expected=$(digest_of "$RUN")
# shellcheck disable=SC2086
write_job job6.yaml run6 $late data.bad_record=skip
run_job
[ "$(digest_of "$RUN")" = "$expected" ] || fail "a stop at a bad record changed the weights"

# Or the line is mended: then the data is another one, which is refused by name, and accepted when the job says so.
# shellcheck disable=SC2086
write_job job7.yaml run7 $late
start_job
finish_job 3
sed -n 41p "$good" > line41
sed -i -e '41r line41' -e '41d' late.jsonl
: > "$RUN.out"
start_job
finish_job 3
grep -q "late.jsonl: 41 records in [0-9]* bytes, were 41 in [0-9]*" "$RUN.out" || fail "the change was not named"
[ "$(grep -c . "$RUN.out")" -le 12 ] || fail "the refusal is longer than a screen"
accept=$(sed -n 's/.*--set \(data.accept_changed=[0-9a-f]*\).*/\1/p' "$RUN.out")
[ -n "$accept" ] || fail "it was not said how to accept the changed data"
SETTINGS="$SETTINGS --set $accept"
run_job
grep -q '"data_changed"' "$RUN/events.jsonl" || fail "the events do not tell of the change"
[ "$(grep -c '"data":"' "$RUN/ledger.jsonl")" -eq 2 ] || fail "the ledger does not tell of the change"
# The same consent is none for a later change, and one of the number of records cannot be accepted.
echo >> late.jsonl
: > "$RUN.out"
start_job
finish_job 3
grep -q "data.accept_changed=" "$RUN.out" || fail "a second change was not refused"
cat line41 >> late.jsonl
SETTINGS="$SETTINGS --set data.accept_changed=$(printf '%064d' 0)"
start_job
finish_job 3
grep -q "42 records were 41, and every position would mean another one" "$RUN.out" || fail "other records were taken"

# The evaluation file alone is bad, and nothing is to be skipped: said before the steps are done, though the first
# evaluation is at the end.
write_job job4.yaml run4 "data.eval=[$PWD/eval.jsonl]" train.num_steps=3000
start_job
finish_job 3
tail -n 8 "$RUN.out" | grep -q "eval.jsonl:4" || fail "the bad line was not named"
nothing_left
echo "bad records are counted once"
