#include "rollout_worker/engine/decode_graphs.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"

#define SIZES_MAX 32
#define NUM_SETS  2 /* of weights */
/* What a launch of a kernel takes in a graph: a guess on the safe side. */
#define NODE_BYTES 4096

/* Of one size and one set of weights, with the draws or up to the output alone. */
typedef struct Recorded {
    bool has_run;
    DeviceGraph *graph; /* NULL: not recorded yet */
} Recorded;

/* The set that kernels were recorded with: its memory is in their arguments. */
typedef struct WeightSet {
    const Weights *weights; /* NULL: none yet */
    const void *flat;
    int64_t last_used; /* step */
    Recorded recorded[SIZES_MAX][2];
} WeightSet;

struct DecodeGraphs {
    DecodeParts parts;
    const DeviceGraphs *device;
    int size[SIZES_MAX]; /* ascending */
    int num_sizes;
    Mirror inputs;
    Batch batch; /* its arrays stand in the inputs */
    double *uniform;
    float *temperature;
    PlacedDraws draws;
    size_t pages_at; /* in the inputs: where the pages begin, behind all else */
    int64_t max_pages;
    WeightSet set[NUM_SETS];
    int64_t steps, launches, num_recorded;
    char failure[512]; /* "": none */
};

/* ---- sizes and memory ---- */

/* Powers of two, from 8 on with one between each two, up to max_samples. */
static int list_sizes(int max_samples, int *ret)
{
    int count = 0;
    for (int size = 1; size < max_samples; size *= 2) {
        ret[count++] = size;
        if (size >= 8 && size + size / 2 < max_samples) ret[count++] = size + size / 2;
        CHECK(count < SIZES_MAX - 1);
    }
    ret[count++] = max_samples;
    return count;
}

static bool records(const EngineOptions *options)
{
    const Weights *weights = options->weights;
    return weights->kernels->graphs != NULL && weights->plan->tp_size == 1 &&
           !options->enforce_eager;
}

static int64_t pages_max(const EngineOptions *options)
{
    int64_t each = (options->max_length + KV_PAGE - 1) / KV_PAGE;
    return each * options->max_samples;
}

/* The arrays of a step one after the other, for `rows` rows, and room for pages. */
static size_t inputs_bytes(int64_t rows, int64_t pages)
{
    return (size_t)rows * (sizeof(double) + 5 * sizeof(int32_t)) +
           (size_t)(2 * (rows + 1) + pages) * sizeof(int32_t);
}

int64_t decode_graphs_bytes(const EngineOptions *options)
{
    int size[SIZES_MAX];
    if (!records(options)) return 0;
    int64_t sizes = list_sizes(options->max_samples, size);
    int64_t nodes = 9 * options->weights->plan->config.num_hidden_layers + 16;
    return (int64_t)inputs_bytes(options->max_samples, pages_max(options)) +
           NUM_SETS * sizes * 2 * nodes * NODE_BYTES;
}

/* The next `count` elements of 4 bytes, in both memories. */
static void take(DecodeGraphs *g, size_t *at, int64_t count, int32_t **ret_host,
                 const int32_t **ret_device)
{
    *ret_host = (int32_t *)(g->inputs.host + *at);
    *ret_device = (const int32_t *)(g->inputs.device + *at);
    *at += (size_t)count * sizeof(int32_t);
}

static void lay_out(DecodeGraphs *g, int64_t rows)
{
    Batch *batch = &g->batch;
    BatchOnDevice *device = &batch->device;
    size_t at = (size_t)rows * sizeof(double);
    int32_t *temperature;
    const int32_t *temperature_placed;
    g->uniform = (double *)g->inputs.host;
    take(g, &at, rows, &batch->token, &device->token);
    take(g, &at, rows, &batch->position, &device->position);
    take(g, &at, rows, &batch->first_position, &device->first_position);
    take(g, &at, rows, &batch->slot, &device->slot);
    take(g, &at, rows, &temperature, &temperature_placed);
    take(g, &at, rows + 1, &batch->cu_seqlens, &device->cu_seqlens);
    take(g, &at, rows + 1, &batch->first_page, &device->first_page);
    g->pages_at = at;
    take(g, &at, g->max_pages, &batch->page, &device->page);
    CHECK(at <= g->inputs.bytes);
    g->temperature = (float *)temperature;
    g->draws = (PlacedDraws){.temperature = (const float *)temperature_placed,
                             .uniform = (const double *)g->inputs.device};
}

DecodeGraphs *decode_graphs_create(const EngineOptions *options, const DecodeParts *parts)
{
    if (!records(options)) return NULL;
    DecodeGraphs *g = mem_calloc(1, sizeof *g);
    g->parts = *parts;
    g->device = options->weights->kernels->graphs;
    g->num_sizes = list_sizes(options->max_samples, g->size);
    g->max_pages = pages_max(options);
    g->inputs =
        mirror_create(options->weights->kernels, inputs_bytes(options->max_samples, g->max_pages));
    lay_out(g, options->max_samples);
    return g;
}

static void clear_set(DecodeGraphs *g, WeightSet *set)
{
    for (int i = 0; i < SIZES_MAX; i++)
        for (int draws = 0; draws < 2; draws++)
            g->device->destroy(set->recorded[i][draws].graph);
    *set = (WeightSet){0};
}

void decode_graphs_destroy(DecodeGraphs *g)
{
    if (g == NULL) return;
    for (int i = 0; i < NUM_SETS; i++)
        clear_set(g, &g->set[i]);
    mirror_destroy(&g->inputs);
    free(g);
}

/* ---- a step ---- */

bool decode_graphs_take(const DecodeGraphs *g, const StepPlan *plan)
{
    const Batch *batch = plan->batch;
    return g != NULL && batch->num_rows == batch->num_sequences &&
           batch->num_rows <= g->size[g->num_sizes - 1] &&
           batch->first_page[batch->num_sequences] <= g->max_pages;
}

/* Whether every row is drawn from, in its order, and the device does it by itself. */
static bool draws_all(const DecodeGraphs *g, const StepPlan *plan)
{
    if (plan->num_draws != plan->batch->num_rows) return false;
    for (int i = 0; i < plan->num_draws; i++)
        if (plan->draw[i].row != i) return false;
    return sampler_is_plain(g->parts.sampler, plan->draw, plan->num_draws);
}

static void copy_ints(int32_t *to, const int32_t *from, int64_t count)
{
    memcpy(to, from, (size_t)count * sizeof *to);
}

/* The plan's batch, and behind it rows and sequences of none up to `rows`. */
static void fill_batch(DecodeGraphs *g, const Batch *from, int rows)
{
    Batch *to = &g->batch;
    int n = from->num_sequences;
    int32_t pages = from->first_page[n];
    copy_ints(to->token, from->token, n);
    copy_ints(to->position, from->position, n);
    copy_ints(to->first_position, from->first_position, n);
    copy_ints(to->cu_seqlens, from->cu_seqlens, n + 1);
    copy_ints(to->first_page, from->first_page, n + 1);
    copy_ints(to->page, from->page, pages);
    to->num_rows = to->num_sequences = n;
    kv_cache_check(g->parts.cache, to);
    batch_fill_slots(to);
    for (int i = n; i < rows; i++) {
        to->token[i] = to->position[i] = to->first_position[i] = 0;
        to->slot[i] = -1;
        to->cu_seqlens[i + 1] = n;
        to->first_page[i + 1] = pages;
    }
    to->num_rows = to->num_sequences = rows;
}

static void fill_draws(DecodeGraphs *g, const StepPlan *plan, int rows, bool draws)
{
    for (int i = 0; i < rows; i++) {
        const Draw *draw = draws && i < plan->num_draws ? &plan->draw[i] : NULL;
        g->uniform[i] = draw != NULL ? draw_place(draw) : -1.0;
        g->temperature[i] = draw != NULL ? draw->temperature : 1.0f;
    }
}

/* What is recorded. */
static Status call_kernels(DecodeGraphs *g, bool draws, Error *err)
{
    const DecodeParts *p = &g->parts;
    TRY(model_forward_placed(p->model, &g->batch, p->cache, p->activations, err));
    if (draws)
        sampler_launch(p->sampler, p->activations->output, &g->draws, (int)g->batch.num_rows);
    return OK;
}

/* Where it fails nothing more is recorded, and steps run kernel by kernel. */
static void record(DecodeGraphs *g, Recorded *recorded, bool draws)
{
    if (g->device->begin(g->failure, sizeof g->failure)) {
        CHECK(call_kernels(g, draws, NULL) == OK); /* of one rank: nothing that can fail */
        recorded->graph = g->device->end(g->failure, sizeof g->failure);
    }
    if (recorded->graph == NULL)
        log_event(LOG_WARN, "no_decode_graphs", F_STR("why", g->failure));
    else if (g->num_recorded++ == 0)
        log_event(LOG_INFO, "decode_graphs", F_INT("first_rows", g->batch.num_rows));
}

static Status carry_out(DecodeGraphs *g, Recorded *recorded, bool draws, Error *err)
{
    if (recorded->graph == NULL && recorded->has_run && g->failure[0] == '\0')
        record(g, recorded, draws);
    if (recorded->graph == NULL) {
        recorded->has_run = true;
        return call_kernels(g, draws, err);
    }
    g->device->launch(recorded->graph);
    g->launches++;
    return OK;
}

/* Of the weights in use; they take the place of those that were used longest ago. */
static WeightSet *find_set(DecodeGraphs *g)
{
    const Weights *weights = g->parts.model->weights;
    WeightSet *set = &g->set[0];
    for (int i = 0; i < NUM_SETS; i++) {
        if (g->set[i].weights == weights && g->set[i].flat == weights->flat) return &g->set[i];
        if (g->set[i].last_used < set->last_used) set = &g->set[i];
    }
    clear_set(g, set);
    set->weights = weights;
    set->flat = weights->flat;
    return set;
}

Status decode_graphs_run(DecodeGraphs *g, const StepPlan *plan, Drawn *ret, Error *err)
{
    const DecodeParts *p = &g->parts;
    bool draws = draws_all(g, plan);
    int size = 0, rows = (int)plan->batch->num_rows;
    while (g->size[size] < rows)
        size++;
    fill_batch(g, plan->batch, g->size[size]);
    fill_draws(g, plan, g->size[size], draws);
    size_t pages = (size_t)plan->batch->first_page[rows] * sizeof(int32_t);
    mirror_push(&g->inputs, 0, g->pages_at + pages);
    activations_set_rows(p->activations, g->size[size]); /* as a launch leaves them */
    WeightSet *set = find_set(g);
    set->last_used = ++g->steps;
    TRY(carry_out(g, &set->recorded[size][draws], draws, err));
    if (draws) return sampler_take(p->sampler, rows, ret, err);
    return sampler_draw(p->sampler, p->activations->output, plan->draw, plan->num_draws, ret, err);
}

/* ---- figures ---- */

int64_t decode_graphs_launches(const DecodeGraphs *g)
{
    return g != NULL ? g->launches : 0;
}

int64_t decode_graphs_recorded(const DecodeGraphs *g)
{
    return g != NULL ? g->num_recorded : 0;
}

const char *decode_graphs_failure(const DecodeGraphs *g)
{
    return g != NULL && g->failure[0] != '\0' ? g->failure : NULL;
}
