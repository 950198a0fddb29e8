#!/bin/bash
# controller data audit: what a run consumed, over a stop, a resume and a mended line; what was done to a ledger is
# found.
# usage: test_data_audit.sh PART   (run, forged, mended, stages, answers)
. "$(dirname "$0")/lib.sh"
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
        "verdict   each record of 5 whole epochs was consumed exactly once"
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
    # Who asks for what there is not.
    audit 2 "$PWD/nowhere"
    says "nowhere/ledger.jsonl is not there"
    audit 2
    says "which run" "usage: controller data audit RUN"
    "$BIN/controller" help data audit >out || fail "there is no help"
    says "--no-data" "Exit codes"
    ;;
forged)
    write_small_job job
    run_job
    ledger=$RUN/ledger.jsonl
    cp "$ledger" whole
    # forge: gives standard input a chain that holds, as nobody but the checkpoints could gainsay.
    forge() {
        head=$(printf 'troupe ledger 1' | sha256sum | cut -c1-64)
        while IFS= read -r line; do
            payload=${line%,\"chain\":*}
            head=$(printf '%s%s' "$head" "$payload" | sha256sum | cut -c1-64)
            printf '%s,"chain":"%s"}\n' "$payload" "$head"
        done
    }
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
