/* The two ceilings of this device, and each operation's time beside what they allow: the shapes of
 * Qwen3-0.6B at 16,384 tokens in documents of 4,096, and of decoding. Prints Markdown; the last
 * line but the tables is "ceilings: TB/s TFLOP/s", which gemm_rows takes. */
#include "gpu.cuh"

#define TOKENS   16384
#define HIDDEN   1024
#define FFN      3072
#define HEADS    16
#define KV_HEADS 8
#define DIM      128
#define VOCAB    151936
#define CHUNK    4096 /* rows of logits, as the trainer's */
#define QKV      ((HEADS + 2 * KV_HEADS) * DIM)

static double bandwidth, rate;

/* `bytes`: read and written at least; `flops` 0: of no matter. */
static void report(const char *name, double bytes, double flops, const std::function<void()> &call)
{
    double ms = gpu_time(call), limit = std::max(bytes / bandwidth, flops / rate) * 1e3;
    printf("| %s | %.4f | %.4f | %.0f %% | %.2f | %.0f |\n", name, ms, limit, 100 * limit / ms,
           bytes / ms * 1e-9, flops / ms * 1e-9);
    fflush(stdout);
}

static void measure_ceilings()
{
    const size_t bytes = (size_t)1 << 30;
    void *from = kernels->alloc(bytes), *to = kernels->alloc(bytes);
    bandwidth = 2.0 * (double)bytes / (gpu_time([&] { kernels->copy(to, from, bytes); }) * 1e-3);
    kernels->free(from);
    kernels->free(to);
    const int64_t n = 8192;
    Tensor x = gpu_random(DTYPE_BF16, n, n, 1, 1), y = gpu_result(DTYPE_BF16, n, n);
    Weight w = {gpu_random(DTYPE_BF16, n, n, 2, 1), NULL};
    gemm_choose(GEMM_LIBRARY_FREE); /* the card's, not that of equal rows */
    rate = 2.0 * (double)(n * n * n) / (gpu_time([&] { kernels->matmul(y, x, &w); }) * 1e-3);
    gemm_choose(GEMM_LIBRARY);
    printf("%s, compute capability %d.%d, driver %d, runtime %d\n\n", gpu.name, gpu.sm / 10,
           gpu.sm % 10, gpu.driver_version, gpu.runtime_version);
    printf("ceilings: %.3f %.1f (TB/s of a copy of 1 GiB, read and written; TFLOP/s of a bf16 "
           "product of "
           "8192^3)\n\n",
           bandwidth * 1e-12, rate * 1e-12);
    void *all[] = {x.data, y.data, w.plain.data};
    for (void *memory : all)
        kernels->free(memory);
}

static void time_row_wise()
{
    const DType T = DTYPE_BF16;
    const double hidden = (double)TOKENS * HIDDEN * 2, qkv_bytes = (double)TOKENS * QKV * 2,
                 ffn = (double)TOKENS * FFN * 2;
    Tensor x = gpu_random(T, TOKENS, HIDDEN, 1, 1), y = gpu_random(T, TOKENS, HIDDEN, 2, 1);
    Tensor dx = gpu_result(T, TOKENS, HIDDEN), w = gpu_random(T, 1, HIDDEN, 3, 1);
    Tensor dw = gpu_result(DTYPE_F32, 1, HIDDEN), rstd = gpu_result(DTYPE_F32, 1, TOKENS);
    Tensor gate_up = gpu_random(T, TOKENS, 2 * FFN, 4, 3), act = gpu_result(T, TOKENS, FFN);
    Tensor dgate_up = gpu_result(T, TOKENS, 2 * FFN), qkv = gpu_random(T, TOKENS, QKV, 5, 1);
    Tensor raw = gpu_result(T, TOKENS, (HEADS + KV_HEADS) * DIM),
           norm = gpu_random(T, 1, DIM, 6, 1);
    Tensor angles = gpu_random(DTYPE_F32, 4096, DIM, 7, 1), dnorm = gpu_result(DTYPE_F32, 2, DIM);
    std::vector<int32_t> positions(TOKENS);
    for (int i = 0; i < TOKENS; i++)
        positions[(size_t)i] = i % 4096;
    int32_t *position = gpu_array(positions);
    report("add", 3 * hidden, 0, [&] { kernels->add(dx, x, y); });
    report("rmsnorm", 2 * hidden, 0,
           [&] { kernels->rmsnorm(dx, (float *)rstd.data, x, w, 1e-6f); });
    report("rmsnorm_backward (dx added to)", 4 * hidden, 0,
           [&] { kernels->rmsnorm_backward(dx, true, dw, y, x, w, (float *)rstd.data); });
    report("qk_norm_rope", 2.5 * qkv_bytes * 0.75, 0, [&] {
        kernels->qk_norm_rope(qkv, raw, HEADS, KV_HEADS, DIM, norm.data, norm.data, 1e-6f,
                              (const float *)angles.data, position);
    });
    report("qk_norm_rope_backward", 3 * qkv_bytes * 0.75, 0, [&] {
        kernels->qk_norm_rope_backward(qkv, raw, HEADS, KV_HEADS, DIM, norm.data, norm.data, 1e-6f,
                                       (float *)dnorm.data, (float *)dnorm.data + DIM,
                                       (const float *)angles.data, position);
    });
    report("swiglu", 3 * ffn, 0, [&] { kernels->swiglu(act, gate_up); });
    report("swiglu_backward", 5 * ffn, 0,
           [&] { kernels->swiglu_backward(dgate_up, act, gate_up); });
    void *all[] = {x.data,    y.data,       dx.data,     w.data,        dw.data,
                   rstd.data, gate_up.data, act.data,    dgate_up.data, qkv.data,
                   raw.data,  norm.data,    angles.data, dnorm.data,    position};
    for (void *memory : all)
        kernels->free(memory);
}

static void time_embedding_and_loss()
{
    std::vector<int32_t> tokens(TOKENS);
    for (int i = 0; i < TOKENS; i++)
        tokens[(size_t)i] =
            (int32_t)((uint32_t)i * 2654435761u % (uint32_t)(i % 3 == 0 ? 100 : VOCAB));
    int32_t *token = gpu_array(tokens);
    Tensor table = gpu_random(DTYPE_BF16, VOCAB, HIDDEN, 1, 1),
           dtable = gpu_result(DTYPE_F32, VOCAB, HIDDEN);
    Tensor y = gpu_result(DTYPE_BF16, TOKENS, HIDDEN);
    double rows = (double)TOKENS * HIDDEN;
    report("embedding", rows * 4, 0, [&] { kernels->embedding(y, table, token, 0); });
    report("embedding_backward", rows * (2 + 8 * 2.0 / 3), 0,
           [&] { kernels->embedding_backward_accumulate(dtable, y, token, tokens.data(), 0); });
    kernels->free(table.data);
    Tensor logits = gpu_random(DTYPE_F32, CHUNK, VOCAB, 2, 10),
           grad = gpu_result(DTYPE_BF16, CHUNK, VOCAB);
    Tensor rows5 = gpu_result(DTYPE_F32, 5, CHUNK);
    float *at = (float *)rows5.data;
    RowStats stats = {at, at + CHUNK, at + 2 * CHUNK, at + 3 * CHUNK, at + 4 * CHUNK};
    RowSlopes slopes = {at, at + CHUNK, NULL, NULL};
    double count = (double)CHUNK * VOCAB;
    report("cross_entropy_stats, 4,096 rows", count * 4, 0,
           [&] { kernels->cross_entropy_stats(&stats, logits, token, 0); });
    report("cross_entropy_backward, 4,096 rows", count * 6, 0,
           [&] { kernels->cross_entropy_backward(grad, logits, &slopes, token, 0); });
    report("softmax_segments, 256 rows", 256.0 * VOCAB * 4, 0,
           [&] { kernels->softmax_segments((float *)dtable.data, gpu_rows(logits, 0, 256), at); });
    const int64_t n = (int64_t)VOCAB * HIDDEN;
    Tensor master = gpu_random(DTYPE_F32, 1, n, 3, 1), m = gpu_result(DTYPE_F32, 1, n);
    Tensor v = gpu_result(DTYPE_F32, 1, n), weight = gpu_result(DTYPE_BF16, 1, n);
    AdamWParams params = {1e-5, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1.0};
    report("adamw, 156 M parameters", (double)n * (16 + 12 + 2), 0, [&] {
        kernels->adamw((float *)master.data, (float *)m.data, (float *)v.data, (float *)dtable.data,
                       weight.data, DTYPE_BF16, n, &params);
    });
    const ElementRange whole = {0, n};
    report("sum_squares, 156 M", (double)n * 4, 0,
           [&] { (void)kernels->sum_squares((const float *)dtable.data, &whole, 1); });
    void *all[] = {token,      dtable.data, y.data, logits.data, grad.data,
                   rows5.data, master.data, m.data, v.data,      weight.data};
    for (void *memory : all)
        kernels->free(memory);
}

static void time_attention(int length)
{
    std::vector<int32_t> starts;
    for (int i = 0; i <= TOKENS; i += length)
        starts.push_back(i);
    int32_t *cu_seqlens = gpu_array(starts);
    const SequenceTable table = {(int)starts.size() - 1, cu_seqlens, NULL, starts.data(), NULL};
    const AttentionShape shape = {HEADS, KV_HEADS, DIM, 0.0883883f, QKV, QKV, QKV, HEADS * DIM};
    Tensor qkv = gpu_random(DTYPE_BF16, TOKENS, QKV, 1, 1),
           dqkv = gpu_result(DTYPE_BF16, TOKENS, QKV);
    Tensor out = gpu_result(DTYPE_BF16, TOKENS, HEADS * DIM),
           lse = gpu_result(DTYPE_F32, HEADS, TOKENS);
    Bf16 *q = (Bf16 *)qkv.data, *dq = (Bf16 *)dqkv.data;
    const int k = HEADS * DIM, v = (HEADS + KV_HEADS) * DIM;
    /* Causal: half of 4 length^2 dim an attended sequence and head; the backward pass 2.5 times as
     * much. */
    double flops = 2.0 * HEADS * DIM * (double)length * TOKENS,
           bytes = (double)TOKENS * (QKV + HEADS * DIM) * 2;
    char name[64];
    snprintf(name, sizeof name, "attention, documents of %d", length);
    report(name, bytes, flops, [&] {
        kernels->attention(out.data, (float *)lse.data, DTYPE_BF16, q, q + k, q + v, &shape, &table,
                           NULL);
    });
    snprintf(name, sizeof name, "attention_backward, documents of %d", length);
    report(name, 3 * bytes, 2.5 * flops, [&] {
        kernels->attention_backward(dq, dq + k, dq + v, DTYPE_BF16, out.data, q, q + k, q + v,
                                    out.data, (const float *)lse.data, &shape, &table);
    });
    void *all[] = {cu_seqlens, qkv.data, dqkv.data, out.data, lse.data};
    for (void *memory : all)
        kernels->free(memory);
}

/* `batch` sequences of `length` positions, one new row each. */
static void time_decode(int batch, int length)
{
    const int64_t page_bytes = kernels->kv_page_bytes(DTYPE_BF16, KV_HEADS, DIM);
    const int pages = (length + KV_PAGE - 1) / KV_PAGE;
    std::vector<int32_t> starts, first, first_page, page;
    for (int i = 0; i <= batch; i++)
        starts.push_back(i);
    for (int i = 0; i < batch; i++) {
        first.push_back(length - 1);
        first_page.push_back(i * pages);
        for (int k = 0; k < pages; k++)
            page.push_back((int32_t)((int64_t)(i * pages + k) * 7919 % (batch * pages)));
    }
    int32_t *cu = gpu_array(starts), *positions = gpu_array(first), *at = gpu_array(first_page),
            *of = gpu_array(page);
    KvPages kv = {(char *)gpu_random(DTYPE_BF16, batch * pages, page_bytes / 2, 1, 1).data,
                  page_bytes, of, at};
    const SequenceTable table = {batch, cu, positions, starts.data(), first.data()};
    const AttentionShape shape = {HEADS, KV_HEADS, DIM, 0.0883883f, QKV, QKV, QKV, HEADS * DIM};
    const int64_t parts_bytes = kernels->kv_parts_bytes(&shape, batch, length);
    if (parts_bytes > 0) /* as the engine has them */
        kv.parts = {(float *)kernels->alloc((size_t)parts_bytes), batch, length};
    Tensor qkv = gpu_random(DTYPE_BF16, batch, QKV, 2, 1),
           out = gpu_result(DTYPE_BF16, batch, HEADS * DIM);
    Bf16 *q = (Bf16 *)qkv.data;
    char name[64];
    snprintf(name, sizeof name, "attention of %d new rows at %d", batch, length);
    report(name, (double)batch * length * 2 * KV_HEADS * DIM * 2, 0, [&] {
        kernels->attention(out.data, NULL, DTYPE_BF16, q, q + HEADS * DIM,
                           q + (HEADS + KV_HEADS) * DIM, &shape, &table, &kv);
    });
    void *all[] = {cu, positions, at, of, kv.memory, kv.parts.memory, qkv.data, out.data};
    for (void *memory : all)
        kernels->free(memory);
}

int main(void)
{
    gpu_open();
    measure_ceilings();
    printf("| operation | ms | limit, ms | at | TB/s | TFLOP/s |\n|---|---|---|---|---|---|\n");
    time_row_wise();
    time_embedding_and_loss();
    time_attention(4096);
    time_attention(512);
    time_decode(1, 1024);
    time_decode(256, 1024);
    time_decode(1, 16384);
    return 0;
}
