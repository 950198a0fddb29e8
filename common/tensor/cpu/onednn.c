#include "tensor/cpu/onednn.h"

#include <dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tensor/cpu/memory_cpu.h"
#include "tensor/cpu/parallel.h"

#define ONEDNN(call)                                                                               \
    do {                                                                                           \
        const dnnl_status_t onednn_status_ = (call);                                               \
        CHECKF(onednn_status_ == dnnl_success, "oneDNN status %d", (int)onednn_status_);           \
    } while (0)

/* ---- the two generations of the C interface: a Layout is a memory descriptor behind a pointer
 * ---- */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t Layout;
typedef const_dnnl_memory_desc_t LayoutView;

static Layout layout_strided(const dnnl_dims_t dims, const dnnl_dims_t strides,
                             dnnl_data_type_t type)
{
    Layout layout = NULL;
    ONEDNN(dnnl_memory_desc_create_with_strides(&layout, 2, dims, type, strides));
    return layout;
}

/* Whatever order of elements is fastest for the product that asks. */
static Layout layout_any(const dnnl_dims_t dims, dnnl_data_type_t type)
{
    Layout layout = NULL;
    ONEDNN(dnnl_memory_desc_create_with_tag(&layout, 2, dims, type, dnnl_format_tag_any));
    return layout;
}

static Layout layout_clone(LayoutView from)
{
    Layout layout = NULL;
    ONEDNN(dnnl_memory_desc_clone(&layout, from));
    return layout;
}

static void layout_destroy(Layout layout)
{
    if (layout != NULL) dnnl_memory_desc_destroy(layout);
}

static bool describe_matmul(dnnl_primitive_desc_t *ret, dnnl_engine_t engine, LayoutView a,
                            LayoutView b, LayoutView c, dnnl_primitive_attr_t attributes)
{
    return dnnl_matmul_primitive_desc_create(ret, engine, a, b, NULL, c, attributes) ==
           dnnl_success;
}

static dnnl_status_t append_sum(dnnl_post_ops_t post_ops)
{
    return dnnl_post_ops_append_sum(post_ops, 1.0f, 0, dnnl_data_type_undef);
}
#else
typedef dnnl_memory_desc_t *Layout;
typedef const dnnl_memory_desc_t *LayoutView;

static Layout layout_clone(LayoutView from)
{
    Layout layout = mem_alloc(sizeof *layout);
    *layout = *from;
    return layout;
}

static Layout layout_strided(const dnnl_dims_t dims, const dnnl_dims_t strides,
                             dnnl_data_type_t type)
{
    dnnl_memory_desc_t layout;
    ONEDNN(dnnl_memory_desc_init_by_strides(&layout, 2, dims, type, strides));
    return layout_clone(&layout);
}

/* Whatever order of elements is fastest for the product that asks. */
static Layout layout_any(const dnnl_dims_t dims, dnnl_data_type_t type)
{
    dnnl_memory_desc_t layout;
    ONEDNN(dnnl_memory_desc_init_by_tag(&layout, 2, dims, type, dnnl_format_tag_any));
    return layout_clone(&layout);
}

static void layout_destroy(Layout layout)
{
    free(layout);
}

static bool describe_matmul(dnnl_primitive_desc_t *ret, dnnl_engine_t engine, LayoutView a,
                            LayoutView b, LayoutView c, dnnl_primitive_attr_t attributes)
{
    dnnl_matmul_desc_t description;
    ONEDNN(dnnl_matmul_desc_init(&description, a, b, NULL, c));
    return dnnl_primitive_desc_create(ret, &description, attributes, engine, NULL) == dnnl_success;
}

static dnnl_status_t append_sum(dnnl_post_ops_t post_ops)
{
    return dnnl_post_ops_append_sum(post_ops, 1.0f);
}
#endif

/* ---- products, cached by shape ---- */

/* C[m, n] = A[m, k] B[k, n]. */
typedef enum ProductKind {
    PRODUCT_FORWARD, /* A = x, B = w^T */
    PRODUCT_DGRAD,   /* A = dy, B = w */
    PRODUCT_WGRAD,   /* A = dy^T, B = x, C += */
} ProductKind;

typedef struct ProductKey {
    int64_t m, n, k;
    int32_t kind, type, result_type, packed, threads, padding;
} ProductKey;

typedef struct Product {
    ProductKey key;
    dnnl_primitive_t primitive; /* NULL: a free slot */
    dnnl_memory_t a, b, c, scratch;
    size_t scratch_bytes;
    uint64_t last_used;
} Product;

/* A set-associative cache: batches of ever new lengths replace what was not used for longest. */
#define CACHE_SETS 64
#define CACHE_WAYS 8

static struct {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    bool has_bf16;
    uint64_t clock;
    Product cache[CACHE_SETS][CACHE_WAYS];
    void (*cast)(Tensor y, Tensor x);
} backend;

static dnnl_data_type_t onednn_type(DType dtype)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    return dtype == DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
}

static Layout layout_matrix(int64_t rows, int64_t columns, DType dtype, bool transposed)
{
    const dnnl_dims_t dims = {rows, columns};
    const dnnl_dims_t plain = {columns, 1}, turned = {1, rows};
    return layout_strided(dims, transposed ? turned : plain, onednn_type(dtype));
}

static Layout layout_free_choice(int64_t rows, int64_t columns, DType dtype)
{
    const dnnl_dims_t dims = {rows, columns};
    return layout_any(dims, onednn_type(dtype));
}

/* NULL when oneDNN has no such product. */
static dnnl_primitive_desc_t product_describe(const ProductKey *key, LayoutView b)
{
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_primitive_desc_t description = NULL;
    ONEDNN(dnnl_primitive_attr_create(&attributes));
    ONEDNN(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    if (key->kind == PRODUCT_WGRAD) {
        ONEDNN(dnnl_post_ops_create(&post_ops));
        ONEDNN(append_sum(post_ops));
        ONEDNN(dnnl_primitive_attr_set_post_ops(attributes, post_ops));
        ONEDNN(dnnl_post_ops_destroy(post_ops));
    }
    Layout a = layout_matrix(key->m, key->k, (DType)key->type, key->kind == PRODUCT_WGRAD);
    Layout c = layout_matrix(key->m, key->n, (DType)key->result_type, false);
    if (!describe_matmul(&description, backend.engine, a, b, c, attributes)) description = NULL;
    layout_destroy(a);
    layout_destroy(c);
    ONEDNN(dnnl_primitive_attr_destroy(attributes));
    return description;
}

static void backend_start(void)
{
    parallel_bind_caller();
    if (backend.engine != NULL) return;
    ONEDNN(dnnl_engine_create(&backend.engine, dnnl_cpu, 0));
    ONEDNN(dnnl_stream_create(&backend.stream, backend.engine, dnnl_stream_default_flags));
    const ProductKey key = {64, 64, 64, PRODUCT_DGRAD, DTYPE_BF16, DTYPE_F32, 0, 0, 0};
    Layout b = layout_matrix(64, 64, DTYPE_BF16, false);
    dnnl_primitive_desc_t description = product_describe(&key, b);
    const char *implementation = "ref";
    if (description != NULL) {
        ONEDNN(dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0,
                                         (void *)&implementation));
        backend.has_bf16 = strncmp(implementation, "ref", 3) != 0;
        ONEDNN(dnnl_primitive_desc_destroy(description));
    }
    layout_destroy(b);
}

static dnnl_memory_t memory_of(LayoutView layout)
{
    dnnl_memory_t memory = NULL;
    ONEDNN(dnnl_memory_create(&memory, layout, backend.engine, DNNL_MEMORY_NONE));
    return memory;
}

static LayoutView queried_layout(dnnl_primitive_desc_t description, dnnl_query_t what)
{
    LayoutView layout = dnnl_primitive_desc_query_md(description, what, 0);
    CHECK(layout != NULL);
    return layout;
}

static void product_destroy(Product *product)
{
    if (product->primitive == NULL) return;
    ONEDNN(dnnl_primitive_destroy(product->primitive));
    ONEDNN(dnnl_memory_destroy(product->a));
    ONEDNN(dnnl_memory_destroy(product->b));
    ONEDNN(dnnl_memory_destroy(product->c));
    ONEDNN(dnnl_memory_destroy(product->scratch));
    *product = (Product){0};
}

/* False when oneDNN has no product with B laid out like that. */
static bool product_create(Product *product, const ProductKey *key, LayoutView b)
{
    dnnl_primitive_desc_t description = product_describe(key, b);
    if (description == NULL) return false;
    product_destroy(product);
    product->key = *key;
    ONEDNN(dnnl_primitive_create(&product->primitive, description));
    product->a = memory_of(queried_layout(description, dnnl_query_src_md));
    product->b = memory_of(queried_layout(description, dnnl_query_weights_md));
    product->c = memory_of(queried_layout(description, dnnl_query_dst_md));
    LayoutView scratch = queried_layout(description, dnnl_query_scratchpad_md);
    product->scratch = memory_of(scratch);
    product->scratch_bytes = dnnl_memory_desc_get_size(scratch);
    ONEDNN(dnnl_primitive_desc_destroy(description));
    return true;
}

static uint64_t key_hash(const ProductKey *key)
{
    uint64_t hash = 14695981039346656037u;
    const uint64_t words[] = {(uint64_t)key->m, (uint64_t)key->n, (uint64_t)key->k,
                              (uint64_t)(key->kind | key->type << 2 | key->result_type << 6 |
                                         key->packed << 10 | key->threads << 11)};
    for (size_t i = 0; i < 4; i++)
        hash = (hash ^ words[i]) * 1099511628211u ^ hash >> 29;
    return hash;
}

/* The product for a key, made now if need be; `b` is B's layout. NULL when there is none. */
static Product *product_find(const ProductKey *key, LayoutView b)
{
    Product *set = backend.cache[key_hash(key) % CACHE_SETS], *oldest = &set[0];
    for (int i = 0; i < CACHE_WAYS; i++) {
        if (set[i].primitive != NULL && memcmp(&set[i].key, key, sizeof *key) == 0) {
            set[i].last_used = ++backend.clock;
            return &set[i];
        }
        if (set[i].last_used < oldest->last_used) oldest = &set[i];
    }
    if (!product_create(oldest, key, b)) return NULL;
    oldest->last_used = ++backend.clock;
    return oldest;
}

static void product_run(const Product *product, const void *a, const void *b, void *c)
{
    void *scratch = scratch_take(SCRATCH_ONEDNN, product->scratch_bytes);
    ONEDNN(dnnl_memory_set_data_handle(product->a, (void *)a));
    ONEDNN(dnnl_memory_set_data_handle(product->b, (void *)b));
    ONEDNN(dnnl_memory_set_data_handle(product->c, c));
    ONEDNN(dnnl_memory_set_data_handle(product->scratch, scratch));
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, product->a},
                                         {DNNL_ARG_WEIGHTS, product->b},
                                         {DNNL_ARG_DST, product->c},
                                         {DNNL_ARG_SCRATCHPAD, product->scratch}};
    ONEDNN(dnnl_primitive_execute(product->primitive, backend.stream, 4, arguments));
    ONEDNN(dnnl_stream_wait(backend.stream));
}

/* ---- weights ---- */

/* The copies behind Weight.packed. */
typedef struct PackedWeight {
    Tensor wide;    /* the weight in f32 where the machine has no bf16 products, else no data */
    Layout forward; /* layout of B = w^T, chosen by oneDNN */
    void *forward_data;
} PackedWeight;

/* The number of rows for which the layout is chosen; the layouts of other numbers were found to be
 * the same, and where one is not, the plain weight is used. */
#define NOMINAL_ROWS 256

static ProductKey forward_key(int64_t rows, const Tensor *w, DType result_type, bool packed)
{
    return (ProductKey){.m = rows,
                        .n = w->shape[0],
                        .k = w->shape[1],
                        .kind = PRODUCT_FORWARD,
                        .type = (int32_t)w->dtype,
                        .result_type = (int32_t)result_type,
                        .packed = packed,
                        .threads = parallel_threads()};
}

static void reorder(LayoutView from, const void *from_data, LayoutView to, void *to_data)
{
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t primitive = NULL;
    ONEDNN(dnnl_reorder_primitive_desc_create(&description, from, backend.engine, to,
                                              backend.engine, NULL));
    ONEDNN(dnnl_primitive_create(&primitive, description));
    dnnl_memory_t source = memory_of(from), destination = memory_of(to);
    ONEDNN(dnnl_memory_set_data_handle(source, (void *)from_data));
    ONEDNN(dnnl_memory_set_data_handle(destination, to_data));
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, destination}};
    ONEDNN(dnnl_primitive_execute(primitive, backend.stream, 2, arguments));
    ONEDNN(dnnl_stream_wait(backend.stream));
    ONEDNN(dnnl_memory_destroy(source));
    ONEDNN(dnnl_memory_destroy(destination));
    ONEDNN(dnnl_primitive_destroy(primitive));
    ONEDNN(dnnl_primitive_desc_destroy(description));
}

static void weight_check(const Weight *weight)
{
    CHECK(weight->plain.rank == 2 && weight->plain.shape[0] > 0 && weight->plain.shape[1] > 0);
    CHECK(weight->plain.dtype == DTYPE_F32 || weight->plain.dtype == DTYPE_BF16);
}

/* The weight as products read it: `plain`, or its f32 copy. */
static Tensor weight_operand(const Weight *weight)
{
    const PackedWeight *packed = weight->packed;
    return packed != NULL && packed->wide.data != NULL ? packed->wide : weight->plain;
}

static PackedWeight *packed_create(const Weight *weight)
{
    PackedWeight *packed = mem_calloc(1, sizeof *packed);
    const Tensor *plain = &weight->plain;
    if (plain->dtype == DTYPE_BF16 && !backend.has_bf16) {
        packed->wide = tensor_2d(NULL, DTYPE_F32, plain->shape[0], plain->shape[1]);
        packed->wide.data = memory_cpu_alloc(tensor_bytes(&packed->wide));
    }
    const DType dtype = packed->wide.data != NULL ? DTYPE_F32 : plain->dtype;
    const Tensor operand = tensor_2d(NULL, dtype, plain->shape[0], plain->shape[1]);
    const ProductKey key = forward_key(NOMINAL_ROWS, &operand, dtype, true);
    Layout any = layout_free_choice(key.k, key.n, dtype);
    dnnl_primitive_desc_t description = product_describe(&key, any);
    CHECK(description != NULL);
    packed->forward = layout_clone(queried_layout(description, dnnl_query_weights_md));
    packed->forward_data = memory_cpu_alloc(dnnl_memory_desc_get_size(packed->forward));
    ONEDNN(dnnl_primitive_desc_destroy(description));
    layout_destroy(any);
    return packed;
}

void onednn_weight_prepare(Weight *weight)
{
    weight_check(weight);
    backend_start();
    if (weight->packed == NULL) weight->packed = packed_create(weight);
    PackedWeight *packed = weight->packed;
    if (packed->wide.data != NULL) backend.cast(packed->wide, weight->plain);
    const Tensor operand = weight_operand(weight);
    Layout plain = layout_matrix(operand.shape[1], operand.shape[0], operand.dtype, true);
    reorder(plain, operand.data, packed->forward, packed->forward_data);
    layout_destroy(plain);
}

void onednn_weight_release(Weight *weight)
{
    PackedWeight *packed = weight->packed;
    if (packed == NULL) return;
    memory_cpu_free(packed->wide.data);
    memory_cpu_free(packed->forward_data);
    layout_destroy(packed->forward);
    free(packed);
    weight->packed = NULL;
}

/* ---- operands without bf16 products ---- */

static Tensor widened(Tensor x, ScratchUse use)
{
    Tensor wide = x;
    wide.dtype = DTYPE_F32;
    wide.data = scratch_take(use, tensor_bytes(&wide));
    backend.cast(wide, x);
    return wide;
}

/* Where a product writes: `y` itself, or f32 scratch when the product is made in f32 but y is bf16.
 */
static Tensor result_for(Tensor y, DType product_type)
{
    if (product_type == DTYPE_BF16 || y.dtype == DTYPE_F32) return y;
    Tensor wide = y;
    wide.dtype = DTYPE_F32;
    wide.data = scratch_take(SCRATCH_RESULT, tensor_bytes(&wide));
    return wide;
}

static bool needs_wide(DType dtype)
{
    return dtype == DTYPE_BF16 && !backend.has_bf16;
}

/* ---- the three products ---- */

static void operands_check(const Tensor *y, const Tensor *x, const Weight *w, bool forward)
{
    weight_check(w);
    CHECK(y->rank == 2 && x->rank == 2 && x->shape[0] == y->shape[0]);
    CHECK(x->dtype == w->plain.dtype && (y->dtype == x->dtype || y->dtype == DTYPE_F32));
    CHECK(x->shape[1] == w->plain.shape[forward ? 1 : 0]);
    CHECK(y->shape[1] == w->plain.shape[forward ? 0 : 1]);
}

void onednn_matmul(Tensor y, Tensor x, const Weight *w)
{
    operands_check(&y, &x, w, true);
    if (x.shape[0] == 0) return;
    backend_start();
    const PackedWeight *packed = w->packed;
    Tensor operand = weight_operand(w);
    if (needs_wide(x.dtype)) x = widened(x, SCRATCH_OPERAND_A);
    if (needs_wide(operand.dtype)) operand = widened(operand, SCRATCH_OPERAND_B);
    const Tensor result = result_for(y, x.dtype);

    Product *product = NULL;
    const void *b = NULL;
    if (packed != NULL) {
        const ProductKey key = forward_key(x.shape[0], &operand, result.dtype, true);
        product = product_find(&key, packed->forward);
        b = packed->forward_data;
    }
    if (product == NULL) {
        const ProductKey key = forward_key(x.shape[0], &operand, result.dtype, false);
        Layout plain = layout_matrix(key.k, key.n, operand.dtype, true);
        product = product_find(&key, plain);
        layout_destroy(plain);
        b = operand.data;
    }
    CHECK(product != NULL);
    product_run(product, x.data, b, result.data);
    if (result.data != y.data) backend.cast(y, result);
}

void onednn_matmul_dgrad(Tensor dx, Tensor dy, const Weight *w)
{
    operands_check(&dx, &dy, w, false);
    if (dy.shape[0] == 0) return;
    backend_start();
    Tensor operand = weight_operand(w);
    if (needs_wide(dy.dtype)) dy = widened(dy, SCRATCH_OPERAND_A);
    if (needs_wide(operand.dtype)) operand = widened(operand, SCRATCH_OPERAND_B);
    const Tensor result = result_for(dx, dy.dtype);
    const ProductKey key = {.m = dy.shape[0],
                            .n = operand.shape[1],
                            .k = operand.shape[0],
                            .kind = PRODUCT_DGRAD,
                            .type = (int32_t)dy.dtype,
                            .result_type = (int32_t)result.dtype,
                            .threads = parallel_threads()};
    Layout plain = layout_matrix(key.k, key.n, operand.dtype, false);
    Product *product = product_find(&key, plain);
    layout_destroy(plain);
    CHECK(product != NULL);
    product_run(product, dy.data, operand.data, result.data);
    if (result.data != dx.data) backend.cast(dx, result);
}

void onednn_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x)
{
    CHECK(dw.rank == 2 && dy.rank == 2 && x.rank == 2 && dw.dtype == DTYPE_F32);
    CHECK(dy.dtype == x.dtype && (x.dtype == DTYPE_F32 || x.dtype == DTYPE_BF16));
    CHECK(dy.shape[0] == x.shape[0] && dw.shape[0] == dy.shape[1] && dw.shape[1] == x.shape[1]);
    if (x.shape[0] == 0) return;
    backend_start();
    if (needs_wide(x.dtype)) {
        dy = widened(dy, SCRATCH_OPERAND_A);
        x = widened(x, SCRATCH_OPERAND_B);
    }
    const ProductKey key = {.m = dw.shape[0],
                            .n = dw.shape[1],
                            .k = x.shape[0],
                            .kind = PRODUCT_WGRAD,
                            .type = (int32_t)x.dtype,
                            .result_type = DTYPE_F32,
                            .threads = parallel_threads()};
    Layout plain = layout_matrix(key.k, key.n, x.dtype, false);
    Product *product = product_find(&key, plain);
    layout_destroy(plain);
    CHECK(product != NULL);
    product_run(product, dy.data, x.data, dw.data);
}

/* ---- set-up ---- */

void onednn_limit_isa(CpuIsa isa)
{
#if defined(__x86_64__)
    static const dnnl_cpu_isa_t strength[] = {
        [CPU_ISA_BASE] = dnnl_cpu_isa_sse41,
        [CPU_ISA_AVX2] = dnnl_cpu_isa_avx2,
        [CPU_ISA_AVX512] = dnnl_cpu_isa_avx512_core,
    };
    /* Above these oneDNN chooses freely. Once it has run it refuses. */
    if (backend.engine == NULL && isa < CPU_ISA_AVX512_BF16)
        (void)dnnl_set_max_cpu_isa(strength[isa]);
#else
    (void)isa;
#endif
}

bool onednn_has_bf16(void)
{
    backend_start();
    return backend.has_bf16;
}

void onednn_use_cast(void (*cast)(Tensor y, Tensor x))
{
    backend.cast = cast;
}
