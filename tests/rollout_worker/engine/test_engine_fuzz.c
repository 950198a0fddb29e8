/* Many random requests with random ends and aborts: every result is whole, whatever happened to it,
 * and no page is lost. -DREQUESTS=n; a tenth of them at a time. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "toy_engine.h"
#include "workload.h"

#ifndef REQUESTS
#define REQUESTS 1500
#endif
#define ROUNDS 25

/* Ids, log-probs and mask have one length, on the wire too. */
static void check_sample(const Workload *workload, const Outcome *outcome)
{
    Error err = {0};
    Spec spec;
    Sample sample, again = {0};
    uint8_t *bytes = NULL;
    size_t length = 0;
    const Generation *g = &outcome->generation;
    spec_make(&spec, workload, outcome->number);
    generation_to_sample(g, spec.prompt, &sample);
    rank_check(sample.length == spec.request.prompt_length + g->length);
    for (int32_t t = 0; t < sample.length; t++) {
        bool generated = t >= spec.request.prompt_length;
        rank_check(sample.loss_mask[t] == generated);
        rank_check(sample.token[t] ==
                   (generated ? g->token[t - g->prompt_length] : spec.prompt[t]));
        rank_check(generated || sample.log_prob[t] == 0.0f);
    }
    rank_ok(sample_check_policy(&sample, &err), &err);
    sample_pack(&sample, &bytes, &length);
    rank_ok(sample_unpack(bytes, length, &again, &err), &err);
    size_t n = (size_t)sample.length;
    rank_check(again.length == sample.length);
    rank_check(memcmp(again.token, sample.token, n * sizeof *sample.token) == 0);
    rank_check(memcmp(again.log_prob, sample.log_prob, n * sizeof *sample.log_prob) == 0);
    rank_check(memcmp(again.loss_mask, sample.loss_mask, n) == 0);
    free(bytes);
    sample_clear(&sample);
    sample_clear(&again);
}

static void fuzz_body(const Ranks *ranks, void *argument)
{
    static const int32_t ends[] = {WORKLOAD_END};
    uint64_t round = *(const uint64_t *)argument;
    ToyEngine toy;
    EngineOptions options;
    toy_engine_init(&toy, ranks, 6 + (int)(round * 7 % 40), &options);
    options.max_samples = 1 + (int)(round * 5 % 20);
    options.max_step_tokens = options.max_samples + (int)(round * 11 % 60);
    options.end_token = ends;
    options.num_end_tokens = 1;
    options.forgets_prefixes = round % 4 == 3;
    toy_engine_start(&toy, &options);
    Workload workload = {.seed = 5000 + round,
                         .num_requests = REQUESTS / ROUNDS,
                         .in_work_max = 10,
                         .abort_one_in = 1 + (int)(round % 6),
                         .resume_percent = (int)(round % 3) * 40,
                         .with_stops = round % 2 == 0,
                         .long_samples = round % 8 == 5};
    workload_run(&workload, toy.engine);
    int64_t samples = 0;
    for (int i = 0; i < workload.num_requests; i++) {
        Spec spec;
        spec_make(&spec, &workload, i);
        samples += spec.request.num_samples;
    }
    rank_check(workload.num_outcomes == samples); /* one result for each that was asked for */
    for (int i = 0; i < workload.num_outcomes; i++) {
        outcome_check(&workload, &workload.outcome[i], toy.tokenizer);
        check_sample(&workload, &workload.outcome[i]);
    }
    workload_clear(&workload);
    toy_engine_clear(&toy);
}

static void test_random_requests_end_whole_and_leave_nothing(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < ROUNDS; round++)
        ranks_run(1, 1, fuzz_body, &round);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_requests_end_whole_and_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
