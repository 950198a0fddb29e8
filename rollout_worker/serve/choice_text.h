/* ChoiceText: the text of a sample as a client sees it while its tokens come: whole characters
 * only, and nothing of the stop string that ends it. What may turn out to begin a stop string is
 * held back until it is known. A view: ids and log-probs stay as they are. One thread at a time. */
#ifndef TROUPE_ROLLOUT_WORKER_SERVE_CHOICE_TEXT_H
#define TROUPE_ROLLOUT_WORKER_SERVE_CHOICE_TEXT_H

#include "base/str.h"
#include "rollout_worker/engine/sampling.h"
#include "text/tokenizer/tokenizer.h"

typedef struct ChoiceText {
    const SamplingParams *params; /* borrowed: the stop strings */
    bool keep_stop;
    DecodeStream *stream;
    Str text;           /* all that was decoded */
    int32_t tokens;     /* that it is of */
    size_t before_last; /* its length before the last token */
    size_t certain;     /* so much of it will be part of the answer */
    size_t sent;        /* the caller's: how much it gave out */
} ChoiceText;

void choice_text_init(ChoiceText *choice, const Tokenizer *tokenizer, const SamplingParams *params,
                      bool keep_special, bool keep_stop);
void choice_text_clear(ChoiceText *choice);

Status choice_text_push(ChoiceText *choice, int32_t token, Error *err);

/* The sample is over; `stop_string` is the index of the one that ended it, or -1. */
Status choice_text_finish(ChoiceText *choice, int stop_string, Error *err);

#endif
