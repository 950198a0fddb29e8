#!/usr/bin/env bash
# The scripts for a GPU tell of what goes wrong: nothing that differs, is missing or does not start passes for done.
# usage: BIN=... SOURCE=... test_scripts.sh jobs | golden
# shellcheck source=tests/e2e/lib.sh
. "$SOURCE/tests/e2e/lib.sh"

# expect CODE OUT COMMAND...: it ends so; its output goes to the file OUT.
expect() {
    local expected=$1 out=$2 code=0
    shift 2
    "$@" > "$out" 2>&1 || code=$?
    [ "$code" = "$expected" ] || fail "code $code, expected $expected: $* said $(tail -n 20 "$out")"
}

says() { # FILE PATTERN
    grep -qE -- "$2" "$1" || fail "$1 does not say \"$2\": $(tail -n 20 "$1")"
}

# ---- whole jobs, by a controller after whose end a run is not what it was ----

# large BIN OUT CODE
large() {
    expect "$3" "$2.out" env BIN="$1" LARGE=toy TROUPE_CUDA_LIBRARY="$BIN/device_fenced.so" \
        TROUPE_NVML_LIBRARY="$BIN/nvml_library.so" "$SOURCE/tests/gpu/job.sh" large
    rm -rf large sft* rl*
}

# spoiled_by RUN COMMAND: a folder of programs whose controller does that to the folder of the run.
spoiled_by() {
    rm -rf spoiled
    mkdir spoiled
    ln -s "$BIN"/* spoiled
    rm spoiled/controller
    cat > spoiled/controller << SCRIPT
#!/usr/bin/env bash
"$BIN/controller" "\$@" || exit
[ ! -d "$PWD/$1" ] || [ ! -e "$PWD/$1/metrics.jsonl" ] || { cd "$PWD/$1" && $2; }
SCRIPT
    chmod +x spoiled/controller
}

jobs() {
    large "$BIN" quiet 0
    says quiet.out 'by rewards \| [1-9][0-9]* compared, 0 differ'
    spoiled_by rl "sed -i 's|logprob_mismatch_count\":0|logprob_mismatch_count\":3|' metrics.jsonl"
    large "$PWD/spoiled" differing 1
    says differing.out 'FAILED: log-probs of .*/rl: [0-9]+ compared, 6 differ'
    spoiled_by sft "rm -r checkpoints"
    large "$PWD/spoiled" unsaved 1
    says unsaved.out 'FAILED: there is no checkpoint with weights in .*/sft/checkpoints'
}

# ---- tiny models: of a device that does not open there are no differences ----

golden() {
    local model=$SOURCE/tests/model/golden/tied_gqa
    expect 0 golden.out env TROUPE_CUDA_LIBRARY="$BIN/device_fenced.so" "$BIN/gpu_golden" "$model"
    says golden.out 'tied_gqa \| [0-9.e-]+ \| [0-9.e-]+ \| [0-9.e-]+ \| near \|$'
    expect 1 golden.out env TROUPE_CUDA_LIBRARY="$PWD/none.so" "$BIN/gpu_golden" "$model"
    says golden.out 'tied_gqa \| \| \| \| \*\*not done, see above\*\* \|$'
}

"$1"
