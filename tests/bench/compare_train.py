#!/usr/bin/env python3
"""Training speed beside PyTorch: same model shapes, same tokens per step, same optimizer, in one run, on CPU or GPU.

  tests/bench/compare_train.py build/bin/bench_train [--device cpu] [--shape qwen3-0.6b] [--layers 8] [--rounds 5]
  tests/bench/compare_train.py build/bin/bench_train --device cuda --shape qwen3-0.6b:2+4+8x4096,qwen2.5-0.5b:32x1024

A shape may say its documents in a micro-batch (several numbers are tried one after the other) and their length, and
behind a slash how many PyTorch is to begin with. On the CPU the two take turns, one step each, because a shared host's
speed changes from second to second, and the rate of the model's own matrix products is measured in the same rounds. On
a GPU they take turns by shapes, since each wants the memory for itself: a row for each number of documents, then the
fastest of them beside PyTorch. What does not fit the card is said, and halved where nothing of a shape fits. Prints
Markdown: best and median tokens/s, the ratio, MFU (bench_train.c says how it counts; PyTorch's is counted the same
way), and of ours phases, memory and start.

PyTorch: transformers' Qwen3 or Qwen2 in float32 under bf16 autocast, torch.optim.AdamW(fused=True), gradient norm and
clipping. On a GPU it has what is fastest of what is tried there: cuDNN's, flash or efficient attention, layers compiled
or not, and its loss over all logits or over pieces of them (checkpointed), in the largest of its micro-batches that
fits the memory; where the first does not fit, also that one with its layers checkpointed.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

# hidden, intermediate, layers, heads, kv heads, head_dim, tied: tests/bench/shapes.c
SHAPES = {
    "toy": (256, 512, 2, 4, 2, 64, True),
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, 128, True),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, 128, True),
    "qwen3-4b": (2560, 9728, 36, 32, 8, 128, True),
    "qwen3-8b": (4096, 12288, 36, 32, 8, 128, False),
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 64, True),
    "qwen2.5-1.5b": (1536, 8960, 28, 12, 2, 128, True),
}
HEAD_ROWS = 2048


class DoesNotFit(Exception):
    pass


class Failed(Exception):
    """Ours, in one case."""

    def __init__(self, case, why):
        self.case, self.why = case, " ".join(str(why).split())


class Ours:
    def __init__(self, args, case):
        command = [args.program, "rounds=0", f"device={args.device}", f"shape={case.name}", f"layers={args.layers}",
                   f"threads={args.threads}", f"tp={args.tp}", f"length={case.length}", f"sequences={case.sequences}",
                   f"batches={args.batches}"]
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
                                        text=True)

    def last_words(self):
        self.said.seek(0)
        return self.said.read().strip()

    def ask(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: there is no answer
        line = self.process.stdout.readline()
        if not line:
            code, why = self.process.wait(), self.last_words()
            if "the train worker needs" in why:
                raise DoesNotFit(why[why.index("the train worker needs"):].splitlines()[0].split(" (")[0])
            raise RuntimeError(f"bench_train ended with code {code}: {why[-300:]}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Case:
    """One shape, with the documents of a micro-batch; `choices`: the numbers that are to be tried."""

    def __init__(self, text, args):
        self.name, _, size = text.partition(":")
        size, _, theirs = size.partition("/")
        sequences, _, length = (size or f"{args.sequences}x{args.length}").partition("x")
        self.choices, self.length = [int(number) for number in sequences.split("+")], int(length)
        self.sequences = max(self.choices)
        self.torch_sequences = int(theirs or self.sequences)
        if self.name not in SHAPES:
            sys.exit(f"{self.name}: expected one of {', '.join(SHAPES)}")

    def tokens(self, args):
        return self.sequences * self.length * args.batches


class Torch:
    """One way of doing it: attention, compiled or not, and rows of logits at a time (0: all)."""

    def __init__(self, args, case, attention="", compiled=False, head_rows=0, checkpointing=False):
        import torch
        import transformers
        torch.manual_seed(1)
        self.torch, self.args, self.case = torch, args, case
        self.attention, self.head_rows = attention, head_rows
        if args.device == "cpu":
            torch.set_num_threads(args.threads)
        torch.backends.cuda.matmul.allow_tf32 = True
        hidden, ffn, layers, heads, kv_heads, head_dim, tied = SHAPES[case.name]
        kind = "Qwen3" if case.name.startswith(("qwen3", "toy")) else "Qwen2"
        self.vocab = 2048 if case.name == "toy" else 151936
        config = getattr(transformers, kind + "Config")(
            vocab_size=self.vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=args.layers or layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=40960,
            rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=tied, attn_implementation="sdpa")
        with torch.device(args.device):
            self.model = getattr(transformers, kind + "ForCausalLM")(config)
        if checkpointing:
            self.model.train()
            self.model.gradient_checkpointing_enable(dict(use_reentrant=False))
        if compiled:
            for layer in self.model.model.layers:
                layer.compile()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8,
                                           weight_decay=0.1, fused=True)
        self.token = torch.randint(0, self.vocab, (case.sequences * args.batches, case.length), device=args.device)

    def head_loss(self, hidden, target):
        functional = self.torch.nn.functional

        def piece(rows, answers):
            return functional.cross_entropy(self.model.lm_head(rows).float(), answers, reduction="sum")

        total = 0.0
        for rows, answers in zip(hidden.split(self.head_rows), target.split(self.head_rows)):
            total = total + self.torch.utils.checkpoint.checkpoint(piece, rows, answers, use_reentrant=False)
        return total / len(target)

    def loss(self, token):
        if not self.head_rows:
            return self.model(input_ids=token, labels=token, use_cache=False).loss
        hidden = self.model.model(input_ids=token, use_cache=False).last_hidden_state[:, :-1]
        return self.head_loss(hidden.reshape(-1, hidden.shape[-1]), token[:, 1:].reshape(-1))

    def step(self, sequences):
        torch = self.torch
        self.wait()
        begin = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        for token in self.token.split(sequences):
            with torch.autocast(self.args.device, dtype=torch.bfloat16), self.kernel():
                loss = self.loss(token)
            (loss * len(token) / len(self.token)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.wait()
        return time.perf_counter() - begin

    def kernel(self):
        from contextlib import nullcontext
        from torch.nn.attention import SDPBackend, sdpa_kernel
        return sdpa_kernel(getattr(SDPBackend, self.attention)) if self.attention else nullcontext()

    def wait(self):
        if self.args.device == "cuda":
            self.torch.cuda.synchronize()


def serve_torch(args):
    peer = Torch(args, Case(args.shape, args))
    for _ in sys.stdin:
        print(json.dumps({"seconds": peer.step(args.torch_batch)}), flush=True)


class TorchProcess(Ours):
    def __init__(self):
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([sys.executable] + sys.argv + ["--serve-torch"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.said, text=True)


# ---- a GPU: one after the other ----

WAYS = [("FLASH_ATTENTION", False), ("CUDNN_ATTENTION", False), ("FLASH_ATTENTION", True), ("CUDNN_ATTENTION", True)]


def try_way(args, case, way, sequences, steps):
    """Seconds of each step in a process of its own, which gives all memory back; None: it does not fit, or it fails."""
    attention, compiled, head_rows, checkpointing = way
    command = [sys.executable, sys.argv[0], args.program, "--device", args.device, "--layers", str(args.layers),
               "--batches", str(args.batches), "--shape", f"{case.name}:{case.sequences}x{case.length}",
               "--torch-batch", str(sequences), "--rounds", str(steps),
               "--torch-way", f"{attention},{int(compiled)},{head_rows},{int(checkpointing)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.torch_seconds)
    except subprocess.TimeoutExpired:
        print(f"torch {way} x {sequences}: not done in {args.torch_seconds} s", file=sys.stderr)
        return None
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["?"])[-1]
        print(f"torch {way} x {sequences}: {why[:160]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def one_way(args):
    attention, compiled, head_rows, checkpointing = args.torch_way.split(",")
    peer = Torch(args, Case(args.shape, args), attention, bool(int(compiled)), int(head_rows), bool(int(checkpointing)))
    seconds = [peer.step(args.torch_batch) for _ in range(2 + args.rounds)][2:]
    memory = peer.torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
    print(json.dumps({"seconds": seconds, "memory": memory}))


def fastest_torch(args, case):
    """The fastest way, and what it took. A micro-batch is halved until it fits; later ways begin there."""
    best, best_way, sequences = None, None, case.torch_sequences

    def consider(way, count):
        nonlocal best, best_way
        found = try_way(args, case, way, count, args.rounds)
        if found and (best is None or min(found["seconds"]) < min(best["seconds"])):
            attention, compiled, _, checkpointing = way
            best = found
            best_way = (f"{attention.split('_')[0].lower() or 'sdpa'}{', compiled' if compiled else ''}"
                        f"{', checkpointed' if checkpointing else ''}, x{count}")
        return found

    for attention, compiled in (WAYS if args.device == "cuda" else []) + [("", False)]:
        if compiled and not args.compile or attention == "" and best is not None:
            continue  # whatever PyTorch takes by itself: where nothing else is
        first = best is None
        found = consider((attention, compiled, HEAD_ROWS, False), sequences)
        if found is None and first:
            consider((attention, compiled, HEAD_ROWS, True), sequences)
            while found is None and sequences > 1:
                sequences //= 2
                found = consider((attention, compiled, HEAD_ROWS, False), sequences)
    return best, best_way


def run_ours(args, case):
    ours = Ours(args, case)
    ours.ask("step")
    steps = [ours.ask("step") for _ in range(args.rounds)]
    info = ours.ask("info")
    ours.close()
    return steps, info


GPU_HEAD = ("| shape | documents | ours, tokens/s (median) | MFU | PyTorch | as | ratio | forward, backward, optimizer, s | loss | "
            "GiB planned, taken | start: device, memory, fill, first step, s |\n" + "|---" * 11 + "|")
COLUMNS = 11


class Row:
    """What one number of documents gave."""

    def __init__(self, args, case):
        self.case, self.tokens = case, case.tokens(args)
        self.steps, self.info = run_ours(args, case)
        self.median = statistics.median(s["tokens_per_s"] for s in self.steps)
        self.best = min(self.steps, key=lambda s: s["seconds"])

    def text(self, peer=""):
        case, best, info = self.case, self.best, self.info
        return (f"| {case.name} | {case.sequences} x {case.length} | {best['tokens_per_s']:.0f} ({self.median:.0f}) | "
                f"{100 * best['mfu'] * self.median / best['tokens_per_s']:.1f} % | {peer or '| | |'} "
                f"{best['forward_s']:.3f}, {best['backward_s']:.3f}, {best['optimizer_s']:.3f} | {best['loss']:.4f} | "
                f"{info['planned_bytes'] / 2**30:.2f}, {info['used_bytes'] / 2**30:.2f} ({info['recompute']}) | "
                f"{info['device_s']:.2f}, {info['create_s']:.2f}, {info['prepare_s']:.2f}, {info['first_step_s']:.2f} |")


def say(case, what):
    print(f"| {case.name} | {case.sequences} x {case.length} | {what} " + "| " * (COLUMNS - 3) + "|", flush=True)


def measure(args, case, sequences, length):
    """A row, which is printed; None: it does not fit."""
    one = Case(f"{case.name}:{sequences}x{length}/{case.torch_sequences}", args)
    try:
        row = Row(args, one)
    except DoesNotFit as error:
        return say(one, f"does not fit: {error}")
    except RuntimeError as error:
        raise Failed(one, error) from error
    print(row.text(), flush=True)
    return row


def measure_all(args, case):
    """Rows of each number of documents; where none fits, of one that is halved until it does."""
    rows = [row for number in case.choices if (row := measure(args, case, number, case.length))]
    sequences, length = min(case.choices), case.length
    while not rows and length > 256:
        sequences, length = (sequences // 2, length) if sequences > 1 else (1, length // 2)
        rows = [row for row in [measure(args, case, sequences, length)] if row]
    return rows


def beside_torch(args, row):
    """The row again, beside what PyTorch makes of as many documents of this length."""
    case = Case(f"{row.case.name}:{row.case.sequences}x{row.case.length}/{row.case.torch_sequences}", args)
    case.sequences = max(row.case.torch_sequences, row.case.sequences)
    case.torch_sequences = case.sequences
    theirs, way = fastest_torch(args, case)
    if theirs is None:
        return say(row.case, "**PyTorch: nothing of what is tried runs**")
    tokens = case.tokens(args)
    peer = tokens / statistics.median(theirs["seconds"])
    best = tokens / min(theirs["seconds"])
    print(row.text(f"{best:.0f} ({peer:.0f}) | {way} | {row.median / peer:.2f} |"), flush=True)


def compare_in_turn(args):
    failed = False
    print(GPU_HEAD, flush=True)
    for text in args.shape.split(","):
        case = Case(text, args)
        try:
            rows = measure_all(args, case)
        except Failed as error:
            say(error.case, f"**{error.why}**")
            failed = True
            continue
        if not rows:
            continue
        fastest = max(rows, key=lambda row: row.median)
        if len(rows) > 1:
            say(fastest.case, "**the fastest of these**")
        if not args.no_torch:
            beside_torch(args, fastest)
    if failed:
        sys.exit(1)


# ---- the CPU: step by step ----

def compare_by_steps(args):
    case = Case(args.shape, args)
    ours, peer = Ours(args, case), TorchProcess()
    tokens = case.tokens(args)
    ours.ask("step"), peer.ask("step")  # warm up both
    steps, gemms, theirs = [], [], []
    for i in range(args.rounds):
        gemms.append(ours.ask("gemm"))
        steps.append(ours.ask("step"))
        theirs.append(peer.ask("step")["seconds"])
        print(f"round {i + 1}: ours {tokens / steps[-1]['seconds']:.1f} tokens/s, torch {tokens / theirs[-1]:.1f}, "
              f"products {gemms[-1]['all_flops_per_s'] / 1e9:.0f} GFLOP/s", file=sys.stderr)
    ours.close(), peer.close()
    seconds = [s["seconds"] for s in steps]
    products = [g["all_flops_per_s"] for g in gemms]
    best = min(steps, key=lambda s: s["seconds"])
    print(f"{args.layers} layers, {case.sequences} x {case.length} tokens a step, {args.threads} threads, tp {args.tp}")
    print(f"ours      best {tokens / min(seconds):8.1f} tokens/s, median {tokens / statistics.median(seconds):8.1f}   "
          f"(forward {best['forward_s']:.2f} s, backward {best['backward_s']:.2f}, optimizer {best['optimizer_s']:.2f}, "
          f"in collectives {best['comm_s']:.2f})")
    print(f"torch     best {tokens / min(theirs):8.1f} tokens/s, median {tokens / statistics.median(theirs):8.1f}")
    print(f"ratio     best over best {min(theirs) / min(seconds):.2f}, "
          f"median of rounds {statistics.median(t / s for t, s in zip(theirs, seconds)):.2f}")
    print(f"of GEMM   best over best {100 * best['flops_per_s'] / max(products):.1f} %, median of rounds "
          f"{100 * statistics.median(s['flops_per_s'] / p for s, p in zip(steps, products)):.1f} %  "
          f"(products of the step alone: best {max(products) / 1e9:.0f} GFLOP/s, "
          f"best single product {max(g['best_flops_per_s'] for g in gemms) / 1e9:.0f})")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shape", default="qwen3-0.6b")
    for name, default in dict(threads=2, tp=1, layers=None, length=1024, sequences=2, batches=1, rounds=5, torch_batch=1,
                              torch_seconds=120).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--in-turn", action="store_true", help="one after the other, as on a GPU")
    parser.add_argument("--no-torch", action="store_true", help="ours alone, where there is no PyTorch")
    parser.add_argument("--compile", action="store_true", help="try compiled layers, too")
    parser.add_argument("--serve-torch", action="store_true")
    parser.add_argument("--torch-way")
    args = parser.parse_args()
    if not os.access(args.program, os.X_OK):
        sys.exit(f"{args.program} cannot be run: build the tests (ninja -C build)")
    if args.layers is None:
        args.layers = 8 if args.device == "cpu" else 0
    if args.serve_torch:
        serve_torch(args)
    elif args.torch_way:
        one_way(args)
    elif args.device == "cuda" or args.in_turn or args.no_torch:
        compare_in_turn(args)
    else:
        compare_by_steps(args)


if __name__ == "__main__":
    main()
