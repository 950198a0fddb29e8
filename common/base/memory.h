/* Allocation that cannot fail (the process ends with ERR_RESOURCE's exit code, the size that could
 * not be had and what it was for: every large allocation of Troupe is planned and announced before
 * it is made), and arenas: memory with one lifetime (a process, a step, a message), freed whole. An
 * Arena is used by one thread at a time. */
#ifndef TROUPE_BASE_MEMORY_H
#define TROUPE_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t bytes);                           /* uninitialised; never NULL */
void *mem_calloc(size_t count, size_t size);             /* zeroed; checks the product */
void *mem_realloc(void *old, size_t count, size_t size); /* checks the product */
char *mem_strdup(const char *text);                      /* NULL stays NULL */
char *mem_strndup(const char *bytes, size_t length);     /* adds the terminating NUL */
char *mem_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What this thread allocates from here on, for the last words of a process that gets none: "keys
 * and values: lower rollout.kv_cache_mb". Borrowed; NULL: nothing in particular. Returns what it
 * was. */
const char *memory_purpose(const char *what);

/* These last words, from an allocator of another kind of memory. */
_Noreturn void memory_refused(size_t bytes);

/* Bytes that this machine, or the control group this process is in, could still give: what it calls
 * available. 0 when that cannot be told. */
int64_t memory_available(void);

typedef struct Arena Arena;

Arena *arena_create(void);
void arena_destroy(Arena *arena); /* accepts NULL; frees everything handed out */
void arena_reset(Arena *arena);   /* forgets everything handed out, keeps the pages */

/* Memory aligned to 16 bytes, zeroed, valid until reset or destroy. */
void *arena_alloc(Arena *arena, size_t bytes);
char *arena_strndup(Arena *arena, const char *bytes, size_t length);
char *arena_printf(Arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
