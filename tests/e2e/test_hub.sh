#!/bin/bash
# A job that trains from a data set on the Hugging Face Hub: a server that answers as it does (tests/hub/hub_server.py).
# usage: BIN=... SOURCE=... test_hub.sh train|kills|package|model|silent
#   train    the weights are those of a job with the same files on this machine; a later session needs no Hub
#   kills    the data source is killed while it fetches, again and again: nothing is fetched twice, and the weights are
#            the same
#   package  what huggingface_hub has fetched is used as it is, and the other way round
#   model    a model by its name: nothing but what a run needs is fetched, through a kill and faults; the weights are
#            those of a job with the same folder
#   silent   the Hub takes connections and says nothing: whoever waits says for whom, and ends at once when told to
. "$(dirname "$0")/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
. "$SOURCE/tests/hub/serve.sh"
make_data

commit=$hub_commit
serve_repo troupe/tiny
mkdir -p "$files/data"
split -n l/3 -d -a 5 "$DATA/train.jsonl" "$files/data/train-"
for i in 0 1 2; do mv "$files/data/train-0000$i" "$files/data/train-0000$i-of-00003.jsonl"; done
cp "$DATA/eval.jsonl" "$files/data/validation-00000-of-00001.jsonl"
printf '# Tiny\n' > "$files/README.md"

# hub_job FILE RUN: the tiny job with its data on the Hub.
hub_job() {
    write_job "$@"
    sed -i "s|train: \[.*|train: troupe/tiny|; s|eval: \[.*|eval: [troupe/tiny]|" "$JOB"
}

# folder_digest: of a run with these files on this machine.
folder_digest() {
    write_job folder.yaml folder
    sed -i "s|train: \[.*|train: $PWD/$files|; s|eval: \[.*|eval: [$PWD/$files]|" "$JOB"
    run_job > /dev/null
    digest_of "$RUN"
}

start_server
case $1 in
train)
    export STEPS=6
    expected=$(folder_digest)
    hub_job job.yaml run
    "$BIN/controller" validate --config job.yaml > validate.out 2>&1 || fail "validate: $(cat validate.out)"
    ! grep -q "what is evaluated is trained" validate.out || fail "other splits: $(cat validate.out)"
    [ "$(asked '"cdn"')" -eq 3 ] || fail "validate fetches not just what the first thousand records are in"
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "the weights are not those of the same files in a folder"
    grep -q "$commit" "$RUN/hub.json" || fail "hub.json does not say which commit it is"

    # The Hub goes on, and goes away: the run stays where it was.
    cp -r "$files" "server/repos/troupe/tiny/$(echo $commit | tr a b)"
    echo "{\"branches\": {\"main\": \"$(echo $commit | tr a b)\"}}" > server/repos/troupe/tiny/refs.json
    stop_server
    SETTINGS="--set train.num_steps=8"
    run_job
    grep -q '"step":8[,}]' "$RUN/metrics.jsonl" || fail "step 8 was not reached without the Hub"
    nothing_left
    echo "from the Hub as from a folder, and without it when all is there"
    ;;
kills)
    export STEPS=6
    expected=$(folder_digest)
    disturb '{"match": "^/troupe/", "do": "slow", "chunk": 4000, "ms": 80, "times": 99}'
    hub_job job.yaml run
    start_job
    blobs=$HF_HOME/hub/datasets--troupe--tiny/blobs bytes=0
    for kill in 1 2; do
        for _ in $(seq 1200); do
            now=$(cat "$blobs"/* 2> /dev/null | wc -c)
            source=$(actor_pid data_source 2> /dev/null || true)
            [ -z "$source" ] || [ "$now" -le $((bytes + 20000)) ] || break
            kill -0 "$CONTROLLER" 2> /dev/null || fail "the job ended before kill $kill"
            sleep 0.05
        done
        ls "$blobs" | grep -q incomplete || fail "nothing was being fetched at kill $kill"
        kill -9 "$source"
        bytes=$now
    done
    disturb
    finish_job 0
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "the weights differ after the kills"
    asked '"range": "bytes=[1-9]' | grep -qvx 0 || fail "no download went on from where it was"
    ! ls "$blobs" | grep -q incomplete || fail "something incomplete is left"
    nothing_left
    echo "two kills in a download, the same weights"
    ;;
model)
    # A model with weights: what two steps leave, and beside it what a run has no use for.
    export STEPS=2
    write_job first.yaml first checkpoint.interval=2
    run_job > /dev/null
    serve_repo troupe/model
    mkdir -p "$files/original"
    for name in config.json model.safetensors model.safetensors.index.json; do
        [ ! -e "$RUN/checkpoints/step_00000002/$name" ] || cp "$RUN/checkpoints/step_00000002/$name" "$files"
    done
    for shard in "$RUN"/checkpoints/step_00000002/model-*.safetensors; do
        [ ! -e "$shard" ] || cp "$shard" "$files"
    done
    cp -n "$SOURCE"/deploy/examples/tiny/model/* "$files"
    for name in pytorch_model.bin model.gguf other.safetensors original/model.safetensors README.md; do
        head -c 5000 /dev/urandom > "$files/$name"
    done
    export STEPS=4
    write_job folder.yaml folder
    sed -i "s|path: .*|path: $PWD/$files|; s|init: .*|init: pretrained|" "$JOB"
    run_job > /dev/null
    expected=$(digest_of "$RUN")

    write_job job.yaml run
    sed -i "s|path: .*|path: troupe/model|; s|init: .*|init: pretrained|" "$JOB"
    rm -f server/requests.jsonl
    "$BIN/controller" validate --config job.yaml > validate.out 2>&1 || fail "validate: $(cat validate.out)"
    grep -q "model: troupe/model of the Hub, commit $commit" validate.out || fail "no commit: $(cat validate.out)"
    grep -q "weights: .* of which a run fetches" validate.out || fail "validate says not what there is to fetch"
    [ "$(asked 'safetensors"')" -eq 0 ] || fail "validate has fetched weights"
    ! ls "$RUN" > /dev/null 2>&1 || fail "validate has made a run folder"

    # A kill while it fetches, a byte that is another, and a connection that ends.
    disturb '{"match": "safetensors[?]", "do": "slow", "chunk": 3000, "ms": 100, "times": 99}'
    start_job
    blobs=$HF_HOME/hub/models--troupe--model/blobs
    for _ in $(seq 1200); do
        kill -0 "$CONTROLLER" 2> /dev/null || fail "the job ended before the kill: $(tail -n 5 "$RUN.out")"
        [ "$(cat "$blobs"/*.incomplete 2> /dev/null | wc -c)" -le 6000 ] || break
        sleep 0.05
    done
    ls "$blobs" | grep -q incomplete || fail "nothing was being fetched"
    kill -9 "$CONTROLLER"
    wait "$CONTROLLER" 2> /dev/null || true
    disturb '{"match": "safetensors[?]", "do": "cut", "after": 9000}' '{"match": "safetensors[?]", "do": "corrupt"}'
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "the weights are not those of the same files in a folder"
    asked 'safetensors.*"range": "bytes=[1-9]' | grep -qvx 0 || fail "no download went on from where it was"
    for name in pytorch_model.bin model.gguf other.safetensors original/ README.md; do
        [ "$(asked "$name")" -eq 0 ] || fail "$name was fetched"
    done
    grep -q "fetching .*model=troupe/model" "$RUN.out" || fail "nothing was said of the fetching"
    grep -q "models/troupe/model@main.*$commit" "$RUN/hub.json" || fail "hub.json does not say which commit it is"

    # The Hub goes on, and goes away: the run stays where it was.
    echo "{\"branches\": {\"main\": \"$(echo $commit | tr a b)\"}}" > server/repos/troupe/model/refs.json
    stop_server
    SETTINGS="--set train.num_steps=6"
    run_job
    grep -q '"step":6[,}]' "$RUN/metrics.jsonl" || fail "step 6 was not reached without the Hub"
    "$BIN/controller" data inspect --config job.yaml > inspect.out 2>&1 || fail "inspect: $(cat inspect.out)"

    # A name that nobody has.
    start_server
    sed -i "s|path: .*|path: troupe/modle|" "$JOB"
    code=0
    "$BIN/controller" validate --config job.yaml > absent.out 2>&1 || code=$?
    [ "$code" -eq 2 ] || fail "exit code $code for a model that is not there"
    grep -q "model.path: troupe/modle: .* has no model of that name" absent.out || fail "absent: $(cat absent.out)"
    grep -q "did you mean" absent.out || fail "no advice: $(cat absent.out)"
    nothing_left
    echo "a model by its name as from its folder"
    ;;
silent)
    disturb '{"match": ".", "do": "hang", "s": 600, "times": 999}'
    hub_job job.yaml run
    # silence FILE REPO COMMAND...: that it says what it waits for, and ends within two seconds of an interrupt.
    silence() {
        local out=$1 wanted="$HF_ENDPOINT ($2); no answer for [0-9]* s (try 1 of 6, gives up in [0-9]* s)" process left
        shift 2
        env --default-signal=INT "$@" > "$out" 2>&1 &
        process=$!
        for _ in $(seq 200); do
            ! grep -q "$wanted" "$out" || break
            sleep 0.1
        done
        grep -q "$wanted" "$out" || fail "$1 does not say what it waits for: $(cat "$out")"
        [ "$out" != run.out ] || "$BIN/controller" status --run "$RUN" > status.out
        kill -INT "$process"
        for left in $(seq 40); do
            kill -0 "$process" 2> /dev/null || break
            sleep 0.1
        done
        [ "$left" -lt 40 ] || fail "$out: an interrupt does not end it"
        wait "$process" || true
    }
    silence inspect.out troupe/tiny "$BIN/data_inspect" --config job.yaml
    silence run.out troupe/tiny "$BIN/controller" --config job.yaml
    grep -q "waiting .* s for data_source to open the data set; waiting for $HF_ENDPOINT (troupe/tiny); no answer" \
        status.out || fail "the status: $(cat status.out)"
    grep -q '"event":"waiting".*'"$HF_ENDPOINT (troupe/tiny); no answer" run/events.jsonl || fail "the log says nothing"
    sed -i "s|path: .*|path: troupe/model|" job.yaml
    silence model.out troupe/model "$BIN/controller" --config job.yaml
    silence model.out troupe/model "$BIN/data_inspect" --config job.yaml
    nothing_left
    echo "a Hub that says nothing is named, and let go of"
    ;;
package)
    python=${HUB_PYTHON:-python3}
    "$python" -c 'import huggingface_hub' 2> /dev/null || { echo "no huggingface_hub (HUB_PYTHON=...)"; exit 77; }
    hub_job job.yaml run
    "$BIN/controller" data inspect --config job.yaml --position 1999 > ours.out 2>&1 || fail "$(cat ours.out)"
    tree=hub/datasets--troupe--tiny/trees/$commit.json
    "$python" - << PY || fail "huggingface_hub does not find what was fetched"
import os
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
for name in sorted(os.listdir("$files/data")):
    if name.startswith("train"):
        path = hf_hub_download("troupe/tiny", "data/" + name, repo_type="dataset", local_files_only=True)
        assert open(path, "rb").read() == open("$files/data/" + name, "rb").read(), name
found = scan_cache_dir()
assert not found.warnings and [repo.repo_id for repo in found.repos] == ["troupe/tiny"], found
os.environ["HF_HOME"] = "$PWD/theirs"
PY
    before=$(asked '"cdn"')
    fetch='from huggingface_hub import snapshot_download as fetch; fetch("troupe/tiny", repo_type="dataset")'
    HF_HOME=$PWD/theirs "$python" -c "$fetch" 2> /dev/null || fail "huggingface_hub could not fetch"
    [ "$(asked '"cdn"')" -gt "$before" ] || fail "huggingface_hub fetched nothing"
    cmp "home/$tree" "theirs/$tree" || fail "the list that is kept is not huggingface_hub's"
    rm -rf run
    stop_server
    export HF_HOME=$PWD/theirs HF_HUB_OFFLINE=1
    "$BIN/controller" data inspect --config job.yaml --position 1999 > theirs.out 2>&1 ||
        fail "without a Hub: $(cat theirs.out)"
    sed 's|/theirs/|/home/|' theirs.out | cmp ours.out - || fail "the record is another"
    echo "one cache for both"
    ;;
esac
