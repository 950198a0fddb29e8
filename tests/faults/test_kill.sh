#!/bin/bash
# kill -9 of one process of a running job at three steps drawn from a seed. The run goes on by itself (or, when it was
# the controller, with the same command) and ends with the weights of an undisturbed run. Nothing is left behind.
# usage: test_kill.sh ACTOR   (rollout-0, train-1, data_source, node_agent, agent_guard, controller)
. "$(dirname "$0")/../e2e/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
actor=$1
seed=${SEED:-$(printf '%s' "$actor" | cksum | cut -d' ' -f1)}
make_data
STEPS=21

expected=$(undisturbed_digest)
[ -n "$expected" ] || fail "the undisturbed run failed"

pid_to_kill() {
    case $actor in
    controller) echo "$CONTROLLER" ;;
    node_agent | agent_guard) # two processes of one command line; as the run itself tells them apart
        key=pid
        [ "$actor" = node_agent ] || key=guard_pid
        "$BIN/controller" status --run "$RUN" --json |
            sed -n "s/.*\"agents\":\[{[^}]*\"$key\":\([0-9]*\),.*/\1/p" ;;
    *) actor_pid "$actor" ;;
    esac
}

# One death of the agent, or of its guard, is one, also with more workers than restarts.
more=
case $actor in node_agent | agent_guard) more=rollout.num_workers=8 ;; esac
# shellcheck disable=SC2086
write_job killed.yaml killed $more
start_job
step=1
for turn in 1 2 3; do
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    step=$((step + 1 + seed / 65536 % 6))
    wait_for_step $step
    pid=0 tries=0
    until [ "${pid:-0}" != 0 ]; do # it may be on its way back from the last kill
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "no process for $actor at step $step"
        sleep 0.05
        pid=$(pid_to_kill)
    done
    kill -9 "$pid" || fail "could not kill $actor"
    echo "killed $actor (pid $pid) after step $step"
    if [ "$actor" = controller ]; then
        wait "$CONTROLLER" 2> /dev/null || true
        nothing_left
        start_job
    else
        sleep 0.3
    fi
done
finish_job 0
nothing_left
case $actor in
train-1 | node_agent | agent_guard) # whoever sees a step again is told from where it went on
    [ "$(grep 'model_ready' "$RUN.out" | grep -vc 'goes on from step [0-9]\|begins anew')" = 1 ] &&
        grep -q 'model_ready.*\(goes on from step [0-9]\|begins anew\)' "$RUN.out" ||
        fail "does not say from which step it goes on"
    ;;
esac
metrics_ascend
case $actor in # which of the two it was, everybody is told, with its number
node_agent) text='the node agent (pid [0-9]*) was killed by signal 9' ;;
agent_guard) text='the guard of the node agent (agent_guard, pid [0-9]*) was killed by signal 9' ;;
*) text= ;;
esac
for file in "$RUN.out" "$RUN/events.jsonl"; do
    [ -z "$text" ] || [ "$(grep -c "agent_lost.*$text" "$file")" = 3 ] || fail "$file does not name who was killed"
done
[ "$(digest_of "$RUN")" = "$expected" ] || fail "killing $actor changed the weights (seed ${SEED:-default})"
echo "same weights after three kills of $actor: $expected"
