#include "model/weight_line.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/weight_digest.h"

/* Of device memory: digests pass through it. */
#define STAGING_BYTES ((size_t)64 << 10)
/* So much at a time: long beside what a call costs, short beside a deadline. By argument, not
 * measured. */
#define CHUNK_BYTES ((int64_t)64 << 20)
/* NCCL looks for networks and connects all with all. */
#define JOIN_TIMEOUT_MS 120000

/* What the root tells before the weights, with the digest of each tensor behind it. */
typedef struct MoveHeader {
    uint64_t layout;
    int64_t version;
    uint64_t digest[];
} MoveHeader;

struct WeightLine {
    WeightLineOptions options;
    WeightDigester digester;
    CommId group;          /* that comm is of */
    pthread_mutex_t mutex; /* guards what follows */
    Comm *comm;            /* NULL: none is joined, or being joined */
    uint64_t at_work;      /* id of the move under way; 0: none is */
    uint64_t abandoned;    /* so are all ids up to this one */
};

Status weight_line_id_create(int size, CommId *ret, Error *err)
{
    CommDevice device = {.nccl_library = NULL};
    return comm_id_create_apart(&device, size, STAGING_BYTES, ret, err);
}

WeightLine *weight_line_create(const WeightLineOptions *options)
{
    WeightLine *line = mem_calloc(1, sizeof *line);
    line->options = *options;
    line->digester = (WeightDigester){.plan = options->plan, .dtype = options->dtype};
    pthread_mutex_init(&line->mutex, NULL);
    return line;
}

/* ---- the group ---- */

static void set_comm(WeightLine *line, Comm *comm)
{
    pthread_mutex_lock(&line->mutex);
    line->comm = comm;
    if (comm != NULL && line->at_work <= line->abandoned) comm_abort(comm);
    pthread_mutex_unlock(&line->mutex);
}

/* The others leave likewise, or are dead: nobody takes leave of anybody. */
static void leave(WeightLine *line)
{
    Comm *comm = line->comm;
    if (comm == NULL) return;
    set_comm(line, NULL);
    comm_abort(comm);
    comm_destroy(comm);
}

static Status join(WeightLine *line, const WeightMove *move, Error *err)
{
    Comm *comm = NULL;
    if (line->comm != NULL && memcmp(&line->group, &move->group, sizeof line->group) == 0)
        return OK;
    leave(line);
    TRY(comm_open_nccl(&line->options.device, &move->group, move->rank, move->size, JOIN_TIMEOUT_MS,
                       &comm, err));
    line->group = move->group;
    set_comm(line, comm);
    TRY(comm_join_nccl(comm, err));
    comm_set_timeout(comm, line->options.timeout_ms);
    return OK;
}

void weight_line_destroy(WeightLine *line)
{
    if (line == NULL) return;
    leave(line);
    weight_digester_clear(&line->digester);
    pthread_mutex_destroy(&line->mutex);
    free(line);
}

/* ---- moving ---- */

static size_t header_bytes(const WeightLine *line)
{
    return sizeof(MoveHeader) + (size_t)line->options.plan->num_specs * sizeof(uint64_t);
}

static Status tell_header(WeightLine *line, const WeightMove *move, const void *flat,
                          MoveHeader *header, Error *err)
{
    const WeightLineOptions *o = &line->options;
    uint64_t layout = weight_layout_digest(o->plan, o->dtype);
    if (move->rank == 0) {
        header->layout = layout;
        header->version = move->version;
        weight_digester_take(&line->digester, o->device.kernels, flat, header->digest);
    }
    TRY(comm_broadcast_host(line->comm, header, header_bytes(line), 0, err));
    if (header->layout == layout && header->version == move->version) return OK;
    return error_set(err, ERR_INVALID,
                     "the train rank sends weights of another model, type, layout or version "
                     "(%lld) than version %lld of rank %d of %d in %s, which is wanted here; both "
                     "sides must run the same job",
                     (long long)header->version, (long long)move->version, o->plan->tp_rank,
                     o->plan->tp_size, dtype_name(o->dtype));
}

static Status broadcast_flat(WeightLine *line, char *flat, Error *err)
{
    const WeightLineOptions *o = &line->options;
    int64_t element = (int64_t)dtype_size(o->dtype), most = CHUNK_BYTES / element;
    for (int64_t first = 0; first < o->plan->size; first += most) {
        int64_t count = o->plan->size - first < most ? o->plan->size - first : most;
        Tensor chunk = tensor_1d(flat + first * element, o->dtype, count);
        TRY(comm_broadcast(line->comm, chunk, 0, err));
        TRY(comm_settle(line->comm, err));
        if (o->on_progress != NULL) o->on_progress(o->context);
    }
    return OK;
}

static Status compare(WeightLine *line, const WeightMove *move, const void *flat,
                      const MoveHeader *header, Error *err)
{
    const WeightLineOptions *o = &line->options;
    int other =
        weight_digester_find_other(&line->digester, o->device.kernels, flat, header->digest);
    if (other < 0) return OK;
    return error_set(err, ERR_DATA,
                     "%s of version %lld is not what the train rank sent: its digest differs",
                     o->plan->spec[other].name, (long long)move->version);
}

static Status carry_out(WeightLine *line, const WeightMove *move, void *flat, uint64_t *ret_digest,
                        Error *err)
{
    MoveHeader *header = mem_calloc(1, header_bytes(line));
    Status status = join(line, move, err);
    if (status == OK) status = tell_header(line, move, flat, header, err);
    if (status == OK) status = broadcast_flat(line, flat, err);
    if (status == OK && move->rank > 0) status = compare(line, move, flat, header, err);
    if (status == OK) *ret_digest = weight_digest_join(line->options.plan, header->digest);
    free(header);
    return status;
}

static bool begin(WeightLine *line, uint64_t id)
{
    pthread_mutex_lock(&line->mutex);
    bool wanted = id > line->abandoned;
    if (wanted) line->at_work = id;
    pthread_mutex_unlock(&line->mutex);
    return wanted;
}

Status weight_line_move(WeightLine *line, const WeightMove *move, void *flat, uint64_t *ret_digest,
                        Error *err)
{
    CHECK(move->id > 0 && move->size > 1);
    if (!begin(line, move->id))
        return error_set(err, ERR_CANCELLED, "the move of version %lld was abandoned",
                         (long long)move->version);
    Status status = carry_out(line, move, flat, ret_digest, err);
    if (status != OK) {
        leave(line);
        error_prefix(err, "weights of version %lld %s", (long long)move->version,
                     move->rank == 0 ? "to rollout workers of other hosts"
                                     : "from a train worker of another host");
    }
    pthread_mutex_lock(&line->mutex);
    line->at_work = 0;
    pthread_mutex_unlock(&line->mutex);
    return status;
}

/* ---- from other threads ---- */

void weight_line_abandon(WeightLine *line, uint64_t id)
{
    pthread_mutex_lock(&line->mutex);
    if (id > line->abandoned) line->abandoned = id;
    bool under_way = line->at_work != 0 && line->at_work <= line->abandoned;
    if (under_way && line->comm != NULL) comm_abort(line->comm);
    pthread_mutex_unlock(&line->mutex);
}

void weight_line_describe_wait(WeightLine *line, char *text, size_t size)
{
    text[0] = '\0';
    pthread_mutex_lock(&line->mutex);
    if (line->at_work != 0 && line->comm != NULL) comm_describe_wait(line->comm, text, size);
    pthread_mutex_unlock(&line->mutex);
}
