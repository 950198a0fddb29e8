/* The values that a template computes with. Internal to common/text.
 *
 * A Value is 16 bytes, passed by value; what it points to lives in the arena of one Run (or, for
 * constants, of the compiled template) and never changes once it can be reached, namespaces,
 * generators and cyclers excepted.
 *
 * Every value carries an Origin: which input it was taken from. A string glued together from
 * several inputs carries one origin per run of bytes. All functions that make strings from strings
 * pass origins on. */
#ifndef TROUPE_TEXT_JINJA_VALUE_H
#define TROUPE_TEXT_JINJA_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "text/chat_template.h"

typedef struct Run Run;   /* one rendering in progress: run.h */
typedef struct Node Node; /* a piece of the syntax tree: ast.h */

/* OriginKind in bits 29 to 31, "inside {% generation %}" in bit 28, below it 1 + the index of the
 * message (0: none). For ORIGIN_TEMPLATE the index is that of the message at which the innermost
 * loop over the messages stood. */
typedef uint32_t Origin;

#define ORIGIN_GENERATION     (1u << 28)
#define ORIGIN_MESSAGES_MAX   (ORIGIN_GENERATION - 2)
#define ORIGIN_PLAIN_TEMPLATE ((Origin)ORIGIN_TEMPLATE << 29)

static inline Origin origin_make(OriginKind kind, int32_t message)
{
    return (Origin)kind << 29 | (Origin)(message + 1);
}

static inline OriginKind origin_kind(Origin origin)
{
    return (OriginKind)(origin >> 29);
}

static inline int32_t origin_message(Origin origin)
{
    return (int32_t)(origin & (ORIGIN_GENERATION - 1)) - 1;
}

typedef struct OriginRun {
    uint32_t end; /* offset behind its last byte */
    Origin origin;
} OriginRun;

#define CHARS_UNKNOWN UINT32_MAX

typedef struct String {
    const char *bytes; /* UTF-8, not NUL-terminated */
    uint32_t length;   /* bytes */
    uint32_t chars;    /* code points, or CHARS_UNKNOWN */
    uint32_t num_runs;
    bool interned;        /* the one String of the template with these bytes: a Name */
    const OriginRun *run; /* NULL: all bytes have the origin of the Value */
} String;

#define NAME_NO_VARIABLE UINT32_MAX

/* A string that a template spells, with what is known of it before it is rendered. */
typedef struct Name {
    String string;
    OriginKind member; /* of the member of a message with this name */
    bool is_attribute; /* something other than an entry of a dict may be found by it */
    uint32_t variable; /* its place in the template's names, or NAME_NO_VARIABLE */
} Name;

static inline const Name *string_name(const String *string) /* NULL: not interned */
{
    return string->interned ? (const Name *)string : NULL;
}

typedef enum {
    VALUE_MISSING, /* a variable that was never set; never seen by a template */
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_BIGINT, /* a whole number of the input that int64_t cannot hold: its digits, only to be
                     printed */
    VALUE_FLOAT,
    VALUE_STRING,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_DICT,
    VALUE_VIEW, /* dict.keys(), .values(), .items() */
    VALUE_RANGE,
    VALUE_GENERATOR, /* what map, select and the like give: can be walked once */
    VALUE_NAMESPACE,
    VALUE_FUNCTION, /* a global */
    VALUE_METHOD,   /* of a string, list, ... */
    VALUE_MACRO,
    VALUE_LOOP,
    VALUE_CYCLER,
    VALUE_JOINER,
    VALUE_SELF,    /* the variable `self`: the template's blocks, of which there are none */
    VALUE_PENDING, /* in the entry of a dict only: a list or object of the input, not yet taken */
} ValueType;

enum {
    FLAG_MARKUP = 1, /* a string: result of `safe`, `escape` */
    FLAG_GROUP = 2,  /* a tuple: of `groupby`, with the names grouper and list */
};

typedef struct Undefined Undefined;
typedef struct List List;
typedef struct Dict Dict;
typedef struct View View;
typedef struct Range Range;
typedef struct Generator Generator;
typedef struct Function Function;
typedef struct Method Method;
typedef struct Macro Macro;
typedef struct Loop Loop;
typedef struct Cycler Cycler;
typedef struct Joiner Joiner;

typedef struct Value {
    uint8_t type; /* ValueType */
    uint8_t flags;
    Origin origin;
    union {
        bool boolean;
        int64_t integer;
        double real;
        const String *string; /* VALUE_STRING, VALUE_BIGINT */
        const Undefined *undefined;
        const List *list; /* VALUE_LIST, VALUE_TUPLE */
        const Dict *dict;
        Dict *names; /* VALUE_NAMESPACE */
        const View *view;
        const Range *range;
        Generator *generator;
        const Function *function;
        const Method *method;
        const Macro *macro;
        Loop *loop;
        Cycler *cycler;
        Joiner *joiner;
        const cJSON *pending;
    } as;
} Value;

struct Undefined {
    const char *hint;   /* the whole message, or NULL */
    const char *object; /* type of what lacks it ("dict object"), or NULL: a variable */
    Value name;         /* VALUE_MISSING when there is a hint */
};

struct List {
    Value *item;
    size_t count;
};

/* `held` may be VALUE_PENDING: entry_value() gives what a template sees. */
typedef struct DictEntry {
    Value key, held;
} DictEntry;

struct Dict {
    DictEntry *entry; /* in order of insertion */
    size_t count, capacity;
    uint32_t *index; /* open addressing, 1 + entry, for large ones; NULL for small ones */
    size_t index_size;
    int32_t message; /* this is messages[message], or -1 */
    bool interned;   /* each key that the template spells is the template's String of it */
};

typedef enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } ViewKind;

struct View {
    ViewKind kind;
    const Dict *dict;
};

struct Range {
    int64_t start, stop, step, count;
};

/* What it gives is computed at once. Jinja computes it while it is walked, so what fails on the way
 * fails there: behind the last item. */
struct Generator {
    Value *item;
    size_t count, position;
    const char *failure; /* the message, or NULL */
};

struct Cycler {
    const Value *item;
    size_t count, position;
};

struct Joiner {
    Value separator;
    bool used;
};

/* Arguments of a call as evaluated. */
typedef struct Keyword {
    const String *name;
    Value value;
} Keyword;

typedef struct Args {
    const Value *positional;
    size_t count;
    const Keyword *keyword;
    size_t num_keywords;
} Args;

typedef Value (*CallFunction)(Run *run, Value self, const Args *args);

struct Function {
    const char *name;
    CallFunction call;
};

struct Method {
    Value self;
    CallFunction call;
};

/* ---- making values; those that take a Run allocate in its arena and leave it on failure
 * (run.h) ---- */

static inline Value value_none(void)
{
    return (Value){.type = VALUE_NONE, .origin = ORIGIN_PLAIN_TEMPLATE};
}

static inline Value value_missing(void)
{
    return (Value){.type = VALUE_MISSING};
}

static inline Value value_bool(bool boolean)
{
    return (Value){.type = VALUE_BOOL, .origin = ORIGIN_PLAIN_TEMPLATE, .as.boolean = boolean};
}

static inline Value value_int(int64_t integer)
{
    return (Value){.type = VALUE_INT, .origin = ORIGIN_PLAIN_TEMPLATE, .as.integer = integer};
}

static inline Value value_float(double real)
{
    return (Value){.type = VALUE_FLOAT, .origin = ORIGIN_PLAIN_TEMPLATE, .as.real = real};
}

static inline Value value_of_string(const String *string, Origin origin)
{
    return (Value){.type = VALUE_STRING, .origin = origin, .as.string = string};
}

Value value_text(Run *run, const char *bytes, size_t length, Origin origin); /* copies */
/* A string of `length` bytes that the caller has yet to fill. */
Value value_room(Run *run, size_t length, Origin origin, char **ret_bytes);
Value value_literal(Run *run, const char *text); /* borrows `text`; computed by the template */
Value value_list(Run *run, size_t count); /* items zeroed: fill list_items(value)[...] at once */
Value value_tuple(Run *run, size_t count);
Value value_tuple2(Run *run, Value first, Value second);
Value value_generator(Run *run, Value *items, size_t count);

/* Fills the generator: ->item, and ->count as it goes on. */
typedef void (*Produce)(Run *run, Value self, const Args *args, Generator *generator);
/* A generator of all that `produce` made before it failed, if it did. Running out of steps or
 * memory still fails at once. */
Value value_produce(Run *run, Produce produce, Value self, const Args *args);
Value value_undefined_name(Run *run, const String *name);
Value value_undefined_attribute(Run *run, Value object, Value name);
Value value_undefined_hint(Run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline Value *list_items(Value list)
{
    return list.as.list->item;
}

/* ---- looking at them ---- */

static inline bool value_is_string(Value value)
{
    return value.type == VALUE_STRING;
}

static inline bool value_is_list(Value value) /* or tuple */
{
    return value.type == VALUE_LIST || value.type == VALUE_TUPLE;
}

static inline bool value_is_integer(Value value) /* as Python's int: bool included */
{
    return value.type == VALUE_INT || value.type == VALUE_BOOL;
}

static inline bool value_is_number(Value value)
{
    return value_is_integer(value) || value.type == VALUE_FLOAT;
}

static inline int64_t value_as_int(Value value) /* of an integer */
{
    return value.type == VALUE_BOOL ? value.as.boolean : value.as.integer;
}

static inline double value_as_double(Value value) /* of a number */
{
    return value.type == VALUE_FLOAT ? value.as.real : (double)value_as_int(value);
}

/* Compares names without a call: they are short, and most that differ do so in their length. */
static inline bool bytes_equal(const char *a, const char *b, size_t length)
{
    uint64_t x, y;
    if (length >= 8) {
        memcpy(&x, a, 8);
        memcpy(&y, b, 8);
        if (x != y) return false;
        if (length > 16) return memcmp(a + 8, b + 8, length - 8) == 0;
        memcpy(&x, a + length - 8, 8);
        memcpy(&y, b + length - 8, 8);
        return x == y;
    }
    uint32_t v, w;
    if (length >= 4) {
        memcpy(&v, a, 4);
        memcpy(&w, b, 4);
        if (v != w) return false;
        memcpy(&v, a + length - 4, 4);
        memcpy(&w, b + length - 4, 4);
        return v == w;
    }
    return length == 0 ||
           (a[0] == b[0] && a[length / 2] == b[length / 2] && a[length - 1] == b[length - 1]);
}

static inline bool string_equal(const String *a, const String *b)
{
    return a->length == b->length && bytes_equal(a->bytes, b->bytes, a->length);
}

static inline bool string_is(const String *string, const char *text)
{
    size_t length = strlen(text);
    return string->length == length && memcmp(string->bytes, text, length) == 0;
}

const char *value_type_name(Value value); /* as Python's type(value).__name__ */
const char *
value_object_name(Value value); /* as Jinja names it in messages: "dict object", "None" */
bool value_truth_any(Value value);
static inline bool value_truth(Value value)
{
    return value.type == VALUE_BOOL ? value.as.boolean : value_truth_any(value);
}
bool value_equal(Run *run, Value a, Value b);
/* Negative, 0, positive; what cannot be ordered fails as Python says it, with the operator's name.
 */
int value_compare(Run *run, Value a, Value b, const char *operator_name);
bool value_contains(Run *run, Value container, Value item);
bool value_has_length(Value value);
size_t value_length(Run *run, Value value); /* fails on what has none */

bool value_is_hashable(Run *run, Value value); /* can it be a key? */
uint64_t value_hash(Run *run, Value value);    /* fails unless it can */
uint64_t hash_bytes(const char *bytes, size_t length);

/* ---- dicts ---- */

Dict *dict_create(Run *run, size_t capacity);
void dict_set(Run *run, Dict *dict, Value key, Value value);
void dict_put(Run *run, Dict *dict, Value key, Value value); /* as dict_set; `key` is a string */
/* As dict_put, of a key that is known to be new. */
void dict_append(Run *run, Dict *dict, Value key, Value value);
bool dict_has(Run *run, const Dict *dict, Value key);
const Value *dict_get(Run *run, const Dict *dict, Value key); /* NULL: absent */
const Value *dict_get_string(Run *run, const Dict *dict, const String *key);

Value value_take(Run *run, Value pending); /* import.c */

/* Most of what a conversation holds is never looked at, or only written as JSON: lists and objects
 * are taken from the input when they are asked for. */
static inline const Value *entry_value(Run *run, const DictEntry *entry)
{
    if (entry->held.type == VALUE_PENDING)
        ((DictEntry *)entry)->held = value_take(run, entry->held);
    return &entry->held;
}
static inline Value value_of_dict(const Dict *dict, Origin origin)
{
    return (Value){.type = VALUE_DICT, .origin = origin, .as.dict = dict};
}

/* ---- walking over what can be walked ---- */

typedef struct Iterator {
    Value source;
    size_t position; /* bytes for strings, else items */
    size_t count;
} Iterator;

bool iterator_begin(Run *run, Value source, Iterator *ret); /* false: not iterable */
bool iterator_next(Run *run, Iterator *iterator, Value *ret);
size_t iterator_room(const Iterator *iterator); /* at most so many items are left */
/* All items as an array in the arena; fails on what is not iterable. */
Value *value_items(Run *run, Value source, size_t *ret_count);

/* The order in which items 0..count) stand when sorted; equal ones keep theirs. `before` may fail.
 */
typedef bool (*Before)(Run *run, const void *context, size_t i, size_t j);
size_t *sort_order(Run *run, size_t count, Before before, const void *context);

/* ---- strings ---- */

uint32_t string_chars(const String *string); /* code points */
static inline bool string_is_ascii(const String *string)
{
    return string_chars(string) == string->length;
}
size_t string_offset(const String *string,
                     size_t character); /* byte offset of the n-th code point */
/* A part, in bytes; shares the bytes. */
Value string_slice(Run *run, Value string, size_t begin, size_t end);
Value string_concat(Run *run, Value a, Value b);
Origin string_origin(Value string, size_t offset);                               /* of one byte */
Value string_replace(Run *run, Value string, Value old, Value new, int64_t max); /* max < 0: all */
Value *string_lines(Run *run, Value string, bool keep_ends, size_t *ret_count); /* str.splitlines */

/* The code point at `offset`, and its size. */
uint32_t string_char(const String *string, size_t offset, int *ret_size);

#endif
