#!/bin/bash
# Reinforcement learning through the real processes: log-probs of generation are the trainer's to the bit, and the same
# job gives the same weights with one and with four rollout workers, after a stop and a resume, and however often its
# processes are killed.
# usage: test_generate.sh workers | updates | tensor_parallel | rank_processes | kills | many_kills
. "$(dirname "$0")/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
make_data
STEPS=12
[ "$1" != many_kills ] || STEPS=20
[ "$1" != kills ] || STEPS=16

# The answers of random weights are noise, and so is their reward: all that matters here is which tokens are drawn.
generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4"
generate="$generate rollout.max_response_length=16 data.max_length=160 eval.max_response_length=8"
generate="$generate algorithm.entropy_coef=0.01 checkpoint.interval=5 eval.interval=6 train.tp_size=${TP:-1}"

# Several optimizer steps on each rollout: the later ones of a step learn from answers of other weights.
[ "$1" != updates ] || generate="$generate train.num_steps_per_rollout=2 algorithm.eps_clip=1e-4"

# Longer steps, so that there is time to kill in.
[ "$1" != many_kills ] || generate="$generate rollout.max_response_length=90 train.global_batch_size=64"

# no_mismatch: every step of the run compared log-probs, and none differed in a bit.
no_mismatch() {
    awk -F'"train/logprob_compared":|,"train/logprob_mismatch_count":' '
        /"train\/loss"/ { steps++; split($3, rest, ","); if ($2 < 64 || rest[1] != 0) { print; exit 1 } }
        END { exit steps != '$STEPS' }' "$RUN/metrics.jsonl" || fail "log-probs differ, or were not compared"
}

# same_as_before: whatever became of the run, these are the weights.
same_as_before() {
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights: $1"
    no_mismatch
    metrics_ascend
    nothing_left
}

# kill_in_turn ACTOR ...: one every two steps, from the first on.
kill_in_turn() {
    local step=1 actor
    for actor; do
        wait_for_step $step
        kill_actor "$actor"
        step=$((step + 2))
    done
}

# shellcheck disable=SC2086
write_job one.yaml run_one $generate
run_job
expected=$(digest_of "$RUN")
no_mismatch
grep -q '"eval/pass@1"' "$RUN/metrics.jsonl" || fail "no evaluation was made"
nothing_left

case $1 in
workers)
    # shellcheck disable=SC2086
    write_job four.yaml run_four $generate rollout.num_workers=4 rollout.lease_size=1
    run_job
    same_as_before "four rollout workers"

    # shellcheck disable=SC2086
    write_job stopped.yaml run_stopped $generate rollout.num_workers=2
    start_job
    wait_for_step 7
    kill -INT "$CONTROLLER"
    finish_job 5
    nothing_left
    run_job
    same_as_before "a stop and a resume"

    # Filters and penalties: log-probs agree all the same, and whoever asks for them is warned.
    biased="rollout.top_p=0.8 rollout.repetition_penalty=1.25 rollout.min_new_tokens=2"
    # shellcheck disable=SC2086
    write_job biased.yaml run_biased $generate $biased
    # shellcheck disable=SC2086
    "$BIN/controller" validate --config biased.yaml $SETTINGS >valid.txt || fail "validate refuses filters"
    run_job
    no_mismatch
    for out in valid.txt "$RUN.out"; do
        grep -q "policy itself (rollout.top_p 0.8, rollout.repetition_penalty 1.25, rollout.min_new_tokens 2)" "$out" ||
            fail "nobody is warned in $out: $(cat "$out")"
    done
    ;;
updates)
    moved=$(sed -n 's|.*"train/pg_clipfrac":\([0-9.e-]*\).*"train/ratio/max":\([0-9.e-]*\).*|\1 \2|p' \
        "$RUN/metrics.jsonl" | awk '$1 > 0 && $2 > 1' | wc -l)
    [ "$moved" -eq $STEPS ] || fail "ratios moved in $moved of $STEPS steps"
    grep -q '"train/samples":32,' "$RUN/metrics.jsonl" || fail "a step is not of two batches of 16"

    # shellcheck disable=SC2086
    write_job two.yaml run_two $generate rollout.num_workers=2 rollout.lease_size=1 cluster.restarts_max=100
    start_job
    wait_for_step 3
    kill_actor rollout-1
    wait_for_step 7
    kill_actor train-0
    wait_for_step 9
    kill -INT "$CONTROLLER"
    finish_job 5
    run_job
    same_as_before "two rollout workers, two kills and a stop"
    ;;
tensor_parallel) # the answers of a rollout worker whose ranks are laid out as the trainer's
    TP=2
    # shellcheck disable=SC2086
    write_job two.yaml run_two ${generate/tp_size=1/tp_size=2}
    run_job
    no_mismatch
    expected=$(digest_of "$RUN")
    # shellcheck disable=SC2086
    write_job three.yaml run_three ${generate/tp_size=1/tp_size=2} rollout.num_workers=3
    run_job
    same_as_before "three rollout workers"
    ;;
rank_processes) # a process for each rank of a rollout worker answers as threads of one do, and all go when one does
    # shellcheck disable=SC2086
    write_job threads.yaml run_threads ${generate/tp_size=1/tp_size=2}
    run_job
    expected=$(digest_of "$RUN")
    ranks="rollout.rank_processes=true rollout.num_workers=2 rollout.lease_size=1 cluster.restarts_max=100"
    # shellcheck disable=SC2086
    write_job ranks.yaml run_ranks ${generate/tp_size=1/tp_size=2} $ranks
    start_job
    kill_in_turn rollout-0.1 rollout-1 train-1 rollout-1.1
    finish_job 0
    same_as_before "ranks in processes, and kills"
    for actor in rollout-0 rollout-0.1; do # with the one that was killed
        grep -qF '"event":"actor","name":"'"$actor"'","state":"restarting"' "$RUN/events.jsonl" ||
            fail "$actor was not started again"
    done
    ;;
kills) # of each kind in turn
    # shellcheck disable=SC2086
    write_job killed.yaml run_killed $generate rollout.num_workers=2 cluster.restarts_max=100
    start_job
    kill_in_turn rollout-0 rollout-1 train-0 rollout-1 data_source rollout-0
    finish_job 0
    same_as_before "kills"
    ;;
many_kills) # 50 of rollout workers, at moments drawn from a seed, in a run of 20 steps
    RANDOM=${SEED:-1}
    # shellcheck disable=SC2086
    write_job many.yaml run_many $generate rollout.num_workers=4 cluster.restarts_max=1000
    start_job
    kills=0
    while [ $kills -lt 50 ] && kill -0 "$CONTROLLER" 2> /dev/null; do
        pid=$(actor_pid rollout-$((RANDOM % 4)))
        if [ "${pid:-null}" != null ] && [ "$pid" != 0 ] && kill -9 "$pid" 2> /dev/null; then kills=$((kills + 1)); fi
        sleep 0.0$((RANDOM % 9))
    done
    finish_job 0
    same_as_before "$kills kills"
    echo "killed $kills rollout workers"
    [ $kills -eq 50 ] || fail "the run was over after $kills kills"
    ;;
esac
echo "same weights: $expected"
