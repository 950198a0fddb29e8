#!/bin/bash
# Both acts of deploy/quickstart.sh by its own job files, shortened: a model learns from a careless teacher, then the
# rollout workers are swapped and it learns from its own answers. What is printed and recorded of the second: reward,
# length, divergence from the model of act one, entropy; and the reward rises.
. "$(dirname "$0")/lib.sh"
EXAMPLES=$SOURCE/deploy/examples
data=$BIN/../scratch/careless_data
sh "$EXAMPLES/careless/make_data.sh" "$data" > /dev/null

# use_job FILE RUN [SETTING ...]
use_job() {
    JOB=$EXAMPLES/careless/$1 RUN=$PWD/$2
    shift 2
    SETTINGS="--set run_dir=$RUN --set cluster.cpus=16 --set data.train=$data/train.jsonl"
    SETTINGS="$SETTINGS --set data.eval=$data/eval.jsonl --set eval.before_train=false"
    for setting in "$@"; do SETTINGS="$SETTINGS --set $setting"; done
}

# recorded NAME LOW HIGH: every step of the run has this figure, a number within these bounds.
recorded() {
    sed -n "/\"train\/loss\"/s|.*\"$1\":\([^,}]*\).*|\1|p" "$RUN/metrics.jsonl" |
        awk -v low="$2" -v high="$3" -v steps=$STEPS '
            $1 !~ /^-?[0-9.]+(e[-+]?[0-9]+)?$/ || $1 + 0 < low || $1 + 0 > high { print "found " $1; exit 1 }
            END { if (NR != steps) { print NR " of " steps " steps"; exit 1 } }' ||
        fail "$1 is not a number from $2 to $3 in every step"
}

STEPS=60
use_job sft.yaml one train.num_steps=$STEPS
run_job
recorded train/loss 0.05 10
printed=$(grep -c '^step=.* loss=[0-9.]* ' "$RUN.out")
[ "$printed" -ge 2 ] || fail "act one printed $printed losses"

# Four sums, so that a few steps show what is learnt.
head -n 4 "$data/train.jsonl" > few.jsonl
STEPS=10 folder=$RUN
use_job rl.yaml two model.path="$folder" data.train=few.jsonl train.num_steps=$STEPS train.lr=5e-4 \
    train.lr_schedule=constant rollout.n_samples_per_prompt=64 eval.interval=0
run_job
nothing_left
recorded rollout/raw_reward 0 1
recorded rollout/accuracy 0 1
recorded rollout/response_len/mean 1 16
recorded train/entropy_loss 0 5
recorded train/ref_kl 0 5
recorded train/kl_loss 0 5
recorded train/grad_norm 1e-4 100
recorded train/logprob_mismatch_count 0 0
recorded train/ratio/max 1 1
figures() { sed -n "s|.*\"$1\":\([-0-9.e]*\).*|\1|p" "$RUN/metrics.jsonl"; }
figures train/ref_kl |
    awk 'NR == 1 { first = $1 } NR > 1 && $1 > 0 { moved++ } END { exit !(first == 0 && moved == NR - 1) }' ||
    fail "the divergence does not begin at 0 and move: $(figures train/ref_kl | tr '\n' ' ')"
figures rollout/raw_reward | awk -v steps=$STEPS '
    NR <= 4 { before += $1 } NR > steps - 4 { after += $1 } END { exit !(after > before) }' ||
    fail "the reward does not rise: $(figures rollout/raw_reward | tr '\n' ' ')"

# The same figures for people, in every line that they get.
grep '^step=' "$RUN.out" > lines || fail "nothing was printed"
while read -r line; do
    for name in reward accuracy length kl entropy; do
        [[ " $line " =~ " $name="[0-9.]+(e-[0-9]+)?" " ]] || fail "no $name in: $line"
    done
done < lines
grep -q '^eval step=10/10 reward=[01]\.[0-9]* ' "$RUN.out" || fail "the evaluation was not printed"
