#include "rollout_worker/reward/instruction.h"

#include <string.h>

#include "base/json.h"
#include "base/str.h"

typedef struct Check {
    const char *name;
    Status (*run)(const char *name, const cJSON *arguments, Slice response, bool *ret, Error *err);
} Check;

static bool is_word_byte(char byte)
{
    return byte_is_letter(byte) || byte_is_digit(byte) || byte == '_' ||
           (unsigned char)byte >= 0x80;
}

/* "at least" and "less than", the two relations that instructions know. */
static Status compare(const char *name, const cJSON *arguments, const char *key, int64_t found,
                      const char *count_key, bool *ret, Error *err)
{
    const char *relation = NULL;
    int64_t wanted = 0;
    TRY(json_string(arguments, key, name, &relation, err));
    TRY(json_int(arguments, count_key, name, 0, INT64_MAX, &wanted, err));
    if (strcmp(relation, "at least") == 0)
        *ret = found >= wanted;
    else if (strcmp(relation, "less than") == 0)
        *ret = found < wanted;
    else
        return error_set(err, ERR_DATA, "%s: %s is %s, expected \"at least\" or \"less than\"",
                         name, key, QUOTED(relation));
    return OK;
}

static Status get_list(const char *name, const cJSON *arguments, const char *key, const cJSON **ret,
                       Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(arguments, key), *entry = NULL;
    bool texts = cJSON_IsArray(list);
    cJSON_ArrayForEach(entry, list) texts = texts && cJSON_IsString(entry) && *entry->valuestring;
    if (!texts)
        return error_set(err, ERR_DATA, "%s: %s is %s, expected a list of texts", name, key,
                         json_type_name(list));
    *ret = list;
    return OK;
}

static bool contains_word(Slice text, Slice word)
{
    for (;;) {
        ssize_t at = slice_find_fold(text, word);
        if (at < 0) return false;
        size_t end = (size_t)at + word.length;
        bool left = at == 0 || !is_word_byte(text.data[at - 1]) || !is_word_byte(word.data[0]);
        bool right = end == text.length || !is_word_byte(text.data[end]) ||
                     !is_word_byte(word.data[word.length - 1]);
        if (left && right) return true;
        text = slice_part(text, (size_t)at + 1, text.length);
    }
}

static Status check_existence(const char *name, const cJSON *arguments, Slice response, bool *ret,
                              Error *err)
{
    const cJSON *list = NULL, *entry = NULL;
    TRY(get_list(name, arguments, "keywords", &list, err));
    *ret = true;
    cJSON_ArrayForEach(entry, list) *ret =
        *ret && slice_find_fold(response, slice_from(entry->valuestring)) >= 0;
    return OK;
}

static Status check_forbidden(const char *name, const cJSON *arguments, Slice response, bool *ret,
                              Error *err)
{
    const cJSON *list = NULL, *entry = NULL;
    TRY(get_list(name, arguments, "forbidden_words", &list, err));
    *ret = true;
    cJSON_ArrayForEach(entry, list) *ret =
        *ret && !contains_word(response, slice_from(entry->valuestring));
    return OK;
}

static Status check_frequency(const char *name, const cJSON *arguments, Slice response, bool *ret,
                              Error *err)
{
    const char *keyword = NULL;
    TRY(json_string(arguments, "keyword", name, &keyword, err));
    Slice word = slice_trim(slice_from(keyword));
    if (word.length == 0) return error_set(err, ERR_DATA, "%s: keyword is empty", name);
    int64_t found = 0;
    for (ssize_t at; (at = slice_find_fold(response, word)) >= 0; found++)
        response = slice_part(response, (size_t)at + word.length, response.length);
    return compare(name, arguments, "relation", found, "frequency", ret, err);
}

static Status check_letters(const char *name, const cJSON *arguments, Slice response, bool *ret,
                            Error *err)
{
    const char *letter = NULL;
    TRY(json_string(arguments, "letter", name, &letter, err));
    if (strlen(letter) != 1)
        return error_set(err, ERR_DATA, "%s: letter is %s, expected one ASCII character", name,
                         QUOTED(letter));
    int64_t found = 0;
    for (size_t i = 0; i < response.length; i++)
        found += byte_lower(response.data[i]) == byte_lower(letter[0]);
    return compare(name, arguments, "let_relation", found, "let_frequency", ret, err);
}

static Status check_words(const char *name, const cJSON *arguments, Slice response, bool *ret,
                          Error *err)
{
    int64_t found = 0;
    for (size_t i = 0; i < response.length; i++)
        found += is_word_byte(response.data[i]) && (i == 0 || !is_word_byte(response.data[i - 1]));
    return compare(name, arguments, "relation", found, "num_words", ret, err);
}

/* A word of capitals: at least one letter and none in lower case. */
static Status check_capital_words(const char *name, const cJSON *arguments, Slice response,
                                  bool *ret, Error *err)
{
    int64_t found = 0;
    for (size_t i = 0; i < response.length;) {
        bool letters = false, lower = false;
        size_t start = i;
        while (i < response.length && (is_word_byte(response.data[i]) || response.data[i] == '-')) {
            letters = letters || byte_is_letter(response.data[i]);
            lower = lower || (response.data[i] >= 'a' && response.data[i] <= 'z');
            i++;
        }
        found += letters && !lower;
        i += i == start;
    }
    return compare(name, arguments, "capital_relation", found, "capital_frequency", ret, err);
}

static Status check_case(const char *name, const cJSON *arguments, Slice response, bool *ret,
                         Error *err)
{
    (void)arguments;
    (void)err;
    bool want_capitals = strcmp(name, "change_case:english_capital") == 0;
    bool letters = false, wrong = false;
    for (size_t i = 0; i < response.length; i++) {
        if (!byte_is_letter(response.data[i])) continue;
        letters = true;
        bool capital = byte_lower(response.data[i]) != response.data[i];
        wrong = wrong || capital != want_capitals;
    }
    *ret = letters && !wrong;
    return OK;
}

static Status check_no_comma(const char *name, const cJSON *arguments, Slice response, bool *ret,
                             Error *err)
{
    (void)name;
    (void)arguments;
    (void)err;
    *ret = slice_find(response, SLICE_OF(",")) < 0;
    return OK;
}

static Status check_placeholders(const char *name, const cJSON *arguments, Slice response,
                                 bool *ret, Error *err)
{
    int64_t wanted = 0, found = 0;
    TRY(json_int(arguments, "num_placeholders", name, 0, INT64_MAX, &wanted, err));
    bool open = false;
    for (size_t i = 0; i < response.length; i++) {
        char byte = response.data[i];
        if (byte == '[') open = true;
        if (byte == '\n') open = false;
        if (byte == ']' && open) {
            found++;
            open = false;
        }
    }
    *ret = found >= wanted;
    return OK;
}

/* The next line from *at, without its end. False at the end of the text. */
static bool next_line(Slice text, size_t *at, Slice *ret)
{
    if (*at >= text.length) return false;
    size_t end = *at;
    while (end < text.length && text.data[end] != '\n')
        end++;
    *ret = slice_part(text, *at, end);
    *at = end + 1;
    return true;
}

static Status check_bullets(const char *name, const cJSON *arguments, Slice response, bool *ret,
                            Error *err)
{
    int64_t wanted = 0, found = 0;
    TRY(json_int(arguments, "num_bullets", name, 0, INT64_MAX, &wanted, err));
    size_t at = 0;
    for (Slice line; next_line(response, &at, &line);) {
        line = slice_trim(line);
        bool star = line.length > 1 && line.data[0] == '*' && line.data[1] != '*';
        found += star || (line.length > 0 && line.data[0] == '-');
    }
    *ret = found == wanted;
    return OK;
}

/* Texts between `marks` stars on both sides, on one line, with something but blanks in them. */
static int64_t count_highlights(Slice text, size_t marks)
{
    int64_t found = 0;
    for (size_t i = 0; i + marks <= text.length;) {
        Slice star = slice_part(SLICE_OF("**"), 0, marks);
        if (!slice_starts_with(slice_part(text, i, text.length), star)) {
            i++;
            continue;
        }
        size_t end = i + marks;
        while (end < text.length && text.data[end] != '*' && text.data[end] != '\n')
            end++;
        bool closed = slice_starts_with(slice_part(text, end, text.length), star);
        if (closed) {
            found += slice_trim(slice_part(text, i + marks, end)).length > 0;
            i = end + marks;
        } else {
            i++;
        }
    }
    return found;
}

static Status check_highlights(const char *name, const cJSON *arguments, Slice response, bool *ret,
                               Error *err)
{
    int64_t wanted = 0;
    TRY(json_int(arguments, "num_highlights", name, 0, INT64_MAX, &wanted, err));
    *ret = count_highlights(response, 1) + count_highlights(response, 2) >= wanted;
    return OK;
}

static Status check_sections(const char *name, const cJSON *arguments, Slice response, bool *ret,
                             Error *err)
{
    const char *splitter = NULL;
    int64_t wanted = 0, found = 0;
    TRY(json_string(arguments, "section_spliter", name, &splitter, err));
    TRY(json_int(arguments, "num_sections", name, 0, INT64_MAX, &wanted, err));
    Slice word = slice_trim(slice_from(splitter));
    if (word.length == 0) return error_set(err, ERR_DATA, "%s: section_spliter is empty", name);
    for (ssize_t at; (at = slice_find(response, word)) >= 0;) {
        response = slice_part(response, (size_t)at + word.length, response.length);
        size_t digit = response.length > 0 && byte_is_space(response.data[0]) ? 1 : 0;
        found += digit < response.length && byte_is_digit(response.data[digit]);
    }
    *ret = found >= wanted;
    return OK;
}

/* The parts between occurrences of `divider`. False when one but the first and last is blank;
 * *ret_count is how many are not. */
static bool count_parts(Slice text, Slice divider, int64_t *ret_count)
{
    int64_t count = 0;
    for (bool first = true;; first = false) {
        ssize_t at = slice_find(text, divider);
        bool last = at < 0;
        Slice part = slice_trim(last ? text : slice_part(text, 0, (size_t)at));
        if (part.length == 0 && !first && !last) return false;
        count += part.length > 0;
        if (last) break;
        text = slice_part(text, (size_t)at + divider.length, text.length);
    }
    *ret_count = count;
    return true;
}

static Status check_paragraphs(const char *name, const cJSON *arguments, Slice response, bool *ret,
                               Error *err)
{
    int64_t wanted = 0, found = 0;
    TRY(json_int(arguments, "num_paragraphs", name, 0, INT64_MAX, &wanted, err));
    *ret = count_parts(response, SLICE_OF("***"), &found) && found == wanted;
    return OK;
}

/* The first word of a paragraph, without quotes before it and from punctuation on. */
static Slice first_word(Slice paragraph)
{
    paragraph = slice_trim(paragraph);
    size_t start = 0, end;
    while (start < paragraph.length && strchr("'\"", paragraph.data[start]) != NULL)
        start++;
    end = start;
    while (end < paragraph.length && !byte_is_space(paragraph.data[end]) &&
           strchr(".,?!'\"", paragraph.data[end]) == NULL)
        end++;
    return slice_part(paragraph, start, end);
}

static Status check_nth_paragraph(const char *name, const cJSON *arguments, Slice response,
                                  bool *ret, Error *err)
{
    const char *word = NULL;
    int64_t wanted = 0, nth = 0, found = 0, number = 0;
    TRY(json_string(arguments, "first_word", name, &word, err));
    TRY(json_int(arguments, "num_paragraphs", name, 0, INT64_MAX, &wanted, err));
    TRY(json_int(arguments, "nth_paragraph", name, 1, INT64_MAX, &nth, err));
    Slice divider = SLICE_OF("\n\n"), text = response, named = {0};
    for (bool last = false; !last;) {
        ssize_t at = slice_find(text, divider);
        last = at < 0;
        Slice part = last ? text : slice_part(text, 0, (size_t)at);
        if (++number == nth) named = part;
        found += slice_trim(part).length > 0;
        if (!last) text = slice_part(text, (size_t)at + divider.length, text.length);
    }
    *ret = found == wanted && nth <= found && slice_trim(named).length > 0 &&
           slice_equal_fold(first_word(named), slice_from(word));
    return OK;
}

static Status check_postscript(const char *name, const cJSON *arguments, Slice response, bool *ret,
                               Error *err)
{
    const char *marker = NULL;
    TRY(json_string(arguments, "postscript_marker", name, &marker, err));
    Slice text = slice_trim(slice_from(marker));
    if (text.length == 0) return error_set(err, ERR_DATA, "%s: postscript_marker is empty", name);
    *ret = slice_find_fold(response, text) >= 0;
    if (slice_equal(text, SLICE_OF("P.S.")))
        *ret = *ret || slice_find_fold(response, SLICE_OF("p. s.")) >= 0;
    return OK;
}

static Status check_title(const char *name, const cJSON *arguments, Slice response, bool *ret,
                          Error *err)
{
    (void)name;
    (void)arguments;
    (void)err;
    *ret = false;
    size_t at = 0;
    for (Slice line; !*ret && next_line(response, &at, &line);) {
        ssize_t open = slice_find(line, SLICE_OF("<<"));
        ssize_t close = slice_find_last(line, SLICE_OF(">>"));
        if (open < 0 || close < open + 2) continue;
        Slice title = slice_part(line, (size_t)open, (size_t)close);
        while (title.length > 0 && title.data[0] == '<')
            title = slice_part(title, 1, title.length);
        while (title.length > 0 && title.data[title.length - 1] == '>')
            title = slice_part(title, 0, title.length - 1);
        *ret = slice_trim(title).length > 0;
    }
    return OK;
}

/* Control characters inside of strings, which RFC 8259 refuses and cJSON takes. */
static bool has_raw_controls(Slice json)
{
    bool inside = false;
    for (size_t i = 0; i < json.length; i++) {
        if (json.data[i] == '"') inside = !inside;
        if (inside && json.data[i] == '\\') i++;
        if (inside && i < json.length && (unsigned char)json.data[i] < 0x20) return true;
    }
    return false;
}

static Status check_json(const char *name, const cJSON *arguments, Slice response, bool *ret,
                         Error *err)
{
    (void)arguments;
    (void)err;
    Slice text = slice_trim(response);
    static const char *const fences[] = {"```json", "```Json", "```JSON", "```"};
    for (size_t i = 0; i < sizeof fences / sizeof fences[0]; i++) {
        Slice fence = slice_from(fences[i]);
        if (!slice_starts_with(text, fence)) continue;
        text = slice_part(text, fence.length, text.length);
        break;
    }
    if (slice_ends_with(text, SLICE_OF("```"))) text = slice_part(text, 0, text.length - 3);
    text = slice_trim(text);
    cJSON *json = NULL;
    Error ignored;
    *ret = text.length > 0 && !has_raw_controls(text) &&
           json_parse(text.data, text.length, name, &json, &ignored) == OK;
    cJSON_Delete(json);
    return OK;
}

static Status check_constrained(const char *name, const cJSON *arguments, Slice response, bool *ret,
                                Error *err)
{
    (void)name;
    (void)arguments;
    (void)err;
    *ret = slice_find(response, SLICE_OF("My answer is yes.")) >= 0 ||
           slice_find(response, SLICE_OF("My answer is no.")) >= 0 ||
           slice_find(response, SLICE_OF("My answer is maybe.")) >= 0;
    return OK;
}

static Status check_end(const char *name, const cJSON *arguments, Slice response, bool *ret,
                        Error *err)
{
    const char *phrase = NULL;
    TRY(json_string(arguments, "end_phrase", name, &phrase, err));
    Slice wanted = slice_trim(slice_from(phrase)), text = slice_trim(response);
    while (text.length > 0 && text.data[text.length - 1] == '"')
        text = slice_part(text, 0, text.length - 1);
    *ret = text.length >= wanted.length &&
           slice_equal_fold(slice_part(text, text.length - wanted.length, text.length), wanted);
    return OK;
}

static Status check_quotation(const char *name, const cJSON *arguments, Slice response, bool *ret,
                              Error *err)
{
    (void)name;
    (void)arguments;
    (void)err;
    Slice text = slice_trim(response);
    *ret = text.length > 1 && text.data[0] == '"' && text.data[text.length - 1] == '"';
    return OK;
}

static Status check_repeat(const char *name, const cJSON *arguments, Slice response, bool *ret,
                           Error *err)
{
    const char *prompt = NULL;
    TRY(json_string(arguments, "prompt_to_repeat", name, &prompt, err));
    Slice wanted = slice_trim(slice_from(prompt)), text = slice_trim(response);
    *ret = slice_equal_fold(slice_part(text, 0, wanted.length), wanted);
    return OK;
}

static Status check_two_responses(const char *name, const cJSON *arguments, Slice response,
                                  bool *ret, Error *err)
{
    (void)name;
    (void)arguments;
    (void)err;
    Slice divider = SLICE_OF("******"), text = response, first = {0}, second = {0};
    int64_t found = 0;
    *ret = count_parts(response, divider, &found) && found == 2;
    if (!*ret) return OK;
    for (bool last = false; !last;) {
        ssize_t at = slice_find(text, divider);
        last = at < 0;
        Slice part = slice_trim(last ? text : slice_part(text, 0, (size_t)at));
        if (part.length > 0 && first.length == 0)
            first = part;
        else if (part.length > 0)
            second = part;
        if (!last) text = slice_part(text, (size_t)at + divider.length, text.length);
    }
    *ret = !slice_equal(first, second);
    return OK;
}

static const Check checks[] = {
    {"keywords:existence", check_existence},
    {"keywords:forbidden_words", check_forbidden},
    {"keywords:frequency", check_frequency},
    {"keywords:letter_frequency", check_letters},
    {"length_constraints:number_words", check_words},
    {"length_constraints:number_paragraphs", check_paragraphs},
    {"length_constraints:nth_paragraph_first_word", check_nth_paragraph},
    {"detectable_content:number_placeholders", check_placeholders},
    {"detectable_content:postscript", check_postscript},
    {"detectable_format:number_bullet_lists", check_bullets},
    {"detectable_format:number_highlighted_sections", check_highlights},
    {"detectable_format:multiple_sections", check_sections},
    {"detectable_format:title", check_title},
    {"detectable_format:json_format", check_json},
    {"detectable_format:constrained_response", check_constrained},
    {"combination:repeat_prompt", check_repeat},
    {"combination:two_responses", check_two_responses},
    {"startend:end_checker", check_end},
    {"startend:quotation", check_quotation},
    {"change_case:capital_word_frequency", check_capital_words},
    {"change_case:english_capital", check_case},
    {"change_case:english_lowercase", check_case},
    {"punctuation:no_comma", check_no_comma},
};
#define CHECK_COUNT (sizeof checks / sizeof checks[0])

const char *instruction_name(int index)
{
    return index >= 0 && (size_t)index < CHECK_COUNT ? checks[index].name : NULL;
}

Status instruction_check(const char *name, const cJSON *arguments, Slice response, bool *ret,
                         Error *err)
{
    const char *names[CHECK_COUNT];
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        names[i] = checks[i].name;
        if (strcmp(checks[i].name, name) == 0)
            return checks[i].run(name, arguments, response, ret, err);
    }
    error_set(err, ERR_UNSUPPORTED, "there is no instruction %s", QUOTED(name));
    const char *nearest = str_nearest(name, names, CHECK_COUNT);
    if (nearest != NULL) error_append(err, "did you mean %s?", nearest);
    return ERR_UNSUPPORTED;
}
