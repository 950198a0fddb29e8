#include "rollout_worker/function/answer.h"

#include <stdlib.h>

#include "base/memory.h"

void answer_clear(Answer *answer)
{
    sample_clear(&answer->sample);
    free(answer->response);
    cJSON_Delete(answer->extra);
    *answer = (Answer){0};
}

void answer_reject(Answer *answer, RejectReason reason, const char *message)
{
    char *copy = mem_strdup(message);
    Sample rejected = {.position = answer->sample.position,
                       .index = answer->sample.index,
                       .status = SAMPLE_REJECTED,
                       .reject_reason = reason,
                       .reject_message = copy,
                       .work = answer->sample.work};
    answer_clear(answer);
    answer->sample = rejected;
}
