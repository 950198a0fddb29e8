#!/bin/bash
# The jobs of deploy/examples that no other test runs as they are given.
# usage: BIN=... SOURCE=... test_examples.sh folders | gsm8k_rl
set -eu
EXAMPLES=$SOURCE/deploy/examples

fail() {
    echo "FAILED: $*"
    if [ -f out ]; then sed 's/^/  out: /' out | tail -20; fi
    exit 1
}

# run_name FILE: what its run folder is called.
run_name() {
    local name
    name=$(sed -n 's/^name: *//p' "$1")
    echo "${name:-$(basename "$1" .yaml)}"
}

case $1 in
folders) # one example never takes another's for its own, to go on with
    find "$EXAMPLES" -name '*.yaml' | while read -r file; do run_name "$file"; done | sort > names
    [ "$(wc -l < names)" -ge 8 ] || fail "only $(wc -l < names) jobs were found"
    [ -z "$(uniq -d names)" ] || fail "several jobs have the run folder runs/$(uniq -d names | head -n 1)"
    # A job that begins with another's model names the folder that the other writes.
    for pair in careless/sft.yaml:careless/rl.yaml tools/sft.yaml:tools/rl.yaml; do
        grep -qE "runs/$(run_name "$EXAMPLES/${pair%:*}")( |,|}|$)" "$EXAMPLES/${pair#*:}" ||
            fail "${pair#*:} does not begin with the model of ${pair%:*}"
    done
    ;;
gsm8k_rl) # in order with a model of Qwen3-0.6B's shape, its tokenizer, and the data
    shared=${TROUPE_SHARED:-$SOURCE/../shared}
    if [ ! -d "$shared/data/gsm8k" ]; then
        echo "skipped: $shared/data/gsm8k is absent"
        exit 77
    fi
    mkdir -p examples/gsm8k models/Qwen3-0.6B
    cp "$EXAMPLES/gsm8k_rl.yaml" examples/
    cp "$shared"/data/gsm8k/*.jsonl examples/gsm8k/
    cp "$shared"/data/tokenizers/qwen3/* models/Qwen3-0.6B/
    # With all 28 layers it wants 22 GiB; all else is the same with two.
    layers=28
    [ "$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)" -ge 26 ] || layers=2
    sed -e 's/"head_dim": 32/"head_dim": 128/; s/"hidden_size": 128/"hidden_size": 1024/' \
        -e 's/"intermediate_size": 768/"intermediate_size": 3072/; s/attention_heads": 8/attention_heads": 16/' \
        -e "s/hidden_layers\": 14/hidden_layers\": $layers/; s/key_value_heads\": 4/key_value_heads\": 8/" \
        "$EXAMPLES/gsm8k/config.json" > models/Qwen3-0.6B/config.json
    "$BIN/controller" validate --config examples/gsm8k_rl.yaml --set model.path=models/Qwen3-0.6B \
        --set model.init=random --set cluster.cpus=16 --set run_dir=run > out 2>&1 || fail "it is not in order"
    grep -q "hidden size 1024" out || fail "another model was looked at"
    grep -q "data.train: the first 1000 records, of more, give 1000 prompts of .* tokens; 0 rejected" out ||
        fail "records are rejected"
    ! grep -qiE "warning|odd" out || fail "something is odd"
    ;;
*)
    echo "unknown case $1"
    exit 2
    ;;
esac
