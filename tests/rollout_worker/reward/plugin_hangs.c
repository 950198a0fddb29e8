/* A reward plugin of which a call never returns when its response begins with "hang", for
 * test_scorers.c; with "late" it returns after a while. With "count" the
 * score is how many such calls its thread has made, with "keep" the thread has something of the
 * plugin's to do when it ends. */
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "reward_plugin.h"

static pthread_key_t key;
static _Thread_local int calls;
static volatile int ended;

static void end_slowly(void *nothing)
{
    const struct timespec while_ = {.tv_nsec = 200000000};
    (void)nothing;
    nanosleep(&while_, NULL);
    ended++;
}

static int hangs_open(const char *options, void **ret_self, char *message, size_t message_bytes)
{
    (void)options, (void)message, (void)message_bytes;
    *ret_self = NULL;
    return pthread_key_create(&key, end_slowly);
}

static void hangs_close(void *self)
{
    (void)self;
}

static void hangs_score(void *self, const RewardPluginRequest *request, RewardPluginResult *ret)
{
    const struct timespec while_ = {.tv_nsec = 300000000};
    (void)self;
    if (request->response.length >= 4 && memcmp(request->response.data, "hang", 4) == 0)
        for (;;)
            pause();
    if (request->response.length >= 4 && memcmp(request->response.data, "late", 4) == 0)
        nanosleep(&while_, NULL);
    if (request->response.length >= 4 && memcmp(request->response.data, "keep", 4) == 0)
        pthread_setspecific(key, &key);
    ret->score = (double)request->response.length;
    if (request->response.length >= 5 && memcmp(request->response.data, "count", 5) == 0)
        ret->score = ++calls;
}

const RewardPlugin *reward_plugin(void)
{
    static const RewardPlugin table = {.abi = REWARD_PLUGIN_ABI,
                                       .name = "hangs",
                                       .open = hangs_open,
                                       .close = hangs_close,
                                       .score = hangs_score};
    return &table;
}
