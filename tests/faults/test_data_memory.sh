#!/bin/bash
# The data source's memory does not grow with what it reads: 60 Parquet files of 12 MB of JSON each, in windows of
# 16 MB, beside a source of a few lines that can be trained. All of the files are read; the most that the data source
# ever held stays below what it may take.
# usage: test_data_memory.sh MEGABYTES
. "$(dirname "$0")/../e2e/lib.sh"
most_mb=$1
[ -e "$BIN/../lib/libtroupe_arrow.so" ] || { echo "no Apache Arrow in this build"; exit 0; }
make_data

# Rows that say their number are no conversations: each is read, handed to a worker and skipped.
mkdir -p tables
for i in $(seq 60); do cp "$SOURCE/tests/dataset/tables/large.parquet" "tables/$i.parquet"; done
head -n 40 "$DATA/train.jsonl" >few.jsonl
STEPS=75
write_job job.yaml run data.eval=null data.order=window data.window_mb=16 data.bad_record=skip \
    data.bad_records_max=1000000 train.global_batch_size=16 train.tp_size=1 rollout.num_workers=2
sources="few: {path: $PWD/few.jsonl, weight: 0.02}, tables: {path: '$PWD/tables/*.parquet', weight: 0.98}"
sed -i "s|^  train: .*|  sources: {$sources}|" job.yaml

start_job
wait_for_step 1
pid=$(actor_pid data_source)
held_kb=0
while [ -r "/proc/$pid/status" ] && kill -0 "$CONTROLLER" 2>/dev/null; do
    now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null) || true # it may have ended
    [ "${now:-0}" -le "$held_kb" ] || held_kb=$now
    sleep 0.05
done
finish_job 0

skipped=$(tail -n 1 "$RUN/ledger.jsonl" | sed 's/.*"end":\([0-9]*\).*/\1/')
[ "$skipped" -gt 50000 ] || fail "the run came to position $skipped only, expected most of 60000 rows"
[ "$held_kb" -gt 1000 ] || fail "the data source's memory was not seen"
[ "$held_kb" -le $((most_mb * 1024)) ] || fail "the data source held $((held_kb / 1024)) MB, expected at most $most_mb"
echo "the data source came to position $skipped and held $((held_kb / 1024)) MB at most"
