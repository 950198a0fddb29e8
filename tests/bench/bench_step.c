/* What a step of decoding costs the host on a device that records
 * (rollout_worker/engine/decode_graphs.h): from the plan over the upload and the launch to the
 * tokens in their sequences, over a device whose launches do nothing. What CUDA takes for a launch
 * and a copy comes on top.
 *
 *   bench_step [rounds=5]
 *
 * Steps of 1, 16 and 256 rows, of sequences of some hundred to 1,600 tokens. Medians of the rounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "model/kv_cache.h"
#include "rollout_worker/engine/engine.h"

#define ROUNDS_MAX  100
#define SAMPLES_MAX 256
#define GROUP       4
#define PROMPT      100
#define LENGTH      2048
#define VOCAB       512
#define WARMUP      100
#define STEPS       1400

#define MUST(call, err)                                                                            \
    do {                                                                                           \
        if ((call) != OK) {                                                                        \
            fprintf(stderr, "bench_step: %s\n", (err)->message);                                   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* ---- a device that does nothing when it is launched ---- */

static bool begin(char *text, size_t size)
{
    (void)text, (void)size;
    return true;
}

static DeviceGraph *end(char *text, size_t size)
{
    static char graph;
    (void)text, (void)size;
    return (DeviceGraph *)&graph;
}

static void launch(DeviceGraph *graph)
{
    (void)graph;
}

static const KernelTable *idle_device(void)
{
    static const DeviceGraphs graphs = {sizeof graphs, begin, end, launch, launch};
    static KernelTable table;
    table = *cpu_kernels(1); /* the first steps, which are not launched */
    table.host_memory = false;
    table.graphs = &graphs;
    return &table;
}

/* ---- an engine over it ---- */

static Engine *start(Weights **ret_weights)
{
    static const ModelConfig config = {
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = VOCAB,
        .hidden_size = 32,
        .intermediate_size = 32,
        .num_hidden_layers = 1,
        .num_attention_heads = 2,
        .num_key_value_heads = 1,
        .head_dim = 16,
        .max_position_embeddings = LENGTH,
        .rope_theta = 1e6,
        .rms_norm_eps = 1e-6f,
        .qk_norm = true,
        .tie_word_embeddings = true,
    };
    Error err = {0};
    Engine *engine = NULL;
    const WeightPlan *plan = weight_plan_create(&config, 0, 1);
    Weights *weights = weights_create(plan, DTYPE_F32, idle_device());
    weights_prepare(weights);
    int64_t page = kv_cache_page_bytes(plan, DTYPE_F32, weights->kernels);
    EngineOptions options = {
        .weights = weights,
        .max_length = LENGTH,
        .max_samples = SAMPLES_MAX,
        .max_step_tokens = SAMPLES_MAX + LENGTH,
        .kv_bytes = page * SAMPLES_MAX * LENGTH / KV_PAGE,
    };
    MUST(engine_create(&options, &engine, &err), &err);
    *ret_weights = weights;
    return engine;
}

static void submit(Engine *engine, int rows)
{
    Error err = {0};
    int32_t prompt[PROMPT];
    for (int i = 0; i < rows; i += GROUP) {
        for (int t = 0; t < PROMPT; t++)
            prompt[t] = (i * 7 + t * 13) % VOCAB;
        GenerateRequest request = {.id = (uint64_t)i + 1,
                                   .sample = (uint64_t)i + 1,
                                   .num_samples = rows < GROUP ? rows : GROUP,
                                   .prompt = prompt,
                                   .prompt_length = PROMPT,
                                   .params = sampling_defaults()};
        request.params.max_new_tokens = LENGTH - PROMPT;
        MUST(engine_submit(engine, &request, &err), &err);
    }
}

/* Microseconds of a step. */
static double measure(int rows)
{
    Error err = {0};
    bool busy = true;
    Weights *weights = NULL;
    Engine *engine = start(&weights);
    submit(engine, rows);
    for (int i = 0; i < WARMUP; i++)
        MUST(engine_step(engine, &busy, &err), &err);
    int64_t launched = engine_stats(engine).graph_steps, began = clock_ns();
    for (int i = 0; i < STEPS; i++)
        MUST(engine_step(engine, &busy, &err), &err);
    double us = (double)(clock_ns() - began) / 1e3 / STEPS;
    CHECKF(engine_stats(engine).graph_steps == launched + STEPS && busy, "steps were not launched");
    engine_destroy(engine);
    weight_plan_destroy((WeightPlan *)weights->plan);
    weights_destroy(weights);
    return us;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
    int rounds = 5;
    if (argc > 1) rounds = atoi(strncmp(argv[1], "rounds=", 7) == 0 ? argv[1] + 7 : "0");
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench_step [rounds=5]\n");
        return 2;
    }
    for (int rows = 1; rows <= SAMPLES_MAX; rows *= 16) {
        double us[ROUNDS_MAX];
        for (int i = 0; i < rounds; i++)
            us[i] = measure(rows);
        qsort(us, (size_t)rounds, sizeof *us, compare);
        printf("%3d rows: %.1f us of the host a step (from %.1f to %.1f)\n", rows, us[rounds / 2],
               us[0], us[rounds - 1]);
    }
    return 0;
}
