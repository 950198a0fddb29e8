/* FileProbe: a data file known without reading all of it: a hash of its size, its beginning, its
 * end and places in between. Tells files apart that were exchanged, cut, grown or written anew;
 * of a change of a few bytes in the middle it sees nothing: who relies on a probe checks the rest
 * where it is read (block_text.h). */
#ifndef TROUPE_DATASET_FILE_PROBE_H
#define TROUPE_DATASET_FILE_PROBE_H

#include <stdint.h>

#include "base/error.h"
#include "dataset/file_pool.h"

Status file_probe(DataFile *file, uint64_t *ret_hash, Error *err);

#endif
