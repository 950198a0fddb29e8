/* HubRoom: what a run may add to the cache of the Hub, one bound for all of its data sets: those of
 * a list, of a mixture, of evaluations. Each is a member with a part that nobody else takes from
 * it: all of it where its files are read in any order, else the two of its files, one behind the
 * other, that are largest together. What is left belongs to who asks; a member that lacks room
 * makes the others drop what is beyond their part, what was used longest ago first.
 *
 * Room is what the disk has free, less a reserve, and no more than a bound; it is for what the run
 * has fetched, also for sets that are closed: what was in the cache before stays and takes none of
 * it.
 *
 * The room has the lock of all its members: what is said below of "with the lock" is theirs, too.
 * It lives as long as somebody holds it. */
#ifndef TROUPE_HUB_ROOM_H
#define TROUPE_HUB_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hub/fetch.h"

typedef struct HubRoom HubRoom;

HubRoom *hub_room_create(int64_t bytes_max); /* 0: what the disk has */
/* That an earlier session of the run has fetched a blob, or a part of it: it takes room, and may be
 * dropped until a set that has it is opened. */
void hub_room_add_leftover(HubRoom *room, const char *blob);
bool hub_room_is_bounded(const HubRoom *room);
HubRoom *hub_room_hold(HubRoom *room); /* once more; gives it back */
void hub_room_release(HubRoom *room);  /* accepts NULL */

void hub_room_lock(HubRoom *room);
void hub_room_unlock(HubRoom *room);
/* With the lock, which they let go: until somebody wakes, or for a moment at most. `cramped`: for
 * room, so that whoever gives something back has to wake. */
void hub_room_wait(HubRoom *room, bool cramped);
void hub_room_wake(HubRoom *room);
bool hub_room_is_cramped(const HubRoom *room);
uint64_t hub_room_tick(HubRoom *room); /* one more than the last */

typedef enum {
    SHELF_ANY_ORDER, /* files are read in any order: all of them have to find room */
    SHELF_IN_ORDER,  /* one after another, and from the first again */
    SHELF_FEW,       /* only those that are taken are fetched, none ahead */
} ShelfReading;

/* What is not dropped of a member, counted from the file that was taken last. */
typedef enum {
    SPARE_SOON, /* what is read soon */
    SPARE_PART, /* what its part is for: that file and the next */
    SPARE_NONE,
} RoomSpare;

/* Who is a member. The functions are called with the lock. */
typedef struct RoomMember {
    void *context;
    /* What nobody has, was used longest ago and may be dropped for who asks, and when that was; -1:
     * there is none. */
    int (*find_victim)(void *context, const struct RoomMember *asks, RoomSpare spare,
                       uint64_t *ret_used);
    void (*drop)(void *context, int victim); /* lets the lock go for a time */
    /* The room's. */
    bool drops;           /* its files may be dropped */
    int64_t part, in_use; /* bytes that are kept for it; that it takes */
    struct RoomMember *next;
} RoomMember;

/* The content of files, perhaps of several, in sets of which each may be a member. With the lock.
 */
typedef struct RoomBlob {
    char *path;
    int slots, present; /* files that have this content, of which so many are there */
    bool ours;          /* this run has fetched it */
    bool busy;          /* it is being fetched, or dropped */
    bool left;          /* one of the room's leftovers, which have a slot of their own */
    int64_t partial;    /* bytes of it that an earlier try has left */
    RoomMember *payer;  /* whose bytes these are; NULL: nobody's */
    int64_t paid;
} RoomBlob;

/* That of a file, for one slot more. With the lock. */
RoomBlob *hub_room_take_blob(HubRoom *room, const HubPlace *place, const HubFile *file);
/* Whose slot it was pays no more. What is there of it goes on to count: it becomes a leftover, as
 * of an earlier session, unless others have it. Accepts NULL. */
void hub_room_give_blob(HubRoom *room, RoomBlob *blob, const RoomMember *member);
/* Paid by who asks, or by who has more than his part. */
bool hub_room_may_drop(const RoomBlob *blob, const RoomMember *asks);
bool hub_room_is_paid(const HubRoom *room, const RoomBlob *blob); /* by a member */
/* So many bytes of it are, or will be, there, and count as those of the member. */
void hub_room_pay(HubRoom *room, RoomBlob *blob, RoomMember *member, int64_t bytes);

typedef struct RoomNeeds {
    const char *label;
    const HubPlace *place;
    ShelfReading reading;
    int64_t needed; /* bytes that are missing, or ours */
    int64_t left;   /* bytes that are missing */
    int64_t pair;   /* of the two files, one behind the other, of which this is most */
} RoomNeeds;

/* What it has paid for before counts as there. ERR_RESOURCE: there is no room, with the figures and
 * what to do; it is no member then, but has to leave all the same. With the lock. */
Status hub_room_join(HubRoom *room, const RoomNeeds *needs, RoomMember *member, Error *err);
void hub_room_leave(HubRoom *room, RoomMember *member); /* with the lock */

typedef enum {
    ROOM_THERE,   /* there is room for it */
    ROOM_DROPPED, /* something was dropped, and the lock was let go: look again */
    ROOM_TAKEN,   /* what could be dropped is being read */
    ROOM_NONE,    /* there never is: only of who takes few files */
} RoomStep;

/* With the lock. `for_later`: nobody waits for it, so nothing is dropped that will be read soon,
 * but of who has more than his part for who has less. */
RoomStep hub_room_step(HubRoom *room, RoomMember *member, int64_t bytes, bool for_later);
Status hub_room_refuse(HubRoom *room, const RoomNeeds *needs, Error *err);

#endif
