#!/bin/bash
# Jobs that train on a mixture of sources, and on what a reader of the user's reads.
# usage: test_mixture.sh formats | kills | windows | shares | refusals | reader | crash | hang
. "$(dirname "$0")/lib.sh"
[ "${1:-}" != kills ] || JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
deed=$1
make_data

# Sources: 300 records of JSONL, 90 of gzip, 40 of CSV through the example's reader, and 60 of Parquet where this build
# reads it.
head -n 300 "$DATA/train.jsonl" > chat.jsonl
tail -n 90 "$DATA/train.jsonl" | gzip > math.jsonl.gz
{
    echo prompt,completion
    for i in $(seq 40); do echo "\"Say \"\"$i\"\", please\",\"$i it is\""; done
} > own.csv

# mixture_job FILE RUN SOURCES [KEY=VALUE ...]: SOURCES is what stands in data.sources.
mixture_job() {
    local file=$1 run=$2 sources=$3
    shift 3
    write_job "$file" "$run" "$@"
    sed -i "s|^  train: .*|  sources: {$sources}|" "$file"
}

CHAT="chat: {path: $PWD/chat.jsonl, weight: 5}"
MATH="math: {path: $PWD/math.jsonl.gz, weight: 3}"
OWN="own: {path: $PWD/own.csv, weight: 2, reader: $BIN/reader_csv.so}"
COUNTER="own: {weight: 1, reader: $BIN/reader_faulty.so, reader_options: {mode: count, length: 150}}"

# count RUN NAME WHAT: what the newest checkpoint says of a source.
count() {
    last=$(ls -d "$1"/checkpoints/step_* | grep -v partial | tail -n 1)
    tr -d ' \n' < "$last/manifest.json" | grep -o "\"source_$2_$3\":[0-9]*" | cut -d: -f2
}

# sum_of NAME WHAT: over all steps of the run, from its metrics.
sum_of() {
    grep -o "\"data/$1/$2\":[0-9.]*" "$RUN/metrics.jsonl" | cut -d: -f2 | awk '{ sum += $1 } END { print sum + 0 }'
}

# figures NAME: of all steps.
figures() { sed -n "s|.*\"$1\":\([0-9.]*\).*|\1|p" "$RUN/metrics.jsonl"; }

# near WHAT FOUND EXPECTED: to two samples.
near() {
    [ "$2" -ge $(($3 - 2)) ] && [ "$2" -le $(($3 + 2)) ] || fail "$1: $2, expected $3"
}

# kill_once NAME STEP: kill -9 of an actor once that step is committed.
kill_once() {
    wait_for_step "$2"
    kill_actor "$1"
}

kill_controller() {
    wait_for_step "$1"
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    nothing_left
    start_job
}

case $deed in
formats)
    sources="$CHAT, $MATH, $OWN"
    if [ -e "$BIN/../lib/libtroupe_arrow.so" ]; then
        sources="$sources, table: {path: $(dirname "$0")/questions.parquet, weight: 2}"
    fi
    STEPS=20 mixture_job job.yaml run "$sources"
    "$BIN/controller" validate --config "$JOB" > validate.out || fail "it is not valid: $(cat validate.out)"
    grep -q "own .*% of the records, has 40: .* passes an epoch, .* in the run" validate.out ||
        fail "no passes: $(cat validate.out)"
    run_job
    if [ -e "$BIN/../lib/libtroupe_arrow.so" ]; then
        near chat "$(count "$RUN" chat samples)" 133
        near table "$(count "$RUN" table samples)" 53
    else
        near chat "$(count "$RUN" chat samples)" 160
        echo "without Arrow: no Parquet"
    fi
    "$BIN/controller" data inspect --config "$JOB" --position 9 --count 0 > inspect.out
    grep -q "at position 9, in pass 1 over it" inspect.out || fail "$(cat inspect.out)"
    "$BIN/controller" data inspect --config "$JOB" --source own --position 41 --count 0 > inspect.out
    grep -q "record of data.sources.own, at position 41 of its own, in pass 2 over it: own.csv:" inspect.out ||
        fail "$(cat inspect.out)"
    # On two ranks the loss of each source is told, and the whole one lies between them.
    STEPS=4 mixture_job halves.yaml halves "$CHAT, $MATH" train.dp_size=2 data.eval=null
    run_job
    paste <(figures train/loss) <(figures data/chat/loss) <(figures data/math/loss) > losses
    awk 'NF != 3 || ($1 - $2) * ($1 - $3) >= 0 { exit 1 } END { exit NR != 4 }' losses || fail "$(cat losses)"
    # The keys of a source are its own.
    echo '{"messages": 7, "other": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "the other"}]}' \
        > other.jsonl
    mixture_job other.yaml other "$CHAT, odd: {path: $PWD/other.jsonl, input_key: other}"
    "$BIN/controller" data inspect --config "$JOB" --source odd > inspect.out || fail "$(cat inspect.out)"
    grep -q "the other" inspect.out || fail "it does not read by the key of the source"
    JOB=job.yaml
    "$BIN/controller" data inspect --config "$JOB" --json --count 20 > inspect.json
    grep -q '"sources":\[{"name":"chat","share":0.[0-9]*,"records":300,"summary":{"records":20,' inspect.json ||
        fail "$(cat inspect.json)"
    ;;
kills | windows)
    order=full
    [ "$deed" = kills ] || order=window
    mixture_job quiet.yaml quiet "$CHAT, $MATH, $OWN" data.order=$order data.window_mb=1
    run_job
    expected=$(digest_of "$RUN")
    mixture_job job.yaml run "$CHAT, $MATH, $OWN" data.order=$order data.window_mb=1
    start_job
    kill_once data_source 3
    kill_once rollout-0 7
    kill_controller 12
    kill_once data_source 16
    kill_controller 20
    finish_job 0
    nothing_left
    metrics_ascend
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "kills changed the weights"
    cmp "$PWD/quiet/ledger.jsonl" "$RUN/ledger.jsonl" || fail "kills changed what was consumed"
    ;;
shares)
    # 30 steps of 16 samples; with one bad line in a source, which uses up a position of that source.
    sed -i '5s/.*/{"messages": 3}/' chat.jsonl
    mixture_job job.yaml run "$CHAT, $MATH, $OWN" data.bad_record=skip rollout.num_workers=2
    run_job
    # shellcheck disable=SC2086
    "$BIN/controller" validate --config "$JOB" $SETTINGS --set data.train="$PWD/chat.jsonl" >valid.txt 2>&1 || true
    grep -q "warning: --set of data.train takes the place of all of data.sources in the job file" valid.txt ||
        fail "the mixture goes without a word: $(cat valid.txt)"
    near chat "$(sum_of chat samples)" 240
    near math "$(sum_of math samples)" 144
    near own "$(sum_of own samples)" 96
    [ "$(sum_of chat samples)" = "$(count "$RUN" chat samples)" ] || fail "metrics and manifest differ"
    [ "$(count "$RUN" chat bad_records)" = "$(count "$RUN" chat rejected)" ] || fail "a bad record is not counted"
    [ -z "$(count "$RUN" math bad_records)" ] || fail "math has no bad record"
    epoch=$(grep -o '"data/own/epoch":[0-9.]*' "$RUN/metrics.jsonl" | tail -n 1 | cut -d: -f2)
    awk -v e="$epoch" 'BEGIN { exit !(e > 2.3 && e < 2.5) }' || fail "own stands at pass $epoch"
    grep -q 'source what="own: 20 % of the records, 40 in a pass; the run takes 2.40 passes"' "$RUN.out" ||
        fail "the start does not say what the run takes"
    # More records bad than one source may have.
    sed -i '7,9s/.*/{"messages": 3}/' chat.jsonl
    mixture_job other.yaml other "$CHAT, $MATH" data.bad_record=skip data.bad_records_max=3 train.num_steps=60
    start_job
    finish_job 3
    grep -q "more than 3 records of the source chat were bad" "$RUN.out" || fail "it does not name the source"
    ;;
refusals)
    mixture_job job.yaml run "$CHAT, $MATH" train.num_steps=4
    run_job
    # Other weights are other data, and the way on is the one of changed data.
    mixture_job job.yaml run "chat: {path: $PWD/chat.jsonl, weight: 1}, $MATH" train.num_steps=8
    start_job
    finish_job 3
    grep -q "the share of the source chat: 0.25, was 0.625" "$RUN.out" || fail "the change is not named"
    accept=$(grep -o "data.accept_changed=[0-9a-f]*" "$RUN.out" | tail -n 1)
    mixture_job job.yaml run "chat: {path: $PWD/chat.jsonl, weight: 1}, $MATH" train.num_steps=8 "$accept"
    run_job
    [ -d "$RUN/checkpoints/step_00000008" ] || fail "it did not go on"
    # Which records the positions before stood for, nobody can tell any more; nor does the audit.
    "$BIN/controller" data audit "$RUN" >out || { cat out; fail "the audit of a change that was accepted"; }
    grep -q "changed, and accepted$" out || { cat out; fail "the change is not told"; }
    grep -q "epoch 0 .*the data changed within it" out || { cat out; fail "an epoch of two mixtures counts as whole"; }
    grep -q "which records they stood for, the data at hand cannot tell" out || { cat out; fail "too much is proven"; }
    # A byte of a source is no other share, also where the shares are no round numbers.
    cp chat.jsonl kept.jsonl
    SHARES="chat: {path: $PWD/chat.jsonl, weight: 0.7}, math: {path: $PWD/math.jsonl.gz, weight: 0.2}"
    SHARES="$SHARES, own: {path: $PWD/own.csv, weight: 0.1, reader: $BIN/reader_csv.so}"
    mixture_job byte.yaml byte "$SHARES" train.num_steps=2
    run_job
    sed -i '5s/.*/{"messages": 3}/' chat.jsonl
    start_job
    finish_job 3
    grep -q "chat.jsonl: 300 records in " "$RUN.out" || { cat "$RUN.out"; fail "the source is not named"; }
    ! grep -q "the share of" "$RUN.out" || { cat "$RUN.out"; fail "a share is blamed that did not change"; }
    cp kept.jsonl chat.jsonl
    # A reader's file has a name, too.
    cp own.csv kept.csv
    sed -i 's/10 it is/11 it is/' own.csv
    start_job
    finish_job 3
    grep -q "source own: $PWD/own.csv changed" "$RUN.out" || { cat "$RUN.out"; fail "the reader's file is not named"; }
    cp kept.csv own.csv
    # More passes than a source may have; epochs of a source that does not know its length.
    mixture_job twice.yaml twice "$CHAT, math: {path: $PWD/math.jsonl.gz, weight: 3, repeat: 2}" \
        train.num_steps=60
    start_job
    finish_job 2
    grep -q "4.00 passes over its 90 records, but data.sources.math.repeat is 2" "$RUN.out" || fail "repeat is not kept"
    # shellcheck disable=SC2086
    ! "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt 2>&1 || fail "validate would keep it"
    grep -q "twice.yaml:[0-9]*: data.sources.math: .* 4.00 passes over its 90 records, but its repeat is 2" valid.txt ||
        fail "validate refuses something else: $(cat valid.txt)"
    mixture_job epochs.yaml epochs "$CHAT, $COUNTER" train.num_steps=0 train.num_epochs=2
    start_job
    finish_job 2
    grep -q "does not say how many records an epoch has" "$RUN.out" || fail "it does not say why"
    ;;
reader)
    # One that does not know how long an epoch is, of 150 records, killed on the way.
    mixture_job quiet.yaml quiet "$CHAT, $COUNTER"
    run_job
    expected=$(digest_of "$RUN")
    mixture_job job.yaml run "$CHAT, $COUNTER"
    start_job
    kill_once data_source 4
    kill_controller 12
    kill_once data_source 17
    finish_job 0
    nothing_left
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "kills changed the weights"
    cmp "$PWD/quiet/ledger.jsonl" "$RUN/ledger.jsonl" || fail "kills changed what was consumed"
    ls "$RUN"/index/reader_*.states > /dev/null || fail "no states are kept"
    ;;
crash | hang)
    mixture_job quiet.yaml quiet "$CHAT, $COUNTER"
    run_job
    expected=$(digest_of "$RUN")
    mode=crashes
    [ "$deed" = crash ] || mode=hangs
    fault="own: {weight: 1, reader: $BIN/reader_faulty.so, reader_options: {mode: $mode, length: 150, says: 150"
    fault="$fault, once: $PWD/once}}"
    mixture_job job.yaml run "$CHAT, $fault" cluster.progress_s=5
    run_job
    nothing_left
    [ -e once ] || fail "it did not come to the fault"
    [ "$(grep -c ' epoch what="' "$RUN.out")" = 1 ] || fail "the epoch is told again: $(cat "$RUN.out")"
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "the fault changed the weights"
    if [ "$deed" = crash ]; then
        grep -q "code of yours runs in it: data.sources.own (reader .*reader_faulty.so)" "$RUN.out" ||
            fail "it does not say whose code it was"
        words="killed in next_batch of data.sources.own, asked for position [0-9]*, behind counter:99 of epoch 0"
        grep -q "its last words: $words" "$RUN.out" ||
            fail "it does not say at which record it was"
        # At each start anew: the end says it, and whoever looks at the data is told the same.
        always="own: {weight: 1, reader: $BIN/reader_faulty.so, reader_options: {mode: crashes, length: 150}}"
        mixture_job always.yaml always "$CHAT, $always" cluster.restarts_max=1
        start_job
        finish_job 4
        tail -n 9 "$RUN.out" | grep -q "$words" || fail "the end does not say where"
        tail -n 1 "$RUN.out" | grep -q "^Step [1-9].* is committed. First mend what is said above; then" ||
            fail "the end says that the same command goes on: $(tail -n 3 "$RUN.out")"
        # shellcheck disable=SC2086
        "$BIN/controller" validate --config always.yaml ${SETTINGS# } > validate.out 2>&1 &&
            fail "validate did not see it"
        grep -q "$words" validate.out || fail "validate does not say where: $(cat validate.out)"
        # One that calls exit(0) has not done what was asked, either.
        words="exit() was called in next_batch of data.sources.own, asked for position [0-9]*, behind counter:99"
        mixture_job exits.yaml exits "$CHAT, ${always/crashes/exits}" cluster.restarts_max=1
        start_job
        finish_job 4
        grep -q "code of yours runs in it: data.sources.own (reader .*reader_faulty.so); its last words: $words" \
            "$RUN.out" || fail "it does not say where exit was called: $(cat "$RUN.out")"
        # shellcheck disable=SC2086
        "$BIN/controller" validate --config exits.yaml ${SETTINGS# } > validate.out 2>&1 &&
            fail "validate takes exit(0) for success"
        grep -q "$words" validate.out || fail "validate does not say where: $(cat validate.out)"
    else
        grep -q "next_batch of the reader faulty (.*reader_faulty.so) of data.sources.own" "$RUN.out" ||
            fail "it does not say where it hung"
        always="own: {weight: 1, reader: $BIN/reader_faulty.so, reader_options: {mode: hangs, length: 150}}"
        mixture_job always.yaml always "$CHAT, $always" cluster.restarts_max=1 cluster.progress_s=2
        start_job
        finish_job 4
        tail -n 1 "$RUN.out" | grep -q "^Step [1-9].* is committed. First mend what is said above; then" ||
            fail "the end says that the same command goes on: $(tail -n 3 "$RUN.out")"
    fi
    ;;
esac
echo "a mixture: $deed"
