/* RowJump: a Parquet file of which the rows before a given one are not decoded. Arrow reads a row
 * group from its first row on; here it is handed, in place of the pages that lie wholly before that
 * row, hollow ones: with the structure of their rows (the levels, which stand in front of a page
 * and are all of it that is decompressed), and with values that are empty. So all columns stay side
 * by side, however their pages are cut and their lists are nested, and from the wanted row on Arrow
 * sees the pages of the file as they are. No index of pages is needed. A page that cannot be made
 * hollow is left to Arrow, with all behind it.
 *
 * What a hollow page's checksum would tell is not asked for where the page has no lists: only the
 * number of its rows counts then, which stands in its head. */
#ifndef TROUPE_DATASET_ARROW_ROW_JUMP_HPP
#define TROUPE_DATASET_ARROW_ROW_JUMP_HPP

#include <memory>

#include <arrow/io/api.h>
#include <parquet/api/reader.h>

/* `row` counts from the first one of whichever row group is read. Throws what Arrow throws. */
std::unique_ptr<parquet::ParquetFileReader>
open_from_row(std::shared_ptr<arrow::io::RandomAccessFile> source,
              const parquet::ReaderProperties &properties,
              std::shared_ptr<parquet::FileMetaData> metadata, int64_t row);

#endif
