/* PageHead: what stands in front of a page of a Parquet column (PageHeader of parquet.thrift, in
 * Thrift's compact protocol), as far as it takes to pass over the page, which Arrow's readers of
 * rows do not. Nothing of a file is believed: what is no head is told. */
#ifndef TROUPE_DATASET_ARROW_PAGE_HEAD_HPP
#define TROUPE_DATASET_ARROW_PAGE_HEAD_HPP

#include <cstddef>
#include <cstdint>

#include <arrow/util/type_fwd.h>

enum PageKind { PAGE_DATA = 0, PAGE_INDEX = 1, PAGE_DICTIONARY = 2, PAGE_DATA_V2 = 3 };

struct PageHead {
    int32_t kind = -1;
    int32_t bytes = -1;        /* of the page, decompressed, ... */
    int32_t packed_bytes = -1; /* ... and as it stands behind the head */
    uint32_t checksum = 0;     /* CRC-32 of these, */
    bool checked = false;      /* if there is one */
    int32_t values = -1;
    int32_t repetition_encoding = -1, definition_encoding = -1; /* PAGE_DATA */
    int32_t rows = -1;                                          /* the others: PAGE_DATA_V2 */
    int32_t repetition_bytes = 0, definition_bytes = 0;
    size_t head_bytes = 0;
};

/* False: no whole head of a page stands there. */
bool parse_page_head(const uint8_t *bytes, size_t length, PageHead &ret);

/* Decompresses how a page begins: `size` bytes of it, or as many as `length` bytes of the page
 * give. Returns how many; 0 also for what is damaged and of codecs that have to be decompressed
 * whole. */
size_t unpack_front(arrow::Compression::type codec, const uint8_t *packed, size_t length,
                    uint8_t *out, size_t size);

#endif
