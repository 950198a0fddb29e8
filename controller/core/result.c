/* What ranks say of a step, as one. */
#include "core/core.h"

#include <stddef.h>

void result_add(StepResult *sum, const StepResult *one)
{
    sum->loss_sum += one->loss_sum;
    sum->trained_tokens += one->trained_tokens;
    sum->tokens += one->tokens;
    sum->correct += one->correct;
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

/* A rank without samples has no ratio. */
static void add_ratios(PolicyFigures *sum, const PolicyFigures *one)
{
    bool first = sum->tokens == 0;
    if (one->tokens == 0) return;
    sum->ratio_max = most(sum->ratio_max, one->ratio_max);
    sum->ratio_min = first || one->ratio_min < sum->ratio_min ? one->ratio_min : sum->ratio_min;
}

static void add_policy(PolicyFigures *sum, const PolicyFigures *one)
{
    static const size_t sums[] = {
#define SUM(field) offsetof(PolicyFigures, field)
        SUM(tokens),         SUM(loss),
        SUM(policy_loss),    SUM(kl_loss),
        SUM(entropy),        SUM(ref_kl),
        SUM(old_kl),         SUM(old_kl3),
        SUM(ratio),          SUM(clipped_low),
        SUM(clipped_high),   SUM(clipped_dual),
        SUM(advantage),      SUM(advantage_squared),
        SUM(correction),     SUM(corrected),
        SUM(rollout_tokens), SUM(rollout_difference),
        SUM(reward_kl),      SUM(value_loss),
        SUM(value_tokens),   SUM(value_clipped),
#undef SUM
    };
    add_ratios(sum, one);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        *(double *)((char *)sum + sums[i]) += *(const double *)((const char *)one + sums[i]);
    sum->log_probs_compared += one->log_probs_compared;
    sum->log_probs_differ += one->log_probs_differ;
    sum->age += one->age;
    if (one->age_max > sum->age_max) sum->age_max = one->age_max;
    sum->mixed_samples += one->mixed_samples;
    sum->rollout_difference_max = most(sum->rollout_difference_max, one->rollout_difference_max);
    sum->normaliser = one->normaliser;
    sum->critic_grad_norm = one->critic_grad_norm;
    sum->groups = one->groups;
    sum->zero_variance_groups = one->zero_variance_groups;
    sum->passes_s = most(sum->passes_s, one->passes_s);
    sum->critic_s = most(sum->critic_s, one->critic_s);
}

static void merge(const Controller *c, StepResult *sum, int rank, const StepResult *one)
{
    if (rank % c->config->train.tp_size == 0) {
        result_add(sum, one);
        if (one->has_policy) add_policy(&sum->policy, &one->policy);
        sum->has_policy |= one->has_policy;
        for (int i = 0; i < INTERLEAVE_SOURCES_MAX; i++) {
            sum->source[i].loss_sum += one->source[i].loss_sum;
            sum->source[i].trained_tokens += one->source[i].trained_tokens;
        }
    }
    sum->flops += one->flops;
    sum->grad_norm = one->grad_norm;
    sum->lr = one->lr;
    sum->skipped |= one->skipped;
    if (one->forward_s > sum->forward_s) sum->forward_s = one->forward_s;
    if (one->backward_s > sum->backward_s) sum->backward_s = one->backward_s;
    if (one->comm_s > sum->comm_s) sum->comm_s = one->comm_s;
    if (one->optimizer_s > sum->optimizer_s) sum->optimizer_s = one->optimizer_s;
}

StepResult result_of_ranks(const Controller *c, const StepResult *of_rank)
{
    StepResult sum = {0};
    for (int rank = 0; rank < core_num_train(c); rank++)
        merge(c, &sum, rank, &of_rank[rank]);
    return sum;
}
