#include "actor/callers.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/limits.h"
#include "base/memory.h"

struct Caller {
    Callers *callers;
    uint64_t route; /* key: the route's bytes and their number */
    uint64_t incarnation;
    uint64_t highest; /* sequence number */
    uint64_t replies;
    uint64_t seen[SEQUENCE_WINDOW / 64]; /* bit sequence % SEQUENCE_WINDOW */
    UT_hash_handle hh;
};

struct Callers {
    Caller *table;
    Caller *last; /* found most recently: calls come in bursts */
    uint64_t missing;
};

Callers *callers_create(void)
{
    return mem_calloc(1, sizeof(Callers));
}

void callers_destroy(Callers *callers)
{
    if (callers == NULL) return;
    Caller *caller, *next;
    HASH_ITER(hh, callers->table, caller, next)
    {
        HASH_DEL(callers->table, caller);
        free(caller);
    }
    free(callers);
}

/* A ROUTER names its connections with five bytes of its own; a DEALER that chose a name is none of
 * ours, and is served as long as the name is as short. */
static bool route_key(Bytes route, uint64_t *ret)
{
    if (route.length == 0 || route.length > 7) return false;
    *ret = (uint64_t)route.length << 56;
    memcpy(ret, route.data, route.length);
    return true;
}

static void forget_oldest(Callers *callers)
{
    Caller *oldest = callers->table; /* uthash keeps the order of insertion */
    HASH_DEL(callers->table, oldest);
    if (callers->last == oldest) callers->last = NULL;
    free(oldest);
}

Caller *callers_find(Callers *callers, Bytes route, uint64_t incarnation)
{
    uint64_t key;
    if (!route_key(route, &key)) return NULL;
    Caller *caller = callers->last;
    if (caller == NULL || caller->route != key)
        HASH_FIND(hh, callers->table, &key, sizeof key, caller);
    if (caller != NULL && caller->incarnation != incarnation) {
        HASH_DEL(callers->table, caller);
        if (callers->last == caller) callers->last = NULL;
        free(caller);
        caller = NULL;
    }
    if (caller == NULL) {
        if (HASH_COUNT(callers->table) >= CALLERS_MAX) forget_oldest(callers);
        caller = mem_calloc(1, sizeof *caller);
        caller->callers = callers;
        caller->route = key;
        caller->incarnation = incarnation;
        HASH_ADD(hh, callers->table, route, sizeof caller->route, caller);
    }
    callers->last = caller;
    return caller;
}

static bool is_seen(const Caller *caller, uint64_t sequence)
{
    uint64_t bit = sequence % SEQUENCE_WINDOW;
    return (caller->seen[bit / 64] >> bit % 64 & 1) != 0;
}

static void set_seen(Caller *caller, uint64_t sequence, bool seen)
{
    uint64_t bit = sequence % SEQUENCE_WINDOW;
    if (seen)
        caller->seen[bit / 64] |= 1ull << bit % 64;
    else
        caller->seen[bit / 64] &= ~(1ull << bit % 64);
}

bool caller_accept(Caller *caller, uint64_t sequence)
{
    if (sequence > caller->highest) {
        uint64_t skipped = sequence - caller->highest - 1;
        if (skipped >= SEQUENCE_WINDOW)
            memset(caller->seen, 0, sizeof caller->seen);
        else
            for (uint64_t s = caller->highest + 1; s < sequence; s++)
                set_seen(caller, s, false);
        caller->callers->missing += skipped;
        caller->highest = sequence;
        set_seen(caller, sequence, true);
        return true;
    }
    if (caller->highest - sequence >= SEQUENCE_WINDOW || is_seen(caller, sequence)) return false;
    set_seen(caller, sequence, true);
    caller->callers->missing--;
    return true;
}

uint64_t caller_next_reply(Caller *caller)
{
    return ++caller->replies;
}

uint64_t callers_missing(const Callers *callers)
{
    return callers->missing;
}
