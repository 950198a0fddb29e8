#!/bin/bash
# The checkpoint of the best evaluation is kept outside of keep_last's reach, and checkpoints/best names it; after kills
# and a stop it is the same one, with the same weights.
. "$(dirname "$0")/lib.sh"
make_data
STEPS=24
# The worst counts as the best, so that the best are early ones; and evaluations fall on steps without a checkpoint.
job="eval.interval=4 checkpoint.interval=6 checkpoint.keep_last=1"
job="$job checkpoint.keep_best=2 eval.best_metric=eval/loss eval.best_mode=max"

# best RUN: what the newest manifest says, what the pointer says, the kept folders and their weights.
best() {
    sed -n '/"best/,/\]/p' "$1/checkpoints/$(cat "$1/checkpoints/latest")/manifest.json"
    cat "$1/checkpoints/best"
    for folder in "$1"/checkpoints/step_*; do
        echo "${folder##*/} $(cat "$folder"/model*.safetensors | sha256sum)"
    done
}

# shellcheck disable=SC2086
write_job quiet.yaml run_quiet $job
run_job
best "$RUN" > quiet.txt
cat quiet.txt

# It is the one with the highest loss of metrics.jsonl.
first=$(sed -nE 's/.*"step":([0-9]+),"eval\/loss":([0-9.e+-]+),.*/\2 \1/p' "$RUN/metrics.jsonl" |
    sort -gr | head -n 1 | cut -d' ' -f2)
[ "$(cat "$RUN/checkpoints/best")" = "$(printf step_%08d "$first")" ] || fail "the best is step $first"
grep -q "best step=$first eval/loss=" "$RUN.out" || fail "the end does not tell the best"
[ "$first" -lt 10 ] || fail "the loss grows"
kept=$(ls -d "$RUN"/checkpoints/step_* | wc -l)
[ "$kept" -eq 3 ] || fail "$kept checkpoints are kept: two of the best and the newest"

# As a model it is what best says.
"$BIN/controller" validate --config "$JOB" --set model.path="$RUN/checkpoints/best" --set model.init=pretrained \
    --set run_dir="$PWD/other" > validate.txt || fail "checkpoints/best is no model"

# shellcheck disable=SC2086
write_job killed.yaml run_killed $job rollout.num_workers=2
start_job
wait_for_step 5
kill_actor train-0
wait_for_step 10
kill -9 "$CONTROLLER"
finish_job 137
start_job
wait_for_step 13
kill -INT "$CONTROLLER"
finish_job 5
run_job
best "$RUN" > killed.txt
diff quiet.txt killed.txt || fail "after kills and a stop others are the best"
metrics_ascend
nothing_left
