#!/usr/bin/env bash
# `controller serve` as a person and their programs use it: answers over HTTP, streams, tokens, mistakes, the end.
# usage: BIN=... SOURCE=... test_serve.sh answers|leaving|ending|token|mistakes|run
set -eu

# shellcheck disable=SC1091
. "$SOURCE/tests/e2e/lib.sh"

fail() {
    echo "FAILED: $*"
    for file in served got; do [ ! -f "$file" ] || sed "s/^/  $file: /" "$file" | cut -c1-300 | head -30; done
    [ -z "${SERVER:-}" ] || kill -KILL "$SERVER" 2>/dev/null || true
    exit 1
}

# The checkpoint of a short run, once per build.
make_model() {
    MODEL=$BIN/../scratch/served_model
    (
        flock 9
        [ -e "$MODEL/config.json" ] && exit 0
        make_data
        STEPS=10 write_job job.yaml run
        run_job >/dev/null
        cp -r run/checkpoints/step_00000010 "$MODEL.new"
        mv "$MODEL.new" "$MODEL"
    ) 9>"$MODEL.lock"
}

# serve OPTION...: starts a server on a free port and waits for its URL; what it prints is in ./served.
serve() {
    rm -f served
    env --default-signal=INT "$BIN/controller" serve --model "$MODEL" --port 0 "$@" >served 2>&1 &
    SERVER=$!
    for _ in $(seq 600); do
        ! grep -q '^serving ' served || break
        kill -0 $SERVER 2>/dev/null || fail "the server ended at its start"
        sleep 0.05
    done
    URL=$(sed -n 's|^serving .* at \(http://.*\)/v1.*|\1|p' served)
    [ -n "$URL" ] || fail "no URL after 30 s"
}

# ends CODE: the server was told to end.
ends() {
    local code=0
    wait "$SERVER" || code=$?
    SERVER=
    [ "$code" = "$1" ] || fail "the server ended with code $code, expected $1"
}

# ask CODE PATH BODY [curl option...]: the answer is then in ./got.
ask() {
    local expected=$1 path=$2 body=$3 code
    shift 3
    code=$(curl -s -m 60 -o got -w '%{http_code}' -H 'Content-Type: application/json' "$@" -d "$body" "$URL$path")
    [ "$code" = "$expected" ] || fail "$path $body: HTTP $code, expected $expected"
}

says() {
    local text
    for text in "$@"; do grep -qF -- "$text" got || fail "it does not say: $text"; done
}

# The text of a stream's events, one after the other.
streamed() { sed -n 's/^data: .*"delta":{"content":"\(\([^"\\]\|\\.\)*\)"}.*/\1/p' got | tr -d '\n'; }

chat='"messages": [{"role": "user", "content": "Ada has 3 apples and finds 4 more. How many?"}]'

answers() {
    serve --max-length 512
    curl -s "$URL/health" >got
    says '"ok"'
    curl -s "$URL/v1/models" >got
    says '"id":"served_model"' '"max_model_len":512'
    # The same request gives the same answer: alone, streamed, beside others.
    ask 200 /v1/chat/completions "{$chat, \"max_tokens\": 40, \"seed\": 7}"
    says '"object":"chat.completion"' '"role":"assistant"' '"completion_tokens":'
    whole=$(sed -n 's/.*"content":"\(\([^"\\]\|\\.\)*\)".*/\1/p' got)
    ask 200 /v1/chat/completions "{$chat, \"max_tokens\": 40, \"seed\": 7, \"stream\": true,
        \"stream_options\": {\"include_usage\": true}}"
    says 'data: [DONE]' '"delta":{"role":"assistant"' '"choices":[],"usage":{'
    [ "$(streamed)" = "$whole" ] || fail "streamed \"$(streamed)\", whole \"$whole\""
    for i in 1 2 3 4; do
        curl -s -m 60 -d "{$chat, \"max_tokens\": 40, \"seed\": $((6 + i)), \"n\": 8}" -o "beside$i" \
            "$URL/v1/chat/completions" &
        others="${others:-} $!"
    done
    # shellcheck disable=SC2086
    wait $others
    sed 's/"index":1,.*//' beside1 >got
    grep -qF "\"content\":\"$whole\"" got || fail "another answer beside others"
    # Token ids in, token ids and log-probs out.
    ask 200 /generate '{"input_ids": [5, 6, 7], "return_logprob": true,
        "sampling_params": {"max_new_tokens": 3, "ignore_eos": true}}'
    says '"prompt_tokens":3' '"completion_tokens":3' '"finish_reason":{"type":"length","length":3}'
    [ "$(grep -o '\[-[0-9.e-]*,[0-9]*,null\]' got | wc -l)" = 3 ] || fail "not three log-probs"
    ask 200 /v1/completions '{"prompt": ["Ada", "Bela has"], "n": 2, "max_tokens": 3, "logprobs": 0}'
    says '"index":3' '"token_logprobs":[-'
    # What is wrong is said in OpenAI's form, and the connection goes on.
    ask 400 /v1/chat/completions "{$chat, \"temprature\": 1}"
    says '"param":"temprature"' 'Did you mean temperature?'
    ask 404 /v1/chat/completions "{$chat, \"model\": \"gpt\"}"
    ask 404 /v2 '{}'
    says '/v1/chat/completions'
    ask 405 /v1/models '{}'
    ask 403 /generate '{"input_ids": [1]}' -H 'Origin: http://elsewhere.example'
    head -c 70000000 /dev/zero | tr '\0' ' ' >large
    ask 413 /generate @large
    rm large
    kill -INT "$SERVER"
    ends 0
}

# running: how many samples run.
running() { curl -s "$URL/model_info" | sed 's/.*"running":\([0-9]*\).*/\1/'; }

# wait_for_running CONDITION: for up to ten seconds.
wait_for_running() {
    for _ in $(seq 200); do
        # shellcheck disable=SC2086
        [ "$(running)" $1 ] && return
        sleep 0.05
    done
    fail "$(running) samples run, expected $1"
}

long='"max_tokens": 2000, "ignore_eos": true, "n": 1000'

leaving() {
    serve
    for stream in true false; do
        curl -s -m 60 -o /dev/null -d "{\"prompt\": \"Ada\", $long, \"stream\": $stream}" "$URL/v1/completions" &
        client=$!
        wait_for_running "-gt 0"
        kill -KILL $client
        wait_for_running "-eq 0" # 1,000 samples of 2,000 tokens would take minutes
    done
    curl -s -m 60 -o cut -d '{"input_ids": [5], "rid": "mine", "sampling_params": {"max_new_tokens": 2000, "n": 200,
        "ignore_eos": true}}' "$URL/generate" &
    client=$!
    wait_for_running "-gt 0"
    ask 200 /abort_request '{"rid": "other"}'
    says '"aborted":0'
    ask 200 /abort_request '{"rid": "mine"}'
    says '"aborted":1'
    wait $client || fail "an aborted request has no answer"
    [ "$(grep -o '"type":"abort"' cut | wc -l)" -gt 0 ] || fail "no sample says that it was aborted"
    kill -TERM "$SERVER"
    ends 0
}

ending() {
    # What is in work is finished; what comes later is refused.
    serve --drain-seconds 60
    curl -s -m 60 -o first -d '{"input_ids": [5], "sampling_params": {"max_new_tokens": 400, "n": 64,
        "ignore_eos": true}}' "$URL/generate" &
    client=$!
    wait_for_running "-gt 0"
    kill -INT "$SERVER"
    for _ in $(seq 100); do ! grep -q '^ending' served || break; sleep 0.05; done
    ask 503 /generate '{"input_ids": [5]}'
    wait $client || fail "the request in work has no answer"
    [ "$(grep -o '"type":"length"' first | wc -l)" = 64 ] || fail "the request in work was not finished"
    ends 0
    # A second time, or after the deadline: at once, and clients learn of it.
    for way in again deadline; do
        serve --drain-seconds "$([ $way = again ] && echo 60 || echo 0)"
        curl -s -m 60 -o cut -w '%{http_code}' -d "{\"prompt\": \"Ada\", $long}" "$URL/v1/completions" >code &
        client=$!
        wait_for_running "-gt 0"
        kill -INT "$SERVER"
        [ $way != again ] || { sleep 0.3 && kill -INT "$SERVER"; }
        wait $client || fail "$way: the request in work has no answer"
        [ "$(cat code)" = 503 ] || fail "$way: HTTP $(cat code), expected 503"
        ends 0
    done
}

# refused CODE OPTION...: it does not start, and says why in ./got.
refused() {
    local expected=$1 code=0
    shift
    timeout 60 "$BIN/controller" serve "$@" >got 2>&1 || code=$?
    [ "$code" = "$expected" ] || fail "serve $*: code $code, expected $expected"
}

token() {
    printf 'not-a-secret-0123456789\n' >token
    chmod 644 token
    refused 2 --model "$MODEL" --port 0 --token-file token
    says 'chmod 600'
    chmod 600 token
    serve --host 0.0.0.0 --token-file token
    URL=http://127.0.0.1:${URL##*:}
    ask 401 /generate '{"input_ids": [5]}'
    says 'Authorization: Bearer'
    ask 401 /nothing '{}'
    ask 401 /generate '{"input_ids": [5]}' -H 'Authorization: Bearer not-a-secret-012345678'
    ask 200 /generate '{"input_ids": [5]}' -H 'Authorization: Bearer not-a-secret-0123456789'
    curl -s "$URL/health" >got
    says '"ok"'
    kill -INT "$SERVER"
    ends 0
}

mistakes() {
    serve
    refused 4 --model "$MODEL" --port "${URL##*:}"
    says 'is in use' '--port'
    kill -INT "$SERVER"
    ends 0
    refused 2
    says '--model DIR is missing'
    refused 2 --model "$MODEL" --prot 1
    says '--port'
    refused 2 --model "$MODEL" --port many
    says 'whole number from 0 to 65535'
    refused 2 --model "$MODEL" --host 0.0.0.0
    says '--token-file'
    refused 2 --model "$MODEL" --host everywhere
    says 'not an address'
    refused 2 --model "$MODEL" --dtype int4
    says 'f32 or bf16'
    refused 2 --model "$MODEL" --max-length 100000
    says 'max_position_embeddings'
    refused 2 --model nowhere
    says 'nowhere' 'the folder of a run that has a checkpoint'
    mkdir empty
    refused 2 --model empty
    says 'empty/config.json' 'Expected a Hugging Face model folder'
    "$BIN/controller" serve --help | grep -q '2 usage or no model folder, 3 a file in it is malformed' ||
        fail "the help says another exit code"
    refused 2 --model "$MODEL" --token-file nowhere
    ! grep -q 'model folder' got || fail "says that the model is wrong: the token file is"
    mkdir -p a_run/checkpoints
    refused 2 --model a_run
    says 'the folder of a run that has a checkpoint'
    cp -r "$MODEL" a_run/checkpoints/step_00000010
    echo step_00000010 >a_run/checkpoints/latest
    for model in a_run a_run/checkpoints/latest; do
        MODEL=$PWD/$model serve
        grep -q '^serving step_00000010 at ' served || fail "$model is not served"
        kill -INT "$SERVER"
        ends 0
    done
    cp -r "$MODEL" torn
    truncate -s -100 torn/model-00002-of-00002.safetensors
    refused 3 --model torn
    says 'model-00002-of-00002.safetensors'
}

# take_port PORT PID: kills this worker; another program has its port before it is started again: no reason to end.
# The run stands meanwhile, or it may end before.
take_port() {
    kill -STOP "$CONTROLLER"
    python3 -c 'import os, signal, socket, sys, time
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
os.kill(int(sys.argv[2]), signal.SIGKILL)
for _ in range(1000):
    try:
        taken.bind(("127.0.0.1", int(sys.argv[1])))
        break
    except OSError:
        time.sleep(0.001)
taken.listen()
open("taken", "w")
time.sleep(60)' "$1" "$2" &
    TAKER=$!
    while [ ! -e taken ] && kill -0 "$TAKER"; do sleep 0.02; done
    kill -CONT "$CONTROLLER"
}

# The rollout workers of a run answer with the weights of the moment, and the run ends with those it would have had.
run() {
    make_data
    local port=$((20000 + $$ % 6000 * 2)) settings i # below what the system gives away
    local JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time for the requests
    settings="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 rollout.num_workers=2"
    settings="$settings rollout.max_response_length=16 data.max_length=160 eval.max_response_length=8"
    # shellcheck disable=SC2086
    STEPS=20 write_job quiet.yaml quiet $settings
    run_job
    local expected
    expected=$(digest_of "$RUN")
    umask 077
    echo 'a-token-of-sixteen-letters' >token_file
    # shellcheck disable=SC2086
    STEPS=20 write_job served.yaml served $settings rollout.serve_port=$port \
        "rollout.serve_token_file=$PWD/token_file"
    start_job
    wait_for_step 2
    for i in 0 1; do
        URL=http://127.0.0.1:$((port + i))
        ask 401 /v1/completions '{"prompt": "two and two", "max_tokens": 3}'
        ask 200 /v1/completions '{"prompt": "two and two", "max_tokens": 3}' \
            -H 'Authorization: Bearer a-token-of-sixteen-letters'
        says '"completion_tokens":3' '"model":"tiny"'
        ask 200 /generate '{"input_ids": [5, 6, 7], "return_logprob": true, "sampling_params": {"max_new_tokens": 4}}' \
            -H 'Authorization: Bearer a-token-of-sixteen-letters'
        says '"weight_version"'
    done
    grep -q "serving worker=rollout-1 url=http://127.0.0.1:$((port + 1))" "$RUN.out" || fail "does not say where"
    wait_for_step 4
    ! command -v python3 >/dev/null || take_port "$((port + 1))" "$(actor_pid rollout-1)"
    finish_job 0
    if [ -n "${TAKER:-}" ]; then
        kill "$TAKER"
        grep -A 1 "not_serving worker=rollout-1" "$RUN.out" | grep -q "port $((port + 1)), of rollout worker 1, " ||
            fail "does not say that a port was taken"
    fi
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "requests changed the weights of the run"
    nothing_left
}

[ "$1" = run ] || make_model
"$1"
echo ok
