#include "page_head.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include <arrow/util/compression.h>

#define DEPTH_MAX 16 /* of structs and lists in a head: statistics have two */

/* ---- Thrift's compact protocol ---- */

enum ThriftType {
    THRIFT_TRUE = 1,
    THRIFT_FALSE = 2,
    THRIFT_BYTE = 3,
    THRIFT_DOUBLE = 7,
    THRIFT_BINARY = 8,
    THRIFT_LIST = 9,
    THRIFT_SET = 10,
    THRIFT_MAP = 11,
    THRIFT_STRUCT = 12,
};

class ThriftReader
{
  public:
    ThriftReader(const uint8_t *bytes, size_t length) : at(bytes), end(bytes + length)
    {
    }
    uint64_t unsigned_number();
    int64_t number();
    /* Calls visit(id, type) for each field of a struct: true, when it has read the value. */
    template <typename Visit> void fields(Visit visit);
    void skip(int type, int depth);

    const uint8_t *at, *end;
    bool whole = true; /* nothing was missing so far */

  private:
    uint8_t byte();
    void skip_items(uint64_t count, int type, int depth);
};

uint8_t ThriftReader::byte()
{
    if (at < end) return *at++;
    whole = false;
    return 0;
}

uint64_t ThriftReader::unsigned_number()
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t part = byte();
        value |= static_cast<uint64_t>(part & 0x7F) << shift;
        if (part < 0x80) return value;
    }
    whole = false;
    return 0;
}

int64_t ThriftReader::number()
{
    uint64_t value = unsigned_number();
    return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}

template <typename Visit> void ThriftReader::fields(Visit visit)
{
    int64_t id = 0;
    while (whole) {
        uint8_t head = byte();
        if (head == 0) return;
        id = head >> 4 != 0 ? id + (head >> 4) : number();
        if (!visit(id, head & 15)) skip(head & 15, 0);
    }
}

void ThriftReader::skip_items(uint64_t count, int type, int depth)
{
    bool flags = type == THRIFT_TRUE || type == THRIFT_FALSE;
    for (uint64_t i = 0; i < count && whole; i++)
        skip(flags ? static_cast<int>(THRIFT_BYTE) : type, depth + 1);
}

void ThriftReader::skip(int type, int depth)
{
    uint64_t length = 0;
    if (depth > DEPTH_MAX) whole = false;
    if (!whole) return;
    switch (type) {
    case THRIFT_TRUE:
    case THRIFT_FALSE:
        return; /* a field says it in its type */
    case THRIFT_BYTE:
        length = 1;
        break;
    case THRIFT_DOUBLE:
        length = 8;
        break;
    case THRIFT_BINARY:
        length = unsigned_number();
        break;
    case THRIFT_LIST:
    case THRIFT_SET: {
        uint8_t head = byte();
        skip_items(head >> 4 < 15 ? head >> 4 : unsigned_number(), head & 15, depth);
        return;
    }
    case THRIFT_STRUCT:
        while (whole) {
            uint8_t head = byte();
            if (head == 0) return;
            if (head >> 4 == 0) number();
            skip(head & 15, depth + 1);
        }
        return;
    case THRIFT_MAP: /* no head of a page has one */
        whole = false;
        return;
    default: /* 16, 32 and 64 bits */
        unsigned_number();
        return;
    }
    if (length > static_cast<uint64_t>(end - at))
        whole = false;
    else
        at += length;
}

/* ---- heads ---- */

static void read_data_head(ThriftReader &in, PageHead &head)
{
    in.fields([&](int64_t id, int) {
        int32_t *const field[] = {nullptr, &head.values, nullptr, &head.definition_encoding,
                                  &head.repetition_encoding};
        if (id < 1 || id > 4 || field[id] == nullptr) return false;
        *field[id] = static_cast<int32_t>(in.number());
        return true;
    });
}

static void read_data_head_v2(ThriftReader &in, PageHead &head)
{
    in.fields([&](int64_t id, int) {
        int32_t *const field[] = {nullptr,
                                  &head.values,
                                  nullptr,
                                  &head.rows,
                                  nullptr,
                                  &head.definition_bytes,
                                  &head.repetition_bytes};
        if (id < 1 || id > 6 || field[id] == nullptr) return false;
        *field[id] = static_cast<int32_t>(in.number());
        return true;
    });
}

bool parse_page_head(const uint8_t *bytes, size_t length, PageHead &ret)
{
    PageHead head;
    ThriftReader in(bytes, length);
    in.fields([&](int64_t id, int type) {
        if (type == THRIFT_STRUCT && (id == 5 || id == 8)) {
            id == 5 ? read_data_head(in, head) : read_data_head_v2(in, head);
            return true;
        }
        int32_t *const field[] = {nullptr, &head.kind, &head.bytes, &head.packed_bytes};
        if (id < 1 || id > 4) return false;
        int32_t value = static_cast<int32_t>(in.number());
        if (id < 4) *field[id] = value;
        head.checked |= id == 4;
        if (id == 4) head.checksum = static_cast<uint32_t>(value);
        return true;
    });
    head.head_bytes = static_cast<size_t>(in.at - bytes);
    if (!in.whole || head.bytes < 0 || head.packed_bytes < 0) return false;
    ret = head;
    return true;
}

/* ---- how a page begins ---- */

/* A copy of what was decompressed before: bytes of it may be those that it writes. */
static bool repeat(uint8_t *out, size_t at, size_t offset, size_t count)
{
    if (offset == 0 || offset > at) return false;
    for (size_t i = 0; i < count; i++)
        out[at + i] = out[at + i - offset];
    return true;
}

/* Of few bytes, the lowest first. */
static size_t little(const uint8_t *bytes, size_t count)
{
    size_t value = 0;
    for (size_t i = 0; i < count; i++)
        value |= static_cast<size_t>(bytes[i]) << 8 * i;
    return value;
}

/* https://github.com/google/snappy/blob/main/format_description.txt */
static size_t snappy_front(const uint8_t *in, size_t length, uint8_t *out, size_t size)
{
    size_t at = 0, done = 0;
    while (at < length && in[at] >= 0x80) /* how long all of it is */
        at++;
    at++;
    while (at < length && done < size) {
        uint8_t tag = in[at++];
        size_t count = (tag >> 2) + 1u, extra = tag & 3u;
        if (extra == 3) extra = 4;
        if (extra == 0 && count > 60) {
            extra = count - 60;
            if (extra > length - at) return done;
            count = little(in + at, extra) + 1;
            at += extra;
        } else if (extra > length - at) {
            return done;
        }
        if ((tag & 3) == 0) {
            count = std::min(std::min(count, length - at), size - done);
            memcpy(out + done, in + at, count);
            at += count;
        } else {
            size_t offset = little(in + at, extra);
            if (extra == 1) {
                offset |= static_cast<size_t>(tag >> 5) << 8;
                count = 4 + ((tag >> 2) & 7u);
            }
            at += extra;
            count = std::min(count, size - done);
            if (!repeat(out, done, offset, count)) return 0;
        }
        done += count;
    }
    return done;
}

/* The length of which a token has 15: bytes behind it add to it, up to one below 255. */
static bool lz4_length(const uint8_t *in, size_t length, size_t &at, size_t &count)
{
    if (count < 15) return true;
    uint8_t more = 255;
    while (more == 255 && at < length) {
        more = in[at++];
        count += more;
    }
    return more < 255;
}

/* https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md */
static size_t lz4_front(const uint8_t *in, size_t length, uint8_t *out, size_t size)
{
    size_t at = 0, done = 0;
    while (at < length && done < size) {
        uint8_t token = in[at++];
        size_t literals = token >> 4, count = token & 15;
        if (!lz4_length(in, length, at, literals)) return done;
        literals = std::min(std::min(literals, length - at), size - done);
        memcpy(out + done, in + at, literals);
        at += literals;
        done += literals;
        if (length - at < 2 || done == size) return done;
        size_t offset = little(in + at, 2);
        at += 2;
        if (!lz4_length(in, length, at, count)) return done;
        count = std::min(count + 4, size - done);
        if (!repeat(out, done, offset, count)) return 0;
        done += count;
    }
    return done;
}

/* Of codecs that Arrow decompresses piece by piece. */
static size_t stream_front(arrow::Compression::type type, const uint8_t *in, size_t length,
                           uint8_t *out, size_t size)
{
    std::unique_ptr<arrow::util::Codec> codec = arrow::util::Codec::Create(type).ValueOr(nullptr);
    if (codec == nullptr) return 0;
    std::shared_ptr<arrow::util::Decompressor> unpacking =
        codec->MakeDecompressor().ValueOr(nullptr);
    size_t at = 0, done = 0;
    while (unpacking != nullptr && at < length && done < size) {
        auto step = unpacking->Decompress(static_cast<int64_t>(length - at), in + at,
                                          static_cast<int64_t>(size - done), out + done);
        if (!step.ok() || (step->bytes_read == 0 && step->bytes_written == 0)) break;
        at += static_cast<size_t>(step->bytes_read);
        done += static_cast<size_t>(step->bytes_written);
    }
    return done;
}

size_t unpack_front(arrow::Compression::type codec, const uint8_t *packed, size_t length,
                    uint8_t *out, size_t size)
{
    switch (codec) {
    case arrow::Compression::UNCOMPRESSED:
        size = std::min(size, length);
        memcpy(out, packed, size);
        return size;
    case arrow::Compression::SNAPPY:
        return snappy_front(packed, length, out, size);
    case arrow::Compression::LZ4:
        return lz4_front(packed, length, out, size);
    case arrow::Compression::ZSTD:
    case arrow::Compression::GZIP:
    case arrow::Compression::BROTLI:
        return stream_front(codec, packed, length, out, size);
    default:
        return 0;
    }
}
