/* Speed of a whole training step on the CPU: a Qwen3-0.6B-shaped model cut to a few layers, random
 * weights and tokens, every token trained, through the Trainer as a train worker uses it.
 *
 *   bench_train_cpu [threads=2] [tp=1] [layers=8] [dtype=bf16] [length=1024] [sequences=2]
 * [rounds=5]
 *
 * Each round times one step and, around it, the model's own matrix products by themselves (GEMM
 * rate: every product of the step once, at the shapes it has there; and the best single product). A
 * host's speed may change from second to second, so figures are best of rounds, with medians
 * beside. With rounds=0 it obeys a driver instead (compare_train_cpu.py): each line "step" or
 * "gemm" on stdin is answered with one JSON line. With tp=2 two processes of threads/2 each train
 * together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "trainer_state.h"

typedef struct Settings {
    int64_t threads, tp, layers, length, sequences, rounds;
    DType dtype;
} Settings;

typedef struct Bench {
    Settings settings;
    Trainer *trainer;
    Comm *comm; /* NULL when alone */
    int rank;
    Sample *sample;
    const Sample **pointer;
} Bench;

#define MUST(call, err)                                                                            \
    do {                                                                                           \
        if ((call) != OK) die((err)->message);                                                     \
    } while (0)

static _Noreturn void die(const char *message)
{
    fprintf(stderr, "bench_train_cpu: %s\n", message);
    exit(1);
}

static ModelConfig model_of(const Settings *settings)
{
    return (ModelConfig){
        .architecture = ARCHITECTURE_QWEN3,
        .vocab_size = 151936,
        .hidden_size = 1024,
        .intermediate_size = 3072,
        .num_hidden_layers = (int)settings->layers,
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
}

static void make_samples(Bench *bench)
{
    const Settings *settings = &bench->settings;
    size_t length = (size_t)settings->length;
    bench->sample = mem_calloc((size_t)settings->sequences, sizeof *bench->sample);
    bench->pointer = mem_calloc((size_t)settings->sequences, sizeof *bench->pointer);
    for (int64_t s = 0; s < settings->sequences; s++) {
        Sample *sample = &bench->sample[s];
        sample->length = (int32_t)length;
        sample->token = mem_calloc(length, sizeof *sample->token);
        sample->loss_mask = mem_calloc(length, 1);
        memset(sample->loss_mask + 1, 1, length - 1);
        for (size_t t = 0; t < length; t++)
            sample->token[t] = (int32_t)rng_below(1, (uint64_t)s * length + t, 151936);
        bench->pointer[s] = sample;
    }
}

static void set_up(Bench *bench)
{
    Error err = {0};
    const Settings *settings = &bench->settings;
    int threads = (int)(settings->threads / settings->tp);
    TrainerOptions options = {
        .model = model_of(settings),
        .dtype = settings->dtype,
        .max_tokens = settings->length * settings->sequences,
        .max_sequence_length = settings->length,
        .adam_beta1 = 0.9,
        .adam_beta2 = 0.95,
        .adam_eps = 1e-8,
        .weight_decay = 0.1,
        .clip_grad = 1.0,
        .kernels = cpu_kernels(threads < 1 ? 1 : threads),
        .tensor_comm = bench->comm,
    };
    MUST(trainer_create(&options, &bench->trainer, &err), &err);
    MUST(trainer_init_random(bench->trainer, 1, &err), &err);
    make_samples(bench);
    if (bench->rank == 0) fprintf(stderr, "%s\n", trainer_memory_plan(bench->trainer));
}

/* ---- a step ---- */

typedef struct StepTime {
    double seconds, tokens_per_s, flops_per_s;
    StepResult result;
} StepTime;

static StepTime time_step(Bench *bench)
{
    Error err = {0};
    StepTime time = {0};
    const Settings *settings = &bench->settings;
    MicroBatch batch = {bench->pointer, (int)settings->sequences};
    TrainStep step = {.micro_batch = &batch,
                      .num_micro_batches = 1,
                      .step = trainer_step(bench->trainer) + 1,
                      .trained_tokens = 0,
                      .lr = 1e-4};
    step.trained_tokens = (settings->length - 1) * settings->sequences;
    int64_t begin = clock_ns();
    MUST(trainer_train_step(bench->trainer, &step, &time.result, &err), &err);
    time.seconds = (double)(clock_ns() - begin) * 1e-9;
    time.tokens_per_s = (double)time.result.tokens / time.seconds;
    time.flops_per_s = time.result.flops * (double)settings->tp / time.seconds;
    return time;
}

/* ---- the products of a step by themselves ---- */

typedef struct GemmTime {
    double all_flops_per_s, best_flops_per_s;
} GemmTime;

static Tensor buffer(const Bench *bench, DType dtype, int64_t rows, int64_t columns)
{
    Tensor tensor = tensor_2d(NULL, dtype, rows, columns);
    tensor.data = bench->trainer->options.kernels->alloc(tensor_bytes(&tensor));
    if (dtype == DTYPE_BF16)
        for (int64_t i = 0; i < rows * columns; i++)
            ((uint16_t *)tensor.data)[i] = (uint16_t)(0x3F00 + i % 128);
    else
        for (int64_t i = 0; i < rows * columns; i++)
            ((float *)tensor.data)[i] = 0.5f + (float)(i % 128) / 256.0f;
    return tensor;
}

/* Forward, data gradient and weight gradient of one weight, `times` of each in a step. */
static void time_products(const Bench *bench, const Weight *weight, int64_t rows, double times,
                          double *flops, double *seconds, double *best)
{
    const KernelTable *kernels = bench->trainer->options.kernels;
    DType dtype = weight->plain.dtype;
    int64_t n = weight->plain.shape[0], k = weight->plain.shape[1];
    bool head = n > 4 * 3072 * 2;
    Tensor x = buffer(bench, dtype, rows, k), dy = buffer(bench, dtype, rows, n);
    Tensor y = head ? buffer(bench, DTYPE_F32, rows, n) : dy, dx = buffer(bench, dtype, rows, k);
    Tensor dw = buffer(bench, DTYPE_F32, n, k);
    double product = 2.0 * (double)rows * (double)n * (double)k;
    for (int kind = 0; kind < 3; kind++) {
        double least = 1e30;
        for (int i = 0; i < 3; i++) {
            int64_t begin = clock_ns();
            if (kind == 0) kernels->matmul(y, x, weight);
            if (kind == 1) kernels->matmul_dgrad(dx, dy, weight);
            if (kind == 2) kernels->matmul_wgrad_accumulate(dw, dy, x);
            double took = (double)(clock_ns() - begin) * 1e-9;
            if (took < least) least = took;
        }
        *flops += times * product;
        *seconds += times * least;
        if (product / least > *best) *best = product / least;
    }
    Tensor used[] = {x, dy, dx, dw};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        kernels->free(used[i].data);
    if (head) kernels->free(y.data);
}

static GemmTime time_gemm(Bench *bench)
{
    Error err = {0};
    double flops = 0.0, seconds = 0.0, rates[2] = {0.0, 0.0};
    const Settings *settings = &bench->settings;
    const LayerWeights *layer = &bench->trainer->weights->layer[0];
    int64_t rows = settings->length * settings->sequences;
    int64_t chunk =
        bench->trainer->head->chunk_rows < rows ? bench->trainer->head->chunk_rows : rows;
    const Weight *weights[] = {&layer->qkv, &layer->o, &layer->gate_up, &layer->down};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        time_products(bench, weights[i], rows, (double)settings->layers, &flops, &seconds,
                      &rates[1]);
    time_products(bench, &bench->trainer->weights->lm_head, chunk, (double)rows / (double)chunk,
                  &flops, &seconds, &rates[1]);
    rates[0] = flops / seconds;
    if (bench->comm != NULL) MUST(comm_all_reduce_f64(bench->comm, rates, 2, COMM_SUM, &err), &err);
    return (GemmTime){rates[0], rates[1]};
}

/* ---- a run of its own ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return values[count / 2];
}

static void run_rounds(Bench *bench)
{
    size_t count = (size_t)bench->settings.rounds;
    double *tokens = mem_calloc(count, sizeof *tokens), *share = mem_calloc(count, sizeof *share);
    StepTime best = {0};
    GemmTime gemm = time_gemm(bench);
    time_step(bench); /* the first makes primitives and touches memory */
    for (size_t i = 0; i < count; i++) {
        StepTime step = time_step(bench);
        GemmTime after = time_gemm(bench);
        if (after.all_flops_per_s > gemm.all_flops_per_s)
            gemm.all_flops_per_s = after.all_flops_per_s;
        if (after.best_flops_per_s > gemm.best_flops_per_s)
            gemm.best_flops_per_s = after.best_flops_per_s;
        tokens[i] = step.tokens_per_s;
        share[i] = step.flops_per_s / after.all_flops_per_s;
        if (step.tokens_per_s > best.tokens_per_s) best = step;
    }
    if (bench->rank == 0) {
        const StepResult *r = &best.result;
        printf("step      %.3f s: forward %.3f, backward %.3f, optimizer %.3f (collectives %.3f)\n",
               best.seconds, r->forward_s, r->backward_s, r->optimizer_s, r->comm_s);
        printf("tokens/s  best %.1f, median %.1f\n", best.tokens_per_s,
               median(tokens, bench->settings.rounds));
        printf("GFLOP/s   step %.0f; its products alone %.0f, best product %.0f\n",
               best.flops_per_s / 1e9, gemm.all_flops_per_s / 1e9, gemm.best_flops_per_s / 1e9);
        printf("of GEMM   best %.1f %%, median of rounds %.1f %%; of the best product %.1f %%\n",
               100.0 * best.flops_per_s / gemm.all_flops_per_s,
               100.0 * median(share, bench->settings.rounds),
               100.0 * best.flops_per_s / gemm.best_flops_per_s);
    }
    free(tokens);
    free(share);
}

/* ---- obeying a driver ---- */

static char next_command(Bench *bench)
{
    Error err = {0};
    char line[64] = "";
    int32_t command = 0;
    if (bench->rank == 0 && fgets(line, sizeof line, stdin) != NULL) command = line[0];
    if (bench->comm != NULL)
        MUST(comm_broadcast(bench->comm, tensor_1d(&command, DTYPE_I32, 1), 0, &err), &err);
    return (char)command;
}

static void obey(Bench *bench)
{
    for (char command; (command = next_command(bench)) != '\0';) {
        if (command == 's') {
            StepTime step = time_step(bench);
            const StepResult *r = &step.result;
            if (bench->rank == 0)
                printf("{\"seconds\": %.6f, \"tokens_per_s\": %.3f, \"flops_per_s\": %.6g, "
                       "\"forward_s\": %.4f, \"backward_s\": %.4f, \"comm_s\": %.4f, "
                       "\"optimizer_s\": %.4f, \"loss\": %.6f}\n",
                       step.seconds, step.tokens_per_s, step.flops_per_s, r->forward_s,
                       r->backward_s, r->comm_s, r->optimizer_s,
                       r->loss_sum / (double)r->trained_tokens);
        } else {
            GemmTime gemm = time_gemm(bench);
            if (bench->rank == 0)
                printf("{\"all_flops_per_s\": %.6g, \"best_flops_per_s\": %.6g}\n",
                       gemm.all_flops_per_s, gemm.best_flops_per_s);
        }
        fflush(stdout);
    }
}

/* ---- start ---- */

static void parse(int argc, char **argv, Settings *settings)
{
    const struct {
        const char *name;
        int64_t *value;
    } NUMBERS[] = {{"threads=", &settings->threads},     {"tp=", &settings->tp},
                   {"layers=", &settings->layers},       {"length=", &settings->length},
                   {"sequences=", &settings->sequences}, {"rounds=", &settings->rounds}};
    for (int i = 1; i < argc; i++) {
        bool known = strcmp(argv[i], "dtype=bf16") == 0 || strcmp(argv[i], "dtype=f32") == 0;
        if (known) settings->dtype = strcmp(argv[i], "dtype=f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
        for (size_t k = 0; k < sizeof NUMBERS / sizeof *NUMBERS; k++) {
            size_t length = strlen(NUMBERS[k].name);
            if (strncmp(argv[i], NUMBERS[k].name, length) != 0) continue;
            *NUMBERS[k].value = strtoll(argv[i] + length, NULL, 10);
            known = true;
        }
        if (!known)
            die("usage: [threads=2] [tp=1] [layers=8] [dtype=bf16] [length=1024] "
                "[sequences=2] [rounds=5]");
    }
}

/* Forks the other ranks; this process is rank 0. */
static void join_ranks(Bench *bench)
{
    Error err = {0};
    CommId id;
    int size = (int)bench->settings.tp;
    if (size == 1) return;
    MUST(comm_id_create(COMM_SHM, size, (size_t)4 << 20, &id, &err), &err);
    for (int r = 1; r < size && bench->rank == 0; r++) {
        pid_t child = fork();
        if (child < 0) die("could not fork");
        if (child > 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bench->rank = r;
    }
    MUST(comm_create(COMM_SHM, &id, bench->rank, size, 600000, &bench->comm, &err), &err);
}

int main(int argc, char **argv)
{
    Bench bench = {.settings = {2, 1, 8, 1024, 2, 5, DTYPE_BF16}};
    parse(argc, argv, &bench.settings);
    join_ranks(&bench);
    set_up(&bench);
    if (bench.settings.rounds > 0)
        run_rounds(&bench);
    else
        obey(&bench);
    fflush(stdout);
    trainer_destroy(bench.trainer);
    comm_destroy(bench.comm);
    for (int64_t s = 0; s < bench.settings.sequences; s++)
        sample_clear(&bench.sample[s]);
    free(bench.sample);
    free(bench.pointer);
    if (bench.rank == 0)
        while (wait(NULL) > 0) {
        }
    return 0;
}
