/* Data folder: which files a folder's data are, or a repository's, and in which order, as the
 * package `datasets` (5.2) finds them:
 *   - what its save_to_disk has written (state.json, dataset_dict.json)
 *   - what the folder's README.md says under `configs`
 *   - data/SPLIT-00000-of-00001.ENDING
 *   - folders, then files, of whose names a word is train, test or validation, or another for them
 *   - all data files, as the split `train`
 * A data file is told by its ending; folders and files whose names begin with a dot, and folders
 * that begin with two underscores, are passed over. Each file counts once. Any thread. */
#ifndef TROUPE_DATASET_DATA_FOLDER_H
#define TROUPE_DATASET_DATA_FOLDER_H

#include <stdbool.h>

#include "base/data_path.h"
#include "base/error.h"
#include "base/str.h"

/* Where the files are: a folder of this machine, or a repository of which only what is needed is
 * fetched. Names are relative to it, with '/' between folders. */
typedef struct FolderSource {
    const char *label; /* for messages, as data.train names it */
    /* The names of all files, whatever they are, in any order; no more than are wanted when it has
     * more than DATASET_FILES_MAX data files. */
    Status (*list)(void *context, StringList *ret, Error *err);
    /* The path of a small file on this machine, owned. ERR_NOT_FOUND: there is none. */
    Status (*get)(void *context, const char *name, char **ret_path, Error *err);
    void *context;
} FolderSource;

/* Appends the names of the files, and says which data they are, for people: "train", or with its
 * configuration "main/train"; owned; NULL where only one kind is there. `key` is that of job.yaml:
 * where no split is named, data.train and sources take `train`, others take `validation`, or else
 * `test`. Errors name the splits and configurations that there are. Of `wanted` only config and
 * split are looked at. */
Status data_folder_find(const FolderSource *source, const DataPath *wanted, const char *key,
                        StringList *ret, char **ret_split, Error *err);

/* Of a folder of this machine: its path is wanted->path, and paths are appended. */
Status data_folder_files(const DataPath *wanted, const char *key, StringList *ret, char **ret_split,
                         Error *err);

#endif
