#!/bin/sh
# Makes a small data set of arithmetic word problems, chat messages as JSONL: FOLDER/train.jsonl (2,000 records) and
# FOLDER/eval.jsonl (100 others). The same bytes on every machine: the random numbers are its own.
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
function problem(   kind, who, other, thing, a, b, c) {
    kind = draw(6)
    who = pick("Ada Bela Chen Dana Emil Fatma Goran Hana Ivan Jin Kofi Lena Mina Noor Omar Pia")
    other = pick("Quinn Rosa Sami Tariq Uma Vera Wen Yara")
    thing = pick("apples books coins pencils shells stamps cards marbles")
    a = 2 + draw(28); b = 2 + draw(18); c = 2 + draw(8)
    if (kind == 0) {
        question = who " has " a " " thing " and finds " b " more. How many " thing " does " who " have now?"
        steps = who " has " a " + " b " = " a + b " " thing "."
        answer = a + b
    } else if (kind == 1) {
        question = who " had " a + b " " thing " and gave " b " of them to " other ". How many " thing " are left?"
        steps = "After giving away " b " there are " a + b " - " b " = " a " " thing " left."
        answer = a
    } else if (kind == 2) {
        question = who " buys " c " boxes with " b " " thing " in each. How many " thing " are there in all?"
        steps = "There are " c " * " b " = " c * b " " thing "."
        answer = c * b
    } else if (kind == 3) {
        question = who " shares " b * c " " thing " equally among " c " friends. How many " thing \
            " does each friend get?"
        steps = "Each friend gets " b * c " / " c " = " b " " thing "."
        answer = b
    } else if (kind == 4) {
        question = who " has " a " " thing " and " other " has " c \
            " times as many. How many " thing " do they have together?"
        steps = other " has " a " * " c " = " a * c " " thing ".\\nTogether they have " a \
            " + " a * c " = " a + a * c "."
        answer = a + a * c
    } else {
        question = who " has " c " bags of " b " " thing " and loses " c " " thing ". How many " thing " remain?"
        steps = "At first there are " c " * " b " = " c * b " " thing ".\\nThen " c * b " - " c \
            " = " c * b - c " remain."
        answer = c * b - c
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
        printf "{\"role\": \"assistant\", \"content\": \"%s\\n#### %d\"}], ", steps, answer > file
        printf "\"label\": \"%d\", \"metadata\": {\"sample_id\": %d}}\n", answer, made > file
        made++
    }
}'
mv "$folder/train.jsonl.tmp" "$folder/train.jsonl"
mv "$folder/eval.jsonl.tmp" "$folder/eval.jsonl"
echo "made $folder/train.jsonl (2000 records) and $folder/eval.jsonl (100 records)"
