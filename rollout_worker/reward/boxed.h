/* Finding the final answer in a response. Any thread; linear time. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_BOXED_H
#define TROUPE_ROLLOUT_WORKER_REWARD_BOXED_H

#include "base/str.h"
#include "rollout_worker/reward/slice.h"

/* Characters at the end of a response in which a final answer is looked for. */
#define ANSWER_TAIL_CHARACTERS 16384

/* What stands in the last \boxed{...} (or \fbox) of `text`, braces matched; an unclosed one reaches
 * to the end, `\boxed 5` is 5. False when there is none. */
bool boxed_find_last(Slice text, Slice *ret);

/* As boxed_find_last, but boxes that are only apart by commas, `and` or `or` count as one answer:
 * they are joined by commas in *scratch, which *ret then borrows. */
bool boxed_find_answer(Slice text, Str *scratch, Slice *ret);

#endif
