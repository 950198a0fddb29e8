#include "rollout_worker/store.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "base/memory.h"

typedef struct SampleKey {
    char set[SET_NAME_BYTES]; /* padded with NULs: keys are compared as bytes */
    int64_t position;
    int64_t index;
} SampleKey;

typedef struct StoredSample {
    SampleKey key;
    Sample sample;
    size_t bytes;
    UT_hash_handle hh;
} StoredSample;

struct SampleStore {
    StoredSample *sample; /* a hash table */
    size_t bytes, bytes_max;
};

static SampleKey sample_key(const char *set, int64_t position, int32_t index)
{
    SampleKey key;
    memset(&key, 0, sizeof key);
    size_t length = strlen(set);
    CHECK(length < sizeof key.set);
    memcpy(key.set, set, length);
    key.position = position;
    key.index = index;
    return key;
}

static size_t sample_bytes(const Sample *sample)
{
    size_t per_token = sizeof(int32_t) + 1 + (sample->log_prob != NULL ? sizeof(float) : 0);
    return sizeof(StoredSample) + (size_t)sample->length * per_token;
}

static StoredSample *find(const SampleStore *store, const SampleKey *key)
{
    StoredSample *found = NULL;
    HASH_FIND(hh, store->sample, key, sizeof *key, found);
    return found;
}

static void drop(SampleStore *store, StoredSample *stored)
{
    HASH_DEL(store->sample, stored);
    store->bytes -= stored->bytes;
    sample_clear(&stored->sample);
    free(stored);
}

SampleStore *sample_store_create(size_t bytes_max)
{
    SampleStore *store = mem_calloc(1, sizeof *store);
    store->bytes_max = bytes_max;
    return store;
}

void sample_store_destroy(SampleStore *store)
{
    if (store == NULL) return;
    StoredSample *stored, *next;
    HASH_ITER(hh, store->sample, stored, next)
    drop(store, stored);
    free(store);
}

Status sample_store_put(SampleStore *store, const char *set, Sample *samples, size_t count,
                        Error *err)
{
    size_t bytes = 0, replaced = 0;
    for (size_t i = 0; i < count; i++) {
        SampleKey key = sample_key(set, samples[i].position, samples[i].index);
        const StoredSample *old = find(store, &key);
        bytes += sample_bytes(&samples[i]);
        if (old != NULL) replaced += old->bytes;
    }
    if (store->bytes - replaced + bytes > store->bytes_max)
        return error_set(
            err, ERR_RESOURCE,
            "this rollout worker holds %zu bytes of samples and cannot take %zu more (at most "
            "%zu, SAMPLE_STORE_BYTES_MAX)\n  to do: lower rollout.prefetch_steps (with generate "
            "max_staleness) or train.global_batch_size, or raise rollout.num_workers",
            store->bytes, bytes, store->bytes_max);
    for (size_t i = 0; i < count; i++) {
        SampleKey key = sample_key(set, samples[i].position, samples[i].index);
        StoredSample *old = find(store, &key);
        if (old != NULL) drop(store, old);
        StoredSample *stored = mem_calloc(1, sizeof *stored);
        stored->key = key;
        stored->bytes = sample_bytes(&samples[i]);
        stored->sample = samples[i];
        memset(&samples[i], 0, sizeof samples[i]);
        HASH_ADD(hh, store->sample, key, sizeof stored->key, stored);
        store->bytes += stored->bytes;
    }
    return OK;
}

const Sample *sample_store_get(const SampleStore *store, const char *set, int64_t position,
                               int32_t index)
{
    SampleKey key = sample_key(set, position, index);
    const StoredSample *found = find(store, &key);
    return found != NULL ? &found->sample : NULL;
}

void sample_store_release(SampleStore *store, const char *set, int64_t below)
{
    SampleKey name = sample_key(set, 0, 0);
    StoredSample *stored, *next;
    HASH_ITER(hh, store->sample, stored, next)
    {
        bool same_set = memcmp(stored->key.set, name.set, sizeof name.set) == 0;
        if (same_set && stored->key.position < below) drop(store, stored);
    }
}

size_t sample_store_bytes(const SampleStore *store)
{
    return store->bytes;
}

size_t sample_store_count(const SampleStore *store)
{
    return HASH_COUNT(store->sample);
}
