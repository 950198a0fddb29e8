/* Answer: one sample on its way from who makes it (a turn of the policy's, several with tools, a
 * rollout function of the user's) to who judges it. Plain data. */
#ifndef TROUPE_ROLLOUT_WORKER_FUNCTION_ANSWER_H
#define TROUPE_ROLLOUT_WORKER_FUNCTION_ANSWER_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "sample/sample.h"

typedef struct Answer {
    Sample sample;   /* position and index are set; one that is rejected has no tokens */
    bool has_reward; /* who made it has judged it: sample.reward and sample.right */
    char
        *response; /* text of what was generated last: what rewards read; owned; NULL if rejected */
    size_t response_bytes;
    cJSON *extra; /* what else a rollout function says of it, or NULL; owned */
} Answer;

void answer_clear(Answer *answer); /* leaves a zeroed one */

/* Makes it one that is rejected; the message is copied. What it had is freed, all but position and
 * index. */
void answer_reject(Answer *answer, RejectReason reason, const char *message);

#endif
