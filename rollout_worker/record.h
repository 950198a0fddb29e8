/* Record: from the bytes of one line to a JSON object. This is the one place that judges what a
 * record is made of, before any rollout function sees it: UTF-8, strict JSON (RFC 8259: cJSON alone
 * would let raw control characters and numbers like 01 pass), no NUL in any spelling (cJSON's
 * strings would end there), no half of a surrogate pair, at most JSON_DEPTH_MAX levels, an object
 * on the outside. A refusal names file and line, the place in the record as a key path, what was
 * found, what was expected and what to do, in four lines. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_RECORD_H
#define TROUPE_ROLLOUT_WORKER_RECORD_H

#include <cjson/cJSON.h>
#include <stddef.h>

#include "base/error.h"

/* Checks only. `source` is "file:line". Fails with ERR_DATA. */
Status record_check(const char *text, size_t length, const char *source, Error *err);

/* Checks and parses; *ret is owned by the caller (cJSON_Delete). Numbers keep their spelling as
 * json.h says. */
Status record_parse(const char *text, size_t length, const char *source, cJSON **ret, Error *err);

/* A key that occurs twice in the object would be read in one way here and in another by Python:
 * ERR_DATA. `place` follows the key in the message: " in messages[1]", or "". */
Status record_check_keys(const cJSON *object, const char *source, const char *place, Error *err);

/* What a record holds under the key that a job file names, or, where there is no such key, along
 * it as a path: "reward_model.ground_truth". NULL: there is none. */
const cJSON *record_find(const cJSON *record, const char *key);
const cJSON *record_value(const cJSON *record, const char *key); /* null counts as absent */

/* Fills *err as all refusals of a record read: "<source>: <what>", then "found", "expected" and "to
 * do"; `found` may be NULL. Returns ERR_DATA. */
Status record_refuse(Error *err, const char *source, const char *what, const char *found,
                     const char *expected, const char *remedy);

#endif
