#!/bin/bash
# The orders `window` and `hf`: killed, resumed, and with the counts of its blocks taken away, a run makes what it
# would have made undisturbed; an epoch is as long whether its records are counted or said.
. "$(dirname "$0")/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
make_data
RECORDS=$(wc -l < "$DATA/train.jsonl")

for order in window hf; do
    STEPS=12 write_job $order.yaml $order data.order=$order data.window_mb=1 data.hf_buffer_size=50 \
        checkpoint.interval=4
    run_job
    expected=$(digest_of "$RUN")

    STEPS=12 write_job $order.yaml $order-killed data.order=$order data.window_mb=1 data.hf_buffer_size=50 \
        checkpoint.interval=4
    start_job
    wait_for_step 2
    kill_actor data_source
    wait_for_step 5
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    rm -rf "$RUN/index"
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "after kills the order $order made something else"
    metrics_ascend
    "$BIN/controller" data audit "$RUN" > audit.out || fail "the audit of $order: $(cat audit.out)"
    grep -q "at hand: the positions of each epoch are one for each record" audit.out ||
        fail "the audit did not go through $order: $(cat audit.out)"
    "$BIN/controller" data inspect --config "$JOB" --position $((RECORDS + 3)) --count 0 > inspect.out
    grep -q "^record [0-9]* of data.train, at position $((RECORDS + 3)): " inspect.out || fail "$(cat inspect.out)"

    SETTINGS="$SETTINGS --set train.num_steps=14 --set data.window_mb=2 --set data.hf_buffer_size=51"
    start_job
    finish_job 2
    grep -qE "data.(window_mb is 2|hf_buffer_size is 51), but the run in this folder began with" "$RUN.out" ||
        fail "another order was not refused by name"
done

# The order decides.
other=$(digest_of "$PWD/window")
[ "$other" != "$expected" ] || fail "hf made what window made"

# One epoch, counted and said.
JOB_MODEL=$DATA/model
RECORDS=160
head -n $RECORDS "$DATA/train.jsonl" > small.jsonl
EPOCH="data.train=$PWD/small.jsonl train.num_steps=0 train.num_epochs=1"
for said in 0 "$RECORDS"; do
    write_job epoch.yaml "epoch-$said" data.order=window data.num_samples="$said" $EPOCH
    run_job
    digest_of "$RUN" >> epochs
    last=$(sed -n 's/.*"step":\([0-9]*\),"train.*/\1/p' "$RUN/metrics.jsonl" | tail -n 1)
    [ "$last" -eq $((RECORDS / 16)) ] || fail "an epoch of $RECORDS records had $last steps"
    "$BIN/controller" data audit "$RUN" > audit.out || fail "the audit of an epoch: $(cat audit.out)"
    grep -q "^epoch 0 .* of .* records consumed" audit.out && grep -q "at hand: " audit.out || fail "$(cat audit.out)"
done
[ "$(sort -u epochs | wc -l)" -eq 1 ] || fail "the epoch that was said was not the one that was counted"
write_job wrong.yaml wrong data.num_samples=5 $EPOCH
# shellcheck disable=SC2086
"$BIN/controller" validate --config wrong.yaml ${SETTINGS# } > validate.out || fail "$(cat validate.out)"
grep -q "data.num_samples is 5, but the training set has $RECORDS records: an epoch has $RECORDS" validate.out ||
    fail "a wrong number was not told before the run"
run_job
grep -q "data.num_samples is 5, but the training set has $RECORDS records" "$RUN.out" ||
    fail "a wrong number was not told"
# A number that turns out wrong: the run is as long as was said, people are told, and the audit goes by the data.
write_job late.yaml late data.order=window data.num_samples=$((RECORDS + 48)) $EPOCH
run_job
grep -q "data.num_samples is $((RECORDS + 48)), but the training set has $RECORDS records" "$RUN.out" ||
    fail "a wrong number was not told in the order window"
"$BIN/controller" data audit "$RUN" > audit.out || fail "the audit of a wrong number: $(cat audit.out)"
grep -q "it has $RECORDS records: the epochs below are of data.num_samples" audit.out || fail "$(cat audit.out)"
grep -q "^epoch 0   $((RECORDS + 48)) of $((RECORDS + 48)) positions consumed" audit.out ||
    fail "positions pass for records: $(cat audit.out)"
grep -q "each record of 1 whole pass over the data at hand was consumed exactly once" audit.out ||
    fail "$(cat audit.out)"
nothing_left
echo "two orders, and an epoch of $RECORDS records"
