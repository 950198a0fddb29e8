#!/usr/bin/env bash
# bench_train over shapes where there is no python3 for compare_train.py: ours alone. Prints Markdown, a row at a time.
# usage: tests/gpu/train_rows.sh ROUNDS SHAPE...     (qwen3-0.6b:2+4x4096: 2, then 4 documents of 4,096 tokens)
#   BIN=folder of bench_train, OPTIONS of it
set -uo pipefail
case ${1:-} in
-h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
if [ $# -lt 2 ]; then
    sed -n 's/^# usage/usage/p' "$0" >&2
    exit 2
fi
rounds=$1 failed=0
shift

# take SHAPE DOCUMENTS LENGTH: a row.
take() {
    local code=0 what="$1 | $2 x $3" why
    # shellcheck disable=SC2086
    "$BIN/bench_train" device=cuda "shape=$1" "sequences=$2" "length=$3" "rounds=$rounds" ${OPTIONS:-} > row.out \
        2> row.err || code=$?
    why=$(grep -o "the train worker needs[^(]*" row.err)
    if [ "$code" = 0 ]; then
        awk -v what="$what" '
            /^tokens\/s/ { best = $3; median = $5 }
            /^MFU/ { mfu = $5 " %" }
            /^memory/ { memory = $2 ", " $5 }
            END { printf "| %s | %d | %d | %s | skipped: no python3 | %s |\n", what, best, median, mfu, memory }
        ' row.out
    elif [ -n "$why" ]; then
        echo "| $what | does not fit: $why | | | | |"
    else
        echo "| $what | **$(tail -n 1 row.err)** | | | | |"
        failed=1
    fi
}

echo "| shape | documents | ours, tokens/s, best | median | MFU | PyTorch | GiB planned, taken |"
echo "|---|---|---|---|---|---|---|"
for shape in "$@"; do
    sizes=${shape#*:}
    sizes=${sizes%%/*}
    for documents in $(echo "${sizes%x*}" | tr + ' '); do
        take "${shape%%:*}" "$documents" "${sizes#*x}"
    done
done
exit $failed
