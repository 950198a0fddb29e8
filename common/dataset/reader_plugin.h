/* The interface between Troupe and a reader of data in a shared object: `data.reader`, or `reader`
 * of one of data.sources. Include this file and nothing else of Troupe; docs/data.md tells how,
 * deploy/examples/reader_plugin has one.
 *
 * The object exports one function, reader_plugin, that returns a table of functions. The table
 * begins with the number of the interface it was compiled against: an object of another number is
 * refused before any other field is read. The number changes with every change of what is declared.
 *
 * A reader stands in a stream of records, epoch after epoch: shuffle puts it before the first
 * record of an epoch, next_batch gives the ones that follow, get_state says where it stands, and
 * load_state puts it there again, in this process or another one, on another day. What is asked of
 * it is that this is true: after shuffle(e), and after load_state of what get_state said, it gives
 * the same records in the same order, always. Nothing else is: Troupe saves states along the
 * stream, goes back to the nearest one and passes over what lies between, and compares what it
 * meets with a hash of what it met the first time. No clock, no random numbers but those that the
 * seed and the epoch decide.
 *
 * It runs inside of the data source: it is for code that is trusted. Its functions are called one
 * at a time, though not always on the same thread. One that crashes ends the process, and one that
 * does not return within cluster.progress_s has it killed: a new data source opens the reader anew
 * and loads a state. Functions that return an int return 0, or anything else and a sentence in
 * `message`, NUL-terminated UTF-8 in a buffer of the caller's, which ends the run. What is handed
 * in is borrowed for the call; what is handed to the host is copied. */
#ifndef TROUPE_READER_PLUGIN_H
#define TROUPE_READER_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define READER_PLUGIN_ABI 1

/* What a reader is opened for. */
typedef struct ReaderPluginSource {
    const char *name;        /* "train", or the source's in data.sources */
    const char *const *path; /* [num_paths] as the job names them, made absolute; what they mean is
                                the reader's business, and there may be none */
    int32_t num_paths;
    int32_t shuffle;     /* 1: each epoch in an order of its own, 0: always the same */
    uint64_t seed;       /* decides these orders */
    const char *options; /* reader_options of the job as JSON, "{}" when there are none */
} ReaderPluginSource;

typedef struct ReaderPluginBatch ReaderPluginBatch; /* where next_batch puts records */
typedef struct ReaderPluginState ReaderPluginState; /* where get_state puts its bytes */

/* What the reader may call meanwhile. */
typedef struct ReaderPluginHost {
    uint32_t abi;
    /* The next record: a JSON object, as a line of JSONL. It is judged later and elsewhere: what is
     * none is a bad record, which is the job's policy's business. `place` is for people, as
     * "a.csv:12". */
    void (*add_record)(ReaderPluginBatch *batch, const char *text, size_t length,
                       const char *place);
    /* In place of the next record: it is there, but cannot be read. */
    void (*add_bad_record)(ReaderPluginBatch *batch, const char *why, const char *place);
    /* All of the state, of at most 1 MiB; a few numbers should be enough. */
    void (*set_state)(ReaderPluginState *state, const void *bytes, size_t length);
} ReaderPluginHost;

typedef struct ReaderPlugin {
    uint32_t abi;     /* READER_PLUGIN_ABI */
    const char *name; /* for messages */
    int (*open)(const ReaderPluginSource *source, void **ret_self, char *message,
                size_t message_bytes);
    void (*close)(void *self);
    /* Of an epoch, the same for each, at most 2^48: fewer or more of them are an error. NULL, or
     * below 0: it is not known before the epoch is over; then the job has to say train.num_steps.
     */
    int64_t (*num_records)(void *self);
    /* A text that is another one when the data are others, or when the reader makes other records
     * of them or in another order (a version of its own): part of the data fingerprint, by which a
     * resume with other data is refused. The object's bytes are no part of it, so that it may be
     * compiled anew. NULL: what the paths are, and how large and what the files begin and end with,
     * stands for it. */
    const char *(*identity)(void *self);
    int (*shuffle)(void *self, int64_t epoch, char *message, size_t message_bytes);
    /* Adds at most `count` records, which is less where those of the last call were large. The
     * epoch is over when it adds none; it is asked for one more behind the last record of
     * num_records, too. */
    int (*next_batch)(void *self, int32_t count, const ReaderPluginHost *host,
                      ReaderPluginBatch *batch, char *message, size_t message_bytes);
    int (*get_state)(void *self, const ReaderPluginHost *host, ReaderPluginState *state,
                     char *message, size_t message_bytes);
    int (*load_state)(void *self, const void *bytes, size_t length, char *message,
                      size_t message_bytes);
} ReaderPlugin;

/* What the shared object exports. */
__attribute__((visibility("default"))) const ReaderPlugin *reader_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
