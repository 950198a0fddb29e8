/* safetensors files (https://github.com/huggingface/safetensors, format 0.3): read by name with
 * every check the format asks for, written so that they can be flushed, digested and committed.
 * Also a Hugging Face folder of shards with its model.safetensors.index.json. A reader may be
 * used by one thread at a time. */
#ifndef TROUPE_TENSOR_SAFETENSORS_H
#define TROUPE_TENSOR_SAFETENSORS_H

#include "tensor/tensor.h"

typedef struct SafetensorsReader SafetensorsReader;

/* Opens one .safetensors file, or a folder: its <stem>.safetensors, or else the shards that its
 * <stem>.safetensors.index.json names (stem "model" or "optimizer"; unused for a file). Headers
 * are read and checked, data is not. ERR_DATA: malformed, or an index that names what is not
 * there; ERR_NOT_FOUND: no such file, or a folder with neither; ERR_UNSUPPORTED: pickle weights
 * (.bin, .pt), which are never read. Tensors that an index does not name are not seen. */
Status safetensors_open(const char *path, const char *stem, SafetensorsReader **ret, Error *err);
void safetensors_close(SafetensorsReader *reader); /* accepts NULL */

int safetensors_count(const SafetensorsReader *reader);
const char *safetensors_name(const SafetensorsReader *reader,
                             int index); /* borrowed; sorted by name */

/* Shape and type of a tensor (data is NULL); ERR_NOT_FOUND names the nearest existing tensor,
 * ERR_UNSUPPORTED is a type or number of dimensions that the format has and this program does
 * not. */
Status safetensors_describe(const SafetensorsReader *reader, const char *name, Tensor *ret,
                            Error *err);

/* Reads elements [first, first + count) of the tensor's row-major order into `destination`,
 * which has the file's type: a rank reads only its shard. ERR_DATA when the file was changed
 * since it was opened. */
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

/* Creates the file (it must not exist), reserves its whole size (a full disk is ERR_RESOURCE
 * here, before any work) and writes the header; entries are laid out in the order given, which
 * must put larger element types before smaller ones where a tensor would otherwise start off its
 * alignment (ERR_INVALID). `metadata_pairs` holds metadata_count pairs key, value, key, value
 * ...; NULL when there are none. transformers wants {"format", "pt"}. On failure no file is
 * left. */
Status safetensors_create(const char *path, const SafetensorsEntry *entries, int count,
                          const char *const *metadata_pairs, int metadata_count,
                          SafetensorsWriter **ret, Error *err);
/* Appends the next entry's data, whole or in pieces; pieces must come in the order of the
 * entries. */
Status safetensors_write(SafetensorsWriter *writer, const void *data, size_t bytes, Error *err);
/* Brings what was written so far to the disk in pieces, with a call of `progress` after each: for
 * whoever must show that it gets on. Makes nothing durable by itself; finish does. */
Status safetensors_flush(SafetensorsWriter *writer, void (*progress)(void *context), void *context,
                         Error *err);
/* Flushes to disk and closes; the folder's entry is for the caller to flush. Gives the file's
 * size and SHA-256 as 64 hex digits and a NUL. Takes the writer, also on failure: then the file
 * is removed. */
Status safetensors_finish(SafetensorsWriter *writer, int64_t *ret_bytes, char ret_sha256[65],
                          Error *err);
void safetensors_abandon(SafetensorsWriter *writer); /* closes and removes the file; accepts NULL */

/* Which file of a folder holds a tensor, and its size: one line of an index. */
typedef struct SafetensorsPlace {
    const char *tensor;
    const char *file;
    int64_t bytes;
} SafetensorsPlace;

/* The text of <stem>.safetensors.index.json as transformers writes it (weight_map sorted by
 * name, total_size). *ret_text is owned by the caller. A tensor that occurs twice is
 * ERR_INVALID. */
Status safetensors_index_text(const SafetensorsPlace *places, int count, char **ret_text,
                              size_t *ret_length, Error *err);

#endif
