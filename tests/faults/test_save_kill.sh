#!/bin/bash
# kill -9 in the middle of a save: of a rank that writes, of a rank while the controller commits, of the controller
# while it commits. The run goes on by itself, or with the same command, and ends with the weights of an undisturbed
# one.
# usage: test_save_kill.sh MOMENT   (write, commit, controller)
. "$(dirname "$0")/../e2e/lib.sh"
JOB_MODEL=$SOURCE/deploy/examples/tiny/model # whose steps leave time to kill in
case $1 in
write) fault="train_worker write /optimizer-" victim=train-1 ;;
commit) fault="controller fsync /tokenizer.json" victim=train-0 ;;
controller) fault="controller fsync /tokenizer.json" victim=controller ;;
*) fail "unknown moment $1" ;;
esac
make_data
STEPS=21
expected=$(undisturbed_digest)
[ -n "$expected" ] || fail "the undisturbed run failed"

write_job saving.yaml saving
start_faulty_job() {
    touch strike
    TROUPE_FAULT="$fault sleep=2 $PWD/strike" LD_PRELOAD=$BIN/../tests/faults/libfaulty.so start_job
}
start_faulty_job
for turn in 1 2; do
    tries=0
    while [ -e strike ]; do # until the save stands in the call that takes 2 s
        tries=$((tries + 1))
        [ "$tries" -lt 1200 ] || fail "no save came"
        kill -0 "$CONTROLLER" 2> /dev/null || fail "the controller ended before its save"
        sleep 0.05
    done
    if [ $victim = controller ]; then
        kill -9 "$CONTROLLER"
        wait "$CONTROLLER" 2> /dev/null || true
        nothing_left
        [ $turn = 2 ] || start_faulty_job
    else
        kill -9 "$(actor_pid $victim)" || fail "could not kill $victim"
        [ $turn = 2 ] || touch strike # in the next save again
    fi
    echo "killed $victim in the middle of a save"
done
[ $victim != controller ] || start_job
finish_job 0
nothing_left
[ "$(digest_of "$RUN")" = "$expected" ] || fail "a kill inside a save changed the weights"
run_job # and the run folder is in order: there is nothing to do
[ "$(digest_of "$RUN")" = "$expected" ] || fail "a finished run was changed"
echo "same weights after two kills inside saves: $expected"
