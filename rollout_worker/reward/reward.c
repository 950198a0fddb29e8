#include "rollout_worker/reward/reward.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "base/utf8.h"

static const RewardTable *const tables[] = {
    &reward_math,    &reward_deepscaler, &reward_gsm8k,        &reward_dapo,         &reward_gpqa,
    &reward_f1,      &reward_format,     &reward_code,         &reward_instructions, &reward_random,
    &reward_process, &reward_http,       &reward_plugin_table,
};
#define TABLE_COUNT (sizeof tables / sizeof tables[0])

const char *reward_outcome_name(RewardOutcome outcome)
{
    static const char *const names[REWARD_OUTCOME_COUNT] = {"ok", "wrong", "infra_error",
                                                            "timeout"};
    CHECK((unsigned)outcome < REWARD_OUTCOME_COUNT);
    return names[outcome];
}

bool reward_outcome_trains(RewardOutcome outcome)
{
    return outcome == REWARD_OK || outcome == REWARD_WRONG;
}

void reward_result_clear(RewardResult *result)
{
    free(result->extra);
    *result = (RewardResult){0};
}

const RewardTable *reward_table_at(int index)
{
    return index >= 0 && (size_t)index < TABLE_COUNT ? tables[index] : NULL;
}

Status reward_table_find(const char *name, const RewardTable **ret, Error *err)
{
    const char *names[TABLE_COUNT];
    Str list = {0};
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        if (strcmp(tables[i]->name, name) == 0) {
            str_free(&list);
            *ret = tables[i];
            return OK;
        }
        names[i] = tables[i]->name;
        str_printf(&list, "%s%s", i == 0 ? "" : ", ", names[i]);
    }
    const char *nearest = str_nearest(name, names, TABLE_COUNT);
    error_set(err, ERR_INVALID, "there is no reward %s; there are %s", QUOTED(name),
              str_text(&list));
    str_free(&list);
    if (nearest != NULL) error_append(err, "did you mean %s?", nearest);
    return ERR_INVALID;
}

/* Copies what fits of `text` as clean UTF-8. */
static void copy_clean(char *buffer, size_t size, Slice text)
{
    size_t used = 0;
    for (size_t i = 0; i < text.length;) {
        uint32_t code = 0;
        int bytes = utf8_decode(text.data + i, text.length - i, &code);
        bool clean = bytes > 0 && code >= 0x20 && code != 0x7f;
        size_t taken = clean ? (size_t)bytes : 1;
        if (used + taken >= size) break;
        if (clean)
            memcpy(buffer + used, text.data + i, taken);
        else
            buffer[used] = code == '\n' || code == '\t' ? ' ' : '?';
        used += taken;
        i += bytes > 0 ? (size_t)bytes : 1;
    }
    buffer[used] = '\0';
}

static void explain(RewardResult *ret, const char *format, va_list args)
{
    char text[REWARD_REASON_BYTES * 2];
    vsnprintf(text, sizeof text, format, args);
    copy_clean(ret->reason, sizeof ret->reason, slice_from(text));
}

void reward_judge(RewardResult *ret, bool right, double score, Slice answer)
{
    CHECK(isfinite(score));
    ret->outcome = right ? REWARD_OK : REWARD_WRONG;
    ret->score = score;
    copy_clean(ret->answer, sizeof ret->answer, answer);
}

void reward_fail(RewardResult *ret, RewardOutcome outcome, const char *format, ...)
{
    CHECK(!reward_outcome_trains(outcome));
    ret->outcome = outcome;
    ret->score = 0;
    va_list args;
    va_start(args, format);
    explain(ret, format, args);
    va_end(args);
}

void reward_refuse(RewardResult *ret, const char *format, ...)
{
    ret->outcome = REWARD_INFRA_ERROR;
    ret->score = 0;
    ret->permanent = ret->of_record = true;
    va_list args;
    va_start(args, format);
    explain(ret, format, args);
    va_end(args);
}

void reward_explain(RewardResult *ret, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    explain(ret, format, args);
    va_end(args);
}
