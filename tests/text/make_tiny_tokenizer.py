#!/usr/bin/env python3
"""Makes deploy/examples/tiny/model: the tokenizer, chat template and config of the quickstart's model.

The tokenizer is a byte-level BPE of 1,024 tokens with Qwen's pattern and ChatML's special tokens, trained on
arithmetic word problems that this script makes up. Needs the `tokenizers` package; the files it makes are committed.
usage: make_tiny_tokenizer.py [FOLDER]
"""
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCAB_SIZE = 1024
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMES = (
    "Ada Bela Chen Dana Emil Fatma Goran Hana Ivan Jin Kofi Lena Mina Noor Omar Pia Quinn Rosa Sami Tariq Uma Vera "
    "Wen Yara Alma Boris Carla Diego Elena Farid Greta Hugo Irene Jonas Karin Luca Maya Nils Olga Paul Rita Sven Tina"
).split()
THINGS = (
    "apples books coins pencils shells stamps cards marbles pears plums lemons tickets letters bottles chairs plates "
    "flowers candles ribbons buttons stones kites balls eggs cookies cakes stickers spoons cups hats boxes photos "
    "tomatoes potatoes carrots seeds trees fish birds horses cows sheep bricks tiles windows doors lamps rings"
).split()
PLACES = "school market garden kitchen library station shop farm beach park street village museum harbour office".split()
TIMES = "morning afternoon evening Monday Tuesday Wednesday Thursday Friday Saturday Sunday week month year".split()
STORY = (
    "The teacher explains how to calculate the difference between two numbers.|"
    "A farmer collects red, green and yellow fruit before winter comes.|The price of each ticket increased by ten percent.|"
    "Several children are playing with their toys while their parents prepare dinner.|Please write down every step.|"
    "The train travels three hundred kilometres without stopping.|What fraction of the money would be saved?|"
    "Another group of students receives exactly twenty different questions.|The remaining distance is shorter than expected.|"
    "Because it rained all night, only about thirty people visited the zoo.|Subtract the smaller number from the larger one.|"
    "Her brother works eight hours per shift and earns fifteen dollars an hour.|Suppose the bus leaves at quarter past nine."
).split("|")
SHARE = (
    "{a} has {x} {t} and finds {y} more at the {p}. How many {t} does {a} have now?|{a} has {x} + {y} = {s} {t}.",
    "{a} had {s} {t} and gave {y} of them to {b} on {d}. How many {t} are left?|After giving away {y} there are {s} - {y} = {x} {t} left.",
    "{a} buys {c} boxes with {y} {t} in each. How many {t} are there in all?|There are {c} * {y} = {m} {t}.",
    "{a} shares {m} {t} equally among {c} friends. How many {t} does each friend get?|Each friend gets {m} / {c} = {y} {t}.",
    "{a} has {x} {t} and {b} has {c} times as many. How many {t} do they have together?|{b} has {x} * {c} = {n} {t}.\nTogether they have {x} + {n} = {o}.",
    "The {p} sells {t} for {c} dollars each. {a} bought {x} of them last {d}. How much money did {a} spend?|Each one costs {c} dollars, so {x} of them cost {x} * {c} = {n} dollars.",
    "Every {d} {a} walks {x} minutes to the {p} and {y} minutes back. How many minutes is that in {c} weeks?|One day takes {x} + {y} = {s} minutes.\nThat makes {s} * {c} = {q} minutes in total.",
    "{a} read {x} pages in the {d} and twice as many the next day. How many pages is that altogether?|The next day it was 2 * {x} = {w} pages.\nAltogether {a} read {x} + {w} = {v} pages.",
    "If {a} needs {c} hours for one of the {t}, how long does it take to make {y}?|We multiply: {y} * {c} = {m} hours. Therefore the answer is {m}.",
    "Half of the {m} {t} at the {p} were sold before noon, then {b} brought {x} new ones. How many remain?|First we find half of {m}. Then we add {x} because {b} brought that many.",
)
CHAT_TEMPLATE = """\
{#- Turns in ChatML: a start mark with the role, the text, an end mark. -#}
{%- for message in messages %}
    {{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
{%- endif %}
"""


def problem(rng):
    x, y, c = rng.randint(2, 99), rng.randint(2, 40), rng.randint(2, 12)
    question, steps = rng.choice(SHARE).split("|")
    a, b = rng.sample(NAMES, 2)
    values = dict(a=a, b=b, t=rng.choice(THINGS), p=rng.choice(PLACES), d=rng.choice(TIMES), x=x, y=y, c=c,
                  s=x + y, m=c * y, n=x * c, o=x + x * c, q=(x + y) * c, w=2 * x, v=3 * x)
    return question.format(**values), steps.format(**values) + f"\n#### {rng.choice(list(values.values())[5:])}"


def texts(count):
    rng = random.Random(20260101)
    for _ in range(count):
        question, answer = problem(rng)
        # Special tokens are cut out before training sees them; the words around them are not.
        story = rng.choice(STORY)
        yield f"system\nYou are a helpful assistant. Solve the problem step by step.\nuser\n{story} {question}\nassistant\n{answer}\n"


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL), show_progress=False, special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts(6000), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return tokenizer


def write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text if text.endswith("\n") else text + "\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../../deploy/examples/tiny/model")
    os.makedirs(folder, exist_ok=True)
    tokenizer = make_tokenizer()
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, tokenizer.get_vocab_size()
    document = json.loads(tokenizer.to_str())
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    write(folder, "tokenizer.json", json.dumps(document, ensure_ascii=False, indent=0))
    write(folder, "chat_template.jinja", CHAT_TEMPLATE)
    write(folder, "tokenizer_config.json", json.dumps({
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None}, indent=2))
    write(folder, "config.json", json.dumps({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False,
        "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"), "head_dim": 32, "hidden_act": "silu",
        "hidden_size": 128, "initializer_range": 0.02, "intermediate_size": 384, "max_position_embeddings": 2048,
        "num_attention_heads": 4, "num_hidden_layers": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": None, "tie_word_embeddings": True,
        "torch_dtype": "float32", "use_cache": True, "use_sliding_window": False, "vocab_size": VOCAB_SIZE}, indent=2))


if __name__ == "__main__":
    main()
