#!/usr/bin/env bash
# `controller data inspect` as a person uses it: what it shows, what it costs, and what bad input gets.
# usage: BIN=... SOURCE=... test_data_inspect.sh
set -eu

fail() {
    echo "FAILED: $*"
    if [ -f out ]; then sed 's/^/  out: /' out | head -40; fi
    exit 1
}

# inspect CODE [option...]: what it prints, on both channels, is then in ./out.
inspect() {
    local code=$1 got=0
    shift
    timeout 60 "$BIN/controller" data inspect --config job.yaml "$@" >out 2>&1 </dev/null || got=$?
    [ "$got" = "$code" ] || fail "data inspect $*: exit code $got, expected $code"
}

says() {
    local text
    for text in "$@"; do grep -qF -- "$text" out || fail "it does not say: $text"; done
}

says_not() {
    ! grep -qF -- "$1" out || fail "it says: $1"
}

cat >train.jsonl <<'JSONL'
{"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}
{"conversations": [{"from": "human", "value": "3 + 3?"}, {"from": "gpt", "value": "6"}]}
{"instruction": "Add.", "input": "4 4", "output": "8"}
JSONL
cat >job.yaml <<YAML
run_dir: $PWD/run
model:
  path: $SOURCE/deploy/examples/tiny/model
  init: random
data:
  train: train.jsonl
cluster:
  cpus: 16
YAML

# A record and the summary; plain text where nobody looks at a terminal.
inspect 0
says "record 0 of data.train: $PWD/train.jsonl:1" "2 + 2?<|im_end|>" "⟦4<|im_end|>" "all 3 records of data.train" \
    "messages 1, ShareGPT conversations 1, Alpaca 1" "tokens before any cut:"
says_not "$(printf '\033')"
inspect 0 --sample 2 --count 0 --color
says "record 2 of data.train" "$(printf '\033[32m8')" "4 4<|im_end|>"
says_not "all 3 records"
inspect 0 -n 1 --color=never --count 2
says "⟦6<|im_end|>" "the first 2 records of data.train, which has more (--count all: all of them), "
inspect 0 --count 2 --position 0
says "the first 2 of 3 records of data.train (--count all: all of them), "
inspect 0 --count 2 --position 0 --json
says '"records":2,"all":false,"records_there":3,'
inspect 0 --count 2 --json
says '"records":2,"all":false,"records_there":null,'
inspect 0 --count all
says "all 3 records of data.train, "
inspect 2 --count many
says '--count is "many", expected a whole number'
[ ! -e run ] || fail "it made a run folder"

# A job's settings count as in a run.
inspect 0 --set data.max_length=15 --set data.too_long=truncate
says "by data.max_length 15" "---- cut here: " "3 of them cut"
inspect 0 --set data.max_length=8
says "rejected as too_long, which a run passes over"
inspect 3 --set data.nothing_to_train=stop --set data.max_length=8 --set data.too_long=truncate
says "which ends a run"

# The same order as the run's: position after position, its ledger names what is shown.
inspect 0 --position 4 --count 0
says "at position 4: "
inspect 0 --position 4 --count 0 --set data.shuffle=false
says "record 1 of data.train, at position 4"

# The first thousand of a terabyte cost no more than themselves.
cp train.jsonl large.jsonl
for _ in $(seq 400); do cat train.jsonl; done >>large.jsonl
if truncate -s 1T large.jsonl 2>/dev/null; then
    inspect 0 --set data.train=large.jsonl
    says "the first 1000 records of data.train, which has more (--count all: all of them), "
    inspect 0 --set data.train=large.jsonl --brief
    says "data.train: the first 1000 records, of more, give 1000 samples"
fi
for _ in $(seq 400); do cat train.jsonl; done >many.jsonl
echo "no JSON" >>many.jsonl
for order in full window; do
    inspect 3 --set data.train=many.jsonl --set data.order=$order --count all
    says "all 1201 records of data.train, " "1200, 0 of them cut; 1 rejected" "many.jsonl:1201: "
done

# A reader's records are counted in the order that it has without shuffling, positions are the run's.
{
    echo prompt,completion
    for i in $(seq 12); do echo "say $i,$i"; done
} >own.csv
own=(--set data.train=own.csv --set data.reader="$BIN/reader_csv.so")
for i in 0 1 5 11; do
    inspect 0 "${own[@]}" --sample $i --count 0
    says "record $i of data.train: own.csv:$((i + 2))" "say $((i + 1))<|im_end|>"
done
for i in $(seq 0 11); do
    inspect 0 "${own[@]}" --position "$i" --count 0
    says "a record of data.train, at position $i: own.csv:"
    grep -o 'own.csv:[0-9]*' out
done >places
[ "$(sort places | uniq | wc -l)" -eq 12 ] || fail "positions show a record twice: $(cat places)"
! sort -V places | cmp -s - places || fail "positions are not shuffled: $(cat places)"
inspect 0 "${own[@]}" --position 3 --count 0 --json
says '"index":null,"of":"data.train","source":"own.csv:'
# One that does not say how many records it has is counted to its end, and no further.
own=(--set data.train=null --set data.reader="$BIN/reader_faulty.so"
    --set 'data.reader_options={"mode":"count","length":150}' --set train.num_steps=1)
inspect 0 "${own[@]}" --sample 149
says "record 149 of data.train: counter:149" "all 150 records of data.train, "
inspect 2 "${own[@]}" --sample 150
says "there is no record 150 in data.train: its reader ends before it"
# One that says fewer than it has would lose the others.
own+=(--set 'data.reader_options={"mode":"count","length":150,"says":140}')
low="said that an epoch has 140 records, but gave more of epoch 0"
inspect 3 "${own[@]}" --count all
says "data.train: the reader \"faulty\" $low" "mend num_records, or leave it out"
inspect 3 "${own[@]}" --position 139 --count 0
says "$low"
inspect 0 "${own[@]}" --position 40 --count 0

# Bad input, by the codes of README.
inspect 2 --sample 3
says "there is no record 3 in data.train: it has 3"
inspect 2 --sample x
says '--sample is "x"'
inspect 2 --sample 1 --position 1
says "two ways to name one record"
inspect 2 --colour
says "usage: controller data inspect"
inspect 2 --eval
says "names no files of data.eval"
inspect 2 --set data.train=missing.jsonl
says data.train missing.jsonl "does not exist"
inspect 2 --set data.max_len=3
says "Did you mean data.max_length"
echo '{"text": "once"}' >>train.jsonl
inspect 3
says "train.jsonl:4: the record is of no known shape" "bad_record, which ends a run: 1"
inspect 0 --set data.bad_record=skip
says "bad_record, which a run passes over: 1"
inspect 3 --sample 3 --count 0
says "record 3 of data.train: $PWD/train.jsonl:4" "rejected as bad_record, which ends a run" \
    "train.jsonl:4: the record is of no known shape" '"text"'
# Several are listed, with what is odd; and all of it is there for programs.
{
    echo 'no JSON'
    echo '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls":' \
        '[{"type": "function", "function": {"name": "f", "arguments": "{x"}}]}]}'
} >>train.jsonl
inspect 3 --set data.not_rendered=keep
says "all 4 of them (--list), in their order:" "bad_record       $PWD/train.jsonl:4: " \
    "bad_record       $PWD/train.jsonl:5: not valid JSON" "trained, though odd (bad_arguments): 1" \
    "train.jsonl:6: messages[1].tool_calls[0] has arguments that are neither an object nor the JSON text of one"
inspect 3 --set data.not_rendered=keep --list 1
says "the first 1 of them"
inspect 3 --json --sample 1 --set data.not_rendered=keep
[ "$(wc -l <out)" -eq 1 ] || fail "the JSON is not on one line"
says '"set":"data.train"' '"bad_record":{"records":2,"ends_run":true}' '"bad_arguments":1' '"loss_mask":[0,' \
    "\"source\":\"$PWD/train.jsonl:5\",\"rejected\":true,\"reason\":\"bad_record\""
# What is hardly meant is said beside it.
told='data.apply_chat_template_kwargs={"enable_thinkin": false}'
inspect 3 --set "$told" --count 0 --sample 3
says 'warning: data.apply_chat_template_kwargs: the chat template never reads "enable_thinkin"'
"$BIN/controller" validate --config job.yaml --set "$told" >out 2>&1 || :
says 'warning: data.apply_chat_template_kwargs: the chat template never reads "enable_thinkin"'
[ "$(grep -c "never reads" out)" -eq 1 ] || fail "it is said more than once"
# Compressed, in a folder and as a slice it is the same data.
gzip -c train.jsonl >train.jsonl.gz
inspect 3 --json --sample 1 --set data.train=train.jsonl.gz --set data.not_rendered=keep
says '"bad_record":{"records":2,"ends_run":true}' "\"source\":\"$PWD/train.jsonl.gz:5\",\"rejected\":true"
mkdir folder && mv train.jsonl.gz folder/train.jsonl.gz
inspect 3 --json --sample 1 --set data.train=folder@train --set data.not_rendered=keep
says '"bad_record":{"records":2,"ends_run":true}' "\"source\":\"$PWD/folder/train.jsonl.gz:5\",\"rejected\":true"
inspect 0 --json --sample 0 --set 'data.train=folder/train.jsonl.gz@[0:2]'
says '"source":"'"$PWD/folder/train.jsonl.gz:1"'"'
# What cannot be read is no data that is in order.
bzip2 -c train.jsonl >train.jsonl.bz2 2>/dev/null || printf 'BZh91AY&SY' >train.jsonl.bz2
"$BIN/controller" validate --config job.yaml --set data.train=train.jsonl.bz2 >out 2>&1 && fail "bzip2 is in order"
says "train.jsonl.bz2 is compressed with bzip2" "is not in order"
grep -q "data.train: data.train:" out && fail "the key is said twice"
: >empty.jsonl
inspect 3 --set data.train=empty.jsonl
says "is empty"
"$BIN/controller" data >out 2>&1 && fail "data alone is no command"
says "usage: controller data inspect"
"$BIN/controller" data inspect --help >out || fail "there is no help"
says "--sample N" "--position P" "Exit codes"
