/* Matcher: what Split, Digits, Punctuation, Replace and their like look for in a text: a regular
 * expression, a fixed string, or single characters of a kind. Const once loaded. */
#ifndef TROUPE_TEXT_TOKENIZER_MATCHER_H
#define TROUPE_TEXT_TOKENIZER_MATCHER_H

#include <cjson/cJSON.h>

#include "text/tokenizer/regex.h"
#include "text/tokenizer/splitters.h"

typedef enum {
    MATCH_REGEX,
    MATCH_LITERAL,
    MATCH_CATEGORIES,  /* one character of some general categories */
    MATCH_PUNCTUATION, /* one character of punctuation */
    MATCH_SPACE,       /* one character of white space */
} MatcherKind;

typedef struct Matcher {
    MatcherKind kind;
    const UnicodeTable *table; /* borrowed */
    pcre2_code *regex;
    Splitter splitter; /* finds what `regex` would, faster; NULL if there is none */
    char *source;      /* the pattern as the file has it, or the fixed string */
    uint32_t source_length;
    uint32_t categories;
} Matcher;

/* A thread's memory for regular expressions. Zero-initialise it. */
typedef struct MatchScratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} MatchScratch;

void match_scratch_free(MatchScratch *scratch);

Status matcher_load_regex(Matcher *matcher, const char *pattern, const UnicodeTable *table,
                          const char *where, Error *err);
void matcher_load_literal(Matcher *matcher, const char *text, const UnicodeTable *table);
/* {"Regex": ...} or {"String": ...} */
Status matcher_load_pattern(Matcher *matcher, const cJSON *pattern, const UnicodeTable *table,
                            const char *where, Error *err);
void matcher_free(Matcher *matcher);

/* Reads a member that must be a string of one character. */
Status json_character(const cJSON *json, const char *key, const char *where, char ret[5],
                      Error *err);

typedef struct MatchRange {
    uint32_t begin, end;
} MatchRange;

/* Walks over the matches in one text, from left to right. Set matcher, scratch, text, length and
 * last_end = UINT32_MAX. */
typedef struct MatchWalk {
    const Matcher *matcher;
    MatchScratch *scratch;
    const char *text;
    uint32_t length;
    uint32_t at;       /* where to search next */
    uint32_t last_end; /* end of the match before, or UINT32_MAX */
} MatchWalk;

/* The next match; *ret_found tells whether there is one. Fails when a regular expression takes more
 * steps than it may. */
Status match_next(MatchWalk *walk, MatchRange *ret, bool *ret_found, Error *err);

#endif
