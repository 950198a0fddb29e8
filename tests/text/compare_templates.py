"""Renders every template of the given folders over all chats, here and with jinja2 as transformers sets it up, and
reports what differs.

    python compare_templates.py BUILD/bin/template_tool FOLDER... [-v]
"""

import datetime
import json
import pathlib
import struct
import subprocess
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

from template_chats import chats

NOW = datetime.datetime(2026, 1, 1)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class Tool:
    """template_tool at the other end of a pipe."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read_int(self):
        return struct.unpack("<i", self.process.stdout.read(4))[0]

    def render(self, template, variables):
        """(rendered, text or error, spans)"""
        for text in (template, json.dumps(variables, ensure_ascii=False)):
            data = text.encode()
            self.process.stdin.write(struct.pack("<I", len(data)) + data)
        self.process.stdin.flush()
        rendered = self.process.stdout.read(1)
        if rendered == b"":
            raise RuntimeError("template_tool died")
        text = self.process.stdout.read(self.read_int())
        spans = [tuple(self.read_int() for _ in range(5)) for _ in range(self.read_int())]
        return rendered == b"\x01", text.decode(), spans


def reference(template, variables):
    """(rendered, text or error) of jinja2. Missing names are None there, as apply_chat_template passes them."""
    try:
        compiled = _compile_jinja_template(template)
        text = compiled.render(strftime_now=NOW.strftime, **variables)
        text.encode()
        return True, text
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"


def full(variables):
    """The variables as apply_chat_template passes them."""
    base = {"tools": None, "documents": None, "add_generation_prompt": False}
    return {**base, **TOKENS, **variables}


def main():
    tool = Tool(sys.argv[1])
    verbose = "-v" in sys.argv
    paths = [p for folder in sys.argv[2:] if folder != "-v" for p in sorted(pathlib.Path(folder).glob("*.jinja"))]
    counts = {"same": 0, "both fail": 0, "differ": 0}
    for path in paths:
        template = path.read_text()
        for name, variables in chats().items():
            variables = full(variables)
            ours, theirs = tool.render(template, variables), reference(template, variables)
            if ours[:2] == theirs:
                counts["same"] += 1
            elif not ours[0] and not theirs[0]:
                counts["both fail"] += 1
                reason = ours[1].split(": ", 1)[1]
                if verbose and reason not in theirs[1]:
                    print(f"{path.name} {name}:\n  ours   {ours[1]}\n  theirs {theirs[1]}")
            else:
                counts["differ"] += 1
                print(f"{path.name} {name}:\n  ours   {ours[:2]!r:.600}\n  theirs {theirs!r:.600}")
    print(f"{len(paths)} templates, {len(chats())} chats:", counts)
    return counts["differ"] > 0


if __name__ == "__main__":
    sys.exit(main())
