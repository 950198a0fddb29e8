/* Communicators of the kind nccl on real GPUs: sums in rank order to the bit, moves, messages
 * from one to the next, a rank that lags and one that dies, and then times beside NCCL's own sum.
 * On one GPU the ranks share it (gpu_ranks.h), and times say nothing.
 *
 *   nccl_ranks [GPUS=1] [RANKS=2]
 *
 * The device is that of device.h, NCCL that of comm.h: TROUPE_CUDA_LIBRARY and TROUPE_NCCL_LIBRARY
 * may name others. Exits 77 where there is no NCCL. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "comm/comm_nccl.h"
#include "gpu_ranks.h"

#define ROUNDS 50

/* ---- values ---- */

static float value_of(DType dtype, int rank, int64_t i)
{
    RngBlock block = rng_block(7, (uint64_t)rank, (uint64_t)i);
    float value = ldexpf(rng_uniform(block.word[0]) - 0.5f, (int)(block.word[1] % 24));
    return dtype == DTYPE_F32 ? value : bf16_to_f32(bf16_from_f32(value));
}

static void put(void *data, DType dtype, int64_t i, float value)
{
    if (dtype == DTYPE_F32)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] = bf16_from_f32(value);
}

/* By definition (comm.h): in rank order, in float, rounded once. */
static float sum_of(const GpuRank *self, DType dtype, CommOp op, int64_t i)
{
    float sum = value_of(dtype, 0, i);
    for (int r = 1; r < self->size; r++) {
        float x = value_of(dtype, r, i);
        sum = op == COMM_SUM ? sum + x : x > sum ? x : sum;
    }
    return sum;
}

/* This rank's values, on the device. */
static Tensor make_input(const GpuRank *self, DType dtype, int64_t count, int64_t first)
{
    Tensor tensor = tensor_1d(NULL, dtype, count);
    void *host = mem_calloc((size_t)count, dtype_size(dtype));
    for (int64_t i = 0; i < count; i++)
        put(host, dtype, i, value_of(dtype, self->rank, first + i));
    tensor.data = self->kernels->alloc(tensor_bytes(&tensor));
    self->kernels->upload(tensor.data, host, tensor_bytes(&tensor));
    free(host);
    return tensor;
}

/* Compares a result on the device with the sums of elements from `first` on. */
static void check_sums(const GpuRank *self, Tensor found, CommOp op, int64_t first)
{
    Error err;
    int64_t count = tensor_count(&found);
    size_t size = dtype_size(found.dtype);
    char *host = mem_alloc(tensor_bytes(&found)), *expected = mem_alloc(tensor_bytes(&found));
    self->kernels->download(host, found.data, tensor_bytes(&found));
    MUST_OK(comm_settle(self->comm, &err));
    for (int64_t i = 0; i < count; i++)
        put(expected, found.dtype, i, sum_of(self, found.dtype, op, first + i));
    MUST(memcmp(host, expected, (size_t)count * size) == 0);
    free(host);
    free(expected);
}

/* ---- phases ---- */

static void check_reductions(GpuRank *self, void *argument)
{
    (void)argument;
    static const int64_t counts[] = {1, 7, 1000, 65536, 100003, 3 << 20};
    Error err;
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
        for (int how = 0; how < 8; how++) {
            DType dtype = how % 2 == 0 ? DTYPE_F32 : DTYPE_BF16;
            CommOp op = how / 2 % 2 == 0 ? COMM_SUM : COMM_MAX;
            Tensor tensor = make_input(self, dtype, counts[c], 0);
            if (how / 4 == 0) {
                MUST_OK(comm_all_reduce(self->comm, tensor, op, &err));
            } else { /* beside something else on the device */
                Tensor other = make_input(self, dtype, counts[c], 1);
                MUST_OK(comm_all_reduce_start(self->comm, tensor, op, &err));
                self->kernels->fill_zero(other);
                MUST_OK(comm_all_reduce_finish(self->comm, &err));
                self->kernels->free(other.data);
            }
            check_sums(self, tensor, op, 0);
            self->kernels->free(tensor.data);
        }
}

/* The sum of a row does not depend on how many rows are summed with it. */
static void check_rows(GpuRank *self, void *argument)
{
    (void)argument;
    enum { WIDTH = 1024, ROWS = 300 };
    Error err;
    Tensor all = make_input(self, DTYPE_BF16, WIDTH * ROWS, 0);
    for (int64_t row = 0; row < ROWS; row += 1 + row / 2) {
        int64_t rows = 1 + row / 2 < ROWS - row ? 1 + row / 2 : ROWS - row;
        Tensor some = tensor_1d((uint16_t *)all.data + row * WIDTH, DTYPE_BF16, rows * WIDTH);
        MUST_OK(comm_all_reduce(self->comm, some, COMM_SUM, &err));
        check_sums(self, some, COMM_SUM, row * WIDTH);
    }
    self->kernels->free(all.data);
}

static void check_moves(GpuRank *self, void *argument)
{
    (void)argument;
    enum { COUNT = 50001 };
    Error err;
    int size = self->size;
    Tensor in = make_input(self, DTYPE_BF16, (int64_t)COUNT * size, 0);
    Tensor piece = make_input(self, DTYPE_BF16, COUNT, 0);
    MUST_OK(comm_reduce_scatter(self->comm, piece, in, &err));
    check_sums(self, piece, COMM_SUM, (int64_t)COUNT * self->rank);
    MUST_OK(comm_all_gather(self->comm, in, piece, &err));
    check_sums(self, in, COMM_SUM, 0);
    double values[2] = {self->rank == 0 ? 1e300 : 1, self->rank};
    MUST_OK(comm_all_reduce_f64(self->comm, values, 2, COMM_SUM, &err));
    MUST(values[0] == 1e300 + (size - 1) && values[1] == size * (size - 1) / 2);
    for (int root = 0; root < size; root++) {
        uint16_t value = (uint16_t)(self->rank == root ? 77 + root : 0);
        self->kernels->upload(piece.data, &value, sizeof value);
        MUST_OK(comm_broadcast(self->comm, piece, root, &err));
        self->kernels->download(&value, piece.data, sizeof value);
        MUST_OK(comm_settle(self->comm, &err));
        MUST(value == 77 + root);
        char text[64] = "";
        if (self->rank == root) snprintf(text, sizeof text, "from rank %d", root);
        MUST_OK(comm_broadcast_host(self->comm, text, sizeof text, root, &err));
        MUST(atoi(text + strlen("from rank ")) == root);
    }
    MUST_OK(comm_barrier(self->comm, &err));
    self->kernels->free(in.data);
    self->kernels->free(piece.data);
}

/* From every rank to the next, rank 0 first, two messages in a row: of one element and of many. */
static void check_messages(GpuRank *self, void *argument)
{
    (void)argument;
    static const int64_t counts[] = {1, 3 << 20};
    enum { MESSAGES = sizeof counts / sizeof counts[0] };
    Error err;
    int rank = self->rank, size = self->size, before = (rank + size - 1) % size;
    Tensor out[MESSAGES], in[MESSAGES];
    for (int i = 0; i < MESSAGES; i++) {
        out[i] = make_input(self, DTYPE_BF16, counts[i], i);
        in[i] = make_input(self, DTYPE_BF16, counts[i], 99);
    }
    for (int receives = rank == 0 ? 0 : 1, turn = 0; turn < 2; turn++, receives = !receives)
        for (int i = 0; i < MESSAGES; i++) {
            if (receives)
                MUST_OK(comm_recv(self->comm, in[i], before, &err));
            else
                MUST_OK(comm_send(self->comm, out[i], (rank + 1) % size, &err));
        }
    for (int i = 0; i < MESSAGES; i++) {
        uint16_t *host = mem_alloc(tensor_bytes(&in[i]));
        self->kernels->download(host, in[i].data, tensor_bytes(&in[i]));
        MUST_OK(comm_settle(self->comm, &err));
        for (int64_t k = 0; k < counts[i]; k++)
            MUST(host[k] == bf16_from_f32(value_of(DTYPE_BF16, before, i + k)));
        free(host);
        self->kernels->free(in[i].data);
        self->kernels->free(out[i].data);
    }
}

/* A sum that cannot come, and the device waited for: what it ends with. */
static Status fail_to_sum(GpuRank *self, Tensor tensor, Error *err)
{
    char byte;
    Status status = comm_all_reduce(self->comm, tensor, COMM_SUM, err);
    if (status != OK) return status;
    self->kernels->download(&byte, tensor.data, 1);
    return comm_settle(self->comm, err);
}

static void expect(const GpuRank *self, Status found, Status expected, const Error *err,
                   int64_t begin_ms)
{
    long long ms = (long long)(clock_ms() - begin_ms);
    if (found != expected)
        printf("rank %d after %lld ms: %s, expected %s: %s\n", self->rank, ms, status_name(found),
               status_name(expected), found == OK ? "" : err->message);
    else if (self->rank == 0)
        printf("after %lld ms: %s\n", ms, err->message);
    MUST(found == expected);
}

/* The last rank comes too late: the others, one of which sits in a download, are told whom they
 * waited for, as far as this host goes. */
static void check_deadline(GpuRank *self, void *argument)
{
    (void)argument;
    Error err;
    Tensor tensor = make_input(self, DTYPE_F32, 1000, 0);
    MUST_OK(comm_barrier(self->comm, &err));
    comm_set_timeout(self->comm, 2000);
    int64_t begin = clock_ms();
    if (self->rank + 1 == self->size) sleep(6);
    expect(self, fail_to_sum(self, tensor, &err), ERR_TIMEOUT, &err, begin);
}

static void check_death(GpuRank *self, void *argument)
{
    (void)argument;
    Error err;
    Tensor tensor = make_input(self, DTYPE_F32, 1000, 0);
    MUST_OK(comm_barrier(self->comm, &err));
    if (self->rank + 1 == self->size) gpu_rank_die();
    /* Where the host itself is what kernels run on, it stays in NCCL until the deadline. */
    bool host = self->device.streams->kernel_stream() == NULL;
    comm_set_timeout(self->comm, 5000);
    int64_t begin = clock_ms();
    Status expected = host ? ERR_TIMEOUT : ERR_UNAVAILABLE;
    expect(self, fail_to_sum(self, tensor, &err), expected, &err, begin);
}

/* ---- times ---- */

typedef NcclResult (*NativeAllReduce)(const void *in, void *out, size_t count, int type, int op,
                                      NcclHandle *comm, void *stream);

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* NCCL's own sum of bf16, behind the Comm's back: for the comparison alone. */
static void reduce_natively(GpuRank *self, Tensor tensor, NativeAllReduce native)
{
    NcclComm *comm = nccl_comm(self->comm);
    NcclResult result = native(tensor.data, tensor.data, (size_t)tensor_count(&tensor), 9, 0,
                               comm->nccl, self->device.streams->kernel_stream());
    while (result == NCCL_IN_PROGRESS)
        comm->api.comm_get_async_error(comm->nccl, &result);
    MUST(result == NCCL_SUCCESS);
}

/* Median microseconds of a call that the device is waited for. `native`: NCCL's own sum. */
static double time_call(GpuRank *self, Tensor tensor, NativeAllReduce native)
{
    Error err;
    double times[ROUNDS];
    for (int i = -3; i < ROUNDS; i++) {
        MUST_OK(comm_barrier(self->comm, &err));
        int64_t begin = clock_ns();
        if (native != NULL)
            reduce_natively(self, tensor, native);
        else
            MUST_OK(comm_all_reduce(self->comm, tensor, COMM_SUM, &err));
        self->kernels->synchronize();
        if (i >= 0) times[i] = (double)(clock_ns() - begin) / 1e3;
    }
    MUST_OK(comm_settle(self->comm, &err));
    qsort(times, ROUNDS, sizeof *times, compare);
    return times[ROUNDS / 2];
}

static void measure(GpuRank *self, void *argument)
{
    (void)argument;
    const char *named = getenv("TROUPE_NCCL_LIBRARY"), *name = named != NULL ? named : NCCL_LIBRARY;
    void *library = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
    NativeAllReduce native = NULL;
    void *address = library != NULL ? dlsym(library, "ncclAllReduce") : NULL;
    memcpy(&native, &address, sizeof native);
    if (native == NULL) return; /* a double of NCCL sums nothing */
    if (self->rank == 0)
        printf("\nall-reduce of bf16, median of %d, the device waited for\n\n"
               "| bytes | in rank order, us | NCCL's own, us |\n|---|---|---|\n",
               ROUNDS);
    for (int64_t bytes = 2048; bytes <= 64 << 20; bytes *= 8) {
        Tensor tensor = tensor_1d(self->kernels->alloc((size_t)bytes), DTYPE_BF16, bytes / 2);
        double ours = time_call(self, tensor, NULL), theirs = time_call(self, tensor, native);
        if (self->rank == 0) printf("| %lld | %.1f | %.1f |\n", (long long)bytes, ours, theirs);
        self->kernels->free(tensor.data);
    }
}

int main(int argc, char **argv)
{
    int gpus = argc > 1 ? atoi(argv[1]) : 1, ranks = argc > 2 ? atoi(argv[2]) : 2;
    int failures = 0, code = 0;
    if (gpus < 1 || ranks < 2 || ranks > GPU_RANKS_MAX) {
        fprintf(stderr, "usage: nccl_ranks [GPUS=1] [RANKS=2], 2 to %d ranks\n", GPU_RANKS_MAX);
        return 2;
    }
    if (!gpu_ranks_have_nccl(gpus, &code)) return code;
    printf("\n### %d ranks on %d GPU%s\n\n", ranks, gpus, gpus == 1 ? "" : "s");
    failures += gpu_ranks_run("sums in rank order", gpus, ranks, check_reductions, NULL, -1);
    if (failures > 0) return 1; /* the others would say the same */
    failures += gpu_ranks_run("rows alone and together", gpus, ranks, check_rows, NULL, -1);
    failures += gpu_ranks_run("moves, doubles, host memory", gpus, ranks, check_moves, NULL, -1);
    failures += gpu_ranks_run("from rank to rank", gpus, ranks, check_messages, NULL, -1);
    failures += gpu_ranks_run("a rank that lags", gpus, ranks, check_deadline, NULL, -1);
    failures += gpu_ranks_run("a rank that dies", gpus, ranks, check_death, NULL, ranks - 1);
    if (gpus >= ranks) /* else the slices of time that two take of one GPU are all there is */
        failures += gpu_ranks_run("times", gpus, ranks, measure, NULL, -1);
    return failures == 0 ? 0 : 1;
}
