/* Training sources: those of data.sources, in the order in which they are written, or else
 * data.train as the only one; each with what holds for it, whether it says so itself or another key
 * does. Pure; any thread. */
#ifndef TROUPE_CONFIG_SOURCE_SET_H
#define TROUPE_CONFIG_SOURCE_SET_H

#include "config/eval_set.h"

/* Borrowed from the configuration. */
typedef struct TrainSource {
    const char *name; /* "train" is data.train */
    const char *key;  /* "data.train", "data.sources.chat" */
    const StringList *path;
    double weight;
    int64_t repeat; /* passes at most; 0: any number */
    DataOrder order;
    const char *reader;         /* a shared object; NULL: files of the formats that are known */
    const char *reader_options; /* JSON text of an object, or NULL */
    RecordKeys record;
} TrainSource;

int train_source_count(const JobConfig *config); /* at least 1 */
TrainSource train_source(const JobConfig *config, int index);
/* Whether a source is read in the order `window`: a run may begin before its records are counted.
 */
bool train_is_counted_late(const JobConfig *config);
/* What is said where data.num_samples is not the number of records that were found; owned by the
 * caller. NULL: the job does not say one, or it is right. */
char *train_wrong_count(const JobConfig *config, int64_t records);
int train_source_find(const JobConfig *config, const char *name); /* -1: none */

#endif
