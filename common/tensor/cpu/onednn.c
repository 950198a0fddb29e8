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

static Layout layout_tagged(const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    Layout layout = NULL;
    ONEDNN(dnnl_memory_desc_create_with_tag(&layout, 2, dims, type, tag));
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

static Layout layout_tagged(const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t layout;
    ONEDNN(dnnl_memory_desc_init_by_tag(&layout, 2, dims, type, tag));
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
    bool blocked[DTYPE_COUNT]; /* the layout of pack.c is what oneDNN would choose for B */
    uint64_t clock;
    Product cache[CACHE_SETS][CACHE_WAYS];
    const OnednnLoops *loops;
} backend;

static dnnl_data_type_t onednn_type(DType dtype)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    return dtype == DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
}

/* [rows, columns] with rows `stride` elements apart, or, turned, columns. */
static Layout layout_matrix(int64_t rows, int64_t columns, int64_t stride, DType dtype, bool turned)
{
    const dnnl_dims_t dims = {rows, columns};
    const dnnl_dims_t strides = {turned ? 1 : stride, turned ? stride : 1};
    return layout_strided(dims, strides, onednn_type(dtype));
}

/* Whatever order of elements is fastest for the product that asks. */
static Layout layout_any(int64_t rows, int64_t columns, DType dtype)
{
    const dnnl_dims_t dims = {rows, columns};
    return layout_tagged(dims, onednn_type(dtype), dnnl_format_tag_any);
}

/* What pack.c makes. */
static Layout layout_blocked(int64_t rows, int64_t columns, DType dtype)
{
    const dnnl_dims_t dims = {rows, columns};
    return layout_tagged(dims, onednn_type(dtype),
                         dtype == DTYPE_F32 ? dnnl_BA16a64b : dnnl_BA16a64b2a);
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
    /* A of the weight's gradient is dy [k, m] as it is, or transposed into rows of whole cells. */
    const bool turned = key->kind == PRODUCT_WGRAD && !key->packed;
    int64_t stride = turned ? key->m : key->k;
    if (key->kind == PRODUCT_WGRAD && key->packed)
        stride = backend.loops->transposed_row(key->k, (DType)key->type);
    Layout a = layout_matrix(key->m, key->k, stride, (DType)key->type, turned);
    Layout c = layout_matrix(key->m, key->n, key->n, (DType)key->result_type, false);
    if (!describe_matmul(&description, backend.engine, a, b, c, attributes)) description = NULL;
    layout_destroy(a);
    layout_destroy(c);
    ONEDNN(dnnl_primitive_attr_destroy(attributes));
    return description;
}

/* What oneDNN is at for a product of ordinary size; NULL when it has none. */
static const char *implementation_of(dnnl_primitive_desc_t description)
{
    const char *name = NULL;
    if (description != NULL)
        ONEDNN(dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name));
    return name;
}

/* Learns whether a type has fast products and which layout they want for B. */
static bool backend_probe(DType dtype)
{
    const ProductKey key = {256, 256, 256, PRODUCT_DGRAD, (int32_t)dtype, DTYPE_F32, 0, 0, 0};
    Layout any = layout_any(key.k, key.n, dtype), blocked = layout_blocked(key.k, key.n, dtype);
    dnnl_primitive_desc_t description = product_describe(&key, any);
    const char *name = implementation_of(description);
    const bool fast = name != NULL && strncmp(name, "ref", 3) != 0;
    if (fast) {
        LayoutView chosen = dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
        backend.blocked[dtype] = dnnl_memory_desc_equal(chosen, blocked) != 0;
    }
    if (description != NULL) ONEDNN(dnnl_primitive_desc_destroy(description));
    layout_destroy(any);
    layout_destroy(blocked);
    return fast;
}

static void backend_start(void)
{
    parallel_bind_caller();
    if (backend.engine != NULL) return;
    ONEDNN(dnnl_engine_create(&backend.engine, dnnl_cpu, 0));
    ONEDNN(dnnl_stream_create(&backend.stream, backend.engine, dnnl_stream_default_flags));
    (void)backend_probe(DTYPE_F32);
    backend.has_bf16 = backend_probe(DTYPE_BF16);
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

/* ---- operand B in a layout of its own ---- */

/* B of a product: [k, n], packed. */
typedef struct PackedOperand {
    Layout layout; /* NULL: not made yet */
    void *data;
    bool stale; /* the plain weight changed since */
} PackedOperand;

/* The number of rows for which a layout is chosen; those of other numbers were found to be the
 * same, and where one is not, the plain operand is used. */
#define NOMINAL_ROWS 256

/* The layout of B[k, n] for products of this kind. */
static Layout packed_layout(ProductKind kind, int64_t k, int64_t n, DType dtype)
{
    if (backend.blocked[dtype]) return layout_blocked(k, n, dtype);
    const ProductKey key = {NOMINAL_ROWS, n, k, kind, (int32_t)dtype, (int32_t)dtype, 0, 0, 0};
    Layout any = layout_any(k, n, dtype);
    dnnl_primitive_desc_t description = product_describe(&key, any);
    CHECK(description != NULL);
    Layout chosen = layout_clone(queried_layout(description, dnnl_query_weights_md));
    ONEDNN(dnnl_primitive_desc_destroy(description));
    layout_destroy(any);
    return chosen;
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

/* Fills the operand from w [N, K]: B = w^T for the forward product, w for the gradient of x. */
static void operand_pack(PackedOperand *operand, ProductKind kind, Tensor w)
{
    const bool forward = kind == PRODUCT_FORWARD;
    const int64_t k = w.shape[forward ? 1 : 0], n = w.shape[forward ? 0 : 1];
    if (operand->layout == NULL) {
        operand->layout = packed_layout(kind, k, n, w.dtype);
        operand->data = memory_cpu_alloc(dnnl_memory_desc_get_size(operand->layout));
    }
    if (backend.blocked[w.dtype] && forward) {
        backend.loops->pack_turned(operand->data, w);
    } else if (backend.blocked[w.dtype]) {
        backend.loops->pack_stacked(operand->data, w);
    } else {
        Layout plain = layout_matrix(k, n, w.shape[1], w.dtype, forward);
        reorder(plain, w.data, operand->layout, operand->data);
        layout_destroy(plain);
    }
    operand->stale = false;
}

static void operand_release(PackedOperand *operand)
{
    memory_cpu_free(operand->data);
    layout_destroy(operand->layout);
    *operand = (PackedOperand){0};
}

/* ---- weights ---- */

/* The copies behind Weight.packed. That for dgrad is made by the first dgrad after a
 * weight_prepare: a process that only runs forward never pays for it. */
typedef struct PackedWeight {
    Tensor wide; /* the weight in f32 where the machine has no bf16 products, else no data */
    PackedOperand forward, dgrad;
} PackedWeight;

static void weight_check(const Weight *weight)
{
    CHECK(weight->plain.rank == 2 && weight->plain.shape[0] > 0 && weight->plain.shape[1] > 0);
    CHECK(weight->plain.dtype == DTYPE_F32 || weight->plain.dtype == DTYPE_BF16);
}

static bool needs_wide(DType dtype)
{
    return dtype == DTYPE_BF16 && !backend.has_bf16;
}

/* The weight as products read it: `plain`, or its f32 copy. */
static Tensor weight_operand(const Weight *weight)
{
    const PackedWeight *packed = weight->packed;
    return packed != NULL && packed->wide.data != NULL ? packed->wide : weight->plain;
}

void onednn_weight_prepare(Weight *weight)
{
    weight_check(weight);
    backend_start();
    if (weight->packed == NULL) weight->packed = mem_calloc(1, sizeof(PackedWeight));
    PackedWeight *packed = weight->packed;
    if (needs_wide(weight->plain.dtype)) {
        packed->wide = (Tensor){.data = packed->wide.data,
                                .dtype = DTYPE_F32,
                                .rank = 2,
                                .shape = {weight->plain.shape[0], weight->plain.shape[1]}};
        if (packed->wide.data == NULL)
            packed->wide.data = memory_cpu_alloc(tensor_bytes(&packed->wide));
        backend.loops->cast(packed->wide, weight->plain);
    }
    operand_pack(&packed->forward, PRODUCT_FORWARD, weight_operand(weight));
    packed->dgrad.stale = true;
}

void onednn_weight_release(Weight *weight)
{
    PackedWeight *packed = weight->packed;
    if (packed == NULL) return;
    memory_cpu_free(packed->wide.data);
    operand_release(&packed->forward);
    operand_release(&packed->dgrad);
    free(packed);
    weight->packed = NULL;
}

/* ---- operands without bf16 products ---- */

static Tensor widened(Tensor x, ScratchUse use)
{
    if (!needs_wide(x.dtype)) return x;
    Tensor wide = x;
    wide.dtype = DTYPE_F32;
    wide.data = scratch_take(use, tensor_bytes(&wide));
    backend.loops->cast(wide, x);
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

/* ---- the three products ---- */

/* y = x B with B = w^T (forward) or w; both have passed the checks. */
static void weight_product(ProductKind kind, Tensor y, Tensor x, const Weight *w)
{
    PackedWeight *packed = w->packed;
    const bool forward = kind == PRODUCT_FORWARD;
    const Tensor operand = widened(weight_operand(w), SCRATCH_OPERAND_B);
    x = widened(x, SCRATCH_OPERAND_A);
    const Tensor result = result_for(y, x.dtype);
    ProductKey key = {.m = x.shape[0],
                      .n = y.shape[1],
                      .k = x.shape[1],
                      .kind = (int32_t)kind,
                      .type = (int32_t)x.dtype,
                      .result_type = (int32_t)result.dtype,
                      .packed = packed != NULL,
                      .threads = parallel_threads()};
    Product *product = NULL;
    const void *b = NULL;
    if (packed != NULL) {
        PackedOperand *form = forward ? &packed->forward : &packed->dgrad;
        if (form->stale) operand_pack(form, kind, operand);
        product = product_find(&key, form->layout);
        b = form->data;
    }
    if (product == NULL) {
        Layout plain = layout_matrix(key.k, key.n, operand.shape[1], operand.dtype, forward);
        key.packed = 0;
        product = product_find(&key, plain);
        layout_destroy(plain);
        b = operand.data;
    }
    CHECK(product != NULL);
    product_run(product, x.data, b, result.data);
    if (result.data != y.data) backend.loops->cast(y, result);
}

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
    backend_start();
    if (x.shape[0] > 0) weight_product(PRODUCT_FORWARD, y, x, w);
}

void onednn_matmul_dgrad(Tensor dx, Tensor dy, const Weight *w)
{
    operands_check(&dx, &dy, w, false);
    backend_start();
    if (dy.shape[0] > 0) weight_product(PRODUCT_DGRAD, dx, dy, w);
}

/* dw [N, K] += dy^T x: A = dy^T, B = x. Both are put into the layouts the kernels read fastest,
 * which costs one pass over each and saves a tenth of the product. */
void onednn_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x)
{
    CHECK(dw.rank == 2 && dy.rank == 2 && x.rank == 2 && dw.dtype == DTYPE_F32);
    CHECK(dy.dtype == x.dtype && (x.dtype == DTYPE_F32 || x.dtype == DTYPE_BF16));
    CHECK(dy.shape[0] == x.shape[0] && dw.shape[0] == dy.shape[1] && dw.shape[1] == x.shape[1]);
    backend_start();
    if (x.shape[0] == 0) return;
    dy = widened(dy, SCRATCH_OPERAND_A);
    x = widened(x, SCRATCH_OPERAND_B);
    const ProductKey key = {.m = dw.shape[0],
                            .n = dw.shape[1],
                            .k = x.shape[0],
                            .kind = PRODUCT_WGRAD,
                            .type = (int32_t)x.dtype,
                            .result_type = DTYPE_F32,
                            .packed = backend.blocked[x.dtype],
                            .threads = parallel_threads()};
    const void *a = dy.data, *b = x.data;
    Layout layout = NULL;
    if (key.packed) {
        const int64_t row = backend.loops->transposed_row(key.k, x.dtype);
        void *turned = scratch_take(SCRATCH_TURNED, (size_t)(key.m * row) * dtype_size(x.dtype));
        layout = layout_blocked(key.k, key.n, x.dtype);
        void *stacked = scratch_take(SCRATCH_STACKED, dnnl_memory_desc_get_size(layout));
        backend.loops->transpose(turned, dy);
        backend.loops->pack_stacked(stacked, x);
        a = turned;
        b = stacked;
    } else {
        layout = layout_matrix(key.k, key.n, key.n, x.dtype, false);
    }
    Product *product = product_find(&key, layout);
    layout_destroy(layout);
    CHECK(product != NULL);
    product_run(product, a, b, dw.data);
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

void onednn_use_loops(const OnednnLoops *loops)
{
    backend.loops = loops;
}
