#!/bin/bash
# Half runs. only: answers are generated, judged and saved, the same bytes with three workers of which one is killed;
# nothing is trained. load: a run that trains on what another saved ends with that run's weights, to the bit.
# usage: test_half_runs.sh only | load
. "$(dirname "$0")/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
make_data
STEPS=5
job="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 rollout.max_response_length=12"
job="$job data.max_length=160 eval.max_response_length=6 checkpoint.interval=2 train.tp_size=1"

digest_of_answers() { (cd "$1" && find . -name '*.jsonl' | sort | xargs sha256sum | sha256sum); }

case $1 in
only)
    # shellcheck disable=SC2086
    write_job one.yaml run_one $job rollout.only=true rollout.save=answers_one
    run_job
    nothing_left
    [ "$(find answers_one/train -name '*.jsonl' | wc -l)" -eq 20 ] || fail "not 20 groups are saved"
    [ "$(cat answers_one/train/*/*.jsonl | grep -c '"versions": \[\[1, ')" -eq 80 ] ||
        fail "other weights than the first"
    [ -z "$(ls "$RUN/checkpoints")" ] || fail "a run that trains nothing has a checkpoint"
    [ "$(grep -c '"rollout/raw_reward"' "$RUN/metrics.jsonl")" -eq 5 ] || fail "not five lines of metrics"
    ! grep -q '"train/' "$RUN/metrics.jsonl" || fail "metrics tell of training"
    [ "$(grep -c '"eval/reward"' "$RUN/metrics.jsonl")" -eq 1 ] || fail "not one evaluation"
    "$BIN/controller" samples --run "$RUN" --step 5 --count 99 --json | grep -c '"step": 5,' | grep -qx 16 ||
        fail "samples does not show step 5"

    # shellcheck disable=SC2086
    write_job three.yaml run_three $job rollout.only=true rollout.save=answers_three rollout.num_workers=3 \
        rollout.lease_size=2
    start_job
    wait_for_step 1
    kill -9 "$(actor_pid rollout-1)" || true # unless it is over
    finish_job 0
    [ "$(digest_of_answers answers_one)" = "$(digest_of_answers answers_three)" ] || fail "other answers"

    # All records of a few, though they fill no batch; and it is told what is missing.
    head -n 6 "$DATA/train.jsonl" > few.jsonl
    # shellcheck disable=SC2086
    write_job few.yaml run_few $job rollout.only=true rollout.save=answers_few data.train=few.jsonl \
        train.num_epochs=1 rollout.n_samples_per_prompt=1
    run_job
    [ "$(find answers_few/train -name '*.jsonl' | wc -l)" -eq 6 ] || fail "not all of a smaller batch"
    # shellcheck disable=SC2086
    write_job none.yaml run_none $job rollout.only=true
    start_job
    finish_job 2
    grep -q 'save: answers' "$RUN.out" || fail "the refusal does not say what to write"
    ;;
load)
    # shellcheck disable=SC2086
    write_job whole.yaml run_whole $job rollout.save=answers algorithm.entropy_coef=0.01
    run_job
    expected=$(digest_of "$RUN")
    # shellcheck disable=SC2086
    write_job half.yaml run_half $job rollout.load=answers algorithm.entropy_coef=0.01 rollout.num_workers=2
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights than the run that generated"
    [ "$(grep -c '"train/logprob_mismatch_count":0,' "$RUN/metrics.jsonl")" -eq $STEPS ] ||
        fail "log-probs of the same weights were not compared"
    nothing_left

    # Another algorithm on the same answers goes elsewhere.
    # shellcheck disable=SC2086
    write_job other.yaml run_other $job rollout.load=answers algorithm.advantage_estimator=rloo
    run_job
    other=$(digest_of "$RUN")
    [ "$other" != "$expected" ] || fail "another algorithm made the same weights"
    grep -q '"train/logprob_mismatch_count":0,' "$RUN/metrics.jsonl" || fail "the first weights are the same"
    grep -q '"train/logprob_mismatch_count":null,' "$RUN/metrics.jsonl" || fail "later ones cannot be compared"
    ! grep -q '"train/logprob_mismatch_count":[1-9]' "$RUN/metrics.jsonl" || fail "other weights count as mismatches"

    # Answers to other prompts: looking at the records would not show it.
    # shellcheck disable=SC2086
    write_job seed.yaml run_seed $job rollout.load=answers algorithm.entropy_coef=0.01 seed=99
    start_job
    finish_job 3
    grep -q "answers another prompt than" "$RUN.out" || fail "not told"
    ! grep -q "controller validate" "$RUN.out" || fail "the advice is of another thing"
    ;;
esac
