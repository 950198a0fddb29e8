#!/usr/bin/env python3
"""Makes common/text/tokenizer/unicode_delta.c: where the reference tokenizer's Unicode tables differ from those of the libraries.

The `tokenizers` package splits by Oniguruma (Unicode 16), normalizes by a crate of Unicode 9 and lower-cases by Rust's
own tables (Unicode 17). This script asks the package about every code point and writes down the differences from
Unicode 14 (Python 3.11's unicodedata; PCRE2 10.42 has the same) and from utf8proc (through ctypes). Takes a minute.
usage: make_unicode_delta.py [unicode_delta.c]
"""
import ctypes
import os
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
SCRIPTS = "Han Hiragana Katakana Hangul Latin Cyrillic Greek Arabic Thai Hebrew Devanagari Bopomofo".split()


def matched(pattern):
    """The code points that a one-character pattern matches in the package."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for i in range(0, len(POINTS), 4096):
        for piece, _ in splitter.pre_tokenize_str("".join(map(chr, POINTS[i:i + 4096]))):
            found.update(map(ord, piece))
    return found


def isolated(splitter):
    """The code points that a pre-tokenizer cuts off from the letters around them."""
    return {c for c in POINTS if len(splitter.pre_tokenize_str("a" + chr(c) + "a")) > 1}


def ranges(pairs):
    out = []
    for c, value in sorted(pairs):
        if out and out[-1][1] == c - 1 and out[-1][2] == value:
            out[-1][1] = c
        else:
            out.append([c, c, value])
    return out


class Pcre2:
    """What PCRE2 matches, for the scripts."""

    def __init__(self):
        self.lib = ctypes.CDLL("libpcre2-8.so.0")
        self.lib.pcre2_compile_8.restype = ctypes.c_void_p
        self.lib.pcre2_match_data_create_8.restype = ctypes.c_void_p
        self.lib.pcre2_get_ovector_pointer_8.restype = ctypes.POINTER(ctypes.c_size_t)

    def matched(self, pattern):
        code, offset = ctypes.c_int(), ctypes.c_size_t()
        utf, ucp, no_check = 0x00080000, 0x00020000, 0x40000000
        regex = ctypes.c_void_p(self.lib.pcre2_compile_8(
            pattern.encode(), ctypes.c_size_t(len(pattern)), utf | ucp, ctypes.byref(code), ctypes.byref(offset), None))
        data = ctypes.c_void_p(self.lib.pcre2_match_data_create_8(1, None))
        vector = self.lib.pcre2_get_ovector_pointer_8(data)
        found = set()
        for i in range(0, len(POINTS), 4096):
            text, at = "".join(map(chr, POINTS[i:i + 4096])).encode(), 0
            while self.lib.pcre2_match_8(regex, text, ctypes.c_size_t(len(text)), ctypes.c_size_t(at), no_check, data,
                                         None) > 0:
                found.update(map(ord, text[vector[0]:vector[1]].decode()))
                at = vector[1]
        return found


class Utf8proc:
    def __init__(self):
        self.lib = ctypes.CDLL("libutf8proc.so.2")
        self.lib.utf8proc_NFD.restype = ctypes.c_void_p
        self.lib.utf8proc_NFKD.restype = ctypes.c_void_p
        self.lib.utf8proc_tolower.restype = ctypes.c_int32
        self.free = ctypes.CDLL(None).free

    def normalize(self, form, text):
        pointer = getattr(self.lib, "utf8proc_" + form)(text.encode())
        out = ctypes.cast(pointer, ctypes.c_char_p).value.decode()
        self.free(ctypes.c_void_p(pointer))
        return out

    def lower(self, c):
        return self.lib.utf8proc_tolower(c)


def category_delta():
    out = []
    for name in CATEGORIES:
        out += [(c, name) for c in matched(r"\p{%s}" % name) if unicodedata.category(chr(c)) != name]
    return ranges(out)


def plain_characters(utf8proc, known):
    """Characters that utf8proc decomposes or reorders and the reference's normal forms do not know."""
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    out = set()
    for c in POINTS[1:]:
        if c not in known and unicodedata.category(chr(c)) == "Cn":
            continue
        if nfkd.normalize_str(chr(c)) != utf8proc.normalize("NFKD", chr(c)):
            out.add(c)
        elif unicodedata.category(chr(c))[0] in "MC":
            for mark in "\u0301\u0323\u3099\u0345":
                for text in ("a" + mark + chr(c), "a" + chr(c) + mark):
                    if nfd.normalize_str(text) != utf8proc.normalize("NFD", text):
                        out.add(c)
    return ranges((c, None) for c in out)


def lower_delta(utf8proc):
    lower = normalizers.Lowercase()
    out = []
    for c in POINTS[1:]:
        text = lower.normalize_str(chr(c))
        if len(text) == 1 and ord(text) != utf8proc.lower(c):
            out.append((c, ord(text) - c))
        elif len(text) != 1:
            assert c == 0x130, hex(c)  # written out in C
    return ranges(out)


def table(out, declaration, rows, width=4):
    out.append("const %s[] = {" % declaration)
    for i in range(0, len(rows), width):
        out.append("    " + " ".join(rows[i:i + width]))
    out.append("};")
    name = declaration.split()[-1]
    out.append("const size_t %s_count =" % name)
    out.append("    sizeof %s / sizeof %s[0];" % (name, name))
    out.append("")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../../common/text/tokenizer/unicode_delta.c")
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    utf8proc, pcre2 = Utf8proc(), Pcre2()
    categories = category_delta()
    known = {c for first, last, _ in categories for c in range(first, last + 1)}
    punctuation, regex_punctuation = isolated(pre_tokenizers.Punctuation()), matched(r"\p{P}")
    numbers = isolated(pre_tokenizers.Digits()) - matched(r"\p{N}")
    out = [
        "/* Made by tests/text/make_unicode_delta.py from tokenizers %s; see there. clang-format off */" %
        tokenizers.__version__, '#include "text/tokenizer/unicode_table.h"', "", "// clang-format off"]
    table(out, "UnicodeRange unicode_category_delta",
          ["{0x%X, 0x%X, UTF8PROC_CATEGORY_%s}," % (a, b, v.upper()) for a, b, v in categories], 2)
    table(out, "UnicodeRange unicode_plain_delta",
          ["{0x%X, 0x%X, 0}," % (a, b) for a, b, _ in plain_characters(utf8proc, known)])
    table(out, "UnicodeRange unicode_lower_delta",
          ["{0x%X, 0x%X, %d}," % row for row in map(tuple, lower_delta(utf8proc))])
    table(out, "UnicodeRange unicode_number_delta",
          ["{0x%X, 0x%X, 0}," % (a, b) for a, b, _ in ranges((c, None) for c in numbers)])
    table(out, "UnicodeRange unicode_punctuation_delta",
          ["{0x%X, 0x%X, %d}," % (a, b, v) for a, b, v in
           ranges((c, c in punctuation) for c in punctuation ^ regex_punctuation)])
    scripts = []
    for script in SCRIPTS:
        extra = matched(r"\p{%s}" % script) - pcre2.matched(r"\p{sc:%s}+" % script)
        text = "".join(r"\\x{%X}-\\x{%X}" % (a, b) for a, b, _ in ranges((c, None) for c in extra))
        scripts.append('{"%s", "%s"},' % (script, text))
    table(out, "UnicodeScript unicode_scripts", scripts, 1)
    out[-1:] = []
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
