#!/usr/bin/env bash
# LLM.Q (IST-DASLab/llmq), the peer in C++ and CUDA, at its own settings on the machine and in the run that measures
# ours: from scratch, sequences of 1,024, bf16 with bf16 moments. It is built where cuDNN's, NCCL's and CUDA's headers
# are, for machines with a GPU that reach no repository.
# usage: tests/gpu/llmq.sh build | run [MODEL...]     (Qwen2.5-0.5B Qwen2.5-1.5B)
#   LLMQ=file that build makes and run takes (build-gpu/llmq.tar.gz), BUILD=folder (build-gpu), SM=90 of the card
#   LLMQ_JSON=tag of nlohmann/json (v3.12.0; empty: its newest), STEPS=5 of 16 x 32 x 1,024 tokens
# run wants python3 for random tokens, and CUDA's runtime, cuBLASLt, cuDNN and NCCL where the loader finds them.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath -m "${BUILD:-build-gpu}")
file=$(realpath -m "${LLMQ:-$build/llmq.tar.gz}")

# source NAME OWNER/REPOSITORY TAG: a checkout in sources/NAME.
source_of() {
    [ -e "sources/$1" ] || git -c advice.detachedHead=false clone -q --depth 1 ${3:+--branch "$3"} \
        "https://github.com/$2.git" "sources/$1"
}

build_it() {
    local folder=$build/llmq
    mkdir -p "$folder/sources"
    cd "$folder"
    source_of llmq IST-DASLab/llmq ""
    source_of cudnn-fe NVIDIA/cudnn-frontend v1.12.0
    source_of cli11 CLIUtils/CLI11 v2.6.1
    source_of fmt fmtlib/fmt 12.0.0
    source_of json nlohmann/json "${LLMQ_JSON-v3.12.0}"
    mkdir -p sources/catch2 # for its tests alone
    echo > sources/catch2/CMakeLists.txt
    local cuda=${CUDA_HOME:-/usr/local/cuda} sources=$folder/sources
    CUDACXX=${CUDACXX:-$cuda/bin/nvcc} cmake -S sources/llmq -B build -DCMAKE_BUILD_TYPE=Release \
        "-DCMAKE_CUDA_ARCHITECTURES=${SM:-90}" -DBUILD_TESTS=OFF -DUSE_MPI=OFF -DUSE_CUFILE=OFF -DUSE_NVML=OFF \
        -DFETCHCONTENT_FULLY_DISCONNECTED=ON "-DFETCHCONTENT_SOURCE_DIR_JSON=$sources/json" \
        "-DFETCHCONTENT_SOURCE_DIR_CUDNN-FE=$sources/cudnn-fe" "-DFETCHCONTENT_SOURCE_DIR_CLI11=$sources/cli11" \
        "-DFETCHCONTENT_SOURCE_DIR_FMT=$sources/fmt" "-DFETCHCONTENT_SOURCE_DIR_CATCH2=$sources/catch2" \
        "-DCUDNN_INCLUDE_DIR=$cuda/include" "-DCUDNN_LIBRARY=$cuda/lib/libcudnn.so" \
        "-DNCCL_INCLUDE_DIR=$cuda/include" "-DNCCL_LIB_DIR=$cuda/lib" -DJSON_BuildTests=OFF \
        -DCUDNN_FRONTEND_BUILD_TESTS=OFF -DCUDNN_FRONTEND_BUILD_SAMPLES=OFF \
        -DCMAKE_CUDA20_STANDARD_COMPILE_OPTION=-std=c++20 -DCMAKE_CUDA20_EXTENSION_COMPILE_OPTION=-std=c++20
    cmake --build build --target train -j "${JOBS:-2}"
    git -C sources/llmq rev-parse HEAD > build/commit
    tar -C build -czf "$file" train libllmq-common.so commit
    echo "$file: $(($(stat -c %s "$file") >> 20)) MiB"
}

# Random tokens in its format: a header of 256 words, then the tokens.
write_tokens() { # FILE COUNT
    python3 - "$1" "$2" << 'PYTHON'
import array, random, sys
random.seed(1)
count = int(sys.argv[2])
header = array.array("i", b"BIN.TOK\n") + array.array("i", [2, 4, count, 151936] + [0] * 250)
with open(sys.argv[1], "wb") as file:
    header.tofile(file)
    array.array("i", random.choices(range(151936), k=count)).tofile(file)
PYTHON
}

# As its benchmarks/H100x1.md has it; the first step is not counted.
run_one() { # MODEL OPTION...
    local model=$1
    shift
    timeout -s KILL 120 ./train "--model=$model" --from-scratch --train-file=train.bin --eval-file=eval.bin \
        --seq-length=1024 --model-dtype=bf16 --matmul-dtype=bf16 --opt-m-dtype=bf16 --opt-v-dtype=bf16 --gpus=1 \
        --use-cuda-graphs --batch-size=32 --grad-accumulation=16 "--steps=$STEPS" --ckpt-interval=10000 \
        --eval-every-n-steps=10000 --log-gpu-util=0 "$@" > "$model.log" 2>&1 || true # steps are what counts
    sed -n 's/.*\[T\] step.*| time: *\([0-9]*\) ms .*/\1/p' "$model.log" | tail -n +2 | sort -g |
        awk -v model="$model" '{ ms[NR] = $1 } END {
            if (NR == 0) exit 1
            tokens = 16 * 32 * 1024 * 1000
            printf "| %s | 16 x 32 x 1024 | %d (%d) | %d |\n", model, tokens / ms[1], tokens / ms[int((NR + 1) / 2)], NR
        }' && return
    echo "| $model | **no step was made**: $(grep -v '^$' "$model.log" | tail -n 1 | tr '|' '/') | | |"
    return 1
}

run_it() {
    local folder=$build/llmq_run
    [ -e "$file" ] || {
        echo "skipped: no $file (tests/gpu/llmq.sh build)"
        exit 77
    }
    if ! command -v python3 > /dev/null; then
        echo "skipped: there is no python3 to make its tokens with"
        exit 77
    fi
    rm -rf "$folder"
    mkdir -p "$folder"
    tar -C "$folder" -xzf "$file"
    cd "$folder"
    export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    if ! ./train --help > help.out 2>&1; then
        echo "skipped: LLM.Q does not start here: $(tail -n 2 help.out)"
        exit 77
    fi
    STEPS=${STEPS:-5}
    write_tokens train.bin $((16 * 32 * 1024 * (STEPS + 1)))
    write_tokens eval.bin $((32 * 1024))
    echo
    echo "| LLM.Q $(cut -c1-12 commit) | documents | tokens/s, best (median) | steps |"
    echo "|---|---|---|---|"
    [ $# -gt 0 ] || set -- Qwen2.5-0.5B Qwen2.5-1.5B
    local failed=0
    for model in "$@"; do
        case $model in
        Qwen2.5-1.5B) run_one "$model" --lmhead-chunks=4 || failed=1 ;;
        *) run_one "$model" || failed=1 ;;
        esac
    done
    return $failed
}

case ${1:-} in
build) build_it ;;
run) run_it "${@:2}" ;;
-h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;;
*)
    echo "${1:+$1: }expected build or run: see tests/gpu/llmq.sh --help" >&2
    exit 2
    ;;
esac
