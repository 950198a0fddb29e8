/* The keys of job.yaml, a file for each section. A key is added here, to JobConfig (config/job.h)
 * and nowhere else: reading, checking, messages and the reference follow from the table. */
#ifndef TROUPE_CONFIG_KEYS_KEYS_H
#define TROUPE_CONFIG_KEYS_KEYS_H

#include <stddef.h>

#include "config/job_internal.h"

#define AT(field) offsetof(JobConfig, field)
#define STEPS_MAX 1e12
#define SEED_MAX  9007199254740992.0 /* whole numbers that every JSON reader keeps */

extern const ConfigSection job_section, model_section, data_section, rollout_section, train_section,
    algorithm_section, eval_section, checkpoint_section, cluster_section;

/* Of a row that may name its own fields of a record: input_key, label_key, tool_key and
 * metadata_key, whose places in the row `offset_in` gives. */
#define RECORD_KEYS(offset_in)                                                                     \
    {.path = "input_key",                                                                          \
     .type = KEY_STRING,                                                                           \
     .offset = offset_in(input_key),                                                               \
     .derived = "data.input_key",                                                                  \
     .example = "question",                                                                        \
     .also = "prompt_key messages_key",                                                            \
     .meaning = "field of a record that holds the conversation or a prompt"},                      \
        {.path = "label_key",                                                                      \
         .type = KEY_STRING,                                                                       \
         .offset = offset_in(label_key),                                                           \
         .derived = "data.label_key",                                                              \
         .example = "answer",                                                                      \
         .also = "answer_key",                                                                     \
         .meaning = "field that holds the reference answer"},                                      \
        {.path = "tool_key",                                                                       \
         .type = KEY_STRING,                                                                       \
         .offset = offset_in(tool_key),                                                            \
         .derived = "data.tool_key",                                                               \
         .example = "tools",                                                                       \
         .meaning = "field that holds the tool descriptions"},                                     \
    {                                                                                              \
        .path = "metadata_key", .type = KEY_STRING, .offset = offset_in(metadata_key),             \
        .derived = "data.metadata_key", .example = "metadata",                                     \
        .meaning = "field that is passed on unread, but for `tools` in it"                         \
    }

#endif
