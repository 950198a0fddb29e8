#!/usr/bin/env bash
# What a person sees who gave the controller something wrong: one case a call, against the real program. Each message
# has at most six lines, names the place (file:line or key), what was found, what was expected and what to do; the
# exit code is of the class that README documents.
# usage: BIN=... SOURCE=... test_bad_input.sh CASE      (`list` prints the cases)
# BAD_INPUT_SECONDS (default 1) is the longest that a message may take, the best of three tries counting: more is for
# sanitizers and for machines with other work to do.
set -eu

limit=${BAD_INPUT_SECONDS:-1}
model_source=$SOURCE/deploy/examples/tiny/model

fail() {
    echo "FAILED: $*"
    if [ -f out ]; then sed 's/^/  out: /' out | tail -40; fi
    exit 1
}

# ---- a job that is right, to be spoilt ----

conversation='{"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}'

prepare() {
    mkdir -p model
    cp "$model_source"/* model/
    for _ in 1 2 3 4 5 6 7 8; do echo "$conversation"; done >train.jsonl
    cp train.jsonl eval.jsonl
    cat >job.yaml <<YAML
run_dir: $PWD/run
model:
  path: model
  init: random
data:
  train: train.jsonl
  eval: eval.jsonl
train:
  num_steps: 2
  global_batch_size: 4
cluster:
  cpus: 16
YAML
}

# message CODE [option...]: runs the controller, which must end with this code; its message is then in ./message.
message() {
    local code=$1 got begin end try repeatable=no
    shift
    [ -e run ] || repeatable=yes
    for try in 1 2 3; do
        got=0
        begin=$(date +%s%N)
        timeout 60 "$BIN/controller" --config job.yaml "$@" >out 2>&1 || got=$?
        end=$(date +%s%N)
        [ "$got" = "$code" ] || fail "exit code $got, expected $code"
        if [ $((end - begin)) -le $((limit * 1000000000)) ] || [ $repeatable = no ]; then break; fi
        echo "try $try took $(((end - begin) / 1000000)) ms"
        rm -rf run
    done
    # From the last line that begins with the program's name to the end.
    awk '/^controller: / { text = "" } { text = text $0 "\n" } END { printf "%s", text }' out >message
    grep -q '^controller: ' message || fail "no message"
    [ "$(wc -l <message)" -le 6 ] || fail "the message has $(wc -l <message) lines, at most 6"
    echo "after $(((end - begin) / 1000000)) ms:"
    cat message
    [ $((end - begin)) -le $((limit * 1000000000)) ] || fail "took longer than $limit s"
}

# says TEXT...: each stands in the message.
says() {
    local text
    for text in "$@"; do grep -qiF -- "$text" message || fail "the message does not say: $text"; done
}

# ---- the job file ----

case_unknown_key() {
    sed -i 's/num_steps/num_stpes/' job.yaml
    message 2
    says "job.yaml:9:3" train.num_stpes "Did you mean train.num_steps"
}

case_wrong_type() {
    sed -i 's/num_steps: 2/num_steps: many/' job.yaml
    message 2
    says "job.yaml:9:14" "train.num_steps is \"many\"" "expected a whole number" "for example"
}

case_batch_not_divisible() {
    message 2 --set train.dp_size=3
    says "train.global_batch_size is 4" "train.dp_size 3" "3 or 6" "1, 2, 4"
}

# generates OPTION...: the job learns by reinforcement, with these lines in its section rollout.
generates() {
    printf '%s\n' "rollout:" "  function: ${1#function: }" "  n_samples_per_prompt: 4" >>job.yaml
    shift
    [ $# = 0 ] || printf '  %s\n' "$@" >>job.yaml
}

# What is found when a reward, tools or a rollout function are opened has the form that all keys have.
case_reward_options() {
    generates generate "reward: {name: http}"
    message 2
    says "job.yaml:16: rollout.reward:" 'key "url" is missing' "Write for example {name: http, options: {url:" \
        "docs/rewards.md"
    if grep -q "what an answer is worth" message; then fail "the key is described behind what is to be done"; fi
    message 2 --set 'rollout.reward=[]'
    says "--set rollout.reward=[]: rollout.reward: there are 0 rewards" "for example gsm8k"
    # Once, and before the figures of memory and data.
    "$BIN/controller" validate --config job.yaml >out 2>&1 && fail "validate is content"
    [ "$(grep -c 'rollout.reward: the options' out)" = 1 ] || fail "not said once"
    ! grep -qE "data inspect|memory|data.train" out || fail "something else stands beside it"
    grep -q "job job is not in order" out || fail "no verdict"
}

case_rollout_tools() {
    generates generate "reward: gsm8k" "tools: [{name: calc}]"
    message 2
    says "job.yaml:17: rollout.tools: tools[0] has neither command nor url" "Write for example command: [python3" \
        "docs/tools.md"
    message 2 --set 'rollout.tools=[{name: calc, command: cat}]'
    says "rollout.tools: the chat template leaves out the calls of tools" "The template is $PWD/model." \
        "model.chat_template, for example deploy/examples/tools/chat_template.jinja"
}

case_rollout_function() {
    generates "process:no-such-program"
    message 2
    says "job.yaml:14: rollout.function: there is no program \"no-such-program\" in PATH" "rollout-function.md"
    message 2 --set rollout.function=process:
    says 'rollout.function is "process:"' "right behind the colon, without a blank: function: process:..."
}

case_rollout_files() {
    generates generate "reward: gsm8k" "load: answers"
    echo no >note
    message 2
    says "job.yaml:17: rollout.load: $PWD/answers does not exist" "expected the folder of a run's rollout.save"
    message 2 --set rollout.load=note
    says "--set rollout.load=note: rollout.load: $PWD/note is a file" "Name the folder"
    sed -i '/load: answers/d' job.yaml
    message 2 --set rollout.serve_port=9000 --set rollout.serve_token_file=nofile
    says "rollout.serve_token_file: $PWD/nofile does not exist" "a file with a token in its first line"
    set -- --set rollout.serve_port=9000 --set rollout.serve_token_file=token
    echo secret >token
    chmod 644 token
    message 2 "$@"
    says "--set rollout.serve_token_file=token: rollout.serve_token_file: token file $PWD/token can be read by others" \
        "chmod 600"
    chmod 600 token
    message 2 "$@"
    says "its first line has 6 characters, expected at least 16"
    "$BIN/controller" validate --config job.yaml --set rollout.load=answers >out 2>&1 && fail "validate is content"
    grep -q "rollout.load: $PWD/answers does not exist" out || fail "validate does not say it"
}

# The second worker's port is another program's.
case_rollout_port() {
    local port
    command -v python3 >/dev/null || return 0 # which is that program
    generates generate "reward: gsm8k"
    python3 -c 'import socket, time
taken = socket.create_server(("127.0.0.1", 0)); print(taken.getsockname()[1], flush=True); time.sleep(60)' >port &
    for _ in $(seq 100); do [ -s port ] || sleep 0.05; done
    port=$(cat port)
    message 4 --set rollout.serve_port=$((port - 1)) --set rollout.num_workers=2
    says "--set rollout.serve_port=$((port - 1)): rollout.serve_port: port $port, of rollout worker 1, is in use" \
        "from which on 2 ports are free"
    kill %1
}

case_rollout_memory() {
    generates generate "reward: gsm8k"
    message 4 --set rollout.kv_cache_mb=100000000
    says "--set rollout.kv_cache_mb=100000000: rollout.kv_cache_mb: 1 rollout worker takes 2048" \
        "GiB that are free train workers take" \
        "keys and values" "Write rollout.kv_cache_mb: " " or less (answers that find no room wait)"
    "$BIN/controller" validate --config job.yaml --set rollout.kv_cache_mb=100000000 >out 2>&1 &&
        fail "validate is content"
    grep -q "rollout.kv_cache_mb: 1 rollout worker takes" out || fail "validate does not say it"
    # Beside the train workers, and by what is left, where the job does not say.
    local check=("$BIN/data_inspect" --config job.yaml --check=memory --available 1000000000) half whole
    whole=$("${check[@]}" --set rollout.concurrency=4096 | sed -n 's/^kv_cache_mb //p')
    half=$("${check[@]}" --set rollout.concurrency=4096 --trained 450000000 | sed -n 's/^kv_cache_mb //p')
    [ "$half" -gt 100 ] && [ "$whole" -gt $((half * 3 / 2)) ] ||
        fail "$whole MiB without train workers, $half with them"
    [ -z "$("${check[@]}" --set rollout.concurrency=4)" ] || fail "less than all, though there is room"
    ! "${check[@]}" --trained 890000000 >out 2>&1 || fail "two fit where one does"
    grep -q "train workers take 0.83 GiB and a tenth is kept" out || fail "does not say what the train workers have"
    # The key is of a worker: its tensor-parallel ranks share it.
    local one two=("${check[@]}" --set rollout.kv_cache_mb=64 --set train.tp_size=2)
    ! "${two[@]}" --available 1000000 >out 2>&1 || fail "a megabyte is enough"
    grep -q "keys and values 32.0 MiB.*so for each of 2 tensor-parallel ranks" out || fail "$(cat out)"
    ! "${two[@]}" --set rollout.kv_cache_mb=1 --set data.max_length=4096 >out 2>&1 || fail "a megabyte holds an answer"
    grep -q "rollout.kv_cache_mb: 1 MiB for the keys and values of a rollout worker" out || fail "$(cat out)"
    one=$(sed -n 's/.*4096 tokens, takes \([0-9]*\) MiB$/\1/p' out)
    "${two[@]}" --set rollout.kv_cache_mb="$one" --set data.max_length=4096 >out 2>&1 || fail "$(cat out)"
    # The same for all workers, and later: decided once, in one line. Not where 256 GiB are there for them, and not
    # under sanitizers, whose allocator touches all of it.
    [ "$limit" = 1 ] && [ "$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)" -lt 200000000 ] || return 0
    sed -i 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 100000/' model/config.json
    local large="--set rollout.concurrency=4096 --set data.max_length=32768" first
    large="$large --set rollout.max_response_length=4"
    # shellcheck disable=SC2086
    "$BIN/controller" --config job.yaml $large >out 2>&1 || fail "does not run"
    first=$(sed -n 's/.* kv_cache mb=\([0-9]*\) why="less memory is free.*/\1/p' out)
    [ -n "$first" ] || fail "does not say what was decided"
    sed -i "s/:\s*$first/: $((first / 2))/" run/memory.json # as if it had been another day
    # shellcheck disable=SC2086
    "$BIN/controller" --config job.yaml $large --set train.num_steps=3 >out 2>&1 || fail "does not resume"
    grep -q "kv_cache mb=$((first / 2)) " out || fail "a resume decides anew"
    grep -q "keys and values $((first / 2)).0 MiB" run/logs/rollout-0.log || fail "the worker has another size"
}

case_missing_job_file() {
    rm job.yaml
    message 2
    says "job.yaml does not exist" "--config"
}

case_reserved_kwarg() {
    message 2 --set 'data.apply_chat_template_kwargs={"messages": []}'
    says data.apply_chat_template_kwargs '"messages"' "Remove it"
}

# ---- files ----

case_missing_file() {
    rm train.jsonl
    echo "$conversation" >trian.jsonl
    message 2
    says "job.yaml:6" data.train train.jsonl "does not exist" "Did you mean $PWD/trian.jsonl"
    [ "$(wc -l <message)" = 2 ] || fail "it takes more than a sentence and a suggestion"
    message 2 --set data.train=gsm8k
    says "data.train: $PWD/gsm8k does not exist" "A name of the Hugging Face Hub is written OWNER/NAME"
}

case_link_to_itself() {
    ln -s loop.jsonl loop.jsonl
    message 2 --set data.train=loop.jsonl
    says "data.train: $PWD/loop.jsonl is a symbolic link that leads back to itself" \
        "expected a data file" "Mend the link"
}

case_special_file() {
    mkfifo pipe
    for path in pipe /dev/zero; do
        message 2 --set data.train=$path
        says "$path is not a regular file" "expected: a file" "to do: write to a file what comes out of it"
    done
}

# What the run itself finds is told with its place, too.
case_look_alike() {
    printf 'prompt,completion\n2 + 2?,4\n' >train.jsonl
    message 2
    says "job.yaml:6: data.train: $PWD/train.jsonl is CSV" "JSONL, one JSON object per line" data.reader
}

case_reader_that_is_none() {
    sed -i 's|^  train: .*|&\n  reader: train.jsonl|' job.yaml
    message 2
    says "job.yaml:7: data.reader: cannot load the reader" "$PWD/train.jsonl" "expected: a shared object" "to do: "
}

case_hub_name() {
    sed -i 's|path: model|path: Qwen/Qwen3-0.6B|' job.yaml
    export HF_HUB_OFFLINE=1 HF_HOME=$PWD/home
    message 4
    says "job.yaml:3: model.path: Qwen/Qwen3-0.6B is not in the cache ($PWD/home/hub/models--Qwen--Qwen3-0.6B)" \
        "HF_HUB_OFFLINE" "hf download Qwen/Qwen3-0.6B"
    mkdir -p home/hub/models--Qwen--Qwen3-0.6b home/hub/models--Qwen--Qwen3-4B home/hub/datasets--Qwen--Qwen3-0.6Bs
    message 4
    says "to do: write Qwen/Qwen3-0.6b, which is there, unset HF_HUB_OFFLINE, or fetch it first"
    rm -r home
    sed -i 's|path: Qwen.*|path: Qwen3-0.6B|' job.yaml
    message 2
    says "job.yaml:3: model.path: $PWD/Qwen3-0.6B does not exist" "is written OWNER/NAME"
    sed -i 's|path: Qwen.*|path: Qwen/Qwen3-0.6B|' job.yaml
    sed -i 's|path: Qwen.*|path: hf://Qwen|' job.yaml
    message 2
    says "job.yaml:3: model.path" "is no name of a model" "hf://OWNER/NAME"
    sed -i 's|path: hf.*|path: Qwen/Qwen3-0.6B|' job.yaml
    sed -i 's|path: Qwen|path: models/Qwen|' job.yaml
    sed -i 's|models/Qwen/|models/|' job.yaml
    message 2
    says "model.path" "$PWD/models/Qwen3-0.6B does not exist"
    ! grep -q "hf download" message || fail "a folder of models is taken for a name on the hub"
    sed -i 's|path: models/.*|path: model|; s|train: train.jsonl|train: hf://buckets/a/b/x.jsonl|' job.yaml
    message 2
    says "data.train" "is no name of a data set" "Buckets and Spaces are not read: fetch the files into a folder"
}

# tried_from FOLDER OPTION...: the message of a start in that folder.
tried_from() {
    local folder=$1 job=$PWD/job.yaml
    shift
    (cd "$folder" && "$BIN/controller" --config "$job" "$@") >out 2>&1 && fail "it ran"
    cp out message
}

# Relative paths start at the job file's folder, in --set at the working directory: the message says which was tried.
case_relative_path() {
    mkdir elsewhere
    touch elsewhere/other.jsonl
    tried_from elsewhere --set data.eval=eval.jsonl
    says "--set data.eval=eval.jsonl: data.eval: $PWD/elsewhere/eval.jsonl does not exist" \
        "Did you mean $PWD/eval.jsonl?" "--set start at the working directory"
    tried_from / --set data.eval=no_such_file.jsonl
    says "data.eval: /no_such_file.jsonl does not exist" "the working directory, /)"
    sed -i "s|train: train.jsonl|train: other.jsonl|" job.yaml
    tried_from elsewhere
    says "job.yaml:6: data.train: $PWD/other.jsonl does not exist" "Did you mean $PWD/elsewhere/other.jsonl?" \
        "the job file start at its folder"
    rm elsewhere/other.jsonl
    tried_from elsewhere
    says "(relative ones in the job file start at its folder, $PWD)"
}

case_run_without_checkpoint() {
    mkdir -p other/checkpoints
    message 2 --set model.path=other
    says "$PWD/other is the folder of a run that has no checkpoint yet"
}

case_empty_data_set() {
    : >train.jsonl
    message 3
    says "job.yaml:6" data.train train.jsonl "is empty"
}

case_blank_data_set() {
    printf '\n\n   \n' >train.jsonl
    message 3
    says train.jsonl data.train
}

# ---- records: the third line of train.jsonl is wrong ----

spoil_record() {
    sed -i "3s|.*|$1|" train.jsonl
}

case_truncated_json_line() {
    spoil_record '{"messages": [{"role": "user", "content": "2 + '
    message 3
    says "train.jsonl:3" expected "to do"
}

# A byte that changed on a disk, in text that is compressed.
case_odd_text_in_gzip() {
    spoil_record 'not JSON'
    message 3
    says "train.jsonl:3: not valid JSON"
    if grep -q "is damaged" message; then fail "plain text is not damaged: $(cat message)"; fi
    gzip -k train.jsonl
    message 3 --set data.train=train.jsonl.gz
    says "train.jsonl.gz:3: not valid JSON" "of its text; gzip -t, or zstd -t, says whether the file is damaged"
    echo '{"messages": 3}' | gzip >train.jsonl.gz
    message 3 --set data.train=train.jsonl.gz
    if grep -q "is damaged" message; then fail "JSON is not damaged: $(cat message)"; fi
}

case_nul_in_string() {
    spoil_record '{"messages": [{"role": "user", "content": "a\\u0000b"}, {"role": "assistant", "content": "4"}]}'
    message 3
    says "train.jsonl:3" expected "to do"
}

case_lone_surrogate() {
    spoil_record '{"messages": [{"role": "user", "content": "a\\ud800b"}, {"role": "assistant", "content": "4"}]}'
    message 3
    says "train.jsonl:3" surrogate expected "to do"
}

case_wrong_role_order() {
    spoil_record '{"messages": [{"role": "tool", "content": "4"}, {"role": "assistant", "content": "4"}]}'
    message 3
    says "train.jsonl:3" "messages[0]" expected "assistant message before"
}

case_two_shapes() {
    spoil_record '{"prompt": "2 + 2?", "messages": [{"role": "user", "content": "a"}]}'
    message 3
    says "train.jsonl:3" "mixes two shapes" '"prompt"' '"messages"' data.input_key
}

case_unknown_shape() {
    spoil_record '{"text": "once upon a time", "id": 7}'
    message 3
    says "train.jsonl:3" "no known shape" '"text", "id"' data.input_key
}

case_unknown_role() {
    spoil_record '{"messages": [{"role": "usr", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}'
    message 3
    says "train.jsonl:3" "messages[0]" usr expected
}

# ---- the model folder ----

case_template_syntax_error() {
    echo '{% for message in messages %}{{ message.content }}{% endfro %}' >model/chat_template.jinja
    message 3
    says chat_template.jinja:1 endfro endfor model.chat_template
}

case_template_raises() {
    echo "{{ raise_exception('only tools may speak') }}" >model/chat_template.jinja
    message 3
    says chat_template.jinja "only tools may speak" expected model.chat_template
}

case_vocabulary_mismatch() {
    sed -i 's/"vocab_size": 1024/"vocab_size": 1000/' model/config.json
    message 2
    says config.json "vocab_size 1000" 1023 tokenizer
}

case_max_length_beyond_model() {
    sed -i 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 1024/' model/config.json
    message 2
    says "data.max_length (default)" 2048 "max_position_embeddings 1024" "max_length: 1024"
}

# Weights as a finished job writes them.
make_weights() {
    timeout 60 "$BIN/controller" --config job.yaml --set run_dir=made >made.out 2>&1 || fail "$(tail -5 made.out)"
    cp "$(ls -d made/checkpoints/step_* | tail -1)"/model*.safetensors* model/
}

case_tensor_missing() {
    make_weights
    sed -i 's/"num_hidden_layers": 4/"num_hidden_layers": 5/' model/config.json
    message 3 --set model.init=pretrained
    says "model.layers.4." "holds no tensor" config.json expected
}

case_tensor_of_wrong_shape() {
    make_weights
    sed -i 's/"intermediate_size": 384/"intermediate_size": 400/' model/config.json
    message 3 --set model.init=pretrained
    says "mlp." 384 400 config.json expected
}

# ---- the machine ----

case_too_few_cpus() {
    message 4 --set cluster.cpus=1 --set train.tp_size=2
    says CPUs 2.75 "free 1" cluster.cpus
}

# Whatever this build and this machine have: no GPU is shown to it.
case_cuda_without_gpu() {
    CUDA_VISIBLE_DEVICES= message 4 --set device=cuda
    says "--set device=cuda" "device: cuda: there is no CUDA" "nvidia-smi shows what there is"
    [ ! -e run ] || fail "it started all the same"
}

case_cuda_library_missing() {
    TROUPE_CUDA_LIBRARY=$PWD/gone.so message 4 --set device=cuda
    says "--set device=cuda" "there is no file $PWD/gone.so" "Correct TROUPE_CUDA_LIBRARY"
}

case_cuda_library_of_another_build() {
    TROUPE_CUDA_LIBRARY=$BIN/device_size.so message 2 --set device=cuda
    says "device: cuda: the CUDA library $BIN/device_size.so has a table of kernels" "from the same source"
}

case_run_folder_in_use() {
    "$BIN/controller" --config job.yaml --set train.num_steps=100000 >first.out 2>&1 &
    local first=$! tries=0
    until grep -q '"step":' run/metrics.jsonl 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "the first run does not start: $(tail -3 first.out)"
        sleep 0.05
    done
    ( message 4 && says "$PWD/run" "$first" ) || { kill -INT $first; wait $first || true; exit 1; }
    kill -INT $first
    wait $first || [ $? = 5 ] || fail "the first run was disturbed"
}

case_port_in_use() {
    mkdir -m 700 private
    "$BIN/node_agent" --endpoint "ipc://$PWD/private/agent" >agent1.out 2>&1 &
    local first=$! code=0 tries=0
    until [ -S private/agent ]; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || fail "the first agent does not start"
        sleep 0.05
    done
    timeout 20 "$BIN/node_agent" --endpoint "ipc://$PWD/private/agent" >out 2>&1 || code=$?
    kill $first
    wait $first || true
    [ $code = 4 ] || fail "exit code $code, expected 4"
    cp out message
    says "$PWD/private/agent" "served by pid" "stop it"
}

# A run folder on a file system of two megabytes, in a mount namespace of its own.
case_disk_full() {
    if [ "${INSIDE:-}" = "" ]; then
        local flags=--mount
        [ "$(id -u)" = 0 ] || flags="--user --map-root-user --mount"
        # shellcheck disable=SC2086
        if ! unshare $flags true 2>/dev/null; then
            echo "skipped: no mount namespace may be made here"
            exit 77
        fi
        # shellcheck disable=SC2086
        INSIDE=yes exec unshare $flags bash "$SELF" disk_full
    fi
    limit=60 # a disk is full when something is saved, not at the start
    mkdir -p small
    mount -t tmpfs -o size=2m small small
    message 4 --set run_dir=small/run
    says "small/run" "No space left" "(a checkpoint takes 11.2 MB)" "Make room"
    grep -q "warn  disk_room" out || fail "not warned at the start"
    grep -q "    a checkpoint needs 11.2 MB, but $PWD/small/run has 2.*MB free: the next save would fail." out ||
        fail "the warning has no figures"
    "$BIN/controller" validate --config job.yaml --set run_dir=small/other >out 2>&1 && fail "validate is content"
    grep -q "a checkpoint needs 11.2 MB, but $PWD/small has .*MB free" out || fail "not said"
    grep -q "data.eval: all 8 records" out || fail "validate does not go on"
    # Two fit, a third beside them does not: said, and no reason to refuse.
    mount -o remount,size=30m small
    rm -rf small/run
    set -- --config job.yaml --set run_dir=small/third --set checkpoint.interval=1 --set train.num_steps=4
    "$BIN/controller" validate "$@" >out 2>&1 || fail "validate refuses it"
    grep -q "at most 3 stand at a time" out || fail "validate does not count"
    grep -q "3 more checkpoints of 11.2 MB need 33.* MB, but $PWD/small has 31.* MB free: a later save" out ||
        fail "validate does not warn"
}

# ---- what a killed run leaves ----

case_stale_lock() {
    "$BIN/controller" --config job.yaml --set train.num_steps=100000 --set checkpoint.interval=2 \
        >first.out 2>&1 &
    local first=$! tries=0
    until ls run/checkpoints/step_*/manifest.json >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "the first run does not save: $(tail -3 first.out)"
        sleep 0.05
    done
    kill -9 $first
    wait $first || true
    [ -e run/lock ] || fail "there is no lock to be stale"
    timeout 60 "$BIN/controller" --config job.yaml --set train.num_steps=4 >out 2>&1 ||
        fail "the lock of a dead run is in the way"
    grep -q resum out || fail "it does not say that it resumes"
}

case_flipped_bit() {
    timeout 60 "$BIN/controller" --config job.yaml --set checkpoint.interval=1 >first.out 2>&1 ||
        fail "$(tail -3 first.out)"
    local newest file
    newest=$(ls -d run/checkpoints/step_* | tail -1)
    file=$(ls "$newest"/model*.safetensors | head -1)
    [ -f "$file" ] || fail "no weights in $newest"
    printf '\x55' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") / 2)) conv=notrunc status=none
    timeout 60 "$BIN/controller" --config job.yaml --set train.num_steps=3 >out 2>&1 ||
        fail "a damaged checkpoint ended the run"
    grep -q "${file##*/}" out || fail "the damaged file is not named"
    grep -qE "step_0*1" out || fail "it does not say that it goes on from step 1"
}

if [ "$1" = list ]; then
    declare -F | sed -n 's/^declare -f case_//p'
    exit 0
fi
SELF=$(realpath "$0")
export SELF BIN SOURCE
if [ "${INSIDE:-}" = "" ]; then
    rm -rf "$1"
    mkdir "$1"
    cd "$1"
    prepare
fi
"case_$1"
