/* A reader for tests. It counts: record i of epoch e is a conversation that says so. What else it
 * does is its option "mode": see `modes`. With "once": "FILE" a crash, hang or exit comes only
 * where the file is not there yet, and leaves it. "size": N makes texts of N bytes more, "says": N
 * is what num_records says. */
#include "dataset/reader_plugin.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FAULT_AT = 100 };

typedef enum {
    COUNT,       /* nothing else; it does not know how long an epoch is */
    KNOWN,       /* it does */
    DRIFT,       /* other records each time that it is opened */
    FORGETFUL,   /* load_state does nothing */
    WRONG_COUNT, /* num_records is more than there are */
    TOO_MANY,    /* one more than asked for */
    EMPTY,       /* no record */
    LONG_STATE,  /* more than is allowed */
    NO_STATE,    /* none is set */
    BAD,         /* every fifth record cannot be read */
    FAILS,       /* next_batch at record FAULT_AT */
    CRASHES,     /* the same */
    HANGS,       /* the same */
    EXITS,       /* the same, with code 0 */
    MODES
} Mode;

static const char *const modes[MODES] = {"count",    "known",   "drift", "forgetful", "wrong",
                                         "too_many", "empty",   "long",  "no_state",  "bad",
                                         "fails",    "crashes", "hangs", "exits"};

typedef struct Faulty {
    Mode mode;
    long length; /* of an epoch */
    long size;
    long long salt, says;
    char once[4096];
    struct {
        int64_t epoch, next;
    } at;
} Faulty;

static const char *option(const char *options, const char *key)
{
    const char *at = strstr(options, key);
    return at != NULL ? at + strlen(key) + 2 + strspn(at + strlen(key) + 2, " \"") : NULL;
}

static int faulty_open(const ReaderPluginSource *source, void **ret_self, char *message,
                       size_t message_bytes)
{
    Faulty *self = calloc(1, sizeof *self);
    const char *mode = option(source->options, "mode"), *length = option(source->options, "length"),
               *once = option(source->options, "once"), *size = option(source->options, "size"),
               *says = option(source->options, "says");
    if (self == NULL) return 1;
    while (self->mode < MODES && mode != NULL &&
           strncmp(mode, modes[self->mode], strlen(modes[self->mode])) != 0)
        self->mode++;
    if (self->mode == MODES) {
        snprintf(message, message_bytes, "there is no such mode");
        free(self);
        return 1;
    }
    self->length = length != NULL ? strtol(length, NULL, 10) : 1000;
    self->size = size != NULL ? strtol(size, NULL, 10) : 0;
    self->says = says != NULL ? strtoll(says, NULL, 10) : -1;
    if (once != NULL)
        snprintf(self->once, sizeof self->once, "%.*s", (int)strcspn(once, "\""), once);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    self->salt = self->mode == DRIFT ? now.tv_nsec + 1 : 0;
    *ret_self = self;
    return 0;
}

static int64_t faulty_num_records(void *opened)
{
    const Faulty *self = opened;
    if (self->mode == WRONG_COUNT) return self->length + 3;
    return self->mode == KNOWN ? self->length : self->says;
}

static int faulty_shuffle(void *opened, int64_t epoch, char *message, size_t message_bytes)
{
    Faulty *self = opened;
    (void)message, (void)message_bytes;
    self->at.epoch = epoch;
    self->at.next = 0;
    return 0;
}

static int is_due(const Faulty *self)
{
    if (self->at.next != FAULT_AT || self->at.epoch != 0) return 0;
    if (self->once[0] == '\0') return 1;
    int fd = open(self->once, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

/* The same with spaces behind it. */
static void add_padded(const Faulty *self, const ReaderPluginHost *host, ReaderPluginBatch *batch,
                       const char *text, size_t length, const char *place)
{
    size_t bytes = length + (size_t)self->size;
    char *padded = malloc(bytes);
    if (padded == NULL) abort();
    memcpy(padded, text, length);
    memset(padded + length, ' ', bytes - length);
    host->add_record(batch, padded, bytes, place);
    free(padded);
}

static void add_one(Faulty *self, const ReaderPluginHost *host, ReaderPluginBatch *batch)
{
    char text[256], place[64];
    long long epoch = self->at.epoch, next = self->at.next++;
    int length = snprintf(text, sizeof text,
                          "{\"messages\": [{\"role\": \"user\", \"content\": \"epoch %lld of "
                          "%lld\"}, {\"role\": \"assistant\", \"content\": \"record %lld\"}]}",
                          epoch, self->salt, next);
    snprintf(place, sizeof place, "counter:%lld", next);
    if (self->mode == BAD && next % 5 == 0)
        host->add_bad_record(batch, "it is the fifth", place);
    else if (self->size > 0)
        add_padded(self, host, batch, text, (size_t)length, place);
    else
        host->add_record(batch, text, (size_t)length, place);
}

static int faulty_next_batch(void *opened, int32_t count, const ReaderPluginHost *host,
                             ReaderPluginBatch *batch, char *message, size_t message_bytes)
{
    Faulty *self = opened;
    if (self->mode == EMPTY) return 0;
    count += self->mode == TOO_MANY;
    for (; count > 0 && self->at.next < self->length; count--) {
        if (self->mode >= FAILS && is_due(self)) {
            if (self->mode == CRASHES) raise(SIGSEGV);
            if (self->mode == EXITS) exit(0);
            while (self->mode == HANGS)
                pause();
            snprintf(message, message_bytes, "the well is dry");
            return 7;
        }
        add_one(self, host, batch);
    }
    return 0;
}

static int faulty_get_state(void *opened, const ReaderPluginHost *host, ReaderPluginState *state,
                            char *message, size_t message_bytes)
{
    static const char large[(1 << 20) + 1];
    const Faulty *self = opened;
    (void)message, (void)message_bytes;
    if (self->mode == LONG_STATE)
        host->set_state(state, large, sizeof large);
    else if (self->mode != NO_STATE)
        host->set_state(state, &self->at, sizeof self->at);
    return 0;
}

static int faulty_load_state(void *opened, const void *bytes, size_t length, char *message,
                             size_t message_bytes)
{
    Faulty *self = opened;
    if (length != sizeof self->at) {
        snprintf(message, message_bytes, "a state of %zu bytes", length);
        return 1;
    }
    if (self->mode != FORGETFUL) memcpy(&self->at, bytes, sizeof self->at);
    return 0;
}

static void faulty_close(void *opened)
{
    free(opened);
}

__attribute__((visibility("default"))) const ReaderPlugin *reader_plugin(void)
{
    static const ReaderPlugin table = {
        .abi = READER_PLUGIN_ABI,
        .name = "faulty",
        .open = faulty_open,
        .close = faulty_close,
        .num_records = faulty_num_records,
        .shuffle = faulty_shuffle,
        .next_batch = faulty_next_batch,
        .get_state = faulty_get_state,
        .load_state = faulty_load_state,
    };
    return &table;
}
