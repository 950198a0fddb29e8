#include "tensor/cpu/parallel.h"

#include <stdatomic.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "base/error.h"

static int threads = 1;

void parallel_set_threads(int num_threads)
{
    CHECK(num_threads >= 1);
#ifdef _OPENMP
    threads = num_threads;
#endif
}

int parallel_threads(void)
{
    return threads;
}

void parallel_bind_caller(void)
{
#ifdef _OPENMP
    static _Thread_local int bound = 0;
    if (bound == threads) return;
    omp_set_num_threads(threads);
    bound = threads;
#endif
}

/* A piece begins at a multiple of 16 elements or rows, so that two threads rarely write one cache
 * line. */
static int64_t piece_start(int64_t count, int pieces, int piece)
{
    if (piece == pieces) return count;
    const int64_t start = count / pieces * piece + count % pieces * piece / pieces;
    return count >= 64 * (int64_t)pieces ? start & ~(int64_t)15 : start;
}

void parallel_range(int64_t count, int64_t grain, ParallelBody body, const void *context)
{
    if (count <= 0) return;
    int64_t pieces = grain > 0 ? count / grain : count;
    if (pieces > threads) pieces = threads;
    if (pieces <= 1) {
        body(context, 0, count, 0);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel num_threads((int)pieces)
    {
        /* Fewer threads than asked for may come: the pieces go round. */
        for (int i = omp_get_thread_num(); i < (int)pieces; i += omp_get_num_threads())
            body(context, piece_start(count, (int)pieces, i),
                 piece_start(count, (int)pieces, i + 1), omp_get_thread_num());
    }
#endif
}

void parallel_units(int64_t count, ParallelBody body, const void *context)
{
    if (threads == 1 || count <= 1) {
        for (int64_t i = 0; i < count; i++)
            body(context, i, i + 1, 0);
        return;
    }
#ifdef _OPENMP
    _Atomic int64_t next = 0;
#pragma omp parallel num_threads(threads < count ? threads : (int)count)
    {
        for (int64_t i; (i = atomic_fetch_add(&next, 1)) < count;)
            body(context, i, i + 1, omp_get_thread_num());
    }
#endif
}
