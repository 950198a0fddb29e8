/* Digests of much memory, at the speed of memory: XXH3's 64 bits (https://xxhash.com), which tell
 * accidents, not attacks. Any thread. */
#ifndef TROUPE_TENSOR_DIGEST_H
#define TROUPE_TENSOR_DIGEST_H

#include <stddef.h>
#include <stdint.h>

uint64_t digest_memory(const void *from, size_t bytes);

/* The same, copied on the way, past the caches where the machine can: for much that this thread
 * does not read again. They must not overlap. */
uint64_t digest_copy(void *to, const void *from, size_t bytes);

/* Copies, through the caches, and digests the copy: what stands at `to` and will be used, whatever
 * became of `from` or on the way. They must not overlap. */
uint64_t copy_digest(void *to, const void *from, size_t bytes);

#endif
