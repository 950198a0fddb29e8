#!/usr/bin/env python3
"""Generation speed on the CPU beside llama.cpp: the shape of Qwen3-0.6B in bf16, random weights, in one run.

  python tests/bench/compare_engine.py build/bin/bench_engine --llama-python DIR --llama-lib DIR [--threads 2] [--rounds 7]

DIR of --llama-python holds the package llama_cpp (llama-cpp-python: only its ctypes declarations are used), that of --llama-lib the
libllama.so to measure; numpy and gguf (PyPI) write its model. The two take turns, a few steps each, because a shared host's
speed changes from second to second. Reported: the median of each and of the rounds' ratios (above 1: Troupe is faster).

Decoding: B samples, each behind its own prompt of 128 tokens. llama.cpp's step is llama_decode with logits for every
sample and nothing else; Troupe's draws tokens and computes their log-probs as well. Prefill: one new prompt of 512 tokens
up to its first token. Groups: prompt tokens computed, of 8 samples of one prompt.
"""
import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import time

SHAPE = dict(vocab=151936, hidden=1024, ffn=3072, heads=16, kv_heads=8, head_dim=128)


class Side:
    def __init__(self, command, in_processor_time):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.in_processor_time = in_processor_time

    def processor_seconds(self):
        times = glob.glob(f"/proc/{self.process.pid}/task/*/schedstat")
        return sum(int(open(time).read().split()[0]) for time in times) / 1e9

    def ask(self, command):
        begin = self.processor_seconds()
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if self.in_processor_time and "seconds" in answer:
            answer["seconds"] = self.processor_seconds() - begin
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def write_gguf(path, layers):
    import gguf
    import numpy as np
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_context_length(40960)
    writer.add_embedding_length(SHAPE["hidden"])
    writer.add_feed_forward_length(SHAPE["ffn"])
    writer.add_block_count(layers)
    writer.add_head_count(SHAPE["heads"])
    writer.add_head_count_kv(SHAPE["kv_heads"])
    writer.add_key_length(SHAPE["head_dim"])
    writer.add_value_length(SHAPE["head_dim"])
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(SHAPE["vocab"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)

    def matrix(name, rows, columns):
        values = (random.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02))
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def ones(name, size):
        writer.add_tensor(name, np.ones(size, dtype=np.float32))

    hidden, q, kv = SHAPE["hidden"], SHAPE["heads"] * SHAPE["head_dim"], SHAPE["kv_heads"] * SHAPE["head_dim"]
    matrix("token_embd.weight", SHAPE["vocab"], hidden)
    ones("output_norm.weight", hidden)
    for i in range(layers):
        ones(f"blk.{i}.attn_norm.weight", hidden)
        matrix(f"blk.{i}.attn_q.weight", q, hidden)
        matrix(f"blk.{i}.attn_k.weight", kv, hidden)
        matrix(f"blk.{i}.attn_v.weight", kv, hidden)
        matrix(f"blk.{i}.attn_output.weight", hidden, q)
        ones(f"blk.{i}.attn_q_norm.weight", SHAPE["head_dim"])
        ones(f"blk.{i}.attn_k_norm.weight", SHAPE["head_dim"])
        ones(f"blk.{i}.ffn_norm.weight", hidden)
        matrix(f"blk.{i}.ffn_gate.weight", SHAPE["ffn"], hidden)
        matrix(f"blk.{i}.ffn_up.weight", SHAPE["ffn"], hidden)
        matrix(f"blk.{i}.ffn_down.weight", hidden, SHAPE["ffn"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Llama:
    """One process with llama.cpp, obeying the same lines as bench_engine."""

    def __init__(self, args):
        os.environ["LLAMA_CPP_LIB_PATH"] = args.llama_lib
        sys.path.insert(0, args.llama_python)
        import types
        # The declarations alone: the package's own __init__ wants more than they do.
        package = types.ModuleType("llama_cpp")
        package.__path__ = [os.path.join(args.llama_python, "llama_cpp")]
        sys.modules["llama_cpp"] = package
        import llama_cpp.llama_cpp as lib
        import random
        self.lib, self.random = lib, random.Random(2)
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(args.gguf.encode(), params)
        assert self.model
        params = lib.llama_context_default_params()
        params.n_ctx = 64 * 512
        params.n_batch = params.n_ubatch = 512
        params.n_seq_max = 64
        params.n_threads = params.n_threads_batch = args.threads
        self.context = lib.llama_init_from_model(self.model, params)
        assert self.context
        self.batch = lib.llama_batch_init(512, 0, 1)
        self.memory = lib.llama_get_memory(self.context)
        self.rows, self.position = 0, 0

    def decode(self, rows):
        """rows: (sequence, position, wants logits)"""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (sequence, position, logits) in enumerate(rows):
            batch.token[i] = self.random.randrange(SHAPE["vocab"])
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = logits
        begin = time.perf_counter()
        assert self.lib.llama_decode(self.context, batch) == 0
        self.lib.llama_get_logits_ith(self.context, len(rows) - 1)  # waits for the result
        return time.perf_counter() - begin

    def prompt(self, sequence, length):
        return self.decode([(sequence, p, p == length - 1) for p in range(length)])

    def ask(self, line):
        word, *numbers = line.split()
        numbers = [int(n) for n in numbers]
        if word == "steps":
            seconds = 0
            for _ in range(numbers[0]):
                seconds += self.decode([(s, self.position, 1) for s in range(self.rows)])
                self.position += 1
            return {"seconds": seconds}
        self.lib.llama_memory_clear(self.memory, True)
        if word == "prefill":
            return {"seconds": self.prompt(0, numbers[0])}
        self.rows, self.position = numbers
        return {"seconds": sum(self.prompt(s, self.position) for s in range(self.rows))}


def serve_llama(args):
    if not os.path.exists(args.gguf):
        write_gguf(args.gguf + ".part", args.layers)
        os.rename(args.gguf + ".part", args.gguf)
    peer = Llama(args)
    for line in sys.stdin:
        print(json.dumps(peer.ask(line)), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--llama-python", required=True)
    parser.add_argument("--llama-lib", required=True)
    parser.add_argument("--gguf", default="/tmp/qwen3-0.6b-random-bf16.gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", default="1,32,64")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has numpy and gguf")
    parser.add_argument("--processor-time", action="store_true", help="of all threads, in place of the time on the wall: "
                        "with one thread, for a machine that has other work to do")
    parser.add_argument("--serve-llama", action="store_true")
    args = parser.parse_args()
    if args.serve_llama:
        serve_llama(args)
        return
    ours = Side([args.program, f"threads={args.threads}", f"layers={args.layers}"], args.processor_time)
    peer = Side([args.peer_python] + sys.argv + ["--serve-llama"], args.processor_time)

    def report(name, work, rows):
        mine, theirs = [r[0] for r in rows], [r[1] for r in rows]
        print(f"{name:12} Troupe {work / statistics.median(mine):8.1f} tokens/s, llama.cpp "
              f"{work / statistics.median(theirs):8.1f} tokens/s, ratio "
              f"{statistics.median(t / m for m, t in rows):.2f} "
              f"({min(t / m for m, t in rows):.2f} to {max(t / m for m, t in rows):.2f})", flush=True)

    for batch in (int(b) for b in args.batches.split(",") if b):
        steps = max(2, 16 // batch)
        for side in (ours, peer):
            side.ask(f"batch {batch} 128")
            side.ask("steps 2")
        rows = [[side.ask(f"steps {steps}")["seconds"] for side in (ours, peer)] for _ in range(args.rounds)]
        report(f"decode {batch}", batch * steps, rows)
    for side in (ours, peer):
        side.ask("prefill 512")
    rows = [[side.ask("prefill 512")["seconds"] for side in (ours, peer)] for _ in range(args.rounds)]
    report("prefill 512", 512, rows)
    group = ours.ask("group 8 200")
    print(f"group of 8: {group['computed']} prompt tokens computed of {group['prompt_tokens']}")
    ours.close()
    peer.close()


if __name__ == "__main__":
    main()
