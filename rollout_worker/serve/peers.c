#include "rollout_worker/serve/peers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/condition.h"
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
    int64_t next_ms; /* the thread looks by then; 0: when it is told */
    bool ended;
    pthread_t thread;
};

/* With the mutex held. Leaves the time of the next one, or 0. */
static void cut_off_late(Peers *peers)
{
    int64_t now = clock_ms();
    peers->next_ms = 0;
    Peer *peer = NULL;
    DL_FOREACH(peers->peer, peer)
    {
        if (peer->until_ms == 0) continue;
        if (peer->until_ms <= now) {
            shutdown(peer->descriptor, SHUT_RDWR); /* its own thread sees it and closes it */
            peer->until_ms = 0;
        } else if (peers->next_ms == 0 || peer->until_ms < peers->next_ms) {
            peers->next_ms = peer->until_ms;
        }
    }
}

static void *peers_main(void *argument)
{
    Peers *peers = argument;
    pthread_mutex_lock(&peers->mutex);
    while (!peers->ended) {
        cut_off_late(peers);
        if (peers->next_ms == 0)
            pthread_cond_wait(&peers->changed, &peers->mutex);
        else
            condition_wait_until(&peers->changed, &peers->mutex, peers->next_ms);
    }
    pthread_mutex_unlock(&peers->mutex);
    return NULL;
}

Peers *peers_create(void)
{
    Peers *peers = mem_calloc(1, sizeof *peers);
    condition_init(&peers->changed);
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
    /* A time that was put off, as for each piece of a stream, wakes nobody. */
    bool earlier = peers->next_ms == 0 || peer->until_ms < peers->next_ms;
    if (within_ms > 0 && earlier) {
        peers->next_ms = peer->until_ms;
        pthread_cond_signal(&peers->changed);
    }
    pthread_mutex_unlock(&peers->mutex);
}
