#include "step_reply.h"

#include "train.pb-c.h"

/* Those that this rank has something of. `item` and `list` have room for all. */
static size_t list_sources(const SourceLoss *source, Troupe__SourceLoss *item,
                           Troupe__SourceLoss **list)
{
    size_t count = 0;
    for (int i = 0; i < INTERLEAVE_SOURCES_MAX; i++) {
        if (source[i].trained_tokens == 0) continue;
        troupe__source_loss__init(&item[count]);
        item[count].source = (uint32_t)i;
        item[count].loss_sum = source[i].loss_sum;
        item[count].trained_tokens = (uint64_t)source[i].trained_tokens;
        list[count] = &item[count];
        count++;
    }
    return count;
}

/* What is said beside of a step; NULL where there is none of it. */
typedef struct Beside {
    double lr;
    const SourceLoss *source;
    Troupe__PolicyFigures *policy;
} Beside;

static PackedMessage pack(const StepResult *result, const Beside *beside, double peak_flops)
{
    Troupe__StepReply reply = TROUPE__STEP_REPLY__INIT;
    Troupe__SourceLoss item[INTERLEAVE_SOURCES_MAX], *list[INTERLEAVE_SOURCES_MAX];
    reply.sources = list;
    if (beside->source != NULL) reply.n_sources = list_sources(beside->source, item, list);
    reply.loss_sum = result->loss_sum;
    reply.trained_tokens = (uint64_t)result->trained_tokens;
    reply.tokens = (uint64_t)result->tokens;
    reply.correct = (uint64_t)result->correct;
    reply.grad_norm = result->grad_norm;
    reply.skipped = result->skipped;
    reply.forward_s = result->forward_s;
    reply.backward_s = result->backward_s;
    reply.comm_s = result->comm_s;
    reply.optimizer_s = result->optimizer_s;
    reply.flops = result->flops;
    reply.lr = beside->lr;
    reply.peak_flops = peak_flops;
    reply.policy = beside->policy;
    return message_pack(&reply.base);
}

static void fill_policy_sums(Troupe__PolicyFigures *figures, const PolicySums *sums)
{
    figures->tokens = sums->tokens;
    figures->loss = sums->loss;
    figures->policy_loss = sums->policy;
    figures->kl_loss = sums->kl_loss;
    figures->entropy = sums->entropy;
    figures->ref_kl = sums->ref_kl;
    figures->old_kl = sums->old_kl;
    figures->old_kl3 = sums->old_kl3;
    figures->ratio = sums->ratio;
    figures->ratio_squared = sums->ratio_squared;
    figures->clipped_low = sums->clipped_low;
    figures->clipped_high = sums->clipped_high;
    figures->clipped_dual = sums->clipped_dual;
    figures->advantage = sums->advantage;
    figures->advantage_squared = sums->advantage_squared;
    figures->correction = sums->correction;
    figures->corrected = sums->corrected;
    figures->rollout_tokens = sums->rollout_tokens;
    figures->rollout_difference = sums->rollout_difference;
    figures->ratio_min = sums->ratio_min;
    figures->ratio_max = sums->ratio_max;
    figures->rollout_difference_max = sums->rollout_difference_max;
}

static void fill_value_sums(Troupe__PolicyFigures *figures, const ValueSums *sums)
{
    figures->value_loss = sums->loss;
    figures->value_tokens = sums->tokens;
    figures->value_clipped = sums->clipped;
    figures->value = sums->value;
    figures->value_target = sums->target;
    figures->value_target_squared = sums->target_squared;
    figures->value_error_squared = sums->error_squared;
}

static double time_of(const StepResult *result)
{
    return result->forward_s + result->backward_s + result->optimizer_s;
}

static PackedMessage pack_rewarded(const LearnerResult *result, double peak_flops)
{
    const PolicyStepResult *step = &result->result;
    Troupe__PolicyFigures figures = TROUPE__POLICY_FIGURES__INIT;
    fill_policy_sums(&figures, &step->policy.policy);
    fill_value_sums(&figures, &step->critic.value);
    figures.reward_kl = step->reward_kl;
    figures.log_probs_compared = (uint64_t)step->policy.log_probs_compared;
    figures.log_probs_differ = (uint64_t)step->policy.log_probs_differ;
    figures.age = step->policy.age;
    figures.age_max = step->policy.age_max;
    figures.mixed_samples = (uint64_t)step->policy.mixed_samples;
    figures.passes_s = time_of(&step->passes);
    figures.critic_s = time_of(&step->critic);
    figures.critic_grad_norm = step->critic.grad_norm;
    figures.normaliser = result->normaliser;
    figures.groups = (uint32_t)step->groups.groups;
    figures.zero_variance_groups = (uint32_t)step->groups.zero_variance;
    StepResult all = step->policy;
    all.flops += step->critic.flops + step->passes.flops;
    Beside beside = {.lr = result->lr, .policy = &figures};
    return pack(&all, &beside, peak_flops);
}

PackedMessage step_reply_of_step(const LearnerResult *result, bool rewarded, double peak_flops)
{
    if (rewarded) return pack_rewarded(result, peak_flops);
    Beside beside = {.lr = result->lr, .source = result->source};
    return pack(&result->result.policy, &beside, peak_flops);
}

PackedMessage step_reply_of_evaluation(const StepResult *result, double peak_flops)
{
    return pack(result, &(Beside){0}, peak_flops);
}
