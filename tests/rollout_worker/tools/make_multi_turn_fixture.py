#!/usr/bin/env python3
"""Conversations with tools as transformers renders and tokenizes them with Qwen3's template and vocabulary: the
fixture qwen3_multi_turn.json that test_multi_turn.c holds the tokens between turns to.

usage: make_multi_turn_fixture.py MODEL_FOLDER OUTPUT
Needs: transformers, tokenizers.

For each conversation: what the prompt is made from, its ids, the ids of each generated turn (the turn's own text as the
whole rendering has it, with its end token), what the tools answer, and the ids of the whole conversation up to the
header of the turn after the last answer."""
import json
import sys

from transformers import AutoTokenizer

CALCULATOR = {"type": "function", "function": {
    "name": "calculator", "description": "Works out an expression.",
    "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}}}


def call(*expressions):
    return [{"type": "function", "function": {"name": "calculator", "arguments": {"expression": e}}}
            for e in expressions]


def turn(content, expressions, reasoning=None):
    message = {"role": "assistant", "content": content, "tool_calls": call(*expressions)}
    if reasoning:
        message["reasoning_content"] = reasoning
    return message


ASK = [{"role": "user", "content": "What is 17 * 23, and that plus 5?"}]
SYSTEM = [{"role": "system", "content": "Use the calculator. Répondez brièvement."}]
CASES = [
    (ASK, [(turn("", ["17 * 23"]), ["391"])], {}),
    (SYSTEM + ASK, [(turn("", ["17 * 23"], "I need the product first."), ["391"]),
                    (turn("Now the sum.", ["391 + 5"], "Then add."), ["396"])], {}),
    (ASK, [(turn("Both at once:", ["17 * 23", "17 * 23 + 5"]), ["391", "error: no such thing\n\n  as ½ 数"])], {}),
    (SYSTEM + ASK, [(turn("", ["17 * 23"]), ["391"]), (turn("", ["391 + 5"]), ["  396\n"])],
     {"enable_thinking": False}),
    (ASK + [{"role": "assistant", "content": "391 and 396."}, {"role": "user", "content": "And doubled?"}],
     [(turn("", ["391 * 2", "396 * 2"], "Two products."), ["782", "792"])], {}),
]


def main():
    folder, output = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tools, cases = [CALCULATOR], []

    def render(messages, kwargs):
        return tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False,
                                             **kwargs)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    for start, rounds, kwargs in CASES:
        messages, turns = list(start), []
        prompt = text = render(messages, kwargs)
        for message, answers in rounds:
            # What the model wrote is what stands behind the header in the rendering of the conversation up to its turn;
            # the answers follow.
            messages = messages + [message] + [{"role": "tool", "content": answer} for answer in answers]
            whole = render(messages, kwargs)
            header = "<|im_start|>assistant\n"
            begin = whole.rindex(header, 0, whole.index("<tool_response>", len(text) - len(header) - 40)) + len(header)
            end = whole.index("<|im_end|>", begin) + len("<|im_end|>")
            turns.append({"ids": ids(whole[begin:end]), "answers": answers})
            # The history is what was generated, never rendered again.
            text = text + whole[begin:end] + whole[end:]
        cases.append({"messages": start, "kwargs": kwargs, "prompt": ids(prompt), "turns": turns, "whole": ids(text)})
    with open(output, "w", encoding="utf-8") as file:
        json.dump({"tools": tools, "cases": cases}, file, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
