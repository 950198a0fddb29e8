#!/usr/bin/env python3
"""Makes tests/model/golden: tiny random Qwen3 and Llama models, and what transformers and torch compute with them.

Run with an interpreter that has torch, transformers and safetensors:  python tests/model/make_golden.py
Everything is float32 on the CPU, eager attention, each sequence on its own (no packing, no padding).

golden/<case>/config.json, model.safetensors   the model; weights are bfloat16-exact, to be small
golden/<case>/batches.json                     one batch per step: tokens and loss masks; hyperparameters; results
golden/<case>/expected.safetensors             logits of the first batch's rows, one sequence after the other;
                                               grad.<name> of its mean loss; after.<name> after all steps
"""
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

ROOT = pathlib.Path(__file__).parent / "golden"
COMMON = dict(vocab_size=37, hidden_size=32, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4,
              max_position_embeddings=64, rms_norm_eps=1e-6, attention_bias=False, attention_dropout=0.0,
              rope_theta=10000.0)
CASES = {
    "tied_gqa": dict(COMMON, num_key_value_heads=2, head_dim=12, tie_word_embeddings=True),
    "untied_mha": dict(COMMON, num_key_value_heads=4, head_dim=8, tie_word_embeddings=False),
    "llama_mqa": dict(COMMON, num_hidden_layers=1, hidden_size=16, intermediate_size=20, num_key_value_heads=1,
                      head_dim=4, tie_word_embeddings=True),
}
CLASSES = dict(qwen3=(Qwen3Config, Qwen3ForCausalLM), llama=(LlamaConfig, LlamaForCausalLM))
LENGTHS = [[11, 1, 7, 2, 9], [5, 13, 6], [8, 8, 3, 10]]
HYPER = dict(lr=[1e-2, 5e-3, 2e-3], beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_grad=6.0)


def make_batches(generator, vocab):
    batches = []
    for lengths in LENGTHS:
        samples = []
        for length in lengths:
            token = torch.randint(0, vocab, (length,), generator=generator).tolist()
            mask = (torch.rand(length, generator=generator) < 0.6).int().tolist()
            mask[0] = 0
            samples.append(dict(token=token, loss_mask=mask))
        batches.append(samples)
    return batches


def loss_sum(model, samples):
    """Sum of the trained tokens' losses, all logits, how many were the arg max, and how many there are."""
    total, logits, correct, trained, log_probs = 0.0, [], 0, 0, []
    for sample in samples:
        token = torch.tensor(sample["token"])
        out = model(token[None]).logits[0]
        logits.append(out)
        keep = torch.tensor(sample["loss_mask"][1:]) == 1
        rows, target = out[:-1][keep], token[1:][keep]
        if len(target) == 0:
            continue
        total = total + torch.nn.functional.cross_entropy(rows, target, reduction="sum")
        log_probs += torch.log_softmax(rows, -1)[torch.arange(len(target)), target].tolist()
        correct += int((rows.argmax(-1) == target).sum())
        trained += len(target)
    return total, torch.cat(logits), correct, trained, log_probs


def make_case(name, fields):
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    kind = "llama" if name.startswith("llama") else "qwen3"
    config_class, model_class = CLASSES[kind]
    model = model_class(config_class(**fields, attn_implementation="eager", dtype="float32"))
    weights = {}
    with torch.no_grad():
        for key, weight in model.named_parameters():
            draw = torch.randn(weight.shape, generator=generator)
            value = 1 + 0.2 * draw if weight.dim() == 1 else 0.25 * draw
            weight.copy_(value.bfloat16())
            weights[key] = weight.detach().bfloat16().clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(fields, model_type=kind, hidden_act="silu"), indent=1) + "\n")

    matrices = [w for w in model.parameters() if w.dim() > 1]
    vectors = [w for w in model.parameters() if w.dim() == 1]
    optimizer = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=HYPER["weight_decay"]), dict(params=vectors, weight_decay=0.0)],
        lr=1.0, betas=(HYPER["beta1"], HYPER["beta2"]), eps=HYPER["eps"], foreach=False)
    batches, expected, steps = make_batches(generator, fields["vocab_size"]), {}, []
    for step, samples in enumerate(batches):
        optimizer.zero_grad()
        total, logits, correct, trained, log_probs = loss_sum(model, samples)
        (total / trained).backward()
        if step == 0:
            expected["logits"] = logits.detach()
            for key, weight in model.named_parameters():
                expected["grad." + key] = weight.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), HYPER["clip_grad"], foreach=False)
        for group in optimizer.param_groups:
            group["lr"] = HYPER["lr"][step]
        optimizer.step()
        steps.append(dict(loss_sum=total.item(), trained_tokens=trained, correct=correct, grad_norm=norm.item(),
                          log_prob=log_probs, samples=samples))
        print(f"{name} step {step + 1}: loss {total.item() / trained:.6f} norm {norm.item():.6f}")
    for key, weight in model.named_parameters():
        expected["after." + key] = weight.detach().clone()
    save_file(expected, folder / "expected.safetensors")
    (folder / "batches.json").write_text(json.dumps(dict(HYPER, steps=steps)) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case_name, case_fields in CASES.items():
        make_case(case_name, case_fields)
