/* The interface between Troupe and a reward in a shared object: the reward `plugin`. Include this
 * file and nothing else of Troupe; docs/rewards.md tells how, deploy/examples/reward_plugin has
 * one.
 *
 * The object exports one function, reward_plugin, that returns a table of functions. The table
 * begins with the number of the interface it was compiled against: an object of another number is
 * refused before any other field is read. The number changes with every change of this file.
 *
 * A plugin runs inside of the rollout worker: it is for code that is trusted and fast. score is
 * called from several threads at a time on what open returned, each time on another: nothing is
 * to be kept by thread. Texts are bytes with a length, borrowed for the call; they are not
 * NUL-terminated and not always UTF-8. */
#ifndef TROUPE_REWARD_PLUGIN_H
#define TROUPE_REWARD_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REWARD_PLUGIN_ABI 1

enum {                                /* RewardPluginResult.outcome */
       REWARD_PLUGIN_OK = 0,          /* judged: worth `score` */
       REWARD_PLUGIN_WRONG = 1,       /* judged and found wrong: worth `score` */
       REWARD_PLUGIN_INFRA_ERROR = 2, /* not judged: try again later */
       REWARD_PLUGIN_TIMEOUT = 3,     /* not judged in time */
};

typedef struct RewardPluginText {
    const char *data;
    size_t length;
} RewardPluginText;

typedef struct RewardPluginRequest {
    RewardPluginText prompt;
    RewardPluginText response;
    RewardPluginText label;
    RewardPluginText metadata; /* the record's metadata as JSON, "{}" when it has none */
    int64_t position;          /* of the record in the data */
    int32_t index;             /* of the response in its group */
} RewardPluginRequest;

typedef struct RewardPluginResult { /* zeroed before the call */
    int32_t outcome;
    double score;     /* a finite number */
    char reason[200]; /* NUL-terminated UTF-8, for people; may stay empty */
    char answer[200]; /* what was taken for the answer; may stay empty */
} RewardPluginResult;

typedef struct RewardPlugin {
    uint32_t abi;     /* REWARD_PLUGIN_ABI */
    const char *name; /* for messages */
    /* Reads the options (a JSON text, "{}" when there are none) and makes what score shares.
     * Returns 0, or anything else and a sentence in `message`. */
    int (*open)(const char *options, void **ret_self, char *message, size_t message_bytes);
    void (*close)(void *self);
    void (*score)(void *self, const RewardPluginRequest *request, RewardPluginResult *ret);
    /* All responses to one prompt at once; NULL: each is judged alone. */
    void (*score_group)(void *self, const RewardPluginRequest *requests, int count,
                        RewardPluginResult *ret);
} RewardPlugin;

/* What the shared object exports. */
__attribute__((visibility("default"))) const RewardPlugin *reward_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
