/* Digests of much memory, at the speed of memory, which tell accidents, not attacks. Of each piece
 * of DIGEST_PIECE bytes (the last one is filled up with zeros) XXH3's 64 bits
 * (https://xxhash.com), and XXH3 over these and the number of bytes: so that a device that takes
 * thousands of pieces at once (KernelTable.digest_pieces) says the same of the same bytes. Any
 * thread. */
#ifndef TROUPE_TENSOR_DIGEST_H
#define TROUPE_TENSOR_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_PIECE ((size_t)4096)

static inline size_t digest_num_pieces(size_t bytes)
{
    return (bytes + DIGEST_PIECE - 1) / DIGEST_PIECE;
}

uint64_t digest_memory(const void *from, size_t bytes);

/* The same, copied on the way, past the caches where the machine can: for much that this thread
 * does not read again. They must not overlap. */
uint64_t digest_copy(void *to, const void *from, size_t bytes);

/* Copies, through the caches, and digests the copy: what stands at `to` and will be used, whatever
 * became of `from` or on the way. They must not overlap. */
uint64_t copy_digest(void *to, const void *from, size_t bytes);

/* The digest of `bytes` of memory from those of its pieces [digest_num_pieces(bytes)]. */
uint64_t digest_join(const uint64_t *pieces, size_t bytes);

#endif
