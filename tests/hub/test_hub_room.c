/* Tests of the room that the data sets of a run share: its bound holds for all of them together,
 * each keeps its part, what has none is refused with both figures, and nothing is fetched again
 * that is there. */
#include "test.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "dataset/files.h"
#include "dataset/hub_set.h"
#include "hub/sets.h"
#include "hub/support.h"

#define SECOND 100000 /* the first number of b/set */

static HubServer server;
static HubAccess hub;
static DatasetHub shared = {&hub, "run/hub.json", NULL};
static int64_t bound;

static int start_server(void **state)
{
    (void)state;
    make_fresh(SERVER_ROOT);
    hub_server_start("http", &server);
    hub = hub_server_access("http", &server);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    hub_server_stop(&server);
    hub_access_free(&hub);
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    hub_make_fresh();
    make_fresh("run");
    sets_put_shards("a/set", 0);
    sets_put_shards("b/set", SECOND);
    return 0;
}

static int give_room(void **state)
{
    (void)state;
    hub_room_release(shared.room);
    shared.room = NULL;
    return 0;
}

/* Halves of the largest shard. */
static void bound_room(int halves)
{
    bound = halves * sets_shard_bytes("b/set") / 2;
    shared.room = hub_room_create(bound);
}

static DatasetOptions options_of(const char *const *path, bool in_order)
{
    return (DatasetOptions){.key = "data.train",
                            .path = path,
                            .num_paths = 1,
                            .in_order = in_order,
                            .index_folder = "run/index",
                            .hub = &shared};
}

static Dataset *open_set(const char *path, bool in_order)
{
    DatasetOptions options = options_of(&path, in_order);
    return sets_open(&options);
}

static void assert_bound(void)
{
    assert_true(sets_cache_bytes("a/set") + sets_cache_bytes("b/set") <= bound);
}

static void test_one_bound_holds_for_two_sets(void **state)
{
    (void)state;
    bound_room(9);
    Dataset *a = open_set("hf://datasets/a/set", true);
    Dataset *b = open_set("hf://datasets/b/set", true);
    for (int epoch = 0; epoch < 2; epoch++) {
        for (int r = 0; r < SHARDS * ROWS; r += 10) { /* as in a mixture */
            sets_assert_record(a, (uint64_t)r, r);
            sets_assert_record(b, (uint64_t)r, SECOND + r);
            if (r % 100 == 0) assert_bound();
        }
    }
    for (int r = 0; r < SHARDS * ROWS; r += 10) /* one after the other, as in an evaluation */
        sets_assert_record(b, (uint64_t)r, SECOND + r);
    assert_bound();
    dataset_close(a);
    dataset_close(b);
}

/* The one stands where it is, while the other goes through all of its files. */
static void test_each_set_keeps_what_it_reads_next(void **state)
{
    (void)state;
    bound_room(9);
    Dataset *a = open_set("hf://datasets/a/set", true);
    Dataset *b = open_set("hf://datasets/b/set", true);
    sets_assert_record(a, 0, 0);
    sets_assert_record(a, ROWS, ROWS);
    for (int r = 0; r < SHARDS * ROWS; r += 50)
        sets_assert_record(b, (uint64_t)r, SECOND + r);
    for (int i = 0; i < 500 && sets_cache_bytes("a/set") < 19 * sets_shard_bytes("a/set") / 10; i++)
        usleep(10000); /* until its part is there */
    hub_forget_requests();
    sets_assert_record(a, ROWS, ROWS);
    sets_assert_record(a, 2 * ROWS, 2 * ROWS);
    assert_int_equal(hub_requests_with("/a/set/" COMMIT_A "/data/train-00001"), 0);
    assert_int_equal(hub_requests_with("/a/set/" COMMIT_A "/data/train-00002"), 0);
    dataset_close(a);
    dataset_close(b);
}

static void test_a_set_in_any_order_keeps_all_of_it(void **state)
{
    (void)state;
    bound_room(2 * SHARDS + 5);
    Dataset *b = open_set("hf://datasets/b/set", true); /* it has all of the room, at first */
    Dataset *a = open_set("hf://datasets/a/set", false);
    for (int r = 0; r < SHARDS * ROWS; r += 50)
        sets_assert_record(a, (uint64_t)(7 * r % (SHARDS * ROWS)), 7 * r % (SHARDS * ROWS));
    hub_forget_requests();
    for (int r = 0; r < SHARDS * ROWS; r += 50) {
        sets_assert_record(b, (uint64_t)r, SECOND + r);
        sets_assert_record(a, (uint64_t)r, r);
    }
    assert_int_equal(hub_requests_with("/a/set"), 0);
    assert_bound();
    dataset_close(a);
    dataset_close(b);
}

static void assert_refused(const char *path, bool in_order, const char *const *expected)
{
    Error err = {0};
    Dataset *dataset = NULL;
    DatasetOptions options = options_of(&path, in_order);
    assert_fails(dataset_open(&options, &dataset, &err), ERR_RESOURCE, &err, expected[0]);
    print_message("%s\n", err.message);
    for (int i = 1; expected[i] != NULL; i++)
        assert_non_null(strstr(err.message, expected[i]));
}

static void test_a_set_without_a_part_is_refused_with_the_figures(void **state)
{
    (void)state;
    bound_room(7); /* 57 kB, of which each wants 32 */
    Dataset *a = open_set("hf://datasets/a/set", true);
    hub_forget_requests();
    assert_refused("hf://datasets/b/set", true,
                   (const char *const[]){"there is room for 0.0", "for all data sets together",
                                         "the other data sets of the run need 0.03",
                                         "room for two of its files", "raise data.cache_gb", NULL});
    assert_refused(
        "hf://datasets/b/set", false,
        (const char *const[]){"room for all of it", "the other data sets of the run need", NULL});
    assert_int_equal(hub_requests_with("\"/b/set/" COMMIT_A), 0); /* of the CDN */
    sets_assert_record(a, 0, 0);
    dataset_close(a);
    Dataset *b = open_set("hf://datasets/b/set", true); /* there is room again */
    sets_assert_record(b, 0, SECOND);
    dataset_close(b);
}

/* A slice from the front takes what it fetches for good. */
static void test_a_slice_stays_in_the_bound(void **state)
{
    (void)state;
    const char *path = "hf://datasets/b/set@[0:700]";
    Error err = {0};
    Dataset *refused = NULL;
    bound_room(9);
    Dataset *a = open_set("hf://datasets/a/set", true);
    DatasetOptions options = options_of(&path, true);
    Dataset *dataset = sets_open(&options);
    for (int r = 0; r < 700; r += 50) {
        sets_assert_record(dataset, (uint64_t)r, SECOND + r);
        sets_assert_record(a, (uint64_t)(3 * r), 3 * r);
        assert_bound();
    }
    path = "hf://datasets/b/set@[0:2000]";
    assert_fails(dataset_open(&options, &refused, &err), ERR_RESOURCE, &err, "data.cache_gb");
    assert_bound();
    dataset_close(dataset);
    dataset_close(a);
}

/* What two sets have in common is there once, for as long as one of them wants it. */
static void test_slices_of_a_set_fetch_its_files_once(void **state)
{
    (void)state;
    bound = 0;
    shared.room = hub_room_create(0);
    Dataset *first = open_set("hf://datasets/a/set@[:1200]", false);
    Dataset *rest = open_set("hf://datasets/a/set@[1200:]", false);
    for (int r = 0; r < 1200; r += 50) {
        sets_assert_record(first, (uint64_t)r, r);
        sets_assert_record(rest, (uint64_t)r, 1200 + r);
    }
    assert_int_equal(hub_requests_with("\"cdn\""), SHARDS);
    assert_int_equal(hub_requests_with("/revision/"), 1);
    dataset_close(first);
    dataset_close(rest);
}

static void test_sets_of_the_same_files_share_a_small_room(void **state)
{
    (void)state;
    bound_room(9);
    Dataset *first = open_set("hf://datasets/a/set", true);
    Dataset *again = open_set("hf://datasets/a/set@[-1200:]", true);
    for (int r = 0; r < SHARDS * ROWS; r += 50) {
        sets_assert_record(first, (uint64_t)r, r);
        sets_assert_record(again, (uint64_t)r / 2, 1200 + r / 2);
        assert_bound();
    }
    dataset_close(first);
    for (int r = 0; r < 1200; r += 50)
        sets_assert_record(again, (uint64_t)r, 1200 + r);
    dataset_close(again);
}

/* A set that is not open yet has files of an earlier session there: they take room, and are the
 * first to go. */
static void test_what_an_earlier_session_left_takes_room(void **state)
{
    (void)state;
    bound_room(9);
    Dataset *a = open_set("hf://datasets/a/set", true);
    Dataset *b = open_set("hf://datasets/b/set", true);
    for (int r = 0; r < SHARDS * ROWS; r += 50) {
        sets_assert_record(a, (uint64_t)r, r);
        sets_assert_record(b, (uint64_t)r, SECOND + r);
    }
    dataset_close(a);
    dataset_close(b);
    assert_true(sets_cache_bytes("b/set") > 0);
    hub_room_release(shared.room);
    /* A note that names what is no blob of its checksum: nobody drops that. */
    write_text("keep/blobs/train.jsonl", "mine");
    write_text("run/index/hub-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.json",
               "{\"ours\": true, \"blob\": \"keep/blobs/train.jsonl\"}");
    bound_room(9);
    hub_set_add_leftovers(shared.room, "run/index");
    a = open_set("hf://datasets/a/set", true);
    for (int r = 0; r < SHARDS * ROWS; r += 50) {
        sets_assert_record(a, (uint64_t)r, r);
        assert_bound();
    }
    b = open_set("hf://datasets/b/set", true);
    sets_assert_record(b, 7, SECOND + 7);
    assert_bound();
    dataset_close(a);
    dataset_close(b);
    assert_true(path_exists("keep/blobs/train.jsonl"));
}

static void read_all(const Dataset *dataset, int first, int last)
{
    for (int r = first; r < last; r += 50)
        sets_assert_record(dataset, (uint64_t)r, r);
}

/* Two sets of what an earlier session left, of which the one that paid for it is closed: it is no
 * leftover, as long as the other has it. */
/* All of it has come: nothing is left to fetch, and still it takes room. */
static void test_a_download_without_its_name_takes_room(void **state)
{
    (void)state;
    bound_room(5);
    Dataset *a = open_set("hf://datasets/a/set", true);
    for (int r = 0; r < SHARDS * ROWS; r += 50)
        sets_assert_record(a, (uint64_t)r, r);
    dataset_close(a);
    sets_end_before_names("a/set");
    give_room(NULL);
    bound_room(5);
    a = open_set("hf://datasets/a/set", true);
    sets_assert_record(a, 2 * ROWS, 2 * ROWS);
    assert_bound();
    dataset_close(a);
}

static void test_what_another_set_still_has_is_no_leftover(void **state)
{
    (void)state;
    bound_room(2 * SHARDS + 1);
    Dataset *a = open_set("hf://datasets/a/set", true);
    read_all(a, 0, SHARDS * ROWS);
    dataset_close(a);
    hub_room_release(shared.room);
    bound_room(2 * SHARDS + 1);
    hub_set_add_leftovers(shared.room, "run/index");
    Dataset *first = open_set("hf://datasets/a/set", true);
    a = open_set("hf://datasets/a/set", true);
    dataset_close(first);
    Dataset *b = open_set("hf://datasets/b/set", true); /* needs room */
    for (int r = 0; r < SHARDS * ROWS; r += 50) {
        sets_assert_record(b, (uint64_t)r, SECOND + r);
        assert_bound();
    }
    read_all(a, 0, SHARDS * ROWS);
    dataset_close(a);
    dataset_close(b);
}

/* Sets that come and go one after the other, as evaluations do whose opening fails: what they have
 * fetched goes on to count, and makes room for others. */
static void test_what_closed_sets_have_fetched_counts(void **state)
{
    (void)state;
    bound_room(9);
    for (int turn = 0; turn < 4; turn++) {
        bool first = turn % 2 == 0;
        Dataset *set = open_set(first ? "hf://datasets/a/set" : "hf://datasets/b/set", true);
        for (int r = 0; r < SHARDS * ROWS; r += 50) {
            sets_assert_record(set, (uint64_t)r, (first ? 0 : SECOND) + r);
            assert_bound();
        }
        dataset_close(set);
        assert_bound();
        assert_true(sets_cache_bytes(first ? "a/set" : "b/set") > 0);
    }
}

/* Nor is it dropped while another set has it, or fetched again for one that comes next. */
static void test_what_a_closed_set_has_fetched_is_there_for_the_next(void **state)
{
    (void)state;
    bound_room(2 * SHARDS + 1);
    Dataset *first = open_set("hf://datasets/a/set", true);
    read_all(first, 0, SHARDS * ROWS);
    Dataset *again = open_set("hf://datasets/a/set", true);
    dataset_close(first);
    dataset_close(again);
    hub_forget_requests();
    again = open_set("hf://datasets/a/set", true);
    read_all(again, 0, SHARDS * ROWS);
    assert_int_equal(hub_requests_with("\"cdn\""), 0);
    dataset_close(again);
    assert_bound();
}

/* ---- threads ---- */

typedef struct Reader {
    const Dataset *dataset;
    int begin, first;
} Reader;

static void *read_main(void *argument)
{
    const Reader *reader = argument;
    for (int i = 0; i < SHARDS * ROWS; i += 7) {
        int r = (reader->begin + i) % (SHARDS * ROWS);
        sets_assert_record(reader->dataset, (uint64_t)r, reader->first + r);
    }
    return NULL;
}

static void test_sets_share_a_room_over_threads(void **state)
{
    (void)state;
    Reader reader[4];
    pthread_t thread[4];
    bound_room(12);
    Dataset *a = open_set("hf://datasets/a/set", true);
    Dataset *b = open_set("hf://datasets/b/set", true);
    for (int i = 0; i < 4; i++) {
        reader[i] = (Reader){i % 2 == 0 ? a : b, i * ROWS * 3 / 2, i % 2 == 0 ? 0 : SECOND};
        assert_int_equal(pthread_create(&thread[i], NULL, read_main, &reader[i]), 0);
    }
    Dataset *other = open_set("hf://datasets/a/set@[:10]", true); /* it comes and goes */
    sets_assert_record(other, 3, 3);
    dataset_close(other);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    assert_bound();
    dataset_close(b);
    dataset_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_bound_holds_for_two_sets, fresh, give_room),
        cmocka_unit_test_setup_teardown(test_each_set_keeps_what_it_reads_next, fresh, give_room),
        cmocka_unit_test_setup_teardown(test_a_set_in_any_order_keeps_all_of_it, fresh, give_room),
        cmocka_unit_test_setup_teardown(test_a_set_without_a_part_is_refused_with_the_figures,
                                        fresh, give_room),
        cmocka_unit_test_setup_teardown(test_a_slice_stays_in_the_bound, fresh, give_room),
        cmocka_unit_test_setup_teardown(test_slices_of_a_set_fetch_its_files_once, fresh,
                                        give_room),
        cmocka_unit_test_setup_teardown(test_sets_of_the_same_files_share_a_small_room, fresh,
                                        give_room),
        cmocka_unit_test_setup_teardown(test_what_an_earlier_session_left_takes_room, fresh,
                                        give_room),
        cmocka_unit_test_setup_teardown(test_a_download_without_its_name_takes_room, fresh,
                                        give_room),
        cmocka_unit_test_setup_teardown(test_what_another_set_still_has_is_no_leftover, fresh,
                                        give_room),
        cmocka_unit_test_setup_teardown(test_what_closed_sets_have_fetched_counts, fresh,
                                        give_room),
        cmocka_unit_test_setup_teardown(test_what_a_closed_set_has_fetched_is_there_for_the_next,
                                        fresh, give_room),
        cmocka_unit_test_setup_teardown(test_sets_share_a_room_over_threads, fresh, give_room),
    };
    if (!hub_server_is_possible()) {
        print_message("          SKIP: there is no python3 to serve\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
