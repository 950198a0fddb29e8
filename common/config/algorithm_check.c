#include "config/algorithm.h"

#include <stdarg.h>
#include <stdio.h>

/* A check under way. Each rule below returns whether it found a fault. */
typedef struct Check {
    const AlgorithmConfig *config, *defaults;
    const AlgorithmFacts *facts;
    AlgorithmFault *fault;
} Check;

static bool fault(const Check *check, const char *key, const char *other, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static bool fault(const Check *check, const char *key, const char *other, const char *format, ...)
{
    va_list args;
    check->fault->key = key;
    check->fault->other = other;
    va_start(args, format);
    vsnprintf(check->fault->text, sizeof check->fault->text, format, args);
    va_end(args);
    return true;
}

/* ---- what compares samples ---- */

static bool groups_are_too_small(const Check *check)
{
    const AlgorithmConfig *c = check->config;
    int64_t samples = check->facts->samples_per_prompt;
    if (samples == 1 && advantage_needs_group(c->advantage_estimator))
        return fault(check, "algorithm.advantage_estimator", "rollout.n_samples_per_prompt",
                     "algorithm.advantage_estimator compares the samples of a prompt, but each "
                     "prompt gets one: every advantage would be 0.\n"
                     "Write for example rollout.n_samples_per_prompt: 8, or use the "
                     "advantage_estimator reinforce_plus_plus or ppo.");
    if (samples == 1 && c->dynamic_filter == FILTER_ZERO_VARIANCE)
        return fault(check, "algorithm.dynamic_filter", "rollout.n_samples_per_prompt",
                     "algorithm.dynamic_filter is zero_variance, but each prompt gets one sample: "
                     "every group would be dropped.\n"
                     "Write for example rollout.n_samples_per_prompt: 8, or remove the filter.");
    return false;
}

static bool estimator_has_no_use(const Check *check)
{
    const AlgorithmConfig *c = check->config, *d = check->defaults;
    AdvantageEstimator estimator = c->advantage_estimator;
    static const char other[] = "algorithm.advantage_estimator";
    if (c->std_normalization != d->std_normalization && estimator != ADVANTAGE_GRPO)
        return fault(check, "algorithm.std_normalization", other,
                     "algorithm.std_normalization has no effect: only advantage_estimator: grpo "
                     "divides by a standard deviation.\nRemove it.");
    if (c->gamma != d->gamma && estimator != ADVANTAGE_REINFORCE_PLUS_PLUS &&
        estimator != ADVANTAGE_PPO)
        return fault(check, "algorithm.gamma", other,
                     "algorithm.gamma is %g, but with this advantage_estimator all tokens of a "
                     "sample get one advantage: nothing is discounted.\n"
                     "Remove it, or use reinforce_plus_plus or ppo.",
                     c->gamma);
    if (c->gae_lambda != d->gae_lambda && estimator != ADVANTAGE_PPO)
        return fault(check, "algorithm.gae_lambda", other,
                     "algorithm.gae_lambda is %g, which only advantage_estimator: ppo uses.\n"
                     "Remove it.",
                     c->gae_lambda);
    return false;
}

/* ---- ratios ---- */

static bool changes_clip_low(const Check *check)
{
    return check->config->eps_clip != algorithm_eps_clip(check->config->policy_loss);
}

static bool changes_clip(const Check *check)
{
    const AlgorithmConfig *c = check->config;
    return changes_clip_low(check) ||
           c->eps_clip_high != algorithm_eps_clip_high(c->policy_loss, c->eps_clip);
}

static const char *clip_key(const Check *check)
{
    return changes_clip_low(check) ? "algorithm.eps_clip" : "algorithm.eps_clip_high";
}

static bool clip_has_no_use(const Check *check)
{
    const AlgorithmConfig *c = check->config;
    if (changes_clip(check) && c->policy_loss == POLICY_LOSS_REINFORCE)
        return fault(check, clip_key(check), "algorithm.policy_loss",
                     "%s has no effect: policy_loss: reinforce has no ratio to hold.\n"
                     "Remove it, or use policy_loss: clip.",
                     clip_key(check));
    if (c->eps_clip_c == 0.0) return false;
    if (c->policy_loss != POLICY_LOSS_CLIP && c->policy_loss != POLICY_LOSS_GSPO)
        return fault(check, "algorithm.eps_clip_c", "algorithm.policy_loss",
                     "algorithm.eps_clip_c is %g, which only policy_loss: clip and gspo use.\n"
                     "Remove it.",
                     c->eps_clip_c);
    if (c->eps_clip_c <= 1.0)
        return fault(check, "algorithm.eps_clip_c", NULL,
                     "algorithm.eps_clip_c is %g, expected more than 1: it bounds ratios of bad "
                     "tokens from above.\nWrite for example 3, or 0 for none.",
                     c->eps_clip_c);
    return false;
}

/* After the first of several updates of a step weights have moved. */
static bool updates_more_than_once(const Check *check)
{
    return check->facts->updates > 1;
}

/* Where nothing can have moved between sampling and the update. */
static bool ratio_is_one(const Check *check)
{
    const AlgorithmConfig *c = check->config;
    bool current = c->old_log_probs == OLD_CURRENT;
    const char *why = current ? "with old_log_probs: current and one update for each batch the old "
                                "policy is the one in training"
                              : "nothing is stale, and log-probs of generation are the trainer's "
                                "to the bit";
    const char *other = current ? "algorithm.old_log_probs" : NULL;
    const char *raise = current ? "train.num_steps_per_rollout"
                                : "train.num_steps_per_rollout or rollout.max_staleness";
    if (updates_more_than_once(check)) return false;
    if (!current && check->facts->max_staleness != 0) return false;
    if (c->policy_loss == POLICY_LOSS_GSPO || c->policy_loss == POLICY_LOSS_CISPO)
        return fault(check, "algorithm.policy_loss", other,
                     "algorithm.policy_loss: %s has no effect: %s, so every ratio is exactly 1.\n"
                     "Remove it, or raise %s.",
                     c->policy_loss == POLICY_LOSS_GSPO ? "gspo" : "cispo", why, raise);
    if (changes_clip(check) || c->eps_clip_c != 0.0)
        return fault(check, changes_clip(check) ? clip_key(check) : "algorithm.eps_clip_c", other,
                     "%s has no effect: %s, so every ratio is exactly 1.\n"
                     "Remove it, or raise %s.",
                     changes_clip(check) ? clip_key(check) : "algorithm.eps_clip_c", why, raise);
    return false;
}

static bool correction_has_no_use(const Check *check)
{
    const AlgorithmConfig *c = check->config, *d = check->defaults;
    if (c->correction == CORRECTION_NONE) {
        const char *key = c->correction_level != d->correction_level ? "algorithm.correction_level"
                          : c->correction_low != d->correction_low   ? "algorithm.correction_low"
                          : c->correction_high != d->correction_high ? "algorithm.correction_high"
                                                                     : NULL;
        if (key == NULL) return false;
        return fault(check, key, "algorithm.correction",
                     "%s has no effect without algorithm.correction.\n"
                     "Remove it, or write correction: tis or icepop.",
                     key);
    }
    if (c->old_log_probs == OLD_ROLLOUT)
        return fault(check, "algorithm.correction", "algorithm.old_log_probs",
                     "algorithm.correction has no effect with old_log_probs: rollout: the ratio is "
                     "already to what was sampled, so the weight is 1.\n"
                     "Remove it, or write old_log_probs: current.");
    if (check->facts->max_staleness == 0)
        return fault(check, "algorithm.correction", NULL,
                     "algorithm.correction has no effect: nothing is stale, and log-probs of "
                     "generation are the trainer's to the bit, so the weight is 1.\nRemove it.");
    return false;
}

/* ---- Kullback-Leibler ---- */

static bool kl_has_no_use(const Check *check)
{
    const AlgorithmConfig *c = check->config, *d = check->defaults;
    bool used = algorithm_uses_reference(c);
    if (!used && c->kl_estimator != d->kl_estimator)
        return fault(check, "algorithm.kl_estimator", NULL,
                     "algorithm.kl_estimator has no effect without kl_coef or kl_loss_coef.\n"
                     "Remove it, or write for example kl_loss_coef: 0.001.");
    if (!used && c->reference != NULL)
        return fault(check, "algorithm.reference", NULL,
                     "algorithm.reference has no effect without kl_coef or kl_loss_coef.\n"
                     "Remove it, or write for example kl_loss_coef: 0.001.");
    if (c->unbiased_kl && c->kl_loss_coef == 0.0)
        return fault(check, "algorithm.unbiased_kl", "algorithm.kl_loss_coef",
                     "algorithm.unbiased_kl has no effect without kl_loss_coef.\nRemove it.");
    if (c->kl_loss_coef != 0.0 && c->kl_estimator == KL_K1 && !c->unbiased_kl)
        return fault(check, "algorithm.kl_estimator", "algorithm.kl_loss_coef",
                     "algorithm.kl_estimator: k1 has no effect in the loss: its gradient is 0 on "
                     "average, wherever the reference model is.\n"
                     "Use k2 or k3, write unbiased_kl: true, or take the divergence into the "
                     "rewards with kl_coef.");
    if (used && c->reference == NULL && check->facts->random_init)
        return fault(check, "algorithm.reference", "algorithm.kl_loss_coef",
                     "algorithm.reference is missing: the policy starts from random weights, so "
                     "model.path has none to stay near to.\nName a model folder, or write "
                     "start_of_stage to stay near to the weights that this stage begins with.");
    return false;
}

/* ---- the rest ---- */

static bool normalization_is_odd(const Check *check)
{
    const AlgorithmConfig *c = check->config;
    bool constant = c->loss_normalization == NORMALIZE_CONSTANT;
    if (constant && c->loss_constant == 0)
        return fault(check, "algorithm.loss_normalization", "algorithm.loss_constant",
                     "algorithm.loss_normalization is constant, which needs loss_constant above "
                     "0.\nWrite the most tokens that a response may have, for example 1024.");
    if (!constant && c->loss_constant != 0)
        return fault(check, "algorithm.loss_constant", "algorithm.loss_normalization",
                     "algorithm.loss_constant is %lld, which only loss_normalization: constant "
                     "uses.\nRemove it.",
                     (long long)c->loss_constant);
    return false;
}

static bool critic_has_no_use(const Check *check)
{
    const AlgorithmConfig *c = check->config, *d = check->defaults;
    const char *key = c->critic != NULL                              ? "algorithm.critic"
                      : c->critic_lr != d->critic_lr                 ? "algorithm.critic_lr"
                      : c->critic_updates != d->critic_updates       ? "algorithm.critic_updates"
                      : c->critic_only_steps != d->critic_only_steps ? "algorithm.critic_only_steps"
                      : c->value_clip != d->value_clip               ? "algorithm.value_clip"
                                                                     : NULL;
    if (key != NULL && c->advantage_estimator != ADVANTAGE_PPO)
        return fault(check, key, "algorithm.advantage_estimator",
                     "%s has no effect: only advantage_estimator: ppo has a critic.\nRemove it.",
                     key);
    if (c->value_clip != 0.0 && c->critic_updates == 1 && !updates_more_than_once(check))
        return fault(check, "algorithm.value_clip", "algorithm.critic_updates",
                     "algorithm.value_clip has no effect with critic_updates 1: values cannot "
                     "have moved before the only update.\n"
                     "Remove it, or raise critic_updates or train.num_steps_per_rollout.");
    return false;
}

double algorithm_eps_clip(PolicyLoss loss)
{
    return loss == POLICY_LOSS_GSPO ? 3e-4 : loss == POLICY_LOSS_CISPO ? 1.0 : 0.2;
}

double algorithm_eps_clip_high(PolicyLoss loss, double eps_clip)
{
    if (loss == POLICY_LOSS_CISPO) return 4.0;
    return loss == POLICY_LOSS_GSPO && eps_clip == 3e-4 ? 4e-4 : eps_clip;
}

double algorithm_correction_low(OffPolicyCorrection correction)
{
    return correction == CORRECTION_ICEPOP ? 0.5 : 0.0;
}

double algorithm_correction_high(OffPolicyCorrection correction)
{
    return correction == CORRECTION_ICEPOP ? 5.0 : 2.0;
}

bool algorithm_check(const AlgorithmConfig *config, const AlgorithmConfig *defaults,
                     const AlgorithmFacts *facts, AlgorithmFault *ret)
{
    const Check check = {config, defaults, facts, ret};
    return !(groups_are_too_small(&check) || estimator_has_no_use(&check) ||
             clip_has_no_use(&check) || ratio_is_one(&check) || correction_has_no_use(&check) ||
             kl_has_no_use(&check) || normalization_is_odd(&check) || critic_has_no_use(&check));
}
