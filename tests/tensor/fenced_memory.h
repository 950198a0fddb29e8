/* The memory of the fenced device (fenced_kernels.h): ranges of addresses, one for each pool and
 * one for everything shared, which can be touched while the fence is open alone. Between its two
 * sources and for tests that look into it. */
#ifndef TROUPE_TESTS_FENCED_MEMORY_H
#define TROUPE_TESTS_FENCED_MEMORY_H

#include "tensor/device_memory.h"

/* Ranges of `bytes` each; what was there before is gone. */
void fenced_memory_init(size_t bytes);

const DeviceMemory *fenced_memory(void);

/* What identify says; up to DEVICE_ID_BYTES of a text. */
void fenced_memory_name(const char *id);

/* Which calls are refused from now on. */
void fenced_memory_refuse(bool share, bool open);

/* From now on all processes that name the same file have `bytes` of device memory together; who
 * asks for more is refused, and by alloc stopped. What a dead one had is free. */
void fenced_memory_limit(const char *ledger, size_t bytes);
size_t fenced_memory_free(void); /* of these */

/* The fence is shut behind every so many calls, 1 at first: shutting it costs more than most calls,
 * and in a job, which makes the same ones over and over, what touches the memory between two of
 * them meets it soon. */
void fenced_memory_shut_every(int count);

/* ---- for fenced_kernels.c ---- */

void *fenced_memory_alloc(size_t bytes); /* at the end of pages of its own; not used again */
void fenced_memory_dispose(void *block);
bool fenced_memory_holds(const void *pointer);
void fenced_memory_open(void); /* one thread at a time, until it closes */
void fenced_memory_close(void);

#endif
