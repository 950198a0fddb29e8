/* Encoding one word: from the cache, as a whole token, or by merging. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "text/tokenizer/bpe_internal.h"
#include "text/tokenizer/unicode_table.h"

void bpe_scratch_free(BpeScratch *scratch)
{
    free(scratch->symbol);
    free(scratch->heap);
    free(scratch->list_head);
    free(scratch->list_tail);
    free(scratch->node_place);
    free(scratch->node_next);
    free(scratch->sorted);
    str_free(&scratch->unit);
    word_cache_destroy(scratch->cache);
    *scratch = (BpeScratch){0};
}

void encoding_grow(Encoding *encoding)
{
    encoding->capacity = encoding->capacity * 2 + 64;
    encoding->span = mem_realloc(encoding->span, encoding->capacity, sizeof *encoding->span);
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

static void append_symbols(const BpeScratch *scratch, size_t count, const TextView *word,
                           Encoding *encoding)
{
    for (size_t i = 0; i < count; i++) {
        const BpeSymbol *symbol = &scratch->symbol[i];
        if (symbol->id != TOKEN_NONE)
            encoding_append(encoding, symbol->id,
                            text_view_origin(word, symbol->begin, symbol->end));
    }
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
            TRY(append_unknown(bpe, scratch, &count, unit, (ByteOrigin){at, at + size, false},
                               &unknown, err));
        }
    }
    flush_unknown(bpe, scratch, &count, &unknown);
    *ret_count = count;
    return OK;
}

/* ---- words of bytes ---- */

/* The token of the character at `at` if the word may begin with it, or TOKEN_NONE. */
static inline uint32_t start_token(const Bpe *bpe, const TextView *word, uint32_t at,
                                   uint32_t *ret_size)
{
    uint32_t c = utf8_next(word->data + at, ret_size);
    uint32_t end = at + *ret_size;
    if (at > 0 && (unsigned char)word->data[at - 1] < 0x80) return TOKEN_NONE;
    if (end < word->length && (unsigned char)word->data[end] < 0x80) return TOKEN_NONE;
    const uint32_t *page = bpe->char_page[c / 256];
    return page == NULL ? TOKEN_NONE : page[c % 256];
}

/* The symbol at `at` of a byte-level word: a character where that is the same, or a byte. */
static inline uint32_t byte_symbol(const Bpe *bpe, const TextView *word, uint32_t at,
                                   uint32_t *ret_size)
{
    unsigned char byte = (unsigned char)word->data[at];
    if (byte >= 0xC2) {
        uint32_t id = start_token(bpe, word, at, ret_size);
        if (id != TOKEN_NONE) return id;
    }
    *ret_size = 1;
    return bpe->byte_id[byte];
}

/* False if there are too many symbols. */
static bool split_short(const Bpe *bpe, const TextView *word, ShortWord *ret)
{
    ret->count = 0;
    for (uint32_t at = 0, size; at < word->length;) {
        if (ret->count == BPE_SHORT) return false;
        ret->id[ret->count] = byte_symbol(bpe, word, at, &size);
        at += size;
        ret->end[ret->count++] = at;
    }
    return true;
}

static void encode_long_bytes(const Bpe *bpe, BpeScratch *scratch, const TextView *word,
                              Encoding *encoding)
{
    size_t count = 0;
    for (uint32_t at = 0, size; at < word->length; at += size) {
        uint32_t id = byte_symbol(bpe, word, at, &size);
        append_symbol(scratch, &count, id, at, at + size);
    }
    merge_long(bpe, scratch, count);
    append_symbols(scratch, count, word, encoding);
}

static bool is_whole(const Bpe *bpe, uint32_t id)
{
    return bpe->ignore_merges || (bpe->whole[id / 64] >> (id % 64) & 1);
}

/* The tokens of a word of which every byte is known; false if it is too long for `ret`. */
static bool encode_short_bytes(const Bpe *bpe, const TextView *word, ShortWord *ret)
{
    if (word->length <= bpe->longest) {
        uint32_t id = vocabulary_find(&bpe->raw, word->data, word->length);
        if (id != TOKEN_NONE && is_whole(bpe, id)) {
            ret->count = 1;
            ret->id[0] = id;
            ret->end[0] = word->length;
            return true;
        }
    }
    if (!split_short(bpe, word, ret)) return false;
    merge_short(bpe, ret, NULL);
    return true;
}

/* ---- words of characters ---- */

/* The tokens of a word if they are few and cover it without gaps; *ret_done is false otherwise, and
 * scratch->symbol then holds *ret_count symbols. */
static Status encode_short_chars(const Bpe *bpe, BpeScratch *scratch, const TextView *word,
                                 ShortWord *ret, bool *ret_done, size_t *ret_count, Error *err)
{
    TRY(split_symbols(bpe, scratch, word, ret_count, err));
    uint32_t at = 0;
    *ret_done = false;
    if (*ret_count > BPE_SHORT) return OK;
    for (size_t i = 0; i < *ret_count; i++) {
        const BpeSymbol *symbol = &scratch->symbol[i];
        if (symbol->begin != at) return OK; /* an unknown character without a token */
        ret->id[i] = symbol->id;
        ret->end[i] = at = symbol->end;
    }
    if (at != word->length) return OK;
    ret->count = (uint32_t)*ret_count;
    merge_short(bpe, ret, NULL);
    *ret_done = true;
    return OK;
}

/* ---- with the cache ---- */

static inline bool is_padded(const BpeScratch *scratch, const TextView *word)
{
    return word->data >= scratch->text_begin && scratch->text_end - word->data >= 24;
}

static inline bool find_cached(const CachedWord *slot, WordKey key, const TextView *word,
                               Encoding *encoding)
{
    if (!word_key_equal(slot->key, key)) return false;
    uint32_t begin = 0;
    for (uint32_t i = 0; i < slot->count; i++) {
        uint32_t end = i + 1 < slot->count ? slot->end[i] : word->length;
        encoding_append(encoding, slot->id[i], text_view_origin(word, begin, end));
        begin = end;
    }
    return true;
}

static void put_cached(CachedWord *slot, WordKey key, const ShortWord *word)
{
    if (word->count > CACHED_WORD_TOKENS) return;
    slot->key = key;
    slot->count = (uint8_t)word->count;
    for (uint32_t i = 0; i < word->count; i++) {
        slot->id[i] = word->id[i];
        if (i + 1 < word->count) slot->end[i] = (uint8_t)word->end[i];
    }
}

static void append_short(const ShortWord *tokens, const TextView *word, Encoding *encoding)
{
    uint32_t begin = 0;
    for (uint32_t i = 0; i < tokens->count; i++) {
        encoding_append(encoding, tokens->id[i], text_view_origin(word, begin, tokens->end[i]));
        begin = tokens->end[i];
    }
}

/* Encodes a word that the cache does not hold, and puts it there. */
static Status encode_new(const Bpe *bpe, BpeScratch *scratch, const PendingWord *pending,
                         Encoding *encoding, Error *err)
{
    ShortWord tokens;
    bool done = false;
    size_t count = 0;
    const TextView *word = &pending->word;
    if (bpe->all_bytes_known) {
        done = encode_short_bytes(bpe, word, &tokens);
        if (!done) encode_long_bytes(bpe, scratch, word, encoding);
    } else {
        TRY(encode_short_chars(bpe, scratch, word, &tokens, &done, &count, err));
        if (!done) {
            merge_long(bpe, scratch, count);
            append_symbols(scratch, count, word, encoding);
        }
    }
    if (!done) return OK;
    append_short(&tokens, word, encoding);
    if (pending->slot != NULL) put_cached(pending->slot, pending->key, &tokens);
    return OK;
}

static inline PendingWord find_slot(const BpeScratch *scratch, const TextView *word)
{
    PendingWord pending = {.word = *word};
    if (scratch->cache != NULL && word->length <= CACHED_WORD_BYTES) {
        pending.key = word_key(word->data, word->length, is_padded(scratch, word));
        pending.slot = word_cache_slot(scratch->cache, pending.key);
    }
    return pending;
}

static inline Status encode_pending(const Bpe *bpe, BpeScratch *scratch, const PendingWord *pending,
                                    Encoding *encoding, Error *err)
{
    if (pending->slot != NULL && find_cached(pending->slot, pending->key, &pending->word, encoding))
        return OK;
    return encode_new(bpe, scratch, pending, encoding, err);
}

static Status encode_word(const Bpe *bpe, BpeScratch *scratch, const TextView *word,
                          Encoding *encoding, Error *err)
{
    PendingWord pending = find_slot(scratch, word);
    return encode_pending(bpe, scratch, &pending, encoding, err);
}

Status bpe_flush(const Bpe *bpe, BpeScratch *scratch, Encoding *encoding, Error *err)
{
    int count = scratch->pending_count;
    scratch->pending_count = 0;
    for (int i = 0; i < count; i++)
        TRY(encode_pending(bpe, scratch, &scratch->pending[i], encoding, err));
    return OK;
}

Status bpe_push(const Bpe *bpe, BpeScratch *scratch, const TextView *word, Encoding *encoding,
                Error *err)
{
    if (!bpe->all_bytes_known) return bpe_encode(bpe, scratch, word, encoding, err);
    PendingWord *pending = &scratch->pending[scratch->pending_count++];
    *pending = find_slot(scratch, word);
    if (pending->slot != NULL) __builtin_prefetch(pending->slot);
    if (scratch->pending_count < BPE_BATCH) return OK;
    return bpe_flush(bpe, scratch, encoding, err);
}

/* The end of the part of a word before the next place where it may be cut. */
static uint32_t next_cut(const Bpe *bpe, const TextView *word, uint32_t at)
{
    size_t size = strlen(bpe->cut);
    while (word->length - at >= size && memcmp(word->data + at, bpe->cut, size) == 0)
        at += (uint32_t)size;
    const char *found = memmem(word->data + at, word->length - at, bpe->cut, size);
    return found == NULL ? word->length : (uint32_t)(found - word->data);
}

Status bpe_encode(const Bpe *bpe, BpeScratch *scratch, const TextView *word, Encoding *encoding,
                  Error *err)
{
    if (word->length == 0) return OK;
    if (bpe->ignore_merges && !bpe->all_bytes_known) {
        const Vocabulary *vocab = bpe->byte_level ? &bpe->raw : &bpe->spelled;
        uint32_t id = vocabulary_find(vocab, word->data, word->length);
        if (id != TOKEN_NONE) {
            encoding_append(encoding, id, text_view_origin(word, 0, word->length));
            return OK;
        }
    }
    if (bpe->cut[0] == '\0') return encode_word(bpe, scratch, word, encoding, err);
    for (uint32_t at = 0, end; at < word->length; at = end) {
        end = next_cut(bpe, word, at);
        TextView part = text_view_slice(word, at, end);
        TRY(encode_word(bpe, scratch, &part, encoding, err));
    }
    return OK;
}
