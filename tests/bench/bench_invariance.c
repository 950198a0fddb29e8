/* What row invariance costs in matrix products: ours, whose rows are the same bits in any batch,
 * beside oneDNN left free to choose for each number of rows: layout of the weight, blocking, and
 * any of its implementations. Shapes of Qwen3-0.6B; weights do not fit the caches, as in a model.
 *
 *   bench_invariance [threads=1] [bf16|f32] [rounds=7]
 *
 * Every round times each candidate once, in turns; figures are the least of all rounds, in
 * processor time where there is one thread. "free" is the fastest of them, ours among them, so that
 * a cost is never below zero; "differs" says whether the fastest other one gives other bits than
 * ours for a row. */
#include <dnnl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/rng.h"
#include "tensor/cpu/backend.h"

#if DNNL_VERSION_MAJOR >= 3
int main(void)
{
    puts("bench_invariance: written for oneDNN 2");
    return 0;
}
#else

#define WEIGHT_BYTES   ((size_t)96 << 20) /* of all copies of a weight, beyond any cache */
#define COPIES_MAX     64
#define CANDIDATES_MAX 12
#define NAME_MAX_BYTES 48

#define ONEDNN(call)                                                                               \
    do {                                                                                           \
        if ((call) != dnnl_success) {                                                              \
            fprintf(stderr, "bench_invariance: oneDNN failed at line %d\n", __LINE__);             \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

typedef struct Shape {
    const char *name;
    int64_t n, k, times; /* of a step */
} Shape;

static const Shape SHAPES[] = {
    {"q, k, v", 4096, 1024, 28}, {"o", 1024, 2048, 28},     {"gate, up", 6144, 1024, 28},
    {"down", 1024, 3072, 28},    {"head", 151936, 1024, 1},
};
#define NUM_SHAPES (int)(sizeof SHAPES / sizeof *SHAPES)
static const int ROWS[] = {1, 2, 4, 8, 16, 32, 64, 256};
#define NUM_ROWS   (int)(sizeof ROWS / sizeof *ROWS)

/* One way of oneDNN to make the product. */
typedef struct Candidate {
    char name[NAME_MAX_BYTES];
    dnnl_primitive_t primitive;
    dnnl_memory_t x, y, scratch, weight[COPIES_MAX];
    double least;
} Candidate;

typedef struct Bench {
    const KernelTable *kernels;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    DType dtype;
    int threads, rounds;
    Shape shape;
    int copies;
    Tensor x, y, other; /* [rows, K]; [rows, N] by us, and by a candidate */
    Weight weight[COPIES_MAX];
    Candidate candidate[CANDIDATES_MAX];
    int num_candidates;
} Bench;

/* ---- candidates ---- */

static dnnl_memory_desc_t describe(int64_t rows, int64_t columns, bool turned, DType dtype)
{
    dnnl_memory_desc_t ret;
    const dnnl_dims_t dims = {rows, columns};
    const dnnl_dims_t strides = {turned ? 1 : columns, turned ? rows : 1};
    dnnl_data_type_t type = dtype == DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
    ONEDNN(dnnl_memory_desc_init_by_strides(&ret, 2, dims, type, strides));
    return ret;
}

static dnnl_memory_t hold(const Bench *bench, const dnnl_memory_desc_t *desc, void *data)
{
    dnnl_memory_t memory = NULL;
    ONEDNN(dnnl_memory_create(&memory, desc, bench->engine, data));
    return memory;
}

/* The weight as the candidate wants it. */
static dnnl_memory_t repack(const Bench *bench, const dnnl_memory_desc_t *want, Tensor plain)
{
    dnnl_memory_desc_t have = describe(bench->shape.k, bench->shape.n, true, bench->dtype);
    dnnl_memory_t from = hold(bench, &have, plain.data);
    if (dnnl_memory_desc_equal(&have, want)) return from;
    dnnl_memory_t to = hold(bench, want, DNNL_MEMORY_ALLOCATE);
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t primitive = NULL;
    ONEDNN(dnnl_reorder_primitive_desc_create(&description, &have, bench->engine, want,
                                              bench->engine, NULL));
    ONEDNN(dnnl_primitive_create(&primitive, description));
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    ONEDNN(dnnl_primitive_execute(primitive, bench->stream, 2, arguments));
    ONEDNN(dnnl_stream_wait(bench->stream));
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(description);
    dnnl_memory_destroy(from);
    return to;
}

static const dnnl_memory_desc_t *part(dnnl_primitive_desc_t description, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(description, what, 0);
}

static void add_candidate(Bench *bench, dnnl_primitive_desc_t description, const char *layout)
{
    const char *name = NULL;
    ONEDNN(dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name));
    if (strncmp(name, "ref", 3) == 0 || bench->num_candidates == CANDIDATES_MAX) return;
    Candidate *candidate = &bench->candidate[bench->num_candidates++];
    *candidate = (Candidate){.least = INFINITY};
    snprintf(candidate->name, sizeof candidate->name, "%s %s", name, layout);
    ONEDNN(dnnl_primitive_create(&candidate->primitive, description));
    candidate->x = hold(bench, part(description, dnnl_query_src_md), bench->x.data);
    candidate->y = hold(bench, part(description, dnnl_query_dst_md), bench->other.data);
    candidate->scratch =
        hold(bench, part(description, dnnl_query_scratchpad_md), DNNL_MEMORY_ALLOCATE);
    for (int c = 0; c < bench->copies; c++)
        candidate->weight[c] =
            repack(bench, part(description, dnnl_query_weights_md), bench->weight[c].plain);
}

/* All implementations for a weight laid out like that, for this very number of rows. */
static void add_candidates(Bench *bench, const dnnl_memory_desc_t *b, const char *layout)
{
    dnnl_matmul_desc_t product;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_iterator_t iterator = NULL;
    int64_t rows = bench->x.shape[0];
    dnnl_memory_desc_t a = describe(rows, bench->shape.k, false, bench->dtype);
    dnnl_memory_desc_t c = describe(rows, bench->shape.n, false, bench->y.dtype);
    ONEDNN(dnnl_primitive_attr_create(&attributes));
    ONEDNN(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    ONEDNN(dnnl_matmul_desc_init(&product, &a, b, NULL, &c));
    dnnl_status_t status =
        dnnl_primitive_desc_iterator_create(&iterator, &product, attributes, bench->engine, NULL);
    while (status == dnnl_success) {
        dnnl_primitive_desc_t description = dnnl_primitive_desc_iterator_fetch(iterator);
        add_candidate(bench, description, layout);
        dnnl_primitive_desc_destroy(description);
        status = dnnl_primitive_desc_iterator_next(iterator);
    }
    if (iterator != NULL) dnnl_primitive_desc_iterator_destroy(iterator);
    dnnl_primitive_attr_destroy(attributes);
}

static void make_candidates(Bench *bench)
{
    dnnl_memory_desc_t any, plain = describe(bench->shape.k, bench->shape.n, true, bench->dtype);
    ONEDNN(dnnl_memory_desc_init_by_tag(&any, 2, plain.dims, plain.data_type, dnnl_format_tag_any));
    bench->num_candidates = 0;
    add_candidates(bench, &any, "its layout");
    add_candidates(bench, &plain, "plain");
}

static void clear_candidates(Bench *bench)
{
    for (int i = 0; i < bench->num_candidates; i++) {
        Candidate *candidate = &bench->candidate[i];
        dnnl_primitive_destroy(candidate->primitive);
        dnnl_memory_destroy(candidate->x);
        dnnl_memory_destroy(candidate->y);
        dnnl_memory_destroy(candidate->scratch);
        for (int c = 0; c < bench->copies; c++)
            dnnl_memory_destroy(candidate->weight[c]);
    }
}

/* ---- timing ---- */

static double seconds_now(const Bench *bench)
{
    struct timespec now;
    clock_gettime(bench->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double time_ours(Bench *bench)
{
    double begin = seconds_now(bench);
    for (int c = 0; c < bench->copies; c++)
        bench->kernels->matmul(bench->y, bench->x, &bench->weight[c]);
    return (seconds_now(bench) - begin) / bench->copies;
}

static double time_candidate(Bench *bench, const Candidate *candidate)
{
    double begin = seconds_now(bench);
    for (int c = 0; c < bench->copies; c++) {
        dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, candidate->x},
                                       {DNNL_ARG_WEIGHTS, candidate->weight[c]},
                                       {DNNL_ARG_DST, candidate->y},
                                       {DNNL_ARG_SCRATCHPAD, candidate->scratch}};
        ONEDNN(dnnl_primitive_execute(candidate->primitive, bench->stream, 4, arguments));
        ONEDNN(dnnl_stream_wait(bench->stream));
    }
    return (seconds_now(bench) - begin) / bench->copies;
}

typedef struct Timing {
    double ours, free; /* seconds of one product */
} Timing;

static Timing time_rows(Bench *bench, int rows)
{
    Timing timing = {INFINITY, INFINITY};
    const Candidate *best = NULL;
    bench->x.shape[0] = bench->y.shape[0] = bench->other.shape[0] = rows;
    make_candidates(bench);
    for (int round = 0; round < bench->rounds; round++) {
        timing.ours = fmin(timing.ours, time_ours(bench));
        for (int i = 0; i < bench->num_candidates; i++) {
            Candidate *candidate = &bench->candidate[i];
            candidate->least = fmin(candidate->least, time_candidate(bench, candidate));
        }
    }
    for (int i = 0; i < bench->num_candidates; i++)
        if (best == NULL || bench->candidate[i].least < best->least) best = &bench->candidate[i];
    time_ours(bench);
    bool differs = false;
    if (best != NULL) {
        time_candidate(bench, best);
        differs = memcmp(bench->y.data, bench->other.data, tensor_bytes(&bench->y)) != 0;
        timing.free = best->least;
    }
    timing.free = fmin(timing.free, timing.ours);
    printf("%-9s %4d rows  ours %9.3f ms   best other %9.3f ms  %-36s %s  cost %5.1f %%\n",
           bench->shape.name, rows, timing.ours * 1e3, best != NULL ? best->least * 1e3 : 0.0,
           best != NULL ? best->name : "none", differs ? "differs" : "same   ",
           100 * (timing.ours / timing.free - 1));
    fflush(stdout);
    clear_candidates(bench);
    return timing;
}

/* ---- a shape ---- */

static Tensor random_tensor(const Bench *bench, DType dtype, int64_t rows, int64_t columns)
{
    Tensor tensor = tensor_2d(NULL, dtype, rows, columns);
    tensor.data = bench->kernels->alloc(tensor_bytes(&tensor));
    for (int64_t i = 0; i < rows * columns; i++) {
        uint32_t word = (uint32_t)i * 2654435761u;
        float value = (float)(int32_t)(word ^ word >> 15) * 0x1p-31f;
        if (dtype == DTYPE_F32)
            ((float *)tensor.data)[i] = value;
        else
            ((uint16_t *)tensor.data)[i] = bf16_from_f32(value);
    }
    return tensor;
}

static void run_shape(Bench *bench, const Shape *shape, Timing sum[NUM_ROWS])
{
    size_t bytes = (size_t)(shape->n * shape->k) * dtype_size(bench->dtype);
    int most = ROWS[NUM_ROWS - 1];
    bool head = shape->times == 1;
    bench->shape = *shape;
    bench->copies = (int)((WEIGHT_BYTES + bytes - 1) / bytes);
    bench->x = random_tensor(bench, bench->dtype, most, shape->k);
    bench->y = random_tensor(bench, head ? DTYPE_F32 : bench->dtype, most, shape->n);
    bench->other = random_tensor(bench, bench->y.dtype, most, shape->n);
    for (int c = 0; c < bench->copies; c++) {
        bench->weight[c] =
            (Weight){.plain = random_tensor(bench, bench->dtype, shape->n, shape->k)};
        bench->kernels->weight_prepare(&bench->weight[c]);
    }
    for (int r = 0; r < NUM_ROWS; r++) {
        Timing timing = time_rows(bench, ROWS[r]);
        sum[r].ours += timing.ours * (double)shape->times;
        sum[r].free += timing.free * (double)shape->times;
    }
    for (int c = 0; c < bench->copies; c++) {
        bench->kernels->weight_release(&bench->weight[c]);
        bench->kernels->free(bench->weight[c].plain.data);
    }
    bench->kernels->free(bench->x.data);
    bench->kernels->free(bench->y.data);
    bench->kernels->free(bench->other.data);
}

int main(int argc, char **argv)
{
    static Bench bench = {.dtype = DTYPE_BF16, .threads = 1, .rounds = 7};
    Timing sum[NUM_ROWS] = {{0, 0}}, all = {0, 0};
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "threads=%d", &bench.threads) != 1 &&
            sscanf(argv[i], "rounds=%d", &bench.rounds) != 1) {
            if (strcmp(argv[i], "f32") == 0)
                bench.dtype = DTYPE_F32;
            else if (strcmp(argv[i], "bf16") != 0) {
                fprintf(stderr, "usage: bench_invariance [threads=N] [bf16|f32] [rounds=N]\n");
                return 2;
            }
        }
    bench.kernels = cpu_kernels(bench.threads);
    bench.kernels->matmul(random_tensor(&bench, DTYPE_F32, 1, 1),
                          random_tensor(&bench, DTYPE_F32, 1, 1),
                          &(Weight){.plain = random_tensor(&bench, DTYPE_F32, 1, 1)});
    ONEDNN(dnnl_engine_create(&bench.engine, dnnl_cpu, 0));
    ONEDNN(dnnl_stream_create(&bench.stream, bench.engine, dnnl_stream_default_flags));
    for (int s = 0; s < NUM_SHAPES; s++)
        run_shape(&bench, &SHAPES[s], sum);
    printf("\nall products of a step:\n");
    for (int r = 0; r < NUM_ROWS; r++) {
        printf("%4d rows  ours %9.2f ms  free %9.2f ms  cost of row invariance %5.1f %%\n", ROWS[r],
               sum[r].ours * 1e3, sum[r].free * 1e3, 100 * (sum[r].ours / sum[r].free - 1));
        all.ours += sum[r].ours / sum[r].free / NUM_ROWS;
    }
    printf("mean cost %.1f %%\n", 100 * (all.ours - 1));
    return 0;
}
#endif
