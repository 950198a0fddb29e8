/* The loops of the CPU backend, one copy per instruction set (isa.h); table.c puts a copy's
 * functions into a KernelTable, where their contracts stand. */
#ifndef TROUPE_TENSOR_CPU_OPS_H
#define TROUPE_TENSOR_CPU_OPS_H

#include "tensor/cpu/isa.h"
#include "tensor/cpu/matrix.h"
#include "tensor/kernels.h"

#define cpu_table                         ISA_NAME(cpu_table)
#define cpu_embedding                     ISA_NAME(cpu_embedding)
#define cpu_embedding_backward_accumulate ISA_NAME(cpu_embedding_backward_accumulate)
#define cpu_add                           ISA_NAME(cpu_add)
#define cpu_rmsnorm                       ISA_NAME(cpu_rmsnorm)
#define cpu_rmsnorm_backward              ISA_NAME(cpu_rmsnorm_backward)
#define cpu_qk_norm_rope                  ISA_NAME(cpu_qk_norm_rope)
#define cpu_qk_norm_rope_backward         ISA_NAME(cpu_qk_norm_rope_backward)
#define cpu_swiglu                        ISA_NAME(cpu_swiglu)
#define cpu_swiglu_backward               ISA_NAME(cpu_swiglu_backward)
#define cpu_kv_page_bytes                 ISA_NAME(cpu_kv_page_bytes)
#define cpu_kv_store                      ISA_NAME(cpu_kv_store)
#define cpu_attention                     ISA_NAME(cpu_attention)
#define cpu_attention_backward            ISA_NAME(cpu_attention_backward)
#define cpu_cross_entropy_stats           ISA_NAME(cpu_cross_entropy_stats)
#define cpu_cross_entropy_join            ISA_NAME(cpu_cross_entropy_join)
#define cpu_cross_entropy_backward        ISA_NAME(cpu_cross_entropy_backward)
#define cpu_divide_rows                   ISA_NAME(cpu_divide_rows)
#define cpu_softmax_segments              ISA_NAME(cpu_softmax_segments)
#define cpu_softmax_bins                  ISA_NAME(cpu_softmax_bins)
#define cpu_softmax_collect               ISA_NAME(cpu_softmax_collect)
#define cpu_softmax_find                  ISA_NAME(cpu_softmax_find)
#define cpu_change_logits                 ISA_NAME(cpu_change_logits)
#define cpu_restore_logits                ISA_NAME(cpu_restore_logits)
#define cpu_pick_columns                  ISA_NAME(cpu_pick_columns)
#define cpu_add_rmsnorm                   ISA_NAME(cpu_add_rmsnorm)
#define cpu_qk_norm_rope_store            ISA_NAME(cpu_qk_norm_rope_store)
#define cpu_kv_parts_bytes                ISA_NAME(cpu_kv_parts_bytes)
#define cpu_softmax_draw                  ISA_NAME(cpu_softmax_draw)
#define cpu_adamw                         ISA_NAME(cpu_adamw)
#define cpu_sum_squares                   ISA_NAME(cpu_sum_squares)
#define cpu_cast                          ISA_NAME(cpu_cast)
#define cpu_fill_zero                     ISA_NAME(cpu_fill_zero)
#define cpu_vector_exp                    ISA_NAME(cpu_vector_exp)
#define cpu_digest_copy                   ISA_NAME(cpu_digest_copy)
#define cpu_copy_digest                   ISA_NAME(cpu_copy_digest)
#define cpu_digest_pieces                 ISA_NAME(cpu_digest_pieces)
#define cpu_digest_join                   ISA_NAME(cpu_digest_join)
#define cpu_matrix_loops                  ISA_NAME(cpu_matrix_loops)
#define cpu_pack_turned                   ISA_NAME(cpu_pack_turned)
#define cpu_pack_stacked                  ISA_NAME(cpu_pack_stacked)
#define cpu_packed_depth                  ISA_NAME(cpu_packed_depth)
#define cpu_gemm                          ISA_NAME(cpu_gemm)
#define cpu_few_rows                      ISA_NAME(cpu_few_rows)
#define cpu_transpose                     ISA_NAME(cpu_transpose)
#define cpu_reduce_rows                   ISA_NAME(cpu_reduce_rows)

extern const KernelTable cpu_table;
extern const MatrixLoops cpu_matrix_loops;

void cpu_embedding(Tensor y, Tensor table, const int32_t *token, int32_t vocab_first);
void cpu_embedding_backward_accumulate(Tensor dtable, Tensor dy, const int32_t *token,
                                       const int32_t *host_token, int32_t vocab_first);
void cpu_add(Tensor y, Tensor a, Tensor b);
void cpu_rmsnorm(Tensor y, float *rstd, Tensor x, Tensor w, float eps);
void cpu_rmsnorm_backward(Tensor dx, bool add_to_dx, Tensor dw_accumulate, Tensor dy, Tensor x,
                          Tensor w, const float *rstd);
void cpu_qk_norm_rope(Tensor qkv, Tensor raw_qk, int num_heads, int num_kv_heads, int head_dim,
                      const void *q_norm, const void *k_norm, float eps, const float *cos_sin,
                      const int32_t *position);
void cpu_qk_norm_rope_backward(Tensor dqkv, Tensor raw_qk, int num_heads, int num_kv_heads,
                               int head_dim, const void *q_norm, const void *k_norm, float eps,
                               float *dq_norm_accumulate, float *dk_norm_accumulate,
                               const float *cos_sin, const int32_t *position);
void cpu_swiglu(Tensor y, Tensor gate_up);
void cpu_swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up);
int64_t cpu_kv_page_bytes(DType dtype, int num_kv_heads, int head_dim);
void cpu_kv_store(const KvPages *pages, DType dtype, const void *k, const void *v,
                  const AttentionShape *shape, const SequenceTable *sequences);
void cpu_attention(void *out, float *lse, DType dtype, const void *q, const void *k, const void *v,
                   const AttentionShape *shape, const SequenceTable *sequences,
                   const KvPages *pages);
void cpu_attention_backward(void *dq, void *dk, void *dv, DType dtype, const void *dout,
                            const void *q, const void *k, const void *v, const void *out,
                            const float *lse, const AttentionShape *shape,
                            const SequenceTable *sequences);
void cpu_cross_entropy_stats(const RowStats *stats, Tensor logits, const int32_t *target,
                             int32_t vocab_first);
void cpu_cross_entropy_join(const RowSummary *summary, const RowStats *stats, int num_shards,
                            int64_t shard_stride, int64_t rows);
void cpu_cross_entropy_backward(Tensor dlogits, Tensor logits, const RowSlopes *slopes,
                                const int32_t *target, int32_t vocab_first);
void cpu_divide_rows(Tensor y, const float *divisor);
void cpu_softmax_segments(float *sum, Tensor logits, const float *max);
void cpu_softmax_bins(double *mass, int32_t *count, Tensor logits, const float *max);
void cpu_softmax_collect(const SoftmaxCandidates *candidates, Tensor logits, const float *max);
void cpu_softmax_find(int32_t *column, Tensor logits, const float *max, const SoftmaxPlace *place);
void cpu_change_logits(Tensor logits, LogitChange *change, const int32_t *first);
void cpu_restore_logits(Tensor logits, const LogitChange *change, const int32_t *first);
void cpu_pick_columns(float *y, Tensor x, const int32_t *column);
void cpu_adamw(float *master, float *exp_avg, float *exp_avg_sq, const float *grad, void *weight,
               DType weight_dtype, int64_t n, const AdamWParams *params);
double cpu_sum_squares(const float *x, const ElementRange *host_range, int64_t num_ranges);
void cpu_cast(Tensor y, Tensor x);
void cpu_fill_zero(Tensor y);
void cpu_add_rmsnorm(Tensor sum, Tensor y, float *rstd, Tensor a, Tensor b, Tensor w, float eps);
void cpu_qk_norm_rope_store(Tensor qkv, const HeadRope *rope, const AttentionShape *shape,
                            const SequenceTable *sequences, const KvPages *pages);
int64_t cpu_kv_parts_bytes(const AttentionShape *shape, int rows, int64_t positions);
void cpu_softmax_draw(const SoftmaxDraw *draw, Tensor logits);

/* y[i] = exp(x[i]) as the other loops compute it. */
void cpu_vector_exp(float *y, const float *x, int64_t n);

/* The digest of `from`, copied to `to` unless that is NULL: see tensor/digest.h. */
uint64_t cpu_digest_copy(void *to, const void *from, size_t bytes);
/* Copies and digests the copy: see tensor/digest.h. */
uint64_t cpu_copy_digest(void *to, const void *from, size_t bytes);
void cpu_digest_pieces(uint64_t *digest, const void *x, size_t bytes);
uint64_t cpu_digest_join(const uint64_t *digest, size_t bytes);

/* The loops behind matrix products: see MatrixLoops. */
void cpu_pack_turned(void *to, Tensor from, bool pairs);
void cpu_pack_stacked(void *to, Tensor from, bool pairs);
int64_t cpu_packed_depth(int64_t elements, bool pairs);
void cpu_transpose(void *to, Tensor from);
void cpu_gemm(const GemmCall *call);
bool cpu_few_rows(const FewRowsCall *call);

/* For sums over rows (weight gradients): rows are cut into parts by their number alone; `part` sums
 * the rows [first, last) into `into` [width], zeroed before; then the parts are added to `total` in
 * order. */
typedef void (*ReducePart)(const void *context, int64_t first, int64_t last, float *into);
void cpu_reduce_rows(float *total_accumulate, int64_t width, int64_t rows, ReducePart part,
                     const void *context);

#endif
