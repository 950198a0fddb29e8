#!/bin/bash
# What a person does with the controller besides running a job to its end: stop it, look at it, check a job, resume one
# with other settings, close its terminal. One case a call, against the real programs.
# usage: BIN=... SOURCE=... test_commands.sh CASE      (`list` prints the cases)
. "$(dirname "$0")/lib.sh"

# refused CODE COMMAND...: it ends with this code and a message, which is then in ./message.
refused() {
    local expected=$1 code=0
    shift
    "$@" >message 2>&1 || code=$?
    [ "$code" = "$expected" ] || fail "exit code $code, expected $expected: $* ($(cat message))"
}

# says FILE TEXT...: each stands in the file.
says() {
    local file=$1 text
    shift
    for text in "$@"; do grep -qF -- "$text" "$file" || fail "$file does not say: $text"; done
}

# wait_for_text TEXT: until the job has printed it.
wait_for_text() {
    local tries=0
    until grep -qF -- "$1" "$RUN.out"; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "not said in 30 s: $1"
        sleep 0.05
    done
}

# A job that goes on until it is stopped.
start_endless() {
    STEPS=1000000 write_job endless.yaml "$@"
    start_job
}

# ---- arguments ----

case_stray_argument() {
    write_job job.yaml run
    refused 2 "$BIN/controller" --config job.yaml train.lr=5
    says message "unexpected argument train.lr=5" "--set train.lr=5"
    [ ! -e run ] || fail "it started all the same"
    refused 2 "$BIN/controller" validate --config job.yaml train.lr=5
    says message "--set train.lr=5"
    refused 2 "$BIN/controller" status --run run more
    says message "unexpected argument more"
    refused 2 "$BIN/controller" stop run
    says message "unexpected argument run" "--run run"
    refused 2 "$BIN/controller" schema train.lr data
    says message "unexpected argument data"
    refused 2 "$BIN/controller" job.yaml
    says message "unknown command job.yaml" "--config job.yaml"
}

case_wrong_option() {
    refused 2 "$BIN/controller" --config
    says message "--config needs a value"
    refused 2 "$BIN/controller" --confg job.yaml
    says message "unknown option --confg" "Did you mean --config"
    refused 2 "$BIN/controller" status --config job.yaml
    says message "status does not take --config" "--run"
    refused 2 "$BIN/controller" --json --config job.yaml
    says message "does not take --json"
    refused 2 "$BIN/controller" statsu --run run
    says message "unknown command statsu" "Did you mean status"
    refused 2 "$BIN/controller" --versoin
    says message "Did you mean --version"
    refused 2 "$BIN/controller" status --json=3
    says message "--json takes no value"
    refused 2 "$BIN/controller" -x
    says message "unknown option -x" "usage: controller --config"
    refused 2 "$BIN/controller" stop
    says message "--run FOLDER is missing" "usage: controller stop"
    refused 2 "$BIN/controller" validate
    says message "--config JOB.YAML is missing" "usage: controller validate"
    refused 2 "$BIN/controller" data
    says message "data needs to be told what" "usage: controller data inspect"
    refused 2 "$BIN/controller" data inspcet
    says message "not inspcet"
    refused 2 "$BIN/controller" data inspect --smaple 3
    says message "unknown option --smaple" "Did you mean --sample"
    refused 2 "$BIN/controller" serve --prot 8000
    says message "unknown option --prot" "Did you mean --port" "usage: controller serve"
    refused 2 "$BIN/controller" serve --model
    says message "--model needs a value" "usage: controller serve"
    refused 2 "$BIN/node_agent" --endpont ipc:///x
    says message "unknown option --endpont" "Did you mean --endpoint" "usage: node_agent"
    refused 2 "$BIN/train_worker" --hlep
    says message "unknown option --hlep" "To run a job: controller --config JOB.YAML"
}

# documented: each `controller ...` and `node_agent ...` of README and docs, as code or between backticks, one a line.
documented() {
    cat "$SOURCE"/README.md "$SOURCE"/docs/*.md |
        grep -oE '`(controller|node_agent) [^`]*`|^    (build/bin/)?(controller|node_agent) .*' |
        sed -E 's/`//g; s/^ *(build\/bin\/)?//'
}

# Whatever README and docs say that a command takes, its help lists; what processes say to each other stands apart.
case_help_lists_options() {
    local line words program help option seen=0
    while read -r line; do
        read -ra words <<<"${line%% -*}"
        program=${words[0]}
        help=("$BIN/$program")
        # The words up to the first option or value are the command.
        for word in "${words[@]:1}"; do
            [[ $word =~ ^[a-z-]+$ ]] || break
            help+=("$word")
        done
        if [ "${help[1]:-}" = help ] || ! grep -q -e ' --' <<<"$line"; then continue; fi
        "${help[@]}" --help >help.txt 2>&1 || fail "$line: ${help[*]} has no help"
        for option in $(grep -oE -- '--[a-z][a-z-]*' <<<"$line" | sort -u); do
            case $option in --help | --version) continue ;; esac
            grep -qE -- "(^|[^a-z-])$option([^a-z-]|$)" help.txt ||
                fail "${help[*]} --help does not list $option: $line"
            seen=$((seen + 1))
        done
    done < <(documented)
    [ "$seen" -gt 30 ] || fail "only $seen options are found in the docs"
    "$BIN/data_inspect" --help >help.txt
    sed -n '1,/^What `controller validate`/p' help.txt | grep -E -- '--(brief|check|available|trained|gpu)' &&
        fail "what is no person's stands between a person's options"
    says help.txt --brief --check --available --trained --gpu
    "$BIN/node_agent" --help >help.txt
    sed -n '1,/^What a controller says/p' help.txt | grep -e --embedded && fail "so it does in node_agent"
    says help.txt --embedded
    for program in data_source rollout_worker train_worker; do
        "$BIN/$program" --help >help.txt || fail "$program has no help"
        says help.txt "$program is a process of a job" "To run a job: controller --config JOB.YAML"
    done
}

case_help() {
    local command
    refused 2 "$BIN/controller"
    says message "usage: controller --config JOB.YAML"
    for command in "" validate status stop schema data "data inspect" serve; do
        # shellcheck disable=SC2086
        "$BIN/controller" $command --help >help.txt || fail "controller $command --help ends with $?"
        says help.txt "usage: controller $command"
        awk 'length > 100 { exit 1 }' help.txt || fail "a line of $command --help is longer than 100 columns"
    done
    for command in "" validate data "data inspect" serve; do
        # shellcheck disable=SC2086
        cmp <("$BIN/controller" help $command) <("$BIN/controller" $command --help) || fail "help $command differs"
    done
    refused 2 "$BIN/controller" help statsu
    says message "unknown command statsu" "Did you mean status"
    "$BIN/controller" --help >help.txt
    says help.txt --set --run --json validate status stop schema "Exit codes"
    "$BIN/controller" --version | grep -qE '^[0-9]+\.[0-9]+' || fail "--version prints no version"
}

# ---- checking a job ----

# validate CODE [setting...]: what it prints is then in ./out, what it complains of in ./message.
validate() {
    local expected=$1 code=0 options=() setting
    shift
    for setting in "$@"; do options+=(--set "$setting"); done
    timeout 60 "$BIN/controller" validate --config job.yaml "${options[@]}" >out 2>message || code=$?
    [ "$code" = "$expected" ] || fail "validate $*: exit code $code, expected $expected: $(cat out message)"
    [ ! -e run ] || fail "validate $* made a run folder"
}

case_validate() {
    local JOB_MODEL=$SOURCE/deploy/examples/tiny/model
    write_job job.yaml run
    validate 0
    says out " 1 rollout worker, batch of 16 samples; "
    says out "918912 parameters" "tp 2 x dp 1" "2.75 CPUs" "memory of a train worker: weights" "2 train workers take" \
        "data.train: the first 1000 records, of more, give 1000 samples" "data.eval: all 100 records give 100 samples" \
        "job tiny is in order"
    [ ! -s message ] || fail "it complains: $(cat message)"

    # Records: how many would be rejected, and why.
    head -50 "$DATA/train.jsonl" >some.jsonl
    sed -i '3s/.*/{"messages": [{"role": "user", "content": "nobody answers"}]}/; 9s/.*/{"messages"/' some.jsonl
    validate 3 "data.train=some.jsonl"
    says out "all 50 records give 48 samples" "2 rejected" "1 as bad_record, which ends a run" "some.jsonl:9" \
        "1 as nothing_to_train, which a run passes over" "some.jsonl:3: no token carries loss" "data.eval: all 100"
    says message "not in order"
    validate 0 "data.train=some.jsonl" data.bad_record=skip
    validate 3 data.max_length=40
    says out "give 0 samples" "1000 as too_long" "at most 40"
    validate 0 data.max_length=50 # a run would go on, but hardly as it was meant
    says out "warning: only 37.6 % of these records are used; raise data.max_length, which is 50"

    # The model folder, the placement, the memory.
    validate 2 data.max_length=4000 train.max_tokens_per_gpu=4096
    says message data.max_length "max_position_embeddings 2048" "write max_length: 2048"
    validate 4 cluster.cpus=1
    says message "can never be placed" "free 1 CPU," cluster.cpus
    validate 4 train.max_tokens_per_gpu=4194304
    says message "GiB but may use" max_tokens_per_gpu tp_size
    says out "data.eval: all 100" # it goes on to say the rest
}

# ---- names of a run folder ----

# A path that is too long for the sockets inside it, so that they stand elsewhere under a name made from it.
case_status_by_any_name() {
    local name=a-run-folder-with-a-name-that-is-too-long-for-the-sockets-in-it form
    mkdir "$name"
    ln -s "$name" link
    start_endless "link/run"
    wait_for_step 1
    RUN=$PWD/$name/run # the name that its processes know
    for form in "$PWD/$name/run" "$PWD/$name/run/" "./$name/run" "$name/run/" "$name//run/." link/run "$PWD/link/run/"
    do
        "$BIN/controller" status --run "$form" >status.txt || fail "no status by the name $form"
        says status.txt "job tiny" "train-1"
    done
    "$BIN/controller" stop --run "./link/../$name/run/" || fail "stop by another name"
    finish_job 5
    nothing_left
}

# ---- how a run ends early ----

case_hangup() {
    start_endless run
    wait_for_step 3
    kill -HUP "$CONTROLLER"
    kill -HUP "$CONTROLLER" # a closing terminal and its shell both send one
    finish_job 5
    ls run/checkpoints/step_* >/dev/null || fail "the hangup did not commit"
    nothing_left
}

# The first Ctrl-C waits for the step, which a stopped rank cannot finish; the second does not.
case_second_interrupt() {
    start_endless run checkpoint.interval=1000 cluster.suspect_ms=30000 cluster.dead_ms=60000
    wait_for_step 3
    local rank
    rank=$(actor_pid train-1)
    kill -STOP "$rank"
    kill -INT "$CONTROLLER"
    wait_for_text "finishing the step, then committing; again to stop at once"
    sleep 1
    kill -0 "$CONTROLLER" || fail "the first Ctrl-C did not wait for the step"
    local begin=$SECONDS
    kill -INT "$CONTROLLER"
    finish_job 5
    [ $((SECONDS - begin)) -le 10 ] || fail "the second Ctrl-C took $((SECONDS - begin)) s"
    says "$RUN.out" "stopped at once"
    ! ls run/checkpoints/step_* >/dev/null 2>&1 || fail "it claims to have saved"
    tail -2 "$RUN.out" | grep -qE "^Committed: nothing. Lost: steps 1 to [0-9]+ and the unfinished step [0-9]+.$" ||
        fail "it does not say what is lost"
    [ "$(tail -1 "$RUN.out")" = "The same command begins anew." ] || fail "wrong advice: $(tail -1 "$RUN.out")"
    nothing_left
}

# The same past a checkpoint: what it stands for is kept.
case_second_interrupt_after_a_checkpoint() {
    start_endless run cluster.suspect_ms=30000 cluster.dead_ms=60000
    wait_for_step 13
    kill -STOP "$(actor_pid train-1)"
    kill -INT "$CONTROLLER"
    wait_for_text "again to stop at once"
    kill -INT "$CONTROLLER"
    finish_job 5
    local step
    step=$(sed -n 's/^The same command goes on from step \([0-9]*\)\.$/\1/p' "$RUN.out")
    says "$RUN.out" "Committed: step $step ($RUN/checkpoints/step_000000$step)." "Lost: step"
    STEPS=$((step + 1)) write_job endless.yaml run
    run_job
    says run/events.jsonl "\"event\":\"resuming\",\"step\":$step"
}

case_stop_command() {
    start_endless run
    wait_for_step 3
    "$BIN/controller" stop --run run >stop.txt || fail "stop ended with $?"
    finish_job 5
    ls run/checkpoints/step_* >/dev/null || fail "stop did not commit"
    says "$RUN.out" "stopped as asked" "Lost: nothing." "The same command goes on from step "
    nothing_left
    refused 4 "$BIN/controller" stop --run run
    says message "$PWD/run" "not going on" "checkpoints/step_0000"
    refused 4 "$BIN/controller" status --run run
    says message "not going on" "checkpoints/step_0000"
    refused 2 "$BIN/controller" status --run nowhere
    says message "nowhere is not a run folder"
}

# At a terminal: the live line keeps to its width, Ctrl-C reaches the controller and nobody else.
case_terminal() {
    command -v script >/dev/null || { echo "skipped: script (util-linux) is not here" && exit 77; }
    local code=0
    STEPS=1000000 write_job job.yaml run data.eval=
    CONTROLLER=$$ # for wait_for_step: this shell lives
    { wait_for_step 30 && printf '\003' && sleep 5; } |
        TERM=xterm SHELL=/bin/sh \
            script -qec "stty cols 60 rows 20; exec '$BIN/controller' --config job.yaml" screen >/dev/null ||
        code=$?
    [ $code = 5 ] || fail "the run at a terminal ended with code $code: $(tail -3 screen)"
    ls run/checkpoints/step_* >/dev/null || fail "Ctrl-C at a terminal did not commit"
    tr '\r' '\n' <screen | sed -n 's/^\x1b\[K\(step .*\)/\1/p' >lines
    [ "$(wc -l <lines)" -ge 20 ] || fail "the live line was drawn $(wc -l <lines) times"
    awk 'length > 59 || !/loss [0-9.]+/ { print "drawn: " $0; exit 1 }' lines || fail "the live line does not fit"
    nothing_left
}

case_nohup() {
    start_job_ignoring=HUP
    start_endless run
    wait_for_step 3
    kill -HUP "$CONTROLLER"
    wait_for_step 6
    kill -TERM "$CONTROLLER"
    finish_job 5
}

case_closed_pipe() {
    write_job job.yaml run
    set +e
    "$BIN/controller" --config job.yaml 2>&1 | head -1 >first_line
    code=${PIPESTATUS[0]}
    set -e
    [ "$code" = 0 ] || fail "the controller ended with code $code when its reader was gone"
    ls run/checkpoints/step_00000030 >/dev/null || fail "the job did not end"
    nothing_left
}

# Records that cannot be trained are found only on the way: the run has fewer steps than its number of records promised.
case_data_ends_early() {
    head -20 "$DATA/train.jsonl" >some.jsonl
    sed -i '3s/.*/{"messages": [{"role": "user", "content": "nobody answers"}]}/' some.jsonl
    STEPS=0 write_job job.yaml run data.train=some.jsonl train.num_epochs=1 train.global_batch_size=4
    run_job
    says "$RUN.out" "ended_early" "samples were skipped" "step=4 planned_steps=5"
    says run/events.jsonl '"event":"ended_early"'
    says "$RUN.out" "done step=4" "checkpoints/step_00000004" # where the model is
    write_job job.yaml whole
    run_job
    ! grep -q ended_early "$RUN.out" || fail "a whole run says that it ended early"
}

# What one run made is where another begins: its folder, or checkpoints/latest in it, in place of a model folder.
case_model_of_a_run() {
    STEPS=3 write_job first.yaml first
    run_job
    local form loss
    loss=$(sed -n 's/.*"eval\/loss":\([0-9.]*\).*/\1/p' first/metrics.jsonl | tail -1)
    for form in first/ first/checkpoints/latest; do
        STEPS=1 write_job second.yaml "after_${form##*/}" "model.path=$form" model.init=pretrained \
            eval.before_train=true
        run_job
        says "$RUN.out" "model run=" "checkpoint=step_00000003"
        says "$RUN/metrics.jsonl" "\"step\":0,\"eval/loss\":$loss,"
        says "$RUN/config.effective.yaml" "$PWD/first/checkpoints/step_00000003" "# --set model.path=$form"
    done
}

# The run that stands in the model's place goes on training: who began with it keeps to what it began with.
case_model_of_a_run_that_goes_on() {
    STEPS=3 write_job first.yaml first
    run_job
    STEPS=2 write_job second.yaml second model.path=first model.init=pretrained
    run_job
    STEPS=5 write_job first.yaml first checkpoint.keep_last=1
    run_job
    [ ! -e first/checkpoints/step_00000003 ] || fail "the first run keeps its checkpoint of step 3"
    mkdir kept && mv first/checkpoints/step_00000005 kept/ # as if the first run kept both
    STEPS=3 write_job first.yaml first
    run_job
    mv kept/step_00000005 first/checkpoints/
    STEPS=3 write_job second.yaml second model.path=first model.init=pretrained
    run_job
    says "$RUN.out" "resuming" "checkpoint=step_00000003"
    says "$RUN/config.effective.yaml" "$PWD/first/checkpoints/step_00000003"
    "$BIN/controller" validate --config second.yaml $SETTINGS > validated
    says validated "as this run began, a checkpoint of" "step_00000003"
    mv "$RUN/models.json" models.json
    head -c 20 models.json > "$RUN/models.json" # what it began with is not to be guessed
    refused 3 "$BIN/controller" --config second.yaml $SETTINGS
    says message "$RUN/models.json" "with which checkpoints"
    rm "$RUN/models.json"
    "$BIN/controller" validate --config second.yaml $SETTINGS > validated
    says validated "warning: " "models.json is not there" "step_00000005"
    mv models.json "$RUN/"
    rm -r first/checkpoints/step_00000003
    refused 2 "$BIN/controller" --config second.yaml $SETTINGS
    says message "model.path" "step_00000003, which is gone" "another run_dir"
    STEPS=1 write_job third.yaml third model.path=first model.init=pretrained
    run_job
    says "$RUN.out" "checkpoint=step_00000005"
}

# ---- resuming ----

# A killed run was past its checkpoint: the steps are made again, and told once.
case_metrics_of_a_killed_run() {
    write_job job.yaml run checkpoint.interval=14
    start_job
    wait_for_step 16
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2>/dev/null || true
    run_job
    says run/events.jsonl '"event":"resuming","step":14'
    metrics_ascend
    [ "$(grep -c eval/loss run/metrics.jsonl)" = 1 ] || fail "an evaluation is told twice"
}

case_resume_with_other_settings() {
    STEPS=10 write_job job.yaml run
    run_job
    STEPS=12 write_job job.yaml run train.lr=0.001 train.global_batch_size=8 model.dtype=bf16
    run_job
    says "$RUN.out" settings_changed "train.lr: 0.002 -> 0.001 (--set train.lr=0.001)" "train.num_steps: 10 -> 12" \
        "train.global_batch_size: 16 -> 8" "model.dtype: f32 -> bf16"
    ! grep -q "train.tp_size:" "$RUN.out" || fail "it names a key that did not change"
    metrics_ascend
    : >"$RUN.out"
    run_job
    ! grep -q settings_changed "$RUN.out" || fail "it says of unchanged settings that they changed"

    refused 2 "$BIN/controller" --config job.yaml --set seed=7 --set run_dir="$RUN"
    says message "seed is 7" "began with 42" "another run_dir"
    ! grep -q settings_changed message || fail "it tells what changed in a run that does not go on"
    refused 2 "$BIN/controller" --config job.yaml --set data.shuffle=false
    says message "data.shuffle is false" "began with true"
    cp -r "$SOURCE/deploy/examples/tiny/model" other
    sed -i 's/"rope_theta": *[0-9.]*/"rope_theta": 500/' other/config.json
    refused 2 "$BIN/controller" --config job.yaml --set model.config=other/config.json
    says message "other/config.json describes another model" "step_00000012"
    echo " " >>other/tokenizer.json
    refused 2 "$BIN/controller" --config job.yaml --set model.tokenizer=other
    says message "other/tokenizer.json" "other tokens"
    ! grep -q settings_changed message || fail "it tells what changed in a run that does not go on"
    cp -r "$SOURCE/deploy/examples/tiny/model" moved # elsewhere, but the same
    SETTINGS="$SETTINGS --set model.tokenizer=moved --set train.num_steps=13"
    run_job
}

# The matrix rate that MFU is a share of is measured again and again: it may only rise.
case_mfu_and_its_denominator() {
    write_job job.yaml run
    run_job
    sed -n 's|.*"perf/mfu":\([^,]*\),"perf/peak_flops":\([^}]*\)}|\1 \2|p' run/metrics.jsonl >rates
    [ "$(wc -l <rates)" = 30 ] || fail "not every step has its MFU"
    awk '{ if ($1 <= 0 || $2 < last) exit 1; last = $2 }' rates || fail "the rate fell, or MFU is nothing: $(cat rates)"
}

# ---- looking ----

case_status() {
    start_endless run
    wait_for_step 12
    "$BIN/controller" status --run run >table
    "$BIN/controller" status --run run --json >json
    says table "job tiny: " "of 1000000, generation 1" "last step: loss " " tok/s" "ETA " "data: " \
        "records of epoch " \
        "last checkpoint: $PWD/run/checkpoints" \
        "ACTOR          STATE" "data_source    alive" "rollout-0      alive" "train-0        alive" \
        "train-1        alive"
    [ "$(grep -cE '^(data_source|rollout-0|train-[01]) ' table)" = 4 ] || fail "not a line for each: $(cat table)"
    [ "$(wc -l <json)" = 1 ] || fail "--json prints more than one line"
    says json '"job":"tiny"' '"total_steps":1000000' '"actors":[{' \
        '"name":"train-1","role":"train","state":"alive"' '"restarts":0' '"loss":' '"eta_s":' \
        '"last_checkpoint":"' '"samples_ready":' '"epoch_id":' '"consumed_count":' '"global_consumed_count":'
    says table "node_agent     up "
    local pid
    pid=$(sed -n 's/.*"agents":\[{"node":"[^"]*","state":"up","pid":\([0-9]*\),.*/\1/p' json)
    [ "$(cat "/proc/$pid/comm")" = node_agent ] || fail "the agent's pid is not its own: $(cat json)"
    pid=$(sed -n 's/.*"agents":\[{.*"guard_pid":\([0-9]*\),.*/\1/p' json)
    [ "$(cat "/proc/$pid/comm")" = agent_guard ] || fail "the guard's pid is not its own: $(cat json)"
    says table "; its guard: pid $pid"
    for name in data_source rollout-0 train-0 train-1; do
        pid=$(actor_pid $name)
        tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "--actor $name " || fail "the pid of $name is not its own"
    done
    kill -STOP "$CONTROLLER"
    refused 4 "$BIN/controller" status --run run
    says message "does not answer within 3 s"
    kill -CONT "$CONTROLLER"
    kill -INT "$CONTROLLER"
    finish_job 5
}

# A run that is done says so to who asks when it is gone; one that was killed does not.
case_status_of_a_done_run() {
    STEPS=3 write_job job.yaml run train.tp_size=1
    run_job
    "$BIN/controller" status --run run >table || fail "status of a done run ends with $?"
    says table "job tiny: done, step 3 of 3" "last checkpoint: $PWD/run/checkpoints/step_00000003"
    "$BIN/controller" status --run run --json >json || fail "status --json of a done run ends with $?"
    says json '"phase":"done"' '"step":3' '"total_steps":3'

    # What a start would refuse because of the run that is there, a check refuses.
    "$BIN/controller" validate --config job.yaml $SETTINGS --set train.num_steps=4 >out || fail "refused: $(cat out)"
    says out "run: goes on from step 3" "train.num_steps: 3 -> 4"
    refused 2 "$BIN/controller" validate --config job.yaml $SETTINGS --set data.order=window
    says message "data.order is window, but the run in this folder began with full"

    STEPS=1000000 write_job job.yaml run train.tp_size=1
    start_job
    wait_for_step 5
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2>/dev/null || true
    nothing_left
    refused 4 "$BIN/controller" status --run run
    says message "not going on"
}

# Entries of data.train that are nearly right.
case_entries() {
    write_job job.yaml run
    head -20 "$DATA/train.jsonl" >some.jsonl
    validate 2 'data.train=some.jsonl@[:10%]'
    says message "@[:10%] is no slice" "some.jsonl@[:1000]"
    validate 2 'data.train=some.jsonl[:5]'
    says message "[:5] is no slice"
    validate 3 'data.train=some.jsonl@[30:]'
    says message "no record of $PWD/some.jsonl@[30:] is left by its slice: it has 20 records"
    validate 2 'data.train=[some.jsonl, some.jsonl@[:5]]'
    says message '"quotes"' 'a.jsonl@[:20]'
    validate 2 'data.train=s3://bucket/x.jsonl'
    says message "s3://bucket/x.jsonl is an address"
    validate 2 'data.train=some{1,2}.jsonl'
    says message "braces have no meaning"
    validate 2 'data.train=some.jsonl@[:3]' train.num_steps=0 train.num_epochs=1
    says message "a batch takes 16 records, but all epochs together have 3"
    validate 2 'data.train=some.jsonl@[:3]' data.remainder=drop
    says message "with data.remainder: drop, an epoch has 3"
    validate 0 'data.train=[some.jsonl, some.jsonl]' data.eval=some.jsonl data.window_mb=64
    says out "names $PWD/some.jsonl twice" "data.window_mb has no effect without data.order: window"
    validate 0 data.train=some.jsonl data.num_samples=20 data.shuffle=false data.bad_records_max=5 \
        data.accept_changed=0123456789
    says out "data.num_samples has no effect without data.order: window and data.shuffle: true" \
        "data.bad_records_max has no effect without data.bad_record: skip" \
        "data.accept_changed has no effect without a checkpoint in the run folder"
    validate 0 data.train=some.jsonl data.num_samples=20 data.order=window data.bad_records_max=5 data.bad_record=skip
    if grep -q "no effect" out; then fail "what has an effect is said to have none: $(cat out)"; fi
    validate 0 'data.train=some.jsonl' data.eval=some.jsonl
    says out "what is evaluated is trained"
    mkdir folder
    cp some.jsonl folder/train-1.jsonl
    cp some.jsonl folder/train-2.jsonl
    says_files="is split train: 2 files, train-1.jsonl to train-2.jsonl ("
    validate 0 data.train=folder 'data.eval=folder/*-2.jsonl'
    says out "data.train: $PWD/folder $says_files" "data.eval: $PWD/folder/*-2.jsonl is 1 file, train-2.jsonl ("
    "$BIN/controller" --config job.yaml --set data.train=folder --set train.num_steps=1 \
        --set train.tp_size=1 >out 2>&1 || fail "it does not run"
    says out "3 bundles on 1 node" "parameters on 1 rank (tp 1, dp 1)" \
        "40 records, 16 a step: 2 steps and 8 records over"
    if grep -qE "\b1 (nodes|ranks)" out; then fail "one is said to be many: $(cat out)"; fi
    [ "$(grep -cF "data.train: $PWD/folder $says_files" out)" = 1 ] || fail "which files is not said: $(cat out)"
    "$BIN/controller" validate --config job.yaml --set data.train=folder --set data.accept_changed=0123456789 >out ||
        fail "it is refused: $(cat out)"
    if grep -q "no effect" out; then fail "with a checkpoint it has an effect: $(cat out)"; fi
    rm -r run
    echo '{"messages": null}' >null.jsonl
    validate 3 data.train=null.jsonl
    says out '"messages" is null, which counts as absent'
}

# Whatever waits for longer than five seconds says what for, and for whom.
case_waits_for() {
    start_endless run cluster.suspect_ms=30000 cluster.dead_ms=60000
    wait_for_step 3
    local rank before # a slow start is waited for, too
    rank=$(actor_pid train-1)
    before=$(grep -c " waiting " "$RUN.out" || true)
    kill -STOP "$rank"
    sleep 3
    [ "$(grep -c " waiting " "$RUN.out")" = "$before" ] || fail "it complains before five seconds are over"
    wait_for_text "; train-0 waits for " # a busy machine says what it waits for first, and for whom with the next line
    grep -qE 'info  waiting what="for [0-9]+s: training step [0-9]+; train-0 waits for ' "$RUN.out" ||
        fail "it waits for something else: $(grep waiting "$RUN.out")"
    "$BIN/controller" status --run run >table
    grep -qE "^waiting [0-9.]+ s for training step [0-9]+; train-0 waits for .*rank 1" table ||
        fail "status does not say it: $(cat table)"
    kill -CONT "$rank"
    local step
    step=$(sed -n 's/.*"step":\([0-9]*\).*/\1/p' run/metrics.jsonl | tail -1)
    wait_for_step $((step + 5)) # and goes on
    kill -INT "$CONTROLLER"
    finish_job 5
    says run/events.jsonl '"event":"waiting"'
}

# ---- agents ----

case_agent_is_private() {
    refused 2 timeout 20 "$BIN/node_agent" --endpoint tcp://127.0.0.1:7700
    says message "tcp://127.0.0.1:7700" "no keys yet" "ipc:///PATH"
    mkdir -m 755 open
    refused 2 timeout 20 "$BIN/node_agent" --endpoint "ipc://$PWD/open/agent"
    says message "$PWD/open" "mode 0755" "chmod 700"
    [ ! -e open/agent ] || fail "it listened all the same"
    write_job job.yaml run 'cluster.agents=[tcp://10.0.0.1:7700]'
    refused 2 "$BIN/controller" validate --config job.yaml --set 'cluster.agents=[tcp://10.0.0.1:7700]'
    says message cluster.agents "not possible yet" "ipc:///"
}

# An agent that outlives jobs: two in a row run on it.
case_jobs_on_one_agent() {
    "$BIN/node_agent" --endpoint "ipc://$PWD/private/agent" --cpus 4 >agent.out 2>&1 &
    local agent=$! tries=0
    until [ -S private/agent ]; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || fail "the agent does not start: $(cat agent.out)"
        sleep 0.05
    done
    for job in one two; do
        STEPS=3 write_job $job.yaml $job "cluster.agents=ipc://$PWD/private/agent"
        run_job
        grep -q "done step=3" "$RUN.out" || fail "job $job did not end"
    done
    kill $agent
    wait $agent || fail "the agent ended with code $?"
    [ -z "$(processes_of "$PWD/private")" ] || fail "left behind: $(processes_of "$PWD/private")"
}

# A machine on which bf16 is slower than f32 says so, once for all ranks.
case_slow_bf16_is_said() {
    export DNNL_MAX_CPU_ISA=AVX2
    STEPS=2 write_job job.yaml run model.dtype=bf16
    run_job
    [ "$(grep -c "f32 is the better choice" "$RUN.out")" = 1 ] || fail "said $(grep -c "f32 is" "$RUN.out") times"
    STEPS=2 write_job job.yaml plain
    run_job
    ! grep -q "f32 is the better choice" "$RUN.out" || fail "said of f32 too"
}

# config.json of a checkpoint names the type in which its weights are stored, whatever the model's own said, by the key
# that the model's own has.
case_checkpoint_says_its_dtype() {
    local dtype key expected stored types
    cp -r "$SOURCE/deploy/examples/tiny/model" model
    for dtype in bf16 f32; do
        for key in torch_dtype dtype; do
            sed -i "s/\"[a-z_]*dtype\": *\"[a-z0-9]*\"/\"$key\": \"float16\"/" model/config.json
            STEPS=1 write_job job.yaml "$dtype-$key" model.dtype=$dtype model.path=model train.tp_size=1 data.eval=
            run_job
            expected=float32 stored=F32
            [ $dtype = f32 ] || expected=bfloat16 stored=BF16
            cd "$dtype-$key/checkpoints/step_00000001"
            [ "$(grep -c dtype config.json)" = 1 ] || fail "config.json: $(grep dtype config.json)"
            grep -qE "\"$key\":\s*\"$expected\"" config.json || fail "$dtype, $key: $(grep dtype config.json)"
            types=$(head -c 20000 model-00001-of-00001.safetensors | grep -aoE '"dtype":"[A-Z0-9]+"' | sort -u)
            [ "$types" = "\"dtype\":\"$stored\"" ] || fail "stored as $types"
            cd ../../..
        done
    done
}

if [ "$1" = list ]; then
    declare -F | sed -n 's/^declare -f case_//p'
    exit 0
fi
rm -rf "./$1"
mkdir "./$1"
cd "./$1"
make_data
trap 'for job in $(jobs -p); do kill -9 "$job" 2>/dev/null || true; done' EXIT
"case_$1"
