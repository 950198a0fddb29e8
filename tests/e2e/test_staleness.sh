#!/bin/bash
# Answers that are ahead of training, through the real processes.
# partial: new weights take over in the middle of answers, which say which of their tokens come from which; log-probs
#   of tokens from the weights that learn from them are the trainer's to the bit.
# kept: the same with the old keys and values; what is drawn with several versions is then compared with none.
# over_sampling: more prompts than a step needs are out at once, and with weights of the step alone that changes no bit
#   of what is trained, whoever answers and whatever is killed.
# usage: test_staleness.sh partial | kept | over_sampling
. "$(dirname "$0")/lib.sh"
[ "$1" = over_sampling ] || JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
make_data
STEPS=8

generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 data.max_length=260"
generate="$generate rollout.max_response_length=120 algorithm.entropy_coef=0.01 eval.interval=0 checkpoint.interval=0"
generate="$generate eval.max_response_length=4 train.tp_size=1"

# sum_of NAME: of a metric over all steps.
sum_of() {
    sed -n "s|.*\"$1\":\([-0-9.e+]*\).*|\1|p" "$RUN/metrics.jsonl" | awk '{ sum += $1 } END { print sum + 0 }'
}

# is METRIC CONDITION: of its sum over the run.
is() {
    awk "BEGIN { exit !($(sum_of "$1") $2) }" || fail "$1 is $(sum_of "$1") in all, expected $2"
}

# throttle ACTOR: it works a fifth of the time as long as the run lasts, so that training is the faster one. Answers are
# then in work when new weights come.
throttle() {
    local pid
    pid=$(actor_pid "$1")
    while kill -STOP "$pid"; do
        sleep 0.08
        kill -CONT "$pid" || break
        sleep 0.02
    done 2> /dev/null
}

case $1 in
partial | kept)
    asynchronous="$generate rollout.num_workers=2 rollout.concurrency=1 rollout.max_staleness=1"
    asynchronous="$asynchronous algorithm.correction=tis algorithm.old_log_probs=current"
    [ "$1" = partial ] || asynchronous="$asynchronous rollout.partial=keep"
    # shellcheck disable=SC2086
    write_job job.yaml run $asynchronous rollout.save="$PWD/saved"
    start_job
    wait_for_step 1
    throttle rollout-0 &
    throttle rollout-1 &
    finish_job 0
    metrics_ascend
    nothing_left
    is rollout/partial_samples "> 0"
    is rollout/staleness/token_mean "> 0"
    is train/logprob_compared "> 0"
    is train/logprob_mismatch_count "== 0"
    awk -F'"rollout/staleness/(token_)?max":' '
        /"train\/loss"/ { split($2, a, ","); split($3, b, ","); if (a[1] > 1 || b[1] > 1) exit 1 }' \
        "$RUN/metrics.jsonl" || fail "an answer is older than max_staleness"
    # Answers of two versions, the later one behind the earlier: [[3, 17], [4, 103]]. They train in the step of the
    # later one, so those 103 tokens are compared.
    later=$(grep -rhoE '"versions": \[\[[0-9]+, [0-9]+\], \[[0-9]+, [0-9]+' saved/train |
        awk -F'[][, ]+' '$4 == $2 + 1 { sum += $5 } END { print sum + 0 }')
    [ "$later" -gt 0 ] || fail "no saved answer has two versions"
    [ "$1" = kept ] || is train/logprob_compared ">= $later"
    ;;
over_sampling)
    generate="$generate rollout.n_samples_per_prompt=2 algorithm.dynamic_filter=zero_variance"
    generate="$generate rollout.max_response_length=16"
    # shellcheck disable=SC2086
    write_job plain.yaml run_plain $generate
    run_job
    expected=$(digest_of "$RUN")
    for workers in 1 3; do
        # shellcheck disable=SC2086
        write_job over.yaml run_over_$workers $generate rollout.over_sampling=2.5 rollout.num_workers=$workers
        run_job
        metrics_ascend
        nothing_left
        [ "$(digest_of "$RUN")" = "$expected" ] || fail "over-sampling with $workers workers gives other weights"
        is train/logprob_mismatch_count "== 0"
        is rollout/dynamic_filter/drop_zero_variance "> 0"
        is rollout/too_stale/recomputed "+ $(sum_of rollout/too_stale/given_up) > 0"
        is rollout/too_stale/dropped "== 0"
    done

    # shellcheck disable=SC2086
    write_job killed.yaml run_killed $generate rollout.over_sampling=2.5 rollout.num_workers=2
    start_job
    for actor in rollout-1 train-0; do
        wait_for_step 2
        kill_actor $actor
    done
    finish_job 0
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "over-sampling and kills give other weights"

    dropped=
    for workers in 1 3; do
        # shellcheck disable=SC2086
        write_job drop.yaml run_drop_$workers $generate rollout.over_sampling=2.5 rollout.too_stale=drop \
            rollout.num_workers=$workers
        run_job
        nothing_left
        [ "${dropped:-$(digest_of "$RUN")}" = "$(digest_of "$RUN")" ] || fail "what is dropped depends on the workers"
        dropped=$(digest_of "$RUN")
        is rollout/too_stale/dropped "> 0"
    done
    [ "$dropped" != "$expected" ] || fail "nothing was dropped"
    ;;
esac
