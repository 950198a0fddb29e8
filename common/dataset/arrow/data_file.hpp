/* DataFile: how Arrow reads a data file: through the descriptor that the data set has opened it
 * with, never by its name, so that a file which is replaced or removed during a run is read on as
 * it was opened. What the system refuses is remembered, so that it is told from damage in the file.
 * Descriptors are borrowed. */
#ifndef TROUPE_DATASET_ARROW_DATA_FILE_HPP
#define TROUPE_DATASET_ARROW_DATA_FILE_HPP

#include <memory>
#include <string>

#include <arrow/api.h>
#include <arrow/io/api.h>

/* A file that is read piece by piece, into memory of `pool`; of one thread. */
std::shared_ptr<arrow::io::RandomAccessFile> open_pieces(int fd, arrow::MemoryPool *pool);
/* A file in memory, as the system maps it; of any thread. */
std::shared_ptr<arrow::io::RandomAccessFile> open_mapped(int fd);

/* What the system refused this thread since it was forgotten; "": nothing. */
const std::string &refused_by_system();
void forget_refusals();

#endif
