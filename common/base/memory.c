#include "base/memory.h"

#include <stdarg.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include "base/error.h"

/* Whoever is refused is far below whoever knows what it is for. */
static _Thread_local const char *purpose;

const char *memory_purpose(const char *what)
{
    const char *before = purpose;
    purpose = what;
    return before;
}

_Noreturn void memory_refused(size_t bytes)
{
    fprintf(stderr, "out of memory: could not allocate %.1f MiB%s%s\n", (double)bytes / 0x1p20,
            purpose != NULL ? " for " : "", purpose != NULL ? purpose : "");
    fflush(stderr);
    _exit(status_exit_code(ERR_RESOURCE)); /* other threads are in the middle of their work */
}

void *mem_alloc(size_t bytes)
{
    void *memory = malloc(bytes != 0 ? bytes : 1);
    if (memory == NULL) memory_refused(bytes);
    return memory;
}

void *mem_calloc(size_t count, size_t size)
{
    CHECKF(size == 0 || count <= SIZE_MAX / size, "%zu times %zu bytes overflows", count, size);
    void *memory = calloc(count != 0 ? count : 1, size != 0 ? size : 1);
    if (memory == NULL) memory_refused(count * size);
    return memory;
}

void *mem_realloc(void *old, size_t count, size_t size)
{
    CHECKF(size == 0 || count <= SIZE_MAX / size, "%zu times %zu bytes overflows", count, size);
    size_t bytes = count * size;
    void *memory = realloc(old, bytes != 0 ? bytes : 1);
    if (memory == NULL) memory_refused(bytes);
    return memory;
}

char *mem_strndup(const char *bytes, size_t length)
{
    char *copy = mem_alloc(length + 1);
    if (length > 0) memcpy(copy, bytes, length);
    copy[length] = '\0';
    return copy;
}

char *mem_strdup(const char *text)
{
    return text != NULL ? mem_strndup(text, strlen(text)) : NULL;
}

static char *print_to(void *(*alloc)(void *, size_t), void *context, const char *format,
                      va_list args)
{
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    CHECK(length >= 0);
    char *text = alloc(context, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, args);
    return text;
}

static void *heap_alloc(void *context, size_t bytes)
{
    (void)context;
    return mem_alloc(bytes);
}

char *mem_printf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = print_to(heap_alloc, NULL, format, args);
    va_end(args);
    return text;
}

#define ARENA_BLOCK_BYTES ((size_t)64 * 1024)

typedef struct ArenaBlock {
    struct ArenaBlock *next;
    size_t size;
    size_t used;
    alignas(16) unsigned char bytes[];
} ArenaBlock;

struct Arena {
    ArenaBlock *blocks; /* the newest first; only the newest has room */
};

Arena *arena_create(void)
{
    return mem_calloc(1, sizeof(Arena));
}

void arena_destroy(Arena *arena)
{
    if (arena == NULL) return;
    for (ArenaBlock *block = arena->blocks; block != NULL;) {
        ArenaBlock *next = block->next;
        free(block);
        block = next;
    }
    free(arena);
}

void arena_reset(Arena *arena)
{
    ArenaBlock *keep = arena->blocks;
    if (keep != NULL) {
        for (ArenaBlock *block = keep->next; block != NULL;) {
            ArenaBlock *next = block->next;
            free(block);
            block = next;
        }
        keep->next = NULL;
        keep->used = 0;
    }
}

void *arena_alloc(Arena *arena, size_t bytes)
{
    CHECK(bytes <= SIZE_MAX - ARENA_BLOCK_BYTES);
    size_t rounded = (bytes + 15) & ~(size_t)15;
    ArenaBlock *block = arena->blocks;
    if (block == NULL || block->size - block->used < rounded) {
        size_t size = rounded > ARENA_BLOCK_BYTES ? rounded : ARENA_BLOCK_BYTES;
        block = mem_alloc(sizeof *block + size);
        block->size = size;
        block->used = 0;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void *memory = block->bytes + block->used;
    block->used += rounded;
    memset(memory, 0, rounded);
    return memory;
}

char *arena_strndup(Arena *arena, const char *bytes, size_t length)
{
    char *copy = arena_alloc(arena, length + 1);
    if (length > 0) memcpy(copy, bytes, length);
    return copy;
}

static void *arena_alloc_for_print(void *arena, size_t bytes)
{
    return arena_alloc(arena, bytes);
}

char *arena_printf(Arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = print_to(arena_alloc_for_print, arena, format, args);
    va_end(args);
    return text;
}

/* A number alone in a file; 0 for none, or for "max". */
static int64_t read_number(const char *path)
{
    long long value = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL) return 0;
    if (fscanf(file, "%lld", &value) != 1) value = 0;
    fclose(file);
    return value;
}

static int64_t available_to_machine(void)
{
    char line[256];
    long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL) return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %lld kB", &kib) == 1) break;
    fclose(file);
    return kib * 1024;
}

int64_t memory_available(void)
{
    int64_t machine = available_to_machine();
    int64_t limit = read_number("/sys/fs/cgroup/memory.max");
    int64_t group = limit - read_number("/sys/fs/cgroup/memory.current");
    return limit > 0 && group > 0 && (machine == 0 || group < machine) ? group : machine;
}
