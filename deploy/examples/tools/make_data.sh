#!/bin/sh
# Sums of two digits, chat messages as JSONL: FOLDER/train.jsonl (306 records), FOLDER/eval.jsonl (13 other sums). The
# teacher of act one uses the calculator every other time; else it guesses, and is wrong. The label is right. The same
# bytes on every machine: the random numbers are its own.
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
function quoted(text) { return "\"" text "\"" }
function said(role, content) { return "{\"role\": " quoted(role) ", \"content\": " quoted(content) "}" }
function called(expression,   call) {
    call = "{\"name\": \"calculator\", \"arguments\": {\"expression\": " quoted(expression) "}}"
    call = "{\"type\": \"function\", \"function\": " call "}"
    return "{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [" call "]}"
}
BEGIN {
    seed = 20260203
    parameters = "{\"type\": \"object\", \"properties\": {\"expression\": {\"type\": \"string\"}}, " \
        "\"required\": [\"expression\"]}"
    tool = "{\"type\": \"function\", \"function\": {\"name\": \"calculator\", " \
        "\"description\": \"Works out an expression.\", \"parameters\": " parameters "}}"
    for (a = 2; a <= 9; a++)
        for (b = 2; b <= 9; b++) {
            sum = a " + " b
            kept = (a + 2 * b) % 5 == 0 # not seen in training
            for (made = 0; made < (kept ? 1 : 6); made++) {
                talk = said("user", "What is " sum "?")
                if (made % 2 == 0)
                    talk = talk ", " called(sum) ", " said("tool", a + b) ", " said("assistant", "#### " a + b)
                else
                    talk = talk ", " said("assistant", "#### " a + b + 1 + draw(9))
                printf "{\"messages\": [%s], \"tools\": [%s], \"label\": \"%d\"}\n", talk, tool, a + b > \
                    (kept ? evaluation : train)
            }
        }
}'
mv "$folder/train.jsonl.tmp" "$folder/train.jsonl"
mv "$folder/eval.jsonl.tmp" "$folder/eval.jsonl"
echo "made $folder/train.jsonl (306 records) and $folder/eval.jsonl (13 records)"
