/* The reward `f1`: overlap of the words of response and label (SQuAD's token F1; Rajpurkar et al.,
 * 2016): lower case, without ASCII punctuation and the articles a, an, the. yes, no and noanswer
 * only match as the whole answer. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"

static Status f1_open(const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {NULL};
    TRY(options_check(options, "f1", keys, err));
    *ret_self = NULL;
    return OK;
}

static void f1_close(void *self)
{
    (void)self;
}

static bool is_ascii_punctuation(uint32_t code)
{
    return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') ||
           (code >= '[' && code <= '`') || (code >= '{' && code <= '~');
}

static bool is_space(uint32_t code)
{
    if (code < 128) return byte_is_space((char)code) || (code >= 0x1c && code <= 0x1f);
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP || code == 0x85;
}

static bool is_word_character(uint32_t code)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
           (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) || code == '_';
}

/* Lower case without punctuation; white space becomes single blanks. */
static void simplify(Slice text, Str *ret)
{
    str_reserve(ret, text.length);
    for (size_t i = 0; i < text.length;) {
        uint32_t code = 0;
        int bytes = utf8_decode(text.data + i, text.length - i, &code);
        if (bytes == 0) {
            i++;
            continue;
        }
        i += (size_t)bytes;
        if (is_ascii_punctuation(code)) continue;
        if (is_space(code)) {
            if (ret->length > 0 && ret->data[ret->length - 1] != ' ') str_putc(ret, ' ');
            continue;
        }
        if (code < 128) {
            str_putc(ret, byte_lower((char)code));
            continue;
        }
        char utf8[4];
        int length = utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)code), utf8);
        str_append(ret, utf8, (size_t)length);
    }
}

static bool touches_word(Slice text, size_t at, bool before)
{
    uint32_t code = 0;
    if (before) {
        if (at == 0) return false;
        size_t start = at - 1;
        while (start > 0 && ((unsigned char)text.data[start] & 0xc0) == 0x80)
            start--;
        at = start;
    }
    return utf8_decode(text.data + at, text.length - at, &code) > 0 && is_word_character(code);
}

/* Articles become blanks. */
static void drop_articles(Str *text)
{
    static const char *const articles[] = {"the", "an", "a"};
    Slice all = {str_text(text), text->length};
    for (size_t i = 0; i < all.length; i++) {
        if (all.data[i] != 'a' && all.data[i] != 't') continue;
        for (size_t k = 0; k < 3; k++) {
            size_t length = strlen(articles[k]);
            if (!slice_starts_with(slice_part(all, i, all.length), slice_from(articles[k])) ||
                touches_word(all, i, true) || touches_word(all, i + length, false))
                continue;
            memset(text->data + i, ' ', length);
            break;
        }
    }
}

typedef struct Words {
    Slice *item;
    int count;
} Words;

static Words split(const Str *text)
{
    Words words = {0};
    size_t at = 0, capacity = 0;
    while (at < text->length) {
        while (at < text->length && text->data[at] == ' ')
            at++;
        size_t start = at;
        while (at < text->length && text->data[at] != ' ')
            at++;
        if (at == start) break;
        if ((size_t)words.count == capacity) {
            capacity = capacity == 0 ? 64 : capacity * 2;
            words.item = mem_realloc(words.item, capacity, sizeof *words.item);
        }
        words.item[words.count++] = (Slice){text->data + start, at - start};
    }
    return words;
}

static int compare_words(const void *left, const void *right)
{
    const Slice *a = left, *b = right;
    int order = memcmp(a->data, b->data, a->length < b->length ? a->length : b->length);
    if (order != 0) return order;
    return a->length < b->length ? -1 : a->length > b->length;
}

/* Words that both have, each as often as in the one that has fewer of it. Sorts both. */
static int count_common(Words *a, Words *b)
{
    if (a->count == 0 || b->count == 0) return 0;
    qsort(a->item, (size_t)a->count, sizeof *a->item, compare_words);
    qsort(b->item, (size_t)b->count, sizeof *b->item, compare_words);
    int common = 0;
    for (int i = 0, k = 0; i < a->count && k < b->count;) {
        int order = compare_words(&a->item[i], &b->item[k]);
        common += order == 0;
        i += order <= 0;
        k += order >= 0;
    }
    return common;
}

/* The whole text is one of the answers that only match as a whole. */
static bool is_whole_answer(const Words *words)
{
    return words->count == 1 && (slice_equal(words->item[0], SLICE_OF("yes")) ||
                                 slice_equal(words->item[0], SLICE_OF("no")) ||
                                 slice_equal(words->item[0], SLICE_OF("noanswer")));
}

static bool same_words(const Words *a, const Words *b)
{
    if (a->count != b->count) return false;
    for (int i = 0; i < a->count; i++)
        if (!slice_equal(a->item[i], b->item[i])) return false;
    return true;
}

static void f1_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    (void)self;
    if (request->label.length == 0) {
        reward_refuse(ret, "the record's label is empty, expected words");
        return;
    }
    Str texts[2] = {{0}, {0}};
    simplify(request->response, &texts[0]);
    simplify(request->label, &texts[1]);
    drop_articles(&texts[0]);
    drop_articles(&texts[1]);
    Words given = split(&texts[0]), expected = split(&texts[1]);
    bool whole = is_whole_answer(&given) || is_whole_answer(&expected);
    double score = 0;
    if (!whole || same_words(&given, &expected)) {
        double common = count_common(&given, &expected);
        /* 2 p r / (p + r) with p = common / given and r = common / expected */
        if (common > 0) score = 2 * common / (given.count + expected.count);
    }
    reward_judge(ret, score == 1, score, (Slice){0});
    free(given.item);
    free(expected.item);
    str_free(&texts[0]);
    str_free(&texts[1]);
}

const RewardTable reward_f1 = {"f1", f1_open, f1_close, f1_score, NULL, f1_score};
