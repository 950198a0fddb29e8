/* Mirror: an array that host code and kernels both use. Where device memory is ordinary memory it
 * is one array and costs nothing; elsewhere two, and whoever has written one side says so before
 * the other reads. Used by one thread at a time. */
#ifndef TROUPE_TENSOR_MIRROR_H
#define TROUPE_TENSOR_MIRROR_H

#include "tensor/kernels.h"

typedef struct Mirror {
    const KernelTable *kernels;
    char *device; /* what kernels take */
    char *host;   /* what host code reads and writes; the same where the device has host memory */
    size_t bytes;
} Mirror;

/* Zeroed; freed by mirror_destroy. Out of memory stops the process, as KernelTable.alloc does. */
Mirror mirror_create(const KernelTable *kernels, size_t bytes);
void mirror_destroy(Mirror *mirror); /* of zeros too */

/* At least `bytes`: what was in it may be lost. */
void mirror_reserve(Mirror *mirror, const KernelTable *kernels, size_t bytes);

/* Bytes [first, first + bytes), from one side to the other. */
void mirror_push(const Mirror *mirror, size_t first, size_t bytes); /* host to device */
void mirror_pull(const Mirror *mirror, size_t first, size_t bytes); /* waits until it is there */

#endif
