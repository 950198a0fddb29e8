/* Options of a reward: a JSON object of the job file, read by typed look-ups that name the reward
 * in messages. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_OPTIONS_H
#define TROUPE_ROLLOUT_WORKER_REWARD_OPTIONS_H

#include <cjson/cJSON.h>

#include "base/error.h"

/* Fails with ERR_INVALID unless `options` is NULL or an object whose keys are all among `keys` (a
 * list that ends with NULL); says which are known and which is nearest. */
Status options_check(const cJSON *options, const char *reward, const char *const *keys, Error *err);

/* ERR_INVALID, with the message of *err and below it which names there are and which is nearest. */
Status options_append_names(const char *found, const char *const *names, Error *err);

/* The index in `names` (ends with NULL) of the string at `key`; an absent key leaves *ret. */
Status options_choice(const cJSON *options, const char *key, const char *reward,
                      const char *const *names, int *ret, Error *err);

#endif
