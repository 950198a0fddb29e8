/* What the kernels of attention share. */
#ifndef TROUPE_TENSOR_CUDA_ATTENTION_CUH
#define TROUPE_TENSOR_CUDA_ATTENTION_CUH

#include "tensor/cuda/kv_pages.cuh"

/* What a call works on. Rows of a sequence and kv head are numbered query by query, the group's
 * heads of one after the other. */
struct Attention {
    AttentionShape shape;
    SequenceTable sequences;
    KvPages pages; /* memory NULL: keys and values are the batch's */
    int group;     /* query heads of a kv head */
    int64_t total; /* rows of the batch */
};

struct RowPlace {
    int64_t query; /* row of the batch */
    int64_t position;
    int head;
};

__device__ __forceinline__ RowPlace place_of(const Attention &a, int sequence, int kv_head,
                                             int64_t row)
{
    RowPlace place;
    int64_t first = a.sequences.first_position != NULL ? a.sequences.first_position[sequence] : 0;
    place.query = a.sequences.cu_seqlens[sequence] + row / a.group;
    place.position = first + row / a.group;
    place.head = kv_head * a.group + (int)(row % a.group);
    return place;
}

/* What a backward pass works on: whole sequences. */
struct Backward {
    AttentionShape shape;
    const int32_t *cu_seqlens;
    int group;
    int64_t total;            /* rows of the batch */
    const float *lse, *delta; /* [num_heads, total]; delta: of each row's dout and out */
};

/* attention_mma.cu: by tensor cores. Which heads it takes depends on their shape alone. */
bool attention_mma_fits(const AttentionShape *shape);
void attention_mma(Bf16 *out, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                   const Attention &a, int64_t longest);
/* attention_backward_mma.cu: of the same heads. dq, dk and dv have the strides of q, k and v. */
void attention_backward_mma(Bf16 *dq, Bf16 *dk, Bf16 *dv, const Bf16 *dout, const Bf16 *q,
                            const Bf16 *k, const Bf16 *v, const Backward &b, int64_t longest,
                            int num_sequences);

#endif
