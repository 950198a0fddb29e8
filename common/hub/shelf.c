#include "hub/shelf.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

enum {
    FETCH_THREADS = 4, /* each with a connection */
    AHEAD_FILES = 2, /* that are fetched before they are wanted, where there is not room for all */
};

typedef enum { ABSENT, FETCHING, PRESENT, DROPPING, FAILED } SlotState;

typedef struct Slot {
    const HubFile *file;
    RoomBlob *blob;
    SlotState state;
    int wanted, taken; /* threads that wait for it, that have it */
    int64_t modified_ns;
    uint64_t used; /* when it was last taken */
    Error *why;    /* it has failed */
} Slot;

struct HubShelf {
    HubShelfOptions options;
    HubPlace place;
    HubRoom *room; /* whose lock is that of all that changes */
    RoomMember member;
    RoomNeeds needs;
    Slot *slot; /* [count] */
    int count;
    int last;     /* that was taken */
    int dropping; /* threads that drop a file of ours */
    bool closing;
    pthread_t thread[FETCH_THREADS];
    int num_threads;
};

/* ---- dropping ---- */

/* How many files are read before this one. */
static int distance_of(const HubShelf *shelf, int index)
{
    int distance = index - shelf->last;
    return distance < 0 ? distance + shelf->count : distance;
}

/* Which of two is dropped first: what is not read soon, used longest ago; then what is read last.
 */
static bool goes_before(const HubShelf *shelf, int a, int b)
{
    int distance_a = distance_of(shelf, a), distance_b = distance_of(shelf, b);
    bool ahead_a = distance_a <= AHEAD_FILES, ahead_b = distance_b <= AHEAD_FILES;
    if (ahead_a != ahead_b) return ahead_b;
    return ahead_a ? distance_a > distance_b : shelf->slot[a].used < shelf->slot[b].used;
}

/* A file of ours, or what an earlier try has left of one. */
static int find_victim(void *context, const RoomMember *asks, RoomSpare spare, uint64_t *ret_used)
{
    static const int spared[] = {
        [SPARE_SOON] = 1 + AHEAD_FILES, [SPARE_PART] = 2, [SPARE_NONE] = 0};
    const HubShelf *shelf = context;
    int victim = -1;
    for (int i = 0; i < shelf->count; i++) {
        const Slot *slot = &shelf->slot[i];
        bool whole = slot->state == PRESENT && slot->blob->ours;
        bool begun = (slot->state == ABSENT || slot->state == FAILED) && slot->blob->partial > 0;
        if ((!whole && !begun) || slot->taken > 0 || slot->wanted > 0 || slot->blob->busy) continue;
        if (!hub_room_may_drop(slot->blob, asks)) continue;
        if (distance_of(shelf, i) < spared[spare]) continue;
        if (victim < 0 || goes_before(shelf, i, victim)) victim = i;
    }
    if (victim >= 0) *ret_used = shelf->slot[victim].used;
    return victim;
}

/* The last file that has the content takes it along. */
static void drop_file(HubShelf *shelf, int index)
{
    Slot *slot = &shelf->slot[index];
    RoomBlob *blob = slot->blob;
    bool last = blob->present == 1;
    slot->state = DROPPING;
    blob->busy = true;
    shelf->dropping++;
    hub_room_unlock(shelf->room);
    if (shelf->options.dropping != NULL) shelf->options.dropping(shelf->options.context, index);
    if (last) {
        char *link = hub_shelf_path(shelf, index);
        unlink(link);
        unlink(blob->path);
        free(link);
    }
    hub_room_lock(shelf->room);
    shelf->dropping--;
    slot->state = ABSENT;
    blob->busy = false;
    blob->present--;
    if (last) hub_room_pay(shelf->room, blob, NULL, 0);
    hub_room_wake(shelf->room);
}

static void drop(void *context, int index)
{
    HubShelf *shelf = context;
    Slot *slot = &shelf->slot[index];
    if (slot->state == PRESENT) {
        drop_file(shelf, index);
        return;
    }
    if (slot->blob->ours) unlink(slot->blob->path);
    hub_fetch_forget(shelf->place.cache, slot->file);
    hub_room_pay(shelf->room, slot->blob, NULL, 0);
    slot->blob->partial = 0;
}

/* With the lock. */
static void fail_slot(HubShelf *shelf, Slot *slot, const Error *why)
{
    if (slot->why == NULL) slot->why = mem_alloc(sizeof *slot->why);
    *slot->why = *why;
    slot->state = FAILED;
    hub_room_wake(shelf->room);
}

/* With the lock: whether a file now has its room; it may have failed for the lack of it. */
static bool make_room(HubShelf *shelf, int index, bool for_later)
{
    Slot *slot = &shelf->slot[index];
    RoomStep step = ROOM_DROPPED;
    while (step == ROOM_DROPPED) {
        if (slot->state != ABSENT || slot->blob->busy) return false; /* somebody else is at it */
        int64_t bytes = slot->file->bytes - slot->blob->paid;
        step = slot->blob->present > 0
                   ? ROOM_THERE
                   : hub_room_step(shelf->room, &shelf->member, bytes, for_later);
    }
    if (step != ROOM_NONE) return step == ROOM_THERE;
    Error err = {0};
    hub_room_refuse(shelf->room, &shelf->needs, &err);
    fail_slot(shelf, slot, &err);
    return false;
}

/* ---- fetching ---- */

/* Another file of the same content is not at it, either. */
static bool is_to_fetch(const Slot *slot)
{
    return slot->state == ABSENT && !slot->blob->busy;
}

/* With the lock: the file that is to be fetched next; -1: none. What somebody waits for comes
 * first, then what comes next. */
static int find_next(const HubShelf *shelf, bool *ret_for_later)
{
    *ret_for_later = false;
    for (int i = 0; i < shelf->count; i++)
        if (is_to_fetch(&shelf->slot[i]) && shelf->slot[i].wanted > 0) return i;
    if (shelf->options.reading == SHELF_FEW) return -1;
    *ret_for_later = true;
    for (int i = 0; i < shelf->count; i++) {
        int index = shelf->member.drops ? (shelf->last + i) % shelf->count : i;
        if (shelf->member.drops && i > AHEAD_FILES) return -1;
        if (is_to_fetch(&shelf->slot[index])) return index;
    }
    return -1;
}

/* With the lock: what an earlier try has left of a file that is not there. All of it, it may be,
 * where its link could not be made, or where it was cancelled before it got its name. */
static void pay_partial(HubShelf *shelf, Slot *slot)
{
    const HubCache *cache = shelf->place.cache;
    RoomBlob *blob = slot->blob;
    bool whole = blob->ours && hub_cache_has_blob(cache, slot->file);
    blob->partial = whole ? slot->file->bytes : hub_fetch_bytes_begun(cache, slot->file);
    hub_room_pay(shelf->room, blob, &shelf->member, blob->partial);
}

/* With the lock. `err` is NULL where it went well. */
static void end_fetch(HubShelf *shelf, Slot *slot, bool fetched, const Error *err)
{
    RoomBlob *blob = slot->blob;
    blob->busy = false;
    blob->ours = blob->ours || fetched;
    slot->used = hub_room_tick(shelf->room);
    if (err == NULL) {
        slot->state = PRESENT;
        blob->present++;
        blob->partial = 0;
        /* What was there before is nobody's; who keeps it for good is the one who pays for it. */
        if (!blob->ours)
            hub_room_pay(shelf->room, blob, NULL, 0);
        else if (!shelf->member.drops)
            hub_room_pay(shelf->room, blob, &shelf->member, slot->file->bytes);
        hub_room_wake(shelf->room);
        return;
    }
    if (blob->present == 0) pay_partial(shelf, slot);
    fail_slot(shelf, slot, err);
}

/* With the lock, which it lets go while it fetches. */
static void fetch_file(HubShelf *shelf, int index)
{
    Slot *slot = &shelf->slot[index];
    RoomBlob *blob = slot->blob;
    HubFetch fetch = {.modified_ns = slot->modified_ns};
    Error err = {0};
    slot->state = FETCHING;
    blob->busy = true;
    if (blob->present == 0) hub_room_pay(shelf->room, blob, &shelf->member, slot->file->bytes);
    hub_room_unlock(shelf->room);
    if (shelf->options.fetching != NULL) shelf->options.fetching(shelf->options.context, index);
    Status status = hub_fetch(&shelf->place, slot->file, &fetch, &err);
    hub_room_lock(shelf->room);
    end_fetch(shelf, slot, fetch.fetched, status == OK ? NULL : &err);
}

static void *fetch_main(void *argument)
{
    HubShelf *shelf = argument;
    hub_room_lock(shelf->room);
    while (!shelf->closing) {
        bool for_later = false;
        int next = find_next(shelf, &for_later);
        if (next >= 0 && make_room(shelf, next, for_later))
            fetch_file(shelf, next);
        else if (next < 0 || shelf->slot[next].state != FAILED)
            hub_room_wait(shelf->room, next >= 0 && !for_later);
    }
    hub_room_unlock(shelf->room);
    return NULL;
}

/* ---- open and close ---- */

/* With the lock. */
static void look_at_slot(HubShelf *shelf, Slot *slot, bool ours)
{
    const HubPlace *place = &shelf->place;
    RoomBlob *blob = hub_room_take_blob(shelf->room, place, slot->file);
    slot->blob = blob;
    blob->ours = blob->ours || ours;
    /* A kill between the two has left the one without the other. */
    if (!blob->busy && blob->ours && hub_cache_has_blob(place->cache, slot->file))
        (void)hub_cache_link(place->cache, place->commit, slot->file, NULL);
    if (!blob->busy && hub_cache_has(place->cache, place->commit, slot->file)) {
        slot->state = PRESENT;
        blob->present++;
        if (blob->ours && !hub_room_is_paid(shelf->room, blob))
            hub_room_pay(shelf->room, blob, &shelf->member, slot->file->bytes);
    } else if (!blob->busy && blob->present == 0) {
        pay_partial(shelf, slot);
    }
}

/* What the shelf needs of the room. */
static void add_needs(HubShelf *shelf)
{
    int64_t before = 0, first = 0;
    RoomNeeds *needs = &shelf->needs;
    for (int i = 0; i < shelf->count; i++) {
        const Slot *slot = &shelf->slot[i];
        bool there = slot->state == PRESENT;
        int64_t bytes = there && !slot->blob->ours ? 0 : slot->file->bytes;
        if (!there)
            needs->left +=
                hub_fetch_bytes_left(shelf->place.cache, shelf->place.commit, slot->file);
        needs->needed += bytes;
        if (i == 0) first = bytes;
        if (before + bytes > needs->pair) needs->pair = before + bytes;
        before = bytes;
    }
    if (shelf->count > 1 && before + first > needs->pair) needs->pair = before + first;
}

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
        look_at_slot(shelf, slot, wanted->ours);
    }
    add_needs(shelf);
    return hub_room_join(shelf->room, &shelf->needs, &shelf->member, err);
}

Status hub_shelf_open(const HubShelfOptions *options, HubShelf **ret, Error *err)
{
    HubShelf *shelf = mem_calloc(1, sizeof *shelf);
    shelf->options = *options;
    shelf->place = hub_repo_place(options->repo);
    shelf->count = options->count;
    shelf->slot = mem_calloc((size_t)options->count + 1, sizeof *shelf->slot);
    shelf->room = options->room != NULL ? hub_room_hold(options->room) : hub_room_create(0);
    shelf->member = (RoomMember){.context = shelf, .find_victim = find_victim, .drop = drop};
    shelf->needs = (RoomNeeds){.label = hub_repo_label(options->repo),
                               .place = &shelf->place,
                               .reading = options->reading};
    hub_room_lock(shelf->room);
    Status status = fill_slots(shelf, err);
    hub_room_unlock(shelf->room);
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
    HubRoom *room = shelf->room;
    hub_repo_cancel(shelf->options.repo);
    hub_room_lock(room);
    shelf->closing = true;
    hub_room_leave(room, &shelf->member); /* nobody drops anything of it from here on */
    while (shelf->dropping > 0)
        hub_room_wait(room, false);
    hub_room_unlock(room);
    for (int i = 0; i < shelf->num_threads; i++)
        pthread_join(shelf->thread[i], NULL);
    hub_room_lock(room);
    for (int i = 0; i < shelf->count; i++) {
        Slot *slot = &shelf->slot[i];
        if (slot->state == PRESENT) slot->blob->present--;
        hub_room_give_blob(room, slot->blob, &shelf->member);
        free(slot->why);
    }
    hub_room_unlock(room);
    hub_room_release(room);
    free(shelf->slot);
    free(shelf);
}

/* ---- taking ---- */

Status hub_shelf_take(HubShelf *shelf, int file, Error *err)
{
    const HubWatch *watch = hub_client_watch(shelf->place.client);
    Slot *slot = &shelf->slot[file];
    Status status = OK;
    hub_room_lock(shelf->room);
    if (slot->state == FAILED && slot->wanted == 0) slot->state = ABSENT; /* another time */
    slot->wanted++;
    while (slot->state != PRESENT && slot->state != FAILED && status == OK) {
        hub_room_wake(shelf->room);
        hub_room_wait(shelf->room, false);
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
        slot->used = hub_room_tick(shelf->room);
        if (shelf->last != file) hub_room_wake(shelf->room); /* fetch what is next */
        shelf->last = file;
    }
    hub_room_unlock(shelf->room);
    return status;
}

void hub_shelf_give(HubShelf *shelf, int file)
{
    hub_room_lock(shelf->room);
    CHECK(shelf->slot[file].taken > 0);
    shelf->slot[file].taken--;
    if (hub_room_is_cramped(shelf->room) && shelf->slot[file].taken == 0)
        hub_room_wake(shelf->room);
    hub_room_unlock(shelf->room);
}

bool hub_shelf_is_small(const HubShelf *shelf)
{
    return shelf->member.drops;
}

bool hub_shelf_is_bounded(const HubShelf *shelf)
{
    return shelf->member.drops || hub_room_is_bounded(shelf->room);
}

bool hub_shelf_is_ours(HubShelf *shelf, int file)
{
    hub_room_lock(shelf->room);
    bool ours = shelf->slot[file].blob->ours;
    hub_room_unlock(shelf->room);
    return ours;
}

void hub_shelf_keep_time(HubShelf *shelf, int file, int64_t modified_ns)
{
    hub_room_lock(shelf->room);
    shelf->slot[file].modified_ns = modified_ns;
    hub_room_unlock(shelf->room);
}

char *hub_shelf_path(const HubShelf *shelf, int file)
{
    return hub_cache_snapshot(shelf->place.cache, shelf->place.commit,
                              shelf->slot[file].file->path);
}

int64_t hub_shelf_bytes_left(const HubShelf *shelf)
{
    return shelf->needs.left;
}
