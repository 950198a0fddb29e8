"""Ids and loss masks of the chats, here and by transformers with TRL's `_training` templates.

For every pair of a template and its training twin, over all chats. "same": ids and mask agree. "mask differs", "twin's
mask differs" (ours with the twin itself, by its own blocks) and "aligned differs" are faults. The rest is by design:
  another text   the twin renders another text than the template; the tokens that both have must agree in their mask
  control        a user's text spells control tokens, which are never control tokens here
  other form     the template cannot render the messages as they are (parts, arguments as text): adapted here
  refused        the conversation is refused here: the template drops its tool calls, or a role or content is missing
  not rendered   the twin fails
Templates that take content only as parts are given parts. The tokenizer is the given model folder's, with the control
tokens of all families added.

    python compare_masks.py BUILD/bin/conversation_tool MODEL_FOLDER TRL_TEMPLATES [-v]
"""

import collections
import difflib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

from compare_templates import NOW
from template_chats import chats

CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<start_of_turn>|<end_of_turn>|<end_of_utterance>|</?s>|\[/?[A-Z_]+\]|<\|?turn\|?>|\[gMASK\]|<sop>")
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def make_folder(model, templates, folder):
    """A model folder whose tokenizer knows the control tokens of all templates."""
    data = json.loads((model / "tokenizer.json").read_text())
    known = {t["content"] for t in data["added_tokens"]}
    next_id = 1 + max(max(t["id"] for t in data["added_tokens"]), max(data["model"]["vocab"].values()))
    found = set(TOKENS.values())
    for path in templates:
        found.update(CONTROL.findall(path.read_text()))
    for content in sorted(found - known):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        id = data["model"]["vocab"].get(content, next_id)
        data["added_tokens"].append({"id": id, "content": content, **flags})
        next_id += id == next_id
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENS))


class Ours:
    def __init__(self, program, folder, template):
        self.process = subprocess.Popen([program, folder, template], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def encode(self, variables):
        known = ("messages", "tools", "add_generation_prompt")
        request = {k: v for k, v in variables.items() if k in known}
        request["kwargs"] = {k: v for k, v in variables.items() if k not in known}
        self.process.stdin.write(json.dumps(request, ensure_ascii=False) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def theirs(tokenizer, template, variables):
    messages = variables["messages"]
    more = {k: v for k, v in variables.items() if k != "messages"}
    try:
        _compile_jinja_template(template).globals["strftime_now"] = NOW.strftime
        text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **more)
        out = tokenizer.apply_chat_template(
            messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True, **more
        )
        return text, out["input_ids"], out["assistant_masks"]
    except Exception as error:
        return f"{type(error).__name__}: {error}", None, None


def show(tokenizer, ids, mask):
    text, inside = "", 0
    for i, m in zip(ids, mask):
        if m != inside:
            text += "⟦" if m else "⟧"
            inside = m
        text += tokenizer.decode([i])
    return text + ("⟧" if inside else "")


def parted(variables):
    """The same chat with texts as lists of parts."""
    messages = []
    for message in variables["messages"]:
        content = message.get("content")
        messages.append({**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message)
    return {**variables, "messages": messages}


def takes_strings(tokenizer, template):
    """Does content given as a string come out?"""
    probe = {"messages": [{"role": "user", "content": "qXq"}, {"role": "assistant", "content": "qYq"}]}
    text = theirs(tokenizer, template, probe)[0]
    return "qXq" in text and "qYq" in text


def aligned_agree(ours, ids, mask):
    """Do the tokens that two encodings have in common carry the same mask?"""
    blocks = difflib.SequenceMatcher(None, ours["ids"], ids, autojunk=False).get_matching_blocks()
    return all(ours["mask"][b.a : b.a + b.size] == mask[b.b : b.b + b.size] for b in blocks)


def judge(tokenizer, base, twin, answer, variables):
    """What became of one chat, and ids and mask of the twin where they are compared."""
    base_text = theirs(tokenizer, base, variables)[0]
    text, ids, mask = theirs(tokenizer, twin, variables)
    if ids is None:
        return "not rendered", None
    if "ids" not in answer:
        return "refused", None
    if text != base_text:
        return "another text" if aligned_agree(answer, ids, mask) else "aligned differs", (ids, mask)
    if answer["ids"] != ids:
        return "control" if tokenizer.decode(answer["ids"]) == tokenizer.decode(ids) else "other form", None
    return "same" if answer["mask"] == mask else "mask differs", (ids, mask)


def main():
    program, model, trl = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    twins = sorted(trl.glob("*_training.jinja"))
    bases = [trl / p.name.replace("_training", "") for p in twins]
    folder = pathlib.Path(tempfile.mkdtemp())
    make_folder(model, [*twins, *bases], folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **TOKENS)
    total = collections.Counter()
    for base, twin in zip(bases, twins):
        counts = collections.Counter()
        ours, direct = Ours(program, folder, base), Ours(program, folder, twin)
        strings = takes_strings(tokenizer, base.read_text())
        for name, variables in chats().items():
            variables = variables if strings else parted(variables)
            answer, by_blocks = ours.encode(variables), direct.encode(variables)
            kind, encoded = judge(tokenizer, base.read_text(), twin.read_text(), answer, variables)
            counts[kind] += 1
            if kind in ("mask differs", "aligned differs"):
                print(f"{base.name} {name}: {kind}\n  ours   {show(tokenizer, answer['ids'], answer['mask'])!r}\n  theirs {show(tokenizer, *encoded)!r}")
            if kind == "refused" and "-v" in sys.argv:
                print(f"{base.name} {name}: {answer['error']}")
            if encoded and by_blocks.get("ids") == encoded[0] and by_blocks["mask"] != encoded[1]:
                counts["twin's mask differs"] += 1
                print(f"{twin.name} {name}: its blocks give another mask\n  ours   {show(tokenizer, encoded[0], by_blocks['mask'])!r}\n  theirs {show(tokenizer, *encoded)!r}")
        print(f"{base.name:32}", dict(counts), flush=True)
        total += counts
    faults = total["mask differs"] + total["aligned differs"] + total["twin's mask differs"]
    print(f"{len(twins)} twins, {len(chats())} chats:", dict(total), f"{faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
