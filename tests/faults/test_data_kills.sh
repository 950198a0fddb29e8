#!/bin/bash
# kill -9 of the data source and of rollout workers, and now and then of the controller, at moments drawn from a seed:
# over the ends of epochs, bad records and too long ones. What is consumed is what the undisturbed run consumes, byte
# for byte: the ledger is the same file, the weights are the same, and the audit proves each epoch.
# usage: test_data_kills.sh KILLS STEPS [DATA]: twenty steps for a kill, as those go on while its moment comes
# DATA: small, 60 records; files, the same in three; mixture; window, hf: in that order; drop: without the remainder of
#       an epoch; reader: of a shared object; hub: two sets of the Hub, slow to come, of which the cache has room for
#       a part; parquet, parquet_window: rows of two groups, of which one is read in pieces; any: one of these, drawn
#       from the seed (SEED, or the day)
. "$(dirname "$0")/../e2e/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model
kills_wanted=$1 STEPS=$2 data=${3:-small}
seed=${SEED:-20261122}
if [ "$data" = any ]; then
    seed=${SEED:-$(date +%Y%m%d)}
    kinds=(files mixture window hf drop reader hub)
    [ ! -e "$BIN/../lib/libtroupe_arrow.so" ] || kinds+=(parquet parquet_window)
    data=${kinds[seed % ${#kinds[@]}]}
    echo "DATA $data, SEED $seed"
fi
make_data

# 60 records, of which 3 are bad and 4 are too long: a batch of 8 ends in the midst of an epoch nearly always.
head -n 60 "$DATA/train.jsonl" >small.jsonl
sed -i '3s/.*/{"messages": [{"role": "user"/; 31s/.*/not JSON at all/; 60s/$/}/' small.jsonl
words=$(yes twelve | head -n 400 | tr '\n' ' ')
for line in 7 8 40 59; do sed -i "${line}s/\"content\": \"/&$words/" small.jsonl; done
settings='' sources=''
case $data in
small) settings="data.train=[$PWD/small.jsonl]" ;;
files)
    mkdir -p parts
    head -n 25 small.jsonl >parts/a.jsonl
    sed -n '26,26p' small.jsonl | gzip >parts/b.jsonl.gz
    tail -n 34 small.jsonl >parts/c.jsonl
    settings="data.train=[$PWD/parts/*]"
    ;;
mixture) # the smaller source comes again and again, one is in the order of its file
    head -n 25 small.jsonl >few.jsonl
    tail -n 35 small.jsonl >rest.jsonl
    sources="few: {path: $PWD/few.jsonl, weight: 0.6}, rest: {path: $PWD/rest.jsonl, weight: 0.4, shuffle: false}"
    ;;
window) settings="data.train=[$PWD/small.jsonl] data.order=window data.window_mb=1 data.bad_records_max=0" ;;
hf) settings="data.train=[$PWD/small.jsonl] data.order=hf data.hf_buffer_size=16" ;;
drop) settings="data.train=[$PWD/small.jsonl] data.remainder=drop" ;;
reader) # the same with rows: those without an answer cannot be read
    for row in $(seq 60); do
        case $row in
        3 | 31 | 60) echo "$row" ;;
        7 | 8 | 40 | 59) echo "$words and $row?,$row" ;;
        *) echo "$row + $row?,$((row + row))" ;;
        esac
    done | { echo prompt,completion && cat; } >small.csv
    settings="data.train=[$PWD/small.csv] data.reader=$BIN/reader_csv.so"
    ;;
hub) # files of ten records, and a set of an evaluation: each has room for two of its files, one behind the other
    . "$SOURCE/tests/hub/serve.sh"
    for name in troupe/train troupe/eval; do
        serve_repo "$name"
        mkdir "$files/data"
        printf '# %s\n' "$name" >"$files/README.md"
    done
    split -l 10 -d -a 5 small.jsonl server/repos/troupe/train/$hub_commit/data/train-
    head -n 60 "$DATA/eval.jsonl" | split -l 10 -d -a 5 - server/repos/troupe/eval/$hub_commit/data/validation-
    for part in server/repos/troupe/*/$hub_commit/data/*; do mv "$part" "$part-of-00006.jsonl"; done
    hub_bytes=$(($(cat server/repos/troupe/*/$hub_commit/data/* | wc -c) * 2 / 3))
    settings="data.train=troupe/train data.shuffle=false data.cache_gb=$(printf '0.%09d' "$hub_bytes")"
    disturb '{"match": "^/troupe/.*jsonl", "do": "slow", "chunk": 700, "ms": 20, "times": 1000000}'
    start_server
    ;;
parquet*) # the same with rows
    [ -e "$BIN/../lib/libtroupe_arrow.so" ] || { echo "no Apache Arrow in this build"; exit 0; }
    settings="data.train=[$SOURCE/tests/dataset/tables/sums.parquet]"
    [ "$data" = parquet ] || settings="$settings data.order=window data.window_mb=1 data.bad_records_max=0"
    ;;
*) fail "no such data: $data" ;;
esac
evaluated=null
[ "$data" != hub ] || evaluated=troupe/eval
settings="$settings data.eval=$evaluated data.bad_record=skip data.max_length=160"
settings="$settings train.global_batch_size=8 train.tp_size=1"
settings="$settings checkpoint.interval=25 rollout.num_workers=2 rollout.lease_size=3 cluster.restarts_max=10000"

data_job() { # FILE RUN
    # shellcheck disable=SC2086
    write_job "$1" "$2" $settings
    if [ -n "$sources" ]; then sed -i "s|^  train: .*|  sources: {$sources}|" "$1"; fi
}

data_job quiet.yaml quiet
run_job
cp "$RUN/ledger.jsonl" expected.jsonl
expected=$(digest_of "$RUN")
rm -rf home # what a run finds in the cache takes none of its room

data_job killed.yaml killed
start_job

# draw N: a number from 0 to N - 1 in $drawn.
draw() {
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    drawn=$((seed / 65536 % $1))
}

# Some steps from kill to kill, or nothing would ever be trained; the moment within them is the seed's.
kills=0 of_source=0 of_workers=0 of_controller=0 step=0
while [ "$kills" -lt "$kills_wanted" ]; do
    draw 4
    step=$((step + 1 + drawn))
    wait_for_step "$step"
    draw 20
    sleep "0.$(printf '%02d' "$drawn")"
    draw 25
    case $drawn in
    0) victim=controller pid=$CONTROLLER ;;
    [1-9] | 1[0-2]) victim=data_source pid=$(actor_pid data_source) ;;
    *)
        draw 2
        victim=rollout-$drawn pid=$(actor_pid "rollout-$drawn")
        ;;
    esac
    [ "${pid:-0}" != 0 ] && kill -9 "$pid" 2>/dev/null || continue # on its way back from the last one
    kills=$((kills + 1))
    made=$(grep -c '"train/loss"' "$RUN/metrics.jsonl")
    [ "$step" -ge "$made" ] || step=$made
    case $victim in
    controller)
        of_controller=$((of_controller + 1))
        wait "$CONTROLLER" 2>/dev/null || true
        nothing_left
        start_job
        ;;
    data_source) of_source=$((of_source + 1)) ;;
    *) of_workers=$((of_workers + 1)) ;;
    esac
done
finish_job 0
nothing_left
cmp expected.jsonl "$RUN/ledger.jsonl" || fail "other samples were consumed (seed ${SEED:-default})"
[ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights (seed ${SEED:-default})"
metrics_ascend
if [ "$data" = hub ]; then
    left=$(find home -path '*/blobs/*' -size +999c -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
    [ "$left" -le "$hub_bytes" ] || fail "the cache has $left bytes, and $hub_bytes are allowed"
    fetched=$(asked '"cdn"') # by the undisturbed run, too
    [ "$fetched" -gt $((STEPS * 8 / 60 * 12)) ] || fail "files were not fetched again: $fetched times"
fi
"$BIN/controller" data audit "$RUN" --data >audit.out || fail "the audit: $(cat audit.out)"
epochs=$((STEPS * 8 / 53)) # each trains on 53; that of a mixture ends with its first source
[ "$data" != mixture ] || epochs="[1-9][0-9]*"
[ "$data" != drop ] || epochs=$((STEPS / 6)) # of six batches
verdict="each record of $epochs whole epochs? was consumed exactly once"
# What an epoch of the order window has is known to the ledger from the first resume on.
[[ "$data" != *window ]] ||
    verdict="each record of [1-9][0-9]* whole epochs? was consumed exactly once|no record was consumed twice in one\$"
grep -Eq "$verdict" audit.out || fail "the audit says: $(tail -n 1 audit.out)"
echo "$kills kills ($of_source of the data source, $of_workers of rollout workers, $of_controller of the controller):" \
    "the same ledger, the same weights"
tail -n 1 audit.out
