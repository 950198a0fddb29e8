"""Ids and loss masks of the chats, here and by transformers with TRL's `_training` templates.

For every pair of a template and its training twin: where both render the same text, ids and mask must agree. The
tokenizer is the given model folder's, with the control tokens of all families added.

    python compare_masks.py BUILD/bin/conversation_tool MODEL_FOLDER TRL_TEMPLATES [-v]
"""

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

CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<start_of_turn>|<end_of_turn>|<end_of_utterance>|</?s>|\[/?INST\]|<\|?turn\|?>|\[gMASK\]|<sop>")
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


def main():
    program, model, trl = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    twins = sorted(trl.glob("*_training.jinja"))
    bases = [trl / p.name.replace("_training", "") for p in twins]
    folder = pathlib.Path(tempfile.mkdtemp())
    make_folder(model, [*twins, *bases], folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **TOKENS)
    for base, twin in zip(bases, twins):
        counts = {"same": 0, "ids differ": 0, "mask differs": 0, "another text": 0, "error": 0}
        shown = 0
        ours, direct = Ours(program, folder, base), Ours(program, folder, twin)
        for name, variables in chats().items():
            base_text = theirs(tokenizer, base.read_text(), variables)[0]
            text, ids, mask = theirs(tokenizer, twin.read_text(), variables)
            answer, answer_twin = ours.encode(variables), direct.encode(variables)
            if ids is not None and "ids" in answer_twin:
                if answer_twin["ids"] == ids and answer_twin["mask"] != mask:
                    print(f"{twin.name} {name}: its own blocks give another mask\n  ours   {show(tokenizer, ids, answer_twin['mask'])!r}\n  theirs {show(tokenizer, ids, mask)!r}")
            if ids is None or "ids" not in answer:
                counts["error"] += 1
                if ids is not None and "-v" in sys.argv:
                    print(f"{base.name} {name}: {answer}")
            elif text != base_text:
                counts["another text"] += 1
                if len(ids) > len(answer["ids"]) and ids[: len(answer["ids"])] == answer["ids"]:
                    same = mask[: len(answer["ids"])] == answer["mask"]
                    counts["longer, same" if same else "longer, differs"] = counts.get("longer, same" if same else "longer, differs", 0) + 1
            elif answer["ids"] != ids:
                counts["ids differ"] += 1
                if "-v" in sys.argv:
                    print(f"{base.name} {name}: ids differ")
            elif answer["mask"] != mask:
                counts["mask differs"] += 1
                shown += 1
                if "-v" in sys.argv and shown <= 2:
                    print(f"{base.name} {name}:\n  ours   {show(tokenizer, ids, answer['mask'])!r}\n  theirs {show(tokenizer, ids, mask)!r}")
            else:
                counts["same"] += 1
        print(f"{base.name:32}", counts)


if __name__ == "__main__":
    main()
