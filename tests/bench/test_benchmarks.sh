#!/usr/bin/env bash
# The benchmarks that run on any device, on the CPU with a toy: they train and decode, and say what they promise; not
# how fast.
# usage: test_benchmarks.sh (by ctest: BIN)
set -eu
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
says() {
    grep -qE "$2" "$1" || fail "$1 does not say $2: $(cat "$1")"
}

mkdir -p model
"$BIN/make_model" toy model
for what in "" tp=2 model=model dtype=f32 "batches=2 length=16"; do
    # shellcheck disable=SC2086
    "$BIN/bench_train" shape=toy length=32 rounds=2 $what > train.out 2> train.err || fail "$what: $(cat train.err)"
    says train.out "^start +device .*, first step "
    says train.out "^memory +[0-9.]+ GiB planned, [0-9.]+ GiB taken"
    says train.out "^tokens/s +best [0-9]"
    # Random weights know nothing: about ln 2048, and less after two steps over the same tokens.
    awk '/^step/ { loss = $NF } END { exit !(loss > 7.0 && loss < 7.8) }' train.out || fail "$what: $(cat train.out)"
    says train.err "AdamW moments"
done
printf 'info\nstep\ninfo\ngemm\n' | "$BIN/bench_train" shape=toy length=32 rounds=0 > told.out 2> /dev/null
[ "$(grep -c '^{.*}$' told.out)" = 4 ] || fail "not four answers: $(cat told.out)"
says told.out '"device": "CPU", "planned_bytes": [0-9]+'
for wrong in shape=none layers=x device=tpu length=1 "tp=2 device=cuda" stray; do
    # shellcheck disable=SC2086
    ! "$BIN/bench_train" $wrong rounds=1 > wrong.out 2>&1 || fail "it takes $wrong"
    says wrong.out .
done

"$BIN/bench_engine" shape=toy layers=1 samples=4 length=64 kv_mb=4 copy_mb=1 prompt=20 steps=4 rounds=2 decode=1,4 \
    label=toy > decode.out 2> /dev/null
says decode.out "^bandwidth [0-9.]+ TB/s by a measured copy; peak"
for samples in 1 4; do says decode.out "^\| toy \| $samples \| [0-9]+ \| .* %"; done
! "$BIN/bench_engine" shape=toy samples=2 kv_mb=64 copy_mb=1 decode=3 > wrong.out 2>&1 ||
    fail "it decodes more than it can"
