#!/usr/bin/env bash
# Runs all tests on this machine: installs what is missing, builds from scratch, then
#   1. every test but those labelled gpu or slow
#   2. the quick tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   3. every fuzz target for a short time under both (clang)
# usage: tests/run.sh [--fuzz-seconds N]
#   without, 2 seconds for each target from one seed, so that a run is repeatable; with, from a random seed
# Builds below build-test/. Ends with one line for each part; exits 0 only when all passed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

fuzz_seconds=1 fuzz_seed=1 fuzz_comparisons=OFF
case ${1:-} in
-h | --help)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
--fuzz-seconds)
    fuzz_seconds=${2:?--fuzz-seconds takes a number}
    fuzz_seed=0 fuzz_comparisons=ON
    ;;
"") ;;
*)
    echo "run.sh: unknown option $1, expected --fuzz-seconds N" >&2
    exit 2
    ;;
esac

jobs=$(nproc)
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache); fi
# Some hundred programs are linked, by lld in a third of the time.
linker=()
if command -v ld.lld >/dev/null; then
    linker=(-DCMAKE_{EXE,SHARED,MODULE}_LINKER_FLAGS=-fuse-ld=lld)
fi
begin=$SECONDS
summary=()
failures=0

# part NAME COMMAND...: runs it and keeps one line about it.
part() {
    local name=$1 start=$SECONDS
    shift
    echo
    echo "=== $name"
    if "$@"; then
        summary+=("passed   $((SECONDS - start)) s   $name")
    else
        summary+=("FAILED   $((SECONDS - start)) s   $name")
        failures=$((failures + 1))
        return 1
    fi
}

skip() {
    echo
    echo "=== $1: skipped: $2"
    summary+=("skipped        $1: $2")
}

build() { # FOLDER PRESET TARGETS [cmake options]
    local folder=build-test/$1 preset=$2 targets=$3
    shift 3
    rm -rf "$folder"
    cmake --preset "$preset" -B "$folder" "${launcher[@]}" "$@" >build-test/configure.log 2>&1 ||
        { cat build-test/configure.log && return 1; }
    # shellcheck disable=SC2086
    deploy/build.sh "$folder" $targets
}

run_tests() { # FOLDER [ctest options]
    local folder=build-test/$1
    shift
    ctest --test-dir "$folder" --output-on-failure --no-tests=error "$@"
}

# Whether clang can link a libFuzzer program here.
can_fuzz() {
    command -v clang >/dev/null &&
        echo 'int LLVMFuzzerTestOneInput(const char *b, long n) { return n < 0 && *b; }' |
        clang -fsanitize=fuzzer,address -x c - -o build-test/can_fuzz 2>/dev/null
}

finish() {
    echo
    printf '%s\n' "${summary[@]}"
    if [ $failures = 0 ]; then
        echo "all tests passed in $((SECONDS - begin)) s"
    else
        echo "$failures parts failed, $((SECONDS - begin)) s"
    fi
    [ $failures = 0 ]
    exit
}

mkdir -p build-test
part "packages" deploy/setup.sh --test || finish
timeout 90 deploy/setup.sh --arrow ||
    skip "tests of Parquet and Arrow files" "Apache Arrow could not be fetched (deploy/setup.sh --arrow)"

# One kind of GPU's machine code, which nobody runs here, is enough to see that all of it compiles and links.
quick_cuda=(-DTROUPE_CUDA_ARCHITECTURES=90-real "-DCMAKE_CUDA_FLAGS=-Xcicc -O0 -Xptxas -O0")
if part "build" build release release all "${linker[@]}" "${quick_cuda[@]}"; then
    part "tests" run_tests release -LE 'gpu|slow' -j $((3 * jobs + 1)) # many wait more than they compute
fi

# A report of a sanitizer ends its process, and so fails the test. Left out are the longest of those that compare
# numbers of code which others reach, too. One build serves both, by clang; by gcc where clang has no libFuzzer.
# The CUDA kernels on the host are in that of gcc alone: `cmake --preset asan`.
numbers='kernel_rows|kernels|row_invariance|engine_exact|policy_golden|trainer_(golden|layouts)|decode_graphs|sampler'
quick_tests() {
    part "quick tests under ASan and UBSan" run_tests sanitized -L quick -E "^test_($numbers)" -j $((3 * jobs))
}
if can_fuzz; then
    if part "build for ASan, UBSan and fuzzing" build sanitized fuzz "quick_tests fuzz_targets" "${linker[@]}" \
        "-DTROUPE_FUZZ_SECONDS=$fuzz_seconds" "-DTROUPE_FUZZ_SEED=$fuzz_seed" \
        "-DTROUPE_FUZZ_COMPARISONS=$fuzz_comparisons"; then
        quick_tests
        part "fuzz targets, $fuzz_seconds s each" run_tests sanitized -L fuzz -j "$jobs"
    fi
else
    skip "fuzz targets" "clang here does not link libFuzzer programs (deploy/setup.sh --test)"
    if part "build for ASan and UBSan" build sanitized asan quick_tests "${linker[@]}"; then quick_tests; fi
fi
finish
