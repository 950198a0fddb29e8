/* The functions of the CUDA backend by file; table.cu puts them into a KernelTable, where their
 * contracts stand. */
#ifndef TROUPE_TENSOR_CUDA_OPS_CUH
#define TROUPE_TENSOR_CUDA_OPS_CUH

#include "tensor/cuda/device.cuh"

/* device.cu */
void *cuda_alloc(size_t bytes);
void cuda_free(void *memory);
void cuda_upload(void *to, const void *host_from, size_t bytes);
void cuda_download(void *host_to, const void *from, size_t bytes);
void cuda_copy(void *to, const void *from, size_t bytes);
void cuda_synchronize(void);
void cuda_fill_zero(Tensor y);
/* elementwise.cu */
void cuda_add(Tensor y, Tensor a, Tensor b);
void cuda_cast(Tensor y, Tensor x);
void cuda_divide_rows(Tensor y, const float *divisor);
void cuda_adamw(float *master, float *exp_avg, float *exp_avg_sq, const float *grad, void *weight,
                DType weight_dtype, int64_t n, const AdamWParams *params);
/* swiglu.cu */
void cuda_swiglu(Tensor y, Tensor gate_up);
void cuda_swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up);
/* rows.cu */
void cuda_copy_columns(Tensor y, Tensor x, int64_t first_column);
void cuda_gather_rows(Tensor y, Tensor x, const int32_t *row);
void cuda_scatter_rows(Tensor y, Tensor x, const int32_t *row);
/* norm.cu */
void cuda_rmsnorm(Tensor y, float *rstd, Tensor x, Tensor w, float eps);
void cuda_add_rmsnorm(Tensor sum, Tensor y, float *rstd, Tensor a, Tensor b, Tensor w, float eps);
void cuda_rmsnorm_backward(Tensor dx, bool add_to_dx, Tensor dw_accumulate, Tensor dy, Tensor x,
                           Tensor w, const float *rstd);
/* embedding.cu */
void cuda_embedding(Tensor y, Tensor table, const int32_t *token, int32_t vocab_first);
void cuda_embedding_backward_accumulate(Tensor dtable, Tensor dy, const int32_t *token,
                                        const int32_t *host_token, int32_t vocab_first);
/* rope.cu */
void cuda_qk_norm_rope(Tensor qkv, Tensor raw_qk, int num_heads, int num_kv_heads, int head_dim,
                       const void *q_norm, const void *k_norm, float eps, const float *cos_sin,
                       const int32_t *position);
void cuda_qk_norm_rope_store(Tensor qkv, const HeadRope *rope, const AttentionShape *shape,
                             const SequenceTable *sequences, const KvPages *pages);
void cuda_qk_norm_rope_backward(Tensor dqkv, Tensor raw_qk, int num_heads, int num_kv_heads,
                                int head_dim, const void *q_norm, const void *k_norm, float eps,
                                float *dq_norm_accumulate, float *dk_norm_accumulate,
                                const float *cos_sin, const int32_t *position);
/* attention.cu, attention_backward.cu */
int64_t cuda_kv_page_bytes(DType dtype, int num_kv_heads, int head_dim);
int64_t cuda_kv_parts_bytes(const AttentionShape *shape, int rows, int64_t positions);
void cuda_kv_store(const KvPages *pages, DType dtype, const void *k, const void *v,
                   const AttentionShape *shape, const SequenceTable *sequences);
void cuda_attention(void *out, float *lse, DType dtype, const void *q, const void *k, const void *v,
                    const AttentionShape *shape, const SequenceTable *sequences,
                    const KvPages *pages);
void cuda_attention_backward(void *dq, void *dk, void *dv, DType dtype, const void *dout,
                             const void *q, const void *k, const void *v, const void *out,
                             const float *lse, const AttentionShape *shape,
                             const SequenceTable *sequences);
/* cross_entropy.cu */
void cuda_cross_entropy_stats(const RowStats *stats, Tensor logits, const int32_t *target,
                              int32_t vocab_first);
void cuda_cross_entropy_join(const RowSummary *summary, const RowStats *stats, int num_shards,
                             int64_t shard_stride, int64_t rows);
void cuda_cross_entropy_backward(Tensor dlogits, Tensor logits, const RowSlopes *slopes,
                                 const int32_t *target, int32_t vocab_first);
/* sampling.cu */
void cuda_softmax_segments(float *sum, Tensor logits, const float *max);
void cuda_softmax_bins(double *mass, int32_t *count, Tensor logits, const float *max);
void cuda_softmax_collect(const SoftmaxCandidates *candidates, Tensor logits, const float *max);
void cuda_softmax_find(int32_t *column, Tensor logits, const float *max, const SoftmaxPlace *place);
void cuda_change_logits(Tensor logits, LogitChange *change, const int32_t *first);
void cuda_restore_logits(Tensor logits, const LogitChange *change, const int32_t *first);
void cuda_pick_columns(float *y, Tensor x, const int32_t *column);
/* digest.cu */
void cuda_digest_pieces(uint64_t *digest, const void *x, size_t bytes);
void cuda_softmax_draw(const SoftmaxDraw *draw, Tensor logits);
/* reduce.cu */
double cuda_sum_squares(const float *x, const ElementRange *host_range, int64_t num_ranges);

#endif
