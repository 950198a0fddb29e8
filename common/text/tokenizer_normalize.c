/* Normalizing: each step rewrites the text, keeping for every byte the input bytes that it came
 * from. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "text/tokenizer_internal.h"

/* ---- loading ---- */

static Status add_step(Normalizer *normalizer, const char *where, NormalizeKind kind, Error *err)
{
    if (normalizer->count == NORMALIZER_STEPS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "%s: more than %d normalizer steps", where,
                         NORMALIZER_STEPS_MAX);
    normalizer->step[normalizer->count++] = (NormalizeStep){kind};
    return OK;
}

static Status load_value(Normalizer *normalizer, const cJSON *json, const char *where, Error *err)
{
    static const struct {
        const char *type;
        NormalizeKind kind;
    } table[] = {{"NFC", NORMALIZE_NFC},
                 {"NFKC", NORMALIZE_NFKC},
                 {"NFD", NORMALIZE_NFD},
                 {"NFKD", NORMALIZE_NFKD}};
    const char *type = NULL;
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s is %s, expected an object", where,
                         json_type_name(json));
    TRY(json_string(json, "type", where, &type, err));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].type, type) == 0)
            return add_step(normalizer, where, table[i].kind, err);
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "normalizers");
        if (!cJSON_IsArray(list))
            return error_set(err, ERR_DATA, "%s: normalizers is %s, expected a list", where,
                             json_type_name(list));
        const cJSON *item;
        cJSON_ArrayForEach(item, list) TRY(load_value(normalizer, item, where, err));
        return OK;
    }
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: normalizer \"%.100s\" is unknown; known: NFC, NFKC, NFD, NFKD, Sequence",
                     where, type);
}

Status normalizer_load(Normalizer *normalizer, const cJSON *json, const UnicodeTable *table,
                       const char *where, Error *err)
{
    *normalizer = (Normalizer){.table = table};
    if (json == NULL || cJSON_IsNull(json)) return OK;
    return load_value(normalizer, json, where, err);
}

void normalizer_free(Normalizer *normalizer)
{
    *normalizer = (Normalizer){0};
}

void normalize_scratch_free(NormalizeScratch *scratch)
{
    aligned_text_free(&scratch->text[0]);
    aligned_text_free(&scratch->text[1]);
    free(scratch->code_point);
    free(scratch->sorted);
    *scratch = (NormalizeScratch){0};
}

/* ---- normal forms ---- */

static int combining_class(int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

/* Puts the marks of each run in order of combining class (canonical ordering, Unicode 3.11 D109) by
 * a counting sort: a run of a million marks must not cost a million squared. */
static void order_marks(NormalizeScratch *scratch, size_t count)
{
    int32_t *c = scratch->code_point;
    for (size_t begin = 0; begin < count;) {
        if (combining_class(c[begin]) == 0) {
            begin++;
            continue;
        }
        size_t end = begin, place[257] = {0};
        while (end < count && combining_class(c[end]) != 0)
            place[combining_class(c[end++]) + 1]++;
        for (int class = 1; class < 257; class ++)
            place[class] += place[class - 1];
        for (size_t i = begin; i < end; i++)
            scratch->sorted[place[combining_class(c[i])]++] = c[i];
        memcpy(c + begin, scratch->sorted, (end - begin) * sizeof *c);
        begin = end;
    }
}

static void reserve_code_points(NormalizeScratch *scratch, size_t count)
{
    if (count <= scratch->capacity) return;
    scratch->capacity = count * 2 + 64;
    scratch->code_point = mem_realloc(scratch->code_point, scratch->capacity, sizeof(int32_t));
    scratch->sorted = mem_realloc(scratch->sorted, scratch->capacity, sizeof(int32_t));
}

/* Decomposes (and composes) bytes [begin, end), which no normal form joins to what is around them.
 */
static void rewrite_run(NormalizeScratch *scratch, NormalizeKind kind, const TextView *text,
                        uint32_t begin, uint32_t end, AlignedText *out)
{
    bool compat = kind == NORMALIZE_NFKC || kind == NORMALIZE_NFKD;
    bool compose = kind == NORMALIZE_NFC || kind == NORMALIZE_NFKC;
    int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compat ? UTF8PROC_COMPAT : 0);
    size_t count = 0;
    for (uint32_t at = begin, size; at < end; at += size) {
        uint32_t c = utf8_next(text->data + at, &size);
        reserve_code_points(scratch, count + 64);
        int boundary = 0;
        utf8proc_ssize_t made =
            utf8proc_decompose_char((utf8proc_int32_t)c, scratch->code_point + count, 64,
                                    (utf8proc_option_t)options, &boundary);
        CHECK(made >= 0 && made <= 64);
        count += (size_t)made;
    }
    order_marks(scratch, count);
    if (compose)
        count = (size_t)utf8proc_normalize_utf32(scratch->code_point, (utf8proc_ssize_t)count,
                                                 UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    ByteOrigin origin = text_view_origin(text, begin, end);
    for (size_t i = 0; i < count; i++) {
        char bytes[4];
        int size = utf8_encode((uint32_t)scratch->code_point[i], bytes);
        aligned_text_append(out, bytes, (size_t)size, origin);
    }
}

/* The first byte of the next character from `at` on that the normal form may change, or the length.
 */
static uint32_t find_flagged(const UnicodeTable *table, uint8_t flag, const TextView *text,
                             uint32_t at)
{
    while (at < text->length) {
        /* Nothing below U+00A0 is ever changed. */
        if ((unsigned char)text->data[at] < 0xC2) {
            at++;
            continue;
        }
        uint32_t size, c = utf8_next(text->data + at, &size);
        if (table->entry[c] & flag) return at;
        at += size;
    }
    return text->length;
}

/* Rewrites only the runs that may change: a flagged character, what it may join to before it, and
 * the flagged characters that follow. Returns false if there is none. */
static bool apply_normal_form(const Normalizer *normalizer, NormalizeScratch *scratch,
                              NormalizeKind kind, const TextView *text, AlignedText *out)
{
    bool compat = kind == NORMALIZE_NFKC || kind == NORMALIZE_NFKD;
    uint8_t flag = compat ? UNICODE_NFKC : UNICODE_NFC;
    const UnicodeTable *table = normalizer->table;
    if (kind == NORMALIZE_NFD || kind == NORMALIZE_NFKD) {
        rewrite_run(scratch, kind, text, 0, text->length, out);
        return true;
    }
    uint32_t done = 0;
    for (;;) {
        uint32_t at = find_flagged(table, flag, text, done), size;
        if (at == text->length) break;
        uint32_t begin = at;
        if (at > done) {
            utf8_previous(text->data, at, &size);
            begin = at - size;
        }
        aligned_text_append_view(out, text, done, begin);
        while (at < text->length && (table->entry[utf8_next(text->data + at, &size)] & flag))
            at += size;
        rewrite_run(scratch, kind, text, begin, at, out);
        done = at;
    }
    if (done == 0) return false;
    aligned_text_append_view(out, text, done, text->length);
    return true;
}

Status normalize(const Normalizer *normalizer, NormalizeScratch *scratch, const TextView *text,
                 TextView *ret, Error *err)
{
    TextView now = *text;
    int free_text = 0;
    for (int i = 0; i < normalizer->count; i++) {
        AlignedText *out = &scratch->text[free_text];
        aligned_text_clear(out, UINT32_MAX);
        if (!apply_normal_form(normalizer, scratch, normalizer->step[i].kind, &now, out)) continue;
        if (out->overflow)
            return error_set(err, ERR_DATA, "the text grows beyond %zu bytes in the normalizer",
                             out->length_max);
        now = aligned_text_view(out);
        free_text = 1 - free_text;
    }
    *ret = now;
    return OK;
}
