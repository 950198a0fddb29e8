#include "text/tokenizer/pretokenize.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "text/tokenizer/bpe.h"

/* ---- loading ---- */

static Status stage_add(PreTokenizer *pretokenizer, const char *where, Stage **ret, Error *err)
{
    if (pretokenizer->count == PRETOKENIZE_STAGES_MAX)
        return error_set(err, ERR_UNSUPPORTED, "%s: more than %d pre-tokenizer stages", where,
                         PRETOKENIZE_STAGES_MAX);
    *ret = &pretokenizer->stage[pretokenizer->count++];
    **ret = (Stage){0};
    return OK;
}

static Status load_behavior(const cJSON *json, const char *where, SplitBehavior *ret, Error *err)
{
    static const struct {
        const char *name;
        SplitBehavior behavior;
    } table[] = {
        {"Removed", SPLIT_REMOVED},
        {"Isolated", SPLIT_ISOLATED},
        {"MergedWithPrevious", SPLIT_MERGED_WITH_PREVIOUS},
        {"MergedWithNext", SPLIT_MERGED_WITH_NEXT},
        {"Contiguous", SPLIT_CONTIGUOUS},
    };
    const char *name = NULL;
    TRY(json_string(json, "behavior", where, &name, err));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].name, name) == 0) {
            *ret = table[i].behavior;
            return OK;
        }
    }
    return error_set(
        err, ERR_UNSUPPORTED,
        "%s: behavior \"%.100s\" is unknown; known: Removed, Isolated, MergedWithPrevious, "
        "MergedWithNext, Contiguous",
        where, name);
}

static Status load_split(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                         Error *err)
{
    Stage *stage = NULL;
    TRY(stage_add(pretokenizer, where, &stage, err));
    TRY(matcher_load_pattern(&stage->matcher, cJSON_GetObjectItemCaseSensitive(json, "pattern"),
                             pretokenizer->table, where, err));
    TRY(load_behavior(json, where, &stage->behavior, err));
    return json_bool(json, "invert", where, &stage->invert, err);
}

static Status load_metaspace(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                             Error *err)
{
    Stage *stage = NULL;
    bool prefix_space = true, split = true;
    const char *scheme = "always";
    TRY(stage_add(pretokenizer, where, &stage, err));
    stage->kind = STAGE_METASPACE;
    TRY(json_character(json, "replacement", where, stage->replacement, err));
    TRY(json_bool_or(json, "add_prefix_space", where, &prefix_space, err));
    TRY(json_bool_or(json, "split", where, &split, err));
    TRY(json_string_or(json, "prepend_scheme", where, &scheme, err));
    if (strcmp(scheme, "always") == 0)
        stage->prepend = PREPEND_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        stage->prepend = PREPEND_FIRST;
    else if (strcmp(scheme, "never") == 0)
        stage->prepend = PREPEND_NEVER;
    else
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: prepend_scheme \"%.100s\" is unknown; known: always, first, never",
                         where, scheme);
    if (!prefix_space) {
        if (cJSON_HasObjectItem(json, "prepend_scheme") && stage->prepend != PREPEND_NEVER)
            return error_set(err, ERR_DATA,
                             "%s: add_prefix_space is false, but prepend_scheme is \"%s\"", where,
                             scheme);
        stage->prepend = PREPEND_NEVER;
    }
    if (!split) return OK;
    const char *replacement = stage->replacement;
    TRY(stage_add(pretokenizer, where, &stage, err));
    matcher_load_literal(&stage->matcher, replacement, pretokenizer->table);
    stage->behavior = SPLIT_MERGED_WITH_NEXT;
    return OK;
}

static Status load_delimiter(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                             Error *err)
{
    Stage *stage = NULL;
    char delimiter[5];
    TRY(json_character(json, "delimiter", where, delimiter, err));
    TRY(stage_add(pretokenizer, where, &stage, err));
    matcher_load_literal(&stage->matcher, delimiter, pretokenizer->table);
    stage->behavior = SPLIT_REMOVED;
    return OK;
}

static Status load_white_space(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                               Error *err)
{
    (void)json;
    Stage *stage = NULL;
    TRY(stage_add(pretokenizer, where, &stage, err));
    stage->matcher = (Matcher){.kind = MATCH_SPACE, .table = pretokenizer->table};
    stage->behavior = SPLIT_REMOVED;
    return OK;
}

static Status load_punctuation(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                               Error *err)
{
    Stage *stage = NULL;
    TRY(stage_add(pretokenizer, where, &stage, err));
    stage->matcher = (Matcher){.kind = MATCH_PUNCTUATION, .table = pretokenizer->table};
    stage->behavior = SPLIT_ISOLATED;
    if (!cJSON_HasObjectItem(json, "behavior")) return OK;
    return load_behavior(json, where, &stage->behavior, err);
}

static Status load_byte_level(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                              Error *err)
{
    bool prefix_space = true, use_regex = true;
    TRY(json_bool(json, "add_prefix_space", where, &prefix_space, err));
    TRY(json_bool_or(json, "use_regex", where, &use_regex, err));
    Stage *stage = NULL;
    if (prefix_space) {
        TRY(stage_add(pretokenizer, where, &stage, err));
        stage->kind = STAGE_PREFIX_SPACE;
    }
    if (use_regex) {
        TRY(stage_add(pretokenizer, where, &stage, err));
        stage->behavior = SPLIT_ISOLATED;
        TRY(matcher_load_regex(&stage->matcher, GPT2_PATTERN, pretokenizer->table, where, err));
    }
    TRY(stage_add(pretokenizer, where, &stage, err));
    stage->kind = STAGE_BYTES;
    return OK;
}

static Status load_digits(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                          Error *err)
{
    bool individual = false;
    TRY(json_bool(json, "individual_digits", where, &individual, err));
    Stage *stage = NULL;
    TRY(stage_add(pretokenizer, where, &stage, err));
    stage->matcher = (Matcher){.kind = MATCH_CATEGORIES,
                               .table = pretokenizer->table,
                               .categories = CATEGORIES_NUMBER | 1u << CATEGORY_NEW_NUMBER};
    stage->behavior = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
    return OK;
}

static Status load_value(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                         Error *err);

static Status load_sequence(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                            Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "pretokenizers");
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "%s: pretokenizers is %s, expected a list", where,
                         json_type_name(list));
    const cJSON *item;
    cJSON_ArrayForEach(item, list) TRY(load_value(pretokenizer, item, where, err));
    return OK;
}

static Status load_value(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                         Error *err)
{
    static const struct {
        const char *type;
        Status (*load)(PreTokenizer *, const cJSON *, const char *, Error *);
    } table[] = {
        {"Split", load_split},
        {"ByteLevel", load_byte_level},
        {"Digits", load_digits},
        {"Punctuation", load_punctuation},
        {"Metaspace", load_metaspace},
        {"WhitespaceSplit", load_white_space},
        {"CharDelimiterSplit", load_delimiter},
        {"Sequence", load_sequence},
    };
    const char *type = NULL;
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s is %s, expected an object", where,
                         json_type_name(json));
    TRY(json_string(json, "type", where, &type, err));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].type, type) == 0) return table[i].load(pretokenizer, json, where, err);
    return error_set(
        err, ERR_UNSUPPORTED,
        "%s: pre-tokenizer \"%.100s\" is unknown; known: Split, ByteLevel, Digits, Punctuation, "
        "Metaspace, WhitespaceSplit, CharDelimiterSplit, Sequence",
        where, type);
}

static void note_changes(PreTokenizer *pretokenizer)
{
    pretokenizer->changes_text = false;
    for (int i = 0; i < pretokenizer->count; i++)
        if (pretokenizer->stage[i].kind != STAGE_SPLIT) pretokenizer->changes_text = true;
}

Status pretokenizer_load(PreTokenizer *pretokenizer, const cJSON *json, const UnicodeTable *table,
                         const char *where, Error *err)
{
    *pretokenizer = (PreTokenizer){.table = table};
    if (json == NULL || cJSON_IsNull(json)) return OK;
    TRY(load_value(pretokenizer, json, where, err));
    note_changes(pretokenizer);
    return OK;
}

void pretokenizer_free(PreTokenizer *pretokenizer)
{
    for (int i = 0; i < PRETOKENIZE_STAGES_MAX; i++)
        matcher_free(&pretokenizer->stage[i].matcher);
    *pretokenizer = (PreTokenizer){0};
}

void pretokenizer_drop_bytes(PreTokenizer *pretokenizer)
{
    CHECK(pretokenizer_ends_in_bytes(pretokenizer));
    pretokenizer->count--;
    note_changes(pretokenizer);
}

bool pretokenizer_ends_in_bytes(const PreTokenizer *pretokenizer)
{
    int bytes = 0;
    for (int i = 0; i < pretokenizer->count; i++)
        bytes += pretokenizer->stage[i].kind == STAGE_BYTES;
    return bytes == 1 && pretokenizer->stage[pretokenizer->count - 1].kind == STAGE_BYTES;
}

void pretokenize_scratch_free(PreTokenizeScratch *scratch)
{
    for (int i = 0; i < PRETOKENIZE_STAGES_MAX; i++)
        aligned_text_free(&scratch->text[i]);
    match_scratch_free(&scratch->match);
}

/* ---- running the stages ---- */

typedef struct StageRun {
    const PreTokenizer *pretokenizer;
    PreTokenizeScratch *scratch;
    WordSink sink;
    void *context;
} StageRun;

static Status run_stage(const StageRun *run, int index, const TextView *text, Error *err);

/* Joins stretches (matches and what lies between them) into pieces as the behaviour says. A piece
 * is held back until nothing can be added to it. */
typedef struct PieceJoiner {
    const StageRun *run;
    int next_stage;
    const TextView *text;
    SplitBehavior behavior;
    bool holds, held_is_match; /* a piece waits in `held`; its last stretch was a match */
    bool last_was_match;
    MatchRange held;
} PieceJoiner;

static Status joiner_flush(PieceJoiner *joiner, Error *err)
{
    if (!joiner->holds) return OK;
    joiner->holds = false;
    if (joiner->held.begin == joiner->held.end) return OK;
    TextView piece = text_view_slice(joiner->text, joiner->held.begin, joiner->held.end);
    return run_stage(joiner->run, joiner->next_stage, &piece, err);
}

static Status joiner_add(PieceJoiner *joiner, MatchRange stretch, bool is_match, Error *err)
{
    bool extend = false;
    switch (joiner->behavior) {
    case SPLIT_REMOVED:
    case SPLIT_ISOLATED:
        break;
    case SPLIT_CONTIGUOUS:
        extend = is_match == joiner->last_was_match;
        break;
    case SPLIT_MERGED_WITH_PREVIOUS:
        extend = is_match && !joiner->last_was_match;
        break;
    case SPLIT_MERGED_WITH_NEXT:
        extend = !is_match && joiner->last_was_match;
        break;
    }
    joiner->last_was_match = is_match;
    if (extend && joiner->holds) {
        joiner->held.end = stretch.end;
        return OK;
    }
    TRY(joiner_flush(joiner, err));
    if (joiner->behavior == SPLIT_REMOVED && is_match) return OK;
    joiner->holds = true;
    joiner->held = stretch;
    return OK;
}

/* The common case, a hand-written splitter that isolates its matches: nothing to join. */
static Status run_isolated(const StageRun *run, int index, const TextView *text, Error *err)
{
    const Matcher *matcher = &run->pretokenizer->stage[index].matcher;
    SplitText split = {text->data, text->length, matcher->table};
    for (uint32_t done = 0, begin, end; done < text->length; done = end) {
        end = matcher->splitter(&split, done, &begin);
        if (end == 0) begin = end = text->length;
        if (begin > done) {
            TextView gap = text_view_slice(text, done, begin);
            TRY(run_stage(run, index + 1, &gap, err));
        }
        if (end == begin) break;
        TextView word = text_view_slice(text, begin, end);
        TRY(run_stage(run, index + 1, &word, err));
    }
    return OK;
}

static Status run_split(const StageRun *run, int index, const TextView *text, Error *err)
{
    const Stage *stage = &run->pretokenizer->stage[index];
    if (stage->matcher.splitter != NULL && stage->behavior == SPLIT_ISOLATED)
        return run_isolated(run, index, text, err);
    PieceJoiner joiner = {
        .run = run, .next_stage = index + 1, .text = text, .behavior = stage->behavior};
    MatchWalk walk = {.matcher = &stage->matcher,
                      .scratch = &run->scratch->match,
                      .text = text->data,
                      .length = text->length,
                      .last_end = UINT32_MAX};
    uint32_t end = 0;
    for (;;) {
        MatchRange match = {0, 0};
        bool found = false;
        TRY(match_next(&walk, &match, &found, err));
        if (!found) break;
        if (end != match.begin)
            TRY(joiner_add(&joiner, (MatchRange){end, match.begin}, stage->invert, err));
        TRY(joiner_add(&joiner, match, !stage->invert, err));
        end = match.end;
    }
    if (end != text->length)
        TRY(joiner_add(&joiner, (MatchRange){end, text->length}, stage->invert, err));
    return joiner_flush(&joiner, err);
}

static Status run_changed(const StageRun *run, int index, AlignedText *text, Error *err)
{
    if (text->overflow)
        return error_set(err, ERR_DATA, "the pre-tokenizer makes more than %zu bytes of a text",
                         text->length_max);
    TextView view = aligned_text_view(text);
    return run_stage(run, index + 1, &view, err);
}

static Status run_prefix_space(const StageRun *run, int index, const TextView *text, Error *err)
{
    if (text->data[0] == ' ') return run_stage(run, index + 1, text, err);
    AlignedText *changed = &run->scratch->text[index];
    aligned_text_clear(changed, text_length_max(text->length));
    ByteOrigin origin = text_view_origin_marked(text, 0, 1);
    origin.end = origin.begin;
    aligned_text_append(changed, " ", 1, origin);
    aligned_text_append_view(changed, text, 0, text->length);
    return run_changed(run, index, changed, err);
}

/* Spaces become the replacement; one more stands before a piece that does not begin with it. */
static Status run_metaspace(const StageRun *run, int index, const TextView *text, Error *err)
{
    const Stage *stage = &run->pretokenizer->stage[index];
    size_t size = strlen(stage->replacement);
    AlignedText *changed = &run->scratch->text[index];
    aligned_text_clear(changed, text_length_max(text->length));
    ByteOrigin origin = text_view_origin_marked(text, 0, 1);
    origin.end = origin.begin;
    bool has_one = text->data[0] == ' ' ||
                   (text->length >= size && memcmp(text->data, stage->replacement, size) == 0);
    if (!has_one &&
        (stage->prepend == PREPEND_ALWAYS || (stage->prepend == PREPEND_FIRST && origin.first)))
        aligned_text_append(changed, stage->replacement, size, origin);
    for (uint32_t at = 0, end; at < text->length; at = end + 1) {
        const char *space = memchr(text->data + at, ' ', text->length - at);
        end = space == NULL ? text->length : (uint32_t)(space - text->data);
        aligned_text_append_view(changed, text, at, end);
        if (space != NULL)
            aligned_text_append(changed, stage->replacement, size,
                                text_view_origin_marked(text, end, end + 1));
    }
    return run_changed(run, index, changed, err);
}

static Status run_bytes(const StageRun *run, int index, const TextView *text, Error *err)
{
    AlignedText *changed = &run->scratch->text[index];
    aligned_text_clear(changed, text_length_max(text->length));
    for (uint32_t i = 0; i < text->length; i++) {
        char spelled[4];
        int size = utf8_encode(byte_level_char((unsigned char)text->data[i]), spelled);
        aligned_text_append(changed, spelled, (size_t)size,
                            text_view_origin_marked(text, i, i + 1));
    }
    return run_changed(run, index, changed, err);
}

static Status run_stage(const StageRun *run, int index, const TextView *text, Error *err)
{
    if (index == run->pretokenizer->count) return run->sink(run->context, text, err);
    switch (run->pretokenizer->stage[index].kind) {
    case STAGE_SPLIT:
        return run_split(run, index, text, err);
    case STAGE_PREFIX_SPACE:
        return run_prefix_space(run, index, text, err);
    case STAGE_METASPACE:
        return run_metaspace(run, index, text, err);
    case STAGE_BYTES:
        return run_bytes(run, index, text, err);
    }
    CHECK(false);
}

Status pretokenize(const PreTokenizer *pretokenizer, PreTokenizeScratch *scratch,
                   const TextView *text, WordSink sink, void *context, Error *err)
{
    if (text->length == 0) return OK;
    StageRun run = {pretokenizer, scratch, sink, context};
    return run_stage(&run, 0, text, err);
}
