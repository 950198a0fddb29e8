/* TableLibrary over Apache Arrow: Parquet, and Arrow's IPC files and streams. Nothing that C++
 * throws leaves this file. */
#include "dataset/table_library.h"

#include <algorithm>
#include <cstring>
#include <list>
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

#include "data_file.hpp"
#include "json_rows.hpp"
#include "kept_pool.hpp"
#include "row_jump.hpp"

#define STREAM_BYTES (256 << 10) /* read at a time of a column of a large row group */
#define LARGE_GROUP  (16 << 20)  /* bytes: those beyond are read in such steps, not whole */
#define ROW_BYTES    (512 << 20) /* of JSON that a row may be, so that somebody can say so */
#define ROW_GUESSED  (1 << 20)   /* of JSON: most that a row is guessed at */
#define ROWS_MAX     (INT64_C(1) << 40)
#define GROUP_BYTES  (INT64_C(1) << 50)
#define FOOTERS_KEPT (4 << 20)  /* bytes, as they stand in the files */
#define READER_BYTES (64 << 10) /* of a reader, beside what it has of the file */
#define JUMP_BYTES   (32 << 20) /* of rows that are passed over: less is decoded in that time */

using arrow::RecordBatch;
using BatchPointer = std::shared_ptr<RecordBatch>;

/* Rows that are more than one call gives. */
struct TooLarge {
};

static void require(const arrow::Status &status)
{
    if (status.IsOutOfMemory()) throw std::bad_alloc();
    if (!status.ok()) throw BadTable{status.message()};
}

template <typename Value> static Value take(arrow::Result<Value> result)
{
    require(result.status());
    return std::move(result).ValueUnsafe();
}

/* Calls `work`; what it throws becomes the fault. */
template <typename Work> static TableFaultKind try_work(std::string &text, Work work)
{
    text = "there is not enough memory for its rows";
    try {
        work();
        text.clear();
    } catch (const std::bad_alloc &) {
        return TABLE_FAULT_MEMORY;
    } catch (const TooLarge &) {
        text = "its rows are too large to be read together";
        return TABLE_FAULT_TOO_LARGE;
    } catch (const BadTable &bad) {
        text = bad.message;
    } catch (const parquet::ParquetStatusException &error) {
        if (error.status().IsOutOfMemory()) return TABLE_FAULT_MEMORY;
        text = error.what();
    } catch (const std::exception &error) {
        text = error.what();
    } catch (...) {
        text = "an unknown failure";
    }
    return TABLE_FAULT_DATA;
}

/* Arrow says of a read that failed and of bytes that are damaged the same; the system does not. */
template <typename Work> static bool guarded(TableFault *fault, Work work)
{
    std::string text;
    forget_refusals();
    fault->kind = try_work(text, work);
    if (text.empty()) return true;
    if (!refused_by_system().empty()) {
        fault->kind = TABLE_FAULT_IO;
        text = refused_by_system();
    }
    for (char &byte : text)
        if (byte == '\n' || byte == '\r') byte = ' ';
    snprintf(fault->message, sizeof fault->message, "%s", text.c_str());
    return false;
}

/* ---- files ---- */

struct Step {
    uint64_t rows;
    bool little; /* no more than a few are wanted */
};

/* The rows of a group before `row` may have empty values: they are passed over. */
struct Start {
    uint64_t group, row;
};

struct TableHandle {
    virtual ~TableHandle() = default;
    /* The batches of one group, from its first row on; an end is a null pointer. */
    virtual std::unique_ptr<arrow::RecordBatchReader> batches(Start start, Step step,
                                                              arrow::MemoryPool *pool) const = 0;
    TableInput source = {}; /* the file */
    std::vector<TableGroup> groups;
    std::shared_ptr<arrow::Schema> schema;
};

struct TableReader {
    TableReader(const TableHandle &from, uint64_t index, Step in_steps)
        : memory(kept_pool()), rows(*from.schema), handle(from), group(index), step(in_steps)
    {
    }
    void begin(uint64_t row);
    bool next_batch();
    int64_t at_hand();
    void skip(uint64_t count);
    void jump(uint64_t count);

    arrow::ProxyMemoryPool memory;                     /* first: what follows is in it */
    std::unique_ptr<arrow::RecordBatchReader> batches; /* NULL: nothing was read yet */
    JsonRows rows;
    const TableHandle &handle;
    uint64_t group;
    Step step;
    BatchPointer batch;   /* bound to `rows` */
    int64_t at = 0;       /* in the batch */
    uint64_t row = 0;     /* in the group */
    size_t row_bytes = 0; /* of JSON, about, as the rows before had them */
};

/* Files of a set mostly have one schema, which is kept once. */
static std::shared_ptr<arrow::Schema> share_schema(const std::shared_ptr<arrow::Schema> &schema)
{
    static std::mutex lock;
    static std::weak_ptr<arrow::Schema> last;
    std::lock_guard<std::mutex> guard(lock);
    std::shared_ptr<arrow::Schema> kept = last.lock();
    if (kept != nullptr && kept->Equals(*schema, /*check_metadata=*/true)) return kept;
    last = schema;
    return schema;
}

/* ---- Parquet ---- */

struct ParquetHandle : TableHandle {
    ~ParquetHandle() override;
    std::unique_ptr<arrow::RecordBatchReader> batches(Start start, Step step,
                                                      arrow::MemoryPool *pool) const override;
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

/* Footers, which take several times their bytes in memory, are kept of the files that were read
 * last, whichever data set these are of. */
class Footers
{
  public:
    std::shared_ptr<parquet::FileMetaData> find(const ParquetHandle *file);
    void keep(const ParquetHandle *file, const std::shared_ptr<parquet::FileMetaData> &footer);
    void forget(const ParquetHandle *file);

  private:
    struct Kept {
        const ParquetHandle *file;
        std::shared_ptr<parquet::FileMetaData> footer;
    };
    void forget_locked(const ParquetHandle *file);

    std::mutex lock;
    std::list<Kept> kept; /* the last that was used comes first */
    uint64_t bytes = 0;
};

static Footers &footers()
{
    static Footers *const all = new Footers; /* never destroyed: files may outlive exit */
    return *all;
}

std::shared_ptr<parquet::FileMetaData> Footers::find(const ParquetHandle *file)
{
    std::lock_guard<std::mutex> guard(lock);
    for (auto at = kept.begin(); at != kept.end(); at++) {
        if (at->file != file) continue;
        kept.splice(kept.begin(), kept, at);
        return at->footer;
    }
    return nullptr;
}

void Footers::keep(const ParquetHandle *file, const std::shared_ptr<parquet::FileMetaData> &footer)
{
    std::lock_guard<std::mutex> guard(lock);
    forget_locked(file); /* of two threads that found none, the last one's is kept */
    kept.push_front({file, footer});
    bytes += footer->size();
    while (bytes > FOOTERS_KEPT && kept.size() > 1) {
        bytes -= kept.back().footer->size();
        kept.pop_back();
    }
}

void Footers::forget(const ParquetHandle *file)
{
    std::lock_guard<std::mutex> guard(lock);
    forget_locked(file);
}

void Footers::forget_locked(const ParquetHandle *file)
{
    for (auto at = kept.begin(); at != kept.end(); at++) {
        if (at->file != file) continue;
        bytes -= at->footer->size();
        kept.erase(at);
        return;
    }
}

ParquetHandle::~ParquetHandle()
{
    footers().forget(this);
}

/* How a file is read: all of it, or the rows of a group from `row` on. */
struct ParquetOpening {
    bool buffered;
    int64_t step_rows; /* 0: it is not read in steps */
    int64_t row;
};

static std::unique_ptr<parquet::arrow::FileReader>
open_parquet(const TableInput &input, ParquetOpening opening,
             std::shared_ptr<parquet::FileMetaData> metadata, arrow::MemoryPool *pool)
{
    parquet::ReaderProperties properties(pool);
    properties.set_page_checksum_verification(true);
    if (opening.buffered) {
        properties.enable_buffered_stream();
        properties.set_buffer_size(STREAM_BYTES);
    }
    parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
    arrow_properties.set_pre_buffer(false);
    arrow_properties.set_arrow_extensions_enabled(true); /* a JSON column is told as one */
    if (opening.step_rows > 0) arrow_properties.set_batch_size(opening.step_rows);
    std::unique_ptr<parquet::ParquetFileReader> reader =
        opening.row > 0
            ? open_from_row(open_pieces(input, pool), properties, std::move(metadata), opening.row)
            : parquet::ParquetFileReader::Open(open_pieces(input, pool), properties,
                                               std::move(metadata));
    return take(parquet::arrow::FileReader::Make(pool, std::move(reader), arrow_properties));
}

/* What a footer says is believed as far as it can be true. */
static TableGroup check_group(const parquet::RowGroupMetaData &group, int index)
{
    int64_t rows = group.num_rows(), bytes = group.total_byte_size();
    auto refuse = [&](const std::string &what) {
        throw BadTable{"its footer says of row group " + std::to_string(index) + " that " + what};
    };
    if (rows < 0 || rows > ROWS_MAX) refuse("it has " + std::to_string(rows) + " rows");
    if (bytes > GROUP_BYTES) refuse("it has " + std::to_string(bytes) + " bytes");
    for (int i = 0; i < group.num_columns(); i++) {
        int64_t values = group.ColumnChunk(i)->num_values(); /* nulls and empty lists count, too */
        if (values < rows)
            refuse("it has " + std::to_string(rows) + " rows, and of a column " +
                   std::to_string(values) + " values");
    }
    return {static_cast<uint64_t>(rows), static_cast<uint64_t>(bytes > 0 ? bytes : 0),
            static_cast<uint64_t>(index)};
}

static std::unique_ptr<TableHandle> open_parquet_table(const TableInput &input)
{
    auto handle = std::make_unique<ParquetHandle>();
    auto file = open_parquet(input, {}, nullptr, kept_pool());
    require(file->GetSchema(&handle->schema));
    auto footer = file->parquet_reader()->metadata();
    for (int i = 0; i < footer->num_row_groups(); i++)
        handle->groups.push_back(check_group(*footer->RowGroup(i), i));
    footers().keep(handle.get(), footer);
    return handle;
}

std::unique_ptr<arrow::RecordBatchReader> ParquetHandle::batches(Start start, Step step,
                                                                 arrow::MemoryPool *pool) const
{
    auto reader = std::make_unique<OwningReader>();
    auto footer = footers().find(this);
    bool known = footer != nullptr;
    ParquetOpening opening = {step.little || groups[start.group].bytes > LARGE_GROUP,
                              static_cast<int64_t>(step.rows), static_cast<int64_t>(start.row)};
    reader->file = open_parquet(source, opening, std::move(footer), pool);
    if (!known) footers().keep(this, reader->file->parquet_reader()->metadata());
    if (static_cast<size_t>(reader->file->num_row_groups()) != groups.size())
        throw BadTable{"its footer has another number of row groups than before"};
    reader->batches = take(reader->file->GetRecordBatchReader({static_cast<int>(start.group)}));
    return reader;
}

/* ---- Arrow IPC ---- */

/* Of a mapped file: what is not compressed is never copied, so a batch costs what is read of it. */
struct IpcHandle : TableHandle {
    std::shared_ptr<arrow::io::RandomAccessFile> map;
    std::shared_ptr<arrow::ipc::RecordBatchFileReader> file; /* of the file format */
    mutable std::mutex file_lock;
    std::vector<BatchPointer> kept; /* all batches of a stream that has dictionaries */
    BatchPointer read_batch(uint64_t group) const;
    BatchPointer read_stream_batch(uint64_t group) const;
    std::unique_ptr<arrow::RecordBatchReader> batches(Start start, Step step,
                                                      arrow::MemoryPool *pool) const override;
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

static std::unique_ptr<TableHandle> open_ipc_table(const TableInput &input, TableKind kind,
                                                   const TableGroup *groups, uint64_t num_groups)
{
    auto handle = std::make_unique<IpcHandle>();
    handle->map = open_mapped(input);
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

std::unique_ptr<arrow::RecordBatchReader> IpcHandle::batches(Start start, Step,
                                                             arrow::MemoryPool *) const
{
    auto reader = std::make_unique<SingleReader>();
    reader->batch = read_batch(start.group);
    reader->kept_schema = schema;
    return reader;
}

/* ---- readers ---- */

/* Stands at the group's first row; those before `from` will not be looked at. */
void TableReader::begin(uint64_t from)
{
    batch = nullptr;
    batches = nullptr; /* gives back its memory first */
    row = 0;
    batches = handle.batches({group, from}, step, &memory);
}

/* The next batch that has rows; false at the end. */
bool TableReader::next_batch()
{
    if (batches == nullptr) begin(0);
    do {
        BatchPointer next;
        require(batches->ReadNext(&next));
        batch = next;
        at = 0;
        if (batch == nullptr) return false;
    } while (batch->num_rows() == 0);
    return true;
}

/* Rows that need no decoding; at least one. */
int64_t TableReader::at_hand()
{
    if (batch == nullptr || at == batch->num_rows()) {
        if (!next_batch()) throw BadTable{"there are fewer rows than the file says"};
        rows.bind(*batch);
    }
    return batch->num_rows() - at;
}

void TableReader::skip(uint64_t count)
{
    while (count > 0) {
        uint64_t part = std::min(static_cast<uint64_t>(at_hand()), count);
        at += static_cast<int64_t>(part);
        row += part;
        count -= part;
    }
}

/* Without decoding what lies between. Batches begin where they do for who reads all rows, so that
 * damage costs the same rows. What stands in the way of it is judged by the plain way. */
void TableReader::jump(uint64_t count)
{
    uint64_t wanted = row + count;
    try {
        begin(wanted / step.rows * step.rows);
        skip(wanted);
    } catch (const std::bad_alloc &) {
        throw;
    } catch (...) {
        begin(0);
        skip(wanted);
    }
}

static void read_rows(TableReader &reader, uint64_t rows, JsonText &text)
{
    size_t head = offsetof(TableRows, offset) + (rows + 1) * sizeof(uint64_t);
    size_t most = rows > 1 ? TABLE_READ_BYTES : ROW_BYTES, guess = rows * reader.row_bytes * 9 / 8;
    text.reserve(head + (guess < TABLE_READ_BYTES ? guess : TABLE_READ_BYTES));
    text.length = head;
    for (uint64_t i = 0; i < rows; i++) {
        reader.at_hand();
        uint64_t begin = text.length;
        memcpy(text.data + offsetof(TableRows, offset) + i * sizeof begin, &begin, sizeof begin);
        reader.rows.write(reader.at++, text);
        reader.row++;
        if (text.length - head > most) {
            if (rows > 1) throw TooLarge{};
            throw BadTable{"a row of more than 512 MB"};
        }
    }
    if (rows > 0) reader.row_bytes = (text.length - head) / rows;
    text.put('\0');
    TableRows *table = reinterpret_cast<TableRows *>(text.data);
    table->rows = rows;
    table->offset[rows] = text.length - 1;
}

/* ---- the table of functions ---- */

static bool table_open(const TableInput *input, TableKind kind, const TableGroup *groups,
                       uint64_t num_groups, TableHandle **ret, TableFault *fault)
{
    return guarded(fault, [&] {
        arrow::util::InitializeUTF8();
        std::unique_ptr<TableHandle> handle =
            kind == TABLE_PARQUET ? open_parquet_table(*input)
                                  : open_ipc_table(*input, kind, groups, num_groups);
        handle->source = *input;
        handle->schema = share_schema(handle->schema);
        JsonRows check(*handle->schema); /* refuses what cannot be written */
        uint64_t rows = 0;
        for (const TableGroup &group : handle->groups)
            if (group.rows > ROWS_MAX || (rows += group.rows) > ROWS_MAX)
                throw BadTable{"it says that it has more than a million million rows"};
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

static bool table_probe(const TableHandle *handle, uint64_t group, uint64_t rows,
                        uint64_t *ret_bytes, TableFault *fault)
{
    return guarded(fault, [&] {
        TableReader reader(*handle, group, {rows, true});
        uint64_t bytes = 0;
        for (uint64_t i = 0; i < rows; i++) { /* each by itself: they may be large */
            JsonText text;
            reader.at_hand();
            reader.rows.write(reader.at++, text);
            bytes += text.length;
        }
        *ret_bytes = bytes;
    });
}

static bool table_open_reader(const TableHandle *handle, uint64_t group, uint64_t step_rows,
                              TableReader **ret, TableFault *fault)
{
    return guarded(fault, [&] {
        auto reader = std::make_unique<TableReader>(*handle, group, Step{step_rows, false});
        const TableGroup &place = handle->groups[group];
        reader->row_bytes = std::min<uint64_t>(place.bytes / (place.rows + 1), ROW_GUESSED);
        *ret = reader.release();
    });
}

static bool table_skip(TableReader *reader, uint64_t rows, TableFault *fault)
{
    return guarded(fault, [&] {
        bool far = reader->batches == nullptr ? rows >= reader->step.rows
                                              : rows * reader->row_bytes > JUMP_BYTES;
        if (far)
            reader->jump(rows);
        else
            reader->skip(rows);
    });
}

static bool table_read(TableReader *reader, uint64_t rows, TableRows **ret, size_t *ret_bytes,
                       TableFault *fault)
{
    return guarded(fault, [&] {
        JsonText text;
        text.data = reinterpret_cast<char *>(*ret);
        text.capacity = *ret != nullptr ? *ret_bytes : 0;
        *ret = nullptr;
        read_rows(*reader, rows, text);
        *ret_bytes = text.length;
        *ret = reinterpret_cast<TableRows *>(text.take());
    });
}

static size_t table_reader_bytes(const TableReader *reader)
{
    return READER_BYTES + static_cast<size_t>(reader->memory.bytes_allocated());
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
        TABLE_LIBRARY_VERSION, ARROW_VERSION_STRING, table_open, table_groups, table_close,
        table_probe,           table_open_reader,    table_skip, table_read,   table_reader_bytes,
        table_close_reader,    table_pack_bound,     table_pack, table_unpack};
    return &library;
}
