"""Makes hf_orders.json: the order in which the package `datasets` streams records, read by one process.

    for each release: PYTHONPATH=FOLDER_WITH_THAT_RELEASE python hf_orders.py OUT.json

A case is added for the release that is imported, in place of those that were there. JSONL and Parquet must give
the same order. `resume`: a state of the package, taken after so many records and loaded into a new stream, as its
documentation says, and how many records of the epoch never come then.
"""
import hashlib
import json
import os
import struct
import sys
import tempfile

import datasets
import numpy
import pyarrow
import pyarrow.parquet
from datasets import load_dataset

CASES = [  # records of each file, seed, buffer, epochs
    ([37], 42, 10, [0, 1, 2]),
    ([12, 1, 30, 7], 1, 8, [0, 1, 3]),
    ([5] * 23, 7, 20, [0, 1, 2]),
    ([9, 1, 14, 2, 30, 6, 3, 3, 21, 8, 17, 4], 123456789, 25, [0, 1]),
    ([20, 11], 2**33 + 5, 1000, [0, 1]),
    ([6, 5, 4], 0, 1, [0, 2]),
    ([700, 1300, 50, 2000, 900], 2026, 100, [0, 1]),
    ([311 + 7 * (i % 13) for i in range(40)], 5, 1000, [0, 4]),
    ([20000, 30001], 11, 10000, [0, 1]),
]
LISTED = 130  # records up to which an order is written out


def write(folder, counts):
    at = 0
    paths = {"json": [], "parquet": []}
    for i, count in enumerate(counts):
        ids = list(range(at, at + count))
        at += count
        name = os.path.join(folder, f"part-{i:03}")
        with open(name + ".jsonl", "w") as file:
            file.write("".join(f'{{"id": {k}}}\n' for k in ids))
        pyarrow.parquet.write_table(pyarrow.table({"id": pyarrow.array(ids, pyarrow.int64())}), name + ".parquet")
        paths["json"].append(name + ".jsonl")
        paths["parquet"].append(name + ".parquet")
    return paths


def stream(kind, files, seed, buffer, epoch):
    data = load_dataset(kind, data_files=files, split="train", streaming=True).shuffle(seed=seed, buffer_size=buffer)
    data.set_epoch(epoch)
    return data


def resume(files, seed, buffer, after):
    data = stream("parquet", files, seed, buffer, 0)
    rows = iter(data)
    seen = [next(rows)["id"] for _ in range(after)]
    state = data.state_dict()
    again = stream("parquet", files, seed, buffer, 0)
    again.load_state_dict(state)
    seen += [row["id"] for row in again]
    return seen


def main(out):
    release = ".".join(datasets.__version__.split(".")[:2])
    known = json.load(open(out)) if os.path.exists(out) else []
    cases = [case for case in known if case["release"] != release]
    for counts, seed, buffer, epochs in CASES:
        with tempfile.TemporaryDirectory() as folder:
            paths = write(folder, counts)
            for epoch in epochs:
                order = [row["id"] for row in stream("parquet", paths["parquet"], seed, buffer, epoch)]
                assert order == [row["id"] for row in stream("json", paths["json"], seed, buffer, epoch)]
                assert sorted(order) == list(range(sum(counts)))
                case = {"release": release, "files": counts, "seed": seed, "buffer": buffer, "epoch": epoch}
                case["sha256"] = hashlib.sha256(struct.pack(f"<{len(order)}Q", *order)).hexdigest()
                if len(order) <= LISTED:
                    case["order"] = order
                cases.append(case)
            if buffer == 100:
                seen = resume(paths["parquet"], seed, buffer, 1000)
                lost = set(range(sum(counts))) - set(seen)
                cases[-1]["resume"] = {"after": 1000, "lost": len(lost), "twice": len(seen) - len(set(seen))}
    cases.sort(key=lambda case: case["release"])
    with open(out, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
    print(release, datasets.__version__, "numpy", numpy.__version__, len(cases), "cases")


if __name__ == "__main__":
    main(sys.argv[1])
