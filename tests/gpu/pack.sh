#!/usr/bin/env bash
# What a machine with a GPU needs to run jobs and benchmarks without building anything there: the programs of this
# build, the shared libraries they need (but for libc's and gcc's, which every such machine has), and the CUDA library
# with the tests of its kernels for one kind of card. One file, for machines that reach no package registry.
# usage: tests/gpu/pack.sh [FILE]     (build-gpu/pack.tar.gz)
#   BIN=folder of the built programs (build/bin), BUILD=folder for what is built for the card (build-gpu),
#   SM=90 of the card, PACK_MAX_MB=56 that the file may have
# It runs where glibc and libstdc++ are as new as here, or newer (tests/gpu/run.sh says when they are not).
set -euo pipefail
case ${1:-} in
-h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
-*)
    echo "$1 is no option: see tests/gpu/pack.sh --help" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/../.."

bin=${BIN:-build/bin} build=${BUILD:-build-gpu} file=${1:-build-gpu/pack.tar.gz}
programs="controller node_agent data_source rollout_worker train_worker train_inspect data_inspect samples serve sandbox
    reward_try bench_train bench_engine make_model nccl_ranks nccl_train nccl_weights
    gpu_golden"
for_card="libtroupe_cuda.so libtroupe_cuda_fixed.so libtroupe_cuda_free.so libtroupe_cuda_tile.so libtroupe_cuda_host.so
    test_kernels test_kernel_rows op_times gemm_rows"

for program in $programs; do
    [ -x "$bin/$program" ] || {
        echo "$bin/$program is not built: ninja -C build, or name another folder in BIN" >&2
        exit 1
    }
done
cmake -S tests/gpu -B "$build" "-DCMAKE_CUDA_ARCHITECTURES=${SM:-90}-real" > /dev/null
cmake --build "$build" -j "${JOBS:-2}" > /dev/null

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/bin" "$folder/lib"
for program in $programs; do cp "$bin/$program" "$folder/bin"; done
for program in $for_card; do cp "$build/bin/$program" "$folder/bin"; done
strip --strip-unneeded "$folder"/bin/*

# The dynamic loader's own list, of all programs at once; sandboxes and agents load nothing beside.
for program in "$folder"/bin/*; do ldd "$program"; done |
    sed -n 's/^[[:space:]]*\([^ ]*\) => \(\/[^ ]*\) .*/\1 \2/p' | sort -u |
    while read -r name path; do
        case $name in
        libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | libresolv.so.* | libutil.so.* | \
            ld-linux* | libstdc++.so.* | libgcc_s.so.*) ;;
        *) cp -L "$path" "$folder/lib/$name" ;;
        esac
    done
for library in "$folder"/lib/*; do
    ! ldd "$library" | grep -q "not found" || {
        echo "$library needs what is not here: $(ldd "$library" | grep 'not found')" >&2
        exit 1
    }
done
getconf GNU_LIBC_VERSION > "$folder/made_with"

mkdir -p "$(dirname "$file")"
tar -C "$folder" --sort=name --owner=0 --group=0 -czf "$file.part" .
mv "$file.part" "$file"
size=$(($(stat -c %s "$file") >> 20))
echo "$file: $size MiB, $(find "$folder" -type f | wc -l) files, $(cat "$folder/made_with")"
[ "$size" -le "${PACK_MAX_MB:-56}" ] || {
    echo "more than ${PACK_MAX_MB:-56} MiB" >&2
    exit 1
}
