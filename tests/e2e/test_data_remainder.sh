#!/bin/bash
# data.remainder: with drop and pad each batch is of one epoch, the ledger is the same file after a kill and in another
# layout, and the audit goes through it.
# usage: test_data_remainder.sh drop | pad | answers
. "$(dirname "$0")/lib.sh"
make_data

# job FILE RECORDS [KEY=VALUE ...]: two epochs of so many records, or a little more.
job() {
    local name=$1 records=$2
    shift 2
    head -n "$records" "$DATA/train.jsonl" > "$records.jsonl"
    write_job "$name.yaml" "$name" data.eval=null data.max_length=2048 train.tp_size=1 checkpoint.interval=5 "$@"
    sed -i "/num_steps/d; s|  train: .*|  train: [$PWD/$records.jsonl]|; s|_batch_size: .*|_batch_size: 8|" "$name.yaml"
}

# figure NAME STEP: of a step, as metrics.jsonl has it.
figure() { sed -n "s|.*\"step\":$2,.*\"$1\":\([^,}]*\).*|\1|p" "$RUN/metrics.jsonl"; }

expect() { # FIGURE STEP VALUE
    [ "$(figure "$1" "$2")" = "$3" ] || fail "$1 of step $2 is $(figure "$1" "$2"), expected $3"
}

# killed_at STEP [KEY=VALUE ...]: the job is killed there, and goes on under other settings.
killed_at() {
    local step=$1
    shift
    start_job
    wait_for_step "$step"
    kill -9 "$CONTROLLER"
    finish_job 137
    for setting in "$@"; do SETTINGS="$SETTINGS --set $setting"; done
    run_job
    nothing_left
}

case $1 in
drop) # 60 records: seven batches, and four records over
    job plain 60 data.remainder=drop train.num_steps=20
    run_job
    grep -q 'which are passed over' plain.out || fail "the start does not say what is over"
    [ "$(grep -c '"why":{"dropped":"' plain/ledger.jsonl)" = 2 ] || fail "$(cat plain/ledger.jsonl)"
    grep -q '"step":7,.*"dropped":"56-59"' plain/ledger.jsonl || fail "$(sed -n 7p plain/ledger.jsonl)"
    grep -q '"step":14,.*"dropped":"116-119"' plain/ledger.jsonl || fail "$(sed -n 14p plain/ledger.jsonl)"
    "$BIN/controller" data audit plain > out || fail "$(cat out)"
    grep -q '^epoch 1 .*4 rejected (dropped 4)' out || fail "$(cat out)"

    job killed 60 data.remainder=drop train.num_steps=20
    killed_at 6 train.dp_size=2 rollout.num_workers=3
    cmp plain/ledger.jsonl killed/ledger.jsonl || fail "other batches after a kill"
    echo "the remainder of two epochs is dropped, once and after a kill"
    ;;
pad) # 57 records: seven batches, and a step of one record, of which the second of two ranks has nothing
    job plain 57 data.remainder=pad train.num_epochs=2
    run_job
    grep -q '7 steps and 1 record over, which make a smaller step' plain.out || fail "the start does not say so"
    grep -q 'step=16/16 ' plain.out || fail "two epochs are not 16 steps"
    for step in 7 8 9 15 16; do
        [ $((step % 8)) = 0 ] && expect train/samples "$step" 1 || expect train/samples "$step" 8
    done
    expect train/epoch_id 8 1
    expect train/consumed_count 8 0
    expect train/position 16 114
    expect train/lr 16 1.92147196e-05 # the last of a cosine of 16 steps from 0.002 to 0
    "$BIN/controller" data audit plain > out || fail "$(cat out)"
    grep -q '^epoch 1 .*57 ' out || fail "$(cat out)"
    for step in 7 8 11; do # before, at and behind the small step
        job "killed$step" 57 data.remainder=pad train.num_epochs=2
        killed_at "$step"
        [ "$(digest_of "killed$step")" = "$(digest_of plain)" ] || fail "other weights after a kill at step $step"
    done
    job other 57 data.remainder=pad train.num_epochs=2
    killed_at 6 train.dp_size=2 rollout.num_workers=3
    cmp plain/ledger.jsonl other/ledger.jsonl || fail "other batches in another layout"
    expect train/micro_batches 16 1

    # The loss is the mean over the tokens that are there: the same as in a run of two stages, whose second has batches
    # of four and no more data than what the first leaves.
    job small 12 data.remainder=pad train.num_epochs=1 data.shuffle=false train.lr_schedule=constant
    run_job
    tail -n 4 12.jsonl > rest.jsonl
    job staged 12 data.shuffle=false train.lr_schedule=constant
    cat >> staged.yaml << YAML
stages:
  - name: full
    train: {num_steps: 1}
  - name: rest
    data: {train: [$PWD/rest.jsonl]}
    train: {num_steps: 1, global_batch_size: 4}
YAML
    run_job
    [ "$(digest_of small)" = "$(digest_of staged)" ] || fail "four records that are left train otherwise than four"
    loss=$(figure train/loss 2)
    RUN=$PWD/small
    expect train/loss 2 "$loss"
    echo "the remainder of two epochs is a step, once and after kills"
    ;;
answers) # 11 prompts, two optimizer steps of four in a rollout: three are left, for one of them
    job plain 11 data.remainder=pad train.num_epochs=3 train.global_batch_size=16 train.num_steps_per_rollout=2 \
        train.dp_size=2 checkpoint.interval=1 data.max_length=160
    generate='function: generate, reward: random, n_samples_per_prompt: 4, max_response_length: 16'
    sed -i "s/^cluster:/rollout: {$generate}\ncluster:/" plain.yaml
    run_job
    grep -q 'step=6/6 ' plain.out || fail "three epochs are not six steps"
    for step in 1 3 5; do expect rollout/groups "$step" 8; done
    for step in 2 4 6; do expect rollout/groups "$step" 3; done
    expect train/logprob_mismatch_count 6 0
    sed 's|^run_dir:.*|run_dir: '"$PWD"'/killed|' plain.yaml > killed.yaml
    JOB=killed.yaml RUN=$PWD/killed
    killed_at 3
    [ "$(digest_of killed)" = "$(digest_of plain)" ] || fail "other weights after a kill"
    cmp plain/ledger.jsonl killed/ledger.jsonl || fail "other batches after a kill"
    echo "three prompts that are left are a rollout, once and after a kill"
    ;;
esac
