#!/usr/bin/env python3
"""Makes greedy.json: what transformers' generate gives, greedily, for the models of tests/model/golden.

Run with an interpreter that has torch and transformers:  python tests/rollout_worker/engine/make_greedy.py
float32 on the CPU, eager attention. Prompts where two logits come nearer than 1e-3 to each other are left out: there
the last bit would decide. Half of the prompts end at one of a list of end tokens, half only at the limit.
"""
import json
import pathlib

import torch
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent.parent / "model" / "golden"
CASES = ["tied_gqa", "untied_mha", "llama_mqa"]
ENDS = [3, 11, 20]
NEW_TOKENS = 40


def generate(model, prompt, ends):
    token = torch.tensor([prompt])  # without a mask, generate would take id 0 in a prompt for padding
    out = model.generate(token, attention_mask=torch.ones_like(token), do_sample=False, max_new_tokens=NEW_TOKENS,
                         eos_token_id=ends, pad_token_id=0, output_logits=True, return_dict_in_generate=True)
    top = torch.stack(out.logits)[:, 0].topk(2, -1).values
    return out.sequences[0, len(prompt):].tolist(), (top[:, 0] - top[:, 1]).min().item()


def make_case(name):
    config = AutoConfig.from_pretrained(GOLDEN / name, attn_implementation="eager")
    model = AutoModelForCausalLM.from_pretrained(GOLDEN / name, config=config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(7)
    samples = []
    while len(samples) < 12:
        length = int(torch.randint(1, 20, (1,), generator=generator))
        prompt = torch.randint(0, config.vocab_size, (length,), generator=generator).tolist()
        ends = ENDS if len(samples) % 2 == 0 else None
        token, margin = generate(model, prompt, ends)
        if margin > 1e-3:
            samples.append(dict(prompt=prompt, with_ends=ends is not None, token=token))
    return samples


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = {name: make_case(name) for name in CASES}
    text = json.dumps(dict(ends=ENDS, new_tokens=NEW_TOKENS, cases=cases))
    (HERE / "greedy.json").write_text(text + "\n")
    print({name: [len(s["token"]) for s in samples] for name, samples in cases.items()})
