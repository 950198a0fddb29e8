#!/bin/bash
# The same global batches whatever the run is laid out on: one, two and four data-parallel ranks, one and five rollout
# workers, leases of one and of many positions, no prefetch and a deep one. The ledger is the same file.
. "$(dirname "$0")/lib.sh"
make_data
head -n 60 "$DATA/train.jsonl" >small.jsonl
sed -i '3s/.*/{"messages": [{"role": "user"/; 31s/.*/not JSON at all/' small.jsonl
words=$(yes twelve | head -n 400 | tr '\n' ' ')
for line in 7 8 40; do sed -i "${line}s/\"content\": \"/&$words/" small.jsonl; done

# layout NAME [SETTING ...]: runs the job so, and compares.
layout() {
    name=$1
    shift
    STEPS=20 write_job "$name.yaml" "$name" data.train=["$PWD/small.jsonl"] data.eval=null data.bad_record=skip \
        data.max_length=160 train.global_batch_size=8 train.tp_size=1 checkpoint.interval=10 "$@"
    run_job
    nothing_left
    [ "$name" = plain ] || cmp plain/ledger.jsonl "$name/ledger.jsonl" || fail "other batches with $*"
}

layout plain
layout two_ranks train.dp_size=2
layout four_ranks train.dp_size=4 rollout.num_workers=2
layout tensor train.tp_size=2 rollout.num_workers=5 rollout.lease_size=1 rollout.prefetch_steps=1
layout deep rollout.lease_size=64 rollout.prefetch_steps=16 rollout.num_workers=3

# And when the layout changes in the midst of the run.
STEPS=20 write_job changed.yaml changed data.train=["$PWD/small.jsonl"] data.eval=null data.bad_record=skip \
    data.max_length=160 train.global_batch_size=8 train.tp_size=1 checkpoint.interval=10 train.num_steps=20
start_job
wait_for_step 7
kill -INT "$CONTROLLER"
finish_job 5
SETTINGS="$SETTINGS --set train.dp_size=2 --set rollout.num_workers=3"
run_job
cmp plain/ledger.jsonl changed/ledger.jsonl || fail "other batches after a change of layout"
"$BIN/controller" data audit changed >out || fail "$(cat out)"
nothing_left

# Another batch on a resume: it begins at the very position, and the counts are those of both.
SETTINGS="$SETTINGS --set train.global_batch_size=12 --set train.num_steps=25"
run_job
cmp <(head -n 20 changed/ledger.jsonl) plain/ledger.jsonl || fail "what was consumed before is not what it was"
end=$(sed -n '20s/.*"end":\([0-9]*\).*/\1/p' changed/ledger.jsonl)
grep -q "\"step\":21,\"first\":$end," changed/ledger.jsonl || fail "step 21 does not begin at $end"
[ "$(grep -c '"train/samples":12,' changed/metrics.jsonl)" = 5 ] || fail "not five steps of twelve"
end=$(sed -n '25s/.*"end":\([0-9]*\).*/\1/p' changed/ledger.jsonl)
place="\"train/position\":$end,\"train/epoch_id\":$((end / 60)),\"train/consumed_count\":$((end % 60)),"
grep -q "\"step\":25,.*$place" changed/metrics.jsonl || fail "the position of step 25 is not $end"
"$BIN/controller" data audit changed --json >out || fail "$(cat out)"
grep -q '"samples":220,' out || fail "not 20 times 8 and 5 times 12 samples: $(cat out)"
nothing_left
echo "the same batches in six layouts"
