#include "rollout_worker/serve/peers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"

struct Peer {
    int descriptor;
    int64_t until_ms; /* of clock_ms; 0: for ever */
    struct Peer *prev, *next;
};

struct Peers {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    Peer *peer;
    bool ended;
    pthread_t thread;
};

/* With the mutex held. The time of the next one, or 0. */
static int64_t cut_off_late(Peers *peers)
{
    int64_t now = clock_ms(), next = 0;
    Peer *peer = NULL;
    DL_FOREACH(peers->peer, peer)
    {
        if (peer->until_ms == 0) continue;
        if (peer->until_ms <= now) {
            shutdown(peer->descriptor, SHUT_RDWR); /* its own thread sees it and closes it */
            peer->until_ms = 0;
        } else if (next == 0 || peer->until_ms < next) {
            next = peer->until_ms;
        }
    }
    return next;
}

static void *peers_main(void *argument)
{
    Peers *peers = argument;
    pthread_mutex_lock(&peers->mutex);
    while (!peers->ended) {
        int64_t next = cut_off_late(peers), wait_ms = next - clock_ms();
        if (next == 0) {
            pthread_cond_wait(&peers->changed, &peers->mutex);
            continue;
        }
        if (wait_ms < 1) wait_ms = 1;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (until.tv_nsec / 1000000 + wait_ms) / 1000;
        until.tv_nsec = (until.tv_nsec + wait_ms % 1000 * 1000000) % 1000000000;
        pthread_cond_timedwait(&peers->changed, &peers->mutex, &until);
    }
    pthread_mutex_unlock(&peers->mutex);
    return NULL;
}

Peers *peers_create(void)
{
    Peers *peers = mem_calloc(1, sizeof *peers);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&peers->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&peers->mutex, NULL);
    CHECK(pthread_create(&peers->thread, NULL, peers_main, peers) == 0);
    return peers;
}

void peers_destroy(Peers *peers)
{
    if (peers == NULL) return;
    CHECK(peers->peer == NULL);
    pthread_mutex_lock(&peers->mutex);
    peers->ended = true;
    pthread_cond_signal(&peers->changed);
    pthread_mutex_unlock(&peers->mutex);
    pthread_join(peers->thread, NULL);
    pthread_cond_destroy(&peers->changed);
    pthread_mutex_destroy(&peers->mutex);
    free(peers);
}

Peer *peers_add(Peers *peers, int descriptor, int64_t within_ms)
{
    Peer *peer = mem_calloc(1, sizeof *peer);
    peer->descriptor = descriptor;
    pthread_mutex_lock(&peers->mutex);
    DL_APPEND(peers->peer, peer);
    pthread_mutex_unlock(&peers->mutex);
    peer_expect(peers, peer, within_ms);
    return peer;
}

void peers_remove(Peers *peers, Peer *peer)
{
    if (peer == NULL) return;
    pthread_mutex_lock(&peers->mutex);
    DL_DELETE(peers->peer, peer);
    pthread_mutex_unlock(&peers->mutex);
    free(peer);
}

void peer_expect(Peers *peers, Peer *peer, int64_t within_ms)
{
    pthread_mutex_lock(&peers->mutex);
    peer->until_ms = within_ms > 0 ? clock_ms() + within_ms : 0;
    if (within_ms > 0) pthread_cond_signal(&peers->changed);
    pthread_mutex_unlock(&peers->mutex);
}
