#!/usr/bin/env python3
"""Makes tests/train_worker/golden_policy/<case>.{json,safetensors}: three steps of reinforcement learning with small models,
one of tests/model/golden and one of its own, by transformers and torch's autograd and AdamW. Everything is float64, eager attention, each sequence
on its own; formulas are those of make_policy_losses.py, here on log-probs, entropies and values of a real model.

Run with an interpreter that has torch, transformers and safetensors:  python tests/train_worker/make_policy_golden.py

<case>.json          the algorithm and, for each step, samples (tokens, masks, rewards, reported log-probs) and results
<case>.safetensors   grad.<name>: of step 1's loss, where a step is one optimizer step; after.<name>: weights after all steps; critic.<name>: the critic's
policy/<model>       config.json and the weights of the model of its own, bfloat16-exact
reference/<model>    the reference model's weights, bfloat16-exact; critic/<model>: a model with score.weight
"""
import itertools
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import make_policy_losses as formulas

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent / "model" / "golden"
FOLDER = HERE / "golden_policy"
SMALL_GQA = dict(vocab_size=37, hidden_size=12, intermediate_size=8, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=6, max_position_embeddings=64, rms_norm_eps=1e-6, attention_bias=False,
                 attention_dropout=0.0, rope_theta=10000.0, tie_word_embeddings=True)
FOLDERS = dict(llama_mqa=MODELS / "llama_mqa", small_gqa=FOLDER / "policy" / "small_gqa")
CLASSES = dict(qwen3=(Qwen3Config, Qwen3ForCausalLM), llama=(LlamaConfig, LlamaForCausalLM))
HYPER = dict(lr=[1e-2, 5e-3, 2e-3], critic_lr=[2e-2, 1e-2, 5e-3], beta1=0.9, beta2=0.95, eps=1e-5, weight_decay=0.1,
             clip_grad=0.5)  # eps: so large that rounding does not move what has no gradient
GROUPS = [[3, 2], [2, 4], [3, 3]]  # samples of each group, by step
BASE = dict(formulas.BASE, model="llama_mqa", estimator="grpo", std=True, whiten=False, gamma=1.0, gae_lambda=1.0,
            kl_coef=0.0, old="rollout", normalization="token", loss_constant=0, value_clip=0.0, critic_updates=1,
            temperature=1.0, updates=1)
CASES = {
    "grpo": dict(BASE, model="small_gqa", kl="k3", kl_loss_coef=0.1, entropy_coef=0.02, temperature=0.7),
    "gspo": dict(BASE, std=False, policy_loss="gspo", eps_clip=0.05, eps_clip_high=0.06, normalization="constant",
                 loss_constant=12),
    "cispo": dict(BASE, estimator="rloo", policy_loss="cispo", kl="k1", kl_coef=0.05, normalization="sample",
                  temperature=1.3),
    "reinforce_plus_plus": dict(BASE, estimator="reinforce_plus_plus", eps_clip_c=1.2, kl="k2", kl_coef=0.1, gamma=0.95,
                                whiten=True),
    "baseline_tis": dict(BASE, estimator="reinforce_plus_plus_baseline", old="current", correction="tis",
                         correction_low=0.7, correction_high=1.2, kl="k3", kl_coef=0.1, whiten=True,
                         policy_loss="reinforce"),
    "ppo": dict(BASE, estimator="ppo", gamma=0.99, gae_lambda=0.9, whiten=True, kl="k2", kl_loss_coef=0.2,
                unbiased_kl=True, correction="icepop", correction_level="geometric", old="current",
                correction_low=0.85, correction_high=1.15, value_clip=0.1, critic_updates=2, normalization="sample"),
    "mini_batches": dict(BASE, eps_clip=0.1, eps_clip_high=0.15, kl="k3", kl_loss_coef=0.1, normalization="sample",
                         updates=2),
    "ppo_mini_batches": dict(BASE, estimator="ppo", gamma=0.99, gae_lambda=0.9, whiten=True, old="current",
                             eps_clip=0.01, eps_clip_high=0.02, value_clip=0.1, critic_updates=2, updates=2),
}


# ---- models ----

def make_model(name, folder):
    fields = json.loads((FOLDERS[name] / "config.json").read_text())
    config_class, model_class = CLASSES[fields.pop("model_type")]
    config = config_class(**fields, attn_implementation="eager", dtype="float64")
    model = model_class(config).double()
    weights = {key: value.double() for key, value in load_file(folder / "model.safetensors").items()}
    score = weights.pop("score.weight", None)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("lm_head" in key for key in missing)
    if score is not None:
        model.score = torch.nn.Parameter(score)
    return model


def make_small_gqa():
    """Weights as those of tests/model/golden are drawn."""
    generator, weights = torch.Generator().manual_seed(5), {}
    model = Qwen3ForCausalLM(Qwen3Config(**SMALL_GQA))
    for key, weight in model.named_parameters():
        draw = torch.randn(weight.shape, generator=generator)
        weights[key] = (1 + 0.2 * draw if weight.dim() == 1 else 0.25 * draw).bfloat16()
    folder = FOLDERS["small_gqa"]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(SMALL_GQA, model_type="qwen3", hidden_act="silu"), indent=1) + "\n")


def make_folder(kind, name, generator):
    """A model near the policy's own, as a model folder."""
    folder = FOLDER / kind / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for key, value in load_file(FOLDERS[name] / "model.safetensors").items():
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float32)
        weights[key] = (value.float() + (0.02 if kind == "reference" else 0.1) * noise).bfloat16()
    if kind == "critic":
        hidden = weights["model.norm.weight"].shape[0]
        weights["score.weight"] = (0.3 * torch.randn(1, hidden, generator=generator, dtype=torch.float32)).bfloat16()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def make_optimizer(parameters):
    matrices = [w for w in parameters if w.dim() > 1]
    vectors = [w for w in parameters if w.dim() == 1]
    return torch.optim.AdamW(
        [dict(params=matrices, weight_decay=HYPER["weight_decay"]), dict(params=vectors, weight_decay=0.0)],
        lr=1.0, betas=(HYPER["beta1"], HYPER["beta2"]), eps=HYPER["eps"], foreach=False)


def update(optimizer, parameters, lr):
    """Clips as we do (nothing where the norm is below), steps, and returns the norm before."""
    norm = torch.sqrt(sum((w.grad ** 2).sum() for w in parameters))
    if norm > HYPER["clip_grad"]:
        for w in parameters:
            w.grad *= HYPER["clip_grad"] / (norm + 1e-6)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return norm.item()


def trained_rows(sample):
    keep = [t for t in range(1, len(sample["token"])) if sample["loss_mask"][t]]
    return torch.tensor(keep), torch.tensor([sample["token"][t] for t in keep])


def read_policy(model, sample, temperature):
    rows, target = trained_rows(sample)
    logits = model(torch.tensor(sample["token"])[None]).logits[0][rows - 1] / temperature
    log_p = torch.log_softmax(logits, -1)
    return log_p[torch.arange(len(rows)), target], -(log_p.exp() * log_p).sum(-1)


def read_values(model, sample):
    rows, _ = trained_rows(sample)
    hidden = model.model(torch.tensor(sample["token"])[None]).last_hidden_state[0]
    return hidden[rows - 1] @ model.score[0]


# ---- steps ----

def draw_samples(case, generator, model, sizes):
    """Groups of samples, with log-probs as a policy some way off would have reported them."""
    vocab, samples = model.config.vocab_size, []
    for group, size in enumerate(sizes):
        for index in range(size):
            length = int(torch.randint(6, 13, (1,), generator=generator))
            token = torch.randint(0, vocab, (length,), generator=generator).tolist()
            mask = [int(t >= 3 and (t < 5 or float(torch.rand(1, generator=generator)) < 0.7)) for t in range(length)]
            sample = dict(position=7 * group + 1, index=index, token=token, loss_mask=mask)
            with torch.no_grad():
                log_prob, _ = read_policy(model, sample, case["temperature"])
            reported = log_prob + 0.15 * torch.randn(len(log_prob), generator=generator)
            sample["reported"] = reported.clamp(max=-1e-3).float().double()
            sample["reward"] = float(torch.randint(0, 4, (1,), generator=generator)) / 4
            samples.append(sample)
    return samples


def short(values):
    """Numbers of float32 in as many digits as tell them from each other."""
    return [float(f"{value:.9g}") for value in values.tolist()]


def scores(case, samples):
    """Each sample's score, from its group."""
    result = []
    for _, group in itertools.groupby(samples, key=lambda s: s["position"]):
        group = list(group)
        rewards = torch.tensor([s["reward"] for s in group])
        if case["estimator"] in ("grpo", "rloo"):
            rewards = rewards - case["kl_coef"] * torch.stack([s["kl"].sum() for s in group])
        grouped = case["estimator"] not in ("reinforce_plus_plus", "ppo")
        result += list(formulas.group_scores(case["estimator"], rewards, case["std"]) if grouped else rewards)
    return result


def add_advantages(case, samples):
    for sample, score in zip(samples, scores(case, samples)):
        n, coef = len(sample["old"]), case["kl_coef"]
        if case["estimator"] in ("grpo", "rloo"):
            sample["advantage"] = score.expand(n).clone()
        elif case["estimator"] == "reinforce_plus_plus_baseline":
            sample["advantage"] = score - coef * sample["kl"]
        else:
            rewards = formulas.token_rewards(score, sample["kl"], coef)
            if case["estimator"] == "ppo":
                sample["advantage"], sample["target"] = formulas.gae(rewards, sample["value"], case["gamma"],
                                                                     case["gae_lambda"])
            else:
                sample["advantage"] = formulas.discounted(rewards, case["gamma"])
    if case["whiten"]:
        joined = torch.cat([s["advantage"] for s in samples])
        scale = torch.sqrt(joined.var(unbiased=True) + 1e-8)
        for sample in samples:
            sample["advantage"] = (sample["advantage"] - joined.mean()) / scale


def add_weights(case, samples):
    """Each sample's weight, and what the sum is divided by."""
    for sample in samples:
        sample["weight"] = 1.0 / len(sample["old"]) if case["normalization"] == "sample" else 1.0
    tokens = sum(len(s["old"]) for s in samples)
    return dict(token=tokens, sample=len(samples), constant=case["loss_constant"] * len(samples))[case["normalization"]]


def cut_updates(case, samples):
    """The samples of each optimizer step: whole groups, one after the other."""
    positions = sorted({s["position"] for s in samples})
    return [[s for s in samples if positions.index(s["position"]) * case["updates"] // len(positions) == u]
            for u in range(case["updates"])]


def check_margins(case, samples, ratios):
    """No token may stand so near a bound that float32 could decide otherwise."""
    bounds = [1 - case["eps_clip"], 1 + case["eps_clip_high"]]
    for ratio in ratios:
        assert all(abs(r - b) > 1e-4 for r in ratio.tolist() for b in bounds)
    if case["correction"] != "none":
        for s in samples:
            log = s["old"] - s["rollout"]
            w = torch.exp(log.mean() if case["correction_level"] == "geometric" else log).flatten().tolist()
            assert all(abs(x - b) > 1e-4 for x in w for b in (case["correction_low"], case["correction_high"]))


def update_critic(case, critic, optimizer, samples, lr):
    parameters = list(critic.parameters())
    parameters = [w for w in parameters if w is not getattr(critic.lm_head, "weight", None) or case["tied"]]
    optimizer.zero_grad()
    total = 0.0
    for s in samples:
        v, clip = read_values(critic, s), case["value_clip"]
        free = (v - s["target"]) ** 2
        held = (s["value"] + (v - s["value"]).clamp(-clip, clip) - s["target"]) ** 2
        total = total + s["weight"] * (torch.maximum(held, free) if clip else free).sum()
    (total / add_weights(case, samples)).backward()
    return total.item(), update(optimizer, parameters, lr)


def train_critic(case, critic, optimizer, samples, lr):
    for _ in range(case["critic_updates"]):
        made = [update_critic(case, critic, optimizer, part, lr) for part in cut_updates(case, samples)]
    return dict(critic_loss=sum(loss for loss, _ in made), critic_grad_norm=sum(norm for _, norm in made) / len(made))


def update_policy(case, step, state, samples, has_moved):
    """One optimizer step; returns its loss, norm, entropy, and the ratios."""
    model = state["model"]
    state["optimizer"].zero_grad()
    total, ratios, entropies = 0.0, [], 0.0
    for s in samples:
        x, entropy = read_policy(model, s, case["temperature"])
        total = total + formulas.loss_of(case, s, x, entropy)
        log = (x - s["old"]).detach()
        ratios.append(torch.exp(log.mean().expand_as(log) if case["policy_loss"] == "gspo" else log))
        entropies += entropy.sum().item()
    moves = case["policy_loss"] != "reinforce" and (case["old"] != "current" or has_moved)
    check_margins(case, samples, ratios if moves else [])
    (total / add_weights(case, samples)).backward()
    if step == 0:
        state["grad"] = {key: w.grad.clone() for key, w in model.named_parameters()}
    return total.item(), update(state["optimizer"], list(model.parameters()), HYPER["lr"][step]), entropies, ratios


def run_step(case, step, state, samples):
    """One step; returns what is compared."""
    model, temperature = state["model"], case["temperature"]
    for s in samples:
        with torch.no_grad():
            current, _ = read_policy(model, s, temperature)
            s["ref"], _ = read_policy(state["reference"], s, temperature)
            s["rollout"] = s["reported"]
            s["old"] = current if case["old"] == "current" else s["reported"]
            s["kl"] = formulas.kl_of(case["kl"], s["old"] - s["ref"])
            if state["critic"] is not None:
                s["value"] = read_values(state["critic"], s)
    add_advantages(case, samples)
    normaliser, result = add_weights(case, samples), {}
    if state["critic"] is not None:
        result = train_critic(case, state["critic"], state["critic_optimizer"], samples, HYPER["critic_lr"][step])
    made = [update_policy(case, step, state, part, u > 0) for u, part in enumerate(cut_updates(case, samples))]
    outside = sum(int(((r < 1 - case["eps_clip"]) | (r > 1 + case["eps_clip_high"])).sum())
                  for _, _, _, ratios in made for r in ratios)
    return dict(result, loss=sum(m[0] for m in made), grad_norm=sum(m[1] for m in made) / len(made),
                entropy=sum(m[2] for m in made), outside=outside,
                normaliser=normaliser, trained_tokens=sum(len(s["old"]) for s in samples))


def make_case(name, case, folders):
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    kind = case["model"]
    model, reference = make_model(kind, FOLDERS[kind]), make_model(kind, folders["reference", kind])
    critic = make_model(kind, folders["critic", kind]) if case["estimator"] == "ppo" else None
    case["tied"] = model.config.tie_word_embeddings
    state = dict(model=model, reference=reference, critic=critic, optimizer=make_optimizer(list(model.parameters())))
    if critic is not None:
        state["critic_optimizer"] = make_optimizer(list(critic.parameters()))
    steps = []
    for step, sizes in enumerate(GROUPS):
        samples = draw_samples(case, generator, model, sizes)
        result = run_step(case, step, state, samples)
        keep = [dict(position=s["position"], index=s["index"], token=s["token"], loss_mask=s["loss_mask"],
                     reward=s["reward"], log_prob=short(s["reported"])) for s in samples]
        steps.append(dict(result, samples=keep))
        print(f"{name} step {step + 1}: loss {result['loss'] / result['normaliser']:.6f} norm {result['grad_norm']:.6f} "
              f"outside {result['outside']}/{result['trained_tokens']}")
    tensors = {"after." + key: w for key, w in model.named_parameters()}
    if case["updates"] == 1:
        tensors |= {"grad." + key: value for key, value in state["grad"].items()}
    if critic is not None:
        tensors |= {"critic." + ("score.weight" if key == "score" else key): w for key, w in critic.named_parameters()}
    save_file({key: w.detach().float().contiguous() for key, w in tensors.items()}, FOLDER / f"{name}.safetensors")
    lines = ",\n".join(json.dumps(step) for step in steps)
    head = json.dumps(dict(case, model_folder=str(FOLDERS[kind].relative_to(HERE.parent)), **HYPER))[1:-1]
    (FOLDER / f"{name}.json").write_text("{" + head + ', "steps": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    make_small_gqa()
    made = {}
    for seed, kind, name in [(3, "reference", "llama_mqa"), (4, "critic", "llama_mqa"), (6, "reference", "small_gqa")]:
        made[kind, name] = make_folder(kind, name, torch.Generator().manual_seed(seed))
    for case_name, fields in CASES.items():
        make_case(case_name, dict(fields), made)
