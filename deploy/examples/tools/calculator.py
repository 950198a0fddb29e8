#!/usr/bin/env python3
"""A calculator that a model may call: one JSON object a line in, one a line out (docs/tools.md).

Try it:
    echo '{"id": "1", "name": "calculator", "arguments": {"expression": "17 * 23 + 5"}}' | python3 calculator.py

Only arithmetic is worked out: numbers, + - * / // % **, parentheses and a few functions. What the model gets wrong is an
`error`, a text that it reads; a program that fails in any other way must end, and then the call is tried again."""
import ast
import json
import math
import operator
import sys

BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
          ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow}
UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}
FUNCTIONS = {"sqrt": math.sqrt, "abs": abs, "round": round, "min": min, "max": max, "log": math.log, "exp": math.exp,
             "gcd": math.gcd, "factorial": lambda n: math.factorial(n) if n <= 1000 else math.inf}


class Mistake(Exception):
    """What the model did wrong, in words for it."""


def power(base, exponent):
    if abs(base) > 1 and abs(exponent) * math.log2(abs(base)) > 4096:
        raise Mistake("the result is too large")
    return base ** exponent


def work_out(node):
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        left, right = work_out(node.left), work_out(node.right)
        return power(left, right) if isinstance(node.op, ast.Pow) else BINARY[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
        return UNARY[type(node.op)](work_out(node.operand))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords:
        return FUNCTIONS[node.func.id](*map(work_out, node.args))
    raise Mistake("only numbers, + - * / // % **, parentheses and " + ", ".join(FUNCTIONS) + " are known")


def calculate(expression):
    if not isinstance(expression, str) or len(expression) > 1000:
        raise Mistake("expression must be a text of at most 1000 characters")
    value = work_out(ast.parse(expression.strip(), mode="eval").body)
    return str(int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value)


for line in sys.stdin:
    request = json.loads(line)
    answer = {"id": request["id"]}
    try:
        answer["content"] = calculate(request["arguments"].get("expression"))
    except (Mistake, SyntaxError, ArithmeticError, TypeError, ValueError, RecursionError) as mistake:
        answer["error"] = str(mistake) or type(mistake).__name__
    print(json.dumps(answer), flush=True)
