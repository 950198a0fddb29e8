#!/bin/bash
# Every kind of bad line there is, in one data set, beside good ones, with byte order mark, CRLF, another shape, a
# damaged file, and (where tables can be read) one with a damaged page and one of other columns: each is named with
# file and line, and counted, once; over a kill and a resume the run consumes what the undisturbed one does. And each
# kind by itself ends a run whose policy is to stop.
# usage: test_bad_kinds.sh skip|stop
. "$(dirname "$0")/lib.sh"
make_data
good() { sed -n "$1p" "$DATA/train.jsonl"; }
say() { printf '{"messages": [{"role": "user", "content": "%b"}, {"role": "assistant", "content": "x"}]}\n' "$1"; }

malformed() { echo '{"messages": [{"role": "user"'; }
not_utf8() { say 'caf\xE9'; }
nul_escape() { say 'a\\u0000b'; }
nul_byte() { say 'a\0b'; }
half_a_pair() { say 'a\\ud800b'; }
long_line() { head -c 100000000 /dev/zero | tr '\0' x && echo; }
mark_inside() { printf '\xEF\xBB\xBF' && good 1; }
torn_inside() { good 2 | head -c 60 && good 3; }
zeros() { head -c 5000 /dev/zero && echo; }
two_in_one() { good 4 | tr '\n' '\r' && good 5; }
other_columns() { echo '{"text": "2 + 2?"}'; }
other_type() { echo '{"messages": "2 + 2?"}'; }
torn() { good 6 | head -c 60; }
kinds="malformed not_utf8 nul_escape nul_byte half_a_pair long_line mark_inside torn_inside zeros two_in_one"
kinds="$kinds other_columns other_type torn"
found="malformed=ends.too.soon not_utf8=a.byte.that.is.not.UTF-8 nul_escape=a.NUL.character nul_byte=a.NUL.character"
found="$found half_a_pair=a.lone.surrogate long_line=has.more.than.50331648.bytes mark_inside=a.byte.order.mark"
found="$found torn_inside=not.valid.JSON zeros=a.NUL.byte two_in_one=more.text.after other_columns=no.known.shape"
found="$found other_type=is.a.string torn=ends.inside.a.string"
settings="data.eval=null train.tp_size=1 train.global_batch_size=8 checkpoint.interval=2"

case $1 in
stop)
    for kind in $kinds; do
        { printf '\xEF\xBB\xBF' && good 7,20 | sed 's/$/\r/' && "$kind"; } > "$kind.jsonl"
        # shellcheck disable=SC2086
        write_job "$kind.yaml" "$kind" $settings "data.train=[$PWD/$kind.jsonl]" train.num_steps=4
        start_job
        finish_job 3
        text=$(echo "$found" | tr ' ' '\n' | sed -n "s/^$kind=//p")
        tail -n 9 "$RUN.out" | grep -q "$kind.jsonl:15: .*$text" || fail "$kind was not named"
        at=$(head -n 14 "$kind.jsonl" | wc -c)
        tail -n 9 "$RUN.out" | grep -q "at: byte $at\$" || fail "$kind is not said to be at byte $at"
    done
    ;;
skip)
    { printf '\xEF\xBB\xBF' && good 7,20 | sed 's/$/\r/' && echo; } > a.jsonl
    line=15 places=
    for kind in $kinds; do
        line=$((line + 1))
        "$kind" >> a.jsonl
        text=$(echo "$found" | tr ' ' '\n' | sed -n "s/^$kind=//p")
        places="$places a.jsonl:$line:.*$text"
    done
    words=$(yes twelve | head -n 400 | tr '\n' ' ')
    { good 21,30 && echo '{"prompt": "2 + 2?", "completion": "4"}' && say "$words"; } > b.jsonl
    good 31,60 | gzip | head -c -20 > c.jsonl.gz
    bad=14 files=$PWD/a.jsonl,$PWD/b.jsonl,$PWD/c.jsonl.gz
    places="$places c.jsonl.gz:[0-9]*:.*the.file.ends.too.early"
    if [ -e "$BIN/../lib/libtroupe_arrow.so" ]; then # the rows 1 to 30 are those of a damaged page, then two of others
        cp "$(dirname "$0")/questions.parquet" d.parquet
        head -c 24 /dev/zero | tr '\0' '\377' | dd of=d.parquet bs=1 seek=4 conv=notrunc status=none
        cp "$(dirname "$0")/../dataset/tables/views.arrows" e.arrows
        bad=$((bad + 30 + 10)) files=$files,$PWD/d.parquet,$PWD/e.arrows
        places="$places d.parquet:1:.*row.group.0 e.arrows:1:.*no.known.shape"
    fi
    settings="$settings data.train=[$files] data.bad_record=skip data.max_length=160 train.num_steps=40"
    # shellcheck disable=SC2086
    write_job quiet.yaml quiet $settings data.bad_records_max=$bad
    run_job
    manifest=$RUN/checkpoints/step_00000040/manifest.json
    grep -q "\"bad_records\": $bad\b" "$manifest" || fail "not $bad are counted: $(grep bad_records "$manifest")"
    # shellcheck disable=SC2086
    "$BIN/controller" data inspect --config quiet.yaml ${SETTINGS# } --list 100 > list.txt ||
        fail "it cannot be looked at"
    for place in $places; do
        [ "$(grep -c "bad_record .*$place" list.txt)" -eq 1 ] || fail "$place is not named once: $(cat list.txt)"
    done
    [ "$(grep -c "too_long .*b.jsonl:12: " list.txt)" -eq 1 ] || fail "the one that is too long is not named"
    # shellcheck disable=SC2086
    write_job job.yaml run $settings data.bad_records_max=$bad
    start_job
    wait_for_step 9
    kill -INT "$CONTROLLER"
    finish_job 5
    start_job
    wait_for_step 21
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    nothing_left
    run_job
    cmp "$PWD/quiet/ledger.jsonl" "$RUN/ledger.jsonl" || fail "a stop and a kill changed what was consumed"
    [ "$(digest_of "$PWD/quiet")" = "$(digest_of "$RUN")" ] || fail "a stop and a kill changed the weights"
    grep -q "\"bad_records\": $bad\b" "$RUN/checkpoints/step_00000040/manifest.json" || fail "other counts after a kill"
    "$BIN/controller" data audit "$RUN" > audit.txt || fail "the audit found: $(cat audit.txt)"
    # One fewer, and the run ends.
    # shellcheck disable=SC2086
    write_job limit.yaml limit $settings data.bad_records_max=$((bad - 1))
    start_job
    finish_job 3
    tail -n 8 "$RUN.out" | grep -q "more than $((bad - 1)) records of the train set were bad" || fail "no reason given"
    ;;
esac
nothing_left
rm -f a.jsonl long_line.jsonl # 100 MB each
echo "bad records of every kind are named and counted"
