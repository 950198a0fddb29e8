/* Stream: the endless sequence of records that a run consumes. Position p is one record, whoever
 * asks, in whatever order positions are asked for, and however often: nothing but the position has
 * to be kept for a run to go on where it was. A stream is a data set (dataset.h) and an order of
 * its records for each epoch: that of the files; a permutation of all records (shuffle.h); one of
 * windows of the files (window.h); or that of the package `datasets` (hf_order.h).
 *
 * A Stream is const once opened and may be used by any number of threads; a StreamReader by one. */
#ifndef TROUPE_DATASET_STREAM_H
#define TROUPE_DATASET_STREAM_H

#include "base/data_order.h"
#include "dataset/dataset.h"

typedef struct StreamOptions {
    const char *key;         /* of job.yaml, for messages: "data.train" */
    const char *const *path; /* [num_paths] entries, as of DatasetOptions */
    int num_paths;
    const char *index_folder; /* as of DatasetOptions */
    bool index_read_only;
    uint64_t records_max; /* as of DatasetOptions: only stream_dataset may be read then */
    size_t cache_max;     /* as of DatasetOptions; more in the order `window`, if that takes more */
    DataOrder order;
    uint64_t seed;
    FilePool *pool; /* as of DatasetOptions, as are the next two */
    IndexFolder *folder;
    const DatasetHub *hub;
    ReadWatch *watch; /* NULL: nobody watches */
} StreamOptions;

typedef struct Stream Stream;
typedef struct StreamReader StreamReader;

/* Opens and indexes all files, as dataset_open does; in the order `window` the files are indexed by
 * and by, on threads of the stream. Options are not kept, but for `watch`. */
Status stream_open(const StreamOptions *options, Stream **ret, Error *err);
void stream_close(Stream *stream); /* accepts NULL; its readers are closed */

/* Records of one epoch, before any is rejected; 0: not all files are indexed yet. */
uint64_t stream_records(const Stream *stream);
/* The same, waiting for the index. */
Status stream_count(const Stream *stream, uint64_t *ret_records, Error *err);
/* Memory that the window which is being read takes, decoded; 0: nothing of it has to be held. With
 * records_max it is what the job's windows take at most, however little data there is. */
uint64_t stream_window_bytes(const Stream *stream);
/* What its records are taken from; borrowed. */
const Dataset *stream_dataset(const Stream *stream);
/* dataset_fingerprint, in this order. Not with records_max. */
void stream_fingerprint(const Stream *stream, char ret[DIGEST_HEX_BYTES]);
/* Of order and seed, and of each file's name and number of records, whatever these say: it is the
 * same when a line was mended. In the order `window`, which hangs on bytes, as stream_fingerprint.
 */
void stream_order_fingerprint(const Stream *stream, char ret[DIGEST_HEX_BYTES]);

/* For positions that mostly ascend, which is the quickest; any will do. */
StreamReader *stream_reader_open(const Stream *stream);
void stream_reader_close(StreamReader *reader); /* accepts NULL */

/* Which record stands at a position. */
typedef struct StreamPlace {
    uint64_t epoch; /* from 0 */
    uint64_t block; /* in the order `window`: of the data set; else 0 */
    uint64_t index; /* of the block, or of the data set, in the order of the files */
} StreamPlace;

/* In the order `window` this waits for the index as far as the position takes it. What fails is the
 * data set, never one record. */
Status stream_place(StreamReader *reader, uint64_t position, StreamPlace *ret, Error *err);

/* Where among all records of the data set, in the order of the files, a place is; in the order
 * `window` this waits for the whole index. */
Status stream_index(StreamReader *reader, const StreamPlace *place, uint64_t *ret, Error *err);

/* A record of the stream. */
typedef struct StreamRecord {
    StreamPlace place;
    RecordSource source;
    bool bad; /* it is this record that cannot be read, others can; place and source are set */
} StreamRecord;

/* Appends the text of the record at a position to *text. A failure is the data set's unless
 * ret->bad says otherwise, which is set whatever happens. */
Status stream_read(StreamReader *reader, uint64_t position, Str *text, StreamRecord *ret,
                   Error *err);

#endif
