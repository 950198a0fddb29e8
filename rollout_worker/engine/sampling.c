#include "rollout_worker/engine/sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/utf8.h"

#define TEMPERATURE_MIN                                                                            \
    0.01 /* below, logits / temperature is all rounding: 0 says what is meant                      \
          */
#define TEMPERATURE_MAX 100.0

SamplingParams sampling_defaults(void)
{
    return (SamplingParams){.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0};
}

static Status check_number(const char *name, double value, bool ok, const char *allowed, Error *err)
{
    if (ok) return OK;
    return error_set(err, ERR_INVALID, "%s is %g, allowed is %s", name, value, allowed);
}

static Status check_numbers(const SamplingParams *p, Error *err)
{
    double t = p->temperature;
    TRY(check_number("temperature", t, t == 0.0 || (t >= TEMPERATURE_MIN && t <= TEMPERATURE_MAX),
                     "0 (the most likely token, always) or 0.01 to 100", err));
    TRY(check_number("top_p", p->top_p, p->top_p > 0.0 && p->top_p <= 1.0,
                     "above 0 and up to 1 (all tokens)", err));
    TRY(check_number("top_k", p->top_k, p->top_k >= -1, "1 or more, or 0 or -1 (all tokens)", err));
    TRY(check_number("min_p", p->min_p, p->min_p >= 0.0 && p->min_p <= 1.0, "0 (all tokens) to 1",
                     err));
    TRY(check_number("repetition_penalty", p->repetition_penalty,
                     p->repetition_penalty > 0.0 && p->repetition_penalty <= 10.0,
                     "above 0 and up to 10; 1 changes nothing", err));
    TRY(check_number("frequency_penalty", p->frequency_penalty, fabs(p->frequency_penalty) <= 2.0,
                     "-2 to 2; 0 changes nothing", err));
    TRY(check_number("presence_penalty", p->presence_penalty, fabs(p->presence_penalty) <= 2.0,
                     "-2 to 2; 0 changes nothing", err));
    TRY(check_number("max_new_tokens", p->max_new_tokens, p->max_new_tokens >= 1,
                     "1 or more (it must be given: there is no default)", err));
    return check_number("min_new_tokens", p->min_new_tokens,
                        p->min_new_tokens >= 0 && p->min_new_tokens <= p->max_new_tokens,
                        "0 to max_new_tokens", err);
}

static Status check_stops(const SamplingParams *p, int64_t vocab_size, Error *err)
{
    if (p->num_stop < 0 || p->num_stop > SAMPLING_STOPS_MAX)
        return error_set(err, ERR_INVALID, "%d stop strings, allowed are 0 to %d", p->num_stop,
                         SAMPLING_STOPS_MAX);
    if (p->num_stop_token_ids < 0 || p->num_stop_token_ids > SAMPLING_STOPS_MAX)
        return error_set(err, ERR_INVALID, "%d stop token ids, allowed are 0 to %d",
                         p->num_stop_token_ids, SAMPLING_STOPS_MAX);
    for (int i = 0; i < p->num_stop; i++) {
        size_t length = p->stop[i] == NULL ? 0 : strlen(p->stop[i]);
        if (length == 0 || length > SAMPLING_STOP_BYTES_MAX)
            return error_set(err, ERR_INVALID, "stop[%d] has %zu bytes, allowed are 1 to %d", i,
                             length, SAMPLING_STOP_BYTES_MAX);
        if (utf8_valid_prefix(p->stop[i], length) != length)
            return error_set(err, ERR_INVALID,
                             "stop[%d] is not UTF-8: it could never match the text of a model", i);
    }
    for (int i = 0; i < p->num_stop_token_ids; i++)
        if (p->stop_token_id[i] < 0 || p->stop_token_id[i] >= vocab_size)
            return error_set(err, ERR_INVALID,
                             "stop_token_ids[%d] is %d, the model's ids are 0 to %lld", i,
                             p->stop_token_id[i], (long long)vocab_size - 1);
    return OK;
}

Status sampling_check(const SamplingParams *params, int64_t vocab_size, Error *err)
{
    TRY(check_numbers(params, err));
    return check_stops(params, vocab_size, err);
}

void sampling_copy(SamplingParams *to, const SamplingParams *from)
{
    *to = *from;
    char **stop = NULL;
    int32_t *ids = NULL;
    if (from->num_stop > 0) {
        stop = mem_calloc((size_t)from->num_stop, sizeof *stop);
        for (int i = 0; i < from->num_stop; i++)
            stop[i] = mem_strdup(from->stop[i]);
    }
    if (from->num_stop_token_ids > 0) {
        ids = mem_calloc((size_t)from->num_stop_token_ids, sizeof *ids);
        memcpy(ids, from->stop_token_id, (size_t)from->num_stop_token_ids * sizeof *ids);
    }
    to->stop = (const char *const *)stop;
    to->stop_token_id = ids;
}

void sampling_clear(SamplingParams *copy)
{
    for (int i = 0; i < copy->num_stop; i++)
        free((char *)copy->stop[i]);
    free((char **)copy->stop);
    free((int32_t *)copy->stop_token_id);
    *copy = (SamplingParams){0};
}

bool sampling_is_plain(const SamplingParams *p)
{
    return p->temperature > 0.0 && p->top_k <= 0 && p->top_p == 1.0 && p->min_p == 0.0 &&
           p->repetition_penalty == 1.0 && p->frequency_penalty == 0.0 &&
           p->presence_penalty == 0.0 && p->min_new_tokens == 0;
}

double sampling_noise(const NoiseKey *key, int32_t position)
{
    uint64_t place = (uint64_t)key->index << 32 | (uint32_t)position;
    RngBlock block = rng_block(rng_key(key->seed, "sampling"), key->sample, place);
    uint64_t bits = (uint64_t)block.word[0] << 32 | block.word[1];
    return (double)(bits >> 11) * 0x1p-53;
}
