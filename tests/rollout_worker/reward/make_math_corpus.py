#!/usr/bin/env python3
"""Makes pairs of mathematical answers, an expected one and a given one, in the forms in which people and models
write them, and asks Math-Verify about each: the fixture math_corpus.tsv that test_math_corpus.c holds the grader to.

usage: make_math_corpus.py [--seed N] [--pairs N] [--gsm8k FILE] OUTPUT
Needs: pip install math-verify==0.9.0 (sympy 1.14).

A line is: family, intended, verdict, expected, answer. `intended` is 1 when the two are equal by construction and
`verdict` what Math-Verify says of \\boxed{expected} and \\boxed{answer}. Families are drawn in turn, whatever
Math-Verify thinks of them; nothing is filtered but repetitions."""
import argparse
import json
import random
import sys
from fractions import Fraction
from math import comb, factorial, gcd

R = random.Random()
LETTERS = "xxxxxxyyynnabkmrtz"  # x, y and n are what most answers are about


def pick(*options):
    return R.choice(options)


def rarely(form, share=0.02):
    """A form that is seen, but seldom: in this share of the draws, else nothing."""
    return [form] if R.random() < share else []


def variable():
    return R.choice(LETTERS)


def nonzero(low, high):
    while True:
        value = R.randint(low, high)
        if value != 0:
            return value


def frac(f, style=None):
    """A Fraction in one of the ways it is written."""
    f = Fraction(f)
    if f.denominator == 1:
        return str(f.numerator)
    style = style or pick("frac", "frac", "dfrac", "tfrac", "slash", "inner")
    sign, top = ("-" if f < 0 else ""), abs(f.numerator)
    if style == "slash":
        return f"{f.numerator}/{f.denominator}"
    if style == "inner":
        return f"\\frac{{{f.numerator}}}{{{f.denominator}}}"
    if style == "short" and top < 10 and f.denominator < 10:
        return f"{sign}\\frac{top}{f.denominator}"
    if style in ("dfrac", "tfrac"):
        return f"{sign}\\{style}{{{top}}}{{{f.denominator}}}"
    return f"{sign}\\frac{{{top}}}{{{f.denominator}}}"


def random_fraction(high=60):
    while True:
        f = Fraction(nonzero(-high, high), R.randint(2, 40))
        if f.denominator != 1:
            return f


def thousands(n):
    text = f"{n:,}"
    return pick(text, text, text.replace(",", "{,}"), text.replace(",", ",\\!"), str(n), *rarely(text.replace(",", "\\,"), 0.1))


def spaced(text):
    """Changes of typography that mean nothing."""
    for _ in range(R.randint(0, 2)):
        change = R.randint(0, 5)
        if change == 0:
            text = " " + text + " "
        elif change == 1:
            text = text.replace("(", "\\left(").replace(")", "\\right)") if "\\left" not in text else text
        elif change == 2:
            text = text.replace("+", " + ")
        elif change == 3:
            text = text.replace("\\frac", "\\dfrac").replace("\\ddfrac", "\\dfrac")
        elif change == 4:
            text = text + "".join(rarely("."))
        elif change == 5:
            text = "\\displaystyle " + text if text.startswith("\\frac") else text
    return text


def signed(c, body, first):
    """A term c*body of a sum."""
    if c == 0:
        return ""
    sign = "-" if c < 0 else ("" if first else "+")
    size = abs(c)
    if body == "":
        return f"{sign}{size}"
    return f"{sign}{'' if size == 1 else size}{body}"


def polynomial(coefficients, var, order="down"):
    """Coefficients from the highest power down."""
    degree = len(coefficients) - 1
    terms = []
    for i, c in enumerate(coefficients):
        p = degree - i
        body = "" if p == 0 else var if p == 1 else f"{var}^{p}" if p < 10 and pick(0, 1) else f"{var}^{{{p}}}"
        if c:
            terms.append((c, body))
    if order == "up":
        terms.reverse()
    elif order == "mixed":
        R.shuffle(terms)
    text = "".join(signed(c, body, i == 0) for i, (c, body) in enumerate(terms))
    return text or "0"


def multiply(a, b):
    out = [0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return out


def wrong_int(n):
    text = str(abs(n))
    options = [n + 1, n - 1, -n if n else 7, n * 10, n + 10, n * 2 if n else 3, n // 2 if n // 2 != n else n + 4]
    if len(text) > 1:
        options.append(int(text[::-1]) * (1 if n >= 0 else -1))
    options = [o for o in options if o != n]
    return R.choice(options)


# Each family returns (expected, answer, intended).

def integer():
    n = pick(R.randint(-50, 200), R.randint(0, 20), R.randint(100, 10**6), R.randint(-10**4, 10**9))
    right = pick(1, 0)
    m = n if right else wrong_int(n)
    gold = pick(str(n), str(n), thousands(n) if n >= 0 else str(n))
    var = variable()
    form = pick(str(m), str(m), thousands(m) if m >= 0 else str(m), f"{m}.0", f"{m}.00", f"{var}={m}", f"{var} = {m}",
                f"({m})", f"{{{m}}}", f"\\mathbf{{{m}}}", f"\\text{{{m}}}", f"{m} \\text{{ units}}",
                f"\\,{m}", f"{m}\\text{{ ways}}", *rarely(f"{m}."))
    return gold, form, right


GSM8K = []


def word_problem():
    gold = R.choice(GSM8K)
    n = int(gold.replace(",", ""))
    right = pick(1, 0)
    m = n if right else wrong_int(n)
    if m < 0:
        m = n + 3
    form = pick(str(m), f"\\${m}", f"{m:,}", f"\\${m:,}", f"{m} \\text{{ dollars}}", f"{m}.00", f"\\$ {m}.00",
                f"{m} \\text{{ hours}}", f"{m} apples", f"{m}\\%" if right == 0 else str(m), f"\\text{{{m}}}",
                f"{m} \\text{{ students}}", f"{m} minutes", f"\\text{{Total}} = {m}", f"{m} miles")
    if form == f"{m}\\%" and m == n * 100:
        right = 1
    return gold, form, right


def fraction():
    f = random_fraction()
    right = pick(1, 0)
    g = f
    if not right:
        g = pick(-f, 1 / f, f + 1, Fraction(f.numerator + 1, f.denominator), Fraction(f.numerator, f.denominator + 1),
                 f * 2)
        if g == f:
            g = f + 3
    k = R.randint(2, 6)
    unreduced = f"\\frac{{{g.numerator * k}}}{{{g.denominator * k}}}"
    whole = int(abs(g))
    rest = abs(g) - whole
    mixed = f"{'-' if g < 0 else ''}{whole}{frac(rest, 'frac')}" if whole and rest else frac(g)
    exact = g.denominator
    while exact % 2 == 0:
        exact //= 2
    while exact % 5 == 0:
        exact //= 5
    decimal = f"{float(g):.8f}".rstrip("0") if exact == 1 else f"{float(g):.7f}"
    form = pick(frac(g), frac(g), frac(g, "short"), unreduced, mixed, decimal, f"{variable()}={frac(g)}",
                f"({frac(g)})", f"\\left({frac(g)}\\right)", f"{g.numerator} / {g.denominator}",
                f"{g.numerator}\\div {g.denominator}")
    return frac(f), spaced(form), right


def truncated_decimal():
    f = random_fraction()
    exact = f.denominator
    while exact % 2 == 0:
        exact //= 2
    while exact % 5 == 0:
        exact //= 5
    if exact == 1:
        f += Fraction(1, 3)
    digits = R.randint(1, 4)
    return frac(f), f"{float(f):.{digits}f}", 0


def decimal():
    digits = R.randint(1, 4)
    value = round(R.uniform(-100, 1000), digits)
    text = f"{value:.{digits}f}"
    right = pick(1, 0)
    other = value if right else round(value + pick(1, -1, 10, 0.5 if digits == 1 else 0.25), 4)
    form = pick(f"{other:.{digits}f}", f"{other:.{digits + 2}f}", f"\\${other:.{digits}f}" if other > 0 else f"{other}",
                frac(Fraction(str(other))), f"{other:.{digits}f}".lstrip("0") if 0 < other < 1 else f"{other}",
                f"{other} \\text{{ meters}}", f"{other}\\text{{ cm}}^2", f"x={other}", f"{other} cm", f"{other:,}")
    return text, form, right


def percent():
    n = pick(*[R.randint(1, 100)] * 6, Fraction(R.randint(1, 999), 10))
    text = str(n) if isinstance(n, int) else f"{float(n):.1f}"
    right = pick(1, 0)
    other = text if right else str(R.randint(101, 150))
    form = pick(f"{other}\\%", f"{other}\\%", f"{other}%", f"{other} \\%", f"{other}", f"{other}\\text{{ percent}}",
                f"{other} percent")
    return pick(f"{text}\\%", f"{text}\\%", f"{text}\\%", text), form, right


def radical():
    a, b, c = nonzero(-9, 9), pick(2, 3, 5, 6, 7, 10, 11, 13, 15), pick(1, 1, 2, 3, 4, 5, 7)
    f = Fraction(a, c)
    gold = (signed(f.numerator, f"\\sqrt{{{b}}}", True) if f.denominator == 1 else
            f"{'-' if f < 0 else ''}\\frac{{{'' if abs(f.numerator) == 1 else abs(f.numerator)}\\sqrt{{{b}}}}}{{{f.denominator}}}")
    right = pick(1, 0)
    if not right:
        f, b = pick((f, b + 1), (-f, b), (f * 2, b), (f + 1 if f != -1 else f + 3, b))
    n, d = f.numerator, f.denominator
    sign = "-" if n < 0 else ""
    under = Fraction(n * n * b, d * d)
    forms = [f"{sign}\\sqrt{{{frac(under, 'frac')}}}", f"{frac(f, 'frac')}\\sqrt{{{b}}}",
             f"{sign}\\frac{{\\sqrt{{{n * n * b}}}}}{{{d}}}", f"{sign}\\frac{{{abs(n) * b}}}{{{d}\\sqrt{{{b}}}}}",
             f"{float(f) * b ** 0.5:.6f}", f"{sign}{abs(n)} \\cdot \\frac{{\\sqrt{{{b}}}}}{{{d}}}",
             f"{sign}\\frac{{{abs(n)} \\cdot {b}^{{1/2}}}}{{{d}}}", f"{sign}{abs(n)}\\sqrt{{{b}}}/{d}"]
    if b < 10:
        forms.append(f"{sign}\\frac{{{abs(n)}\\sqrt{b}}}{{{d}}}")
    return gold, spaced(R.choice(forms)), right


def surd_sum():
    a, b, c, d = nonzero(-9, 9), nonzero(-6, 6), pick(2, 3, 5, 7, 11), R.randint(2, 6)
    gold = f"\\frac{{{a}{signed(b, f'{chr(92)}sqrt{{{c}}}', False)}}}{{{d}}}"
    right = pick(1, 0)
    if not right:
        a, b, d = pick((a + 1, b, d), (a, -b, d), (a, b, d + 1), (-a, -b, d))
    forms = [f"\\frac{{{signed(b, f'{chr(92)}sqrt{{{c}}}', True)}{signed(a, '', False)}}}{{{d}}}",
             f"{frac(Fraction(a, d), 'frac')} + {frac(Fraction(b, d), 'frac')}\\sqrt{{{c}}}",
             f"({a}{signed(b, f'{chr(92)}sqrt{{{c}}}', False)})/{d}",
             f"\\frac{{{2 * a}{signed(2 * b, f'{chr(92)}sqrt{{{c}}}', False)}}}{{{2 * d}}}",
             f"\\frac{{1}}{{{d}}}({a}{signed(b, f'{chr(92)}sqrt{{{c}}}', False)})"]
    return gold, spaced(R.choice(forms)), right


def pi_multiple():
    f = abs(random_fraction(20))
    right = pick(1, 0)
    g = f if right else pick(f + 1, f * 2, 1 / f, f / 2)
    if g == f:
        right = 1
    n, d = g.numerator, g.denominator
    gold = f"\\frac{{{'' if f.numerator == 1 else f.numerator}\\pi}}{{{f.denominator}}}"
    forms = [f"\\frac{{{n}\\pi}}{{{d}}}" if d > 1 else f"{n}\\pi", f"\\frac{{{n}}}{{{d}}}\\pi", f"{n}\\pi/{d}",
             f"\\frac{{{n} \\cdot \\pi}}{{{d}}}", f"{frac(g)} \\pi", f"\\pi \\cdot \\frac{{{n}}}{{{d}}}",
             f"\\dfrac{{{n}\\pi}}{{{d}}}", f"{n}π/{d}", f"{float(g) * 3.14159265358979:.6f}", *rarely(f"\\frac{{{n} pi}}{{{d}}}")]
    return gold, R.choice(forms), right


def factored():
    var = variable()
    p, q = [nonzero(1, 4), nonzero(-9, 9)], [nonzero(1, 3), nonzero(-9, 9)]
    product = multiply(p, q)
    right = pick(1, 0)
    if not right:
        i = R.randint(0, 2)
        product[i] += pick(1, -1, 2)
        if product[0] == 0:
            product[0] = 5
    expanded = polynomial(product, var, pick("down", "up", "mixed"))
    product_form = pick(f"({polynomial(p, var)})({polynomial(q, var)})",
                        f"({polynomial(q, var)})({polynomial(p, var)})",
                        f"({polynomial(p, var)}) \\cdot ({polynomial(q, var)})",
                        f"\\left({polynomial(p, var)}\\right)\\left({polynomial(q, var)}\\right)")
    return (product_form, expanded, right) if pick(0, 1) else (expanded, product_form, right)


def polynomial_order():
    var = variable()
    c = [nonzero(-9, 9) for _ in range(R.randint(2, 5))]
    right = pick(1, 0)
    d = list(c)
    if not right:
        i = R.randint(0, len(d) - 1)
        d[i] = -d[i] if pick(0, 1) else d[i] + 1
        if d[0] == 0:
            d[0] = 12
    text = polynomial(d, var, pick("up", "mixed", "down"))
    if pick(0, 0, 0, 1):
        text = f"{pick('f(x)', 'P', 'p')} = {text}"
    return polynomial(c, var), spaced(text), right


def rational_function():
    var = variable()
    a, b, c = nonzero(1, 9), nonzero(-9, 9), nonzero(-9, 9)
    gold = f"\\frac{{{a}}}{{{polynomial([1, b], var)}}}"
    right = pick(1, 0)
    a2, b2 = (a, b) if right else pick((a + 1, b), (a, -b), (-a, b))
    forms = [f"\\frac{{{2 * a2}}}{{{polynomial([2, 2 * b2], var)}}}", f"{a2}({polynomial([1, b2], var)})^{{-1}}",
             f"\\frac{{-{a2}}}{{{polynomial([-1, -b2], var)}}}" if a2 > 0 else f"{a2}/({polynomial([1, b2], var)})",
             f"{a2}/({polynomial([1, b2], var)})", f"\\dfrac{{{a2}}}{{{polynomial([1, b2], var)}}}",
             f"\\frac{{{a2}({polynomial([1, c], var)})}}{{({polynomial([1, b2], var)})({polynomial([1, c], var)})}}"]
    return gold, R.choice(forms), right


def several_variables():
    a, b = R.choice(("xy", "xy", "xy", "ab", "ab", "ab", "yx", "mn", "xz", "ac", "pq"))
    k, n = nonzero(2, 9), nonzero(2, 5)
    right = pick(1, 0)
    cases = [(f"{k}{a}{b}", f"{k}{b}{a}", f"{k}{a}+{b}"), (f"{a}^{n}{b}", f"{b}{a}^{{{n}}}", f"{a}{b}^{n}"),
             (f"\\frac{{{a}}}{{{k}{b}}}", f"\\frac{{1}}{{{k}}} \\cdot \\frac{{{a}}}{{{b}}}", f"\\frac{{{k}{a}}}{{{b}}}"),
             (f"({a}+{b})^2", f"{a}^2+2{a}{b}+{b}^2", f"{a}^2+{b}^2"),
             (f"{a}^2-{b}^2", f"({a}-{b})({a}+{b})", f"({a}-{b})^2"),
             (f"{a}-{b}", f"-{b}+{a}", f"{b}-{a}"),
             (f"{k}{a}+{n}{b}", f"{n}{b}+{k}{a}", f"{n}{a}+{k + n}{b}"),
             (f"\\frac{{{a}+{b}}}{{{k}}}", f"\\frac{{{a}}}{{{k}}}+\\frac{{{b}}}{{{k}}}", f"{a}+\\frac{{{b}}}{{{k}}}"),
             (f"{a}({b}+{k})", f"{a}{b}+{k}{a}", f"{a}{b}+{k}"),
             (f"{a}^{{{n}}}", f"{a}^{{{n - 1}}} \\cdot {a}", f"{n}{a}"),
             (f"\\sqrt{{{a}^2+{b}^2}}", f"({a}^2+{b}^2)^{{1/2}}", f"{a}+{b}")]
    gold, same, other = R.choice(cases)
    return gold, same if right else other, right


def transcendental():
    n, k = R.randint(2, 9), R.randint(2, 5)
    cases = [(f"\\ln {n ** k}", f"{k}\\ln {n}", f"\\ln {n * k}"), (f"\\log_{n} {n ** k}", f"{k}", f"{k + 1}"),
             (f"\\log_{{{n}}} {n ** k}", f"{k}", f"{n}"), (f"e^{{{n}}}", f"\\exp({n})", f"e^{{-{n}}}"),
             ("\\sin^2 x", "1-\\cos^2 x", "1-\\cos x"), ("\\sin 2x", "2\\sin x\\cos x", "\\sin x \\cos x"),
             (f"\\ln {n} + \\ln {k}", f"\\ln {n * k}", f"\\ln {n + k}"), (f"\\frac{{\\ln {n}}}{{\\ln {k + 5}}}", f"\\log_{{{k + 5}}} {n}", f"\\ln \\frac{{{n}}}{{{k + 5}}}"),
             (f"\\tan x", "\\frac{\\sin x}{\\cos x}", "\\frac{\\cos x}{\\sin x}"), ("\\cos 2x", "2\\cos^2 x-1", "2\\cos x - 1"),
             (f"\\arctan {n}", f"\\tan^{{-1}} {n}", f"\\arctan {n + 1}"), (f"{n}^{{x}}", f"e^{{x \\ln {n}}}", f"x^{{{n}}}"),
             (f"e^x", "\\exp(x)", "e^{-x}"), (f"\\frac{{1}}{{{n}}}\\ln {k}", f"\\frac{{\\ln {k}}}{{{n}}}", f"\\ln \\frac{{{k}}}{{{n}}}"),
             (f"\\sin \\frac{{\\pi}}{{6}}", "\\frac{1}{2}", "\\frac{\\sqrt{3}}{2}"), (f"\\log {n} + \\log {k}", f"\\log {n * k}", f"\\log {n + k}"),
             (f"\\cos \\theta", "\\cos(\\theta)", "\\sin \\theta"), (f"2^{{{k}}} \\cdot 3", f"{2 ** k * 3}", f"{2 ** k + 3}")]
    gold, same, other = R.choice(cases)
    right = pick(1, 0)
    return gold, same if right else other, right


def powers():
    b, e = R.randint(2, 12), R.randint(2, 12)
    right = pick(1, 0)
    other = b ** e if right else pick(b * e, b ** e + 1, b ** (e - 1), -(b ** e))
    if other == b ** e:
        right = 1
    gold, form = f"{b}^{{{e}}}", str(other)
    if pick(0, 1) and right:
        form = pick(f"{b}^{{{e - 1}}} \\cdot {b}", f"{b}^{e}" if e < 10 else form, f"{b} \\cdot {b}^{{{e - 1}}}", f"{other:,}")
    return (gold, form, right) if pick(0, 1) else (form, gold, right)


def scientific():
    m, e = R.randint(11, 99), R.randint(-6, 8)
    value = Fraction(m, 10) * Fraction(10) ** e
    text = f"{m / 10} \\times 10^{{{e}}}"
    right = pick(1, 0)
    if e >= 1:
        other = str(int(value)) if right else str(int(value) * 10)
    else:
        other = pick(f"{float(value):.{1 - e}f}", f"{m / 10} \\cdot 10^{{{e}}}", *rarely(frac(value, "frac"), 0.1)) if right else f"{m / 10} \\times 10^{{{-e + 1}}}"
    return text, other, right


def point():
    n = pick(2, 2, 2, 3)
    values = [pick(str(R.randint(-9, 9)), frac(random_fraction(9), "frac")) for _ in range(n)]
    right = pick(1, 0)
    other = list(values)
    if not right:
        i = R.randint(0, n - 1)
        if pick(0, 1) and other[0] != other[1]:
            other[0], other[1] = other[1], other[0]
        else:
            other[i] = str(R.randint(10, 19))
    sep = pick(",", ", ", ",\\ ", ", ")
    form = pick(f"({sep.join(other)})", f"\\left({sep.join(other)}\\right)", f"({sep.join(other)})",
                f"({sep.join(v.replace('frac', 'dfrac') for v in other)})", f"({'{},'.join(other).replace('{},', ' , ')})")
    if n == 2 and pick(0, 0, 0, 1):
        form = f"(x,y)=({sep.join(other)})"
    return f"({','.join(values)})", form, right


def roots():
    n = pick(2, 2, 3, 3, 4)
    values = R.sample(range(-12, 30), n)
    right = pick(1, 0)
    other = list(values)
    R.shuffle(other)
    if not right:
        other = pick(other[:-1], other + [41], other[:-1] + [52]) if n > 2 else pick(other[:1], other[:1] + [31])
    gold = pick(",".join(map(str, values)), ", ".join(map(str, values)), f"\\{{{', '.join(map(str, values))}\\}}")
    forms = [", ".join(map(str, other)), f"\\{{{','.join(map(str, other))}\\}}",
             f"\\left\\{{ {', '.join(map(str, other))} \\right\\}}", " \\text{ and } ".join(map(str, other)),
             ", ".join(map(str, other[:-1])) + f" \\text{{ and }} {other[-1]}" if len(other) > 1 else str(other[0]),
             f"x={', '.join(map(str, other))}", " or ".join(map(str, other)),
             " \\text{ or } ".join(f"x={v}" for v in other), ", ".join(f"x={v}" for v in other),
             "; ".join(map(str, other))]
    return gold, R.choice(forms), right


def fraction_set():
    values = [random_fraction(9) for _ in range(2)]
    if values[0] == values[1]:
        values[1] += 1
    right = pick(1, 0)
    other = values[::-1] if right else [values[0], values[1] + 1]
    forms = [", ".join(frac(v, "dfrac") for v in other), f"\\{{{', '.join(frac(v) for v in other)}\\}}",
             " \\text{ and } ".join(frac(v, "frac") for v in other)]
    return ", ".join(frac(v, "frac") for v in values), R.choice(forms), right


def plus_minus():
    a, b, c = R.randint(-9, 9), pick(2, 3, 5, 7), R.randint(1, 5)
    root = signed(c, f"\\sqrt{{{b}}}", True)
    right = pick(1, 0)
    other = root if right else signed(c + 1, f"\\sqrt{{{b}}}", True)
    both = f"{a}+{other}, {a}-{other}" if a else f"{other}, -{other}"
    gold = f"{a} \\pm {root}" if a else f"\\pm {root}"
    forms = [both, f"{a} \\pm {other}" if a else f"\\pm {other}", f"\\{{{both}\\}}", f"{a}-{other}, {a}+{other}" if a else both]
    return (gold, R.choice(forms), right) if pick(0, 1) else (f"{a}+{root}, {a}-{root}" if a else f"{root}, -{root}", R.choice(forms), right)


def endpoints():
    a = R.randint(-20, 20)
    b = a + R.randint(1, 20)
    left, right = pick("(", "["), pick(")", "]")
    low, high = str(a), str(b)
    if pick(0, 0, 1):
        low, left = "-\\infty", "("
    elif pick(0, 0, 1):
        high, right = "\\infty", ")"
    return left, low, high, right


def interval():
    left, low, high, close = endpoints()
    right = pick(1, 0)
    o = (left, low, high, close)
    if not right:
        finite_low, finite_high = low != "-\\infty", high != "\\infty"
        if finite_low and pick(0, 1):
            o = ("(" if left == "[" else "[", low, high, close)
        elif finite_high and pick(0, 1):
            o = (left, low, high, ")" if close == "]" else "]")
        elif finite_high:
            o = (left, low, str(int(high) + 1), close)
        else:
            o = (left, str(int(low) - 1), high, close)
    body = f"{o[0]}{o[1]},{pick('', ' ')}{o[2]}{o[3]}"
    form = pick(body, body, f"\\left{o[0]}{o[1]}, {o[2]}\\right{o[3]}", f"x \\in {body}")
    return f"{left}{low},{high}{close}", form, right


def union():
    a = sorted(R.sample(range(-15, 15), 4))
    parts = [("(", "-\\infty", str(a[0]), pick(")", "]")), (pick("(", "["), str(a[1]), str(a[2]), pick(")", "]"))]
    if pick(0, 1):
        parts[1] = (pick("(", "["), str(a[1]), "\\infty", ")")
    right = pick(1, 0)
    other = list(parts)
    if right and pick(0, 1):
        other.reverse()
    if not right:
        p = other[0]
        other[0] = pick((p[0], p[1], p[2], ")" if p[3] == "]" else "]"), (p[0], p[1], str(int(p[2]) - 1), p[3]))
    show = lambda ps, cup: cup.join(f"{p[0]}{p[1]},{p[2]}{p[3]}" for p in ps)
    return show(parts, "\\cup "), show(other, pick("\\cup", " \\cup ", "\\cup ", " \\cup ")), right


def inequality():
    var = variable()
    n, k = R.randint(-20, 20), R.randint(2, 5)
    op = pick("<", ">", "\\le", "\\ge", "\\leq", "\\geq")
    turn = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\leq": "\\geq", "\\geq": "\\leq"}
    loose = {"<": "\\le", ">": "\\ge", "\\le": "<", "\\ge": ">", "\\leq": "<", "\\geq": ">"}
    right = pick(1, 0)
    o, m = (op, n) if right else pick((op, n + 1), (turn[op], n), (loose[op], n))
    gold = f"{var} {op} {n}"
    forms = [f"{var} {o} {m}", f"{m} {turn[o]} {var}", f"{var}{o}{' ' if o[0] == chr(92) else ''}{m}"]
    up = o in (">", "\\ge", "\\geq")
    closed = o not in ("<", ">")
    forms.append(f"{'[' if closed else '('}{m}, \\infty)" if up else f"(-\\infty, {m}{']' if closed else ')'}")
    return gold, R.choice(forms), right


def double_inequality():
    var = variable()
    a = R.randint(-20, 20)
    b = a + R.randint(1, 15)
    o1, o2 = pick("<", "\\le"), pick("<", "\\le")
    right = pick(1, 0)
    p1, p2, c, d = (o1, o2, a, b) if right else pick((o1, o2, a - 1, b), (o1, o2, a, b + 1), ("<" if o1 != "<" else "\\le", o2, a, b))
    turn = {"<": ">", "\\le": "\\ge"}
    forms = [f"{c} {p1} {var} {p2} {d}", f"{c}{p1 + ' ' if p1 != '<' else p1}{var}{p2 + ' ' if p2 != '<' else p2}{d}",
             f"{'(' if p1 == '<' else '['}{c},{d}{')' if p2 == '<' else ']'}", *rarely(f"{d} {turn[p2]} {var} {turn[p1]} {c}", 0.1)]
    return f"{a} {o1} {var} {o2} {b}", R.choice(forms), right


def line():
    m, b = nonzero(-9, 9), nonzero(-9, 9)
    gold = f"y={polynomial([m, b], 'x')}"
    right = pick(1, 0)
    n, c = (m, b) if right else pick((m + 10, b), (m, -b), (-m, b))
    k = R.randint(2, 4)
    forms = [f"y = {polynomial([n, c], 'x')}", f"{polynomial([n, c], 'x')}=y", f"{signed(n, 'x', True)}-y{signed(c, '', False)}=0",
             f"{polynomial([n, c], 'x')}", f"{k}y={polynomial([k * n, k * c], 'x')}", f"y{signed(-n, 'x', False)}={c}"]
    return gold, R.choice(forms), right


def circle():
    h, k, r = R.randint(-9, 9), R.randint(-9, 9), R.randint(1, 9)
    sq = lambda v, c: f"{v}^2" if c == 0 else f"({v}{signed(-c, '', False)})^2"
    gold = f"{sq('x', h)}+{sq('y', k)}={r * r}"
    right = pick(1, 0)
    h2, r2 = (h, r) if right else pick((h + 1, r), (h, r + 1))
    general = f"x^2{signed(-2 * h2, 'x', False)}+y^2{signed(-2 * k, 'y', False)}{signed(h2 * h2 + k * k - r2 * r2, '', False)}=0"
    forms = [f"{sq('y', k)}+{sq('x', h2)}={r2 * r2}", f"{sq('x', h2)}+{sq('y', k)}={r2}^2", general]
    return gold, R.choice(forms), right


def assignment():
    var, n = R.choice("xyzabcnk"), pick(R.randint(-30, 60), random_fraction(12))
    value = frac(n, "frac")
    right = pick(1, 0)
    other = value if right else frac(Fraction(n) + 1, "frac")
    name = var
    if not right and pick(0, 1):
        other, name = value, R.choice([v for v in "xyzabcnk" if v != var])
    form = pick(f"{name}={other}", f"{name} = {other}") if name != var else pick(other, f"{name}={other}", f"{name} = {other}")
    gold = f"{var}={value}" if name != var or pick(0, 1) else value
    return gold, form, right


def matrix():
    rows, columns = pick((2, 1), (3, 1), (2, 2), (2, 2), (3, 3), (1, 3))
    m = [[str(R.randint(-9, 9)) for _ in range(columns)] for _ in range(rows)]
    if pick(0, 0, 1):
        m[0][0] = frac(random_fraction(9), "frac")
    right = pick(1, 0)
    o = [list(r) for r in m]
    if not right:
        o[R.randint(0, rows - 1)][R.randint(0, columns - 1)] = str(R.randint(10, 20))
    show = lambda a, env, sep: f"\\begin{{{env}}} {sep.join(' & '.join(r) for r in a)} \\end{{{env}}}"
    env, sep = pick("pmatrix", "bmatrix", "pmatrix"), pick(" \\\\ ", "\\\\", " \\\\ ")
    return show(m, "pmatrix", " \\\\ "), show(o, env, sep), right


def complex_number():
    a, b = R.randint(-9, 9), nonzero(-9, 9)
    right = pick(1, 0)
    c, d = (a, b) if right else pick((a, -b), (a + 1, b), (b, a if a else 3))
    if (c, d) == (a, b):
        right = 1
    unit = "i"
    show = lambda x, y: (str(x) if x else "") + signed(y, unit, not x)
    forms = [show(c, d), signed(d, "i", True) + (signed(c, "", False) if c else ""), show(c, d).replace("+", " + "), f"({show(c, d)})"]
    return show(a, b), R.choice(forms), right


WORDS = ["even", "odd", "Monday", "Tuesday", "Sunday", "hyperbola", "parabola", "circle", "ellipse", "east", "north",
         "yes", "no", "true", "false", "Evelyn", "isosceles", "none", "neither", "Navin", "point", "line", "Spain",
         "red", "blue", "right", "increasing", "convergent", "undefined", "rectangle", "Friday", "Alice", "Bob"]


def words():
    word = R.choice(WORDS)
    right = pick(1, 0)
    other = word if right else R.choice([w for w in WORDS if w != word])
    if not right and pick(0, 0, 1):
        other = f"not {word}"
    forms = [other, f"\\text{{{other}}}", f"\\text{{ {other} }}", f"\\textbf{{{other}}}", f"\\mathrm{{{other}}}", other.capitalize(),
             f"\\text{{{other.lower()}}}", *rarely(f"\\text{{{other}.}}", 0.05)]
    return f"\\text{{{word}}}", R.choice(forms), right


def phrase():
    text = R.choice(["No solution", "no real solutions", "right triangle", "does not exist", "acute angle", "blue whale",
                     "Lake Victoria", "the second one", "is undefined", "perfect square"])
    right = pick(1, 0)
    other = text if right else R.choice(["infinitely many", "obtuse angle", "white whale", "Lake Superior", "a prime"])
    return f"\\text{{{text}}}", pick(f"\\text{{{other}}}", f"\\text{{{other.lower()}}}", f"\\textbf{{{other}}}", f"\\mbox{{{other}}}"), right


def choice():
    letter = R.choice("ABCDE")
    right = pick(1, 0)
    other = letter if right else R.choice([c for c in "ABCDE" if c != letter])
    forms = [other, f"({other})", f"\\text{{{other}}}", f"\\text{{({other})}}", f"\\mathbf{{{other}}}", f"\\textbf{{({other})}}", *rarely(f"{other}.", 0.05)]
    return pick(letter, f"\\text{{({letter})}}", f"\\text{{{letter}}}"), R.choice(forms), right


UNITS = ["cm", "inches", "square units", "feet", "meters", "miles per hour", "km", "hours", "minutes", "degrees", "square feet",
         "pounds", "cubic inches", "dollars", "ways", "kg", "seconds", "years"]


def units():
    n, unit = pick(R.randint(1, 500), random_fraction(30)), R.choice(UNITS)
    value = frac(abs(n), "frac")
    right = pick(1, 0)
    other = value if right else frac(abs(n) + 1, "frac")
    forms = [f"{other}\\text{{ {unit}}}", f"{other} \\text{{ {unit}}}", f"{other}\\ \\text{{{unit}}}", f"{other}\\mbox{{ {unit}}}", other,
             f"{other}\\,\\mathrm{{{unit.split()[0]}}}", f"{other}\\text{{ {unit}}}^2" if unit in ("cm", "feet", "meters", "km") else other]
    return pick(value, f"{value}\\text{{ {unit}}}"), R.choice(forms), right


def plain_units():
    n, unit = R.randint(1, 500), R.choice(["cm", "inches", "feet", "meters", "km", "hours", "minutes", "degrees", "pounds", "kg", "mph", "days"])
    right = pick(1, 0)
    other = n if right else n + pick(1, 5)
    return str(n), pick(f"{other} {unit}", f"{other} {unit}", *rarely(f"{other} {unit}.")), right


def degrees():
    n = R.randint(1, 360)
    right = pick(1, 0)
    other = n if right else n + pick(1, 10, 30)
    mark = "^\\circ"
    return f"{n}{mark}", pick(f"{other}{mark}", f"{other}^{{\\circ}}", str(other), f"{other} \\text{{ degrees}}",
                                *rarely(f"{other}°", 0.1), *rarely(f"{other}^\\circ.")), right


def money():
    cents = R.randint(50, 200000)
    right = pick(1, 0)
    other = cents if right else cents + pick(1, 10, 100)
    show = lambda c: f"{c / 100:.2f}"
    return pick(f"\\${show(cents)}", show(cents)), pick(f"\\${show(other)}", show(other), f"\\${other / 100:,.2f}", *rarely(f"\\text{{\\${show(other)}}}"),
                                                       f"{show(other)} \\text{{ dollars}}"), right


def mixed_number():
    whole, f = R.randint(1, 20), Fraction(R.randint(1, 7), R.randint(8, 12))
    total = whole + f
    right = pick(1, 0)
    other = total if right else pick(total + 1, Fraction(whole) * f, total - f + 1 - f)
    if other == total:
        right = 1
    text = f"{whole}\\frac{{{f.numerator}}}{{{f.denominator}}}"
    return text, pick(frac(other, "frac"), frac(other, "dfrac"), f"{float(other):.8f}", frac(other, "slash")), right


def counting():
    n = R.randint(4, 12)
    k = R.randint(2, n - 2)
    right = pick(1, 0)
    kind = pick("binom", "factorial", "product")
    if kind == "binom":
        return pick(f"\\binom{{{n}}}{{{k}}}", f"\\dbinom{{{n}}}{{{k}}}"), str(comb(n, k) if right else comb(n, k) + 1), right
    if kind == "factorial":
        return pick((f"{n}!", str(factorial(n) if right else factorial(n - 1)), right), (str(factorial(n)), f"{n if right else n + 1}!", right))
    return f"{n}! \\cdot {k}", pick(str(factorial(n) * k) if right else str(factorial(n) + k), f"{k} \\cdot {n}!" if right else f"{k}! \\cdot {n * 2}"), right


def base():
    b = pick(2, 3, 5, 7, 8)
    digits = "".join(str(R.randint(0, b - 1)) for _ in range(R.randint(2, 5)))
    digits = str(R.randint(1, b - 1)) + digits
    right = pick(1, 0)
    other = digits if right else str(R.randint(1, b - 1)) + digits
    return f"{digits}_{pick(str(b), '{' + str(b) + '}')}", pick(f"{other}_{b}", f"{other}_{{{b}}}", other), right


def function_value():
    c = [nonzero(-9, 9) for _ in range(R.randint(2, 3))]
    right = pick(1, 0)
    d = list(c)
    if not right:
        d[-1] += pick(1, -1, 3)
    f, g = "f(x)", pick("f(x)", "f(x)", "y")
    return f"{f}={polynomial(c, 'x')}", pick(f"f(x) = {polynomial(d, 'x')}", polynomial(d, "x"), f"f(x)={polynomial(d, 'x', 'up')}"), right


def absolute():
    a, b = R.randint(1, 9), R.randint(1, 9)
    cases = [(f"|x-{a}|", f"|{a}-x|", f"|x+{a}|"), (f"|{a}x|", f"{a}|x|", f"{a}x"), (f"|{-a}|", f"{a}", f"{-a}"),
             (f"\\lfloor {a}.5 \\rfloor", f"{a}", f"{a + 1}"), (f"\\lceil {a}.5 \\rceil", f"{a + 1}", f"{a}"),
             (f"\\sqrt{{x^2}}", "|x|", "x"), (f"|{a}-{a + b}|", f"{b}", f"{-b}")]
    gold, same, other = R.choice(cases)
    right = pick(1, 0)
    return gold, same if right else other, right


def special():
    cases = [("\\emptyset", pick("\\varnothing", "\\emptyset"), "0"), ("\\infty", "+\\infty", "-\\infty"), ("-\\infty", "-\\infty", "\\infty"),
             ("\\mathbb{R}", pick("\\mathbb{R}", "(-\\infty, \\infty)"), "\\mathbb{Z}"), ("0", pick("0", "-0", "0.0"), "\\emptyset"),
             ("\\mathbb{R} \\setminus \\{2\\}", "(-\\infty,2)\\cup(2,\\infty)", "\\mathbb{R}"), ("\\mathbb{Z}", "\\mathbb{Z}", "\\mathbb{N}"),
             ("e", "e", "\\pi"), ("\\pi", "\\pi", "3.14"), ("\\pi", "π", "2\\pi"), ("\\frac{\\pi}{2}", "\\pi/2", "90"),
             ("1", pick("1.0", "\\frac{2}{2}", "100\\%"), "-1")]
    gold, same, other = R.choice(cases)
    right = pick(1, 0)
    return gold, same if right else other, right


def point_list():
    points = [(R.randint(-9, 9), R.randint(-9, 9)) for _ in range(2)]
    if points[0] == points[1]:
        points[1] = (11, 12)
    right = pick(1, 0)
    other = points[::-1] if pick(0, 1) else list(points)
    if not right:
        other = pick([points[0], (points[1][0] + 20, points[1][1])], [points[0]])
    show = lambda ps, sep: sep.join(f"({x},{y})" for x, y in ps)
    return show(points, ","), pick(show(other, ", "), show(other, " \\text{ and } "), f"\\{{{show(other, ', ')}\\}}"), right


def ratio():
    a, b = R.randint(1, 12), R.randint(1, 12)
    right = pick(1, 0)
    c, d = (a, b) if right else pick((a, b + 1), (b, a + 13))
    return f"{a}:{b}", pick(f"{c}:{d}", f"{c} : {d}", f"\\frac{{{c}}}{{{d}}}"), right


def recurring():
    n = R.randint(1, 8)
    right = pick(1, 0)
    m = n if right else n + 1
    return f"0.\\overline{{{n}}}", pick(f"0.\\overline{{{m}}}", f"0.\\overline{{{m}}}", f"\\frac{{{m}}}{{9}}"), right


FAMILIES = {
    integer: 6, word_problem: 6, fraction: 8, truncated_decimal: 1, decimal: 4, percent: 2, radical: 5, surd_sum: 4,
    pi_multiple: 4, factored: 4, polynomial_order: 4, rational_function: 2, several_variables: 4, transcendental: 4,
    powers: 2, scientific: 2, point: 5, roots: 5, fraction_set: 2, plus_minus: 2, interval: 4, union: 3, inequality: 3,
    double_inequality: 2, line: 3, circle: 1, assignment: 3, matrix: 3, complex_number: 3, words: 3, phrase: 1, choice: 3,
    units: 4, plain_units: 2, degrees: 2, money: 2, mixed_number: 2, counting: 2, base: 1, function_value: 2, absolute: 1,
    special: 2, point_list: 2, ratio: 1, recurring: 0.25,
}


def verdict(expected, answer):
    from math_verify import parse, verify
    gold, given = parse(f"\\boxed{{{expected}}}"), parse(f"Thus the answer is \\boxed{{{answer}}}.")
    return int(bool(verify(gold, given)))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, default=2024)
    arguments.add_argument("--pairs", type=int, default=3000)
    arguments.add_argument("--gsm8k", help="test.jsonl with a `label` in every line")
    arguments.add_argument("output")
    options = arguments.parse_args()
    R.seed(options.seed)
    if options.gsm8k:
        with open(options.gsm8k, encoding="utf-8") as file:
            GSM8K.extend(json.loads(line)["label"] for line in file)
    else:
        GSM8K.extend(str(R.randint(1, 5000)) for _ in range(1000))
    families, weights = list(FAMILIES), list(FAMILIES.values())
    seen, lines = set(), []
    while len(lines) < options.pairs:
        family = R.choices(families, weights)[0]
        expected, answer, intended = family()
        if (expected, answer) in seen:
            continue
        seen.add((expected, answer))
        lines.append(f"{family.__name__}\t{int(intended)}\t{verdict(expected, answer)}\t{expected}\t{answer}\n")
        if len(lines) % 500 == 0:
            print(len(lines), file=sys.stderr)
    with open(options.output, "w", encoding="utf-8") as file:
        file.writelines(lines)


if __name__ == "__main__":
    main()
