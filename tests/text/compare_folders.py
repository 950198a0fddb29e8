#!/usr/bin/env python3
"""Compares how whole model folders load: conversation_tool against transformers' AutoTokenizer, over random folders.

A folder has the tokenizer.json of a fixture and, by chance, what else published models put beside it: added_tokens_decoder,
added_tokens.json, special_tokens_map.json, names of tokens as texts and as objects, additional and extra special tokens (a
list or an object), split_special_tokens, templates in files of their own. Its chat template prints every name and a text
full of the tokens. Compared are the text rendered and the ids. What this program refuses by name, and why, is counted; a
folder that transformers cannot load does not count. Not part of the test suite: it needs transformers.
usage: compare_folders.py --tool build/bin/conversation_tool [--count 300] [--seed 1] [--keep FOLDER]
"""
import argparse
import collections
import json
import os
import random
import subprocess
import tempfile

import transformers

FIXTURES = ["qwen", "flags", "gpt2", "llama2", "llama3", "metaspace", "deepseek"]
STANDARD = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
OWN = ["image_token", "eot_token", "boi_token", "thing_token"]
NEW = ["<|new|>", "<|pad|>", "<image>", "[X]", "<|a b|>", " lead", "word", "\u00c9t\u00e9", "  ", "<|new|>x", "\u4f60"]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}]


class Maker:
    def __init__(self, rng, tokenizer):
        self.rng, self.tokenizer = rng, tokenizer
        self.known = [token["content"] for token in tokenizer["added_tokens"]]
        self.vocab = [token for token in tokenizer["model"]["vocab"] if token.isascii() and token.isalpha()]
        self.next_id = max([*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])]) + 1

    def some(self, share):
        return self.rng.random() < share

    def content(self):
        kind = self.rng.random()
        if kind < 0.45 and self.known:
            return self.rng.choice(self.known)
        return self.rng.choice(self.vocab) if kind < 0.55 and self.vocab else self.rng.choice(NEW)

    def flags(self, content, **more):
        names = ["lstrip", "rstrip", "normalized", "single_word"]
        return {"content": content, **{name: self.some(0.3) for name in names if self.some(0.9)}, **more}

    def value(self, typed):
        content = self.content()
        if self.some(0.7):
            return content
        value = self.flags(content)
        if self.some(0.5):
            value["special"] = self.some(0.5)
        return {"__type": "AddedToken", **value} if typed else value

    def config(self):
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        for name in STANDARD:
            if self.some(0.3):
                config[name] = None if self.some(0.1) else self.value(True)
        for name in OWN[:3]:
            if self.some(0.2):
                config[name] = self.value(True)
        for name in ("additional_special_tokens", "extra_special_tokens"):
            if self.some(0.25):
                config[name] = [self.value(True) for _ in range(self.rng.randint(0, 3))]
        if self.some(0.15):
            config["extra_special_tokens"] = {name: self.value(True) for name in OWN + STANDARD[:2] if self.some(0.4)}
        if self.some(0.4):
            config["added_tokens_decoder"] = self.decoder()
        if self.some(0.1):
            config["split_special_tokens"] = self.some(0.8)
        return config

    def decoder(self):
        """Known tokens with the flags that they have or others, and new ones with the ids that follow."""
        entries = {}
        for token in self.tokenizer["added_tokens"]:
            if self.some(0.7):
                same = {key: value for key, value in token.items() if key != "id"}
                entries[str(token["id"])] = same if self.some(0.7) else self.flags(token["content"], special=self.some(0.6))
        at = self.next_id
        for content in self.rng.sample(NEW, self.rng.randint(0, 4)):
            entries[str(at)] = self.flags(content, **({"special": self.some(0.5)} if self.some(0.9) else {}))
            at += 1 if self.some(0.95) else 3
        return entries

    def added(self):
        contents = self.rng.sample(NEW, self.rng.randint(0, 3)) + self.rng.sample(self.known, min(1, len(self.known)))
        ids = {token["content"]: token["id"] for token in self.tokenizer["added_tokens"]}
        return {content: ids.get(content, self.next_id + i) for i, content in enumerate(contents)}

    def map(self):
        entries = {name: self.value(False) for name in STANDARD + OWN[:2] if self.some(0.3)}
        for name in ("additional_special_tokens", "extra_special_tokens"):
            if self.some(0.2):
                entries[name] = [self.content() for _ in range(self.rng.randint(0, 3))]
        return entries

    def template(self):
        pieces = ["{{ %s }}" % name for name in STANDARD + OWN]
        around = ["", " ", "  ", "a", "\n", "word ", "\u00e9", "_"]
        for _ in range(30):
            pieces.append(self.rng.choice(around) + self.rng.choice(self.known + NEW) + self.rng.choice(around))
        self.rng.shuffle(pieces)
        return "x" + "".join(pieces) + "{{ messages[0].content }}"


def write_folder(folder, maker):
    def write(name, text):
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    tokenizer = dict(maker.tokenizer)
    if maker.some(0.15):
        tokenizer["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                                "pad_type_id": 0, "pad_token": maker.content()}
    config = maker.config()
    if maker.some(0.5):
        write("chat_template.jinja", maker.template())
        if maker.some(0.5):
            write("additional_chat_templates/tool_use.jinja", "TOOLS" + maker.template())
        if maker.some(0.2):
            write("additional_chat_templates/%s.jinja" % maker.rng.choice(["default", "rag"]), "OTHER" + maker.template())
    elif maker.some(0.5):
        config["chat_template"] = maker.template()
    else:
        config["chat_template"] = [{"name": name, "template": name + maker.template()} for name in ("default", "tool_use")]
    write("tokenizer.json", json.dumps(tokenizer, ensure_ascii=False))
    write("tokenizer_config.json", json.dumps(config, ensure_ascii=False))
    if maker.some(0.4):
        write("special_tokens_map.json", json.dumps(maker.map(), ensure_ascii=False))
    if maker.some(0.3):
        write("added_tokens.json", json.dumps(maker.added(), ensure_ascii=False))


def expect(folder, messages, tools):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    return text, tokenizer.apply_chat_template(messages, tools=tools, return_dict=True)["input_ids"]


def run(tool, folder, messages, tools):
    request = json.dumps({"messages": messages, "tools": tools}) + "\n"
    result = subprocess.run([tool, folder], input=request, capture_output=True, text=True)
    if result.returncode != 0:
        return None, result.stderr.strip().split("\n")[0]
    answer = json.loads(result.stdout)
    return (answer["text"], answer["ids"]) if "ids" in answer else (None, answer["error"].split("\n")[0])


def reason_of(message, folder):
    for part in ("states id", "eos_token", "nothing is left"):
        if part in message:
            return part
    return "UNEXPECTED " + message.replace(folder, "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="where folders that differ are left")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    here = os.path.dirname(os.path.abspath(__file__))
    counts = collections.Counter()
    for i in range(options.count):
        rng = random.Random("%d %d" % (options.seed, i))
        with open(os.path.join(here, "fixtures", rng.choice(FIXTURES), "tokenizer.json"), encoding="utf-8") as file:
            maker = Maker(rng, json.load(file))
        with tempfile.TemporaryDirectory() as folder:
            write_folder(folder, maker)
            messages, tools = [{"role": "user", "content": "7?"}], rng.choice([None, TOOLS])
            try:
                expected = expect(folder, messages, tools)
            except Exception as error:
                counts["transformers: " + type(error).__name__] += 1
                continue
            found, why = run(options.tool, folder, messages, tools)
            if found is None:
                counts["refused: " + reason_of(why, folder)] += 1
            elif (found, why) == expected:
                counts["same"] += 1
            else:
                counts["DIFFERENT"] += 1
                print("seed %d, folder %d: text %s\n  ours %s\n  theirs %s" % (
                    options.seed, i, "same" if found == expected[0] else "differs", why[:40], expected[1][:40]))
                if options.keep:
                    os.system("cp -r %s %s/%d_%d" % (folder, options.keep, options.seed, i))
    for name, count in counts.most_common():
        print("%6d %s" % (count, name))


if __name__ == "__main__":
    main()
