/* Decoding: ids to the tokens' spelling, then the decoder's steps over the list of strings. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/utf8.h"
#include "text/tokenizer_internal.h"

static Status load_value(Decoder *decoder, const cJSON *json, const char *where, Error *err)
{
    static const struct {
        const char *type;
        DecodeKind kind;
    } table[] = {{"ByteLevel", DECODE_BYTE_LEVEL}, {"Fuse", DECODE_FUSE}};
    const char *type = NULL;
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s is %s, expected an object", where,
                         json_type_name(json));
    TRY(json_string(json, "type", where, &type, err));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].type, type) != 0) continue;
        if (decoder->count == DECODER_STEPS_MAX)
            return error_set(err, ERR_UNSUPPORTED, "%s: more than %d decoder steps", where,
                             DECODER_STEPS_MAX);
        decoder->step[decoder->count++].kind = table[i].kind;
        return OK;
    }
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "decoders");
        if (!cJSON_IsArray(list))
            return error_set(err, ERR_DATA, "%s: decoders is %s, expected a list", where,
                             json_type_name(list));
        const cJSON *item;
        cJSON_ArrayForEach(item, list) TRY(load_value(decoder, item, where, err));
        return OK;
    }
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: decoder \"%.100s\" is unknown; known: ByteLevel, Fuse, Sequence", where,
                     type);
}

Status decoder_load(Decoder *decoder, const cJSON *json, const char *where, Error *err)
{
    if (json == NULL || cJSON_IsNull(json)) return OK;
    decoder->present = true;
    return load_value(decoder, json, where, err);
}

void decoder_free(Decoder *decoder)
{
    *decoder = (Decoder){0};
}

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

static void decode_byte_level(TokenList *in, TokenList *out)
{
    Str bytes = {0};
    size_t begin = 0;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = str_text(&in->text) + begin;
        size_t length = in->end[i] - begin, mark = bytes.length;
        begin = in->end[i];
        for (size_t at = 0; at < length;) {
            uint32_t size, c = utf8_next(text + at, &size);
            int byte = byte_level_byte(c);
            if (byte < 0) {
                bytes.length = mark;
                str_append(&bytes, text, length);
                break;
            }
            str_putc(&bytes, (char)byte);
            at += size;
        }
    }
    append_lossy(&out->text, str_text(&bytes), bytes.length);
    list_close(out);
    str_free(&bytes);
}

static void decode_fuse(TokenList *in, TokenList *out)
{
    str_append(&out->text, str_text(&in->text), in->text.length);
    list_close(out);
}

static void run_step(const DecodeStep *step, TokenList *list)
{
    TokenList out = {0};
    switch (step->kind) {
    case DECODE_BYTE_LEVEL:
        decode_byte_level(list, &out);
        break;
    case DECODE_FUSE:
        decode_fuse(list, &out);
        break;
    }
    list_free(list);
    *list = out;
}

Status tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t count,
                        bool skip_special_tokens, char **ret_text, size_t *ret_length, Error *err)
{
    (void)err;
    TokenList list = {0};
    for (size_t i = 0; i < count; i++) {
        uint32_t id = (uint32_t)ids[i];
        const AddedToken *added = added_token_of(&tokenizer->added, id);
        const char *text =
            added != NULL ? added->pattern : vocabulary_text(&tokenizer->bpe.spelled, id);
        if (text == NULL) continue;
        if (skip_special_tokens && added_token_is_special(&tokenizer->added, text)) continue;
        if (!tokenizer->decoder.present && list.count > 0) str_putc(&list.text, ' ');
        str_puts(&list.text, text);
        list_close(&list);
    }
    for (int i = 0; i < tokenizer->decoder.count; i++)
        run_step(&tokenizer->decoder.step[i], &list);
    *ret_length = list.text.length;
    str_append(&list.text, "", 0);
    *ret_text = list.text.data != NULL ? str_take(&list.text) : mem_strdup("");
    list_free(&list);
    return OK;
}
