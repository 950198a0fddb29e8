#include "tensor/cpu/onednn.h"

#include <dnnl.h>
#include <pthread.h>
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

/* What all threads share: const once started. */
static struct {
    dnnl_engine_t engine;
    bool fast[DTYPE_COUNT];    /* products of this type are oneDNN's, else those of gemm.c */
    bool blocked[DTYPE_COUNT]; /* the layout of pack.c is what oneDNN would choose for B */
    const MatrixLoops *loops;
    pthread_key_t end_of_thread;
} backend;

/* A calling thread's own: a product holds the addresses of the call that uses it. */
typedef struct Products {
    dnnl_stream_t stream;
    uint64_t clock;
    Product cache[CACHE_SETS][CACHE_WAYS];
} Products;

static _Thread_local Products *products;

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

/* The elements of a row of cpu_transpose's result. */
static int64_t transposed_row(int64_t rows, DType dtype)
{
    return backend.loops->packed_depth(rows, dtype == DTYPE_BF16) * (dtype == DTYPE_BF16 ? 2 : 1);
}

static bool is_row_invariant(dnnl_primitive_desc_t description)
{
    const char *name = NULL;
    ONEDNN(dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name));
    return strncmp(name, "brg", 3) == 0;
}

/* NULL when oneDNN has no such product that is row-invariant. */
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
        stride = transposed_row(key->k, (DType)key->type);
    Layout a = layout_matrix(key->m, key->k, stride, (DType)key->type, turned);
    Layout c = layout_matrix(key->m, key->n, key->n, (DType)key->result_type, false);
    if (!describe_matmul(&description, backend.engine, a, b, c, attributes)) description = NULL;
    if (description != NULL && !is_row_invariant(description)) {
        ONEDNN(dnnl_primitive_desc_destroy(description));
        description = NULL;
    }
    layout_destroy(a);
    layout_destroy(c);
    ONEDNN(dnnl_primitive_attr_destroy(attributes));
    return description;
}

/* Learns whether oneDNN's products of a type can be used and which layout they want for B. */
static void backend_probe(DType dtype)
{
    const ProductKey key = {256, 256, 256, PRODUCT_DGRAD, (int32_t)dtype, DTYPE_F32, 0, 0, 0};
    Layout any = layout_any(key.k, key.n, dtype), blocked = layout_blocked(key.k, key.n, dtype);
    dnnl_primitive_desc_t description = product_describe(&key, any);
    if (description != NULL) {
        LayoutView chosen = dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
        backend.fast[dtype] = true;
        backend.blocked[dtype] = dnnl_memory_desc_equal(chosen, blocked) != 0;
        ONEDNN(dnnl_primitive_desc_destroy(description));
    }
    layout_destroy(any);
    layout_destroy(blocked);
}

static void products_destroy(void *argument);

static void backend_start_once(void)
{
    /* Telling profilers of every kernel that is made takes longer than much of a short run. */
    if (getenv("ONEDNN_JIT_PROFILE") == NULL && getenv("DNNL_JIT_PROFILE") == NULL)
        (void)dnnl_set_jit_profiling_flags(DNNL_JIT_PROFILE_NONE);
    ONEDNN(dnnl_engine_create(&backend.engine, dnnl_cpu, 0));
    CHECK(pthread_key_create(&backend.end_of_thread, products_destroy) == 0);
    backend_probe(DTYPE_F32);
    backend_probe(DTYPE_BF16);
}

static void backend_start(void)
{
    static pthread_once_t started = PTHREAD_ONCE_INIT;
    parallel_bind_caller();
    if (products != NULL) return;
    CHECK(pthread_once(&started, backend_start_once) == 0);
    products = mem_calloc(1, sizeof *products);
    ONEDNN(dnnl_stream_create(&products->stream, backend.engine, dnnl_stream_default_flags));
    CHECK(pthread_setspecific(backend.end_of_thread, products) == 0);
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

static void products_destroy(void *argument)
{
    Products *mine = argument;
    for (int i = 0; i < CACHE_SETS * CACHE_WAYS; i++)
        product_destroy(&mine->cache[i / CACHE_WAYS][i % CACHE_WAYS]);
    ONEDNN(dnnl_stream_destroy(mine->stream));
    free(mine);
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
    Product *set = products->cache[key_hash(key) % CACHE_SETS], *oldest = &set[0];
    for (int i = 0; i < CACHE_WAYS; i++) {
        if (set[i].primitive != NULL && memcmp(&set[i].key, key, sizeof *key) == 0) {
            set[i].last_used = ++products->clock;
            return &set[i];
        }
        if (set[i].last_used < oldest->last_used) oldest = &set[i];
    }
    if (!product_create(oldest, key, b)) return NULL;
    oldest->last_used = ++products->clock;
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
    ONEDNN(dnnl_primitive_execute(product->primitive, products->stream, 4, arguments));
    ONEDNN(dnnl_stream_wait(products->stream));
}

/* ---- operand B in a layout of its own ---- */

/* B of a product: [k, n], packed. */
typedef struct PackedOperand {
    void *data;    /* NULL: not made yet */
    Layout layout; /* NULL: the f32 blocks of gemm.c */
    bool stale;    /* the plain weight changed since */
    int64_t chunk; /* of sums, for few rows (below); 0: those are oneDNN's too */
} PackedOperand;

/* The number of rows for which a layout is chosen; those of other numbers were found to be the
 * same, and where one is not, the plain operand is used. */
#define NOMINAL_ROWS 256

/* The layout of B[k, n] for products of this kind, or NULL for that of gemm.c. */
static Layout packed_layout(ProductKind kind, int64_t k, int64_t n, DType dtype)
{
    if (!backend.fast[dtype]) return NULL;
    if (backend.blocked[dtype]) return layout_blocked(k, n, dtype);
    const ProductKey key = {
        NOMINAL_ROWS, n, k, (int32_t)kind, (int32_t)dtype, (int32_t)dtype, 0, 0, 0};
    Layout any = layout_any(k, n, dtype), chosen = NULL;
    dnnl_primitive_desc_t description = product_describe(&key, any);
    if (description != NULL) {
        chosen = layout_clone(queried_layout(description, dnnl_query_weights_md));
        ONEDNN(dnnl_primitive_desc_destroy(description));
    }
    layout_destroy(any);
    return chosen;
}

static size_t f32_blocks_bytes(int64_t k, int64_t n)
{
    return (size_t)(backend.loops->packed_depth(k, false) * ((n + 63) / 64) * 64) * sizeof(float);
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
    ONEDNN(dnnl_primitive_execute(primitive, products->stream, 2, arguments));
    ONEDNN(dnnl_stream_wait(products->stream));
    ONEDNN(dnnl_memory_destroy(source));
    ONEDNN(dnnl_memory_destroy(destination));
    ONEDNN(dnnl_primitive_destroy(primitive));
    ONEDNN(dnnl_primitive_desc_destroy(description));
}

/* B = w^T for the forward product, w for the gradient of x; w is [N, K]. */
static void pack_weight(void *to, ProductKind kind, Tensor w, bool pairs)
{
    if (kind == PRODUCT_FORWARD)
        backend.loops->pack_turned(to, w, pairs);
    else
        backend.loops->pack_stacked(to, w, pairs);
}

static void operand_pack(PackedOperand *operand, ProductKind kind, Tensor w)
{
    const bool forward = kind == PRODUCT_FORWARD;
    const int64_t k = w.shape[forward ? 1 : 0], n = w.shape[forward ? 0 : 1];
    if (operand->data == NULL) {
        operand->layout = packed_layout(kind, k, n, w.dtype);
        operand->data =
            memory_cpu_alloc(operand->layout == NULL ? f32_blocks_bytes(k, n)
                                                     : dnnl_memory_desc_get_size(operand->layout));
    }
    if (operand->layout == NULL) {
        pack_weight(operand->data, kind, w, false);
    } else if (backend.blocked[w.dtype]) {
        pack_weight(operand->data, kind, w, w.dtype == DTYPE_BF16);
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

/* ---- a weight ---- */

/* The copies behind Weight.packed. That for dgrad is made by the first dgrad after a
 * weight_prepare: a process that only runs forward never pays for it. */
typedef struct PackedWeight {
    PackedOperand forward, dgrad;
} PackedWeight;

/* ---- few rows ---- */

/* oneDNN's kernels read a weight at half the speed of memory when there are few rows. few_rows.c
 * does these, where it gives the same bits as oneDNN does for many. */
#define FEW_ROWS 8

/* What was found for products of a depth. */
typedef struct FewRowsFound {
    int64_t k, chunk;
    DType dtype;
} FewRowsFound;

#define FOUND_MAX 64
static pthread_mutex_t found_mutex = PTHREAD_MUTEX_INITIALIZER;
static FewRowsFound found[FOUND_MAX];
static int num_found;

/* Numbers whose sums round differently in every order. */
static void fill_uneven(Tensor tensor, uint32_t key)
{
    for (int64_t i = 0; i < tensor.shape[0] * tensor.shape[1]; i++) {
        key = key * 1664525u + 1013904223u;
        const float value = (float)(int32_t)key * 0x1p-31f;
        if (tensor.dtype == DTYPE_F32)
            ((float *)tensor.data)[i] = value;
        else
            ((uint16_t *)tensor.data)[i] = bf16_from_f32(value);
    }
}

static void weight_product(ProductKind kind, Tensor y, Tensor x, const Weight *w);

/* Compares with a product of many rows by oneDNN. Chunks of 1024 and 512 elements and whole rows
 * are what its releases use. */
static int64_t find_chunk(int64_t k, DType dtype)
{
    enum { ROWS = 2 * FEW_ROWS + 1, COLUMNS = 128 };
    static const int64_t elements[] = {0, 512, 1024, 256, 2048};
    const int64_t size = (int64_t)dtype_size(dtype), cell = dtype == DTYPE_BF16 ? 2 : 1;
    Tensor x = tensor_2d(mem_alloc((size_t)(ROWS * k * size)), dtype, ROWS, k);
    Tensor w = tensor_2d(mem_alloc((size_t)(COLUMNS * k * size)), dtype, COLUMNS, k);
    Tensor y = tensor_2d(mem_alloc(ROWS * COLUMNS * sizeof(float)), DTYPE_F32, ROWS, COLUMNS);
    Tensor few =
        tensor_2d(mem_alloc(FEW_ROWS * COLUMNS * sizeof(float)), DTYPE_F32, FEW_ROWS, COLUMNS);
    PackedWeight packed = {0};
    const Weight weight = {.plain = w, .packed = &packed};
    int64_t chunk = 0;
    fill_uneven(x, 1);
    fill_uneven(w, 2);
    operand_pack(&packed.forward, PRODUCT_FORWARD, w);
    weight_product(PRODUCT_FORWARD, y, x, &weight);
    x.shape[0] = FEW_ROWS;
    for (size_t i = 0; i < sizeof elements / sizeof *elements && chunk == 0; i++) {
        const int64_t tried = (elements[i] == 0 ? k : elements[i]) / cell;
        const FewRowsCall call = {.y = few, .x = x, .b = packed.forward.data, .chunk = tried};
        if (tried == 0 || !backend.loops->few_rows(&call)) continue;
        if (memcmp(few.data, y.data, tensor_bytes(&few)) == 0) chunk = tried;
    }
    operand_release(&packed.forward);
    free(x.data);
    free(w.data);
    free(y.data);
    free(few.data);
    return chunk;
}

/* The chunk of sums over a depth, or 0. Found out once. */
static int64_t chunk_of(int64_t k, DType dtype)
{
    int64_t chunk = -1;
    if (!backend.fast[dtype] || !backend.blocked[dtype]) return 0;
    pthread_mutex_lock(&found_mutex);
    for (int i = 0; i < num_found; i++)
        if (found[i].k == k && found[i].dtype == dtype) chunk = found[i].chunk;
    if (chunk < 0) {
        chunk = find_chunk(k, dtype);
        if (num_found < FOUND_MAX) found[num_found++] = (FewRowsFound){k, chunk, dtype};
    }
    pthread_mutex_unlock(&found_mutex);
    return chunk;
}

/* ---- weights ---- */

static void weight_check(const Weight *weight)
{
    CHECK(weight->plain.rank == 2 && weight->plain.shape[0] > 0 && weight->plain.shape[1] > 0);
    CHECK(weight->plain.dtype == DTYPE_F32 || weight->plain.dtype == DTYPE_BF16);
}

void onednn_weight_prepare(Weight *weight)
{
    weight_check(weight);
    backend_start();
    if (weight->packed == NULL) weight->packed = mem_calloc(1, sizeof(PackedWeight));
    PackedWeight *packed = weight->packed;
    operand_pack(&packed->forward, PRODUCT_FORWARD, weight->plain);
    packed->forward.chunk = chunk_of(weight->plain.shape[1], weight->plain.dtype);
    packed->dgrad.stale = true;
}

void onednn_weight_release(Weight *weight)
{
    PackedWeight *packed = weight->packed;
    if (packed == NULL) return;
    operand_release(&packed->forward);
    operand_release(&packed->dgrad);
    free(packed);
    weight->packed = NULL;
}

/* ---- the three products ---- */

/* y = x B by gemm.c. `operand` may be NULL or packed for oneDNN; then B is packed for this call. */
static void weight_product_loops(ProductKind kind, Tensor y, Tensor x, const Weight *w,
                                 const PackedOperand *operand)
{
    GemmCall call = {.c = y, .a = x, .b_depth = backend.loops->packed_depth(x.shape[1], false)};
    if (operand != NULL && operand->layout == NULL) {
        call.b = operand->data;
    } else {
        void *b = scratch_take(SCRATCH_OPERAND, f32_blocks_bytes(x.shape[1], y.shape[1]));
        pack_weight(b, kind, w->plain, false);
        call.b = b;
    }
    backend.loops->gemm(&call);
}

/* y = x B with B = w^T (forward) or w. */
static void weight_product(ProductKind kind, Tensor y, Tensor x, const Weight *w)
{
    PackedWeight *packed = w->packed;
    const bool forward = kind == PRODUCT_FORWARD;
    PackedOperand *operand = packed == NULL ? NULL : forward ? &packed->forward : &packed->dgrad;
    if (operand != NULL && operand->stale) operand_pack(operand, kind, w->plain);
    if (operand != NULL && operand->chunk > 0 && x.shape[0] <= FEW_ROWS) {
        const FewRowsCall call = {y, x, operand->data, operand->chunk};
        if (backend.loops->few_rows(&call)) return;
    }
    ProductKey key = {.m = x.shape[0],
                      .n = y.shape[1],
                      .k = x.shape[1],
                      .kind = (int32_t)kind,
                      .type = (int32_t)x.dtype,
                      .result_type = (int32_t)y.dtype,
                      .packed = 1,
                      .threads = parallel_threads()};
    Product *product = NULL;
    if (operand != NULL && operand->layout != NULL) product = product_find(&key, operand->layout);
    if (product != NULL) {
        product_run(product, x.data, operand->data, y.data);
        return;
    }
    if (backend.fast[x.dtype]) {
        Layout plain = layout_matrix(key.k, key.n, w->plain.shape[1], x.dtype, forward);
        key.packed = 0;
        product = product_find(&key, plain);
        layout_destroy(plain);
    }
    if (product != NULL)
        product_run(product, x.data, w->plain.data, y.data);
    else
        weight_product_loops(kind, y, x, w, operand);
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

/* dw = dw + A B, A = dy^T and B = x, by oneDNN; false when it cannot. Where its layout is ours both
 * operands are packed: that costs a pass over each and saves a tenth of the product. Their padding
 * is then part of the product, which adds nothing but zeros and makes every number of rows one
 * that oneDNN has a fast product for. */
static bool wgrad_onednn(Tensor dw, Tensor dy, Tensor x)
{
    const DType dtype = x.dtype;
    const bool packed = backend.blocked[dtype];
    const ProductKey key = {.m = dw.shape[0],
                            .n = dw.shape[1],
                            .k = packed ? transposed_row(x.shape[0], dtype) : x.shape[0],
                            .kind = PRODUCT_WGRAD,
                            .type = (int32_t)dtype,
                            .result_type = DTYPE_F32,
                            .packed = packed,
                            .threads = parallel_threads()};
    Layout layout = key.packed ? layout_blocked(key.k, key.n, dtype)
                               : layout_matrix(key.k, key.n, key.n, dtype, false);
    const size_t b_bytes = dnnl_memory_desc_get_size(layout);
    Product *product = product_find(&key, layout);
    layout_destroy(layout);
    if (product == NULL) return false;
    const void *a = dy.data, *b = x.data;
    if (key.packed) {
        const size_t row_bytes = (size_t)transposed_row(key.k, dtype) * dtype_size(dtype);
        void *turned = scratch_take(SCRATCH_TURNED, (size_t)key.m * row_bytes);
        void *stacked = scratch_take(SCRATCH_OPERAND, b_bytes);
        backend.loops->transpose(turned, dy);
        backend.loops->pack_stacked(stacked, x, dtype == DTYPE_BF16);
        a = turned;
        b = stacked;
    }
    product_run(product, a, b, dw.data);
    return true;
}

void onednn_matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x)
{
    CHECK(dw.rank == 2 && dy.rank == 2 && x.rank == 2 && dw.dtype == DTYPE_F32);
    CHECK(dy.dtype == x.dtype && (x.dtype == DTYPE_F32 || x.dtype == DTYPE_BF16));
    CHECK(dy.shape[0] == x.shape[0] && dw.shape[0] == dy.shape[1] && dw.shape[1] == x.shape[1]);
    backend_start();
    if (x.shape[0] == 0) return;
    if (backend.fast[x.dtype] && wgrad_onednn(dw, dy, x)) return;
    void *b = scratch_take(SCRATCH_OPERAND, f32_blocks_bytes(x.shape[0], x.shape[1]));
    backend.loops->pack_stacked(b, x, false);
    const GemmCall call = {.c = dw,
                           .a = dy,
                           .a_turned = true,
                           .accumulate = true,
                           .b = b,
                           .b_depth = backend.loops->packed_depth(x.shape[0], false)};
    backend.loops->gemm(&call);
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

bool onednn_is_fast(DType dtype)
{
    backend_start();
    return backend.fast[dtype];
}

void onednn_use_loops(const MatrixLoops *loops)
{
    backend.loops = loops;
}
