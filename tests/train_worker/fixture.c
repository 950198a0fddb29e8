#include "fixture.h"

#include "test.h"

#include <stdio.h>
#include <string.h>

static const char *const estimators[ADVANTAGE_COUNT] = {
    [ADVANTAGE_GRPO] = "grpo",
    [ADVANTAGE_RLOO] = "rloo",
    [ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE] = "reinforce_plus_plus_baseline",
    [ADVANTAGE_REINFORCE_PLUS_PLUS] = "reinforce_plus_plus",
    [ADVANTAGE_PPO] = "ppo",
};
static const char *const losses[POLICY_LOSS_COUNT] = {
    [POLICY_LOSS_CLIP] = "clip",
    [POLICY_LOSS_GSPO] = "gspo",
    [POLICY_LOSS_CISPO] = "cispo",
    [POLICY_LOSS_REINFORCE] = "reinforce",
};
static const char *const estimates[] = {"k1", "k2", "k3", "low_var_kl"};
static const char *const corrections[] = {"none", "tis", "icepop"};
static const char *const levels[] = {"token", "sequence", "geometric"};

cJSON *fixture_load(const char *name)
{
    char path[640];
    cJSON *json = NULL;
    Error err = {0};
    snprintf(path, sizeof path, "%s/train_worker/golden_policy/%s", TEST_SOURCE_DIR, name);
    assert_ok(json_read(path, 1 << 20, &json, &err), &err);
    return json;
}

const cJSON *fixture_member(const cJSON *object, const char *key)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, key);
    if (member == NULL) fail_msg("the fixture has no %s", key);
    return member;
}

double fixture_number(const cJSON *object, const char *key)
{
    const cJSON *member = fixture_member(object, key);
    if (cJSON_IsBool(member)) return cJSON_IsTrue(member) ? 1.0 : 0.0;
    assert_true(cJSON_IsNumber(member));
    return member->valuedouble;
}

const char *fixture_text(const cJSON *object, const char *key)
{
    const cJSON *member = fixture_member(object, key);
    assert_true(cJSON_IsString(member));
    return member->valuestring;
}

int fixture_numbers(const cJSON *object, const char *key, double *out, int max)
{
    const cJSON *list = fixture_member(object, key);
    int count = cJSON_GetArraySize(list);
    assert_in_range(count, 0, max);
    for (int i = 0; i < count; i++)
        out[i] = cJSON_GetArrayItem(list, i)->valuedouble;
    return count;
}

int fixture_choice(const cJSON *object, const char *key, const char *const *names, int count)
{
    const char *name = fixture_text(object, key);
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return i;
    fail_msg("%s: no such name: %s", key, name);
    return -1;
}

AdvantageEstimator fixture_estimator(const cJSON *object)
{
    return (AdvantageEstimator)fixture_choice(object, "estimator", estimators, ADVANTAGE_COUNT);
}

const char *fixture_estimator_name(AdvantageEstimator estimator)
{
    return estimators[estimator];
}

AlgorithmConfig fixture_loss(const cJSON *object)
{
    return (AlgorithmConfig){
        .policy_loss = (PolicyLoss)fixture_choice(object, "policy_loss", losses, POLICY_LOSS_COUNT),
        .eps_clip = fixture_number(object, "eps_clip"),
        .eps_clip_high = fixture_number(object, "eps_clip_high"),
        .eps_clip_c = fixture_number(object, "eps_clip_c"),
        .entropy_coef = fixture_number(object, "entropy_coef"),
        .kl_estimator = (KlEstimator)fixture_choice(object, "kl", estimates, 4),
        .kl_loss_coef = fixture_number(object, "kl_loss_coef"),
        .unbiased_kl = fixture_number(object, "unbiased_kl") > 0,
        .correction = (OffPolicyCorrection)fixture_choice(object, "correction", corrections, 3),
        .correction_level = (CorrectionLevel)fixture_choice(object, "correction_level", levels, 3),
        .correction_low = fixture_number(object, "correction_low"),
        .correction_high = fixture_number(object, "correction_high"),
    };
}
