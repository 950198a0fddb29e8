#!/bin/bash
# From supervised training to reinforcement learning in one run, on the same train processes: as the job file's stages,
# or swapped in while it runs. Whatever is killed on the way, the weights are those of an undisturbed run.
# usage: test_stages.sh workers | kills | swap | early | three_ways | refused | asks | memory | undo | noise
. "$(dirname "$0")/lib.sh"
make_data
JOB_MODEL=$DATA/model
case $1 in kills | swap | early | memory | undo) JOB_MODEL=$SOURCE/deploy/examples/tiny/model ;; esac # time to kill in
STEPS=9

# write_stages FILE RUN FIRST [KEY=VALUE ...]: FIRST supervised steps, then 6 by the rewards of 4 answers to a prompt.
# The answers of random weights are noise, and so is their reward.
write_stages() {
    local file=$1 run=$2 first=$3
    shift 3
    write_job "$file" "$run" train.lr_schedule=constant "$@"
    sed -i '/num_steps/d' "$file"
    cat >> "$file" << YAML
data: {max_length: 160}
stages:
  - name: sft
    train: {num_steps: $first, clip_grad: ${CLIP:-1}}
  - name: rl
    rollout:
      function: generate
      reward: random
      n_samples_per_prompt: 4
      max_response_length: 16
    algorithm: {entropy_coef: 0.01}
    train: {num_steps: 6, lr: 0.001}
    eval: {max_response_length: 8, interval: 3, before_train: true}
YAML
    # one section data
    sed -i '/^data: {max_length/d; s/^data:$/data:\n  max_length: 160/' "$file"
}

# The job that is swapped in: the same second stage as a job of its own.
write_second() {
    cat > "$1" << YAML
name: rl
model: {path: $JOB_MODEL, init: random}
data:
  train: [$DATA/train.jsonl]
  eval: [$DATA/eval.jsonl]
  max_length: 160
rollout: {function: generate, reward: random, n_samples_per_prompt: 4, max_response_length: 16}
algorithm: {entropy_coef: 0.01}
train: {num_steps: 6, global_batch_size: 16, lr: 0.001, lr_schedule: constant, tp_size: 2}
eval: {max_response_length: 8, interval: 3, before_train: true}
YAML
}

# The weights alone: a second job counts its own steps.
weights_of() { cat "$(ls -d "$1"/checkpoints/step_* | tail -n 1)"/model-*.safetensors | sha256sum; }

pids_of_trainers() { echo "$(actor_pid train-0) $(actor_pid train-1)"; }

has_both_stages() {
    grep -q '"stage".*"name":"rl"' "$RUN/events.jsonl" || fail "the second stage did not begin"
    # The end of the one and the beginning of the other.
    [ "$#" = 0 ] || for kind in '"stage":1,.*"eval/loss"' '"stage":2,.*"eval/reward"'; do
        [ "$(grep "\"step\":$1," "$RUN/metrics.jsonl" | grep -c "$kind")" = 1 ] ||
            fail "the evaluations of step $1: $(grep "\"step\":$1,.*eval" "$RUN/metrics.jsonl")"
    done
    grep -q '"eval/reward\|"eval/pass@1"' "$RUN/metrics.jsonl" || fail "no answers were evaluated"
    grep -q '"train/logprob_mismatch_count":0[,}]' "$RUN/metrics.jsonl" || fail "no log-probs were compared"
}

case $1 in
workers)
    write_stages one.yaml one 9
    run_job
    has_both_stages 9
    nothing_left
    expected=$(digest_of "$RUN")
    write_stages three.yaml three 9 rollout.num_workers=3 rollout.lease_size=2
    start_job
    wait_for_step 4
    before=$(pids_of_trainers)
    wait_for_step 10 # the first of the second stage
    [ "$(pids_of_trainers)" = "$before" ] || fail "train processes $before became $(pids_of_trainers)"
    finish_job 0
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "three workers make other weights"
    [ "$(grep -c '"state":"leaving"' "$RUN/events.jsonl")" = 4 ] || fail "not all of the first stage's actors left"
    ! grep -q '"event":"killed"' "$RUN/events.jsonl" || fail "one of them had to be killed"
    metrics_ascend
    nothing_left
    ;;
kills)
    write_stages one.yaml one 9
    run_job
    expected=$(digest_of "$RUN")
    write_stages killed.yaml killed 9 rollout.num_workers=2 cluster.restarts_max=100 checkpoint.interval=4
    start_job
    wait_for_step 9 # the last of its stage: what comes now is the change to the next
    kill -9 "$(actor_pid train-1)" 2> /dev/null || true
    wait_for_step 10
    kill -9 "$(actor_pid data_source)" 2> /dev/null || true
    wait_for_step 11
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    nothing_left
    start_job
    wait_for_step 10
    kill -9 "$(actor_pid rollout-1)" 2> /dev/null || true
    kill -INT "$CONTROLLER"
    finish_job 5
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "kills change the weights"
    has_both_stages 9
    metrics_ascend
    nothing_left
    ;;
swap)
    STEPS=100
    write_job live.yaml live data.max_length=160 train.lr_schedule=constant checkpoint.interval=2
    write_second second.yaml
    sed -i '/^model:/d' second.yaml # the run's is meant
    start_job
    wait_for_step 3
    before=$(pids_of_trainers)
    "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml > said
    last=$(sed -n 's/.* goes on as rl after step \([0-9]*\)$/\1/p' said)
    [ -n "$last" ] || fail "the answer to the swap is: $(cat said)"
    wait_for_step $((last + 1))
    [ "$(pids_of_trainers)" = "$before" ] || fail "train processes $before became $(pids_of_trainers)"
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    nothing_left
    run_job # the same command, whose job file knows nothing of the swap
    has_both_stages
    metrics_ascend
    nothing_left
    [ "$(wc -l < "$RUN/stages.jsonl")" = 2 ] &&
        grep -q '"stage": 2, "name": "rl", "steps_before": '"$last", "$RUN/stages.jsonl" ||
        fail "its stages are $(cat "$RUN/stages.jsonl")"
    swapped=$(digest_of "$RUN")
    write_stages file.yaml file "$last"
    run_job
    [ "$(digest_of "$RUN")" = "$swapped" ] ||
        fail "a swap after step $last and stages make other weights"
    ;;
early)
    # Before the first step: the reference model is what the run began with, drawn from the run's seed.
    for run in quiet killed; do
        STEPS=40
        head -n 800 "$DATA/train.jsonl" > many.jsonl # that it lasts until it is seen
        write_job $run.yaml $run "data.eval=$PWD/many.jsonl" data.max_length=160 eval.before_train=true \
            checkpoint.interval=2 cluster.dead_ms=60000
        write_second second.yaml
        start_job
        tries=0
        until "$BIN/controller" status --run "$RUN" --json 2> /dev/null | grep -q '"phase":"evaluating"'; do
            tries=$((tries + 1))
            [ "$tries" -lt 600 ] || fail "nothing is evaluated before the first step"
        done
        trainer=$(actor_pid train-0)
        kill -STOP "$trainer"
        "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set seed=7 \
            --set algorithm.kl_loss_coef=0.1 > said
        grep -q "goes on as rl after step 0$" said || fail "too late: $(cat said)"
        kill -CONT "$trainer"
        if [ $run = killed ]; then
            wait_for_step 3
            kill -9 "$CONTROLLER"
            wait "$CONTROLLER" 2> /dev/null || true
            run_job
        else
            finish_job 0
            expected=$(digest_of "$RUN")
        fi
    done
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "a kill changes the weights"
    grep '"step":6,' "$RUN/metrics.jsonl" | grep -q '"train/ref_kl":0\.' || fail "there is no divergence"
    ;;
three_ways)
    # Near to what supervision left, by the default of algorithm.reference. A second job does not take over what the
    # optimizer remembers: here it remembers the last gradient alone, and those of the first stage are clipped so far
    # that nothing of them is left in a sum with another one.
    FORGETFUL="train.adam_beta1=0 train.adam_beta2=0 train.adam_eps=1e-18"
    CLIP=1e-15
    # shellcheck disable=SC2086
    write_stages file.yaml file 4 $FORGETFUL
    sed -i 's/algorithm: .*/algorithm: {kl_loss_coef: 2}/' file.yaml
    run_job
    has_both_stages 4
    grep '"step":10,' "$RUN/metrics.jsonl" | grep -q '"train/ref_kl":0\.' || fail "there is no divergence"
    grep '"step":5,' "$RUN/metrics.jsonl" | grep -q '"train/ref_kl":0,' || fail "the stage begins away from its start"
    expected=$(digest_of "$RUN") weights=$(weights_of "$RUN")

    # shellcheck disable=SC2086
    write_stages killed.yaml killed 4 $FORGETFUL checkpoint.interval=2 checkpoint.keep_last=1 cluster.restarts_max=100
    sed -i 's/algorithm: .*/algorithm: {kl_loss_coef: 2}/' killed.yaml
    start_job
    wait_for_step 7
    kill -9 "$(actor_pid train-1)" 2> /dev/null || true
    wait_for_step 8
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    nothing_left
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "kills change the weights"
    [ "$(ls "$RUN/checkpoints" | tr '\n' ' ')" = "latest step_00000004 step_00000010 " ] ||
        fail "what stays is $(ls "$RUN/checkpoints")"
    sed -i 's/num_steps: 6/num_steps: 7/' killed.yaml
    mv "$RUN/checkpoints/step_00000004" away
    start_job
    finish_job 2
    grep -q "step_00000004 is not there" "$RUN.out" || fail "a missing start of the stage is not said"
    mv away "$RUN/checkpoints/step_00000004"
    run_job

    # shellcheck disable=SC2086
    STEPS=4 write_job first.yaml first data.max_length=160 train.lr_schedule=constant $FORGETFUL train.clip_grad=$CLIP
    run_job
    write_second second.yaml
    sed -i 's/algorithm: .*/algorithm: {kl_loss_coef: 2}/; s/, init: random//' second.yaml
    JOB=second.yaml RUN=$PWD/second SETTINGS="--set run_dir=$PWD/second --set model.path=$PWD/first"
    for setting in $FORGETFUL; do SETTINGS="$SETTINGS --set $setting"; done
    run_job
    [ "$(weights_of "$RUN")" = "$weights" ] || fail "a second job makes other weights than a second stage"

    # shellcheck disable=SC2086
    STEPS=200 write_job live.yaml live data.max_length=160 train.lr_schedule=constant checkpoint.interval=2 $FORGETFUL \
        train.clip_grad=$CLIP
    start_job
    wait_for_step 3
    # shellcheck disable=SC2046
    "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set "model.path=$PWD/first" \
        $(for setting in $FORGETFUL; do echo "--set $setting"; done) > said
    last=$(sed -n 's/.* goes on as rl after step \([0-9]*\)$/\1/p' said)
    wait_for_step $((last + 3))
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    run_job
    swapped=$(digest_of "$RUN")
    # shellcheck disable=SC2086
    write_stages again.yaml again "$last" $FORGETFUL
    sed -i 's/algorithm: .*/algorithm: {kl_loss_coef: 2}/' again.yaml
    run_job
    [ "$(digest_of "$RUN")" = "$swapped" ] || fail "a swap after step $last and stages make other weights"
    ;;
refused)
    STEPS=400
    write_job live.yaml live train.tp_size=1 train.dp_size=2
    start_job
    wait_for_step 1
    write_second second.yaml
    # What only the run knows is told of the job that was given, not of a text that nobody has seen.
    ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set rollout.n_samples_per_prompt=3 \
        --set train.global_batch_size=15 2> said || fail "a batch that cannot be shared was taken"
    grep -q -- "--set train.global_batch_size=15: train.global_batch_size is 15" said || fail "said: $(cat said)"
    for setting in rollout.num_workers=2:rollout_workers_max data.max_length=4096:train.memory_length \
        train.global_batch_size=15:n_samples_per_prompt rollout.reward=nonsense:nonsense; do
        ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set "${setting%%:*}" 2> said ||
            fail "a swap with ${setting%%:*} was taken"
        grep -q "${setting#*:}" said || fail "refused ${setting%%:*} with: $(cat said)"
        [ "$(wc -l < said)" -le 6 ] || fail "more than six lines: $(cat said)"
    done
    # What the run has no room for is said before anything else is looked at.
    ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set rollout.num_workers=2 > said 2>&1 ||
        fail "a swap with too many workers was taken"
    ! grep -q data.train said || fail "the data are looked at before the room: $(cat said)"
    ! "$BIN/controller" swap-rollout --run nofolder --config second.yaml > said 2>&1 || fail "swapped no run"
    grep -q nofolder said || fail "said of no run: $(cat said)"
    ! grep -q data.train said || fail "the data are looked at before the run: $(cat said)"
    # A model that is not there is not looked at: what is refused is another thing.
    sed -i 's|^model:.*|model: {path: nonsense}|' second.yaml
    ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set rollout.num_workers=2 2> said ||
        fail "a swap with another model and too many workers was taken"
    grep -q rollout_workers_max said || fail "refused another model with: $(cat said)"
    kill -0 "$CONTROLLER" || fail "the run ended"
    kill -INT "$CONTROLLER"
    finish_job 5
    ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml 2> said || fail "swapped a run that is over"
    grep -q "not going on" said || fail "said: $(cat said)"
    ;;
asks)
    # Looking at a job takes its time: the run goes on meanwhile, and answers.
    STEPS=400
    mkdir bin
    cp "$BIN/controller" bin/ # finds the other programs beside itself
    for program in "$BIN"/*; do [ -e "bin/${program##*/}" ] || ln -s "$program" bin/; done
    rm bin/train_inspect
    cat > bin/train_inspect << SH
#!/bin/bash
[[ " \$* " == *" --taken "* ]] || exec "$BIN/train_inspect" "\$@" # a start asks, too
[ ! -e "$PWD/hang" ] || exec -a "hangs in $PWD" sleep 600
touch "$PWD/looking"
while [ ! -e "$PWD/go" ]; do sleep 0.1; done
exec "$BIN/train_inspect" "\$@"
SH
    chmod +x bin/train_inspect
    BIN=$PWD/bin
    write_job live.yaml live cluster.dead_ms=10000
    start_job
    wait_for_step 1
    write_second second.yaml
    "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set train.num_steps=400 > said &
    asker=$!
    tries=0
    until [ -e looking ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "the job is not looked at: $(cat said)"
        sleep 0.05
    done
    "$BIN/controller" status --run "$RUN" --json > status || fail "the run does not answer"
    step=$(tr ',{' '\n\n' < status | sed -n 's/^"step":\([0-9]*\)$/\1/p' | head -n 1)
    wait_for_step $((step + 3))
    ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml 2> second || fail "two swaps at a time"
    grep -q "another job is being looked at" second || fail "a second one hears: $(cat second)"
    touch go
    wait $asker || fail "the first one was not taken: $(cat said)"
    last=$(sed -n 's/.* goes on as rl after step \([0-9]*\)$/\1/p' said)
    [ "$last" -gt "$step" ] || fail "it came about after step $last, and was asked for at step $step"
    ! grep -q restarting "$RUN/events.jsonl" || fail "an actor was started again"
    # One that never comes to an end holds nobody up, and outlives nobody.
    touch hang
    for signal in INT KILL; do
        "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml > said 2>&1 &
        asker=$!
        tries=0
        until [ -n "$(processes_of "hangs in $PWD")" ]; do
            tries=$((tries + 1))
            [ "$tries" -lt 600 ] || fail "the job is not looked at: $(cat said)"
            sleep 0.05
        done
        kill -$signal "$CONTROLLER" # while it looks at another one
        code=0
        wait "$CONTROLLER" 2> /dev/null || code=$?
        [ $signal = KILL ] || [ $code = 5 ] || fail "a run that was asked to stop ends with code $code"
        ! wait $asker || fail "a run that has ended takes a swap"
        grep -q "is not going on" said || fail "it hears: $(cat said)"
        for _ in 1 2 3 4 5 6 7 8 9 10; do [ -z "$(processes_of "hangs in $PWD")" ] || sleep 0.2; done
        [ -z "$(processes_of "hangs in $PWD")" ] || fail "the look at the job outlives the run (SIG$signal)"
        nothing_left
        [ $signal = INT ] || break
        start_job
        wait_for_step $(($(grep -c train/loss "$RUN/metrics.jsonl") + 1))
    done
    ;;
memory)
    STEPS=400
    write_job live.yaml live
    # Room for the policy, with the most that it may keep, but for nothing beside it.
    has=$("$BIN/train_inspect" --config live.yaml | tr ',:' '\n\n' |
        awk '$NF == "MiB" { sum += $(NF - 1) } END { print 2 * (sum + 1) / 1024 }')
    for amount in x 12x -1 "" 99999999999999999999; do # 0 would be no limit
        ! "$BIN/train_inspect" --config live.yaml --available "$amount" 2> said || fail "takes $amount for bytes"
        grep -q -- "--available: found $amount, expected a number of bytes" said || fail "said: $(cat said)"
    done
    write_job live.yaml live "train.memory_gb=$has"
    start_job
    wait_for_step 1
    write_second second.yaml
    KL="--set algorithm.kl_loss_coef=0.1" # to what the stage begins with, as the run began with random weights
    # shellcheck disable=SC2086
    ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml $KL 2> said ||
        fail "a reference fits into nothing"
    grep -q "a reference model would take .* GiB more" said && grep -q "train.memory_reference: true" said ||
        fail "said: $(cat said)"
    ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml \
        --set algorithm.advantage_estimator=ppo 2> said ||
        fail "a critic fits into nothing"
    grep -q "train.max_tokens_per_gpu\|train.memory_critic" said || fail "said: $(cat said)"
    # Its rollout workers have what those that leave, beside the train workers, and no more.
    ! "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set rollout.kv_cache_mb=100000000 2> said ||
        fail "keys and values fit into nothing"
    grep -q "rollout.kv_cache_mb: 1 rollout worker takes .* GiB, .*train workers take" said || fail "said: $(cat said)"
    [ ! -e "$RUN/swaps.jsonl" ] || fail "a swap that was refused is written down"
    kill -INT "$CONTROLLER"
    finish_job 5
    write_job live.yaml live "train.memory_gb=$has" train.memory_reference=true
    start_job
    wait_for_step "$(($(grep -c train/loss "$RUN/metrics.jsonl") + 1))"
    # shellcheck disable=SC2086
    "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml $KL || fail "no room, though it was planned"
    finish_job 0
    has_both_stages
    # The stages of a job file: what a later one needs is known before the first step.
    write_stages file.yaml file 3 train.memory_gb=0.2
    run_job
    sed -i 's/algorithm: .*/algorithm: {advantage_estimator: ppo}/' file.yaml
    write_job none later train.memory_gb=0.2
    sed "s|^run_dir: .*|run_dir: $RUN|" file.yaml > "$JOB"
    start_job
    finish_job 4
    [ ! -s "$RUN/metrics.jsonl" ] || fail "it began though its second stage cannot"
    # shellcheck disable=SC2086
    ! "$BIN/controller" validate --config "$JOB" $SETTINGS > said 2>&1 || fail "validate finds it in order"
    grep -q "train.max_tokens_per_gpu" said || fail "said: $(cat said)"
    ;;
undo)
    # What was swapped in cannot begin: its data is gone when it comes to it.
    STEPS=14
    write_job plain.yaml plain data.max_length=160
    run_job
    expected=$(digest_of "$RUN")
    write_job live.yaml live data.max_length=160
    start_job
    wait_for_step 2
    cp "$DATA/train.jsonl" gone.jsonl
    write_second second.yaml
    kill -STOP "$(actor_pid train-0)"
    "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set "data.train=$PWD/gone.jsonl" > said
    rm gone.jsonl
    ! "$BIN/controller" swap-rollout --run "$RUN" --undo 2> said || fail "undone while the run goes on"
    grep -q "when the run has ended" said || fail "said: $(cat said)"
    kill -CONT "$(actor_pid train-0)"
    code=0
    wait "$CONTROLLER" || code=$?
    [ "$code" != 0 ] || fail "it trained on data that is gone"
    grep -q -- "swap-rollout --run $RUN --undo" "$RUN.out" || fail "the way out is not said"
    start_job
    ! wait "$CONTROLLER" || fail "the swap was forgotten"
    "$BIN/controller" swap-rollout --run "$RUN" --undo > said
    grep -q "as before the swap to rl" said || fail "said: $(cat said)"
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "a swap that was undone changes the weights"
    ! "$BIN/controller" swap-rollout --run "$RUN" --undo 2> said || fail "undone twice"
    grep -q "no stage was swapped in" said || fail "said: $(cat said)"
    # One that began and made steps, but no checkpoint.
    STEPS=40
    write_job begun.yaml begun data.max_length=160 checkpoint.interval=1000
    start_job
    wait_for_step 2
    write_second second.yaml
    "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml --set train.num_steps=400 > said
    last=$(sed -n 's/.* goes on as rl after step \([0-9]*\)$/\1/p' said)
    wait_for_step $((last + 2))
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    lost=$(($(wc -l < "$RUN/ledger.jsonl") - last))
    [ "$lost" -ge 2 ] || fail "$lost steps of the new stage stand in the ledger"
    "$BIN/controller" swap-rollout --run "$RUN" --undo > said
    grep -q "^$lost steps of rl, .* are lost$" said || fail "of $lost steps: $(cat said)"
    nothing_left
    ;;
noise)
    # The same prompts, and weights that stand still: what a second stage answers and saves is its own, what the first
    # one answers is what a job of one stage does.
    SETTLED="train.lr=1e-30 train.weight_decay=0 data.max_length=160 checkpoint.interval=2
        rollout.n_samples_per_prompt=4 rollout.function=generate rollout.reward=random
        rollout.max_response_length=12 eval.max_response_length=6"
    STEPS=3
    # shellcheck disable=SC2086
    write_job alone.yaml alone $SETTLED rollout.save=alone_answers
    run_job
    # shellcheck disable=SC2086
    write_job both.yaml both $SETTLED rollout.save=answers
    printf 'stages: [{name: first}, {name: second}]\n' >> both.yaml
    start_job
    wait_for_step 4 # the first of the second stage
    kill_actor rollout-0
    finish_job 0
    rm -rf alone_answers/eval-* # of other steps
    diff -r alone_answers answers --exclude='eval-*' --exclude=stage_2 || fail "the first stage answers otherwise"
    texts() { cat "$1"/train/*/*.jsonl | sed 's/.*"'"$2"'": \("[^"]*"\).*/\1/'; }
    [ "$(texts answers prompt)" = "$(texts answers/stage_2 prompt)" ] || fail "the stages have other prompts"
    [ "$(texts answers response)" != "$(texts answers/stage_2 response)" ] || fail "the stages draw the same noise"
    "$BIN/controller" samples --run "$RUN" --step 5 --count 99 --json > shown.jsonl
    [ "$(grep -c '"step": 5,' shown.jsonl)" -eq 16 ] || fail "samples shows $(wc -l < shown.jsonl) of step 5"
    ! "$BIN/controller" samples --run "$RUN" --step 1 2> said || fail "samples shows a step of the first stage"
    grep -q "That is stage second (2 of 2 so far): --stage shows another" said ||
        fail "of a step of the first: $(cat said)"
    "$BIN/controller" samples --run "$RUN" --stage first --step 2 --count 99 --json > shown.jsonl
    [ "$(grep -c '"stage": "first".*"step": 2, "trained": true' shown.jsonl)" -eq 16 ] ||
        fail "samples shows $(wc -l < shown.jsonl) of step 2"
    "$BIN/controller" samples --run "$RUN" --stage 1 | head -n 1 | grep -q "^stage first (1 of 2 so far)$" ||
        fail "samples does not say which stage it shows"
    # Trained from what was saved, stage by stage, it comes to the same.
    expected=$(digest_of "$RUN")
    # shellcheck disable=SC2086
    write_job again.yaml again $SETTLED rollout.load=answers
    printf 'stages: [{name: first}, {name: second}]\n' >> again.yaml
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "trained from the saved answers it comes to other weights"
    nothing_left
    ;;
esac
