#include "model/weight_board.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "base/shared_memory.h"
#include "tensor/digest.h"

#define NUM_SLOTS 2

/* `version` is 0 while the slot is empty or being written. */
typedef struct Slot {
    _Atomic int64_t version;
    uint64_t flat_offset, digest_offset; /* from the beginning of the memory */
} Slot;

typedef struct BoardHeader {
    SharedMemory memory;
    uint64_t layout; /* digest of what both sides must agree on */
    uint64_t flat_bytes;
    Slot slot[NUM_SLOTS];
} BoardHeader;

struct WeightBoard {
    const WeightPlan *plan; /* borrowed */
    DType dtype;
    BoardHeader *header;
    SharedMemoryId id;
    bool is_reader;
};

_Static_assert(sizeof(SharedMemoryId) <= WEIGHT_BOARD_ID_BYTES, "an id must hold it");

/* ---- layout ---- */

static size_t page_up(size_t bytes)
{
    return (bytes + SHARED_MEMORY_PAGE - 1) / SHARED_MEMORY_PAGE * SHARED_MEMORY_PAGE;
}

static size_t flat_bytes(const WeightPlan *plan, DType dtype)
{
    return (size_t)plan->size * dtype_size(dtype);
}

static size_t digest_bytes_of(const WeightPlan *plan)
{
    return (size_t)plan->num_specs * sizeof(uint64_t);
}

/* Header and digests, then the two flat buffers on pages of their own. */
static size_t first_flat_offset(const WeightPlan *plan)
{
    return page_up(sizeof(BoardHeader) + NUM_SLOTS * digest_bytes_of(plan));
}

int64_t weight_board_bytes(const WeightPlan *plan, DType dtype)
{
    return (int64_t)(first_flat_offset(plan) + NUM_SLOTS * page_up(flat_bytes(plan, dtype)));
}

/* Two plans with one digest have the same tensors at the same places, of the same rank. */
static uint64_t layout_digest(const WeightPlan *plan, DType dtype)
{
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    int64_t shape[] = {plan->tp_rank, plan->tp_size, plan->size, plan->num_specs, dtype};
    XXH3_64bits_update(state, shape, sizeof shape);
    for (int i = 0; i < plan->num_specs; i++) {
        const WeightSpec *spec = &plan->spec[i];
        int64_t part[] = {spec->local_rows, spec->local_cols, spec->offset};
        XXH3_64bits_update(state, spec->name, strlen(spec->name) + 1);
        XXH3_64bits_update(state, part, sizeof part);
    }
    uint64_t digest = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return digest;
}

static void *slot_flat(const WeightBoard *board, const Slot *slot)
{
    return (char *)board->header + slot->flat_offset;
}

static uint64_t *slot_digests(const WeightBoard *board, const Slot *slot)
{
    return (uint64_t *)((char *)board->header + slot->digest_offset);
}

static size_t spec_bytes(const WeightBoard *board, int spec)
{
    const WeightSpec *it = &board->plan->spec[spec];
    return (size_t)(it->local_rows * it->local_cols) * dtype_size(board->dtype);
}

static size_t spec_offset(const WeightBoard *board, int spec)
{
    return (size_t)board->plan->spec[spec].offset * dtype_size(board->dtype);
}

/* ---- making, opening ---- */

Status weight_board_create(const WeightPlan *plan, DType dtype, WeightBoardId *ret_id,
                           WeightBoard **ret, Error *err)
{
    SharedMemoryId id;
    SharedMemory *memory = NULL;
    size_t bytes = (size_t)weight_board_bytes(plan, dtype);
    TRY(shared_memory_create("troupe-weights", bytes, &id, &memory, err));
    BoardHeader *header = (BoardHeader *)memory;
    header->layout = layout_digest(plan, dtype);
    header->flat_bytes = flat_bytes(plan, dtype);
    for (size_t i = 0; i < NUM_SLOTS; i++) {
        header->slot[i].digest_offset = sizeof(BoardHeader) + i * digest_bytes_of(plan);
        header->slot[i].flat_offset = first_flat_offset(plan) + i * page_up(header->flat_bytes);
    }
    WeightBoard *board = mem_calloc(1, sizeof *board);
    *board = (WeightBoard){.plan = plan, .dtype = dtype, .header = header, .id = id};
    memset(ret_id, 0, sizeof *ret_id);
    memcpy(ret_id->bytes, &id, sizeof id);
    *ret = board;
    return OK;
}

Status weight_board_open(const WeightBoardId *id, const WeightPlan *plan, DType dtype,
                         WeightBoard **ret, Error *err)
{
    SharedMemoryId memory_id;
    SharedMemory *memory = NULL;
    memcpy(&memory_id, id->bytes, sizeof memory_id);
    TRY(shared_memory_open(&memory_id, "the train rank", false, &memory, err));
    BoardHeader *header = (BoardHeader *)memory;
    bool fits = memory->bytes == (uint64_t)weight_board_bytes(plan, dtype);
    if (!fits || header->layout != layout_digest(plan, dtype)) {
        shared_memory_unmap(memory);
        return error_set(err, ERR_INVALID,
                         "the train rank (pid %d) shows weights of another model, type or layout "
                         "than rank %d of %d in %s here; both sides must run the same job",
                         memory_id.pid, plan->tp_rank, plan->tp_size, dtype_name(dtype));
    }
    WeightBoard *board = mem_calloc(1, sizeof *board);
    *board = (WeightBoard){
        .plan = plan, .dtype = dtype, .header = header, .id = memory_id, .is_reader = true};
    *ret = board;
    return OK;
}

void weight_board_destroy(WeightBoard *board)
{
    if (board == NULL) return;
    if (!board->is_reader) shared_memory_discard(&board->id);
    shared_memory_unmap(&board->header->memory);
    free(board);
}

/* ---- versions ---- */

int64_t weight_board_newest(const WeightBoard *board)
{
    int64_t newest = 0;
    for (int i = 0; i < NUM_SLOTS; i++) {
        int64_t version = atomic_load(&board->header->slot[i].version);
        if (version > newest) newest = version;
    }
    return newest;
}

static Slot *slot_of(const WeightBoard *board, int64_t version)
{
    for (int i = 0; i < NUM_SLOTS && version > 0; i++)
        if (atomic_load(&board->header->slot[i].version) == version) return &board->header->slot[i];
    return NULL;
}

/* Copies from the device and returns the digest of what came. */
static uint64_t fetch(const KernelTable *kernels, void *to, const void *from, size_t bytes)
{
    if (kernels->host_memory) return digest_copy(to, from, bytes);
    kernels->download(to, from, bytes);
    return digest_memory(to, bytes);
}

/* Copies to the device and returns the digest of what is there. */
static uint64_t send(const KernelTable *kernels, void *to, const void *from, size_t bytes)
{
    if (kernels->host_memory) return copy_digest(to, from, bytes);
    kernels->upload(to, from, bytes);
    return digest_memory(from, bytes);
}

void weight_board_publish(WeightBoard *board, int64_t version, const KernelTable *kernels,
                          const void *flat)
{
    int64_t newest = weight_board_newest(board);
    CHECK(version > newest);
    Slot *slot = &board->header->slot[0];
    if (newest > 0 && atomic_load(&slot->version) == newest) slot++;
    atomic_store(&slot->version, 0);
    char *to = slot_flat(board, slot);
    uint64_t *digest = slot_digests(board, slot);
    for (int i = 0; i < board->plan->num_specs; i++) {
        size_t offset = spec_offset(board, i);
        digest[i] = fetch(kernels, to + offset, (const char *)flat + offset, spec_bytes(board, i));
    }
    atomic_store(&slot->version, version);
}

static Status refuse_version(const WeightBoard *board, int64_t version, Error *err)
{
    return error_set(err, ERR_NOT_FOUND,
                     "version %lld of the weights is not on the board of pid %d; the newest is "
                     "%lld",
                     (long long)version, board->id.pid, (long long)weight_board_newest(board));
}

/* A tensor that differs is one that was overwritten, or else one that is broken. */
Status weight_board_take(const WeightBoard *board, int64_t version, const KernelTable *kernels,
                         void *flat, Error *err)
{
    const Slot *slot = slot_of(board, version);
    if (slot == NULL) return refuse_version(board, version, err);
    int wrong = -1;
    for (int i = 0; i < board->plan->num_specs && wrong < 0; i++) {
        size_t at = spec_offset(board, i);
        const char *from = (const char *)slot_flat(board, slot) + at;
        uint64_t digest = send(kernels, (char *)flat + at, from, spec_bytes(board, i));
        if (digest != slot_digests(board, slot)[i]) wrong = i;
    }
    atomic_thread_fence(memory_order_acquire); /* all was read before the version is read again */
    if (atomic_load(&slot->version) != version) return refuse_version(board, version, err);
    if (wrong >= 0)
        return error_set(err, ERR_DATA,
                         "%s of version %lld is not what the train rank (pid %d) wrote: its digest "
                         "differs",
                         board->plan->spec[wrong].name, (long long)version, board->id.pid);
    return OK;
}

uint64_t weight_board_digest(const WeightBoard *board, int64_t version)
{
    const Slot *slot = slot_of(board, version);
    if (slot == NULL) return 0;
    return XXH3_64bits(slot_digests(board, slot),
                       (size_t)board->plan->num_specs * sizeof(uint64_t));
}
