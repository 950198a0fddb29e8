"""JSONL -> chat template -> ids and loss mask, end to end on one core: here, and with `datasets` + `transformers`.

    python tests/bench/bench_sft.py BUILD/bin/bench_sft MODEL_FOLDER CHATS.jsonl TRL_TEMPLATES [ROUNDS]

Two data sets: CHATS.jsonl (GSM8K as {"messages": ...}), and tool calls made up from its sentences: two to six tool
descriptions, calls with arguments as JSON text, the tool's answer. Three ways of theirs, each from opening the file:

    ids    streaming data set, apply_chat_template(tokenize=True) with the model's own template
    mask   the same with return_assistant_tokens_mask=True and TRL's training template, which is what gives a mask
    map    load_dataset into Arrow, then Dataset.map of the latter, as trainers do

Ours gives ids and mask. Rounds are interleaved; times are CPU time of all threads, pinned to one core; the ratio is that
of medians. Before that every record is compared: ids by the model's own template, and ids and mask by TRL's, which in
conversations with tools renders more thinking than the own one.
"""

import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time

os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")

import datasets
import jinja2
import tokenizers
import transformers
import trl

datasets.disable_progress_bars()
transformers.utils.logging.set_verbosity_error()

TOOL_CHATS = 1000
NAMES = ["get_weather", "search_orders", "convert_currency", "book_table", "find_route", "send_invoice", "list_files", "set_reminder"]
KEYS = ["city", "unit", "customer_id", "amount", "from", "to", "when", "people", "path", "note"]


def make_tool_chats(chats, path):
    """Tool-call conversations whose plain text is the sentences of `chats`; the same for every run."""
    rng = random.Random(1)
    sentences = [s for line in open(chats) for m in json.loads(line)["messages"] for s in m["content"].split(". ") if len(s) > 20]

    def say(count):
        return ". ".join(rng.choices(sentences, k=count))

    def tool(name):
        properties = {k: {"type": rng.choice(["string", "number"]), "description": say(1)} for k in rng.sample(KEYS, rng.randint(2, 5))}
        return {"type": "function", "function": {"name": name, "description": say(1), "parameters": {
            "type": "object", "properties": properties, "required": sorted(properties)[:2]}}}

    def call(tools):
        function = rng.choice(tools)["function"]
        arguments = {k: rng.choice([say(1), rng.randint(1, 10**6), rng.random()]) for k in function["parameters"]["properties"]}
        return {"type": "function", "function": {"name": function["name"], "arguments": json.dumps(arguments)}}

    with open(path, "w") as out:
        for _ in range(TOOL_CHATS):
            tools = [tool(name) for name in rng.sample(NAMES, rng.randint(2, 6))]
            messages = [{"role": "system", "content": say(2)}, {"role": "user", "content": say(2)}]
            for _ in range(rng.randint(1, 3)):
                messages.append({"role": "assistant", "content": "", "tool_calls": [call(tools)]})
                messages.append({"role": "tool", "content": json.dumps({"result": say(rng.randint(1, 4))})})
            messages.append({"role": "assistant", "content": say(rng.randint(1, 6))})
            # Arrow wants one type per column: text for what differs from record to record.
            out.write(json.dumps({"messages": messages, "tools": json.dumps(tools)}) + "\n")


class Theirs:
    def __init__(self, model, templates):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.training_path = pathlib.Path(templates) / "qwen3_training.jinja"
        self.training = self.training_path.read_text()

    def encode(self, example, mask):
        tools = example.get("tools")
        messages = [{k: v for k, v in m.items() if v is not None} for m in example["messages"]]
        template = {"chat_template": self.training, "return_assistant_tokens_mask": True} if mask else {}
        return self.tokenizer.apply_chat_template(messages, tools=json.loads(tools) if tools else None, tokenize=True, return_dict=True, **template)

    def stream(self, path, mask):
        for example in datasets.load_dataset("json", data_files=str(path), split="train", streaming=True):
            yield self.encode(example, mask)

    def ids(self, path):
        return sum(1 for _ in self.stream(path, False))

    def mask(self, path):
        return sum(1 for _ in self.stream(path, True))

    def map(self, path):
        with tempfile.TemporaryDirectory() as cache:
            loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
            return len(loaded.map(lambda example: self.encode(example, True), remove_columns=loaded.column_names))


class Ours:
    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def time(self, path):
        """CPU seconds, samples, tokens."""
        self.ask(f"time {path}")
        seconds, samples, tokens = self.process.stdout.readline().split()
        return float(seconds), int(samples), int(tokens)

    def rows(self, path, count):
        self.ask(f"dump {path}")
        for _ in range(count):
            ids, _, mask = self.process.stdout.readline().rstrip("\n").partition("\t")
            yield ids, mask


def compare(ours, ours_training, theirs, path, count):
    """How many records have the same ids by the own template, and the same ids and mask by TRL's."""
    same_ids = same_masks = 0
    for theirs_plain, (ids, _) in zip(theirs.stream(path, False), ours.rows(path, count)):
        same_ids += " ".join(map(str, theirs_plain["input_ids"])) == ids
    for theirs_masked, (ids, mask) in zip(theirs.stream(path, True), ours_training.rows(path, count)):
        masked = "".join(map(str, theirs_masked["assistant_masks"]))
        same_masks += " ".join(map(str, theirs_masked["input_ids"])) == ids and masked == mask
    return same_ids, same_masks


def bench(name, path, ours, ours_training, theirs, rounds):
    count = sum(1 for _ in open(path))
    same_ids, same_masks = compare(ours, ours_training, theirs, path, count)
    ways = ["ids", "mask", "map"]
    times = {way: [] for way in ["ours", *ways]}
    for _ in range(rounds):
        for way in ways:
            begin = time.process_time()
            assert getattr(theirs, way)(path) == count
            times[way].append(time.process_time() - begin)
            seconds, samples, tokens = ours.time(path)
            assert samples == count
            times["ours"].append(seconds)
    mine = statistics.median(times["ours"])
    size = os.path.getsize(path)
    print(f"{name}: {count} records, {size / 1e6:.1f} MB, {tokens} tokens; ids equal in {same_ids}, masks in {same_masks}")
    print(f"  {'here':8} {1e6 * mine / count:9.1f} us a sample {size / mine / 1e6:8.1f} MB/s {tokens / mine / 1e6:7.2f} Mtoken/s")
    for way in ways:
        median = statistics.median(times[way])
        print(f"  {way:8} {1e6 * median / count:9.1f} us a sample   {median / mine:6.1f} x")


def main():
    program, model, chats, templates = sys.argv[1:5]
    rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 3
    print(f"datasets {datasets.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, "
          f"jinja2 {jinja2.__version__}, trl {trl.__version__}, Python {platform.python_version()}")
    theirs = Theirs(model, templates)
    ours, ours_training = Ours(program, model), Ours(program, model, theirs.training_path)
    with tempfile.TemporaryDirectory() as folder:
        tool_chats = pathlib.Path(folder) / "tool_chats.jsonl"
        make_tool_chats(chats, tool_chats)
        bench("GSM8K", pathlib.Path(chats), ours, ours_training, theirs, rounds)
        bench("tool calls", tool_chats, ours, ours_training, theirs, rounds)


if __name__ == "__main__":
    main()
