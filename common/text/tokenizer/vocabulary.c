#include "text/tokenizer/vocabulary.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"

void vocabulary_free(Vocabulary *vocabulary)
{
    free(vocabulary->pool);
    free(vocabulary->offset);
    free(vocabulary->length);
    free(vocabulary->slot);
    *vocabulary = (Vocabulary){0};
}

void vocabulary_reserve(Vocabulary *vocabulary, size_t count)
{
    CHECK(vocabulary->slot == NULL);
    uint32_t slots = 16;
    while (slots < 2 * (count + 1))
        slots *= 2;
    vocabulary->slot = mem_alloc(slots * sizeof *vocabulary->slot);
    for (uint32_t i = 0; i < slots; i++)
        vocabulary->slot[i] = (VocabularySlot){0, TOKEN_NONE};
    vocabulary->slot_mask = slots - 1;
}

static void reserve_ids(Vocabulary *vocabulary, uint32_t count)
{
    if (count <= vocabulary->id_capacity) return;
    uint32_t capacity = count < 1024 ? 1024 : count * 2;
    vocabulary->offset = mem_realloc(vocabulary->offset, capacity, sizeof *vocabulary->offset);
    vocabulary->length = mem_realloc(vocabulary->length, capacity, sizeof *vocabulary->length);
    for (uint32_t i = vocabulary->id_capacity; i < capacity; i++) {
        vocabulary->offset[i] = SIZE_MAX;
        vocabulary->length[i] = UINT32_MAX;
    }
    vocabulary->id_capacity = capacity;
}

void vocabulary_add(Vocabulary *vocabulary, const char *bytes, size_t length, uint32_t id)
{
    CHECK(id < TOKEN_IDS_MAX && vocabulary->slot != NULL);
    uint64_t hash = bytes_hash(bytes, length);
    uint32_t known = vocabulary_find_hashed(vocabulary, bytes, length, hash);
    if (known == id) return;
    reserve_ids(vocabulary, id + 1);
    CHECK(vocabulary->offset[id] == SIZE_MAX);
    if (known != TOKEN_NONE) {
        vocabulary->offset[known] = SIZE_MAX;
        vocabulary->length[known] = UINT32_MAX;
    }
    if (id >= vocabulary->id_count) vocabulary->id_count = id + 1;
    if (vocabulary->pool_capacity - vocabulary->pool_length < length + 1) {
        vocabulary->pool_capacity = (vocabulary->pool_capacity + length + 1) * 2 + 4096;
        vocabulary->pool = mem_realloc(vocabulary->pool, vocabulary->pool_capacity, 1);
    }
    char *copy = vocabulary->pool + vocabulary->pool_length;
    memcpy(copy, bytes, length);
    copy[length] = '\0';
    vocabulary->offset[id] = vocabulary->pool_length;
    vocabulary->length[id] = (uint32_t)length;
    vocabulary->pool_length += length + 1;
    uint32_t at = (uint32_t)hash & vocabulary->slot_mask;
    while (vocabulary->slot[at].id != known)
        at = (at + 1) & vocabulary->slot_mask;
    if (known == TOKEN_NONE) {
        CHECK(vocabulary->count < vocabulary->slot_mask);
        vocabulary->count++;
    }
    vocabulary->slot[at] = (VocabularySlot){(uint32_t)(hash >> 32), id};
}
