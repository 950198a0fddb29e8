/* The label of a record: the reference answer that rewards compare with. Taken before anything is
 * generated, and refused there where the rewards cannot use it: it is the record that is at fault
 * then, and no verifier. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_LABEL_H
#define TROUPE_ROLLOUT_WORKER_LABEL_H

#include "rollout_worker/chat_record.h"
#include "rollout_worker/reward/reward_set.h"
#include "rollout_worker/rollout.h"

/* The label as text: a string as it is, anything else as JSON; where no other key than "label" is
 * named and the record has none, the first text that the assistant says behind the first
 * `num_prompt` messages. Owned; NULL: there is none. */
char *label_take(const ChatRecord *chat, int num_prompt);

/* ERR_DATA when label_key is another than "label" and the record has no such key, and when the
 * rewards cannot use the label (NULL: there is none) or the metadata; the message says what the
 * record has and where to name it. `json` is the record. */
Status label_check(RewardSet *rewards, const RolloutRecord *record, const cJSON *json,
                   const ChatRecord *chat, const char *label, Error *err);

#endif
