#!/usr/bin/env bash
# From a clean clone to a trained model: installs what is missing, builds, makes a small data set, trains on it.
# usage: deploy/quickstart.sh [--new] [--set key.path=value ...]
#   --new   a new run even if the last one was interrupted (which otherwise goes on)
# Each run has its own folder, runs/quickstart-1, -2, ... A second start builds and installs nothing.
set -euo pipefail
started_in=$PWD
cd "$(dirname "$0")/.."

new=no
case ${1:-} in
-h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
--new)
    new=yes
    shift
    ;;
esac

deploy/setup.sh

if [ ! -f build/build.ninja ]; then
    echo "building in build/ (a minute or two)"
    launcher=()
    if command -v ccache >/dev/null; then launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache); fi
    mkdir -p build
    cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release "${launcher[@]}" >build/configure.log 2>&1 ||
        { cat build/configure.log && exit 1; }
fi
deploy/build.sh build programs

data=deploy/examples/tiny
if [ ! -f $data/train.jsonl ] || [ ! -f $data/eval.jsonl ]; then $data/make_data.sh; fi

# The folder of the run that is under way stands in runs/.quickstart until it is finished.
mkdir -p runs
run=$(cat runs/.quickstart 2>/dev/null || true)
if [ $new = yes ] || [ -z "$run" ] || [ ! -d "$run" ]; then
    number=1
    while [ -e runs/quickstart-$number ]; do number=$((number + 1)); done
    run=runs/quickstart-$number
    echo "$run" >runs/.quickstart
else
    echo "going on with $run (deploy/quickstart.sh --new starts another)"
fi

program=$PWD/build/bin/controller job=$PWD/deploy/examples/tiny.yaml folder=$PWD/$run finished=$PWD/runs/.quickstart
cd "$started_in" # paths in --set start where the command was given
code=0
"$program" --config "$job" --set "run_dir=$folder" "$@" || code=$?
if [ $code != 0 ]; then exit $code; fi
rm -f "$finished"

# From the run's own figures: the evaluations before and after, and where the trained model lies.
if [ ! -f "$folder/metrics.jsonl" ]; then exit 0; fi # run_dir was given by hand
losses=$(sed -n 's|.*"eval/loss":\([0-9.]*\).*|\1|p' "$folder/metrics.jsonl")
model=$(ls -d "$folder"/checkpoints/step_* | tail -n 1)
echo
echo "evaluation loss: $(head -n 1 <<<"$losses") before, $(tail -n 1 <<<"$losses") after"
echo "the trained model, a Hugging Face folder: $model"
echo "every figure: $folder/metrics.jsonl; your own job: README.md"
