/* Runs a body as tp_size x dp_size ranks: forked processes joined by Comms, as train workers are.
 * The parent never touches kernels, so children start without threads of its making.
 */
#ifndef TROUPE_TESTS_RANKS_H
#define TROUPE_TESTS_RANKS_H

#include <stddef.h>

#include "tensor/kernels.h"
#include "tests/comm/group_kind.h"

typedef struct Ranks {
    int tp_rank, tp_size, dp_rank, dp_size;
    Comm *tensor_comm, *data_comm; /* of one rank: NULL */
    const KernelTable *kernels;    /* CPU, one thread */
} Ranks;

/* How the ranks of later runs are joined; NULL: by shared memory, as at first. Borrowed. */
void ranks_use(const GroupKind *kind);

/* Runs the body in every rank and fails the test when one of them fails or hangs. What a body is to
 * hand back it writes to memory of shared_alloc. A body fails through rank_check. */
void ranks_run(int tp_size, int dp_size, void (*body)(const Ranks *ranks, void *argument),
               void *argument);

void *shared_alloc(size_t bytes); /* zeroed, seen by parent and children alike */
void shared_free(void *memory, size_t bytes);

_Noreturn void rank_fail(const char *file, int line, const char *what, const char *message);

#define rank_check(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) rank_fail(__FILE__, __LINE__, #condition, "");                           \
    } while (0)
#define rank_ok(call, err)                                                                         \
    do {                                                                                           \
        if ((call) != OK) rank_fail(__FILE__, __LINE__, #call, (err)->message);                    \
    } while (0)

#endif
