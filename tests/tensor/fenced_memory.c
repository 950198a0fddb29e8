#include "fenced_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

#define PAGE         ((size_t)4096)
#define SEGMENTS_MAX 64
#define SHARERS_MAX  64

/* A pool's. */
typedef struct Region {
    char *at;
    size_t reserved, used, live; /* live: of blocks that were not freed */
    bool released;
    void *kept; /* [used] while it is released; NULL: dropped */
} Region;

/* Memory that processes share. */
typedef struct Segment {
    _Atomic(char *) at; /* NULL: free place */
    size_t bytes;
    bool ours;
} Segment;

/* Of alloc; blocks are few. */
typedef struct Block {
    char *at;
    size_t bytes;
    MemoryPool pool;
    struct Block *next;
} Block;

static Region region[NUM_POOLS];
static Segment segment[SEGMENTS_MAX];
static Block *blocks;
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local MemoryPool entered;
static char identity[DEVICE_ID_BYTES];
static bool refuses_share, refuses_open;
static char ledger_path[512];
static size_t budget; /* 0: as much as there are addresses */
static bool is_open;  /* what follows: behind the door */
static int shut_every = 1, closings;

static size_t pages_of(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* ---- what all processes have together ---- */

typedef struct Sharer {
    pid_t pid; /* 0: free place */
    size_t bytes;
} Sharer;

/* Adds `more` to what this process has, unless that is too much; *ret_free: what is left then. */
static bool account(int64_t more, size_t *ret_free)
{
    Sharer sharer[SHARERS_MAX] = {0}, *mine = NULL;
    size_t others = 0;
    *ret_free = 0;
    if (budget == 0) return true;
    int fd = open(ledger_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECKF(fd >= 0 && flock(fd, LOCK_EX) == 0, "the ledger of a test device: %s", ledger_path);
    CHECK(pread(fd, sharer, sizeof sharer, 0) >= 0);
    for (int i = 0; i < SHARERS_MAX; i++) {
        if (sharer[i].pid == getpid()) mine = &sharer[i];
        if (sharer[i].pid == 0 || sharer[i].pid == getpid()) continue;
        if (kill(sharer[i].pid, 0) != 0 && errno == ESRCH)
            sharer[i] = (Sharer){0};
        else
            others += sharer[i].bytes;
    }
    for (int i = 0; mine == NULL; i++) {
        CHECK(i < SHARERS_MAX);
        if (sharer[i].pid == 0) mine = &sharer[i];
    }
    mine->pid = getpid();
    size_t wanted = (size_t)((int64_t)mine->bytes + more);
    bool fits = more <= 0 || others + wanted <= budget;
    if (fits) mine->bytes = wanted;
    *ret_free = budget - others - mine->bytes;
    CHECK(pwrite(fd, sharer, sizeof sharer, 0) == (ssize_t)sizeof sharer);
    close(fd);
    return fits;
}

void fenced_memory_limit(const char *ledger, size_t bytes)
{
    snprintf(ledger_path, sizeof ledger_path, "%s", ledger);
    budget = bytes;
}

size_t fenced_memory_free(void)
{
    size_t left = 0;
    account(0, &left);
    return left;
}

/* ---- the fence ---- */

/* A pool that was given back cannot be touched by kernels either, and what another process has made
 * can be read alone. */
static void set_fence(int protection)
{
    for (int i = 0; i < NUM_POOLS; i++)
        if (region[i].used > 0 && !region[i].released)
            CHECK(mprotect(region[i].at, region[i].used, protection) == 0);
    for (int i = 0; i < SEGMENTS_MAX; i++)
        if (segment[i].at != NULL)
            CHECK(mprotect(segment[i].at, segment[i].bytes,
                           segment[i].ours ? protection : protection & PROT_READ) == 0);
}

/* Before a range comes, goes or changes, too. */
static void shut(void)
{
    if (is_open) set_fence(PROT_NONE);
    is_open = false;
}

void fenced_memory_shut_every(int count)
{
    shut_every = count;
}

void fenced_memory_open(void)
{
    pthread_mutex_lock(&door);
    if (!is_open) set_fence(PROT_READ | PROT_WRITE);
    is_open = true;
}

void fenced_memory_close(void)
{
    if (++closings % shut_every == 0) shut();
    pthread_mutex_unlock(&door);
}

bool fenced_memory_holds(const void *pointer)
{
    const char *at = pointer;
    for (int i = 0; i < NUM_POOLS; i++)
        if (at >= region[i].at && at < region[i].at + region[i].reserved) return true;
    for (int i = 0; i < SEGMENTS_MAX; i++)
        if (segment[i].at != NULL && at >= segment[i].at && at < segment[i].at + segment[i].bytes)
            return true;
    return false;
}

/* ---- blocks ---- */

void fenced_memory_init(size_t bytes)
{
    for (int i = 0; i < NUM_POOLS; i++) {
        Region *it = &region[i];
        if (it->at != NULL) CHECK(munmap(it->at, it->reserved) == 0);
        free(it->kept);
        *it = (Region){.reserved = pages_of(bytes)};
        it->at =
            mmap(NULL, it->reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(it->at != MAP_FAILED);
        (void)madvise(it->at, it->reserved, MADV_HUGEPAGE); /* fewer pages to open and shut */
    }
    while (blocks != NULL) {
        Block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

_Noreturn static void stop_out_of_memory(size_t bytes, size_t left)
{
    fprintf(stderr, "the test device is out of memory: %zu bytes asked for, %zu of %zu are free\n",
            bytes, left, budget);
    abort();
}

void *fenced_memory_alloc(size_t bytes)
{
    size_t left, rounded = (bytes + 63) / 64 * 64, pages = pages_of(rounded);
    Block *block = mem_alloc(sizeof *block);
    pthread_mutex_lock(&door);
    shut();
    Region *from = &region[entered];
    CHECKF(!from->released, "an allocation in a pool that is given back");
    CHECKF(from->used + pages + 2 * PAGE <= from->reserved, "the fenced memory is too small");
    if (!account((int64_t)pages, &left)) stop_out_of_memory(pages, left);
    if (from->used == 0) from->used = PAGE;
    *block = (Block){from->at + from->used + pages - rounded, pages, entered, blocks};
    blocks = block;
    from->used += pages + PAGE;
    from->live += pages;
    pthread_mutex_unlock(&door);
    return block->at;
}

void fenced_memory_dispose(void *at)
{
    size_t left;
    pthread_mutex_lock(&door);
    for (Block **place = &blocks; *place != NULL; place = &(*place)->next) {
        Block *block = *place;
        if (block->at != at) continue;
        region[block->pool].live -= block->bytes;
        if (!region[block->pool].released) account(-(int64_t)block->bytes, &left);
        *place = block->next;
        free(block);
        break;
    }
    pthread_mutex_unlock(&door);
}

/* ---- pools ---- */

static bool has_pools(char *text, size_t size)
{
    (void)text, (void)size;
    return true;
}

static MemoryPool pool_enter(MemoryPool pool)
{
    MemoryPool before = entered;
    entered = pool;
    return before;
}

static int64_t pool_release(MemoryPool pool, bool keep)
{
    size_t left;
    int64_t gained = 0;
    pthread_mutex_lock(&door);
    shut();
    Region *it = &region[pool];
    CHECK(pool != POOL_FIXED);
    if (!it->released) {
        if (keep && it->used > 0) {
            it->kept = mem_alloc(it->used);
            CHECK(mprotect(it->at, it->used, PROT_READ) == 0);
            memcpy(it->kept, it->at, it->used);
            CHECK(mprotect(it->at, it->used, PROT_NONE) == 0);
        }
        CHECK(madvise(it->at, it->reserved, MADV_DONTNEED) == 0);
        gained = (int64_t)it->live;
        account(-gained, &left);
        it->released = true;
    }
    pthread_mutex_unlock(&door);
    return gained;
}

/* What was dropped comes back as NaNs, in every so many pages: to touch all of them would make the
 * fence slow. */
static void poison(const Region *it)
{
    for (size_t at = 0; at + PAGE <= it->used; at += 16 * PAGE)
        memset(it->at + at, 0xFF, PAGE);
}

static bool pool_restore(MemoryPool pool, char *text, size_t size)
{
    size_t left;
    pthread_mutex_lock(&door);
    shut();
    Region *it = &region[pool];
    bool fits = !it->released || account((int64_t)it->live, &left);
    if (!fits)
        snprintf(text, size, "the test device has %zu bytes free and the pool wants %zu", left,
                 it->live);
    if (fits && it->released && it->used > 0) {
        CHECK(mprotect(it->at, it->used, PROT_READ | PROT_WRITE) == 0);
        if (it->kept != NULL)
            memcpy(it->at, it->kept, it->used);
        else
            poison(it);
        CHECK(mprotect(it->at, it->used, PROT_NONE) == 0);
    }
    if (fits) {
        free(it->kept);
        it->kept = NULL;
        it->released = false;
    }
    pthread_mutex_unlock(&door);
    return fits;
}

/* ---- sharing ---- */

static void *add_segment(int fd, size_t bytes, bool ours)
{
    pthread_mutex_lock(&door);
    shut();
    Segment *place = NULL;
    for (int i = 0; i < SEGMENTS_MAX && place == NULL; i++)
        if (segment[i].at == NULL) place = &segment[i];
    CHECK(place != NULL);
    char *at = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED);
    place->bytes = bytes;
    place->ours = ours;
    place->at = at;
    pthread_mutex_unlock(&door);
    return at;
}

static bool can_share(char *text, size_t size)
{
    if (refuses_share || refuses_open) snprintf(text, size, "the test device shares nothing");
    return !refuses_share && !refuses_open;
}

static void *share(size_t bytes, int *ret_fd, char *text, size_t size)
{
    size_t left, pages = pages_of(bytes);
    if (refuses_share || !account((int64_t)pages, &left)) {
        snprintf(text, size, "the test device shares no %zu bytes", pages);
        return NULL;
    }
    int fd = memfd_create("fenced memory", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)pages) == 0);
    *ret_fd = fd;
    return add_segment(fd, pages, true);
}

static void *open_shared(int fd, size_t bytes, char *text, size_t size)
{
    struct stat info;
    if (refuses_open || fstat(fd, &info) != 0 || (size_t)info.st_size != pages_of(bytes)) {
        snprintf(text, size, "the test device opens no memory of others");
        return NULL;
    }
    return add_segment(fd, pages_of(bytes), false);
}

static void close_shared(void *memory)
{
    size_t left;
    pthread_mutex_lock(&door);
    shut();
    for (int i = 0; i < SEGMENTS_MAX && memory != NULL; i++) {
        if (segment[i].at != memory) continue;
        CHECK(munmap(memory, segment[i].bytes) == 0);
        if (segment[i].ours) account(-(int64_t)segment[i].bytes, &left);
        segment[i].at = NULL;
    }
    pthread_mutex_unlock(&door);
}

static void identify(unsigned char ret[DEVICE_ID_BYTES])
{
    memcpy(ret, identity, sizeof identity);
}

void fenced_memory_name(const char *id)
{
    memset(identity, 0, sizeof identity);
    memcpy(identity, id, strnlen(id, sizeof identity));
}

void fenced_memory_refuse(bool refuse_share, bool refuse_open)
{
    refuses_share = refuse_share;
    refuses_open = refuse_open;
}

const DeviceMemory *fenced_memory(void)
{
    static const DeviceMemory MEMORY = {
        .bytes = sizeof(DeviceMemory),
        .identify = identify,
        .can_share = can_share,
        .share = share,
        .open = open_shared,
        .close = close_shared,
        .has_pools = has_pools,
        .pool_enter = pool_enter,
        .pool_release = pool_release,
        .pool_restore = pool_restore,
    };
    return &MEMORY;
}
