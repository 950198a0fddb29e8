/* A reward in a shared object: 1 for a response of at most `characters` characters, and less the
 * longer it is (docs/rewards.md, "A shared object").
 *
 *     cc -shared -fPIC -O2 -I ROOT/rollout_worker/reward -o brevity.so brevity.c
 *     printf '%s\n' '{"response": "short"}' |
 *         reward_try '{"name": "plugin", "options": {"path": "./brevity.so", "options":
 * {"characters": 80}}}'
 *
 * ROOT is the source folder of Troupe. */
#include "reward_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Brevity {
    long characters;
} Brevity;

static int brevity_open(const char *options, void **ret_self, char *message, size_t message_bytes)
{
    Brevity *self = malloc(sizeof *self);
    if (self == NULL) {
        snprintf(message, message_bytes, "out of memory");
        return 1;
    }
    self->characters = 200;
    const char *at = strstr(options, "\"characters\":");
    if (at != NULL) self->characters = strtol(at + strlen("\"characters\":"), NULL, 10);
    if (self->characters < 1) {
        snprintf(message, message_bytes, "characters is %ld, expected at least 1",
                 self->characters);
        free(self);
        return 1;
    }
    *ret_self = self;
    return 0;
}

static void brevity_close(void *self)
{
    free(self);
}

/* Called from several threads at a time: it reads what open made and writes nothing but *ret. */
static void brevity_score(void *opened, const RewardPluginRequest *request, RewardPluginResult *ret)
{
    const Brevity *self = opened;
    long characters = 0;
    for (size_t i = 0; i < request->response.length; i++)
        characters += ((unsigned char)request->response.data[i] & 0xc0) != 0x80;
    ret->outcome = characters <= self->characters ? REWARD_PLUGIN_OK : REWARD_PLUGIN_WRONG;
    ret->score = characters <= self->characters ? 1 : (double)self->characters / (double)characters;
    snprintf(ret->reason, sizeof ret->reason, "%ld characters", characters);
}

const RewardPlugin *reward_plugin(void)
{
    static const RewardPlugin table = {
        .abi = REWARD_PLUGIN_ABI,
        .name = "brevity",
        .open = brevity_open,
        .close = brevity_close,
        .score = brevity_score,
    };
    return &table;
}
