/* RewardNames: what metrics and saved answers call the rewards of a weighted sum: each by its own
 * name, the second of a name "format_2". Where a job has one reward, which needs no parts, or none,
 * there are no names. Pure; any thread. */
#ifndef TROUPE_CONFIG_REWARD_NAMES_H
#define TROUPE_CONFIG_REWARD_NAMES_H

#include <cjson/cJSON.h>

#include "base/limits.h"

typedef struct RewardNames {
    int count;
    char name[REWARDS_MAX][48];
} RewardNames;

/* Of rewards as rollout.reward writes them, which may be NULL, or no rewards at all. */
RewardNames reward_names_of(const cJSON *spec);
RewardNames reward_names(const char *json); /* the same, of JSON text */

#endif
