/* YAML as a configuration needs it: a small tree of scalars, sequences and mappings in which every
 * node knows its line and column. libyaml parses; only yaml.c knows it. Scalars stay text: what a
 * scalar means is decided by the key that it is given to (table.h), so `1e-5` is a number where a
 * number is expected and `no` is never false by surprise. Size, depth and aliases are capped
 * (limits.h): a hostile text costs no more than an honest one. */
#ifndef TROUPE_CONFIG_YAML_H
#define TROUPE_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/memory.h"

typedef enum { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING } YamlKind;

typedef struct YamlNode {
    YamlKind kind;
    int line, column;       /* from 1; column in characters */
    const char *text;       /* scalar: its text after quotes and escapes */
    bool quoted;            /* scalar: written in quotes or as a block */
    struct YamlNode **item; /* sequence: its items; mapping: its values */
    struct YamlNode **key;  /* mapping: its keys, all scalars, in the order written; may repeat */
    int count;
} YamlNode;

/* Parses exactly one document; an empty one gives a null scalar. `where` names the text in messages
 * ("job.yaml"). Nodes live in the arena. */
Status yaml_parse(const char *text, size_t length, const char *where, Arena *arena,
                  YamlNode **ret_root, Error *err);

/* Nothing was written: an empty value, `~` or `null`. */
bool yaml_is_null(const YamlNode *node);

/* The text as a double-quoted or, where that is safe, plain scalar that yaml_parse reads back.
 * Arena memory. */
const char *yaml_quote(const char *text, Arena *arena);

#endif
