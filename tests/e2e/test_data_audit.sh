#!/bin/bash
# controller data audit: what a run consumed, over a stop, a resume and a mended line; what was done to a ledger is
# found.
# usage: test_data_audit.sh PART   (run, forged, foreign, mended, recounted, stages, swapped, answers, ahead)
. "$(dirname "$0")/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model
make_data

# audit CODE [ARGUMENT ...]: its output is in out.
audit() {
    code=0
    "$BIN/controller" data audit "${@:2}" >out 2>&1 || code=$?
    [ "$code" -eq "$1" ] || { cat out; fail "the audit ended with code $code, expected $1"; }
}

# says TEXT ...: each stands in out.
says() {
    for text in "$@"; do
        grep -qF -- "$text" out || { cat out; fail "it does not say: $text"; }
    done
}

# 37 good records, 2 bad ones and one that is too long; batches of 16: epochs end in the midst of a batch.
write_small_job() {
    head -n 40 "$DATA/train.jsonl" >small.jsonl
    sed -i '3s/.*/{"messages": [{"role": "user"/; 17s/.*/not JSON at all/' small.jsonl
    words=$(yes twelve | head -n 3000 | tr '\n' ' ')
    sed -i "29s/\"content\": \"/&$words/" small.jsonl
    STEPS=12 write_job "$1.yaml" "$1" data.train=["$PWD/small.jsonl"] data.bad_record=skip checkpoint.interval=4 \
        checkpoint.keep_last=0 "${@:2}"
}

# forge: gives standard input a chain that holds, as nobody but the checkpoints could gainsay.
forge() {
    head=$(printf 'troupe ledger 1' | sha256sum | cut -c1-64)
    while IFS= read -r line; do
        payload=${line%,\"chain\":*}
        head=$(printf '%s%s' "$head" "$payload" | sha256sum | cut -c1-64)
        printf '%s,"chain":"%s"}\n' "$payload" "$head"
    done
}

# sign FILE: gives a manifest that was changed its own digest.
sign() {
    body=$(head -n -2 "$1" | head -c -2)
    printf '%s,\n  "sha256_of_the_above": "%s"\n}\n' "$body" "$(printf %s "$body" | sha256sum | cut -c1-64)" >"$1.new"
    mv "$1.new" "$1"
}

# samples_of_metrics: trained samples of all steps.
samples_of_metrics() {
    sed -n 's|.*"train/samples":\([0-9]*\).*|\1|p' "$RUN/metrics.jsonl" | awk '{ sum += $1 } END { print sum }'
}

case $1 in
run)
    write_small_job job
    start_job
    wait_for_step 5
    kill -INT "$CONTROLLER"
    finish_job 5
    audit 0 "$RUN"
    says "chain whole" "was consumed exactly once"
    run_job
    # 12 steps of 16 samples, 37 an epoch: 5 whole epochs, and 7 samples of the sixth
    audit 0 "$RUN"
    says "epoch 0   40 of 40 records consumed, 37 trained, 3 rejected (" "bad_record 2" "too_long 1" \
        "not consumed: the run stands at position 20" "at hand: the positions of each epoch are one for each record" \
        "small.jsonl:3" "small.jsonl:17" "small.jsonl:29" "4 of 4 checkpoints agree" \
        "verdict   each record of 5 whole epochs was consumed exactly once" \
        "of all consumed, not trained: 15 rejected"
    audit 0 --config job.yaml ${SETTINGS# } --json
    says '"exactly_once":true' '"whole_epochs":5' '"samples":192' '"consumed":40,"trained":37,"rejected":3' \
        '"mapped":true' '"why":"too_long"' '"format":2'
    audit 0 "$RUN" --checkpoint "$RUN/checkpoints/step_00000008" --no-data
    says "the newest, step_00000008, stands for 8 steps; 4 behind it" "was not looked at"
    # The run folder alone is enough for all but the records.
    mv small.jsonl away.jsonl
    audit 0 "$RUN"
    says "not looked at: " "each position of 5 whole epochs"
    audit 2 "$RUN" --data
    says "small.jsonl"
    # Other data is not taken for it.
    sed '5d' away.jsonl >small.jsonl
    audit 3 "$RUN"
    says "EXCEPTION the data at hand has the fingerprint" "NOT proven: 1 exception"
    # A run that has not made a step.
    mkdir none
    printf '' >none/ledger.jsonl
    audit 0 "$PWD/none"
    says "0 steps" "verdict   nothing is proven: no step is in the ledger yet"
    audit 0 "$PWD/none" --json
    says '"exactly_once":null' '"nothing_proven":"no step is in the ledger yet"' '"steps":0'
    # Who asks for what there is not.
    audit 2 "$PWD/nowhere"
    says "nowhere/ledger.jsonl is not there"
    audit 2
    says "which run" "usage: controller data audit RUN" "       controller data audit --config JOB.YAML"
    "$BIN/controller" help data audit >out || fail "there is no help"
    says "--no-data" "Exit codes"
    ;;
forged)
    write_small_job job
    run_job
    ledger=$RUN/ledger.jsonl
    cp "$ledger" whole
    forge <whole | cmp - whole || fail "the chain is not what the header says"
    # A byte, a line that is gone, two that changed places: the chain does not hold.
    sed '5s/"rejected":"/"rejected" :"/' whole >"$ledger"
    audit 3 "$RUN"
    says "EXCEPTION $ledger:5: the ledger is damaged here" "NOT proven"
    sed '5d' whole >"$ledger"
    audit 3 "$RUN"
    says "ledger.jsonl:5: the ledger is damaged"
    sed '5{h;d};6{G}' whole >"$ledger"
    audit 3 "$RUN"
    says "ledger.jsonl:5: the ledger is damaged"
    # Cut at its end, the chain holds; the checkpoint has its line no more.
    head -n 10 whole >"$ledger"
    audit 3 "$RUN"
    says "EXCEPTION step_00000012 names the line" "it was cut, or"
    # With a new chain: the lines say what was taken out, and the checkpoints that it was not so.
    sed '5d' whole | forge >"$ledger"
    audit 3 "$RUN" --json
    says '"kind":"steps"' '"kind":"never_consumed"' '"kind":"checkpoint"' '"exactly_once":false'
    sed '5s/"step":5/"step":6/;6s/"step":6/"step":5/;5{h;d};6{G}' whole | forge >"$ledger"
    audit 3 "$RUN" --json
    says '"kind":"never_consumed"' '"kind":"twice"' '"kind":"checkpoint"'
    sed '2s/"accepted":"\([0-9]*\)-/"accepted":"\1,\1-/' whole | forge >"$ledger"
    audit 3 "$RUN"
    says "malformed positions"
    # A torn last line is a kill's, and no exception.
    { cat whole; printf '{"step":13,"fi'; } >"$ledger"
    audit 0 "$RUN"
    says "an unfinished line of 14 bytes"
    ;;
foreign)
    write_small_job other seed=8
    run_job
    write_small_job job
    run_job
    ledger=$RUN/ledger.jsonl manifest=$RUN/checkpoints/step_00000012/manifest.json
    cp "$ledger" whole
    cp "$manifest" manifest
    sign "$manifest"
    cmp "$manifest" manifest || fail "the digest is not what the header says"
    # A line of another run, as it is and with a new chain.
    sed "5{r /dev/stdin
d}" whole <<<"$(sed -n 5p other/ledger.jsonl)" >"$ledger"
    audit 3 "$RUN"
    says "ledger.jsonl:5: the ledger is damaged here"
    forge <"$ledger" >forged
    cp forged "$ledger"
    audit 3 "$RUN" --json
    says '"kind":"checkpoint"' 'step_00000008 names the line' '"exactly_once":false'
    # The whole ledger of another run, and a checkpoint that names a line of one.
    cp other/ledger.jsonl "$ledger"
    audit 3 "$RUN"
    says "step_00000004 names the line" "step_00000012 names the line" "is another run's" "the data at hand has"
    cp whole "$ledger"
    strange=$(sed -n 's/.*"chain":"\([0-9a-f]*\)"}$/\1/p' other/ledger.jsonl | tail -n 1)
    sed -i "s/\"ledger_head\": \"[0-9a-f]*\"/\"ledger_head\": \"$strange\"/" "$manifest"
    sign "$manifest"
    audit 3 "$RUN"
    says "step_00000012 names the line ${strange:0:16}" "NOT proven: 1 exception"
    SETTINGS="$SETTINGS --set train.num_steps=14"
    start_job
    finish_job 3
    grep -q "has 12 whole lines, and none with the chain ${strange:0:16}" "$RUN.out" || fail "a resume takes it"
    cp manifest "$manifest"
    # An index that was changed is not believed.
    index=$RUN/index/files.bodies
    cp "$index" index
    for at in 8 200 400 700; do
        printf '\x55' | dd of="$index" bs=1 seek=$at conv=notrunc status=none
        audit 0 "$RUN"
        says "at hand: the positions of each epoch" "small.jsonl:29" "each record of 5 whole epochs"
        cp index "$index"
    done
    # A resume looks at the line of its checkpoint and not at all before it; the audit does.
    sed '5s/"rejected"/"rejectee"/' whole >"$ledger"
    run_job
    audit 3 "$RUN"
    says "ledger.jsonl:5: the ledger is damaged"
    sed '5s/"rejectee"/"rejected"/' "$ledger" >mended
    cp mended "$ledger"
    audit 0 "$RUN"
    says "chain whole" "the newest, step_00000014, stands for 14 steps"
    # Nothing fits where bytes are gone.
    sed '5s/"rejected"/"reject"/' mended >"$ledger"
    SETTINGS="$SETTINGS --set train.num_steps=15"
    start_job
    finish_job 3
    grep -q "ledger.jsonl:5: the ledger is damaged" "$RUN.out" || fail "a resume takes it"
    ;;
mended)
    head -n 40 "$DATA/train.jsonl" >late.jsonl
    echo 'no JSON' >>late.jsonl
    STEPS=14 write_job job.yaml run data.train=["$PWD/late.jsonl"] data.shuffle=false train.global_batch_size=4 \
        checkpoint.interval=4
    start_job
    finish_job 3
    sed -i '41s/.*/{"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "1"}]}/' late.jsonl
    start_job
    finish_job 3
    accept=$(sed -n 's/.*--set \(data.accept_changed=[0-9a-f]*\).*/\1/p' "$RUN.out" | tail -n 1)
    SETTINGS="$SETTINGS --set $accept"
    run_job
    audit 0 "$RUN"
    says "): changed, and accepted; the order is the same" "epoch 0   41 of 41 records consumed, 41 trained" \
        "each record of 1 whole epoch was consumed exactly once"
    ;;
recounted)
    head -n 40 "$DATA/train.jsonl" >short.jsonl
    write_job job.yaml run data.train=["$PWD/short.jsonl"] data.order=window train.num_steps=0
    base=$SETTINGS
    SETTINGS="$base --set data.num_samples=20 --set train.num_epochs=2"
    run_job
    SETTINGS="$base --set data.num_samples=40 --set train.num_epochs=3"
    run_job
    audit 0 "$RUN"
    says "epoch length changed from 20 to 40 at position 32 (step 3); the data is the same" \
        "numbered by it, as epoch_id in metrics.jsonl: position 32 is of epoch 0" "epoch 0   8 of 40 " \
        "at hand: the positions of each epoch are one for each record" "epoch 0   20 of 20 " \
        "epoch 1   12 of 20 " "cut: the epoch length changed within it" "epoch 1   40 of 40 " \
        "verdict   each record of 2 whole passes over the data at hand was consumed exactly once"
    ! grep -qE "accepted|the data changed" out || { cat out; fail "it tells of data that changed"; }
    audit 0 "$RUN" --no-data
    says "epoch length changed from 20 to 40 at position 32" "each position of 2 whole epochs"
    ;;
stages)
    cat >job.yaml <<YAML
name: tiny
run_dir: $PWD/run
model: {path: $SOURCE/deploy/examples/tiny/model, init: random}
data: {train: [$DATA/train.jsonl]}
train: {num_steps: 3, global_batch_size: 16, lr: 0.002}
checkpoint: {interval: 2, keep_last: 0}
cluster: {cpus: 16}
stages:
  - name: first
  - name: second
    data: {train: [$DATA/eval.jsonl]}
    train: {num_steps: 5}
YAML
    JOB=job.yaml RUN=$PWD/run SETTINGS=
    run_job
    audit 0 "$RUN"
    says "stage 1   steps 1 to 3" "stage 2   steps 4 to 8" "5 of 5 checkpoints agree" \
        "no epoch is whole yet, and no record was consumed twice in one"
    audit 0 --config job.yaml --data --json
    says '"stage":0' '"stage":1' '"mapped":true'
    ;;
swapped)
    head -n 24 "$DATA/train.jsonl" >prompts.jsonl
    STEPS=200 write_job job.yaml run data.max_length=160 checkpoint.interval=2 train.tp_size=1
    cat >second.yaml <<YAML
name: second
data: {train: [$PWD/prompts.jsonl], max_length: 160}
rollout: {function: generate, reward: random, n_samples_per_prompt: 4, max_response_length: 6}
train: {num_steps: 5, global_batch_size: 32, lr: 0.001}
YAML
    start_job
    wait_for_step 3
    "$BIN/controller" swap-rollout --run "$RUN" --config second.yaml >said || fail "$(cat said)"
    last=$(sed -n 's/.* after step \([0-9]*\)$/\1/p' said)
    wait_for_step $((last + 3))
    kill -9 "$CONTROLLER"
    finish_job 137
    nothing_left
    run_job
    audit 0 "$RUN"
    says "stage 1   steps 1 to $last" "stage 2   steps $((last + 1)) to $((last + 5))" \
        "epoch 0   24 of 24 records consumed, 24 trained" "each record of 1 whole epoch was consumed exactly once"
    audit 0 "$RUN" --data --json
    says "\"samples\":$(samples_of_metrics)," '"stage":1'
    ;;
ahead) # of training: over-sampled, dropped where too old, in two optimizer steps, and the ends of epochs are steps
    head -n 22 "$DATA/train.jsonl" >prompts.jsonl
    STEPS=9 write_job job.yaml run data.train=["$PWD/prompts.jsonl"] data.eval=null data.remainder=pad \
        rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 \
        rollout.max_response_length=6 data.max_length=160 rollout.max_staleness=2 rollout.over_sampling=2 \
        rollout.too_stale=drop rollout.num_workers=2 algorithm.correction=tis algorithm.old_log_probs=current \
        algorithm.dynamic_filter=zero_variance train.global_batch_size=16 train.num_steps_per_rollout=2 \
        train.tp_size=1 checkpoint.interval=2
    start_job
    wait_for_step 4
    kill -9 "$CONTROLLER"
    finish_job 137
    nothing_left
    run_job
    metrics_ascend
    audit 0 "$RUN"
    says "epoch 0   22 of 22 records consumed" "whole epoch" "was consumed exactly once"
    audit 0 "$RUN" --data --json
    says "\"samples\":$(samples_of_metrics),"
    ;;
answers)
    head -n 24 "$DATA/train.jsonl" >prompts.jsonl
    STEPS=6 write_job job.yaml run data.train=["$PWD/prompts.jsonl"] data.eval=null rollout.function=generate \
        rollout.reward=random rollout.n_samples_per_prompt=4 rollout.max_response_length=6 data.max_length=160 \
        train.global_batch_size=32 train.tp_size=1
    run_job
    audit 0 "$RUN"
    says "epoch 0   24 of 24 records consumed, 24 trained" "each record of 2 whole epochs was consumed exactly once"
    audit 0 "$RUN" --json
    says '"samples":192' '"trained":48'
    grep -q '"group":4' "$RUN/ledger.jsonl" || fail "the ledger does not tell of groups"
    ;;
*) fail "no such part: $1" ;;
esac
nothing_left
echo "the audit of $1 says what there is"
