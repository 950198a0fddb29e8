/* Answers: what goes back for a Call, in OpenAI's and SGLang's forms (docs/serving.md). Pure: the
 * state of a Call in, JSON or server-sent events out. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_ANSWER_H
#define TROUPE_ROLLOUT_WORKER_SERVE_ANSWER_H

#include "rollout_worker/serve/call.h"

/* The whole answer of a finished call. */
void answer_whole(const Call *call, Str *out);

/* Events for what has come since the last time; nothing where nothing has. Those of the end, and
 * [DONE], follow the last sample's. */
void answer_events(Call *call, Str *out);

/* What a stream says when it cannot go on: the refusal, then [DONE]. */
void answer_failure_event(const Refusal *refusal, Str *out);

/* /v1/models, or one of them. */
void answer_models(const ServeModel *model, bool list, Str *out);

/* ---- of one form; private to the answers ---- */

void openai_whole(const Call *call, Str *out);
void openai_events(Call *call, Str *out);
void sglang_whole(const Call *call, Str *out);
void sglang_events(Call *call, Str *out);

/* A token's text by itself as a JSON string. */
void answer_append_token(const Call *call, int32_t token, Str *out);

/* JSON of a log-prob: enough digits to give the float32 back. */
void answer_append_log_prob(float log_prob, Str *out);

#endif
