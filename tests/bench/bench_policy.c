/* What reinforcement learning costs beside a supervised step, on the CPU: a Qwen3-0.6B-shaped model
 * cut to a few layers, random weights and tokens, groups of four samples.
 *
 *   bench_policy [threads=2] [layers=4] [length=256] [samples=8] [rounds=5]
 *
 * Each round times every kind of step once, one after the other, because a host's speed changes
 * from second to second; figures are the least of all rounds, and the median of each round's ratio
 * to its supervised step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "policy_step.h"

#define VOCAB      151936
#define ROUNDS_MAX 100

typedef enum { SUPERVISED, CLIP, ENTROPY, GSPO, REFERENCE, LOG_PROBS, KINDS } Kind;

static const char *const names[KINDS] = {
    [SUPERVISED] = "supervised step",
    [CLIP] = "clip: log-probs and entropies, one walk over the head",
    [ENTROPY] = "clip with entropy_coef",
    [GSPO] = "gspo: two walks over the head",
    [REFERENCE] = "clip with kl_loss_coef: a reference pass besides",
    [LOG_PROBS] = "a pass for log-probs alone",
};

typedef struct Bench {
    int64_t threads, layers, length, samples, rounds;
    Trainer *trainer;
    Sample *sample;
    SampleMeta *meta;
    const Sample **pointer;
    float **log_prob;
    int64_t trained_tokens;
} Bench;

#define MUST(call, err)                                                                            \
    do {                                                                                           \
        if ((call) != OK) {                                                                        \
            fprintf(stderr, "bench_policy: %s\n", (err)->message);                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* A quarter of each sample is prompt; the rest was sampled. */
static void make_sample(Bench *bench, int64_t s)
{
    size_t length = (size_t)bench->length;
    Sample *sample = &bench->sample[s];
    *sample = (Sample){.position = s / 4, .index = (int32_t)(s % 4), .temperature = 1.0f};
    sample->length = (int32_t)length;
    sample->prompt_length = (int32_t)length / 4;
    sample->reward = s % 3 == 0 ? 1.0f : 0.0f;
    sample->token = mem_calloc(length, sizeof *sample->token);
    sample->loss_mask = mem_calloc(length, 1);
    sample->log_prob = mem_calloc(length, sizeof *sample->log_prob);
    memset(sample->loss_mask + sample->prompt_length, 1, length - (size_t)sample->prompt_length);
    for (size_t t = 0; t < length; t++) {
        sample->token[t] = (int32_t)rng_below(1, (uint64_t)s * length + t, VOCAB);
        sample->log_prob[t] = sample->loss_mask[t] ? -11.9f : 0.0f;
    }
    bench->meta[s] = sample_meta(sample);
    bench->pointer[s] = sample;
    bench->log_prob[s] = mem_calloc(length, sizeof *bench->log_prob[s]);
    bench->trained_tokens += bench->meta[s].trained_tokens;
}

static void set_up(Bench *bench)
{
    Error err = {0};
    size_t samples = (size_t)bench->samples;
    TrainerOptions options = {
        .model = {.architecture = ARCHITECTURE_QWEN3,
                  .vocab_size = VOCAB,
                  .hidden_size = 1024,
                  .intermediate_size = 3072,
                  .num_hidden_layers = (int)bench->layers,
                  .num_attention_heads = 16,
                  .num_key_value_heads = 8,
                  .head_dim = 128,
                  .max_position_embeddings = 40960,
                  .rope_theta = 1e6,
                  .rms_norm_eps = 1e-6f,
                  .initializer_range = 0.02f,
                  .qk_norm = true,
                  .tie_word_embeddings = true},
        .dtype = DTYPE_BF16,
        .max_tokens = bench->length * bench->samples,
        .max_sequence_length = bench->length,
        .adam_beta1 = 0.9,
        .adam_beta2 = 0.95,
        .adam_eps = 1e-8,
        .clip_grad = 1.0,
        .kernels = cpu_kernels((int)bench->threads),
    };
    MUST(trainer_create(&options, &bench->trainer, &err), &err);
    MUST(trainer_init_random(bench->trainer, 1, &err), &err);
    bench->sample = mem_calloc(samples, sizeof *bench->sample);
    bench->meta = mem_calloc(samples, sizeof *bench->meta);
    bench->pointer = mem_calloc(samples, sizeof *bench->pointer);
    bench->log_prob = mem_calloc(samples, sizeof *bench->log_prob);
    for (int64_t s = 0; s < bench->samples; s++)
        make_sample(bench, s);
    fprintf(stderr, "%s\n", trainer_memory_plan(bench->trainer));
}

/* ---- one of each kind ---- */

static void supervised(Bench *bench, const MicroBatch *batch)
{
    Error err = {0};
    StepResult result;
    TrainStep step = {.micro_batch = batch, .num_micro_batches = 1, .lr = 1e-9};
    step.step = trainer_step(bench->trainer) + 1;
    step.trained_tokens = bench->trained_tokens;
    MUST(trainer_train_step(bench->trainer, &step, &result, &err), &err);
}

static void by_rewards(Bench *bench, const MicroBatch *batch, Kind kind)
{
    Error err = {0};
    AlgorithmConfig algorithm = {.eps_clip = 0.2, .eps_clip_high = 0.2, .std_normalization = true};
    if (kind == ENTROPY) algorithm.entropy_coef = 0.01;
    if (kind == GSPO) algorithm.policy_loss = POLICY_LOSS_GSPO;
    if (kind == REFERENCE) {
        algorithm.kl_loss_coef = 0.01;
        algorithm.kl_estimator = KL_K3;
    }
    PolicyStep step = {.micro_batch = batch, .num_micro_batches = 1, .lr = 1e-9};
    step.step = trainer_step(bench->trainer) + 1;
    step.trained_tokens = bench->trained_tokens;
    step.batch = bench->meta;
    step.batch_size = (int)bench->samples;
    PolicyStepResult result;
    MUST(policy_step(bench->trainer, NULL, &algorithm, &step, &result, &err), &err);
}

static void log_probs(Bench *bench, const MicroBatch *batch)
{
    Error err = {0};
    StepResult result = {0};
    float *const *lists[] = {bench->log_prob};
    MUST(trainer_log_probs(bench->trainer, WEIGHTS_CURRENT, batch, 1, lists, &result, &err), &err);
}

static double time_one(Bench *bench, Kind kind)
{
    MicroBatch batch = {bench->pointer, (int)bench->samples};
    int64_t begin = clock_ns();
    if (kind == SUPERVISED)
        supervised(bench, &batch);
    else if (kind == LOG_PROBS)
        log_probs(bench, &batch);
    else
        by_rewards(bench, &batch, kind);
    return (double)(clock_ns() - begin) * 1e-9;
}

/* The reference pass needs a reference: the model itself, by way of a folder. */
static void load_reference(Bench *bench)
{
    Error err = {0};
    SavedFiles files = {0};
    char folder[] = "/tmp/bench_policy.XXXXXX";
    if (mkdtemp(folder) == NULL) exit(1);
    MUST(trainer_save(bench->trainer, folder, &files, &err), &err);
    char *from = mem_printf("%s/%s", folder, files.file[0].name);
    char *to = mem_printf("%s/model.safetensors", folder);
    if (rename(from, to) != 0) exit(1);
    MUST(trainer_load_reference(bench->trainer, folder, &err), &err);
    char *command = mem_printf("rm -r %s", folder);
    if (system(command) != 0) exit(1);
    free(from);
    free(to);
    free(command);
    saved_files_clear(&files);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int64_t setting(int argc, char **argv, const char *name, int64_t preset)
{
    size_t length = strlen(name);
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], name, length) == 0 && argv[i][length] == '=')
            return atoll(argv[i] + length + 1);
    return preset;
}

int main(int argc, char **argv)
{
    static double taken[KINDS][ROUNDS_MAX], ratio[KINDS][ROUNDS_MAX];
    Bench bench = {
        .threads = setting(argc, argv, "threads", 2),
        .layers = setting(argc, argv, "layers", 4),
        .length = setting(argc, argv, "length", 256),
        .samples = setting(argc, argv, "samples", 8),
        .rounds = setting(argc, argv, "rounds", 5),
    };
    if (bench.rounds > ROUNDS_MAX) bench.rounds = ROUNDS_MAX;
    set_up(&bench);
    load_reference(&bench);
    time_one(&bench, SUPERVISED);
    for (int64_t round = 0; round < bench.rounds; round++)
        for (int kind = 0; kind < KINDS; kind++) {
            taken[kind][round] = time_one(&bench, (Kind)kind);
            ratio[kind][round] = taken[kind][round] / taken[SUPERVISED][round];
        }
    for (int kind = 0; kind < KINDS; kind++) {
        qsort(taken[kind], (size_t)bench.rounds, sizeof(double), compare);
        qsort(ratio[kind], (size_t)bench.rounds, sizeof(double), compare);
        printf("%-52s %7.3f s  %.3f of the supervised step\n", names[kind], taken[kind][0],
               ratio[kind][bench.rounds / 2]);
    }
    trainer_destroy(bench.trainer);
    return 0;
}
