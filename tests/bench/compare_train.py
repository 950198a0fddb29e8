#!/usr/bin/env python3
"""Training speed on the CPU beside PyTorch: same model shapes, same tokens per step, same optimizer, in one run.

  python tests/bench/compare_train_cpu.py build/bin/bench_train_cpu [--threads 2] [--tp 1] [--layers 8] [--rounds 5]

The two take turns, one step each, because a shared host's speed changes from second to second; the rate of the model's own
matrix products is measured in the same rounds. Reported: best and median tokens/s, the median of the rounds'
ratios, and our step's model FLOP/s as a share of the GEMM rate (best over best, and median of rounds).

PyTorch: transformers' Qwen3ForCausalLM, float32 weights, bf16 autocast, sdpa attention, torch.optim.AdamW(fused=True),
the same packed tokens as a batch of equal sequences, and its own loss over all logits. Both time the whole step:
forward, backward, gradient norm and clipping, optimizer.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time


class Ours:
    def __init__(self, args):
        command = [args.program, "rounds=0", f"threads={args.threads}", f"tp={args.tp}", f"layers={args.layers}",
                   f"length={args.length}", f"sequences={args.sequences}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Torch:
    def __init__(self, args):
        import torch
        from transformers import Qwen3Config, Qwen3ForCausalLM
        torch.set_num_threads(args.threads)
        torch.manual_seed(1)
        self.torch, self.args = torch, args
        config = Qwen3Config(
            vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=args.layers,
            num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_position_embeddings=40960,
            rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=True, attn_implementation="sdpa")
        self.model = Qwen3ForCausalLM(config)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8,
                                           weight_decay=0.1, fused=True)
        self.token = torch.randint(0, 151936, (args.sequences, args.length))

    def step(self):
        torch, begin = self.torch, time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        for token in self.token.split(self.args.torch_batch):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = self.model(input_ids=token, labels=token, use_cache=False).loss
            (loss * len(token) / len(self.token)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return time.perf_counter() - begin


def serve_torch(args):
    peer = Torch(args)
    for _ in sys.stdin:
        print(json.dumps({"seconds": peer.step()}), flush=True)


class TorchProcess(Ours):
    def __init__(self):
        self.process = subprocess.Popen([sys.executable] + sys.argv + ["--serve-torch"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    for name, default in dict(threads=2, tp=1, layers=8, length=1024, sequences=2, rounds=5, torch_batch=1).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--serve-torch", action="store_true")
    args = parser.parse_args()
    if args.serve_torch:
        return serve_torch(args)
    ours, peer = Ours(args), TorchProcess()
    tokens = args.length * args.sequences
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
    print(f"{args.layers} layers, {args.sequences} x {args.length} tokens a step, {args.threads} threads, tp {args.tp}")
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


if __name__ == "__main__":
    main()
