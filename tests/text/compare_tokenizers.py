#!/usr/bin/env python3
"""Compares tokenizer_tool with the `tokenizers` package over much mixed text: same ids, same decoded text, and the same
text again from a stream of single ids.

Not part of the test suite: it needs the package and takes minutes. Text: pieces of the given files and folders (messages
of .mo files give many languages), random Unicode, and both with the tokenizer's added tokens strewn in. With --train,
tokenizers of every kind of make_tokenizer_fixtures.py are trained on a part of that text and compared too. Prints the
first differences and a summary.
usage: compare_tokenizers.py --tool build/bin/tokenizer_tool [--megabytes 20] [--seed 1] [--train VOCABULARY] [--kinds a,b]
       TOKENIZER.json ... [-- TEXT ...]
"""
import argparse
import gettext
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

import tokenizers

import make_tokenizer_fixtures as kinds

BLOCKS = [  # where random characters come from: (first, last, weight)
    (0x20, 0x7E, 30), (0x09, 0x0D, 6), (0x00, 0x1F, 1), (0x80, 0x24F, 8), (0x250, 0x36F, 5), (0x370, 0x52F, 4),
    (0x590, 0x6FF, 4), (0x700, 0x8FF, 2), (0x900, 0xDFF, 4), (0xE00, 0xFFF, 2), (0x1000, 0x11FF, 3), (0x1AB0, 0x1AFF, 1),
    (0x1E00, 0x1FFF, 3), (0x2000, 0x206F, 6), (0x2070, 0x2BFF, 4), (0x2E80, 0x303F, 3), (0x3040, 0x30FF, 6),
    (0x3100, 0x33FF, 2), (0x3400, 0x4DBF, 1), (0x4E00, 0x9FFF, 12), (0xA000, 0xABFF, 2), (0xAC00, 0xD7A3, 4),
    (0xE000, 0xFAFF, 2), (0xFB00, 0xFFFD, 4), (0x10000, 0x12FFF, 3), (0x13000, 0x1CFFF, 2), (0x1D000, 0x1D7FF, 2),
    (0x1E000, 0x1EFFF, 2), (0x1F000, 0x1FAFF, 8), (0x20000, 0x323AF, 2), (0xE0000, 0xE01EF, 1), (0xF0000, 0x10FFFF, 1),
]
SNIPPETS = [
    "'s", "'T", "'re", "'VE", "'ll", "\u2019s", "'\u017f", "don't", " I'm", "\r\n", "\n\n", "  ", "\t", "\u00a0", "\u3000",
    "123", "3.14", "1234567", "\u0663\u0664", "\u00bd", "\u2460", "e\u0301", "a\u0323\u0302", "\u1100\u1161\u11a8", "\uac00\u11a8",
    "\u212b", "\ufb01", "...", "!!", "->", "=>", "==", "//", "/*", "{}", "();", "<|", "|>", "\u2581", "\u2581\u2581", "<0x41>",
    "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "iPhone", "HTTPServer", "camelCase", "ABCdef",
    "\u01c5", "\u02b0", "\u0130", "\u00df", "\u180e", "\u200b", "\u0345", "\u30ab\u3099", "\u306f\u309a",
]


def random_text(rng, size):
    out = []
    weights = [weight for _, _, weight in BLOCKS]
    while size > 0:
        kind = rng.random()
        if kind < 0.3:
            piece = rng.choice(SNIPPETS)
        elif kind < 0.5:
            piece = chr(rng.randint(97, 122)) * rng.randint(1, 3) + rng.choice(" \n\t. ")
        else:
            first, last, _ = rng.choices(BLOCKS, weights)[0]
            piece = "".join(chr(rng.randint(first, last)) for _ in range(rng.choice((1, 1, 1, 2, 5, 12))))
            piece = "".join(c for c in piece if not 0xD800 <= ord(c) <= 0xDFFF)
        out.append(piece)
        size -= len(piece)
    return "".join(out)


def read_messages(name):
    """All translations of a .mo file."""
    try:
        with open(name, "rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog
    except (OSError, UnicodeDecodeError, struct.error, ValueError, LookupError):
        return ""
    return "\n".join(value for value in catalog.values() if isinstance(value, str))


def read_files(paths):
    texts = []
    for path in paths:
        names = [path]
        if os.path.isdir(path):
            names = [os.path.join(folder, name) for folder, _, files in os.walk(path) for name in sorted(files)]
        for name in names:
            if name.endswith(".mo"):
                texts.append(read_messages(name))
                continue
            try:
                with open(name, encoding="utf-8", newline="") as file:
                    texts.append(file.read(4 << 20))
            except (UnicodeDecodeError, OSError):
                continue
    return [text for text in texts if text]


def strew(rng, text, added):
    """Puts added tokens into a text, with and without white space and letters around them."""
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(text))
        around = ["", "", " ", "  ", "\n", "\t ", "a", "\u4e2d", "_", "\u00e9", "\u3000"]
        token = rng.choice(added)
        if rng.random() < 0.15:
            token = token[:rng.randint(0, len(token))]
        if rng.random() < 0.1:
            token = token.upper()
        text = text[:at] + rng.choice(around) + token + rng.choice(around) + text[at:]
    return text


def make_texts(rng, files, added, megabytes):
    left = megabytes << 20
    while left > 0:
        if files and rng.random() < 0.75:
            text = rng.choice(files)
            size = rng.choice((30, 200, 1000, 4000, 20000))
            begin = rng.randint(0, max(0, len(text) - size))
            text = text[begin:begin + size]
        else:
            text = random_text(rng, rng.choice((3, 10, 40, 200, 2000)))
        if added and rng.random() < 0.3:
            text = strew(rng, text, added)
        left -= len(text.encode()) + 1
        yield text


def run_tool(tool, path, texts, flags):
    with tempfile.TemporaryFile() as source:
        for text in texts:
            data = text.encode()
            source.write(struct.pack("<I", len(data)) + data)
        source.seek(0)
        begin = time.time()
        out = subprocess.run([tool, path, "--decode", *flags], stdin=source, stdout=subprocess.PIPE, check=True).stdout
        seconds = time.time() - begin
    results, at = [], 0
    for _ in texts:
        (count,) = struct.unpack_from("<I", out, at)
        at += 4
        if count == 0xFFFFFFFF:
            results.append((None, None))
            continue
        ids = list(struct.unpack_from("<%di" % count, out, at))
        at += 4 * count
        (length,) = struct.unpack_from("<I", out, at)
        at += 4
        results.append((ids, out[at:at + length].decode()))
        at += length
    assert at == len(out)
    return results, seconds


def compare(tool, path, files, megabytes, seed):
    reference = tokenizers.Tokenizer.from_file(path)
    reference.no_padding()
    reference.no_truncation()
    # One fixture strips marks of every window's beginning: no window of ids has the text that they have in the whole.
    streams = not path.endswith("behaviors.json")
    added = [token.content for token in reference.get_added_tokens_decoder().values()]
    rng = random.Random(seed)
    total, differences, tokens, ours, theirs = 0, 0, 0, 0.0, 0.0
    chunk = min(megabytes, 16)
    for part in range((megabytes + chunk - 1) // chunk):
        texts = list(make_texts(rng, files, added, chunk))
        special, skip = part % 2 == 1, part % 2 == 0
        flags = ["--special"] * special + ["--skip-special"] * skip + ["--stream"] * streams
        results, seconds = run_tool(tool, path, texts, flags)
        ours += seconds
        begin = time.time()
        expected = [encoding.ids for encoding in reference.encode_batch_fast(texts, add_special_tokens=special)]
        theirs += time.time() - begin
        decoded = reference.decode_batch(expected, skip_special_tokens=skip)
        for text, (ids, back), wanted, wanted_back in zip(texts, results, expected, decoded):
            total += len(text.encode())
            tokens += len(wanted)
            if ids == wanted and back == wanted_back:
                continue
            differences += 1
            if differences <= 5:
                what = "ids" if ids != wanted else "decoded text"
                print("DIFFERENT %s\n  text %r\n  ours %r\n  want %r" % (
                    what, text[:300], (ids if ids != wanted else back)[:40], (wanted if ids != wanted else wanted_back)[:40]))
    print("%s: %d differences in %.1f MB, %d tokens (ours %.1f s with loading and decoding, package %.1f s on all cores)" %
          (path, differences, total / 1e6, tokens, ours, theirs), flush=True)
    return differences


def train(folder, size, files, wanted, seed):
    """Paths of tokenizers of all kinds, with a vocabulary of about `size`, trained on 4 MB of the text."""
    rng = random.Random(seed)
    sample = "".join(make_texts(rng, files, [], 4)).replace("\0", "")  # a vocabulary with a NUL is refused
    lines = sample.splitlines(keepends=True)
    original = kinds.train

    def larger(tokenizer, small, alphabet=None, special=()):
        trainer = kinds.trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=list(special),
                                            initial_alphabet=sorted(alphabet or []), max_token_length=24)
        tokenizer.train_from_iterator(lines, trainer)
        return tokenizer

    kinds.train = larger
    paths = []
    for name in sorted(key[5:] for key in vars(kinds) if key.startswith("make_")):
        if wanted and name not in wanted:
            continue
        path = os.path.join(folder, name + ".json")
        getattr(kinds, "make_" + name)().save(path)
        paths.append(path)
    kinds.train = original
    return paths


def main():
    arguments, files = sys.argv[1:], []
    if "--" in arguments:
        files = read_files(arguments[arguments.index("--") + 1:])
        arguments = arguments[:arguments.index("--")]
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=0, help="also train tokenizers, with about so many tokens")
    parser.add_argument("--kinds", default="", help="only train these kinds")
    parser.add_argument("tokenizer", nargs="*")
    options = parser.parse_args(arguments)
    print("tokenizers %s, %d files of text, %.0f million characters" % (
        tokenizers.__version__, len(files), sum(map(len, files)) / 1e6), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = list(options.tokenizer)
        if options.train:
            paths += train(folder, options.train, files, options.kinds.split(",") if options.kinds else [], options.seed)
        failures = sum(compare(options.tool, path, files, options.megabytes, options.seed) for path in paths)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
