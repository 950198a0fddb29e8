/* Records that are not trained, in the make-believe cluster: where the run ends at one, what was
 * trained before is committed, and the end says how to go on. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "sim_jobs.h"

#define NOTHING_COMMITTED "No step is committed: mend the record, or set "

/* Before anything is committed there is no changed data to accept: it begins anew. */
static void test_records_stops_at_a_bad_record(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        JobConfig config = make_config(3, 2, 1);
        config.data.bad_record = POLICY_STOP;
        SimResult result =
            sim_run(&config, &(SimFaults){.bad_records = 1, .kills = (int)seed % 4}, seed);
        assert_string_equal(result.violation, "");
        assert_true(result.finished);
        assert_int_equal(result.status, ERR_DATA);
        assert_string_equal(result.message,
                            "file:1: a bad record\n" NOTHING_COMMITTED
                            "data.bad_record: skip; `controller data inspect --count all` "
                            "counts such records without a run.");
        assert_int_equal(result.leftover_processes, 0);
    }
}

/* Whatever is wrong with a record, the end names the key that passes over it, and what else fits.
 */
static void test_records_names_the_policy_of_the_record_it_stops_at(void **state)
{
    static const struct {
        RejectReason reason;
        bool generates;
        const char *offers;
    } row[] = {
        {REJECT_BAD_RECORD, false, "data.bad_record: skip"},
        {REJECT_TEMPLATE, false, "data.bad_record: skip"},
        {REJECT_TOO_LONG, false, "data.too_long: skip or truncate"},
        {REJECT_TOO_LONG, true, "data.too_long: skip"},
        {REJECT_NOT_RENDERED, false, "data.not_rendered: skip or keep"},
        {REJECT_NOTHING_TO_TRAIN, false, "data.nothing_to_train: skip"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        JobConfig config = row[i].generates ? make_rl_config(3, 2, 1) : make_config(3, 2, 1);
        config.data.bad_record = config.data.not_rendered = POLICY_STOP;
        config.data.nothing_to_train = POLICY_STOP;
        if (row[i].reason == REJECT_TOO_LONG) config.data.too_long = POLICY_STOP;
        SimFaults faults = {.bad_records = 1, .bad_as = row[i].reason};
        SimResult result = sim_run(&config, &faults, 1);
        assert_string_equal(result.violation, "");
        assert_int_equal(result.status, ERR_DATA);
        char expected[256];
        snprintf(expected, sizeof expected, NOTHING_COMMITTED "%s; ", row[i].offers);
        assert_non_null(strstr(result.message, expected));
    }
}

/* Whatever was trained when the record was met is committed, and the message says how to go on. */
static void test_records_commits_before_it_ends_at_a_bad_record(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        JobConfig config = make_config(3, 2, 1);
        config.data.bad_record = POLICY_STOP;
        config.checkpoint.interval = seed % 2 == 0 ? 5 : 0;
        SimFaults faults = {.bad_position = 100 + (int64_t)seed};
        SimResult result = sim_run(&config, &faults, seed);
        assert_string_equal(result.violation, "");
        assert_int_equal(result.status, ERR_DATA);
        assert_true(result.steps > 5);
        assert_true(result.saved.next_position <= faults.bad_position);
        assert_int_equal(result.steps_begun, 2 * result.steps);
        char expected[256];
        snprintf(expected, sizeof expected,
                 "file:1: a bad record\nStep %lld is committed: the same command goes on from "
                 "there with data.bad_record: skip, or\nwith the record mended, and then tells how "
                 "to accept the changed data.",
                 (long long)result.steps);
        assert_string_equal(result.message, expected);
        assert_int_equal(result.leftover_processes, 0);
        faults.kills = 3;
        result = sim_run(&config, &faults, seed);
        assert_string_equal(result.violation, "");
        assert_int_equal(result.status, ERR_DATA);
        assert_int_equal(result.leftover_processes, 0);
    }
}

/* In the order `window` changed data is refused and cannot be accepted. */
static void test_records_offers_no_mended_record_where_it_would_be_refused(void **state)
{
    (void)state;
    JobConfig config = make_config(3, 2, 1);
    config.data.bad_record = POLICY_STOP;
    config.data.shuffle = true;
    config.data.order.kind = ORDER_WINDOW;
    SimResult result = sim_run(&config, &(SimFaults){.bad_position = 100}, 1);
    assert_string_equal(result.violation, "");
    assert_int_equal(result.status, ERR_DATA);
    assert_non_null(strstr(result.message, "goes on from there with data.bad_record: skip."));
    result = sim_run(&config, &(SimFaults){.bad_records = 1}, 1);
    assert_non_null(strstr(result.message, NOTHING_COMMITTED "data.bad_record: skip; "));
}

static void test_records_stops_past_the_maximum_of_bad_records(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        JobConfig config = make_config(3, 2, 1);
        SimFaults faults = {.bad_records = BAD_RECORDS + 1, .controller_kills = (int)seed % 3};
        SimResult result = sim_run(&config, &faults, seed);
        assert_string_equal(result.violation, "");
        assert_int_equal(result.status, ERR_DATA);
        assert_non_null(strstr(result.message, "data.bad_records_max"));
        assert_null(strstr(result.message, "controller validate"));
        config.data.bad_records_max = 0; /* no limit */
        result = sim_run(&config, &faults, seed);
        assert_right(&result, seed);
        assert_int_equal(result.saved.bad_records, BAD_RECORDS + 1);
    }
}

/* It is found beside the first steps, not after the last one. */
static void test_records_finds_a_bad_evaluation_record_early(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        JobConfig config = make_config(3, 2, 1);
        config.train.num_steps = 400;
        config.eval.before_train = false;
        config.eval.interval = 0;
        config.data.bad_record = POLICY_STOP;
        SimResult result = sim_run(&config, &(SimFaults){.bad_eval_records = 1}, seed);
        assert_string_equal(result.violation, "");
        assert_int_equal(result.status, ERR_DATA);
        assert_non_null(strstr(
            result.message, result.steps > 0 ? "data.bad_record: skip, or\nwith the record mended."
                                             : NOTHING_COMMITTED "data.bad_record: skip"));
        assert_null(strstr(result.message, "changed data")); /* nothing of it is trained */
        assert_true(result.steps_begun <= 2 * 20);
        assert_int_equal(result.steps_begun, 2 * result.steps);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_stops_at_a_bad_record),
        cmocka_unit_test(test_records_names_the_policy_of_the_record_it_stops_at),
        cmocka_unit_test(test_records_commits_before_it_ends_at_a_bad_record),
        cmocka_unit_test(test_records_offers_no_mended_record_where_it_would_be_refused),
        cmocka_unit_test(test_records_stops_past_the_maximum_of_bad_records),
        cmocka_unit_test(test_records_finds_a_bad_evaluation_record_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
