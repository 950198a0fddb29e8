/* A table of keys: path, type, range, default, meaning, and where the value lies in a struct.
 * Everything that must agree about keys is driven by it: reading, checking, messages, the text of
 * the effective configuration and the reference. Knows nothing about any particular key. No state;
 * any thread. */
#ifndef TROUPE_CONFIG_TABLE_H
#define TROUPE_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"
#include "base/str.h"
#include "config/int_list.h"
#include "config/yaml.h"

/* How a value is written and what it is in the struct. */
typedef enum {
    KEY_INT,     /* int64_t */
    KEY_INTS,    /* IntList; one number stands for a list of one */
    KEY_NUMBER,  /* double */
    KEY_BOOL,    /* bool */
    KEY_ENUM,    /* an enum, stored as int */
    KEY_STRING,  /* char *, owned */
    KEY_STRINGS, /* StringList; one string stands for a list of one */
    KEY_PATH,    /* char *, absolute after reading */
    KEY_PATHS,   /* StringList of paths or globs, absolute after reading */
    KEY_OBJECT,  /* char *, owned: a mapping, as the JSON text of an object */
    KEY_JSON,    /* char *, owned: a text, a mapping or a list, as JSON text */
    KEY_ROWS,    /* RowList (rows.h): names, each with the keys of a table of its own */
} KeyType;

typedef struct KeyName {
    const char *name; /* NULL ends a list of names; one that ends with ':' takes a text behind it */
    int value;
} KeyName;

/* A key, or a value of one, that others have and this table has not: what to do instead. */
typedef struct ConfigForeign {
    const char *names;  /* space separated */
    const char *advice; /* one sentence or more, the last without a full stop */
} ConfigForeign;

typedef struct ConfigKey {
    const char *path; /* "train.lr" */
    KeyType type;
    size_t offset;
    const char *meaning; /* one sentence part, no full stop: "highest learning rate" */
    const char *preset;  /* the default as written in YAML; NULL: none, or see `derived` */
    const char *derived; /* how the default comes about when it is not a constant */
    const char *example; /* for messages; NULL: the preset */
    const char *also;  /* what other systems call the very same, in the same unit, space separated:
                          for suggestions only */
    const char *alias; /* names of others that may be written in its place, in the same section */
    const KeyName *names;         /* KEY_ENUM */
    const ConfigForeign *foreign; /* KEY_ENUM: values that others have, up to one without names;
                                     NULL: none */
    size_t text_offset; /* KEY_ENUM with names that take a text: where that is; a char *, owned,
                           NULL with names that take none */
    const struct ConfigTable *rows; /* KEY_ROWS: of keys without a section, and the size ... */
    size_t row_bytes;               /* ... of their struct, which begins with a RowHead */
    double min, max;                /* KEY_INT(S) and KEY_NUMBER; both 0: any */
    bool above_min;                 /* min itself is not allowed */
    bool required;                  /* must be given */
    bool fixed;                     /* the same in all layers: a later one may not give it */
    bool output;                    /* KEY_PATH: written, not read */
    bool hub_model;                 /* KEY_PATH: OWNER/NAME that is no path is a model of the Hub,
                                       and its value then begins with HUB_SCHEME */
    const char *word;               /* KEY_PATH: stands for itself and names no file; NULL: none */
} ConfigKey;

typedef struct ConfigSection {
    const char *name; /* "" holds the keys without a section */
    const char *meaning;
    const ConfigKey *key; /* [num_keys] */
    int num_keys;
} ConfigSection;

typedef struct ConfigTable {
    const ConfigSection *const *section; /* [num_sections] */
    int num_sections;
    const ConfigForeign *foreign; /* [*num_foreign]; NULL: none */
    const int *num_foreign;
} ConfigTable;

typedef enum { FROM_NOWHERE, FROM_DEFAULT, FROM_FILE, FROM_OVERRIDE } OriginKind;

/* Where the value of a key was written. */
typedef struct ConfigOrigin {
    OriginKind kind;
    bool layered; /* FROM_FILE: by a layer that replaces others */
    int line;
    const char *override; /* FROM_OVERRIDE: its text, borrowed */
} ConfigOrigin;

/* One source of values: a text, and the folder from which its relative paths are taken. */
typedef struct ConfigSource {
    const ConfigTable *table;
    const char *where;      /* names the source in messages */
    const char *prefix;     /* of a row: "eval.sets.gsm8k", before its keys in messages; or NULL */
    const char *override;   /* the text of the override, or NULL for a file */
    const char *base_dir;   /* absolute: what relative paths are taken from */
    const char *output_dir; /* absolute: the same for keys with `output`; NULL: base_dir */
    const char *layer;      /* names a part of the file that replaces what others say, in messages;
                               NULL: the file itself */
    void *values;           /* the struct */
    ConfigOrigin *origin;   /* [config_num_keys(table)] */
    Arena *arena;           /* for what lives only while reading */
} ConfigSource;

/* Reads a whole document (a mapping of sections) into the struct. */
Status config_apply(const ConfigSource *source, const YamlNode *root, Error *err);

/* Reads one value, for the key with this path. */
Status config_apply_value(const ConfigSource *source, const char *path, const YamlNode *value,
                          Error *err);

/* The error for a path that is not in the table, with the nearest one. */
Status config_unknown(const ConfigTable *table, const char *where, const char *path, Arena *arena,
                      Error *err);

/* Gives every key that has no value yet its constant default. */
void config_apply_presets(const ConfigSource *source);

/* Frees what the keys own in the struct. */
void config_release(const ConfigTable *table, void *values);

/* The keys of all sections, counted through in the order of the sections. */
int config_num_keys(const ConfigTable *table);
const ConfigKey *config_key(const ConfigTable *table, int index);
int config_find(const ConfigTable *table, const char *path); /* index of the key, or -1 */
/* The index of the KEY_ROWS key in which "eval.sets.gsm8k" or a key of it stands, or -1. */
int config_find_rows(const ConfigTable *table, const char *path);

/* `relative` taken from the absolute folder `base`; leading "./" and "../" are resolved. Owned by
 * the caller. */
char *config_resolve_path(const char *base, const char *relative);

const char *config_leaf(const char *path); /* "lr" of "train.lr"; borrowed */

/* Whether `name` stands in a space separated list; case and '-' for '_' do not matter. */
bool config_word_in(const char *words, const char *name);

#define CONFIG_FOUND_MAX 60 /* bytes of a value that a message shows */

/* "train.lr", in a row with what stands before. Arena memory. */
const char *config_key_path(const ConfigSource *source, const ConfigKey *key);

/* "job.yaml:7:5", or the override's own text. Arena memory. */
const char *config_place(const ConfigSource *source, const YamlNode *node);

/* A text as a message shows it: cut, on one line. And a value, with quotes. Arena memory. */
const char *config_cut(const char *text, Arena *arena);
const char *config_found(const YamlNode *node, Arena *arena);

/* Reads one typed value into the struct, in place of an older one. */
Status config_value_read(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                         Error *err);
void config_value_release(const ConfigKey *key, void *values);

/* The error for a value: place, path, found, expected; a hint when there is one (NULL: an example);
 * the meaning of the key. */
Status config_value_refuse(const ConfigSource *source, const ConfigKey *key, const YamlNode *node,
                           const char *hint, Error *err);

/* "a whole number from 1 to 8", "one of a, b": what is expected of a key. Arena memory. */
const char *config_expected(const ConfigKey *key, Arena *arena);

/* Appends the value as YAML that config_apply reads back to the same value. */
void config_value_text(const ConfigKey *key, const void *values, Str *text);

#endif
