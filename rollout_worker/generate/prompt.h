/* Prompt: what a record asks, and what the answers to it are compared with.
 *
 * The prompt is the record's conversation up to its last user message (all of it in a record that
 * is a prompt), rendered by the model's chat template with what asks for an answer. The label is
 * the record's own, or, where it has none, the answer that stood behind the prompt: so data of
 * supervised training serve as they are. One thread. */
#ifndef TROUPE_ROLLOUT_WORKER_GENERATE_PROMPT_H
#define TROUPE_ROLLOUT_WORKER_GENERATE_PROMPT_H

#include "rollout_worker/chat_check.h"
#include "rollout_worker/reward/reward_set.h"

/* Zero-initialise; prompt_clear. */
typedef struct Prompt {
    const RolloutRecord *record; /* borrowed */
    cJSON *json;
    ChatRecord chat;
    cJSON *messages;                    /* a list that refers to the record's */
    char *label;                        /* as text; NULL: none */
    TokenizedConversation conversation; /* rendered */
    ChatNotes notes;                    /* what is odd */
} Prompt;

/* What a prompt is read for; borrowed. */
typedef struct PromptUse {
    const ChatText *text;
    const cJSON *tools; /* shown to the model where the record has none of its own; NULL: none */
    RewardSet *rewards; /* that judge all answers: a label of no use to them is refused; or NULL */
} PromptUse;

/* Reads and renders the record, which has to outlive the prompt, as the tools have to. On failure,
 * which chat_reject_reason explains, it is still to be cleared. */
Status prompt_read(const PromptUse *use, TokenizerCache *cache, const RolloutRecord *record,
                   Prompt *ret, Error *err);
void prompt_clear(Prompt *prompt);

/* Whether it cannot be used, and then makes *ret say why: the template lost part of it, or
 * (`needs_room`) it leaves no room for an answer. */
bool prompt_is_refused(const Prompt *prompt, const JobConfig *config, bool needs_room, Sample *ret);

#endif
