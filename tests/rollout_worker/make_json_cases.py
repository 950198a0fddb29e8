"""Makes fixtures/json_cases.txt: byte strings and whether Python's json module takes them as a record.

Each line: "yes" or "no", a space, the bytes in hex. Records are valid ones, hand-made edge cases and random damage to
both. "yes" means: UTF-8, json.loads takes it with NaN and Infinity refused, an object on the outside, no NUL and no
surrogate in any string. usage: make_json_cases.py
"""
import json
import pathlib
import random

HAND_MADE = [
    b'{}', b' {} ', b'\t{\r\n}\t', b'[]', b'1', b'"a"', b'null', b'', b' ', b'{', b'}', b'{"a"', b'{"a":', b'{"a":1',
    b'{"a":1,}', b'{,}', b'{"a":1 "b":2}', b'{"a" 1}', b"{'a':1}", b'{a:1}', b'{"a":1}}', b'{"a":1}{"b":2}',
    b'{"a":[1,2,]}', b'{"a":[,]}', b'{"a":[1 2]}', b'{"a":[[[]]]}', b'{"a":[}', b'{"a":{]}',
    b'{"a":01}', b'{"a":-01}', b'{"a":0}', b'{"a":-0}', b'{"a":1.}', b'{"a":.5}', b'{"a":-.5}', b'{"a":1.5e}',
    b'{"a":1e5}', b'{"a":1E+5}', b'{"a":1e-05}', b'{"a":+1}', b'{"a":-}', b'{"a":1.2.3}', b'{"a":0x10}',
    b'{"a":12345678901234567890}', b'{"a":1e999}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}',
    b'{"a":true}', b'{"a":True}', b'{"a":tru}', b'{"a":truex}', b'{"a":null}', b'{"a":nul}', b'{"a":false}',
    b'{"a":"\\n\\t\\"\\\\\\/\\b\\f\\r"}', b'{"a":"\\x"}', b'{"a":"\\"}', b'{"a":"\\u00e9"}', b'{"a":"\\u00g9"}',
    b'{"a":"\\u00"}', b'{"a":"\\u0000"}', b'{"\\u0000":1}', b'{"a":"\\\\u0000"}', b'{"a":"\\ud83d\\ude00"}',
    b'{"a":"\\uD83D\\uDE00"}', b'{"a":"\\ud800"}', b'{"a":"\\ud800\\n"}', b'{"a":"\\ud800\\u0041"}',
    b'{"a":"\\udc00"}', b'{"a":"\\ude00\\ud83d"}', b'{"a":"\\ud83d\\ud83d\\ude00"}', b'{"a":"\\ud83dx\\ude00"}',
    b'{"a":"\\uffff"}', b'{"a":"\\ufeff"}', b'{"a":"\x00"}', b'{"a":\x00}', b'{"a":1}\x00', b'{"a":"\x01"}',
    b'{"a":"\t"}', b'{"a":"\x7f"}', b'{"a":"\n"}', b'{"a":"\xc3\xa9"}', b'{"a":"\xc3"}', b'{"a":"\xe9"}',
    b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf0\x9f\x98\x80"}', b'{"a":"\xf4\x90\x80\x80"}',
    b'{"a":"\xff"}', b'\xef\xbb\xbf{}', b'{\xc2\xa0}', b'{"":1}', b'{"a":1,"a":2}', b'{"a":1}\x0b', b'{"a":\x0c1}',
    b'/* c */{}', b'{"a":1} // c', b'{"a":"' + b'x' * 300 + b'"}', b'{"a":' + b'[' * 150 + b']' * 150 + b'}',
]

RECORDS = [
    {"messages": [{"role": "user", "content": "What is 2+2? \u00e9\U0001f600"}, {"role": "assistant", "content": "4\n\"four\""}],
     "label": "4", "metadata": {"sample_id": 7, "score": -1.5e-3}},
    {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                  {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {
                      "name": "f", "arguments": {"x": [1, 2.0, True, None]}}}]},
                  {"role": "tool", "content": "{\"y\": 1}"}], "tools": "[]"},
]


def refuse_constant(name):
    raise ValueError(name)


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)


def taken(data):
    try:
        # object_pairs_hook keeps the strings below a key that occurs twice
        value = json.loads(data.decode("utf-8"), parse_constant=refuse_constant,
                           object_pairs_hook=lambda pairs: {f"{k}#{i}": v for i, (k, v) in enumerate(pairs)})
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict):
        return False
    return not any(c == "\0" or 0xD800 <= ord(c) <= 0xDFFF for text in strings(value) for c in text)


def damage(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            del data[at:at + 1]
        elif kind == 2:
            data[at:at] = bytes([rng.choice(b'{}[]",:\\u0d8 \t-.e1nt\x00\x1f\x80\xc3\xff')])
        elif kind == 3 and at < len(data):
            data[at] = rng.randrange(256)
        else:
            data[at:at] = rng.choice([b'\\u0000', b'\\ud800', b'\\udfff', b'\\ud83d\\ude00', b'\xc3\xa9', b'""', b'1e5'])
    return bytes(data)


def main():
    rng = random.Random(7)
    cases = list(HAND_MADE)
    for record in RECORDS:
        for ascii_only in (True, False):
            text = json.dumps(record, ensure_ascii=ascii_only).encode()
            cases.append(text)
            cases += [damage(rng, text) for _ in range(60)]
    cases += [damage(rng, rng.choice(HAND_MADE[16:-2])) for _ in range(300)]
    cases = list(dict.fromkeys(cases))
    lines = [f"{'yes' if taken(case) else 'no'} {case.hex()}" for case in cases]
    path = pathlib.Path(__file__).parent / "fixtures" / "json_cases.txt"
    path.write_text("\n".join(lines) + "\n")
    print(path, len(lines), "cases,", sum(line.startswith("yes") for line in lines), "taken")


main()
