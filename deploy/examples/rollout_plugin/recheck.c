/* A rollout function in a shared object: the model answers, is asked to check its answer, and
 * answers again; the job's rewards judge the second answer (docs/rollout-function.md).
 *
 *     cc -shared -fPIC -O2 -I ROOT/rollout_worker/function -o recheck.so recheck.c
 *
 *     rollout: {function: plugin:recheck.so, reward: gsm8k, function_options: {ask: "Sure?"}}
 *
 * ROOT is the source folder of Troupe. */
#include "rollout_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Recheck {
    char *ask; /* JSON: the messages between the two answers */
} Recheck;

/* The text of `"ask": "..."`, quotes included, or NULL: enough for options of one key. */
static const char *find_ask(const char *options, size_t *ret_length)
{
    const char *at = strstr(options, "\"ask\":");
    if (at == NULL || (at = strchr(at + strlen("\"ask\":"), '"')) == NULL) return NULL;
    const char *end = at + 1;
    while (*end != '\0' && *end != '"')
        end += *end == '\\' && end[1] != '\0' ? 2 : 1;
    *ret_length = (size_t)(end - at) + (*end == '"');
    return at;
}

static int recheck_open(const char *options, void **ret_self, char *message, size_t message_bytes)
{
    static const char usual[] = "\"Check this, and give the final answer.\"";
    size_t length = strlen(usual);
    const char *ask = find_ask(options, &length);
    Recheck *self = malloc(sizeof *self);
    if (self != NULL) self->ask = malloc(length + 64);
    if (self == NULL || self->ask == NULL || length == 2) {
        snprintf(message, message_bytes, length == 2 ? "ask is empty" : "out of memory");
        if (self != NULL) free(self->ask);
        free(self);
        return 1;
    }
    snprintf(self->ask, length + 64, "[{\"role\": \"user\", \"content\": %.*s}]", (int)length,
             ask != NULL ? ask : usual);
    *ret_self = self;
    return 0;
}

static void recheck_close(void *opened)
{
    Recheck *self = opened;
    free(self->ask);
    free(self);
}

/* The second turn of one sample; its first is `output`. */
static int finish_sample(const Recheck *self, const RolloutPluginHost *host, RolloutPluginRun *run,
                         const RolloutSequence *question, const RolloutOutput *output, int index)
{
    RolloutPluginRequest request = {.index = index};
    RolloutOutput second;
    RolloutSequence *sequence = host->sequence(run, question);
    host->add_output(sequence, output->id, 1);
    host->add_follow(sequence, self->ask);
    int outcome = host->generate(run, sequence, &request, &second);
    if (outcome == ROLLOUT_PLUGIN_OK) {
        host->add_output(sequence, second.id, 1);
        host->set_sample(run, index, sequence, NULL, 0, NULL);
    } else if (outcome == ROLLOUT_PLUGIN_REFUSED) { /* no room for a second turn: the first stays */
        RolloutSequence *first = host->sequence(run, question);
        host->add_output(first, output->id, 1);
        host->set_sample(run, index, first, NULL, 0, NULL);
    }
    return outcome;
}

/* Called from several threads at a time: it reads what open made, and writes nothing. */
static int recheck_run(void *opened, const RolloutPluginHost *host, RolloutPluginRun *run,
                       const RolloutPluginRecord *record, char *message, size_t message_bytes)
{
    const Recheck *self = opened;
    RolloutPluginRequest request = {.samples = record->samples};
    RolloutOutput *first = calloc((size_t)record->samples, sizeof *first);
    RolloutSequence *question = host->sequence(run, NULL);
    if (first == NULL) return ROLLOUT_PLUGIN_FAILED;
    host->add_messages(question, record->messages, record->tools, NULL);
    int outcome = host->generate(run, question, &request, first);
    if (outcome == ROLLOUT_PLUGIN_REFUSED) snprintf(message, message_bytes, "%s", host->error(run));
    for (int i = 0; i < record->samples && outcome == ROLLOUT_PLUGIN_OK; i++) {
        outcome = finish_sample(self, host, run, question, &first[i], i);
        if (outcome == ROLLOUT_PLUGIN_REFUSED) outcome = ROLLOUT_PLUGIN_OK;
    }
    free(first);
    return outcome;
}

const RolloutPlugin *rollout_plugin(void)
{
    static const RolloutPlugin table = {
        .abi = ROLLOUT_PLUGIN_ABI,
        .name = "recheck",
        .open = recheck_open,
        .close = recheck_close,
        .run = recheck_run,
    };
    return &table;
}
