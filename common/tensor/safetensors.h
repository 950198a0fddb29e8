/* safetensors files (https://github.com/huggingface/safetensors, format 0.3): read by name with every
 * check the format asks for, written so that they can be flushed, digested and committed. Also a Hugging
 * Face folder of shards with its model.safetensors.index.json. A reader may be used by one thread at a time. */
#ifndef TROUPE_TENSOR_SAFETENSORS_H
#define TROUPE_TENSOR_SAFETENSORS_H

#include "tensor/tensor.h"

typedef struct SafetensorsReader SafetensorsReader;

/* Opens one .safetensors file, or a folder: its model.safetensors, or the shards its
 * <stem>.safetensors.index.json names (stem "model" or "optimizer"). Headers are read and checked, data is not.
 * Errors name the file, what was found and what was expected. */
Status safetensors_open(const char *path, const char *stem, SafetensorsReader **ret, Error *err);
void safetensors_close(SafetensorsReader *reader); /* accepts NULL */

int safetensors_count(const SafetensorsReader *reader);
const char *safetensors_name(const SafetensorsReader *reader, int index); /* borrowed; sorted by name */

/* Shape and type of a tensor (data is NULL); ERR_NOT_FOUND names the nearest existing tensor. */
Status safetensors_describe(const SafetensorsReader *reader, const char *name, Tensor *ret,
                            Error *err);

/* Reads elements [first, first + count) of the tensor's row-major order into `destination`, which has the
 * file's type: a rank reads only its shard. */
Status safetensors_read(SafetensorsReader *reader, const char *name, int64_t first, int64_t count,
                        void *destination, Error *err);

/* ---- writing ---- */

typedef struct SafetensorsEntry {
    const char *name;
    DType dtype;
    int rank;
    int64_t shape[TENSOR_RANK_MAX];
} SafetensorsEntry;

typedef struct SafetensorsWriter SafetensorsWriter;

/* Creates the file (it must not exist), reserves its whole size (a full disk is ERR_RESOURCE here, before any
 * work) and writes the header; entries are laid out in the order given. `metadata` may be NULL. */
Status safetensors_create(const char *path, const SafetensorsEntry *entries, int count,
                          const char *const *metadata_pairs, int metadata_count,
                          SafetensorsWriter **ret, Error *err);
/* Appends the next entry's data, whole or in pieces; pieces must come in the order of the entries. */
Status safetensors_write(SafetensorsWriter *writer, const void *data, size_t bytes, Error *err);
/* Flushes to disk and closes. Gives the file's size and SHA-256 as 64 hex digits and a NUL. */
Status safetensors_finish(SafetensorsWriter *writer, int64_t *ret_bytes, char ret_sha256[65],
                          Error *err);
void safetensors_abandon(SafetensorsWriter *writer); /* closes and removes the file; accepts NULL */

#endif
