/* A reader of CSV files in a shared object (docs/data.md, "A reader of your own"): each row becomes
 * an object whose keys are the names in the file's first row, as in
 *
 *     prompt,completion
 *     2 + 2?,4
 *
 *     cc -shared -fPIC -O2 -I ROOT/common/dataset -o csv_reader.so csv.c
 *
 *     data: {train: questions.csv, reader: csv_reader.so, reader_options: {delimiter: ";"}}
 *
 * ROOT is the source folder of Troupe. (A csv.so would be taken for Python's module csv by whatever
 * Python runs in its folder.) Fields may be "quoted", then with "" for a quote and with
 * line feeds in them. The files are held in memory. */
#include "reader_plugin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Row {
    int file;
    size_t at; /* where it begins */
    long line;
} Row;

typedef struct File {
    char *name;
    char *text; /* NUL-terminated */
    size_t header_end;
} File;

typedef struct Csv {
    File *file;
    int num_files;
    Row *row;
    uint64_t *order; /* [num_rows] of the epoch */
    size_t num_rows;
    char delimiter;
    int shuffle;
    uint64_t seed;
    /* The state: */
    struct {
        uint64_t epoch, next;
    } at;
} Csv;

/* ---- CSV ---- */

typedef struct Text {
    char *data;
    size_t length, room;
} Text;

static void put(Text *text, char c)
{
    if (text->length == text->room) {
        text->room = 2 * text->room + 256;
        text->data = realloc(text->data, text->room);
        if (text->data == NULL) abort();
    }
    text->data[text->length++] = c;
}

static void put_json(Text *text, const char *data, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    put(text, '"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c == '"' || c == '\\') put(text, '\\');
        if (c >= ' ') {
            put(text, (char)c);
            continue;
        }
        for (const char *at = "\\u00"; *at != '\0'; at++)
            put(text, *at);
        put(text, digits[c >> 4]);
        put(text, digits[c & 15]);
    }
    put(text, '"');
}

/* Takes a field without its quotes into *field (emptied before) and moves behind it, and behind the
 * delimiter: 1 when another field follows, 0 at the end of the row, -1 when a quote is never
 * closed. */
static int take_field(const char **at, char delimiter, Text *field, long *line)
{
    const char *c = *at;
    int quoted = *c == '"';
    field->length = 0;
    for (c += quoted;; c++) {
        if (*c == '\0' && quoted) return -1;
        if (quoted && *c == '"' && c[1] != '"') {
            quoted = 0;
            continue;
        }
        if (!quoted && (*c == delimiter || *c == '\n' || *c == '\0')) break;
        if (quoted && *c == '"') c++;
        if (*c == '\n') ++*line;
        if (quoted || *c != '\r') put(field, *c);
    }
    int more = *c == delimiter;
    if (*c == '\n') ++*line;
    *at = *c == '\0' ? c : c + 1;
    return more;
}

/* Moves behind a row; 0 when a quote in it is never closed. */
static int skip_row(const char **at, char delimiter, long *line)
{
    Text field = {0};
    int more;
    do {
        more = take_field(at, delimiter, &field, line);
    } while (more > 0);
    free(field.data);
    return more == 0;
}

/* NULL: it cannot be read, or is no text, as the message says. */
static char *read_whole(const char *path, char *message, size_t message_bytes)
{
    FILE *file = fopen(path, "rb");
    Text text = {0};
    int c = EOF, zeros = 0;
    while (file != NULL && (c = getc(file)) != EOF) {
        zeros += c == '\0';
        put(&text, (char)c);
    }
    int failed = file == NULL || ferror(file);
    if (failed)
        snprintf(message, message_bytes, "cannot read %s: %s", path, strerror(errno));
    else if (zeros > 0)
        snprintf(message, message_bytes, "%s is no text: a NUL is in it", path);
    if (file != NULL) fclose(file);
    put(&text, '\0');
    if (!failed && zeros == 0) return text.data;
    free(text.data);
    return NULL;
}

/* For people. */
static char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    char *copy = malloc(strlen(name) + 1);
    return copy != NULL ? strcpy(copy, name) : NULL;
}

static int add_row(Csv *csv, Row row)
{
    if ((csv->num_rows & (csv->num_rows - 1)) == 0) { /* grows at powers of two */
        Row *rows = realloc(csv->row, (2 * csv->num_rows + 1) * sizeof *rows);
        if (rows == NULL) return 0;
        csv->row = rows;
    }
    csv->row[csv->num_rows++] = row;
    return 1;
}

static int add_file(Csv *csv, const char *path, char *message, size_t message_bytes)
{
    File *file = &csv->file[csv->num_files];
    long line = 1;
    csv->num_files++;
    file->name = name_of(path);
    file->text = read_whole(path, message, message_bytes);
    if (file->name == NULL || file->text == NULL) return 1;
    const char *at = file->text;
    int whole = skip_row(&at, csv->delimiter, &line);
    file->header_end = (size_t)(at - file->text);
    while (whole && *at != '\0') {
        Row row = {csv->num_files - 1, (size_t)(at - file->text), line};
        whole = skip_row(&at, csv->delimiter, &line) && add_row(csv, row);
    }
    if (whole) return 0;
    snprintf(message, message_bytes, "%s:%ld: a quote is never closed", path, line);
    return 1;
}

/* ---- the interface ---- */

static void csv_close(void *opened)
{
    Csv *csv = opened;
    for (int i = 0; i < csv->num_files; i++) {
        free(csv->file[i].name);
        free(csv->file[i].text);
    }
    free(csv->file);
    free(csv->row);
    free(csv->order);
    free(csv);
}

/* What is behind `text`, which may have blanks before it; NULL: something else is there. */
static const char *behind(const char *at, const char *text)
{
    if (at == NULL) return NULL;
    at += strspn(at, " ");
    return strncmp(at, text, strlen(text)) == 0 ? at + strlen(text) : NULL;
}

/* Of the options, which are JSON, the character between the quotes; 0: it is none, or more, or
 * there is another option. */
static char find_delimiter(const char *options)
{
    const char *at = behind(options, "{");
    if (behind(at, "}") != NULL) return ',';
    at = behind(behind(behind(at, "\"delimiter\""), ":"), "\"");
    if (at == NULL) return '\0';
    const char *tab = behind(at, "\\t");
    char found = tab != NULL ? '\t' : at[0];
    if (found == '"' || found == '\\' || found == '\0') return '\0';
    return behind(behind(tab != NULL ? tab : at + 1, "\""), "}") != NULL ? found : '\0';
}

static int csv_open(const ReaderPluginSource *source, void **ret_self, char *message,
                    size_t message_bytes)
{
    Csv *csv = calloc(1, sizeof *csv);
    if (csv == NULL) return 1;
    csv->delimiter = find_delimiter(source->options);
    if (csv->delimiter == '\0') {
        snprintf(message, message_bytes,
                 "reader_options is %.300s, expected nothing but delimiter, one character as \";\" "
                 "or \"\\t\"",
                 source->options);
        free(csv);
        return 1;
    }
    csv->shuffle = source->shuffle;
    csv->seed = source->seed;
    csv->file = calloc((size_t)source->num_paths + 1, sizeof *csv->file);
    int failed = csv->file == NULL;
    for (int i = 0; i < source->num_paths && !failed; i++)
        failed = add_file(csv, source->path[i], message, message_bytes);
    if (!failed) csv->order = calloc(csv->num_rows + 1, sizeof *csv->order);
    if (failed || csv->order == NULL) {
        csv_close(csv);
        return 1;
    }
    *ret_self = csv;
    return 0;
}

static int64_t csv_num_records(void *opened)
{
    return (int64_t)((const Csv *)opened)->num_rows;
}

/* Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static int csv_shuffle(void *opened, int64_t epoch, char *message, size_t message_bytes)
{
    Csv *csv = opened;
    uint64_t state = csv->seed;
    (void)message, (void)message_bytes;
    csv->at.epoch = (uint64_t)epoch;
    csv->at.next = 0;
    state = draw(&state) ^ (uint64_t)epoch;
    for (size_t i = 0; i < csv->num_rows; i++)
        csv->order[i] = i;
    for (size_t i = csv->num_rows; csv->shuffle && i > 1; i--) {
        size_t other = (size_t)(draw(&state) % i);
        uint64_t swap = csv->order[i - 1];
        csv->order[i - 1] = csv->order[other];
        csv->order[other] = swap;
    }
    return 0;
}

static void add_object(const Csv *csv, const Row *row, const ReaderPluginHost *host,
                       ReaderPluginBatch *batch)
{
    const File *file = &csv->file[row->file];
    const char *name = file->text, *value = file->text + row->at;
    Text object = {0}, field = {0};
    char place[256];
    long line = 0;
    int names, values;
    snprintf(place, sizeof place, "%s:%ld", file->name, row->line);
    put(&object, '{');
    do {
        if (object.length > 1) put(&object, ',');
        names = take_field(&name, csv->delimiter, &field, &line);
        put_json(&object, field.data, field.length);
        put(&object, ':');
        values = take_field(&value, csv->delimiter, &field, &line);
        put_json(&object, field.data, field.length);
    } while (names > 0 && values > 0);
    put(&object, '}');
    if (names == values)
        host->add_record(batch, object.data, object.length, place);
    else
        host->add_bad_record(batch, "the row has not as many fields as the first row has names",
                             place);
    free(object.data);
    free(field.data);
}

static int csv_next_batch(void *opened, int32_t count, const ReaderPluginHost *host,
                          ReaderPluginBatch *batch, char *message, size_t message_bytes)
{
    Csv *csv = opened;
    (void)message, (void)message_bytes;
    for (; count > 0 && csv->at.next < csv->num_rows; count--)
        add_object(csv, &csv->row[csv->order[csv->at.next++]], host, batch);
    return 0;
}

static int csv_get_state(void *opened, const ReaderPluginHost *host, ReaderPluginState *state,
                         char *message, size_t message_bytes)
{
    const Csv *csv = opened;
    (void)message, (void)message_bytes;
    host->set_state(state, &csv->at, sizeof csv->at);
    return 0;
}

static int csv_load_state(void *opened, const void *bytes, size_t length, char *message,
                          size_t message_bytes)
{
    Csv *csv = opened;
    uint64_t at[2];
    if (length != sizeof at) {
        snprintf(message, message_bytes, "a state of %zu bytes, expected %zu", length, sizeof at);
        return 1;
    }
    memcpy(at, bytes, sizeof at);
    int failed = csv_shuffle(csv, (int64_t)at[0], message, message_bytes);
    csv->at.next = at[1];
    return failed;
}

const ReaderPlugin *reader_plugin(void)
{
    static const ReaderPlugin table = {
        .abi = READER_PLUGIN_ABI,
        .name = "csv",
        .open = csv_open,
        .close = csv_close,
        .num_records = csv_num_records,
        .shuffle = csv_shuffle,
        .next_batch = csv_next_batch,
        .get_state = csv_get_state,
        .load_state = csv_load_state,
    };
    return &table;
}
