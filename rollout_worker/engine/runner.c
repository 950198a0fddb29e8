#include "rollout_worker/engine/runner.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/str.h"

Status engine_memory_plan_make(const EngineOptions *options, EngineMemory *ret, Error *err)
{
    const Weights *weights = options->weights;
    const WeightPlan *plan = weights->plan;
    int64_t element = (int64_t)dtype_size(weights->dtype);
    EngineMemory memory = {
        .weights = plan->size * element,
        .packed = weights->kernels->host_memory ? plan->matrices.count * element : 0,
        .page_bytes = kv_cache_page_bytes(plan, weights->dtype, weights->kernels),
        .activations =
            activations_bytes(plan, weights->dtype, KEEP_NOTHING, options->max_step_tokens) +
            kv_cache_parts_bytes(plan, weights->kernels, options->max_samples, options->max_length),
        .head = sampler_bytes(plan, weights->dtype, options->max_samples),
        .rope = model_rope_bytes(&plan->config, options->max_length),
        .graphs = decode_graphs_bytes(options),
    };
    int64_t pages = options->kv_bytes / memory.page_bytes;
    int64_t needed = (options->max_length + KV_PAGE - 1) / KV_PAGE;
    if (pages < needed)
        return error_set(err, ERR_INVALID,
                         "%lld bytes for keys and values are %lld pages of %d positions, but one "
                         "sequence of %d tokens takes %lld: give %lld bytes or shorten max_length",
                         (long long)options->kv_bytes, (long long)pages, KV_PAGE,
                         options->max_length, (long long)needed,
                         (long long)(needed * memory.page_bytes));
    memory.num_pages = pages < 1 << 24 ? (int)pages : 1 << 24;
    memory.pages = memory.num_pages * memory.page_bytes;
    memory.total = memory.weights + memory.packed + memory.pages + memory.activations +
                   memory.head + memory.rope + memory.graphs;
    *ret = memory;
    return OK;
}

char *engine_memory_plan_text(const EngineMemory *memory)
{
    const struct {
        const char *name;
        int64_t bytes;
    } LINES[] = {
        {"weights", memory->weights},       {"weights packed for matmul", memory->packed},
        {"keys and values", memory->pages}, {"activations", memory->activations},
        {"head and logits", memory->head},  {"RoPE table", memory->rope},
        {"graphs", memory->graphs},
    };
    Str text = {0};
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        if (LINES[i].bytes == 0 && i > 0) continue; /* a device without such a thing */
        str_printf(&text, "%s %.1f MiB, ", LINES[i].name, (double)LINES[i].bytes / 0x1p20);
    }
    str_printf(&text, "together %.2f GiB; %d pages of %d positions (%.2f MiB each)",
               (double)memory->total / 0x1p30, memory->num_pages, KV_PAGE,
               (double)memory->page_bytes / 0x1p20);
    return str_take(&text);
}

Runner *runner_create(const EngineOptions *options, const EngineMemory *memory)
{
    const Weights *weights = options->weights;
    Runner *runner = mem_calloc(1, sizeof *runner);
    const DeviceMemory *pools = options->pools;
    const MemoryPool pool = pools != NULL ? pools->pool_enter(POOL_STATE) : POOL_FIXED;
    runner->model = model_create(weights, options->tensor_comm, options->max_length);
    if (pools != NULL) pools->pool_enter(POOL_SCRATCH);
    const char *before = memory_purpose(options->kv_purpose);
    runner->cache =
        kv_cache_create(weights->plan, weights->dtype, weights->kernels, memory->num_pages);
    memory_purpose(before);
    kv_cache_add_parts(runner->cache, weights->plan, options->max_samples, options->max_length);
    runner->activations = activations_create(weights->plan, weights->dtype, KEEP_NOTHING,
                                             options->max_step_tokens, weights->kernels);
    if (pools != NULL) pools->pool_enter(POOL_STATE);
    runner->sampler = sampler_create(runner->model, options->max_samples);
    const DecodeParts parts = {runner->model, runner->cache, runner->activations, runner->sampler};
    runner->graphs = decode_graphs_create(options, &parts);
    if (pools != NULL) pools->pool_enter(pool);
    runner->drawn = mem_calloc((size_t)options->max_samples, sizeof *runner->drawn);
    runner->weight_version = options->weight_version;
    runner->switches = options->find_weights == NULL ? 1 : 0;
    return runner;
}

void runner_destroy(Runner *runner)
{
    if (runner == NULL) return;
    decode_graphs_destroy(runner->graphs);
    sampler_destroy(runner->sampler);
    activations_destroy(runner->activations);
    kv_cache_destroy(runner->cache);
    model_destroy(runner->model);
    free(runner->drawn);
    free(runner);
}

void runner_stage(Runner *runner, const Weights *weights, int64_t version)
{
    const Weights *now = runner->model->weights;
    CHECK(weights->dtype == now->dtype && weights->plan == now->plan);
    runner->staged = weights;
    runner->staged_version = version;
}

Status runner_switch(Runner *runner, int64_t version, Error *err)
{
    if (version == runner->weight_version) return OK;
    if (runner->staged == NULL || runner->staged_version != version)
        return error_set(
            err, ERR_INVALID, "asked to switch to weights of version %lld, but staged are %s%lld",
            (long long)version, runner->staged == NULL ? "none; in use: " : "those of ",
            (long long)(runner->staged == NULL ? runner->weight_version : runner->staged_version));
    runner->model->weights = runner->staged;
    runner->weight_version = version;
    runner->staged = NULL;
    return OK;
}

static void copy_pages(Runner *runner, const PageCopies *copies)
{
    for (int i = 0; i < copies->count; i++)
        kv_cache_copy_page(runner->cache, copies->copy[i].from, copies->copy[i].to);
}

Status runner_run(Runner *runner, const StepPlan *plan, Error *err)
{
    if (plan->batch->num_rows == 0) return OK;
    copy_pages(runner, &plan->before);
    if (plan->after.count == 0 && decode_graphs_take(runner->graphs, plan))
        return decode_graphs_run(runner->graphs, plan, runner->drawn, err);
    TRY(model_forward(runner->model, plan->batch, runner->cache, runner->activations, err));
    copy_pages(runner, &plan->after);
    return sampler_draw(runner->sampler, runner->activations->output, plan->draw, plan->num_draws,
                        runner->drawn, err);
}
