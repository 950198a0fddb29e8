/* Numbers out of JSON fixtures. */
#ifndef TROUPE_TESTS_FIXTURE_H
#define TROUPE_TESTS_FIXTURE_H

#include "base/json.h"

/* Parses TEST_SOURCE_DIR/train_worker/golden_policy/<name>; freed with cJSON_Delete. */
cJSON *fixture_load(const char *name);

double fixture_number(const cJSON *object, const char *key);
const char *fixture_text(const cJSON *object, const char *key);
const cJSON *fixture_member(const cJSON *object, const char *key); /* must exist */

/* Copies a list of at most `max` numbers; returns how many there are. */
int fixture_numbers(const cJSON *object, const char *key, double *out, int max);

#endif
