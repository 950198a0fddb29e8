#!/usr/bin/env bash
# The CUDA backend on a GPU: builds it, checks every operation, and times it, in one call of less than 8 minutes, from
# a plain copy of the tree on a machine with CUDA's toolkit, cmake, gcc and nothing else. Prints Markdown, the verdict
# last.
# usage: tests/gpu/run.sh [--check-only | --sanitize]
#   --check-only times no operations, --sanitize runs the checks under compute-sanitizer and nothing else
#   BUILD=folder (build-gpu), REPORT=file (build-gpu/report.md), SECONDS_MAX for each program (120)
# Exits 77 where there is no GPU, 1 when a check failed.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

build=${BUILD:-build-gpu} limit=${SECONDS_MAX:-120}
report=${REPORT:-$build/report.md}
check_only=no sanitize=no
case ${1:-} in
--check-only) check_only=yes ;;
--sanitize) sanitize=yes ;;
"") ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac

# A driver is not enough: the card must be there.
if ! ls /dev/nvidia[0-9]* >/dev/null 2>&1 && ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo "skipped: this machine has no NVIDIA GPU (no /dev/nvidia0, and nvidia-smi lists none)"
    exit 77
fi
nvcc=${CUDACXX:-$(command -v nvcc)}
for place in /usr/local/cuda /opt/cuda; do
    if [ -z "$nvcc" ] && [ -x $place/bin/nvcc ]; then nvcc=$place/bin/nvcc; fi
done
if [ -z "$nvcc" ]; then
    echo "skipped: there is no nvcc: set CUDACXX"
    exit 77
fi

# cuBLASLt stands in the toolkit, or where pip puts it.
toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
if ! [ -e "$toolkit/include/cublasLt.h" ]; then
    pip=$(python3 -c 'import glob, site
print(*[f for s in site.getsitepackages() for f in glob.glob(s + "/nvidia/*/include/cublasLt.h")][:1])' 2>/dev/null)
    export CPATH=${pip%/*}
    export LD_LIBRARY_PATH=${pip%/include/*}/lib
fi

mkdir -p "$build"
begin=$SECONDS failures=0
summary=()
: >"$report"

# part NAME COMMAND...: runs it, its output into the report; within what is left of 460 s.
part() {
    local name=$1 start=$SECONDS code left=$((460 - SECONDS + begin))
    shift
    [ "$left" -lt "$limit" ] || left=$limit
    [ "$left" -gt 0 ] || left=1
    timeout "$left" "$@" 2>&1 | tee -a "$report"
    code=${PIPESTATUS[0]}
    if [ "$code" = 0 ]; then
        summary+=("| $name | passed | $((SECONDS - start)) |")
    else
        summary+=("| $name | **failed ($code)** | $((SECONDS - start)) |")
        failures=$((failures + 1))
        return 1
    fi
}

finish() {
    {
        echo
        echo "| part | | s |"
        echo "|---|---|---|"
        printf '%s\n' "${summary[@]}"
        echo
        echo "$failures parts failed; $((SECONDS - begin)) s in all"
    } | tee -a "$report"
    [ $failures = 0 ]
    exit
}

# Machine code of this card alone: the quickest to build.
sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
if ! {
    CUDACXX=$nvcc cmake -S tests/gpu -B "$build" "-DCMAKE_CUDA_ARCHITECTURES=${sm:-90}-real" &&
        timeout 240 cmake --build "$build" -j "$(nproc)"
} >"$build/build.log" 2>&1; then
    tail -40 "$build/build.log"
    echo "the build failed: $build/build.log"
    exit 1
fi
summary+=("| build | done | $((SECONDS - begin)) |")

if [ $sanitize = yes ]; then
    for tool in memcheck racecheck; do
        limit=200 part "test_kernels under $tool" env CUDA_LAUNCH_BLOCKING=1 \
            compute-sanitizer --tool $tool --error-exitcode 9 "$build/bin/test_kernels" tile
    done
    finish
fi

for gemm in library tile; do
    for test in test_kernels test_kernel_rows; do
        part "$test ($gemm)" env CUDA_LAUNCH_BLOCKING=1 "$build/bin/$test" $gemm
    done
done

if [ $check_only = no ]; then
    part op_times "$build/bin/op_times"
fi
ceilings=$(sed -n 's/^ceilings: \([0-9.]* [0-9.]*\).*/\1/p' "$report" | head -1)
# shellcheck disable=SC2086
part gemm_rows "$build/bin/gemm_rows" $ceilings

finish
