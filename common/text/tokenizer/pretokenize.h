/* PreTokenizer: the stages that cut text into the words that the model encodes one by one. A stage
 * may also change the text (a space before it, spaces as U+2581, bytes spelled as characters).
 * Const once loaded; each thread brings its own PreTokenizeScratch. */
#ifndef TROUPE_TEXT_TOKENIZER_PRETOKENIZE_H
#define TROUPE_TEXT_TOKENIZER_PRETOKENIZE_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "text/aligned_text.h"
#include "text/tokenizer/matcher.h"

#define PRETOKENIZE_STAGES_MAX 32

/* What to do with a match of the pattern, as the `tokenizers` package names it. */
typedef enum {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS,
} SplitBehavior;

typedef enum { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } PrependScheme;

typedef enum {
    STAGE_SPLIT,
    STAGE_PREFIX_SPACE, /* a space before a piece that does not begin with one */
    STAGE_METASPACE,    /* spaces as another character, and perhaps one before the piece */
    STAGE_BYTES,        /* every byte as its byte-level character */
} StageKind;

typedef struct Stage {
    StageKind kind;
    Matcher matcher;
    SplitBehavior behavior;
    bool invert;
    char replacement[5]; /* STAGE_METASPACE: one character, NUL-terminated */
    PrependScheme prepend;
} Stage;

typedef struct PreTokenizer {
    const UnicodeTable *table; /* borrowed */
    Stage stage[PRETOKENIZE_STAGES_MAX];
    int count;
    bool changes_text; /* some stage gives words that are not parts of its input */
} PreTokenizer;

typedef struct PreTokenizeScratch {
    AlignedText text[PRETOKENIZE_STAGES_MAX]; /* of the stages that change text */
    MatchScratch match;
} PreTokenizeScratch;

void pretokenize_scratch_free(PreTokenizeScratch *scratch);

/* Loads the "pre_tokenizer" value (NULL or JSON null: no stage). */
Status pretokenizer_load(PreTokenizer *pretokenizer, const cJSON *json, const UnicodeTable *table,
                         const char *where, Error *err);
void pretokenizer_free(PreTokenizer *pretokenizer);

/* Whether the last stage, and no other, spells bytes as characters; the caller may drop it then,
 * and encode the words' bytes as they are. */
bool pretokenizer_ends_in_bytes(const PreTokenizer *pretokenizer);
void pretokenizer_drop_bytes(PreTokenizer *pretokenizer);

/* Called with each word, in order; the view is valid during the call. */
typedef Status (*WordSink)(void *context, const TextView *word, Error *err);

Status pretokenize(const PreTokenizer *pretokenizer, PreTokenizeScratch *scratch,
                   const TextView *text, WordSink sink, void *context, Error *err);

#endif
