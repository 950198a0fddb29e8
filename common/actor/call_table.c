#include "actor/call_table.h"

#include <stdlib.h>

#include "base/memory.h"

/* An id is a serial number with the slot in its low bits. */
enum { SLOT_BITS = 16, SLOT_NONE = 0xFFFFFFFF };
_Static_assert(CALLS_IN_FLIGHT_MAX <= 1 << SLOT_BITS, "a slot number must fit into an id");

void call_table_free(CallTable *table)
{
    free(table->slots);
    free(table->heap);
    *table = (CallTable){0};
}

static void table_grow(CallTable *table)
{
    uint32_t capacity = table->capacity > 0 ? table->capacity * 2 : 16;
    if (capacity > CALLS_IN_FLIGHT_MAX) capacity = CALLS_IN_FLIGHT_MAX;
    table->slots = mem_realloc(table->slots, capacity, sizeof *table->slots);
    table->heap = mem_realloc(table->heap, capacity, sizeof *table->heap);
    for (uint32_t i = table->capacity; i < capacity; i++)
        table->slots[i] = (PendingCall){.next_free = i + 1 < capacity ? i + 1 : SLOT_NONE};
    table->first_free = table->capacity;
    table->capacity = capacity;
}

static int64_t deadline_at(const CallTable *table, uint32_t index)
{
    return table->slots[table->heap[index]].deadline_ms;
}

static void heap_place(CallTable *table, uint32_t index, uint32_t slot)
{
    table->heap[index] = slot;
    table->slots[slot].heap_index = index;
}

static void heap_rise(CallTable *table, uint32_t index)
{
    uint32_t slot = table->heap[index];
    int64_t deadline = table->slots[slot].deadline_ms;
    while (index > 0 && deadline_at(table, (index - 1) / 2) > deadline) {
        heap_place(table, index, table->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_place(table, index, slot);
}

static void heap_sink(CallTable *table, uint32_t index)
{
    uint32_t slot = table->heap[index];
    int64_t deadline = table->slots[slot].deadline_ms;
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= table->count) break;
        if (child + 1 < table->count && deadline_at(table, child + 1) < deadline_at(table, child))
            child++;
        if (deadline_at(table, child) >= deadline) break;
        heap_place(table, index, table->heap[child]);
        index = child;
    }
    heap_place(table, index, slot);
}

uint64_t call_table_add(CallTable *table, const PendingCall *call)
{
    if (table->count == CALLS_IN_FLIGHT_MAX) return 0;
    if (table->count == table->capacity) table_grow(table);
    uint32_t slot = table->first_free;
    PendingCall *pending = &table->slots[slot];
    table->first_free = pending->next_free;
    *pending = *call;
    pending->id = ++table->last_serial << SLOT_BITS | slot;
    heap_place(table, table->count, slot);
    table->count++;
    heap_rise(table, pending->heap_index);
    return pending->id;
}

const PendingCall *call_table_find(const CallTable *table, uint64_t id)
{
    uint32_t slot = (uint32_t)(id & ((1u << SLOT_BITS) - 1));
    if (id == 0 || slot >= table->capacity || table->slots[slot].id != id) return NULL;
    return &table->slots[slot];
}

const PendingCall *call_table_first(const CallTable *table)
{
    return table->count > 0 ? &table->slots[table->heap[0]] : NULL;
}

bool call_table_take(CallTable *table, uint64_t id, PendingCall *ret)
{
    const PendingCall *found = call_table_find(table, id);
    if (found == NULL) return false;
    *ret = *found;
    uint32_t slot = (uint32_t)(found - table->slots);
    uint32_t hole = found->heap_index;
    table->count--;
    if (hole != table->count) {
        heap_place(table, hole, table->heap[table->count]);
        heap_rise(table, hole);
        heap_sink(table, hole);
    }
    table->slots[slot].id = 0;
    table->slots[slot].next_free = table->first_free;
    table->first_free = slot;
    return true;
}
