"""The property of every mask: it covers exactly what an assistant writes, terminator included.

What that is follows from jinja2 alone, with no look at the mask: the rendering of the messages before, with the
generation prompt, ends where the answer begins; the rendering with the message ends where its turn does. Where both are
beginnings of the whole rendering, the trained bytes between the turns' ends must be exactly those (white space aside:
templates differ in whose a newline is). Turns whose beginning the whole does not keep (a template that drops earlier
reasoning, say) are counted as "moved"; there, what occurs once of messages' contents must be trained where it is an
assistant's and not trained otherwise. The templates whose reference trains the header, too (common/text/header_rule.c),
may train it.

    python check_masks.py BUILD/bin/conversation_tool MODEL_FOLDER FOLDER... [-v]
"""

import collections
import pathlib
import re
import sys
import tempfile

from compare_masks import Ours, make_folder, parted
from compare_templates import full, reference
from template_chats import chats

OPENER = re.compile(r"<\|[a-z_]+\|>|<｜[^｜]+｜>")  # of the next turn: the terminator where a turn has none of its own
RESPONSE = "<|tool_response>"  # Gemma 4 opens the tool's answer in the model's name; trl's twin leaves it out
HEADER_TRAINED = ("deepseekv3", "deepseek_r1_distill", "gptoss", "muse_glimmer")
REASONING = re.compile(r"(<think>|\[THINK\]|<\|START_THINKING\|>|<thought|<\|think|<\|inner_|<seed:think>|<reasoning|</think>).*\Z", re.S)


def rendered(template, variables, messages, prompt):
    ok, text = reference(template, full({**variables, "messages": messages, "add_generation_prompt": prompt}))
    return text if ok else None


def common_length(a, b):
    """Of two texts, how much they begin with alike."""
    n = 0
    for x, y in zip(a, b):
        if x != y:
            break
        n += 1
    return n


def expected_turns(template, variables, whole):
    """For each assistant message, [begin of its header, begin, end) of what it writes, in characters; None: moved."""
    messages, turns = variables["messages"], []
    question = [{"role": "user", "content": "x"}]
    headless = rendered(template, variables, question, True) == rendered(template, variables, question, False)
    for i, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        last = i + 1 == len(messages)
        before = rendered(template, variables, messages[:i], False)
        prompt = rendered(template, variables, messages[:i], True)
        after = whole if last else rendered(template, variables, messages[: i + 1], False)
        if prompt is not None and not whole.startswith(prompt):
            prompt = prompt[: common_length(prompt, whole)] if REASONING.sub("", prompt) == prompt[: common_length(prompt, whole)] else None
        elif prompt is not None:
            prompt = prompt if before is None else before + REASONING.sub("", prompt[len(before) :]) if prompt.startswith(before) else prompt
        if prompt == before and not headless:  # nothing asks for an answer here (behind another answer, say)
            prompt = None
        good = prompt is not None and after is not None and whole.startswith(after) and len(prompt) <= len(after)
        header = len(before) if before is not None and good and prompt.startswith(before) else 0
        turns.append((header, len(prompt), len(after)) if good else None)
    return turns


def trained_bytes(answer):
    marks = bytearray(len(answer["text"].encode()))
    for begin, end, mask in zip(answer["begin"], answer["end"], answer["mask"]):
        if mask:
            marks[begin:end] = b"\1" * (end - begin)
    return marks


def misplaced(messages, data, marks):
    """A content that occurs once and is trained though not an assistant's, or the other way round."""
    for message in messages:
        content = message.get("content")
        text = content.strip().encode() if isinstance(content, str) else b""
        elsewhere = sum(str(other.get("content")).count(text.decode()) for other in messages)
        if len(text) < 2 or data.count(text) != 1 or elsewhere != 1 or b"<" in text:
            continue
        at = data.index(text)
        answer = message.get("role") == "assistant"
        if any(marks[at : at + len(text)]) != answer or all(marks[at : at + len(text)]) != answer:
            return f"{text!r} is {'not ' if answer else ''}trained"
    return None


def check(template, variables, answer, may_header):
    """Kind of the result, and a description of a fault."""
    whole = answer["text"]
    marks = trained_bytes(answer)
    turns = expected_turns(template, variables, whole)
    offset = [0]
    for c in whole:
        offset.append(offset[-1] + len(c.encode()))
    wanted, free = bytearray(len(marks)), bytearray(len(marks))
    for turn in turns:
        if turn is None:
            continue
        opener = OPENER.match(whole, turn[2])
        if opener:
            free[offset[turn[2]] : offset[opener.end()]] = b"\1" * len(opener.group().encode())
        if whole.endswith(RESPONSE, 0, turn[2]):
            free[offset[turn[2]] - len(RESPONSE) : offset[turn[2]]] = b"\1" * len(RESPONSE)
        header, begin, end = (offset[n] for n in turn)
        wanted[begin:end] = b"\1" * (end - begin)
        if may_header:
            free[header:begin] = b"\1" * (begin - header)
    if not turns:
        return "no answer", "trained" if any(marks) and not variables.get("add_generation_prompt") else None
    data = whole.encode()
    if None in turns:
        return "moved", misplaced(variables["messages"], data, marks)
    for i in range(len(data)):
        if marks[i] != wanted[i] and not free[i] and data[i : i + 1].strip():
            return "exact", f"at byte {i}: {data[max(0, i - 60):i]!r} >>> {data[i:i + 60]!r} is {'' if marks[i] else 'not '}trained"
    return "exact", None


def main():
    program, model = sys.argv[1], pathlib.Path(sys.argv[2])
    paths = [p for folder in sys.argv[3:] if folder != "-v" for p in sorted(pathlib.Path(folder).glob("*.jinja"))]
    paths = [p for p in paths if "{% generation" not in p.read_text() and "{%- generation" not in p.read_text()]
    folder = pathlib.Path(tempfile.mkdtemp())
    make_folder(model, paths, folder)
    counts, faults = collections.Counter(), 0
    for path in paths:
        template = path.read_text()
        ours = Ours(program, folder, path)
        for name, variables in chats().items():
            if variables.get("add_generation_prompt"):
                continue
            answer = ours.encode(variables)
            if "ids" not in answer:
                counts["refused"] += 1
                continue
            if rendered(template, variables, variables["messages"], False) != answer["text"]:
                variables = parted(variables)
                if rendered(template, variables, variables["messages"], False) != answer["text"]:
                    counts["adapted"] += 1
                    continue
            kind, fault = check(template, variables, answer, path.stem in HEADER_TRAINED)
            counts[kind] += 1
            if fault:
                faults += 1
                print(f"{path.name} {name}: {kind}: {fault}")
    print(f"{len(paths)} templates, {len(chats())} chats:", dict(counts), f"{faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
