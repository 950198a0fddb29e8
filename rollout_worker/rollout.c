#include "rollout_worker/rollout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "dataset/dataset.h"

const RolloutTable *rollout_table(RolloutFunction function)
{
    switch (function) {
    case ROLLOUT_SFT:
        return &rollout_sft;
    case ROLLOUT_GENERATE:
        return &rollout_generate;
    case ROLLOUT_PROCESS:
        return &rollout_process;
    case ROLLOUT_PLUGIN:
        return &rollout_plugin_table;
    }
    check_failed(__FILE__, __LINE__, "function", "no rollout function %d", (int)function);
}

Sample *rollout_group_add(RolloutGroup *group, const RolloutRecord *record)
{
    if (group->count == group->capacity) {
        group->capacity = group->capacity == 0 ? 1 : 2 * group->capacity;
        group->sample = mem_realloc(group->sample, (size_t)group->capacity, sizeof *group->sample);
    }
    Sample *sample = &group->sample[group->count];
    *sample = (Sample){.position = record->position, .index = group->count++};
    return sample;
}

void rollout_group_clear(RolloutGroup *group)
{
    for (int i = 0; i < group->count; i++)
        sample_clear(&group->sample[i]);
    free(group->sample);
    *group = (RolloutGroup){0};
}

void rollout_reject(Sample *ret, RejectReason reason, const char *message)
{
    ret->status = SAMPLE_REJECTED;
    ret->reject_reason = reason;
    ret->reject_message = mem_strdup(message);
}

static void locate(char **message, const char *at, const char *hint)
{
    char *whole = mem_printf("%s\n  at: %s%s", *message, at, hint);
    free(*message);
    *message = whole;
}

/* What cannot be parsed may be the fault of the file that holds the text, compressed. */
static bool may_be_damage(const Sample *sample, const char *at)
{
    const char *what = sample->reject_message;
    bool unparsed = strstr(what, ": not valid JSON") || strstr(what, ": the JSON text ends") ||
                    strstr(what, "expected: text in UTF-8");
    return unparsed && sample->reject_reason == REJECT_BAD_RECORD &&
           str_ends_with(at, RECORD_OF_TEXT);
}

void rollout_locate(Sample *sample, const RolloutRecord *record)
{
    bool bad = sample->status == SAMPLE_REJECTED && reject_is_of_record(sample->reject_reason);
    if (record->at == NULL || record->at[0] == '\0') return;
    if (bad)
        locate(&sample->reject_message, record->at,
               may_be_damage(sample, record->at)
                   ? "; gzip -t, or zstd -t, says whether the file is damaged"
                   : "");
    for (int i = 0; i < NOTE_COUNT; i++)
        if (sample->note_message[i] != NULL) locate(&sample->note_message[i], record->at, "");
}

void rollout_trace_clear(RolloutTrace *trace)
{
    tokenized_conversation_free(&trace->conversation);
    free(trace->label);
    *trace = (RolloutTrace){0};
}

Status rollout_enter_working_dir(const JobConfig *config, Error *err)
{
    const char *folder = config->rollout.working_dir;
    if (config->rollout.function == ROLLOUT_SFT || chdir(folder) == 0) return OK;
    return error_set_errno(err, errno, "rollout.working_dir: could not enter %s", folder);
}
