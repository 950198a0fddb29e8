#include "hub/shelf.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

enum {
    FETCH_THREADS = 4, /* each with a connection */
    AHEAD_FILES = 2, /* that are fetched before they are wanted, where there is not room for all */
    LOOK_MS = 200,   /* between looks whether somebody still waits */
};
#define RESERVE_BYTES ((int64_t)1 << 30) /* of the disk, that stays free; or a twentieth of it */

typedef enum { ABSENT, FETCHING, PRESENT, DROPPING, FAILED } SlotState;

typedef struct Slot {
    const HubFile *file;
    SlotState state;
    int wanted, taken; /* threads that wait for it, that have it */
    bool ours;
    int64_t partial; /* bytes of it that an earlier try has left */
    int64_t modified_ns;
    uint64_t used; /* when it was last taken */
    Error *why;    /* it has failed */
} Slot;

struct HubShelf {
    HubShelfOptions options;
    HubPlace place;
    Slot *slot; /* [count] */
    int count;
    bool small;           /* files are dropped */
    int64_t room, in_use; /* bytes, of files that are ours */
    int64_t bytes_left;
    pthread_mutex_t lock; /* of all that changes */
    pthread_cond_t changed;
    uint64_t clock;
    int last;              /* that was taken */
    bool closing, cramped; /* a thread waits for room */
    pthread_t thread[FETCH_THREADS];
    int num_threads;
};

/* ---- room ---- */

typedef struct Room {
    int64_t needed;  /* bytes that are missing, or ours */
    int64_t has;     /* for them */
    int64_t largest; /* of these files */
    int64_t free, reserve;
    char *place;
} Room;

static char *existing_folder(const char *path)
{
    char *folder = mem_strdup(path);
    while (!path_is_folder(folder) && strcmp(folder, "/") != 0 && strcmp(folder, ".") != 0) {
        char *parent = path_folder(folder);
        free(folder);
        folder = parent;
    }
    return folder;
}

static Status look_at_disk(const HubShelf *shelf, Room *ret, Error *err)
{
    struct statvfs disk;
    ret->place = existing_folder(shelf->place.cache->folder);
    if (statvfs(ret->place, &disk) != 0)
        return error_set_errno(err, errno, "could not look at the disk of %s", ret->place);
    int64_t unit = (int64_t)disk.f_frsize, twentieth = (int64_t)disk.f_blocks * unit / 20;
    ret->free = (int64_t)disk.f_bavail * unit;
    ret->reserve = twentieth < RESERVE_BYTES ? twentieth : RESERVE_BYTES;
    return OK;
}

static char *show_bytes(int64_t bytes, char ret[32])
{
    if (bytes < 10000000)
        snprintf(ret, 32, "%.3f MB", (double)bytes / 1e6);
    else
        snprintf(ret, 32, "%.2f GB", (double)bytes / 1e9);
    return ret;
}

static Status refuse_room(const HubShelf *shelf, const Room *room, Error *err)
{
    const HubShelfOptions *options = &shelf->options;
    char needed[32], has[32], free_now[32], reserve[32], largest[32];
    bool all = options->reading != SHELF_IN_ORDER;
    bool bounded = options->bytes_max > 0 && options->bytes_max <= room->has;
    if (shelf->place.model)
        return error_set(err, ERR_RESOURCE,
                         "%s: %s of it have to be fetched, and %s has %s free, of which %s stay "
                         "free\n  to do: make room, or move the cache to a larger disk (HF_HOME)",
                         hub_repo_label(options->repo), show_bytes(room->needed, needed),
                         room->place, show_bytes(room->free, free_now),
                         show_bytes(room->reserve, reserve));
    show_bytes(room->largest, largest);
    error_set(err, ERR_RESOURCE,
              "%s: %s of it would have to be fetched, and there is room for %s\n"
              "  found: data.cache_gb %s; %s has %s free, of which %s stay free\n"
              "  expected: room for %s%s",
              hub_repo_label(options->repo), show_bytes(room->needed, needed),
              show_bytes(room->has, has), bounded ? "says so" : "allows more", room->place,
              show_bytes(room->free, free_now), show_bytes(room->reserve, reserve),
              all ? "all of it, as its records are read in any order" : "its largest file, ",
              all ? "" : largest);
    return error_append(err, "  to do: %s%s",
                        bounded ? "raise data.cache_gb"
                                : "make room, or move the cache to a larger disk (HF_HOME)",
                        all ? "; or read its files one after another (data.shuffle: false), for "
                              "which a part of them is enough"
                            : "");
}

static Status find_room(HubShelf *shelf, Error *err)
{
    const HubShelfOptions *options = &shelf->options;
    Room room = {0};
    int64_t ours = 0, partial = 0;
    for (int i = 0; i < shelf->count; i++) {
        Slot *slot = &shelf->slot[i];
        int64_t left = hub_fetch_bytes_left(shelf->place.cache, shelf->place.commit, slot->file);
        bool there = slot->state == PRESENT;
        shelf->bytes_left += left;
        slot->partial = there || left == 0 ? 0 : slot->file->bytes - left;
        partial += slot->partial;
        if (there && slot->ours) ours += slot->file->bytes;
        if (there && !slot->ours) continue;
        room.needed += slot->file->bytes;
        if (slot->file->bytes > room.largest) room.largest = slot->file->bytes;
    }
    shelf->in_use = ours + partial;
    if (shelf->bytes_left == 0) return OK;
    Status status = look_at_disk(shelf, &room, err);
    room.has = room.free - room.reserve + ours + partial;
    if (options->bytes_max > 0 && room.has > options->bytes_max) room.has = options->bytes_max;
    if (room.has < 0) room.has = 0;
    shelf->room = room.has;
    shelf->small = room.needed > room.has;
    bool fits = !shelf->small || (options->reading == SHELF_IN_ORDER && room.largest <= room.has) ||
                (options->reading == SHELF_FEW && room.has > 0);
    if (status == OK && !fits) status = refuse_room(shelf, &room, err);
    if (options->reading == SHELF_FEW) shelf->small = false;
    free(room.place);
    return status;
}

/* ---- dropping ---- */

static bool is_ahead(const HubShelf *shelf, int index)
{
    int distance = index - shelf->last;
    if (distance < 0) distance += shelf->count;
    return distance <= AHEAD_FILES;
}

/* What nobody has and was used longest ago: a file of ours, or what an earlier try has left of one;
 * -1: there is none. One that will be read soon is not dropped for another such. */
static int find_victim(const HubShelf *shelf, bool for_later)
{
    int victim = -1;
    for (int i = 0; i < shelf->count; i++) {
        const Slot *slot = &shelf->slot[i];
        bool whole = slot->state == PRESENT && slot->ours;
        bool begun = (slot->state == ABSENT || slot->state == FAILED) && slot->partial > 0;
        if ((!whole && !begun) || slot->taken > 0 || slot->wanted > 0) continue;
        if (for_later && is_ahead(shelf, i)) continue;
        if (victim < 0 || slot->used < shelf->slot[victim].used) victim = i;
    }
    return victim;
}

/* Another file of the set with the same content has the same blob. */
static bool blob_is_shared(const HubShelf *shelf, const Slot *slot)
{
    for (int i = 0; i < shelf->count; i++) {
        const Slot *other = &shelf->slot[i];
        if (other != slot && other->state == PRESENT &&
            strcmp(other->file->etag, slot->file->etag) == 0)
            return true;
    }
    return false;
}

static void drop_partial(HubShelf *shelf, Slot *slot)
{
    hub_fetch_forget(shelf->place.cache, slot->file);
    shelf->in_use -= slot->partial;
    slot->partial = 0;
}

/* With the lock, which it lets go for a time. */
static void drop_file(HubShelf *shelf, int index)
{
    Slot *slot = &shelf->slot[index];
    const HubPlace *place = &shelf->place;
    char *link = hub_cache_snapshot(place->cache, place->commit, slot->file->path);
    char *blob =
        blob_is_shared(shelf, slot) ? NULL : hub_cache_blob(place->cache, slot->file->etag);
    slot->state = DROPPING;
    pthread_mutex_unlock(&shelf->lock);
    if (shelf->options.dropping != NULL) shelf->options.dropping(shelf->options.context, index);
    unlink(link);
    if (blob != NULL) unlink(blob);
    pthread_mutex_lock(&shelf->lock);
    slot->state = ABSENT;
    shelf->in_use -= slot->file->bytes;
    free(blob);
    free(link);
    pthread_cond_broadcast(&shelf->changed);
}

/* With the lock: whether a file now has its room. */
static bool make_room(HubShelf *shelf, int index, bool for_later)
{
    int64_t bytes = shelf->slot[index].file->bytes - shelf->slot[index].partial;
    while (shelf->small && shelf->in_use + bytes > shelf->room) {
        int victim = find_victim(shelf, for_later);
        if (victim < 0) return false;
        if (shelf->slot[victim].state == PRESENT)
            drop_file(shelf, victim);
        else
            drop_partial(shelf, &shelf->slot[victim]);
        if (shelf->slot[index].state != ABSENT) return false; /* somebody else fetches it now */
    }
    return true;
}

/* ---- fetching ---- */

/* With the lock: the file that is to be fetched next; -1: none. What somebody waits for comes
 * first, then what comes next. */
static int find_next(const HubShelf *shelf, bool *ret_for_later)
{
    *ret_for_later = false;
    for (int i = 0; i < shelf->count; i++)
        if (shelf->slot[i].state == ABSENT && shelf->slot[i].wanted > 0) return i;
    if (shelf->options.reading == SHELF_FEW) return -1;
    *ret_for_later = true;
    for (int i = 0; i < shelf->count; i++) {
        int index = shelf->small ? (shelf->last + i) % shelf->count : i;
        if (shelf->small && i > AHEAD_FILES) return -1;
        if (shelf->slot[index].state == ABSENT) return index;
    }
    return -1;
}

/* With the lock, which it lets go while it fetches. */
static void fetch_file(HubShelf *shelf, int index)
{
    Slot *slot = &shelf->slot[index];
    HubFetch fetch = {.modified_ns = slot->modified_ns};
    Error err = {0};
    slot->state = FETCHING;
    shelf->in_use += slot->file->bytes - slot->partial;
    slot->partial = 0;
    pthread_mutex_unlock(&shelf->lock);
    if (shelf->options.fetching != NULL) shelf->options.fetching(shelf->options.context, index);
    Status status = hub_fetch(&shelf->place, slot->file, &fetch, &err);
    pthread_mutex_lock(&shelf->lock);
    slot->state = status == OK ? PRESENT : FAILED;
    slot->used = ++shelf->clock;
    slot->ours = slot->ours || fetch.fetched;
    if (status != OK)
        slot->partial = slot->file->bytes -
                        hub_fetch_bytes_left(shelf->place.cache, shelf->place.commit, slot->file);
    if (status != OK || !slot->ours) shelf->in_use -= slot->file->bytes - slot->partial;
    if (status != OK) {
        if (slot->why == NULL) slot->why = mem_alloc(sizeof *slot->why);
        *slot->why = err;
    }
    pthread_cond_broadcast(&shelf->changed);
}

static void *fetch_main(void *argument)
{
    HubShelf *shelf = argument;
    pthread_mutex_lock(&shelf->lock);
    while (!shelf->closing) {
        bool for_later = false;
        int next = find_next(shelf, &for_later);
        if (next >= 0 && make_room(shelf, next, for_later)) {
            shelf->cramped = false;
            fetch_file(shelf, next);
        } else {
            shelf->cramped = next >= 0;
            pthread_cond_wait(&shelf->changed, &shelf->lock);
        }
    }
    pthread_mutex_unlock(&shelf->lock);
    return NULL;
}

/* ---- open and close ---- */

static Status fill_slots(HubShelf *shelf, Error *err)
{
    const HubFiles *files = hub_repo_files(shelf->options.repo);
    for (int i = 0; i < shelf->count; i++) {
        const ShelfFile *wanted = &shelf->options.file[i];
        Slot *slot = &shelf->slot[i];
        slot->file = hub_files_find(files, wanted->path);
        if (slot->file == NULL)
            return error_set(err, ERR_NOT_FOUND, "%s has no file %s",
                             hub_repo_label(shelf->options.repo), wanted->path);
        slot->modified_ns = wanted->modified_ns;
        slot->ours = wanted->ours;
        if (hub_cache_has(shelf->place.cache, shelf->place.commit, slot->file))
            slot->state = PRESENT;
    }
    return OK;
}

Status hub_shelf_open(const HubShelfOptions *options, HubShelf **ret, Error *err)
{
    HubShelf *shelf = mem_calloc(1, sizeof *shelf);
    shelf->options = *options;
    shelf->place = hub_repo_place(options->repo);
    shelf->count = options->count;
    shelf->slot = mem_calloc((size_t)options->count + 1, sizeof *shelf->slot);
    pthread_mutex_init(&shelf->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&shelf->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    Status status = fill_slots(shelf, err);
    if (status == OK) status = find_room(shelf, err);
    if (status == OK)
        *ret = shelf;
    else
        hub_shelf_close(shelf);
    return status;
}

void hub_shelf_start(HubShelf *shelf)
{
    for (; shelf->num_threads < FETCH_THREADS; shelf->num_threads++)
        CHECK(pthread_create(&shelf->thread[shelf->num_threads], NULL, fetch_main, shelf) == 0);
}

void hub_shelf_close(HubShelf *shelf)
{
    if (shelf == NULL) return;
    hub_repo_cancel(shelf->options.repo);
    pthread_mutex_lock(&shelf->lock);
    shelf->closing = true;
    pthread_cond_broadcast(&shelf->changed);
    pthread_mutex_unlock(&shelf->lock);
    for (int i = 0; i < shelf->num_threads; i++)
        pthread_join(shelf->thread[i], NULL);
    for (int i = 0; i < shelf->count; i++)
        free(shelf->slot[i].why);
    pthread_cond_destroy(&shelf->changed);
    pthread_mutex_destroy(&shelf->lock);
    free(shelf->slot);
    free(shelf);
}

/* ---- taking ---- */

static void wait_a_moment(HubShelf *shelf)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&shelf->changed, &shelf->lock, &until);
}

Status hub_shelf_take(HubShelf *shelf, int file, Error *err)
{
    const HubWatch *watch = hub_client_watch(shelf->place.client);
    Slot *slot = &shelf->slot[file];
    Status status = OK;
    pthread_mutex_lock(&shelf->lock);
    if (slot->state == FAILED && slot->wanted == 0) slot->state = ABSENT; /* another time */
    slot->wanted++;
    while (slot->state != PRESENT && slot->state != FAILED && status == OK) {
        pthread_cond_broadcast(&shelf->changed);
        wait_a_moment(shelf);
        if (!hub_watch_goes_on(watch, 0))
            status = error_set(err, ERR_CANCELLED, "the data is not wanted any more");
    }
    slot->wanted--;
    if (status == OK && slot->state == FAILED) {
        if (err != NULL) *err = *slot->why;
        status = slot->why->status;
    }
    if (status == OK) {
        slot->taken++;
        slot->used = ++shelf->clock;
        if (shelf->last != file) pthread_cond_broadcast(&shelf->changed); /* fetch what is next */
        shelf->last = file;
    }
    pthread_mutex_unlock(&shelf->lock);
    return status;
}

void hub_shelf_give(HubShelf *shelf, int file)
{
    pthread_mutex_lock(&shelf->lock);
    CHECK(shelf->slot[file].taken > 0);
    shelf->slot[file].taken--;
    if (shelf->cramped && shelf->slot[file].taken == 0) pthread_cond_broadcast(&shelf->changed);
    pthread_mutex_unlock(&shelf->lock);
}

bool hub_shelf_is_small(const HubShelf *shelf)
{
    return shelf->small;
}

bool hub_shelf_is_ours(HubShelf *shelf, int file)
{
    pthread_mutex_lock(&shelf->lock);
    bool ours = shelf->slot[file].ours;
    pthread_mutex_unlock(&shelf->lock);
    return ours;
}

void hub_shelf_keep_time(HubShelf *shelf, int file, int64_t modified_ns)
{
    pthread_mutex_lock(&shelf->lock);
    shelf->slot[file].modified_ns = modified_ns;
    pthread_mutex_unlock(&shelf->lock);
}

char *hub_shelf_path(const HubShelf *shelf, int file)
{
    return hub_cache_snapshot(shelf->place.cache, shelf->place.commit,
                              shelf->slot[file].file->path);
}

int64_t hub_shelf_bytes_left(const HubShelf *shelf)
{
    return shelf->bytes_left;
}
