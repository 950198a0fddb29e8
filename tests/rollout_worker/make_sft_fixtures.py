"""Makes fixtures/chats.jsonl and what `transformers` makes of them, and of the first ten GSM8K records with Qwen3's
tokenizer and template: token ids, and which tokens carry loss.

The mask is that of a twin of each template with {% generation %} around all of an assistant's turn but its header, as
trl's training templates have it; the twin is checked to render the same text. usage: make_sft_fixtures.py SHARED_DATA_FOLDER
"""
import json
import pathlib
import sys

from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
TINY = HERE.parent.parent / "deploy" / "examples" / "tiny" / "model"

TINY_TWIN = """{%- for message in messages %}
    {{- "<|im_start|>" + message.role + "\\n" }}
    {%- if message.role == "assistant" and message.step_loss_mask != 0 %}
        {%- generation %}{{- message.content + "<|im_end|>\\n" }}{%- endgeneration %}
    {%- else %}
        {{- message.content + "<|im_end|>\\n" }}
    {%- endif %}
{%- endfor %}"""


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def chats():
    yield [user("What is 2 + 2?"), assistant("2 + 2 = 4")]
    yield [{"role": "system", "content": "Answer briefly."}, user("Ada has 3 apples and gets 4. How many?"), assistant("7")]
    yield [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")]
    yield [user("a"), assistant("wrong", step_loss_mask=0), user("again"), assistant("right", step_loss_mask=1)]
    yield [user("lines\n\nand\ttabs  "), assistant("  kept \n as they are\n\n")]
    yield [user("caf\u00e9 e\u0301 \u4f60\u597d \U0001f600 \u0645\u0631\u062d\u0628\u0627"), assistant("\u00fcber \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2260 1e9")]
    yield [user(""), assistant("empty question")]
    yield [user("empty answer"), assistant("")]
    yield [user("trailing user turn"), assistant("yes"), user("and then?")]
    yield [user("it's we'll I'D 12345 x=1.5;"), assistant("don't; (a[0] + b{1}) == \"c\" \\ 'd' /e/")]
    yield [user("long " * 300), assistant("short")]
    yield [user("short"), assistant("count 1 2 3 " * 60)]


def encode(tokenizer, messages, template, twin):
    """ids of the template and the mask of its twin, which must render the same text."""
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    assert text == tokenizer.apply_chat_template(messages, chat_template=twin, tokenize=False), text
    out = tokenizer.apply_chat_template(messages, chat_template=twin, tokenize=True, return_dict=True,
                                        return_assistant_tokens_mask=True)
    assert out["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    return {"ids": out["input_ids"], "mask": "".join(map(str, out["assistant_masks"]))}


def write(name, rows):
    path = HERE / "fixtures" / name
    with open(path, "w") as out:
        for row in rows:
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size)


def qwen3_twin(template):
    """The last turn of an assistant with all but its header as the generation; enough for GSM8K."""
    head = "{{- '<|im_start|>' + message.role + '\\n<think>\\n'"
    tail = "        {{- '<|im_end|>\\n' }}\n    {%- elif message.role == \"tool\" %}"
    assert template.count(head) == 1 and template.count(tail) == 1
    twin = template.replace(head, "{{- '<|im_start|>' + message.role + '\\n' }}{%- generation %}{{- '<think>\\n'")
    # the block has to end where it began: in the branch of that turn
    end = "content.lstrip('\\n') }}"
    at = twin.index(end, twin.index("generation")) + len(end)
    twin = twin[:at] + "{{- '<|im_end|>\\n' }}{%- endgeneration %}" + twin[at:]
    return twin.replace(tail, "    {%- elif message.role == \"tool\" %}")


def main():
    shared = pathlib.Path(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    template = (TINY / "chat_template.jinja").read_text()
    records = [{"messages": messages} for messages in chats()]
    write("chats.jsonl", records)
    write("chats_expected.jsonl", [encode(tokenizer, r["messages"], template, TINY_TWIN) for r in records])

    tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers" / "qwen3")
    template = (shared / "tokenizers" / "qwen3" / "chat_template.jinja").read_text()
    lines = (shared / "gsm8k" / "train.jsonl").read_text().splitlines()[:10]
    records = [json.loads(line) for line in lines]
    write("gsm8k_qwen3_expected.jsonl",
          [encode(tokenizer, r["messages"], template, qwen3_twin(template)) for r in records])


main()
