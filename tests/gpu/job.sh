#!/usr/bin/env bash
# Whole jobs on a GPU: supervised and by reinforcement, of a tiny model and of a large one read from a folder. They must
# end with the same weights when they are stopped, killed and resumed and with any number of rollout workers, and
# generation's log-probs must be the trainer's to the bit. Prints Markdown.
# usage: tests/gpu/job.sh tiny | large
#   BIN=folder of the built programs, LARGE=shape of the large model (qwen3-0.6b), SHARES_NOTHING=KEY=VALUE of an
#   environment in which the device's memory is shared by no two processes
# Works in the current folder. What the programs must be told of CUDA and NCCL, the caller has put into the environment.
case ${1:-} in
-h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
tiny | large) ;;
*)
    echo "${1:+$1: }expected tiny or large: see tests/gpu/job.sh --help" >&2
    exit 2
    ;;
esac
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
export SOURCE
# shellcheck source=tests/e2e/lib.sh
. "$SOURCE/tests/e2e/lib.sh"
export STEPS # of write_job
LARGE=${LARGE:-qwen3-0.6b}
ON=device=cuda
JOB_MODEL=$SOURCE/deploy/examples/tiny/model
DATA=$PWD/data
[ -e "$DATA/eval.jsonl" ] || sh "$SOURCE/deploy/examples/tiny/make_data.sh" "$DATA"
generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4"

row() {
    echo "| $1 | $2 |"
}

value_of() { # FILE NAME: of the last line that has it
    sed -n "s|.*\"$2\":\([^,}]*\).*|\1|p" "$1" | tail -n 1
}

# every_log_prob_equal AT_LEAST: in each step; $compared says how many were compared. Not for $(...), which alone a
# failure would end.
every_log_prob_equal() {
    compared=$(awk -F'"train/logprob_compared":|,"train/logprob_mismatch_count":' -v least="$1" '
        /"train\/loss"/ { steps++; split($3, rest, ","); compared += $2; wrong += rest[1]; if ($2 < least) few = 1 }
        END { print compared " compared, " wrong + 0 " differ"; exit few || wrong != 0 || steps == 0 }' \
        "$RUN/metrics.jsonl") || fail "log-probs of $RUN: $compared, and at least $1 of each step were to be compared"
}

# disturb: stops the job after step 2, goes on, and kills its train worker after step 4.
disturb() {
    start_job
    wait_for_step 2
    "$BIN/controller" stop --run "$RUN" > /dev/null || fail "the job cannot be stopped"
    finish_job 5
    start_job
    wait_for_step 4
    kill -9 "$(actor_pid train-0)" || fail "could not kill train-0"
    finish_job 0
    metrics_ascend
}

start_up() { # the lines of train-0's first process
    sed -n 's/.* start_up //p' "$RUN/logs/train-0.log" | head -n 1
    sed -n 's/.* first_step //p' "$RUN/logs/train-0.log" | head -n 1
}

tiny() {
    STEPS=6
    write_job quiet.yaml quiet $ON train.tp_size=1 checkpoint.interval=2
    run_job
    expected=$(digest_of "$RUN")
    row "tiny, supervised" "$(value_of "$RUN/metrics.jsonl" train/loss) loss; $(start_up | tr '\n' ' ')"
    write_job disturbed.yaml disturbed $ON train.tp_size=1 checkpoint.interval=2
    disturb
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights than undisturbed"
    row "the same, stopped, resumed, killed" "equal weights: $(echo "$expected" | cut -c1-16)"

    STEPS=3
    answers="$generate rollout.max_response_length=24 data.max_length=160 data.eval= train.tp_size=1"
    # shellcheck disable=SC2086
    write_job one.yaml one $ON $answers checkpoint.interval=1
    run_job
    expected=$(digest_of "$RUN")
    every_log_prob_equal 64
    row "tiny, by rewards" "$compared"
    # shellcheck disable=SC2086
    write_job two.yaml two $ON $answers checkpoint.interval=1 rollout.num_workers=2
    start_job
    wait_for_step 1
    kill -9 "$(actor_pid rollout-0)" || fail "could not kill rollout-0"
    finish_job 0
    every_log_prob_equal 64
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights than with one rollout worker"
    row "the same with 2 rollout workers, one killed" "equal weights: $(echo "$expected" | cut -c1-16)"
    way "in turns" turns rollout.offload=true
    grep -q '"event":"rests"' "$RUN/events.jsonl" || fail "nobody rested"
    way "kernel by kernel" eager rollout.enforce_eager=true
    ! grep -q decode_graphs "$RUN/logs/rollout-0.log" || fail "steps are recorded in spite of enforce_eager"
    if [ -n "${SHARES_NOTHING:-}" ]; then
        export "${SHARES_NOTHING?}"
        way "weights by way of the host" host
        grep -q weights_through_host "$RUN/logs/"*.log || fail "weights did not go by way of the host"
    fi
    nothing_left
}

# way NAME RUN [SETTING...]: the job by rewards goes another way, and ends with the same weights.
way() {
    # shellcheck disable=SC2086
    write_job "$2.yaml" "$2" $ON $answers checkpoint.interval=1 "${@:3}"
    run_job
    every_log_prob_equal 64
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "$1: other weights"
    row "the same, $1" "equal weights; step $(value_of "$RUN/metrics.jsonl" perf/step_time) s"
}

large() {
    mkdir -p large
    cp "$SOURCE"/deploy/examples/tiny/model/{tokenizer.json,tokenizer_config.json,chat_template.jinja} large
    [ -e large/model.safetensors ] || "$BIN/make_model" "$LARGE" large || fail "no model"
    cat large/model.safetensors > /dev/null # into the page cache
    model="model.path=$PWD/large model.init=pretrained model.dtype=bf16 train.tp_size=1"
    STEPS=3
    # shellcheck disable=SC2086
    write_job sft.yaml sft $ON $model data.eval= checkpoint.interval=100
    run_job
    row "$LARGE, supervised" "$(value_of "$RUN/metrics.jsonl" train/loss) loss; $(start_up | tr '\n' ' ')"
    newest_checkpoint "$RUN" > saved # its weights have nothing here to be compared with
    rm -rf "$RUN/checkpoints" # which is large
    STEPS=2
    # shellcheck disable=SC2086
    write_job rl.yaml rl $ON $model $generate rollout.max_response_length=48 data.max_length=256 data.eval= \
        rollout.concurrency=16 checkpoint.interval=100
    run_job
    every_log_prob_equal 64
    row "$LARGE, by rewards" "$compared; $(start_up | tail -n 1)"
    rm -rf "$RUN/checkpoints"
    nothing_left
}

echo
echo "| job | |"
echo "|---|---|"
"$1"
