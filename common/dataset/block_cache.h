/* BlockCache: decoded pieces of data files that cannot be read at any byte (stretches of a
 * compressed text, row groups of a table), kept while there is room and dropped in the order of
 * their last use. One cache serves all files of a data set and all threads that read it: a block
 * that somebody is decoding is waited for, not decoded twice. What is held, and what is claimed for
 * decoding, stays within `bytes_max`, but for blocks in use, of which each thread has one at a
 * time, and for what is claimed where that alone is more. */
#ifndef TROUPE_DATASET_BLOCK_CACHE_H
#define TROUPE_DATASET_BLOCK_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct BlockCache BlockCache;

/* A block in use: the bytes stay until it is given back. */
typedef struct Block {
    void *data; /* of malloc */
    size_t bytes;
} Block;

/* Decodes block `index` of `file`, which no other thread decodes meanwhile; may take another block
 * on its way, and give it back. */
typedef Status (*BlockLoad)(const void *file, uint64_t index, Block *ret, Error *err);

BlockCache *block_cache_create(size_t bytes_max);
void block_cache_destroy(BlockCache *cache); /* accepts NULL; no block is in use */
/* Lowers the bound, before anything is in it. */
void block_cache_limit(BlockCache *cache, size_t bytes_max);

/* `file` names the file as well as being handed to `load`. A failure is not kept: who asks next
 * tries again. */
Status block_cache_take(BlockCache *cache, const void *file, uint64_t index, BlockLoad load,
                        const Block **ret, Error *err);
/* Room for a block of about `bytes`, for who is loading one that takes much: what is in work counts
 * as held, and is no more than BLOCK_WORK_BYTES at a time, or one block; others wait. Returns the
 * memory of a block that had to be dropped for it, to be written over, with *ret_bytes of it; NULL:
 * there is room without, or what was dropped is of another size. The caller's, of malloc. */
#define BLOCK_WORK_BYTES (32u << 20)
void *block_cache_claim(BlockCache *cache, size_t bytes, size_t *ret_bytes);
/* As many bytes as were claimed: they are decoded, or will not be. */
void block_cache_settle(BlockCache *cache, size_t bytes);
/* Drops all of it; no block is in use. Files may be forgotten meanwhile. */
void block_cache_clear(BlockCache *cache);
/* Drops what is kept of a file, none of whose blocks is in use: before it is closed. Looks through
 * the whole cache, unless it is empty. */
void block_cache_forget(BlockCache *cache, const void *file);
void block_cache_give_back(BlockCache *cache, const Block *block);

#endif
