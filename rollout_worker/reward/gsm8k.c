/* The reward `gsm8k`: a final number. Strict takes the number behind the last `#### `, as the data
 * set writes it; flexible takes the last number of the response. Numbers are compared by value, not
 * by spelling: 18 and 18.00 are the same, as are 1800 and 1,800. verl's scorer, whose rules of
 * where to look these are, compares spellings. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"

#define TAIL_CHARACTERS 300 /* where a final answer is looked for */

typedef enum { METHOD_STRICT, METHOD_FLEXIBLE } Method;

typedef struct Gsm8k {
    int method;
    double format_score; /* of a wrong number in the right place */
} Gsm8k;

static Status gsm8k_open(const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {"method", "format_score", NULL};
    static const char *const methods[] = {"strict", "flexible", NULL};
    Gsm8k made = {.method = METHOD_STRICT};
    TRY(options_check(options, "gsm8k", keys, err));
    TRY(options_choice(options, "method", "gsm8k", methods, &made.method, err));
    TRY(json_double_or(options, "format_score", "gsm8k", &made.format_score, err));
    Gsm8k *self = mem_alloc(sizeof *self);
    *self = made;
    *ret_self = self;
    return OK;
}

static void gsm8k_close(void *self)
{
    free(self);
}

static bool is_number_byte(char byte)
{
    return byte_is_digit(byte) || byte == '.' || byte == ',';
}

/* The run of digits, points and commas that ends at `end`, with a sign before it. */
static Slice number_ending(Slice text, size_t end)
{
    size_t start = end;
    while (start > 0 && is_number_byte(text.data[start - 1]))
        start--;
    if (start > 0 && text.data[start - 1] == '-') start--;
    return slice_part(text, start, end);
}

static bool has_digit(Slice text)
{
    for (size_t i = 0; i < text.length; i++)
        if (byte_is_digit(text.data[i])) return true;
    return false;
}

static Slice find_flexible(Slice text)
{
    for (size_t end = text.length; end > 0; end--) {
        if (!is_number_byte(text.data[end - 1])) continue;
        Slice number = number_ending(text, end);
        if (has_digit(number)) return number;
        end -= number.length - 1;
    }
    return (Slice){0};
}

static Slice find_strict(Slice text)
{
    Slice mark = SLICE_OF("####");
    while (text.length > 0) {
        ssize_t at = slice_find_last(text, mark);
        if (at < 0) break;
        Slice rest = slice_part(text, (size_t)at + mark.length, text.length);
        size_t start = 0, end;
        while (start < rest.length && (rest.data[start] == ' ' || rest.data[start] == '$'))
            start++;
        end = start;
        if (end < rest.length && rest.data[end] == '-') end++;
        if (end < rest.length && rest.data[end] == '$') end++;
        while (end < rest.length && is_number_byte(rest.data[end]))
            end++;
        Slice number = slice_part(rest, start, end);
        if (start > 0 && has_digit(number)) return number;
        text = slice_part(text, 0, (size_t)at);
    }
    return (Slice){0};
}

/* A number as sign, digits without leading zeros, and digits behind the point without trailing
 * ones. */
typedef struct Number {
    bool negative;
    char whole[TAIL_CHARACTERS + 1];
    char part[TAIL_CHARACTERS + 1];
    size_t wholes, parts;
} Number;

/* False when the text is no number: nothing in it but digits, commas, '$', a sign and one point,
 * which may also end it. */
static bool read_number(Slice text, Number *ret)
{
    *ret = (Number){0};
    text = slice_trim(text);
    bool point = false, digits = false;
    for (size_t i = 0; i < text.length; i++) {
        char byte = text.data[i];
        if (byte == ',' || byte == '$') continue;
        if (byte == '-' && !digits && !ret->negative) {
            ret->negative = true;
        } else if (byte == '.' && !point) {
            point = true;
        } else if (byte_is_digit(byte) && ret->wholes + ret->parts < TAIL_CHARACTERS) {
            digits = true;
            if (point)
                ret->part[ret->parts++] = byte;
            else if (ret->wholes > 0 || byte != '0')
                ret->whole[ret->wholes++] = byte;
        } else {
            return false;
        }
    }
    while (ret->parts > 0 && ret->part[ret->parts - 1] == '0')
        ret->parts--;
    if (ret->wholes == 0 && ret->parts == 0) ret->negative = false;
    return digits;
}

static bool numbers_equal(const Number *a, const Number *b)
{
    return a->negative == b->negative && a->wholes == b->wholes && a->parts == b->parts &&
           memcmp(a->whole, b->whole, a->wholes) == 0 && memcmp(a->part, b->part, a->parts) == 0;
}

/* A label is a number, or as GSM8K's own answers are a text with the number behind "####". */
static bool read_label(Slice label, Number *ret)
{
    return read_number(label, ret) || read_number(find_strict(label), ret);
}

static void gsm8k_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    const Gsm8k *options = self;
    Number expected, given;
    if (!read_label(request->label, &expected)) {
        reward_refuse(ret, "the record's label is no number, and has none behind ####: \"%.*s\"",
                      (int)(request->label.length < 40 ? request->label.length : 40),
                      request->label.length == 0 ? "" : request->label.data);
        return;
    }
    Slice tail = slice_tail(request->response, TAIL_CHARACTERS);
    Slice answer = options->method == METHOD_STRICT ? find_strict(tail) : find_flexible(tail);
    if (answer.length == 0) {
        reward_judge(ret, false, 0, answer);
        reward_explain(ret, options->method == METHOD_STRICT ? "no number behind ####"
                                                             : "no number at the end");
        return;
    }
    bool right = read_number(answer, &given) && numbers_equal(&expected, &given);
    reward_judge(ret, right, right ? 1 : options->format_score, answer);
}

const RewardTable reward_gsm8k = {"gsm8k", gsm8k_open, gsm8k_close, gsm8k_score, NULL, gsm8k_score};
