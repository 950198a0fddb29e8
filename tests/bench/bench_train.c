/* Speed of a whole training step on any device: a published model's shape, random weights and
 * tokens, every token trained, through the Trainer as a train worker uses it.
 *
 *   bench_train [device=cpu] [shape=qwen3-0.6b] [layers=0] [threads=2] [tp=1] [dtype=bf16]
 *               [length=1024] [sequences=2] [batches=1] [rounds=5] [memory_gb=0] [model=FOLDER]
 *
 * A step is `batches` micro-batches of `sequences` documents of `length` tokens each. layers=0:
 * those of the shape. memory_gb=0: on a GPU what a train worker would take, else no limit.
 * model=FOLDER reads the weights of a model folder (make_model) in place of filling them in.
 *
 * The first step is timed apart: it belongs to the start. Each round times one step; on the CPU
 * also, around it, the model's own matrix products by themselves (every product of the step once,
 * at the shapes it has there; and the best single product), on a GPU these are timed once at the
 * end. A host's speed may change from second to second, so figures are best of rounds, with medians
 * beside. MFU counts attention over the causal half of each document and the head, neither
 * embedding look-ups nor what is recomputed; its peak is the data sheet's. With rounds=0 it obeys a
 * driver instead (compare_train.py): each line "info", "step" or "gemm" on stdin is answered with
 * one JSON line. With tp=2 two processes of threads/2 train together, on the CPU alone. */
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
#include "arguments.h"
#include "bench_device.h"
#include "shapes.h"
#include "trainer_state.h"

typedef struct Settings {
    int64_t layers, threads, tp, length, sequences, batches, rounds, memory_gb;
    DType dtype;
    const char *device, *shape, *model;
} Settings;

/* Of the start, in seconds. */
typedef struct StartTimes {
    double device, create, read, upload, rest, first_step;
} StartTimes;

typedef struct Bench {
    Settings settings;
    BenchDevice device;
    ModelConfig model;
    Trainer *trainer;
    Comm *comm; /* NULL when alone */
    int rank;
    StartTimes start;
    Sample *sample;
    const Sample **pointer;
    MicroBatch *batch;
} Bench;

#define MUST(call, err)                                                                            \
    do {                                                                                           \
        if ((call) != OK) die((err)->message);                                                     \
    } while (0)

static _Noreturn void die(const char *message)
{
    fprintf(stderr, "bench_train: %s\n", message);
    exit(1);
}

static void make_samples(Bench *bench)
{
    const Settings *settings = &bench->settings;
    size_t length = (size_t)settings->length;
    int64_t count = settings->sequences * settings->batches;
    bench->sample = mem_calloc((size_t)count, sizeof *bench->sample);
    bench->pointer = mem_calloc((size_t)count, sizeof *bench->pointer);
    bench->batch = mem_calloc((size_t)settings->batches, sizeof *bench->batch);
    for (int64_t s = 0; s < count; s++) {
        Sample *sample = &bench->sample[s];
        sample->length = (int32_t)length;
        sample->token = mem_calloc(length, sizeof *sample->token);
        sample->loss_mask = mem_calloc(length, 1);
        memset(sample->loss_mask + 1, 1, length - 1);
        for (size_t t = 0; t < length; t++)
            sample->token[t] =
                (int32_t)rng_below(1, (uint64_t)s * length + t, (uint64_t)bench->model.vocab_size);
        bench->pointer[s] = sample;
    }
    for (int64_t b = 0; b < settings->batches; b++)
        bench->batch[b] =
            (MicroBatch){bench->pointer + b * settings->sequences, (int)settings->sequences};
}

static double seconds_since(int64_t begin_ns)
{
    return seconds(clock_ns() - begin_ns);
}

static void set_weights(Bench *bench)
{
    Error err = {0};
    Trainer *trainer = bench->trainer;
    int64_t begin = clock_ns();
    if (bench->settings.model != NULL) {
        MUST(trainer_load_weights(trainer, bench->settings.model, &err), &err);
    } else {
        bench_device_fill(bench->device.kernels, trainer->plan, trainer->optimizer->master,
                          DTYPE_F32);
        optimizer_publish(trainer->optimizer);
        trainer->ready = true;
    }
    bench->device.kernels->synchronize();
    LoadTimes load = trainer_load_times(trainer);
    bench->start.read = seconds(load.read_ns);
    bench->start.upload = seconds(load.upload_ns);
    bench->start.rest = seconds_since(begin) - bench->start.read - bench->start.upload;
}

static void set_up(Bench *bench)
{
    Error err = {0};
    const Settings *settings = &bench->settings;
    int threads = (int)(settings->threads / settings->tp);
    bench_device_open(settings->device, threads < 1 ? 1 : threads, &bench->device);
    bench->start.device = bench->device.open_s;
    int64_t begin = clock_ns(), free_bytes = bench->device.info.memory_free;
    TrainerOptions options = {
        .model = bench->model,
        .dtype = settings->dtype,
        .max_tokens = settings->length * settings->sequences,
        .max_sequence_length = settings->length,
        .adam_beta1 = 0.9,
        .adam_beta2 = 0.95,
        .adam_eps = 1e-8,
        .weight_decay = 0.1,
        .clip_grad = 1.0,
        .memory_bytes_max = settings->memory_gb << 30,
        .kernels = bench->device.kernels,
        .tensor_comm = bench->comm,
    };
    if (settings->memory_gb == 0 && bench->device.kind != DEVICE_CPU)
        options.memory_bytes_max = free_bytes / 10 * 9; /* as job_memory_share */
    MUST(trainer_create(&options, &bench->trainer, &err), &err);
    bench->start.create = seconds_since(begin);
    set_weights(bench);
    make_samples(bench);
    if (bench->rank == 0)
        fprintf(stderr, "%s\n%s\n", bench->device.info.text, trainer_memory_plan(bench->trainer));
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
    TrainStep step = {.micro_batch = bench->batch,
                      .num_micro_batches = (int)settings->batches,
                      .step = trainer_step(bench->trainer) + 1,
                      .lr = 1e-4};
    step.trained_tokens = (settings->length - 1) * settings->sequences * settings->batches;
    int64_t begin = clock_ns();
    MUST(trainer_train_step(bench->trainer, &step, &time.result, &err), &err);
    time.seconds = seconds_since(begin);
    time.tokens_per_s = (double)time.result.tokens / time.seconds;
    time.flops_per_s = time.result.flops * (double)settings->tp / time.seconds;
    if (step.step == 1) bench->start.first_step = time.seconds;
    return time;
}

/* ---- the products of a step by themselves ---- */

typedef struct GemmTime {
    double all_flops_per_s, best_flops_per_s;
} GemmTime;

/* Of device memory; values between a half and one. */
static Tensor buffer(const Bench *bench, DType dtype, int64_t rows, int64_t columns)
{
    const KernelTable *kernels = bench->device.kernels;
    Tensor tensor = tensor_2d(NULL, dtype, rows, columns);
    size_t bytes = tensor_bytes(&tensor);
    char *host = mem_alloc(bytes);
    for (int64_t i = 0; i < rows * columns; i++)
        if (dtype == DTYPE_BF16)
            ((uint16_t *)host)[i] = (uint16_t)(0x3F00 + i % 128);
        else
            ((float *)host)[i] = 0.5f + (float)(i % 128) / 256.0f;
    tensor.data = kernels->alloc(bytes);
    kernels->upload(tensor.data, host, bytes);
    kernels->synchronize();
    free(host);
    return tensor;
}

/* Forward, data gradient and weight gradient of one weight, `times` of each in a step. */
typedef struct Products {
    double flops, seconds, best;
} Products;

static void time_products(const Bench *bench, const Weight *weight, int64_t rows, double times,
                          Products *sum)
{
    const KernelTable *kernels = bench->device.kernels;
    DType dtype = weight->plain.dtype;
    int64_t n = weight->plain.shape[0], k = weight->plain.shape[1];
    bool head = weight == &bench->trainer->weights->lm_head;
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
            kernels->synchronize();
            double took = seconds_since(begin);
            if (took < least) least = took;
        }
        sum->flops += times * product;
        sum->seconds += times * least;
        if (product / least > sum->best) sum->best = product / least;
    }
    Tensor used[] = {x, dy, dx, dw};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        kernels->free(used[i].data);
    if (head) kernels->free(y.data);
}

static GemmTime time_gemm(Bench *bench)
{
    Error err = {0};
    const Settings *settings = &bench->settings;
    const Trainer *trainer = bench->trainer;
    const LayerWeights *layer = &trainer->weights->layer[0];
    int64_t rows = settings->length * settings->sequences;
    int64_t chunk = trainer->head->chunk_rows < rows ? trainer->head->chunk_rows : rows;
    double times = (double)(bench->model.num_hidden_layers * settings->batches);
    Products sum = {0};
    const Weight *weights[] = {&layer->qkv, &layer->o, &layer->gate_up, &layer->down};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        time_products(bench, weights[i], rows, times, &sum);
    time_products(bench, &trainer->weights->lm_head, chunk,
                  (double)(rows * settings->batches) / (double)chunk, &sum);
    double rates[2] = {sum.flops / sum.seconds, sum.best};
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

/* Of the best step, of all ranks; 0 where no data sheet is known. */
static double mfu_of(const Bench *bench, double flops_per_s)
{
    double peak = bench_device_peak(&bench->device);
    bool known = peak > 0.0 && bench->settings.dtype == DTYPE_BF16;
    return known ? flops_per_s / peak / (double)bench->settings.tp : 0.0;
}

/* Best and median of rounds. */
typedef struct Rounds {
    StepTime best;
    GemmTime gemm;
    double median_tokens, median_share; /* share: of the products' own rate */
} Rounds;

static void keep_best_gemm(GemmTime *best, GemmTime found)
{
    if (found.all_flops_per_s > best->all_flops_per_s)
        best->all_flops_per_s = found.all_flops_per_s;
    if (found.best_flops_per_s > best->best_flops_per_s)
        best->best_flops_per_s = found.best_flops_per_s;
}

static Rounds time_rounds(Bench *bench)
{
    int64_t count = bench->settings.rounds;
    bool on_host = bench->device.kind == DEVICE_CPU;
    double *tokens = mem_calloc((size_t)count, sizeof *tokens),
           *share = mem_calloc((size_t)count, sizeof *share);
    Rounds rounds = {.gemm = on_host ? time_gemm(bench) : (GemmTime){0}};
    for (int64_t i = 0; i < count; i++) {
        StepTime step = time_step(bench);
        GemmTime after = on_host || i + 1 == count ? time_gemm(bench) : (GemmTime){0};
        keep_best_gemm(&rounds.gemm, after);
        tokens[i] = step.tokens_per_s;
        share[i] = after.all_flops_per_s > 0.0 ? step.flops_per_s / after.all_flops_per_s : 0.0;
        if (step.tokens_per_s > rounds.best.tokens_per_s) rounds.best = step;
    }
    rounds.median_tokens = median(tokens, count);
    rounds.median_share = on_host ? median(share, count) : share[count - 1];
    free(tokens);
    free(share);
    return rounds;
}

static void print_start(const Bench *bench)
{
    const StartTimes *t = &bench->start;
    printf("start     device %.2f s, memory %.2f, read %.2f, upload %.2f, prepare %.2f, first step "
           "%.2f: %.2f s\n",
           t->device, t->create, t->read, t->upload, t->rest, t->first_step,
           t->device + t->create + t->read + t->upload + t->rest + t->first_step);
}

static void run_rounds(Bench *bench)
{
    time_step(bench); /* the first makes primitives and touches memory */
    int64_t used = bench_device_used(&bench->device);
    Rounds rounds = time_rounds(bench);
    const StepResult *r = &rounds.best.result;
    double mfu = mfu_of(bench, rounds.best.flops_per_s);
    if (bench->rank != 0) return;
    print_start(bench);
    printf("memory    %.2f GiB planned, %.2f GiB taken\n",
           (double)trainer_memory_bytes(bench->trainer) / 0x1p30, (double)used / 0x1p30);
    printf("step      %.3f s: forward %.3f, backward %.3f, optimizer %.3f (collectives %.3f); loss "
           "%.4f\n",
           rounds.best.seconds, r->forward_s, r->backward_s, r->optimizer_s, r->comm_s,
           r->loss_sum / (double)r->trained_tokens);
    printf("tokens/s  best %.1f, median %.1f\n", rounds.best.tokens_per_s, rounds.median_tokens);
    printf("GFLOP/s   step %.0f; its products alone %.0f, best product %.0f\n",
           rounds.best.flops_per_s / 1e9, rounds.gemm.all_flops_per_s / 1e9,
           rounds.gemm.best_flops_per_s / 1e9);
    printf("of GEMM   best %.1f %%, median of rounds %.1f %%; of the best product %.1f %%\n",
           100.0 * rounds.best.flops_per_s / rounds.gemm.all_flops_per_s,
           100.0 * rounds.median_share,
           100.0 * rounds.best.flops_per_s / rounds.gemm.best_flops_per_s);
    if (mfu > 0.0)
        printf("MFU       best %.1f %%, median %.1f %% of %.1f TFLOP/s\n", 100.0 * mfu,
               100.0 * mfu * rounds.median_tokens / rounds.best.tokens_per_s,
               bench_device_peak(&bench->device) / 1e12);
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

static void tell_step(const Bench *bench, const StepTime *step)
{
    const StepResult *r = &step->result;
    printf("{\"seconds\": %.6f, \"tokens_per_s\": %.3f, \"flops_per_s\": %.6g, \"mfu\": %.5f, "
           "\"forward_s\": %.4f, \"backward_s\": %.4f, \"comm_s\": %.4f, "
           "\"optimizer_s\": %.4f, \"loss\": %.6f}\n",
           step->seconds, step->tokens_per_s, step->flops_per_s, mfu_of(bench, step->flops_per_s),
           r->forward_s, r->backward_s, r->comm_s, r->optimizer_s,
           r->loss_sum / (double)r->trained_tokens);
}

static void tell_info(const Bench *bench)
{
    const StartTimes *t = &bench->start;
    printf("{\"device\": \"%s\", \"planned_bytes\": %lld, \"used_bytes\": %lld, "
           "\"recompute\": \"%s\", \"device_s\": %.3f, \"create_s\": %.3f, "
           "\"read_s\": %.3f, \"upload_s\": %.3f, \"prepare_s\": %.3f, "
           "\"first_step_s\": %.3f}\n",
           bench->device.info.name, (long long)trainer_memory_bytes(bench->trainer),
           (long long)bench_device_used(&bench->device),
           keep_policy_name(bench->trainer->memory.policy), t->device, t->create, t->read,
           t->upload, t->rest, t->first_step);
}

static void obey(Bench *bench)
{
    for (char command; (command = next_command(bench)) != '\0';) {
        bool tells = bench->rank == 0;
        if (command == 's') {
            StepTime step = time_step(bench);
            if (tells) tell_step(bench, &step);
        } else if (command == 'g') {
            GemmTime gemm = time_gemm(bench);
            if (tells)
                printf("{\"all_flops_per_s\": %.6g, \"best_flops_per_s\": %.6g}\n",
                       gemm.all_flops_per_s, gemm.best_flops_per_s);
        } else if (tells) {
            tell_info(bench);
        }
        fflush(stdout);
    }
}

/* ---- start ---- */

#define USAGE                                                                                      \
    "usage: bench_train [device=cpu|cuda] [shape=NAME] [layers=0] [threads=2] [tp=1] "             \
    "[dtype=bf16|f32] [length=1024] [sequences=2] [batches=1] [rounds=5] [memory_gb=0] "           \
    "[model=FOLDER]"

static bool parse_one(const char *argument, Settings *settings)
{
    const struct {
        const char *name;
        int64_t *number;
    } NUMBERS[] = {{"layers", &settings->layers},
                   {"threads", &settings->threads},
                   {"tp", &settings->tp},
                   {"length", &settings->length},
                   {"sequences", &settings->sequences},
                   {"batches", &settings->batches},
                   {"rounds", &settings->rounds},
                   {"memory_gb", &settings->memory_gb}};
    const struct {
        const char *name;
        const char **text;
    } TEXTS[] = {
        {"device", &settings->device}, {"shape", &settings->shape}, {"model", &settings->model}};
    const char *value = argument_value(argument, "dtype");
    if (value != NULL) {
        settings->dtype = strcmp(value, "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
        return strcmp(value, "f32") == 0 || strcmp(value, "bf16") == 0;
    }
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
        char *end = NULL;
        if ((value = argument_value(argument, NUMBERS[i].name)) == NULL) continue;
        *NUMBERS[i].number = strtoll(value, &end, 10);
        return end != value && *end == '\0' && *NUMBERS[i].number >= 0;
    }
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        if ((value = argument_value(argument, TEXTS[i].name)) == NULL) continue;
        *TEXTS[i].text = value;
        return true;
    }
    return false;
}

static void parse(int argc, char **argv, Bench *bench)
{
    Settings *settings = &bench->settings;
    for (int i = 1; i < argc; i++)
        if (!parse_one(argv[i], settings)) die(USAGE);
    if (settings->tp < 1 || settings->length < 2 || settings->sequences < 1 ||
        settings->batches < 1)
        die(USAGE);
    if (settings->tp > 1 && strcmp(settings->device, "cpu") != 0)
        die("tp: on the CPU alone; tests/gpu/nccl compares ranks on GPUs, and a job measures them");
    if (!shape_find(settings->shape, (int)settings->layers, &bench->model)) die(shape_names());
    if (settings->model != NULL) {
        Error err = {0};
        MUST(model_config_read(settings->model, &bench->model, &err), &err);
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
    Bench bench = {.settings = {.threads = 2,
                                .tp = 1,
                                .length = 1024,
                                .sequences = 2,
                                .batches = 1,
                                .rounds = 5,
                                .dtype = DTYPE_BF16,
                                .device = "cpu",
                                .shape = "qwen3-0.6b"}};
    parse(argc, argv, &bench);
    join_ranks(&bench);
    set_up(&bench);
    if (bench.settings.rounds > 0)
        run_rounds(&bench);
    else
        obey(&bench);
    fflush(stdout);
    trainer_destroy(bench.trainer);
    comm_destroy(bench.comm);
    for (int64_t s = 0; s < bench.settings.sequences * bench.settings.batches; s++)
        sample_clear(&bench.sample[s]);
    free(bench.sample);
    free(bench.pointer);
    free(bench.batch);
    if (bench.rank == 0)
        while (wait(NULL) > 0) {
        }
    return 0;
}
