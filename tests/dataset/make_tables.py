#!/usr/bin/env python3
"""Makes tests/dataset/tables: one table of chats with every kind of column in Parquet files of every codec and encoding
and in Arrow files and streams, and what its rows are as JSON, which Python's json module and pyarrow decide.

usage: make_tables.py FOLDER    (needs pyarrow and datasets; written with pyarrow 26 and datasets 5.2)
"""
import base64
import datetime
import decimal
import json
import math
import os
import shutil
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 23
GROUP = 5  # rows of a row group
PAGED = 69  # rows of a file of many pages
SIMPLE = ["messages", "id", "small", "score", "single"]

CALL = pa.struct([("id", pa.string()), ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())]))])
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.large_string()), ("tool_calls", pa.list_(CALL)),
                     ("weight", pa.int8())])
SCHEMA = pa.schema([
    ("messages", pa.list_(MESSAGE)),
    ("source", pa.dictionary(pa.int32(), pa.string())),
    ("id", pa.uint64()),
    ("small", pa.int16()),
    ("score", pa.float64()),
    ("single", pa.float32()),
    ("half", pa.float16()),
    ("kept", pa.bool_()),
    ("nothing", pa.null()),
    ("price", pa.decimal128(20, 4)),
    ("tiny", pa.decimal256(40, 12)),
    ("day", pa.date32()),
    ("day64", pa.date64()),
    ("seen", pa.timestamp("us")),
    ("seen_ns", pa.timestamp("ns")),
    ("seen_utc", pa.timestamp("ms", tz="Europe/Berlin")),
    ("clock", pa.time64("us")),
    ("took", pa.duration("ms")),
    ("scores", pa.map_(pa.string(), pa.float64())),
    ("ranks", pa.map_(pa.int32(), pa.string())),
    ("pair", pa.list_(pa.int64(), 2)),
    ("grid", pa.large_list(pa.list_(pa.int32()))),
    ("raw", pa.binary()),
    ("digest", pa.binary(4)),
    ('a "key"\n', pa.struct([("inner", pa.struct([("deep", pa.list_(pa.struct([("x", pa.int64())])))]))])),
])

TEXTS = ["", "plain words", 'quotes " and \\ backslashes / slashes', "lines\nand\ttabs\r\n", "\x00\x01\x1f\x7f\b\f",
         "été 北京 🚀 \u2028", "x" * 15 + '"', "y" * 16 + "\n", "z" * 33, "16 bytes exactly"]
FLOATS = [0.0, -0.0, 1.0, 0.1, 1e15, 1e16, 123456789012345680.0, 1e-4, 1e-5, -2.5e-7, 5e-324, 1.7976931348623157e308,
          math.nan, math.inf, -math.inf, 1 / 3]


def row(i):
    def sometimes(value, every=3):
        return None if i % every == 0 else value

    calls = [{"id": f"c{i}", "function": {"name": "look", "arguments": json.dumps({"n": i})}}]
    moment = datetime.datetime(1969, 12, 31, 23, 59, 59) + datetime.timedelta(days=700 * i, microseconds=i * 77)
    return {
        "messages": [{"role": "user", "content": TEXTS[i % len(TEXTS)], "tool_calls": None, "weight": None},
                     None if i == 4 else {"role": "assistant", "content": sometimes(TEXTS[(i * 7 + 3) % len(TEXTS)]),
                                          "tool_calls": sometimes(calls, 2), "weight": sometimes(i % 2)}][:i % 3],
        "source": sometimes(["web", "books", "été"][i % 3], 5),
        "id": (1 << 64) - 1 - i,
        "small": -i * 1000,
        "score": FLOATS[i % len(FLOATS)],
        "single": FLOATS[i % len(FLOATS)] if abs(FLOATS[i % len(FLOATS)]) < 1e30 or i % 2 else 0.1,
        "half": [0.1, 1.0, 65504.0, 6e-8, None][i % 5],
        "kept": sometimes(i % 2 == 0),
        "nothing": None,
        "price": sometimes(decimal.Decimal(f"{i * 1000 - 5000}.{i:04}"), 4),
        "tiny": decimal.Decimal(i - 3).scaleb(-12),
        "day": datetime.date(1960 + i * 3, 2, 28),
        "day64": datetime.date(1960 + i * 3, 2, 28),
        "seen": moment,
        "seen_ns": sometimes(moment),
        "seen_utc": moment.replace(microsecond=i * 1000, tzinfo=datetime.timezone.utc),
        "clock": datetime.time(i, 59, i, (i % 3) * 250000),
        "took": datetime.timedelta(milliseconds=i * 1500 - 3000),
        "scores": sometimes([(f"k{j}", j / 4) for j in range(i % 4)]),
        "ranks": [(j, None if j == 2 else f"r{j}") for j in range(i % 4)],
        "pair": sometimes([i, None]),
        "grid": [[j] * j for j in range(i % 4)],
        "raw": [b"text", b"\xff\xfe\x00", "é".encode(), b"", None][i % 5],
        "digest": b"abcd" if i % 2 else bytes([200, i, 0, 1]),
        'a "key"\n': sometimes({"inner": sometimes({"deep": [{"x": i}, None, {"x": None}]}, 4)}),
    }


def plain(value, type):
    """The value as JSON has it; what is None in an object is left out."""
    if value is None:
        return None
    if pa.types.is_dictionary(type):
        return plain(value, type.value_type)
    if pa.types.is_struct(type):
        return {field.name: plain(value[field.name], field.type) for field in type if value[field.name] is not None}
    if pa.types.is_map(type):
        pairs = [(plain(key, type.key_type), plain(item, type.item_type)) for key, item in value]
        return dict(pairs) if pa.types.is_string(type.key_type) else [list(pair) for pair in pairs]
    if isinstance(value, list):
        return [plain(item, type.value_type) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.timezone.utc).isoformat()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    return value


def write_expected(path, table):
    type = pa.struct(list(table.schema))
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for value in table.to_pylist():
            out.write(json.dumps(plain(value, type), ensure_ascii=False, separators=(",", ":")) + "\n")


def write_parquet(folder, table):
    pq.write_table(table, f"{folder}/all.parquet", row_group_size=2 * GROUP, write_page_checksum=True)
    simple = table.select(SIMPLE)
    for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]:
        pq.write_table(simple, f"{folder}/{codec}.parquet", compression=codec, row_group_size=GROUP,
                       data_page_version="2.0" if codec in ("gzip", "zstd") else "1.0", write_page_checksum=True,
                       write_statistics=False)
    texts = {"messages.list.element.role": "DELTA_BYTE_ARRAY",
             "messages.list.element.content": "DELTA_LENGTH_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED",
             "small": "DELTA_BINARY_PACKED", "score": "BYTE_STREAM_SPLIT", "single": "BYTE_STREAM_SPLIT"}
    pq.write_table(simple, f"{folder}/encodings.parquet", use_dictionary=False, column_encoding=texts)
    pq.write_table(simple, f"{folder}/plain.parquet", use_dictionary=False, row_group_size=7)
    write_expected(f"{folder}/simple.jsonl", simple)
    # One row group of 12 MB, of which little is left: row i says i, 3000 times.
    large = pa.table({"text": [f"{i:03} " * 3000 for i in range(1000)]})
    pq.write_table(large, f"{folder}/large.parquet", use_dictionary=False, compression="zstd", compression_level=19,
                   write_batch_size=50, write_statistics=False)
    # 800 MB of JSON, of which the encodings leave next to nothing: one text in every row.
    rows = 200000
    system = ["You are " + "so very " * 500 + "helpful."]
    system = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), system)
    repeated = pa.table({"system": system.cast(pa.string()), "id": pa.array(range(rows), pa.int32())})
    pq.write_table(repeated, f"{folder}/repeated.parquet", use_dictionary=["system"], compression="zstd",
                   column_encoding={"id": "DELTA_BINARY_PACKED"}, write_statistics=False, store_schema=False)


def write_pages(folder):
    """One row group of many pages, which end in other rows in each column: those before a row are passed over."""
    table = pa.Table.from_pylist([row(i % ROWS) for i in range(PAGED)], SCHEMA)
    simple = table.select(SIMPLE)
    few = {"data_page_size": 40, "write_batch_size": 4, "write_statistics": False, "store_schema": False}
    pq.write_table(table, f"{folder}/pages.parquet", compression="snappy", **{**few, "store_schema": True})
    pq.write_table(simple, f"{folder}/pages-2.parquet", compression="zstd", data_page_version="2.0",
                   write_page_index=True, **few)
    pq.write_table(simple, f"{folder}/pages-checked.parquet", compression="snappy", write_page_checksum=True,
                   use_dictionary=False, **few)
    for codec in ["none", "gzip", "brotli", "zstd", "lz4"]:
        pq.write_table(simple.select(["messages", "id"]), f"{folder}/pages-{codec}.parquet", compression=codec,
                       use_dictionary=codec == "gzip", **few)


def write_sums(folder):
    """60 records, of which 3 are bad and 4 are too long, for test_data_kills.sh, in two row groups. The text that stands
    in every row, and takes next to nothing, lets the second one count as one that is read in pieces."""
    columns = {"prompt": [], "completion": [], "constant": [], "note": []}
    for i in range(1, 61):
        question = "twelve " * 400 + f"and {i}?" if i in (7, 8, 40, 59) else f"{i} + {i}?"
        columns["prompt"].append(None if i in (3, 31, 60) else question)
        columns["completion"].append(None if i in (3, 31, 60) else str(i + i))
        columns["constant"].append("so very " * 500)
        columns["note"].append("" if i <= 20 else f"{i} " * 16000)
    with pq.ParquetWriter(f"{folder}/sums.parquet", pa.table(columns).schema, compression="zstd",
                          use_dictionary=["constant"], write_statistics=False, store_schema=False) as out:
        out.write_table(pa.table(columns).slice(0, 20))
        out.write_table(pa.table(columns).slice(20))


def write_arrow(folder, table):
    with pa.ipc.new_file(f"{folder}/file.arrow", SCHEMA,
                         options=pa.ipc.IpcWriteOptions(compression="lz4")) as out:
        out.write_table(table, max_chunksize=GROUP)
    with pa.ipc.new_stream(f"{folder}/dictionary.arrows", SCHEMA) as out:
        out.write_table(table, max_chunksize=GROUP)
    simple = table.select(SIMPLE)
    with pa.ipc.new_stream(f"{folder}/zstd.arrows", simple.schema,
                           options=pa.ipc.IpcWriteOptions(compression="zstd")) as out:
        out.write_table(simple, max_chunksize=GROUP)
    views = pa.table({"text": pa.array(TEXTS, pa.string_view()),
                      "list": pa.array([[i] * (i % 3) for i in range(len(TEXTS))], pa.list_view(pa.int64()))})
    with pa.ipc.new_stream(f"{folder}/views.arrows", views.schema) as out:
        out.write_table(views)
    write_expected(f"{folder}/views.jsonl", views)


def write_datasets(folder):
    """What the package `datasets` writes: a folder of two splits, and its feature Json, whose values have no one shape."""
    shapes = [{"n": 1}, {"n": "one", "m": [None, 2.5]}, [], "text", None, {}]
    features = datasets.Features({"prompt": datasets.Value("string"), "tools": datasets.List(datasets.Json()),
                                  "arguments": datasets.Json()})
    data = {"prompt": [f"p{i}" for i in range(6)], "tools": [[shape, shapes[0]] for shape in shapes],
            "arguments": shapes}
    made = datasets.Dataset.from_dict(data, features=features)
    made.to_parquet(f"{folder}/json.parquet")
    both = datasets.DatasetDict({"train": made.select(range(4)), "test": made.select(range(4, 6))})
    both.save_to_disk(f"{folder}/saved", num_shards={"train": 2, "test": 1})
    with open(f"{folder}/json.jsonl", "w", encoding="utf-8") as out:
        for value in made:
            value = {key: item for key, item in value.items() if item is not None}
            out.write(json.dumps(value) + "\n")


def main():
    folder = sys.argv[1]
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    table = pa.Table.from_pylist([row(i) for i in range(ROWS)], SCHEMA)
    write_expected(f"{folder}/all.jsonl", table)
    write_parquet(folder, table)
    write_pages(folder)
    write_sums(folder)
    write_arrow(folder, table)
    write_datasets(folder)


main()
