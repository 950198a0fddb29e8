#include "model/weight_board.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd_offer.h"
#include "base/memory.h"
#include "base/shared_memory.h"
#include "model/weight_digest.h"
#include "tensor/digest.h"

#define SLOTS_MAX          WEIGHT_BOARD_SLOTS_MAX
#define DESCRIPTOR_WAIT_MS 10000
#define HOST_COPY_WAIT_MS  120000    /* in which two versions are copied from a device */
#define ASK_HOST_COPY      SLOTS_MAX /* beside the slots' numbers */
#define NOTE_BYTES         256

/* `version` is 0 while the slot is empty or being written. */
typedef struct Slot {
    _Atomic int64_t version;
} Slot;

typedef struct BoardHeader {
    SharedMemory memory;
    uint64_t layout; /* digest of what both sides must agree on */
    uint64_t flat_bytes;
    int32_t num_slots;
    bool on_device;
    unsigned char device[DEVICE_ID_BYTES]; /* on a device: that one ... */
    FdOfferName offer;                     /* ... and where its memory's descriptors are had */
    _Atomic bool has_host_copy;
    SharedMemoryId host_copy;      /* the slots, behind a page, for those who cannot map them */
    char no_host_copy[NOTE_BYTES]; /* why there is none though it was asked for */
    Slot slot[SLOTS_MAX];
} BoardHeader;

struct WeightBoard {
    const WeightPlan *plan; /* borrowed */
    DType dtype;
    BoardHeader *header;
    SharedMemoryId id;
    bool is_reader, in_place;
    void *flat[SLOTS_MAX]; /* for this process; device memory where `memory` is not NULL */
    /* a board on a device */
    const DeviceMemory *memory;
    const KernelTable *kernels; /* of the maker's last publication; NULL: none yet */
    WeightDigester digester;
    char note[NOTE_BYTES];
    FdOffer *offer;        /* the maker's */
    int fd[SLOTS_MAX];     /* the maker's, of its slots */
    SharedMemory *host;    /* the copy in the host's memory; NULL: none */
    pthread_mutex_t mutex; /* the maker's: slots are written, or copied for the host */
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

/* Header and digests; the slots of a board in the host's memory follow on pages of their own. */
static size_t header_bytes(const WeightPlan *plan)
{
    return page_up(sizeof(BoardHeader) + SLOTS_MAX * digest_bytes_of(plan));
}

int64_t weight_board_bytes(const WeightPlan *plan, DType dtype, int num_slots)
{
    return (int64_t)((size_t)num_slots * page_up(flat_bytes(plan, dtype)));
}

static uint64_t *slot_digests(const WeightBoard *board, int slot)
{
    return (uint64_t *)((char *)board->header + sizeof(BoardHeader) +
                        (size_t)slot * digest_bytes_of(board->plan));
}

/* The slots in the host's memory, which begin at `first` of a shared memory. */
static void place_slots(WeightBoard *board, void *memory, size_t first)
{
    for (int i = 0; i < board->header->num_slots; i++)
        board->flat[i] =
            (char *)memory + first + (size_t)i * page_up((size_t)board->header->flat_bytes);
}

/* ---- on a device: for readers that cannot map it ---- */

static char *host_flat(const WeightBoard *board, int slot)
{
    return (char *)board->host + SHARED_MEMORY_PAGE +
           (size_t)slot * page_up((size_t)board->header->flat_bytes);
}

/* With the mutex held. */
static void make_host_copy(WeightBoard *board)
{
    Error err = {0};
    BoardHeader *header = board->header;
    if (board->host != NULL) return;
    size_t bytes = SHARED_MEMORY_PAGE +
                   (size_t)weight_board_bytes(board->plan, board->dtype, header->num_slots);
    if (shared_memory_create("troupe-weights", bytes, &header->host_copy, &board->host, &err) !=
        OK) {
        snprintf(header->no_host_copy, sizeof header->no_host_copy, "%.*s", NOTE_BYTES - 1,
                 err.message);
        return;
    }
    for (int i = 0; i < header->num_slots; i++)
        if (atomic_load(&header->slot[i].version) > 0)
            board->kernels->download(host_flat(board, i), board->flat[i],
                                     (size_t)header->flat_bytes);
    atomic_store(&header->has_host_copy, true);
}

/* On the offer's thread. */
static int give_descriptor(void *context, int32_t what)
{
    WeightBoard *board = context;
    if (what >= 0 && what < board->header->num_slots) return board->fd[what];
    if (what == ASK_HOST_COPY) {
        pthread_mutex_lock(&board->mutex);
        make_host_copy(board);
        pthread_mutex_unlock(&board->mutex);
    }
    return -1;
}

/* ---- making ---- */

static void close_slots(WeightBoard *board)
{
    for (int i = 0; board->memory != NULL && i < board->header->num_slots; i++) {
        board->memory->close(board->flat[i]);
        if (board->fd[i] >= 0) close(board->fd[i]);
        board->flat[i] = NULL;
        board->fd[i] = -1;
    }
    board->memory = NULL;
}

/* False: the slots are to be in the host's memory, and the board has noted why. */
static bool put_on_device(WeightBoard *board, const DeviceMemory *memory)
{
    Error err = {0};
    BoardHeader *header = board->header;
    board->memory = memory;
    for (int i = 0; i < header->num_slots; i++) {
        board->flat[i] = memory->share((size_t)header->flat_bytes, &board->fd[i], board->note,
                                       sizeof board->note);
        if (board->flat[i] == NULL) {
            close_slots(board);
            return false;
        }
    }
    memory->identify(header->device);
    if (fd_offer_create(give_descriptor, board, &header->offer, &board->offer, &err) != OK) {
        snprintf(board->note, sizeof board->note, "%.*s", NOTE_BYTES - 1, err.message);
        close_slots(board);
        return false;
    }
    header->on_device = true;
    return true;
}

static Status make_header(WeightBoard *board, size_t bytes, int num_slots, Error *err)
{
    SharedMemory *memory = NULL;
    TRY(shared_memory_create("troupe-weights", bytes, &board->id, &memory, err));
    board->header = (BoardHeader *)memory;
    board->header->layout = weight_layout_digest(board->plan, board->dtype);
    board->header->flat_bytes = flat_bytes(board->plan, board->dtype);
    board->header->num_slots = num_slots;
    return OK;
}

static void drop_header(WeightBoard *board)
{
    if (board->header == NULL) return;
    if (!board->is_reader) shared_memory_discard(&board->id);
    shared_memory_unmap(&board->header->memory);
    board->header = NULL;
}

static WeightBoard *new_board(const WeightBoardOptions *options, bool is_reader)
{
    WeightBoard *board = mem_calloc(1, sizeof *board);
    *board = (WeightBoard){.plan = options->plan,
                           .dtype = options->dtype,
                           .is_reader = is_reader,
                           .digester = {.plan = options->plan, .dtype = options->dtype}};
    for (int i = 0; i < SLOTS_MAX; i++)
        board->fd[i] = -1;
    pthread_mutex_init(&board->mutex, NULL);
    return board;
}

static Status make_board(WeightBoard *board, const WeightBoardOptions *options, Error *err)
{
    int slots = options->num_slots > 0 ? options->num_slots : SLOTS_MAX;
    size_t header = header_bytes(board->plan);
    CHECK(slots <= SLOTS_MAX);
    if (options->memory != NULL) {
        TRY(make_header(board, header, slots, err));
        if (put_on_device(board, options->memory)) return OK;
        drop_header(board);
    }
    size_t bytes = header + (size_t)weight_board_bytes(board->plan, board->dtype, slots);
    TRY(make_header(board, bytes, slots, err));
    place_slots(board, board->header, header);
    return OK;
}

Status weight_board_create(const WeightBoardOptions *options, WeightBoardId *ret_id,
                           WeightBoard **ret, Error *err)
{
    WeightBoard *board = new_board(options, false);
    Status status = make_board(board, options, err);
    if (status != OK) {
        weight_board_destroy(board);
        return status;
    }
    memset(ret_id, 0, sizeof *ret_id);
    memcpy(ret_id->bytes, &board->id, sizeof board->id);
    *ret = board;
    return OK;
}

/* ---- opening ---- */

static Status check_layout(const WeightBoard *board, Error *err)
{
    const BoardHeader *header = board->header;
    bool fits = header->memory.bytes >= header_bytes(board->plan) &&
                header->layout == weight_layout_digest(board->plan, board->dtype);
    if (fits) return OK;
    return error_set(err, ERR_INVALID,
                     "the train rank (pid %d) shows weights of another model, type or layout "
                     "than rank %d of %d in %s here; both sides must run the same job",
                     board->id.pid, board->plan->tp_rank, board->plan->tp_size,
                     dtype_name(board->dtype));
}

static Status map_slot(WeightBoard *board, int slot, const DeviceMemory *memory, Error *err)
{
    int fd = -1;
    const BoardHeader *header = board->header;
    TRY(fd_offer_take(&header->offer, slot, DESCRIPTOR_WAIT_MS, "the train rank", &fd, err));
    if (fd < 0) return error_set(err, ERR_INVALID, "the train rank has no memory of slot %d", slot);
    board->flat[slot] =
        memory->open(fd, (size_t)header->flat_bytes, board->note, sizeof board->note);
    close(fd);
    return OK;
}

/* *ret_mapped: else the board has noted why not. */
static Status map_slots(WeightBoard *board, const DeviceMemory *memory, bool *ret_mapped,
                        Error *err)
{
    unsigned char device[DEVICE_ID_BYTES];
    *ret_mapped = false;
    board->memory = memory;
    for (int i = 0; i < board->header->num_slots; i++) {
        Status status = map_slot(board, i, memory, err);
        if (status == OK && board->flat[i] != NULL) continue;
        close_slots(board);
        return status;
    }
    memory->identify(device);
    board->in_place = memcmp(device, board->header->device, sizeof device) == 0;
    *ret_mapped = true;
    return OK;
}

static Status open_host_copy(WeightBoard *board, Error *err)
{
    int fd = -1;
    const BoardHeader *header = board->header;
    TRY(fd_offer_take(&header->offer, ASK_HOST_COPY, HOST_COPY_WAIT_MS, "the train rank", &fd,
                      err));
    if (!atomic_load(&header->has_host_copy))
        return error_set(err, ERR_RESOURCE,
                         "the train rank (pid %d) cannot copy its weights to the host's memory for "
                         "this worker, which cannot read them on the GPU (%s): %s",
                         board->id.pid, board->note, header->no_host_copy);
    TRY(shared_memory_open(&header->host_copy, "the train rank", false, &board->host, err));
    place_slots(board, board->host, SHARED_MEMORY_PAGE);
    return OK;
}

static Status open_slots(WeightBoard *board, const DeviceMemory *memory, Error *err)
{
    bool mapped = false;
    if (!board->header->on_device) {
        place_slots(board, board->header, header_bytes(board->plan));
        return OK;
    }
    if (memory != NULL)
        TRY(map_slots(board, memory, &mapped, err));
    else
        snprintf(board->note, sizeof board->note, "this worker's device shares no memory");
    return mapped ? OK : open_host_copy(board, err);
}

Status weight_board_open(const WeightBoardId *id, const WeightBoardOptions *options,
                         WeightBoard **ret, Error *err)
{
    SharedMemory *memory = NULL;
    WeightBoard *board = new_board(options, true);
    memcpy(&board->id, id->bytes, sizeof board->id);
    Status status = shared_memory_open(&board->id, "the train rank", false, &memory, err);
    board->header = (BoardHeader *)memory;
    if (status == OK) status = check_layout(board, err);
    if (status == OK) status = open_slots(board, options->memory, err);
    if (status == OK)
        *ret = board;
    else
        weight_board_destroy(board);
    return status;
}

void weight_board_destroy(WeightBoard *board)
{
    if (board == NULL) return;
    fd_offer_destroy(board->offer);
    if (board->host != NULL && !board->is_reader) shared_memory_discard(&board->header->host_copy);
    shared_memory_unmap(board->host);
    weight_digester_clear(&board->digester);
    close_slots(board);
    drop_header(board);
    pthread_mutex_destroy(&board->mutex);
    free(board);
}

const char *weight_board_note(const WeightBoard *board)
{
    return board->note[0] != '\0' ? board->note : NULL;
}

bool weight_board_is_in_place(const WeightBoard *board)
{
    return board->in_place;
}

/* ---- digests ---- */

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

/* ---- versions ---- */

int64_t weight_board_newest(const WeightBoard *board)
{
    int64_t newest = 0;
    for (int i = 0; i < board->header->num_slots; i++) {
        int64_t version = atomic_load(&board->header->slot[i].version);
        if (version > newest) newest = version;
    }
    return newest;
}

/* Below 0: in none. */
static int slot_of(const WeightBoard *board, int64_t version)
{
    for (int i = 0; i < board->header->num_slots && version > 0; i++)
        if (atomic_load(&board->header->slot[i].version) == version) return i;
    return -1;
}

static void write_slot(WeightBoard *board, int slot, const KernelTable *kernels, const void *flat)
{
    uint64_t *digest = slot_digests(board, slot);
    char *to = board->flat[slot];
    if (board->memory == NULL) {
        for (int i = 0; i < board->plan->num_specs; i++) {
            size_t at = weight_spec_offset(board->plan, board->dtype, i);
            digest[i] = fetch(kernels, to + at, (const char *)flat + at,
                              weight_spec_bytes(board->plan, board->dtype, i));
        }
        return;
    }
    kernels->copy(to, flat, (size_t)board->header->flat_bytes);
    board->kernels = kernels;
    weight_digester_take(&board->digester, kernels, flat, digest); /* which waits for the copy */
    if (board->host != NULL)
        kernels->download(host_flat(board, slot), to, (size_t)board->header->flat_bytes);
}

void weight_board_publish(WeightBoard *board, int64_t version, const KernelTable *kernels,
                          const void *flat)
{
    int64_t newest = weight_board_newest(board);
    Slot *slots = board->header->slot;
    CHECK(version > newest);
    int slot =
        board->header->num_slots > 1 && newest > 0 && atomic_load(&slots[0].version) == newest;
    pthread_mutex_lock(&board->mutex);
    atomic_store(&slots[slot].version, 0);
    write_slot(board, slot, kernels, flat);
    atomic_store(&slots[slot].version, version);
    pthread_mutex_unlock(&board->mutex);
}

static Status refuse_version(const WeightBoard *board, int64_t version, Error *err)
{
    return error_set(err, ERR_NOT_FOUND,
                     "version %lld of the weights is not on the board of pid %d; the newest is "
                     "%lld",
                     (long long)version, board->id.pid, (long long)weight_board_newest(board));
}

/* A tensor that differs is one that was overwritten, or else one that is broken. `wrong`: its
 * number; below 0: none. */
static Status judge(const WeightBoard *board, int slot, int64_t version, int wrong, Error *err)
{
    atomic_thread_fence(memory_order_acquire); /* all was read before the version is read again */
    if (atomic_load(&board->header->slot[slot].version) != version)
        return refuse_version(board, version, err);
    if (wrong < 0) return OK;
    return error_set(err, ERR_DATA,
                     "%s of version %lld is not what the train rank (pid %d) wrote: its digest "
                     "differs",
                     board->plan->spec[wrong].name, (long long)version, board->id.pid);
}

Status weight_board_find(WeightBoard *board, int64_t version, const KernelTable *kernels,
                         void **ret_flat, Error *err)
{
    int slot = slot_of(board, version);
    CHECK(board->in_place);
    if (slot < 0) return refuse_version(board, version, err);
    int wrong = weight_digester_find_other(&board->digester, kernels, board->flat[slot],
                                           slot_digests(board, slot));
    TRY(judge(board, slot, version, wrong, err));
    *ret_flat = board->flat[slot];
    return OK;
}

static int copy_from_host(const WeightBoard *board, int slot, const KernelTable *kernels,
                          void *flat)
{
    for (int i = 0; i < board->plan->num_specs; i++) {
        size_t at = weight_spec_offset(board->plan, board->dtype, i);
        const char *from = (const char *)board->flat[slot] + at;
        uint64_t digest =
            send(kernels, (char *)flat + at, from, weight_spec_bytes(board->plan, board->dtype, i));
        if (digest != slot_digests(board, slot)[i]) return i;
    }
    return -1;
}

Status weight_board_take(WeightBoard *board, int64_t version, const KernelTable *kernels,
                         void *flat, Error *err)
{
    int slot = slot_of(board, version), wrong = -1;
    if (slot < 0) return refuse_version(board, version, err);
    if (board->memory == NULL) {
        wrong = copy_from_host(board, slot, kernels, flat);
    } else {
        kernels->copy(flat, board->flat[slot], (size_t)board->header->flat_bytes);
        wrong =
            weight_digester_find_other(&board->digester, kernels, flat, slot_digests(board, slot));
    }
    return judge(board, slot, version, wrong, err);
}

uint64_t weight_board_digest(const WeightBoard *board, int64_t version)
{
    int slot = slot_of(board, version);
    if (slot < 0) return 0;
    return weight_digest_join(board->plan, slot_digests(board, slot));
}
