/* WeightBoard: where a train rank shows its part of the policy's weights to the rollout workers of
 * its host. Memory that both map, with two slots: a new version is written into the slot that does
 * not hold the newest one, so readers of that go on undisturbed; a slot is overwritten two versions
 * later, and whoever orders the pushes (the controller) sees to it that nobody reads it then. With
 * one slot nobody may read while a version is written. Each tensor has a digest, which what is used
 * must have, so that weights that are not what the trainer wrote are an error and never a reward
 * that slowly falls.
 *
 * The slots are the host's memory, or the memory of the maker's GPU (`memory` of the options, where
 * that can be shared). Of a board on its own GPU a reader uses the weights where they lie; of one
 * on another GPU, or in the host's memory, it takes a copy. A reader that cannot map the GPU's
 * memory has the maker keep a copy of it in the host's memory from then on, and says why
 * (weight_board_note). What is mapped stays whole when the maker dies.
 *
 * The maker is used by the trainer's compute thread, a reader by one thread of its process. */
#ifndef TROUPE_MODEL_WEIGHT_BOARD_H
#define TROUPE_MODEL_WEIGHT_BOARD_H

#include "model/weights.h"
#include "tensor/device_memory.h"

typedef struct WeightBoard WeightBoard;

#define WEIGHT_BOARD_ID_BYTES  64
#define WEIGHT_BOARD_SLOTS_MAX 2

/* Names a board of a process of this host; plain data, sent in messages. */
typedef struct WeightBoardId {
    char bytes[WEIGHT_BOARD_ID_BYTES];
} WeightBoardId;

typedef struct WeightBoardOptions {
    const WeightPlan *plan; /* borrowed */
    DType dtype;
    const DeviceMemory *memory; /* of the device that weights are published from, or are wanted on;
                                   NULL: the host's, or one that shares nothing */
    int num_slots;              /* the maker's: 1, or 2; 0: 2 */
} WeightBoardOptions;

/* Allocates the slots, each as large as the flat buffer of the plan. */
Status weight_board_create(const WeightBoardOptions *options, WeightBoardId *ret_id,
                           WeightBoard **ret, Error *err);

/* Opens a board as a reader. ERR_INVALID when it holds another model, layout, rank or type than
 * the options say; ERR_UNAVAILABLE when its maker is gone. */
Status weight_board_open(const WeightBoardId *id, const WeightBoardOptions *options,
                         WeightBoard **ret, Error *err);

/* The maker's: nobody can open the board any more, readers keep what they have mapped. Accepts
 * NULL. */
void weight_board_destroy(WeightBoard *board);

/* Of the slots, for memory plans: of a GPU, or of the host. */
int64_t weight_board_bytes(const WeightPlan *plan, DType dtype, int num_slots);

/* Why the weights pass through the host's memory although both sides compute on a GPU; NULL: they
 * do not. Borrowed. */
const char *weight_board_note(const WeightBoard *board);

/* The maker copies the weights in, which are device memory of `kernels`, as `version` (1 or more,
 * higher than the newest). */
void weight_board_publish(WeightBoard *board, int64_t version, const KernelTable *kernels,
                          const void *flat);

/* The newest whole version, 0 when there is none yet. */
int64_t weight_board_newest(const WeightBoard *board);

/* Whether this reader uses the weights where they lie (weight_board_find), or takes copies. */
bool weight_board_is_in_place(const WeightBoard *board);

/* Where a version lies in device memory of `kernels`, once it was compared with the maker's
 * digests. It is there until it is overwritten, or the board is destroyed. Fails as
 * weight_board_take. */
Status weight_board_find(WeightBoard *board, int64_t version, const KernelTable *kernels,
                         void **ret_flat, Error *err);

/* Copies a version to `flat`, a buffer of the plan's layout in device memory of `kernels`, and
 * compares the copy, which is what will be used (elsewhere than in the host's memory: what is sent
 * there), with the maker's digests. ERR_DATA with the tensor that differs; ERR_NOT_FOUND when
 * the version is not there, or was overwritten meanwhile. On failure `flat` holds anything. */
Status weight_board_take(WeightBoard *board, int64_t version, const KernelTable *kernels,
                         void *flat, Error *err);

/* One digest of a version's weights, of the maker's for each tensor: equal for equal weights of one
 * layout and type, in any run. 0 when the version is not there. */
uint64_t weight_board_digest(const WeightBoard *board, int64_t version);

#endif
