/* The reward `format`: the shape of a response. `think` (the default) wants one <think> block at
 * the very start, closed once, and something after it; `think_answer` wants <think>...</think> and
 * then <answer>...</answer>, each on lines of its own, and nothing else; `regex` wants a match of a
 * PCRE2 pattern of the user's, which is run over at most the last regex_characters of the response
 * and with limits, so that no response can hold a thread. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"

#define REGEX_CHARACTERS     65536
#define REGEX_CHARACTERS_MAX (1 << 24)
#define MATCH_LIMIT          1000000 /* PCRE2's count of internal steps: about 50 ms */
#define DEPTH_LIMIT          10000
#define HEAP_LIMIT_KB        20000

typedef enum { SHAPE_THINK, SHAPE_THINK_ANSWER, SHAPE_REGEX } Shape;

typedef struct Format {
    int shape;
    pcre2_code *code;
    pcre2_match_context *context;
    int64_t regex_characters;
} Format;

static void format_close(void *opened)
{
    Format *self = opened;
    if (self == NULL) return;
    pcre2_code_free(self->code);
    pcre2_match_context_free(self->context);
    free(self);
}

static Status compile(Format *self, const char *pattern, Error *err)
{
    int number = 0;
    size_t at = 0;
    self->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                               PCRE2_UTF | PCRE2_MATCH_INVALID_UTF, &number, &at, NULL);
    if (self->code == NULL) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(number, text, sizeof text);
        return error_set(err, ERR_INVALID, "option regex of reward format: %s at character %zu",
                         (const char *)text, at);
    }
    self->context = pcre2_match_context_create(NULL);
    CHECK(self->context != NULL);
    pcre2_set_match_limit(self->context, MATCH_LIMIT);
    pcre2_set_depth_limit(self->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(self->context, HEAP_LIMIT_KB);
    return OK;
}

/* A pattern that is missing, or one that nothing looks for. */
static Status refuse_shape(const char *shape, const char *pattern, Error *err)
{
    if (pattern == NULL)
        return error_set(err, ERR_INVALID,
                         "reward format has shape regex but no regex, expected the pattern that it "
                         "looks for\n"
                         "Write for example {name: format, options: {regex: '^[0-9]+$'}}.");
    return error_set(err, ERR_INVALID,
                     "reward format has a regex, which its shape %s does not use\n"
                     "Remove the regex, or the shape: it is regex where there is one.",
                     shape);
}

static Status format_open(const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {"shape", "regex", "regex_characters", NULL};
    static const char *const shapes[] = {"think", "think_answer", "regex", NULL};
    const char *pattern = NULL;
    Format *self = mem_calloc(1, sizeof *self);
    self->regex_characters = REGEX_CHARACTERS;
    Status status = options_check(options, "format", keys, err);
    if (status == OK) status = json_string_or(options, "regex", "format", &pattern, err);
    if (status == OK) self->shape = pattern == NULL ? SHAPE_THINK : SHAPE_REGEX;
    if (status == OK)
        status = options_choice(options, "shape", "format", shapes, &self->shape, err);
    if (status == OK)
        status = json_int_or(options, "regex_characters", "format", 1, REGEX_CHARACTERS_MAX,
                             &self->regex_characters, err);
    if (status == OK && (self->shape == SHAPE_REGEX) != (pattern != NULL))
        status = refuse_shape(shapes[self->shape], pattern, err);
    if (status == OK && pattern != NULL) status = compile(self, pattern, err);
    if (status == OK)
        *ret_self = self;
    else
        format_close(self);
    return status;
}

static const char *think_fault(Slice text)
{
    Slice open = SLICE_OF("<think>"), close = SLICE_OF("</think>");
    if (!slice_starts_with(text, open)) return "does not begin with <think>";
    if (slice_count(text, open) != 1) return "<think> more than once";
    if (slice_count(text, close) != 1) return "not exactly one </think>";
    Slice rest = slice_part(text, (size_t)slice_find(text, close) + close.length, text.length);
    return slice_trim(rest).length == 0 ? "nothing after </think>" : NULL;
}

static const char *think_answer_fault(Slice text)
{
    Slice open = SLICE_OF("<think>\n"), middle = SLICE_OF("\n</think>\n<answer>\n");
    Slice close = SLICE_OF("\n</answer>");
    static const char *const tags[] = {"<think>", "</think>", "<answer>", "</answer>"};
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        if (slice_count(text, slice_from(tags[i])) != 1)
            return "not exactly one of <think>, </think>, <answer>, </answer>";
    if (!slice_starts_with(text, open)) return "does not begin with <think> on its line";
    if (slice_find(text, middle) < (ssize_t)open.length - 1)
        return "no </think> and <answer> on lines of their own";
    return slice_ends_with(text, close) ? NULL : "does not end with </answer> on its line";
}

static void score_regex(const Format *self, Slice text, RewardResult *ret)
{
    text = slice_tail(text, (size_t)self->regex_characters);
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    CHECK(match != NULL);
    int found = pcre2_match(self->code, (PCRE2_SPTR)(text.data == NULL ? "" : text.data),
                            text.length, 0, 0, match, self->context);
    pcre2_match_data_free(match);
    if (found == PCRE2_ERROR_NOMATCH || found >= 0) {
        reward_judge(ret, found >= 0, found >= 0, (Slice){0});
        return;
    }
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(found, message, sizeof message);
    reward_refuse(ret, "the regex of reward format: %s", (const char *)message);
}

static void format_score(void *opened, const RewardRequest *request, RewardResult *ret)
{
    const Format *self = opened;
    if (self->shape == SHAPE_REGEX) {
        score_regex(self, request->response, ret);
        return;
    }
    const char *fault = self->shape == SHAPE_THINK
                            ? think_fault(request->response)
                            : think_answer_fault(slice_trim(request->response));
    reward_judge(ret, fault == NULL, fault == NULL, (Slice){0});
    if (fault != NULL) reward_explain(ret, "%s", fault);
}

const RewardTable reward_format = {"format", format_open, format_close, format_score, NULL, NULL};
