/* What becomes of HTTP requests while an engine starts, loses its weights and ends: everybody who
 * asks gets an answer, and whoever stops a server is not held up by one who asks. Many cycles under
 * load, in one process, so that sanitizers see every thread. */
#include "test.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "rollout_worker/serve/thread_generator.h"
#include "toy_engine.h"

#ifndef CYCLES
#define CYCLES 120
#endif
#define CLIENTS   4
#define PATIENCE  60 /* seconds until a client that is to end counts as stuck */
#define BAD       2  /* weights without finite logits */
#define REQUEST_N 3  /* samples, most */

typedef struct Client {
    const Generator *generator;
    uint64_t seed;
    atomic_bool *stopping;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t last_word;
    int left; /* samples of the request in work; guarded */
    int answered, refused;
} Client;

static void on_token(void *context, const TokenEvent *event)
{
    (void)context, (void)event;
}

static void on_result(void *context, Generation *result)
{
    Client *client = context;
    generation_clear(result);
    pthread_mutex_lock(&client->lock);
    client->left--;
    pthread_cond_signal(&client->last_word);
    pthread_mutex_unlock(&client->lock);
}

static void on_failure(void *context, const Error *err)
{
    Client *client = context;
    (void)err;
    pthread_mutex_lock(&client->lock);
    client->left = 0;
    pthread_cond_signal(&client->last_word);
    pthread_mutex_unlock(&client->lock);
}

static void ask_once(Client *client, uint64_t number)
{
    Error err = {0};
    ToyRequest toy;
    uint64_t id = 0, chance = rng_key(client->seed, "client") ^ rng_mix(number);
    const Generator *generator = client->generator;
    GenerationSink sink = {on_token, on_result, on_failure, client};
    toy_request(&toy, number, 6, 1 + (int)(chance % REQUEST_N), 24);
    toy.request.params.ignore_eos = true;
    client->left = toy.request.num_samples;
    if (generator->submit(generator->self, &toy.request, &sink, &id, &err) != OK) {
        client->refused++;
        usleep(100);
        return;
    }
    /* As a connection does whose client goes away, or whose server stops. */
    if (chance >> 8 & 1 || atomic_load(client->stopping)) generator->abort(generator->self, id);
    pthread_mutex_lock(&client->lock);
    while (client->left > 0)
        pthread_cond_wait(&client->last_word, &client->lock);
    pthread_mutex_unlock(&client->lock);
    client->answered++;
}

static void *client_main(void *argument)
{
    Client *client = argument;
    for (uint64_t number = 0; !atomic_load(client->stopping); number++)
        ask_once(client, number);
    return NULL;
}

static void client_start(Client *client, const Generator *generator, uint64_t seed,
                         atomic_bool *stopping)
{
    *client = (Client){.generator = generator, .seed = seed, .stopping = stopping};
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->last_word, NULL);
    assert_int_equal(pthread_create(&client->thread, NULL, client_main, client), 0);
}

static void client_join(Client *client)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    if (pthread_timedjoin_np(client->thread, NULL, &until) != 0)
        fail_msg("who asked is stuck: a server that stops would wait for it for ever");
    pthread_cond_destroy(&client->last_word);
    pthread_mutex_destroy(&client->lock);
}

/* What the thread that adopts weights does meanwhile: they come, are others, and are let go of when
 * train ranks were started again, and perhaps never come again. */
static void change_weights(const ToyEngine *toy, EngineThread *thread, uint64_t chance)
{
    Error err = {0};
    for (int64_t version = 1; version <= 3; version++, chance >>= 8) {
        const Weights *weights[] = {toy->weights[chance % 3]};
        assert_ok(engine_thread_adopt(thread, weights, version, NULL, &err), &err);
        usleep(chance >> 2 & 1 ? 0 : 1500);
        if (chance >> 3 & 1) assert_ok(engine_thread_reset(thread, &err), &err);
    }
    if (chance & 1) assert_ok(engine_thread_reset(thread, &err), &err);
}

static void test_a_server_stops_at_any_moment_under_load(void **state)
{
    (void)state;
    ToyEngine toy;
    EngineThreadOptions options = {.tp_size = 1};
    const Ranks alone = {.tp_size = 1, .kernels = cpu_kernels(1)};
    int answered = 0, refused = 0;
    toy_engine_init(&toy, &alone, 40, &options.engine);
    for (int64_t i = 0; i < toy.plan->size; i++)
        ((float *)toy.weights[BAD]->flat)[i] = NAN;
    weights_prepare(toy.weights[BAD]);
    for (uint64_t cycle = 0; cycle < CYCLES; cycle++) {
        Error err = {0};
        Client client[CLIENTS];
        EngineThread *thread = NULL;
        atomic_bool stopping = false;
        uint64_t chance = rng_key(cycle, "cycle");
        assert_ok(engine_thread_create(&options, &thread, &err), &err);
        ThreadGenerator *generator = thread_generator_create(thread, CLIENTS * REQUEST_N - 1);
        const Generator front = thread_generator_front(generator);
        for (int i = 0; i < CLIENTS; i++)
            client_start(&client[i], &front, cycle * CLIENTS + (uint64_t)i, &stopping);
        change_weights(&toy, thread, chance);
        /* As a rollout worker ends: first its server, while the engine still works. */
        atomic_store(&stopping, true);
        for (int i = 0; i < CLIENTS; i++) {
            client_join(&client[i]);
            answered += client[i].answered;
            refused += client[i].refused;
        }
        thread_generator_destroy(generator);
        engine_thread_destroy(thread);
    }
    toy_engine_clear(&toy);
    assert_true(answered > 10 * CYCLES / 12);
    assert_true(refused > CYCLES);
}

static void ignore_line(void *context, const char *line)
{
    (void)context, (void)line;
}

int main(void)
{
    log_set_writer(ignore_line, NULL); /* every failed step has one */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_server_stops_at_any_moment_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
