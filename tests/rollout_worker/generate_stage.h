/* A rollout worker that generates, on a stage (rollout_stage.h) with boards of random weights as
 * train ranks show them. */
#ifndef TROUPE_TESTS_GENERATE_STAGE_H
#define TROUPE_TESTS_GENERATE_STAGE_H

#include "rollout_stage.h"
#include "rollout_worker/policy.h"
#include "train_boards.h"

#define GENERATION_GROUP 3 /* answers to a prompt */

/* A job on these records with the reward `random`, in a new folder, and its worker. `stage` is
 * zeroed before. */
void generation_begin(Stage *stage, const char *folder, const char *const *lines, int count);
void generation_end(Stage *stage); /* frees it */
void worker_restart(Stage *stage); /* with what the configuration says now */

void ask_adopt(Stage *stage, Boards *boards, uint64_t version, bool restart, Answer *ret);
void adopt(Stage *stage, Boards *boards, uint64_t version, bool restart);
void adopt_first(Stage *stage, Boards *boards); /* boards with version 1, adopted */

void start_lease(Stage *stage, const char *set, uint64_t first, uint32_t count, Answer *ret);
Troupe__LeaseReply *finish_lease(Answer *answer); /* NULL when it failed */
Troupe__LeaseReply *lease(Stage *stage, const char *set, uint64_t first, uint32_t count);
void lease_train(Stage *stage, uint64_t first, uint32_t count);
void fetch(Stage *stage, const char *set, uint64_t position, uint32_t index, Sample *ret);

void turn_once(Stage *stage); /* the loop, for a moment */
void turn_until(Stage *stage, const char *waiting_for);
void turn_until_trouble(Stage *stage, const char *text); /* fails where it has another, or none */

#endif
