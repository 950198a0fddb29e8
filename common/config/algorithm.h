/* AlgorithmConfig: how rewards become a gradient; the section `algorithm` of job.yaml. Plain data,
 * filled from the key table (job_table.c) and read by the numerics of the train worker, so that
 * there is one set of names for what a job says and what is computed. Notation: x = log p(token)
 * under the weights in training, o = the same under the old policy, u = the rollout worker's, f =
 * the reference model's; r = exp(x - o) the ratio; A the advantage; H the entropy of the row. */
#ifndef TROUPE_CONFIG_ALGORITHM_H
#define TROUPE_CONFIG_ALGORITHM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* As the reference model: the weights that the stage begins with. */
#define REFERENCE_START "start_of_stage"

/* A group is the samples of one prompt. The first three compare a sample with its group and need at
 * least two samples in it. */
typedef enum {
    ADVANTAGE_GRPO,                         /* (reward - mean) / std; Shao et al. 2024. Without the
                                               division: Dr. GRPO, Liu et al. 2025 */
    ADVANTAGE_RLOO,                         /* reward - mean of the others; Ahmadian et al. 2024 */
    ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE, /* reward - mean, KL per token; Hu et al. 2025 */
    ADVANTAGE_REINFORCE_PLUS_PLUS,          /* discounted return of the tokens; Hu et al. 2025 */
    ADVANTAGE_PPO, /* generalised advantage estimation; Schulman et al. 2016 */
    ADVANTAGE_COUNT,
} AdvantageEstimator;

typedef enum {
    POLICY_LOSS_CLIP,      /* max(-r A, -clip(r) A); Schulman et al. 2017 */
    POLICY_LOSS_GSPO,      /* the same with r of the whole sequence; Zheng et al. 2025 */
    POLICY_LOSS_CISPO,     /* -stop_gradient(clip(r)) A x; MiniMax 2025 */
    POLICY_LOSS_REINFORCE, /* -A x; Williams 1992 */
    POLICY_LOSS_COUNT,
} PolicyLoss;

/* What the sum over tokens is divided by. */
typedef enum {
    NORMALIZE_TOKEN,    /* trained tokens of the global batch; DAPO, Yu et al. 2025 */
    NORMALIZE_SAMPLE,   /* of the sample, then the mean over samples; GRPO */
    NORMALIZE_CONSTANT, /* loss_constant times the number of samples; Dr. GRPO */
} LossNormalization;

/* With d = x - f (o - f in rewards); Schulman, "Approximating KL divergence", 2020. */
typedef enum {
    KL_K1,      /* d */
    KL_K2,      /* d^2 / 2 */
    KL_K3,      /* exp(-d) - 1 + d */
    KL_LOW_VAR, /* k3 held within -10 and 10 */
} KlEstimator;

typedef enum {
    OLD_ROLLOUT, /* o = u: what the rollout worker reported */
    OLD_CURRENT, /* o = x before the first update of the step: only `correction` looks at u */
} OldLogProbs;

/* How tokens whose weights have moved on since they were sampled are weighed, by w = exp(o - u). */
typedef enum {
    CORRECTION_NONE,
    CORRECTION_TIS, /* min(w, high), max(., low): truncated importance sampling; Yao et al. 2025 */
    CORRECTION_ICEPOP, /* w inside [low, high], 0 outside */
} OffPolicyCorrection;

typedef enum {
    LEVEL_TOKEN,     /* each token's own w */
    LEVEL_SEQUENCE,  /* the product over the sample */
    LEVEL_GEOMETRIC, /* its geometric mean */
} CorrectionLevel;

/* Which groups the controller drops and replaces before it plans a batch. */
typedef enum { FILTER_NONE, FILTER_ZERO_VARIANCE } DynamicFilter;

typedef struct AlgorithmConfig {
    AdvantageEstimator advantage_estimator;
    bool std_normalization;    /* GRPO only */
    bool normalize_advantages; /* whiten over the trained tokens of the global batch */
    double gamma, gae_lambda;

    PolicyLoss policy_loss;
    double eps_clip, eps_clip_high; /* r is held within 1 - eps_clip and 1 + eps_clip_high */
    double eps_clip_c; /* dual clip: where A < 0 the loss is at most -c A; 0: off. Ye et al. 2020 */
    LossNormalization loss_normalization;
    int64_t loss_constant; /* tokens */
    double entropy_coef;   /* times H, taken off the loss */

    KlEstimator kl_estimator;
    double kl_coef;      /* in the rewards */
    double kl_loss_coef; /* in the loss */
    bool unbiased_kl;    /* in the loss: the estimate times r, whose gradient is that of the KL */

    OldLogProbs old_log_probs;
    OffPolicyCorrection correction;
    CorrectionLevel correction_level;
    double correction_low, correction_high;

    DynamicFilter dynamic_filter;

    char *reference; /* model folder, or REFERENCE_START; NULL: model.path */

    /* PPO's critic */
    char *critic;              /* model folder that it starts from; NULL: model.path */
    double critic_lr;          /* 0: that of the policy */
    int64_t critic_updates;    /* passes over each batch */
    int64_t critic_only_steps; /* first steps in which the policy stays as it is */
    double value_clip;         /* values move at most so far per batch; 0: off */
} AlgorithmConfig;

/* Whether the estimator compares a sample with others of its prompt. */
static inline bool advantage_needs_group(AdvantageEstimator estimator)
{
    return estimator <= ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE;
}

static inline bool algorithm_uses_reference(const AlgorithmConfig *config)
{
    return config->kl_coef != 0.0 || config->kl_loss_coef != 0.0;
}

static inline bool algorithm_refers_to_start(const AlgorithmConfig *config)
{
    return algorithm_uses_reference(config) && config->reference != NULL &&
           strcmp(config->reference, REFERENCE_START) == 0;
}

/* Defaults that are the method's own: bounds of GSPO hold the ratio of a whole sample, which moves
 * a thousand times less than a token's (Zheng et al. 2025: 3e-4 and 4e-4); CISPO holds weights from
 * above alone (MiniMax 2025), at 5 as Khatri et al. 2025; IcePop's window is 0.5 to 5 (Ling team
 * 2025). Others: 0.2, and 2 (Yao et al. 2025). */
double algorithm_eps_clip(PolicyLoss loss);
double algorithm_eps_clip_high(PolicyLoss loss, double eps_clip);
double algorithm_correction_low(OffPolicyCorrection correction);
double algorithm_correction_high(OffPolicyCorrection correction);

/* What else decides whether an algorithm makes sense. */
typedef struct AlgorithmFacts {
    int64_t samples_per_prompt; /* 0: not known */
    int64_t max_staleness;      /* pushes of weights that a sample may be behind; -1: not known */
    int64_t updates;            /* optimizer steps on each batch; 0: 1 */
    bool random_init;           /* the policy starts from random weights, not from model.path */
} AlgorithmFacts;

/* What is wrong, and at which keys ("algorithm.gamma"; `other` may be NULL). */
typedef struct AlgorithmFault {
    const char *key, *other;
    char text[480];
} AlgorithmFault;

/* Whether the values agree with each other and each of them has an effect: one that was set (it is
 * not what `defaults` has) and changes nothing is a fault, because whoever wrote it expects
 * something of it. Pure. */
bool algorithm_check(const AlgorithmConfig *config, const AlgorithmConfig *defaults,
                     const AlgorithmFacts *facts, AlgorithmFault *ret);

#endif
