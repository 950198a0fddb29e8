/* What is wrong, or odd, about a model's text side as a whole, before any record is read. Any
 * thread. */
#ifndef TROUPE_TEXT_TEXT_CHECK_H
#define TROUPE_TEXT_TEXT_CHECK_H

#include "text/conversation.h"

/* Renders a question and its answer, which every chat template for training has to: ERR_INVALID for
 * `kwargs` that are not the caller's to give (conversation_check_kwargs), ERR_DATA when the
 * template fails. `kwargs` are the job's data.apply_chat_template_kwargs, or NULL. */
Status text_model_try(const TextModel *model, const cJSON *kwargs, Error *err);

/* What will be trained though it is hardly meant: a template whose end of a turn, or whose other
 * marks, the tokenizer does not know as tokens; keyword arguments that the template never reads,
 * and texts where it wants true or false. A sentence or two a line, owned; NULL: nothing. */
char *text_model_warnings(const TextModel *model, const cJSON *kwargs);

/* What may be done where a template fails because it has not been told of a name ("'functions' is
 * undefined"); "" where `message` is of something else. */
const char *text_missing_name_hint(const char *message);

#endif
