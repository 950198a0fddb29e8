"""Makes fixtures/shapes.jsonl: records in every shape, and the conversations that TRL and LLaMA-Factory make of them.

usage: make_shape_fixtures.py LLAMAFACTORY_SOURCE
LLAMAFACTORY_SOURCE is a folder that holds the package `llamafactory` (an unpacked wheel); of it only data/converter.py
runs. Its roles are put into words of OpenAI's form: a "function" turn, whose content is the JSON text of calls, becomes
tool_calls, and an "observation" a tool's message. Made with trl 1.16.0 and llamafactory 0.9.5.
"""

import copy
import importlib
import json
import pathlib
import sys
import types

from trl.data_utils import maybe_convert_to_chatml, maybe_extract_prompt

HERE = pathlib.Path(__file__).parent
FUNCTION = {"name": "get_weather", "description": "Weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def said(name, text):
    return {"from": name, "value": text}


# ---- TRL ----


def trl_cases():
    yield "messages", {"messages": [user("a"), assistant("b")]}
    yield "messages in parts", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, assistant("b")], "id": 7}
    yield "a list of another name", {"conversations": [user("a"), assistant("b"), user("c"), assistant("d")]}
    yield "from and value", {"conversations": [said("user", "a"), said("assistant", "b"), said("user", "é\n"), said("assistant", "")]}
    yield "from and value under messages", {"messages": [said("system", "s"), said("user", "a"), said("assistant", "b")]}
    yield "prompt and completion", {"prompt": [user("a"), assistant("b"), user("c")], "completion": [assistant("d")]}
    yield "pair behind a prompt", {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]}
    yield "pair in from and value", {"prompt": [said("user", "a")], "chosen": [said("assistant", "b")], "rejected": [said("assistant", "c")]}
    whole = [user("a"), assistant("b"), user("c")]
    yield "whole pair", {"chosen": [*whole, assistant("d")], "rejected": [*whole, assistant("e")]}
    yield "whole pair of other lengths", {"chosen": [*whole, assistant("d")], "rejected": [user("a"), assistant("x")]}
    yield "whole pair that agrees", {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("b")]}
    yield "whole pair with a system prompt", {
        "chosen": [{"role": "system", "content": "s"}, user("a"), assistant("b")],
        "rejected": [{"role": "system", "content": "s"}, user("a"), assistant("c")],
    }
    yield "whole pair beside its prompt as a text", {
        "prompt": "a", "prompt_id": "17", "score_chosen": 8.5,
        "chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")],
    }


def by_trl(record):
    """messages, rejected, number of messages that are given."""
    record = maybe_extract_prompt(maybe_convert_to_chatml(copy.deepcopy(record)))
    if "messages" in record:
        return record["messages"], None, 0
    prompt = record["prompt"]
    if "completion" in record:
        return prompt + record["completion"], None, len(prompt)
    return prompt + record["chosen"], prompt + record["rejected"], len(prompt)


# ---- LLaMA-Factory ----


def load_converters(folder):
    """converter.py without the package around it, which wants far more than it."""
    for name in ("llamafactory", "llamafactory.data", "llamafactory.extras"):
        module = types.ModuleType(name)
        module.__path__ = [str(pathlib.Path(folder, *name.split(".")))]
        sys.modules[name] = module
    for name in ("peft", "peft.utils"):  # constants of theirs are imported on the way, and not used
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__getattr__ = lambda attribute: attribute
    return importlib.import_module("llamafactory.data.converter").DATASET_CONVERTERS


def factory_cases():
    alpaca = {"instruction": "Add.", "input": "1 2", "output": "3"}
    yield "alpaca", "alpaca", alpaca
    yield "alpaca without input", "alpaca", {"instruction": "Say hi", "input": "", "output": "hi"}
    yield "alpaca whose input is absent", "alpaca", {"instruction": "Say hi", "output": "hi"}
    yield "alpaca of input alone", "alpaca", {"instruction": "", "input": "Say hi", "output": "hi"}
    yield "alpaca with history", "alpaca", {**alpaca, "system": "s", "history": [["a", "b"], ["c", "d"]]}
    yield "alpaca with an empty system prompt and history", "alpaca", {**alpaca, "system": "", "history": []}
    yield "alpaca with nulls", "alpaca", {**alpaca, "system": None, "history": None}
    yield "alpaca pair", "alpaca", {"instruction": "Add.", "input": "1 2", "chosen": "3", "rejected": "4"}
    yield "alpaca pair with history", "alpaca", {"instruction": "Add.", "history": [["a", "b"]], "system": "s", "chosen": "3", "rejected": "4"}
    talk = [said("human", "a"), said("gpt", "b"), said("human", "c"), said("gpt", "d")]
    yield "sharegpt", "sharegpt", {"conversations": talk}
    yield "sharegpt with a system prompt apart", "sharegpt", {"conversations": talk, "system": "s"}
    yield "sharegpt with a system prompt in both places", "sharegpt", {"conversations": [said("system", "own"), *talk], "system": "s"}
    call = json.dumps({"name": "get_weather", "arguments": {"city": "Oslo", "days": 1.0}})
    calls = json.dumps([{"name": "get_weather", "arguments": {"city": c}} for c in ("Oslo", "Rome")])
    tools = json.dumps([FUNCTION])
    yield "sharegpt with a call", "sharegpt", {
        "conversations": [said("human", "Weather?"), said("function_call", call), said("observation", "3"), said("gpt", "3 degrees")],
        "tools": tools,
    }
    yield "sharegpt with calls", "sharegpt", {
        "conversations": [said("human", "Weather?"), said("function_call", calls), said("observation", "[3, 20]"), said("gpt", "3 and 20")],
        "tools": json.dumps([{"type": "function", "function": FUNCTION}]),
    }
    yield "sharegpt pair", "sharegpt", {"conversations": [said("human", "a")], "chosen": said("gpt", "b"), "rejected": said("gpt", "c")}


def by_factory(converters, formatting, record):
    columns = {"system": None, "tools": None, "chosen": None, "rejected": None, "history": None, "prompt": "instruction",
               "query": "input", "response": "output", "messages": "conversations"}
    for column in ("system", "tools", "chosen", "rejected", "history"):
        columns[column] = column if column in record else None
    for column, key in (("query", "input"), ("response", "output")):
        columns[column] = key if key in record else None
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", "observation_tag": "observation",
            "function_tag": "function_call", "system_tag": "system"}
    media = {"images": None, "videos": None, "audios": None, "kto_tag": None}
    attr = types.SimpleNamespace(load_from="file", ranking="chosen" in record, **columns, **tags, **media)
    out = converters[formatting](attr, None)(copy.deepcopy(record))
    begin = [{"role": "system", "content": out["_system"]}] if out["_system"] else []
    prompt = begin + [in_openai_form(m) for m in out["_prompt"]]
    answers = [in_openai_form(m) for m in out["_response"]]
    tools = [t if "function" in t else {"type": "function", "function": t} for t in json.loads(out["_tools"])] if out["_tools"] else None
    if "chosen" in record:
        return prompt + answers[:1], prompt + answers[1:], len(prompt), tools
    return prompt + answers, None, 0, tools


def in_openai_form(message):
    if message["role"] == "function":
        calls = json.loads(message["content"])
        calls = calls if isinstance(calls, list) else [calls]
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": c} for c in calls]}
    return {"role": {"observation": "tool"}.get(message["role"], message["role"]), "content": message["content"]}


def main():
    converters = load_converters(sys.argv[1])
    rows = []
    for name, record in trl_cases():
        messages, rejected, given = by_trl(record)
        rows.append({"name": name, "record": record, "messages": messages, "rejected": rejected, "given": given, "tools": record.get("tools")})
    for name, formatting, record in factory_cases():
        messages, rejected, given, tools = by_factory(converters, formatting, record)
        rows.append({"name": name, "record": record, "messages": messages, "rejected": rejected, "given": given, "tools": tools})
    path = HERE / "fixtures" / "shapes.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(path, len(rows), "records,", path.stat().st_size, "bytes")


main()
