/* Numbers and algorithms out of JSON fixtures. */
#ifndef TROUPE_TESTS_FIXTURE_H
#define TROUPE_TESTS_FIXTURE_H

#include "base/json.h"
#include "config/algorithm.h"

/* Parses TEST_SOURCE_DIR/train_worker/golden_policy/<name>; freed with cJSON_Delete. */
cJSON *fixture_load(const char *name);

double fixture_number(const cJSON *object, const char *key);
const char *fixture_text(const cJSON *object, const char *key);
const cJSON *fixture_member(const cJSON *object, const char *key); /* must exist */

/* Copies a list of at most `max` numbers; returns how many there are. */
int fixture_numbers(const cJSON *object, const char *key, double *out, int max);

/* The index of a member's text among `count` names; fails the test for another. */
int fixture_choice(const cJSON *object, const char *key, const char *const *names, int count);

/* What a fixture says of the loss, as make_policy_losses.py writes it, and of the estimator. */
AlgorithmConfig fixture_loss(const cJSON *object);
AdvantageEstimator fixture_estimator(const cJSON *object);
const char *fixture_estimator_name(AdvantageEstimator estimator);

#endif
