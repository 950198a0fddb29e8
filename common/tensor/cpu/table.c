#include "tensor/cpu/memory_cpu.h"
#include "tensor/cpu/onednn.h"
#include "tensor/cpu/ops.h"
#include "tensor/cpu/rows.h"

const KernelTable cpu_table = {
    .name = "cpu",
    .alloc = memory_cpu_alloc,
    .free = memory_cpu_free,
    .weight_prepare = onednn_weight_prepare,
    .weight_release = onednn_weight_release,
    .matmul = onednn_matmul,
    .matmul_dgrad = onednn_matmul_dgrad,
    .matmul_wgrad_accumulate = onednn_matmul_wgrad_accumulate,
    .embedding = cpu_embedding,
    .embedding_backward_accumulate = cpu_embedding_backward_accumulate,
    .add = cpu_add,
    .rmsnorm = cpu_rmsnorm,
    .rmsnorm_backward = cpu_rmsnorm_backward,
    .qk_norm_rope = cpu_qk_norm_rope,
    .qk_norm_rope_backward = cpu_qk_norm_rope_backward,
    .swiglu = cpu_swiglu,
    .swiglu_backward = cpu_swiglu_backward,
    .kv_page_bytes = cpu_kv_page_bytes,
    .kv_store = cpu_kv_store,
    .attention = cpu_attention,
    .attention_backward = cpu_attention_backward,
    .cross_entropy_stats = cpu_cross_entropy_stats,
    .cross_entropy_backward = cpu_cross_entropy_backward,
    .divide_rows = cpu_divide_rows,
    .softmax_segments = cpu_softmax_segments,
    .softmax_bins = cpu_softmax_bins,
    .softmax_collect = cpu_softmax_collect,
    .adamw = cpu_adamw,
    .sum_squares = cpu_sum_squares,
    .cast = cpu_cast,
    .fill_zero = cpu_fill_zero,
    .copy_columns = rows_copy_columns,
    .gather_rows = rows_gather,
    .scatter_rows = rows_scatter,
};

const MatrixLoops cpu_matrix_loops = {
    .pack_turned = cpu_pack_turned,
    .pack_stacked = cpu_pack_stacked,
    .packed_depth = cpu_packed_depth,
    .transpose = cpu_transpose,
    .gemm = cpu_gemm,
    .few_rows = cpu_few_rows,
};
