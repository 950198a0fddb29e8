/* CallTable: the calls of one handle that wait for an answer. Found by id in constant time, ended
 * in order of their deadlines by a binary heap (calls mostly have one timeout, so an insertion
 * rarely moves). Loop thread. */
#ifndef TROUPE_ACTOR_CALL_TABLE_H
#define TROUPE_ACTOR_CALL_TABLE_H

#include "actor/handle.h"
#include "base/limits.h"

typedef struct PendingCall {
    uint64_t id; /* never reused; 0: a free slot */
    int64_t deadline_ms;
    ReplyCallback callback;
    void *argument;
    uint32_t heap_index;
    uint32_t next_free;
    char method[METHOD_NAME_MAX];
} PendingCall;

typedef struct CallTable {
    PendingCall *slots;
    uint32_t *heap; /* slot numbers, earliest deadline first */
    uint32_t count, capacity, first_free;
    uint64_t last_serial;
} CallTable;

void call_table_free(CallTable *table); /* zero-initialise before use; forgets the calls */

/* Takes a copy of `call`, whose id it chooses and returns; 0 if CALLS_IN_FLIGHT_MAX are waiting. */
uint64_t call_table_add(CallTable *table, const PendingCall *call);
const PendingCall *call_table_find(const CallTable *table,
                                   uint64_t id);             /* NULL: not (any more) there */
const PendingCall *call_table_first(const CallTable *table); /* earliest deadline; NULL: empty */

/* Takes the call out; false if it is not there. */
bool call_table_take(CallTable *table, uint64_t id, PendingCall *ret);

#endif
