/* ChatRecord: what a parsed record says, whatever its shape: a conversation (chat_shapes.h), and
 * beside it tools, the reference answer, metadata and what the chat template is told, under the
 * keys of job.yaml's data section. Roles, contents and their order are judged where they are
 * rendered (text/conversation.h). Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_CHAT_RECORD_H
#define TROUPE_ROLLOUT_WORKER_CHAT_RECORD_H

#include "config/eval_set.h"
#include "rollout_worker/chat_shapes.h"

/* How a job's records are read. Const once made; any number of threads. */
typedef struct ChatReader {
    RecordKeys key;         /* of data.train, borrowed from the configuration */
    cJSON *template_kwargs; /* of the job: an object, or NULL */
} ChatReader;

/* Fails (ERR_INVALID) when data.apply_chat_template_kwargs names something that is not for it to
 * give. `config` has to outlive the reader. */
Status chat_reader_create(const JobConfig *config, ChatReader *ret, Error *err);
void chat_reader_clear(ChatReader *reader);

/* Refers to the record, which has to outlive it; zeroed before it is read into, cleared after. */
typedef struct ChatRecord {
    ChatConversation conversation;
    const cJSON *tools;    /* a list, a string, or NULL */
    const cJSON *label;    /* the reference answer; NULL: none */
    const char *label_key; /* where it was looked for; borrowed from the reader */
    const cJSON *metadata; /* NULL: none */
    const cJSON
        *template_kwargs; /* the job's, less what the record's replace, and those; or NULL */
    cJSON *owned_tools, *owned_kwargs;
} ChatRecord;

void chat_record_clear(ChatRecord *record);

/* Of another set the reader is a copy with that set's keys, which is not cleared. ERR_DATA with
 * file and line, the key, what was found, what was expected and what to do. */
Status chat_record_read(const ChatReader *reader, const cJSON *record, const char *source,
                        ChatRecord *ret, Error *err);

#endif
