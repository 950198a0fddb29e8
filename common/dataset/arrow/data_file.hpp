/* DataFile: how Arrow reads a data file: through the functions of a TableInput (table_library.h).
 * What the system refuses is remembered, so that it is told from damage in the file. The input's
 * file is borrowed. */
#ifndef TROUPE_DATASET_ARROW_DATA_FILE_HPP
#define TROUPE_DATASET_ARROW_DATA_FILE_HPP

#include <memory>
#include <string>

#include <arrow/api.h>
#include <arrow/io/api.h>

#include "dataset/table_library.h"

/* A file that is read piece by piece, into memory of `pool`; of one thread. */
std::shared_ptr<arrow::io::RandomAccessFile> open_pieces(const TableInput &input,
                                                         arrow::MemoryPool *pool);
/* A file in memory, as the system maps it; of any thread. */
std::shared_ptr<arrow::io::RandomAccessFile> open_mapped(const TableInput &input);

/* What the system refused this thread since it was forgotten; "": nothing. */
const std::string &refused_by_system();
void forget_refusals();

#endif
