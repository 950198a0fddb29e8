"""Makes fixtures/odd.jsonl: odd conversations that are trained all the same, and what `transformers` makes of them:
token ids, and which of them carry loss.

The first line holds the template; the mask is that of its twin with {% generation %} around an assistant's turn.
usage: make_odd_fixtures.py
"""

import json
import pathlib

from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
TINY = HERE.parent.parent / "deploy" / "examples" / "tiny" / "model"

TWIN = """{%- for message in messages %}
    {{- "<|im_start|>" + message.role + "\\n" }}
    {%- if message.role == "assistant" and message.get("step_loss_mask", 1) == 1 and message.get("weight", 1) == 1 %}
        {%- generation %}
        {%- if message.content %}{{- message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- set arguments = call.function.arguments %}
            {{- "[" + call.function.name + " " + (arguments if arguments is string else arguments | tojson) + "]" }}
        {%- endfor %}
        {{- "<|im_end|>\\n" }}
        {%- endgeneration %}
    {%- else %}
        {%- if message.content %}{{- message.content }}{%- endif %}
        {{- "<|im_end|>\\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{%- endif %}"""
TEMPLATE = TWIN.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(arguments):
    return {"type": "function", "function": {"name": "f", "arguments": arguments}}


def chats():
    yield [user("a"), assistant("")]
    yield [user("a"), assistant(" \n\t")]
    yield [user("a"), assistant("b"), user("c"), assistant("")]
    yield [user(""), assistant("b")]
    yield [user("a"), assistant(None, tool_calls=[call({"x": 1})])]
    yield [user("a"), assistant("", tool_calls=[call({"x": 1}), call({})])]
    yield [user("a"), assistant("b", tool_calls=[])]
    yield [user("a"), assistant("b", tool_calls=None)]
    yield [user("a"), assistant("", tool_calls=[call('{"x": ')])]
    yield [user("a"), assistant("", tool_calls=[call("not JSON \u00e9")])]
    yield [user("a", id=7, timestamp="2024-01-01", extra={"deep": [1, {"x": None}]}), assistant("b", score=0.5, name="bot")]
    yield [user("a", name="Ada"), assistant("b")]
    yield [user("a"), user("again"), assistant("b"), assistant("c")]
    yield [assistant("I begin."), user("a"), assistant("b")]
    yield [{"role": "system", "content": "s"}, user("a"), assistant("b"), {"role": "system", "content": "t"}, assistant("c")]
    yield [user("a"), assistant("b"), user("c")]
    yield [user("a"), assistant("b", step_loss_mask=0), user("c"), assistant("d", step_loss_mask=1)]
    yield [user("a", step_loss_mask=0), assistant("b")]
    yield [user("a"), assistant("b", weight=0), user("c"), assistant("d", weight=1)]
    yield [user("a"), assistant("b", step_loss_mask=False), user("c"), assistant("d", step_loss_mask=True)]


def encode(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False)
    assert text == tokenizer.apply_chat_template(messages, chat_template=TWIN, tokenize=False), text
    out = tokenizer.apply_chat_template(messages, chat_template=TWIN, tokenize=True, return_dict=True,
                                        return_assistant_tokens_mask=True)
    return {"messages": messages, "ids": out["input_ids"], "mask": "".join(map(str, out["assistant_masks"]))}


def main():
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    rows = [{"template": TEMPLATE}] + [encode(tokenizer, messages) for messages in chats()]
    path = HERE / "fixtures" / "odd.jsonl"
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    print(path, len(rows) - 1, path.stat().st_size)


main()
