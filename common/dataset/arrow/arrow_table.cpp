/* TableLibrary over Apache Arrow: Parquet, and Arrow's IPC files and streams. Nothing that C++
 * throws leaves this file. */
#include "dataset/table_library.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <arrow/api.h>
#include <arrow/io/api.h>
#include <arrow/ipc/api.h>
#include <arrow/util/compression.h>
#include <arrow/util/utf8.h>
#include <parquet/api/reader.h>
#include <parquet/arrow/reader.h>

#include "json_rows.hpp"
#include "kept_pool.hpp"

#define STREAM_BYTES (1 << 20)    /* read at a time of a column of a large row group */
#define LARGE_GROUP  (64 << 20)   /* bytes: those beyond are read in such steps, not whole */
#define ROW_GUESSED  (1 << 20)    /* bytes of JSON: most that a row's are guessed at */
#define ROWS_BYTES   (512u << 20) /* of JSON that one read may give */

using arrow::RecordBatch;
using BatchPointer = std::shared_ptr<RecordBatch>;

static void require(const arrow::Status &status)
{
    if (!status.ok()) throw BadTable{status.message()};
}

template <typename Value> static Value take(arrow::Result<Value> result)
{
    require(result.status());
    return std::move(result).ValueUnsafe();
}

/* Calls `work`; what it throws becomes the message. */
template <typename Work> static bool guarded(char *message, Work work)
{
    std::string text;
    try {
        work();
        return true;
    } catch (const BadTable &bad) {
        text = bad.message;
    } catch (const std::exception &error) {
        text = error.what();
    } catch (...) {
        text = "an unknown failure";
    }
    for (char &byte : text)
        if (byte == '\n' || byte == '\r') byte = ' ';
    snprintf(message, TABLE_MESSAGE_BYTES, "%s", text.c_str());
    return false;
}

/* ---- files ---- */

struct TableHandle {
    virtual ~TableHandle() = default;
    /* The batches of one group, from its first row on; an end is a null pointer. */
    virtual std::unique_ptr<arrow::RecordBatchReader> batches(uint64_t group,
                                                              uint64_t step_rows) const = 0;
    std::string path;
    std::vector<TableGroup> groups;
    std::shared_ptr<arrow::Schema> schema;
};

struct TableReader {
    TableReader(const arrow::Schema &schema) : rows(schema)
    {
    }
    bool next_batch();

    std::unique_ptr<arrow::RecordBatchReader> batches;
    JsonRows rows;
    BatchPointer batch;   /* bound to `rows` */
    int64_t at = 0;       /* in the batch */
    size_t row_bytes = 0; /* of JSON, about, as the rows before had them */
};

/* ---- Parquet ---- */

struct ParquetHandle : TableHandle {
    std::shared_ptr<parquet::FileMetaData> metadata;
    std::unique_ptr<arrow::RecordBatchReader> batches(uint64_t group,
                                                      uint64_t step_rows) const override;
};

/* A RecordBatchReader of a file that it keeps open. */
struct OwningReader : arrow::RecordBatchReader {
    std::unique_ptr<parquet::arrow::FileReader> file;
    std::unique_ptr<arrow::RecordBatchReader> batches;
    std::shared_ptr<arrow::Schema> schema() const override
    {
        return batches->schema();
    }
    arrow::Status ReadNext(BatchPointer *batch) override
    {
        return batches->ReadNext(batch);
    }
};

static std::unique_ptr<parquet::arrow::FileReader>
open_parquet(const std::string &path, bool large, int64_t step_rows,
             std::shared_ptr<parquet::FileMetaData> metadata)
{
    parquet::ReaderProperties properties(kept_pool());
    properties.set_page_checksum_verification(true);
    if (large) {
        properties.enable_buffered_stream();
        properties.set_buffer_size(STREAM_BYTES);
    }
    parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
    arrow_properties.set_pre_buffer(false);
    arrow_properties.set_arrow_extensions_enabled(true); /* a JSON column is told as one */
    if (step_rows > 0) arrow_properties.set_batch_size(step_rows);
    std::shared_ptr<arrow::io::ReadableFile> input =
        take(arrow::io::ReadableFile::Open(path, kept_pool()));
    std::unique_ptr<parquet::ParquetFileReader> reader =
        parquet::ParquetFileReader::Open(input, properties, std::move(metadata));
    return take(parquet::arrow::FileReader::Make(kept_pool(), std::move(reader), arrow_properties));
}

static std::unique_ptr<TableHandle> open_parquet_table(const char *path)
{
    auto handle = std::make_unique<ParquetHandle>();
    auto file = open_parquet(path, false, 0, nullptr);
    require(file->GetSchema(&handle->schema));
    handle->metadata = file->parquet_reader()->metadata();
    for (int i = 0; i < handle->metadata->num_row_groups(); i++) {
        auto group = handle->metadata->RowGroup(i);
        if (group->num_rows() < 0) throw BadTable{"a row group has a negative number of rows"};
        int64_t bytes = group->total_byte_size() > 0 ? group->total_byte_size() : 0;
        handle->groups.push_back({static_cast<uint64_t>(group->num_rows()),
                                  static_cast<uint64_t>(bytes), static_cast<uint64_t>(i)});
    }
    return handle;
}

std::unique_ptr<arrow::RecordBatchReader> ParquetHandle::batches(uint64_t group,
                                                                 uint64_t step_rows) const
{
    auto reader = std::make_unique<OwningReader>();
    reader->file = open_parquet(path, groups[group].bytes > LARGE_GROUP,
                                static_cast<int64_t>(step_rows), metadata);
    reader->batches = take(reader->file->GetRecordBatchReader({static_cast<int>(group)}));
    return reader;
}

/* ---- Arrow IPC ---- */

/* Of a mapped file: what is not compressed is never copied, so a batch costs what is read of it. */
struct IpcHandle : TableHandle {
    std::shared_ptr<arrow::io::MemoryMappedFile> map;
    std::shared_ptr<arrow::ipc::RecordBatchFileReader> file; /* of the file format */
    mutable std::mutex file_lock;
    std::vector<BatchPointer> kept; /* all batches of a stream that has dictionaries */
    BatchPointer read_batch(uint64_t group) const;
    BatchPointer read_stream_batch(uint64_t group) const;
    std::unique_ptr<arrow::RecordBatchReader> batches(uint64_t group,
                                                      uint64_t step_rows) const override;
};

/* One batch, handed out whole. */
struct SingleReader : arrow::RecordBatchReader {
    BatchPointer batch;
    std::shared_ptr<arrow::Schema> kept_schema;
    std::shared_ptr<arrow::Schema> schema() const override
    {
        return kept_schema;
    }
    arrow::Status ReadNext(BatchPointer *ret) override
    {
        *ret = std::move(batch);
        batch = nullptr;
        return arrow::Status::OK();
    }
};

/* The schema's own dictionaries come in messages between the batches. */
static bool has_dictionary(const arrow::DataType &type)
{
    if (type.id() == arrow::Type::DICTIONARY) return true;
    if (type.id() == arrow::Type::EXTENSION)
        return has_dictionary(*static_cast<const arrow::ExtensionType &>(type).storage_type());
    for (const std::shared_ptr<arrow::Field> &field : type.fields())
        if (has_dictionary(*field->type())) return true;
    return false;
}

static bool has_dictionary(const arrow::Schema &schema)
{
    for (const std::shared_ptr<arrow::Field> &field : schema.fields())
        if (has_dictionary(*field->type())) return true;
    return false;
}

static arrow::ipc::IpcReadOptions read_options()
{
    arrow::ipc::IpcReadOptions options = arrow::ipc::IpcReadOptions::Defaults();
    options.use_threads = false;
    return options;
}

static void add_group(IpcHandle &handle, const RecordBatch &batch, int64_t begin, int64_t end)
{
    handle.groups.push_back({static_cast<uint64_t>(batch.num_rows()),
                             static_cast<uint64_t>(end - begin), static_cast<uint64_t>(begin)});
}

static void find_stream_batches(IpcHandle &handle, bool known)
{
    auto reader = take(arrow::ipc::RecordBatchStreamReader::Open(handle.map.get(), read_options()));
    handle.schema = reader->schema();
    bool keep = has_dictionary(*handle.schema);
    if (known && !keep) return;
    handle.groups.clear();
    for (;;) {
        int64_t begin = take(handle.map->Tell());
        BatchPointer batch;
        require(reader->ReadNext(&batch));
        if (batch == nullptr) break;
        add_group(handle, *batch, begin, take(handle.map->Tell()));
        if (keep) handle.kept.push_back(batch);
    }
}

static void find_file_batches(IpcHandle &handle, bool known)
{
    handle.file = take(arrow::ipc::RecordBatchFileReader::Open(handle.map.get(), read_options()));
    handle.schema = handle.file->schema();
    int count = handle.file->num_record_batches();
    int64_t bytes = take(handle.map->GetSize());
    for (int i = 0; i < count && !known; i++) {
        BatchPointer batch = take(handle.file->ReadRecordBatch(i));
        add_group(handle, *batch, 0, bytes / count);
    }
}

static std::unique_ptr<TableHandle> open_ipc_table(const char *path, TableKind kind,
                                                   const TableGroup *groups, uint64_t num_groups)
{
    auto handle = std::make_unique<IpcHandle>();
    handle->map = take(arrow::io::MemoryMappedFile::Open(path, arrow::io::FileMode::READ));
    if (groups != nullptr) handle->groups.assign(groups, groups + num_groups);
    if (kind == TABLE_ARROW_FILE)
        find_file_batches(*handle, groups != nullptr);
    else
        find_stream_batches(*handle, groups != nullptr);
    return handle;
}

BatchPointer IpcHandle::read_stream_batch(uint64_t group) const
{
    if (!kept.empty()) return kept[group];
    const TableGroup &place = groups[group];
    std::shared_ptr<arrow::Buffer> bytes =
        take(map->ReadAt(static_cast<int64_t>(place.position), static_cast<int64_t>(place.bytes)));
    arrow::io::BufferReader input(bytes);
    std::unique_ptr<arrow::ipc::Message> message = take(arrow::ipc::ReadMessage(&input));
    if (message == nullptr) throw BadTable{"a record batch is missing"};
    return take(arrow::ipc::ReadRecordBatch(*message, schema, nullptr, read_options()));
}

BatchPointer IpcHandle::read_batch(uint64_t group) const
{
    BatchPointer batch;
    if (file == nullptr) {
        batch = read_stream_batch(group);
    } else {
        std::lock_guard<std::mutex> lock(file_lock);
        batch = take(file->ReadRecordBatch(static_cast<int>(group)));
    }
    require(batch->Validate());
    if (static_cast<uint64_t>(batch->num_rows()) != groups[group].rows)
        throw BadTable{"a record batch has another number of rows than before"};
    return batch;
}

std::unique_ptr<arrow::RecordBatchReader> IpcHandle::batches(uint64_t group, uint64_t) const
{
    auto reader = std::make_unique<SingleReader>();
    reader->batch = read_batch(group);
    reader->kept_schema = schema;
    return reader;
}

/* ---- readers ---- */

/* The next batch that has rows; false at the end. */
bool TableReader::next_batch()
{
    do {
        BatchPointer next;
        require(batches->ReadNext(&next));
        batch = next;
        at = 0;
        if (batch == nullptr) return false;
    } while (batch->num_rows() == 0);
    return true;
}

static int64_t rows_at_hand(TableReader &reader)
{
    if (reader.batch == nullptr || reader.at == reader.batch->num_rows()) {
        if (!reader.next_batch()) throw BadTable{"there are fewer rows than the file says"};
        reader.rows.bind(*reader.batch);
    }
    return reader.batch->num_rows() - reader.at;
}

static void skip_rows(TableReader &reader, uint64_t rows)
{
    while (rows > 0) {
        uint64_t here = static_cast<uint64_t>(rows_at_hand(reader));
        uint64_t step = here < rows ? here : rows;
        reader.at += static_cast<int64_t>(step);
        rows -= step;
    }
}

static void read_rows(TableReader &reader, uint64_t rows, JsonText &text)
{
    size_t head = offsetof(TableRows, offset) + (rows + 1) * sizeof(uint64_t);
    text.reserve(head + rows * reader.row_bytes * 9 / 8);
    text.length = head;
    for (uint64_t i = 0; i < rows; i++) {
        rows_at_hand(reader);
        uint64_t begin = text.length;
        memcpy(text.data + offsetof(TableRows, offset) + i * sizeof begin, &begin, sizeof begin);
        reader.rows.write(reader.at++, text);
        if (text.length > ROWS_BYTES)
            throw BadTable{"rows of more than 512 MB stand together; write the file with smaller "
                           "row groups"};
    }
    if (rows > 0) reader.row_bytes = (text.length - head) / rows;
    text.put('\0');
    TableRows *table = reinterpret_cast<TableRows *>(text.data);
    table->rows = rows;
    table->offset[rows] = text.length - 1;
}

/* ---- the table of functions ---- */

static bool table_open(const char *path, TableKind kind, const TableGroup *groups,
                       uint64_t num_groups, TableHandle **ret, char *message)
{
    return guarded(message, [&] {
        arrow::util::InitializeUTF8();
        std::unique_ptr<TableHandle> handle = kind == TABLE_PARQUET
                                                  ? open_parquet_table(path)
                                                  : open_ipc_table(path, kind, groups, num_groups);
        handle->path = path;
        JsonRows check(*handle->schema); /* refuses what cannot be written */
        *ret = handle.release();
    });
}

static const TableGroup *table_groups(const TableHandle *handle, uint64_t *ret_count)
{
    *ret_count = handle->groups.size();
    return handle->groups.data();
}

static void table_close(TableHandle *handle)
{
    delete handle;
}

static bool table_open_reader(const TableHandle *handle, uint64_t group, uint64_t step_rows,
                              TableReader **ret, char *message)
{
    return guarded(message, [&] {
        auto reader = std::make_unique<TableReader>(*handle->schema);
        reader->batches = handle->batches(group, step_rows);
        const TableGroup &place = handle->groups[group];
        reader->row_bytes = std::min<uint64_t>(place.bytes / (place.rows + 1), ROW_GUESSED);
        *ret = reader.release();
    });
}

static bool table_skip(TableReader *reader, uint64_t rows, char *message)
{
    return guarded(message, [&] { skip_rows(*reader, rows); });
}

static bool table_read(TableReader *reader, uint64_t rows, TableRows **ret, size_t *ret_bytes,
                       char *message)
{
    return guarded(message, [&] {
        JsonText text;
        text.data = reinterpret_cast<char *>(*ret);
        text.capacity = *ret != nullptr ? *ret_bytes : 0;
        *ret = nullptr;
        read_rows(*reader, rows, text);
        *ret_bytes = text.length;
        *ret = reinterpret_cast<TableRows *>(text.take());
    });
}

static void table_close_reader(TableReader *reader)
{
    delete reader;
}

/* ---- small pieces ---- */

/* LZ4's blocks, which have no state; NULL where Arrow was built without. */
static arrow::util::Codec *piece_codec()
{
    static const std::unique_ptr<arrow::util::Codec> codec =
        arrow::util::Codec::Create(arrow::Compression::LZ4).ValueOr(nullptr);
    return codec.get();
}

static size_t table_pack_bound(size_t bytes)
{
    if (piece_codec() == nullptr) return 0;
    return static_cast<size_t>(
        piece_codec()->MaxCompressedLen(static_cast<int64_t>(bytes), nullptr));
}

static size_t table_pack(const void *bytes, size_t length, void *out, size_t bound)
{
    if (length > INT32_MAX || bound > INT32_MAX) return 0;
    return static_cast<size_t>(
        piece_codec()
            ->Compress(static_cast<int64_t>(length), static_cast<const uint8_t *>(bytes),
                       static_cast<int64_t>(bound), static_cast<uint8_t *>(out))
            .ValueOr(0));
}

static bool table_unpack(const void *packed, size_t packed_length, void *bytes, size_t length)
{
    if (length > INT32_MAX || packed_length > INT32_MAX || piece_codec() == nullptr) return false;
    int64_t found =
        piece_codec()
            ->Decompress(static_cast<int64_t>(packed_length), static_cast<const uint8_t *>(packed),
                         static_cast<int64_t>(length), static_cast<uint8_t *>(bytes))
            .ValueOr(-1);
    return found == static_cast<int64_t>(length);
}

__attribute__((visibility("default"))) const TableLibrary *troupe_table_library(void)
{
    static const TableLibrary library = {
        TABLE_LIBRARY_VERSION, ARROW_VERSION_STRING, table_open, table_groups,
        table_close,           table_open_reader,    table_skip, table_read,
        table_close_reader,    table_pack_bound,     table_pack, table_unpack};
    return &library;
}
