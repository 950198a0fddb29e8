/* Data sets on the server of hub/support.h, and what their records have to be. A failure fails the
 * test. */
#ifndef TROUPE_TESTS_HUB_SETS_H
#define TROUPE_TESTS_HUB_SETS_H

#include "dataset/dataset.h"

#define SHARDS 6
#define ROWS   400 /* of a shard; 16 kB */

/* data/train-0000I-of-00006.jsonl, and a small test split; the numbers begin with `first`. */
void sets_put_shards(const char *repo, int first);
int64_t sets_shard_bytes(const char *repo); /* of the largest */
/* Of blobs that are no small files, whole or on their way. */
int64_t sets_cache_bytes(const char *repo);
/* Takes its name from all that was fetched, as a session does that ends just before the end of each
 * download. */
void sets_end_before_names(const char *repo);

Dataset *sets_open(const DatasetOptions *options);
void sets_assert_record(const Dataset *dataset, uint64_t index, int number);

#endif
