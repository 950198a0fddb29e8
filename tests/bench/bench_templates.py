"""CPU time of rendering chats with published templates, here and with jinja2, in one run:

    PYTHONPATH=tests/text python tests/bench/bench_templates.py BUILD/bin/template_tool FOLDER...

Every chat that a template renders is rendered 300 times here and 60 times by jinja2 (compiled before), best of three.
One line per template: time of all its chats, and the ratio; then the median and the ratio of the sums."""

import json
import pathlib
import platform
import statistics
import struct
import subprocess
import sys
import time

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

from compare_templates import NOW, full, reference
from template_chats import chats

TIMES_HERE, TIMES_JINJA, ROUNDS = 300, 60, 3


def time_here(tool, template, variables):
    """Microseconds per rendering of each of the variables."""
    data = b""
    for each in variables:
        for text in (template, json.dumps(each, ensure_ascii=False)):
            data += struct.pack("<I", len(text.encode())) + text.encode()
    best = None
    for _ in range(ROUNDS):
        run = subprocess.run([tool, str(TIMES_HERE)], input=data, capture_output=True, check=True)
        times = [float(line.split()[0]) for line in run.stderr.decode().splitlines()]
        best = times if best is None else [min(pair) for pair in zip(best, times)]
    return sum(best)


def time_jinja(template, variables):
    compiled = _compile_jinja_template(template)
    total = 0
    for each in variables:
        best = float("inf")
        for _ in range(ROUNDS):
            begin = time.process_time()
            for _ in range(TIMES_JINJA):
                compiled.render(strftime_now=NOW.strftime, **each)
            best = min(best, (time.process_time() - begin) / TIMES_JINJA)
        total += best * 1e6
    return total


def main():
    tool = sys.argv[1]
    rows = []
    for folder in sys.argv[2:]:
        for path in sorted(pathlib.Path(folder).glob("*.jinja")):
            template = path.read_text()
            variables = [full(v) for v in chats().values() if reference(template, full(v))[0]]
            if variables:
                rows.append((path.name, len(variables), time_jinja(template, variables), time_here(tool, template, variables)))
    print(f"jinja2 {jinja2.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}")
    print(f"{'template':56} chats  jinja2 us    here us   ratio")
    for name, count, theirs, ours in rows:
        print(f"{name:56} {count:5} {theirs:10.1f} {ours:10.2f} {theirs / ours:7.1f}")
    theirs, ours = sum(r[2] for r in rows), sum(r[3] for r in rows)
    median = statistics.median(r[2] / r[3] for r in rows)
    print(f"{'all':56} {sum(r[1] for r in rows):5} {theirs:10.1f} {ours:10.2f} {theirs / ours:7.1f}   median {median:.1f}")


if __name__ == "__main__":
    main()
