"""Makes tests/tensor/fixtures/safetensors: files written by the `safetensors` package (0.8), which
test_safetensors.c reads, and writes again byte for byte. Element i of every tensor is (7 * i) % 23 - 3 (without
the - 3 where the type has no sign). Needs torch and safetensors; run from anywhere."""
import json
import pathlib

import torch
from safetensors.torch import save_file

folder = pathlib.Path(__file__).parent / "fixtures" / "safetensors"
folder.mkdir(parents=True, exist_ok=True)


def values(shape, dtype):
    count = torch.Size(shape).numel()
    offset = 0 if dtype in (torch.uint8, torch.bool) else 3
    return ((7 * torch.arange(count)) % 23 - offset).to(dtype).reshape(shape)


# Every type that is read here, a scalar, an empty tensor, names that need quoting, metadata.
save_file(
    {
        "i64": values([5], torch.int64),
        "f32.weight": values([3, 4], torch.float32),
        "i32": values([2, 1, 3], torch.int32),
        "scalar": values([], torch.float32),
        "empty": values([0, 7], torch.float32),
        "bf16.weight": values([2, 3, 2, 2], torch.bfloat16),
        "f16": values([6], torch.float16),
        'qu"oted\\ \n é': values([1], torch.float16),
        "u8": values([3], torch.uint8),
    },
    folder / "all_types.safetensors",
    metadata={"format": "pt"},
)
# Legal, but not for this program: a type and a number of dimensions that it does not have.
save_file(
    {"f64": values([2], torch.float64), "five": values([1, 1, 2, 1, 1], torch.float32),
     "plain": values([2], torch.float32)},
    folder / "unsupported.safetensors",
)
# A model in two shards with its index, as transformers lays it out.
shards = folder / "sharded"
shards.mkdir(exist_ok=True)
parts = {
    "model-00001-of-00002.safetensors": {"model.embed_tokens.weight": values([4, 2], torch.bfloat16),
                                         "model.layers.0.mlp.up_proj.weight": values([3, 2], torch.bfloat16)},
    "model-00002-of-00002.safetensors": {"lm_head.weight": values([4, 2], torch.bfloat16),
                                         "model.norm.weight": values([2], torch.bfloat16)},
}
weight_map, total = {}, 0
for name, tensors in parts.items():
    save_file(tensors, shards / name, metadata={"format": "pt"})
    weight_map |= {tensor: name for tensor in tensors}
    total += sum(t.numel() * t.element_size() for t in tensors.values())
(shards / "model.safetensors.index.json").write_text(
    json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n")
