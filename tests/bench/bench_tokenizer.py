#!/usr/bin/env python3
"""Runs bench_tokenizer and the `tokenizers` package in turn over the same documents, and prints one table: MB of text
per second of one core, text not seen before (each round starts with cold caches), medians of the rounds.

usage: bench_tokenizer.py BENCH_TOKENIZER TOKENIZER.json TEXT... [--rounds 5]
"""
import argparse
import os
import platform
import re
import statistics
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402


def documents(data):
    """As bench_tokenizer cuts them: 2,000 bytes, on to the end of the character."""
    at = 0
    while at < len(data):
        end = min(at + 2000, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end += 1
        yield data[at:end].decode()
        at = end


def package_speed(path, data):
    tokenizer = tokenizers.Tokenizer.from_file(path)
    texts = list(documents(data))
    begin = time.thread_time()
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    seconds = time.thread_time() - begin
    return len(data) / 1e6 / seconds, sum(len(encoding.ids) for encoding in encodings)


def our_speed(program, path, texts):
    out = subprocess.run([program, path, *texts], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.findall(r"^(\S+) +first +([\d.]+) MB/s.* tokens (\d+)$", out, re.M)
    return {name: (float(speed), int(tokens)) for name, speed, tokens in found}, out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("tokenizer")
    parser.add_argument("text", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ours = {os.path.basename(text): [] for text in options.text}
    theirs = {os.path.basename(text): [] for text in options.text}
    out = ""
    for _ in range(options.rounds):
        speeds, out = our_speed(options.program, options.tokenizer, options.text)
        for text in options.text:
            name = os.path.basename(text)
            with open(text, "rb") as file:
                speed, tokens = package_speed(options.tokenizer, file.read())
            assert tokens == speeds[name][1], (name, tokens, speeds[name])
            ours[name].append(speeds[name][0])
            theirs[name].append(speed)
    print("tokenizers %s, Python %s, %s; one core, medians of %d rounds, load %.1f" % (
        tokenizers.__version__, platform.python_version(), platform.processor() or platform.machine(), options.rounds,
        os.getloadavg()[0]))
    print("%-20s %12s %12s %8s" % ("text", "ours MB/s", "theirs MB/s", "ratio"))
    for name in ours:
        ratio = statistics.median(a / b for a, b in zip(ours[name], theirs[name]))
        print("%-20s %12.1f %12.2f %8.1f" % (
            name, statistics.median(ours[name]), statistics.median(theirs[name]), ratio))
    print("\n".join(line for line in out.splitlines() if "one word" in line or "threads" in line))


if __name__ == "__main__":
    main()
