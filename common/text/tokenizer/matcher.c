#include "text/tokenizer/matcher.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"

/* Generous for text of any length that a sane pattern splits, and an end for one that explodes. */
#define JIT_STACK_BYTES   (32u << 10)
#define JIT_STACK_MAX     (16u << 20)
#define MATCH_LIMIT       50000000u
#define MATCH_HEAP_KBYTES (256u << 10)

Status matcher_load_regex(Matcher *matcher, const char *pattern, const UnicodeTable *table,
                          const char *where, Error *err)
{
    *matcher = (Matcher){.kind = MATCH_REGEX, .table = table};
    TRY(regex_compile(pattern, table, where, &matcher->regex, err));
    matcher->source = mem_strdup(pattern);
    matcher->splitter = splitter_find(pattern);
    return OK;
}

void matcher_load_literal(Matcher *matcher, const char *text, const UnicodeTable *table)
{
    *matcher = (Matcher){.kind = MATCH_LITERAL, .table = table};
    matcher->source = mem_strdup(text);
    matcher->source_length = (uint32_t)strlen(text);
}

Status matcher_load_pattern(Matcher *matcher, const cJSON *pattern, const UnicodeTable *table,
                            const char *where, Error *err)
{
    const cJSON *regex = cJSON_GetObjectItemCaseSensitive(pattern, "Regex");
    const cJSON *literal = cJSON_GetObjectItemCaseSensitive(pattern, "String");
    if (cJSON_IsString(regex))
        return matcher_load_regex(matcher, regex->valuestring, table, where, err);
    if (!cJSON_IsString(literal) || literal->valuestring[0] == '\0')
        return error_set(
            err, ERR_DATA,
            "%s: pattern is neither {\"Regex\": ...} nor {\"String\": ...} with a text", where);
    matcher_load_literal(matcher, literal->valuestring, table);
    return OK;
}

void matcher_free(Matcher *matcher)
{
    pcre2_code_free(matcher->regex);
    free(matcher->source);
    *matcher = (Matcher){0};
}

Status json_character(const cJSON *json, const char *key, const char *where, char ret[5],
                      Error *err)
{
    const char *text = NULL;
    TRY(json_string(json, key, where, &text, err));
    uint32_t c;
    size_t length = strlen(text);
    if (length > 4 || length == 0 || (size_t)utf8_decode(text, length, &c) != length)
        return error_set(err, ERR_DATA, "%s: %s is \"%.100s\", expected one character", where, key,
                         text);
    memcpy(ret, text, length + 1);
    return OK;
}

void match_scratch_free(MatchScratch *scratch)
{
    pcre2_match_data_free(scratch->data);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    *scratch = (MatchScratch){0};
}

static void prepare_scratch(MatchScratch *scratch)
{
    if (scratch->data != NULL) return;
    scratch->data = pcre2_match_data_create(1, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    scratch->stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_MAX, NULL);
    CHECK(scratch->data != NULL && scratch->context != NULL);
    pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    pcre2_set_match_limit(scratch->context, MATCH_LIMIT);
    pcre2_set_heap_limit(scratch->context, MATCH_HEAP_KBYTES);
}

static Status search(MatchWalk *walk, MatchRange *ret, bool *ret_found, Error *err)
{
    MatchScratch *scratch = walk->scratch;
    prepare_scratch(scratch);
    PCRE2_SPTR text = (PCRE2_SPTR)walk->text;
    const pcre2_code *regex = walk->matcher->regex;
    int code = pcre2_match(regex, text, walk->length, walk->at, PCRE2_NO_UTF_CHECK, scratch->data,
                           scratch->context);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT)
        code = pcre2_match(regex, text, walk->length, walk->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           scratch->data, scratch->context);
    *ret_found = code >= 0;
    if (code == PCRE2_ERROR_NOMATCH) return OK;
    if (code < 0) {
        PCRE2_UCHAR reason[256];
        pcre2_get_error_message(code, reason, sizeof reason);
        return error_set(err, ERR_DATA, "the regular expression \"%.600s\" gave up on the text: %s",
                         walk->matcher->source, (const char *)reason);
    }
    const PCRE2_SIZE *offset = pcre2_get_ovector_pointer(scratch->data);
    *ret = (MatchRange){(uint32_t)offset[0], (uint32_t)offset[1]};
    return OK;
}

/* As the reference's iterator: an empty match right behind another match is passed over. */
static Status next_regex(MatchWalk *walk, MatchRange *ret, bool *ret_found, Error *err)
{
    for (;;) {
        *ret_found = false;
        if (walk->at > walk->length) return OK;
        MatchRange found = {0, 0};
        TRY(search(walk, &found, ret_found, err));
        if (!*ret_found) return OK;
        if (found.begin == found.end && found.end == walk->last_end) {
            uint32_t size = 1;
            if (walk->at < walk->length) utf8_next(walk->text + walk->at, &size);
            walk->at += size;
            continue;
        }
        walk->at = walk->last_end = found.end;
        *ret = found;
        return OK;
    }
}

static bool is_match(const Matcher *matcher, uint32_t c)
{
    switch (matcher->kind) {
    case MATCH_CATEGORIES:
        return unicode_is(matcher->table, c, matcher->categories);
    case MATCH_PUNCTUATION:
        return unicode_is_punctuation(matcher->table, c);
    case MATCH_SPACE:
        return unicode_is_space(matcher->table, c);
    case MATCH_REGEX:
    case MATCH_LITERAL:
        break;
    }
    CHECK(false);
}

static bool next_character(MatchWalk *walk, MatchRange *ret)
{
    while (walk->at < walk->length) {
        uint32_t size, begin = walk->at;
        uint32_t c = utf8_next(walk->text + begin, &size);
        walk->at += size;
        if (is_match(walk->matcher, c)) {
            *ret = (MatchRange){begin, begin + size};
            return true;
        }
    }
    return false;
}

static bool next_literal(MatchWalk *walk, MatchRange *ret)
{
    const Matcher *matcher = walk->matcher;
    const char *found = memmem(walk->text + walk->at, walk->length - walk->at, matcher->source,
                               matcher->source_length);
    if (found == NULL) return false;
    uint32_t begin = (uint32_t)(found - walk->text);
    *ret = (MatchRange){begin, begin + matcher->source_length};
    walk->at = ret->end;
    return true;
}

static bool next_split(MatchWalk *walk, MatchRange *ret)
{
    if (walk->at >= walk->length) return false;
    SplitText text = {walk->text, walk->length, walk->matcher->table};
    ret->end = walk->matcher->splitter(&text, walk->at, &ret->begin);
    walk->at = ret->end;
    return ret->end != 0;
}

Status match_next(MatchWalk *walk, MatchRange *ret, bool *ret_found, Error *err)
{
    if (walk->matcher->splitter != NULL) {
        *ret_found = next_split(walk, ret);
        return OK;
    }
    if (walk->matcher->kind == MATCH_REGEX) return next_regex(walk, ret, ret_found, err);
    *ret_found =
        walk->matcher->kind == MATCH_LITERAL ? next_literal(walk, ret) : next_character(walk, ret);
    return OK;
}
