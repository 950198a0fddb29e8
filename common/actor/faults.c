#include "actor/faults.h"

#include <stddef.h>
#include <string.h>

#include "base/rng.h"

static const FaultRule *find_rule(const FaultPlan *plan, const char *method)
{
    for (int i = 0; i < plan->num_rules; i++)
        if (plan->rules[i].method == NULL || strcmp(plan->rules[i].method, method) == 0)
            return &plan->rules[i];
    return NULL;
}

FaultDecision faults_decide(const FaultPlan *plan, bool reply, const char *method, uint64_t count)
{
    FaultDecision decision = {0};
    const FaultRule *rule = plan != NULL ? find_rule(plan, method) : NULL;
    if (rule == NULL) return decision;
    RngBlock draw = rng_block(rng_key(plan->seed, method), reply ? 1 : 0, count);
    decision.drop = rng_uniform(draw.word[0]) < (reply ? rule->drop_reply : rule->drop_request);
    decision.duplicate = !reply && rng_uniform(draw.word[1]) < rule->duplicate_request;
    if (rng_uniform(draw.word[2]) < (reply ? rule->delay_reply : rule->delay_request) &&
        rule->delay_ms_max > 0)
        decision.delay_ms = 1 + (int)(draw.word[3] % (uint32_t)rule->delay_ms_max);
    return decision;
}
