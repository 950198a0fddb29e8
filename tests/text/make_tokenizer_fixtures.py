#!/usr/bin/env python3
"""Makes tests/text/fixtures/NAME/{tokenizer.json,expected.json}: small tokenizers of every kind that published models
use, trained here with the `tokenizers` package, and the ids and decoded texts that the package gives for some texts.

A case without "decoded" decodes to its text; one without "without_special" decodes to the same with skip_special_tokens.
usage: make_tokenizer_fixtures.py [FOLDER]
"""
import itertools
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
]
TRAINING = """The quick brown fox jumps over the lazy dog. It's what they've said, isn't it? We'll see; I'd say I'm sure.
She sells 12 apples for 345 dollars, then 6789 more. How many apples does she have left? 3.14 is not 22/7.
def main(argc, argv):\n    for i in range(10):\n        print("value = %d" % i)  # a comment\n    return 0\n
int add(int a, int b) { return a + b; } // camelCase HTTPServer snake_case ABCdef iPhone
\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u73a9\u3002\u5c0f\u660e\u6709\u5341\u4e8c\u4e2a\u82f9\u679c\uff0c\u4ed6\u7ed9\u4e86\u5c0f\u7ea2\u4e09\u4e2a\u3002\u4eca\u5929\u6211\u4eec\u53bb\u5b66\u6821\u3002
\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! Caf\u00e9 na\u00efve \u00fcber stra\u00dfe. \u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002 \uc548\ub155\ud558\uc138\uc694
""" * 6
TEXTS = [
    "", " ", "  ", "a", "Hello world", " Hello  world ", "It's what they've said, ISN'T it? We'LL see", "don\u2019t 'S 'T 'Re",
    "x'\u017f y'\u212a", "12 345 6789 1234567890 3.14", "\u0661\u0662\u0663\u0664 \u00bd \u2167 \u00b2", "camelCase HTTPServer ABCdef iPhone \u01c5ungla",
    "\n", "\r\n\r\n", "a\n\n b\n   c\n", "  \n  \n\t x", "trailing   ", "tab\tand\u00a0nbsp\u3000wide", "\u180e \u200b \u0085\u2028x",
    "def f(x):\n    return x**2  # square\n", "if (a != b) { c[i] -> d; } /* !!! */ ...", "http://example.com/a?b=c&d=%20#e",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u73a9\u3002", "\u6df7\u5408mixed\u6587\u672c123\u548cABC", "\u30ab\u30bf\u30ab\u30ca\u3068\u3072\u3089\u304c\u306a\u3001\u6f22\u5b57",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u1100\u1161\u11a8 \uac00\u11a8 \u1112\u1161\u11ab", "e\u0301 a\u0323\u0302 a\u0302\u0323 \u212b \u212a \u1e9b\u0323", "q\u0307\u0323 \u0344 \u0958 \u2adc",
    "\ufb01ne \ufb04 \u2460 \uff21\uff22\uff23 \u00bd \u33a5 \u2026", "\U0001f600 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u00dcBER STRASSE \u0130stanbul",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u2581\u2581already \u2581marked", "<0x41><0x0A> <unk>", "\U00031350\U0002ebf0\ua7cb \U0001e5f3", "\ue000\uffff\U0010ffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ababababababababbabababaab" * 8, "\u4eca\u5929" * 60, "=" * 90, " " * 70 + "x", "\t\t\t\n\n\n   \n", "'", "''s", "!'s", " 's", "\r", "a\rb", "\u00ad\ufeffx",
]


def bytes_only(**options):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, **options)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior=behavior, invert=invert)


def train(tokenizer, size, alphabet=None, special=()):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=list(special),
                                  initial_alphabet=sorted(alphabet or []))
    tokenizer.train_from_iterator(TRAINING.splitlines(keepends=True), trainer)
    return tokenizer


def byte_level(stages, size, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(stages) if len(stages) > 1 else stages[0]
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, size, pre_tokenizers.ByteLevel.alphabet())


def every_flag():
    """32 added tokens: one for every combination of flags. Letters outside, so that single_word has something to see."""
    names = ["single_word", "lstrip", "rstrip", "normalized", "special"]
    for i, flags in enumerate(itertools.product([False, True], repeat=5)):
        yield AddedToken("Q%02dq" % i, **dict(zip(names, flags)))


def make_qwen():
    tokenizer = byte_level([split(QWEN), bytes_only()], 560, normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False),
                          AddedToken("e\u0301x", normalized=True), AddedToken("o\u0308", normalized=False)])
    return tokenizer


def make_flags():
    tokenizer = byte_level([split(QWEN), bytes_only()], 300, normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]))
    tokenizer.add_tokens(list(every_flag()))
    tokenizer.add_tokens([AddedToken("Q00q Q01q", normalized=False), AddedToken("  ", rstrip=True, normalized=False), AddedToken("Q", single_word=True)])
    return tokenizer


def make_gpt2():
    tokenizer = byte_level([pre_tokenizers.ByteLevel(add_prefix_space=True)], 450)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 451), ("<s>", 450))
    tokenizer.add_special_tokens(["<s>", "</s>", AddedToken("<mask>", lstrip=True)])
    return tokenizer


def make_llama3():
    tokenizer = byte_level([split(LLAMA3), bytes_only()], 500)
    document = json.loads(tokenizer.to_str())
    vocab = document["model"]["vocab"]
    for word in ("\u0120apples", "dollars", "Hello", "\u0120world", "\u0120jumps\u0120over"):  # no merge leads to them
        vocab.setdefault(word, len(vocab))
    document["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="$A $B", special_tokens=[("<|begin_of_text|>", bos)])])
    return tokenizer


def make_llama2():
    byte_tokens = ["<0x%02X>" % byte for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    train(tokenizer, 620, special=["<unk>", "<s>", "</s>"] + byte_tokens)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens([AddedToken("<|user|>", rstrip=True), AddedToken("<|end|>", rstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def make_metaspace():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="first")
    train(tokenizer, 300, special=["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def make_gemma():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return train(tokenizer, 300, special=["<unk>", "<bos>", "<eos>"])


def make_deepseek():
    tokenizer = byte_level([split(pattern) for pattern in DEEPSEEK] + [bytes_only()], 500, normalizers.Sequence([]))
    tokenizer.add_special_tokens(["<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>"])
    tokenizer.add_tokens([AddedToken("\u00a0\u00a0", normalized=False), AddedToken("\u2581pad", normalized=True)])
    return tokenizer


def make_tekken():
    return byte_level([split(TEKKEN), bytes_only()], 450)


def make_o200k():
    return byte_level([split(O200K), bytes_only()], 450)


def make_falcon():
    return byte_level([pre_tokenizers.Punctuation(behavior="contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
                       pre_tokenizers.Digits(individual_digits=False), split("[0-9][0-9][0-9]")], 450)


def make_behaviors():
    """Stages and steps that the others lack."""
    stages = [pre_tokenizers.Split(".", "removed"), split(r"\d", "merged_with_previous"), split(r"[A-Z]", "merged_with_next"),
              split(r"[\p{Han}&&[^\u4eca]]", "contiguous"), split(r"[^x-z]+", "isolated", invert=True),
              pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation(), bytes_only()]
    normalizer = normalizers.Sequence([
        normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(left=True, right=True),
        normalizers.Replace(Regex(r"\s{2,}|\bfox\b"), " "), normalizers.Replace("dog", "cat"), normalizers.Prepend("_")])
    tokenizer = byte_level(stages, 400, normalizer)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("_", "-"), decoders.Strip("-", 2, 0)])
    return tokenizer


def make_affixes():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False, special_tokens=["<unk>"],
                                  continuing_subword_prefix="##", end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(TRAINING.splitlines(keepends=True), trainer)
    return tokenizer


def extra_texts(tokenizer):
    """Texts with the tokenizer's added tokens in them."""
    rng = random.Random(7)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    around = ["", " ", "  ", "\n", " \t", "a", "_", "\u00e9", "\u3000", "9", "."]
    texts = []
    for token in added[:40]:
        texts.append("x %s y%sz  %s%s" % (token, token, token, token))
    for _ in range(20 if added else 0):
        texts.append("".join(rng.choice(around) + rng.choice(added + ["word"]) + rng.choice(around) for _ in range(5)))
    return texts


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "fixtures")
    for name, make in sorted((key[5:], value) for key, value in globals().items() if key.startswith("make_")):
        tokenizer = make()
        folder = os.path.join(root, name)
        os.makedirs(folder, exist_ok=True)
        document = json.loads(tokenizer.to_str())
        merges = document["model"]["merges"]
        if name not in ("qwen", "behaviors"):  # both ways of writing merges occur
            document["model"]["merges"] = [" ".join(pair) for pair in merges]
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False, separators=(",", ":"))
            file.write("\n")
        tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        texts = TEXTS + extra_texts(tokenizer)
        cases = []
        for i, text in enumerate(texts):
            special = i % 2 == 1
            ids = tokenizer.encode(text, add_special_tokens=special).ids
            decoded = tokenizer.decode(ids, skip_special_tokens=False)
            without = tokenizer.decode(ids, skip_special_tokens=True)
            case = {"text": text, "special": special, "ids": ids}
            if decoded != text:
                case["decoded"] = decoded
            if without != decoded:
                case["without_special"] = without
            cases.append(case)
        with open(os.path.join(folder, "expected.json"), "w", encoding="utf-8") as file:
            file.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
