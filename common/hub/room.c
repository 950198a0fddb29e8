#include "hub/room.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/condition.h"
#include "base/file.h"
#include "base/memory.h"

#define LOOK_MS       200                /* between looks whether somebody still waits */
#define RESERVE_BYTES ((int64_t)1 << 30) /* of the disk, that stays free; or a twentieth of it */

struct HubRoom {
    int64_t bytes_max;
    int64_t limit, in_use; /* bytes */
    RoomMember *first;
    RoomMember leftovers;
    RoomBlob **leftover; /* [num_leftovers] */
    int num_leftovers;
    void *blobs; /* of search.h, by their paths */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int holders, cramped; /* threads that wait for room */
    uint64_t ticks;
};

/* ---- lock ---- */

void hub_room_lock(HubRoom *room)
{
    pthread_mutex_lock(&room->lock);
}

void hub_room_unlock(HubRoom *room)
{
    pthread_mutex_unlock(&room->lock);
}

void hub_room_wait(HubRoom *room, bool cramped)
{
    room->cramped += cramped;
    condition_wait_for(&room->changed, &room->lock, LOOK_MS);
    room->cramped -= cramped;
}

void hub_room_wake(HubRoom *room)
{
    pthread_cond_broadcast(&room->changed);
}

bool hub_room_is_cramped(const HubRoom *room)
{
    return room->cramped > 0;
}

uint64_t hub_room_tick(HubRoom *room)
{
    return ++room->ticks;
}

/* ---- blobs ---- */

static int compare_blobs(const void *a, const void *b)
{
    return strcmp(((const RoomBlob *)a)->path, ((const RoomBlob *)b)->path);
}

/* Takes the path over. */
static RoomBlob *take_blob(HubRoom *room, char *path)
{
    RoomBlob wanted = {.path = path};
    RoomBlob **found = tfind(&wanted, &room->blobs, compare_blobs);
    RoomBlob *blob = found != NULL ? *found : NULL;
    if (blob == NULL) {
        blob = mem_calloc(1, sizeof *blob);
        blob->path = path;
        CHECK(tsearch(blob, &room->blobs, compare_blobs) != NULL);
    } else {
        free(path);
    }
    blob->slots++;
    return blob;
}

RoomBlob *hub_room_take_blob(HubRoom *room, const HubPlace *place, const HubFile *file)
{
    return take_blob(room, hub_cache_blob(place->cache, file->etag));
}

void hub_room_pay(HubRoom *room, RoomBlob *blob, RoomMember *member, int64_t bytes)
{
    room->in_use += bytes - blob->paid;
    if (blob->payer != NULL) blob->payer->in_use -= blob->paid;
    if (member != NULL) member->in_use += bytes;
    blob->payer = member;
    blob->paid = bytes;
}

/* ---- what earlier sessions, and sets that are closed, have left ---- */

/* Bytes of a blob on the disk, whole or begun. */
static int64_t bytes_there(const RoomBlob *blob)
{
    struct stat info;
    char *begun = mem_printf("%s.incomplete", blob->path);
    bool there = stat(blob->path, &info) == 0 || stat(begun, &info) == 0;
    free(begun);
    return there ? (int64_t)info.st_size : 0;
}

bool hub_room_is_paid(const HubRoom *room, const RoomBlob *blob)
{
    return blob->payer != NULL && blob->payer != &room->leftovers;
}

static void free_slot(HubRoom *room, RoomBlob *blob)
{
    if (--blob->slots > 0) return;
    hub_room_pay(room, blob, NULL, 0);
    tdelete(blob, &room->blobs, compare_blobs);
    free(blob->path);
    free(blob);
}

/* The slot becomes that of the leftovers, which pay for what is there unless somebody has it. */
static void leave_behind(HubRoom *room, RoomBlob *blob)
{
    int64_t bytes = bytes_there(blob);
    bool had = blob->present > 0 || blob->busy || hub_room_is_paid(room, blob);
    if (!had) hub_room_pay(room, blob, bytes > 0 ? &room->leftovers : NULL, bytes);
    if (bytes == 0 || blob->left) {
        free_slot(room, blob);
        return;
    }
    blob->left = true;
    room->leftover =
        mem_realloc(room->leftover, (size_t)room->num_leftovers + 1, sizeof *room->leftover);
    room->leftover[room->num_leftovers++] = blob;
}

void hub_room_add_leftover(HubRoom *room, const char *path)
{
    hub_room_lock(room);
    RoomBlob *blob = take_blob(room, mem_strdup(path));
    blob->ours = blob->ours || bytes_there(blob) > 0;
    leave_behind(room, blob);
    hub_room_unlock(room);
}

void hub_room_give_blob(HubRoom *room, RoomBlob *blob, const RoomMember *member)
{
    if (blob == NULL) return;
    bool fetched = blob->payer == member || blob->payer == &room->leftovers;
    if (blob->payer == member) hub_room_pay(room, blob, &room->leftovers, blob->paid);
    if (fetched && blob->paid > 0)
        leave_behind(room, blob);
    else
        free_slot(room, blob);
}

static int find_leftover(void *context, const RoomMember *asks, RoomSpare spare, uint64_t *ret_used)
{
    const HubRoom *room = context;
    (void)spare, (void)asks;
    for (int i = 0; i < room->num_leftovers; i++) {
        const RoomBlob *blob = room->leftover[i];
        if (blob->payer != &room->leftovers || blob->paid == 0 || blob->busy) continue;
        if (blob->present > 0) continue; /* a member has it, and drops it himself */
        *ret_used = 0;
        return i;
    }
    return -1;
}

/* Its links lead nowhere then, which is as if it had never been there. */
static void drop_leftover(void *context, int victim)
{
    HubRoom *room = context;
    RoomBlob *blob = room->leftover[victim];
    char *begun = mem_printf("%s.incomplete", blob->path);
    if (blob->ours) unlink(blob->path); /* else what is begun is all that this run has added */
    unlink(begun);
    free(begun);
    hub_room_pay(room, blob, NULL, 0);
}

/* ---- life ---- */

HubRoom *hub_room_create(int64_t bytes_max)
{
    HubRoom *room = mem_calloc(1, sizeof *room);
    room->bytes_max = bytes_max;
    room->holders = 1;
    room->leftovers = (RoomMember){
        .context = room, .find_victim = find_leftover, .drop = drop_leftover, .drops = true};
    room->first = &room->leftovers;
    pthread_mutex_init(&room->lock, NULL);
    condition_init(&room->changed);
    return room;
}

bool hub_room_is_bounded(const HubRoom *room)
{
    return room->bytes_max > 0;
}

HubRoom *hub_room_hold(HubRoom *room)
{
    hub_room_lock(room);
    room->holders++;
    hub_room_unlock(room);
    return room;
}

void hub_room_release(HubRoom *room)
{
    if (room == NULL) return;
    hub_room_lock(room);
    bool last = --room->holders == 0;
    hub_room_unlock(room);
    if (!last) return;
    for (int i = 0; i < room->num_leftovers; i++)
        free_slot(room, room->leftover[i]);
    free(room->leftover);
    CHECK(room->blobs == NULL && room->first == &room->leftovers);
    pthread_cond_destroy(&room->changed);
    pthread_mutex_destroy(&room->lock);
    free(room);
}

/* ---- the disk ---- */

typedef struct Disk {
    int64_t free, reserve, has; /* has: for what the run fetches, with what it has fetched */
    char *place;
} Disk;

/* What is paid for and there; of one on its way what has come. */
static void add_paid(const void *node, VISIT visit, void *sum)
{
    const RoomBlob *blob = *(RoomBlob *const *)node;
    if (visit != postorder && visit != leaf) return;
    int64_t there = blob->paid > 0 ? bytes_there(blob) : 0;
    *(int64_t *)sum += there < blob->paid ? there : blob->paid;
}

static Status look_at_disk(const HubRoom *room, const RoomNeeds *needs, Disk *ret, Error *err)
{
    struct statvfs disk;
    int64_t paid = 0;
    ret->place = path_existing_folder(needs->place->cache->folder);
    if (statvfs(ret->place, &disk) != 0)
        return error_set_errno(err, errno, "could not look at the disk of %s", ret->place);
    int64_t unit = (int64_t)disk.f_frsize, twentieth = (int64_t)disk.f_blocks * unit / 20;
    twalk_r(room->blobs, add_paid, &paid);
    ret->free = (int64_t)disk.f_bavail * unit;
    ret->reserve = twentieth < RESERVE_BYTES ? twentieth : RESERVE_BYTES;
    ret->has = ret->free - ret->reserve + paid;
    return OK;
}

/* ---- members ---- */

/* What is kept for one: what it may not drop counts in any case. */
static int64_t part_of(const RoomMember *member)
{
    return member->drops || member->part > member->in_use ? member->part : member->in_use;
}

/* Of all members but one. */
static int64_t sum_parts(const HubRoom *room, const RoomMember *but)
{
    int64_t sum = 0;
    for (const RoomMember *member = room->first; member != NULL; member = member->next)
        if (member != but) sum += part_of(member);
    return sum;
}

static char *show_bytes(int64_t bytes, char ret[32])
{
    if (bytes < 10000000)
        snprintf(ret, 32, "%.3f MB", (double)bytes / 1e6);
    else
        snprintf(ret, 32, "%.2f GB", (double)bytes / 1e9);
    return ret;
}

typedef struct Refusal {
    const RoomNeeds *needs;
    int64_t limit, others; /* bytes: of the room, and of it for the other members */
    bool bounded;          /* by data.cache_gb */
    const Disk *disk;
} Refusal;

static Status refuse(const Refusal *this, Error *err)
{
    const RoomNeeds *needs = this->needs;
    char needed[32], has[32], free_now[32], reserve[32], pair[32], limit[32], others[32];
    bool all = needs->reading != SHELF_IN_ORDER;
    show_bytes(this->disk->free, free_now), show_bytes(this->disk->reserve, reserve);
    show_bytes(needs->needed, needed), show_bytes(needs->pair, pair);
    if (needs->place->model)
        return error_set(err, ERR_RESOURCE,
                         "%s: %s of it have to be fetched, and %s has %s free, of which %s stay "
                         "free\n  to do: make room, or move the cache to a larger disk (HF_HOME)",
                         needs->label, needed, this->disk->place, free_now, reserve);
    int64_t left = this->limit > this->others ? this->limit - this->others : 0;
    error_set(err, ERR_RESOURCE,
              "%s: %s of it would have to be fetched, and there is room for %s\n"
              "  found: data.cache_gb %s; %s has %s free, of which %s stay free",
              needs->label, needed, show_bytes(left, has),
              this->bounded ? "says so, for all data sets together" : "allows more",
              this->disk->place, free_now, reserve);
    if (this->others > 0)
        error_append(err, "         of %s the other data sets of the run need %s",
                     show_bytes(this->limit, limit), show_bytes(this->others, others));
    if (all)
        error_append(err, "  expected: room for all of it, as its records are read in any order");
    else
        error_append(err, "  expected: room for two of its files, one behind the other: %s", pair);
    return error_append(err, "  to do: %s%s",
                        this->bounded ? "raise data.cache_gb"
                                      : "make room, or move the cache to a larger disk (HF_HOME)",
                        all ? "; or read its files one after another (data.shuffle: false), for "
                              "which a part of them is enough"
                            : "");
}

Status hub_room_refuse(HubRoom *room, const RoomNeeds *needs, Error *err)
{
    Disk disk = {0};
    Status status = look_at_disk(room, needs, &disk, err);
    Refusal refusal = {needs, room->limit, sum_parts(room, NULL),
                       room->bytes_max > 0 && room->bytes_max <= room->limit, &disk};
    if (status == OK) status = refuse(&refusal, err);
    free(disk.place);
    return status;
}

Status hub_room_join(HubRoom *room, const RoomNeeds *needs, RoomMember *member, Error *err)
{
    Disk disk = {0};
    Status status = look_at_disk(room, needs, &disk, err);
    int64_t others = sum_parts(room, member), limit = disk.has;
    bool bounded = room->bytes_max > 0 && limit > room->bytes_max;
    if (bounded) limit = room->bytes_max;
    if (limit < others) limit = others; /* that was promised */
    bool fits = needs->needed <= limit - others;
    member->drops = needs->reading == SHELF_IN_ORDER && (!fits || room->bytes_max > 0);
    member->part = needs->reading == SHELF_FEW ? 0 : needs->needed;
    if (member->drops && needs->pair < member->part) member->part = needs->pair;
    Refusal refusal = {needs, limit, others, bounded, &disk};
    if (status == OK && needs->left > 0 && member->part > limit - others)
        status = refuse(&refusal, err);
    if (status == OK || needs->left == 0) {
        status = OK;
        room->limit = limit;
        member->next = room->first;
        room->first = member;
    }
    free(disk.place);
    return status;
}

void hub_room_leave(HubRoom *room, RoomMember *member)
{
    for (RoomMember **at = &room->first; *at != NULL; at = &(*at)->next) {
        if (*at != member) continue;
        *at = member->next;
        break;
    }
    hub_room_wake(room);
}

/* ---- room for a file ---- */

bool hub_room_may_drop(const RoomBlob *blob, const RoomMember *asks)
{
    const RoomMember *payer = blob->payer;
    return payer == asks || (payer != NULL && payer->in_use > payer->part);
}

/* Of whom the longest unused is dropped; NULL: there is nothing. The parts of all fit into the
 * room, so there is something for whoever has less than his, as soon as it is read and fetched. */
static RoomMember *find_victim(HubRoom *room, const RoomMember *asks, RoomSpare spare,
                               RoomSpare own, int *ret)
{
    RoomMember *found = NULL;
    uint64_t oldest = UINT64_MAX;
    for (RoomMember *member = room->first; member != NULL; member = member->next) {
        uint64_t used = 0;
        if (!member->drops) continue;
        int victim =
            member->find_victim(member->context, asks, member == asks ? own : spare, &used);
        if (victim < 0 || used >= oldest) continue;
        oldest = used;
        found = member;
        *ret = victim;
    }
    return found;
}

RoomStep hub_room_step(HubRoom *room, RoomMember *member, int64_t bytes, bool for_later)
{
    int victim = -1;
    if (room->in_use + bytes <= room->limit) return ROOM_THERE;
    bool own_part = member->in_use + bytes <= member->part;
    if (!member->drops && !own_part && sum_parts(room, NULL) + bytes > room->limit)
        return ROOM_NONE;
    RoomMember *loser = find_victim(room, member, SPARE_SOON, SPARE_SOON, &victim);
    /* A part is for what is read next: that is not for later. */
    if (loser == NULL && (!for_later || own_part))
        loser = find_victim(room, member, SPARE_PART, for_later ? SPARE_SOON : SPARE_NONE, &victim);
    if (loser == NULL) return ROOM_TAKEN;
    loser->drop(loser->context, victim);
    return ROOM_DROPPED;
}
