/* The reward `gpqa`: multiple choice. What counts as an answer, the last statement of the first
 * kind that there is: a boxed letter; a letter behind answer, option or choice; a letter that is
 * said to be correct; a letter that stands alone. A letter must not touch others: slime's scorer,
 * which looks for the same words, takes the C of "the answer is clearly B". Without any letter the
 * text of one choice, and of no other, may stand for it. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "rollout_worker/reward/boxed.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"

#define TAIL_CHARACTERS 2000
#define LETTERS_MAX     26
#define LETTERS_DEFAULT 10 /* A to J, when the record does not say how many choices there are */

static Status gpqa_open(const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {NULL};
    TRY(options_check(options, "gpqa", keys, err));
    *ret_self = NULL;
    return OK;
}

static void gpqa_close(void *self)
{
    (void)self;
}

/* What the record says about its choices. */
typedef struct Choices {
    char letter[LETTERS_MAX]; /* upper case */
    Slice text[LETTERS_MAX];  /* empty where unknown */
    int count;
    int correct; /* index, -1 when unknown */
} Choices;

static char upper(char byte)
{
    return byte >= 'a' && byte <= 'z' ? (char)(byte - 'a' + 'A') : byte;
}

static int choice_of(const Choices *choices, char letter)
{
    for (int i = 0; i < choices->count; i++)
        if (choices->letter[i] == letter) return i;
    return -1;
}

static Slice string_of(const cJSON *value)
{
    return cJSON_IsString(value) ? slice_from(value->valuestring) : (Slice){0};
}

static Slice member_text(const cJSON *metadata, const char *key)
{
    return string_of(cJSON_GetObjectItemCaseSensitive(metadata, key));
}

/* The letters and digits of both, lower case, with one blank for whatever stands between. */
static void normalise(Slice text, Str *ret)
{
    str_clear(ret);
    for (size_t i = 0; i < text.length; i++) {
        char byte = byte_lower(text.data[i]);
        if (byte_is_letter(byte) || byte_is_digit(byte))
            str_putc(ret, byte);
        else if (ret->length > 0 && ret->data[ret->length - 1] != ' ')
            str_putc(ret, ' ');
    }
    while (ret->length > 0 && ret->data[ret->length - 1] == ' ')
        ret->data[--ret->length] = '\0';
}

static bool same_text(Slice a, Slice b)
{
    Str left = {0}, right = {0};
    normalise(a, &left);
    normalise(b, &right);
    bool same = left.length > 0 && strcmp(str_text(&left), str_text(&right)) == 0;
    str_free(&left);
    str_free(&right);
    return same;
}

/* The words of `part` stand in `text`, from word end to word end. */
static bool contains_text(Slice text, Slice part)
{
    Str hay = {0}, needle = {0};
    str_puts(&hay, " ");
    Str words = {0};
    normalise(text, &words);
    str_append(&hay, str_text(&words), words.length);
    str_puts(&hay, " ");
    normalise(part, &words);
    str_printf(&needle, " %s ", str_text(&words));
    bool found = words.length > 0 && strstr(str_text(&hay), str_text(&needle)) != NULL;
    str_free(&hay);
    str_free(&needle);
    str_free(&words);
    return found;
}

static void read_letters(const cJSON *metadata, Choices *ret)
{
    const cJSON *texts = cJSON_GetObjectItemCaseSensitive(metadata, "choices");
    const cJSON *letters = cJSON_GetObjectItemCaseSensitive(metadata, "valid_letters");
    const cJSON *entry = NULL;
    int given = 0;
    cJSON_ArrayForEach(entry, letters)
    {
        if (given < LETTERS_MAX && cJSON_IsString(entry) && strlen(entry->valuestring) == 1)
            ret->letter[given++] = upper(entry->valuestring[0]);
    }
    int count = 0;
    cJSON_ArrayForEach(entry, texts)
    {
        if (count < LETTERS_MAX) ret->text[count++] = string_of(entry);
    }
    ret->count = given > 0 ? given : count > 0 ? count : LETTERS_DEFAULT;
    for (int i = 0; given == 0 && i < ret->count; i++)
        ret->letter[i] = (char)('A' + i);
}

static int correct_choice(const Choices *choices, const cJSON *metadata, Slice label)
{
    Slice stated = slice_trim(member_text(metadata, "correct_letter"));
    if (stated.length == 1) return choice_of(choices, upper(stated.data[0]));
    if (label.length == 1 && choice_of(choices, upper(label.data[0])) >= 0)
        return choice_of(choices, upper(label.data[0]));
    if (label.length >= 1 && label.length <= 2) { /* a number counts from 0 */
        int index = 0;
        bool digits = true;
        for (size_t i = 0; i < label.length; i++) {
            digits = digits && byte_is_digit(label.data[i]);
            index = index * 10 + (label.data[i] - '0');
        }
        if (digits && index < choices->count) return index;
    }
    for (int i = 0; i < choices->count; i++)
        if (same_text(choices->text[i], label)) return i;
    return -1;
}

static bool stands_alone(Slice text, size_t at)
{
    bool before = at > 0 && (byte_is_letter(text.data[at - 1]) ||
                             byte_is_digit(text.data[at - 1]) || text.data[at - 1] == '\'');
    bool after =
        at + 1 < text.length && (byte_is_letter(text.data[at + 1]) ||
                                 byte_is_digit(text.data[at + 1]) || text.data[at + 1] == '\'');
    return !before && !after;
}

/* Past blanks and the marks that may stand around a letter. */
static size_t skip_marks(Slice text, size_t at)
{
    while (at < text.length &&
           (byte_is_space(text.data[at]) || strchr("*_:([{\"`$-", text.data[at])))
        at++;
    return at;
}

static size_t skip_word(Slice text, size_t at, const char *word)
{
    Slice rest = slice_part(text, at, at + strlen(word));
    size_t end = at + rest.length;
    bool whole = end == text.length || !byte_is_letter(text.data[end]);
    return slice_equal_fold(rest, slice_from(word)) && whole ? skip_marks(text, end) : at;
}

/* The letter that follows a word like `answer` at `at` (past the word), or '\0'. */
static char letter_behind(const Choices *choices, Slice text, size_t at)
{
    static const char *const between[] = {"is",     "would",  "be",     "should", "must",
                                          "choice", "option", "letter", "the",    "correct",
                                          "s",      "\\text", "\\boxed"};
    size_t start = at = skip_marks(text, at);
    for (int round = 0; round < 6; round++) {
        size_t before = at;
        for (size_t i = 0; i < sizeof between / sizeof between[0]; i++)
            at = skip_word(text, at, between[i]);
        if (at == before) break;
    }
    if (at >= text.length || !stands_alone(text, at)) return '\0';
    char letter = upper(text.data[at]);
    if (choice_of(choices, letter) < 0) return '\0';
    /* `the answer is a matter of taste`: an article is no answer. */
    bool article = at + 2 < text.length && text.data[at + 1] == ' ' &&
                   byte_lower(text.data[at + 2]) == text.data[at + 2] &&
                   byte_is_letter(text.data[at + 2]);
    if (article && (text.data[at] == 'a' || text.data[at] == 'i')) return '\0';
    if (article && start == at && text.data[at] != letter) return '\0';
    return letter;
}

static char find_behind_words(const Choices *choices, Slice text)
{
    static const char *const words[] = {"answer", "option", "choice"};
    char found = '\0';
    for (size_t i = 0; i < text.length; i++) {
        for (size_t k = 0; k < sizeof words / sizeof words[0]; k++) {
            if (byte_lower(text.data[i]) != words[k][0]) continue;
            size_t end = i + strlen(words[k]);
            if (!slice_equal_fold(slice_part(text, i, end), slice_from(words[k]))) continue;
            char letter = letter_behind(choices, text, end);
            if (letter != '\0') found = letter;
        }
    }
    return found;
}

/* `B is correct`, `(C) is the correct one`. */
static char find_said_correct(const Choices *choices, Slice text)
{
    char found = '\0';
    for (size_t i = 0; i < text.length; i++) {
        if (choice_of(choices, text.data[i]) < 0 || !stands_alone(text, i)) continue;
        size_t at = i + 1;
        while (at < text.length && strchr(")]*_.\"` ", text.data[at]) != NULL)
            at++;
        size_t behind = skip_word(text, at, "is");
        if (behind == at) continue;
        size_t article = skip_word(text, behind, "the");
        if (skip_word(text, article, "correct") > article ||
            skip_word(text, article, "right") > article)
            found = text.data[i];
    }
    return found;
}

static char find_alone(const Choices *choices, Slice text)
{
    for (size_t i = text.length; i-- > 0;) {
        if (choice_of(choices, text.data[i]) < 0 || !stands_alone(text, i)) continue;
        bool word_follows = i + 2 < text.length && text.data[i + 1] == ' ' &&
                            byte_is_letter(text.data[i + 2]) &&
                            byte_lower(text.data[i + 2]) == text.data[i + 2];
        if (!word_follows) return text.data[i];
    }
    return '\0';
}

static char find_boxed(const Choices *choices, Slice text)
{
    Slice content;
    if (!boxed_find_last(text, &content)) return '\0';
    char found = '\0';
    for (size_t i = 0; i < content.length; i++) {
        if (!stands_alone(content, i) || choice_of(choices, upper(content.data[i])) < 0) continue;
        if (found != '\0') return '?'; /* two letters are a wrong answer */
        found = upper(content.data[i]);
    }
    return found;
}

static char find_letter(const Choices *choices, Slice text)
{
    char letter = find_boxed(choices, text);
    if (letter == '\0') letter = find_behind_words(choices, text);
    if (letter == '\0') letter = find_said_correct(choices, text);
    return letter != '\0' ? letter : find_alone(choices, text);
}

/* Without a letter: the response has the text of the correct choice and of no other. */
static bool text_is_right(const Choices *choices, Slice text, Slice label)
{
    if (choices->correct < 0 || choices->text[choices->correct].length == 0)
        return contains_text(text, label);
    for (int i = 0; i < choices->count; i++)
        if (i != choices->correct && contains_text(text, choices->text[i]) &&
            !contains_text(choices->text[choices->correct], choices->text[i]))
            return false;
    return contains_text(text, choices->text[choices->correct]);
}

static void gpqa_score(void *self, const RewardRequest *request, RewardResult *ret)
{
    (void)self;
    Slice label = slice_trim(request->label);
    Choices choices = {.count = 0};
    read_letters(request->metadata, &choices);
    choices.correct = correct_choice(&choices, request->metadata, label);
    bool listed = choices.count > 0 && choices.text[0].length > 0;
    if (choices.correct < 0 && (label.length == 0 || listed)) {
        reward_refuse(ret, "neither the record's label nor its metadata name %s",
                      listed ? "one of the choices" : "the correct choice");
        return;
    }
    Slice text = slice_tail(slice_after_think(request->response), TAIL_CHARACTERS);
    char letter = find_letter(&choices, text);
    if (letter == '?' || (letter != '\0' && choices.correct >= 0)) {
        bool right = letter != '?' && letter == choices.letter[choices.correct];
        reward_judge(ret, right, right, (Slice){&letter, 1});
        return;
    }
    bool right = text_is_right(&choices, text, label);
    reward_judge(ret, right, right, right ? label : (Slice){0});
    if (!right) reward_explain(ret, "no choice found in the response");
}

const RewardTable reward_gpqa = {"gpqa", gpqa_open, gpqa_close, gpqa_score, NULL, gpqa_score};
