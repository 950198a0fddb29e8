/* Collectives over shared memory: all-reduce latency at 4 KB and bandwidth at 16 MB among 2 and 4
 * processes, beside the memcpy bandwidth of the same run. usage: bench_comm [staging_kb] Bandwidth
 * is that of the tensor (bytes reduced / time), as Gloo's benchmark counts it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "comm/comm.h"

#define LARGE_BYTES  ((size_t)16 << 20)
#define SMALL_BYTES  ((size_t)4096)
#define LARGE_ROUNDS 40
#define SMALL_ROUNDS 5000
#define WARM_UP      3

static void stop_on(Status status, const Error *err)
{
    if (status == OK) return;
    fprintf(stderr, "bench_comm: %s\n", err->message);
    _exit(1);
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

typedef struct Times {
    int64_t best_ns, median_ns;
} Times;

static Times time_all_reduce(Comm *comm, Tensor tensor, int rounds)
{
    Error err;
    int64_t *times = mem_calloc((size_t)rounds, sizeof *times);
    for (int i = -WARM_UP; i < rounds; i++) {
        stop_on(comm_barrier(comm, &err), &err);
        int64_t start = clock_ns();
        stop_on(comm_all_reduce(comm, tensor, COMM_SUM, &err), &err);
        if (i >= 0) times[i] = clock_ns() - start;
    }
    qsort(times, (size_t)rounds, sizeof *times, compare_times);
    Times result = {times[0], times[rounds / 2]};
    free(times);
    return result;
}

static void run_rank(const CommId *id, int rank, int size)
{
    static const DType types[] = {DTYPE_F32, DTYPE_BF16};
    Error err;
    Comm *comm = NULL;
    stop_on(comm_create(COMM_SHM, id, rank, size, 60000, &comm, &err), &err);
    void *data = mem_calloc(1, LARGE_BYTES);
    memset(data, 0x11, LARGE_BYTES);
    for (int t = 0; t < 2; t++) {
        int64_t element = (int64_t)dtype_size(types[t]);
        Tensor small = tensor_1d(data, types[t], (int64_t)SMALL_BYTES / element);
        Tensor large = tensor_1d(data, types[t], (int64_t)LARGE_BYTES / element);
        Times quick = time_all_reduce(comm, small, SMALL_ROUNDS);
        Times slow = time_all_reduce(comm, large, LARGE_ROUNDS);
        if (rank == 0)
            printf("ranks=%d type=%s all_reduce_4KB_us median=%.1f best=%.1f "
                   "all_reduce_16MB_GBps median=%.2f best=%.2f\n",
                   size, dtype_name(types[t]), (double)quick.median_ns / 1e3,
                   (double)quick.best_ns / 1e3, (double)LARGE_BYTES / (double)slow.median_ns,
                   (double)LARGE_BYTES / (double)slow.best_ns);
    }
    fflush(stdout);
    free(data);
    comm_destroy(comm);
}

static void bench_group(int size, size_t staging_bytes)
{
    Error err;
    CommId id;
    stop_on(comm_id_create(COMM_SHM, size, staging_bytes, &id, &err), &err);
    fflush(stdout);
    for (int rank = 0; rank < size; rank++) {
        pid_t pid = fork();
        if (pid == 0) {
            run_rank(&id, rank, size);
            _exit(0);
        }
    }
    int bad = 0;
    for (int rank = 0; rank < size; rank++) {
        int status = 0;
        wait(&status);
        bad += status != 0;
    }
    comm_id_discard(&id);
    if (bad > 0) exit(1);
}

static void bench_memcpy(void)
{
    char *from = mem_calloc(1, LARGE_BYTES), *to = mem_calloc(1, LARGE_BYTES);
    memset(from, 1, LARGE_BYTES);
    memset(to, 1, LARGE_BYTES);
    int64_t best = INT64_MAX;
    for (int i = 0; i < LARGE_ROUNDS; i++) {
        int64_t start = clock_ns();
        memcpy(to, from, LARGE_BYTES);
        __asm__ volatile("" : : "r"(to) : "memory");
        int64_t time = clock_ns() - start;
        if (time < best) best = time;
    }
    printf("memcpy_16MB_GBps=%.2f cores=%ld\n", (double)LARGE_BYTES / (double)best,
           sysconf(_SC_NPROCESSORS_ONLN));
    free(from);
    free(to);
}

int main(int argc, char **argv)
{
    size_t staging_bytes = (size_t)(argc > 1 ? atoi(argv[1]) : 512) << 10;
    bench_memcpy();
    bench_group(2, staging_bytes);
    bench_group(4, staging_bytes);
    return 0;
}
