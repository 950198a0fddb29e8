#!/usr/bin/env python3
"""Makes tests/train_worker/golden_policy/{advantages,losses}.json: what the papers' formulas give, in float64, with
gradients by torch's autograd. Sums are written out as the definitions have them (GAE as its double sum, a leave-one-out
mean by leaving one out), so that nothing of the recursions under test is repeated here.

Run with an interpreter that has torch:  python tests/train_worker/make_policy_losses.py
"""
import itertools
import json
import pathlib

import torch

torch.set_default_dtype(torch.float64)
FOLDER = pathlib.Path(__file__).parent / "golden_policy"
SIZES = [4, 3, 2, 5, 3]  # of the groups: uneven
LENGTHS = [6, 1, 4, 9]   # trained tokens of samples


# ---- advantages ----

def group_scores(name, rewards, std):
    if name == "rloo":
        return torch.stack([r - (rewards.sum() - r) / (len(rewards) - 1) for r in rewards])
    centred = rewards - rewards.mean()
    return centred / (rewards.std(unbiased=True) + 1e-6) if name == "grpo" and std else centred


def token_rewards(score, kl, coef):
    rewards = -coef * kl
    rewards[-1] = rewards[-1] + score
    return rewards


def discounted(rewards, gamma):
    n = len(rewards)
    return torch.stack([sum(gamma ** (k - t) * rewards[k] for k in range(t, n)) for t in range(n)])


def gae(rewards, values, gamma, lam):
    n = len(rewards)
    after = torch.cat([values[1:], torch.zeros(1)])
    delta = rewards + gamma * after - values
    advantage = torch.stack([sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, n)) for t in range(n)])
    return advantage, advantage + values


def make_advantages(generator):
    rewards = [torch.randn(n, generator=generator) for n in SIZES]
    rewards[2][:] = 0.1  # no variance, and no exact binary fraction
    rewards[4] = torch.tensor([1.0, 0.0, 1.0])
    cases = []
    for name, std in [("grpo", True), ("grpo", False), ("rloo", True), ("reinforce_plus_plus_baseline", True),
                      ("reinforce_plus_plus", True), ("ppo", True)]:
        grouped = name not in ("reinforce_plus_plus", "ppo")
        scores = [group_scores(name, r, std) if grouped else r for r in rewards]
        scores[2] = torch.zeros(SIZES[2]) if grouped else rewards[2]
        cases.append(dict(estimator=name, std=std, score=torch.cat(scores).tolist()))
    tokens, whole = [], []
    for length, (gamma, lam, coef) in zip(LENGTHS, [(1.0, 1.0, 0.1), (0.9, 0.5, 0.0), (0.99, 0.95, 0.3), (1.0, 0.0, 1)]):
        kl, value = torch.randn(length, generator=generator), torch.randn(length, generator=generator)
        score = torch.randn(1, generator=generator)[0]
        rewarded = token_rewards(score, kl, coef)
        advantage, returns = gae(rewarded, value, gamma, lam)
        whole.append(advantage)
        tokens.append(dict(gamma=gamma, gae_lambda=lam, kl_coef=coef, kl=kl.tolist(), value=value.tolist(),
                           score=score.item(), grpo=[score.item()] * length, ppo=advantage.tolist(),
                           ppo_return=returns.tolist(), reinforce_plus_plus=discounted(rewarded, gamma).tolist(),
                           reinforce_plus_plus_baseline=(score - coef * kl).tolist()))
    joined = torch.cat(whole)
    white = (joined - joined.mean()) / torch.sqrt(joined.var(unbiased=True) + 1e-8)
    return dict(sizes=SIZES, reward=torch.cat(rewards).tolist(), scores=cases, tokens=tokens, whitened=white.tolist())


# ---- losses ----

def kl_of(kind, d):
    k3 = torch.exp(-d) - 1 + d
    return dict(k1=d, k2=d * d / 2, k3=k3, low_var_kl=k3.clamp(-10, 10))[kind]


def clip_loss(case, ratio, advantage):
    bounded = ratio.clamp(1 - case["eps_clip"], 1 + case["eps_clip_high"])
    loss = torch.maximum(-ratio * advantage, -bounded * advantage)
    if case["eps_clip_c"] > 0:
        loss = torch.where(advantage < 0, torch.minimum(loss, -case["eps_clip_c"] * advantage), loss)
    return loss


def policy_of(case, x, o, advantage):
    ratio = torch.exp((x - o).clamp(-20, 20))
    if case["policy_loss"] == "clip":
        return clip_loss(case, ratio, advantage)
    if case["policy_loss"] == "gspo":
        return clip_loss(case, torch.exp((x - o).mean()).expand_as(x), advantage)
    if case["policy_loss"] == "cispo":
        return -ratio.detach().clamp(1 - case["eps_clip"], 1 + case["eps_clip_high"]) * advantage * x
    return -advantage * x


def weight_of(case, o, u):
    if case["correction"] == "none":
        return torch.ones_like(o)
    log = o - u
    if case["correction_level"] == "sequence":
        log = log.sum().expand_as(o)
    if case["correction_level"] == "geometric":
        log = log.mean().expand_as(o)
    w, low, high = torch.exp(log), case["correction_low"], case["correction_high"]
    if case["correction"] == "tis":
        return w.clamp(low, high)
    return torch.where((w >= low) & (w <= high), w, torch.zeros_like(w))


def loss_of(case, sample, x, entropy):
    o, u, f = sample["old"], sample["rollout"], sample["ref"]
    loss = policy_of(case, x, o, sample["advantage"]) * weight_of(case, o, u)
    kl = kl_of(case["kl"], x - f)
    if case["unbiased_kl"]:
        kl = kl * torch.exp((x - o).clamp(-20, 20))
    loss = loss + case["kl_loss_coef"] * kl - case["entropy_coef"] * entropy
    return sample["weight"] * loss.sum()


BASE = dict(policy_loss="clip", eps_clip=0.2, eps_clip_high=0.28, eps_clip_c=0.0, correction="none",
            correction_level="token", correction_low=0.0, correction_high=2.0, kl="k3", kl_loss_coef=0.0,
            unbiased_kl=False, entropy_coef=0.0)


def list_cases():
    cases = [dict(BASE, policy_loss=kind, eps_clip_c=c)
             for kind, c in itertools.product(["clip", "gspo", "cispo", "reinforce"], [0.0, 1.5])
             if c == 0.0 or kind in ("clip", "gspo")]
    cases += [dict(BASE, kl=kind, kl_loss_coef=0.3, unbiased_kl=unbiased)
              for kind, unbiased in itertools.product(["k1", "k2", "k3", "low_var_kl"], [False, True])]
    cases += [dict(BASE, correction=kind, correction_level=level, correction_low=low, correction_high=high)
              for (kind, low, high), level in itertools.product([("tis", 0.0, 1.3), ("tis", 0.9, 1.1),
                                                                 ("icepop", 0.8, 1.2)],
                                                                ["token", "sequence", "geometric"])]
    cases += [dict(BASE, policy_loss="gspo", eps_clip=3e-2, eps_clip_high=4e-2, entropy_coef=0.01, kl_loss_coef=0.1,
                   kl="k2", correction="icepop", correction_low=0.5, correction_high=1.5),
              dict(BASE, policy_loss="reinforce", entropy_coef=-0.2)]
    return cases


def make_losses(generator):
    def draw(length, scale):
        return scale * torch.randn(length, generator=generator)

    samples = []
    for i, length in enumerate(LENGTHS):
        x = -torch.rand(length, generator=generator) * 3
        samples.append(dict(x=x, old=x + draw(length, 0.3), ref=x + draw(length, 0.5),
                            advantage=draw(length, 1.0) if i % 2 else draw(1, 1.0).expand(length).clone(),
                            entropy=torch.rand(length, generator=generator) * 3, weight=1.0 / (i + 1)))
        samples[-1]["rollout"] = samples[-1]["old"] + draw(length, 0.25)
    samples[3]["x"][0] = samples[3]["old"][0] - 30  # further away than any ratio that counts
    samples[3]["ref"][0] = samples[3]["x"][0] + 4
    samples[3]["advantage"][:2] = -2.0
    samples[3]["old"][1] = samples[3]["x"][1] - 1  # a large ratio where the advantage is negative: dual clip
    cases = list_cases()
    for case in cases:
        x = [s["x"].clone().requires_grad_() for s in samples]
        h = [s["entropy"].clone().requires_grad_() for s in samples]
        total = sum(loss_of(case, s, x[i], h[i]) for i, s in enumerate(samples))
        total.backward()
        case.update(loss=total.item(), dlog_prob=torch.cat([t.grad for t in x]).tolist())
        case["dentropy"] = torch.cat([t.grad for t in h]).tolist() if case["entropy_coef"] else []
    flat = {key: torch.cat([s[key] for s in samples]).tolist()
            for key in ("x", "old", "rollout", "ref", "advantage", "entropy")}
    return dict(lengths=LENGTHS, weight=[s["weight"] for s in samples], **flat, cases=cases,
                values=make_values(generator))


def make_values(generator):
    n, cases = 8, []
    value, old, target = [torch.randn(n, generator=generator) for _ in range(3)]
    for clip in (0.0, 0.2, 0.7):
        v = value.clone().requires_grad_()
        free = (v - target) ** 2
        loss = torch.maximum((old + (v - old).clamp(-clip, clip) - target) ** 2, free) if clip else free
        (0.5 * loss.sum()).backward()
        cases.append(dict(clip=clip, loss=0.5 * loss.sum().item(), dvalue=v.grad.tolist()))
    return dict(value=value.tolist(), old=old.tolist(), target=target.tolist(), weight=0.5, cases=cases)


def write(name, content):
    """One line for each member, so that a change shows as what it is."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    (FOLDER / name).write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write("advantages.json", make_advantages(torch.Generator().manual_seed(1)))
    write("losses.json", make_losses(torch.Generator().manual_seed(2)))
