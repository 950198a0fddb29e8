#!/bin/bash
# Data that is odd rather than broken: messages that the chat template passes over, arguments that are no JSON, and a
# file that changes under a run.
. "$(dirname "$0")/lib.sh"
make_data
good=$DATA/train.jsonl

# In Qwen3's manner: no word for a developer. Every third record has one.
cat > template.jinja <<'JINJA'
{%- for message in messages %}
    {%- if message.role in ["system", "user", "assistant"] %}
        {{- "<|im_start|>" + message.role + "\n" + message.content }}
        {%- for call in message.tool_calls or [] %}{{- "<call>" + call.function.arguments }}{%- endfor %}
        {{- "<|im_end|>\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\n" }}{%- endif %}
JINJA
head -n 60 "$good" | sed '0~3s/"messages": *\[/&{"role": "developer", "content": "Be brief."}, /' > odd.jsonl
[ "$(grep -c developer odd.jsonl)" -eq 20 ] || fail "the test's own data is wrong"
call='{"type": "function", "function": {"name": "f", "arguments": "{\"x\": "}}'
said='{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": ['
echo '{"messages": ['"$said$call"']}]}' \
    >> odd.jsonl
odd="data.train=[$PWD/odd.jsonl] model.chat_template=$PWD/template.jinja train.num_steps=12"

# shellcheck disable=SC2086
write_job job1.yaml run1 $odd
start_job
finish_job 3
grep -q "odd.jsonl:[0-9]*: messages\[0\] (developer) does not appear in what the chat template renders" "$RUN.out" ||
    fail "the dropped message was not named"
grep -q "set data.not_rendered to keep" "$RUN.out" || fail "no way out was named"

# shellcheck disable=SC2086
write_job job2.yaml run2 $odd data.not_rendered=keep
run_job
[ "$(grep -c "sample_odd" "$RUN/events.jsonl")" -eq 11 ] || fail "not ten records were named, and that there are more"
grep -Eq 'records_odd records=[0-9]+ what=not_rendered' "$RUN.out" || fail "what was not rendered is not counted"
grep -Eq 'records_odd records=[0-9]+ what=bad_arguments' "$RUN.out" || fail "the end does not count bad arguments"
grep -q "records_skipped" "$RUN.out" && fail "nothing was skipped"

# A third is skipped: status says so while it runs.
# shellcheck disable=SC2086
write_job job3.yaml run3 $odd data.not_rendered=skip train.num_steps=4000
start_job
wait_for_step 20
tries=0
until grep -q ' skipped=3[0-9]\.[0-9]%(not_rendered)' "$RUN.out"; do # now and then there is one
    tries=$((tries + 1))
    [ "$tries" -lt 400 ] || fail "the progress lines do not tell of so many"
    sleep 0.05
done
"$BIN/controller" status --run "$RUN" > status.txt
"$BIN/controller" status --run "$RUN" --json > status.json
kill -INT "$CONTROLLER"
finish_job 5
grep -Eq "skipped \(3[0-9]\.[0-9] %, mostly not_rendered\)" status.txt ||
    fail "status does not tell of so many: $(cat status.txt)"
grep -q '"mostly":"not_rendered"' status.json || fail "nor does its JSON"

# A file that changes under a run ends it, with all that was trained.
cp "$good" moving.jsonl
write_job job4.yaml run4 "data.train=[$PWD/moving.jsonl]" train.num_steps=4000 checkpoint.interval=0
start_job
wait_for_step 10
head -n 1 "$good" >> moving.jsonl
code=0
wait "$CONTROLLER" || code=$?
[ "$code" -ne 0 ] || fail "the run went on with another file"
grep -q "moving.jsonl was changed during the run" "$RUN.out" || fail "the file was not named"
steps=$(grep -c '"train/loss"' "$RUN/metrics.jsonl")
[ -d "$RUN/checkpoints/$(printf 'step_%08d' "$steps")" ] || fail "of $steps steps $(ls "$RUN/checkpoints") is committed"
tail -n 1 "$RUN.out" | grep -q "^Step $steps is committed. First mend what is said above; then the same command goes" ||
    fail "the end does not say what is to be done first: $(tail -n 1 "$RUN.out")"
start_job
finish_job 3
cp "$good" moving.jsonl
SETTINGS="$SETTINGS --set train.num_steps=$((steps + 2))"
run_job
grep -q "resuming step=$steps" "$RUN.out" || fail "the same command did not go on from step $steps"
nothing_left
echo "odd data is told"
