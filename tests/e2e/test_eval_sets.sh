#!/bin/bash
# Evaluation sets through the real processes: what is said of a set does not depend on the others beside it, nor on
# rollout workers and kills.
# usage: test_eval_sets.sh sft | generate
. "$(dirname "$0")/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
make_data
STEPS=6
head -n 7 "$DATA/eval.jsonl" > few.jsonl
head -n 5 "$DATA/train.jsonl" > seen.jsonl
jobs="eval.interval=3 eval.before_train=true"

# figures RUN: all that the evaluations of a run say, but for times.
figures() {
    grep '"eval/' "$1/metrics.jsonl" | sed -E 's/"time":"[^"]*",//; s/,"eval[^"]*time":[^,}]*//g'
}

case $1 in
sft)
    # shellcheck disable=SC2086
    write_job alone.yaml run_alone $jobs
    run_job
    figures "$RUN" | sed -E 's/[{}]//g' > alone.txt
    # shellcheck disable=SC2086
    write_job sets.yaml run_sets $jobs 'eval.sets={"few":{"path":"few.jsonl"},"seen":{"path":"seen.jsonl"}}'
    run_job
    [ "$(grep -c '"eval/' "$RUN/metrics.jsonl")" -eq 3 ] || fail "not three evaluations"
    [ "$(grep -c '^eval few step=' "$RUN.out")" -eq 3 ] || fail "no line for the set few"
    figures "$RUN" | grep -q '"eval/few/samples":7,.*"eval/seen/samples":5,' || fail "not all samples"
    figures "$RUN" | sed -E 's/"eval\/(few|seen)\/[^,}]*,?//g; s/[{}]//g; s/,$//' > beside.txt
    cmp alone.txt beside.txt || fail "data.eval came out otherwise beside other sets"
    ;;
generate)
    jobs="$jobs rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 train.tp_size=1"
    jobs="$jobs rollout.max_response_length=12 data.max_length=160 eval.max_response_length=6"
    sets='eval.sets={"few":{"path":"few.jsonl","n_samples_per_prompt":4,"temperature":1,"top_k":50},'
    sets=$sets'"form":{"path":"seen.jsonl","reward":{"name":"format","options":{"shape":"think"}}}}'
    # shellcheck disable=SC2086
    write_job one.yaml run_one $jobs "$sets"
    run_job
    figures "$RUN" > one.txt
    [ "$(wc -l < one.txt)" -eq 3 ] || fail "not three evaluations"
    grep -q '"eval/few/pass@4":' one.txt || fail "no pass@4 of few"
    grep -q '"eval/few/prompts":7,"eval/few/samples":28,' one.txt || fail "not all answers of few"
    grep -q '"eval/form/reward":0,.*"eval/form/samples":5,' one.txt || fail "form is not judged by its own reward"
    ! grep -q '"eval/form/pass@2"' one.txt || fail "form has one answer to a prompt"
    # shellcheck disable=SC2086
    write_job three.yaml run_three $jobs "$sets" rollout.num_workers=3 rollout.lease_size=2
    start_job
    wait_for_step 2
    kill_actor rollout-1
    finish_job 0
    figures "$RUN" > three.txt
    cmp one.txt three.txt || fail "three workers and a kill say otherwise"
    ;;
esac
nothing_left
