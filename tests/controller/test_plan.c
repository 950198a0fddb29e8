/* Plans: the same samples whatever the workers did, balanced, packed within the limit, nothing
 * lost. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "core/plan.h"

static uint64_t number(uint64_t seed, uint64_t i, uint64_t bound)
{
    return rng_mix(seed * 1000003 + i) % bound;
}

/* Fills a stream from `base` on with samples whose lengths depend on the position alone; every
 * `reject`th is rejected. */
static void fill(Stream *stream, int64_t base, int count, int reject, int worker)
{
    stream_restart(stream, base);
    int64_t first;
    LeaseTerms terms = {.worker = worker, .from = base, .limit = base + count, .count_max = 3};
    while (stream_lease(stream, &terms, &first) > 0)
        for (int64_t p = first; p < first + 3 && p < base + count; p++) {
            SampleMeta meta = {.position = p,
                               .status = reject > 0 && p % reject == 0 ? SAMPLE_REJECTED
                                                                       : SAMPLE_COMPLETED,
                               .length = 1 + (int32_t)number(9, (uint64_t)p, 100),
                               .trained_tokens = 1};
            stream->now_ms = 10 * p;
            stream_deliver(stream, worker, &meta, 1,
                           meta.status == SAMPLE_REJECTED ? GROUP_NOTHING_TO_TRAIN : GROUP_KEPT);
        }
}

static void test_plan_takes_the_first_accepted_samples_in_order(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 64, 1);
    stream.end = 1000;
    fill(&stream, 100, 40, 4, 7);
    PlanOptions options = {.num_groups = 9, .dp_size = 1, .micro_batch_size = 2, .max_tokens = 1};
    Plan plan;
    assert_int_equal(plan_make(&stream, 100, &options, &plan), PLAN_MADE);
    const int64_t expected[] = {101, 102, 103, 105, 106, 107, 109, 110, 111};
    assert_int_equal(plan.num_samples, 9);
    for (int i = 0; i < 9; i++)
        assert_int_equal(plan.sample[i].position, expected[i]);
    assert_int_equal(plan.end_position, 112);
    assert_int_equal(plan.rejected, 3);
    assert_int_equal(plan.num_micro_batches, 5);
    for (int i = 0; i < 9; i++)
        assert_int_equal(plan.sample[i].holder, 7);
    plan_clear(&plan);
    assert_int_equal(plan_make(&stream, 112, &options, &plan), PLAN_MADE);
    assert_int_equal(plan.end_position, 124);
    assert_int_equal(plan.begun_ms, 1110); /* 112 to 114 were leased when 111 was there */
    assert_int_equal(plan.done_ms, 1230);
    plan_clear(&plan);
    stream_free(&stream);
}

static void test_plan_waits_for_a_gap_and_ends_with_the_stream(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 64, 1);
    stream.end = 10;
    fill(&stream, 0, 10, 0, 1);
    PlanOptions options = {.num_groups = 4, .dp_size = 1, .max_tokens = 1000};
    Plan plan;
    stream_worker_lost(&stream, 1); /* everything it held is free again */
    assert_int_equal(plan_make(&stream, 0, &options, &plan), PLAN_WAITS);
    fill(&stream, 0, 10, 0, 2);
    assert_int_equal(plan_make(&stream, 8, &options, &plan), PLAN_ENDS);
    options.allow_fewer = true;
    assert_int_equal(plan_make(&stream, 8, &options, &plan), PLAN_MADE);
    assert_int_equal(plan.num_samples, 2);
    plan_clear(&plan);
    assert_int_equal(plan_make(&stream, 10, &options, &plan), PLAN_ENDS);
    stream_free(&stream);
}

static void test_plan_says_when_a_whole_window_is_rejected(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 32, 1);
    stream.end = 1000;
    fill(&stream, 0, 32, 1, 1);
    PlanOptions options = {.num_groups = 4, .dp_size = 1, .max_tokens = 1000};
    Plan plan;
    assert_int_equal(plan_make(&stream, 0, &options, &plan), PLAN_CROWDED);
    stream_free(&stream);
}

/* What is known of the positions stays known, in a wider window; the widest has an end. */
static void test_a_wider_window_keeps_what_is_known(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 32, 2);
    stream.end = 1 << 30;
    fill(&stream, 50, 32, 3, 7);
    assert_true(stream_is_full(&stream));
    stream_consume(&stream, 60);
    int64_t accepted = stream.accepted_ahead, rejected = stream.rejected_ahead;
    assert_true(stream_widen(&stream));
    assert_int_equal(stream.capacity, 64);
    for (int64_t p = 60; p < 82; p++) {
        assert_int_equal(stream_slot(&stream, p)->state, p % 3 == 0 ? SLOT_REJECTED : SLOT_READY);
        assert_int_equal(stream_slot(&stream, p)->worker, 7);
        assert_int_equal(stream_samples(&stream, p)->position, p);
        assert_int_equal(stream_samples(&stream, p)->length, 1 + number(9, (uint64_t)p, 100));
    }
    assert_int_equal(stream.accepted_ahead, accepted);
    assert_int_equal(stream.rejected_ahead, rejected);
    for (int64_t p = 82; p < 124; p++)
        assert_int_equal(stream_slot(&stream, p)->state, SLOT_FREE);
    assert_null(stream_slot(&stream, 124));
    int64_t first;
    LeaseTerms terms = {.worker = 1, .from = 60, .limit = 1000, .count_max = 100};
    assert_int_equal(stream_lease(&stream, &terms, &first), 42);
    assert_int_equal(first, 82);
    while (stream_widen(&stream))
        ;
    assert_in_range(stream.capacity, 100000, 10000000);
    assert_int_equal(stream_slot(&stream, 123)->state, SLOT_LEASED);
    stream_free(&stream);
}

static void check_plan(const Plan *plan, const PlanOptions *options)
{
    int64_t seen = 0, smallest = INT64_MAX, largest = 0, longest = 0;
    for (int r = 0; r < options->dp_size; r++) {
        int64_t load = 0;
        for (int m = plan->rank_first[r]; m < plan->rank_first[r + 1]; m++) {
            const MicroBatchPlan *batch = &plan->micro_batch[m];
            int64_t tokens = 0;
            for (int i = batch->first; i < batch->first + batch->count; i++) {
                tokens += plan->sample[i].length;
                seen += plan->sample[i].position;
                if (plan->sample[i].length > longest) longest = plan->sample[i].length;
            }
            assert_true(tokens <= options->max_tokens || batch->count == 1);
            assert_true(batch->count > 0);
            load += tokens;
        }
        if (load < smallest) smallest = load;
        if (load > largest) largest = load;
    }
    /* Longest first leaves ranks no further apart than one sample. */
    assert_true(largest - smallest <= longest);
    int64_t expected = 0;
    for (int i = 0; i < plan->num_samples; i++)
        expected += plan->first_position + i;
    assert_int_equal(seen, expected);
}

static void test_plan_balances_and_packs_every_sample_once(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 512, 1);
    stream.end = 100000;
    for (uint64_t seed = 1; seed < 200; seed++) {
        int64_t base = (int64_t)number(seed, 1, 5000);
        PlanOptions options = {.num_groups = 1 + (int)number(seed, 2, 100),
                               .dp_size = 1 + (int)number(seed, 3, 5),
                               .max_tokens = 100 + (int64_t)number(seed, 4, 300)};
        fill(&stream, base, 200, 0, (int)number(seed, 5, 9));
        Plan plan;
        assert_int_equal(plan_make(&stream, base, &options, &plan), PLAN_MADE);
        check_plan(&plan, &options);
        plan_clear(&plan);
    }
    stream_free(&stream);
}

/* The plan as the words say it: every sample to the least loaded rank, longest first, then into the
 * first micro-batch that has room. */
static void plan_plainly(const Plan *plan, const PlanOptions *options, int *ret_rank, int *ret_bin)
{
    int count = plan->num_samples;
    int64_t *load = calloc((size_t)options->dp_size, sizeof *load);
    int64_t *fill = calloc((size_t)count * (size_t)options->dp_size, sizeof *fill);
    bool *done = calloc((size_t)count, sizeof *done);
    for (int turn = 0; turn < count; turn++) {
        int longest = -1, least = 0, bin = 0;
        for (int i = 0; i < count; i++) {
            if (done[i]) continue;
            const PlannedSample *a = &plan->sample[i];
            const PlannedSample *b = longest >= 0 ? &plan->sample[longest] : NULL;
            if (b == NULL || a->length > b->length ||
                (a->length == b->length && a->position < b->position))
                longest = i;
        }
        done[longest] = true;
        int64_t length = plan->sample[longest].length;
        for (int r = 1; r < options->dp_size; r++)
            if (load[r] < load[least]) least = r;
        load[least] += length;
        int64_t *bins = fill + (size_t)least * (size_t)count;
        while (bins[bin] > 0 && bins[bin] + length > options->max_tokens)
            bin++;
        bins[bin] += length;
        ret_rank[longest] = least;
        ret_bin[longest] = bin;
    }
    free(done);
    free(fill);
    free(load);
}

static void test_plan_is_longest_first_and_first_fit(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 512, 1);
    stream.end = 100000;
    for (uint64_t seed = 1; seed < 300; seed++) {
        PlanOptions options = {.num_groups = 1 + (int)number(seed, 2, 60),
                               .dp_size = 1 + (int)number(seed, 3, 6),
                               .max_tokens = 20 + (int64_t)number(seed, 4, 300)};
        int64_t base = (int64_t)number(seed, 1, 5000);
        fill(&stream, base, 200, 0, 1);
        Plan plan;
        int rank[64], bin[64];
        assert_int_equal(plan_make(&stream, base, &options, &plan), PLAN_MADE);
        plan_plainly(&plan, &options, rank, bin);
        for (int r = 0; r < options.dp_size; r++)
            for (int m = plan.rank_first[r]; m < plan.rank_first[r + 1]; m++)
                for (int i = 0; i < plan.micro_batch[m].count; i++) {
                    int at = plan.micro_batch[m].first + i;
                    assert_int_equal(rank[at], r);
                    assert_int_equal(bin[at], m - plan.rank_first[r]);
                }
        plan_clear(&plan);
    }
    stream_free(&stream);
}

/* Two plans of the same samples, by whom they were made: the same, whoever that was. */
static void assert_plans_equal(const Plan *a, const Plan *b)
{
    assert_int_equal(a->num_samples, b->num_samples);
    assert_int_equal(a->num_micro_batches, b->num_micro_batches);
    for (int i = 0; i < a->num_samples; i++)
        assert_int_equal(a->sample[i].position, b->sample[i].position);
    assert_memory_equal(a->micro_batch, b->micro_batch,
                        (size_t)a->num_micro_batches * sizeof *a->micro_batch);
}

/* Several optimizer steps share a plan by position, evenly: on every rank micro-batches of one
 * after those of the other, none of two, and each as even over the ranks as one sample allows. */
static void test_plan_splits_by_position_for_several_updates(void **state)
{
    (void)state;
    enum { EACH = 12, UPDATES = 3 };
    Stream stream;
    stream_init(&stream, SET_TRAIN, 512, 1);
    stream.end = 100000;
    for (uint64_t seed = 1; seed < 200; seed++) {
        PlanOptions options = {.num_groups = EACH * UPDATES,
                               .groups_of_update = EACH,
                               .dp_size = 1 + (int)number(seed, 3, 4),
                               .micro_batch_size = seed % 3 == 0 ? 2 : 0,
                               .max_tokens = 20 + (int64_t)number(seed, 4, 300)};
        int64_t base = (int64_t)number(seed, 1, 5000), load[UPDATES][4] = {0};
        fill(&stream, base, 200, 0, 1);
        Plan plan, again;
        assert_int_equal(plan_make(&stream, base, &options, &plan), PLAN_MADE);
        bool seen[EACH * UPDATES] = {false};
        for (int r = 0; r < options.dp_size; r++) {
            int64_t update = 0;
            for (int m = plan.rank_first[r]; m < plan.rank_first[r + 1]; m++) {
                const MicroBatchPlan *batch = &plan.micro_batch[m];
                int64_t of = (plan.sample[batch->first].position - base) / EACH;
                assert_true(of >= update);
                update = of;
                for (int i = batch->first; i < batch->first + batch->count; i++) {
                    int64_t at = plan.sample[i].position - base;
                    assert_int_equal(at / EACH, update);
                    assert_false(seen[at]);
                    seen[at] = true;
                    load[update][r] += plan.sample[i].length;
                }
            }
        }
        for (int i = 0; i < EACH * UPDATES; i++)
            assert_true(seen[i]);
        for (int u = 0; u < UPDATES; u++)
            for (int r = 1; r < options.dp_size; r++)
                assert_true(llabs(load[u][r] - load[u][0]) <= 100);
        fill(&stream, base, 200, 0, 2);
        assert_int_equal(plan_make(&stream, base, &options, &again), PLAN_MADE);
        assert_plans_equal(&plan, &again);
        plan_clear(&plan);
        plan_clear(&again);
    }
    stream_free(&stream);
}

/* A plan goes beyond the end of an epoch only as long as it has nothing of it. */
static void test_plan_ends_with_its_epoch(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 64, 1);
    stream.end = 30;
    PlanOptions options = {
        .num_groups = 4, .allow_fewer = true, .epoch = 10, .dp_size = 6, .max_tokens = 1000};
    Plan plan;
    fill(&stream, 0, 17, 0, 1);
    assert_int_equal(plan_make(&stream, 6, &options, &plan), PLAN_MADE); /* it is full at the end */
    assert_int_equal(plan.num_samples, 4);
    assert_int_equal(plan.end_position, 10);
    plan_clear(&plan);
    assert_int_equal(plan_make(&stream, 8, &options, &plan), PLAN_MADE);
    assert_int_equal(plan.num_groups, 2);
    assert_int_equal(plan.trained_tokens, 2);
    assert_int_equal(plan.end_position, 10);
    assert_int_equal(plan.rank_first[6], 2);
    for (int r = 2; r < 6; r++) /* they are given nothing */
        assert_int_equal(plan.rank_first[r], plan.rank_first[r + 1]);
    plan_clear(&plan);
    assert_int_equal(plan_make(&stream, 16, &options, &plan), PLAN_WAITS);
    fill(&stream, 0, 30, 9, 1); /* 0, 9, 18 and 27 are rejected */
    assert_int_equal(plan_make(&stream, 9, &options, &plan), PLAN_MADE);
    assert_int_equal(plan.num_groups, 4);
    assert_int_equal(plan.rejected, 1);
    assert_int_equal(plan.end_position, 14);
    plan_clear(&plan);
    assert_int_equal(plan_make(&stream, 28, &options, &plan), PLAN_MADE); /* and of the stream */
    assert_int_equal(plan.num_groups, 2);
    assert_int_equal(plan.end_position, 30);
    plan_clear(&plan);
    assert_int_equal(plan_make(&stream, 30, &options, &plan), PLAN_ENDS);
    stream_free(&stream);
}

/* Each sample says which source of a mixture it is of, wherever a plan begins. */
static void test_plan_names_the_sources_of_a_mixture(void **state)
{
    (void)state;
    const char *const name[] = {"a", "b", "c"};
    const double weight[] = {5, 1, 3};
    SourceTurns turns = {.records = {1000, 1000, 1000}};
    int seen[3] = {0};
    assert_true(interleave_make(7, name, weight, 3, &turns.mix) < 0);
    Stream stream;
    stream_init(&stream, SET_TRAIN, 128, 1);
    stream.end = 1000;
    stream.turns = &turns;
    fill(&stream, 50, 100, 7, 1);
    for (int from = 50; from < 90; from++) {
        PlanOptions options = {.num_groups = 20, .dp_size = 3, .max_tokens = 150};
        Plan plan;
        assert_int_equal(plan_make(&stream, from, &options, &plan), PLAN_MADE);
        for (int i = 0; i < plan.num_samples; i++) {
            assert_int_equal(plan.sample[i].source,
                             stream_source(&stream, plan.sample[i].position));
            seen[plan.sample[i].source]++;
        }
        plan_clear(&plan);
    }
    assert_true(seen[0] > seen[2] && seen[2] > seen[1] && seen[1] > 0);
    stream_free(&stream);
}

/* Of a smaller plan the last optimizer step has what the others leave. */
static void test_plan_gives_the_last_update_what_is_left(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 64, 1);
    stream.end = 22;
    fill(&stream, 0, 22, 0, 1);
    PlanOptions options = {.num_groups = 12,
                           .allow_fewer = true,
                           .groups_of_update = 4,
                           .dp_size = 3,
                           .micro_batch_size = 1};
    Plan plan;
    assert_int_equal(plan_make(&stream, 12, &options, &plan), PLAN_MADE);
    assert_int_equal(plan.num_groups, 10);
    int of_update[3] = {0};
    for (int r = 0; r < 3; r++)
        for (int m = plan.rank_first[r], before = 0; m < plan.rank_first[r + 1]; m++) {
            int update = (int)(plan.sample[plan.micro_batch[m].first].position - 12) / 4;
            assert_true(update >= before);
            of_update[before = update]++;
        }
    assert_int_equal(of_update[0], 4);
    assert_int_equal(of_update[1], 4);
    assert_int_equal(of_update[2], 2);
    plan_clear(&plan);
    stream_free(&stream);
}

static void test_stream_ignores_news_of_those_it_does_not_wait_for(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 16, 1);
    stream.end = 100;
    stream_restart(&stream, 0);
    int64_t first;
    assert_int_equal(stream_lease(&stream, &(LeaseTerms){1, 0, 0, 8, 4}, &first), 4);
    assert_false(stream_deliver(&stream, 2, &(SampleMeta){.position = 1}, 1, GROUP_KEPT));
    assert_false(stream_deliver(&stream, 1, &(SampleMeta){.position = 5}, 1, GROUP_KEPT));
    assert_true(stream_deliver(&stream, 1, &(SampleMeta){.position = 1}, 1, GROUP_KEPT));
    assert_false(stream_deliver(&stream, 1, &(SampleMeta){.position = 1}, 1, GROUP_KEPT));
    stream_lease_failed(&stream, 1, 0, 4);
    assert_int_equal(stream_slot(&stream, 1)->state, SLOT_READY);
    assert_int_equal(stream_slot(&stream, 0)->state, SLOT_FREE);
    stream_take(&stream, 0, 4);
    stream_worker_lost(&stream, 1);
    assert_int_equal(stream_slot(&stream, 1)->state, SLOT_TAKEN);
    stream_consume(&stream, 4);
    assert_null(stream_slot(&stream, 3));
    assert_int_equal(stream_lease(&stream, &(LeaseTerms){3, 0, 0, 100, 100}, &first), 16);
    assert_int_equal(first, 4);
    stream_free(&stream);
}

/* Leases [first, first + count) with weights of `version` and delivers all but the last. */
static void make_groups(Stream *stream, int64_t first, int count, int64_t version)
{
    int64_t leased;
    LeaseTerms terms = {1, version, first, first + count, count};
    assert_int_equal(stream_lease(stream, &terms, &leased), count);
    for (int64_t p = first; p < first + count - 1; p++) {
        SampleMeta meta = {.position = p, .trained_tokens = 1, .weight_version = version};
        GroupVerdict verdict = p % 3 == 0 ? GROUP_ZERO_VARIANCE : GROUP_KEPT;
        assert_true(stream_deliver(stream, 1, &meta, 1, verdict));
    }
}

/* What is too old is made again, whether it was good, bad or in work; what is not stays. */
static void test_stream_frees_what_is_too_old(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 32, 1);
    stream.end = 1000;
    make_groups(&stream, 0, 5, 1);
    make_groups(&stream, 5, 5, 2);
    assert_int_equal(stream_free_stale(&stream, 2, 2), 2);
    const SlotState expected[] = {SLOT_REJECTED, SLOT_READY, SLOT_FREE,     SLOT_FREE,
                                  SLOT_FREE,     SLOT_READY, SLOT_REJECTED, SLOT_READY,
                                  SLOT_READY,    SLOT_LEASED};
    for (int64_t p = 0; p < 10; p++)
        assert_int_equal(stream_slot(&stream, p)->state, expected[p]);
    assert_int_equal(stream.front, 2);
    assert_int_equal(stream.accepted_ahead, 1);
    assert_int_equal(stream.rejected_ahead, 2);
    int64_t first;
    LeaseTerms terms = {2, 3, 0, 20, 20};
    assert_int_equal(stream_lease(&stream, &terms, &first), 3);
    assert_int_equal(first, 2);
    stream_free(&stream);
}

/* What is dropped does not depend on what is there: good, bad, in work or not begun. */
static void test_stream_drops_what_is_too_old(void **state)
{
    (void)state;
    Stream stream;
    stream_init(&stream, SET_TRAIN, 32, 1);
    stream.end = 9;
    make_groups(&stream, 0, 5, 1);
    assert_int_equal(stream_drop_stale(&stream, 2, 20, 2, 1), 9); /* the newest are too old, too */
    for (int64_t p = 2; p < 9; p++) {
        assert_int_equal(stream_slot(&stream, p)->state, SLOT_REJECTED);
        assert_int_equal(stream_slot(&stream, p)->verdict, GROUP_TOO_STALE);
        assert_int_equal(stream_samples(&stream, p)->position, p);
    }
    assert_int_equal(stream.front, 9);
    assert_int_equal(stream.accepted_ahead, 1);
    assert_int_equal(stream.rejected_ahead, 8);
    assert_int_equal(stream_drop_stale(&stream, 2, 20, 9, 1), 9); /* once */
    assert_int_equal(stream_free_stale(&stream, 2, 9), 0);
    stream_consume(&stream, 9);
    assert_int_equal(stream.rejected_ahead, 0);
    stream_restart(&stream, 0);
    make_groups(&stream, 0, 3, 1); /* what newer weights may make yet stays, and ends the run */
    assert_int_equal(stream_drop_stale(&stream, 1, 9, 2, 2), 3);
    assert_int_equal(stream_slot(&stream, 3)->state, SLOT_FREE);
    stream_free(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_takes_the_first_accepted_samples_in_order),
        cmocka_unit_test(test_plan_waits_for_a_gap_and_ends_with_the_stream),
        cmocka_unit_test(test_plan_says_when_a_whole_window_is_rejected),
        cmocka_unit_test(test_a_wider_window_keeps_what_is_known),
        cmocka_unit_test(test_plan_balances_and_packs_every_sample_once),
        cmocka_unit_test(test_plan_is_longest_first_and_first_fit),
        cmocka_unit_test(test_plan_splits_by_position_for_several_updates),
        cmocka_unit_test(test_plan_ends_with_its_epoch),
        cmocka_unit_test(test_plan_names_the_sources_of_a_mixture),
        cmocka_unit_test(test_plan_gives_the_last_update_what_is_left),
        cmocka_unit_test(test_stream_ignores_news_of_those_it_does_not_wait_for),
        cmocka_unit_test(test_stream_frees_what_is_too_old),
        cmocka_unit_test(test_stream_drops_what_is_too_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
