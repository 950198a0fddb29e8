"""Makes tests/tensor/fixtures/kernels: what torch and transformers' Qwen3 modules make of numbers that
test_kernel_fixtures.c makes again itself (`numbers`). One file per type; the gradients are torch.autograd's.
Needs torch, transformers and safetensors; run from anywhere."""
import pathlib

import numpy
import torch
from safetensors.torch import save_file
from transformers import Qwen3Config
from transformers.models.qwen3 import modeling_qwen3 as qwen3

folder = pathlib.Path(__file__).parent / "fixtures" / "kernels"
folder.mkdir(parents=True, exist_ok=True)

HEADS, KV_HEADS, DIM = 4, 2, 16
SEQUENCES = [66, 1, 5]
EPS = 1e-6


def numbers(shape, key, spread, dtype):
    """Element i is a hash of (i, key) in [-spread, spread)."""
    index = numpy.arange(int(numpy.prod(shape)), dtype=numpy.uint64)
    word = ((index + numpy.uint64(1000003 * key)) * numpy.uint64(2654435761)) % numpy.uint64(2**32)
    word = ((word >> numpy.uint64(15)) ^ word) * numpy.uint64(2246822519) % numpy.uint64(2**32)
    unit = (word >> numpy.uint64(8)).astype(numpy.float64) / 2**24
    value = torch.tensor((2 * unit - 1) * spread, dtype=torch.float32).reshape(shape)
    return value.to(dtype)


def leaf(*arguments):
    return numbers(*arguments).requires_grad_()


def norm_of(width, key, dtype):
    norm = qwen3.Qwen3RMSNorm(width, EPS).to(dtype)
    norm.weight.data = numbers([width], key, 1.0, dtype)
    return norm


def attention(dtype):
    """Norm of the heads, rotation and causal grouped-query attention, sequence by sequence."""
    config = Qwen3Config(hidden_size=HEADS * DIM, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
                         head_dim=DIM, rope_theta=1e6, max_position_embeddings=128)
    module = torch.nn.Module()
    module.num_key_value_groups, module.training = HEADS // KV_HEADS, False
    rotary = qwen3.Qwen3RotaryEmbedding(config)
    q_norm, k_norm = norm_of(DIM, 1, dtype), norm_of(DIM, 2, dtype)
    qkv = leaf([sum(SEQUENCES), (HEADS + 2 * KV_HEADS) * DIM], 3, 2.0, dtype)
    outs, start = [], 0
    for length in SEQUENCES:
        heads = qkv[start:start + length].view(1, length, HEADS + 2 * KV_HEADS, DIM)
        q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], dim=2)
        q, k = q_norm(q).transpose(1, 2), k_norm(k).transpose(1, 2)
        cos, sin = rotary(v, torch.arange(length)[None])
        q, k = qwen3.apply_rotary_pos_emb(q, k, cos, sin)
        mask = torch.full([length, length], torch.finfo(dtype).min, dtype=dtype).triu(1)[None, None]
        out, _ = qwen3.eager_attention_forward(module, q, k, v.transpose(1, 2), mask, DIM**-0.5)
        outs.append(out.reshape(length, HEADS * DIM))
        start += length
    out = torch.cat(outs)
    out.backward(numbers(out.shape, 4, 1.0, dtype))
    cos, sin = rotary(torch.zeros(1), torch.arange(max(SEQUENCES))[None])
    return {"attention.out": out, "attention.dqkv": qkv.grad, "attention.dq_norm": q_norm.weight.grad,
            "attention.dk_norm": k_norm.weight.grad,
            "attention.cos_sin": torch.cat([cos[0, :, :DIM // 2], sin[0, :, :DIM // 2]], dim=1)}


def rmsnorm(dtype):
    x, norm = leaf([11, 50], 5, 3.0, dtype), norm_of(50, 6, dtype)
    y = norm(x)
    y.backward(numbers(y.shape, 7, 1.0, dtype))
    return {"rmsnorm.y": y, "rmsnorm.dx": x.grad, "rmsnorm.dw": norm.weight.grad}


def swiglu(dtype):
    gate_up = leaf([7, 2 * 37], 8, 5.0, dtype)
    gate, up = gate_up.split(37, dim=1)
    y = torch.nn.functional.silu(gate) * up
    y.backward(numbers(y.shape, 9, 1.0, dtype))
    return {"swiglu.y": y, "swiglu.dgate_up": gate_up.grad}


def cross_entropy(dtype):
    logits = leaf([6, 97], 10, 8.0, torch.float32)
    target = torch.arange(6) * 16
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    (0.25 * loss.sum()).backward()
    return {"cross_entropy.loss": loss, "cross_entropy.dlogits": logits.grad.to(dtype)}


def adamw(dtype):
    weight = torch.nn.Parameter(numbers([101], 11, 1.0, torch.float32))
    optimizer = torch.optim.AdamW([weight], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    for step in range(3):
        weight.grad = numbers([101], 12 + step, 0.1, torch.float32)
        optimizer.step()
    state = optimizer.state[weight]
    return {"adamw.master": weight, "adamw.weight": weight.to(dtype), "adamw.exp_avg": state["exp_avg"],
            "adamw.exp_avg_sq": state["exp_avg_sq"]}


for name, dtype in {"f32": torch.float32, "bf16": torch.bfloat16}.items():
    tensors = {}
    for part in (attention, rmsnorm, swiglu, cross_entropy, adamw):
        tensors |= part(dtype)
    save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
