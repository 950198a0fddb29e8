#include "data_file.hpp"

#include <cstdio>

#include <sys/mman.h>

#include "json_rows.hpp"

static thread_local std::string refusal;

const std::string &refused_by_system()
{
    return refusal;
}

void forget_refusals()
{
    refusal.clear();
}

static arrow::Status refuse(int64_t bytes, int64_t position, const char *why)
{
    char text[TABLE_MESSAGE_BYTES + 80];
    snprintf(text, sizeof text, "%lld bytes at byte %lld could not be read: %s",
             static_cast<long long>(bytes), static_cast<long long>(position), why);
    refusal = text;
    return arrow::Status::IOError(refusal);
}

class PiecesFile : public arrow::io::RandomAccessFile
{
  public:
    PiecesFile(const TableInput &from, arrow::MemoryPool *memory)
        : input(from), size(static_cast<int64_t>(from.bytes)), pool(memory)
    {
    }
    arrow::Status Close() override
    {
        is_closed = true;
        return arrow::Status::OK();
    }
    bool closed() const override
    {
        return is_closed;
    }
    arrow::Result<int64_t> Tell() const override
    {
        return at;
    }
    arrow::Status Seek(int64_t position) override
    {
        at = position;
        return arrow::Status::OK();
    }
    arrow::Result<int64_t> GetSize() override
    {
        return size;
    }
    arrow::Result<int64_t> Read(int64_t bytes, void *out) override
    {
        ARROW_ASSIGN_OR_RAISE(int64_t got, ReadAt(at, bytes, out));
        at += got;
        return got;
    }
    arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t bytes) override
    {
        ARROW_ASSIGN_OR_RAISE(auto buffer, ReadAt(at, bytes));
        at += buffer->size();
        return buffer;
    }
    using RandomAccessFile::ReadAt;
    arrow::Result<int64_t> ReadAt(int64_t position, int64_t bytes, void *out) override;
    arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t bytes) override;

  private:
    TableInput input;
    int64_t size, at = 0;
    arrow::MemoryPool *pool;
    bool is_closed = false;
};

arrow::Result<int64_t> PiecesFile::ReadAt(int64_t position, int64_t bytes, void *out)
{
    if (position < 0 || bytes < 0 || position > size)
        return arrow::Status::Invalid("a place outside the file");
    if (bytes > size - position) bytes = size - position;
    char why[TABLE_MESSAGE_BYTES] = "";
    if (!input.read(input.file, out, static_cast<size_t>(bytes), static_cast<uint64_t>(position),
                    why))
        return refuse(bytes, position, why);
    return bytes;
}

arrow::Result<std::shared_ptr<arrow::Buffer>> PiecesFile::ReadAt(int64_t position, int64_t bytes)
{
    if (position < 0 || bytes < 0 || position > size)
        return arrow::Status::Invalid("a place outside the file");
    if (bytes > size - position) bytes = size - position;
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(bytes, pool));
    ARROW_RETURN_NOT_OK(ReadAt(position, bytes, buffer->mutable_data()).status());
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
}

std::shared_ptr<arrow::io::RandomAccessFile> open_pieces(const TableInput &input,
                                                         arrow::MemoryPool *pool)
{
    return std::make_shared<PiecesFile>(input, pool);
}

/* Pages of the system's cache. */
struct MappedBuffer : arrow::Buffer {
    MappedBuffer(void *map, int64_t bytes) : Buffer(static_cast<uint8_t *>(map), bytes)
    {
    }
    ~MappedBuffer() override
    {
        munmap(const_cast<uint8_t *>(data()), static_cast<size_t>(size()));
    }
};

std::shared_ptr<arrow::io::RandomAccessFile> open_mapped(const TableInput &input)
{
    char why[TABLE_MESSAGE_BYTES] = "";
    void *map = input.map(input.file, why);
    if (map == nullptr) {
        refusal = why;
        throw BadTable{refusal};
    }
    return std::make_shared<arrow::io::BufferReader>(
        std::make_shared<MappedBuffer>(map, static_cast<int64_t>(input.bytes)));
}
