/* The JSON that scorers outside of this process are spoken to with: what a request is on a line or
 * in a body, and how an answer is read. docs/rewards.md has it for those who write scorers. Any
 * thread. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_SCORER_JSON_H
#define TROUPE_ROLLOUT_WORKER_REWARD_SCORER_JSON_H

#include "base/str.h"
#include "rollout_worker/reward/reward.h"

#define SCORER_ANSWER_BYTES_MAX (1u << 20)
#define SCORER_GROUP_MAX        4096

/* Appends text as a JSON string; bytes that are not UTF-8 become U+FFFD. */
void scorer_append_text(Str *out, Slice text);

/* Appends `{"prompt": ..., "response": ..., "label": ..., ...}` without its closing brace; a group
 * of several has `responses`, a list. With `full`, also metadata, position and index (or indices).
 * `id`, when not NULL, comes first. */
void scorer_append_request(Str *out, const char *id, const RewardRequest *requests, int count,
                           bool group, bool full);

/* Reads what a scorer says of one response: a number, or an object with `score` (a number; or what
 * `key` names instead) and, all optional, `outcome` ("ok", "wrong", "infra_error", "timeout"),
 * `error` (a text: not judged), `reason`, `answer`, `extra` (any value). Without an outcome a score
 * above `right_above` is ok and any other is wrong. What cannot be read is an infra_error. */
void scorer_read_answer(const cJSON *answer, const char *key, double right_above,
                        RewardResult *ret);

/* Reads what it says of a group: a list with an answer for each, or an object with `scores` (such a
 * list) and, optionally, `extra` (a list as long). Another length is an infra_error for all. */
void scorer_read_answers(const cJSON *answer, const char *key, double right_above, int count,
                         RewardResult *ret);

/* Has the reason of an answer that was not judged begin with who gave it. */
void scorer_name(const char *who, RewardResult *ret);

#endif
