/* Rules that a program can check of a response, by IFEval's names. Any thread; linear time. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_INSTRUCTION_H
#define TROUPE_ROLLOUT_WORKER_REWARD_INSTRUCTION_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "rollout_worker/reward/slice.h"

/* Whether `response` follows the instruction `name` with these arguments (an object, or NULL).
 * Fails with ERR_UNSUPPORTED for a name that is not known here and lists those that are, with
 * ERR_DATA for arguments that are missing or of the wrong type. */
Status instruction_check(const char *name, const cJSON *arguments, Slice response, bool *ret,
                         Error *err);

const char *instruction_name(int index); /* NULL past the end */

#endif
