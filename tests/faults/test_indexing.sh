#!/bin/bash
# Whoever waits for the index of a large data set sees in `controller status` how far it is: the data source is held in
# the middle of a file, in the read after which the test wants to look.
. "$(dirname "$0")/../e2e/lib.sh"
make_data
# 300 MB, of which all but the records is a hole: a line of zeros, which is one bad record.
cp "$DATA/train.jsonl" large.jsonl
truncate -s 300000000 large.jsonl
{ echo && cat "$DATA/train.jsonl"; } >> large.jsonl
write_job job.yaml run data.bad_record=skip train.num_steps=4 "data.train=[$PWD/large.jsonl]" data.eval=null
touch held
TROUPE_FAULT="data_source pread large.jsonl hold=160 $PWD/held" LD_PRELOAD=$BIN/../tests/faults/libfaulty.so start_job
for _ in $(seq 1200); do
    kill -0 "$CONTROLLER" 2> /dev/null || fail "the controller ended while the data source was held"
    "$BIN/controller" status --run "$RUN" > status.txt 2>&1 || true
    ! grep -q "indexing the files of data.train, 0.[12] of 0.3 GB" status.txt || break
    sleep 0.05
done
grep -q "indexing the files of data.train, 0.[12] of 0.3 GB" status.txt || fail "not seen: $(cat status.txt)"
"$BIN/controller" status --run "$RUN" --json | grep -q "indexing the files of data.train, 0.[12] of 0.3 GB" ||
    fail "programs do not see it"
rm held
finish_job 0
grep -q '"step":4[,}]' "$RUN/metrics.jsonl" || fail "step 4 was not reached"
nothing_left
rm -f large.jsonl
echo "how far the index is stands in controller status"
