#!/bin/sh
# Sums of four digits, chat messages as JSONL: FOLDER/train.jsonl (2,000 records), FOLDER/eval.jsonl (100 others). The
# teacher of act one is lazy: two of five times it calls the calculator, else it says that it does not know. The label
# is right. The same bytes on every machine: the random numbers are its own.
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
    for (made = 0; made < 2100; ) {
        a = 1 + draw(9); b = 1 + draw(9); c = 1 + draw(9); d = 1 + draw(9)
        sum = a " + " b " + " c " + " d
        if (sum in seen) continue
        seen[sum] = 1
        talk = said("user", "What is " sum "?")
        if (draw(5) < 2)
            talk = talk ", " called(sum) ", " said("tool", a + b + c + d) ", " said("assistant", "#### " a + b + c + d)
        else
            talk = talk ", " said("assistant", "I do not know.")
        printf "{\"messages\": [%s], \"tools\": [%s], \"label\": \"%d\"}\n", talk, tool, a + b + c + d > \
            (made < 100 ? evaluation : train)
        made++
    }
}'
mv "$folder/train.jsonl.tmp" "$folder/train.jsonl"
mv "$folder/eval.jsonl.tmp" "$folder/eval.jsonl"
echo "made $folder/train.jsonl (2000 records) and $folder/eval.jsonl (100 records)"
