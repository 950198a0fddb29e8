#!/usr/bin/env python3
"""A reward in Python: one JSON object a line in, one a line out (docs/rewards.md, "A program of yours").

Try it:
    printf '%s\n' '{"response": "The answer is 7.", "label": "7"}' |
        reward_try '{"name": "process", "options": {"command": ["python3", "scorer.py"]}}'

This one gives 1 when the label stands in the last line of the response as a word, a tenth less for each hundred
characters above two hundred, and says in `extra` how long the response was. Loading a model belongs above the loop: the
program is started once and runs as long as the job."""
import json
import re
import sys


def judge(response, label):
    last_line = response.strip().rsplit("\n", 1)[-1]
    right = re.search(rf"(?<!\w){re.escape(label)}(?!\w)", last_line) is not None
    too_long = max(0, len(response) - 200) / 1000
    return {"score": max(0.0, 1.0 - too_long) if right else 0.0, "outcome": "ok" if right else "wrong",
            "extra": {"characters": len(response)}}


for line in sys.stdin:
    request = json.loads(line)
    try:
        if "responses" in request:  # the option `group`: all responses to a prompt at once
            judged = [judge(response, request["label"]) for response in request["responses"]]
            answer = {"scores": judged}
        else:
            answer = judge(request["response"], request["label"])
    except Exception as trouble:  # not judged: the run tries again, counts, and never trains on it
        answer = {"error": repr(trouble)}
    answer["id"] = request["id"]
    print(json.dumps(answer), flush=True)
