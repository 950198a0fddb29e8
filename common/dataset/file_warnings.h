/* What is hardly meant about the files of a data set that are all there and can be read. */
#ifndef TROUPE_DATASET_FILE_WARNINGS_H
#define TROUPE_DATASET_FILE_WARNINGS_H

#include "dataset/dataset_internal.h"

/* Appends to dataset->entries a line that begins with "warning: " for files without a record (by
 * blocks, where records are not counted, without a byte), and one for files that are there with
 * and without compression. */
void file_warnings_add(Dataset *dataset, const char *key);

#endif
