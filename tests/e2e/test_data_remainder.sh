#!/bin/bash
# data.remainder: drop: each batch is of one epoch, the ledger names what is passed over and is the same file after a
# kill and in another layout, and the audit goes through it.
. "$(dirname "$0")/lib.sh"
make_data
head -n 60 "$DATA/train.jsonl" >small.jsonl

job() {
    STEPS=20 write_job "$1.yaml" "$1" data.train=["$PWD/small.jsonl"] data.eval=null data.remainder=drop \
        data.max_length=2048 train.global_batch_size=8 train.tp_size=1 checkpoint.interval=5 train.num_steps=20
}

# 60 records: seven batches, and four records over.
job plain
run_job
grep -q 'which are passed over' plain.out || fail "the start does not say what is over"
[ "$(grep -c '"why":{"dropped":"' plain/ledger.jsonl)" = 2 ] || fail "$(cat plain/ledger.jsonl)"
grep -q '"step":7,.*"dropped":"56-59"' plain/ledger.jsonl || fail "$(sed -n 7p plain/ledger.jsonl)"
grep -q '"step":14,.*"dropped":"116-119"' plain/ledger.jsonl || fail "$(sed -n 14p plain/ledger.jsonl)"
"$BIN/controller" data audit plain >out || fail "$(cat out)"
grep -q '^epoch 1 .*4 rejected (dropped 4)' out || fail "$(cat out)"

job killed
start_job
wait_for_step 6
kill -9 "$CONTROLLER"
finish_job 137
SETTINGS="$SETTINGS --set train.dp_size=2 --set rollout.num_workers=3"
run_job
cmp plain/ledger.jsonl killed/ledger.jsonl || fail "other batches after a kill"
nothing_left
echo "the remainder of two epochs, once and after a kill"
