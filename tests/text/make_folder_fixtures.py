#!/usr/bin/env python3
"""Writes fixtures/folders.json: files that models have beside tokenizer.json, and what transformers' AutoTokenizer makes of
such a folder: the text that its template renders and the ids of it. tokenizer.json itself is that of a fixture.
usage: make_folder_fixtures.py [FILE]
"""
import json
import os
import shutil
import sys
import tempfile

import transformers

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}]


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **flags}


def typed(content, **flags):
    return {"__type": "AddedToken", **token(content, **flags)}


def cases(ids):
    """name, base, config, other files, tools. `ids` gives the next free id of a base."""
    base = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    yield "new token in added_tokens_decoder", "qwen", {
        **base, "chat_template": CHATML + "<|new|> a<|new|>b x<plain> y",
        "added_tokens_decoder": {str(ids["qwen"]): token("<|new|>"), str(ids["qwen"] + 1): token("<plain>", special=False, lstrip=True)}}, {}, None
    yield "other flags for a known token", "qwen", {
        **base, "chat_template": CHATML + "a <|im_end|> b",
        "added_tokens_decoder": {str(ids["qwen"] - 5): token("<|im_end|>", lstrip=True, rstrip=True)}}, {}, None
    yield "new pad token", "qwen", {**base, "pad_token": "<|pad|>", "chat_template": CHATML + "{{ pad_token }}x<|pad|>"}, {}, None
    yield "additional special tokens", "qwen", {
        **base, "chat_template": CHATML + "<|eot|> <|eom|> the", "additional_special_tokens": ["<|eot|>", typed("<|eom|>", lstrip=True), "the"]}, {}, None
    yield "extra special tokens by name", "qwen", {
        **base, "chat_template": CHATML + "{{ image_token }}|{{ boi_token }}|<|img|>",
        "extra_special_tokens": {"image_token": "<|img|>", "boi_token": "<boi>"}, "additional_special_tokens": ["<|unread|>"]}, {}, None
    yield "old files", "qwen", {**base, "chat_template": CHATML + "{{ eos_token }}{{ bos_token }} <|zz|> <mask> y"}, {
        "special_tokens_map.json": {"eos_token": "<|endoftext|>", "bos_token": {"content": "<|im_start|>", "lstrip": False}, "mask_token": "<mask>"},
        "added_tokens.json": {"<|zz|>": ids["qwen"], "<mask>": ids["qwen"] + 1}}, None
    yield "old files that a complete config hides", "qwen", {
        **base, "chat_template": CHATML + "{{ eos_token }}{{ bos_token }}<|zz|>", "added_tokens_decoder": {}}, {
        "special_tokens_map.json": {"eos_token": "<|endoftext|>", "bos_token": "<|im_start|>"}, "added_tokens.json": {"<|zz|>": ids["qwen"]}}, None
    yield "a template for tools", "qwen", base, {
        "chat_template.jinja": CHATML, "additional_chat_templates/tool_use.jinja": "{{ tools | tojson }}" + CHATML,
        "additional_chat_templates/rag.jinja": "other"}, TOOLS
    yield "no tools, the other template", "qwen", base, {
        "chat_template.jinja": CHATML, "additional_chat_templates/tool_use.jinja": "{{ tools | tojson }}" + CHATML}, None
    yield "templates in the config", "qwen", {
        **base, "chat_template": [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "{{ tools | tojson }}" + CHATML}]}, {}, TOOLS
    yield "special tokens are split", "qwen", {**base, "chat_template": CHATML + "<think>", "split_special_tokens": True}, {}, None
    yield "tokens as objects", "llama2", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": typed("<s>"), "eos_token": typed("</s>", rstrip=True), "pad_token": None,
        "image_token": typed("<|user|>"), "chat_template": "{{ bos_token }} {{ image_token }}[{{ pad_token }}] a </s> b"}, {}, None
    yield "normalized new token", "flags", {
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "a \u00c9T\u00c9 e\u0301te\u0301 b",
        "added_tokens_decoder": {str(ids["flags"]): token("\u00c9t\u00e9", special=False, normalized=True)}}, {}, None


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    transformers.utils.logging.set_verbosity_error()
    ids = {}
    for base in ("qwen", "llama2", "flags"):
        with open(os.path.join(here, "fixtures", base, "tokenizer.json"), encoding="utf-8") as file:
            document = json.load(file)
        ids[base] = 1 + max([*document["model"]["vocab"].values(), *(added["id"] for added in document["added_tokens"])])
    written = []
    for name, base, config, others, tools in cases(ids):
        files = {"tokenizer_config.json": json.dumps(config, ensure_ascii=False)}
        files.update({key: text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for key, text in others.items()})
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(os.path.join(here, "fixtures", base, "tokenizer.json"), folder)
            for key, text in files.items():
                os.makedirs(os.path.dirname(os.path.join(folder, key)), exist_ok=True)
                with open(os.path.join(folder, key), "w", encoding="utf-8") as file:
                    file.write(text)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            messages = [{"role": "user", "content": "Hi you"}]
            written.append({
                "name": name, "base": base, "files": files, "messages": messages, "tools": tools,
                "text": tokenizer.apply_chat_template(messages, tools=tools, tokenize=False),
                "ids": tokenizer.apply_chat_template(messages, tools=tools, return_dict=True)["input_ids"],
                "eos": tokenizer.eos_token_id if tokenizer.eos_token is not None else -1})
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "fixtures", "folders.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in written) + "\n]\n")


if __name__ == "__main__":
    main()
