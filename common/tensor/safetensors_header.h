/* The header of one safetensors file as a pure function of its bytes: what safetensors_open reads
 * from disk, and what the fuzzer feeds. Any thread. */
#ifndef TROUPE_TENSOR_SAFETENSORS_HEADER_H
#define TROUPE_TENSOR_SAFETENSORS_HEADER_H

#include "tensor/tensor.h"

typedef struct SafetensorsTensor {
    char *name;
    const char *dtype_name;         /* the format's, static; for messages */
    DType dtype;                    /* DTYPE_COUNT: the format has it, this program does not */
    int rank;                       /* may exceed TENSOR_RANK_MAX */
    int64_t shape[TENSOR_RANK_MAX]; /* the first dimensions */
    int64_t begin, end;             /* bytes within the data part */
} SafetensorsTensor;

typedef struct SafetensorsHeader {
    SafetensorsTensor *tensor; /* sorted by name (strcmp) */
    int count;
} SafetensorsHeader;

/* Parses and checks the header text (without its 8-byte length) of a file with `data_bytes` bytes
 * after it. Refused with ERR_DATA, beyond what the format's own readers refuse: a name or member
 * that occurs twice, members the format does not define, NUL in names. `where` names the file in
 * messages. */
Status safetensors_header_parse(const char *text, size_t length, int64_t data_bytes,
                                const char *where, SafetensorsHeader *ret, Error *err);
void safetensors_header_clear(SafetensorsHeader *header);

/* The tensor of that name, or NULL. */
const SafetensorsTensor *safetensors_header_find(const SafetensorsHeader *header, const char *name);

#endif
