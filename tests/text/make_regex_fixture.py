#!/usr/bin/env python3
"""Makes tests/text/fixtures/regex.json: regular expressions as tokenizer.json files write them, and where the
`tokenizers` package (Oniguruma) cuts a text by each: the byte offsets of the pieces.

usage: make_regex_fixture.py [regex.json]
"""
import json
import os
import sys

from tokenizers import Regex, pre_tokenizers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PATTERNS = [
    # of published models
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    + CONTRACTIONS + r"?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    + CONTRACTIONS + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+",
    r"[0-9][0-9][0-9]", r"\d{1,3}(?=(?:\d{3})*\b)", r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"(?:\r?\n)+(?!\r?\n)|\p{N}", r"(?<=\p{L})(?=\p{N})|(?<=\p{N})(?=\p{L})", r"[^\n]+|[\n]+", r"(?i)[a-z]+|\d",
    # pieces of the language
    r".", r"^.", r".$", r"\A..", r"..\z", r"\S+\Z", r"\bw", r"\b.", r"\B.", r"[\w]+", r"[\W\d]+", r"\w+", r"\W+", r"\h+", r"\H", r"\D+", r"\S",
    r"a|b|", r"x*", r"a+?", r"a*?b", r"(a|ab)(c|bcd)?", r"(?>a+)b", r"a++", r"a?+b", r"a{2}", r"a{2,}", r"a{,2}b", r"a{1,2}?",
    r"a{1,2}+", r"\p{N}{1,3}+", r"a{x}", r"{", r"}", r"a]", r"[\]a-c]", r"[a-]", r"[-a]", r"[a\-z]", r"[+--]",
    r"[^a-z\s]", r"[a-c[x-z]]+", r"[^a-c[x-z]]+", r"[a-z&&[^aeiou]]+", r"[a-z&&[^aeiou]&&[^xyz]]+", r"[^a-z&&[^aeiou]]+",
    r"[\p{L}&&[^a-z]]+", r"[\P{L}]+", r"[\p{^L}]+", r"\p{^L}+", r"\P{L}+", r"\P{^L}+", r"[\S&&[^a]]+", r"[\d\s]+", r"[^\W\d_]+",
    r"[[:space:]]+", r"[[:^space:]]+", r"[[:digit:]]+", r"[[:punct:]]+", r"\p{Letter}+", r"\p{Uppercase_Letter}", r"\p{Punct}",
    r"\p{Nd}|\p{Nl}|\p{No}", r"\p{Mn}+", r"\p{Mc}|\p{Me}", r"\p{LC}+", r"\p{Lm}|\p{Lt}", r"\p{Zs}", r"\p{Cc}", r"\p{Cf}", r"\p{Cn}", r"\p{C}",
    r"\p{Sc}|\p{Sk}", r"\p{Sm}+", r"\p{So}", r"\p{Pd}|\p{Ps}|\p{Pe}", r"\p{Pc}|\p{Pi}|\p{Pf}", r"\p{Hiragana}+", r"\p{katakana}+",
    r"\p{Hangul}+|\p{Cyrillic}+", r"[^\p{Han}\s]+", r"\p{Latin}+", r"(?i:S)", r"(?i:k)", r"(?i:[a-m])+", r"(?i:it'S)", r"(?i:x(?-i:y))",
    r"(?i)hello|WORLD", r"\t|\n|\r|\f|\v|\a|\e", r"\x41|\x{4e2d}|\u4eca", r"\.|\*|\\|\/|\-|\ ", r"(?<![a-z])\d", r"(?<=a|bc)d", r"(?!a)\w",
    r"(?:)", r"(?=a)", r"a(?=b)|b(?!c)", r"\s+(?!\S)|\s", r"\n|$", r"^",
]
TEXT = (
    "Hello  World, it's IT'S 12345 6.7! a ab abc abcd aab aaab aaaa abd bcd xyz x\u017fk\u212a Stra\u00dfe \u01c5 \u02b0 e\u0301 \u0903 \u20dd\n"
    "\r\n\t def f(x): return [1, -2]/{3}  # a-b_c \\ + * . \u00b2\u00bd\u2167 \u0663 \u4eca\u5929 \u4e2d\u6587abc \u3042\u30ab \uac00 \u0416 \u00a0\u3000\u2028\n\n"
    "  trailing\u200b\u180e $ \u20ac ^ ` \u00ab\u00bb \u2014 \u203f ( ) < = > \U0001F600\U0001F468\u200d\U0001F469 \U00031350 \u0378 \x07\x0b\x0c\x1b \ue000 \u0967\n"
    "xY XY xy \u2026\u3002\uff0c (a|b) .,!? ]a[ {a} a{x} 1234567 12a 3B \u1e9e \ufb06 end  \n"
)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "fixtures/regex.json")
    offsets = [0]  # of each character, in bytes
    for c in TEXT:
        offsets.append(offsets[-1] + len(c.encode()))
    cases = []
    for pattern in PATTERNS:
        splitter = pre_tokenizers.Split(Regex(pattern), "isolated")
        cuts = [offsets[begin] for _, (begin, _) in splitter.pre_tokenize_str(TEXT)][1:]
        cases.append({"pattern": pattern, "cuts": cuts})
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"text":%s,\n"cases":[\n' % json.dumps(TEXT, ensure_ascii=True))
        file.write(",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
