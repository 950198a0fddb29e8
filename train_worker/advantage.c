#include "advantage.h"

#include <math.h>
#include <stddef.h>

#define WHITEN_VAR_EPS 1e-8

/* ---- advantages of tokens ---- */

static double kl_penalty(const AlgorithmConfig *config, const TokenReturns *tokens, int t)
{
    return tokens->kl != NULL ? config->kl_coef * tokens->kl[t] : 0.0;
}

/* What token t is paid. */
static double token_reward(const AlgorithmConfig *config, const TokenReturns *tokens, int t)
{
    return (t == tokens->count - 1 ? tokens->score : 0.0) - kl_penalty(config, tokens, t);
}

static void discounted_returns(const AlgorithmConfig *config, const TokenReturns *tokens,
                               double *advantage)
{
    double after = 0.0;
    for (int t = tokens->count - 1; t >= 0; t--)
        advantage[t] = after = token_reward(config, tokens, t) + config->gamma * after;
}

static void generalised_advantages(const AlgorithmConfig *config, const TokenReturns *tokens,
                                   double *advantage, double *ret_return)
{
    double after = 0.0, value_after = 0.0;
    for (int t = tokens->count - 1; t >= 0; t--) {
        double value = tokens->value[t];
        double delta = token_reward(config, tokens, t) + config->gamma * value_after - value;
        advantage[t] = after = delta + config->gamma * config->gae_lambda * after;
        ret_return[t] = after + value;
        value_after = value;
    }
}

void token_advantages(const AlgorithmConfig *config, const TokenReturns *tokens, double *advantage,
                      double *ret_return)
{
    switch (config->advantage_estimator) {
    case ADVANTAGE_REINFORCE_PLUS_PLUS:
        discounted_returns(config, tokens, advantage);
        return;
    case ADVANTAGE_PPO:
        CHECK(tokens->value != NULL && ret_return != NULL);
        generalised_advantages(config, tokens, advantage, ret_return);
        return;
    default:
        break;
    }
    bool per_token = !kl_goes_into_score(config->advantage_estimator);
    for (int t = 0; t < tokens->count; t++)
        advantage[t] = tokens->score - (per_token ? kl_penalty(config, tokens, t) : 0.0);
}

/* ---- whitening ---- */

void moments_merge(Moments *moments, const Moments *other)
{
    if (other->count == 0.0) return;
    double count = moments->count + other->count, apart = other->mean - moments->mean;
    moments->squares += other->squares + apart * apart * (moments->count * other->count / count);
    moments->mean += apart * (other->count / count);
    moments->count = count;
}

void moments_add(Moments *moments, const double *value, int count)
{
    if (count == 0) return;
    Moments mine = {.count = count};
    for (int i = 0; i < count; i++)
        mine.mean += value[i];
    mine.mean /= count;
    for (int i = 0; i < count; i++)
        mine.squares += (value[i] - mine.mean) * (value[i] - mine.mean);
    moments_merge(moments, &mine);
}

void whiten(const Moments *moments, double *value, int count)
{
    double variance = moments->count > 1.0 ? moments->squares / (moments->count - 1.0) : 0.0;
    double scale = 1.0 / sqrt(variance + WHITEN_VAR_EPS);
    for (int i = 0; i < count; i++)
        value[i] = (value[i] - moments->mean) * scale;
}
