#!/bin/bash
# A job that is to be swapped in is looked at, and the disk does not answer: the run goes on, answers, and ends when it
# is asked to, though nobody can end the thread that waits.
. "$(dirname "$0")/../e2e/lib.sh"
make_data
STEPS=4000
write_job live.yaml live data.max_length=160 checkpoint.interval=4000 # which reads the tokenizer, too
cat > second.yaml << YAML
name: rl
data: {train: [$DATA/train.jsonl], max_length: 160}
rollout: {function: generate, reward: random, n_samples_per_prompt: 4, max_response_length: 16}
train: {num_steps: 6, global_batch_size: 16}
YAML
TROUPE_FAULT="controller pread tokenizer.json hang $PWD/strike" LD_PRELOAD=$BIN/../tests/faults/libfaulty.so start_job
wait_for_step 1
touch strike
"$BIN/controller" swap-rollout --run "$RUN" --config second.yaml > said 2>&1 &
asker=$!
tries=0
while [ -e strike ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || fail "the job is not looked at: $(cat said)"
    sleep 0.05
done
step=$("$BIN/controller" status --run "$RUN" --json | tr ',{' '\n\n' | sed -n 's/^"step":\([0-9]*\)$/\1/p' | head -n 1)
wait_for_step $((step + 3))
kill -INT "$CONTROLLER"
finish_job 5
! wait $asker || fail "a run that has ended takes a swap"
nothing_left
