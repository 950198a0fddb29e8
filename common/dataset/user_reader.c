#include "dataset/user_reader.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/limits.h"
#include "base/memory.h"
#include "dataset/last_words.h"
#include "dataset/path_identity.h"
#include "dataset/reader_plugin.h"
#include "dataset/reader_states.h"

enum {
    BATCH_RECORDS = 64,
    FIRST_RECORDS = 8,   /* of a batch, while it is not known how large they are */
    KEPT_RECORDS = 8192, /* that went by last */
    /* Positions are asked for nearly in order: what is read before the one asked for is wanted
     * next. */
    LEAD_RECORDS = 256,
    MESSAGE_BYTES = 512,
};
#define BATCH_BYTES    (16u << 20)
#define KEPT_BYTES     (64u << 20)
#define KEPT_BYTES_MAX (256u << 20) /* of LEAD_RECORDS */

typedef struct ReaderPath {
    char *path;
    char digest[DIGEST_HEX_BYTES]; /* of its path_identity */
} ReaderPath;

typedef struct KeptRecord {
    char *text, *place;
    size_t length;
    uint64_t epoch;
    bool bad;
} KeptRecord;

/* What is not marked is under the lock. */
struct UserReader {
    char *key, *library_path;           /* const once it is open */
    void *library;                      /* const */
    const ReaderPlugin *table;          /* const */
    void *opened;                       /* const */
    uint64_t records;                   /* const; of an epoch; 0: not known */
    char fingerprint[DIGEST_HEX_BYTES]; /* const */
    ReaderPath *path;                   /* [num_paths], const */
    int num_paths;
    ReadWatch *watch;              /* const */
    _Atomic(const char *) calling; /* the function that runs; NULL: none */
    pthread_mutex_t lock;
    bool standing;   /* the object stands at `at`; else nowhere */
    bool epoch_over; /* ... and said that the epoch is over */
    ReaderPoint at;  /* behind the last record that is kept */
    ReaderStates *states;
    /* A state that the object said, to be kept when what comes behind it is known. */
    bool said;
    ReaderPoint said_at;
    Str said_state;
    bool compared;       /* with what an earlier process met */
    ReaderPoint entered; /* where it was put, as long as what comes behind that is to be compared;
                            ahead 0: nothing is */
    KeptRecord *kept;    /* ring [KEPT_RECORDS]: position p at p % KEPT_RECORDS */
    uint64_t kept_from;  /* the positions [kept_from, at.position) are there */
    size_t kept_bytes;
    uint64_t wanted; /* the position that is being read for: it and what follows is kept */
    size_t largest;  /* record of the last batch; 0: none was read */
};

static Status say(const UserReader *reader, const char *function, const char *message, Error *err)
{
    return error_set(err, ERR_DATA, "%s: the reader %s: %s: %s\n  to do: mend it, or its data",
                     reader->key, QUOTED(reader->table->name), function,
                     message[0] != '\0' ? message : "it failed and says nothing");
}

/* ---- what the object calls ---- */

struct ReaderPluginBatch {
    UserReader *reader;
    bool behind_end; /* of the epoch: what it adds is counted, not kept */
    int32_t room;
    int32_t added;
    const char *fault; /* the first thing that it did wrong */
};

struct ReaderPluginState {
    Str bytes;
    bool set, too_long;
};

static void forget_first(UserReader *reader)
{
    KeptRecord *record = &reader->kept[reader->kept_from++ % KEPT_RECORDS];
    reader->kept_bytes -= record->length;
    free(record->text);
    free(record->place);
    *record = (KeptRecord){0};
}

static void forget_all(UserReader *reader)
{
    while (reader->kept_from < reader->at.position)
        forget_first(reader);
}

/* The first record that is kept, for room for another; never what is wanted, or comes behind it. */
static bool must_forget(const UserReader *reader, size_t length)
{
    size_t bytes = reader->kept_bytes + length;
    if (reader->kept_from >= reader->wanted) return false;
    return reader->at.position - reader->kept_from == KEPT_RECORDS || bytes > KEPT_BYTES_MAX ||
           (bytes > KEPT_BYTES && reader->wanted - reader->kept_from > LEAD_RECORDS);
}

static void add(ReaderPluginBatch *batch, const char *text, size_t length, const char *place,
                bool bad)
{
    UserReader *reader = batch->reader;
    if (batch->fault != NULL) return;
    if (batch->added++ == batch->room) {
        batch->fault = "it added more records than it was asked for";
        return;
    }
    if (batch->behind_end) return;
    if (length > JSONL_LINE_BYTES_MAX) {
        batch->fault = "it added a record of more than 48 MiB";
        return;
    }
    while (must_forget(reader, length))
        forget_first(reader);
    CHECK(reader->at.position - reader->kept_from < KEPT_RECORDS);
    if (length > reader->largest) reader->largest = length;
    KeptRecord *record = &reader->kept[reader->at.position % KEPT_RECORDS];
    *record = (KeptRecord){.text = mem_strndup(text, length),
                           .place = mem_strdup(place != NULL ? place : reader->table->name),
                           .length = length,
                           .epoch = reader->at.epoch,
                           .bad = bad};
    reader->kept_bytes += length;
    reader->at.position++;
    reader->at.index++;
    reader->at.hash = XXH3_64bits_withSeed(text, length, reader->at.hash + bad);
}

static void add_record(ReaderPluginBatch *batch, const char *text, size_t length, const char *place)
{
    add(batch, text, length, place, false);
}

static void add_bad_record(ReaderPluginBatch *batch, const char *why, const char *place)
{
    add(batch, why, strlen(why), place, true);
}

static void set_state(ReaderPluginState *state, const void *bytes, size_t length)
{
    state->set = true;
    state->too_long = length > READER_STATE_BYTES_MAX;
    str_clear(&state->bytes);
    if (!state->too_long) str_append(&state->bytes, bytes, length);
}

static const ReaderPluginHost host = {
    .abi = READER_PLUGIN_ABI,
    .add_record = add_record,
    .add_bad_record = add_bad_record,
    .set_state = set_state,
};

/* ---- calls ---- */

/* Where a call is that ends the process. Who reads them is told whose reader it is, and its path.
 */
static void fill_last_words(const void *context, LastWords *ret)
{
    const UserReader *reader = context;
    last_words_put(ret, reader->calling);
    last_words_put(ret, " of ");
    last_words_put(ret, reader->key);
    if (reader->opened == NULL) return;
    last_words_put(ret, ", asked for position ");
    last_words_put_number(ret, reader->wanted);
    if (reader->at.position == reader->kept_from) return;
    const KeptRecord *last = &reader->kept[(reader->at.position - 1) % KEPT_RECORDS];
    last_words_put(ret, ", behind ");
    last_words_put(ret, last->place);
    last_words_put(ret, " of epoch ");
    last_words_put_number(ret, last->epoch);
}

/* Where a call that does not return is, people can see. */
static void begin(UserReader *reader, const char *function, char message[MESSAGE_BYTES])
{
    message[0] = '\0';
    reader->calling = function;
    last_words_enter(fill_last_words, reader);
}

static Status finish(UserReader *reader, int failed, char message[MESSAGE_BYTES], Error *err)
{
    const char *function = reader->calling;
    last_words_leave();
    reader->calling = NULL;
    message[MESSAGE_BYTES - 1] = '\0';
    return failed == 0 ? OK : say(reader, function, message, err);
}

/* Before the first record of an epoch. */
static Status enter_epoch(UserReader *reader, uint64_t epoch, uint64_t position, Error *err)
{
    char message[MESSAGE_BYTES];
    reader->standing = false;
    begin(reader, "shuffle", message);
    int failed = reader->table->shuffle(reader->opened, (int64_t)epoch, message, MESSAGE_BYTES);
    TRY(finish(reader, failed, message, err));
    reader->standing = true;
    reader->epoch_over = false;
    reader->at = (ReaderPoint){.position = position, .epoch = epoch};
    return OK;
}

static Status enter_state(UserReader *reader, const ReaderPoint *point, const Str *state,
                          Error *err)
{
    char message[MESSAGE_BYTES];
    reader->standing = false;
    begin(reader, "load_state", message);
    int failed = reader->table->load_state(reader->opened, str_text(state), state->length, message,
                                           MESSAGE_BYTES);
    TRY(finish(reader, failed, message, err));
    reader->standing = true;
    reader->epoch_over = false;
    reader->entered = reader->at = *point;
    return OK;
}

static Status save_state(UserReader *reader, Error *err)
{
    char message[MESSAGE_BYTES];
    ReaderPluginState state = {0};
    begin(reader, "get_state", message);
    int failed = reader->table->get_state(reader->opened, &host, &state, message, MESSAGE_BYTES);
    Status status = finish(reader, failed, message, err);
    if (status == OK && (!state.set || state.too_long))
        status = say(reader, "get_state",
                     state.set ? "its state has more than 1 MiB" : "it set no state", err);
    if (status != OK) {
        str_free(&state.bytes);
        return status;
    }
    reader->said = true;
    reader->said_at = reader->at;
    str_free(&reader->said_state);
    reader->said_state = state.bytes;
    return OK;
}

/* The records that were just read are those behind the state that was said before them. */
static void keep_said(UserReader *reader, int32_t records)
{
    if (!reader->said) return;
    reader->said = false;
    reader->said_at.ahead = (uint64_t)records;
    reader->said_at.ahead_hash = reader->at.hash;
    reader_states_add(reader->states, &reader->said_at, str_text(&reader->said_state),
                      reader->said_state.length);
}

static bool is_same(const UserReader *reader, const ReaderPoint *known)
{
    return known->epoch == reader->at.epoch && known->index == reader->at.index &&
           known->hash == reader->at.hash;
}

/* The object has come to where it, or one before it, was already. */
static Status check_again(UserReader *reader, const ReaderPoint *before, Error *err)
{
    const ReaderPoint *known = reader_states_find(reader->states, reader->at.position, NULL);
    const ReaderPoint *from = &reader->entered;
    bool same = known == NULL || known->position != reader->at.position || is_same(reader, known);
    if (from->ahead > 0 && reader->at.position == from->position + from->ahead) {
        same = same && reader->at.hash == from->ahead_hash;
        reader->entered.ahead = 0;
    }
    if (same) return OK;
    return error_set(
        err, ERR_DATA,
        "%s: the reader %s gave other records than the first time: from position %llu "
        "to %llu\n  expected: the same after load_state and shuffle, always\n"
        "  to do: mend the reader (no clock, no randomness but by seed and epoch), put "
        "its data back, or take the build of it that the run began with; one that is "
        "meant to give others has to say another identity",
        reader->key, QUOTED(reader->table->name), (unsigned long long)before->position,
        (unsigned long long)reader->at.position);
}

static Status refuse_count(const UserReader *reader, bool more, Error *err)
{
    char gave[32] = "more";
    if (!more) snprintf(gave, sizeof gave, "%llu", (unsigned long long)reader->at.index);
    return error_set(err, ERR_DATA,
                     "%s: the reader %s said that an epoch has %llu records, but gave %s of "
                     "epoch %llu\n  to do: mend num_records, or leave it out",
                     reader->key, QUOTED(reader->table->name), (unsigned long long)reader->records,
                     gave, (unsigned long long)reader->at.epoch);
}

/* ---- reading on ---- */

static bool at_end_of_epoch(const UserReader *reader)
{
    return reader->records > 0 ? reader->at.index == reader->records : reader->epoch_over;
}

/* Records that have `bytes` together, if they are like those of the last batch; at most `most`. */
static uint64_t records_of(const UserReader *reader, size_t bytes, uint64_t most)
{
    uint64_t records = bytes / (reader->largest > 0 ? reader->largest : 1);
    return records < 1 ? 1 : records < most ? records : most;
}

/* How many may be asked for: a batch ends where a state is known, so that it can be compared right
 * there. They are farther apart than a batch is long. */
static int32_t batch_size(const UserReader *reader)
{
    uint64_t room = records_of(reader, BATCH_BYTES, BATCH_RECORDS), position = reader->at.position;
    if (reader->largest == 0) room = FIRST_RECORDS;
    if (reader->records > 0 && reader->records - reader->at.index < room)
        room = reader->records - reader->at.index;
    const ReaderPoint *known = reader_states_find(reader->states, position + room, NULL);
    if (known != NULL && known->position > position) room = known->position - position;
    uint64_t compared = reader->entered.position + reader->entered.ahead;
    if (reader->entered.ahead > 0 && compared > position && compared - position < room)
        room = compared - position;
    return (int32_t)room;
}

static Status next_batch(UserReader *reader, ReaderPluginBatch *batch, Error *err)
{
    char message[MESSAGE_BYTES];
    begin(reader, "next_batch", message);
    int failed = reader->table->next_batch(reader->opened, batch->room, &host, batch, message,
                                           MESSAGE_BYTES);
    TRY(finish(reader, failed, message, err));
    return batch->fault == NULL ? OK : say(reader, "next_batch", batch->fault, err);
}

/* What is left of an epoch behind the records that there were said to be would be lost: one more is
 * asked for. Whatever that does to where the object stands, `shuffle` or load_state comes next. */
static Status check_end(UserReader *reader, Error *err)
{
    ReaderPluginBatch batch = {.reader = reader, .behind_end = true, .room = 1};
    if (reader->watch != NULL) reader->watch->progress++;
    TRY(next_batch(reader, &batch, err));
    return batch.added == 0 ? OK : refuse_count(reader, true, err);
}

static Status read_batch(UserReader *reader, Error *err)
{
    if (at_end_of_epoch(reader))
        TRY(enter_epoch(reader, reader->at.epoch + 1, reader->at.position, err));
    const ReaderPoint before = reader->at;
    ReaderPluginBatch batch = {.reader = reader, .room = batch_size(reader)};
    reader->largest = 0;
    Status status = next_batch(reader, &batch, err);
    if (status == OK && batch.added == 0) {
        reader->epoch_over = true;
        if (reader->records > 0)
            status = refuse_count(reader, false, err);
        else if (reader->at.index == 0)
            status = say(reader, "next_batch", "an epoch without a record", err);
    }
    if (status == OK) status = check_again(reader, &before, err);
    if (status == OK) keep_said(reader, batch.added);
    if (status == OK && batch.added > 0 && reader_states_want(reader->states, reader->at.position))
        status = save_state(reader, err);
    if (status == OK && reader->records > 0 && at_end_of_epoch(reader))
        status = check_end(reader, err);
    if (status != OK) reader->standing = false;
    if (reader->watch != NULL) reader->watch->progress++;
    return status;
}

/* ---- any position ---- */

/* Puts the object as near as can be before `position`, unless it stands there. */
static Status go_to(UserReader *reader, uint64_t position, Error *err)
{
    const Str *state = NULL;
    uint64_t lead = records_of(reader, KEPT_BYTES_MAX / 2, LEAD_RECORDS);
    uint64_t target = position > lead ? position - lead : 0;
    const ReaderPoint *saved = reader_states_find(reader->states, target, &state);
    uint64_t epoch = reader->records > 0 ? target / reader->records : 0;
    uint64_t first = epoch * reader->records;
    uint64_t best = saved != NULL && saved->position > first ? saved->position : first;
    bool ahead = reader->standing && reader->at.position <= position;
    if (ahead && reader->at.position >= best) return OK;
    forget_all(reader);
    reader->said = false;
    reader->entered.ahead = 0;
    Status status;
    if (saved != NULL && saved->position > first) {
        const ReaderPoint point = *saved;
        status = enter_state(reader, &point, state, err);
    } else {
        status = enter_epoch(reader, epoch, first, err);
    }
    reader->kept_from = reader->at.position;
    return status;
}

/* An object that was built anew may give other records after the same states, and the fingerprint
 * does not tell: what follows the last state of an earlier process is read again, also where the
 * beginning of an epoch is nearer to what is wanted. */
static Status compare_once(UserReader *reader, Error *err)
{
    const Str *state = NULL;
    const ReaderPoint *last = reader_states_find(reader->states, UINT64_MAX, &state);
    if (last != NULL && last->ahead == 0 && last->position > 0)
        last = reader_states_find(reader->states, last->position - 1, &state);
    if (last != NULL && last->ahead > 0) {
        const ReaderPoint point = *last;
        TRY(enter_state(reader, &point, state, err));
        reader->kept_from = reader->at.position;
        while (reader->entered.ahead > 0)
            TRY(read_batch(reader, err));
    }
    reader->compared = true;
    return OK;
}

static Status read_to(UserReader *reader, uint64_t position, Error *err)
{
    if (!reader->compared) TRY(compare_once(reader, err));
    TRY(go_to(reader, position, err));
    while (reader->at.position <= position) {
        if (reader->watch != NULL && reader->watch->cancelled)
            return error_set(err, ERR_CANCELLED, "%s: the reading was given up", reader->key);
        TRY(read_batch(reader, err));
    }
    return OK;
}

/* As what is wrong with a line of JSONL: the place comes first. */
static void say_bad(const UserReader *reader, const KeptRecord *record, Str *text)
{
    if (!str_starts_with(record->text, record->place)) str_printf(text, "%s: ", record->place);
    str_append(text, record->text, record->length);
    str_printf(text, "\n  said by: the reader %s of %s", QUOTED(reader->table->name), reader->key);
}

Status user_reader_read(UserReader *reader, uint64_t position, Str *text, Str *place,
                        UserRecord *ret, Error *err)
{
    Status status = OK;
    pthread_mutex_lock(&reader->lock);
    reader->wanted = position;
    if (!reader->standing || position < reader->kept_from || position >= reader->at.position)
        status = read_to(reader, position, err);
    if (status == OK) {
        const KeptRecord *record = &reader->kept[position % KEPT_RECORDS];
        if (record->bad)
            say_bad(reader, record, text);
        else
            str_append(text, record->text, record->length);
        str_puts(place, record->place);
        *ret = (UserRecord){.epoch = record->epoch, .bad = record->bad};
    }
    pthread_mutex_unlock(&reader->lock);
    return status;
}

bool user_reader_describe(const UserReader *reader, char *text, size_t size)
{
    const char *calling = reader->calling;
    if (calling == NULL) return false;
    snprintf(text, size, "%s of the reader %s (%s) of %s", calling, reader->table->name,
             reader->library_path, reader->key);
    return true;
}

/* ---- life ---- */

static Status check_table(const UserReader *reader, const ReaderPlugin *table, Error *err)
{
    const char *path = reader->library_path;
    if (table == NULL)
        return error_set(err, ERR_INVALID,
                         "%s: %s exports no reader_plugin, expected what reader_plugin.h says",
                         reader->key, QUOTED(path));
    if (table->abi != READER_PLUGIN_ABI)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: the reader %s is made for interface %u, this build has %d: compile "
                         "it with this build's reader_plugin.h",
                         reader->key, QUOTED(path), table->abi, READER_PLUGIN_ABI);
    if (table->name == NULL || table->open == NULL || table->close == NULL ||
        table->shuffle == NULL || table->next_batch == NULL || table->get_state == NULL ||
        table->load_state == NULL)
        return error_set(err, ERR_INVALID,
                         "%s: the reader %s lacks its name, open, close, shuffle, next_batch, "
                         "get_state or load_state",
                         reader->key, QUOTED(path));
    return OK;
}

static Status load(UserReader *reader, Error *err)
{
    const ReaderPlugin *(*entry)(void) = NULL;
    reader->library = dlopen(reader->library_path, RTLD_NOW | RTLD_LOCAL);
    if (reader->library == NULL)
        return error_set(err, ERR_NOT_FOUND,
                         "%s: cannot load the reader %s: %s\n"
                         "  expected: a shared object for this machine, which exports "
                         "reader_plugin\n"
                         "  to do: correct the path, or compile it as docs/data.md says",
                         reader->key, QUOTED(reader->library_path), dlerror());
    void *symbol = dlsym(reader->library, "reader_plugin");
    memcpy(&entry, &symbol, sizeof entry);
    const ReaderPlugin *table = symbol == NULL ? NULL : entry();
    TRY(check_table(reader, table, err));
    reader->table = table;
    return OK;
}

/* What the object blames, if its message names that: of the options or the paths it was given. */
static void blame(const UserReaderOptions *options, UserReader *reader, const char *message)
{
    bool alone = strcmp(options->key, "data.train") == 0;
    char *key = NULL;
    for (int i = 0; i < options->num_paths && key == NULL; i++)
        if (strstr(message, options->path[i]) != NULL)
            key = mem_printf("%s%s", options->key, alone ? "" : ".path");
    if (key == NULL && strstr(message, "reader_options") != NULL)
        key = mem_printf("%s_options", options->reader_key);
    if (key == NULL) return;
    free(reader->key);
    reader->key = key;
}

static Status open_loaded(UserReader *reader, const UserReaderOptions *options, Error *err)
{
    char message[MESSAGE_BYTES];
    ReaderPluginSource source = {.name = options->name,
                                 .path = options->path,
                                 .num_paths = options->num_paths,
                                 .shuffle = options->shuffle,
                                 .seed = options->seed,
                                 .options = options->options != NULL ? options->options : "{}"};
    begin(reader, "open", message);
    int failed = reader->table->open(&source, &reader->opened, message, MESSAGE_BYTES);
    message[MESSAGE_BYTES - 1] = '\0';
    if (failed != 0) blame(options, reader, message);
    Status status = finish(reader, failed, message, err);
    if (status != OK) reader->table = NULL; /* there is nothing to close */
    return status;
}

static Status ask_records(UserReader *reader, Error *err)
{
    const ReaderPlugin *table = reader->table;
    int64_t records = table->num_records != NULL ? table->num_records(reader->opened) : -1;
    if (records == 0) return say(reader, "num_records", "the data set is empty", err);
    if (records > NUM_SAMPLES_MAX) {
        char message[MESSAGE_BYTES];
        snprintf(message, sizeof message,
                 "an epoch of %lld records, expected at most %lld (NUM_SAMPLES_MAX), or -1 where "
                 "it is not known",
                 (long long)records, (long long)NUM_SAMPLES_MAX);
        return say(reader, "num_records", message, err);
    }
    reader->records = records > 0 ? (uint64_t)records : 0;
    return OK;
}

static void take_fingerprint(UserReader *reader, const UserReaderOptions *options)
{
    const ReaderPlugin *table = reader->table;
    const char *identity = table->identity != NULL ? table->identity(reader->opened) : NULL;
    Str text = {0};
    str_printf(&text, "troupe reader\n%s\n%s\n%llu\n", table->name,
               options->options != NULL ? options->options : "{}",
               (unsigned long long)reader->records);
    if (options->shuffle) str_printf(&text, "shuffle %llu\n", (unsigned long long)options->seed);
    if (identity != NULL) str_puts(&text, identity);
    reader->path = mem_calloc((size_t)options->num_paths + 1, sizeof *reader->path);
    for (; reader->num_paths < options->num_paths; reader->num_paths++) {
        ReaderPath *path = &reader->path[reader->num_paths];
        Str contents = {0};
        path->path = mem_strdup(options->path[reader->num_paths]);
        path_identity(path->path, &contents);
        digest_bytes(contents.data, contents.length, path->digest);
        if (identity == NULL) str_puts(&text, str_text(&contents));
        str_free(&contents);
    }
    digest_bytes(text.data, text.length, reader->fingerprint);
    str_free(&text);
}

Status user_reader_open(const UserReaderOptions *options, UserReader **ret, Error *err)
{
    UserReader *reader = mem_calloc(1, sizeof *reader);
    reader->key = mem_strdup(options->reader_key); /* which is to blame so far */
    reader->library_path = mem_strdup(options->library);
    reader->watch = options->watch;
    reader->kept = mem_calloc(KEPT_RECORDS, sizeof *reader->kept);
    pthread_mutex_init(&reader->lock, NULL);
    Status status = load(reader, err);
    if (status == OK) status = open_loaded(reader, options, err);
    if (status == OK) status = ask_records(reader, err);
    if (status == OK) {
        free(reader->key);
        reader->key = mem_strdup(options->key);
        take_fingerprint(reader, options);
        reader->states = reader_states_open(options->index_folder, options->index_read_only,
                                            reader->fingerprint);
        *ret = reader;
    } else {
        user_reader_close(reader);
    }
    return status;
}

void user_reader_close(UserReader *reader)
{
    if (reader == NULL) return;
    forget_all(reader);
    str_free(&reader->said_state);
    reader_states_close(reader->states);
    if (reader->table != NULL) reader->table->close(reader->opened);
    if (reader->library != NULL) dlclose(reader->library);
    pthread_mutex_destroy(&reader->lock);
    free(reader->kept);
    for (int i = 0; i < reader->num_paths; i++)
        free(reader->path[i].path);
    free(reader->path);
    free(reader->key);
    free(reader->library_path);
    free(reader);
}

uint64_t user_reader_records(const UserReader *reader)
{
    return reader->records;
}

void user_reader_fingerprint(const UserReader *reader, char ret[DIGEST_HEX_BYTES])
{
    memcpy(ret, reader->fingerprint, DIGEST_HEX_BYTES);
}

const char *user_reader_path(const UserReader *reader, int index, char ret[DIGEST_HEX_BYTES])
{
    if (index >= reader->num_paths) return NULL;
    memcpy(ret, reader->path[index].digest, DIGEST_HEX_BYTES);
    return reader->path[index].path;
}
