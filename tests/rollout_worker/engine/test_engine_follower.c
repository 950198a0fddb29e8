/* Tests of a rank that follows a rank 0 elsewhere: over two Comms, as between processes, both give
 * what two threads of one engine give, to the bit, whatever becomes of the weights meanwhile. */
#include "test.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "rollout_worker/engine/engine_follower.h"
#include "toy_engine.h"

#define SAMPLES 3
#define TOKENS  40

/* Rank 0 with its thread, and rank 1 that follows. */
typedef struct Pair {
    ToyEngine toy[2];
    EngineOptions options[2];
    CommId tensor_id, plan_id;
    Comm *tensor[2], *plan[2];
    EngineThread *first;
    EngineFollower *second;
    atomic_int lost;
} Pair;

typedef struct Joining {
    Pair *pair;
    int rank;
} Joining;

static void *join_main(void *argument)
{
    const Joining *joining = argument;
    Pair *pair = joining->pair;
    const int r = joining->rank;
    Error err = {0};
    rank_ok(comm_create(COMM_SHM, &pair->tensor_id, r, 2, 10000, &pair->tensor[r], &err), &err);
    rank_ok(comm_create(COMM_SHM, &pair->plan_id, r, 2, 10000, &pair->plan[r], &err), &err);
    return NULL;
}

static void on_lost(void *context, const Error *why)
{
    Pair *pair = context;
    rank_check(why->status == ERR_UNAVAILABLE);
    pair->lost++;
}

static void pair_open(Pair *pair, const KernelTable *kernels)
{
    Error err = {0};
    pthread_t thread;
    memset(pair, 0, sizeof *pair);
    for (int r = 0; r < 2; r++) {
        Ranks rank = {.tp_rank = r, .tp_size = 2, .kernels = kernels};
        toy_engine_init(&pair->toy[r], &rank, 60, &pair->options[r]);
    }
    rank_ok(comm_id_create(COMM_SHM, 2, 64 << 10, &pair->tensor_id, &err), &err);
    rank_ok(comm_id_create(COMM_SHM, 2, 64 << 10, &pair->plan_id, &err), &err);
    Joining joining = {pair, 1};
    rank_check(pthread_create(&thread, NULL, join_main, &joining) == 0);
    join_main(&(Joining){pair, 0});
    rank_check(pthread_join(thread, NULL) == 0);
    EngineThreadOptions options = {.engine = pair->options[0], .tp_size = 2};
    rank_ok(engine_thread_create(&options, &pair->first, &err), &err);
    rank_ok(engine_thread_join(pair->first, pair->tensor[0], pair->plan[0], &err), &err);
    pair->options[1].tensor_comm = pair->tensor[1];
    pair->options[1].plan_comm = pair->plan[1];
    pair->second = engine_follower_create(&pair->options[1]);
    engine_follower_watch(pair->second, on_lost, pair);
    engine_thread_watch(pair->first, on_lost, pair);
}

static void pair_close(Pair *pair)
{
    engine_thread_destroy(pair->first);
    engine_follower_destroy(pair->second);
    for (int r = 0; r < 2; r++) {
        comm_destroy(pair->tensor[r]);
        comm_destroy(pair->plan[r]);
        toy_engine_clear(&pair->toy[r]);
    }
}

static void offer(Pair *pair, int which, int64_t version)
{
    Error err = {0};
    const Weights *weights = pair->toy[1].weights[which];
    rank_ok(engine_follower_offer(pair->second, weights, version, &err), &err);
}

static void adopt(Pair *pair, int which, int64_t version)
{
    Error err = {0};
    const Weights *weights[] = {pair->toy[0].weights[which]};
    rank_ok(engine_thread_adopt(pair->first, weights, version, NULL, &err), &err);
}

static Status generate(EngineThread *thread, Generation *ret, Error *err)
{
    ToyRequest toy;
    toy_request(&toy, 5, 30, SAMPLES, TOKENS);
    return engine_thread_generate(thread, &toy.request, NULL, ret, err);
}

/* By two threads of one engine, with the toy's weights of this number. */
static void generate_by_threads(const KernelTable *kernels, int which, Generation *ret)
{
    Error err = {0};
    ToyEngine toy[2];
    EngineThread *thread = NULL;
    EngineThreadOptions options = {.tp_size = 2};
    const Weights *weights[2];
    for (int r = 1; r >= 0; r--) {
        Ranks rank = {.tp_rank = r, .tp_size = 2, .kernels = kernels};
        toy_engine_init(&toy[r], &rank, 60, &options.engine);
        weights[r] = toy[r].weights[which];
    }
    rank_ok(engine_thread_create(&options, &thread, &err), &err);
    rank_ok(engine_thread_adopt(thread, weights, 1, NULL, &err), &err);
    rank_ok(generate(thread, ret, &err), &err);
    engine_thread_destroy(thread);
    for (int r = 0; r < 2; r++)
        toy_engine_clear(&toy[r]);
}

/* Both ranks compute with the weights of this number now. */
static void check_weights(Pair *pair, const KernelTable *kernels, int which)
{
    Error err = {0};
    Generation expected[SAMPLES] = {0}, got[SAMPLES] = {0};
    generate_by_threads(kernels, which, expected);
    rank_ok(generate(pair->first, got, &err), &err);
    for (int i = 0; i < SAMPLES; i++) {
        size_t n = (size_t)expected[i].length;
        rank_check(n == TOKENS && got[i].length == TOKENS);
        rank_check(memcmp(got[i].token, expected[i].token, n * sizeof *got[i].token) == 0);
        rank_check(memcmp(got[i].log_prob, expected[i].log_prob, n * sizeof(float)) == 0);
        generation_clear(&expected[i]);
        generation_clear(&got[i]);
    }
}

static void weights_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    Pair pair;
    pair_open(&pair, ranks->kernels);
    offer(&pair, 0, 1);
    adopt(&pair, 0, 1);
    check_weights(&pair, ranks->kernels, 0);
    rank_check(engine_follower_progress(pair.second) > TOKENS);

    offer(&pair, 1, 2); /* of train ranks that are gone before rank 0 is asked */
    rank_check(engine_follower_withdraw(pair.second) == pair.toy[1].weights[0]);
    check_weights(&pair, ranks->kernels, 0);
    offer(&pair, 2, 2);
    check_weights(&pair, ranks->kernels, 0);
    adopt(&pair, 2, 2);
    check_weights(&pair, ranks->kernels, 2);
    rank_check(engine_follower_withdraw(pair.second) == pair.toy[1].weights[2]);

    rank_ok(engine_thread_rest(pair.first, &err), &err); /* and wakes with what it has */
    while (engine_follower_working(pair.second))         /* the last step is behind it soon */
        usleep(1000);
    offer(&pair, 2, 2);
    adopt(&pair, 2, 2);
    check_weights(&pair, ranks->kernels, 2);

    offer(&pair, 1, 2); /* other weights under the same name */
    check_weights(&pair, ranks->kernels, 2);
    rank_ok(engine_thread_reset(pair.first, &err), &err);
    adopt(&pair, 1, 2);
    check_weights(&pair, ranks->kernels, 1);
    rank_check(pair.lost == 0);
    pair_close(&pair);
}

static void test_a_follower_goes_over_to_weights_with_rank_0(void **state)
{
    (void)state;
    ranks_run(1, 1, weights_body, NULL);
}

static void loss_body(const Ranks *ranks, void *argument)
{
    Error err = {0};
    Pair pair;
    Generation generation[SAMPLES] = {0};
    const bool first_ends = *(const bool *)argument;
    pair_open(&pair, ranks->kernels);
    offer(&pair, 0, 1);
    adopt(&pair, 0, 1);
    check_weights(&pair, ranks->kernels, 0);
    if (first_ends) {
        comm_abort(pair.plan[0]);
        while (pair.lost == 0)
            usleep(1000);
        rank_check(engine_follower_offer(pair.second, pair.toy[1].weights[1], 2, &err) ==
                   ERR_UNAVAILABLE);
    } else {
        engine_follower_end(pair.second);
        rank_check(generate(pair.first, generation, &err) == ERR_UNAVAILABLE);
        rank_check(strstr(err.message, "a tensor-parallel rank of the generation engine is lost") !=
                   NULL);
        rank_check(pair.lost == 1); /* rank 0's; the other was told to end */
    }
    pair_close(&pair);
}

static void test_rank_0_says_that_a_follower_is_lost(void **state)
{
    (void)state;
    ranks_run(1, 1, loss_body, &(bool){false});
}

static void test_a_follower_says_that_rank_0_is_lost(void **state)
{
    (void)state;
    ranks_run(1, 1, loss_body, &(bool){true});
}

/* Rank 0 goes over to weights that the other has not got. */
static void missing_body(const Ranks *ranks, void *argument)
{
    (void)argument;
    Error err = {0};
    Pair pair;
    pair_open(&pair, ranks->kernels);
    offer(&pair, 0, 1);
    adopt(&pair, 0, 1);
    const Weights *weights[] = {pair.toy[0].weights[1]};
    rank_check(engine_thread_adopt(pair.first, weights, 2, NULL, &err) == ERR_UNAVAILABLE);
    while (pair.lost < 2)
        usleep(1000);
    pair_close(&pair);
}

static void test_weights_that_a_follower_has_not_got_break_the_group(void **state)
{
    (void)state;
    ranks_run(1, 1, missing_body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_follower_goes_over_to_weights_with_rank_0),
        cmocka_unit_test(test_rank_0_says_that_a_follower_is_lost),
        cmocka_unit_test(test_a_follower_says_that_rank_0_is_lost),
        cmocka_unit_test(test_weights_that_a_follower_has_not_got_break_the_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
