/* WeightLine: weights on their way to rollout workers of other hosts, over NCCL. A line is a group
 * of its own: train rank r of data-parallel index 0, its root, and rank r of each rollout worker
 * elsewhere. A move is one version: the root tells layout and digests, then broadcasts its flat
 * buffer in chunks, and each receiver compares what it has got with the digests. All of it runs
 * beside the kernels, on a stream of the group, so that receivers generate on meanwhile.
 *
 * The group is joined with the first move that names it and kept for the next. Whatever goes wrong
 * ends it: the next move needs a new id. Nobody sees the others here: that one of them has died is
 * known by the controller, which has all of them abandon the move, or else shows at the deadline.
 *
 * Used by one thread, but for weight_line_abandon and weight_line_describe_wait: any thread. */
#ifndef TROUPE_MODEL_WEIGHT_LINE_H
#define TROUPE_MODEL_WEIGHT_LINE_H

#include "comm/comm.h"
#include "model/weights.h"

typedef struct WeightLine WeightLine;

typedef struct WeightLineOptions {
    const WeightPlan *plan; /* borrowed */
    DType dtype;
    CommDevice device;                  /* that the weights lie on */
    int timeout_ms;                     /* of each chunk, once the group is joined */
    void (*on_progress)(void *context); /* after each chunk; NULL: nobody wants to know */
    void *context;
} WeightLineOptions;

/* What root and receivers are told alike, but for their rank. */
typedef struct WeightMove {
    uint64_t id; /* ascending for each process */
    int64_t version;
    CommId group;
    int rank, size; /* rank 0 is the root */
} WeightMove;

/* Allocates next to nothing. */
WeightLine *weight_line_create(const WeightLineOptions *options);
void weight_line_destroy(WeightLine *line); /* accepts NULL; no move is under way */

/* An id for a group of `size` ranks, by its root; needs no open device. ERR_UNSUPPORTED: there is
 * no NCCL here. */
Status weight_line_id_create(int size, CommId *ret, Error *err);

/* Sends, or receives into, `flat`: device memory of the plan's layout. *ret_digest is
 * weight_board_digest's of the same weights. A receiver's `flat` holds anything on failure, and
 * nobody reads it meanwhile. ERR_CANCELLED: abandoned; ERR_TIMEOUT, ERR_UNAVAILABLE: of the group;
 * ERR_INVALID: the root has another model, type or layout; ERR_DATA: what came is not what it has.
 */
Status weight_line_move(WeightLine *line, const WeightMove *move, void *flat, uint64_t *ret_digest,
                        Error *err);

/* No move up to this id is to be carried out: one under way ends within a moment, one that comes
 * later at once. */
void weight_line_abandon(WeightLine *line, uint64_t id);

/* What a move under way waits in, or "". */
void weight_line_describe_wait(WeightLine *line, char *text, size_t size);

#endif
