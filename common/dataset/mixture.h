/* Mixture: the endless stream of records that a run consumes, taken from one source or from several
 * that take turns by their weights (interleave.h). A source is a data set and an order of its
 * records (stream.h), or what a reader of the user's reads (user_reader.h); each goes on endlessly,
 * pass after pass, on its own account. Position p of the mixture is always the same record of the
 * same source: nothing but the position has to be kept.
 *
 * A mixture of one is that source: the same stream, the same fingerprint. A Mixture may be used by
 * any number of threads; a MixtureReader by one. */
#ifndef TROUPE_DATASET_MIXTURE_H
#define TROUPE_DATASET_MIXTURE_H

#include "dataset/interleave.h"
#include "dataset/stream.h"
#include "dataset/user_reader.h"

typedef struct MixtureSource {
    const char *name; /* "train", "chat" */
    const char *key;  /* of job.yaml, for messages: "data.train", "data.sources.chat" */
    double weight;
    const char *const *path; /* [num_paths] entries, as of DatasetOptions */
    int num_paths;
    DataOrder order;            /* of a reader: anything but ORDER_FILES shuffles */
    const char *reader;         /* a shared object of the user's; NULL: none */
    const char *reader_options; /* JSON text of an object, or NULL */
} MixtureSource;

typedef struct MixtureOptions {
    const MixtureSource *source;
    int num_sources;
    EpochEnd epoch_end;
    const char *index_folder; /* as of DatasetOptions, as are the next two */
    bool index_read_only;
    uint64_t records_max; /* of each source */
    uint64_t seed;
    uint64_t memory_max; /* bytes that the windows of all sources may take; 0: half of what this
                          * machine has */
    FilePool *pool;      /* as of DatasetOptions, as are the next two */
    IndexFolder *folder;
    const DatasetHub *hub;
    ReadWatch *watch; /* NULL: nobody watches */
} MixtureOptions;

typedef struct Mixture Mixture;
typedef struct MixtureReader MixtureReader;

/* Opens all sources, one after the other; blocks for as long as indexing their files takes. Options
 * are not kept. ERR_INVALID where a share is too small to be one; ERR_RESOURCE where their
 * windows take too much memory together. */
Status mixture_open(const MixtureOptions *options, Mixture **ret, Error *err);
/* Of one that was opened with records_max, and these options, whether without them its windows
 * would be refused; where that hangs on it, this looks how large their files are. */
Status mixture_check_windows(const Mixture *mixture, const MixtureOptions *options, Error *err);
void mixture_close(Mixture *mixture); /* accepts NULL; its readers are closed */

int mixture_num_sources(const Mixture *mixture);
const char *mixture_source_name(const Mixture *mixture, int source); /* borrowed */
/* Of one pass over a source, before any is rejected; 0: its reader does not know, or it is in the
 * order `window` and not counted yet. */
uint64_t mixture_source_records(const Mixture *mixture, int source);
/* What its records are taken from; NULL: a reader. Borrowed. */
const Dataset *mixture_source_dataset(const Mixture *mixture, int source);
/* The same of a reader; NULL: a data set. Borrowed. */
const UserReader *mixture_source_reader(const Mixture *mixture, int source);
/* In which order they take turns; borrowed. */
const Interleave *mixture_turns(const Mixture *mixture);

/* Of an epoch; 0: not known, or not yet. */
uint64_t mixture_records(const Mixture *mixture);
/* Waits until all records are counted that can be. */
Status mixture_count(const Mixture *mixture, Error *err);
/* Of all that determines the stream. Not with records_max. */
void mixture_fingerprint(const Mixture *mixture, char ret[DIGEST_HEX_BYTES]);
/* Of what determines which record a position stands for, by its number, and not what the record
 * says: of two mixtures with the same, a position stands for the same line of the same file. */
void mixture_order_fingerprint(const Mixture *mixture, char ret[DIGEST_HEX_BYTES]);

/* For positions that mostly ascend, which is the quickest; any will do. */
MixtureReader *mixture_reader_open(const Mixture *mixture);
void mixture_reader_close(MixtureReader *reader); /* accepts NULL */

typedef struct MixtureRecord {
    int source;
    uint64_t pass;     /* over the source, from 0 */
    uint64_t position; /* in the source's own stream */
    uint64_t block;    /* of its data set, in the order `window`; else 0 */
    uint64_t index;    /* of the block, or of its data set, in the order of the files; of a reader
                        * its position */
    bool bad;          /* this record cannot be read: *text is not it, but why */
    char at[RECORD_PLACE_BYTES]; /* record_source_place; of a reader "" */
} MixtureRecord;

/* Which record stands at a position, without reading it. Of a reader only source and position are
 * known. */
Status mixture_place(MixtureReader *reader, uint64_t position, MixtureRecord *ret, Error *err);

/* Appends the record at a position to *text, and where it stands ("a.jsonl:12") to *place. A
 * failure is not the record's, but of the whole source. */
Status mixture_read(MixtureReader *reader, uint64_t position, Str *text, Str *place,
                    MixtureRecord *ret, Error *err);
/* The same of a position of one source's own stream. */
Status mixture_read_source(MixtureReader *reader, int source, uint64_t position, Str *text,
                           Str *place, MixtureRecord *ret, Error *err);

/* The number of a record that was read, among all of its source in the order of the files; in the
 * order `window` this waits until they are counted. */
Status mixture_index(MixtureReader *reader, const MixtureRecord *record, uint64_t *ret, Error *err);

/* "next_batch of the reader csv of data.train" while code of the user's runs in some thread; else
 * false. */
bool mixture_describe(const Mixture *mixture, char *text, size_t size);

#endif
