"""The shuffled stream of a run beside `datasets` streaming with PyTorch's DataLoader: samples a second of one core's CPU
time, and resident memory; without tokenization, which bench_sft.py measures end to end.

usage: bench_stream.py BENCH_STREAM [MEGABYTES_OF_TEXT [ROUNDS]]

The same JSONL and Parquet files of chats, made here. Theirs: load_dataset(streaming=True), shuffle with a buffer of
10,000, DataLoader with batches of 128 in the process itself; what comes out are Python objects. Ours: an index and a
permutation of all records; what comes out are lines (which is what the data source hands on), and with `parsed` JSON
trees, checked for what a run refuses; `in_order` is lines without a permutation. Each round is a process of its own, pinned to one core; opening and indexing count.
Rounds are interleaved, and figures are medians.
"""

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time

os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")


def make_files(folder, megabytes):
    """Chats of 1 to 9 KB; the same for every run. Returns how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    rng = random.Random(1)
    words = "number apples and the twelve gives left 42 so how many \u00e9".split()
    book = " ".join(rng.choice(words) for _ in range(40000))
    rows, size = [], 0

    def say(length):
        begin = rng.randrange(len(book) - length)
        return book[begin:begin + length]

    with open(f"{folder}/chats.jsonl", "w") as out:
        while size < megabytes << 20:
            row = {"messages": [{"role": "user", "content": say(rng.randint(300, 3000))},
                                {"role": "assistant", "content": say(rng.randint(700, 6000))}], "label": str(len(rows))}
            size += out.write(json.dumps(row, ensure_ascii=False) + "\n")
            rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), f"{folder}/chats.parquet", row_group_size=1000, compression="snappy")
    return len(rows)


def theirs(kind, path, records):
    """In a process of its own: prints what bench_stream prints."""
    start = time.process_time()
    import datasets
    import torch.utils.data
    imported = time.process_time()
    data = datasets.load_dataset(kind, data_files=path, split="train", streaming=True).shuffle(seed=1, buffer_size=10000)
    loader = torch.utils.data.DataLoader(data, batch_size=128, num_workers=0, collate_fn=list)
    samples = 0
    for batch in loader:
        samples += len(batch)
        if samples >= records:
            break
    end = time.process_time()
    rss = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
    print(json.dumps({"samples": samples, "cpu_s": end - imported, "import_s": imported - start, "rss_bytes": rss}))


def main():
    bench = os.path.abspath(sys.argv[1])
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 128
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    import datasets
    import torch
    with tempfile.TemporaryDirectory() as folder:
        records = make_files(folder, megabytes)
        print(f"{records} chats, {megabytes} MB of JSON; Python {platform.python_version()}, datasets {datasets.__version__}, "
              f"torch {torch.__version__}")
        for suffix, kind in ("jsonl", "json"), ("parquet", "parquet"):
            path = f"{folder}/chats.{suffix}"
            commands = {"theirs": [sys.executable, __file__, "--theirs", kind, path, str(records)],
                        "lines": [bench, "lines", str(records), path], "parsed": [bench, "parsed", str(records), path],
                        "in_order": [bench, "in_order", str(records), path]}
            found = {name: [] for name in commands}
            for _ in range(rounds):
                for name, command in commands.items():
                    found[name].append(json.loads(subprocess.check_output(command, cwd=folder).splitlines()[-1]))
            rate = {name: statistics.median(one["samples"] / one["cpu_s"] for one in runs) for name, runs in found.items()}
            for name, runs in found.items():
                rss = statistics.median(one["rss_bytes"] for one in runs)
                print(f"{suffix:8} {name:8} {rate[name]:9,.0f} samples/s of a core, {rss / 1e6:6.0f} MB resident, "
                      f"{rate[name] / rate['theirs']:6.1f} x")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--theirs":
        theirs(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
