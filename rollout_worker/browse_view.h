/* How a saved answer looks: as text for people, as a line of JSON for programs. */
#ifndef TROUPE_ROLLOUT_WORKER_BROWSE_VIEW_H
#define TROUPE_ROLLOUT_WORKER_BROWSE_VIEW_H

#include "base/str.h"
#include "rollout_worker/browse.h"
#include "text/tokenizer/tokenizer.h"

/* Figures, label, and the text with what is trained of it (paint.h). Without a tokenizer the texts
 * that were saved stand in for those of the tokens. */
void browse_view_text(const BrowsedAnswer *answer, const Tokenizer *tokenizer, bool color,
                      Str *out);

/* The saved object with what is known of it besides: stage, group_size, step, trained, dropped,
 * advantage, log_prob_mean; null where there is none. */
void browse_view_json(const BrowsedAnswer *answer, Str *out);

#endif
