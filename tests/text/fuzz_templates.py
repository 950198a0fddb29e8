#!/usr/bin/env python3
"""Random template programs, rendered here and by jinja2 as transformers sets it up; prints where the two differ.

Two kinds of programs: grown from a grammar of the whole language (types are mostly right, so that most programs run to
their end), and mutated from real templates and from the cases of template_features.py (pieces swapped, doubled, dropped).
A difference is a text that differs, or a failure on one side only; where both fail, differing reasons and lines are
counted apart (they need not agree word for word). Programs that print Python's own names of objects, or need numbers beyond
64 bits, are passed over.

    python fuzz_templates.py BUILD/bin/template_tool [--seconds 60] [--seed 1] [--reasons] [FOLDER of .jinja ...]
"""

import argparse
import collections
import json
import pathlib
import random
import re
import signal
import sys
import time
import traceback

from transformers.utils.chat_template_utils import _compile_jinja_template

from compare_templates import NOW, Tool, full
from template_chats import chats
from template_features import V, cases

PYTHON_NAMES = re.compile(
    r"<(generator|built-in|function|method|class|Macro|bound|module|jinja2|transformers|Namespace|Cycler|LoopContext|AsyncLoop|dict_\w+iterator|list_?\w*iterator|\w+[\w.]* object|Undefined|itertools|reversed|Joiner|slot wrapper)"
    r"|reversed object|at 0x[0-9a-f]{6,}|&lt;(generator|built-in|function|bound|class|\w+[\w.]* object)",
    re.I,
)
# Jinja computes constants when it compiles: a slice that fails is undefined then, a list as a key fails unread.
# What the sandbox forbids is undefined, and that may be asked for forbidden names again.
FOLDED = re.compile(r"object is unsafe|not subscriptable|slice indices must be|unhashable type: 'slice'")
METHODS = re.compile(r"attribute='(items|get|keys)|(\.\s*|\[\s*['\"])(items|get|keys)\b(?!['\"\s]*\]?\s*\()")  # not called: prints an address
BEYOND = re.compile(r"beyond 64 bits|complex number|more than \d+ (MiB|steps|items|slices|levels)|longer than|recurses deeper|nested deeper|not supported|is unsupported|would need|list of more|comparisons in a row")

VARIABLES = {
    **V,
    "messages": chats()["parallel"]["messages"],
    "tools": chats()["tools_unused"]["tools"],
    "bos_token": "<s>",
    "eos_token": "</s>",
    "add_generation_prompt": True,
    "enable_thinking": False,
    "dates": "2026-01-01",
    "mixed": [1, "a", None, True, 2.5, [1], {"k": "v"}],
    "texts": ["alpha", " beta ", "Gamma\n", "", "δέλτα", "</think>x"],
    "pairs": [["a", 1], ["b", 2]],
    "deep": {"a": {"b": {"c": [1, {"d": "e"}]}}},
    "zero": 0,
    "numbers": [5, 3, 8, 1, 9.5, 2],
}
TYPES = {
    "str": ["s", "u", "spaces", "empty", "html", "lines", "bos_token", "dates"],
    "int": ["n", "neg", "zero"],
    "float": ["f", "float_one", "tiny", "huge"],
    "bool": ["t", "add_generation_prompt", "enable_thinking"],
    "list": ["l", "words", "nested", "people", "messages", "tools", "mixed", "texts", "pairs", "numbers"],
    "dict": ["d", "deep"],
    "any": ["z", "nope", "missing", "mixed", "d", "l", "s", "n"],
}
KEYS = ["name", "role", "content", "tool_calls", "function", "arguments", "age", "at", "city", "a", "b", "k", "C", "nope", "items", "get", "keys", "type"]
WORDS = ["a", "b", "x", "Hello", " ", "", ",", ", ", "\\n", "é", "日本", "<think>", "</think>", "o", "%s", "{}", "1", "42", "-7", "2.5", "0x1F", "A", "ß", "\\t", "'", "a b c", "one\\ntwo", "<b>", "&amp;"]


class Grammar:
    """Grows one program."""

    def __init__(self, rng):
        self.rng = rng
        self.scopes = [{}]  # names set by the program and their types
        self.macros = []
        self.namespaces = []
        self.in_loop = 0
        self.in_macro = 0
        self.budget = rng.choice((3, 6, 12, 60, 150))
        self.wrong = rng.choice((0, 0.01, 0.05, 0.15))

    def pick(self, *options):
        return self.rng.choice(options)

    def chance(self, p):
        return self.rng.random() < p

    # ---- expressions ----

    def name(self, kind):
        own = [name for scope in self.scopes for name, t in scope.items() if t == kind or kind == "any"]
        if own and self.chance(0.5):
            return self.rng.choice(own)
        return self.rng.choice(TYPES[kind])

    def literal(self, kind):
        if kind == "str":
            quote = self.pick("'", '"')
            text = self.rng.choice(WORDS)
            return quote + text.replace(quote, "\\" + quote) + quote
        if kind == "int":
            return str(self.pick(0, 1, 2, 3, 5, 10, 42, 255, 1000))
        if kind == "float":
            return self.pick("0.5", "1.0", "2.25", "1e3", "1.5e-7", "100000.0", "3.14159", "1e16", "0.1")
        if kind == "bool":
            return self.pick("true", "false", "True", "False")
        if kind == "list":
            return self.list_literal()
        if kind == "dict":
            return self.dict_literal()
        return self.pick("none", "None", "''", "[]", "0", "{}", "()")

    def list_literal(self):
        items = [self.expression(depth=2) for _ in range(self.rng.randint(0, 3))]
        if self.chance(0.2):
            return "(" + ", ".join(items) + ("," if len(items) == 1 or (items and self.chance(0.2)) else "") + ")"
        return "[" + ", ".join(items) + ("," if items and self.chance(0.1) else "") + "]"

    def dict_literal(self):
        items = []
        for _ in range(self.rng.randint(0, 3)):
            key = self.literal("str") if self.chance(0.8) else self.expression(self.pick("int", "bool", "float", "any"), 3)
            items.append(f"{key}: {self.expression(depth=2)}")
        return "{" + ", ".join(items) + "}"

    def expression(self, kind=None, depth=0):
        self.budget -= 1
        if kind is None:
            kind = self.rng.choices(list(TYPES), (8, 4, 2, 3, 4, 2, 2))[0]
        if self.chance(self.wrong):
            kind = self.rng.choice(list(TYPES))  # a wrong type now and then
        if depth > 3 or self.budget < 0 or self.chance(0.22 + 0.1 * depth):
            return self.name(kind) if self.chance(0.6) else self.literal(kind)
        if kind == "any" or self.chance(0.06):
            return self.any_expression(kind, depth + 1)
        text = getattr(self, kind + "_expression")(depth + 1)
        return "(" + text + ")" if self.chance(0.25) else text

    def any_expression(self, kind, depth):
        e = self.expression
        choice = self.rng.randrange(9)
        if choice == 0:
            return f"{e(kind, depth)} if {e('bool', depth)}" + (f" else {e(kind, depth)}" if self.chance(0.8) else "")
        if choice == 1:
            return f"{e(kind, depth)} {self.pick('or', 'and')} {e(kind, depth)}"
        if choice == 2:
            return f"{self.postfix('list', depth)}[{e('int', depth)}]"
        if choice == 3:
            return f"{self.postfix('list', depth)}|{self.pick('first', 'last', 'min', 'max')}"
        if choice == 4:
            return f"{self.postfix('any', depth)}|{self.pick('default', 'd')}({e(kind, depth)}{self.pick('', '', ', true', ', boolean=true')})"
        if choice == 5:
            return f"{self.postfix('dict', depth)}.{self.rng.choice(KEYS)}"
        if choice == 6:
            return f"{self.postfix('dict', depth)}.get({self.key(depth)}{self.pick('', ', ' + e(kind, depth))})"
        if choice == 7 and self.namespaces:
            return f"{self.rng.choice(self.namespaces)}.{self.pick('x', 'y', 'z')}"
        return f"{self.postfix('dict', depth)}[{self.key(depth)}]"

    def key(self, depth):
        return repr(self.rng.choice(KEYS)) if self.chance(0.8) else self.expression("any", depth)

    def postfix(self, kind, depth):
        """Something that a filter, a method or brackets may follow."""
        text = self.expression(kind, depth)
        return text if re.fullmatch(r"\w+|'[^'\\]*'|\[[^\[\]]*\]|\([^()]*\)", text) and not re.match(r"\d", text) else f"({text})"


    def str_expression(self, depth):
        e, p = self.expression, self.postfix
        choice = self.rng.randrange(12)
        if choice == 0:
            return f"{e('str', depth)} + {e('str', depth)}"
        if choice == 1:
            return f"{e(None, depth)} ~ {e(None, depth)}"
        if choice == 2:
            return f"{p('str', depth)}[{self.slice(depth)}]"
        if choice == 3:
            return f"{p('str', depth)} * {self.pick(0, 1, 2, 3)}"
        if choice == 4:
            fmt = self.pick("%s", "%d", "%5s|", "%-4s|", "%05.1f", "%x", "%r", "%%%s", "%+d", "%.2s", "%e", "%g", "%c", "%i", "%s-%s", "%(a)s", "%o", "%#x", "% d", "%5.3d", "%u")
            argument = self.pick(e("any", depth), e("int", depth), e("str", depth), f"({e(None, depth)}, {e(None, depth)})", "{'a': 1}")
            return f"'{fmt}' % {argument}" if self.chance(0.6) else f"'{fmt}'|format({argument})"
        if choice in (5, 6):
            return self.str_method(depth)
        if choice == 7 and self.macros:
            return self.macro_call(depth)
        return self.str_filter(depth)

    def str_method(self, depth):
        e, p = self.expression, self.postfix
        s = p("str", depth)
        name = self.pick(
            "upper", "lower", "strip", "lstrip", "rstrip", "title", "capitalize", "swapcase", "casefold", "replace", "join", "center", "ljust", "rjust", "zfill",
            "removeprefix", "removesuffix", "expandtabs", "format", "strip", "replace", "strip")
        if name in ("upper", "lower", "title", "capitalize", "swapcase", "casefold", "expandtabs"):
            return f"{s}.{name}()"
        if name in ("strip", "lstrip", "rstrip"):
            return f"{s}.{name}({self.pick('', '', self.literal('str'), 'none')})"
        if name == "replace":
            return f"{s}.replace({e('str', depth)}, {e('str', depth)}{self.pick('', '', ', 1', ', -1', ', 0')})"
        if name == "join":
            return f"{s}.join({self.pick(e('str', depth), 'words', 'texts', 'd', e('list', depth))})"
        if name in ("center", "ljust", "rjust"):
            return f"{s}.{name}({self.pick(0, 3, 8, 20)}{self.pick('', ', ' + repr(self.pick('*', 'é', '-')))})"
        if name == "zfill":
            return f"{s}.zfill({self.pick(0, 3, 8)})"
        if name == "format":
            fmt = self.pick("{}", "{0}", "{:>5}", "{:<4}|", "{:^7}|", "{!r}", "{:.2f}", "{:d}", "{:x}", "{a}", "{0[0]}", "{:,}", "{:05d}", "{:+}", "{:e}", "{:%}", "{:s}", "{:_}", "{:g}", "{:b}", "{!s:>6}", "{{}}", "{:*>8}", "{:.3}", "{:08.3f}", "{:n}", "{:#x}", "{:c}", "{a[k]}", "{a.k}")
            return f"'{fmt}'.format({e(None, depth)}, a={e('any', depth)})"
        return f"{s}.{name}({e('str', depth)})"

    def str_filter(self, depth):
        e, p = self.expression, self.postfix
        name = self.pick(
            "upper", "lower", "trim", "title", "capitalize", "replace", "join", "string", "tojson", "tojson", "indent", "truncate", "center", "escape", "e", "safe", "forceescape",
            "striptags", "urlencode", "reverse", "format", "xmlattr", "filesizeformat", "trim", "join", "wordwrap", "pprint", "urlize")
        s = p("str", depth) if self.chance(0.85) else p("any", depth)
        if name == "replace":
            return f"{s}|replace({e('str', depth)}, {e('str', depth)}{self.pick('', '', ', 1', ', count=1')})"
        if name == "join":
            return f"{p('list', depth)}|join{self.pick('', '(' + self.literal('str') + ')', '(' + self.literal('str') + ')', '(attribute=' + repr(self.rng.choice(KEYS)) + ')')}"
        if name == "string":
            return f"{p('any', depth)}|string"
        if name == "tojson":
            options = [o for o in (f"indent={self.pick(0, 1, 2, 4, 'none')}", f"ensure_ascii={self.literal('bool')}", f"sort_keys={self.literal('bool')}", f"separators=({self.pick(repr(','), repr(', '))}, {self.pick(repr(':'), repr(': '))})") if self.chance(0.25)]
            return f"{p(self.pick('any', 'dict', 'list', 'str', 'float', 'int'), depth)}|tojson" + (f"({', '.join(options)})" if options else "")
        if name == "indent":
            return f"{s}|indent{self.pick('', '(2)', '(2, true)', '(width=3, first=true)', '(4, false, true)', '(' + repr('> ') + ')', '(indentfirst=true)')}"
        if name == "truncate":
            return f"{s}|truncate({self.pick(3, 5, 9, 20)}{self.pick('', ', true', ', false', ', true, ' + repr('…'), ', leeway=0', ', end=' + repr(''))})"
        if name == "center":
            return f"{s}|center({self.pick(0, 5, 12)})"
        if name == "trim":
            return f"{s}|trim{self.pick('', '', '(' + self.literal('str') + ')', '(chars=none)')}"
        if name == "xmlattr":
            return f"{p('dict', depth)}|xmlattr{self.pick('', '(false)', '(autospace=true)')}"
        if name == "filesizeformat":
            return f"{p('int', depth)}|filesizeformat{self.pick('', '(true)')}"
        if name == "format":
            return f"{self.literal('str')}|format({e(None, depth)})"
        if name == "pprint":
            return f"{p(self.pick('any', 'dict', 'list', 'str'), depth)}|pprint"
        if name == "urlize":
            return f"{s}|urlize{self.pick('', '(5)', '(nofollow=true)', '(target=' + repr('_b') + ')')}"
        if name == "wordwrap":
            return f"{s}|wordwrap({self.pick(3, 5, 10, 79)}{self.pick('', ', false', ', break_on_hyphens=false', ', wrapstring=' + repr('|'))})"
        if name == "reverse":
            return f"{p('str', depth)}|reverse"
        return f"{s}|{name}"

    def int_expression(self, depth):
        e, p = self.expression, self.postfix
        choice = self.rng.randrange(10)
        if choice < 3:
            return f"{e('int', depth)} {self.pick('+', '-', '*', '//', '%')} {e('int', depth)}"
        if choice == 3:
            return f"{p(self.pick('list', 'str', 'dict'), depth)}|{self.pick('length', 'count')}"
        if choice == 4:
            return f"{p('any', depth)}|int{self.pick('', '(7)', '(0, 16)', '(base=8)', '(default=-1)')}"
        if choice == 5:
            return f"-{p('int', depth)}" if self.chance(0.7) else f"+{p('int', depth)}"
        if choice == 6:
            return f"{p('str', depth)}.{self.pick('find', 'rfind', 'count', 'index', 'rindex')}({self.literal('str')}{self.pick('', '', ', 1', ', 0, 5', ', -3', ', 2, 1')})"
        if choice == 7:
            return f"{p('int', depth)}|abs"
        if choice == 8:
            return f"{p('str', depth)}|wordcount" if self.chance(0.4) else f"{p('list', depth)}|sum"
        if self.in_loop:
            return f"loop.{self.pick('index', 'index0', 'revindex', 'revindex0', 'length', 'depth', 'depth0')}"
        return f"{e('int', depth)} ** {self.pick(0, 1, 2, 3)}"

    def float_expression(self, depth):
        e, p = self.expression, self.postfix
        number = self.pick("int", "float")
        choice = self.rng.randrange(5)
        if choice < 2:
            return f"{e('float', depth)} {self.pick('+', '-', '*', '/', '//', '%', '**')} {e(number, depth)}"
        if choice == 2:
            return f"{p('any', depth)}|float{self.pick('', '(1.5)', '(default=2)')}"
        if choice == 3:
            return f"{p(number, depth)}|round{self.pick('', '(1)', '(2)', '(0, ' + repr('ceil') + ')', '(1, ' + repr('floor') + ')', '(-1)', '(precision=3)', '(method=' + repr('common') + ')')}"
        return f"{e('int', depth)} / {e('int', depth)}"

    def bool_expression(self, depth):
        e, p = self.expression, self.postfix
        choice = self.rng.randrange(12)
        kind = self.pick("str", "int", "float", "list", "any")
        if choice < 3:
            text = f"{e(kind, depth)} {self.pick('==', '!=', '<', '<=', '>', '>=')} {e(kind, depth)}"
            return text + (f" {self.pick('==', '<', '>=')} {e(kind, depth)}" if self.chance(0.1) else "")
        if choice == 3:
            return f"{e('any', depth)} {self.pick('in', 'not in')} {e(self.pick('list', 'dict', 'str'), depth)}"
        if choice == 4:
            return f"{e('str', depth)} in {e('str', depth)}"
        if choice in (5, 6):
            test = self.pick("defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "true", "false", "callable", "lower", "upper", "escaped", "filter", "test")
            return f"{p(self.pick('any', kind), depth)} is {self.pick('', '', 'not ')}{test}"
        if choice == 7:
            test = self.pick("odd", "even", "divisibleby 3", "divisibleby(2)", "eq 2", "equalto(3)", "lt 5", "gt(1)", "ne 2", "le 3", "ge 3", "in [1, 2]", "sameas true", "sameas none", "lessthan 3", "greaterthan 2")
            return f"{p('int', depth)} is {self.pick('', 'not ')}{test}"
        if choice == 8:
            return f"not {e('bool', depth)}"
        if choice == 9:
            return f"{e('bool', depth)} {self.pick('and', 'or')} {e('bool', depth)}"
        if choice == 10:
            method = self.pick("isalpha()", "isdigit()", "isspace()", "isupper()", "islower()", "isalnum()", "istitle()", "isnumeric()", "isdecimal()", "isascii()", "isprintable()", "isidentifier()",
                               "startswith('H')", "endswith('>')", "startswith(('a', '<'))", "startswith('l', 2)", "endswith('', -1)")
            return f"{p('str', depth)}.{method}"
        if self.in_loop:
            return self.pick("loop.first", "loop.last", "loop.previtem is defined", "loop.nextitem is defined", f"loop.changed({e('any', depth)})")
        return f"{e('str', depth)} == {e('str', depth)}"

    def list_expression(self, depth):
        e, p = self.expression, self.postfix
        choice = self.rng.randrange(12)
        if choice == 0:
            return f"{e('list', depth)} + {e('list', depth)}"
        if choice == 1:
            return f"{p('list', depth)}[{self.slice(depth)}]"
        if choice == 2:
            s = p("str", depth)
            return self.pick(f"{s}.split()", f"{s}.split({self.literal('str')})", f"{s}.split({self.literal('str')}, 1)", f"{s}.rsplit({self.literal('str')}, 1)", f"{s}.splitlines()", f"{s}.splitlines(true)",
                             f"{s}.partition({self.literal('str')})", f"{s}.rpartition({self.literal('str')})", f"{s}|list", f"{s}.rsplit(none, 2)", f"{s}.split(none, 1)")
        if choice == 3:
            return f"range({self.pick(0, 3, 5)}{self.pick('', ', 7', ', 9, 2', ', -3, -1')})" + self.pick("", "|list")
        if choice == 4:
            return f"{p('dict', depth)}.{self.pick('keys', 'values', 'items')}()" + self.pick("", "|list")
        if choice == 5:
            return f"{p('dict', depth)}|{self.pick('items', 'dictsort', 'dictsort(true)', 'dictsort(by=' + repr('value') + ')', 'dictsort(reverse=true)', 'list')}" + self.pick("", "|list")
        if choice == 6:
            source = self.pick("people", "messages", p("list", depth))
            attribute = self.rng.choice(["name", "age", "role", "content", "at.city", "nope", "0", "tool_calls.0.function.name"])
            filter = self.pick(f"map(attribute='{attribute}')", f"map(attribute='{attribute}', default={e('any', depth)})", f"selectattr('{attribute}')", f"rejectattr('{attribute}')",
                               f"selectattr('{attribute}', 'defined')", f"selectattr('{attribute}', 'equalto', {e('any', depth)})", f"rejectattr('{attribute}', 'in', {e('list', depth)})", f"sort(attribute='{attribute}')",
                               f"groupby('{attribute}')", f"groupby('{attribute}', default='')", f"unique(attribute='{attribute}')", f"sum(attribute='{attribute}')", f"selectattr('{attribute}', 'string')")
            return self.walked(f"{source}|{filter}")
        if choice == 7:
            filter = self.pick("upper", "string", "length", "trim", "tojson", "int", "float", "first", "last", "abs", "replace", "default", "join", "title", "list", "round")
            extra = {"replace": ", 'a', 'b'", "default": ", 'x'", "join": ", '-'", "tojson": self.pick("", ", indent=1"), "round": self.pick("", ", 1")}.get(filter, "")
            return self.walked(f"{p('list', depth)}|map('{filter}'{extra})")
        if choice == 8:
            test = self.pick("", "'string'", "'odd'", "'none'", "'defined'", "'in', [1, 'a']", "'gt', 2", "'mapping'", "'equalto', 1", "'number'", "'divisibleby', 2", "'iterable'")
            return self.walked(f"{p('list', depth)}|{self.pick('select', 'reject')}({test})")
        if choice == 9:
            filter = self.pick("sort", "sort(reverse=true)", "sort(case_sensitive=true)", "unique", "unique(true)", "reverse", "list", "sort(true, true)")
            return self.walked(f"{p('list', depth)}|{filter}")
        if choice == 10:
            filter = self.pick("batch(2)", "batch(3, 0)", "slice(2)", "slice(3, none)", "batch(linecount=2, fill_with='-')")
            return self.walked(f"{p('list', depth)}|{filter}")
        return self.list_literal()

    def walked(self, generator):
        """What a generator gives; printed itself it would show an address."""
        return generator + self.pick("|list", "|list", "|list", "|list", "|first", "|join", "|join(',')", "|sum", "|map('string')|list")

    def dict_expression(self, depth):
        e, p = self.expression, self.postfix
        choice = self.rng.randrange(6)
        if choice == 0:
            return f"dict({self.pick('', p('dict', depth))})"
        if choice == 1:
            return f"dict(a={e(None, depth)}, b={e(None, depth)})"
        if choice == 2:
            return f"dict({self.pick('pairs', p('list', depth), p('dict', depth))}, k={e(None, depth)})"
        if choice == 3:
            return f"{p('list', depth)}[{self.pick(0, 1, -1)}]"
        if choice == 4:
            return f"{p('dict', depth)}.copy()"
        return self.dict_literal()

    def slice(self, depth):
        part = lambda: self.pick("", "", str(self.pick(0, 1, 2, 5, -1, -2, 99, -99)), self.expression("int", depth + 2))  # noqa: E731
        text = part() + ":" + part()
        return text + (":" + self.pick("", "1", "2", "-1", "-2", "none") if self.chance(0.3) else "")

    def macro_call(self, depth):
        name, parameters = self.rng.choice(self.macros)
        arguments = [self.expression(None, depth) for _ in range(self.rng.randint(0, len(parameters)))]
        for parameter in parameters[len(arguments):]:
            if self.chance(0.4):
                arguments.append(f"{parameter}={self.expression(None, depth)}")
        if self.chance(0.05):
            arguments.append(self.pick("*l", "**d", "*(1, 2)", "zz=1", "*s", "**{'p0': 1}"))
        return f"{name}({', '.join(arguments)})"

    # ---- statements ----

    def tag(self, text):
        return self.pick("{%", "{%", "{%", "{%-", "{%+") + self.pick(" ", " ", "") + text + self.pick(" ", " ", "") + self.pick("%}", "%}", "%}", "-%}", "+%}")

    def variable(self, text):
        # a dict as the first or last thing would close the tag early
        space = " " if text[:1] in "{%#" or text[-1:] in "}%" else self.pick(" ", "")
        begin = self.pick("{{", "{{", "{{", "{{-", "{{+") if not text.startswith(("-", "+")) else "{{"
        if text.startswith(("-", "+")):
            space = " "
        return begin + space + text + " " + self.pick("}}", "}}", "}}", "-}}")

    def data(self):
        if self.chance(0.01):
            return "{"
        return self.pick("x", " ", "\n", "  \n", "\n  ", "a b", "<|im_start|>", "\t", "é\n", "\n\n", "-", "}", "#", "%", "text\n    ", "")

    def new_name(self, kind):
        name = self.pick("v0", "v1", "v2", "v3", "s", "l", "n", "item", "m") if self.chance(0.9) else self.pick("loop_count", "x", "d", "caller", "messages")
        self.scopes[-1][name] = kind
        return name

    def block(self, depth, size=None):
        return "".join(self.statement(depth) for _ in range(size or self.rng.randint(1, 3)))

    def scoped(self, depth, names=()):
        self.scopes.append(dict(names))
        text = self.block(depth)
        self.scopes.pop()
        return text

    def statement(self, depth=0):
        self.budget -= 1
        if self.budget < 0 or depth > 4:
            return self.data() + self.variable(self.name("any"))
        choice = self.rng.choices(
            (self.data, self.output, self.if_, self.for_, self.set_, self.set_block, self.namespace, self.macro, self.call_block, self.filter_block, self.with_, self.raw, self.comment, self.generation, self.recursive, self.control, self.fail, self.now, self.cycler, self.print_),
            (6, 10, 6, 6, 6, 1, 2, 2, 1, 1, 1, 0.5, 1, 0.5, 0.5, 1, 0.2, 0.3, 0.3, 0.2))[0]
        return choice() if choice in (self.data, self.output, self.raw, self.comment, self.control, self.fail, self.now, self.cycler, self.print_) else choice(depth + 1)

    def output(self):
        return self.variable(self.expression())

    def print_(self):
        return self.tag(f"print {self.expression()}, {self.expression()}")

    def raw(self):
        return self.pick("{% raw %}", "{%- raw -%}", "{%raw%}", "{% raw -%}") + self.pick("{{ x }}", "{% if %}", " {# #} ", "\n a") + self.tag("endraw")

    def comment(self):
        return self.pick("{#", "{#-", "{#+") + self.pick(" c ", " {{ x }} ", "\n") + self.pick("#}", "-#}", "+#}")

    def if_(self, depth):
        text = self.tag("if " + self.expression("bool")) + self.block(depth)
        for _ in range(self.pick(0, 0, 1, 2)):
            text += self.tag("elif " + self.expression("bool")) + self.block(depth)
        if self.chance(0.4):
            text += self.tag("else") + self.block(depth)
        return text + self.tag("endif")

    def for_(self, depth):
        source = self.expression("list") if self.chance(0.8) else self.expression(self.pick("str", "dict", "any"))
        target = self.pick("x", "item", "m", "i", "v0")
        names = {target: self.pick("any", "dict", "int", "str")}
        if self.chance(0.15):
            target, source = "k, v", self.pick("d.items()", "d|items", "pairs", "deep.items()", source, "d|dictsort", "people|groupby('age', default=0)")
            names = {"k": "str", "v": "any"}
        condition = f" if {self.expression('bool')}" if self.chance(0.2) else ""
        self.in_loop += 1
        body = self.scoped(depth, names)
        self.in_loop -= 1
        otherwise = self.tag("else") + self.block(depth) if self.chance(0.2) else ""
        return self.tag(f"for {target} in {source}{condition}") + body + otherwise + self.tag("endfor")

    def recursive(self, depth):
        self.in_loop += 1
        body = self.scoped(depth, {"x": "any"})
        self.in_loop -= 1
        step = self.tag("if x is iterable and x is not string and x is not mapping") + self.variable("loop(x)") + self.tag("endif")
        return self.tag(f"for x in {self.pick('nested', '[1, [2, [3]]]', 'mixed')} recursive") + body + step + self.tag("endfor")

    def control(self):
        if not self.in_loop:
            return self.data()
        return self.tag(f"if {self.expression('bool')}") + self.tag(self.pick("break", "continue")) + self.tag("endif")

    def set_(self, depth):
        if self.chance(0.1):
            return self.tag(f"set v0, v1 = {self.expression()}, {self.expression()}")
        kind = self.rng.choice(list(TYPES))
        value = self.expression(kind)
        return self.tag(f"set {self.new_name(kind)} = {value}")

    def set_block(self, depth):
        filters = self.pick("", "", " | upper", " | trim | length", " | replace('a', 'b')", " | indent")
        body = self.scoped(depth)
        return self.tag(f"set {self.new_name('str')}{filters}") + body + self.tag("endset")

    def namespace(self, depth):
        if not self.namespaces or self.chance(0.3):
            name = self.pick("ns", "state")
            self.namespaces.append(name)
            return self.tag(f"set {name} = namespace({self.pick('', 'x=0', 'x=[], y=' + repr(''), 'd', 'x=none, y=1, z=' + repr('a'), '{' + repr('x') + ': 1}')})")
        name = self.rng.choice(self.namespaces)
        field = self.pick("x", "y", "z")
        value = self.pick(self.expression(), f"{name}.{field} + {self.expression('int')}", f"{name}.{field} + {self.expression('str')}", f"{name}.{field} + [{self.expression()}]")
        return self.tag(f"set {name}.{field} = {value}")

    def macro(self, depth):
        name = f"macro{len(self.macros)}"
        parameters = [f"p{i}" for i in range(self.rng.randint(0, 3))]
        defaults = self.rng.randint(0, len(parameters))
        signature = [p if i < len(parameters) - defaults else f"{p}={self.expression()}" for i, p in enumerate(parameters)]
        loops, self.in_loop = self.in_loop, 0
        self.in_macro += 1
        body = self.scoped(depth, {p: self.pick("any", "str", "int", "list") for p in parameters})
        body += self.pick("", "", "", "{{ caller() if caller }}", "{{ varargs }}", "{{ kwargs }}", "{{ caller is defined }}")
        self.in_macro -= 1
        self.in_loop = loops
        text = self.tag(f"macro {name}({', '.join(signature)})") + body + self.tag("endmacro")
        self.macros.append((name, parameters))
        return text

    def call_block(self, depth):
        if not self.macros:
            return self.macro(depth)
        return self.tag(f"call{self.pick('', '', '(q)')} {self.macro_call(2)}") + self.scoped(depth, {"q": "any"}) + self.tag("endcall")

    def filter_block(self, depth):
        return self.tag(f"filter {self.pick('upper', 'trim', 'replace(' + repr('a') + ', ' + repr('b') + ')', 'indent(2)', 'length', 'title|trim', 'tojson')}") + self.scoped(depth) + self.tag("endfilter")

    def with_(self, depth):
        value = self.expression()
        return self.tag(f"with {self.pick('v0', 'w')} = {value}{self.pick('', ', v1 = v0', ', v2 = 2')}") + self.scoped(depth, {"v0": "any"}) + self.tag("endwith")

    def generation(self, depth):
        return self.tag("generation") + self.scoped(depth) + self.tag("endgeneration")

    def fail(self):
        return self.variable(f"raise_exception({self.expression('str')})")

    def now(self):
        return self.variable(f"strftime_now('{self.pick('%Y-%m-%d', '%d %b %Y', '%H:%M', '%A, %B %d', '%j %y %%', '%-d', '%e')}')")

    def cycler(self):
        return self.pick("{% set cy = cycler('a', 1) %}{{ cy.next() }}{{ cy.current }}", "{% set j = joiner(', ') %}{{ j() }}x{{ j() }}y", "{{ loop.cycle('a', 'b') }}" if self.in_loop else "")


# ---- mutations ----

PIECES = re.compile(r"\{%[-+]?|[-+]?%\}|\{\{[-+]?|-?\}\}|\{#.*?#\}|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\w+|\s+|\*\*|//|[=!<>]=|.", re.S)


def mutate(rng, sources):
    pieces = PIECES.findall(rng.choice(sources))
    other = PIECES.findall(rng.choice(sources))
    if len(pieces) > 400:  # a window of a long template, between tags
        begin = rng.randrange(len(pieces))
        pieces = pieces[begin:begin + rng.choice((60, 200, 400))]
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not pieces or not other:
            break
        at, kind = rng.randrange(len(pieces)), rng.randrange(7)
        if kind == 0:
            del pieces[at]
        elif kind == 1:
            pieces[at] = rng.choice(other)
        elif kind == 2:
            pieces.insert(at, rng.choice(other))
        elif kind == 3:
            to = rng.randrange(len(pieces))
            pieces[at], pieces[to] = pieces[to], pieces[at]
        elif kind == 4:
            begin = rng.randrange(len(other))
            pieces[at:at] = other[begin:begin + rng.choice((2, 5, 20))]
        elif kind == 5:
            end = at + rng.choice((2, 5, 20))
            pieces[at:at] = pieces[at:end]
        else:
            end = at + rng.choice((2, 5, 20))
            del pieces[at:end]
    return "".join(pieces)


# ---- comparing ----


class TooLong(Exception):
    pass


def on_alarm(*_):
    raise TooLong


class Reference:
    def __init__(self):
        self.environment = _compile_jinja_template("").environment

    def render(self, source, variables):
        """(rendered, text or reason, line)"""
        signal.setitimer(signal.ITIMER_REAL, 4)
        try:
            text = self.environment.from_string(source).render(strftime_now=NOW.strftime, **variables)
            text.encode()
            return True, text, 0
        except TooLong:
            return None, "", 0
        except Exception as error:
            line = getattr(error, "lineno", None) if type(error).__name__ == "TemplateSyntaxError" or type(error).__name__ == "TemplateAssertionError" else None
            if line is None:
                frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>" or frame.filename == "<unknown>"]
                line = frames[-1] if frames else 0
            return False, f"{type(error).__name__}: {error}", line
        except RecursionError:
            return None, "", 0
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def outcome(source, ours, theirs):
    """What became of one program."""
    if theirs[0] is None:
        return "too long for jinja2"
    if not ours[0] and BEYOND.search(ours[1]):
        return "beyond"
    if ours[0] and theirs[0]:
        if ours[1] == theirs[1]:
            return "same"
        return "object names" if PYTHON_NAMES.search(theirs[1]) or METHODS.search(source) else "DIFFERENT"
    if not ours[0] and not theirs[0]:
        match = re.match(r"template:(\d+): (.*)", ours[1], re.S)
        if match is None:
            return "both fail, no line"
        if match[2] not in theirs[1]:
            return "both fail, another reason"
        return "both fail" if int(match[1]) == theirs[2] or "SyntaxError" not in theirs[1] and theirs[2] == 0 else "both fail, another line"
    if theirs[0] and PYTHON_NAMES.search(theirs[1]):
        return "object names"
    if theirs[0] and ("__" in source or FOLDED.search(ours[1])) or not theirs[0] and theirs[2] == 0 and "unhashable" in theirs[1]:
        return "folded"
    if "RecursionError" in theirs[1] or "MemoryError" in theirs[1] or "Exceeds the limit" in theirs[1] or "OverflowError" in theirs[1]:
        return "beyond"
    return "DIFFERENT"


def kind_of(ours, theirs):
    """Differences of one kind are likely to have one cause."""
    return ours[0], theirs[0], "" if theirs[0] else theirs[1].split(":")[0], "" if ours[0] else re.sub(r"\d+|'.*?'", "", ours[1])[:40]


def shrink(tool, reference, source, variables, seconds=6):
    """A shorter program that differs in the same way."""
    def differs(candidate):
        ours, theirs = tool.render(candidate, variables), reference.render(candidate, variables)
        return outcome(candidate, ours, theirs) == "DIFFERENT" and kind_of(ours, theirs)

    end, wanted = time.time() + seconds, differs(source)
    step = max(1, len(PIECES.findall(source)) // 2)
    while step >= 1 and time.time() < end:
        pieces, at, shorter = PIECES.findall(source), 0, False
        while at < len(pieces) and time.time() < end:
            candidate = "".join(pieces[:at] + pieces[at + step:])
            if differs(candidate) == wanted:
                pieces = PIECES.findall(candidate)
                source, shorter = candidate, True
            else:
                at += step
        if not shorter:
            step //= 2
    return source


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tool")
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reasons", action="store_true", help="show failures whose reasons or lines differ")
    parser.add_argument("--show", type=int, default=20)
    options = parser.parse_intermixed_args()
    signal.signal(signal.SIGALRM, on_alarm)
    tool, reference = Tool(options.tool), Reference()
    rng = random.Random(options.seed)
    sources = [template for _, template in cases()]
    real = [path.read_text() for folder in options.folders for path in sorted(pathlib.Path(folder).rglob("*.jinja"))]
    real_chats = [full(variables) for variables in chats().values()]
    counts, reasons, shown = collections.Counter(), collections.Counter(), 0
    begin = time.time()
    while time.time() - begin < options.seconds:
        variables, kind = VARIABLES, rng.random()
        if kind < 0.7:
            grammar = Grammar(rng)
            source = grammar.block(0, rng.choice((1, 2, 4, 8)))
        elif kind < 0.85 or not real:
            source = mutate(rng, sources)
        else:
            source, variables = mutate(rng, real), {**VARIABLES, **rng.choice(real_chats)}
        try:
            ours = tool.render(source, variables)
        except (RuntimeError, OSError):
            print(f"CRASH\n{source!r}")
            return 1
        theirs = reference.render(source, variables)
        result = outcome(source, ours, theirs)
        counts[result] += 1
        if result == "DIFFERENT":
            shown += 1
            if shown <= options.show:
                small = shrink(tool, reference, source, variables)
                print(f"DIFFERENT {small!r}\n  ours   {tool.render(small, variables)[:2]!r:.300}\n  theirs {reference.render(small, variables)!r:.300}", flush=True)
        elif result == "both fail, another reason":
            pattern = re.sub(r"'[^']*'|\d+", "_", theirs[1])[:70] + " | " + re.sub(r"'[^']*'|\d+", "_", ours[1].split(": ", 1)[-1])[:70]
            reasons[pattern] += 1
            if options.reasons and reasons[pattern] == 1:
                print(f"REASON {source[:300]!r}\n  ours   {ours[1]!r:.300}\n  theirs {theirs!r:.300}")
        elif result == "both fail, another line" and options.reasons:
            print(f"LINE {source!r}\n  ours   {ours[1]!r:.300}\n  theirs {theirs!r:.300}")
    if options.reasons:
        for pattern, count in reasons.most_common(60):
            print(f"{count:6} {pattern}")
    print(f"seed {options.seed}, {sum(counts.values())} programs in {time.time() - begin:.0f} s:", json.dumps(dict(counts.most_common())))
    return counts["DIFFERENT"] > 0


if __name__ == "__main__":
    sys.exit(main())
