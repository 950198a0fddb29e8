/* A response and a label, parted by the first line end: every grader judges it or refuses the
 * label; what it takes for the answer and its reasons are UTF-8; the same answer twice gets the
 * same score. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "rollout_worker/reward/math_equal.h"
#include "rollout_worker/reward/reward.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_text(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    CHECK(length < size && utf8_valid_prefix(text, length) == length);
}

static RewardResult score(const RewardTable *table, void *opened, const RewardRequest *request)
{
    RewardResult result = {0};
    table->score(opened, request, &result);
    CHECK(isfinite(result.score));
    CHECK(reward_outcome_trains(result.outcome) ||
          (result.outcome == REWARD_INFRA_ERROR && result.permanent));
    check_text(result.reason, sizeof result.reason);
    check_text(result.answer, sizeof result.answer);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const RewardTable *const tables[] = {&reward_math,   &reward_deepscaler, &reward_gsm8k,
                                                &reward_dapo,   &reward_gpqa,       &reward_f1,
                                                &reward_format, &reward_random};
    Slice input = {(const char *)bytes, length};
    ssize_t end = slice_find(input, SLICE_OF("\n"));
    Slice label = end < 0 ? input : slice_part(input, 0, (size_t)end);
    Slice response = end < 0 ? input : slice_part(input, (size_t)end + 1, input.length);
    RewardRequest request = {.response = response, .label = label};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        Error err;
        void *opened = NULL;
        CHECK(tables[i]->open(NULL, &opened, &err) == OK);
        RewardResult first = score(tables[i], opened, &request);
        RewardResult again = score(tables[i], opened, &request);
        CHECK(first.outcome == again.outcome && first.score == again.score);
        tables[i]->close(opened);
    }
    /* What the box would have to hold, without the search for it. */
    bool equal = math_answers_equal(label, response);
    CHECK(equal == math_answers_equal(label, response));
    return 0;
}
