/* Products of Qwen3-0.6B's shapes: whether rows depend on their number, who agrees with whom,
 * whether sums of backward have all their terms, and how fast they are. Prints Markdown; exits 1
 * when a row depends on others or a sum lacks something. */
#include "gpu.cuh"

typedef struct Shape {
    const char *name;
    int64_t n, k;
    DType type, result;
} Shape;

static const Shape SHAPES[] = {
    {"qkv", 4096, 1024, DTYPE_BF16, DTYPE_BF16},     {"o", 1024, 2048, DTYPE_BF16, DTYPE_BF16},
    {"gate_up", 6144, 1024, DTYPE_BF16, DTYPE_BF16}, {"down", 1024, 3072, DTYPE_BF16, DTYPE_BF16},
    {"head", 151936, 1024, DTYPE_BF16, DTYPE_F32},   {"qkv f32", 4096, 1024, DTYPE_F32, DTYPE_F32},
    {"down f32", 1024, 3072, DTYPE_F32, DTYPE_F32},  {"odd", 333, 130, DTYPE_BF16, DTYPE_BF16},
};
static const char *const CHOICES[] = {"library", "library, fixed", "tile"};
static const int64_t COUNTS[] = {1,  2,  3,  7,   8,   16,  17,  31,  32,  33,
                                 63, 64, 65, 100, 128, 129, 200, 256, 257, 511};

#define ROWS 512

/* As many as a trainer's micro-batch has; the head's chunk has half of them. */
#define TRAINING_ROWS 8192

/* Rows of a large batch that differ when they are alone, or among a few. */
static int64_t count_training(const Shape &s, const Weight &w)
{
    int64_t rows = s.n > 100000 ? TRAINING_ROWS / 2 : TRAINING_ROWS, differing = 0;
    Tensor x = gpu_random(s.type, rows, s.k, 5, 1);
    Tensor whole = gpu_result(s.result, rows, s.n), part = gpu_result(s.result, 1000, s.n);
    gemm_choose(GEMM_LIBRARY);
    kernels->matmul(whole, x, &w);
    for (int64_t count : {1, 16, 1000})
        for (int64_t first : {(int64_t)0, rows / 2 + 1, rows - count}) {
            Tensor y = gpu_rows(part, 0, count);
            kernels->matmul(y, gpu_rows(x, first, count), &w);
            if (gpu_differing(y, gpu_rows(whole, first, count)) > 0) differing++;
        }
    void *all[] = {x.data, whole.data, part.data};
    for (void *memory : all)
        kernels->free(memory);
    printf("| %s | library, %lld rows | %s | |\n", s.name, (long long)rows,
           differing == 0 ? "the same" : "**DIFFER**");
    return differing;
}

/* Row counts whose rows differ from the whole's. */
static int count_differing(const Tensor &whole, const Tensor &x, const Weight &w,
                           const Tensor &part)
{
    int differing = 0;
    for (int64_t count : COUNTS)
        for (int64_t first : {(int64_t)0, ROWS - count}) {
            Tensor y = gpu_rows(part, 0, count);
            kernels->matmul(y, gpu_rows(x, first, count), &w);
            if (gpu_differing(y, gpu_rows(whole, first, count)) > 0) differing++;
        }
    return differing;
}

template <typename T> __global__ void ones_kernel(T *data, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) data[i] = from_float<T>(1.0f);
}

static Tensor ones(DType dtype, int64_t rows, int64_t columns)
{
    Tensor t = gpu_result(dtype, rows, columns);
    int64_t n = rows * columns;
    DISPATCH(dtype, T,
             { LAUNCH(ones_kernel<T>, (unsigned)ceil_div(n, 256), 256, 0, (T *)t.data, n); });
    return t;
}

/* Elements that are not `expected`. */
static int64_t count_unlike(const Tensor &t, float expected)
{
    std::vector<char> host(tensor_bytes(&t));
    int64_t n = t.shape[0] * t.shape[1], unlike = 0;
    kernels->download(host.data(), t.data, host.size());
    for (int64_t i = 0; i < n; i++) {
        float value = t.dtype == DTYPE_F32 ? ((const float *)host.data())[i]
                                           : to_float(((const Bf16 *)host.data())[i]);
        unlike += value != expected;
    }
    return unlike;
}

/* What is summed over any number of tokens, or over all columns, has all of them: products of ones
 * are counts, which f32 holds exactly, and bf16 as far as 256 or a power of two. */
static int64_t count_unsummed(const Shape &s)
{
    const int64_t max = s.n > 100000 ? 4095 : 16383;
    int64_t wrong = 0;
    Tensor dy = ones(s.type, max, s.n), x = ones(s.type, max, s.k);
    Tensor dw = gpu_result(DTYPE_F32, s.n, s.k);
    for (int64_t tokens : {(int64_t)1, (int64_t)300, (int64_t)1025, (int64_t)4095, max}) {
        kernels->fill_zero(dw);
        kernels->matmul_wgrad_accumulate(dw, gpu_rows(dy, 0, tokens), gpu_rows(x, 0, tokens));
        wrong += count_unlike(dw, (float)tokens);
    }
    Weight w = {ones(s.type, s.n, s.k), NULL};
    Tensor dx = gpu_result(s.type, 300, s.k);
    const Bf16 rounded = from_float<Bf16>((float)s.n);
    kernels->matmul_dgrad(dx, gpu_rows(dy, 0, 300), &w);
    wrong += count_unlike(dx, s.type == DTYPE_F32 ? (float)s.n : to_float(rounded));
    printf("| %s | library, sums of backward | %s | |\n", s.name,
           wrong == 0 ? "whole" : "**WRONG**");
    void *all[] = {dy.data, x.data, dw.data, w.plain.data, dx.data};
    for (void *memory : all)
        kernels->free(memory);
    return wrong;
}

static int check_shape(const Shape &s)
{
    Tensor x = gpu_random(s.type, ROWS, s.k, 1, 1);
    Weight w = {gpu_random(s.type, s.n, s.k, 3, 1), NULL};
    Tensor y[3], part = gpu_result(s.result, ROWS, s.n);
    int failures = 0;
    for (int choice = 0; choice < 3; choice++) {
        y[choice] = gpu_result(s.result, ROWS, s.n);
        gemm_choose((GemmChoice)choice);
        kernels->matmul(y[choice], x, &w);
        int differing = count_differing(y[choice], x, w, part);
        int64_t from_library = gpu_differing(y[choice], y[0]);
        printf("| %s | %s | %s | %.3f %% |\n", s.name, CHOICES[choice],
               differing == 0 ? "the same" : "**DIFFER**",
               100.0 * (double)from_library / (double)(ROWS * s.n));
        failures += differing;
    }
    for (int choice = 0; choice < 3; choice++)
        kernels->free(y[choice].data);
    failures += (int)count_training(s, w);
    failures += count_unsummed(s) > 0;
    void *all[] = {x.data, w.plain.data, part.data};
    for (void *memory : all)
        kernels->free(memory);
    return failures;
}

static void time_shape(const Shape &s, double bandwidth, double rate)
{
    const int64_t max = s.n > 100000 ? 2048 : 16384;
    Tensor x = gpu_random(s.type, max, s.k, 1, 1), y = gpu_result(s.result, max, s.n);
    Weight w = {gpu_random(s.type, s.n, s.k, 3, 1), NULL};
    for (int64_t m : {1, 16, 64, 256, 2048, 16384}) {
        if (m > max) continue;
        double ms[3], flops = 2.0 * (double)m * (double)s.n * (double)s.k;
        double bytes = (double)((m + s.n) * s.k) * (double)dtype_size(s.type) +
                       (double)(m * s.n) * (double)dtype_size(s.result);
        double limit = std::max(flops / rate, bytes / bandwidth) * 1e3;
        for (int choice = 0; choice < 3; choice++) {
            gemm_choose((GemmChoice)choice);
            ms[choice] =
                gpu_time([&] { kernels->matmul(gpu_rows(y, 0, m), gpu_rows(x, 0, m), &w); });
        }
        printf("| %s | %lld | %.4f | %.4f | %.4f | %.4f | %.0f %% | %.0f |\n", s.name, (long long)m,
               ms[0], ms[1], ms[2], limit, 100 * limit / ms[0], flops / ms[0] * 1e-9);
    }
    void *all[] = {x.data, y.data, w.plain.data};
    for (void *memory : all)
        kernels->free(memory);
}

int main(int argc, char **argv)
{
    int failures = 0;
    gpu_open();
    double bandwidth = argc > 1 ? atof(argv[1]) * 1e9 : 3.0e12,
           rate = argc > 2 ? atof(argv[2]) * 1e12 : 8e14;
    printf(
        "\n### Rows of products alone and among others (bits), and who agrees with the library\n\n"
        "| shape | who | matmul rows | elements unlike the library's "
        "|\n|---|---|---|---|\n");
    for (const Shape &s : SHAPES)
        failures += check_shape(s);
    printf("\n### Times of matmul, ms (limit: %.2f TB/s, %.0f TFLOP/s)\n\n"
           "| shape | rows | library | fixed | tile | limit | library at | TFLOP/s |\n"
           "|---|---|---|---|---|---|---|---|\n",
           bandwidth * 1e-12, rate * 1e-12);
    for (const Shape &s : SHAPES)
        if (s.type == DTYPE_BF16) time_shape(s, bandwidth, rate);
    return failures > 0;
}
