/* Normalizing: each step rewrites the text, keeping for every byte the input bytes that it came
 * from. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "text/tokenizer/internal.h"

/* ---- loading ---- */

static Status load_value(Normalizer *normalizer, const cJSON *json, const char *where, Error *err);

static Status load_plain(Normalizer *normalizer, NormalizeStep *step, const cJSON *json,
                         const char *where, Error *err)
{
    (void)normalizer, (void)step, (void)json, (void)where, (void)err;
    return OK;
}

static Status load_prepend(Normalizer *normalizer, NormalizeStep *step, const cJSON *json,
                           const char *where, Error *err)
{
    (void)normalizer;
    const char *text = NULL;
    TRY(json_string(json, "prepend", where, &text, err));
    step->text = mem_strdup(text);
    return OK;
}

static Status load_replace(Normalizer *normalizer, NormalizeStep *step, const cJSON *json,
                           const char *where, Error *err)
{
    const char *content = NULL;
    TRY(json_string(json, "content", where, &content, err));
    step->text = mem_strdup(content);
    return matcher_load_pattern(&step->matcher, cJSON_GetObjectItemCaseSensitive(json, "pattern"),
                                normalizer->table, where, err);
}

static Status load_strip(Normalizer *normalizer, NormalizeStep *step, const cJSON *json,
                         const char *where, Error *err)
{
    (void)normalizer;
    TRY(json_bool(json, "strip_left", where, &step->left, err));
    return json_bool(json, "strip_right", where, &step->right, err);
}

static Status load_sequence(Normalizer *normalizer, const cJSON *json, const char *where,
                            Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "normalizers");
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "%s: normalizers is %s, expected a list", where,
                         json_type_name(list));
    const cJSON *item;
    cJSON_ArrayForEach(item, list) TRY(load_value(normalizer, item, where, err));
    return OK;
}

static Status load_value(Normalizer *normalizer, const cJSON *json, const char *where, Error *err)
{
    static const struct {
        const char *type;
        NormalizeKind kind;
        Status (*load)(Normalizer *, NormalizeStep *, const cJSON *, const char *, Error *);
    } table[] = {
        {"NFC", NORMALIZE_NFC, load_plain},
        {"NFKC", NORMALIZE_NFKC, load_plain},
        {"NFD", NORMALIZE_NFD, load_plain},
        {"NFKD", NORMALIZE_NFKD, load_plain},
        {"Prepend", NORMALIZE_PREPEND, load_prepend},
        {"Replace", NORMALIZE_REPLACE, load_replace},
        {"Strip", NORMALIZE_STRIP, load_strip},
        {"Lowercase", NORMALIZE_LOWERCASE, load_plain},
        {"ByteLevel", NORMALIZE_BYTE_LEVEL, load_plain},
    };
    const char *type = NULL;
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s is %s, expected an object", where,
                         json_type_name(json));
    TRY(json_string(json, "type", where, &type, err));
    if (strcmp(type, "Sequence") == 0) return load_sequence(normalizer, json, where, err);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].type, type) != 0) continue;
        if (normalizer->count == NORMALIZER_STEPS_MAX)
            return error_set(err, ERR_UNSUPPORTED, "%s: more than %d normalizer steps", where,
                             NORMALIZER_STEPS_MAX);
        NormalizeStep *step = &normalizer->step[normalizer->count++];
        *step = (NormalizeStep){.kind = table[i].kind};
        return table[i].load(normalizer, step, json, where, err);
    }
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: normalizer \"%.100s\" is unknown; known: NFC, NFKC, NFD, NFKD, Prepend, "
                     "Replace, Strip, Lowercase, ByteLevel, Sequence",
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
    for (int i = 0; i < normalizer->count; i++) {
        matcher_free(&normalizer->step[i].matcher);
        free(normalizer->step[i].text);
    }
    *normalizer = (Normalizer){0};
}

void normalize_scratch_free(NormalizeScratch *scratch)
{
    aligned_text_free(&scratch->text[0]);
    aligned_text_free(&scratch->text[1]);
    free(scratch->code_point);
    free(scratch->sorted);
    match_scratch_free(&scratch->match);
    *scratch = (NormalizeScratch){0};
}

/* ---- normal forms ---- */

static int combining_class(int32_t c)
{
    return unicode_is_plain((uint32_t)c) ? 0 : utf8proc_get_property(c)->combining_class;
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

/* The normal form of bytes [begin, end), which no normal form joins to what is around them, goes to
 * scratch->code_point; returns its length. */
static size_t make_form(NormalizeScratch *scratch, NormalizeKind kind, const TextView *text,
                        uint32_t begin, uint32_t end)
{
    bool compat = kind == NORMALIZE_NFKC || kind == NORMALIZE_NFKD;
    bool compose = kind == NORMALIZE_NFC || kind == NORMALIZE_NFKC;
    int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compat ? UTF8PROC_COMPAT : 0);
    size_t count = 0;
    for (uint32_t at = begin, size; at < end; at += size) {
        uint32_t c = utf8_next(text->data + at, &size);
        reserve_code_points(scratch, count + 64);
        if (unicode_is_plain(c)) {
            scratch->code_point[count++] = (int32_t)c;
            continue;
        }
        int boundary = 0;
        utf8proc_ssize_t made =
            utf8proc_decompose_char((utf8proc_int32_t)c, scratch->code_point + count, 64,
                                    (utf8proc_option_t)options, &boundary);
        CHECK(made >= 0 && made <= 64);
        count += (size_t)made;
    }
    order_marks(scratch, count);
    if (!compose) return count;
    return (size_t)utf8proc_normalize_utf32(scratch->code_point, (utf8proc_ssize_t)count,
                                            UTF8PROC_COMPOSE | UTF8PROC_STABLE);
}

static void rewrite_run(NormalizeScratch *scratch, NormalizeKind kind, const TextView *text,
                        uint32_t begin, uint32_t end, AlignedText *out)
{
    uint32_t first_end = begin;
    while (first_end < end && text_view_first(text, first_end))
        first_end++;
    size_t first = first_end > begin ? make_form(scratch, kind, text, begin, first_end) : 0;
    size_t count = make_form(scratch, kind, text, begin, end);
    ByteOrigin origin = text_view_origin(text, begin, end);
    for (size_t i = 0; i < count; i++) {
        char bytes[4];
        int size = utf8_encode((uint32_t)scratch->code_point[i], bytes);
        origin.first = i < first;
        aligned_text_append(out, bytes, (size_t)size, origin);
    }
}

/* The first byte of the next character from `at` on that the normal form may change, or the length.
 */
static uint32_t find_flagged(const UnicodeTable *table, uint8_t flag, const TextView *text,
                             uint32_t at)
{
    while (at < text->length) {
        uint64_t eight;
        while (text->length - at >= sizeof eight) {
            memcpy(&eight, text->data + at, sizeof eight);
            if (eight & 0x8080808080808080u) break;
            at += sizeof eight;
        }
        if (at == text->length) break;
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

static uint32_t skip_flagged(const UnicodeTable *table, uint8_t flag, const TextView *text,
                             uint32_t at)
{
    for (uint32_t size; at < text->length; at += size)
        if (!(table->entry[utf8_next(text->data + at, &size)] & flag)) break;
    return at;
}

/* Composed forms rewrite only the runs that may change: a flagged character, what it may join to
 * before it, and the flagged characters that follow. */
static bool compose(const Normalizer *normalizer, NormalizeScratch *scratch, NormalizeKind kind,
                    const TextView *text, AlignedText *out)
{
    uint8_t flag = kind == NORMALIZE_NFKC ? UNICODE_NFKC : UNICODE_NFC;
    uint32_t done = 0;
    for (;;) {
        uint32_t at = find_flagged(normalizer->table, flag, text, done), size = 0;
        if (at == text->length) break;
        if (at > done) utf8_previous(text->data, at, &size);
        aligned_text_append_view(out, text, done, at - size);
        done = skip_flagged(normalizer->table, flag, text, at);
        rewrite_run(scratch, kind, text, at - size, done, out);
    }
    if (done == 0) return false;
    aligned_text_append_view(out, text, done, text->length);
    return true;
}

/* Decomposed forms rewrite every character beyond ASCII, with the flagged ones behind it. */
static bool decompose(const Normalizer *normalizer, NormalizeScratch *scratch, NormalizeKind kind,
                      const TextView *text, AlignedText *out)
{
    uint8_t flag = kind == NORMALIZE_NFKD ? UNICODE_NFKC : UNICODE_NFC;
    uint32_t done = 0, at = 0;
    while (at < text->length) {
        if ((unsigned char)text->data[at] < 0x80) {
            at++;
            continue;
        }
        uint32_t size;
        utf8_next(text->data + at, &size);
        uint32_t end = skip_flagged(normalizer->table, flag, text, at + size);
        aligned_text_append_view(out, text, done, at);
        rewrite_run(scratch, kind, text, at, end, out);
        done = at = end;
    }
    if (done == 0) return false;
    aligned_text_append_view(out, text, done, text->length);
    return true;
}

/* ---- the other steps; each returns false if it leaves the text as it is ---- */

static bool prepend(const NormalizeStep *step, const TextView *text, AlignedText *out)
{
    if (text->length == 0 || step->text[0] == '\0') return false;
    ByteOrigin origin = text_view_origin_marked(text, 0, 1);
    origin.end = origin.begin;
    aligned_text_append(out, step->text, strlen(step->text), origin);
    aligned_text_append_view(out, text, 0, text->length);
    return true;
}

static Status replace(const NormalizeStep *step, NormalizeScratch *scratch, const TextView *text,
                      AlignedText *out, bool *ret_changed, Error *err)
{
    size_t length = strlen(step->text);
    uint32_t done = 0;
    MatchWalk walk = {.matcher = &step->matcher,
                      .scratch = &scratch->match,
                      .text = text->data,
                      .length = text->length,
                      .last_end = UINT32_MAX};
    *ret_changed = false;
    while (text->length > 0) {
        MatchRange match = {0, 0};
        bool found = false;
        TRY(match_next(&walk, &match, &found, err));
        if (!found) break;
        *ret_changed = true;
        aligned_text_append_view(out, text, done, match.begin);
        ByteOrigin origin = text_view_origin(text, match.begin, match.end);
        origin.first = text_view_first(text, match.end > 0 ? match.end - 1 : 0);
        aligned_text_append(out, step->text, length, origin);
        done = match.end;
    }
    if (*ret_changed) aligned_text_append_view(out, text, done, text->length);
    return OK;
}

static bool strip(const Normalizer *normalizer, const NormalizeStep *step, const TextView *text,
                  AlignedText *out)
{
    uint32_t begin = 0, end = text->length, size;
    while (step->left && begin < end &&
           unicode_is_space(normalizer->table, utf8_next(text->data + begin, &size)))
        begin += size;
    while (step->right && end > begin &&
           unicode_is_space(normalizer->table, utf8_previous(text->data, end, &size)))
        end -= size;
    if (begin == 0 && end == text->length) return false;
    aligned_text_append_view(out, text, begin, end);
    return true;
}

static bool lowercase(const TextView *text, AlignedText *out)
{
    uint32_t done = 0;
    bool changed = false;
    for (uint32_t at = 0, size; at < text->length; at += size) {
        uint32_t lower[2], c = utf8_next(text->data + at, &size);
        int count = unicode_lower(c, lower);
        if (count == 1 && lower[0] == c) continue;
        aligned_text_append_view(out, text, done, at);
        for (int i = 0; i < count; i++) {
            char bytes[4];
            int length = utf8_encode(lower[i], bytes);
            aligned_text_append(out, bytes, (size_t)length,
                                text_view_origin_marked(text, at, at + size));
        }
        done = at + size;
        changed = true;
    }
    if (changed) aligned_text_append_view(out, text, done, text->length);
    return changed;
}

static bool spell_bytes(const TextView *text, AlignedText *out)
{
    for (uint32_t i = 0; i < text->length; i++) {
        char bytes[4];
        int size = utf8_encode(byte_level_char((unsigned char)text->data[i]), bytes);
        aligned_text_append(out, bytes, (size_t)size, text_view_origin_marked(text, i, i + 1));
    }
    return text->length > 0;
}

static Status run_step(const Normalizer *normalizer, NormalizeScratch *scratch,
                       const NormalizeStep *step, const TextView *text, AlignedText *out,
                       bool *ret_changed, Error *err)
{
    switch (step->kind) {
    case NORMALIZE_NFC:
    case NORMALIZE_NFKC:
        *ret_changed = compose(normalizer, scratch, step->kind, text, out);
        return OK;
    case NORMALIZE_NFD:
    case NORMALIZE_NFKD:
        *ret_changed = decompose(normalizer, scratch, step->kind, text, out);
        return OK;
    case NORMALIZE_PREPEND:
        *ret_changed = prepend(step, text, out);
        return OK;
    case NORMALIZE_REPLACE:
        return replace(step, scratch, text, out, ret_changed, err);
    case NORMALIZE_STRIP:
        *ret_changed = strip(normalizer, step, text, out);
        return OK;
    case NORMALIZE_LOWERCASE:
        *ret_changed = lowercase(text, out);
        return OK;
    case NORMALIZE_BYTE_LEVEL:
        *ret_changed = spell_bytes(text, out);
        return OK;
    }
    CHECK(false);
}

Status normalize(const Normalizer *normalizer, NormalizeScratch *scratch, const TextView *text,
                 TextView *ret, Error *err)
{
    TextView now = *text;
    int unused = 0;
    for (int i = 0; i < normalizer->count; i++) {
        AlignedText *out = &scratch->text[unused];
        bool changed = false;
        aligned_text_clear(out, text_length_max(text->length));
        TRY(run_step(normalizer, scratch, &normalizer->step[i], &now, out, &changed, err));
        if (!changed) continue;
        if (out->overflow)
            return error_set(err, ERR_DATA,
                             "the normalizer makes more than %zu bytes of a text of %u bytes",
                             out->length_max, text->length);
        now = aligned_text_view(out);
        unused = 1 - unused;
    }
    *ret = now;
    return OK;
}
