#!/usr/bin/env bash
# The examples of docs/rewards.md as a user runs them: a Python scorer, a shared object, several rewards, and
# what is said when a reward does not work.
set -euo pipefail
examples=$SOURCE/deploy/examples

expect() { # WHAT FILE TEXT
    grep -qF -- "$3" "$2" || { echo "$1: \"$3\" is not in:"; cat "$2"; exit 1; }
}

# A shared object, compiled as its first lines say.
cc -shared -fPIC -O2 -I "$SOURCE/rollout_worker/reward" -o brevity.so "$examples/reward_plugin/brevity.c"
printf '%s\n' '{"response": "short"}' '{"response": "much longer than that"}' |
    "$BIN/reward_try" '{"name": "plugin", "options": {"path": "./brevity.so",
                        "options": {"characters": 10}}}' >out 2>err
expect plugin out '"line": 1, "index": 0, "outcome": "ok", "score": 1,'
expect plugin out '"line": 2, "index": 0, "outcome": "wrong", "score": 0.47'
expect plugin err '1 ok, 1 wrong, 0 infra_error, 0 timeout'

# Two rewards of a file, and a group.
cat >rewards.json <<'JSON'
[{"name": "math"}, {"name": "format", "weight": 0.5, "options": {"shape": "think"}}]
JSON
printf '%s\n' '{"responses": ["<think>x</think>\\boxed{\\frac12}", "\\boxed{0.5}", "no"], "label": "0.5"}' |
    "$BIN/reward_try" rewards.json >out 2>err
expect group out '"index": 0, "outcome": "ok", "score": 1.5,'
expect group out '"index": 1, "outcome": "ok", "score": 1,'
expect group out '"index": 2, "outcome": "wrong", "score": 0,'

# What cannot be judged is said, and ends with 4; what cannot be started with 2.
status=0
printf '%s\n' '{"response": "\\boxed{1}"}' | "$BIN/reward_try" math >out 2>err || status=$?
[ $status = 4 ] || { echo "a label that is missing gave $status"; exit 1; }
expect label out '"outcome": "infra_error"'
status=0
"$BIN/reward_try" mth </dev/null >out 2>err || status=$?
[ $status = 2 ] || { echo "a wrong name gave $status"; exit 1; }
expect name err 'did you mean math?'
status=0
echo '{"respnse": ""}' | "$BIN/reward_try" math >out 2>err || status=$?
[ $status = 3 ] || { echo "a wrong record gave $status"; exit 1; }
expect record err 'line 1: expected response'
# A label that is no text is what a run makes of it.
printf '%s\n' '{"response": "#### 18", "label": 18}' | "$BIN/reward_try" gsm8k >out 2>err
expect 'number as label' out '"outcome": "ok", "score": 1,'

# Without the program that isolates, what to do stands there.
mkdir -p alone
cp "$BIN/reward_try" alone/
status=0
alone/reward_try code </dev/null >out 2>err || status=$?
[ $status = 2 ] || { echo "a missing helper gave $status"; exit 1; }
expect helper err 'alone/sandbox'
expect helper err 'ninja -C build programs'

if ! command -v python3 >/dev/null; then
    echo "no python3: the scorer in Python was not run"
    exit 0
fi
printf '%s\n' '{"response": "The answer is 7.", "label": "7"}' '{"responses": ["77", "7"], "label": "7"}' |
    "$BIN/reward_try" "{\"name\": \"process\", \"options\": {\"command\": [\"python3\",
        \"$examples/reward_process/scorer.py\"]}}" >out 2>err
expect process out '"line": 1, "index": 0, "outcome": "ok", "score": 1,'
expect process out '"extra": {"characters":16}}'
expect process out '"line": 2, "index": 0, "outcome": "wrong", "score": 0,'
expect process out '"line": 2, "index": 1, "outcome": "ok", "score": 1,'
printf '%s\n' '{"responses": ["77", "7"], "label": "7"}' |
    "$BIN/reward_try" "{\"name\": \"process\", \"options\": {\"group\": true, \"command\": [\"python3\",
        \"$examples/reward_process/scorer.py\"]}}" >out 2>err
expect 'process with groups' out '"index": 0, "outcome": "wrong", "score": 0,'
expect 'process with groups' out '"index": 1, "outcome": "ok", "score": 1,'
