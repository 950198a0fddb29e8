#include "tensor/cuda/gemm.cuh"
#include "tensor/cuda/ops.cuh"
#include "tensor/cuda/table.h"

static KernelTable fill_table()
{
    KernelTable table = {};
    table.name = "cuda";
    table.host_memory = false;
    table.alloc = cuda_alloc;
    table.free = cuda_free;
    table.upload = cuda_upload;
    table.download = cuda_download;
    table.copy = cuda_copy;
    table.synchronize = cuda_synchronize;
    table.weight_prepare = cuda_weight_prepare;
    table.weight_release = cuda_weight_release;
    table.matmul = cuda_matmul;
    table.matmul_dgrad = cuda_matmul_dgrad;
    table.matmul_wgrad_accumulate = cuda_matmul_wgrad_accumulate;
    table.embedding = cuda_embedding;
    table.embedding_backward_accumulate = cuda_embedding_backward_accumulate;
    table.add = cuda_add;
    table.rmsnorm = cuda_rmsnorm;
    table.rmsnorm_backward = cuda_rmsnorm_backward;
    table.qk_norm_rope = cuda_qk_norm_rope;
    table.qk_norm_rope_backward = cuda_qk_norm_rope_backward;
    table.swiglu = cuda_swiglu;
    table.swiglu_backward = cuda_swiglu_backward;
    table.kv_page_bytes = cuda_kv_page_bytes;
    table.kv_store = cuda_kv_store;
    table.attention = cuda_attention;
    table.attention_backward = cuda_attention_backward;
    table.cross_entropy_stats = cuda_cross_entropy_stats;
    table.cross_entropy_join = cuda_cross_entropy_join;
    table.cross_entropy_backward = cuda_cross_entropy_backward;
    table.divide_rows = cuda_divide_rows;
    table.softmax_segments = cuda_softmax_segments;
    table.softmax_bins = cuda_softmax_bins;
    table.softmax_collect = cuda_softmax_collect;
    table.softmax_find = cuda_softmax_find;
    table.change_logits = cuda_change_logits;
    table.restore_logits = cuda_restore_logits;
    table.pick_columns = cuda_pick_columns;
    table.adamw = cuda_adamw;
    table.sum_squares = cuda_sum_squares;
    table.cast = cuda_cast;
    table.fill_zero = cuda_fill_zero;
    table.copy_columns = cuda_copy_columns;
    table.gather_rows = cuda_gather_rows;
    table.scatter_rows = cuda_scatter_rows;
    table.digest_pieces = cuda_digest_pieces;
    table.add_rmsnorm = cuda_add_rmsnorm;
    table.qk_norm_rope_store = cuda_qk_norm_rope_store;
    table.softmax_draw = cuda_softmax_draw;
    table.kv_parts_bytes = cuda_kv_parts_bytes;
    table.graphs = cuda_graphs();
    return table;
}

const KernelTable *cuda_table(void)
{
    static const KernelTable table = fill_table();
    return &table;
}
