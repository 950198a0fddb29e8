#include "row_jump.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include <arrow/util/config.h>
#include <arrow/util/crc32.h>
#include <parquet/column_page.h>

#include "page_head.hpp"

#define LOOK_BYTES  (16 << 10) /* read of a page at first: its head and its levels, mostly */
#define HEAD_BYTES  (16 << 20) /* that Arrow takes a head to be, at most */
#define FRONT_BYTES (4 << 10)  /* decompressed of a page at first */
#define EMPTY_BYTES (64 << 20) /* of the values of a hollow page, at most */
#define LEVELS      1024

using parquet::Encoding;

/* A stretch of a page. */
struct Levels {
    const uint8_t *bytes = nullptr;
    size_t length = 0;
};

/* What is at hand of a page. */
struct PageFront {
    PageHead head;
    std::vector<uint8_t> packed; /* with the head, as far as it was read */
    std::vector<uint8_t> text;   /* how it begins, decompressed */
    Levels repetition, definition;
};

/* Zeros that are empty values in the encoding PLAIN. */
static int64_t empty_bytes(const parquet::ColumnDescriptor &column, int64_t values)
{
    switch (column.physical_type()) {
    case parquet::Type::BOOLEAN:
        return (values + 7) / 8;
    case parquet::Type::INT64:
    case parquet::Type::DOUBLE:
        return values * 8;
    case parquet::Type::INT96:
        return values * 12;
    case parquet::Type::FIXED_LEN_BYTE_ARRAY:
        return values * column.type_length();
    default: /* 32 bits; of a text its length */
        return values * 4;
    }
}

/* Levels with their length in front, from *at on; false: more of the page is needed, *ret_needed
 * bytes. */
static bool cut_levels(const std::vector<uint8_t> &text, size_t &at, Levels &ret,
                       size_t &ret_needed)
{
    uint32_t length = 0;
    ret_needed = at + sizeof length;
    if (text.size() < ret_needed) return false;
    memcpy(&length, text.data() + at, sizeof length);
    ret_needed += length;
    if (text.size() < ret_needed) return false;
    ret = {text.data() + at + sizeof length, length};
    at = ret_needed;
    return true;
}

static void put_levels(const Levels &levels, uint8_t *&out)
{
    uint32_t length = static_cast<uint32_t>(levels.length);
    memcpy(out, &length, sizeof length);
    if (length > 0) memcpy(out + sizeof length, levels.bytes, length);
    out += sizeof length + length;
}

/* The pages of a column of a row group. */
class JumpingPages : public parquet::PageReader
{
  public:
    struct Place {
        std::shared_ptr<arrow::io::RandomAccessFile> source;
        parquet::ReaderProperties properties;
        const parquet::ColumnDescriptor *column;
        parquet::Compression::type codec;
        int64_t begin, end; /* of the file */
        int64_t values;
        int64_t row; /* that is wanted */
    };
    explicit JumpingPages(Place from) : place(std::move(from)), at(place.begin)
    {
    }
    std::shared_ptr<parquet::Page> NextPage() override;
    void set_max_page_header_size(uint32_t size) override
    {
        head_bytes_max = size;
    }

  private:
    std::shared_ptr<parquet::Page> next_hollow();
    void open_pages(int64_t end, int64_t values);
    void read_packed(PageFront &front, size_t bytes) const;
    bool find_head(PageFront &front) const;
    bool find_levels(PageFront &front) const;
    bool find_packed_levels(PageFront &front) const;
    bool is_as_written(PageFront &front) const;
    bool is_before(PageFront &front, int64_t &ret_rows) const;
    std::shared_ptr<parquet::Page> make_hollow(const PageFront &front) const;

    Place place;
    int64_t at;                   /* of the next page, while none is read by Arrow */
    int64_t rows = 0, values = 0; /* of those before it */
    uint32_t head_bytes_max = 0;
    std::unique_ptr<parquet::PageReader> pages; /* the dictionary, or the pages from `at` on */
    bool passed = false;
};

void JumpingPages::open_pages(int64_t end, int64_t count)
{
    auto stream = place.properties.GetStream(place.source, at, end - at);
#if ARROW_VERSION_MAJOR >= 25
    pages = parquet::PageReader::Open(stream, count, place.codec, place.properties, *place.column);
#else
    pages = parquet::PageReader::Open(stream, count, place.codec, place.properties);
#endif
    if (head_bytes_max > 0) pages->set_max_page_header_size(head_bytes_max);
}

/* Makes `bytes` of the page be at hand, if the column has them. */
void JumpingPages::read_packed(PageFront &front, size_t bytes) const
{
    size_t there = front.packed.size();
    bytes = std::min(bytes, static_cast<size_t>(place.end - at));
    if (bytes <= there) return;
    front.packed.resize(bytes);
    int64_t got = 0, wanted = static_cast<int64_t>(bytes - there);
    PARQUET_ASSIGN_OR_THROW(got, place.source->ReadAt(at + static_cast<int64_t>(there), wanted,
                                                      front.packed.data() + there));
    front.packed.resize(there + static_cast<size_t>(got));
}

/* Of a page that the column has room for. */
bool JumpingPages::find_head(PageFront &front) const
{
    for (size_t bytes = LOOK_BYTES; bytes <= HEAD_BYTES; bytes *= 8) {
        read_packed(front, bytes);
        if (parse_page_head(front.packed.data(), front.packed.size(), front.head)) {
            int64_t left = place.end - at - static_cast<int64_t>(front.head.head_bytes);
            return front.head.packed_bytes <= left;
        }
        if (front.packed.size() < bytes) return false;
    }
    return false;
}

/* Of a page of the first version they stand in front of its values, compressed with these. */
bool JumpingPages::find_packed_levels(PageFront &front) const
{
    const PageHead &head = front.head;
    int16_t lists = place.column->max_repetition_level();
    if (lists > 0 && head.repetition_encoding != Encoding::RLE) return false;
    if (head.definition_encoding != Encoding::RLE) return false;
    size_t most = static_cast<size_t>(head.bytes), needed = std::min<size_t>(FRONT_BYTES, most);
    bool all_read = false;
    for (;;) {
        size_t packed =
            std::min(front.packed.size() - head.head_bytes, static_cast<size_t>(head.packed_bytes));
        front.text.resize(needed);
        front.text.resize(unpack_front(place.codec, front.packed.data() + head.head_bytes, packed,
                                       front.text.data(), needed));
        size_t from = 0, wanted = 0;
        if ((lists == 0 || cut_levels(front.text, from, front.repetition, wanted)) &&
            cut_levels(front.text, from, front.definition, wanted))
            return true;
        bool short_of_bytes = front.text.size() < needed;
        if (short_of_bytes && all_read) return false;
        if (short_of_bytes)
            read_packed(front, head.head_bytes + static_cast<size_t>(head.packed_bytes));
        all_read = all_read || short_of_bytes;
        needed = std::max(wanted, needed);
        if (needed > most) return false;
    }
}

bool JumpingPages::find_levels(PageFront &front) const
{
    const PageHead &head = front.head;
    if (place.column->max_definition_level() == 0) return true;
    if (head.kind == PAGE_DATA) return find_packed_levels(front);
    int64_t lengths = static_cast<int64_t>(head.repetition_bytes) + head.definition_bytes;
    if (head.repetition_bytes < 0 || head.definition_bytes < 0 || lengths > head.packed_bytes)
        return false;
    size_t wanted = head.head_bytes + static_cast<size_t>(lengths);
    read_packed(front, wanted);
    if (front.packed.size() < wanted) return false;
    const uint8_t *begin = front.packed.data() + head.head_bytes;
    front.repetition = {begin, static_cast<size_t>(head.repetition_bytes)};
    front.definition = {begin + head.repetition_bytes, static_cast<size_t>(head.definition_bytes)};
    return true;
}

/* Levels of lists that are other than they were would put rows in other places. */
bool JumpingPages::is_as_written(PageFront &front) const
{
    size_t begin = front.head.head_bytes, bytes = static_cast<size_t>(front.head.packed_bytes);
    if (!front.head.checked) return true;
    read_packed(front, begin + bytes);
    return front.packed.size() >= begin + bytes &&
           arrow::internal::crc32(0, front.packed.data() + begin, bytes) == front.head.checksum;
}

/* Whether all of a page belongs to rows before the wanted one; and how many rows begin in it. */
bool JumpingPages::is_before(PageFront &front, int64_t &ret_rows) const
{
    const PageHead &head = front.head;
    int16_t lists = place.column->max_repetition_level();
    if (head.values <= 0 || head.values > place.values - values ||
        empty_bytes(*place.column, head.values) > EMPTY_BYTES)
        return false;
    ret_rows = head.values;
    if (lists == 0) return rows + ret_rows <= place.row && find_levels(front);
    if (rows >= place.row || !is_as_written(front) || !find_levels(front)) return false;
    parquet::LevelDecoder decoder;
    int16_t level[LEVELS];
    decoder.SetDataV2(static_cast<int32_t>(front.repetition.length), lists, head.values,
                      front.repetition.bytes);
    ret_rows = 0;
    for (int left = head.values; left > 0;) {
        int got = decoder.Decode(std::min(left, LEVELS), level);
        if (got <= 0) return false;
        for (int i = 0; i < got; i++)
            ret_rows += level[i] == 0;
        left -= got;
    }
    if (head.kind == PAGE_DATA_V2 && head.rows != ret_rows) return false;
    return rows + ret_rows <= place.row;
}

std::shared_ptr<parquet::Page> JumpingPages::make_hollow(const PageFront &front) const
{
    bool lists = place.column->max_repetition_level() > 0;
    bool levels = place.column->max_definition_level() > 0;
    int64_t length = empty_bytes(*place.column, front.head.values) +
                     static_cast<int64_t>(front.repetition.length + front.definition.length +
                                          2 * sizeof(uint32_t));
    std::shared_ptr<arrow::Buffer> buffer;
    PARQUET_ASSIGN_OR_THROW(buffer, arrow::AllocateBuffer(length, place.properties.memory_pool()));
    uint8_t *out = buffer->mutable_data();
    if (lists) put_levels(front.repetition, out);
    if (levels) put_levels(front.definition, out);
    memset(out, 0, static_cast<size_t>(buffer->data() + length - out));
    return std::make_shared<parquet::DataPageV1>(buffer, front.head.values, Encoding::PLAIN,
                                                 Encoding::RLE, Encoding::RLE, length);
}

/* NULL: what comes next is Arrow's. */
std::shared_ptr<parquet::Page> JumpingPages::next_hollow()
{
    PageFront front;
    int64_t count = 0;
    if (at >= place.end || !find_head(front)) return nullptr;
    const PageHead &head = front.head;
    int64_t next = at + static_cast<int64_t>(head.head_bytes) + head.packed_bytes;
    if (head.kind == PAGE_DICTIONARY && rows == 0) {
        open_pages(next, 1);
        at = next;
        return pages->NextPage();
    }
    if (head.kind != PAGE_DATA && head.kind != PAGE_DATA_V2) return nullptr;
    if (!is_before(front, count)) return nullptr;
    auto page = make_hollow(front);
    at = next;
    rows += count;
    values += head.values;
    return page;
}

std::shared_ptr<parquet::Page> JumpingPages::NextPage()
{
    if (!passed) {
        auto page = next_hollow();
        if (page != nullptr) return page;
        passed = true;
        open_pages(place.end, place.values - values);
    }
    return pages->NextPage();
}

/* ---- the file ---- */

struct JumpingGroup : parquet::RowGroupReader::Contents {
    std::unique_ptr<parquet::PageReader> GetColumnPageReader(int i) override;
    const parquet::RowGroupMetaData *metadata() const override
    {
        return plain->metadata();
    }
    const parquet::ReaderProperties *properties() const override
    {
        return &kept;
    }

    std::shared_ptr<parquet::RowGroupReader> plain;
    std::shared_ptr<parquet::FileMetaData> file;
    std::shared_ptr<arrow::io::RandomAccessFile> source;
    parquet::ReaderProperties kept;
    int64_t row = 0;
};

/* Columns that are encrypted, and those of writers that told their lengths wrong, are Arrow's. */
std::unique_ptr<parquet::PageReader> JumpingGroup::GetColumnPageReader(int i)
{
    using parquet::ApplicationVersion;
    auto column = metadata()->ColumnChunk(i);
    int64_t begin = column->data_page_offset(), dictionary = column->dictionary_page_offset();
    if (column->has_dictionary_page() && dictionary > 0) begin = std::min(begin, dictionary);
    int64_t size = 0, bytes = column->total_compressed_size();
    PARQUET_ASSIGN_OR_THROW(size, source->GetSize());
    const ApplicationVersion &writer = file->writer_version();
    bool odd = writer.VersionLt(ApplicationVersion::PARQUET_816_FIXED_VERSION()) ||
               writer.VersionLt(ApplicationVersion::PARQUET_CPP_10353_FIXED_VERSION());
    if (odd || column->crypto_metadata() != nullptr || begin < 0 || bytes < 0 || begin > size ||
        bytes > size - begin)
        return plain->GetColumnPageReader(i);
    return std::make_unique<JumpingPages>(
        JumpingPages::Place{source, kept, metadata()->schema()->Column(i), column->compression(),
                            begin, begin + bytes, column->num_values(), row});
}

struct JumpingFile : parquet::ParquetFileReader::Contents {
    void Close() override
    {
        plain->Close();
    }
    std::shared_ptr<parquet::RowGroupReader> GetRowGroup(int i) override;
    std::shared_ptr<parquet::FileMetaData> metadata() const override
    {
        return plain->metadata();
    }
    std::shared_ptr<parquet::PageIndexReader> GetPageIndexReader() override
    {
        return plain->GetPageIndexReader();
    }
    parquet::BloomFilterReader &GetBloomFilterReader() override
    {
        return plain->GetBloomFilterReader();
    }

    std::unique_ptr<parquet::ParquetFileReader::Contents> plain;
    std::shared_ptr<arrow::io::RandomAccessFile> source;
    parquet::ReaderProperties properties;
    int64_t row = 0;
};

std::shared_ptr<parquet::RowGroupReader> JumpingFile::GetRowGroup(int i)
{
    auto group = std::make_unique<JumpingGroup>();
    group->plain = plain->GetRowGroup(i);
    group->file = plain->metadata();
    group->source = source;
    group->kept = properties;
    group->row = row;
    return std::make_shared<parquet::RowGroupReader>(std::move(group));
}

std::unique_ptr<parquet::ParquetFileReader>
open_from_row(std::shared_ptr<arrow::io::RandomAccessFile> source,
              const parquet::ReaderProperties &properties,
              std::shared_ptr<parquet::FileMetaData> metadata, int64_t row)
{
    auto contents = std::make_unique<JumpingFile>();
    contents->plain =
        parquet::ParquetFileReader::Contents::Open(source, properties, std::move(metadata));
    contents->source = std::move(source);
    contents->properties = properties;
    contents->row = row;
    auto reader = std::make_unique<parquet::ParquetFileReader>();
    reader->Open(std::move(contents));
    return reader;
}
