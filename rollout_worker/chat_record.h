/* ChatRecord: the parts of a parsed record that make a conversation, under the keys that job.yaml's
 * data section names: a list of messages, and tools at the tool key or in the metadata. Roles,
 * contents and their order are judged where they are rendered (text/conversation.h). Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_CHAT_RECORD_H
#define TROUPE_ROLLOUT_WORKER_CHAT_RECORD_H

#include <cjson/cJSON.h>

#include "config/job.h"

/* Borrowed from the record. */
typedef struct ChatRecord {
    const cJSON *messages; /* a list */
    const cJSON *tools;    /* a list, a string, or NULL */
} ChatRecord;

/* ERR_DATA with file and line, the key, what was found, what was expected and what to do. */
Status chat_record_find(const JobConfig *config, const cJSON *record, const char *source,
                        ChatRecord *ret, Error *err);

#endif
