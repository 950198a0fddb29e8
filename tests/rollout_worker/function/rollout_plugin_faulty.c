/* A rollout function that does what the metadata of the record says, for test_user_function.c:
 * "unset" sets no sample, "twice" sets one twice, "elsewhere" trains an output behind other tokens,
 * "refuse" and "fail" return these, "strange" returns what the interface has not, "hang" never
 * returns, "wake" sleeps for too long and goes on. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rollout_worker/function/rollout_plugin.h"

static int faulty_open(const char *options, void **ret_self, char *message, size_t message_bytes)
{
    *ret_self = NULL;
    if (strstr(options, "refuse") == NULL) return 0;
    snprintf(message, message_bytes, "it does not want to");
    return 1;
}

static void faulty_close(void *self)
{
    (void)self;
}

static int faulty_run(void *self, const RolloutPluginHost *host, RolloutPluginRun *run,
                      const RolloutPluginRecord *record, char *message, size_t message_bytes)
{
    const char *deed = record->metadata;
    const double reward = 1;
    RolloutPluginRequest request = {.samples = record->samples};
    RolloutOutput output[8];
    RolloutSequence *question = host->sequence(run, NULL);
    (void)self;
    snprintf(message, message_bytes, "as it was told");
    if (strstr(deed, "refuse") != NULL) return ROLLOUT_PLUGIN_REFUSED;
    if (strstr(deed, "fail") != NULL) return ROLLOUT_PLUGIN_FAILED;
    if (strstr(deed, "strange") != NULL) return 77;
    if (strstr(deed, "wake") != NULL) usleep(1500000);
    while (strstr(deed, "hang") != NULL)
        pause();
    if (strstr(deed, "unset") != NULL) return ROLLOUT_PLUGIN_OK;
    host->add_messages(question, record->messages, NULL, NULL);
    int outcome = host->generate(run, question, &request, output);
    if (outcome != ROLLOUT_PLUGIN_OK) return outcome;
    for (int i = 0; i < record->samples; i++) {
        RolloutSequence *sequence = host->sequence(run, question);
        if (strstr(deed, "elsewhere") != NULL) host->add_text(sequence, "But:", 0);
        host->add_output(sequence, output[i].id, 1);
        host->set_sample(run, strstr(deed, "twice") != NULL ? 0 : i, sequence, &reward, 1, NULL);
    }
    return ROLLOUT_PLUGIN_OK;
}

const RolloutPlugin *rollout_plugin(void)
{
    static const RolloutPlugin table = {.abi = ROLLOUT_PLUGIN_ABI,
                                        .name = "faulty",
                                        .open = faulty_open,
                                        .close = faulty_close,
                                        .run = faulty_run};
    return &table;
}
