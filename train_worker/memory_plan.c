#include "memory_plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "model/backward.h"
#include "model/head.h"
#include "model/model.h"
#include "model/weight_board.h"

/* Logits of one chunk of the head: small beside a model whose vocabulary makes them large. */
#define LOGITS_BYTES ((int64_t)512 << 20)

/* On a GPU a chunk reads and writes the gradient of the whole output matrix at the memory's speed,
 * and few rows do not fill it. Logits are larger there only in memory that is to spare: an eighth
 * is left for what a later stage may add. */
#define DEVICE_CHUNK_ROWS  4096
#define DEVICE_SPARE_SHARE 8

/* Copies of the matrices that kernels keep of a model, for so many kinds of product: kernels.h says
 * which do. */
static int64_t packed_bytes(const WeightPlan *plan, DType dtype, const KernelTable *kernels,
                            int kinds)
{
    bool packs = kernels == NULL || kernels->host_memory;
    return packs ? kinds * plan->matrices.count * (int64_t)dtype_size(dtype) : 0;
}

int64_t memory_plan_reference(const WeightPlan *plan, DType dtype, const KernelTable *kernels)
{
    return plan->size * (int64_t)dtype_size(dtype) + packed_bytes(plan, dtype, kernels, 1);
}

static MemoryPlan plan_with(const MemoryRequest *request, KeepPolicy policy, int64_t chunk_rows)
{
    const WeightPlan *plan = request->plan;
    int64_t size = plan->size, element = (int64_t)dtype_size(request->dtype);
    int64_t rows = request->max_tokens;
    MemoryPlan memory = {.policy = policy, .max_tokens = rows};
    memory.chunk_rows = chunk_rows;
    memory.weights = size * element;
    memory.packed = packed_bytes(plan, request->dtype, request->kernels, 2); /* x w^T and dy w */
    if (request->with_reference)
        memory.reference = memory_plan_reference(plan, request->dtype, request->kernels);
    memory.shown = weight_board_bytes(plan, request->dtype, request->shown);
    memory.masters = request->dtype == DTYPE_F32 ? 0 : size * (int64_t)sizeof(float);
    memory.gradients = size * (int64_t)sizeof(float) + gradients_sum_bytes(plan);
    memory.moments = 2 * size * (int64_t)sizeof(float);
    memory.activations = activations_bytes(plan, request->dtype, policy, rows);
    memory.head = head_bytes(plan, request->dtype, rows, memory.chunk_rows, true);
    memory.rope = model_rope_bytes(&plan->config, request->max_sequence_length);
    memory.total = memory.weights + memory.packed + memory.masters + memory.gradients +
                   memory.moments + memory.activations + memory.head + memory.rope +
                   memory.reference + memory.shown;
    return memory;
}

/* The same with a device's larger chunks, where there is room. Ranks that hold a model together cut
 * the same chunks, whatever memory each has: theirs stay as they are. */
static void widen_head(const MemoryRequest *request, MemoryPlan *memory)
{
    bool is_device = request->kernels != NULL && !request->kernels->host_memory;
    if (!is_device || request->plan->tp_size > 1) return;
    int64_t rows =
        head_chunk_rows(request->plan, request->max_tokens, DEVICE_CHUNK_ROWS, INT64_MAX);
    int64_t limit = request->bytes_max - request->bytes_max / DEVICE_SPARE_SHARE;
    MemoryPlan wider = plan_with(request, memory->policy, rows);
    if (request->bytes_max == 0 || wider.total <= limit) *memory = wider;
}

Status memory_plan_make(const MemoryRequest *request, MemoryPlan *ret, Error *err)
{
    MemoryPlan memory = {0};
    int64_t rows =
        head_chunk_rows(request->plan, request->max_tokens, HEAD_CHUNK_ROWS, LOGITS_BYTES);
    for (int policy = KEEP_ALL; policy < KEEP_NOTHING; policy++) {
        memory = plan_with(request, (KeepPolicy)policy, rows);
        if (request->bytes_max == 0 || memory.total <= request->bytes_max) {
            widen_head(request, &memory);
            *ret = memory;
            return OK;
        }
    }
    char *text = memory_plan_text(&memory);
    Status status =
        error_set(err, ERR_RESOURCE,
                  "the train worker needs %.2f GiB but may use %.2f GiB (%s).\n"
                  "Lower train.max_tokens_per_gpu or data.max_length (those of the largest stage), "
                  "raise train.tp_size, or do without a reference model or critic",
                  (double)memory.total / 0x1p30, (double)request->bytes_max / 0x1p30, text);
    free(text);
    return status;
}

int64_t memory_plan_kept(const MemoryPlan *plan)
{
    return plan->weights + plan->packed + plan->masters + plan->moments + plan->rope +
           plan->reference;
}

char *memory_plan_text(const MemoryPlan *memory)
{
    const struct {
        const char *name;
        int64_t bytes;
    } LINES[] = {
        {"weights", memory->weights},           {"weights packed for matmul", memory->packed},
        {"f32 masters", memory->masters},       {"f32 gradients", memory->gradients},
        {"AdamW moments", memory->moments},     {"activations", memory->activations},
        {"head and logits", memory->head},      {"RoPE table", memory->rope},
        {"reference model", memory->reference}, {"weights for generation", memory->shown},
    };
    Str text = {0};
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++)
        if (LINES[i].bytes > 0)
            str_printf(&text, "%s %.1f MiB, ", LINES[i].name, (double)LINES[i].bytes / 0x1p20);
    str_printf(&text,
               "together %.2f GiB; %lld tokens a micro-batch, %s, head in chunks of %lld rows",
               (double)memory->total / 0x1p30, (long long)memory->max_tokens,
               keep_policy_name(memory->policy), (long long)memory->chunk_rows);
    return str_take(&text);
}
