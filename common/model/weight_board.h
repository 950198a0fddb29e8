/* WeightBoard: where a train rank shows its part of the policy's weights to the rollout workers of
 * its host. Shared memory with two slots: a new version is written into the slot that does not hold
 * the newest one, so readers of that go on undisturbed; a slot is overwritten two versions later,
 * and whoever orders the pushes (the controller) sees to it that nobody reads it then. A reader
 * copies a slot. Each tensor has a digest, which its copy must have, so that weights that are not
 * what the trainer wrote are an error and never a reward that slowly falls.
 *
 * The maker is used by the trainer's compute thread, a reader by one thread of its process. */
#ifndef TROUPE_MODEL_WEIGHT_BOARD_H
#define TROUPE_MODEL_WEIGHT_BOARD_H

#include "model/weights.h"

typedef struct WeightBoard WeightBoard;

#define WEIGHT_BOARD_ID_BYTES 64

/* Names a board of a process of this host; plain data, sent in messages. */
typedef struct WeightBoardId {
    char bytes[WEIGHT_BOARD_ID_BYTES];
} WeightBoardId;

/* Allocates both slots, each as large as the flat buffer of `plan` in `dtype`. The plan is
 * borrowed. */
Status weight_board_create(const WeightPlan *plan, DType dtype, WeightBoardId *ret_id,
                           WeightBoard **ret, Error *err);

/* Opens a board as a reader. ERR_INVALID when it holds another model, layout, rank or type than
 * `plan` and `dtype` say; ERR_UNAVAILABLE when its maker is gone. */
Status weight_board_open(const WeightBoardId *id, const WeightPlan *plan, DType dtype,
                         WeightBoard **ret, Error *err);

/* The maker's: nobody can open the board any more, readers keep what they have mapped. Accepts
 * NULL. */
void weight_board_destroy(WeightBoard *board);

int64_t weight_board_bytes(const WeightPlan *plan, DType dtype); /* of a board, for memory plans */

/* The maker copies the weights in, which are device memory of `kernels`, as `version` (1 or more,
 * higher than the newest). */
void weight_board_publish(WeightBoard *board, int64_t version, const KernelTable *kernels,
                          const void *flat);

/* The newest whole version, 0 when there is none yet. */
int64_t weight_board_newest(const WeightBoard *board);

/* Copies a version to `flat`, a buffer of the plan's layout in device memory of `kernels`, and
 * compares the copy, which is what will be used (elsewhere than in the host's memory: what is sent
 * there), with the maker's digests. ERR_DATA with the tensor that differs; ERR_NOT_FOUND when
 * the version is not there, or was overwritten meanwhile. On failure `flat` holds anything. */
Status weight_board_take(const WeightBoard *board, int64_t version, const KernelTable *kernels,
                         void *flat, Error *err);

/* One digest of a version's weights, of the maker's for each tensor: equal for equal weights of one
 * layout and type, in any run. 0 when the version is not there. */
uint64_t weight_board_digest(const WeightBoard *board, int64_t version);

#endif
