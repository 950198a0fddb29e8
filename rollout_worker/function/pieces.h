/* Pieces: how a program of the user's says what a sequence is made of (docs/rollout-function.md):
 * messages that the chat template renders, text, ids, and outputs that were generated before.
 * Part of process_function.c; one thread. */
#ifndef TROUPE_ROLLOUT_WORKER_FUNCTION_PIECES_H
#define TROUPE_ROLLOUT_WORKER_FUNCTION_PIECES_H

#include <cjson/cJSON.h>

#include "rollout_worker/engine/engine.h"
#include "rollout_worker/tools/sample_builder.h"
#include "text/conversation.h"

/* What was generated for a call, and from which tokens. */
typedef struct Output {
    char *call; /* the program's name for it; owned */
    int number; /* among those of its call */
    Generation generation;
    int32_t *prompt; /* [prompt_length], owned */
    int32_t prompt_length;
} Output;

typedef struct OutputTable {
    Output *output; /* [count], owned */
    int count, capacity;
} OutputTable;

void output_table_clear(OutputTable *table);
/* Takes the generation (leaves it zeroed). */
void output_table_add(OutputTable *table, const char *call, int number, Generation *generation,
                      const int32_t *prompt, int32_t prompt_length);

typedef struct PieceContext {
    const TextModel *model;
    const cJSON *template_kwargs; /* the job's, or NULL */
    const OutputTable *outputs;
    int64_t now;
} PieceContext;

/* Appends what the list says to an empty builder. *ret_last is the last output in it that is
 * trained, or NULL. ERR_DATA names the piece and what is wrong with it. */
Status pieces_resolve(const PieceContext *context, const cJSON *list, SampleBuilder *builder,
                      const Output **ret_last, Error *err);

#endif
