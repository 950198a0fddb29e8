/* Decoding: ids to the tokens' spelling, then the decoder's steps over the list of strings. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"
#include "text/tokenizer/internal.h"

/* ---- loading ---- */

static Status load_value(Decoder *decoder, const cJSON *json, const UnicodeTable *table,
                         const char *where, Error *err);

static Status load_plain(DecodeStep *step, const cJSON *json, const UnicodeTable *table,
                         const char *where, Error *err)
{
    (void)step, (void)json, (void)table, (void)where, (void)err;
    return OK;
}

static Status load_replace(DecodeStep *step, const cJSON *json, const UnicodeTable *table,
                           const char *where, Error *err)
{
    const char *content = NULL;
    TRY(json_string(json, "content", where, &content, err));
    step->text = mem_strdup(content);
    return matcher_load_pattern(&step->matcher, cJSON_GetObjectItemCaseSensitive(json, "pattern"),
                                table, where, err);
}

static Status load_strip(DecodeStep *step, const cJSON *json, const UnicodeTable *table,
                         const char *where, Error *err)
{
    (void)table;
    int64_t left = 0, right = 0;
    TRY(json_character(json, "content", where, step->character, err));
    TRY(json_int(json, "start", where, 0, INT32_MAX, &left, err));
    TRY(json_int(json, "stop", where, 0, INT32_MAX, &right, err));
    step->left = (uint32_t)left;
    step->right = (uint32_t)right;
    return OK;
}

static Status load_metaspace(DecodeStep *step, const cJSON *json, const UnicodeTable *table,
                             const char *where, Error *err)
{
    (void)table;
    const char *scheme = "always";
    bool prefix_space = true;
    TRY(json_character(json, "replacement", where, step->character, err));
    TRY(json_string_or(json, "prepend_scheme", where, &scheme, err));
    TRY(json_bool_or(json, "add_prefix_space", where, &prefix_space, err));
    step->drop_first_space = prefix_space && strcmp(scheme, "never") != 0;
    return OK;
}

static Status load_suffix(DecodeStep *step, const cJSON *json, const UnicodeTable *table,
                          const char *where, Error *err)
{
    const char *suffix = NULL;
    TRY(json_string(json, "suffix", where, &suffix, err));
    if (suffix[0] == '\0') return error_set(err, ERR_DATA, "%s: suffix is empty", where);
    matcher_load_literal(&step->matcher, suffix, table);
    return OK;
}

static Status load_sequence(Decoder *decoder, const cJSON *json, const UnicodeTable *table,
                            const char *where, Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "decoders"), *item;
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "%s: decoders is %s, expected a list", where,
                         json_type_name(list));
    cJSON_ArrayForEach(item, list) TRY(load_value(decoder, item, table, where, err));
    return OK;
}

static Status load_value(Decoder *decoder, const cJSON *json, const UnicodeTable *table,
                         const char *where, Error *err)
{
    static const struct {
        const char *type;
        DecodeKind kind;
        Status (*load)(DecodeStep *, const cJSON *, const UnicodeTable *, const char *, Error *);
    } known[] = {
        {"ByteLevel", DECODE_BYTE_LEVEL, load_plain},
        {"Fuse", DECODE_FUSE, load_plain},
        {"Replace", DECODE_REPLACE, load_replace},
        {"ByteFallback", DECODE_BYTE_FALLBACK, load_plain},
        {"Strip", DECODE_STRIP, load_strip},
        {"Metaspace", DECODE_METASPACE, load_metaspace},
        {"BPEDecoder", DECODE_BPE_SUFFIX, load_suffix},
    };
    const char *type = NULL;
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s is %s, expected an object", where,
                         json_type_name(json));
    TRY(json_string(json, "type", where, &type, err));
    if (strcmp(type, "Sequence") == 0) return load_sequence(decoder, json, table, where, err);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].type, type) != 0) continue;
        if (decoder->count == DECODER_STEPS_MAX)
            return error_set(err, ERR_UNSUPPORTED, "%s: more than %d decoder steps", where,
                             DECODER_STEPS_MAX);
        DecodeStep *step = &decoder->step[decoder->count++];
        *step = (DecodeStep){.kind = known[i].kind};
        return known[i].load(step, json, table, where, err);
    }
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: decoder \"%.100s\" is unknown; known: ByteLevel, Fuse, Replace, "
                     "ByteFallback, Strip, Metaspace, BPEDecoder, Sequence",
                     where, type);
}

Status decoder_load(Decoder *decoder, const cJSON *json, const UnicodeTable *table,
                    const char *where, Error *err)
{
    if (json == NULL || cJSON_IsNull(json)) return OK;
    decoder->present = true;
    return load_value(decoder, json, table, where, err);
}

void decoder_free(Decoder *decoder)
{
    for (int i = 0; i < decoder->count; i++) {
        matcher_free(&decoder->step[i].matcher);
        free(decoder->step[i].text);
    }
    *decoder = (Decoder){0};
}

/* ---- running ---- */

/* A list of strings in one buffer. */
typedef struct TokenList {
    Str text;
    size_t *end; /* [count] offset behind each string */
    size_t count, capacity;
} TokenList;

static void list_free(TokenList *list)
{
    str_free(&list->text);
    free(list->end);
    *list = (TokenList){0};
}

/* String `index` of a list; *begin is the end of the one before. */
static const char *list_item(const TokenList *list, size_t index, size_t *ret_length)
{
    size_t begin = index == 0 ? 0 : list->end[index - 1];
    *ret_length = list->end[index] - begin;
    return str_text(&list->text) + begin;
}

/* Ends the string that was appended to list->text. */
static void list_close(TokenList *list)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity * 2 + 64;
        list->end = mem_realloc(list->end, list->capacity, sizeof *list->end);
    }
    list->end[list->count++] = list->text.length;
}

/* Appends bytes as UTF-8; each maximal wrong part becomes U+FFFD (Unicode 3.9, U+FFFD
 * substitution). */
static void append_lossy(Str *out, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        size_t valid = utf8_valid_prefix(bytes + at, length - at);
        str_append(out, bytes + at, valid);
        at += valid;
        if (at == length) break;
        /* The wrong part: the longest prefix of what could be a character, at least one byte. */
        const unsigned char *b = (const unsigned char *)bytes + at;
        size_t left = length - at, size = 1;
        size_t need = b[0] >= 0xF0 && b[0] <= 0xF4 ? 4 : b[0] >= 0xE0 && b[0] < 0xF0 ? 3 : 1;
        unsigned char low = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
        unsigned char high = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
        if (need > 1 && left > 1 && b[1] >= low && b[1] <= high) {
            size = 2;
            while (size < need - 1 && size < left && (b[size] & 0xC0) == 0x80)
                size++;
        }
        str_append(out, "\xEF\xBF\xBD", 3);
        at += size;
    }
}

static void decode_byte_level(const TokenList *in, TokenList *out)
{
    Str bytes = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t length, mark = bytes.length;
        const char *text = list_item(in, i, &length);
        for (uint32_t at = 0, size; at < length; at += size) {
            int byte = byte_level_byte(utf8_next(text + at, &size));
            if (byte < 0) {
                /* Not spelled in the byte-level alphabet: it stands for itself. */
                bytes.length = mark;
                str_append(&bytes, text, length);
                break;
            }
            str_putc(&bytes, (char)byte);
        }
    }
    append_lossy(&out->text, str_text(&bytes), bytes.length);
    list_close(out);
    str_free(&bytes);
}

static void decode_fuse(const TokenList *in, TokenList *out)
{
    str_append(&out->text, str_text(&in->text), in->text.length);
    list_close(out);
}

static Status decode_replace(const Matcher *matcher, const char *replacement, const char *text,
                             size_t length, Str *out, Error *err)
{
    MatchScratch scratch = {0};
    MatchWalk walk = {.matcher = matcher,
                      .scratch = &scratch,
                      .text = text,
                      .length = (uint32_t)length,
                      .last_end = UINT32_MAX};
    uint32_t done = 0;
    Status status = OK;
    while (length > 0) {
        MatchRange match = {0, 0};
        bool found = false;
        status = match_next(&walk, &match, &found, err);
        if (status != OK || !found) break;
        str_append(out, text + done, match.begin - done);
        str_puts(out, replacement);
        done = match.end;
    }
    str_append(out, text + done, length - done);
    match_scratch_free(&scratch);
    return status;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of a token <0xNN>, or -1. */
static int fallback_byte(const char *text, size_t length)
{
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = text[3] == '+' ? 0 : hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Writes a run of <0xNN> tokens: as one string if the bytes are UTF-8, or else U+FFFD for each. */
static void flush_bytes(Str *bytes, TokenList *out)
{
    if (bytes->length == 0) return;
    if (utf8_valid_prefix(bytes->data, bytes->length) == bytes->length) {
        str_append(&out->text, bytes->data, bytes->length);
        list_close(out);
    } else {
        for (size_t i = 0; i < bytes->length; i++) {
            str_append(&out->text, "\xEF\xBF\xBD", 3);
            list_close(out);
        }
    }
    str_clear(bytes);
}

static void decode_byte_fallback(const TokenList *in, TokenList *out)
{
    Str bytes = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t length;
        const char *text = list_item(in, i, &length);
        int byte = fallback_byte(text, length);
        if (byte >= 0) {
            str_putc(&bytes, (char)byte);
            continue;
        }
        flush_bytes(&bytes, out);
        str_append(&out->text, text, length);
        list_close(out);
    }
    flush_bytes(&bytes, out);
    str_free(&bytes);
}

static void decode_strip(const DecodeStep *step, const char *text, size_t length, Str *out)
{
    size_t size = strlen(step->character), begin = 0, end = length;
    for (uint32_t i = 0;
         i < step->left && end - begin >= size && memcmp(text + begin, step->character, size) == 0;
         i++)
        begin += size;
    for (uint32_t i = 0; i < step->right && end - begin >= size &&
                         memcmp(text + end - size, step->character, size) == 0;
         i++)
        end -= size;
    str_append(out, text + begin, end - begin);
}

static void decode_metaspace(const DecodeStep *step, bool first, const char *text, size_t length,
                             Str *out)
{
    size_t size = strlen(step->character);
    for (size_t at = 0; at < length;) {
        if (length - at >= size && memcmp(text + at, step->character, size) == 0) {
            if (!first || !step->drop_first_space) str_putc(out, ' ');
            at += size;
        } else {
            str_putc(out, text[at++]);
        }
    }
}

/* Steps that change each string by itself. */
static Status decode_each(const DecodeStep *step, const TokenList *in, TokenList *out, Error *err)
{
    for (size_t i = 0; i < in->count; i++) {
        size_t length;
        const char *text = list_item(in, i, &length);
        if (step->kind == DECODE_STRIP)
            decode_strip(step, text, length, &out->text);
        else if (step->kind == DECODE_METASPACE)
            decode_metaspace(step, i == 0, text, length, &out->text);
        else if (step->kind == DECODE_REPLACE)
            TRY(decode_replace(&step->matcher, step->text, text, length, &out->text, err));
        else
            TRY(decode_replace(&step->matcher, i + 1 == in->count ? "" : " ", text, length,
                               &out->text, err));
        list_close(out);
    }
    return OK;
}

static Status run_step(const DecodeStep *step, TokenList *list, Error *err)
{
    TokenList out = {0};
    Status status = OK;
    if (step->kind == DECODE_BYTE_LEVEL)
        decode_byte_level(list, &out);
    else if (step->kind == DECODE_FUSE)
        decode_fuse(list, &out);
    else if (step->kind == DECODE_BYTE_FALLBACK)
        decode_byte_fallback(list, &out);
    else
        status = decode_each(step, list, &out, err);
    list_free(list);
    *list = out;
    return status;
}

Status tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t count,
                        bool skip_special_tokens, char **ret_text, size_t *ret_length, Error *err)
{
    TokenList list = {0};
    Status status = OK;
    for (size_t i = 0; i < count; i++) {
        uint32_t id = (uint32_t)ids[i];
        const AddedToken *added = added_token_of(&tokenizer->added, id);
        const char *text = added == NULL             ? vocabulary_text(&tokenizer->bpe.spelled, id)
                           : added->spelling != NULL ? added->spelling
                                                     : added->pattern;
        if (text == NULL) continue;
        if (skip_special_tokens && added_token_is_special(&tokenizer->added, text)) continue;
        if (!tokenizer->decoder.present && list.count > 0) str_putc(&list.text, ' ');
        str_puts(&list.text, text);
        list_close(&list);
    }
    for (int i = 0; i < tokenizer->decoder.count && status == OK; i++)
        status = run_step(&tokenizer->decoder.step[i], &list, err);
    if (status == OK) {
        *ret_length = list.text.length;
        *ret_text = list.text.length > 0 ? str_take(&list.text) : mem_strdup("");
    }
    list_free(&list);
    return status;
}
