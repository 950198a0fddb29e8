#include "text/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "text/unicode_table.h"

/* The merge table: open addressing over 8-byte slots, left id (20 bits) | right id (20) | rank
 * (24), so that a vocabulary of 150,000 fits the second-level cache. */
#define PAIR_EMPTY UINT64_MAX
#define RANK_BITS  24
#define RANK_NONE  UINT32_MAX

static inline uint64_t pair_key(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 20 | right;
}

static inline size_t pair_home(const Bpe *bpe, uint64_t key)
{
    return (size_t)(key * 0x9E3779B97F4A7C15u >> bpe->pair_shift);
}

static inline uint32_t pair_rank(const Bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t key = pair_key(left, right);
    size_t mask = ((size_t)1 << (64 - bpe->pair_shift)) - 1;
    for (size_t at = pair_home(bpe, key);; at = (at + 1) & mask) {
        uint64_t slot = bpe->pair[at];
        if (slot >> RANK_BITS == key) return (uint32_t)slot & ((1u << RANK_BITS) - 1);
        if (slot == PAIR_EMPTY) return RANK_NONE;
    }
}

static void pair_insert(Bpe *bpe, uint32_t left, uint32_t right, uint32_t rank)
{
    uint64_t key = pair_key(left, right);
    size_t mask = ((size_t)1 << (64 - bpe->pair_shift)) - 1;
    size_t at = pair_home(bpe, key);
    while (bpe->pair[at] != PAIR_EMPTY && bpe->pair[at] >> RANK_BITS != key)
        at = (at + 1) & mask;
    bpe->pair[at] = key << RANK_BITS | rank;
}

/* ---- the byte-level alphabet ---- */

static bool is_plain_byte(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/* The others, in order of value, are written as U+0100, U+0101, ... */
uint32_t byte_level_char(unsigned char byte)
{
    if (is_plain_byte(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return 0x143;
}

int byte_level_byte(uint32_t c)
{
    if (c < 0x100) return is_plain_byte(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);
    if (c <= 0x142) return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

/* ---- loading ---- */

static Status load_vocabulary(Bpe *bpe, const cJSON *vocab, const char *where, Error *err)
{
    size_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, vocab) count++;
    vocabulary_reserve(&bpe->spelled, count);
    cJSON_ArrayForEach(item, vocab)
    {
        double number = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(number >= 0 && number < TOKEN_IDS_MAX) || number != (uint32_t)number)
            return error_set(
                err, ERR_DATA,
                "%s: model.vocab: the id of \"%.100s\" is not a whole number from 0 to %u", where,
                item->string, TOKEN_IDS_MAX - 1);
        uint32_t id = (uint32_t)number;
        const char *other = vocabulary_text(&bpe->spelled, id);
        if (other != NULL && strcmp(other, item->string) != 0)
            return error_set(err, ERR_DATA,
                             "%s: model.vocab: \"%.100s\" and \"%.100s\" have the same id %u",
                             where, other, item->string, id);
        vocabulary_add(&bpe->spelled, item->string, strlen(item->string), id);
    }
    return OK;
}

/* Turns the spelling of a byte-level token into its bytes; false if a character is not of that
 * alphabet. */
static bool unspell(const char *spelled, char *bytes, size_t *ret_length)
{
    size_t length = strlen(spelled), count = 0;
    for (size_t at = 0; at < length;) {
        uint32_t c;
        int size = utf8_decode(spelled + at, length - at, &c);
        int byte = size > 0 ? byte_level_byte(c) : -1;
        if (byte < 0) return false;
        bytes[count++] = (char)byte;
        at += (size_t)size;
    }
    *ret_length = count;
    return true;
}

static void fill_raw_vocabulary(Bpe *bpe)
{
    const Vocabulary *spelled = &bpe->spelled;
    vocabulary_reserve(&bpe->raw, spelled->count);
    for (uint32_t id = 0; id < spelled->id_count; id++) {
        const char *text = vocabulary_text(spelled, id);
        if (text == NULL) continue;
        char *bytes = mem_alloc(spelled->length[id] + 1);
        size_t length;
        if (unspell(text, bytes, &length)) vocabulary_add(&bpe->raw, bytes, length, id);
        free(bytes);
    }
    bpe->all_bytes_known = true;
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        bpe->byte_id[byte] = vocabulary_find(&bpe->raw, &c, 1);
        if (bpe->byte_id[byte] == TOKEN_NONE) bpe->all_bytes_known = false;
    }
}

/* One merge: "left right" in one string (old files) or ["left", "right"]. *ret_text is the memory
 * that both point into, or NULL. */
static bool read_merge(const cJSON *item, char **ret_text, const char **ret_left,
                       const char **ret_right)
{
    if (cJSON_IsArray(item)) {
        const cJSON *left = item->child, *right = left == NULL ? NULL : left->next;
        if (!cJSON_IsString(left) || !cJSON_IsString(right) || right->next != NULL) return false;
        *ret_left = left->valuestring;
        *ret_right = right->valuestring;
        return true;
    }
    if (!cJSON_IsString(item)) return false;
    const char *space = strchr(item->valuestring, ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL) return false;
    *ret_text = mem_strdup(item->valuestring);
    (*ret_text)[space - item->valuestring] = '\0';
    *ret_left = *ret_text;
    *ret_right = *ret_text + (space - item->valuestring) + 1;
    return true;
}

static Status add_merge(Bpe *bpe, const char *left, const char *right, uint32_t rank,
                        const char *where, Error *err)
{
    const Vocabulary *vocab = &bpe->spelled;
    size_t left_length = strlen(left), right_length = strlen(right);
    size_t skip = bpe->prefix == NULL ? 0 : strlen(bpe->prefix);
    const char *missing = NULL;
    uint32_t left_id = vocabulary_find(vocab, left, left_length);
    uint32_t right_id = vocabulary_find(vocab, right, right_length);
    char *joined = NULL;
    uint32_t joined_id = TOKEN_NONE;
    if (left_id == TOKEN_NONE) {
        missing = left;
    } else if (right_id == TOKEN_NONE) {
        missing = right;
    } else {
        joined = mem_printf("%s%s", left, right_length >= skip ? right + skip : "");
        joined_id = vocabulary_find(vocab, joined, strlen(joined));
        if (joined_id == TOKEN_NONE) missing = joined;
    }
    if (missing != NULL) {
        error_set(err, ERR_DATA, "%s: model.merges[%u]: \"%.100s\" is not in the vocabulary", where,
                  rank, missing);
        free(joined);
        return ERR_DATA;
    }
    pair_insert(bpe, left_id, right_id, rank);
    bpe->merged[rank] = joined_id;
    free(joined);
    return OK;
}

static Status load_merges(Bpe *bpe, const cJSON *merges, const char *where, Error *err)
{
    size_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, merges) count++;
    if (count > BPE_MERGES_MAX)
        return error_set(err, ERR_UNSUPPORTED, "%s: model.merges has %zu entries, more than %u",
                         where, count, BPE_MERGES_MAX);
    uint32_t bits = 4;
    while (((size_t)1 << bits) < count + count / 2 + 1)
        bits++;
    bpe->pair_shift = 64 - bits;
    bpe->pair = mem_alloc(sizeof *bpe->pair << bits);
    memset(bpe->pair, 0xFF, sizeof *bpe->pair << bits);
    bpe->merged = mem_calloc(count + 1, sizeof *bpe->merged);
    uint32_t index = 0;
    cJSON_ArrayForEach(item, merges)
    {
        uint32_t at = index++;
        if (cJSON_IsString(item) && strncmp(item->valuestring, "#version", 8) == 0) continue;
        char *text = NULL;
        const char *left, *right;
        if (!read_merge(item, &text, &left, &right))
            return error_set(
                err, ERR_DATA,
                "%s: model.merges[%u] is neither \"left right\" nor [\"left\", \"right\"]", where,
                at);
        Status status = add_merge(bpe, left, right, bpe->merge_count, where, err);
        free(text);
        if (status != OK) return status;
        bpe->merge_count++;
    }
    return OK;
}

static Status load_affix(const cJSON *model, const char *key, const char *where, char **ret,
                         Error *err)
{
    const char *text = "";
    TRY(json_string_or(model, key, where, &text, err));
    if (text[0] != '\0') *ret = mem_strdup(text);
    return OK;
}

static Status load_flags(Bpe *bpe, const cJSON *model, const char *where, Error *err)
{
    double dropout = 0;
    TRY(json_double_or(model, "dropout", where, &dropout, err));
    if (dropout != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: model.dropout is %g: ids would be random; set it to null", where,
                         dropout);
    TRY(json_bool_or(model, "fuse_unk", where, &bpe->fuse_unk, err));
    TRY(json_bool_or(model, "byte_fallback", where, &bpe->byte_fallback, err));
    TRY(json_bool_or(model, "ignore_merges", where, &bpe->ignore_merges, err));
    TRY(load_affix(model, "continuing_subword_prefix", where, &bpe->prefix, err));
    TRY(load_affix(model, "end_of_word_suffix", where, &bpe->suffix, err));
    const char *unk = NULL;
    TRY(json_string_or(model, "unk_token", where, &unk, err));
    if (unk != NULL) bpe->unk_token = mem_strdup(unk);
    return OK;
}

Status bpe_load(Bpe *bpe, const cJSON *model, bool byte_level, const char *where, Error *err)
{
    const cJSON *vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab");
    const cJSON *merges = cJSON_GetObjectItemCaseSensitive(model, "merges");
    if (!cJSON_IsObject(vocab))
        return error_set(err, ERR_DATA, "%s: model.vocab is %s, expected an object", where,
                         json_type_name(vocab));
    if (!cJSON_IsArray(merges))
        return error_set(err, ERR_DATA, "%s: model.merges is %s, expected a list", where,
                         json_type_name(merges));
    TRY(load_flags(bpe, model, where, err));
    TRY(load_vocabulary(bpe, vocab, where, err));
    TRY(load_merges(bpe, merges, where, err));
    bpe->unk_id = TOKEN_NONE;
    if (bpe->unk_token != NULL)
        bpe->unk_id = vocabulary_find(&bpe->spelled, bpe->unk_token, strlen(bpe->unk_token));
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        int length = snprintf(text, sizeof text, "<0x%02X>", byte);
        bpe->fallback_id[byte] = vocabulary_find(&bpe->spelled, text, (size_t)length);
    }
    bpe->byte_level = byte_level && bpe->prefix == NULL && bpe->suffix == NULL;
    if (bpe->byte_level) fill_raw_vocabulary(bpe);
    return OK;
}

void bpe_free(Bpe *bpe)
{
    vocabulary_free(&bpe->spelled);
    vocabulary_free(&bpe->raw);
    free(bpe->prefix);
    free(bpe->suffix);
    free(bpe->unk_token);
    free(bpe->pair);
    free(bpe->merged);
    *bpe = (Bpe){0};
}

/* ---- encoding ---- */

void bpe_scratch_free(BpeScratch *scratch)
{
    free(scratch->symbol);
    free(scratch->heap);
    str_free(&scratch->unit);
    *scratch = (BpeScratch){0};
}

void encoding_append(Encoding *encoding, uint32_t id, ByteOrigin origin)
{
    if (encoding->length == encoding->capacity) {
        encoding->capacity = encoding->capacity * 2 + 64;
        encoding->span = mem_realloc(encoding->span, encoding->capacity, sizeof *encoding->span);
    }
    encoding->span[encoding->length++] = (TokenSpan){(int32_t)id, origin.begin, origin.end};
}

static void append_symbol(BpeScratch *scratch, size_t *count, uint32_t id, uint32_t begin,
                          uint32_t end)
{
    if (*count == scratch->symbol_capacity) {
        scratch->symbol_capacity = scratch->symbol_capacity * 2 + 64;
        scratch->symbol =
            mem_realloc(scratch->symbol, scratch->symbol_capacity, sizeof *scratch->symbol);
    }
    scratch->symbol[(*count)++] = (BpeSymbol){.id = id, .begin = begin, .end = end};
}

/* An unknown token that waits to be fused with the next one. */
typedef struct PendingUnknown {
    bool waiting;
    uint32_t begin, end;
} PendingUnknown;

static void flush_unknown(const Bpe *bpe, BpeScratch *scratch, size_t *count,
                          PendingUnknown *unknown)
{
    if (!unknown->waiting) return;
    append_symbol(scratch, count, bpe->unk_id, unknown->begin, unknown->end);
    unknown->waiting = false;
}

/* A character that the vocabulary lacks, spelled `unit` (with prefix and suffix), at `at` in the
 * word: its bytes as <0xNN>, or the unknown token, or nothing. The reference does not flush a
 * waiting unknown before <0xNN> tokens; neither do we. */
static Status append_unknown(const Bpe *bpe, BpeScratch *scratch, size_t *count, const Str *unit,
                             ByteOrigin at, PendingUnknown *unknown, Error *err)
{
    bool fallback = bpe->byte_fallback;
    for (size_t i = 0; fallback && i < unit->length; i++)
        fallback = bpe->fallback_id[(unsigned char)unit->data[i]] != TOKEN_NONE;
    if (fallback) {
        uint32_t begin = at.begin;
        for (size_t i = 0; i < unit->length; i++) {
            uint32_t end = i + 1 == unit->length || begin == at.end ? at.end : begin + 1;
            append_symbol(scratch, count, bpe->fallback_id[(unsigned char)unit->data[i]], begin,
                          end);
            begin = end;
        }
        return OK;
    }
    if (bpe->unk_token == NULL) return OK;
    if (bpe->unk_id == TOKEN_NONE)
        return error_set(err, ERR_DATA, "the unknown token \"%.100s\" is not in the vocabulary",
                         bpe->unk_token);
    if (unknown->waiting && bpe->fuse_unk) {
        unknown->end = at.end;
        return OK;
    }
    flush_unknown(bpe, scratch, count, unknown);
    *unknown = (PendingUnknown){true, at.begin, at.end};
    return OK;
}

/* Writes the character at `at` as the vocabulary would spell it; returns its size in the word. */
static uint32_t spell_unit(const Bpe *bpe, const TextView *word, uint32_t at, Str *unit)
{
    uint32_t size = 1;
    str_clear(unit);
    if (at > 0 && bpe->prefix != NULL) str_puts(unit, bpe->prefix);
    if (bpe->byte_level) {
        char spelled[4];
        int length = utf8_encode(byte_level_char((unsigned char)word->data[at]), spelled);
        str_append(unit, spelled, (size_t)length);
    } else {
        utf8_next(word->data + at, &size);
        str_append(unit, word->data + at, size);
    }
    if (at + size == word->length && bpe->suffix != NULL) str_puts(unit, bpe->suffix);
    return size;
}

/* Splits a word into its first symbols: characters, or bytes at byte level. */
static Status split_symbols(const Bpe *bpe, BpeScratch *scratch, const TextView *word,
                            size_t *ret_count, Error *err)
{
    size_t count = 0;
    PendingUnknown unknown = {0};
    for (uint32_t at = 0, size; at < word->length; at += size) {
        Str *unit = &scratch->unit;
        size = spell_unit(bpe, word, at, unit);
        uint32_t id = vocabulary_find(&bpe->spelled, unit->data, unit->length);
        if (id != TOKEN_NONE) {
            flush_unknown(bpe, scratch, &count, &unknown);
            append_symbol(scratch, &count, id, at, at + size);
        } else {
            TRY(append_unknown(bpe, scratch, &count, unit, (ByteOrigin){at, at + size}, &unknown,
                               err));
        }
    }
    flush_unknown(bpe, scratch, &count, &unknown);
    *ret_count = count;
    return OK;
}

static void heap_push(BpeScratch *scratch, size_t *count, uint64_t value)
{
    if (*count == scratch->heap_capacity) {
        scratch->heap_capacity = scratch->heap_capacity * 2 + 64;
        scratch->heap = mem_realloc(scratch->heap, scratch->heap_capacity, sizeof *scratch->heap);
    }
    uint64_t *heap = scratch->heap;
    size_t at = (*count)++;
    while (at > 0 && heap[(at - 1) / 2] > value) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    uint64_t top = heap[0], value = heap[--*count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= *count) break;
        if (child + 1 < *count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
    return top;
}

static void push_pair(const Bpe *bpe, BpeScratch *scratch, size_t *heap_count, uint32_t left)
{
    const BpeSymbol *symbol = scratch->symbol;
    uint32_t rank = pair_rank(bpe, symbol[left].id, symbol[symbol[left].next].id);
    if (rank != RANK_NONE) heap_push(scratch, heap_count, (uint64_t)rank << 32 | left);
}

/* Merges by a heap of (rank, position): n log n for any word. An entry is out of date when the pair
 * at its position has another rank by now. */
static void merge_symbols(const Bpe *bpe, BpeScratch *scratch, size_t count)
{
    BpeSymbol *symbol = scratch->symbol;
    size_t heap_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        symbol[i].previous = i == 0 ? UINT32_MAX : i - 1;
        symbol[i].next = i + 1 == count ? UINT32_MAX : i + 1;
    }
    for (uint32_t i = 0; i + 1 < count; i++)
        push_pair(bpe, scratch, &heap_count, i);
    while (heap_count > 0) {
        uint64_t top = heap_pop(scratch->heap, &heap_count);
        uint32_t left = (uint32_t)top, rank = (uint32_t)(top >> 32);
        if (symbol[left].id == TOKEN_NONE) continue;
        uint32_t right = symbol[left].next;
        if (right == UINT32_MAX || pair_rank(bpe, symbol[left].id, symbol[right].id) != rank)
            continue;
        symbol[left].id = bpe->merged[rank];
        symbol[left].end = symbol[right].end;
        symbol[left].next = symbol[right].next;
        symbol[right].id = TOKEN_NONE;
        if (symbol[left].next != UINT32_MAX) {
            symbol[symbol[left].next].previous = left;
            push_pair(bpe, scratch, &heap_count, left);
        }
        if (symbol[left].previous != UINT32_MAX)
            push_pair(bpe, scratch, &heap_count, symbol[left].previous);
    }
}

Status bpe_encode(const Bpe *bpe, BpeScratch *scratch, const TextView *word, Encoding *encoding,
                  Error *err)
{
    if (word->length == 0) return OK;
    if (bpe->ignore_merges) {
        const Vocabulary *vocab = bpe->byte_level ? &bpe->raw : &bpe->spelled;
        uint32_t id = vocabulary_find(vocab, word->data, word->length);
        if (id != TOKEN_NONE) {
            encoding_append(encoding, id, text_view_origin(word, 0, word->length));
            return OK;
        }
    }
    size_t count = 0;
    TRY(split_symbols(bpe, scratch, word, &count, err));
    merge_symbols(bpe, scratch, count);
    for (size_t i = 0; i < count; i++) {
        const BpeSymbol *symbol = &scratch->symbol[i];
        if (symbol->id != TOKEN_NONE)
            encoding_append(encoding, symbol->id,
                            text_view_origin(word, symbol->begin, symbol->end));
    }
    return OK;
}
