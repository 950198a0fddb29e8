/* The reward `dapo`: the scorer of the DAPO recipe, +1 or -1 for an integer behind the last
 * `Answer:` (Yu et al., "DAPO: an open-source LLM reinforcement learning system at scale", 2025;
 * its rules as in verl's math_dapo). It compares texts after a fixed list of replacements, in that
 * order: this is kept as it is, oddities included (it damages words), because the recipe's numbers
 * depend on it. With strict_box the answer is what stands in the last \boxed{} of the last 100
 * characters, unchanged. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"

#define TAIL_CHARACTERS     300
#define TAIL_BOX_CHARACTERS 100

typedef struct Dapo {
    bool strict_box;
} Dapo;

static Status dapo_open(const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {"strict_box", NULL};
    Dapo made = {0};
    TRY(options_check(options, "dapo", keys, err));
    TRY(json_bool_or(options, "strict_box", "dapo", &made.strict_box, err));
    Dapo *self = mem_alloc(sizeof *self);
    *self = made;
    *ret_self = self;
    return OK;
}

static void dapo_close(void *self)
{
    free(self);
}

static void replace_all(Str *text, const char *from, const char *to)
{
    Slice rest = {str_text(text), text->length}, needle = slice_from(from);
    if (slice_find(rest, needle) < 0) return;
    Str out = {0};
    for (ssize_t at; (at = slice_find(rest, needle)) >= 0;) {
        str_append(&out, rest.data, (size_t)at);
        str_puts(&out, to);
        rest = slice_part(rest, (size_t)at + needle.length, rest.length);
    }
    str_append(&out, rest.data, rest.length);
    str_free(text);
    *text = out;
}

/* The text keeps only what stands between the first two dollar signs, if there are two. */
static void keep_formula(Str *text)
{
    Slice all = {str_text(text), text->length};
    ssize_t first = slice_find(all, SLICE_OF("$"));
    if (first < 0) return;
    Slice rest = slice_part(all, (size_t)first + 1, all.length);
    ssize_t second = slice_find(rest, SLICE_OF("$"));
    if (second < 0) return;
    Str out = {0};
    str_putc(&out, '$');
    str_append(&out, rest.data, (size_t)second);
    str_putc(&out, '$');
    str_free(text);
    *text = out;
}

/* `command{...}` becomes its content: up to the first '}', or up to the last one of the text. */
static void unwrap(Str *text, const char *command, bool to_last)
{
    Str out = {0};
    Slice rest = {str_text(text), text->length}, needle = slice_from(command);
    for (ssize_t at; (at = slice_find(rest, needle)) >= 0;) {
        Slice inside = slice_part(rest, (size_t)at + needle.length, rest.length);
        ssize_t end =
            to_last ? slice_find_last(inside, SLICE_OF("}")) : slice_find(inside, SLICE_OF("}"));
        if (end < 0) break;
        str_append(&out, rest.data, (size_t)at);
        str_append(&out, inside.data, (size_t)end);
        rest = slice_part(inside, (size_t)end + 1, inside.length);
    }
    str_append(&out, rest.data, rest.length);
    str_free(text);
    *text = out;
}

static size_t character_bytes(Slice text, size_t at)
{
    size_t end = at + 1;
    while (end < text.length && ((unsigned char)text.data[end] & 0xc0) == 0x80)
        end++;
    return end - at;
}

/* frac and sqrt get braces around arguments that have none: frac12, sqrt3. */
static void brace_arguments(Str *text, const char *name, int count)
{
    Str out = {0};
    Slice all = {str_text(text), text->length}, needle = slice_from(name);
    size_t at = 0;
    while (at < all.length) {
        Slice rest = slice_part(all, at, all.length);
        size_t first = at + needle.length;
        bool fits = slice_starts_with(rest, needle) && first < all.length && all.data[first] != '{';
        size_t second = fits ? first + character_bytes(all, first) : 0;
        if (fits && count == 2 && second >= all.length) fits = false;
        if (!fits) {
            str_putc(&out, all.data[at++]);
            continue;
        }
        str_puts(&out, name);
        size_t start = first;
        for (int i = 0; i < count; i++) {
            size_t bytes = character_bytes(all, start);
            str_putc(&out, '{');
            str_append(&out, all.data + start, bytes);
            str_putc(&out, '}');
            start += bytes;
        }
        at = start;
    }
    str_free(text);
    *text = out;
}

static void normalise(Str *text)
{
    static const char *const replaced[][2] = {
        {"an ", ""},          {"a ", ""},
        {".$", "$"},          {"\\$", ""},
        {"\\ ", ""},          {" ", ""},
        {"mbox", "text"},     {",\\text{and}", ","},
        {"\\text{and}", ","}, {"\\text{m}", "\\text{}"},
    };
    static const char *const removed[] = {
        "square",
        "ways",
        "integers",
        "dollars",
        "mph",
        "inches",
        "hours",
        "km",
        "units",
        "\\ldots",
        "sue",
        "points",
        "feet",
        "minutes",
        "digits",
        "cents",
        "degrees",
        "cm",
        "gm",
        "pounds",
        "meters",
        "meals",
        "edges",
        "students",
        "childrentickets",
        "multiples",
        "\\text{s}",
        "\\text{.}",
        "\\text{\ns}",
        "\\text{}^2",
        "\\text{}^3",
        "\\text{\n}",
        "\\text{}",
        "\\mathrm{th}",
        "^\\circ",
        "^{\\circ}",
        "\\;",
        ",\\!",
        "{,}",
        "\"",
        "\\dots",
        "<|im_end|>",
        "<|endoftext|>",
    };
    for (size_t i = 0; i < sizeof replaced / sizeof replaced[0]; i++)
        replace_all(text, replaced[i][0], replaced[i][1]);
    for (size_t i = 0; i < sizeof removed / sizeof removed[0]; i++)
        replace_all(text, removed[i], "");
    keep_formula(text);
    unwrap(text, "\\text{", false);
    unwrap(text, "\\textbf{", false);
    unwrap(text, "\\overline{", false);
    unwrap(text, "\\boxed{", true);
    brace_arguments(text, "frac", 2);
    brace_arguments(text, "sqrt", 1);
    replace_all(text, "$", "");
    bool digits = text->length > 0;
    for (size_t i = 0; i < text->length; i++)
        digits = digits && (byte_is_digit(text->data[i]) || text->data[i] == ',');
    if (digits) replace_all(text, ",", "");
}

/* What follows the last '='. */
static Slice after_equals(Slice text)
{
    ssize_t at = slice_find_last(text, SLICE_OF("="));
    return at < 0 ? text : slice_part(text, (size_t)at + 1, text.length);
}

static void normalise_slice(Slice text, Str *ret)
{
    text = after_equals(text);
    str_clear(ret);
    str_append(ret, text.data, text.length);
    normalise(ret);
}

/* The rest of the line behind the last `answer :`; searched from the left, as what follows one on
 * its line belongs to it. */
static bool find_answer(Slice text, Slice *ret)
{
    bool found = false;
    Slice word = SLICE_OF("answer");
    for (ssize_t at; (at = slice_find_fold(text, word)) >= 0;) {
        size_t end = (size_t)at + word.length, start;
        while (end < text.length && byte_is_space(text.data[end]))
            end++;
        if (end == text.length || text.data[end] != ':') {
            text = slice_part(text, (size_t)at + word.length, text.length);
            continue;
        }
        start = end + 1;
        while (start < text.length && byte_is_space(text.data[start]))
            start++;
        if (start == text.length) { /* only white space follows: a blank is an answer, an end not */
            for (size_t i = end + 1; i < text.length; i++)
                if (text.data[i] != '\n') found = true, *ret = (Slice){0};
            break;
        }
        end = start;
        while (end < text.length && text.data[end] != '\n')
            end++;
        *ret = slice_part(text, start, end);
        found = true;
        text = slice_part(text, end, text.length);
    }
    return found;
}

/* The label as the whole number it is: its text after the same replacements, 18.0 as 18. */
static bool label_text(Slice label, Str *ret)
{
    normalise_slice(label, ret);
    char *end = NULL;
    double value = strtod(str_text(ret), &end);
    if (ret->length == 0 || *end != '\0' || !isfinite(value)) return false;
    str_clear(ret);
    str_printf(ret, "%.0f", trunc(value) == 0 ? 0.0 : trunc(value));
    return true;
}

static bool box_of(Slice tail, Slice *ret)
{
    ssize_t at = slice_find_last(tail, SLICE_OF("\\boxed{"));
    if (at < 0) return false;
    int depth = 0;
    for (size_t i = (size_t)at; i < tail.length; i++) {
        if (tail.data[i] == '{') depth++;
        if (tail.data[i] != '}' || --depth > 0) continue;
        *ret = slice_part(tail, (size_t)at + strlen("\\boxed{"), i);
        return true;
    }
    return false;
}

static void score_box(const RewardRequest *request, RewardResult *ret)
{
    Slice answer = {0};
    bool found = box_of(slice_tail(request->response, TAIL_BOX_CHARACTERS), &answer);
    bool right = found && slice_equal(answer, request->label);
    reward_judge(ret, right, right ? 1 : -1, answer);
    if (!found) reward_explain(ret, "no \\boxed{} in the last %d characters", TAIL_BOX_CHARACTERS);
}

static void dapo_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    const Dapo *options = self;
    if (request->label.length == 0) {
        reward_refuse(ret, "the record's label is empty, expected an integer");
        return;
    }
    if (options->strict_box) {
        score_box(request, ret);
        return;
    }
    Str expected = {0}, given = {0};
    Slice answer = {0};
    if (!label_text(request->label, &expected)) {
        reward_refuse(ret, "the record's label is no number, expected an integer");
    } else if (!find_answer(slice_tail(request->response, TAIL_CHARACTERS), &answer)) {
        reward_judge(ret, false, -1, answer);
        reward_explain(ret, "no `Answer:` in the last %d characters", TAIL_CHARACTERS);
    } else {
        normalise_slice(answer, &given);
        Slice text = slice_trim((Slice){str_text(&given), given.length});
        bool right = slice_equal(text, (Slice){str_text(&expected), expected.length});
        reward_judge(ret, right, right ? 1 : -1, text);
    }
    str_free(&expected);
    str_free(&given);
}

const RewardTable reward_dapo = {"dapo", dapo_open, dapo_close, dapo_score, NULL, dapo_score};
