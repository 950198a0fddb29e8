#!/usr/bin/env python3
"""Data files of every kind on one core: bench_formats beside pyarrow and Python's own decompressors, in CPU time.

Makes chats of 4 to 6 KB with nested messages, the same in every file.
usage: bench_formats.py BENCH_FORMATS [MEGABYTES_OF_TEXT]    (needs pyarrow; zstd files are made with the command zstd)
"""
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ["number", "apples", "and", "the", "twelve", "gives", "left", "42", "so", "how", "many", "\u00e9t\u00e9", "\n", '"quoted"']
GROUP = 1000  # rows of a row group, as `datasets` writes it


def chats(megabytes):
    draw = random.Random(1)
    vocabulary = WORDS + ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(20000)]

    def text(words):
        return " ".join(draw.choices(vocabulary, k=words))

    rows, size = [], 0
    while size < megabytes * 1e6:
        rows.append({"messages": [{"role": "system", "content": text(20)}, {"role": "user", "content": text(200)},
                                  {"role": "assistant", "content": text(500)}], "id": len(rows), "source": "bench"})
        size += sum(len(message["content"]) for message in rows[-1]["messages"])
    return rows


def timed(label, gigabytes, work, *arguments):
    start = time.process_time()
    work(*arguments)
    seconds = time.process_time() - start
    print(f"{label:28} {gigabytes / seconds:5.2f} GB/s of text", flush=True)


def read_table(path):
    pq.read_table(path, use_threads=False, pre_buffer=False)


def read_rows(path):
    for batch in pq.ParquetFile(path).iter_batches(GROUP, use_threads=False):
        for row in batch.to_pylist():
            json.dumps(row, ensure_ascii=False)


def read_gzip(path):
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass


def measure(bench, megabytes, folder):
    rows = chats(megabytes)
    plain = f"{folder}/plain.jsonl"
    with open(plain, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    gigabytes = os.path.getsize(plain) * 1e-9
    files = [plain]
    for name, command in [("gzip.jsonl.gz", ["gzip", "-6c", plain]), ("one-frame.jsonl.zst", ["zstd", "-qc", plain])]:
        with open(f"{folder}/{name}", "wb") as out:
            subprocess.run(command, stdout=out, check=True)
        files.append(f"{folder}/{name}")
    table = pa.Table.from_pylist(rows)
    for codec in ["none", "snappy", "zstd", "gzip", "lz4", "brotli"]:
        files.append(f"{folder}/{codec}.parquet")
        pq.write_table(table, files[-1], compression=codec, row_group_size=GROUP)
    files.append(f"{folder}/one-group.parquet")
    pq.write_table(table, files[-1], row_group_size=len(rows))
    files.append(f"{folder}/stream.arrow")
    with pa.ipc.new_stream(files[-1], table.schema) as out:
        out.write_table(table, max_chunksize=GROUP)
    print(f"{len(rows)} chats, {gigabytes:.3f} GB of JSON")
    subprocess.run([bench, *files], check=True, cwd=folder)
    timed("Python gzip", gigabytes, read_gzip, f"{folder}/gzip.jsonl.gz")
    for codec in ["none", "snappy", "zstd"]:
        timed(f"pyarrow, {codec}", gigabytes, read_table, f"{folder}/{codec}.parquet")
    timed("pyarrow to json, snappy", gigabytes, read_rows, f"{folder}/snappy.parquet")


def main():
    bench, megabytes = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 250
    with tempfile.TemporaryDirectory(prefix="bench-formats-") as folder:
        measure(bench, megabytes, folder)


main()
