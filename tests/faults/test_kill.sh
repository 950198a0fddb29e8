#!/bin/bash
# kill -9 of one process of a running job at three steps drawn from a seed. The run goes on by itself (or, when it was
# the controller, with the same command) and ends with the weights of an undisturbed run. Nothing is left behind.
# usage: test_kill.sh ACTOR   (rollout-0, train-1, data_source, node_agent, controller)
. "$(dirname "$0")/../e2e/lib.sh"
actor=$1
seed=${SEED:-$(printf '%s' "$actor" | cksum | cut -d' ' -f1)}
make_data

expected=$(undisturbed_digest)
[ -n "$expected" ] || fail "the undisturbed run failed"

pid_to_kill() {
    case $actor in
    controller) echo "$CONTROLLER" ;;
    node_agent) # its guard is older, which its number need not tell
        for pid in $(processes_of "node_agent --endpoint ipc://$(sockets_of_run)"); do
            echo "$(cut -d' ' -f22 "/proc/$pid/stat" 2> /dev/null) $pid"
        done | sort -n -k1,1 -k2,2 | tail -n 1 | cut -d' ' -f2 ;;
    *) actor_pid "$actor" ;;
    esac
}

# One death of the agent is one, also with more workers than restarts.
write_job killed.yaml killed $([ "$actor" != node_agent ] || echo rollout.num_workers=8)
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
train-1 | node_agent) # whoever sees a step again is told from where it went on
    [ "$(grep 'model_ready' "$RUN.out" | grep -vc 'goes on from step [0-9]\|begins anew')" = 1 ] &&
        grep -q 'model_ready.*\(goes on from step [0-9]\|begins anew\)' "$RUN.out" ||
        fail "does not say from which step it goes on"
    ;;
esac
metrics_ascend
[ "$(digest_of "$RUN")" = "$expected" ] || fail "killing $actor changed the weights (seed ${SEED:-default})"
echo "same weights after three kills of $actor: $expected"
