#!/bin/bash
# Jobs whose samples a tool, a program or a shared object has a part in, through the real processes: the weights do not
# depend on the number of workers, log-probs are the trainer's to the bit, and failures are told.
# usage: test_functions.sh tools | program | plugin | failures | unreached | refusals
. "$(dirname "$0")/lib.sh"
make_data
EXAMPLES=$SOURCE/deploy/examples
if [ "$1" != plugin ] && ! command -v python3 > /dev/null; then
    echo "skipped: there is no python3"
    exit 77
fi

# use_job FILE RUN [SETTING ...]: one of the examples, with other data and fewer steps.
use_job() {
    JOB=$EXAMPLES/$1 RUN=$PWD/$2
    shift 2
    SETTINGS="--set run_dir=$RUN --set cluster.cpus=16"
    for setting in "$@"; do SETTINGS="$SETTINGS --set $setting"; done
}

# figures NAME: the values of a figure in the run's steps, one a line.
figures() {
    sed -n "s|.*\"$1\":\([-0-9.e]*\).*|\1|p" "$RUN/metrics.jsonl"
}

# no_mismatch STEPS: every step compared log-probs, and none differed in a bit.
no_mismatch() {
    [ "$(figures train/logprob_compared | awk '$1 > 0' | wc -l)" -eq "$1" ] || fail "log-probs were not compared"
    [ -z "$(figures train/logprob_mismatch_count | grep -v '^0$')" ] || fail "log-probs differ"
}

# A program that starts, and ends at the first line that it is asked.
printf '%s\n' '#!/bin/sh' 'read -r line' 'echo "out of order" >&2' 'exit 1' > fails.sh
chmod +x fails.sh

# tiny_model: settings of a model of random weights and of data that it has not seen.
tiny_model="model.path=$EXAMPLES/tiny/model model.init=random data.train=$DATA/train.jsonl data.eval=$DATA/eval.jsonl"
tiny_model="$tiny_model train.num_steps=4 train.global_batch_size=32 rollout.n_samples_per_prompt=4"
tiny_model="$tiny_model eval.before_train=false eval.interval=0 algorithm.entropy_coef=0.01"

case $1 in
tools) # a model that learnt to call the calculator
    tools=$BIN/../scratch/tools_data
    sh "$EXAMPLES/tools/make_data.sh" "$tools"
    grep tool_calls "$tools/train.jsonl" > calls.jsonl
    data="data.eval=$tools/eval.jsonl"
    use_job tools/sft.yaml run_sft "$data" data.train=calls.jsonl train.num_steps=60 eval.interval=0
    run_job
    model=$RUN
    rl="$data data.train=$tools/train.jsonl model.path=$model train.num_steps=2 train.global_batch_size=32"
    rl="$rl eval.interval=0 train.lr=1e-6" # it stays as it is
    # shellcheck disable=SC2086
    use_job tools/rl.yaml run_one $rl rollout.save=saved
    run_job
    no_mismatch 2
    [ "$(figures tools/call_frequency | awk '$1 > 0.5' | wc -l)" -ge 2 ] || fail "the model calls no tools"
    [ "$(figures tools/failure_frequency | awk '$1 < 1' | wc -l)" -ge 1 ] ||
        fail "all calls were answered with an error"
    [ "$(figures rollout/turns/max | sort -n | tail -n 1)" -ge 2 ] || fail "no answer has two turns"
    [ "$(figures rollout/failed | sort -n | tail -n 1)" -eq 0 ] || fail "a tool failed"
    # What the tool says stands in the sample, and is not trained.
    grep -h '<|im_start|>tool' -r saved/train | awk -F'"loss_mask": \\[|\\], "log_probs"' '
        { gsub(/[^01]/, "", $2); if ($2 !~ /^0+1+0+1+/) { print; exit 1 } lines++ }
        END { exit lines < 10 }' || fail "what tools say is trained, or there is too little of it"
    expected=$(digest_of "$RUN")
    nothing_left
    # shellcheck disable=SC2086
    use_job tools/rl.yaml run_three $rl rollout.num_workers=3 rollout.lease_size=1
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights with three workers"
    nothing_left
    # A tool that ends at every call is nobody's wrong answer.
    # shellcheck disable=SC2086
    use_job tools/rl.yaml run_failing $rl rollout.failures_max=2 \
        'rollout.tools=[{"name":"calculator","command":"'"$PWD"'/fails.sh"}]'
    start_job
    finish_job 4
    for text in "controller: a tool failed at " "each tried 4 times (limit: rollout.failures_max 2)" \
        'tool "calculator": ' "fails.sh exited with status 1: out of order"; do
        grep -qF "$text" "$RUN.out" || fail "nothing is said of: $text"
    done
    nothing_left
    ;;
program) # in Python; killed while it works
    # shellcheck disable=SC2086
    use_job rollout/job.yaml run_one $tiny_model
    run_job
    no_mismatch 4
    [ "$(figures rollout/turns/mean | sort -u)" = 2 ] || fail "not every answer has two turns"
    expected=$(digest_of "$RUN")
    nothing_left
    # shellcheck disable=SC2086
    use_job rollout/job.yaml run_killed $tiny_model rollout.num_workers=2 rollout.function_processes=1
    start_job
    wait_for_step 1
    for pid in $(processes_of 'python3 refine.py'); do
        if grep -q "$(sockets_of_run)" "/proc/$(awk '{ print $4 }' "/proc/$pid/stat")/cmdline"; then kill -9 "$pid"; fi
    done
    finish_job 0
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights after a kill"
    no_mismatch 4
    nothing_left
    ;;
plugin)
    # shellcheck disable=SC2086
    use_job rollout/job.yaml run_one $tiny_model rollout.function_processes=1 rollout.reward=random \
        "rollout.function=plugin:$BIN/rollout_recheck.so"
    run_job
    no_mismatch 4
    [ "$(figures rollout/turns/mean | sort -u)" = 2 ] || fail "not every answer has two turns"
    expected=$(digest_of "$RUN")
    # shellcheck disable=SC2086
    use_job rollout/job.yaml run_three $tiny_model rollout.function_processes=1 rollout.reward=random \
        "rollout.function=plugin:$BIN/rollout_recheck.so" rollout.num_workers=3
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights with three workers"
    nothing_left
    ;;
failures) # a program that ends at every record
    # shellcheck disable=SC2086
    use_job rollout/job.yaml run_failing $tiny_model rollout.function=process:$PWD/fails.sh rollout.failures_max=24
    start_job
    finish_job 4
    for text in "the rollout function failed at each of 5 samples or records, each tried 4 times" \
        "it has never gone well" \
        "limit: 4 then, later rollout.failures_max" "fails.sh exited with status 1: out of order" \
        "tried_again what=\"rollout-0: rollout.function: " "to do: mend it"; do
        grep -qF "$text" "$RUN.out" || fail "nothing is said of: $text"
    done
    [ "$(grep -c sample_skipped "$RUN.out")" -le 1 ] || fail "one reason is told for each record"
    ! grep -q "data inspect.* lists" "$RUN.out" || fail "data inspect is said to show what a run alone meets"
    nothing_left
    ;;
unreached) # rewards by a server that is down, and by a program that judges nothing of one evaluation set
    # shellcheck disable=SC2086
    use_job rollout/job.yaml run_down $tiny_model rollout.function=generate rollout.function_processes=1 \
        rollout.failing_s=24 'rollout.reward={"name":"http","options":{"url":"http://127.0.0.1:9/score"}}'
    start_job
    finish_job 4
    for text in "tried_again what=\"rollout-0: rollout.reward: http://127.0.0.1:9/score: " \
        "rollout.reward failed at every try for " "(limit: 6 s, a quarter of rollout.failing_s)"; do
        grep -qF "$text" "$RUN.out" || fail "nothing is said of: $text"
    done
    tail -n 1 "$RUN.out" | grep -q "^to do: " || fail "something is said behind what is to be done"
    nothing_left
    head -n 2 "$DATA/eval.jsonl" > two.jsonl
    # shellcheck disable=SC2086
    use_job rollout/job.yaml run_unjudged $tiny_model rollout.function=generate rollout.function_processes=1 \
        rollout.reward=random train.num_steps=1 eval.interval=1
    { grep -v '^eval:' "$JOB"
      echo "eval: {sets: {two: {path: $PWD/two.jsonl, reward: {name: process, options: {command: $PWD/fails.sh}}}}}"
    } > unjudged.yaml
    JOB=unjudged.yaml
    run_job
    for text in "eval two step=1/1 no answer was judged: unjudged=2" "nothing_was_judged set=two" \
        "see to what judges it (eval.sets.two.reward"; do
        grep -qF "$text" "$RUN.out" || fail "nothing is said of: $text"
    done
    nothing_left
    ;;
refusals) # before anything starts
    while IFS='|' read -r setting text; do
        # shellcheck disable=SC2086
        use_job rollout/job.yaml run_refused $tiny_model $setting
        for command in "controller" "controller validate"; do
            # shellcheck disable=SC2086
            if "$BIN"/$command --config "$JOB" $SETTINGS > out 2>&1; then fail "$command takes $setting"; fi
            grep -qF "$text" out || fail "$command says of $setting: $(cat out)"
        done
        [ ! -e "$RUN" ] || fail "a run was begun with $setting"
    done << 'TEXT'
rollout.function=process:no-such-program|there is no program "no-such-program" in PATH
rollout.function=plugin:none.so rollout.function_processes=1|cannot load rollout plugin
rollout.function=proces:python3|Did you mean process:...?
rollout.function=plugin|Did you mean plugin:...?
rollout.function=process:false|rollout.function: false exited with status 1, before anything was asked of it
rollout.reward={"name":"process","options":{"command":["sh","no.sh"]}}|reward process: sh no.sh exited with status
rollout.max_turns=3|rollout.max_turns has no effect without rollout.tools
rollout.tools=[]|rollout.tools has no effect with a rollout function of your own
rollout.reward=gsm9k|did you mean gsm8k?
TEXT
    while IFS='|' read -r setting text; do
        # shellcheck disable=SC2086
        use_job tools/rl.yaml run_refused $tiny_model "$setting" \
            model.chat_template=$EXAMPLES/tools/chat_template.jinja
        # shellcheck disable=SC2086
        if "$BIN/controller" --config "$JOB" $SETTINGS > out 2>&1; then fail "the controller takes $setting"; fi
        grep -qF "$text" out || fail "the controller says of $setting: $(cat out)"
    done << 'TEXT'
rollout.tools=[]|rollout.tools: tools is an empty list, expected a list with a tool at least
rollout.tools=[{"name":"a"}]|rollout.tools: tools[0] has neither command nor url
rollout.tools=[{"name":"a","command":"false"}]|rollout.tools: tools[0]: false exited with status 1, before anything
rollout.tools=[{"name":"a","comand":"a"}]|did you mean command?
rollout.tools=[{"command":"cat"}]|functions is missing
rollout.tool_format=hermess|did you mean hermes?
rollout.function_processes=2|has no effect unless rollout.function is process:COMMAND
TEXT
    ;;
esac
