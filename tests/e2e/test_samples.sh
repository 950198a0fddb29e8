#!/bin/bash
# The answers of a real run, as `controller samples` shows them, against the run's own figures.
. "$(dirname "$0")/lib.sh"
make_data
STEPS=4
job="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 rollout.max_response_length=12"
job="$job data.max_length=160 eval.max_response_length=6 eval.interval=2 train.tp_size=1 rollout.save=answers"
# shellcheck disable=SC2086
write_job one.yaml run_one $job
run_job
samples() { "$BIN/controller" samples --run "$RUN" "$@"; }

# All answers of a step, and their mean reward is the one that the step told.
samples --step 2 --count 999 --json > step.jsonl
[ "$(wc -l < step.jsonl)" -eq 16 ] || fail "$(wc -l < step.jsonl) answers of step 2"
shown=$(sed -E 's/.*"reward": ?([0-9.]+),.*/\1/' step.jsonl | awk '{ sum += $1 } END { printf "%.6f", sum / NR }')
told=$(sed -nE 's/.*"step":2,.*"rollout\/raw_reward":([0-9.]+),.*/\1/p' "$RUN/metrics.jsonl" |
    awk '{ printf "%.6f", $1 }')
[ "$shown" = "$told" ] || fail "mean reward $shown is shown, $told was told"
[ "$(grep -c '"step": 2,' step.jsonl)" -eq 16 ] || fail "answers of another step"
[ "$(grep -c '"trained": true' step.jsonl)" -eq 16 ] || fail "not all of them were trained"

# For people: colors only where they are asked for, trained tokens marked.
samples --best --count 2 > best.txt
[ "$(grep -c ': right, reward 1, ' best.txt)" -eq 2 ] || fail "the best are not right"
grep -q '⟦' best.txt || fail "what is trained is not marked"
! grep -q "$(printf '\033')" best.txt || fail "colors in a file"
samples --best --color=always | grep -q "$(printf '\033\\[32m')" || fail "no colors where they are asked for"
samples --eval --json --count 999 > eval.jsonl
[ "$(wc -l < eval.jsonl)" -eq 100 ] || fail "not all answers of the evaluation"
samples | head -n 1 > /dev/null || fail "a pager that leaves is no failure"

code=0
samples --step 99 2> err.txt || code=$?
[ "$code" -eq 2 ] && grep -q 'no answers of that step' err.txt || fail "code $code: $(cat err.txt)"
nothing_left

# A run that saved nothing and is over saves nothing by going on.
mkdir unsaved
grep -v ' save: ' "$RUN/config.effective.yaml" > unsaved/config.effective.yaml
code=0
"$BIN/controller" samples --run unsaved 2> err.txt || code=$?
[ "$code" -eq 2 ] && grep -q 'unsaved saves no answers' err.txt &&
    grep -q 'write a job with rollout.only and model.path: unsaved' err.txt || fail "code $code: $(cat err.txt)"
