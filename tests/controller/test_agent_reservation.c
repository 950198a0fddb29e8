/* Tests of a node's book of reservations: all or nothing, exact to the last fraction, and only for
 * whom it is. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "agent/reservation.h"
#include "base/rng.h"

static const ReservationOwner owner = {7, "sft"};
static const NodeResources node = {.cpu = 4, .gpu = 2, .memory_bytes = 1000};

static bool prepare(Reservations *book, const char *group, double cpu, int gpu, int64_t expires_ms)
{
    BundleSpec bundle = {.index = 3, .need = {.cpu = cpu, .gpu = gpu}};
    bool granted = false;
    Error err = {0};
    assert_ok(reservations_prepare(book, group, owner, &bundle, 1, expires_ms, &granted, &err),
              &err);
    return granted;
}

static void assert_free(const Reservations *book, double cpu, int gpu, int64_t memory_bytes)
{
    NodeResources room = reservations_free(book);
    assert_true(room.cpu == cpu && room.gpu == gpu && room.memory_bytes == memory_bytes);
}

static void test_group_gets_all_bundles_or_none(void **state)
{
    (void)state;
    Reservations *book = reservations_create(&node);
    Error err = {0};
    bool granted = true;
    BundleSpec bundles[3] = {
        {0, {1.5, 1, 300}, 0, 0}, {1, {1.5, 1, 300}, 0, 0}, {2, {1.5, 0, 300}, 0, 0}};
    assert_ok(reservations_prepare(book, "g", owner, bundles, 3, 10, &granted, &err), &err);
    assert_false(granted); /* 4.5 CPUs */
    assert_free(book, 4, 2, 1000);
    assert_ok(reservations_prepare(book, "g", owner, bundles, 2, 10, &granted, &err), &err);
    assert_true(granted);
    assert_free(book, 1, 0, 400);
    reservations_release(book, "g", owner.job);
    assert_free(book, 4, 2, 1000);
    reservations_destroy(book);
}

/* Ten tenths are one CPU, and after any history free is exactly total. */
static void test_fractions_add_up_exactly(void **state)
{
    (void)state;
    Reservations *book = reservations_create(&node);
    char name[16];
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "g%d", i);
        assert_true(prepare(book, name, 0.1, 0, 10));
    }
    assert_free(book, 0, 2, 1000);
    assert_false(prepare(book, "more", 0.0001, 0, 10));
    reservations_release(book, "g17", owner.job);
    assert_free(book, 0.1, 2, 1000);
    assert_true(prepare(book, "again", 0.1, 0, 10));
    reservations_release_job(book, owner.job);
    assert_free(book, 4, 2, 1000);
    reservations_destroy(book);
}

static void test_lock_falls_away_unless_committed(void **state)
{
    (void)state;
    Reservations *book = reservations_create(&node);
    Error err = {0};
    assert_true(prepare(book, "kept", 1, 0, 100));
    assert_true(prepare(book, "lost", 1, 0, 100));
    assert_ok(reservations_commit(book, "kept", owner.job, &err), &err);
    reservations_expire(book, 99);
    assert_free(book, 2, 2, 1000);
    assert_true(prepare(book, "lost", 1, 0, 200)); /* a repeated message renews the lock */
    reservations_expire(book, 100);
    assert_free(book, 2, 2, 1000);
    reservations_expire(book, 200);
    assert_free(book, 3, 2, 1000);
    assert_fails(reservations_commit(book, "lost", owner.job, &err), ERR_NOT_FOUND, &err,
                 "holds nothing here");
    assert_ok(reservations_commit(book, "kept", owner.job, &err), &err); /* again */
    reservations_release(book, "kept", owner.job);
    reservations_release(book, "kept", owner.job);
    assert_free(book, 4, 2, 1000);
    reservations_destroy(book);
}

static void test_bundles_are_found_only_when_committed(void **state)
{
    (void)state;
    Reservations *book = reservations_create(&node);
    BundleGpus gpus;
    Error err = {0};
    assert_true(prepare(book, "g", 1, 0, 100));
    assert_fails(reservations_find(book, "g", owner.job, 3, &gpus, &err), ERR_NOT_FOUND, &err,
                 "not committed");
    assert_ok(reservations_commit(book, "g", owner.job, &err), &err);
    assert_ok(reservations_find(book, "g", owner.job, 3, &gpus, &err), &err);
    assert_fails(reservations_find(book, "g", owner.job, 0, &gpus, &err), ERR_NOT_FOUND, &err,
                 "no bundle 0");
    reservations_destroy(book);
}

static void test_groups_are_safe_from_other_jobs(void **state)
{
    (void)state;
    Reservations *book = reservations_create(&node);
    Error err = {0};
    bool granted = false;
    const uint64_t stranger = 8; /* of the same name, perhaps */
    BundleSpec bundle = {.index = 0, .need = {.cpu = 1}};
    assert_true(prepare(book, "g", 1, 0, 100));
    assert_fails(reservations_prepare(book, "g", (ReservationOwner){stranger, "sft"}, &bundle, 1, 9,
                                      &granted, &err),
                 ERR_EXISTS, &err, "belongs to job sft");
    assert_fails(reservations_commit(book, "g", stranger, &err), ERR_NOT_FOUND, &err, "nothing");
    reservations_release(book, "g", stranger);
    reservations_release_job(book, stranger);
    assert_free(book, 3, 2, 1000);
    assert_int_equal(reservations_count(book), 1);
    HeldGroup held = reservations_group(book, 0);
    assert_true(held.owner.job == owner.job && held.held.cpu == 1 && !held.committed);
    reservations_destroy(book);
}

static void test_needs_that_are_no_amounts_are_refused(void **state)
{
    (void)state;
    Reservations *book = reservations_create(&node);
    Error err = {0};
    const NodeResources wrong[] = {
        {.cpu = -1}, {.cpu = NAN},         {.cpu = INFINITY},
        {.gpu = -1}, {.memory_bytes = -5}, {.memory_bytes = INT64_MAX},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        BundleSpec bundles[2] = {{0, {.cpu = 1}, 0, 0}, {1, wrong[i], 0, 0}};
        bool granted = false;
        assert_fails(reservations_prepare(book, "g", owner, bundles, 2, 9, &granted, &err),
                     ERR_INVALID, &err, "bundle 1");
    }
    assert_fails(reservations_prepare(book, "g", owner, NULL, 0, 9, &(bool){false}, &err),
                 ERR_INVALID, &err, "0 bundles");
    assert_free(book, 4, 2, 1000);
    reservations_destroy(book);
}

/* The GPUs of a committed bundle as digits: "02". */
static const char *gpus_of(const Reservations *book, const char *group, int bundle)
{
    static char text[NODE_GPUS_MAX + 1];
    BundleGpus gpus;
    Error err = {0};
    assert_ok(reservations_find(book, group, owner.job, bundle, &gpus, &err), &err);
    for (int i = 0; i < gpus.count; i++)
        text[i] = (char)('0' + gpus.gpu[i]);
    text[gpus.count] = '\0';
    return text;
}

static void hold_gpus(Reservations *book, const char *group, const BundleSpec *bundle, int count)
{
    bool granted = false;
    Error err = {0};
    assert_ok(reservations_prepare(book, group, owner, bundle, count, 100, &granted, &err), &err);
    assert_true(granted);
    assert_ok(reservations_commit(book, group, owner.job, &err), &err);
}

static void test_each_bundle_gets_gpus_of_its_own_the_lowest_first(void **state)
{
    (void)state;
    Reservations *book = reservations_create(&(NodeResources){.cpu = 8, .gpu = 5});
    const BundleSpec one[] = {{0, {.gpu = 1}, 0, 0}};
    const BundleSpec three[] = {
        {0, {.cpu = 1}, 0, 0}, {1, {.gpu = 1}, 0, 0}, {2, {.gpu = 2}, 0, 0}};
    bool granted = true;
    Error err = {0};
    hold_gpus(book, "first", one, 1);
    hold_gpus(book, "second", three, 3);
    assert_string_equal(gpus_of(book, "first", 0), "0");
    assert_string_equal(gpus_of(book, "second", 0), "");
    assert_string_equal(gpus_of(book, "second", 1), "1");
    assert_string_equal(gpus_of(book, "second", 2), "23");
    assert_ok(reservations_prepare(book, "third", owner, three, 3, 100, &granted, &err), &err);
    assert_false(granted);
    reservations_release(book, "first", owner.job);
    hold_gpus(book, "third", (BundleSpec[]){{7, {.gpu = 2}, 0, 0}}, 1);
    assert_string_equal(gpus_of(book, "third", 7), "04"); /* what the first left, and the last */
    assert_string_equal(gpus_of(book, "second", 2), "23");
    assert_free(book, 7, 0, 0);
    reservations_destroy(book);
}

static void test_a_bundle_may_use_the_gpus_of_another_one(void **state)
{
    (void)state;
    Reservations *book = reservations_create(&(NodeResources){.cpu = 8, .gpu = 2});
    const BundleSpec bundles[] = {{0, {.cpu = 1}, 1 + 3, 0},
                                  {1, {.cpu = 1}, 1 + 2, 0},
                                  {2, {.gpu = 1}, 0, 0},
                                  {3, {.gpu = 1}, 0, 0}};
    hold_gpus(book, "g", bundles, 4);
    assert_string_equal(gpus_of(book, "g", 0), "1");
    assert_string_equal(gpus_of(book, "g", 1), "0");
    assert_free(book, 6, 0, 0);
    reservations_release(book, "g", owner.job);
    const BundleSpec wrong[][2] = {
        {{0, {.gpu = 1}, 0, 0}, {1, {.cpu = 1}, 1 + 9, 0}},     /* of nobody */
        {{0, {.gpu = 1}, 0, 0}, {1, {.gpu = 1}, 1 + 0, 0}},     /* and its own */
        {{0, {.cpu = 1}, 1 + 1, 0}, {1, {.cpu = 1}, 1 + 0, 0}}, /* of each other */
        {{0, {.cpu = 1}, -5, 0}, {1, {.cpu = 1}, 0, 0}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bool granted = false;
        Error err = {0};
        assert_fails(reservations_prepare(book, "g", owner, wrong[i], 2, 9, &granted, &err),
                     ERR_INVALID, &err, "is to use the GPUs of bundle");
    }
    assert_free(book, 8, 2, 0);
    reservations_destroy(book);
}

/* Against a plain model: random prepare, commit, release, expire. */
static void test_book_agrees_with_a_plain_model(void **state)
{
    (void)state;
    enum { GROUPS = 12 };
    struct {
        bool held, committed;
        int tenths;
        int64_t expires_ms;
    } model[GROUPS] = {0};
    Reservations *book = reservations_create(&node);
    Error err = {0};
    uint64_t key = rng_key(5, "book");
    for (uint64_t round = 0; round < 20000; round++) {
        int g = (int)rng_below(key, 4 * round, GROUPS), held_tenths = 0;
        char name[8];
        snprintf(name, sizeof name, "g%d", g);
        for (int i = 0; i < GROUPS; i++)
            held_tenths += model[i].held ? model[i].tenths : 0;
        switch (rng_below(key, 4 * round + 1, 4)) {
        case 0: {
            int tenths = (int)rng_below(key, 4 * round + 2, 12);
            int64_t expires_ms = (int64_t)(round + rng_below(key, 4 * round + 3, 40));
            bool expected = model[g].held || held_tenths + tenths <= 40;
            assert_int_equal(prepare(book, name, tenths / 10.0, 0, expires_ms), expected);
            if (!expected) break;
            if (!model[g].held) model[g].tenths = tenths;
            model[g].held = true;
            model[g].expires_ms = expires_ms;
            break;
        }
        case 1:
            assert_int_equal(reservations_commit(book, name, owner.job, &err) == OK, model[g].held);
            model[g].committed = model[g].held;
            break;
        case 2:
            reservations_release(book, name, owner.job);
            model[g].held = model[g].committed = false;
            break;
        default:
            reservations_expire(book, (int64_t)round);
            for (int i = 0; i < GROUPS; i++)
                if (!model[i].committed && model[i].expires_ms <= (int64_t)round)
                    model[i].held = false;
        }
        held_tenths = 0;
        for (int i = 0; i < GROUPS; i++)
            held_tenths += model[i].held ? model[i].tenths : 0;
        assert_true(fabs(reservations_free(book).cpu - (40 - held_tenths) / 10.0) < 1e-12);
    }
    reservations_destroy(book);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_gets_all_bundles_or_none),
        cmocka_unit_test(test_fractions_add_up_exactly),
        cmocka_unit_test(test_lock_falls_away_unless_committed),
        cmocka_unit_test(test_bundles_are_found_only_when_committed),
        cmocka_unit_test(test_groups_are_safe_from_other_jobs),
        cmocka_unit_test(test_needs_that_are_no_amounts_are_refused),
        cmocka_unit_test(test_each_bundle_gets_gpus_of_its_own_the_lowest_first),
        cmocka_unit_test(test_a_bundle_may_use_the_gpus_of_another_one),
        cmocka_unit_test(test_book_agrees_with_a_plain_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
