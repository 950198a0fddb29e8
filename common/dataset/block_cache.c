#include "dataset/block_cache.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"

#define BUCKETS 1024

typedef struct Entry {
    Block block; /* first: a Block in use is its Entry */
    const void *file;
    uint64_t index;
    int users;
    bool loading;
    struct Entry *chain;         /* of its bucket */
    struct Entry *newer, *older; /* among those that nobody uses */
} Entry;

struct BlockCache {
    pthread_mutex_t lock;
    pthread_cond_t loaded; /* or settled */
    Entry *bucket[BUCKETS];
    Entry *newest, *oldest;         /* of those that nobody uses */
    size_t count, bytes, bytes_max; /* of entries */
    size_t in_work;                 /* claimed */
};

static size_t bucket_of(const void *file, uint64_t index)
{
    return (size_t)(((uintptr_t)file >> 4) * 31 + index) % BUCKETS;
}

BlockCache *block_cache_create(size_t bytes_max)
{
    BlockCache *cache = mem_calloc(1, sizeof *cache);
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->loaded, NULL);
    cache->bytes_max = bytes_max;
    return cache;
}

void block_cache_limit(BlockCache *cache, size_t bytes_max)
{
    CHECK(cache->bytes == 0);
    if (bytes_max < cache->bytes_max) cache->bytes_max = bytes_max;
}

void block_cache_clear(BlockCache *cache)
{
    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < BUCKETS; i++) {
        for (Entry *entry = cache->bucket[i], *next; entry != NULL; entry = next) {
            CHECK(entry->users == 0);
            next = entry->chain;
            free(entry->block.data);
            free(entry);
        }
        cache->bucket[i] = NULL;
    }
    cache->newest = cache->oldest = NULL;
    cache->count = cache->bytes = 0;
    pthread_mutex_unlock(&cache->lock);
}

void block_cache_destroy(BlockCache *cache)
{
    if (cache == NULL) return;
    block_cache_clear(cache);
    pthread_cond_destroy(&cache->loaded);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* ---- all below with the lock held ---- */

static void leave_idle_list(BlockCache *cache, Entry *entry)
{
    if (entry->newer != NULL) entry->newer->older = entry->older;
    if (entry->older != NULL) entry->older->newer = entry->newer;
    if (cache->newest == entry) cache->newest = entry->older;
    if (cache->oldest == entry) cache->oldest = entry->newer;
    entry->newer = entry->older = NULL;
}

static void join_idle_list(BlockCache *cache, Entry *entry)
{
    entry->older = cache->newest;
    if (cache->newest != NULL) cache->newest->newer = entry;
    cache->newest = entry;
    if (cache->oldest == NULL) cache->oldest = entry;
}

static void drop(BlockCache *cache, Entry *entry)
{
    Entry **at = &cache->bucket[bucket_of(entry->file, entry->index)];
    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
    cache->count--;
    cache->bytes -= entry->block.bytes;
    free(entry->block.data);
    free(entry);
}

static bool is_over(const BlockCache *cache)
{
    return cache->bytes + cache->in_work > cache->bytes_max;
}

static void make_room(BlockCache *cache)
{
    while (is_over(cache) && cache->oldest != NULL) {
        Entry *entry = cache->oldest;
        leave_idle_list(cache, entry);
        drop(cache, entry);
    }
}

/* A new entry that is being loaded by the caller. */
static Entry *add_entry(BlockCache *cache, const void *file, uint64_t index)
{
    Entry *entry = mem_calloc(1, sizeof *entry);
    Entry **bucket = &cache->bucket[bucket_of(file, index)];
    *entry = (Entry){.file = file, .index = index, .users = 1, .loading = true, .chain = *bucket};
    *bucket = entry;
    cache->count++;
    return entry;
}

static Entry *find_entry(const BlockCache *cache, const void *file, uint64_t index)
{
    Entry *entry = cache->bucket[bucket_of(file, index)];
    while (entry != NULL && (entry->file != file || entry->index != index))
        entry = entry->chain;
    return entry;
}

/* ---- */

Status block_cache_take(BlockCache *cache, const void *file, uint64_t index, BlockLoad load,
                        const Block **ret, Error *err)
{
    pthread_mutex_lock(&cache->lock);
    Entry *entry;
    while ((entry = find_entry(cache, file, index)) != NULL && entry->loading)
        pthread_cond_wait(&cache->loaded, &cache->lock);
    if (entry != NULL) {
        if (entry->users++ == 0) leave_idle_list(cache, entry);
        pthread_mutex_unlock(&cache->lock);
        *ret = &entry->block;
        return OK;
    }
    entry = add_entry(cache, file, index);
    pthread_mutex_unlock(&cache->lock);

    Block block = {0};
    Status status = load(file, index, &block, err);

    pthread_mutex_lock(&cache->lock);
    entry->loading = false;
    if (status == OK) {
        entry->block = block;
        cache->bytes += block.bytes;
        make_room(cache);
        *ret = &entry->block;
    } else {
        drop(cache, entry);
    }
    pthread_cond_broadcast(&cache->loaded);
    pthread_mutex_unlock(&cache->lock);
    return status;
}

void *block_cache_claim(BlockCache *cache, size_t bytes, size_t *ret_bytes)
{
    void *spare = NULL;
    pthread_mutex_lock(&cache->lock);
    while (cache->in_work > 0 && cache->in_work + bytes > BLOCK_WORK_BYTES)
        pthread_cond_wait(&cache->loaded, &cache->lock);
    cache->in_work += bytes;
    Entry *entry = cache->oldest;
    if (entry != NULL && is_over(cache) && entry->block.bytes / 2 <= bytes &&
        bytes / 2 <= entry->block.bytes) {
        spare = entry->block.data;
        *ret_bytes = entry->block.bytes;
        entry->block.data = NULL;
        leave_idle_list(cache, entry);
        drop(cache, entry);
    }
    make_room(cache);
    pthread_mutex_unlock(&cache->lock);
    return spare;
}

void block_cache_settle(BlockCache *cache, size_t bytes)
{
    pthread_mutex_lock(&cache->lock);
    cache->in_work -= bytes;
    pthread_cond_broadcast(&cache->loaded);
    pthread_mutex_unlock(&cache->lock);
}

void block_cache_give_back(BlockCache *cache, const Block *block)
{
    Entry *entry = (Entry *)(uintptr_t)block;
    pthread_mutex_lock(&cache->lock);
    CHECK(entry->users > 0);
    if (--entry->users == 0) {
        join_idle_list(cache, entry);
        make_room(cache);
    }
    pthread_mutex_unlock(&cache->lock);
}

void block_cache_forget(BlockCache *cache, const void *file)
{
    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < BUCKETS && cache->count > 0; i++) {
        for (Entry *entry = cache->bucket[i], *next; entry != NULL; entry = next) {
            next = entry->chain;
            if (entry->file != file) continue;
            CHECK(entry->users == 0);
            leave_idle_list(cache, entry);
            drop(cache, entry);
        }
    }
    pthread_mutex_unlock(&cache->lock);
}
