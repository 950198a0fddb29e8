/* Speed of the generation engine on the CPU: a Qwen3-0.6B-shaped model with random weights in bf16,
 * driven line by line (compare_engine.py), each line answered with one line of JSON:
 *
 *   bench_engine [threads=2] [layers=28] [dtype=bf16]
 *     batch B P     B samples, each of its own random prompt of P tokens, up to their first token
 *     steps N       N steps of them: {"seconds"}
 *     prefill P     a random prompt of P tokens up to its first token: {"seconds"}
 *     group N P     N samples of one prompt: {"prompt_tokens", "computed"}
 *
 * A step is all of it: scheduling, forward pass, sampling, log-probs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/rng.h"
#include "model/kv_cache.h"
#include "rollout_worker/engine/engine.h"

#define LENGTH_MAX 2048

typedef struct Bench {
    WeightPlan *plan;
    Weights *weights;
    Engine *engine;
    uint64_t next;
} Bench;

static _Noreturn void die(const char *message)
{
    fprintf(stderr, "bench_engine: %s\n", message);
    exit(1);
}

/* Normal numbers drawn once and repeated: they only have to be numbers. */
static void make_weights(Bench *bench, DType dtype, const KernelTable *kernels)
{
    enum { DRAWN = 1 << 20 };
    float *drawn = mem_calloc(DRAWN, sizeof *drawn);
    size_t size = dtype_size(dtype);
    bench->weights = weights_create(bench->plan, dtype, kernels);
    for (int i = 0; i < DRAWN; i += 2) {
        RngBlock block = rng_block(1, 0, (uint64_t)i);
        rng_normal_pair(block.word[0], block.word[1], &drawn[i], &drawn[i + 1]);
        drawn[i] *= bench->plan->config.initializer_range;
        drawn[i + 1] *= bench->plan->config.initializer_range;
    }
    for (int i = 0; i < bench->plan->num_specs; i++) {
        const WeightSpec *spec = &bench->plan->spec[i];
        char *to = weight_view(bench->plan, i, bench->weights->flat, dtype).data;
        int64_t count = spec->local_rows * spec->local_cols;
        for (int64_t at = 0, n; at < count; at += n) {
            n = count - at < DRAWN ? count - at : DRAWN;
            kernels->cast(tensor_1d(to + (size_t)at * size, dtype, n),
                          tensor_1d(drawn, DTYPE_F32, n));
        }
    }
    free(drawn);
    weights_prepare(bench->weights);
}

static void set_up(Bench *bench, int threads, int layers, DType dtype)
{
    Error err = {0};
    ModelConfig config = {
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = 151936,
        .hidden_size = 1024,
        .intermediate_size = 3072,
        .num_hidden_layers = layers,
        .num_attention_heads = 16,
        .num_key_value_heads = 8,
        .head_dim = 128,
        .max_position_embeddings = 40960,
        .rope_theta = 1e6,
        .rms_norm_eps = 1e-6f,
        .initializer_range = 0.02f,
        .qk_norm = true,
        .tie_word_embeddings = true,
    };
    bench->plan = weight_plan_create(&config, 0, 1);
    make_weights(bench, dtype, cpu_kernels(threads));
    EngineOptions options = {
        .weights = bench->weights,
        .max_length = LENGTH_MAX,
        .max_samples = 64,
        .max_step_tokens = 512,
        .kv_bytes = (int64_t)3 << 30,
    };
    if (engine_create(&options, &bench->engine, &err) != OK) die(err.message);
    fprintf(stderr, "%s\n", engine_memory_plan(bench->engine));
}

static void submit(Bench *bench, int samples, int prompt, int32_t tokens)
{
    Error err = {0};
    int32_t *token = mem_calloc((size_t)prompt, sizeof *token);
    GenerateRequest request = {
        .id = bench->next,
        .sample = bench->next++,
        .num_samples = samples,
        .prompt = token,
        .prompt_length = prompt,
        .params = sampling_defaults(),
    };
    for (int i = 0; i < prompt; i++)
        token[i] = (int32_t)rng_below(bench->next, (uint64_t)i, 151936);
    request.params.max_new_tokens = tokens;
    if (engine_submit(bench->engine, &request, &err) != OK) die(err.message);
    free(token);
}

static void step(Bench *bench)
{
    Error err = {0};
    bool busy = false;
    if (engine_step(bench->engine, &busy, &err) != OK) die(err.message);
    Generation generation;
    while (engine_take(bench->engine, &generation))
        generation_clear(&generation);
}

static void clear(Bench *bench)
{
    engine_abort_all(bench->engine);
    step(bench);
}

static void obey(Bench *bench, const char *line)
{
    int a = 0, b = 0;
    EngineStats before = engine_stats(bench->engine);
    int64_t begin = clock_ns();
    if (sscanf(line, "batch %d %d", &a, &b) == 2) {
        clear(bench);
        before = engine_stats(bench->engine);
        for (int i = 0; i < a; i++)
            submit(bench, 1, b, LENGTH_MAX - b);
        while (engine_stats(bench->engine).prompt_tokens_computed - before.prompt_tokens_computed <
               (int64_t)a * b)
            step(bench);
    } else if (sscanf(line, "steps %d", &a) == 1) {
        for (int i = 0; i < a; i++)
            step(bench);
    } else if (sscanf(line, "prefill %d", &a) == 1) {
        clear(bench);
        before = engine_stats(bench->engine);
        submit(bench, 1, a, 1);
        begin = clock_ns();
        while (engine_stats(bench->engine).samples == before.samples)
            step(bench);
    } else if (sscanf(line, "group %d %d", &a, &b) == 2) {
        clear(bench);
        before = engine_stats(bench->engine);
        submit(bench, a, b, 4);
        for (int i = 0; i < 8; i++)
            step(bench);
        EngineStats after = engine_stats(bench->engine);
        printf("{\"prompt_tokens\": %lld, \"computed\": %lld}\n",
               (long long)(after.prompt_tokens - before.prompt_tokens),
               (long long)(after.prompt_tokens_computed - before.prompt_tokens_computed));
        return;
    } else {
        die(line);
    }
    printf("{\"seconds\": %.9f}\n", (double)(clock_ns() - begin) / 1e9);
}

int main(int argc, char **argv)
{
    Bench bench = {.next = 1};
    int threads = 2, layers = 28;
    DType dtype = DTYPE_BF16;
    char line[128];
    if (process_let_threads_sleep()) execv("/proc/self/exe", argv); /* as `serve` and actors do */
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "threads=%d", &threads) != 1 &&
            sscanf(argv[i], "layers=%d", &layers) != 1) {
            if (strcmp(argv[i], "dtype=f32") == 0)
                dtype = DTYPE_F32;
            else if (strcmp(argv[i], "dtype=bf16") != 0)
                die("usage: bench_engine [threads=N] [layers=N] [dtype=f32|bf16]");
        }
    set_up(&bench, threads, layers, dtype);
    while (fgets(line, sizeof line, stdin) != NULL) {
        obey(&bench, line);
        fflush(stdout);
    }
    engine_destroy(bench.engine);
    weights_destroy(bench.weights);
    weight_plan_destroy(bench.plan);
    return 0;
}
