/* StopMatcher: finds stop strings in the text of a sample as its tokens come, also where a string's
 * characters, or one character's bytes, lie in several tokens. The text is what the ids spell,
 * control tokens included. Ids are only read, never changed. One per sample that has stop strings.
 */
#ifndef TROUPE_ROLLOUT_WORKER_ENGINE_STOP_MATCHER_H
#define TROUPE_ROLLOUT_WORKER_ENGINE_STOP_MATCHER_H

#include "rollout_worker/engine/sampling.h"
#include "text/tokenizer/tokenizer.h"

typedef struct StopMatcher StopMatcher;

/* Borrows the tokenizer and the strings of `params`. */
StopMatcher *stop_matcher_create(const Tokenizer *tokenizer, const SamplingParams *params);
void stop_matcher_destroy(StopMatcher *matcher); /* accepts NULL */

/* Takes the next token. *ret_stop: the index of the stop string that its text completed first (of
 * several that end there, the first of the list), or -1. With `armed` false nothing is looked for,
 * but the text counts for strings that end later. Fails where the tokenizer cannot decode. */
Status stop_matcher_push(StopMatcher *matcher, int32_t token, bool armed, int *ret_stop,
                         Error *err);

#endif
