/* AnsweredTurn: a chat's answer taken apart into what it says and the tools it calls. Private to
 * the answers. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_ANSWER_TURN_H
#define TROUPE_ROLLOUT_WORKER_SERVE_ANSWER_TURN_H

#include "rollout_worker/serve/call.h"

typedef struct AnsweredTurn {
    size_t content_length; /* of the text's beginning, without white space before the first call */
    ToolCalls calls;       /* none where one of them cannot be read: then all of it is content */
} AnsweredTurn;

/* Of a finished sample. */
AnsweredTurn answered_turn_read(const Call *call, const CallChoice *choice);
void answered_turn_clear(AnsweredTurn *turn);

/* How much of a sample that goes on is content for certain: no call begins before it ends. */
size_t answered_content(const Call *call, const CallChoice *choice);

/* The list of calls as OpenAI's API has it; with `indexed` as in a stream. */
void answered_calls_append(const Call *call, const CallChoice *choice, const AnsweredTurn *turn,
                           bool indexed, Str *out);

#endif
