/* Data folder: which files a folder's data are, and in which order, as the package `datasets` (5.2)
 * finds them:
 *   - what its save_to_disk has written (state.json, dataset_dict.json)
 *   - what the folder's README.md says under `configs`
 *   - data/SPLIT-00000-of-00001.ENDING
 *   - folders, then files, of whose names a word is train, test or validation, or another for them
 *   - all data files, as the split `train`
 * A data file is told by its ending; folders and files whose names begin with a dot, and folders
 * that begin with two underscores, are passed over. Each file counts once. Any thread. */
#ifndef TROUPE_DATASET_DATA_FOLDER_H
#define TROUPE_DATASET_DATA_FOLDER_H

#include "base/data_path.h"
#include "base/error.h"
#include "base/str.h"

/* Appends the paths of the files. `key` is that of job.yaml: where no split is named, data.train
 * takes `train`, others take `validation`, or else `test`. Errors name the splits and
 * configurations that there are. */
Status data_folder_files(const DataPath *folder, const char *key, StringList *ret, Error *err);

#endif
