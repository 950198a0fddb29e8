#include "data_file.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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
    char text[160];
    snprintf(text, sizeof text, "%lld bytes at byte %lld could not be read: %s",
             static_cast<long long>(bytes), static_cast<long long>(position), why);
    refusal = text;
    return arrow::Status::IOError(refusal);
}

static int64_t size_of(int fd)
{
    struct stat info;
    if (fstat(fd, &info) == 0) return info.st_size;
    refusal = std::string("its size cannot be found: ") + strerror(errno);
    throw BadTable{refusal};
}

class DescriptorFile : public arrow::io::RandomAccessFile
{
  public:
    DescriptorFile(int descriptor, arrow::MemoryPool *memory)
        : fd(descriptor), size(size_of(descriptor)), pool(memory)
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
    int fd;
    int64_t size, at = 0;
    arrow::MemoryPool *pool;
    bool is_closed = false;
};

/* What ends before the file's size has become shorter since it was opened: nothing that the file
 * itself could be blamed for. */
arrow::Result<int64_t> DescriptorFile::ReadAt(int64_t position, int64_t bytes, void *out)
{
    if (position < 0 || bytes < 0 || position > size)
        return arrow::Status::Invalid("a place outside the file");
    if (bytes > size - position) bytes = size - position;
    int64_t got = 0;
    while (got < bytes) {
        ssize_t step = pread(fd, static_cast<char *>(out) + got, static_cast<size_t>(bytes - got),
                             position + got);
        if (step < 0 && errno == EINTR) continue;
        if (step < 0) return refuse(bytes - got, position + got, strerror(errno));
        if (step == 0) return refuse(bytes - got, position + got, "the file has become shorter");
        got += step;
    }
    return got;
}

arrow::Result<std::shared_ptr<arrow::Buffer>> DescriptorFile::ReadAt(int64_t position,
                                                                     int64_t bytes)
{
    if (position < 0 || bytes < 0 || position > size)
        return arrow::Status::Invalid("a place outside the file");
    if (bytes > size - position) bytes = size - position;
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(bytes, pool));
    ARROW_RETURN_NOT_OK(ReadAt(position, bytes, buffer->mutable_data()).status());
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
}

std::shared_ptr<arrow::io::RandomAccessFile> open_pieces(int fd, arrow::MemoryPool *pool)
{
    return std::make_shared<DescriptorFile>(fd, pool);
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

std::shared_ptr<arrow::io::RandomAccessFile> open_mapped(int fd)
{
    int64_t size = size_of(fd);
    void *map = mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        refusal = std::string("it cannot be mapped into memory: ") + strerror(errno);
        throw BadTable{refusal};
    }
    return std::make_shared<arrow::io::BufferReader>(std::make_shared<MappedBuffer>(map, size));
}
