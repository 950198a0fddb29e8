/* Times the CPU backend's operations at the shapes of Qwen3-0.6B (hidden 1024, 16/8 heads of 128,
 * intermediate 3072, vocabulary 151,936) and adds them up to a training step of 8 layers.
 *
 *   bench_kernels [threads=2] [bf16|f32] [rows=1024] [base|avx2|avx512|avx512_bf16]
 *
 * Every operation is timed best of several; matrices are given as a fraction of the best product of
 * the same run, the others as a fraction of the memory bandwidth of the same run (an addition over
 * 192 MB). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/rng.h"
#include "tensor/cpu/backend.h"

enum { HIDDEN = 1024, HEADS = 16, KV_HEADS = 8, DIM = 128, INTERMEDIATE = 3072, VOCAB = 151936 };
enum { LAYERS = 8, QKV = (HEADS + 2 * KV_HEADS) * DIM, QK = (HEADS + KV_HEADS) * DIM, CHUNK = 256 };

typedef enum {
    CLASS_MATRIX,
    CLASS_ATTENTION,
    CLASS_ELEMENTS,
    CLASS_LOSS,
    CLASS_OPTIMIZER,
    CLASSES
} Class;

static const char *const CLASS_NAMES[CLASSES] = {"matrices", "attention", "element-wise and norms",
                                                 "cross-entropy", "optimizer"};

static struct {
    const KernelTable *kernels;
    DType dtype;
    int threads, rows;
    double gemm_flops, bandwidth;        /* per second, measured here */
    double seconds[CLASSES], flops;      /* of the whole step */
    float *cos_sin, *rstd, *lse, *small; /* small: [HIDDEN] */
    int32_t *position, *token;
    int32_t cu_seqlens[2];
} bench;

static Tensor random_tensor(DType dtype, int64_t rows, int64_t columns)
{
    Tensor tensor = tensor_2d(NULL, dtype, rows, columns);
    tensor.data = bench.kernels->alloc(tensor_bytes(&tensor));
    uint32_t word[4096];
    for (int i = 0; i < 4096; i++)
        word[i] = rng_block(1, (uint64_t)columns, (uint64_t)i).word[0];
    for (int64_t i = 0; i < rows * columns; i++) {
        const float value = rng_uniform(word[(i + i / 4093) % 4096]) - 0.5f;
        if (dtype == DTYPE_F32)
            ((float *)tensor.data)[i] = value;
        else
            ((uint16_t *)tensor.data)[i] = bf16_from_f32(value);
    }
    return tensor;
}

typedef void (*Body)(void *context);

/* One thread is timed by its processor time, which other programs on the machine disturb less. */
static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(bench.threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double best_seconds(Body body, void *context)
{
    double best = 1e30, total = 0;
    for (int i = 0; i < 3 || (total < 0.25 && i < 200); i++) {
        const double before = seconds_now();
        body(context);
        const double taken = seconds_now() - before;
        total += taken;
        best = fmin(best, taken);
    }
    return best;
}

typedef struct Line {
    const char *name;
    Class kind;
    double flops, bytes; /* of one call; the other one is 0 */
    double calls;        /* in the step */
} Line;

static void report(const Line *line, double seconds)
{
    printf("%-34s %9.3f ms ", line->name, seconds * 1e3);
    if (line->flops > 0)
        printf("%8.1f GFLOP/s %5.1f %% of the GEMM rate", line->flops / seconds * 1e-9,
               100 * line->flops / seconds / bench.gemm_flops);
    else
        printf("%8.1f GB/s    %5.1f %% of the bandwidth", line->bytes / seconds * 1e-9,
               100 * line->bytes / seconds / bench.bandwidth);
    if (line->calls > 0) printf("   x %g", line->calls);
    printf("\n");
    bench.seconds[line->kind] += seconds * line->calls;
    bench.flops += line->flops * line->calls;
}

/* ---- matrices ---- */

typedef struct Matrices {
    Tensor x, y, dx, dw;
    Weight w;
} Matrices;

static void run_forward(void *context)
{
    Matrices *m = context;
    bench.kernels->matmul(m->y, m->x, &m->w);
}

static void run_dgrad(void *context)
{
    Matrices *m = context;
    bench.kernels->matmul_dgrad(m->dx, m->y, &m->w);
}

static void run_wgrad(void *context)
{
    Matrices *m = context;
    bench.kernels->matmul_wgrad_accumulate(m->dw, m->y, m->x);
}

static void run_prepare(void *context)
{
    Matrices *m = context;
    bench.kernels->weight_prepare(&m->w);
}

static void free_tensors(Tensor *const *tensors, int count)
{
    for (int i = 0; i < count; i++)
        bench.kernels->free(tensors[i]->data);
}

static void bench_matrices(const char *name, int64_t rows, int64_t n, int64_t k, double calls)
{
    Matrices m = {.x = random_tensor(bench.dtype, rows, k),
                  .y = random_tensor(bench.dtype, rows, n),
                  .dx = random_tensor(bench.dtype, rows, k),
                  .dw = random_tensor(DTYPE_F32, n, k),
                  .w = {.plain = random_tensor(bench.dtype, n, k)}};
    run_prepare(&m);
    const struct {
        const char *what;
        Body body;
    } parts[] = {{"forward", run_forward}, {"dgrad", run_dgrad}, {"wgrad", run_wgrad}};
    char text[64];
    Line line = {.name = text, .kind = CLASS_MATRIX, .calls = calls};
    double seconds[3];
    line.flops = 2.0 * (double)rows * (double)n * (double)k;
    for (int i = 0; i < 3; i++) {
        seconds[i] = best_seconds(parts[i].body, &m);
        bench.gemm_flops = fmax(bench.gemm_flops, line.flops / seconds[i]);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%s %s", name, parts[i].what);
        report(&line, seconds[i]);
    }
    snprintf(text, sizeof text, "%s weight_prepare", name);
    line.flops = 0;
    line.bytes = 2 * (double)tensor_bytes(&m.w.plain);
    line.calls = k == HIDDEN && n == VOCAB ? 1 : LAYERS;
    line.kind = CLASS_OPTIMIZER;
    report(&line, best_seconds(run_prepare, &m));
    bench.kernels->weight_release(&m.w);
    free_tensors((Tensor *[]){&m.x, &m.y, &m.dx, &m.dw, &m.w.plain}, 5);
}

static void bench_decode(int64_t rows, int64_t n, int64_t k)
{
    Matrices m = {.x = random_tensor(bench.dtype, rows, k),
                  .y = random_tensor(bench.dtype, rows, n),
                  .w = {.plain = random_tensor(bench.dtype, n, k)}};
    run_prepare(&m);
    char text[64];
    snprintf(text, sizeof text, "matmul of %d rows, %d x %d", (int)rows, (int)n, (int)k);
    const Line line = {
        .name = text, .kind = CLASS_MATRIX, .bytes = (double)tensor_bytes(&m.w.plain)};
    report(&line, best_seconds(run_forward, &m));
    bench.kernels->weight_release(&m.w);
    free_tensors((Tensor *[]){&m.x, &m.y, &m.w.plain}, 3);
}

/* ---- attention ---- */

typedef struct Attention {
    Tensor qkv, out, dqkv;
    AttentionShape shape;
    SequenceTable sequences;
    KvPages pages;
} Attention;

static void *columns(const Tensor *tensor, int64_t column)
{
    return (char *)tensor->data + column * (int64_t)dtype_size(tensor->dtype);
}

static void run_attention(void *context)
{
    Attention *a = context;
    bench.kernels->attention(a->out.data, bench.lse, bench.dtype, a->qkv.data,
                             columns(&a->qkv, HEADS * DIM), columns(&a->qkv, QK), &a->shape,
                             &a->sequences, a->pages.memory == NULL ? NULL : &a->pages);
}

static void run_attention_backward(void *context)
{
    Attention *a = context;
    bench.kernels->attention_backward(a->dqkv.data, columns(&a->dqkv, HEADS * DIM),
                                      columns(&a->dqkv, QK), bench.dtype, a->out.data, a->qkv.data,
                                      columns(&a->qkv, HEADS * DIM), columns(&a->qkv, QK),
                                      a->out.data, bench.lse, &a->shape, &a->sequences);
}

static void bench_attention(int count, double calls)
{
    const int length = bench.rows / count;
    int32_t *starts = mem_calloc((size_t)count + 1, sizeof *starts);
    for (int i = 0; i <= count; i++)
        starts[i] = i * length;
    Attention a = {.qkv = random_tensor(bench.dtype, bench.rows, QKV),
                   .out = random_tensor(bench.dtype, bench.rows, HEADS * DIM),
                   .dqkv = random_tensor(bench.dtype, bench.rows, QKV),
                   .shape = {HEADS, KV_HEADS, DIM, 1 / sqrtf(DIM), QKV, QKV, QKV, HEADS * DIM},
                   .sequences = {count, starts, NULL}};
    char text[64];
    const double pairs = (double)count * length * (length + 1) / 2; /* the causal half */
    Line line = {.name = text, .kind = CLASS_ATTENTION, .calls = calls};
    snprintf(text, sizeof text, "attention %d x %d forward", count, length);
    line.flops = 4 * pairs * HEADS * DIM;
    report(&line, best_seconds(run_attention, &a));
    snprintf(text, sizeof text, "attention %d x %d backward", count, length);
    line.flops *= 2.5;
    report(&line, best_seconds(run_attention_backward, &a));
    free_tensors((Tensor *[]){&a.qkv, &a.out, &a.dqkv}, 3);
    free(starts);
}

static void run_kv_store(void *context)
{
    Attention *a = context;
    bench.kernels->kv_store(&a->pages, bench.dtype, columns(&a->qkv, HEADS * DIM),
                            columns(&a->qkv, QK), &a->shape, &a->sequences);
}

static void bench_attention_decode(int count, int length)
{
    int32_t starts[65], first[65], first_page[65];
    const int pages = (length + KV_PAGE - 1) / KV_PAGE;
    const int64_t page_bytes = bench.kernels->kv_page_bytes(bench.dtype, KV_HEADS, DIM);
    int32_t *page = mem_calloc((size_t)(count * pages), sizeof *page);
    for (int i = 0; i < count * pages; i++)
        page[i] = i;
    for (int i = 0; i <= count; i++) {
        starts[i] = i;
        first[i] = length - 1;
        first_page[i] = i * pages;
    }
    Attention a = {.qkv = random_tensor(bench.dtype, count, QKV),
                   .out = random_tensor(bench.dtype, count, HEADS * DIM),
                   .shape = {HEADS, KV_HEADS, DIM, 1 / sqrtf(DIM), QKV, QKV, QKV, HEADS * DIM},
                   .sequences = {count, starts, first},
                   .pages = {NULL, page_bytes, page, first_page}};
    a.pages.memory = bench.kernels->alloc((size_t)(count * pages * page_bytes));
    memset(a.pages.memory, 1, (size_t)(count * pages * page_bytes));
    char text[64];
    snprintf(text, sizeof text, "attention decode %d of %d", count, length);
    Line line = {
        .name = text, .kind = CLASS_ATTENTION, .bytes = (double)count * pages * (double)page_bytes};
    report(&line, best_seconds(run_attention, &a));
    snprintf(text, sizeof text, "kv_store %d", count);
    line.bytes = (double)count * 2 * KV_HEADS * DIM * (double)dtype_size(bench.dtype);
    report(&line, best_seconds(run_kv_store, &a));
    free_tensors((Tensor *[]){&a.qkv, &a.out}, 2);
    bench.kernels->free(a.pages.memory);
    free(page);
}

/* ---- the rest: x, y, z as each operation needs them ---- */

typedef struct Elements {
    Tensor x, y, z, w;
} Elements;

static void run_add(void *context)
{
    Elements *e = context;
    bench.kernels->add(e->y, e->x, e->z);
}

static void run_rmsnorm(void *context)
{
    Elements *e = context;
    bench.kernels->rmsnorm(e->y, bench.rstd, e->x, e->w, 1e-6f);
}

static void run_rmsnorm_backward(void *context)
{
    Elements *e = context;
    bench.kernels->rmsnorm_backward(e->y, true, tensor_1d(bench.small, DTYPE_F32, HIDDEN), e->z,
                                    e->x, e->w, bench.rstd);
}

static void run_rope(void *context)
{
    Elements *e = context;
    bench.kernels->qk_norm_rope(e->x, e->y, HEADS, KV_HEADS, DIM, e->w.data, e->w.data, 1e-6f,
                                bench.cos_sin, bench.position);
}

static void run_rope_backward(void *context)
{
    Elements *e = context;
    bench.kernels->qk_norm_rope_backward(e->x, e->y, HEADS, KV_HEADS, DIM, e->w.data, e->w.data,
                                         1e-6f, bench.small, bench.small + DIM, bench.cos_sin,
                                         bench.position);
}

static void run_swiglu(void *context)
{
    Elements *e = context;
    bench.kernels->swiglu(e->y, e->x);
}

static void run_swiglu_backward(void *context)
{
    Elements *e = context;
    bench.kernels->swiglu_backward(e->z, e->y, e->x);
}

static void run_embedding(void *context)
{
    Elements *e = context;
    bench.kernels->embedding(e->y, e->w, bench.token, 0);
}

static void run_embedding_backward(void *context)
{
    Elements *e = context;
    bench.kernels->embedding_backward_accumulate(e->z, e->y, bench.token, bench.token, 0);
}

static void run_loss(void *context)
{
    Elements *e = context;
    const RowStats stats = {.max = bench.lse,
                            .sum_exp = bench.lse + CHUNK,
                            .target_logit = bench.lse + 2 * CHUNK,
                            .arg_max = bench.lse + 3 * CHUNK};
    bench.kernels->cross_entropy_stats(&stats, e->x, bench.token, 0);
}

static void run_loss_backward(void *context)
{
    Elements *e = context;
    const RowSlopes slopes = {.lse = bench.rstd, .dlog_prob = bench.rstd};
    bench.kernels->cross_entropy_backward(e->y, e->x, &slopes, bench.token, 0);
}

static void run_adamw(void *context)
{
    Elements *e = context;
    const AdamWParams params = {1e-4, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001, 1};
    const int64_t n = tensor_count(&e->x);
    bench.kernels->adamw(e->x.data, e->y.data, e->z.data, e->y.data,
                         bench.dtype == DTYPE_F32 ? e->x.data : e->w.data, bench.dtype, n, &params);
}

static void run_sum_squares(void *context)
{
    Elements *e = context;
    bench.small[0] +=
        (float)bench.kernels->sum_squares(e->x.data, &(ElementRange){0, tensor_count(&e->x)}, 1);
}

static void run_zero(void *context)
{
    bench.kernels->fill_zero(((Elements *)context)->x);
}

static void bench_one(const char *name, Class kind, Body body, Elements *e, double bytes,
                      double calls)
{
    const Line line = {.name = name, .kind = kind, .bytes = bytes, .calls = calls};
    report(&line, best_seconds(body, e));
}

static void bench_elements(void)
{
    const double size = (double)dtype_size(bench.dtype), rows = bench.rows;
    Elements e = {random_tensor(bench.dtype, bench.rows, HIDDEN),
                  random_tensor(bench.dtype, bench.rows, HIDDEN),
                  random_tensor(bench.dtype, bench.rows, HIDDEN),
                  random_tensor(bench.dtype, 1, HIDDEN)};
    const double row = rows * size;
    bench_one("add", CLASS_ELEMENTS, run_add, &e, 3 * HIDDEN * row, 2 * LAYERS);
    bench_one("rmsnorm", CLASS_ELEMENTS, run_rmsnorm, &e, 2 * HIDDEN * row, 2 * LAYERS + 1);
    bench_one("rmsnorm backward", CLASS_ELEMENTS, run_rmsnorm_backward, &e, 4 * HIDDEN * row,
              2 * LAYERS + 1);
    free_tensors((Tensor *[]){&e.x, &e.y, &e.z, &e.w}, 4);
    e = (Elements){random_tensor(bench.dtype, bench.rows, QKV),
                   random_tensor(bench.dtype, bench.rows, QK), random_tensor(bench.dtype, 1, 1),
                   random_tensor(bench.dtype, 1, DIM)};
    bench_one("qk_norm_rope", CLASS_ELEMENTS, run_rope, &e, 3 * QK * row, LAYERS);
    bench_one("qk_norm_rope backward", CLASS_ELEMENTS, run_rope_backward, &e, 3 * QK * row, LAYERS);
    free_tensors((Tensor *[]){&e.x, &e.y, &e.z, &e.w}, 4);
    e = (Elements){random_tensor(bench.dtype, bench.rows, 2 * INTERMEDIATE),
                   random_tensor(bench.dtype, bench.rows, INTERMEDIATE),
                   random_tensor(bench.dtype, bench.rows, 2 * INTERMEDIATE),
                   random_tensor(bench.dtype, 1, 1)};
    bench_one("swiglu", CLASS_ELEMENTS, run_swiglu, &e, 3 * INTERMEDIATE * row, LAYERS);
    bench_one("swiglu backward", CLASS_ELEMENTS, run_swiglu_backward, &e, 5 * INTERMEDIATE * row,
              LAYERS);
    free_tensors((Tensor *[]){&e.x, &e.y, &e.z, &e.w}, 4);
}

static void bench_vocabulary(void)
{
    const double size = (double)dtype_size(bench.dtype), chunks = (double)bench.rows / CHUNK;
    Elements e = {.x = random_tensor(DTYPE_F32, CHUNK, VOCAB),
                  .y = random_tensor(bench.dtype, CHUNK, VOCAB)};
    bench_one("cross_entropy_stats 256 rows", CLASS_LOSS, run_loss, &e, 4.0 * CHUNK * VOCAB,
              chunks);
    bench_one("cross_entropy_backward 256 rows", CLASS_LOSS, run_loss_backward, &e,
              (4.0 + size) * CHUNK * VOCAB, chunks);
    free_tensors((Tensor *[]){&e.x, &e.y}, 2);
    e = (Elements){.y = random_tensor(bench.dtype, bench.rows, HIDDEN),
                   .z = random_tensor(DTYPE_F32, VOCAB, HIDDEN),
                   .w = random_tensor(bench.dtype, VOCAB, HIDDEN)};
    const double rows = bench.rows;
    bench_one("embedding", CLASS_ELEMENTS, run_embedding, &e, 2 * rows * HIDDEN * size, 1);
    bench_one("embedding backward", CLASS_ELEMENTS, run_embedding_backward, &e,
              rows * HIDDEN * (8 + size), 1);
    free_tensors((Tensor *[]){&e.y, &e.z, &e.w}, 3);
}

static void bench_optimizer(void)
{
    const int64_t n = 16 << 20;
    const double parameters =
        (double)VOCAB * HIDDEN +
        LAYERS * ((double)HIDDEN * (QKV + HEADS * DIM + 3 * INTERMEDIATE) + 2 * HIDDEN);
    const double calls = parameters / (double)n;
    Elements e = {random_tensor(DTYPE_F32, 1, n), random_tensor(DTYPE_F32, 1, n),
                  random_tensor(DTYPE_F32, 1, n), random_tensor(bench.dtype, 1, n)};
    bench.bandwidth = 12.0 * (double)n / best_seconds(run_add, &e);
    printf("memory bandwidth %.1f GB/s\n", bench.bandwidth * 1e-9);
    bench_one("sum_squares 16 M", CLASS_OPTIMIZER, run_sum_squares, &e, 4.0 * (double)n, calls);
    bench_one("adamw 16 M", CLASS_OPTIMIZER, run_adamw, &e,
              (28.0 + (bench.dtype == DTYPE_F32 ? 0 : 2)) * (double)n, calls);
    bench_one("fill_zero 16 M", CLASS_OPTIMIZER, run_zero, &e, 4.0 * (double)n, calls);
    free_tensors((Tensor *[]){&e.x, &e.y, &e.z, &e.w}, 4);
}

static void bench_start(int threads, DType dtype, int rows, CpuIsa isa)
{
    bench.kernels = cpu_kernels_of(isa, threads);
    bench.threads = threads;
    bench.dtype = dtype;
    bench.rows = rows;
    bench.cu_seqlens[1] = rows;
    const size_t many = (size_t)rows + 4 * CHUNK;
    bench.cos_sin = mem_calloc((size_t)rows * DIM, sizeof(float));
    bench.rstd = mem_calloc(many, sizeof(float));
    bench.lse = mem_calloc(many * HEADS, sizeof(float));
    bench.small = mem_calloc(HIDDEN, sizeof(float));
    bench.position = mem_calloc(2 * many, sizeof(int32_t));
    bench.token = mem_calloc(many, sizeof(int32_t));
    for (int i = 0; i < rows; i++) {
        bench.position[i] = i;
        bench.token[i] = (int32_t)rng_below(3, (uint64_t)i, VOCAB);
    }
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? atoi(argv[1]) : 2, rows = argc > 3 ? atoi(argv[3]) : 1024;
    const DType dtype = argc > 2 && strcmp(argv[2], "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    static const char *const isa_names[] = {"base", "avx2", "avx512", "avx512_bf16"};
    CpuIsa isa = cpu_isa_best();
    for (int i = 0; argc > 4 && i < CPU_ISA_COUNT; i++)
        if (strcmp(argv[4], isa_names[i]) == 0) isa = (CpuIsa)i;
    if (threads < 1 || rows < CHUNK || rows % CHUNK != 0) {
        fprintf(stderr, "usage: bench_kernels [threads] [bf16|f32] [rows, a multiple of 256]\n");
        return 2;
    }
    bench_start(threads, dtype, rows, isa);
    printf("%d thread(s), %s time, %s, %s, %d rows\n", threads, threads == 1 ? "processor" : "wall",
           isa_names[isa], dtype_name(dtype), rows);
    bench_optimizer();
    bench_matrices("qkv", rows, QKV, HIDDEN, LAYERS);
    bench_matrices("o", rows, HIDDEN, HEADS * DIM, LAYERS);
    bench_matrices("gate_up", rows, 2 * INTERMEDIATE, HIDDEN, LAYERS);
    bench_matrices("down", rows, HIDDEN, INTERMEDIATE, LAYERS);
    bench_matrices("head of 256 rows", CHUNK, VOCAB, HIDDEN, (double)rows / CHUNK);
    bench_decode(1, 2 * INTERMEDIATE, HIDDEN);
    bench_decode(16, 2 * INTERMEDIATE, HIDDEN);
    bench_attention(1, LAYERS);
    bench_attention(8, 0);
    bench_attention_decode(1, 1024);
    bench_attention_decode(16, 1024);
    bench_elements();
    bench_vocabulary();

    double total = 0;
    for (int i = 0; i < CLASSES; i++)
        total += bench.seconds[i];
    printf(
        "\na step of %d layers: %.0f ms, %.0f tokens/s, %.1f %% of the GEMM rate (%.1f GFLOP/s)\n",
        LAYERS, total * 1e3, rows / total, 100 * bench.flops / total / bench.gemm_flops,
        bench.gemm_flops * 1e-9);
    for (int i = 0; i < CLASSES; i++)
        printf("  %-24s %8.1f ms %5.1f %%\n", CLASS_NAMES[i], bench.seconds[i] * 1e3,
               100 * bench.seconds[i] / total);
    return 0;
}
