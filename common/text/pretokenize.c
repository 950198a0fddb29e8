#include "text/pretokenize.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "text/bpe.h"

static const char GPT2_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- loading ---- */

Status regex_compile(const char *pattern, const char *where, pcre2_code **ret, Error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code *regex =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &offset, context);
    pcre2_compile_context_free(context);
    if (regex == NULL) {
        PCRE2_UCHAR text[256];
        pcre2_get_error_message(code, text, sizeof text);
        return error_set(err, ERR_DATA,
                         "%s: the regular expression \"%.500s\" is wrong at byte %zu: %s", where,
                         pattern, (size_t)offset, (const char *)text);
    }
    pcre2_jit_compile(regex, PCRE2_JIT_COMPLETE);
    *ret = regex;
    return OK;
}

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

static Status add_regex(PreTokenizer *pretokenizer, const char *pattern, const char *where,
                        Stage **ret, Error *err)
{
    TRY(stage_add(pretokenizer, where, ret, err));
    (*ret)->behavior = SPLIT_ISOLATED;
    (*ret)->matcher.source = mem_strdup(pattern);
    return regex_compile(pattern, where, &(*ret)->matcher.regex, err);
}

static Status load_split(PreTokenizer *pretokenizer, const cJSON *json, const char *where,
                         Error *err)
{
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(json, "pattern");
    const cJSON *regex = cJSON_GetObjectItemCaseSensitive(pattern, "Regex");
    const cJSON *literal = cJSON_GetObjectItemCaseSensitive(pattern, "String");
    Stage *stage = NULL;
    if (cJSON_IsString(regex)) {
        TRY(add_regex(pretokenizer, regex->valuestring, where, &stage, err));
    } else if (cJSON_IsString(literal) && literal->valuestring[0] != '\0') {
        TRY(stage_add(pretokenizer, where, &stage, err));
        stage->matcher.kind = MATCH_LITERAL;
        stage->matcher.literal = mem_strdup(literal->valuestring);
        stage->matcher.literal_length = (uint32_t)strlen(literal->valuestring);
    } else {
        return error_set(err, ERR_DATA,
                         "%s: Split's pattern is neither {\"Regex\": ...} nor {\"String\": ...}",
                         where);
    }
    TRY(load_behavior(json, where, &stage->behavior, err));
    return json_bool(json, "invert", where, &stage->invert, err);
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
    if (use_regex) TRY(add_regex(pretokenizer, GPT2_PATTERN, where, &stage, err));
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
    stage->matcher.kind = MATCH_CATEGORIES;
    stage->matcher.categories = CATEGORIES_NUMBER;
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
        "%s: pre-tokenizer \"%.100s\" is unknown; known: Split, ByteLevel, Digits, Sequence", where,
        type);
}

Status pretokenizer_load(PreTokenizer *pretokenizer, const cJSON *json, const UnicodeTable *table,
                         const char *where, Error *err)
{
    *pretokenizer = (PreTokenizer){.table = table};
    if (json == NULL || cJSON_IsNull(json)) return OK;
    return load_value(pretokenizer, json, where, err);
}

void pretokenizer_free(PreTokenizer *pretokenizer)
{
    for (int i = 0; i < PRETOKENIZE_STAGES_MAX; i++) {
        pcre2_code_free(pretokenizer->stage[i].matcher.regex);
        free(pretokenizer->stage[i].matcher.source);
        free(pretokenizer->stage[i].matcher.literal);
    }
    *pretokenizer = (PreTokenizer){0};
}

bool pretokenizer_ends_in_bytes(const PreTokenizer *pretokenizer)
{
    int bytes = 0;
    for (int i = 0; i < pretokenizer->count; i++)
        bytes += pretokenizer->stage[i].kind == STAGE_BYTES;
    return bytes == 1 && pretokenizer->stage[pretokenizer->count - 1].kind == STAGE_BYTES;
}

/* ---- finding matches ---- */

void pretokenize_scratch_free(PreTokenizeScratch *scratch)
{
    for (int i = 0; i < PRETOKENIZE_STAGES_MAX; i++)
        aligned_text_free(&scratch->text[i]);
    pcre2_match_data_free(scratch->match);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    *scratch = (PreTokenizeScratch){0};
}

/* Walks over the matches of one matcher in one text. */
typedef struct MatchWalk {
    const PreTokenizer *pretokenizer;
    PreTokenizeScratch *scratch;
    const Matcher *matcher;
    const char *text;
    uint32_t length;
    uint32_t at;       /* where to search next */
    uint32_t last_end; /* end of the match before, or UINT32_MAX */
} MatchWalk;

typedef struct Range {
    uint32_t begin, end;
} Range;

#define JIT_STACK_BYTES   (32u << 10)
#define JIT_STACK_MAX     (16u << 20)
#define MATCH_LIMIT       50000000u
#define MATCH_HEAP_KBYTES (256u << 10)

static void prepare_regex(PreTokenizeScratch *scratch)
{
    if (scratch->match != NULL) return;
    scratch->match = pcre2_match_data_create(1, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    scratch->stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_MAX, NULL);
    CHECK(scratch->match != NULL && scratch->context != NULL && scratch->stack != NULL);
    pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    pcre2_set_match_limit(scratch->context, MATCH_LIMIT);
    pcre2_set_heap_limit(scratch->context, MATCH_HEAP_KBYTES);
}

static Status regex_search(MatchWalk *walk, Range *ret, bool *ret_found, Error *err)
{
    PreTokenizeScratch *scratch = walk->scratch;
    prepare_regex(scratch);
    int code = pcre2_match(walk->matcher->regex, (PCRE2_SPTR)walk->text, walk->length, walk->at,
                           PCRE2_NO_UTF_CHECK, scratch->match, scratch->context);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT)
        code = pcre2_match(walk->matcher->regex, (PCRE2_SPTR)walk->text, walk->length, walk->at,
                           PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch->match, scratch->context);
    if (code == PCRE2_ERROR_NOMATCH) {
        *ret_found = false;
        return OK;
    }
    if (code < 0) {
        PCRE2_UCHAR text[256];
        pcre2_get_error_message(code, text, sizeof text);
        return error_set(err, ERR_DATA, "the regular expression \"%.500s\" failed on the text: %s",
                         walk->matcher->source, (const char *)text);
    }
    const PCRE2_SIZE *offset = pcre2_get_ovector_pointer(scratch->match);
    *ret = (Range){(uint32_t)offset[0], (uint32_t)offset[1]};
    *ret_found = true;
    return OK;
}

/* The next match, as the reference's iterator gives it: an empty match right behind another match
 * is passed over. */
static Status regex_next(MatchWalk *walk, Range *ret, bool *ret_found, Error *err)
{
    for (;;) {
        if (walk->at > walk->length) {
            *ret_found = false;
            return OK;
        }
        Range found = {0, 0};
        TRY(regex_search(walk, &found, ret_found, err));
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

static bool categories_next(MatchWalk *walk, Range *ret)
{
    while (walk->at < walk->length) {
        uint32_t size, begin = walk->at;
        uint32_t c = utf8_next(walk->text + begin, &size);
        walk->at += size;
        if (unicode_is(walk->pretokenizer->table, c, walk->matcher->categories)) {
            *ret = (Range){begin, begin + size};
            return true;
        }
    }
    return false;
}

static bool literal_next(MatchWalk *walk, Range *ret)
{
    const Matcher *matcher = walk->matcher;
    const char *found = memmem(walk->text + walk->at, walk->length - walk->at, matcher->literal,
                               matcher->literal_length);
    if (found == NULL) return false;
    uint32_t begin = (uint32_t)(found - walk->text);
    *ret = (Range){begin, begin + matcher->literal_length};
    walk->at = ret->end;
    return true;
}

static Status walk_next(MatchWalk *walk, Range *ret, bool *ret_found, Error *err)
{
    if (walk->matcher->kind == MATCH_REGEX) return regex_next(walk, ret, ret_found, err);
    *ret_found =
        walk->matcher->kind == MATCH_LITERAL ? literal_next(walk, ret) : categories_next(walk, ret);
    return OK;
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
    Range held;
} PieceJoiner;

static Status joiner_flush(PieceJoiner *joiner, Error *err)
{
    if (!joiner->holds) return OK;
    joiner->holds = false;
    if (joiner->held.begin == joiner->held.end) return OK;
    TextView piece = text_view_slice(joiner->text, joiner->held.begin, joiner->held.end);
    return run_stage(joiner->run, joiner->next_stage, &piece, err);
}

static Status joiner_add(PieceJoiner *joiner, Range stretch, bool is_match, Error *err)
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

static Status run_split(const StageRun *run, int index, const TextView *text, Error *err)
{
    const Stage *stage = &run->pretokenizer->stage[index];
    PieceJoiner joiner = {
        .run = run, .next_stage = index + 1, .text = text, .behavior = stage->behavior};
    MatchWalk walk = {.pretokenizer = run->pretokenizer,
                      .scratch = run->scratch,
                      .matcher = &stage->matcher,
                      .text = text->data,
                      .length = text->length,
                      .last_end = UINT32_MAX};
    uint32_t end = 0;
    for (;;) {
        Range match;
        bool found = false;
        TRY(walk_next(&walk, &match, &found, err));
        if (!found) break;
        if (end != match.begin)
            TRY(joiner_add(&joiner, (Range){end, match.begin}, stage->invert, err));
        TRY(joiner_add(&joiner, match, !stage->invert, err));
        end = match.end;
    }
    if (end != text->length)
        TRY(joiner_add(&joiner, (Range){end, text->length}, stage->invert, err));
    return joiner_flush(&joiner, err);
}

static Status run_changed(const StageRun *run, int index, AlignedText *text, Error *err)
{
    if (text->overflow)
        return error_set(err, ERR_DATA, "the text grows beyond %zu bytes in the pre-tokenizer",
                         text->length_max);
    TextView view = aligned_text_view(text);
    return run_stage(run, index + 1, &view, err);
}

static Status run_prefix_space(const StageRun *run, int index, const TextView *text, Error *err)
{
    if (text->data[0] == ' ') return run_stage(run, index + 1, text, err);
    AlignedText *changed = &run->scratch->text[index];
    aligned_text_clear(changed, UINT32_MAX);
    uint32_t begin = text_view_origin(text, 0, 1).begin;
    aligned_text_append(changed, " ", 1, (ByteOrigin){begin, begin});
    aligned_text_append_view(changed, text, 0, text->length);
    return run_changed(run, index, changed, err);
}

static Status run_bytes(const StageRun *run, int index, const TextView *text, Error *err)
{
    AlignedText *changed = &run->scratch->text[index];
    aligned_text_clear(changed, UINT32_MAX);
    for (uint32_t i = 0; i < text->length; i++) {
        char spelled[4];
        int size = utf8_encode(byte_level_char((unsigned char)text->data[i]), spelled);
        aligned_text_append(changed, spelled, (size_t)size, text_view_origin(text, i, i + 1));
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
