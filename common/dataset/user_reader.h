/* UserReader: an endless stream of records that a shared object of the user's reads
 * (reader_plugin.h). The object reads one record after the other; here any position can be asked
 * for, in any order and by several threads: records that went by lately are kept in memory (64 MiB
 * of them, or 256 records of up to 1 MiB), and for others the object is put into the nearest state
 * that was saved along the stream (reader_states.h) and reads on from there. What is read again is
 * compared with a hash of what it was.
 *
 * Any number of threads; one of them at a time is in the object's code. */
#ifndef TROUPE_DATASET_USER_READER_H
#define TROUPE_DATASET_USER_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/str.h"
#include "dataset/watch.h"

typedef struct UserReaderOptions {
    const char *key;         /* of job.yaml, for messages: "data.train" */
    const char *reader_key;  /* the same of an object that cannot be opened: "data.reader" */
    const char *name;        /* of the source, for the object */
    const char *library;     /* the shared object */
    const char *options;     /* JSON text of an object; NULL: none */
    const char *const *path; /* [num_paths], for the object */
    int num_paths;
    const char *index_folder; /* where states are kept; NULL: in memory alone */
    bool index_read_only;     /* states that are there are used, none is written */
    bool shuffle;
    uint64_t seed;
    ReadWatch *watch; /* NULL: nobody watches */
} UserReaderOptions;

typedef struct UserReader UserReader;

/* Loads the object and opens it. Options are not kept. */
Status user_reader_open(const UserReaderOptions *options, UserReader **ret, Error *err);
void user_reader_close(UserReader *reader); /* accepts NULL */

uint64_t user_reader_records(const UserReader *reader); /* of an epoch; 0: not known */
/* SHA-256, in hex, of what determines the stream, as far as the object or its paths tell. */
void user_reader_fingerprint(const UserReader *reader, char ret[DIGEST_HEX_BYTES]);

/* One of the paths that it was given, and SHA-256, in hex, of what stands for the contents
 * (path_identity.h), which is not all that may determine the stream. NULL: no path has this number.
 * Borrowed. */
const char *user_reader_path(const UserReader *reader, int index, char ret[DIGEST_HEX_BYTES]);

typedef struct UserRecord {
    uint64_t epoch; /* from 0 */
    bool bad;       /* it cannot be read: *text is not the record, but why, and where it stands */
} UserRecord;

/* Appends the record at a position to *text, and where it stands, for people, to *place. A failure
 * is the object's, or of the whole data. */
Status user_reader_read(UserReader *reader, uint64_t position, Str *text, Str *place,
                        UserRecord *ret, Error *err);

/* "next_batch of the reader csv (/lib/csv.so) of data.train" while its code runs; else false. Any
 * thread. */
bool user_reader_describe(const UserReader *reader, char *text, size_t size);

#endif
