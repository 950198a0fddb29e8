/* Tests of the tables under actor and handle: calls in flight, and sequence numbers that have been
 * seen. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "actor/call_table.h"
#include "actor/callers.h"
#include "actor/faults.h"
#include "base/memory.h"
#include "base/rng.h"

static uint64_t draw_below(uint64_t *counter, uint64_t bound)
{
    return rng_below(rng_key(11, "calls"), (*counter)++, bound);
}

/* Against a plain array: random additions and removals, the first deadline always the smallest. */
static void test_call_table_keeps_deadlines_in_order(void **state)
{
    (void)state;
    enum { KEPT_MAX = 300 };
    CallTable table = {0};
    PendingCall kept[KEPT_MAX], taken;
    int count = 0;
    uint64_t counter = 0;
    for (int round = 0; round < 30000; round++) {
        if (count < KEPT_MAX && draw_below(&counter, 100) < 52) {
            PendingCall call = {.deadline_ms = (int64_t)draw_below(&counter, 1000)};
            call.id = call_table_add(&table, &call);
            assert_true(call.id != 0);
            kept[count++] = call;
        } else if (count > 0) {
            int victim = (int)draw_below(&counter, (uint64_t)count);
            assert_true(call_table_take(&table, kept[victim].id, &taken));
            assert_int_equal(taken.deadline_ms, kept[victim].deadline_ms);
            assert_false(call_table_take(&table, kept[victim].id, &taken));
            kept[victim] = kept[--count];
        }
        assert_int_equal(table.count, count);
        int64_t first = INT64_MAX;
        for (int i = 0; i < count; i++)
            if (kept[i].deadline_ms < first) first = kept[i].deadline_ms;
        const PendingCall *head = call_table_first(&table);
        assert_true(count == 0 ? head == NULL : head->deadline_ms == first);
    }
    call_table_free(&table);
}

static void test_call_table_has_a_cap(void **state)
{
    (void)state;
    CallTable table = {0};
    PendingCall call = {.deadline_ms = 1};
    for (int i = 0; i < CALLS_IN_FLIGHT_MAX; i++)
        assert_true(call_table_add(&table, &call) != 0);
    assert_true(call_table_add(&table, &call) == 0);
    assert_true(call_table_take(&table, call_table_first(&table)->id, &call));
    assert_true(call_table_add(&table, &call) != 0);
    call_table_free(&table);
}

static Caller *find_caller(Callers *callers, uint32_t route, uint64_t incarnation)
{
    uint8_t bytes[5] = {0};
    memcpy(bytes + 1, &route, 4);
    return callers_find(callers, (Bytes){bytes, sizeof bytes}, incarnation);
}

/* Every number passes exactly once, in whatever order within the window and however often it comes.
 */
static void test_callers_let_each_number_pass_once(void **state)
{
    (void)state;
    enum { NUMBERS = 20000, SPREAD = SEQUENCE_WINDOW / 2 };
    Callers *callers = callers_create();
    uint8_t *passed = mem_calloc(NUMBERS + SPREAD + 1, 1);
    uint64_t counter = 0, total = 0, highest = 0;
    for (uint64_t i = 1; i <= NUMBERS; i++)
        for (int copy = 0; copy < 4; copy++) {
            uint64_t number = i + draw_below(&counter, SPREAD);
            bool accepted = caller_accept(find_caller(callers, 1, 5), number);
            assert_int_equal(accepted, !passed[number]);
            passed[number] = 1;
            total += accepted;
            if (number > highest) highest = number;
        }
    assert_int_equal(callers_missing(callers), highest - total);
    assert_false(caller_accept(find_caller(callers, 1, 5), highest - SEQUENCE_WINDOW));
    assert_true(caller_accept(find_caller(callers, 2, 5), 1)); /* another connection */
    assert_true(caller_accept(find_caller(callers, 1, 6), 1)); /* another process */
    free(passed);
    callers_destroy(callers);
}

static void test_callers_refuse_odd_routes_and_forget_the_oldest(void **state)
{
    (void)state;
    Callers *callers = callers_create();
    const uint8_t name[] = "a long name of its own";
    assert_null(callers_find(callers, (Bytes){name, sizeof name}, 1));
    assert_null(callers_find(callers, (Bytes){name, 0}, 1));
    for (uint32_t route = 0; route <= CALLERS_MAX; route++)
        assert_true(caller_accept(find_caller(callers, route, 1), 1));
    assert_false(caller_accept(find_caller(callers, CALLERS_MAX, 1), 1));
    assert_true(caller_accept(find_caller(callers, 0, 1), 1)); /* forgotten */
    callers_destroy(callers);
}

static void test_faults_come_as_often_as_asked_and_repeat(void **state)
{
    (void)state;
    const FaultRule rules[] = {
        {.method = "a", .drop_request = 0.25, .delay_request = 0.5, .delay_ms_max = 10},
        {.duplicate_request = 1.0, .drop_reply = 1.0},
    };
    const FaultPlan plan = {9, rules, 2};
    int drops = 0, delays = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        FaultDecision a = faults_decide(&plan, false, "a", i);
        FaultDecision again = faults_decide(&plan, false, "a", i);
        assert_true(a.drop == again.drop && a.delay_ms == again.delay_ms);
        assert_in_range(a.delay_ms, 0, 10);
        assert_false(a.duplicate);
        drops += a.drop;
        delays += a.delay_ms > 0;
    }
    assert_in_range(drops, 2300, 2700);
    assert_in_range(delays, 4800, 5200);
    assert_true(faults_decide(&plan, false, "b", 1).duplicate);
    assert_true(faults_decide(&plan, true, "b", 1).drop);
    assert_false(faults_decide(NULL, true, "b", 1).drop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call_table_keeps_deadlines_in_order),
        cmocka_unit_test(test_call_table_has_a_cap),
        cmocka_unit_test(test_callers_let_each_number_pass_once),
        cmocka_unit_test(test_callers_refuse_odd_routes_and_forget_the_oldest),
        cmocka_unit_test(test_faults_come_as_often_as_asked_and_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
