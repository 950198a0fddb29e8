/* Speed of the generation engine on any device: a published model's shape with random weights,
 * driven line by line (compare_engine.py), each line answered with one line of JSON:
 *
 *   bench_engine [device=cpu] [shape=qwen3-0.6b] [threads=2] [layers=28] [dtype=bf16]
 *                [samples=64] [length=2048] [kv_mb=3072]
 *     batch B P     B samples, each of its own random prompt of P tokens, up to their first token
 *     steps N       N steps of them: {"seconds"}
 *     prefill P     a random prompt of P tokens up to its first token: {"seconds"}
 *     group N P     N samples of one prompt: {"prompt_tokens", "computed"}
 *
 * or, with decode=B,B... [prompt=128] [steps=64] [rounds=5] [label=TEXT] [copy_mb=1024], decoding
 * of so many samples beside what the device allows, as Markdown:
 *
 * bandwidth limit: the bytes that a step must read and write once (every matrix, the keys and
 * values of all samples) over the memory's bandwidth; roofline: the same, or the step's FLOPs over
 * the peak rate where that takes longer. Both by the data sheet where the device is known, else by
 * a copy that is measured. A step is all of it: scheduling, forward pass, sampling, log-probs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/rng.h"
#include "arguments.h"
#include "bench_device.h"
#include "model/kv_cache.h"
#include "rollout_worker/engine/engine.h"
#include "shapes.h"

#define PROMPT_ROWS 512 /* of a step, beside one for each sample */
#define ROUNDS_MAX  64

typedef struct Settings {
    int threads, layers, samples, length, kv_mb, copy_mb, prompt, steps, rounds;
    DType dtype;
    const char *device, *shape, *decode, *label;
} Settings;

typedef struct Bench {
    Settings settings;
    BenchDevice device;
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

static void set_up(Bench *bench)
{
    Error err = {0};
    ModelConfig config;
    const Settings *settings = &bench->settings;
    if (!shape_find(settings->shape, settings->layers, &config)) die(shape_names());
    bench_device_open(settings->device, settings->threads, &bench->device);
    const KernelTable *kernels = bench->device.kernels;
    bench->plan = weight_plan_create(&config, 0, 1);
    bench->weights = weights_create(bench->plan, settings->dtype, kernels);
    bench_device_fill(kernels, bench->plan, bench->weights->flat, settings->dtype);
    weights_prepare(bench->weights);
    EngineOptions options = {
        .weights = bench->weights,
        .max_length = settings->length,
        .max_samples = settings->samples,
        .max_step_tokens = settings->samples > PROMPT_ROWS ? settings->samples : PROMPT_ROWS,
        .kv_bytes = (int64_t)settings->kv_mb << 20,
    };
    if (engine_create(&options, &bench->engine, &err) != OK) die(err.message);
    fprintf(stderr, "%s\n%s\n", bench->device.info.text, engine_memory_plan(bench->engine));
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
        token[i] =
            (int32_t)rng_below(bench->next, (uint64_t)i, (uint64_t)bench->plan->config.vocab_size);
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

/* `samples` samples up to their first token, each behind a prompt of its own. */
static void begin_batch(Bench *bench, int samples, int prompt)
{
    clear(bench);
    EngineStats before = engine_stats(bench->engine);
    for (int i = 0; i < samples; i++)
        submit(bench, 1, prompt, bench->settings.length - prompt);
    while (engine_stats(bench->engine).prompt_tokens_computed - before.prompt_tokens_computed <
           (int64_t)samples * prompt)
        step(bench);
}

static void obey(Bench *bench, const char *line)
{
    int a = 0, b = 0;
    EngineStats before = engine_stats(bench->engine);
    int64_t begin = clock_ns();
    if (sscanf(line, "batch %d %d", &a, &b) == 2) {
        begin_batch(bench, a, b);
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

/* ---- beside what the device allows ---- */

typedef struct Limits {
    double bandwidth, peak; /* bytes/s, FLOP/s; a peak of 0: not known */
    const char *by;
} Limits;

static Limits find_limits(const Bench *bench)
{
    double copied =
        bench_device_measure_copy(&bench->device, (size_t)bench->settings.copy_mb << 20);
    Limits limits = {copied, bench_device_peak(&bench->device), "a measured copy"};
    double sheet = bench_device_bandwidth(&bench->device);
    if (sheet > 0.0) limits = (Limits){sheet, limits.peak, "the data sheet"};
    if (bench->settings.dtype != DTYPE_BF16) limits.peak = 0.0;
    printf("bandwidth %.2f TB/s by %s", limits.bandwidth * 1e-12, limits.by);
    if (sheet > 0.0) printf(", %.2f TB/s by a measured copy", copied * 1e-12);
    printf("; peak %.1f TFLOP/s\n\n", limits.peak * 1e-12);
    return limits;
}

/* Of a step in which each of `samples` samples has `context` tokens before it. */
static double bytes_of(const Bench *bench, int samples, double context)
{
    const WeightPlan *plan = bench->plan;
    const ModelConfig *config = &plan->config;
    double size = (double)dtype_size(bench->settings.dtype);
    double weights = (double)plan->matrices.count * size;
    if (!config->tie_word_embeddings) /* of the table only rows are read */
        weights -= (double)(config->vocab_size * config->hidden_size) * size;
    double token =
        2.0 * config->num_hidden_layers * config->num_key_value_heads * config->head_dim * size;
    return weights + samples * (context + 1.0) * token;
}

static double flops_of(const Bench *bench, int samples, double context)
{
    /* Of a whole sequence attention is half a square; of a last row it is a whole row. */
    FlopCount count = {samples, samples, 2.0 * samples * (context + 1.0)};
    return model_config_forward_flops(&bench->plan->config, &count);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void time_decode(Bench *bench, int samples, const Limits *limits)
{
    const Settings *settings = &bench->settings;
    double took[ROUNDS_MAX];
    int rounds = settings->rounds < ROUNDS_MAX ? settings->rounds : ROUNDS_MAX;
    double context = 0.0;
    for (int r = 0; r < rounds; r++) {
        int64_t before = engine_stats(bench->engine).generated_tokens;
        begin_batch(bench, samples, settings->prompt);
        for (int i = 0; i < 4; i++) /* what is made when a shape is first met */
            step(bench);
        int64_t drawn = engine_stats(bench->engine).generated_tokens - before;
        context = settings->prompt + (double)drawn / samples + settings->steps / 2.0;
        int64_t begin = clock_ns();
        for (int i = 0; i < settings->steps; i++)
            step(bench);
        took[r] = (double)(clock_ns() - begin) * 1e-9 / settings->steps;
    }
    qsort(took, (size_t)rounds, sizeof *took, compare_doubles);
    double median = took[rounds / 2];
    double memory = bytes_of(bench, samples, context) / limits->bandwidth;
    double compute = limits->peak > 0.0 ? flops_of(bench, samples, context) / limits->peak : 0.0;
    double roofline = memory > compute ? memory : compute;
    printf("| %s | %d | %.0f | %.3f (%.3f to %.3f) | %.3f: %.1f %% | %.3f: %.1f %% |\n",
           settings->label, samples, samples / median, median * 1e3, took[0] * 1e3,
           took[rounds - 1] * 1e3, memory * 1e3, 100.0 * memory / median, roofline * 1e3,
           100.0 * roofline / median);
    fflush(stdout);
}

static void decode(Bench *bench)
{
    const char *at = bench->settings.decode;
    printf("\n### Decoding %s on %s, prompts of %d tokens and %d steps, median of %d rounds\n\n",
           bench->settings.shape, bench->device.info.name, bench->settings.prompt,
           bench->settings.steps, bench->settings.rounds);
    Limits limits = find_limits(bench);
    printf("| products | samples | tokens/s | ms a step | bandwidth limit, ms | roofline, ms |\n"
           "|---|---|---|---|---|---|\n");
    while (*at != '\0') {
        char *end = NULL;
        long samples = strtol(at, &end, 10);
        if (end == at || samples < 1 || samples > bench->settings.samples)
            die("decode=: whole numbers up to samples=, with commas between them");
        time_decode(bench, (int)samples, &limits);
        at = *end == ',' ? end + 1 : end;
    }
}

/* ---- start ---- */

#define USAGE                                                                                      \
    "usage: bench_engine [device=cpu|cuda] [shape=NAME] [threads=N] [layers=N] [dtype=f32|bf16] "  \
    "[samples=N] [length=N] [kv_mb=N] [copy_mb=N] [decode=B,B...] [prompt=N] [steps=N] "           \
    "[rounds=N] "                                                                                  \
    "[label=TEXT]"

static void parse_one(const char *argument, Settings *s)
{
    const struct {
        const char *name;
        int *number;
    } NUMBERS[] = {{"threads", &s->threads}, {"layers", &s->layers}, {"samples", &s->samples},
                   {"length", &s->length},   {"kv_mb", &s->kv_mb},   {"copy_mb", &s->copy_mb},
                   {"prompt", &s->prompt},   {"steps", &s->steps},   {"rounds", &s->rounds}};
    const struct {
        const char *name;
        const char **text;
    } TEXTS[] = {
        {"device", &s->device}, {"shape", &s->shape}, {"decode", &s->decode}, {"label", &s->label}};
    const char *value;
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++)
        if ((value = argument_value(argument, NUMBERS[i].name)) != NULL) {
            *NUMBERS[i].number = atoi(value);
            if (*NUMBERS[i].number < 1) die(USAGE);
            return;
        }
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
        if ((value = argument_value(argument, TEXTS[i].name)) != NULL) {
            *TEXTS[i].text = value;
            return;
        }
    s->dtype = strcmp(argument, "dtype=f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    if (s->dtype == DTYPE_BF16 && strcmp(argument, "dtype=bf16") != 0) die(USAGE);
}

int main(int argc, char **argv)
{
    Bench bench = {.next = 1,
                   .settings = {.threads = 2,
                                .layers = 28,
                                .samples = 64,
                                .length = 2048,
                                .kv_mb = 3072,
                                .copy_mb = 1024,
                                .prompt = 128,
                                .steps = 64,
                                .rounds = 5,
                                .dtype = DTYPE_BF16,
                                .device = "cpu",
                                .shape = "qwen3-0.6b",
                                .label = "default"}};
    char line[128];
    if (process_let_threads_sleep()) execv("/proc/self/exe", argv); /* as `serve` and actors do */
    for (int i = 1; i < argc; i++)
        parse_one(argv[i], &bench.settings);
    set_up(&bench);
    if (bench.settings.decode != NULL) decode(&bench);
    while (bench.settings.decode == NULL && fgets(line, sizeof line, stdin) != NULL) {
        obey(&bench, line);
        fflush(stdout);
    }
    engine_destroy(bench.engine);
    weights_destroy(bench.weights);
    weight_plan_destroy(bench.plan);
    return 0;
}
