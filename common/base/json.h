/* Small readers over cJSON for Hugging Face's files and our own: a typed look-up that says where,
 * what was found and what was expected. `where` names the document in messages
 * ("models/x/config.json"). cJSON strings carry no length, so json_parse refuses text with an
 * escaped NUL (\u0000) unless the caller says that it may be cut. Any thread; a document belongs to
 * whoever parsed it (cJSON_Delete). */
#ifndef TROUPE_BASE_JSON_H
#define TROUPE_BASE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

#define JSON_DEPTH_MAX 200

/* Parses exactly one value of `length` bytes with nothing but white space after it. A syntax error
 * names `where`, line and column. Nesting deeper than JSON_DEPTH_MAX, an escaped NUL and bytes that
 * are not UTF-8 are refused. Where `where` ends in a line's number ("answers.jsonl:7") and the text
 * is that line, the column alone follows it.
 *
 * A number whose value as a double does not tell how it was written (one with a fraction or an
 * exponent, or of more than 15 characters) has its spelling in `valuestring`, as templates need
 * it: 1.0 is not 1. */
Status json_parse(const char *text, size_t length, const char *where, cJSON **ret_json, Error *err);

/* Adds those spellings to a tree that was parsed from `text` in another way. */
void json_keep_spelling(cJSON *json, const char *text, size_t length);

/* Reads and parses a file of at most `bytes_max` bytes. */
Status json_read(const char *path, size_t bytes_max, cJSON **ret_json, Error *err);

/* Typed members of an object. A missing key is ERR_NOT_FOUND, another type ERR_INVALID. Strings are
 * borrowed from the document. */
Status json_string(const cJSON *object, const char *key, const char *where, const char **ret,
                   Error *err);
Status json_int(const cJSON *object, const char *key, const char *where, int64_t min, int64_t max,
                int64_t *ret, Error *err);
Status json_double(const cJSON *object, const char *key, const char *where, double *ret,
                   Error *err);
Status json_bool(const cJSON *object, const char *key, const char *where, bool *ret, Error *err);

/* As above, but an absent key (or null) leaves *ret as it is. */
Status json_string_or(const cJSON *object, const char *key, const char *where, const char **ret,
                      Error *err);
Status json_int_or(const cJSON *object, const char *key, const char *where, int64_t min,
                   int64_t max, int64_t *ret, Error *err);
Status json_double_or(const cJSON *object, const char *key, const char *where, double *ret,
                      Error *err);
Status json_bool_or(const cJSON *object, const char *key, const char *where, bool *ret, Error *err);

/* Appends `text` (NULL: "") as a JSON string, quoted and escaped; the bytes are taken as UTF-8. */
void json_append_string(Str *out, const char *text);

/* Appends a value as Python's json.dumps writes it with ensure_ascii=False: ", " and ": " between
 * things; numbers as they were spelled. */
void json_append(Str *out, const cJSON *value);

/* "a string", "a number", "null" ... for messages. */
const char *json_type_name(const cJSON *value);

#endif
