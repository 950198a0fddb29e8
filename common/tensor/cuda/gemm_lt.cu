/* Products by cuBLASLt, loaded when the device is opened, so that a machine without it gets a
 * sentence.
 *
 * ROWS. Which of its algorithms is the fastest depends on the number of rows, and with the
 * algorithm the order of a sum may change. So a forward product has a base algorithm, fixed by all
 * but the number of rows: the heuristics' best at BASE_ROWS without workspace, split sums or
 * reductions between blocks, that takes every number of rows. Fewer rows may be taken faster by
 * another; it is used up to FEW_ROWS[i] rows only when, here and on this device, it has given the
 * base algorithm's bits on data where every change of the order shows (fill_kernel). That is tried
 * when so few rows are first met: a trainer never pays for it. Whoever runs the same library on the
 * same kind of device finds the same.
 *
 * f32 is f32 throughout (pedantic: no TF32). Sums of dgrad and wgrad may be split, with their parts
 * in a workspace added in a fixed order; the algorithm is that of the number of tokens rounded up
 * to a power of two. So the head's dgrad, whose few rows and columns are few tiles and whose sum
 * goes over the vocabulary, can fill the device. */
#include <cublasLt.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/cuda/gemm.cuh"
#include "tensor/cuda/ops.cuh"

#define BASE_ROWS       4096
#define NUM_FEW         3
#define CANDIDATES      16
#define ALIGNMENT_MAX   16
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define TRIAL_ELEMENTS  ((int64_t)1 << 26) /* of a weight that algorithms are tried on, at most */

static const int FEW_ROWS[NUM_FEW] = {16, 64, 256};
/* The base algorithm must take them all, as far as results have no more than INT32_MAX elements:
 * logits are made of fewer rows at once. */
#define ROWS_MAX 65536
static const int64_t ROWS_TO_CHECK[] = {1,  2,   3,   7,    8,         16,      17,
                                        64, 100, 256, 1000, BASE_ROWS, ROWS_MAX};
#define NUM_TO_CHECK (sizeof ROWS_TO_CHECK / sizeof ROWS_TO_CHECK[0])

/* ---- the library ---- */

#define FOR_EACH_FUNCTION(X)                                                                       \
    X(Create)                                                                                      \
    X(GetStatusName)                                                                               \
    X(MatrixLayoutCreate)                                                                          \
    X(MatrixLayoutSetAttribute)                                                                    \
    X(MatmulDescCreate)                                                                            \
    X(MatmulDescSetAttribute)                                                                      \
    X(MatmulPreferenceCreate)                                                                      \
    X(MatmulPreferenceDestroy)                                                                     \
    X(MatmulPreferenceSetAttribute)                                                                \
    X(MatmulAlgoGetHeuristic)                                                                      \
    X(MatmulAlgoConfigGetAttribute)                                                                \
    X(MatmulAlgoCheck)                                                                             \
    X(Matmul)

static struct {
#define MEMBER(name) decltype(&cublasLt##name) name;
    FOR_EACH_FUNCTION(MEMBER)
#undef MEMBER
} lt;

static cublasLtHandle_t handle;
static void *workspace;

static const char *status_text(cublasStatus_t status)
{
    return lt.GetStatusName(status);
}

#define LT_CHECK(call)                                                                             \
    do {                                                                                           \
        cublasStatus_t lt_status_ = lt.call;                                                       \
        CHECKF(lt_status_ == CUBLAS_STATUS_SUCCESS, "cuBLASLt: %s", status_text(lt_status_));      \
    } while (0)

bool gemm_open(char *text, size_t size)
{
    char name[64];
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        snprintf(text, size, "cuBLASLt of CUDA %d is missing: %s", CUBLAS_VER_MAJOR, dlerror());
        return false;
    }
#define FIND(function)                                                                             \
    lt.function = (decltype(lt.function))dlsym(library, "cublasLt" #function);                     \
    if (lt.function == NULL) {                                                                     \
        snprintf(text, size, "%s has no cublasLt%s", name, #function);                             \
        return false;                                                                              \
    }
    FOR_EACH_FUNCTION(FIND)
#undef FIND
    cublasStatus_t status = lt.Create(&handle);
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    snprintf(text, size, "%s does not start: %s", name, status_text(status));
    return false;
}

/* ---- plans ---- */

/* What a plan is for. The number of tokens, m or r, is rounded up; where rows are equal it is 0. */
typedef struct Key {
    int64_t m, n, r;
    bool a_turned, b_turned; /* step is not 1 */
    bool accumulate, by_row, equal_rows;
    DType type, c_type;
    size_t
        alignment; /* of the weight or its gradient, which stand in their model's order, in bytes */
} Key;

/* In the library's words, which are by columns: c^T = b a^T. */
typedef struct Plan {
    struct Plan *next;
    Key key;
    bool usable, tried; /* tried: for fewer rows */
    bool told;          /* that our own kernel takes it */
    size_t alignment;
    cublasLtMatmulDesc_t matmul;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t base, few[NUM_FEW];
    bool has_few[NUM_FEW];
} Plan;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static Plan *plans;

static cudaDataType_t lt_type(DType dtype)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    return dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static int64_t power_of_two(int64_t at_least)
{
    int64_t power = 1;
    while (power < at_least)
        power *= 2;
    return power;
}

static size_t alignment_of(uintptr_t address)
{
    size_t alignment = address & (~address + 1);
    return alignment == 0 || alignment > ALIGNMENT_MAX ? ALIGNMENT_MAX : alignment;
}

static Key key_of(const Product *p)
{
    Key key;
    memset(&key, 0, sizeof key); /* compared whole */
    key.m = p->equal_rows ? 0 : p->by_row ? power_of_two(p->m) : p->m;
    key.n = p->n;
    key.r = p->by_row ? p->r : power_of_two(p->r);
    key.a_turned = p->a.step != 1;
    key.b_turned = p->b.step != 1;
    key.accumulate = p->accumulate;
    key.by_row = p->by_row;
    key.equal_rows = p->equal_rows;
    key.type = p->type;
    key.c_type = p->c_type;
    key.alignment = alignment_of((uintptr_t)(p->by_row ? p->b.data : p->c));
    return key;
}

static cublasLtMatrixLayout_t layout_create(DType dtype)
{
    cublasLtMatrixLayout_t layout = NULL;
    LT_CHECK(MatrixLayoutCreate(&layout, lt_type(dtype), 1, 1, 1));
    return layout;
}

static void layout_set(cublasLtMatrixLayout_t layout, int64_t rows, int64_t columns)
{
    uint64_t height = (uint64_t)rows, width = (uint64_t)columns;
    LT_CHECK(MatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ROWS, &height, sizeof height));
    LT_CHECK(MatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &width, sizeof width));
    LT_CHECK(MatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_LD, &rows, sizeof rows));
}

/* The layouts for `m` rows of c and `r` products an element: operands stand with their contiguous
 * side first. */
static void plan_set_shape(Plan *plan, int64_t m, int64_t r)
{
    const Key *key = &plan->key;
    layout_set(plan->a, key->a_turned ? m : r, key->a_turned ? r : m);
    layout_set(plan->b, key->b_turned ? key->n : r, key->b_turned ? r : key->n);
    layout_set(plan->c, key->n, m);
}

/* What every row of a matrix with rows of `width` begins at a multiple of, in bytes. */
static size_t row_alignment(int64_t width, DType dtype)
{
    return alignment_of((uintptr_t)width * dtype_size(dtype));
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void prefer(cublasLtMatmulPreference_t preference,
                   cublasLtMatmulPreferenceAttributes_t which, const void *value, size_t size)
{
    LT_CHECK(MatmulPreferenceSetAttribute(preference, which, value, size));
}

static cublasLtMatmulPreference_t preference_create(const Plan *plan)
{
    cublasLtMatmulPreference_t preference = NULL;
    uint64_t bytes = plan->key.equal_rows ? 0 : WORKSPACE_BYTES;
    uint32_t reductions = plan->key.equal_rows ? CUBLASLT_REDUCTION_SCHEME_NONE
                                               : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    uint32_t alignment = (uint32_t)plan->alignment;
    LT_CHECK(MatmulPreferenceCreate(&preference));
    prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
    prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment, sizeof alignment);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment, sizeof alignment);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment);
    return preference;
}

/* ---- algorithms ---- */

static bool is_split(const cublasLtMatmulAlgo_t *algo)
{
    int32_t splits = 1;
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t written = 0;
    LT_CHECK(MatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits,
                                          sizeof splits, &written));
    LT_CHECK(MatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                          sizeof scheme, &written));
    return splits > 1 || scheme != CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* Whether an algorithm takes `m` rows. */
static bool takes(Plan *plan, const cublasLtMatmulAlgo_t *algo, int64_t m, int64_t r)
{
    cublasLtMatmulHeuristicResult_t result;
    size_t bytes = plan->key.equal_rows ? 0 : WORKSPACE_BYTES;
    plan_set_shape(plan, m, r);
    return lt.MatmulAlgoCheck(handle, plan->matmul, plan->b, plan->a, plan->c, plan->c, algo,
                              &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= bytes;
}

/* The heuristics' choices for a shape, best first; returns how many. */
static int propose(Plan *plan, int64_t m, int64_t r, cublasLtMatmulAlgo_t algos[CANDIDATES])
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    cublasLtMatmulPreference_t preference = preference_create(plan);
    int count = 0, kept = 0;
    plan_set_shape(plan, m, r);
    cublasStatus_t status =
        lt.MatmulAlgoGetHeuristic(handle, plan->matmul, plan->b, plan->a, plan->c, plan->c,
                                  preference, CANDIDATES, found, &count);
    LT_CHECK(MatmulPreferenceDestroy(preference));
    if (status != CUBLAS_STATUS_SUCCESS) return 0;
    for (int i = 0; i < count; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS &&
            !(plan->key.equal_rows && is_split(&found[i].algo)))
            algos[kept++] = found[i].algo;
    return kept;
}

static bool takes_all_up_to(int64_t rows, Plan *plan, const cublasLtMatmulAlgo_t *algo)
{
    for (size_t i = 0; i < NUM_TO_CHECK; i++)
        if (ROWS_TO_CHECK[i] <= rows && !takes(plan, algo, ROWS_TO_CHECK[i], plan->key.r))
            return false;
    return true;
}

static bool choose_base(Plan *plan)
{
    cublasLtMatmulAlgo_t algos[CANDIDATES];
    int count = propose(plan, plan->key.equal_rows ? BASE_ROWS : plan->key.m, plan->key.r, algos);
    for (int i = 0; i < count; i++)
        if (!plan->key.equal_rows || takes_all_up_to(INT32_MAX / plan->key.n, plan, &algos[i])) {
            plan->base = algos[i];
            return true;
        }
    return false;
}

static cublasStatus_t run(const Plan *plan, const cublasLtMatmulAlgo_t *algo, const void *a,
                          const void *b, void *c)
{
    float one = 1.0f, beta = plan->key.accumulate ? 1.0f : 0.0f;
    bool with_space = !plan->key.equal_rows;
    if (with_space && workspace == NULL) workspace = cuda_alloc(WORKSPACE_BYTES);
    return lt.Matmul(handle, plan->matmul, &one, b, plan->b, a, plan->a, &beta, c, plan->c, c,
                     plan->c, algo, with_space ? workspace : NULL, with_space ? WORKSPACE_BYTES : 0,
                     cuda_stream());
}

/* ---- fewer rows ---- */

/* Element r of row `row` of a matrix whose rows' products with each other all sum up to 0: the
 * second half of r repeats the first in another order, with one operand's sign turned. So what a
 * sum gives is its rounding alone, and any other order of adding gives other bits almost surely. */
template <typename T>
__global__ void fill_kernel(T *data, int64_t rows, int64_t r, bool turned, bool negate,
                            uint32_t seed)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, half = r / 2;
    if (i >= rows * r) return;
    int64_t row = turned ? i % rows : i / r, at = turned ? i / rows : i % r;
    bool second = at >= half && at < 2 * half;
    uint64_t from = second ? (uint64_t)((at - half) * 5 + 3) % (uint64_t)half : (uint64_t)at;
    if (half % 5 == 0 && second) from = (uint64_t)((at - half + 3) % half);
    uint64_t bits = ((uint64_t)row * (uint64_t)r + from + 1) * 0x9E3779B97F4A7C15u + seed;
    bits = (bits ^ bits >> 32) * 0xD6E8FEB86659FD93u;
    float value = (float)((int64_t)(bits >> 40) - (1 << 23)) * 0x1p-23f;
    if (at == 2 * half) value = 0.0f; /* the last of an odd number */
    data[i] = from_float<T>(second && negate ? -value : value);
}

__global__ void differ_kernel(int *count, const uint16_t *a, const uint16_t *b, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n && a[i] != b[i]) atomicAdd(count, 1);
}

/* Operands and results of trials. */
typedef struct Trial {
    int64_t m, n;
    void *a, *b, *base, *other;
    int *differing;
} Trial;

static void fill(void *data, const Plan *plan, int64_t rows, bool turned, bool negate)
{
    unsigned blocks = (unsigned)ceil_div(rows * plan->key.r, 256);
    DISPATCH(plan->key.type, T, {
        LAUNCH(fill_kernel<T>, blocks, 256, 0, (T *)data, rows, plan->key.r, turned, negate,
               negate ? 1u : 2u);
    });
}

static Trial trial_create(const Plan *plan)
{
    Trial trial = {};
    size_t size = dtype_size(plan->key.type);
    trial.m = FEW_ROWS[NUM_FEW - 1];
    trial.n = plan->key.n;
    size_t results = (size_t)(trial.m * trial.n) * dtype_size(plan->key.c_type);
    trial.a = cuda_alloc((size_t)(trial.m * plan->key.r) * size);
    trial.b = cuda_alloc((size_t)(trial.n * plan->key.r) * size);
    trial.base = cuda_alloc(results);
    trial.other = cuda_alloc(results);
    trial.differing = (int *)cuda_alloc(sizeof *trial.differing);
    fill(trial.a, plan, trial.m, plan->key.a_turned, true);
    fill(trial.b, plan, trial.n, plan->key.b_turned, false);
    return trial;
}

static void trial_free(Trial *trial)
{
    void *all[] = {trial->a, trial->b, trial->base, trial->other, trial->differing};
    for (int i = 0; i < 5; i++)
        cuda_free(all[i]);
}

/* Whether an algorithm gives the base algorithm's bits for `m` rows. */
static bool is_same(Plan *plan, const Trial *trial, const cublasLtMatmulAlgo_t *algo, int64_t m)
{
    int64_t words = m * trial->n * (int64_t)dtype_size(plan->key.c_type) / 2;
    int differing = 0;
    plan_set_shape(plan, m, plan->key.r);
    if (run(plan, &plan->base, trial->a, trial->b, trial->base) != CUBLAS_STATUS_SUCCESS ||
        run(plan, algo, trial->a, trial->b, trial->other) != CUBLAS_STATUS_SUCCESS)
        return false;
    cuda_fill_zero(tensor_1d(trial->differing, DTYPE_I32, 1));
    LAUNCH(differ_kernel, (unsigned)ceil_div(words, 256), 256, 0, trial->differing,
           (const uint16_t *)trial->base, (const uint16_t *)trial->other, words);
    cuda_download(&differing, trial->differing, sizeof differing);
    return differing == 0;
}

/* Also below: the library may do the same algorithm otherwise for a single row. */
static bool is_same_up_to(int64_t rows, Plan *plan, const Trial *trial,
                          const cublasLtMatmulAlgo_t *algo)
{
    for (size_t i = 0; i < NUM_TO_CHECK; i++)
        if (ROWS_TO_CHECK[i] <= rows && !is_same(plan, trial, algo, ROWS_TO_CHECK[i])) return false;
    return true;
}

/* For each number of few rows the heuristics' first that gives the base algorithm's bits there and
 * below. */
static void choose_few(Plan *plan)
{
    cublasLtMatmulAlgo_t algos[CANDIDATES];
    Trial trial = trial_create(plan);
    for (int i = 0; i < NUM_FEW; i++) {
        int count = propose(plan, FEW_ROWS[i], plan->key.r, algos);
        for (int k = 0; k < count && !plan->has_few[i]; k++) {
            if (!takes_all_up_to(FEW_ROWS[i], plan, &algos[k])) continue;
            if (!is_same_up_to(FEW_ROWS[i], plan, &trial, &algos[k])) continue;
            plan->few[i] = algos[k];
            plan->has_few[i] = true;
        }
    }
    trial_free(&trial);
}

/* ---- products ---- */

static Plan *plan_create(const Key *key)
{
    Plan *plan = (Plan *)calloc(1, sizeof *plan);
    CHECK(plan != NULL);
    plan->key = *key;
    cublasComputeType_t compute =
        key->type == DTYPE_F32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    cublasOperation_t a = key->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t b = key->b_turned ? CUBLAS_OP_N : CUBLAS_OP_T;
    LT_CHECK(MatmulDescCreate(&plan->matmul, compute, CUDA_R_32F));
    LT_CHECK(MatmulDescSetAttribute(plan->matmul, CUBLASLT_MATMUL_DESC_TRANSA, &b, sizeof b));
    LT_CHECK(MatmulDescSetAttribute(plan->matmul, CUBLASLT_MATMUL_DESC_TRANSB, &a, sizeof a));
    plan->a = layout_create(key->type);
    plan->b = layout_create(key->type);
    plan->c = layout_create(key->c_type);
    plan->alignment = least(row_alignment(key->a_turned ? key->m : key->r, key->type),
                            least(row_alignment(key->b_turned ? key->n : key->r, key->type),
                                  row_alignment(key->n, key->c_type)));
    plan->alignment = least(plan->alignment, key->alignment);
    plan->usable = choose_base(plan);
    plan->next = plans;
    plans = plan;
    return plan;
}

/* NULL: it would have to be made, and is not while kernels are recorded. */
static Plan *plan_of(const Product *product)
{
    Key key = key_of(product);
    for (Plan *plan = plans; plan != NULL; plan = plan->next)
        if (memcmp(&plan->key, &key, sizeof key) == 0) return plan;
    return cuda_is_recording() ? NULL : plan_create(&key);
}

/* Trials run and wait, and so cannot be recorded; the base algorithm's bits are the same. */
static bool is_for_trials(const Plan *plan, const Product *product)
{
    return !plan->tried && product->m <= FEW_ROWS[NUM_FEW - 1] && !cuda_is_recording() &&
           plan->key.n * plan->key.r <= TRIAL_ELEMENTS;
}

static const cublasLtMatmulAlgo_t *algo_for(Plan *plan, const Product *product, bool fixed)
{
    if (fixed || !product->equal_rows) return &plan->base;
    if (is_for_trials(plan, product)) {
        choose_few(plan);
        plan->tried = true;
    }
    for (int i = 0; i < NUM_FEW; i++)
        if (product->m <= FEW_ROWS[i] && plan->has_few[i]) return &plan->few[i];
    return &plan->base;
}

static bool is_aligned(const Plan *plan, const Product *p)
{
    uintptr_t all = (uintptr_t)p->a.data | (uintptr_t)p->b.data | (uintptr_t)p->c;
    return all % plan->alignment == 0;
}

static void describe(const Product *p, char *text, size_t size)
{
    snprintf(text, size, "c[%lld, %lld] = a[%lld, %lld] b[%lld, %lld]^T in %s", (long long)p->m,
             (long long)p->n, (long long)p->m, (long long)p->r, (long long)p->n, (long long)p->r,
             dtype_name(p->type));
}

static bool is_told(const Key *key)
{
    for (const Plan *plan = plans; plan != NULL; plan = plan->next) {
        Key like = plan->key;
        like.alignment = key->alignment;
        if (plan->told && memcmp(&like, key, sizeof like) == 0) return true;
    }
    return false;
}

/* Once for a shape, in the process's log. */
static void tell_own_kernel(Plan *plan, const Product *product, const char *why)
{
    char shape[128];
    if (is_told(&plan->key)) return;
    plan->told = true;
    describe(product, shape, sizeof shape);
    fprintf(
        stderr,
        "%s: cuBLASLt %s for %s%s: a kernel of ours computes it, to the same precision and more "
        "slowly\n",
        cuda_device_name(), why, shape,
        product->equal_rows ? " whose rows do not depend on their number" : "");
}

/* Where the algorithm for about so many tokens does not take just so many. */
static bool multiply_by_another(Plan *plan, const Product *product)
{
    cublasLtMatmulAlgo_t algos[CANDIDATES];
    int count = propose(plan, product->m, product->r, algos);
    for (int i = 0; i < count; i++)
        if (run(plan, &algos[i], product->a.data, product->b.data, product->c) ==
            CUBLAS_STATUS_SUCCESS)
            return true;
    return false;
}

/* Whether the library took it. */
static bool multiply(Plan *plan, const Product *product, bool fixed)
{
    if (!plan->usable) {
        tell_own_kernel(plan, product, "has no algorithm");
        return false;
    }
    CHECKF(is_aligned(plan, product), "rows do not begin where a row of a matrix would");
    const cublasLtMatmulAlgo_t *algo = algo_for(plan, product, fixed); /* which may try shapes */
    plan_set_shape(plan, product->m, product->r);
    cublasStatus_t status = run(plan, algo, product->a.data, product->b.data, product->c);
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    char shape[128], why[256];
    describe(product, shape, sizeof shape);
    snprintf(why, sizeof why, "cuBLASLt: %s: %s", shape, status_text(status));
    if (cuda_is_recording()) {
        cuda_spoil_recording(why);
        return true; /* of what is thrown away */
    }
    /* Where rows are equal everything else would have other bits; the others may be taken by
     * another. */
    CHECKF(!product->equal_rows, "%s", why);
    if (multiply_by_another(plan, product)) return true;
    tell_own_kernel(plan, product, status_text(status));
    return false;
}

bool gemm_lt(const Product *given, GemmChoice choice)
{
    Product freed = *given;
    const Product *product = choice == GEMM_LIBRARY_FREE ? &freed : given;
    freed.by_row = freed.equal_rows = false; /* an algorithm of its own, split or not */
    (void)cuda_stream(); /* so that the thread's device is ours when the library asks for it */
    pthread_mutex_lock(&lock);
    Plan *plan = plan_of(product);
    bool done = true;
    if (plan != NULL)
        done = multiply(plan, product, choice == GEMM_LIBRARY_FIXED);
    else
        cuda_spoil_recording("a product of a shape that was not met before");
    pthread_mutex_unlock(&lock);
    return done;
}
