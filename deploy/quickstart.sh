#!/usr/bin/env bash
# From a clean clone to a trained model: installs what is missing, builds, makes a small data set, learns from it (SFT),
# and then, with other rollout workers, from its own answers (GRPO).
# usage: deploy/quickstart.sh [--new] [--set key.path=value ...]     (the settings are those of the first act)
#   --new   a new run even if the last one was interrupted (which otherwise goes on)
# Each run has its own folders, runs/quickstart-1 and -1-rl, 2, ... A second start builds and installs nothing.
set -euo pipefail
started_in=$PWD
cd "$(dirname "$0")/.."

new=no
case ${1:-} in
-h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
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

data=deploy/examples/careless
if [ ! -f $data/train.jsonl ] || [ ! -f $data/eval.jsonl ]; then $data/make_data.sh; fi

# The folder of the run that is under way stands in runs/.quickstart until it is finished.
mkdir -p runs
run=$(cat runs/.quickstart 2>/dev/null || true)
if [ $new = yes ] || [ -z "$run" ] || [ ! -d "$run" ]; then
    number=1
    while [ -e runs/quickstart-$number ] || [ -e runs/quickstart-$number-rl ]; do number=$((number + 1)); done
    run=runs/quickstart-$number
    echo "$run" >runs/.quickstart
else
    echo "going on with $run (deploy/quickstart.sh --new starts another)"
fi

program=$PWD/build/bin/controller jobs=$PWD/$data folder=$PWD/$run finished=$PWD/runs/.quickstart
cd "$started_in" # paths in --set start where the command was given

# figures NAME: the values of a figure in the metrics of a run folder, one a line.
figures() { sed -n "s|.*\"$1\":\([-0-9.e]*\).*|\1|p" "$2/metrics.jsonl"; }
share() { awk -v share="$1" 'BEGIN { printf "%.0f %%", 100 * share }'; }

echo "act one: learning from a careless teacher, two thirds of whose answers are wrong"
"$program" --config "$jobs/sft.yaml" --set "run_dir=$folder" "$@"
if [ ! -f "$folder/metrics.jsonl" ]; then exit 0; fi # run_dir was given by hand
losses=$(figures eval/loss "$folder")

echo
echo "act two: the rollout workers are swapped; the model answers, and its answers are judged"
"$program" --config "$jobs/rl.yaml" --set "model.path=$folder" --set "run_dir=$folder-rl"
rm -f "$finished"

right=$(figures eval/accuracy "$folder-rl")
divergence=$(figures train/ref_kl "$folder-rl")
model=$(ls -d "$folder-rl"/checkpoints/step_* | tail -n 1)
echo
echo "act one, evaluation loss: $(head -n 1 <<<"$losses") before, $(tail -n 1 <<<"$losses") after"
echo "act two, right answers to questions not seen in training: $(share "$(head -n 1 <<<"$right")") before," \
    "$(share "$(tail -n 1 <<<"$right")") after"
echo "act two, divergence from the model of act one: $(tail -n 1 <<<"$divergence") nats per token;" \
    "entropy: $(figures train/entropy_loss "$folder-rl" | sed -n '1p') before," \
    "$(figures train/entropy_loss "$folder-rl" | tail -n 1) after"
echo "the trained model, a Hugging Face folder: $model"
echo "every figure: metrics.jsonl in $folder and $folder-rl; your own job: README.md"
