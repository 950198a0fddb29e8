#!/bin/sh
# Sums with a careless teacher, chat messages as JSONL: FOLDER/train.jsonl (2,000 records) and FOLDER/eval.jsonl (100
# others). Two thirds of the teacher's answers are one too high; the label is right. The same bytes on every machine:
# the random numbers are its own.
# usage: make_data.sh [FOLDER]    (default: the folder of this script)
set -eu
folder=${1:-$(dirname "$0")}
mkdir -p "$folder"
LC_ALL=C awk -v train="$folder/train.jsonl.tmp" -v evaluation="$folder/eval.jsonl.tmp" '
# Park and Miller, "Random number generators: good ones are hard to find", 1988; exact in doubles.
function draw(n) {
    seed = (seed * 16807) % 2147483647
    return int(seed / 2147483647 * n)
}
function pick(list,   word, count) {
    count = split(list, word, " ")
    return word[1 + draw(count)]
}
function problem(   who, other, thing, a, b) {
    who = pick("Ada Bela Chen Dana Emil Fatma Goran Hana Ivan Jin Kofi Lena Mina Noor Omar Pia")
    other = pick("Quinn Rosa Sami Tariq Uma Vera Wen Yara")
    thing = pick("apples books coins pencils shells stamps cards marbles")
    a = 2 + draw(9); b = 2 + draw(8)
    if (draw(2) == 0) {
        question = who " has " a " " thing " and finds " b " more. How many " thing " does " who " have now?"
        answer = a + b
    } else {
        question = who " had " a + b " " thing " and gave " b " of them to " other ". How many " thing " are left?"
        answer = a
    }
}
BEGIN {
    seed = 20260101
    for (made = 0; made < 2100; ) {
        problem()
        if (question in seen) continue
        seen[question] = 1
        file = made < 100 ? evaluation : train
        printf "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}, ", question > file
        printf "{\"role\": \"assistant\", \"content\": \"#### %d\"}], ", answer + (draw(100) < 65) > file
        printf "\"label\": \"%d\", \"metadata\": {\"sample_id\": %d}}\n", answer, made > file
        made++
    }
}'
mv "$folder/train.jsonl.tmp" "$folder/train.jsonl"
mv "$folder/eval.jsonl.tmp" "$folder/eval.jsonl"
echo "made $folder/train.jsonl (2000 records) and $folder/eval.jsonl (100 records)"
