/* XXH3 (Collet 2019), which tells one text from another. With the widest vectors that the processor
 * has where the library was built with a choice: 43 GB/s from the cache in place of 10, and the
 * index pass reads, scans and hashes on one core. The value is the same. */
#ifndef TROUPE_DATASET_CONTENT_HASH_H
#define TROUPE_DATASET_CONTENT_HASH_H

#include <xxhash.h>
#ifdef TROUPE_XXHASH_DISPATCH
#include <xxh_x86dispatch.h> /* puts its functions in place of those above */
#endif

#endif
