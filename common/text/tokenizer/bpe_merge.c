/* Merging: short words by a scan for the lowest rank; long ones by a list of places for every rank,
 * or where the ranks allow no such order, by a heap. None is quadratic in the length of a word. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer/bpe_internal.h"

/* ---- short words ---- */

void merge_short(const Bpe *bpe, ShortWord *word, uint32_t *ret_last_rank)
{
    uint32_t *id = word->id, *end = word->end, *rank = word->rank;
    uint32_t count = word->count, last_rank = 0;
    for (uint32_t i = 0; i + 1 < count; i++)
        rank[i] = pair_rank(bpe, id[i], id[i + 1]);
    while (count > 1) {
        uint32_t lowest = RANK_NONE, at = 0;
        for (uint32_t i = 0; i + 1 < count; i++) {
            if (rank[i] < lowest) {
                lowest = rank[i];
                at = i;
            }
        }
        if (lowest == RANK_NONE) break;
        if (lowest > last_rank) last_rank = lowest;
        id[at] = bpe->merged[lowest];
        end[at] = end[at + 1];
        count--;
        for (uint32_t i = at + 1; i < count; i++) {
            id[i] = id[i + 1];
            end[i] = end[i + 1];
            rank[i] = rank[i + 1];
        }
        if (at + 1 < count) rank[at] = pair_rank(bpe, id[at], id[at + 1]);
        if (at > 0) rank[at - 1] = pair_rank(bpe, id[at - 1], id[at]);
    }
    word->count = count;
    if (ret_last_rank != NULL) *ret_last_rank = last_rank;
}

/* ---- a heap of numbers, the lowest on top ---- */

static void heap_push(BpeScratch *scratch, size_t *count, uint64_t value)
{
    if (*count == scratch->heap_capacity) {
        scratch->heap_capacity = scratch->heap_capacity * 2 + 64;
        scratch->heap = mem_realloc(scratch->heap, scratch->heap_capacity, sizeof *scratch->heap);
    }
    uint64_t *heap = scratch->heap;
    size_t at = (*count)++;
    while (at > 0 && heap[(at - 1) / 2] > value) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    uint64_t top = heap[0], value = heap[--*count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= *count) break;
        if (child + 1 < *count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
    return top;
}

/* ---- long words ---- */

static void link_symbols(BpeSymbol *symbol, size_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        symbol[i].previous = i == 0 ? UINT32_MAX : i - 1;
        symbol[i].next = i + 1 == count ? UINT32_MAX : i + 1;
    }
}

/* Merges the symbol at `left` with the one behind it if they still are the pair of this rank. */
static bool merge_at(const Bpe *bpe, BpeSymbol *symbol, uint32_t left, uint32_t rank)
{
    uint32_t right = symbol[left].next;
    if (symbol[left].id != bpe->left[rank] || right == UINT32_MAX ||
        symbol[right].id != bpe->right[rank])
        return false;
    symbol[left].id = bpe->merged[rank];
    symbol[left].end = symbol[right].end;
    symbol[left].next = symbol[right].next;
    symbol[right].id = TOKEN_NONE;
    if (symbol[left].next != UINT32_MAX) symbol[symbol[left].next].previous = left;
    return true;
}

static uint32_t rank_at(const Bpe *bpe, const BpeSymbol *symbol, uint32_t left)
{
    return pair_rank(bpe, symbol[left].id, symbol[symbol[left].next].id);
}

static void push_place(const Bpe *bpe, BpeScratch *scratch, size_t *heap_count, uint32_t left)
{
    uint32_t rank = rank_at(bpe, scratch->symbol, left);
    if (rank != RANK_NONE) heap_push(scratch, heap_count, (uint64_t)rank << 32 | left);
}

/* A heap of (rank, place): right for any table of merges. */
static void merge_by_heap(const Bpe *bpe, BpeScratch *scratch, size_t count)
{
    BpeSymbol *symbol = scratch->symbol;
    size_t heap_count = 0;
    for (uint32_t i = 0; i + 1 < count; i++)
        push_place(bpe, scratch, &heap_count, i);
    while (heap_count > 0) {
        uint64_t top = heap_pop(scratch->heap, &heap_count);
        uint32_t left = (uint32_t)top;
        if (!merge_at(bpe, symbol, left, (uint32_t)(top >> 32))) continue;
        if (symbol[left].next != UINT32_MAX) push_place(bpe, scratch, &heap_count, left);
        if (symbol[left].previous != UINT32_MAX)
            push_place(bpe, scratch, &heap_count, symbol[left].previous);
    }
}

typedef struct RankLists {
    size_t heap_count, node_count;
} RankLists;

/* Notes that the pair at `left` may be merged when its rank's turn comes. */
static void list_place(const Bpe *bpe, BpeScratch *scratch, RankLists *lists, uint32_t left)
{
    uint32_t rank = rank_at(bpe, scratch->symbol, left);
    if (rank == RANK_NONE) return;
    if (lists->node_count == scratch->node_capacity) {
        scratch->node_capacity = scratch->node_capacity * 2 + 256;
        scratch->node_place = mem_realloc(scratch->node_place, scratch->node_capacity, 4);
        scratch->node_next = mem_realloc(scratch->node_next, scratch->node_capacity, 4);
    }
    uint32_t node = (uint32_t)lists->node_count++;
    scratch->node_place[node] = left;
    scratch->node_next[node] = UINT32_MAX;
    if (scratch->list_head[rank] == UINT32_MAX) {
        scratch->list_head[rank] = node;
        heap_push(scratch, &lists->heap_count, rank);
    } else {
        scratch->node_next[scratch->list_tail[rank]] = node;
    }
    scratch->list_tail[rank] = node;
}

static int compare_places(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Takes the list of a rank as an array in order of place. */
static size_t take_list(BpeScratch *scratch, uint32_t rank)
{
    size_t count = 0;
    bool in_order = true;
    for (uint32_t node = scratch->list_head[rank]; node != UINT32_MAX;
         node = scratch->node_next[node]) {
        if (count == scratch->sorted_capacity) {
            scratch->sorted_capacity = scratch->sorted_capacity * 2 + 256;
            scratch->sorted = mem_realloc(scratch->sorted, scratch->sorted_capacity, 4);
        }
        scratch->sorted[count] = scratch->node_place[node];
        if (count > 0 && scratch->sorted[count] < scratch->sorted[count - 1]) in_order = false;
        count++;
    }
    scratch->list_head[rank] = UINT32_MAX;
    if (!in_order) qsort(scratch->sorted, count, sizeof *scratch->sorted, compare_places);
    return count;
}

/* Merges all pairs of a rank from left to right and notes the pairs that this makes. They have a
 * higher rank, so only those that are left in the end count. */
static void merge_rank(const Bpe *bpe, BpeScratch *scratch, RankLists *lists, uint32_t rank)
{
    BpeSymbol *symbol = scratch->symbol;
    size_t places = take_list(scratch, rank), merged = 0;
    for (size_t i = 0; i < places; i++)
        if (merge_at(bpe, symbol, scratch->sorted[i], rank))
            scratch->sorted[merged++] = scratch->sorted[i];
    for (size_t i = 0; i < merged; i++) {
        uint32_t left = scratch->sorted[i], previous = symbol[left].previous;
        if (previous != UINT32_MAX && (i == 0 || previous != scratch->sorted[i - 1]))
            list_place(bpe, scratch, lists, previous);
        if (symbol[left].next != UINT32_MAX) list_place(bpe, scratch, lists, left);
    }
}

/* Where a merge never makes a pair of a lower or the same rank, all places of the lowest rank may
 * be merged in one go: the heap then holds ranks instead of places. */
static void merge_by_rank(const Bpe *bpe, BpeScratch *scratch, size_t count)
{
    RankLists lists = {0};
    if (scratch->list_head == NULL) {
        size_t bytes = (bpe->merge_count + 1) * sizeof(uint32_t);
        scratch->list_head = mem_alloc(bytes);
        scratch->list_tail = mem_alloc(bytes);
        memset(scratch->list_head, 0xFF, bytes);
    }
    for (uint32_t i = 0; i + 1 < count; i++)
        list_place(bpe, scratch, &lists, i);
    while (lists.heap_count > 0)
        merge_rank(bpe, scratch, &lists, (uint32_t)heap_pop(scratch->heap, &lists.heap_count));
}

void merge_long(const Bpe *bpe, BpeScratch *scratch, size_t count)
{
    link_symbols(scratch->symbol, count);
    if (bpe->ranks_in_order)
        merge_by_rank(bpe, scratch, count);
    else
        merge_by_heap(bpe, scratch, count);
}
