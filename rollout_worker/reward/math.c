/* The rewards `math` and `deepscaler`: the last boxed answer against the label, 1 or 0. */
#include <string.h>

#include "base/json.h"
#include "rollout_worker/reward/boxed.h"
#include "rollout_worker/reward/math_equal.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"

static Status open_plain(const char *name, const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {NULL};
    TRY(options_check(options, name, keys, err));
    *ret_self = NULL;
    return OK;
}

static Status math_open(const cJSON *options, void **ret_self, Error *err)
{
    return open_plain("math", options, ret_self, err);
}

static Status deepscaler_open(const cJSON *options, void **ret_self, Error *err)
{
    return open_plain("deepscaler", options, ret_self, err);
}

static void close_nothing(void *self)
{
    (void)self;
}

/* The label's answer: what it boxes, or all of it. */
static Slice label_answer(Slice label)
{
    Slice boxed;
    return boxed_find_last(label, &boxed) ? boxed : slice_trim(label);
}

/* `deepscaler` too, which looks at the response first. */
static void check_label(void *self, const RewardRequest *request, RewardResult *ret)
{
    (void)self;
    if (label_answer(request->label).length == 0)
        reward_refuse(ret, "the record's label is empty, expected an answer");
}

static void grade(Slice text, const RewardRequest *request, RewardResult *ret)
{
    Slice expected = label_answer(request->label), answer;
    if (expected.length == 0) {
        reward_refuse(ret, "the record's label is empty, expected an answer");
        return;
    }
    Str scratch = {0};
    if (!boxed_find_answer(slice_tail(text, ANSWER_TAIL_CHARACTERS), &scratch, &answer)) {
        reward_judge(ret, false, 0, (Slice){0});
        reward_explain(ret, "no \\boxed answer");
    } else {
        bool equal = math_answers_equal(expected, answer);
        reward_judge(ret, equal, equal ? 1 : 0, answer);
        if (answer.length == 0) reward_explain(ret, "the \\boxed answer is empty");
    }
    str_free(&scratch);
}

static void math_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    (void)self;
    grade(slice_after_think(request->response), request, ret);
}

static void deepscaler_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    (void)self;
    Slice response = request->response, mark = SLICE_OF("###Response");
    ssize_t at = slice_find(response, mark);
    if (slice_find_last(response, SLICE_OF("</think>")) >= 0) {
        grade(slice_after_think(response), request, ret);
    } else if (at >= 0) {
        grade(slice_part(response, (size_t)at + mark.length, response.length), request, ret);
    } else {
        reward_judge(ret, false, 0, (Slice){0});
        reward_explain(ret, "no </think> and no ###Response before the answer");
    }
}

const RewardTable reward_math = {"math", math_open, close_nothing, math_score, NULL, check_label};
const RewardTable reward_deepscaler = {
    "deepscaler", deepscaler_open, close_nothing, deepscaler_score, NULL, check_label};
