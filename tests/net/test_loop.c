/* Tests of the event loop: posts, timers, and above all that no message is ever left lying in a
 * socket whose descriptor has already fired. */
#include "test.h"

#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/file.h"
#include "base/rng.h"
#include "net/loop.h"
#include "net/message.h"
#include "net/socket.h"

static Loop *make_loop(void)
{
    Loop *loop = NULL;
    Error err = {0};
    assert_ok(loop_create(&loop, &err), &err);
    return loop;
}

/* ---- timers and posts ---- */

typedef struct Ticks {
    Loop *loop;
    LoopTimer *timer;
    int count, stop_at;
} Ticks;

static void on_tick(void *argument)
{
    Ticks *ticks = argument;
    if (++ticks->count < ticks->stop_at) return;
    loop_remove_timer(ticks->timer);
    loop_stop(ticks->loop);
}

static void test_loop_timer_repeats_until_removed(void **state)
{
    (void)state;
    Ticks ticks = {.loop = make_loop(), .stop_at = 3};
    ticks.timer = loop_add_timer(ticks.loop, 1, 1, on_tick, &ticks);
    loop_run(ticks.loop);
    assert_int_equal(ticks.count, 3);
    loop_destroy(ticks.loop);
}

typedef struct Posts {
    Loop *loop;
    int expected;
} Posts;

static Posts posts;

static void on_post(void *argument)
{
    assert_int_equal((intptr_t)argument, posts.expected);
    if (++posts.expected == 1000) loop_stop(posts.loop);
}

static void *post_all(void *argument)
{
    for (intptr_t i = 0; i < 1000; i++)
        loop_post(argument, on_post, (void *)i);
    return NULL;
}

static void test_loop_posts_of_another_thread_keep_their_order(void **state)
{
    (void)state;
    posts = (Posts){.loop = make_loop()};
    pthread_t thread;
    pthread_create(&thread, NULL, post_all, posts.loop);
    loop_run(posts.loop);
    pthread_join(thread, NULL);
    loop_post(posts.loop, on_post, NULL); /* never runs, and is not lost memory */
    loop_stop(posts.loop);
    loop_destroy(posts.loop);
}

/* ---- no message is stranded ---- */

/* Two ends on one loop throw random bursts at each other: every receipt sends zero to four
 * messages, on the same or the other socket, with small budgets to leave work over. The game can
 * only end when every message that was sent has been received; a stranded one leaves the loop
 * asleep until the watchdog ends it. */
enum { ENDS = 4, MESSAGES = 60000 };

typedef struct Game Game;
typedef struct End {
    Game *game;
    LoopSocket *socket;
    void *zmq;
} End;
struct Game {
    Loop *loop;
    End ends[ENDS];
    uint64_t sent, received, draws;
    bool stranded;
};

static uint64_t game_draw(Game *game)
{
    return rng_block(rng_key(3, "game"), 0, game->draws++).word[0];
}

static void throw_one(Game *game, int from)
{
    if (game->sent == MESSAGES) return;
    End *end = &game->ends[from];
    uint8_t byte = 0;
    if (zmq_send(end->zmq, &byte, 1, ZMQ_DONTWAIT) != 1) return;
    game->sent++;
    loop_socket_sent(end->socket);
}

static bool on_ball(void *argument, void *zmq_socket, int budget)
{
    End *end = argument;
    Game *game = end->game;
    int limit = 1 + (int)(game_draw(game) % 8);
    if (limit > budget) limit = budget;
    for (int i = 0; i < limit; i++) {
        uint8_t byte;
        if (zmq_recv(zmq_socket, &byte, 1, ZMQ_DONTWAIT) != 1) return false;
        game->received++;
        uint64_t throws = game->received + 50 > game->sent ? 3 : game_draw(game) % 3;
        for (uint64_t t = 0; t < throws; t++)
            throw_one(game, (int)(game_draw(game) % ENDS));
        if (game->received == MESSAGES) loop_stop(game->loop);
    }
    return true;
}

static void on_watchdog(void *argument)
{
    Game *game = argument;
    game->stranded = true;
    loop_stop(game->loop);
}

static void test_loop_strands_no_message(void **state)
{
    (void)state;
    Error err = {0};
    Game game = {.loop = make_loop()};
    for (int pair = 0; pair < ENDS / 2; pair++) {
        const char *address = pair == 0 ? "inproc://game" : "tcp://127.0.0.1:*";
        char bound[64];
        size_t size = sizeof bound;
        End *a = &game.ends[2 * pair], *b = &game.ends[2 * pair + 1];
        a->zmq = zmq_socket(loop_zmq_context(game.loop), ZMQ_PAIR);
        b->zmq = zmq_socket(loop_zmq_context(game.loop), ZMQ_PAIR);
        assert_int_equal(zmq_bind(a->zmq, address), 0);
        assert_int_equal(zmq_getsockopt(a->zmq, ZMQ_LAST_ENDPOINT, bound, &size), 0);
        assert_int_equal(zmq_connect(b->zmq, bound), 0);
        a->game = b->game = &game;
        assert_ok(loop_add_socket(game.loop, a->zmq, on_ball, a, &a->socket, &err), &err);
        assert_ok(loop_add_socket(game.loop, b->zmq, on_ball, b, &b->socket, &err), &err);
    }
    LoopTimer *watchdog = loop_add_timer(game.loop, 30000, 0, on_watchdog, &game);
    for (int i = 0; i < 10; i++)
        throw_one(&game, 0);
    loop_run(game.loop);
    assert_false(game.stranded);
    assert_int_equal(game.received, MESSAGES);
    loop_remove_timer(watchdog);
    loop_destroy(game.loop);
}

/* ---- sockets ---- */

static void test_socket_folder_and_file_are_private(void **state)
{
    (void)state;
    Error err = {0};
    Loop *loop = make_loop();
    char folder[512], endpoint[600], bound[256];
    void *socket = NULL;
    snprintf(folder, sizeof folder, "/tmp/troupe-test-%d", (int)getpid());
    snprintf(endpoint, sizeof endpoint, "ipc://%s/inner/a.sock", folder);
    assert_ok(socket_bind(loop_zmq_context(loop), endpoint, &socket, bound, sizeof bound, &err),
              &err);
    assert_string_equal(bound, endpoint);
    struct stat info;
    char path[600];
    snprintf(path, sizeof path, "%s/inner", folder);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(stat(endpoint + strlen("ipc://"), &info), 0);
    assert_int_equal(info.st_mode & 0077, 0);
    void *second = NULL;
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    assert_fails(socket_bind(loop_zmq_context(loop), endpoint, &second, bound, sizeof bound, &err),
                 ERR_EXISTS, &err, pid);
    zmq_close(socket);
    loop_destroy(loop);
    assert_ok(folder_remove(folder, &err), &err);
}

static void test_socket_file_of_a_dead_process_is_taken_over(void **state)
{
    (void)state;
    Error err = {0};
    char path[128], endpoint[160], bound[256];
    snprintf(path, sizeof path, "/tmp/troupe-test-%d.sock", (int)getpid());
    snprintf(endpoint, sizeof endpoint, "ipc://%s", path);
    Loop *dead = make_loop();
    void *socket = NULL;
    assert_ok(socket_bind(loop_zmq_context(dead), endpoint, &socket, bound, sizeof bound, &err),
              &err);
    zmq_close(socket);
    loop_destroy(dead); /* libzmq leaves the file, as a killed process does */
    assert_true(path_exists(path));
    Loop *loop = make_loop();
    assert_ok(socket_bind(loop_zmq_context(loop), endpoint, &socket, bound, sizeof bound, &err),
              &err);
    zmq_close(socket);
    loop_destroy(loop);
    socket_remove_file(endpoint);
    assert_false(path_exists(path));
    assert_ok(file_write_atomic(path, "x", 1, &err), &err);
    loop = make_loop();
    assert_fails(socket_bind(loop_zmq_context(loop), endpoint, &socket, bound, sizeof bound, &err),
                 ERR_EXISTS, &err, "not a socket");
    loop_destroy(loop);
    unlink(path);
}

static void test_socket_refuses_bad_endpoints(void **state)
{
    (void)state;
    Error err = {0};
    Loop *loop = make_loop();
    void *context = loop_zmq_context(loop), *socket = NULL, *monitor = NULL;
    char bound[256], far[300] = "ipc:///tmp/";
    memset(far + strlen(far), 'x', 200);
    assert_fails(socket_bind(context, far, &socket, bound, sizeof bound, &err), ERR_INVALID, &err,
                 "the system allows 107");
    assert_fails(socket_bind(context, "ipc://x", &socket, bound, sizeof bound, &err), ERR_INVALID,
                 &err, "absolute path");
    assert_fails(socket_bind(context, "http://x", &socket, bound, sizeof bound, &err), ERR_INVALID,
                 &err, "not an endpoint");
    assert_fails(socket_bind(context, "tcp://0.0.0.0:0", &socket, bound, sizeof bound, &err),
                 ERR_UNSUPPORTED, &err, "without keys");
    assert_fails(socket_bind(context, "tcp://*:0", &socket, bound, sizeof bound, &err),
                 ERR_UNSUPPORTED, &err, "without keys");
    assert_fails(socket_connect(context, "nonsense", &socket, &monitor, &err), ERR_INVALID, &err,
                 "not an endpoint");
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loop_timer_repeats_until_removed),
        cmocka_unit_test(test_loop_posts_of_another_thread_keep_their_order),
        cmocka_unit_test(test_loop_strands_no_message),
        cmocka_unit_test(test_socket_folder_and_file_are_private),
        cmocka_unit_test(test_socket_file_of_a_dead_process_is_taken_over),
        cmocka_unit_test(test_socket_refuses_bad_endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
