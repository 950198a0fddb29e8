#include "fenced_kernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "fenced_memory.h"

static const KernelTable *inner;

/* ---- the fence ---- */

/* What a thread has uploaded and the device has not begun with: nothing but this thread's next
 * kernel, download or wait makes it. */
typedef struct Upload {
    void *to;
    size_t bytes;
    struct Upload *next;
    char from[];
} Upload;

static _Thread_local Upload *first_upload, **last_upload;

static void open_fence(void)
{
    fenced_memory_open();
    while (first_upload != NULL) {
        Upload *upload = first_upload;
        memcpy(upload->to, upload->from, upload->bytes);
        first_upload = upload->next;
        free(upload);
    }
}

static void close_fence(void)
{
    fenced_memory_close();
}

void fenced_kernels_enter(void)
{
    open_fence();
}

void fenced_kernels_leave(void)
{
    close_fence();
}

void fenced_kernels_arrive(void)
{
    if (first_upload == NULL) return;
    open_fence();
    close_fence();
}

static void inside(const void *pointer)
{
    CHECKF(pointer == NULL || fenced_memory_holds(pointer),
           "a kernel was given memory of the host");
}

static void outside(const void *pointer)
{
    CHECKF(!fenced_memory_holds(pointer), "device memory where the host's is wanted");
}

static void tensors(Tensor a, Tensor b)
{
    inside(a.data);
    inside(b.data);
}

static void table_of(const SequenceTable *sequences)
{
    inside(sequences->cu_seqlens);
    inside(sequences->first_position);
    outside(sequences->host_cu_seqlens);
    outside(sequences->host_first_position);
}

static void pages_of(const KvPages *pages)
{
    if (pages == NULL) return;
    inside(pages->memory);
    inside(pages->page);
    inside(pages->first_page);
    inside(pages->slot);
    inside(pages->parts.memory);
}

/* ---- memory ---- */

/* Blocks end at a page, so that a step beyond is one out of them. */
static void *alloc_fenced(size_t bytes)
{
    return fenced_memory_alloc(bytes);
}

static void free_fenced(void *block)
{
    inside(block);
    fenced_memory_dispose(block);
}

static void upload(void *to, const void *host_from, size_t bytes)
{
    inside(to);
    outside(host_from);
    Upload *last = mem_alloc(sizeof *last + bytes);
    *last = (Upload){.to = to, .bytes = bytes};
    memcpy(last->from, host_from, bytes); /* the caller may change it at once */
    *(first_upload != NULL ? last_upload : &first_upload) = last;
    last_upload = &last->next;
}

static void download(void *host_to, const void *from, size_t bytes)
{
    inside(from);
    outside(host_to);
    open_fence();
    memcpy(host_to, from, bytes);
    close_fence();
}

static void copy(void *to, const void *from, size_t bytes)
{
    inside(to);
    inside(from);
    open_fence();
    memcpy(to, from, bytes);
    close_fence();
}

/* ---- kernels: what they are given is checked, then the CPU's runs inside ---- */

#define RUN(call)                                                                                  \
    do {                                                                                           \
        open_fence();                                                                              \
        inner->call;                                                                               \
        close_fence();                                                                             \
    } while (0)

/* Weights that changed since they were packed. A GPU's products read the plain matrix, so preparing
 * it makes nobody wait; the CPU's copy is made where a product asks for it, by the thread that
 * does. Behind the door. */
#define STALE_MAX 4096
static const Weight *stale[STALE_MAX];
static int num_stale;

static bool take_stale(const Weight *w)
{
    for (int i = 0; i < num_stale; i++) {
        if (stale[i] != w) continue;
        stale[i] = stale[--num_stale];
        return true;
    }
    return false;
}

static void weight_prepare(Weight *w)
{
    inside(w->plain.data);
    open_fence();
    take_stale(w);
    CHECK(num_stale < STALE_MAX);
    stale[num_stale++] = w;
    close_fence();
}

static void weight_release(Weight *w)
{
    open_fence();
    take_stale(w);
    inner->weight_release(w);
    close_fence();
}

/* Inside. */
static const Weight *fresh(const Weight *w)
{
    if (take_stale(w)) inner->weight_prepare((Weight *)w);
    return w;
}

static void matmul(Tensor y, Tensor x, const Weight *w)
{
    tensors(y, x);
    RUN(matmul(y, x, fresh(w)));
}

static void matmul_dgrad(Tensor dx, Tensor dy, const Weight *w)
{
    tensors(dx, dy);
    RUN(matmul_dgrad(dx, dy, fresh(w)));
}

static void matmul_wgrad_accumulate(Tensor dw, Tensor dy, Tensor x)
{
    tensors(dw, dy);
    inside(x.data);
    RUN(matmul_wgrad_accumulate(dw, dy, x));
}

static void embedding(Tensor y, Tensor table, const int32_t *token, int32_t vocab_first)
{
    tensors(y, table);
    inside(token);
    RUN(embedding(y, table, token, vocab_first));
}

static void embedding_backward_accumulate(Tensor dtable, Tensor dy, const int32_t *token,
                                          const int32_t *host_token, int32_t vocab_first)
{
    tensors(dtable, dy);
    inside(token);
    RUN(embedding_backward_accumulate(dtable, dy, token, host_token, vocab_first));
}

static void add(Tensor y, Tensor a, Tensor b)
{
    tensors(y, a);
    inside(b.data);
    RUN(add(y, a, b));
}

static void rmsnorm(Tensor y, float *rstd, Tensor x, Tensor w, float eps)
{
    tensors(y, x);
    inside(w.data);
    inside(rstd);
    RUN(rmsnorm(y, rstd, x, w, eps));
}

static void rmsnorm_backward(Tensor dx, bool add_to_dx, Tensor dw, Tensor dy, Tensor x, Tensor w,
                             const float *rstd)
{
    tensors(dx, dw);
    tensors(dy, x);
    inside(w.data);
    inside(rstd);
    RUN(rmsnorm_backward(dx, add_to_dx, dw, dy, x, w, rstd));
}

static void qk_norm_rope(Tensor qkv, Tensor raw_qk, int num_heads, int num_kv_heads, int head_dim,
                         const void *q_norm, const void *k_norm, float eps, const float *cos_sin,
                         const int32_t *position)
{
    tensors(qkv, raw_qk);
    inside(q_norm);
    inside(k_norm);
    inside(cos_sin);
    inside(position);
    RUN(qk_norm_rope(qkv, raw_qk, num_heads, num_kv_heads, head_dim, q_norm, k_norm, eps, cos_sin,
                     position));
}

static void qk_norm_rope_backward(Tensor dqkv, Tensor raw_qk, int num_heads, int num_kv_heads,
                                  int head_dim, const void *q_norm, const void *k_norm, float eps,
                                  float *dq_norm, float *dk_norm, const float *cos_sin,
                                  const int32_t *position)
{
    tensors(dqkv, raw_qk);
    inside(q_norm);
    inside(k_norm);
    inside(dq_norm);
    inside(dk_norm);
    inside(cos_sin);
    inside(position);
    RUN(qk_norm_rope_backward(dqkv, raw_qk, num_heads, num_kv_heads, head_dim, q_norm, k_norm, eps,
                              dq_norm, dk_norm, cos_sin, position));
}

static void swiglu(Tensor y, Tensor gate_up)
{
    tensors(y, gate_up);
    RUN(swiglu(y, gate_up));
}

static void swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up)
{
    tensors(dgate_up, dy);
    inside(gate_up.data);
    RUN(swiglu_backward(dgate_up, dy, gate_up));
}

static int64_t kv_page_bytes(DType dtype, int num_kv_heads, int head_dim)
{
    return inner->kv_page_bytes(dtype, num_kv_heads, head_dim);
}

static int64_t kv_parts_bytes(const AttentionShape *shape, int rows, int64_t positions)
{
    return inner->kv_parts_bytes(shape, rows, positions);
}

static void kv_store(const KvPages *pages, DType dtype, const void *k, const void *v,
                     const AttentionShape *shape, const SequenceTable *sequences)
{
    pages_of(pages);
    table_of(sequences);
    inside(k);
    inside(v);
    RUN(kv_store(pages, dtype, k, v, shape, sequences));
}

static void attention(void *out, float *lse, DType dtype, const void *q, const void *k,
                      const void *v, const AttentionShape *shape, const SequenceTable *sequences,
                      const KvPages *pages)
{
    const void *const pointers[] = {out, lse, q, k, v};
    for (int i = 0; i < 5; i++)
        inside(pointers[i]);
    table_of(sequences);
    pages_of(pages);
    RUN(attention(out, lse, dtype, q, k, v, shape, sequences, pages));
}

static void attention_backward(void *dq, void *dk, void *dv, DType dtype, const void *dout,
                               const void *q, const void *k, const void *v, const void *out,
                               const float *lse, const AttentionShape *shape,
                               const SequenceTable *sequences)
{
    const void *const pointers[] = {dq, dk, dv, dout, q, k, v, out, lse};
    for (int i = 0; i < 9; i++)
        inside(pointers[i]);
    table_of(sequences);
    RUN(attention_backward(dq, dk, dv, dtype, dout, q, k, v, out, lse, shape, sequences));
}

static void cross_entropy_stats(const RowStats *stats, Tensor logits, const int32_t *target,
                                int32_t vocab_first)
{
    const float *const pointers[] = {stats->max, stats->sum_exp, stats->sum_shifted,
                                     stats->target_logit, stats->arg_max};
    for (int i = 0; i < 5; i++)
        inside(pointers[i]);
    inside(logits.data);
    inside(target);
    RUN(cross_entropy_stats(stats, logits, target, vocab_first));
}

static void cross_entropy_join(const RowSummary *summary, const RowStats *stats, int num_shards,
                               int64_t shard_stride, int64_t rows)
{
    const float *const pointers[] = {summary->max,          summary->lse,     summary->entropy,
                                     summary->target_logit, summary->arg_max, stats->max};
    for (int i = 0; i < 6; i++)
        inside(pointers[i]);
    RUN(cross_entropy_join(summary, stats, num_shards, shard_stride, rows));
}

static void cross_entropy_backward(Tensor dlogits, Tensor logits, const RowSlopes *slopes,
                                   const int32_t *target, int32_t vocab_first)
{
    const float *const pointers[] = {slopes->lse, slopes->dlog_prob, slopes->entropy,
                                     slopes->dentropy};
    for (int i = 0; i < 4; i++)
        inside(pointers[i]);
    tensors(dlogits, logits);
    inside(target);
    RUN(cross_entropy_backward(dlogits, logits, slopes, target, vocab_first));
}

static void divide_rows(Tensor y, const float *divisor)
{
    inside(y.data);
    inside(divisor);
    RUN(divide_rows(y, divisor));
}

static void softmax_segments(float *sum, Tensor logits, const float *max)
{
    inside(sum);
    inside(logits.data);
    inside(max);
    RUN(softmax_segments(sum, logits, max));
}

static void softmax_bins(double *mass, int32_t *count, Tensor logits, const float *max)
{
    inside(mass);
    inside(count);
    inside(logits.data);
    inside(max);
    RUN(softmax_bins(mass, count, logits, max));
}

static void softmax_collect(const SoftmaxCandidates *to, Tensor logits, const float *max)
{
    const void *const pointers[] = {to->token, to->logit, to->first, to->last_bin, max};
    for (int i = 0; i < 5; i++)
        inside(pointers[i]);
    inside(logits.data);
    RUN(softmax_collect(to, logits, max));
}

static void softmax_find(int32_t *column, Tensor logits, const float *max,
                         const SoftmaxPlace *place)
{
    inside(column);
    inside(logits.data);
    inside(max);
    inside(place);
    RUN(softmax_find(column, logits, max, place));
}

static void change_logits(Tensor logits, LogitChange *change, const int32_t *first)
{
    inside(logits.data);
    inside(change);
    inside(first);
    RUN(change_logits(logits, change, first));
}

static void restore_logits(Tensor logits, const LogitChange *change, const int32_t *first)
{
    inside(logits.data);
    inside(change);
    inside(first);
    RUN(restore_logits(logits, change, first));
}

static void pick_columns(float *y, Tensor x, const int32_t *column)
{
    inside(y);
    inside(x.data);
    inside(column);
    RUN(pick_columns(y, x, column));
}

static void adamw(float *master, float *exp_avg, float *exp_avg_sq, const float *grad, void *weight,
                  DType weight_dtype, int64_t n, const AdamWParams *params)
{
    const void *const pointers[] = {master, exp_avg, exp_avg_sq, grad, weight};
    for (int i = 0; i < 5; i++)
        inside(pointers[i]);
    RUN(adamw(master, exp_avg, exp_avg_sq, grad, weight, weight_dtype, n, params));
}

static double sum_squares(const float *x, const ElementRange *host_range, int64_t num_ranges)
{
    inside(x);
    open_fence();
    double sum = inner->sum_squares(x, host_range, num_ranges);
    close_fence();
    return sum;
}

static void cast(Tensor y, Tensor x)
{
    tensors(y, x);
    RUN(cast(y, x));
}

static void fill_zero(Tensor y)
{
    inside(y.data);
    RUN(fill_zero(y));
}

static void copy_columns(Tensor y, Tensor x, int64_t first_column)
{
    tensors(y, x);
    RUN(copy_columns(y, x, first_column));
}

static void gather_rows(Tensor y, Tensor x, const int32_t *row)
{
    tensors(y, x);
    inside(row);
    RUN(gather_rows(y, x, row));
}

static void scatter_rows(Tensor y, Tensor x, const int32_t *row)
{
    tensors(y, x);
    inside(row);
    RUN(scatter_rows(y, x, row));
}

static void digest_pieces(uint64_t *digest, const void *x, size_t bytes)
{
    inside(digest);
    inside(x);
    RUN(digest_pieces(digest, x, bytes));
}

static void add_rmsnorm(Tensor sum, Tensor y, float *rstd, Tensor a, Tensor b, Tensor w, float eps)
{
    tensors(sum, y);
    tensors(a, b);
    inside(w.data);
    inside(rstd);
    RUN(add_rmsnorm(sum, y, rstd, a, b, w, eps));
}

static void qk_norm_rope_store(Tensor qkv, const HeadRope *rope, const AttentionShape *shape,
                               const SequenceTable *sequences, const KvPages *pages)
{
    inside(qkv.data);
    inside(rope->q_norm);
    inside(rope->k_norm);
    inside(rope->cos_sin);
    inside(rope->position);
    table_of(sequences);
    pages_of(pages);
    CHECKF(pages->slot != NULL, "no slots");
    RUN(qk_norm_rope_store(qkv, rope, shape, sequences, pages));
}

static void softmax_draw(const SoftmaxDraw *draw, Tensor logits)
{
    const void *const pointers[] = {draw->token,   draw->logit, draw->sum,
                                    draw->uniform, draw->max,   draw->arg_max};
    for (int i = 0; i < 6; i++)
        inside(pointers[i]);
    inside(logits.data);
    RUN(softmax_draw(draw, logits));
}

static void synchronize(void)
{
    open_fence();
    close_fence();
}

const KernelTable *fenced_kernels(const KernelTable *cpu, size_t bytes)
{
    static const KernelTable FENCED = {
        .name = "fenced",
        .alloc = alloc_fenced,
        .free = free_fenced,
        .upload = upload,
        .download = download,
        .copy = copy,
        .synchronize = synchronize,
        .weight_prepare = weight_prepare,
        .weight_release = weight_release,
        .matmul = matmul,
        .matmul_dgrad = matmul_dgrad,
        .matmul_wgrad_accumulate = matmul_wgrad_accumulate,
        .embedding = embedding,
        .embedding_backward_accumulate = embedding_backward_accumulate,
        .add = add,
        .rmsnorm = rmsnorm,
        .rmsnorm_backward = rmsnorm_backward,
        .qk_norm_rope = qk_norm_rope,
        .qk_norm_rope_backward = qk_norm_rope_backward,
        .swiglu = swiglu,
        .swiglu_backward = swiglu_backward,
        .kv_page_bytes = kv_page_bytes,
        .kv_store = kv_store,
        .attention = attention,
        .attention_backward = attention_backward,
        .cross_entropy_stats = cross_entropy_stats,
        .cross_entropy_join = cross_entropy_join,
        .cross_entropy_backward = cross_entropy_backward,
        .divide_rows = divide_rows,
        .softmax_segments = softmax_segments,
        .softmax_bins = softmax_bins,
        .softmax_collect = softmax_collect,
        .softmax_find = softmax_find,
        .change_logits = change_logits,
        .restore_logits = restore_logits,
        .pick_columns = pick_columns,
        .adamw = adamw,
        .sum_squares = sum_squares,
        .cast = cast,
        .fill_zero = fill_zero,
        .copy_columns = copy_columns,
        .gather_rows = gather_rows,
        .scatter_rows = scatter_rows,
        .digest_pieces = digest_pieces,
        .add_rmsnorm = add_rmsnorm,
        .qk_norm_rope_store = qk_norm_rope_store,
        .softmax_draw = softmax_draw,
        .kv_parts_bytes = kv_parts_bytes,
    };
    inner = cpu;
    fenced_memory_init(bytes);
    return &FENCED;
}
