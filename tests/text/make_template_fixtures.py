"""Makes the fixtures of test_chat_template.c and test_conversation.c with jinja2, transformers and trl:

    python make_template_fixtures.py SHARED TINY_MODEL

writes into fixtures/ beside this file. SHARED holds data/chat_templates, data/tokenizers/qwen3 and data/gsm8k; of the
templates there only lengths and digests of what they render are kept."""

import hashlib
import json
import pathlib
import sys
import traceback

import jinja2
import trl
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

from compare_templates import NOW, TOKENS, full
from template_chats import assistant, call, chats, system, tool, user
from template_features import V, cases

HERE = pathlib.Path(__file__).parent / "fixtures"


def write(name, value):
    """JSON with one item of the outermost lists per line."""
    lines = []
    for key, items in value.items():
        if isinstance(items, list):
            body = ",\n".join(json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in items)
            lines.append(f"{json.dumps(key)}: [\n{body}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(items, ensure_ascii=False)}")
    (HERE / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def render(template, variables):
    """{"text": ...} or {"error": ..., "line": ...} as jinja2 has it."""
    try:
        compiled = _compile_jinja_template(template)
        return {"text": compiled.render(strftime_now=NOW.strftime, **variables)}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"error": error.message, "line": error.lineno}
    except SyntaxError as error:  # Python's own, about break and continue
        return {"error": error.msg}
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename in ("<template>", "<unknown>")]
        return {"error": str(error), **({"line": lines[-1]} if lines else {})}


def feature_fixture():
    items = [{"group": group, "template": template, **render(template, V)} for group, template in cases()]
    write("template_features.json", {"variables": V, "cases": items})


def render_fixture(shared):
    """[length, digest] of each chat by each shared template, or the error."""
    names = list(chats())
    items = []
    for path in sorted((shared / "data/chat_templates").glob("*.jinja")):
        results = []
        for variables in chats().values():
            result = render(path.read_text(), full(variables))
            if "text" in result:
                data = result["text"].encode()
                results.append([len(data), hashlib.sha256(data).hexdigest()[:16]])
            else:
                results.append(result["error"][:60])
        items.append({"template": path.name, "results": results})
    chat_items = [{"name": name, "variables": variables} for name, variables in chats().items()]
    assert names == [item["name"] for item in chat_items]
    write("template_renders.json", {"tokens": TOKENS, "chats": chat_items, "templates": items})


def encode(tokenizer, template, messages, **more):
    out = tokenizer.apply_chat_template(
        messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True, **more
    )
    return {"ids": out["input_ids"], "mask": "".join(map(str, out["assistant_masks"]))}


def gsm8k_fixture(shared):
    """Ids by the model's own template; the mask by TRL's twin of it, which renders the same text here."""
    folder = shared / "data/tokenizers/qwen3"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>")
    own = (folder / "chat_template.jinja").read_text()
    twin = (pathlib.Path(trl.__file__).parent / "chat_templates/qwen3_training.jinja").read_text()
    samples = []
    with open(shared / "data/gsm8k/train.jsonl") as lines:
        for _, line in zip(range(10), lines):
            messages = json.loads(line)["messages"]
            ids = tokenizer.apply_chat_template(messages, chat_template=own, return_dict=True)["input_ids"]
            sample = encode(tokenizer, twin, messages)
            assert ids == sample["ids"]
            samples.append(sample)
    write("gsm8k_qwen3.json", {"samples": samples})


CHATML_TRAINING = """
{%- for message in messages %}
    {{- "<|im_start|>" + message.role + "\\n" }}
    {%- if message.role == "assistant" %}
        {%- generation %}{{- message.content + "<|im_end|>\\n" }}{% endgeneration %}
    {%- else %}
        {{- message.content + "<|im_end|>\\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
{%- endif %}"""


def tiny_fixture(model):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
    own = (model / "chat_template.jinja").read_text()
    conversations = [
        ([user("What is 2 + 2?"), assistant("4")], {}),
        ([system("Be brief."), user("Hello"), assistant("Hi!\n\nYes?"), user("Bye"), assistant("Bye.")], {}),
        ([user("  spaces \n"), assistant("\n answer ")], {}),
        ([user("été 日本 👩‍💻"), assistant("naïve 語 🙂")], {}),
        ([user("Nothing?"), assistant("")], {}),
        ([user("First"), user("Second"), assistant("Both."), assistant("Indeed.")], {}),
        ([user("Prompt only")], {"add_generation_prompt": True}),
    ]
    items = []
    for messages, more in conversations:
        assert tokenizer.apply_chat_template(messages, chat_template=own, tokenize=False, **more) == (
            tokenizer.apply_chat_template(messages, chat_template=CHATML_TRAINING, tokenize=False, **more)
        )
        items.append({"messages": messages, **more, **encode(tokenizer, CHATML_TRAINING, messages, **more)})
    write("tiny_conversations.json", {"training_template": CHATML_TRAINING, "conversations": items})


def main():
    shared, tiny = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    HERE.mkdir(exist_ok=True)
    feature_fixture()
    render_fixture(shared)
    gsm8k_fixture(shared)
    tiny_fixture(tiny)


if __name__ == "__main__":
    main()
