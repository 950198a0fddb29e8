/* PreTokenizer: the stages that cut text into the words that the model encodes one by one. A stage
 * may also change the text (a space before it, spaces as U+2581, bytes spelled as characters).
 * Const once loaded; each thread brings its own PreTokenizeScratch. */
#ifndef TROUPE_TEXT_PRETOKENIZE_H
#define TROUPE_TEXT_PRETOKENIZE_H

#include <cjson/cJSON.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "text/aligned_text.h"
#include "text/unicode_table.h"

#define PRETOKENIZE_STAGES_MAX 32

/* What to do with a match of the pattern, as the `tokenizers` package names it. */
typedef enum {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS,
} SplitBehavior;

typedef enum {
    MATCH_REGEX,      /* a regular expression */
    MATCH_CATEGORIES, /* one character of some categories */
    MATCH_LITERAL,    /* a fixed string */
} MatcherKind;

typedef struct Matcher {
    MatcherKind kind;
    pcre2_code *regex;
    char *source; /* the pattern as the file has it, for messages */
    uint32_t categories;
    char *literal;
    uint32_t literal_length;
} Matcher;

typedef enum {
    STAGE_SPLIT,
    STAGE_PREFIX_SPACE, /* a space before a piece that does not begin with one */
    STAGE_BYTES,        /* every byte as its byte-level character */
} StageKind;

typedef struct Stage {
    StageKind kind;
    Matcher matcher;
    SplitBehavior behavior;
    bool invert;
} Stage;

typedef struct PreTokenizer {
    const UnicodeTable *table; /* borrowed */
    Stage stage[PRETOKENIZE_STAGES_MAX];
    int count;
} PreTokenizer;

typedef struct PreTokenizeScratch {
    AlignedText text[PRETOKENIZE_STAGES_MAX]; /* of the stages that change text */
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} PreTokenizeScratch;

void pretokenize_scratch_free(PreTokenizeScratch *scratch);

/* Loads the "pre_tokenizer" value (NULL or JSON null: no stage). */
Status pretokenizer_load(PreTokenizer *pretokenizer, const cJSON *json, const UnicodeTable *table,
                         const char *where, Error *err);
void pretokenizer_free(PreTokenizer *pretokenizer);

/* True if the last stage, and no other, spells bytes as characters: then the caller may drop it
 * (count--) and encode the words' bytes as they are. */
bool pretokenizer_ends_in_bytes(const PreTokenizer *pretokenizer);

/* Called with each word, in order; the view is valid during the call. */
typedef Status (*WordSink)(void *context, const TextView *word, Error *err);

Status pretokenize(const PreTokenizer *pretokenizer, PreTokenizeScratch *scratch,
                   const TextView *text, WordSink sink, void *context, Error *err);

/* Compiles a regular expression written for Oniguruma. */
Status regex_compile(const char *pattern, const char *where, pcre2_code **ret, Error *err);

#endif
