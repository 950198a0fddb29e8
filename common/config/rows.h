/* Rows: a key whose value is any number of named structs, each with the keys of a small table of
 * its own ("eval.sets": a name, and what it says of that set). Written as a mapping of mappings;
 * what a row does not say is known to be unsaid, so that whoever reads it can put another key's
 * value in its place. Reading, checking and messages are those of table.h. */
#ifndef TROUPE_CONFIG_ROWS_H
#define TROUPE_CONFIG_ROWS_H

#include "config/row_list.h"
#include "config/table.h"

#define ROWS_MAX     64
#define ROW_NAME_MAX 32 /* characters */

RowHead *row_at(const ConfigKey *key, const RowList *rows, int index);
bool row_gives(const ConfigKey *key, const RowHead *row, const char *name); /* "temperature" */

/* *ret is made anew. */
Status rows_read(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                 RowList *ret, Error *err);

/* Reads the value of one key of a row that is there: `path` is "gsm8k.temperature". */
Status rows_apply(const ConfigSource *source, const ConfigKey *key, RowList *rows, const char *path,
                  const YamlNode *value, Error *err);

/* As YAML on one line, which reads back to the same rows; "null" for none. */
void rows_text(const ConfigKey *key, const RowList *rows, Str *text);

void rows_free(const ConfigKey *key, RowList *rows); /* leaves an empty list */

#endif
