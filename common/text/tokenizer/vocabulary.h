/* Vocabulary: a two-way table between byte strings and ids. Ids may have gaps. Const once filled;
 * any thread. */
#ifndef TROUPE_TEXT_TOKENIZER_VOCABULARY_H
#define TROUPE_TEXT_TOKENIZER_VOCABULARY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* 20 bits, so that a pair of ids and a rank fit one 8-byte slot of the merge table (bpe.c). */
#define TOKEN_IDS_MAX ((1u << 20) - 1)
#define TOKEN_NONE    UINT32_MAX

typedef struct VocabularySlot {
    uint32_t hash; /* upper half of the string's hash, to pass over most strangers unread */
    uint32_t id;
} VocabularySlot;

typedef struct Vocabulary {
    char *pool; /* every string with a NUL behind it */
    size_t pool_length, pool_capacity;
    size_t *offset;    /* [id_capacity] into the pool; SIZE_MAX: no such id */
    uint32_t *length;  /* [id_capacity] bytes */
    uint32_t id_count; /* 1 + the largest id */
    uint32_t id_capacity;
    VocabularySlot *slot; /* open addressing; id TOKEN_NONE marks an empty one */
    uint32_t slot_mask;   /* number of slots - 1 */
    uint32_t count;       /* distinct strings */
} Vocabulary;

/* Zero-initialise, reserve for `count` strings, then add. */
void vocabulary_reserve(Vocabulary *vocabulary, size_t count);
void vocabulary_free(Vocabulary *vocabulary);

/* Maps `bytes` to `id` (< TOKEN_IDS_MAX, without a string so far) and back; a string that was there
 * before moves to the new id. */
void vocabulary_add(Vocabulary *vocabulary, const char *bytes, size_t length, uint32_t id);

/* The string of an id (NUL-terminated, borrowed), or NULL. */
static inline const char *vocabulary_text(const Vocabulary *vocabulary, uint32_t id)
{
    if (id >= vocabulary->id_count || vocabulary->offset[id] == SIZE_MAX) return NULL;
    return vocabulary->pool + vocabulary->offset[id];
}

/* Mixes up to 16 bytes by overlapping loads and longer strings in steps of 16: words are short, and
 * this is the inner loop of encoding. Not meant to resist chosen keys: tables are filled from the
 * model's own file. */
static inline uint64_t bytes_hash(const char *bytes, size_t length)
{
    const uint64_t k1 = 0x9E3779B97F4A7C15u, k2 = 0xD6E8FEB86659FD93u;
    uint64_t a = 0, b = 0, h = length * k1;
    while (length > 16) {
        memcpy(&a, bytes, 8);
        memcpy(&b, bytes + 8, 8);
        h = (h ^ a) * k1;
        h = ((h ^ h >> 32) ^ b) * k2;
        bytes += 16;
        length -= 16;
    }
    if (length >= 8) {
        memcpy(&a, bytes, 8);
        memcpy(&b, bytes + length - 8, 8);
    } else if (length >= 4) {
        uint32_t low, high;
        memcpy(&low, bytes, 4);
        memcpy(&high, bytes + length - 4, 4);
        a = low;
        b = high;
    } else if (length > 0) {
        a = (unsigned char)bytes[0] | (uint64_t)(unsigned char)bytes[length / 2] << 8;
        b = (unsigned char)bytes[length - 1];
    }
    h = (h ^ a) * k1;
    h = ((h ^ h >> 32) ^ b) * k2;
    return h ^ h >> 29;
}

/* The id of a string, or TOKEN_NONE. */
static inline uint32_t vocabulary_find_hashed(const Vocabulary *vocabulary, const char *bytes,
                                              size_t length, uint64_t hash)
{
    if (vocabulary->slot == NULL) return TOKEN_NONE;
    uint32_t tag = (uint32_t)(hash >> 32);
    for (uint32_t at = (uint32_t)hash & vocabulary->slot_mask;;
         at = (at + 1) & vocabulary->slot_mask) {
        VocabularySlot slot = vocabulary->slot[at];
        if (slot.id == TOKEN_NONE) return TOKEN_NONE;
        if (slot.hash == tag && vocabulary->length[slot.id] == length &&
            memcmp(vocabulary->pool + vocabulary->offset[slot.id], bytes, length) == 0)
            return slot.id;
    }
}

static inline uint32_t vocabulary_find(const Vocabulary *vocabulary, const char *bytes,
                                       size_t length)
{
    return vocabulary_find_hashed(vocabulary, bytes, length, bytes_hash(bytes, length));
}

#endif
