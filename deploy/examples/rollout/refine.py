#!/usr/bin/env python3
"""A rollout function in Python (docs/rollout-function.md): the model answers, is asked the question again to check its
answer, and the second answer is judged against the label.

It is started once and runs as long as the job. What it writes on standard output are messages; what is for people
belongs on standard error."""
import json
import re
import sys


def send(message):
    print(json.dumps(message), flush=True)


def receive(request_id):
    """The reply to the last message. This program has one record at a time (in_flight: 1, the default)."""
    reply = json.loads(sys.stdin.readline())
    assert reply["id"] == request_id, reply
    if reply["type"] == "cancel":
        raise InterruptedError
    if "error" in reply:
        raise RuntimeError(reply["error"])
    return reply


def generate(request, call, prompt, **options):
    """Asks for outputs; `call` names them from now on."""
    send({"id": request["id"], "type": "generate", "call": call, "prompt": prompt, **options})
    return receive(request["id"])["outputs"]


def rollout(request):
    record, count = request["record"], request["samples"]
    question = {"messages": request["messages"]}
    asked = request["messages"][-1]["content"]
    check = {"follow": [{"role": "user", "content": "Check this. " + asked}]}
    generate(request, "first", [question], samples=count)
    samples = []
    for i in range(count):
        # Outputs are named, never copied: ids and log-probs stay with the worker.
        prompt = [question, {"output": ["first", i]}, check]
        second = generate(request, f"second {i}", prompt, index=i)[0]
        numbers = re.findall(r"-?\d+(?:\.\d+)?", second["text"])
        right = bool(numbers) and numbers[-1] == str(request["label"])
        samples.append({"pieces": prompt + [{"output": [f"second {i}", 0]}], "reward": float(right),
                        "extra": {"answer": numbers[-1] if numbers else None}})
    return samples


for line in sys.stdin:
    request = json.loads(line)
    if request["type"] != "rollout":
        continue  # a cancel that came late
    try:
        send({"id": request["id"], "type": "done", "samples": rollout(request)})
    except InterruptedError:
        pass
    except Exception as trouble:  # the record cannot be used; the worker says so and goes on
        send({"id": request["id"], "type": "failed", "error": repr(trouble)})
