/* Dicts in order of insertion, and what can be a key of one. */
#include "text/jinja/run.h"

#define DICT_INDEX_FROM 12 /* entries; smaller ones are searched in order */

uint64_t hash_bytes(const char *bytes, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return hash;
}

bool value_is_hashable(Run *run, Value value)
{
    run_step(run, 1);
    bool hashable = value.type != VALUE_LIST && value.type != VALUE_DICT &&
                    (value.type != VALUE_VIEW || value.as.view->kind == VIEW_VALUES);
    if (value.type != VALUE_TUPLE) return hashable;
    run_enter(run);
    for (size_t i = 0; i < value.as.list->count && hashable; i++)
        hashable = value_is_hashable(run, value.as.list->item[i]);
    run_leave(run);
    return hashable;
}

uint64_t value_hash(Run *run, Value value)
{
    run_step(run, 1);
    if (value_is_string(value)) {
        run_step(run, value.as.string->length / 16);
        return hash_bytes(value.as.string->bytes, value.as.string->length);
    }
    if (value_is_number(value)) { /* 1, 1.0 and True are one key */
        double real = value_as_double(value);
        return hash_bytes((const char *)&real, sizeof real);
    }
    if (value.type == VALUE_TUPLE) {
        uint64_t hash = 1;
        run_enter(run);
        for (size_t i = 0; i < value.as.list->count; i++)
            hash = hash * 31 + value_hash(run, value.as.list->item[i]);
        run_leave(run);
        return hash;
    }
    if (!value_is_hashable(run, value))
        run_raise(run, "unhashable type: '%s'", value_type_name(value));
    return value.type;
}

Dict *dict_create(Run *run, size_t capacity)
{
    Dict *dict = run_alloc_raw(run, sizeof *dict);
    *dict = (Dict){.capacity = capacity, .message = -1};
    dict->entry = run_alloc_raw(run, capacity * sizeof *dict->entry);
    return dict;
}

static void index_insert(Run *run, Dict *dict, size_t entry)
{
    size_t mask = dict->index_size - 1;
    size_t at = value_hash(run, dict->entry[entry].key) & mask;
    while (dict->index[at] != 0)
        at = (at + 1) & mask;
    dict->index[at] = (uint32_t)entry + 1;
}

static void index_rebuild(Run *run, Dict *dict)
{
    dict->index_size = 32;
    while (dict->index_size < 3 * dict->count)
        dict->index_size *= 2;
    dict->index = run_alloc(run, dict->index_size * sizeof *dict->index);
    for (size_t i = 0; i < dict->count; i++)
        index_insert(run, dict, i);
}

static const DictEntry *find_string(const Dict *dict, const String *wanted)
{
    const DictEntry *end = dict->entry + dict->count;
    if (dict->index == NULL && dict->interned && wanted->interned) {
        for (const DictEntry *entry = dict->entry; entry < end; entry++)
            if (entry->key.as.string == wanted && entry->key.type == VALUE_STRING) return entry;
        return NULL;
    }
    if (dict->index == NULL) {
        for (const DictEntry *entry = dict->entry; entry < end; entry++)
            if (entry->key.type == VALUE_STRING && string_equal(entry->key.as.string, wanted))
                return entry;
        return NULL;
    }
    size_t mask = dict->index_size - 1;
    size_t at = hash_bytes(wanted->bytes, wanted->length) & mask;
    for (; dict->index[at] != 0; at = (at + 1) & mask) {
        const DictEntry *entry = &dict->entry[dict->index[at] - 1];
        if (entry->key.type == VALUE_STRING && string_equal(entry->key.as.string, wanted))
            return entry;
    }
    return NULL;
}

/* The entry with this key, or NULL. */
static const DictEntry *dict_find(Run *run, const Dict *dict, Value key)
{
    if (value_is_string(key)) {
        run_step(run, key.as.string->length / 16);
        return find_string(dict, key.as.string);
    }
    uint64_t hash = value_hash(run, key); /* also refuses what cannot be a key */
    if (dict->index == NULL) {
        for (size_t i = 0; i < dict->count; i++)
            if (value_equal(run, dict->entry[i].key, key)) return &dict->entry[i];
        return NULL;
    }
    size_t mask = dict->index_size - 1;
    for (size_t at = hash & mask; dict->index[at] != 0; at = (at + 1) & mask) {
        const DictEntry *entry = &dict->entry[dict->index[at] - 1];
        if (value_equal(run, entry->key, key)) return entry;
    }
    return NULL;
}

bool dict_has(Run *run, const Dict *dict, Value key)
{
    return dict_find(run, dict, key) != NULL;
}

const Value *dict_get(Run *run, const Dict *dict, Value key)
{
    const DictEntry *entry = dict_find(run, dict, key);
    return entry != NULL ? entry_value(run, entry) : NULL;
}

const Value *dict_get_string(Run *run, const Dict *dict, const String *wanted)
{
    const DictEntry *entry = find_string(dict, wanted);
    return entry != NULL ? entry_value(run, entry) : NULL;
}

void dict_append(Run *run, Dict *dict, Value key, Value value)
{
    if (dict->count == dict->capacity) {
        size_t capacity = dict->capacity == 0 ? 4 : 2 * dict->capacity;
        DictEntry *grown = run_alloc_raw(run, capacity * sizeof *grown);
        if (dict->count > 0) memcpy(grown, dict->entry, dict->count * sizeof *grown);
        dict->entry = grown;
        dict->capacity = capacity;
    }
    dict->entry[dict->count++] = (DictEntry){.key = key, .held = value};
    if (dict->index != NULL && 2 * dict->count < dict->index_size) {
        index_insert(run, dict, dict->count - 1);
    } else if (dict->count >= DICT_INDEX_FROM) {
        index_rebuild(run, dict);
    }
}

void dict_set(Run *run, Dict *dict, Value key, Value value)
{
    DictEntry *entry = (DictEntry *)dict_find(run, dict, key);
    if (entry != NULL) {
        entry->held = value;
    } else {
        dict_append(run, dict, key, value);
    }
}

void dict_put(Run *run, Dict *dict, Value key, Value value)
{
    DictEntry *entry = (DictEntry *)find_string(dict, key.as.string);
    if (entry != NULL) {
        entry->held = value;
    } else {
        dict_append(run, dict, key, value);
    }
}
