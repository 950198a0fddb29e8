/* Bytes: a run of bytes borrowed from whoever holds them. */
#ifndef TROUPE_BASE_BYTES_H
#define TROUPE_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>

typedef struct Bytes {
    const uint8_t *data;
    size_t length;
} Bytes;

#endif
