/* The engine on a device whose memory the host cannot touch (fenced_kernels.h), and which records
 * (recorded_kernels.h): what it generates, with every kind of sampling, is what it generates on the
 * CPU, to the bit. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "../../tensor/fenced_kernels.h"
#include "../../tensor/recorded_kernels.h"
#include "toy_engine.h"
#include "workload.h"

#define DEVICE_BYTES ((size_t)512 << 20)
#define REQUESTS     60
#define RESULTS_MAX  (1 << 18)

typedef enum { ON_CPU, ON_DEVICE, RECORDED, ENFORCED_EAGER, NUM_PLACES } Place;

typedef struct Job {
    Place place;
    char *result; /* [RESULTS_MAX] what was generated, request by request */
    size_t *length;
} Job;

static void put(Job *job, const void *bytes, size_t count)
{
    rank_check(*job->length + count <= RESULTS_MAX);
    memcpy(job->result + *job->length, bytes, count);
    *job->length += count;
}

static int by_request(const void *a, const void *b)
{
    const Outcome *x = a, *y = b;
    if (x->number != y->number) return x->number - y->number;
    return (int)x->generation.index - (int)y->generation.index;
}

static void generate(const Ranks *given, void *argument)
{
    static const int32_t ends[] = {WORKLOAD_END};
    Job *job = argument;
    Ranks ranks = *given;
    ToyEngine toy;
    EngineOptions options;
    Workload workload = {
        .seed = 11, .num_requests = REQUESTS, .in_work_max = 7, .with_stops = true};
    if (job->place != ON_CPU) ranks.kernels = fenced_kernels(given->kernels, DEVICE_BYTES);
    if (job->place >= RECORDED) ranks.kernels = recorded_kernels(ranks.kernels);
    toy_engine_init(&toy, &ranks, 24, &options); /* few pages: some are recomputed */
    options.enforce_eager = job->place == ENFORCED_EAGER;
    options.end_token = ends;
    options.num_end_tokens = 1;
    toy_engine_start(&toy, &options);
    workload_run(&workload, toy.engine);
    qsort(workload.outcome, (size_t)workload.num_outcomes, sizeof *workload.outcome, by_request);
    for (int i = 0; i < workload.num_outcomes; i++) {
        const Generation *generation = &workload.outcome[i].generation;
        size_t tokens = (size_t)generation->length;
        outcome_check(&workload, &workload.outcome[i], toy.tokenizer);
        put(job, &generation->length, sizeof generation->length);
        put(job, generation->token, tokens * sizeof *generation->token);
        put(job, generation->log_prob, tokens * sizeof *generation->log_prob);
    }
    EngineStats stats = engine_stats(toy.engine);
    if (job->place == RECORDED)
        rank_check(stats.graph_steps > stats.steps / 3 && stats.no_graphs == NULL);
    else
        rank_check(stats.graph_steps == 0 && stats.graphs == 0);
    workload_clear(&workload);
    toy_engine_clear(&toy);
    rank_check(recorded_counts().graphs_left == 0);
}

static void test_engine_touches_device_memory_through_kernels_alone(void **state)
{
    (void)state;
    char *results = shared_alloc(NUM_PLACES * RESULTS_MAX);
    size_t *lengths = shared_alloc(NUM_PLACES * sizeof *lengths);
    for (int place = 0; place < NUM_PLACES; place++) {
        Job job = {(Place)place, results + place * RESULTS_MAX, &lengths[place]};
        ranks_run(1, 1, generate, &job);
        assert_true(lengths[place] > 10000);
        assert_int_equal(lengths[place], lengths[ON_CPU]);
        assert_memory_equal(results, results + place * RESULTS_MAX, lengths[place]);
    }
    shared_free(lengths, NUM_PLACES * sizeof *lengths);
    shared_free(results, NUM_PLACES * RESULTS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_touches_device_memory_through_kernels_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
