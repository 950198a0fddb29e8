/* DataPath: how an entry of data.train is written: a file, a glob, a folder or a name of the
 * Hugging Face Hub (hub_name.h, the spelling that begins with hf://); of the latter two perhaps
 * which data of it, `FOLDER@SPLIT` or `FOLDER@CONFIG/SPLIT`; behind it perhaps a range of records
 * as Python slices a list, `PATH@[10:-5]`. A path that is there is meant literally, whatever
 * characters it has. Any thread. */
#ifndef TROUPE_BASE_DATA_PATH_H
#define TROUPE_BASE_DATA_PATH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hub_name.h"

typedef struct DataPath {
    char *path;           /* of a name of the Hub, that in the repository; "" for all of it */
    HubName hub;          /* its `repo` is NULL where the path is one of this machine */
    char *config, *split; /* NULL when not said */
    bool sliced;
    int64_t begin; /* negative: from the end */
    int64_t end;   /* INT64_MAX: to the end */
} DataPath;

/* "s3://bucket/x" and "https://...": neither a path nor a name of the Hub. */
bool data_path_is_address(const char *text);

DataPath data_path_parse(const char *text);
void data_path_free(DataPath *path);

/* The records [*ret_begin, *ret_end) of `records` that a slice leaves. */
void data_path_slice(const DataPath *path, uint64_t records, uint64_t *ret_begin,
                     uint64_t *ret_end);

#endif
