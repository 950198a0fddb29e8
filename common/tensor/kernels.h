/* The operations a device offers: one constant table, KernelTable, filled by the CPU backend (cpu/)
 * and by the CUDA backend (cuda/, a library of its own: device.h). Above this table nothing knows
 * what it runs on.
 *
 * WHOSE MEMORY. Every pointer a kernel takes, Tensor.data included, is to device memory: what
 * `alloc` gave, and places within it. Only what is called `host_...` is ordinary memory, read
 * before the call returns. Host code touches device memory through upload, download and copy alone.
 * On the CPU (host_memory) the two are one, and any pointer will do for either. Kernels of one
 * thread run in the order of its calls, and may still run when a call has returned; download and
 * synchronize wait for all of them.
 *
 * THE ROW-INVARIANCE CONTRACT. A row of a result depends on its own row of the input (and, in
 * attention, on the earlier keys of its own sequence) and is reduced in an order fixed by the
 * reduced length alone: never by the number of rows, a tile, a chunk or a thread. So a token's
 * values are bit-identical whether it is computed alone, in a batch of 64, in one chunk or in five,
 * by one thread or by four. Results that sum over rows (weight gradients), and matmul_dgrad, which
 * no forward pass has, are reduced in an order fixed by the number of rows alone. Nothing uses
 * float atomics; sources are compiled without contraction or fast-math.
 *
 * Conventions. Row-major. M = rows (tokens), H = hidden, D = head_dim, F = intermediate, V =
 * vocabulary rows held by this rank. `x`, `y` activations are f32 or bf16 (one type per call unless
 * said otherwise); statistics, losses and all parameter gradients are f32; every accumulation is
 * f32. Gradient outputs whose names end in _accumulate are added to, all others overwritten.
 * Outputs may not overlap inputs unless said.
 *
 * Kernels do not fail: shapes and types are CHECKed. They may use the device's worker threads
 * inside. CPU: any number of threads may call them at once (ranks that live in one process, weights
 * that are prepared beside a forward pass), each with worker threads and scratch memory of its own;
 * a Weight is prepared, released, and used for dgrad by one thread at a time, and nobody else uses
 * it meanwhile. CUDA: any number of threads too, on the one device that the process has opened;
 * their kernels run one after the other in the order of all calls, so that what threads arrange
 * among themselves holds on the device as well. Rows of activations begin at 16 bytes, or at the
 * largest power of two below that divides a row's bytes. A kernel that cannot run (memory, a lost
 * device) stops the process with its name, the device and CUDA's words. docs/cuda.md says what is
 * whose and why rows stay what they are. */
#ifndef TROUPE_TENSOR_KERNELS_H
#define TROUPE_TENSOR_KERNELS_H

#include "tensor/graphs.h"
#include "tensor/tensor.h"

/* A weight matrix [N, K] (Hugging Face's [out, in]) as matmul wants it. `plain` is borrowed.
 * `packed` is the backend's own copy in whatever layout is fastest, made and refreshed by
 * weight_prepare; zero-initialise the rest and call weight_release in the end. A device without
 * host_memory keeps no copy: memory is planned so. */
typedef struct Weight {
    Tensor plain; /* [N, K], f32 or bf16 */
    void *packed;
} Weight;

/* Packed sequences: sequence i owns rows [cu_seqlens[i], cu_seqlens[i+1]) of the batch, its first
 * row stands at position first_position[i] (0 for whole sequences; more when earlier keys come from
 * a cache). The host's copies are what a launch is laid out by; on a device of host_memory nobody
 * reads them. */
typedef struct SequenceTable {
    int num_sequences;
    const int32_t *cu_seqlens;     /* [num_sequences + 1] */
    const int32_t *first_position; /* [num_sequences], or NULL: all 0 */
    const int32_t *host_cu_seqlens, *host_first_position;
} SequenceTable;

/* Shape of causal grouped-query attention. Row r of `q` holds num_heads x head_dim values, of `k`
 * and `v` num_kv_heads x head_dim; strides in elements between rows, so that q, k and v may be
 * slices of one fused [M, (num_heads + 2 num_kv_heads) head_dim] buffer. Head h reads kv head h /
 * (num_heads/num_kv_heads). */
typedef struct AttentionShape {
    int num_heads, num_kv_heads, head_dim;
    float scale; /* 1/sqrt(head_dim) */
    int64_t q_stride, k_stride, v_stride, out_stride;
} AttentionShape;

/* Keys and values of sequences in pages of KV_PAGE positions: position p of sequence i lies in page
 * page[first_page[i] + p / KV_PAGE]. What a page looks like inside is the backend's own: cells
 * ready for its products. A page serves any number of sequences that begin with the same tokens. */
#define KV_PAGE 64

/* Memory in which several blocks of a device leave what they found at a row's earlier positions,
 * for sequences of one row each. It says nothing of what a row becomes. */
typedef struct KvParts {
    float *memory; /* of kv_parts_bytes(rows, positions); NULL: none */
    int rows;
    int64_t positions; /* no sequence has more, also where what is called now is launched later */
} KvParts;

typedef struct KvPages {
    char *memory;              /* of one layer: page n begins at n * page_bytes */
    int64_t page_bytes;        /* kv_page_bytes */
    const int32_t *page;       /* the sequences' pages, one sequence after the other */
    const int32_t *first_page; /* [num_sequences] */
    /* [rows of the batch] the same by rows, for qk_norm_rope_store alone: page * KV_PAGE + place in
     * it; below 0: of no sequence, stored nowhere. */
    const int32_t *slot;
    KvParts parts; /* for attention */
} KvPages;

/* What qk_norm_rope takes besides heads: see there. */
typedef struct HeadRope {
    const void *q_norm, *k_norm;
    float eps;
    const float *cos_sin;
    const int32_t *position;
} HeadRope;

/* Rows of logits over a shard of the vocabulary; arrays of M. */
typedef struct RowStats {
    float *max, *sum_exp; /* sum_exp: of exp(logit - max) */
    float *sum_shifted;   /* of exp(logit - max) (logit - max), for the entropy; NULL: not wanted */
    float *target_logit;  /* 0 when it belongs to another rank */
    float *arg_max;       /* global id, below 2^24 and so exact; the lowest of equals */
} RowStats;

/* Of rows of logits over the whole vocabulary; arrays of M. NULL: not wanted. */
typedef struct RowSummary {
    float *max, *lse; /* lse: log of the sum of exp(logit) */
    float *entropy;   /* in nats */
    float *target_logit, *arg_max;
} RowSummary;

/* What the gradient of rows of logits is made from; arrays of M. */
typedef struct RowSlopes {
    const float *lse;       /* log of the sum of exp(logit), over the whole vocabulary */
    const float *dlog_prob; /* of the loss with respect to log p(target); -1 for cross-entropy */
    const float *entropy, *dentropy; /* of the row, and the loss's derivative; both NULL: none */
} RowSlopes;

#define SOFTMAX_SEGMENT      1024
#define SOFTMAX_BINS         512
#define SOFTMAX_BINS_PER_NAT 16 /* bin b: max - logit in [b, b + 1) / 16; the last has no end */

static inline int64_t softmax_num_segments(int64_t columns)
{
    return (columns + SOFTMAX_SEGMENT - 1) / SOFTMAX_SEGMENT;
}

/* Where softmax_collect puts what lies in a row's bins up to last_bin[row], in ascending order of
 * ids: from token[first[row]] and logit[first[row]] on; softmax_bins has counted them. */
typedef struct SoftmaxCandidates {
    int32_t *token; /* global ids */
    float *logit;
    const int64_t *first;
    const int32_t *last_bin;
    int32_t vocab_first;
} SoftmaxCandidates;

/* A logit that is changed for a while: divided by `repetition` if positive, else multiplied by it;
 * then `subtract` is taken off. */
typedef struct LogitChange {
    int32_t column;
    float repetition, subtract;
    float old; /* what stood there: set by change_logits */
} LogitChange;

/* A place on the axis of a row's weights exp(logit - max): `left` into a segment. */
typedef struct SoftmaxPlace {
    int64_t segment; /* below 0: in none */
    double left;
} SoftmaxPlace;

/* One draw a row from softmax(logits) over a vocabulary that one rank holds whole; arrays of M. */
typedef struct SoftmaxDraw {
    int32_t *token;   /* receives; -1 where no column has a weight */
    float *logit;     /* receives the token's; 0 where there is none */
    const float *sum; /* [M, softmax_num_segments(V)] of softmax_segments */
    /* in [0, 1): the place on the axis of weights; below 0: the arg max is taken */
    const double *uniform;
    const float *max, *arg_max;
} SoftmaxDraw;

/* In double: 1 - beta2 of a float beta2 = 0.999f would already be wrong in the fifth digit. */
typedef struct AdamWParams {
    double lr, beta1, beta2, eps, weight_decay;
    double bias_correction1, bias_correction2; /* 1 - beta^step */
    double grad_scale;                         /* gradients are multiplied by this first */
} AdamWParams;

/* Elements [first, first + count) of an array. */
typedef struct ElementRange {
    int64_t first, count;
} ElementRange;

typedef struct KernelTable {
    const char *name; /* "cpu", "cuda" */

    /* ---- memory ---- */
    bool host_memory; /* device memory is ordinary memory */
    /* zeroed, aligned to 64 bytes; stops the process when out of memory */
    void *(*alloc)(size_t bytes);
    void (*free)(void *memory);
    void (*upload)(void *to, const void *host_from, size_t bytes);
    void (*download)(void *host_to, const void *from, size_t bytes); /* waits until it is there */
    void (*copy)(void *to, const void *from, size_t bytes);
    void (*synchronize)(void); /* waits for all kernels this thread has called */

    /* ---- matrices ---- */
    void (*weight_prepare)(Weight *weight); /* after every change of plain.data */
    void (*weight_release)(Weight *weight);
    /* y[M, N] = x[M, K] w[N, K]^T. y has x's type or f32. */
    void (*matmul)(Tensor y, Tensor x, const Weight *w);
    /* dx[M, K] = dy[M, N] w[N, K]. */
    void (*matmul_dgrad)(Tensor dx, Tensor dy, const Weight *w);
    /* dw[N, K] += dy[M, N]^T x[M, K]; dw is f32, dy and x of one type. */
    void (*matmul_wgrad_accumulate)(Tensor dw, Tensor dy, Tensor x);

    /* ---- embedding: the rank holds rows [vocab_first, vocab_first + V) of the table ---- */
    /* y[M, H] = table[token - vocab_first], or 0 where the token belongs to another rank. */
    void (*embedding)(Tensor y, Tensor table, const int32_t *token, int32_t vocab_first);
    /* dtable[token - vocab_first] += dy, row by row in the order of rows. host_token: the same
     * tokens in ordinary memory, by which a launch is laid out; on a device of host_memory nobody
     * reads them. */
    void (*embedding_backward_accumulate)(Tensor dtable, Tensor dy, const int32_t *token,
                                          const int32_t *host_token, int32_t vocab_first);

    /* ---- element-wise and norms ---- */
    void (*add)(Tensor y, Tensor a, Tensor b); /* y may be a */
    /* y = x * rstd * w, rstd[M] = 1/sqrt(mean(x^2) + eps), over the last dimension. As Hugging Face
     * does it: x * rstd is rounded to x's type before the product with w. rstd may be NULL. Zhang &
     * Sennrich 2019. */
    void (*rmsnorm)(Tensor y, float *rstd, Tensor x, Tensor w, float eps);
    /* dx = gradient (added to dx when add_to_dx: the residual branch), dw[H] f32 accumulated. */
    void (*rmsnorm_backward)(Tensor dx, bool add_to_dx, Tensor dw_accumulate, Tensor dy, Tensor x,
                             Tensor w, const float *rstd);
    /* In place on qkv[M, (num_heads + 2 num_kv_heads) D]: each q and k head is RMS-normalised with
     * its weight [D] (skipped when NULL, as in Llama and Qwen2) and then rotated by its row's
     * position (half-rotation as Hugging Face does it). cos_sin is [positions, D]: cos in the first
     * half, sin in the second. raw_qk[M, (num_heads + num_kv_heads) D] receives the values before,
     * for the backward pass (may be NULL). */
    void (*qk_norm_rope)(Tensor qkv, Tensor raw_qk, int num_heads, int num_kv_heads, int head_dim,
                         const void *q_norm, const void *k_norm, float eps, const float *cos_sin,
                         const int32_t *position);
    /* In place on dqkv; dq_norm and dk_norm [D] f32 accumulated (NULL when there is no norm). */
    void (*qk_norm_rope_backward)(Tensor dqkv, Tensor raw_qk, int num_heads, int num_kv_heads,
                                  int head_dim, const void *q_norm, const void *k_norm, float eps,
                                  float *dq_norm_accumulate, float *dk_norm_accumulate,
                                  const float *cos_sin, const int32_t *position);
    /* y[M, F] = silu(gate) * up, with gate_up[M, 2F] = [gate | up]. Shazeer 2020. */
    void (*swiglu)(Tensor y, Tensor gate_up);
    void (*swiglu_backward)(Tensor dgate_up, Tensor dy, Tensor gate_up);

    /* ---- attention: causal, exact softmax, never materialising M x M ---- */
    int64_t (*kv_page_bytes)(DType dtype, int num_kv_heads, int head_dim);
    /* Puts the batch's keys and values into its sequences' pages. */
    void (*kv_store)(const KvPages *pages, DType dtype, const void *k, const void *v,
                     const AttentionShape *shape, const SequenceTable *sequences);
    /* out[M, num_heads D]; lse[num_heads, M] f32 (log-sum-exp of each row, may be NULL). With
     * pages, keys and values come from there, those of the batch's own rows too: kv_store comes
     * first. Without, k and v are the batch's and every sequence is whole. */
    void (*attention)(void *out, float *lse, DType dtype, const void *q, const void *k,
                      const void *v, const AttentionShape *shape, const SequenceTable *sequences,
                      const KvPages *pages);
    /* dq, dk, dv with the strides of q, k, v. Dao et al. 2022 (FlashAttention), algorithm 4. */
    void (*attention_backward)(void *dq, void *dk, void *dv, DType dtype, const void *dout,
                               const void *q, const void *k, const void *v, const void *out,
                               const float *lse, const AttentionShape *shape,
                               const SequenceTable *sequences);

    /* ---- cross-entropy over a vocabulary shard; logits[M, V] f32, target: a global id ---- */
    /* Fills `stats` over this shard; target NULL: no target's logit is wanted. */
    void (*cross_entropy_stats)(const RowStats *stats, Tensor logits, const int32_t *target,
                                int32_t vocab_first);
    /* Joins the statistics of num_shards shards in their order: stats[i] of shard s stands
     * s * shard_stride floats behind that of the first. */
    void (*cross_entropy_join)(const RowSummary *summary, const RowStats *stats, int num_shards,
                               int64_t shard_stride, int64_t rows);
    /* dlogits[M, V] (bf16, or f32 and then it may be logits itself): with p = exp(logit - lse),
     * dlog_prob ([target] - p) - dentropy p (log p + entropy). */
    void (*cross_entropy_backward)(Tensor dlogits, Tensor logits, const RowSlopes *slopes,
                                   const int32_t *target, int32_t vocab_first);

    /* y[M, V] = y / divisor[row], in place: logits by their temperature. Rows with divisor 1 stay
     * as they are. */
    void (*divide_rows)(Tensor y, const float *divisor);

    /* ---- sampling from softmax(logits) over a vocabulary shard; max[row]: of the whole row ----
     */
    /* sum [M, softmax_num_segments(V)]: of exp(logit - max) over SOFTMAX_SEGMENT columns each. */
    void (*softmax_segments)(float *sum, Tensor logits, const float *max);
    /* mass and count [M, SOFTMAX_BINS] of the logits by bin; logits of -inf are in none. */
    void (*softmax_bins)(double *mass, int32_t *count, Tensor logits, const float *max);
    void (*softmax_collect)(const SoftmaxCandidates *candidates, Tensor logits, const float *max);
    /* column[row]: where the sum of exp(logit - max), taken over the columns of the place's segment
     * in their order, exceeds `left`; the last with a weight when rounding leaves none; -1 where
     * none has one. */
    void (*softmax_find)(int32_t *column, Tensor logits, const float *max,
                         const SoftmaxPlace *place);
    /* Row i's changes are [first[i], first[i + 1]), made in their order and taken back in the
     * opposite one. */
    void (*change_logits)(Tensor logits, LogitChange *change, const int32_t *first);
    void (*restore_logits)(Tensor logits, const LogitChange *change, const int32_t *first);
    /* y[i] = x[i, column[i]]; 0 where there is no such column. f32. */
    void (*pick_columns)(float *y, Tensor x, const int32_t *column);

    /* ---- optimizer and reductions; n elements ---- */
    /* master, exp_avg, exp_avg_sq [n] f32; weight receives the new values in its own type (it may
     * be the master itself when f32). Decoupled weight decay, Loshchilov & Hutter 2019, in
     * torch.optim.AdamW's order. */
    void (*adamw)(float *master, float *exp_avg, float *exp_avg_sq, const float *grad, void *weight,
                  DType weight_dtype, int64_t n, const AdamWParams *params);
    /* Sum of squares of ranges of x in f64: each in an order fixed by its count, and these in their
     * order. */
    double (*sum_squares)(const float *x, const ElementRange *host_range, int64_t num_ranges);
    void (*cast)(Tensor y, Tensor x); /* between f32 and bf16, or a copy */
    void (*fill_zero)(Tensor y);

    /* ---- moving rows and columns; x and y of one type ---- */
    /* y[M, W] = x[M, first_column to first_column + W]. */
    void (*copy_columns)(Tensor y, Tensor x, int64_t first_column);
    /* y[i] = x[row[i]] for every row i of y. */
    void (*gather_rows)(Tensor y, Tensor x, const int32_t *row);
    /* y = 0, then y[row[i]] = x[i] for every row i of x; no row occurs twice. */
    void (*scatter_rows)(Tensor y, Tensor x, const int32_t *row);

    /* digest[i] = XXH3 of piece i of x, as tensor/digest.h says: what digest_join takes. x begins
     * at 16 bytes. */
    void (*digest_pieces)(uint64_t *digest, const void *x, size_t bytes);
    /* ---- several of the above in one: what they give one after the other, to the bit ---- */
    /* sum = a + b, y = rmsnorm(sum). sum may be a. */
    void (*add_rmsnorm)(Tensor sum, Tensor y, float *rstd, Tensor a, Tensor b, Tensor w, float eps);
    /* qk_norm_rope of qkv, keeping no raw values, and kv_store of its k and v. pages->slot says the
     * same as the sequences do; what a row of no sequence (behind the last one's) leaves in qkv is
     * undefined. */
    void (*qk_norm_rope_store)(Tensor qkv, const HeadRope *rope, const AttentionShape *shape,
                               const SequenceTable *sequences, const KvPages *pages);
    /* softmax_find at the place of `uniform` times all weights (segments in their order, then
     * columns), and pick_columns. */
    void (*softmax_draw)(const SoftmaxDraw *draw, Tensor logits);

    int64_t (*kv_parts_bytes)(const AttentionShape *shape, int rows,
                              int64_t positions); /* 0: of no use */
    const DeviceGraphs *graphs;                   /* NULL: this device does not record (graphs.h) */
} KernelTable;

/* The CPU backend: f32 and bf16, matrices by oneDNN, the rest ours. `num_threads` >= 1 worker
 * threads in all; call once per process before the first kernel. */
const KernelTable *cpu_kernels(int num_threads);

/* One sentence for the log when this CPU makes bf16 slow (it lacks bf16 products), else NULL. After
 * cpu_kernels. */
const char *cpu_kernels_note(void);

#endif
