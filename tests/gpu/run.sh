#!/usr/bin/env bash
# What a GPU has to show, in one call of less than 8 minutes: every operation checked and timed, ranks over NCCL,
# training and decoding beside the card's limits and PyTorch, whole jobs. From a plain copy of the tree, on a machine
# that reaches no package registry. Prints Markdown for docs/cuda.md, the verdict last.
# usage: tests/gpu/run.sh [--check-only | --sanitize | --rehearse] [PART...]
#   PART: golden, kernels, nccl, jobs, which have to hold, then decode, train, llmq, which measure: done in this order,
#   in whichever they are named; all of them without one
#   --check-only: times no operations; --sanitize: the kernels' checks under compute-sanitizer, and nothing else
#   --rehearse: no GPU: the same over the stand-ins of the tests, in small, so that no lent minute is lost on a script
#   BUILD=folder (build-gpu), SECONDS_ALL for everything (460), of which each part that has to hold has a share that
#   none before it takes; OUT=folder for what is to be kept (BUILD): report.md, each row of which is there at once, and
#   what jobs have logged
#   PACK=file of tests/gpu/pack.sh (BUILD/pack.tar.gz), or BIN=folder of programs built here (build/bin)
#   TRAIN_SHAPES for compare_train.py, TRAIN_COMPILE=1 tries compiled PyTorch, GPUS for ranks (those that are there)
# Kernels are taken from the pack, or built here where nvcc is. Exits 1 when something failed, does not start, or was
# not reached in time; 77 where nothing could be done: there is no GPU, or all that was asked for is skipped.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
build=$(realpath -m "${BUILD:-build-gpu}") seconds=${SECONDS_ALL:-460}
out=$(realpath -m "${OUT:-$build}") work=$build/work
report=$out/report.md
check_only=no sanitize=no rehearse=no parts=()
for argument in "$@"; do
    case $argument in
    --check-only) check_only=yes ;;
    --sanitize) sanitize=yes ;;
    --rehearse) rehearse=yes ;;
    golden | kernels | nccl | jobs | decode | train | llmq) parts+=("$argument") ;;
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit
        ;;
    *)
        echo "$argument is no part and no option: see tests/gpu/run.sh --help" >&2
        exit 2
        ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(golden kernels nccl jobs decode train llmq)
for number in SECONDS_ALL GPUS; do
    if ! [[ ${!number:-1} =~ ^[1-9][0-9]{0,5}$ ]]; then
        echo "$number=${!number}: expected a whole number above 0" >&2
        exit 2
    fi
done
if [ -n "${PACK:-}" ] && [ ! -e "$PACK" ]; then
    echo "there is no file $PACK, which PACK names: tests/gpu/pack.sh makes one" >&2
    exit 2
fi

wants() {
    [[ " ${parts[*]} " == *" $1 "* ]]
}

# ---- what is here ----

# A driver is not enough: the card must be there.
if [ $rehearse = no ] && ! ls /dev/nvidia[0-9]* > /dev/null 2>&1 && ! nvidia-smi -L 2> /dev/null | grep -q GPU; then
    echo "skipped: this machine has no NVIDIA GPU (no /dev/nvidia0, and nvidia-smi lists none)"
    exit 77
fi
rm -rf "$work"
mkdir -p "$build" "$work" "$out"
# Where nobody has the card open, its driver may stop, and start anew for each program.
if [ $rehearse = no ] && [ -r /dev/nvidia0 ]; then exec 9< /dev/nvidia0; fi
begin=$SECONDS failures=0 unreached=0 passed=0 skipped=0 kept=0 summary=()
: > "$report"
python=${PYTHON:-$(command -v python3 || true)}
nvcc=$(command -v "${CUDACXX:-nvcc}")
for place in /usr/local/cuda /opt/cuda; do
    if [ -z "$nvcc${CUDACXX:-}" ] && [ -x $place/bin/nvcc ]; then nvcc=$place/bin/nvcc; fi
done

# found NAME: the folder of a shared library: the toolkit's, the system's, the driver's mount, or where pip puts it.
found() {
    local place pip toolkit
    toolkit=${nvcc:+$(dirname "$(dirname "$(readlink -f "$nvcc")")")}
    pip=$([ -z "$python" ] || "$python" -c 'import sysconfig, site
print(*{sysconfig.get_path("purelib"), *site.getsitepackages()})' 2> /dev/null)
    for place in "$toolkit/lib" "$toolkit/lib64" /usr/local/cuda/lib /usr/local/cuda/lib64 /usr/lib/x86_64-linux-gnu \
        /usr/local/nvidia/lib /usr/local/nvidia/lib64; do
        [ ! -e "$place/$1" ] || { echo "$place" && return; }
    done
    # shellcheck disable=SC2086
    for place in $pip; do
        find "$place/nvidia" -name "$1" -printf '%h\n' 2> /dev/null
    done | head -n 1
}

folders=$(for library in libcublasLt.so.13 libcuda.so.1 libnvidia-ml.so.1; do
    ldconfig -p 2> /dev/null | grep -qF "$library" || found $library
done | sort -u | paste -sd:)
given_path=${LD_LIBRARY_PATH:-}
export LD_LIBRARY_PATH=$folders${given_path:+:$given_path}
if [ -z "${TROUPE_NCCL_LIBRARY:-}" ] && ! ldconfig -p 2> /dev/null | grep -qF libnccl.so.2; then
    nccl=$(found libnccl.so.2)
    [ -z "$nccl" ] || export TROUPE_NCCL_LIBRARY=$nccl/libnccl.so.2
fi
gpus=${GPUS:-$(nvidia-smi -L 2> /dev/null | grep -c GPU)}
[ "$gpus" -gt 0 ] || gpus=1

# ---- parts ----

# What has to hold has its time, however slow what comes before it is: of 460 s those that are kept for each run of a
# part while others run, and how many runs there are.
declare -A share=([golden]=30 [kernels]=25 [nccl]=25 [jobs]=60) runs=([golden]=1 [kernels]=5 [nccl]=3 [jobs]=2)
[ $rehearse = no ] || runs[kernels]=2

# keep PART...: from what is left now, for those that are wanted.
keep() {
    local name left=$((seconds - SECONDS + begin))
    for name in "$@"; do
        share[$name]=$((share[$name] * left / 460))
        ! wants "$name" || kept=$((kept + runs[$name] * share[$name]))
    done
}

# must PART NAME SECONDS COMMAND...: one run of a part that has to hold.
must() {
    kept=$((kept - share[$1]))
    part "${@:2}"
}

# part NAME SECONDS COMMAND...: runs it, its output into the report; within what is left of all and not kept for what
# has to hold. 77: not to be had here.
part() {
    local name=$1 limit=$2 start=$SECONDS code verdict left=$((seconds - SECONDS + begin - kept))
    shift 2
    [ "$left" -lt "$limit" ] || left=$limit
    if [ "$left" -lt 5 ]; then
        summary+=("| $name | **not run: time** | 0 |")
        unreached=$((unreached + 1))
        return 1
    fi
    (cd "$work" && exec timeout -k 5 "$left" "$@" 2>&1) | tee -a "$report"
    code=${PIPESTATUS[0]}
    case $code in
    0) verdict=passed passed=$((passed + 1)) ;;
    77) verdict="skipped, see above" skipped=$((skipped + 1)) ;;
    124 | 137) verdict="**not done in $left s**" ;;
    *) verdict="**failed ($code)**" ;;
    esac
    summary+=("| $name | $verdict | $((SECONDS - start)) |")
    [ "$code" != 0 ] && [ "$code" != 77 ] || return 0
    failures=$((failures + 1))
    return 1
}

finish() {
    {
        echo
        echo "| part | | s |"
        echo "|---|---|---|"
        printf '%s\n' "${summary[@]}"
        echo
        echo "$passed parts passed, $failures failed, $skipped skipped, $unreached not run for want of time;" \
            "$((SECONDS - begin)) s in all"
    } | tee -a "$report"
    (cd "$work" && find . \( -path '*/logs/*' -o -name '*.out' -o -name '*.err' -o -name '*.jsonl' \) -type f \
        ! -path './data/*' ! -path './pack/*' -print0 | tar --null -T - -czf "$out/logs.tar.gz")
    [ $((failures + unreached)) = 0 ] || exit 1
    [ $passed -gt 0 ] || exit 77
    exit 0
}

skip() {
    summary+=("| $1 | skipped: $2 | 0 |")
    skipped=$((skipped + 1))
}

# What is there and should do, and does not.
refuse() {
    summary+=("| $1 | **failed: $2** | 0 |")
    failures=$((failures + 1))
}

if [ $sanitize = yes ]; then
    for place in "" ${nvcc:+"$(dirname "$(readlink -f "$nvcc")")/"} /usr/local/cuda/bin/ /opt/cuda/bin/; do
        sanitizer=$(command -v "${place}compute-sanitizer") && break
    done
    if [ -z "$sanitizer" ]; then
        skip "test_kernels" "compute-sanitizer is neither in the PATH nor beside nvcc nor in /usr/local/cuda/bin"
        finish
    fi
fi

# ---- programs: of a build here, or carried ----

pack=${PACK:-$build/pack.tar.gz}
bin=${BIN:-} libraries='' origin=
if [ -z "$bin" ] && [ -e "$pack" ] && { [ $rehearse = no ] || [ -n "${PACK:-}" ]; }; then
    mkdir -p "$work/pack" "$work/bin"
    if ! tar -xzf "$pack" -C "$work/pack"; then
        echo "$pack cannot be unpacked: tests/gpu/pack.sh makes it anew"
        exit 1
    fi
    bin=$work/bin libraries=$work/pack/bin origin=" of $pack"
    # What it brings along is for its programs: the machine's own go by theirs.
    for program in "$libraries"/*; do
        [[ $program != *.so ]] || continue
        # shellcheck disable=SC2016
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec %s "$@"\n' \
            "$work/pack/lib${folders:+:$folders}" "$program" > "$bin/${program##*/}"
        chmod +x "$bin/${program##*/}"
    done
fi
[ -n "$bin" ] || bin=$root/build/bin
export BIN
BIN=$(realpath -m "$bin")
[ -n "$libraries" ] || libraries=$BIN

# lacking FOLDER NAME...: those that are not there.
lacking() {
    local name
    for name in "${@:2}"; do
        [ -e "$1/$name" ] || printf '%s ' "$name"
    done
}

needed=() # by the parts that are wanted
! wants golden || needed+=(gpu_golden)
! wants nccl || needed+=(nccl_ranks nccl_train nccl_weights)
! wants jobs || needed+=(node_agent data_source rollout_worker train_worker make_model)
! wants decode || needed+=(bench_engine)
! wants train && ! wants llmq || needed+=(bench_train)
build_tests="build the tests, too: ninja -C build"
# Without any programs what needs none is done; those that are there have to start.
programs='' without=refuse
if [ -n "$(lacking "$BIN" controller)" ]; then
    programs="no programs in $BIN, and no $pack (tests/gpu/pack.sh makes it)" without=skip
elif [ -n "$(lacking "$BIN" "${needed[@]}")" ]; then
    programs="not in $BIN: $(lacking "$BIN" "${needed[@]}")($build_tests)"
elif ! why=$("$BIN/controller" help 2>&1 > /dev/null); then
    programs="programs$origin do not start here: $(echo "${why:0:300}" | tr '\n|' ' /')"
fi

if [ $rehearse = yes ]; then
    stand_ins=$root/build/bin needed=(device_fenced.so libnccl_double.so nvml_library.so)
    [ ! -e "$BIN/device_fenced.so" ] || stand_ins=$BIN
    ! wants kernels || needed+=(test_kernels_cuda test_kernel_rows_cuda)
    why=$(lacking "$stand_ins" "${needed[@]}")
    [ -n "$programs" ] || programs=${why:+"not in $stand_ins: $why($build_tests)"}
    [ -z "$programs" ] || { echo "nothing to rehearse with: $programs" && exit 1; }
fi

# Machine code of this card alone: the quickest to build. What is built here serves the programs, too.
build_kernels() {
    local sm
    sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -1 | tr -d .)
    if ! [ -e "$(dirname "$(dirname "$(readlink -f "$nvcc")")")/include/cublasLt.h" ]; then
        CPATH=$(dirname "$(found libcublasLt.so.13)")/include
        export CPATH
    fi
    CUDACXX=$nvcc cmake -S "$root/tests/gpu" -B "$build" "-DCMAKE_CUDA_ARCHITECTURES=${sm:-90}-real" &&
        timeout 240 cmake --build "$build" -j "$(nproc)"
}
kernels=$BIN
if [ $rehearse = no ] && { [ ! -x "$BIN/op_times" ] || [ -n "$programs" ]; }; then
    start=$SECONDS kernels=$build/bin libraries=$build/bin
    [ -z "$programs" ] || echo "$programs" | tee -a "$report"
    if [ -z "$nvcc" ]; then
        echo "There is no ${CUDACXX:-nvcc (set CUDACXX)} to build the kernels with, nor a pack that starts." |
            tee -a "$report"
        exit 1
    elif ! build_kernels > "$out/build.log" 2>&1; then
        tail -40 "$out/build.log"
        # Of a compiler that does not work CMake keeps the words to itself.
        echo "__global__ void nothing() {}" > "$work/nothing.cu"
        (cd "$work" && "$nvcc" -c nothing.cu 2>&1) || echo "$nvcc compiles nothing, see above"
        echo "The kernels' build failed: $out/build.log" | tee -a "$report"
        exit 1
    fi
    summary+=("| build | done | $((SECONDS - start)) |")
fi

if [ $rehearse = yes ]; then
    export TROUPE_CUDA_LIBRARY=$stand_ins/device_fenced.so TROUPE_NCCL_LIBRARY=$stand_ins/libnccl_double.so
    export TROUPE_NVML_LIBRARY=$stand_ins/nvml_library.so
    export SHARES_NOTHING=TEST_DEVICE_REFUSES=share
    gpus=1
    unset CUDA_VISIBLE_DEVICES
elif [ -z "${TROUPE_CUDA_LIBRARY:-}" ]; then
    export TROUPE_CUDA_LIBRARY=$libraries/libtroupe_cuda.so
    export SHARES_NOTHING=TROUPE_CUDA_LIBRARY=$libraries/libtroupe_cuda_host.so
fi

{
    echo "## $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null | head -1)"
    echo
    echo "$(nproc) CPUs, $(uname -r); CUDA ${nvcc:+$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')}"
} | tee -a "$report"

if [ $sanitize = yes ]; then
    for tool in memcheck racecheck; do
        part "test_kernels under $tool" 200 env CUDA_LAUNCH_BLOCKING=1 \
            "$sanitizer" --tool $tool --target-processes all --error-exitcode 9 "$kernels/test_kernels" tile
    done
    finish
fi

# ---- what has to hold first, and keeps its time ----

if [ -z "$programs" ]; then
    keep golden kernels nccl jobs
else
    keep kernels
fi

# ---- tiny models beside transformers ----

if wants golden && [ -z "$programs" ]; then
    must golden golden 60 "$BIN/gpu_golden" "$root"/tests/model/golden/*
fi

# ---- kernels ----

if wants kernels && [ $rehearse = yes ]; then
    for test in test_kernels_cuda test_kernel_rows_cuda; do # their sources on the host
        must kernels $test 120 "$stand_ins/$test"
    done
elif wants kernels; then
    for gemm in library tile; do
        for test in test_kernels test_kernel_rows; do
            must kernels "$test ($gemm)" 120 env CUDA_LAUNCH_BLOCKING=1 "$kernels/$test" $gemm
        done
    done
    [ $check_only = yes ] || part op_times 120 "$kernels/op_times"
    ceilings=$(sed -n 's/^ceilings: \([0-9.]* [0-9.]*\).*/\1/p' "$report" | head -1)
    # shellcheck disable=SC2086
    must kernels gemm_rows 120 "$kernels/gemm_rows" $ceilings
fi

if [ -n "$programs" ]; then
    for name in golden nccl jobs decode train llmq; do
        ! wants $name || $without $name "$programs"
    done
    finish
fi

# ---- ranks over NCCL: two on one GPU, where there is one ----

if wants nccl; then
    small=(4)
    [ $rehearse = no ] || small=(1 toy)
    must nccl nccl_ranks 100 "$BIN/nccl_ranks" "$gpus" 2
    must nccl nccl_train 100 "$BIN/nccl_train" "$gpus" "${small[@]}"
    must nccl nccl_weights 60 "$BIN/nccl_weights" "$gpus" "${small[@]}"
fi

# ---- whole jobs ----

if wants jobs; then
    [ $rehearse = no ] || export LARGE=toy
    must jobs "jobs, tiny" 120 "$root/tests/gpu/job.sh" tiny
    must jobs "jobs, large" 150 "$root/tests/gpu/job.sh" large
fi

# ---- decoding, and what equal rows cost ----

if wants decode; then
    options=(device=cuda samples=256 kv_mb=16384 "decode=1,32,256")
    [ $rehearse = no ] || options=(device=cuda shape=toy layers=1 samples=4 length=64 kv_mb=4 copy_mb=1 prompt=20
        steps=4 rounds=2 "decode=1,4")
    part decode 60 "$BIN/bench_engine" "${options[@]}"
    for choice in fixed free; do
        if [ -e "$libraries/libtroupe_cuda_$choice.so" ] && [ $rehearse = no ]; then
            part "decode ($choice)" 60 env "TROUPE_CUDA_LIBRARY=$libraries/libtroupe_cuda_$choice.so" \
                "$BIN/bench_engine" "${options[@]}" label=$choice
        fi
    done
fi

# ---- training, beside PyTorch where it is ----

if wants train; then
    rounds=8 shapes=qwen3-0.6b:2+4+8x4096/4,qwen3-1.7b:2+4+8x4096/2,qwen3-4b:1+2+4x4096/1,qwen3-0.6b:4x8192/2
    shapes=${TRAIN_SHAPES:-$shapes}
    options=(--device cuda --rounds "$rounds")
    [ -z "${TRAIN_COMPILE:-}" ] || options+=(--compile)
    if [ $rehearse = yes ]; then
        rounds=2 shapes=toy:1+2x32,toy:1x64 options=(--device cuda --rounds 2 --layers 1)
        # shellcheck disable=SC2086
        part "train, without python3" 60 env OPTIONS=layers=1 "$root/tests/gpu/train_rows.sh" 2 ${shapes//,/ }
    fi
    if [ -z "$python" ]; then
        # shellcheck disable=SC2086
        part train 300 "$root/tests/gpu/train_rows.sh" $rounds ${shapes//,/ }
    else
        # PyTorch brings libraries of its own, and programs of the pack are told of theirs.
        [ "$bin" = "$work/bin" ] || given_path=$LD_LIBRARY_PATH
        torch=(env "LD_LIBRARY_PATH=$given_path" "$python")
        if ! "${torch[@]}" -c 'import torch, transformers; assert torch.cuda.is_available()' 2> /dev/null; then
            options+=(--no-torch)
            echo "PyTorch: skipped, as torch with CUDA or transformers is missing" | tee -a "$report"
        fi
        part train 300 "${torch[@]}" "$root/tests/bench/compare_train.py" "$BIN/bench_train" --shape "$shapes" \
            "${options[@]}"
    fi
fi

# ---- beside LLM.Q, at its settings ----

if wants llmq; then
    if [ $rehearse = no ] && [ -n "$python" ]; then
        part "train, as LLM.Q" 100 "$python" "$root/tests/bench/compare_train.py" "$BIN/bench_train" --device cuda \
            --no-torch --batches 16 --rounds 3 --shape qwen2.5-0.5b:32x1024,qwen2.5-1.5b:32x1024
    fi
    for library in libcudart.so.13 libcudnn.so.9 libnccl.so.2; do
        folder=$(found $library)
        ldconfig -p 2> /dev/null | grep -qF $library || LD_LIBRARY_PATH=${folder:+$folder:}$LD_LIBRARY_PATH
    done
    part LLM.Q 200 env "BUILD=$build" "$root/tests/gpu/llmq.sh" run
fi

finish
