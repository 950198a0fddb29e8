"""The stream of a run beside `datasets` streaming with PyTorch's DataLoader: samples a second of one core's CPU time, and
resident memory; without tokenization, which bench_sft.py measures end to end.

usage: bench_stream.py BENCH_STREAM [chats|short|all-cores [MEGABYTES_OF_TEXT [ROUNDS]]]

Four files each of JSONL and Parquet (snappy, row groups of 1000 rows), the same records, made here: chats of 1 to 9 KB, or
questions and answers as short as GSM8K's. Theirs: load_dataset(streaming=True), shuffle with a buffer of 10,000, or in the
order of the files, and a DataLoader with batches of 128; what comes out are lists of Python dicts. Ours: the orders of
data.order; what comes out are lines (which is what a data source hands on), and with `parsed` JSON trees, checked for what a
run refuses (which is what a rollout function is given). Two epochs each: that from the opening, with the index where one is
made, and the next. Beside Parquet stand its limits: what pyarrow takes to decode the files, to columns and no further, and
what of that is snappy's, for the same text. Importing Python's packages does not count, nor does loading Arrow's library here.

Each round is a process of its own, pinned to one core; rounds are interleaved, and figures are medians. all-cores: by the
clock instead, chats, as many workers of the DataLoader, and threads here, as there are cores.
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

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

FILES = 4
GROUP = 1000  # rows of a row group
OURS = [("full", "lines"), ("full", "parsed"), ("window", "lines"), ("window", "parsed"), ("files", "lines"), ("files", "parsed")]


def make_chat(number, say, rng):
    return {"messages": [{"role": "user", "content": say(rng.randint(300, 3000))},
                         {"role": "assistant", "content": say(rng.randint(700, 6000))}], "label": str(number)}


def make_short(number, say, rng):
    return {"question": say(rng.randint(100, 400)), "answer": f"{say(rng.randint(80, 500))}\n#### {number % 1000}"}


def make_files(folder, megabytes, make):
    """The same for every run. Returns how many records."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    rng = random.Random(1)
    words = "number apples and the twelve gives left 42 so how many \u00e9".split()
    book = " ".join(rng.choice(words) for _ in range(40000))
    total = 0

    def say(length):
        begin = rng.randrange(len(book) - length)
        return book[begin:begin + length]

    for part in range(FILES):
        rows, size = [], 0
        with open(f"{folder}/{part}.jsonl", "w") as out:
            while size < (megabytes << 20) / FILES:
                rows.append(make(total + len(rows), say, rng))
                size += out.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
        pq.write_table(pa.Table.from_pylist(rows), f"{folder}/{part}.parquet", row_group_size=GROUP, compression="snappy")
        total += len(rows)
    return total


def theirs(order, kind, workers, records, paths):
    """In a process of its own: prints what bench_stream prints."""
    import datasets
    import torch.utils.data
    start, start_wall = time.process_time(), time.monotonic()
    data = datasets.load_dataset(kind, data_files=paths, split="train", streaming=True)
    if order == "shuffled":
        data = data.shuffle(seed=1, buffer_size=10000)
    loader = torch.utils.data.DataLoader(data, batch_size=128, num_workers=workers, collate_fn=list)
    ends = []
    for epoch in range(2):
        data.set_epoch(epoch)
        samples = sum(len(batch) for batch in loader)
        assert samples == records, (samples, records)
        ends.append((time.process_time(), time.monotonic()))
    rss = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
    print(json.dumps({"samples": records, "cpu_s": ends[0][0] - start, "next_cpu_s": ends[1][0] - ends[0][0],
                      "wall_s": ends[0][1] - start_wall, "next_wall_s": ends[1][1] - ends[0][1], "rss_bytes": rss}))


def limits(paths):
    """In a process of its own: CPU seconds of the decoding alone, and of the decompression of as much text."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    pa.set_cpu_count(1)
    start = time.process_time()
    records = sum(len(batch) for path in paths for batch in pq.ParquetFile(path).iter_batches(GROUP, use_threads=False))
    decode = time.process_time() - start
    codec, seconds = pa.Codec("snappy"), 0
    for path in paths:
        with open(path.replace(".parquet", ".jsonl"), "rb") as file:
            while page := file.read(1 << 20):  # as large as pyarrow's pages
                packed, out = codec.compress(page), None
                start = time.process_time()
                out = codec.decompress(packed, len(page))
                seconds += time.process_time() - start
    print(json.dumps({"samples": records, "decode": decode, "snappy": seconds}))


def measure_limits(paths, folder, rounds):
    runs = [json.loads(subprocess.check_output([sys.executable, __file__, "--limits", *paths], cwd=folder)) for _ in range(rounds)]
    for what in "decode", "snappy":
        rate = runs[0]["samples"] / statistics.median(run[what] for run in runs)
        print(f"parquet  pyarrow {what:8} alone       {rate:9,.0f} samples/s of a core", flush=True)


def measure(bench, kinds, workers, records, folder, rounds):
    """Every way over both kinds of files."""
    clock = "wall_s" if workers > 0 else "cpu_s"
    unit = "by the clock" if workers > 0 else "of a core"
    for suffix, kind in kinds:
        paths = [f"{folder}/{part}.{suffix}" for part in range(FILES)]
        commands = {("theirs", order): [sys.executable, __file__, "--theirs", order, kind, str(workers), str(records), *paths]
                    for order in ("shuffled", "files")}
        commands.update({way: [bench, *way, str(records), str(max(workers, 1)), *paths] for way in OURS})
        found = {way: [] for way in commands}
        for _ in range(rounds):
            for way, command in commands.items():
                found[way].append(json.loads(subprocess.check_output(command, cwd=folder).splitlines()[-1]))
        middle = {way: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for way, runs in found.items()}
        for way, run in middle.items():
            other = middle[("theirs", "files" if "files" in way else "shuffled")]
            rates = [records / run[key] for key in (clock, f"next_{clock}")]
            bases = [records / other[key] for key in (clock, f"next_{clock}")]
            print(f"{suffix:8} {way[0]:7} {way[1]:8} first epoch {rates[0]:9,.0f} samples/s {unit} ({rates[0] / bases[0]:5.2f} x), "
                  f"next {rates[1]:9,.0f} ({rates[1] / bases[1]:5.2f} x), {run['rss_bytes'] / 1e6:6.0f} MB resident", flush=True)


        if kind == "parquet" and workers == 0:
            measure_limits(paths, folder, rounds)


def main():
    bench = os.path.abspath(sys.argv[1])
    what = sys.argv[2] if len(sys.argv) > 2 else "chats"
    megabytes = int(sys.argv[3]) if len(sys.argv) > 3 else (32 if what == "short" else 128)
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    cores = sorted(os.sched_getaffinity(0))
    if what != "all-cores":
        os.sched_setaffinity(0, {cores[-1]})
    import datasets
    import torch
    with tempfile.TemporaryDirectory() as folder:
        records = make_files(folder, megabytes, make_short if what == "short" else make_chat)
        print(f"{what}: {records} records, {megabytes} MB of JSON; Python {platform.python_version()}, "
              f"datasets {datasets.__version__}, torch {torch.__version__}", flush=True)
        workers = len(cores) if what == "all-cores" else 0
        measure(bench, [("jsonl", "json"), ("parquet", "parquet")], workers, records, folder, rounds)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--theirs":
        theirs(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
    elif len(sys.argv) > 1 and sys.argv[1] == "--limits":
        limits(sys.argv[2:])
    else:
        main()
