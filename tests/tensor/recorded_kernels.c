#include "recorded_kernels.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static const KernelTable *inner;
static RecordedFault fault;
static _Atomic int64_t kernels, uploads, downloads, waits, graphs, launches, launched, graphs_left;
static _Atomic int64_t uploaded, downloaded, copied;

/* A kernel with its arguments, which `run` knows. */
typedef struct Call {
    void (*run)(const void *arguments);
    struct Call *next;
    _Alignas(16) char arguments[];
} Call;

struct DeviceGraph {
    Call *first, **last;
    int64_t count;
};

static _Thread_local DeviceGraph *recording;

/* Keeps the call, or makes it. */
static void put(void (*run)(const void *), const void *arguments, size_t bytes)
{
    if (recording == NULL) {
        kernels++;
        run(arguments);
        return;
    }
    Call *call = mem_alloc(sizeof *call + bytes);
    *call = (Call){.run = run};
    memcpy(call->arguments, arguments, bytes);
    *recording->last = call;
    recording->last = &call->next;
    recording->count++;
}

static void not_recording(const char *what)
{
    CHECKF(recording == NULL, "%s was called while kernels are recorded", what);
}

/* ---- graphs ---- */

static bool begin_graph(char *text, size_t size)
{
    not_recording("begin");
    if (fault == FAILS_TO_BEGIN) {
        snprintf(text, size, "it does not begin");
        return false;
    }
    recording = mem_calloc(1, sizeof *recording);
    recording->last = &recording->first;
    return true;
}

static void destroy_graph(DeviceGraph *graph)
{
    if (graph == NULL) return;
    for (Call *call; (call = graph->first) != NULL;) {
        graph->first = call->next;
        free(call);
    }
    free(graph);
    graphs_left--;
}

static DeviceGraph *end_graph(char *text, size_t size)
{
    DeviceGraph *graph = recording;
    CHECK(graph != NULL);
    recording = NULL;
    graphs_left++;
    if (fault == FAILS_TO_END) {
        snprintf(text, size, "it does not end");
        destroy_graph(graph);
        return NULL;
    }
    graphs++;
    return graph;
}

static void launch_graph(DeviceGraph *graph)
{
    not_recording("launch");
    launches++;
    launched += graph->count;
    for (const Call *call = graph->first; call != NULL; call = call->next)
        call->run(call->arguments);
}

/* ---- memory ---- */

static void *alloc(size_t bytes)
{
    not_recording("alloc");
    return inner->alloc(bytes);
}

static void free_block(void *memory)
{
    not_recording("free");
    inner->free(memory);
}

static void upload(void *to, const void *host_from, size_t bytes)
{
    not_recording("upload");
    uploads++;
    uploaded += (int64_t)bytes;
    inner->upload(to, host_from, bytes);
}

static void download(void *host_to, const void *from, size_t bytes)
{
    not_recording("download");
    downloads++;
    downloaded += (int64_t)bytes;
    inner->download(host_to, from, bytes);
}

static void synchronize(void)
{
    not_recording("synchronize");
    waits++;
    inner->synchronize();
}

/* ---- kernels ---- */

/* A kernel `name` whose arguments are `fields`, of which `a` points to one set. */
#define KERNEL(name, fields, parameters, call, ...)                                                \
    typedef struct name##_arguments {                                                              \
        fields                                                                                     \
    } name##_arguments;                                                                            \
    static void run_##name(const void *arguments)                                                  \
    {                                                                                              \
        const name##_arguments *a = arguments;                                                     \
        inner->name call;                                                                          \
    }                                                                                              \
    static void name parameters                                                                    \
    {                                                                                              \
        const name##_arguments arguments = {__VA_ARGS__};                                          \
        put(run_##name, &arguments, sizeof arguments);                                             \
    }

/* clang-format off */
KERNEL(fill_zero, Tensor y;, (Tensor y), (a->y), y)
KERNEL(embedding, Tensor y; Tensor table; const int32_t *token; int32_t vocab_first;,
       (Tensor y, Tensor table, const int32_t *token, int32_t vocab_first),
       (a->y, a->table, a->token, a->vocab_first), y, table, token, vocab_first)
KERNEL(add, Tensor y; Tensor left; Tensor right;, (Tensor y, Tensor left, Tensor right),
       (a->y, a->left, a->right), y, left, right)
KERNEL(rmsnorm, Tensor y; float *rstd; Tensor x; Tensor w; float eps;,
       (Tensor y, float *rstd, Tensor x, Tensor w, float eps),
       (a->y, a->rstd, a->x, a->w, a->eps), y, rstd, x, w, eps)
KERNEL(add_rmsnorm,
       Tensor sum; Tensor y; float *rstd; Tensor left; Tensor right; Tensor w; float eps;,
       (Tensor sum, Tensor y, float *rstd, Tensor left, Tensor right, Tensor w, float eps),
       (a->sum, a->y, a->rstd, a->left, a->right, a->w, a->eps), sum, y, rstd, left, right, w, eps)
KERNEL(swiglu, Tensor y; Tensor gate_up;, (Tensor y, Tensor gate_up), (a->y, a->gate_up), y,
       gate_up)
KERNEL(gather_rows, Tensor y; Tensor x; const int32_t *row;,
       (Tensor y, Tensor x, const int32_t *row),
       (a->y, a->x, a->row), y, x, row)
KERNEL(divide_rows, Tensor y; const float *divisor;, (Tensor y, const float *divisor),
       (a->y, a->divisor), y, divisor)
KERNEL(cross_entropy_stats,
       RowStats stats; Tensor logits; const int32_t *target; int32_t vocab_first;,
       (const RowStats *stats, Tensor logits, const int32_t *target, int32_t vocab_first),
       (&a->stats, a->logits, a->target, a->vocab_first), *stats, logits, target, vocab_first)
KERNEL(cross_entropy_join,
       RowSummary summary; RowStats stats; int num_shards; int64_t shard_stride; int64_t rows;,
       (const RowSummary *summary, const RowStats *stats, int num_shards, int64_t shard_stride,
        int64_t rows),
       (&a->summary, &a->stats, a->num_shards, a->shard_stride, a->rows),
       *summary, *stats, num_shards, shard_stride, rows)
KERNEL(softmax_segments, float *sum; Tensor logits; const float *max;,
       (float *sum, Tensor logits, const float *max), (a->sum, a->logits, a->max), sum, logits, max)
KERNEL(softmax_draw, SoftmaxDraw draw; Tensor logits;, (const SoftmaxDraw *draw, Tensor logits),
       (&a->draw, a->logits), *draw, logits)
KERNEL(softmax_bins, double *mass; int32_t *count; Tensor logits; const float *max;,
       (double *mass, int32_t *count, Tensor logits, const float *max),
       (a->mass, a->count, a->logits, a->max), mass, count, logits, max)
KERNEL(softmax_collect, SoftmaxCandidates to; Tensor logits; const float *max;,
       (const SoftmaxCandidates *to, Tensor logits, const float *max),
       (&a->to, a->logits, a->max), *to, logits, max)
KERNEL(softmax_find, int32_t *column; Tensor logits; const float *max; const SoftmaxPlace *place;,
       (int32_t *column, Tensor logits, const float *max, const SoftmaxPlace *place),
       (a->column, a->logits, a->max, a->place), column, logits, max, place)
KERNEL(change_logits, Tensor logits; LogitChange *change; const int32_t *first;,
       (Tensor logits, LogitChange *change, const int32_t *first),
       (a->logits, a->change, a->first), logits, change, first)
KERNEL(restore_logits, Tensor logits; const LogitChange *change; const int32_t *first;,
       (Tensor logits, const LogitChange *change, const int32_t *first),
       (a->logits, a->change, a->first), logits, change, first)
KERNEL(pick_columns, float *y; Tensor x; const int32_t *column;,
       (float *y, Tensor x, const int32_t *column), (a->y, a->x, a->column), y, x, column)
/* clang-format on */

typedef struct CopyArguments {
    void *to;
    const void *from;
    size_t bytes;
} CopyArguments;

static void run_copy(const void *arguments)
{
    const CopyArguments *a = arguments;
    inner->copy(a->to, a->from, a->bytes);
}

static void copy(void *to, const void *from, size_t bytes)
{
    const CopyArguments arguments = {to, from, bytes};
    if (recording == NULL) copied += (int64_t)bytes;
    put(run_copy, &arguments, sizeof arguments);
}

/* A GPU has the address of the matrix itself in its graph, not that of the Weight. */
typedef struct MatmulArguments {
    Tensor y, x;
    const Weight *w;
    const void *matrix;
} MatmulArguments;

static void run_matmul(const void *arguments)
{
    const MatmulArguments *a = arguments;
    CHECKF(a->w->plain.data == a->matrix, "a recorded product's matrix lies elsewhere by now");
    inner->matmul(a->y, a->x, a->w);
}

static void matmul(Tensor y, Tensor x, const Weight *w)
{
    const MatmulArguments arguments = {y, x, w, w->plain.data};
    put(run_matmul, &arguments, sizeof arguments);
}

/* Launches of a graph are laid out by the host's arrays as they were when it was recorded. */
typedef struct Rows {
    AttentionShape shape;
    SequenceTable sequences; /* without the host's arrays, which are the caller's */
    KvPages pages;
    int longest; /* rows of a sequence */
} Rows;

static Rows rows_of(const AttentionShape *shape, const SequenceTable *sequences,
                    const KvPages *pages)
{
    CHECK(pages != NULL); /* nobody generates without */
    Rows rows = {.shape = *shape, .sequences = *sequences, .pages = *pages};
    rows.sequences.host_cu_seqlens = rows.sequences.host_first_position = NULL;
    for (int i = 0; i < sequences->num_sequences; i++) {
        int length = sequences->host_cu_seqlens[i + 1] - sequences->host_cu_seqlens[i];
        if (length > rows.longest) rows.longest = length;
    }
    return rows;
}

static void check_rows(const Rows *rows)
{
    int n = rows->sequences.num_sequences;
    int32_t *starts = mem_calloc((size_t)n + 1, sizeof *starts);
    inner->download(starts, rows->sequences.cu_seqlens, ((size_t)n + 1) * sizeof *starts);
    for (int i = 0; i < n; i++)
        CHECKF(starts[i + 1] >= starts[i] && starts[i + 1] - starts[i] <= rows->longest,
               "sequence %d has %d rows, and the launch was laid out for %d", i,
               starts[i + 1] - starts[i], rows->longest);
    free(starts);
}

typedef struct StoreArguments {
    Tensor qkv;
    HeadRope rope;
    Rows rows;
} StoreArguments;

static void run_store(const void *arguments)
{
    const StoreArguments *a = arguments;
    inner->qk_norm_rope_store(a->qkv, &a->rope, &a->rows.shape, &a->rows.sequences, &a->rows.pages);
}

static void qk_norm_rope_store(Tensor qkv, const HeadRope *rope, const AttentionShape *shape,
                               const SequenceTable *sequences, const KvPages *pages)
{
    const StoreArguments arguments = {qkv, *rope, rows_of(shape, sequences, pages)};
    put(run_store, &arguments, sizeof arguments);
}

typedef struct AttentionArguments {
    void *out;
    DType dtype;
    const void *q, *k, *v;
    Rows rows;
} AttentionArguments;

static void run_attention(const void *arguments)
{
    const AttentionArguments *a = arguments;
    check_rows(&a->rows);
    inner->attention(a->out, NULL, a->dtype, a->q, a->k, a->v, &a->rows.shape, &a->rows.sequences,
                     &a->rows.pages);
}

static void attention(void *out, float *lse, DType dtype, const void *q, const void *k,
                      const void *v, const AttentionShape *shape, const SequenceTable *sequences,
                      const KvPages *pages)
{
    if (pages == NULL || lse != NULL) { /* training */
        not_recording("attention without pages");
        inner->attention(out, lse, dtype, q, k, v, shape, sequences, pages);
        return;
    }
    const AttentionArguments arguments = {out, dtype, q, k, v, rows_of(shape, sequences, pages)};
    put(run_attention, &arguments, sizeof arguments);
}

/* ---- the table ---- */

const KernelTable *recorded_kernels(const KernelTable *of)
{
    static const DeviceGraphs GRAPHS = {sizeof(DeviceGraphs), begin_graph, end_graph, launch_graph,
                                        destroy_graph};
    static KernelTable table;
    inner = of;
    table = *inner;
    table.alloc = alloc;
    table.free = free_block;
    table.upload = upload;
    table.download = download;
    table.copy = copy;
    table.synchronize = synchronize;
    table.fill_zero = fill_zero;
    table.matmul = matmul;
    table.embedding = embedding;
    table.add = add;
    table.rmsnorm = rmsnorm;
    table.add_rmsnorm = add_rmsnorm;
    table.qk_norm_rope_store = qk_norm_rope_store;
    table.swiglu = swiglu;
    table.attention = attention;
    table.gather_rows = gather_rows;
    table.divide_rows = divide_rows;
    table.cross_entropy_stats = cross_entropy_stats;
    table.cross_entropy_join = cross_entropy_join;
    table.softmax_segments = softmax_segments;
    table.softmax_draw = softmax_draw;
    table.softmax_bins = softmax_bins;
    table.softmax_collect = softmax_collect;
    table.softmax_find = softmax_find;
    table.change_logits = change_logits;
    table.restore_logits = restore_logits;
    table.pick_columns = pick_columns;
    table.graphs = &GRAPHS;
    return &table;
}

RecordedCounts recorded_counts(void)
{
    return (RecordedCounts){
        .kernels = kernels,
        .uploads = uploads,
        .downloads = downloads,
        .waits = waits,
        .graphs = graphs,
        .launches = launches,
        .launched = launched,
        .graphs_left = graphs_left,
        .uploaded = uploaded,
        .downloaded = downloaded,
        .copied = copied,
    };
}

void recorded_fail(RecordedFault chosen)
{
    fault = chosen;
}
