#!/bin/bash
# `device: cuda` through the whole system on a machine without a GPU. In the place of libtroupe_cuda.so stands a device
# without hardware (tests/tensor/device_library.c): its memory cannot be touched by the host, its kernels are the CPU's,
# so a job must end with the weights of a job on the CPU, to the bit; that no GPU is needed for this is also all that it
# proves. In the place of NVML stands one that tells of two GPUs (tests/controller/nvml_library.c).
# usage: test_device.sh sft | generate | weights | turns | ranks | split | hosts | slow | placement | room
. "$(dirname "$0")/lib.sh"
case ${1:-} in sft | generate | turns | ranks | hosts) JOB_MODEL=$SOURCE/deploy/examples/tiny/model ;; esac
make_data
STEPS=6
unset CUDA_VISIBLE_DEVICES
export TROUPE_CUDA_LIBRARY=$BIN/device_fenced.so TROUPE_NVML_LIBRARY=$BIN/nvml_library.so

said() {
    grep -qF -- "$2" "$1" || fail "$1 does not say: $2"
}

# on_device NAME [SETTING...]: the job of on_cpu, with device: cuda.
on_cpu() {
    rm -rf run_cpu run_cpu.out # of another on_cpu
    write_job cpu.yaml run_cpu train.tp_size=1 "$@"
    run_job
    expected=$(digest_of "$RUN")
    ! grep -q " device " "$RUN.out" || fail "a job on the CPU looks for a device"
    ! grep -q "gpu actor" "$RUN/logs/node_agent.log" || fail "a job on the CPU got a GPU"
}

on_device() {
    local name=$1
    shift
    write_job "$name.yaml" "$name" train.tp_size=1 device=cuda "$@"
}

same_as_cpu() {
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights than on the CPU"
    metrics_ascend
    nothing_left
    said "$RUN.out" 'of=train-0 is="Test device without hardware (sm_90, GPU-a000-of-a-test), 3.0 of 4.0 GiB free'
    said "$RUN/logs/node_agent.log" "gpu actor=train-0 id=GPU-a000-of-a-test"
}

case $1 in
sft)
    on_cpu
    on_device run_small train.global_batch_size=4
    # shellcheck disable=SC2086
    "$BIN/controller" validate --config "$JOB" $SETTINGS > small.txt || fail "validate refuses: $(cat small.txt)"
    said small.txt "; 8192 tokens a micro-batch, all kept" # a step has no more
    on_device run_device
    # shellcheck disable=SC2086
    "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt || fail "validate refuses: $(cat valid.txt)"
    said valid.txt "device: Test device without hardware (sm_90, GPU-b000-of-a-test)" # with the most memory free
    said valid.txt "memory of this GPU: 3.00 GiB available, 1 train worker takes 1."
    ! grep -q "packed for matmul" valid.txt || fail "memory is planned for copies that such a device does not keep"
    said valid.txt "; 32768 tokens a micro-batch, all kept"
    start_job
    wait_for_step 2
    kill_actor train-0
    finish_job 0
    same_as_cpu
    said "$RUN/config.effective.yaml" "max_tokens_per_gpu: 32768"
    said "$RUN.out" "micro_batch tokens=32768"

    # What was decided stays; what a job says itself is not decided.
    grep -q "micro-batches.*32768" "$RUN/memory.json" || fail "memory.json: $(cat "$RUN/memory.json")"
    sed -i 's/32768/16384/' "$RUN/memory.json" # as if there had been less
    for tokens in 16384 5000; do
        # shellcheck disable=SC2086
        "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt || fail "validate refuses: $(cat valid.txt)"
        said valid.txt "; $tokens tokens a micro-batch"
        SETTINGS="$SETTINGS --set train.max_tokens_per_gpu=5000"
    done

    # A checkpoint knows no device: the CPU goes on from it, and that is said.
    write_job run_device.yaml run_device train.tp_size=1 train.num_steps=7
    run_job
    said "$RUN.out" "device: cuda -> cpu"

    for device in cpu cuda; do # the same answer
        "$BIN/controller" serve --model "$RUN" --port 0 --device $device --max-length 64 > serve_$device.out 2>&1 &
        server=$!
        for _ in $(seq 400); do
            ! grep -q "^serving" serve_$device.out || break
            sleep 0.05
        done
        url=$(sed -n 's/^serving .* at \(http[^ ]*\).*/\1/p' serve_$device.out)
        question='{"prompt": "1 + 1 =", "max_tokens": 24, "temperature": 1, "seed": 3}'
        curl -sf -H 'Content-Type: application/json' -d "$question" "$url/completions" > answer.json || fail "no answer"
        sed 's/.*"text":\("[^"]*"\).*"completion_tokens":\([0-9]*\).*/\1 \2/' answer.json > answer_$device
        kill -INT $server
        wait $server || fail "serve ended with $?"
    done
    said serve_cuda.out "computed in f32 on Test device without hardware"
    grep -qE ' [0-9]+$' answer_cuda || fail "no answer: $(cat answer.json)"
    cmp answer_cpu answer_cuda || fail "answers differ: $(cat answer_cpu answer_cuda)"
    ;;
generate)
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4"
    generate="$generate rollout.max_response_length=12 data.max_length=160 data.eval= checkpoint.interval=3"
    STEPS=4
    # shellcheck disable=SC2086
    on_cpu $generate
    # shellcheck disable=SC2086
    on_device run_device $generate rollout.num_workers=2
    run_job
    same_as_cpu
    said "$RUN/logs/node_agent.log" "gpu actor=rollout-1 id=GPU-a000-of-a-test" # the trainer's
    said "$RUN/logs/rollout-0.log" "on Test device without hardware"
    said "$RUN/logs/rollout-0.log" " decode_graphs first_rows=" # steps are recorded and launched as one
    awk -F'"train/logprob_compared":|,"train/logprob_mismatch_count":' '
        /"train\/loss"/ { steps++; split($3, rest, ","); if ($2 < 64 || rest[1] != 0) { print; exit 1 } }
        END { exit steps != '$STEPS' }' "$RUN/metrics.jsonl" || fail "log-probs differ, or were not compared"

    # Kernel by kernel the weights are the same.
    # shellcheck disable=SC2086
    on_device run_eager $generate rollout.num_workers=2 rollout.enforce_eager=true
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights without graphs"
    ! grep -q decode_graphs "$RUN/logs/rollout-0.log" || fail "steps are recorded in spite of enforce_eager"

    # Whoever looks at data needs no GPU.
    # shellcheck disable=SC2086
    TROUPE_CUDA_LIBRARY=/nowhere "$BIN/controller" data inspect --config "$JOB" $SETTINGS > records.txt ||
        fail "records cannot be looked at without a GPU"

    # Beside a train worker a GPU of 3 GiB has less room than alone, and for one worker more than for two.
    # shellcheck disable=SC2086
    fits() {
        on_device run_big $generate train.max_tokens_per_gpu=4096 rollout.offload=false "$@"
        "$BIN/controller" validate --config "$JOB" $SETTINGS > fits.txt 2>&1
    }
    fits rollout.kv_cache_mb=2650 rollout.colocate=false || fail "one alone does not fit: $(cat fits.txt)"
    ! fits rollout.kv_cache_mb=2650 || fail "it fits beside 0.18 GiB, too"
    said fits.txt "1 rollout worker takes 2.60"
    said fits.txt "of 3.00 GiB that are free on a GPU train workers take 0.20 GiB"
    fits rollout.kv_cache_mb=1500 || fail "one that is small does not fit: $(cat fits.txt)"
    ! fits rollout.kv_cache_mb=1500 rollout.num_workers=2 || fail "two of them fit, too"
    said fits.txt "2 rollout workers take 2.9"

    # Or each has a GPU of its own.
    # shellcheck disable=SC2086
    on_device run_apart $generate rollout.colocate=false train.num_steps=1
    run_job
    said "$RUN/logs/node_agent.log" "gpu actor=rollout-0 id=GPU-a000-of-a-test"
    said "$RUN/logs/node_agent.log" "gpu actor=train-0 id=GPU-b000-of-a-test"
    ;;
weights) # how new weights reach rollout workers: on the GPU itself, or where that cannot be by way of the host
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4"
    generate="$generate rollout.max_response_length=12 data.max_length=160 data.eval= checkpoint.interval=2"
    STEPS=3
    # shellcheck disable=SC2086
    on_cpu $generate
    detour() { # NAME SAID [SETTING...]
        # shellcheck disable=SC2086
        on_device "$1" $generate "${@:3}"
        run_job
        [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights than on the CPU"
        metrics_ascend
        nothing_left
        if [ -z "$2" ]; then
            ! grep -q weights_through_host "$RUN/logs/"*.log || fail "weights take a way round by the host"
        else
            [ "$(grep -c weights_through_host "$RUN/logs/"*.log | sed 's/.*://' | sort -n | tail -n 1)" = 1 ] ||
                fail "the way round by the host is not said once"
            grep -qF "$2" "$RUN/logs/"*.log || fail "the logs do not say: $2"
        fi
    }
    detour run_shared ""
    detour run_apart "" rollout.colocate=false
    TEST_DEVICE_REFUSES=open detour run_closed "the test device opens no memory of others"
    TEST_DEVICE_REFUSES=share detour run_alone "the test device shares no"
    # shellcheck disable=SC2086
    TEST_DEVICE_REFUSES=share "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt || fail "it is refused"
    said valid.txt "of weights for generation, which the GPU cannot share (the test device shares no"
    ;;
turns) # training and generation on a GPU that has memory for one of them at a time
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4"
    generate="$generate rollout.max_response_length=12 data.max_length=160 checkpoint.interval=2"
    generate="$generate train.max_tokens_per_gpu=512 rollout.concurrency=16 rollout.kv_cache_mb=36"
    STEPS=14
    # shellcheck disable=SC2086
    on_cpu $generate data.eval=
    mkdir -p ledger
    export TEST_DEVICE_LEDGER=$PWD/ledger TEST_DEVICE_KB=60000
    turns() { # NAME [SETTING...]
        local name=$1
        shift
        # shellcheck disable=SC2086
        on_device "$name" $generate "$@"
    }
    turns run_turns data.eval=
    # shellcheck disable=SC2086
    "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt || fail "validate refuses: $(cat valid.txt)"
    said valid.txt "training and generation take turns"
    said valid.txt "GiB, pinned, while generation has the GPUs (rollout.offload)"
    # shellcheck disable=SC2086
    ! "$BIN/train_inspect" --config "$JOB" $SETTINGS --host --turns --available 9000000 > fits.txt 2>&1 ||
        fail "it fits a host without memory"
    said fits.txt "train workers keep 0.01 GiB, pinned, while generation has the GPUs"
    said fits.txt "in the host's memory, of which 0.01 GiB are free"
    run_job
    [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights than on the CPU"
    metrics_ascend
    nothing_left
    said "$RUN.out" "training and generation take turns on the GPUs that they share"
    grep -q '"event":"rests".*"actor":"train-0"' "$RUN/events.jsonl" || fail "train-0 never gave its memory back"
    grep -q '"event":"rests".*"actor":"rollout-0"' "$RUN/events.jsonl" || fail "rollout-0 never gave its memory back"

    # Without turns there is no room, and that is said before anything starts.
    turns run_both data.eval= rollout.offload=false
    # shellcheck disable=SC2086
    ! "$BIN/controller" validate --config "$JOB" $SETTINGS > fits.txt 2>&1 || fail "both fit at once"
    said fits.txt "rollout.kv_cache_mb: 1 rollout worker takes"

    # Killed in either's turn, and in between.
    for kill in rollout-0 train-0; do
        rm -rf ledger && mkdir ledger
        turns run_$kill data.eval= rollout.offload=true
        # shellcheck disable=SC2086
        "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt 2>&1 || fail "refused: $(cat valid.txt)"
        said valid.txt "data.train: " # records are looked at without the device
        start_job
        wait_for_step 1
        kill_actor $kill
        wait_for_step 3
        sleep 0.$((RANDOM % 5))
        kill_actor $kill
        finish_job 0
        [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights than on the CPU after $kill was killed"
        metrics_ascend
        nothing_left
    done

    refuses() { # SAID SETTING...
        # shellcheck disable=SC2086
        on_device run_refused $generate data.eval= rollout.offload=true "${@:2}"
        # shellcheck disable=SC2086
        ! "$BIN/controller" validate --config "$JOB" $SETTINGS > refused.txt 2>&1 || fail "validate takes it"
        said refused.txt "$1"
    }
    refuses "for a GPU that training and generation share" device=cpu
    refuses "each has its own" rollout.colocate=false
    refuses "they go on at the same time" rollout.max_staleness=1
    ;;
ranks) # GPUs that sum with each other: over the double of NCCL (tests/comm/nccl_double.h)
    export TROUPE_NCCL_LIBRARY=$BIN/libnccl_double.so
    STEPS=5
    split="train.tp_size=2 checkpoint.interval=1"
    # shellcheck disable=SC2086
    on_cpu $split data.eval=
    # shellcheck disable=SC2086
    on_device run_tensor $split data.eval=
    # shellcheck disable=SC2086
    "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt || fail "validate refuses: $(cat valid.txt)"
    each=$(sed -n 's/^memory of a train worker: .* together \([0-9.]* GiB\);.*/\1/p' valid.txt)
    said valid.txt "memory of this GPU: 3.00 GiB available, 2 train workers take $each each"
    start_job
    wait_for_step 1
    kill_actor train-1
    finish_job 0
    same_as_cpu
    said "$RUN.out" 'of=train-1 is="Test device without hardware (sm_90, GPU-b000-of-a-test)'
    said "$RUN/logs/node_agent.log" "gpu actor=train-1 id=GPU-b000-of-a-test"

    # With rollout workers on the GPUs of both.
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 rollout.num_workers=2"
    generate="$generate rollout.max_response_length=12 data.max_length=160 data.eval= train.dp_size=2"
    STEPS=2
    # shellcheck disable=SC2086
    on_cpu $generate
    # shellcheck disable=SC2086
    on_device run_data $generate
    run_job
    same_as_cpu
    said "$RUN/logs/node_agent.log" "gpu actor=train-1 id=GPU-b000-of-a-test"
    said "$RUN/logs/node_agent.log" "gpu actor=rollout-1 id=GPU-b000-of-a-test"
    for worker in 0 1; do # each reads what the train worker beside it shows
        said "$RUN/logs/rollout-$worker.log" 'weights_come by="this GPU, where a train worker shows them"'
        said "$RUN/logs/rollout-$worker.log" "weights where the train worker shows them"
    done

    # Without NCCL nothing starts; alone a GPU needs none.
    refuses() {
        local code=0
        # shellcheck disable=SC2086
        "$BIN/controller" "$@" --config "$JOB" $SETTINGS > refused.txt 2>&1 || code=$?
        [ $code = 2 ] || fail "code $code: $(cat refused.txt)"
        said refused.txt "device: cuda, with 2 train workers: $said"
        [ ! -e "$RUN" ] || fail "it started all the same"
    }
    on_device run_refused train.tp_size=2
    export TROUPE_NCCL_LIBRARY=/nowhere/libnccl.so.2
    said="several GPUs work together through NCCL, which could not be loaded"
    refuses validate
    refuses
    export TROUPE_NCCL_LIBRARY=$BIN/libnccl_old.so
    said="$BIN/libnccl_old.so is NCCL 2.18.5"
    refuses validate
    on_device run_alone
    # shellcheck disable=SC2086
    "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt || fail "one GPU wants NCCL: $(cat valid.txt)"
    ;;
hosts) # weights to rollout workers of another host, over the double of NCCL: two agents that say they share no memory
    export TROUPE_NCCL_LIBRARY=$BIN/libnccl_double.so
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 rollout.num_workers=2"
    generate="$generate rollout.max_response_length=12 data.max_length=160 data.eval= checkpoint.interval=2"
    STEPS=8
    # shellcheck disable=SC2086
    on_cpu $generate
    agents=
    trap 'kill $agents 2> /dev/null || true' EXIT
    start_agent() { # NAME GPUS: a host of its own
        CUDA_VISIBLE_DEVICES=$2 "$BIN/node_agent" --endpoint "ipc://$PWD/$1/agent" --name "$1" --host "$1" --cpus 8 \
            > "$1.out" 2>&1 &
        agents="$agents $!"
        for _ in $(seq 200); do
            [ ! -S "$1/agent" ] || break
            sleep 0.05
        done
    }
    start_agent beta 0,1
    start_agent alpha 0
    generate="$generate rollout.colocate=false cluster.restarts_max=100"
    alpha=\"ipc://$PWD/alpha/agent\" beta=\"ipc://$PWD/beta/agent\"
    agreed() { # NAME RECEIVERS: what became of it
        [ "$(digest_of "$RUN")" = "$expected" ] || fail "other weights than on the CPU: $1"
        awk -F'"train/logprob_compared":|,"train/logprob_mismatch_count":' '
            /"train\/loss"/ { steps++; split($3, rest, ","); if ($2 < 64 || rest[1] != 0) { print; exit 1 } }
            END { exit steps != '$STEPS' }' "$RUN/metrics.jsonl" || fail "log-probs differ, or were not compared: $1"
        metrics_ascend
        nothing_left
        found=$(grep -l 'weights_come by="NCCL, from a train worker of another host"' "$RUN"/logs/rollout-?.log | wc -l)
        [ "$found" = "$2" ] || fail "$found rollout workers received weights: $1"
        found=$(grep -l 'weights_come by="another GPU of this host, copied"' "$RUN"/logs/rollout-?.log | wc -l)
        [ "$found" = $((2 - $2)) ] || fail "$found rollout workers read a board: $1"
    }
    # One beside the train worker, and one on the other host.
    # shellcheck disable=SC2086
    on_device run_mixed $generate "cluster.agents=[$beta,$alpha]"
    run_job
    agreed mixed 1
    said beta.out "gpu actor=train-0 id="
    said alpha.out "gpu actor=rollout-1 id="

    # Whoever is killed, and whenever: in a send, in a meeting, in between.
    # shellcheck disable=SC2086
    on_device run_killed $generate "cluster.agents=[$alpha,$beta]"
    start_job
    step=1
    for actor in rollout-1 train-0 rollout-0 rollout-1 train-0; do
        wait_for_step $step
        sleep 0.$((RANDOM % 10))$((RANDOM % 10))
        pid=$(actor_pid $actor)
        [ "${pid:-0}" -gt 0 ] 2> /dev/null && kill -9 "$pid" || echo "$actor was not there to be killed"
        step=$((step + 1))
    done
    finish_job 0
    agreed "five kills" 2
    said alpha.out "gpu actor=train-0 id="

    # On CPUs there is no way from host to host.
    # shellcheck disable=SC2086
    write_job cpus.yaml run_cpus train.tp_size=1 $generate "cluster.agents=[$alpha,$beta]" cluster.strategy=spread
    start_job
    finish_job 2
    said "$RUN.out" "weights reach rollout workers through the memory of their host alone"
    said "$RUN.out" "cluster.strategy: strict_pack"
    # Nor for ranks that are processes.
    start_agent gamma 0,1
    gamma=\"ipc://$PWD/gamma/agent\"
    # shellcheck disable=SC2086
    on_device run_ranks $generate train.tp_size=2 rollout.num_workers=1 "cluster.agents=[$beta,$gamma]"
    start_job
    finish_job 2
    said "$RUN.out" "train.tp_size: rollout-0 is on host gamma"
    said "$RUN.out" "reads weights on its own host alone"
    # Without NCCL it is said who lacks it.
    TROUPE_NCCL_LIBRARY=/nowhere/libnccl.so.2
    kill $agents
    for agent in $agents; do wait "$agent" || fail "an agent ended with code $?"; done
    agents=
    start_agent beta 0,1
    start_agent alpha 0
    # shellcheck disable=SC2086
    on_device run_lacking $generate "cluster.agents=[$alpha,$beta]"
    start_job
    finish_job 2
    said "$RUN.out" "several GPUs work together through NCCL, which could not be loaded"
    nothing_left
    kill $agents
    for agent in $agents; do wait "$agent" || fail "an agent ended with code $?"; done
    ;;
split) # rollout workers whose ranks have a GPU each
    export TROUPE_NCCL_LIBRARY=$BIN/libnccl_double.so
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 train.tp_size=2"
    generate="$generate rollout.max_response_length=12 data.max_length=160 data.eval= checkpoint.interval=2"
    STEPS=7
    # shellcheck disable=SC2086
    on_cpu $generate
    for offload in false true; do
        # shellcheck disable=SC2086
        on_device run_$offload $generate rollout.num_workers=2 rollout.offload=$offload
        start_job
        wait_for_step 1
        kill_actor rollout-0.1
        wait_for_step 3
        kill_actor train-1
        finish_job 0
        same_as_cpu
        said "$RUN/logs/node_agent.log" "gpu actor=rollout-0 id=GPU-a000-of-a-test" # those of the train ranks
        said "$RUN/logs/node_agent.log" "gpu actor=rollout-0.1 id=GPU-b000-of-a-test"
        said "$RUN/logs/rollout-0.1.log" "2 tensor-parallel ranks, a process each on a GPU of its own"
        ! grep -q weights_through_host "$RUN/logs/"*.log || fail "weights take a way round by the host"
        awk -F'"train/logprob_compared":|,"train/logprob_mismatch_count":' '
            /"train\/loss"/ { steps++; split($3, rest, ","); if ($2 < 64 || rest[1] != 0) { print; exit 1 } }
            END { exit steps != '$STEPS' }' "$RUN/metrics.jsonl" || fail "log-probs differ, or were not compared"
    done
    grep -q '"event":"rests".*"actor":"rollout-0.1"' "$RUN/events.jsonl" || fail "rollout-0.1 never rested"

    # Each needs one more where generation has GPUs of its own.
    # shellcheck disable=SC2086
    on_device run_apart $generate rollout.colocate=false
    start_job
    finish_job 4
    said "$RUN.out" "4 GPUs in all) can never be placed"
    ;;
slow) # a device that takes its time to open, and an NCCL that does: the process beats meanwhile
    export TROUPE_NCCL_LIBRARY=$BIN/libnccl_double.so TEST_DEVICE_OPENS_S=6 TEST_NCCL_ID_S=6
    STEPS=2
    impatient="cluster.heartbeat_ms=100 cluster.suspect_ms=2500 cluster.dead_ms=5500 cluster.restarts_max=0"
    kept() {
        run_job # nobody may be taken for dead
        metrics_ascend
        [ "$(grep -c " start_up device_s=" "$RUN/logs/train-0.log")" = 1 ] || fail "not one start"
        grep -q " first_step step_s=.* since_start_s=" "$RUN/logs/train-0.log" || fail "no first step"
        nothing_left
    }
    # shellcheck disable=SC2086
    on_device run_ranks $impatient train.tp_size=2 checkpoint.interval=1
    kept
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4"
    # shellcheck disable=SC2086
    on_device run_answers $impatient $generate rollout.max_response_length=12 data.max_length=160 data.eval=
    kept
    ;;
placement) # what is said when there are too few GPUs, or none, or another job has them
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4"
    generate="$generate rollout.colocate=false rollout.num_workers=2"
    # shellcheck disable=SC2086
    on_device run_many $generate rollout.max_response_length=12 data.max_length=160
    start_job
    finish_job 4
    said "$RUN.out" "3 GPUs in all) can never be placed"
    said "$RUN.out" "0.5 CPUs, 1 GPU and finds no place"
    said "$RUN.out" "free 16 CPUs, 2 GPUs"
    said "$RUN.out" "rollout.colocate"
    [ ! -e "$RUN" ] || fail "it started all the same"

    on_device run_none
    TEST_NVML=no_driver start_job
    finish_job 4
    said "$RUN.out" "1 GPU in all) can never be placed"
    said "$RUN.out" "GiB; no GPU: NVML does not start: Driver Not Loaded"
    said "$RUN.out" "device: cpu"

    refuses_gpus() { # VISIBLE SAID
        code=0
        CUDA_VISIBLE_DEVICES=$1 timeout 10 "$BIN/node_agent" --endpoint "ipc://$PWD/private/agent" --gpus 3 \
            > agent.out 2>&1 || code=$?
        [ $code = 4 ] || fail "an agent gives 3 GPUs, where it sees \"$1\": code $code: $(cat agent.out)"
        said agent.out "$2"
    }
    refuses_gpus 0,1 "--gpus 3: 2 GPUs are there to give"
    refuses_gpus 0 "--gpus 3: 1 GPU is there to give"
    refuses_gpus 1 "Give --gpus 1, or leave it out"
    refuses_gpus "" "--gpus 3: no GPU is there to give (of 2 that are there CUDA_VISIBLE_DEVICES= shows none)"
    "$BIN/node_agent" --endpoint "ipc://$PWD/private/agent" --cpus 8 --gpus 1 > agent.out 2>&1 &
    agent=$!
    for _ in $(seq 200); do
        [ ! -S private/agent ] || break
        sleep 0.05
    done
    export STEPS=100000
    on_device run_first "cluster.agents=ipc://$PWD/private/agent" name=first
    start_job
    wait_for_step 1
    opened() {
        grep -q device_fenced "/proc/$(actor_pid "$1")/maps"
    }
    opened train-0 || fail "train-0 has not opened the GPU"
    ! opened rollout-0 || fail "a rollout worker that does not generate opens the GPU that it is shown"
    said agent.out "gpu actor=rollout-0 id=GPU-a000-of-a-test"
    first=$CONTROLLER first_run=$RUN
    STEPS=1 on_device run_second "cluster.agents=ipc://$PWD/private/agent" name=second
    start_job
    for _ in $(seq 200); do
        "$BIN/controller" status --run "$RUN" > status.txt 2> /dev/null || true
        ! grep -q "job first" status.txt || break
        sleep 0.05
    done
    said status.txt "job first (1.75 CPUs, 1 GPU)"
    said status.txt "8 CPUs, 1 GPU"
    # P4: a GPU is not held by the dead. The first job's controller is killed; the second one gets it.
    kill -9 "$first"
    wait "$first" || true
    finish_job 0
    said "$RUN.out" "device of=train-0"
    RUN=$first_run
    nothing_left
    kill $agent
    wait $agent || fail "the agent ended with code $?"
    ;;
room) # what does not fit the GPU is refused before anything starts, with what it has and what to write
    refused() { # CODE, of the command's
        [ "$code" = "$1" ] || fail "code $code: $(cat refused.txt)"
        [ ! -e "$RUN" ] || fail "it started all the same"
    }
    refuses() { # [COMMAND]: the job of on_device
        code=0
        # shellcheck disable=SC2086
        "$BIN/controller" "$@" --config "$JOB" $SETTINGS > refused.txt 2>&1 || code=$?
        refused 4
    }
    on_device run_more train.memory_gb=200 train.max_tokens_per_gpu=200000
    refuses validate
    said refused.txt "train.memory_gb: 200 GiB for 1 train worker"
    said refused.txt "200.00 GiB of a GPU, but this one has 3.00 GiB free"
    said refused.txt "Write at most 2.7, or leave it out"
    refuses
    said refused.txt "Write at most 2.7, or leave it out"
    on_device run_all train.memory_gb=2.9
    # shellcheck disable=SC2086
    "$BIN/controller" validate --config "$JOB" $SETTINGS > valid.txt 2>&1 || fail "refused: $(cat valid.txt)"

    # A model that is too large, where the micro-batch was to be as the memory has room.
    mkdir -p ledger
    on_device run_large
    export TEST_DEVICE_LEDGER=$PWD/ledger TEST_DEVICE_KB=60000
    for command in validate ""; do
        refuses $command
        said refused.txt "the train worker needs 0."
        said refused.txt "but may use 0.05 GiB"
    done
    # Of agents that serve others too nobody knows before what they will have free.
    beside_agent() { # CODE, of the job of on_device
        "$BIN/node_agent" --endpoint "ipc://$PWD/private/agent" --cpus 8 > agent.out 2>&1 &
        agent=$!
        for _ in $(seq 200); do
            [ ! -S private/agent ] || break
            sleep 0.05
        done
        start_job
        finish_job "$1"
        kill $agent
        wait $agent || fail "the agent ended with code $?"
    }
    on_device run_late "cluster.agents=ipc://$PWD/private/agent"
    beside_agent 4
    said "$RUN.out" "the train worker needs 0."
    ! grep -q "micro_batch" "$RUN.out" || fail "micro-batches are as the memory has room that there is none of"
    [ ! -e "$RUN/memory.json" ] || fail "what does not fit is written down"
    unset TEST_DEVICE_LEDGER TEST_DEVICE_KB
    on_device run_cut train.memory_gb=200 train.max_tokens_per_gpu=200000 "cluster.agents=ipc://$PWD/private/agent"
    beside_agent 0 # the GPU has what it has
    grep -q "together [12]\..* GiB; 200000 tokens" "$RUN/events.jsonl" || fail "it planned for more than there is"

    # Keys and values of rollout workers: what is said to write fits, and no more does.
    generate="rollout.function=generate rollout.reward=random rollout.n_samples_per_prompt=4 rollout.concurrency=64"
    generate="$generate rollout.max_response_length=12 data.max_length=160 train.max_tokens_per_gpu=4096"
    for offload in auto false; do
        # shellcheck disable=SC2086
        on_device run_keys $generate rollout.offload=$offload rollout.kv_cache_mb=5000
        for command in validate ""; do
            refuses $command
            said refused.txt "1 rollout worker takes 4.89 GiB"
            ! grep -q " 0.00 GiB" refused.txt || fail "a figure says nothing: $(cat refused.txt)"
            most=$(sed -n 's/^Write rollout.kv_cache_mb: \([0-9]*\) or less .*/\1/p' refused.txt)
            [ "${most:-0}" -gt 1500 ] || fail "it is not said what fits: $(cat refused.txt)"
        done
        [ $offload = false ] || said refused.txt "in the turn of generation"
        for mb in $most $((most + 2)); do
            code=0
            # shellcheck disable=SC2086
            on_device run_keys $generate rollout.offload=$offload rollout.kv_cache_mb=$mb
            # shellcheck disable=SC2086
            "$BIN/controller" validate --config "$JOB" $SETTINGS > refused.txt 2>&1 || code=$?
            [ $code = $((mb > most ? 4 : 0)) ] || fail "$mb MiB, of $most: $(cat refused.txt)"
        done
    done

    # A model that is served, too.
    STEPS=1 on_device run_served data.eval=
    run_job
    for mib in 2800 3500 9000000; do
        code=0
        timeout 20 "$BIN/controller" serve --model "$RUN" --port 0 --device cuda --kv-memory $mib \
            > refused.txt 2>&1 || code=$?
        [ $code = 4 ] || fail "--kv-memory $mib: code $code: $(cat refused.txt)"
        said refused.txt "--kv-memory: keys and values of $mib MiB"
        said refused.txt "of 3.00 GiB that are free on the GPU a tenth is kept"
    done
    most=$(sed -n 's/^Give --kv-memory \([0-9]*\) or less.*/\1/p' refused.txt)
    "$BIN/controller" serve --model "$RUN" --port 0 --device cuda --kv-memory "$most" > serve.out 2>&1 &
    server=$!
    for _ in $(seq 200); do
        ! grep -q "^serving" serve.out || break
        sleep 0.05
    done
    kill -INT $server
    wait $server || fail "what it says to give is refused, with code $?: $(cat serve.out)"
    ;;
esac
