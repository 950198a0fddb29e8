/* How Apache Arrow comes to a data file: the library of tables (table_library.h) is found and
 * loaded, and reads what the file pool has open. Any thread. */
#ifndef TROUPE_DATASET_TABLE_INPUT_H
#define TROUPE_DATASET_TABLE_INPUT_H

#include "base/error.h"
#include "dataset/file_pool.h"
#include "dataset/table_library.h"

/* Looked for in the folder lib next to that of the program or, if it is not there, where the system
 * looks; stays loaded. ERR_UNSUPPORTED, with the path of the file that needs it, and `what` that
 * is: there is none. */
Status table_library_load(const char *path, const char *what, const TableLibrary **ret, Error *err);

/* Borrows the file. */
TableInput table_input(DataFile *file);

#endif
