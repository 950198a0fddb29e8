#!/usr/bin/env python3
"""Compares tokenizer_tool with the `tokenizers` package over random tokenizers: any chain of normalizers, pre-tokenizers and
decoders, a BPE model with any flags, a post-processor, added tokens with any flags; and random text with those tokens in it.

Not part of the test suite: it needs the package. Counted are configurations: same, different (the first text that differs is
printed), refused by name by this program, and those that the package itself refuses. Texts on which the package panics do
not count, nor do configurations with two added tokens of one normalized form, between which it chooses by chance. Nor do
texts before whose first letter the normalizer puts something in the place of nothing (a Replace of "^" or "(?=\\d)"), where
they differ and bytes are spelled afterwards: the package finds no letters of the text that it could replace by their
spelling, puts it before them and leaves them too, or panics where more letters follow without a cut. Here they are spelled.
usage: fuzz_tokenizers.py --tool build/bin/tokenizer_tool [--minutes 10] [--seed 1] [--keep FOLDER] [--only NUMBER]
"""
import argparse
import collections
import json
import os
import random
import struct
import subprocess
import tempfile
import time

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import compare_tokenizers

LINES = [
    "Hello world, the quick brown fox jumps over 12 lazy dogs.\n", "dont can't I'm you're 3.14 100,000\n",
    "\u4e2d\u6587 \u6d4b\u8bd5 \u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca\n", "ABC def <a> (b) [c] {d} \t x  y\n",
    "\u00e9\u00e0\u00fc \u00df \ufb01 \u00c5 e\u0301 x\u0323\u0302 \ud55c\uad6d\uc5b4 \u1100\u1161\n", "__init__ self._x fooBar HTTPServer\n", "\u2581 \u2581\u2581 a\u2581b  \u00a0\u3000 x\n"] * 3
PATTERNS = [
    r"\p{L}+|\p{N}{1,3}|[^\s\p{L}\p{N}]+|\s+", r"\s+", r"\w+|[^\w\s]+", r" ?\p{L}+| ?\p{N}+|\s+(?!\S)|\s+", r"[A-Z][a-z]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\d{1,3}(?=(?:\d{3})*\b)", r"[\p{Han}\p{Hiragana}\p{Katakana}]+", r"x*", r"(?=\d)", r"\b", r"[^\p{L}]", r"\p{M}+", r"[[:punct:]]",
    r"(?<=a)b", r"\p{Lu}?\p{Ll}+", r"\n+", r"\P{L}", r"\S+\s?", r"[\p{P}\p{S}]", r"[0-9]", r".", r".{1,4}", r"[a-fA-F0-9]+"]
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
SCHEMES = ["first", "never", "always"]
CONTENTS = [
    "<|x|>", "<s>", " a", "the", "\u00e9", "\u00c5", "e\u0301", "\u2581q", "<0x41>", "ABC", "A b", "\ufb01", "\uac00", "a", "<|x|>y", "_", "  ",
    "\n\n", "\n", "a ", " ", "\t", "aa", "12", "The"]


class Maker:
    def __init__(self, rng):
        self.rng = rng

    def some(self, share):
        return self.rng.random() < share

    def pattern(self):
        return Regex(self.rng.choice(PATTERNS)) if self.some(0.75) else self.rng.choice([" ", ".", "\u2581", "a", "  ", "\n", "\u00e9", "'"])

    def normalizer(self, depth=0):
        rng = self.rng
        make = rng.choice([
            normalizers.NFC, normalizers.NFKC, normalizers.NFD, normalizers.NFKD, normalizers.Lowercase, normalizers.ByteLevel,
            lambda: normalizers.Prepend(rng.choice(["\u2581", " ", "x", "__"])),
            lambda: normalizers.Replace(self.pattern(), rng.choice(["", "\u2581", " ", "xx", "\u00e9"])),
            lambda: normalizers.Replace(" ", "\u2581"), lambda: normalizers.Strip(left=self.some(0.5), right=self.some(0.5)),
            lambda: normalizers.Sequence([self.normalizer(depth + 1) for _ in range(rng.randint(0, 3 - depth))])])
        return make()

    def split(self):
        return pre_tokenizers.Split(self.pattern(), self.rng.choice(BEHAVIORS), invert=self.some(0.25))

    def pre_tokenizer(self, depth=0):
        rng = self.rng
        make = rng.choice([
            self.split, self.split, lambda: pre_tokenizers.ByteLevel(add_prefix_space=self.some(0.5), use_regex=self.some(0.5)),
            lambda: pre_tokenizers.Digits(self.some(0.5)), lambda: pre_tokenizers.Punctuation(rng.choice(BEHAVIORS)),
            lambda: pre_tokenizers.Metaspace(replacement=rng.choice("\u2581_"), prepend_scheme=rng.choice(SCHEMES), split=self.some(0.6)),
            pre_tokenizers.WhitespaceSplit, lambda: pre_tokenizers.CharDelimiterSplit(rng.choice(" .\n_")),
            lambda: pre_tokenizers.Sequence([self.pre_tokenizer(depth + 1) for _ in range(rng.randint(0, 3 - depth))])])
        return make()

    def decoder(self, depth=0):
        rng = self.rng
        make = rng.choice([
            decoders.ByteLevel, decoders.ByteLevel, decoders.Fuse, decoders.ByteFallback,
            lambda: decoders.Replace(rng.choice([Regex(rng.choice(PATTERNS[:8])), "\u2581", "a"]), rng.choice([" ", "", "zz"])),
            lambda: decoders.Strip(rng.choice([" ", "a", "\u2581"]), rng.randint(0, 2), rng.randint(0, 2)),
            lambda: decoders.Metaspace(replacement="\u2581", prepend_scheme=rng.choice(SCHEMES)),
            lambda: decoders.BPEDecoder(suffix=rng.choice(["</w>", "e"])),
            lambda: decoders.Sequence([self.decoder(depth + 1) for _ in range(rng.randint(0, 3 - depth))])])
        return make()

    def post_processor(self):
        special = [("[A]", 3), ("[B]", 7)]
        return self.rng.choice([
            processors.ByteLevel(trim_offsets=True), processors.BertProcessing(("S", 5), ("C", 4)),
            processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=True, add_prefix_space=True),
            processors.TemplateProcessing(single="[A] $A:0 [B]:1 [A]", pair="$A $B", special_tokens=special),
            processors.Sequence([processors.BertProcessing(("S", 5), ("C", 4)),
                                 processors.TemplateProcessing(single="[A] $A", pair="$A $B", special_tokens=special)])])

    def tokenizer(self):
        rng, affix = self.rng, {}
        flags = {"byte_fallback": self.some(0.3), "fuse_unk": self.some(0.4), "ignore_merges": self.some(0.3)}
        if self.some(0.1):
            affix["continuing_subword_prefix"] = rng.choice(["##", "@"])
        if self.some(0.1):
            affix["end_of_word_suffix"] = rng.choice(["</w>", "_"])
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if self.some(0.5) else None, **flags, **affix))
        if self.some(0.65):
            tokenizer.normalizer = self.normalizer()
        if self.some(0.85):
            stages = [self.pre_tokenizer() for _ in range(rng.randint(1, 4))]
            if self.some(0.5):
                stages.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(stages) if len(stages) > 1 else stages[0]
        if self.some(0.85):
            tokenizer.decoder = self.decoder()
        special = ["<unk>"] + (["<0x%02X>" % byte for byte in range(256)] if flags["byte_fallback"] and self.some(0.8) else [])
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if self.some(0.5) else []
        tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(
            vocab_size=len(special) + len(alphabet) + rng.choice([80, 200, 400]), show_progress=False, special_tokens=special,
            initial_alphabet=alphabet, **affix))
        names = ["single_word", "lstrip", "rstrip", "normalized", "special"]
        tokenizer.add_tokens([AddedToken(content, **{name: self.some(0.35) for name in names})
                              for content in rng.choices(CONTENTS, k=rng.randint(0, 7))])
        if self.some(0.3):
            tokenizer.post_processor = self.post_processor()
        return tokenizer.to_str()

    def texts(self, added):
        texts = ["", "a", " ", "  a b  ", "\n", "Hello world. don't 123 4567", "    \n\n  a"]
        for _ in range(50):
            text = compare_tokenizers.random_text(self.rng, self.rng.choice((3, 10, 40, 120)))
            if self.some(0.4):
                text = self.rng.choice(LINES) + text
            if added and self.some(0.6):
                text = compare_tokenizers.strew(self.rng, text, added)
            texts.append(text)
        return texts


def chooses_by_chance(reference):
    """Whether two added tokens have one normalized form."""
    forms = collections.Counter()
    for token in reference.get_added_tokens_decoder().values():
        if token.normalized:
            forms[reference.normalizer.normalize_str(token.content) if reference.normalizer else token.content] += 1
    return any(count > 1 for count in forms.values())


def spells_twice(document, text):
    """Whether a token stands for no letter of the text, and its bytes were spelled."""
    document = dict(json.loads(document), post_processor=None)
    if "ByteLevel" not in json.dumps(document["pre_tokenizer"]):
        return False
    encoding = Tokenizer.from_str(json.dumps(document)).encode(text)
    return any(begin == end for begin, end in encoding.offsets)


def attempt(function, *args, **options):
    try:
        return function(*args, **options)
    except BaseException as error:  # a panic of the package is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return None


def run_tool(tool, path, texts, flags):
    data = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    result = subprocess.run([tool, path, "--decode", *flags], input=data, capture_output=True, timeout=120)
    if result.returncode != 0:
        return None, result.stderr.decode(errors="replace")
    out, at, found = result.stdout, 0, []
    for _ in texts:
        (count,) = struct.unpack_from("<I", out, at)
        at += 4
        if count == 0xFFFFFFFF:
            found.append((None, None))
            continue
        ids = list(struct.unpack_from("<%di" % count, out, at))
        at += 4 * count
        (length,) = struct.unpack_from("<I", out, at)
        found.append((ids, out[at + 4:at + 4 + length].decode()))
        at += 4 + length
    return found, ""


def compare(options, number, counts):
    rng = random.Random("%d %d" % (options.seed, number))
    maker = Maker(rng)
    document = attempt(maker.tokenizer)
    reference = attempt(Tokenizer.from_str, document) if document is not None else None
    if reference is None:
        return "refused by the package"
    if attempt(chooses_by_chance, reference) is not False:
        return "left out: two tokens of one form"
    special, skip = maker.some(0.5), maker.some(0.5)
    flags = ["--special"] * special + ["--skip-special"] * skip + ["--no-cache"] * maker.some(0.3)
    texts = maker.texts([token.content for token in reference.get_added_tokens_decoder().values()])
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(document)
        file.flush()
        found, message = run_tool(options.tool, file.name, texts, flags)
    if found is None:
        return "refused here: " + message.strip().split(":", 3)[-1][:70]
    for text, (ids, decoded) in zip(texts, found):
        encoding = attempt(reference.encode, text, add_special_tokens=special)
        if encoding is None:
            counts["(texts on which the package panics)"] += 1
            continue
        counts["(texts compared)"] += 1
        expected = attempt(reference.decode, encoding.ids, skip_special_tokens=skip)
        if ids == encoding.ids and (expected is None or decoded == expected):
            continue
        if ids != encoding.ids and spells_twice(document, text):
            counts["(texts of which the package spells what stands for nothing twice)"] += 1
            continue
        print("seed %d, number %d: %s of %r\n  ours   %s\n  theirs %s" % (
            (options.seed, number, "text", text, decoded, expected) if ids == encoding.ids else
            (options.seed, number, "ids", text, ids, encoding.ids)), flush=True)
        if options.keep:
            with open(os.path.join(options.keep, "%d_%d.json" % (options.seed, number)), "w", encoding="utf-8") as kept:
                kept.write(document)
        return "DIFFERENT"
    return "same"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="where tokenizers that differ are left")
    parser.add_argument("--only", type=int, help="this configuration alone")
    options = parser.parse_args()
    counts, end, number = collections.Counter(), time.time() + 60 * options.minutes, options.only or 0
    while options.only is None and time.time() < end or options.only == number:
        counts[compare(options, number, counts)] += 1
        number += 1
    for name, count in counts.most_common():
        print("%8d %s" % (count, name))


if __name__ == "__main__":
    main()
