/* SampleStore: the samples that this worker made and that no committed step has consumed yet, by
 * set, position and index. Bounded in bytes: a worker that is asked to hold more refuses the lease.
 * Used by the loop thread only. */
#ifndef TROUPE_ROLLOUT_WORKER_STORE_H
#define TROUPE_ROLLOUT_WORKER_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "sample/sample.h"

typedef struct SampleStore SampleStore;

SampleStore *sample_store_create(size_t bytes_max);
void sample_store_destroy(SampleStore *store); /* accepts NULL */

/* Takes `count` samples of a set (their arrays; the structs are cleared): all of them or, with
 * ERR_RESOURCE, none. One of the same position and index is replaced. */
Status sample_store_put(SampleStore *store, const char *set, Sample *samples, size_t count,
                        Error *err);

/* The sample, or NULL. Borrowed until the next put or release. */
const Sample *sample_store_get(const SampleStore *store, const char *set, int64_t position,
                               int32_t index);

/* Forgets the samples of a set below a position. Earlier positions may be put again later. */
void sample_store_release(SampleStore *store, const char *set, int64_t below);

size_t sample_store_bytes(const SampleStore *store);
size_t sample_store_count(const SampleStore *store);

#endif
