/* What a push of weights costs on one host: a process in the part of a train rank publishes a model
 * of Qwen3-0.6B's shape on its weight board, one in the part of a rollout worker takes it over.
 *
 *   bench_push [rounds=7] [threads=2] [layers=28] [samples=8]
 *
 * Each round the train rank copies the same bytes plainly into other shared memory and publishes,
 * in turns, because a host's speed changes from second to second; the rollout worker copies, checks
 * and packs the version and switches its engine to it. Once with an idle engine, once while it
 * decodes that many samples. Reported: medians, and the median of the rounds' ratios to the plain
 * copy; these two, and the copy that is checked, in processor time of their one thread, the rest on
 * the wall. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/rng.h"
#include "base/shared_memory.h"
#include "model/weight_board.h"
#include "rollout_worker/engine/engine_thread.h"

#define ROUNDS_MAX   100
#define LENGTH_MAX   2048
#define PROMPT       64
#define SETTLE_NS    500000000
#define WEIGHT_RANGE 0.02f

#define MUST(call, err)                                                                            \
    do {                                                                                           \
        if ((call) != OK) {                                                                        \
            fprintf(stderr, "bench_push: %s\n", (err)->message);                                   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static WeightPlan *make_plan(int layers)
{
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
        .qk_norm = true,
        .tie_word_embeddings = true,
    };
    return weight_plan_create(&config, 0, 1);
}

static void talk(int fd, void *data, size_t bytes, bool writes)
{
    ssize_t done = writes ? write(fd, data, bytes) : read(fd, data, bytes);
    if (done != (ssize_t)bytes) exit(writes); /* the other side is gone: for a reader, the end */
}

/* ---- the train rank ---- */

typedef struct Pushed {
    int64_t copy_ns, publish_ns;
} Pushed;

static uint16_t *make_flat(const WeightPlan *plan)
{
    uint16_t *flat = mem_alloc((size_t)plan->size * sizeof *flat);
    for (int64_t i = 0; i < plan->size; i++) {
        uint32_t word = (uint32_t)i * 2654435761u;
        flat[i] = bf16_from_f32(WEIGHT_RANGE * (float)(int32_t)(word ^ word >> 15) * 0x1p-31f);
    }
    return flat;
}

/* Of this thread on a processor: copies wait for nothing but memory, and other programs disturb it
 * less than the time on the wall. */
static int64_t processor_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Asked for a version, answers with what it took. */
static _Noreturn void be_train_rank(const WeightPlan *plan, int from, int to)
{
    Error err = {0};
    WeightBoard *board = NULL;
    WeightBoardId board_id;
    SharedMemoryId other_id;
    SharedMemory *other = NULL;
    size_t bytes = (size_t)plan->size * sizeof(uint16_t), page = SHARED_MEMORY_PAGE;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    uint16_t *flat = make_flat(plan);
    MUST(weight_board_create(&(WeightBoardOptions){plan, DTYPE_BF16, NULL, 0}, &board_id, &board,
                             &err),
         &err);
    MUST(shared_memory_create("bench-push", bytes + page, &other_id, &other, &err), &err);
    talk(to, &board_id, sizeof board_id, true);
    for (int64_t version;;) {
        Pushed pushed = {0};
        talk(from, &version, sizeof version, false);
        for (int turn = 0; turn < 2; turn++) {
            int64_t began = processor_ns();
            if ((turn == 0) == (version % 2 == 0)) {
                memcpy((char *)other + page, flat, bytes);
                pushed.copy_ns = processor_ns() - began;
            } else {
                weight_board_publish(board, version, cpu_kernels(1), flat);
                pushed.publish_ns = processor_ns() - began;
            }
        }
        talk(to, &pushed, sizeof pushed, true);
    }
}

/* ---- the rollout worker ---- */

typedef struct Worker {
    const WeightPlan *plan;
    const KernelTable *kernels;
    WeightBoard *board;
    Weights *weights[2];
    EngineThread *engine;
    int ask, answer; /* of the train rank */
    int64_t version;
    /* of the engine's thread, read when it stands still or roughly */
    int64_t last_token_ns, longest_gap_ns, tokens;
} Worker;

static void on_token(void *context, const TokenEvent *event)
{
    (void)event;
    Worker *worker = context;
    int64_t now = clock_ns(), gap = now - worker->last_token_ns;
    if (worker->last_token_ns > 0 && gap > worker->longest_gap_ns) worker->longest_gap_ns = gap;
    worker->last_token_ns = now;
    worker->tokens++;
}

static void on_done(void *context, Generation *generation, const Error *why)
{
    (void)context, (void)why;
    generation_clear(generation);
}

typedef struct Round {
    Pushed pushed;
    double copy_s;          /* copied and checked */
    double take_s, pause_s; /* and packed; then switched */
    double gap_s; /* the longest without a token, the keys' and values' renewal included */
} Round;

static Round take_version(Worker *worker)
{
    Error err = {0};
    Round round = {0};
    worker->version++;
    talk(worker->ask, &worker->version, sizeof worker->version, true);
    talk(worker->answer, &round.pushed, sizeof round.pushed, false);
    int64_t began = clock_ns(), busy = processor_ns();
    Weights **weights = &worker->weights[worker->version % 2];
    if (*weights == NULL) *weights = weights_create(worker->plan, DTYPE_BF16, worker->kernels);
    MUST(weight_board_take(worker->board, worker->version, (*weights)->kernels, (*weights)->flat,
                           &err),
         &err);
    round.copy_s = (double)(processor_ns() - busy) / 1e9;
    weights_prepare(*weights);
    round.take_s = (double)(clock_ns() - began) / 1e9;
    worker->longest_gap_ns = 0;
    MUST(engine_thread_adopt(worker->engine, (const Weights *const *)weights, worker->version,
                             &round.pause_s, &err),
         &err);
    return round;
}

static uint64_t submit(Worker *worker, int samples)
{
    Error err = {0};
    int32_t prompt[PROMPT];
    uint64_t id = 0;
    GenerateRequest request = {.sample = 1,
                               .num_samples = samples,
                               .prompt = prompt,
                               .prompt_length = PROMPT,
                               .params = sampling_defaults()};
    GenerateSink sink = {.on_token = on_token, .on_done = on_done, .context = worker};
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (int32_t)rng_below(1, (uint64_t)i, 151936);
    request.params.max_new_tokens = LENGTH_MAX - PROMPT;
    MUST(engine_thread_submit(worker->engine, &request, &sink, &id, &err), &err);
    return id;
}

static void sleep_ns(int64_t ns)
{
    struct timespec wait = {ns / 1000000000, ns % 1000000000};
    nanosleep(&wait, NULL);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef enum { COPY, PUBLISH, RATIO, CHECKED, TAKE, PAUSE, GAP, FIGURES } Figure;

static double figure_of(const Round *round, Figure figure)
{
    double copy = (double)round->pushed.copy_ns / 1e9;
    double publish = (double)round->pushed.publish_ns / 1e9;
    const double all[FIGURES] = {copy,          publish,        publish / copy, round->copy_s,
                                 round->take_s, round->pause_s, round->gap_s};
    return all[figure];
}

/* Medians, and the worst of the pauses. */
static void report(const char *name, const Round *round, int rounds, double gigabytes)
{
    double median[FIGURES], worst_pause = 0;
    for (int f = 0; f < FIGURES; f++) {
        double value[ROUNDS_MAX];
        for (int r = 0; r < rounds; r++)
            value[r] = figure_of(&round[r], (Figure)f);
        qsort(value, (size_t)rounds, sizeof *value, compare_doubles);
        median[f] = value[rounds / 2];
        if (f == PAUSE) worst_pause = value[rounds - 1];
    }
    printf("%-9s memcpy %6.1f ms (%.1f GB/s), push %6.1f ms, ratio %.2f; copied and checked %6.1f "
           "ms, and packed %6.1f ms; pause %.3f ms (worst %.3f ms)",
           name, median[COPY] * 1e3, gigabytes / median[COPY], median[PUBLISH] * 1e3, median[RATIO],
           median[CHECKED] * 1e3, median[TAKE] * 1e3, median[PAUSE] * 1e3, worst_pause * 1e3);
    if (median[GAP] > 0) printf("; longest wait for a token around it %.1f ms", median[GAP] * 1e3);
    printf("\n");
}

static void run_rounds(Worker *worker, const char *name, int rounds, int samples)
{
    Round round[ROUNDS_MAX];
    uint64_t id = samples > 0 ? submit(worker, samples) : 0;
    for (int r = 0; r < rounds; r++) {
        if (samples > 0) sleep_ns(SETTLE_NS);
        int64_t before = worker->tokens;
        round[r] = take_version(worker);
        while (samples > 0 && worker->tokens == before)
            sleep_ns(1000000);
        if (samples > 0) sleep_ns(SETTLE_NS);
        round[r].gap_s = (double)worker->longest_gap_ns / 1e9;
    }
    if (samples > 0) engine_thread_abort(worker->engine, id);
    report(name, round, rounds, (double)worker->plan->size * sizeof(uint16_t) / 1e9);
}

static void be_rollout_worker(Worker *worker, int threads, int rounds, int samples)
{
    Error err = {0};
    WeightBoardId id;
    worker->kernels = cpu_kernels(threads);
    talk(worker->answer, &id, sizeof id, false);
    MUST(weight_board_open(&id, &(WeightBoardOptions){worker->plan, DTYPE_BF16, NULL, 0},
                           &worker->board, &err),
         &err);
    EngineThreadOptions options = {.engine = {.max_length = LENGTH_MAX,
                                              .max_samples = samples,
                                              .max_step_tokens = 512,
                                              .kv_bytes = (int64_t)2 << 30},
                                   .tp_size = 1};
    MUST(engine_thread_create(&options, &worker->engine, &err), &err);
    for (int i = 0; i < 2; i++)
        take_version(worker); /* touches all memory and makes the engine */
    printf("%.2f GB of weights\n", (double)worker->plan->size * sizeof(uint16_t) / 1e9);
    run_rounds(worker, "idle", rounds, 0);
    run_rounds(worker, "decoding", rounds, samples);
    engine_thread_destroy(worker->engine);
    weights_destroy(worker->weights[0]);
    weights_destroy(worker->weights[1]);
    weight_board_destroy(worker->board);
}

int main(int argc, char **argv)
{
    int rounds = 7, threads = 2, layers = 28, samples = 8, ask[2], answer[2];
    if (process_let_threads_sleep()) execv("/proc/self/exe", argv); /* as actors do */
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "rounds=%d", &rounds) != 1 &&
            sscanf(argv[i], "threads=%d", &threads) != 1 &&
            sscanf(argv[i], "layers=%d", &layers) != 1 &&
            sscanf(argv[i], "samples=%d", &samples) != 1) {
            fprintf(stderr, "usage: bench_push [rounds=N] [threads=N] [layers=N] [samples=N]\n");
            return 2;
        }
    if (rounds < 1 || rounds > ROUNDS_MAX || samples < 1 || threads < 1 || layers < 1) return 2;
    WeightPlan *plan = make_plan(layers);
    if (pipe(ask) != 0 || pipe(answer) != 0) return 1;
    pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        close(ask[1]);
        close(answer[0]);
        be_train_rank(plan, ask[0], answer[1]);
    }
    close(ask[0]);
    close(answer[1]);
    Worker worker = {.plan = plan, .ask = ask[1], .answer = answer[0]};
    be_rollout_worker(&worker, threads, rounds, samples);
    close(ask[1]); /* ends it */
    waitpid(child, NULL, 0);
    weight_plan_destroy(plan);
    return 0;
}
