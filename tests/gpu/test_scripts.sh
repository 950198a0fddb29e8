#!/usr/bin/env bash
# The scripts for a GPU tell of what goes wrong: nothing that differs, is missing or does not start passes for done.
# usage: BIN=... SOURCE=... test_scripts.sh jobs | golden | nccl | options | starts | order | train
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

# ---- ranks: where NCCL is missing, so may be what opens the device ----

nccl() {
    for program in nccl_ranks nccl_train nccl_weights; do
        expect 77 nccl.out env TROUPE_CUDA_LIBRARY="$BIN/device_fenced.so" TROUPE_NCCL_LIBRARY=none.so "$BIN/$program"
        expect 1 nccl.out env TROUPE_CUDA_LIBRARY="$PWD/none.so" TROUPE_NCCL_LIBRARY=none.so "$BIN/$program"
        says nccl.out "which is named as the CUDA library"
    done
}

# ---- run.sh over programs of a line, with a GPU by hearsay ----

# fake FILE [LINE]
fake() {
    mkdir -p "$(dirname "$1")"
    printf '#!/bin/sh\n%s\n' "${2:-exit 0}" > "$1"
    chmod +x "$1"
}

fake_all() {
    local program
    # shellcheck disable=SC2016
    fake gpu/nvidia-smi 'case "$*" in -L) echo "GPU 0: a card" ;; *cap*) echo 9.0 ;; *) echo "a card, 1, 2 MiB" ;; esac'
    for program in controller node_agent data_source rollout_worker train_worker make_model bench_engine bench_train \
        gpu_golden nccl_ranks nccl_train nccl_weights test_kernels test_kernel_rows op_times gemm_rows; do
        fake fakes/$program
    done
}

# run CODE OUT [NAME=VALUE...] ARGUMENT...: of run.sh; OUT names the folder of its report, too.
run() {
    local code=$1 out=$2 settings=()
    shift 2
    while [[ ${1:-} == *=* ]]; do settings+=("$1") && shift; done
    expect "$code" "$out.out" env -u OUT PATH="$PWD/gpu:$PATH" BIN="$PWD/fakes" BUILD="$PWD/$out" "${settings[@]}" \
        "$SOURCE/tests/gpu/run.sh" "$@"
}

options() {
    fake_all
    for script in run pack llmq job train_rows; do
        expect 0 help.out "$SOURCE/tests/gpu/$script.sh" --help
        says help.out "^usage: tests/gpu/$script.sh"
    done
    for script in run llmq job; do
        expect 2 wrong.out "$SOURCE/tests/gpu/$script.sh" golden jbos
        says wrong.out 'jbos|golden'
    done
    run 2 wrong SECONDS_ALL=abc golden
    says wrong.out '^SECONDS_ALL=abc: expected a whole number'
    expect 2 wrong.out "$SOURCE/tests/gpu/train_rows.sh" 8
    says wrong.out '^usage:'
    fake few/controller
    run 1 few BIN="$PWD/few" --rehearse golden decode
    says few.out "nothing to rehearse with: not in $PWD/few: gpu_golden bench_engine \\(build the tests, too: ninja"
    fake gpu/compute-sanitizer 'echo "sanitizer $2"'
    run 0 sanitize --sanitize
    says sanitize.out '^sanitizer racecheck$'
    rm gpu/compute-sanitizer
    if [ -z "$(ls {/usr/local,/opt}/cuda/bin/compute-sanitizer 2> /dev/null)" ]; then
        run 77 sanitize CUDACXX=none --sanitize
        says sanitize.out 'test_kernels \| skipped: compute-sanitizer is neither in the PATH'
    fi
}

starts() {
    fake_all
    run 0 all golden nccl
    says all.out '^4 parts passed, 0 failed, 0 skipped, 0 not run'
    # Of a GPU that is there and does not open, and of one that somebody else has.
    fake fakes/op_times 'echo "the GPU cannot be opened: no driver"; exit 1'
    run 1 closed kernels
    says closed.out 'op_times \| \*\*failed \(1\)'
    fake_all
    fake fakes/nccl_ranks 'exit 77'
    run 0 partly nccl
    says partly.out '^2 parts passed, 0 failed, 1 skipped'
    for program in nccl_train nccl_weights; do fake fakes/$program 'exit 77'; done
    run 77 nothing nccl
    # What is carried there, and does not start.
    run 2 gone PACK="$PWD/none.tar.gz" golden
    says gone.out "there is no file $PWD/none.tar.gz, which PACK names"
    fake pack/bin/train_worker
    fake pack/bin/controller "echo \"controller: version \\\`GLIBC_9.99' not found\" >&2; exit 1"
    cp fakes/* pack/bin -n
    mkdir pack/lib
    tar -C pack -czf pack.tar.gz .
    run 1 unfit BIN= PACK="$PWD/pack.tar.gz" CUDACXX=none golden
    says unfit.out "programs of $PWD/pack.tar.gz do not start here: controller: version .GLIBC_9.99' not found"
    says unfit.out "There is no none to build the kernels with"
    fake gpu/nvcc 'echo "nvcc fatal: there is no host compiler" >&2; exit 1'
    run 1 unbuilt BIN= PACK="$PWD/pack.tar.gz" CUDACXX="$PWD/gpu/nvcc" golden
    says unbuilt.out "GLIBC_9.99"
    says unbuilt.out "^nvcc fatal: there is no host compiler"
    says unbuilt.out "build failed: $PWD/unbuilt/build.log"
}

# What has to hold comes first, and slow kernels leave the others their time.
order() {
    fake_all
    fake fakes/test_kernels 'exec sleep 100'
    run 1 slow SECONDS_ALL=60 nccl jobs kernels golden
    sed -n 's/^| \([a-z_]*\)[ ,].* |$/\1/p' slow/report.md | sed '/^part$/d;/^job$/d' | uniq > rows
    printf '%s\n' golden test_kernels test_kernel_rows test_kernels test_kernel_rows op_times gemm_rows nccl_ranks \
        nccl_train nccl_weights jobs > expected
    cmp rows expected || fail "the order is $(paste -sd ' ' rows)"
    says slow.out 'golden \| passed'
    says slow.out 'test_kernels \(library\) \| \*\*not done in [0-9]+ s\*\*'
    says slow.out 'nccl_weights \| passed'
    says slow.out 'jobs, large \| \*\*(failed|not done)' # by a controller that does nothing
}

# What fails is told with the number of documents that was tried.
train() {
    fake bench_train 'echo "the device fell off the bus" >&2; exit 1'
    expect 1 rows.out env BIN="$PWD" "$SOURCE/tests/gpu/train_rows.sh" 2 toy:2+8x32
    says rows.out '^\| toy \| 2 x 32 \| \*\*the device fell'
    command -v python3 > /dev/null || return 0
    expect 1 rows.out python3 "$SOURCE/tests/bench/compare_train.py" "$PWD/bench_train" --no-torch \
        --shape toy:2+8x32,toy:4x64
    says rows.out '^\| toy \| 2 x 32 \| \*\*bench_train ended with code 1: the device fell'
    says rows.out '^\| toy \| 4 x 64 \| \*\*bench_train ended with code 1: the device fell'
    expect 1 rows.out python3 "$SOURCE/tests/bench/compare_train.py" "$PWD/none" --no-torch
    says rows.out '^/.*none cannot be run: build the tests'
}

"$1"
