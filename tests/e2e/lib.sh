# Shared by the end-to-end tests: a tiny job, run through the real processes. Source it; it needs
#   BIN      folder of the built programs
#   SOURCE   the checkout
# and works in the current folder (ctest gives every test its own).
set -eu

fail() {
    echo "FAILED: $*" >&2
    [ -z "${RUN:-}" ] || tail -n 30 "$RUN.out" >&2 2>/dev/null || true
    exit 1
}

# The tiny data set, once per build, and the tiny model with half of its layers: what these tests look at does not
# depend on how well it learns. JOB_MODEL=folder is another.
make_data() {
    DATA=$BIN/../scratch/tiny_data
    mkdir -p "$BIN/../scratch"
    ( # several tests may come first
        flock 9
        [ ! -e "$DATA/eval.jsonl" ] || [ ! -e "$DATA/model/config.json" ] || exit 0
        mkdir -p "$DATA/model"
        cp "$SOURCE"/deploy/examples/tiny/model/* "$DATA/model"
        sed -i -e 's/"num_hidden_layers": 4/"num_hidden_layers": 2/' \
            -e 's/"intermediate_size": 384/"intermediate_size": 192/' \
            "$DATA/model/config.json"
        sh "$SOURCE/deploy/examples/tiny/make_data.sh" "$DATA"
    ) 9> "$DATA.lock"
}

# write_job FILE RUN [KEY=VALUE ...]: the tiny job; the settings are given to every start of it.
write_job() {
    JOB=$1 RUN=$PWD/$2
    shift 2
    cat > "$JOB" <<YAML
name: tiny
run_dir: $RUN
model:
  path: ${JOB_MODEL:-$DATA/model}
  init: random
data:
  train: [$DATA/train.jsonl]
  eval: [$DATA/eval.jsonl]
train:
  tp_size: 2
  num_steps: ${STEPS:-30}
  global_batch_size: 16
  lr: 0.002
checkpoint:
  interval: 10
cluster:
  cpus: 16
YAML
    SETTINGS=
    for setting in "$@"; do SETTINGS="$SETTINGS --set $setting"; done
}

# start_job: runs the job in the background; its output goes to $RUN.out. Signals are as at a terminal (a shell without
# one lets its background jobs ignore SIGINT, and these tests may run under nohup); start_job_ignoring=HUP is nohup.
start_job() {
    lines_before=$(cat "$RUN.out" 2> /dev/null | wc -l)
    # shellcheck disable=SC2086
    env --default-signal=INT,HUP,PIPE ${start_job_ignoring:+--ignore-signal=$start_job_ignoring} \
        "$BIN/controller" --config "$JOB" $SETTINGS >> "$RUN.out" 2>&1 &
    CONTROLLER=$!
}

# finish_job CODE: waits for the job and checks its exit code.
finish_job() {
    code=0
    wait "$CONTROLLER" || code=$?
    [ "$code" -eq "$1" ] || fail "the controller ended with code $code, expected $1"
}

run_job() {
    start_job
    finish_job 0
}

# has_step N: whether the run has committed step N. Lines of a session that was killed are not looked at.
has_step() {
    { [ ! -e "$RUN.out" ] || tail -n +$((${lines_before:-0} + 1)) "$RUN.out" | grep -q model_ready; } &&
        grep -q "\"step\":$1[,}]" "$RUN/metrics.jsonl" 2>/dev/null
}

# wait_for_step N: until it has, though it may have come to its end meanwhile.
wait_for_step() {
    tries=0
    until has_step "$1"; do
        tries=$((tries + 1))
        [ "$tries" -lt 1200 ] || fail "step $1 was not reached in 60 s"
        kill -0 "$CONTROLLER" 2>/dev/null || has_step "$1" || fail "the controller ended before step $1"
        sleep 0.05
    done
}

# actor_pid NAME: of a running job, from its own status.
actor_pid() {
    "$BIN/controller" status --run "$RUN" --json |
        tr '{' '\n' | sed -n "s/.*\"name\":\"$1\".*\"pid\":\([0-9]*\).*/\1/p"
}

# kill_actor NAME: kill -9, also of one that is on its way back from another death.
kill_actor() {
    local pid
    tries=0
    until pid=$(actor_pid "$1") && [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "there is no $1 to kill"
        kill -0 "$CONTROLLER" 2>/dev/null || fail "the controller ended before $1 was killed"
        sleep 0.05
    done
}

# undisturbed_digest: what the tiny job with its default settings makes when nobody disturbs it; run once per build.
undisturbed_digest() {
    known=$BIN/../scratch/undisturbed_digest${JOB_MODEL:+_whole_model}
    (
        flock 9
        [ -s "$known" ] && [ "$known" -nt "$BIN/train_worker" ] && exit 0
        write_job quiet.yaml quiet
        run_job > /dev/null
        digest_of "$RUN" > "$known.part" && mv "$known.part" "$known"
    ) 9> "$known.lock" || return
    cat "$known"
}

# newest_checkpoint RUN: the folder of the last that is whole.
newest_checkpoint() {
    local last
    last=$(ls -d "$1"/checkpoints/step_* 2> /dev/null | grep -v partial | tail -n 1)
    [ -n "$(find "${last:-$1/checkpoints}" -maxdepth 1 -name '*.safetensors' 2> /dev/null)" ] ||
        fail "there is no checkpoint with weights in $1/checkpoints"
    echo "$last"
}

# The digest of everything that training made: weights and optimizer state of the newest checkpoint. Where there is none
# it fails, and says what equals no digest: $(...) alone would end, and two that are empty would be equal.
digest_of() {
    last=$(newest_checkpoint "$1") || { echo "no checkpoint in $1" && return 1; }
    (cd "$last" && cat ./*.safetensors | sha256sum | cut -c1-64)
}

# metrics_ascend: whatever happened to the run, metrics.jsonl tells each step once, and in order.
metrics_ascend() {
    sed -n 's/.*"step":\([0-9]*\),"train.*/\1/p' "$RUN/metrics.jsonl" | awk '
        $1 != last + 1 { print "step " $1 " after step " last; exit 1 }
        { last = $1 }' || fail "metrics.jsonl is not in order"
}

# Processes whose command line an extended regular expression matches. Starts none itself: on a busy machine that would
# take seconds.
processes_of() {
    local entry words
    for entry in /proc/[0-9]*; do
        words=()
        { mapfile -d '' -t words < "$entry/cmdline"; } 2> /dev/null || continue
        [[ "${words[*]}" =~ $1 && "$entry" != "/proc/$$" ]] && echo "${entry#/proc/}" || true
    done
}

# An extended regular expression for the places of the run's sockets, which the command line of each of its processes
# names: below the run folder or, where its path is too long for a socket's name, in a folder of their own.
sockets_of_run() {
    printf '(%s/sock|/tmp/troupe-%s-%s)/' "$RUN" "$(id -u)" "$(printf %s "$RUN" | sha256sum | cut -c1-16)"
}

# nothing_left: two seconds after the end no process and no shared memory of the run is there.
nothing_left() {
    left=
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        left=$(processes_of "ipc://$(sockets_of_run)")
        [ -n "$left" ] || break
        sleep 0.1
    done
    [ -z "$left" ] || fail "left behind: $(for p in $left; do tr '\0' ' ' < /proc/$p/cmdline; echo; done)"
    [ -z "$(ls /dev/shm | grep -i troupe || true)" ] || fail "left in /dev/shm: $(ls /dev/shm)"
}
