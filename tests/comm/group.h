/* Groups of ranks for tests of any kind of Comm, and the tests that every kind must pass. Ranks are
 * forked processes, as in a run. A forked rank reports by its exit status: it never returns into
 * cmocka. */
#ifndef TROUPE_TESTS_COMM_GROUP_H
#define TROUPE_TESTS_COMM_GROUP_H

#include "test.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/comm/group_kind.h"

#define TIMEOUT_MS 50000
/* For tests that show that nobody waits for the deadline: far beyond the time that ctest gives. */
#define ENDLESS_MS 3600000

/* In a rank: the test's condition, or the end of this rank with a message. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %d: line %d: %s\n", comm_rank(comm), __LINE__, #condition);      \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)
#define EXPECT_OK(call)                                                                            \
    do {                                                                                           \
        if ((call) != OK) {                                                                        \
            fprintf(stderr, "rank %d: line %d: %s: %s\n", comm_rank(comm), __LINE__, #call,        \
                    err.message);                                                                  \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)
#define EXPECT_FAILS(call, expected, text)                                                         \
    do {                                                                                           \
        Status expect_status_ = (call);                                                            \
        if (expect_status_ != (expected) || strstr(err.message, text) == NULL) {                   \
            fprintf(stderr, "rank %d: line %d: %s: %s: %s\n", comm_rank(comm), __LINE__, #call,    \
                    status_name(expect_status_), err.message);                                     \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* A rank's call of a kind whose calls may be queued: through, or what went wrong. */
Status settled(Comm *comm, Status status, Error *err);

/* Of all groups from here on. */
void group_use(const GroupKind *kind);

typedef void (*RankBody)(Comm *comm, void *context);

typedef struct Group {
    int size;
    size_t staging_bytes;
    int timeout_ms;
    RankBody body;
    void *context;
} Group;

/* Runs the body in `size` processes. Those in the set `killed` must end by SIGKILL, all others with
 * 0. */
void run_group_with_deaths(Group group, unsigned killed);
void run_group(int size, size_t staging_bytes, RankBody body, void *context);

/* ---- values ---- */

/* What a rank brings: numbers of very different size, so that another order of summing shows. */
float input_value(int rank, int64_t i);
void fill_input(void *data, DType dtype, int64_t count, int rank);
/* The result by definition: in rank order, in float, rounded once. */
float expected_value(DType dtype, CommOp op, int size, int64_t i);
bool holds(const void *data, DType dtype, int64_t i, float expected);
/* Ranks come to a call at different times. */
void loiter(const Comm *comm, uint64_t salt, int64_t round);

/* Bodies: `context` is what they say. */
void reduce_everything(Comm *comm, void *context); /* const uint64_t *: a salt */
void mixed_calls(Comm *comm, void *context);       /* uint64_t[2]: a salt; a descriptor or -1 */

/* In memory that the ranks share. */
typedef struct Meeting {
    int how;
    atomic_int through; /* how often a rank has come */
} Meeting;

/* Whoever is not through a call yet would be told in it of what happens next. */
void meet(Meeting *meeting, const Comm *comm);
/* Runs the group once for each way, 0 to ways - 1; its context is a Meeting. */
void run_ways(int ways, Group group, unsigned deaths);

/* Waits for a byte that another process writes: an order of events that needs no clock. */
void wait_for_byte(Comm *comm, int fd);
int count_descriptors(void);

/* ---- tests that every kind must pass ---- */

void test_comm_all_reduce_sums_in_rank_order(void **state);
void test_comm_gathers_and_broadcasts(void **state);
void test_comm_reduce_scatter_gives_each_rank_its_piece(void **state);
void test_comm_reduces_doubles_and_keeps_nan(void **state);
void test_comm_results_do_not_depend_on_timing(void **state);
void test_comm_names_different_calls_instead_of_hanging(void **state);
void test_comm_death_of_a_rank_is_seen_before_the_deadline(void **state);
void test_comm_kill_at_a_random_moment_ends_the_others(void **state);
void test_comm_rank_that_left_is_named(void **state);
void test_comm_timeout_names_call_and_missing_rank(void **state);
void test_comm_abort_ends_waiting_and_describe_says_for_whom(void **state);
void test_comm_messages_arrive_in_order(void **state);
void test_comm_message_to_itself_is_refused(void **state);
void test_comm_messages_that_differ_are_named_on_both_sides(void **state);
void test_comm_death_of_a_peer_is_seen_before_the_deadline(void **state);
void test_comm_message_that_does_not_come_names_its_sender(void **state);
void test_comm_abort_ends_a_recv(void **state);

#define GROUP_TESTS                                                                                \
    cmocka_unit_test(test_comm_all_reduce_sums_in_rank_order),                                     \
        cmocka_unit_test(test_comm_gathers_and_broadcasts),                                        \
        cmocka_unit_test(test_comm_reduce_scatter_gives_each_rank_its_piece),                      \
        cmocka_unit_test(test_comm_reduces_doubles_and_keeps_nan),                                 \
        cmocka_unit_test(test_comm_results_do_not_depend_on_timing),                               \
        cmocka_unit_test(test_comm_names_different_calls_instead_of_hanging),                      \
        cmocka_unit_test(test_comm_death_of_a_rank_is_seen_before_the_deadline),                   \
        cmocka_unit_test(test_comm_kill_at_a_random_moment_ends_the_others),                       \
        cmocka_unit_test(test_comm_rank_that_left_is_named),                                       \
        cmocka_unit_test(test_comm_timeout_names_call_and_missing_rank),                           \
        cmocka_unit_test(test_comm_abort_ends_waiting_and_describe_says_for_whom),                 \
        cmocka_unit_test(test_comm_messages_arrive_in_order),                                      \
        cmocka_unit_test(test_comm_message_to_itself_is_refused),                                  \
        cmocka_unit_test(test_comm_messages_that_differ_are_named_on_both_sides),                  \
        cmocka_unit_test(test_comm_death_of_a_peer_is_seen_before_the_deadline),                   \
        cmocka_unit_test(test_comm_message_that_does_not_come_names_its_sender),                   \
        cmocka_unit_test(test_comm_abort_ends_a_recv)

#endif
