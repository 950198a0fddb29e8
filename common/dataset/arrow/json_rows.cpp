#include "json_rows.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include <arrow/extension_type.h>
#include <arrow/util/base64.h>
#include <arrow/util/float16.h>
#include <arrow/util/utf8.h>

#include "dataset/arrow/json_scan.h"

using arrow::Type;

#define DEPTH_MAX  64        /* of lists, objects and maps inside each other */
#define LARGE_TEXT (1 << 20) /* bytes */

/* ---- JsonText ---- */

JsonText::~JsonText()
{
    free(data);
}

char *JsonText::reserve(size_t bytes)
{
    if (capacity - length < bytes) {
        /* Large pieces grow where they are, at little cost; what is not needed should be little. */
        size_t more = capacity < LARGE_TEXT ? capacity : capacity / 8;
        size_t wanted = std::max(capacity + more, length + bytes) + 4096;
        char *grown = static_cast<char *>(realloc(data, wanted));
        if (grown == nullptr) throw std::bad_alloc();
        data = grown;
        capacity = wanted;
    }
    return data + length;
}

void JsonText::put(const char *bytes, size_t count)
{
    memcpy(reserve(count), bytes, count);
    length += count;
}

void JsonText::put(char byte)
{
    *reserve(1) = byte;
    length++;
}

char *JsonText::take()
{
    bool loose = capacity - length > length / 4;
    char *fitting = loose ? static_cast<char *>(realloc(data, length)) : nullptr;
    char *taken = fitting != nullptr ? fitting : data;
    data = nullptr;
    length = capacity = 0;
    return taken;
}

static size_t put_escape(char *out, unsigned char byte)
{
    static const char shorts[] = "btn\0fr"; /* from \b = 8 on; \v has none */
    out[0] = '\\';
    if (byte == '"' || byte == '\\') {
        out[1] = static_cast<char>(byte);
        return 2;
    }
    if (byte >= 8 && byte <= 13 && shorts[byte - 8] != '\0') {
        out[1] = shorts[byte - 8];
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = "0123456789abcdef"[byte >> 4];
    out[5] = "0123456789abcdef"[byte & 15];
    return 6;
}

void JsonText::put_string(const char *bytes, size_t count)
{
    reserve(count + 2);
    data[length++] = '"';
    for (size_t at = 0; at < count;) {
        reserve(count - at + 16); /* what is left, an escape and the end */
        size_t plain = json_copy_plain(data + length, bytes + at, count - at);
        length += plain;
        at += plain;
        if (at < count)
            length += put_escape(data + length, static_cast<unsigned char>(bytes[at++]));
    }
    put('"');
}

/* ---- columns ---- */

typedef void WriteValue(const Column &column, int64_t index, JsonText &text);

struct Column {
    std::string name; /* for messages: "messages.role" */
    std::string key;  /* "role": with quotes and colon */
    WriteValue *write = nullptr;
    const arrow::Array *array = nullptr;
    std::vector<std::unique_ptr<Column>> child; /* of objects, lists (1), maps (2) */
};

[[noreturn]] static void refuse_value(const Column &column)
{
    throw BadTable{"a value of column " + column.name + " lies outside of its data"};
}

static void put_text(JsonText &text, const std::string &value)
{
    text.put_string(value.data(), value.size());
}

static void put_value(const Column &column, int64_t index, JsonText &text)
{
    if (index < 0 || index >= column.array->length()) refuse_value(column);
    if (column.array->IsNull(index))
        text.put("null", 4);
    else
        column.write(column, index, text);
}

/* Fields that are null are left out. */
static void put_object(const std::vector<std::unique_ptr<Column>> &columns, int64_t index,
                       JsonText &text)
{
    text.put('{');
    bool first = true;
    for (const std::unique_ptr<Column> &column : columns) {
        if (index >= column->array->length()) refuse_value(*column);
        if (column->array->IsNull(index)) continue;
        if (!first) text.put(',');
        first = false;
        text.put(column->key.data(), column->key.size());
        column->write(*column, index, text);
    }
    text.put('}');
}

static void write_null(const Column &, int64_t, JsonText &text)
{
    text.put("null", 4);
}

static void write_bool(const Column &column, int64_t index, JsonText &text)
{
    bool value = static_cast<const arrow::BooleanArray *>(column.array)->Value(index);
    text.put(value ? "true" : "false", value ? 4 : 5);
}

template <typename Array>
static void write_integer(const Column &column, int64_t index, JsonText &text)
{
    char *out = text.reserve(24);
    auto value = static_cast<const Array *>(column.array)->Value(index);
    /* As a number of the widest type: those of 8 bits are characters to to_chars. */
    if constexpr (std::is_signed_v<decltype(value)>)
        text.length += static_cast<size_t>(
            std::to_chars(out, out + 24, static_cast<int64_t>(value)).ptr - out);
    else
        text.length += static_cast<size_t>(
            std::to_chars(out, out + 24, static_cast<uint64_t>(value)).ptr - out);
}

/* As Python's repr: the shortest digits that give the number again; with an exponent where that is
 * below -4 or from 16 on. */
static void put_double(double value, JsonText &text)
{
    if (!std::isfinite(value)) {
        text.put("null", 4);
        return;
    }
    char *out = text.reserve(64);
    char *end = std::to_chars(out, out + 32, value, std::chars_format::scientific).ptr;
    *end = '\0';
    int exponent = atoi(strchr(out, 'e') + 1);
    if (exponent >= -4 && exponent < 16) {
        end = std::to_chars(out, out + 64, value, std::chars_format::fixed).ptr;
        *end = '\0';
        if (strchr(out, '.') == nullptr) {
            memcpy(end, ".0", 2);
            end += 2;
        }
    }
    text.length += static_cast<size_t>(end - out);
}

template <typename Array>
static void write_float(const Column &column, int64_t index, JsonText &text)
{
    put_double(static_cast<double>(static_cast<const Array *>(column.array)->Value(index)), text);
}

static void write_half(const Column &column, int64_t index, JsonText &text)
{
    uint16_t bits = static_cast<const arrow::HalfFloatArray *>(column.array)->Value(index);
    put_double(static_cast<double>(arrow::util::Float16::FromBits(bits).ToFloat()), text);
}

/* The bytes of a value of a type with offsets, which must lie in the buffer. */
template <typename Array> static std::string_view view_of(const Column &column, int64_t index)
{
    const Array *array = static_cast<const Array *>(column.array);
    auto begin = array->value_offset(index), end = array->value_offset(index + 1);
    const std::shared_ptr<arrow::Buffer> &data = array->value_data();
    int64_t size = data != nullptr ? data->size() : 0;
    if (begin < 0 || begin > end || end > size) refuse_value(column);
    if (begin == end) return std::string_view();
    return std::string_view(reinterpret_cast<const char *>(data->data()) + begin,
                            static_cast<size_t>(end - begin));
}

template <typename Array>
static void write_string(const Column &column, int64_t index, JsonText &text)
{
    std::string_view value = view_of<Array>(column, index);
    text.put_string(value.data(), value.size());
}

/* Arrays of views have been validated when they were bound. */
template <typename Array>
static void write_string_view(const Column &column, int64_t index, JsonText &text)
{
    std::string_view value = static_cast<const Array *>(column.array)->GetView(index);
    text.put_string(value.data(), value.size());
}

template <typename Array>
static void write_json(const Column &column, int64_t index, JsonText &text)
{
    std::string_view value = view_of<Array>(column, index);
    if (value.empty())
        text.put("null", 4);
    else
        text.put(value.data(), value.size());
}

static void put_bytes(std::string_view value, JsonText &text)
{
    if (arrow::util::ValidateUTF8(value)) {
        text.put_string(value.data(), value.size());
        return;
    }
    text.put("{\"base64\":", 10);
    put_text(text, arrow::util::base64_encode(value));
    text.put('}');
}

template <typename Array>
static void write_binary(const Column &column, int64_t index, JsonText &text)
{
    put_bytes(view_of<Array>(column, index), text);
}

static void write_binary_view(const Column &column, int64_t index, JsonText &text)
{
    put_bytes(static_cast<const arrow::BinaryViewArray *>(column.array)->GetView(index), text);
}

static void write_fixed_binary(const Column &column, int64_t index, JsonText &text)
{
    put_bytes(static_cast<const arrow::FixedSizeBinaryArray *>(column.array)->GetView(index), text);
}

template <typename Array>
static void write_decimal(const Column &column, int64_t index, JsonText &text)
{
    put_text(text, static_cast<const Array *>(column.array)->FormatValue(index));
}

/* ---- dates and times ---- */

static void put_date(int64_t days, JsonText &text)
{
    std::chrono::year_month_day date{std::chrono::sys_days{std::chrono::days{days}}};
    char *out = text.reserve(32);
    text.length += static_cast<size_t>(
        snprintf(out, 32, "%04d-%02u-%02u", static_cast<int>(date.year()),
                 static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day())));
}

/* The digits behind the point: six, nine where there are nanoseconds, none where there is nothing.
 */
static void put_clock(int64_t nanoseconds, JsonText &text)
{
    int64_t seconds = nanoseconds / 1000000000;
    int rest = static_cast<int>(nanoseconds % 1000000000);
    char *out = text.reserve(48);
    int length = snprintf(out, 48, "%02d:%02d:%02d", static_cast<int>(seconds / 3600),
                          static_cast<int>(seconds / 60 % 60), static_cast<int>(seconds % 60));
    if (rest % 1000 != 0)
        length += snprintf(out + length, 16, ".%09d", rest);
    else if (rest != 0)
        length += snprintf(out + length, 16, ".%06d", rest / 1000);
    text.length += static_cast<size_t>(length);
}

static int64_t units_per_second(arrow::TimeUnit::type unit)
{
    static const int64_t units[] = {1, 1000, 1000000, 1000000000};
    return units[unit];
}

template <typename Array, int64_t per_day>
static void write_date(const Column &column, int64_t index, JsonText &text)
{
    int64_t value = static_cast<const Array *>(column.array)->Value(index);
    text.put('"');
    put_date(value >= 0 ? value / per_day : -((per_day - 1 - value) / per_day), text);
    text.put('"');
}

static void write_timestamp(const Column &column, int64_t index, JsonText &text)
{
    const auto &type = static_cast<const arrow::TimestampType &>(*column.array->type());
    int64_t value = static_cast<const arrow::TimestampArray *>(column.array)->Value(index);
    int64_t per_second = units_per_second(type.unit()), per_day = 86400 * per_second;
    int64_t days = value / per_day, rest = value % per_day;
    if (rest < 0) {
        days--;
        rest += per_day;
    }
    text.put('"');
    put_date(days, text);
    text.put('T');
    put_clock(rest * (1000000000 / per_second), text);
    if (!type.timezone().empty()) text.put("+00:00", 6);
    text.put('"');
}

template <typename Type, typename Array>
static void write_time(const Column &column, int64_t index, JsonText &text)
{
    const auto &type = static_cast<const Type &>(*column.array->type());
    int64_t value = static_cast<const Array *>(column.array)->Value(index);
    int64_t per_second = units_per_second(type.unit());
    if (value < 0 || value >= 86400 * per_second) refuse_value(column);
    text.put('"');
    put_clock(value * (1000000000 / per_second), text);
    text.put('"');
}

static void write_duration(const Column &column, int64_t index, JsonText &text)
{
    const auto &type = static_cast<const arrow::DurationType &>(*column.array->type());
    int64_t value = static_cast<const arrow::DurationArray *>(column.array)->Value(index);
    put_double(static_cast<double>(value) / static_cast<double>(units_per_second(type.unit())),
               text);
}

/* ---- values that hold others ---- */

static void write_struct(const Column &column, int64_t index, JsonText &text)
{
    put_object(column.child, index, text); /* its children are bound with its offset applied */
}

static void put_list(const Column &column, int64_t begin, int64_t end, JsonText &text)
{
    const Column &value = *column.child[0];
    if (begin < 0 || begin > end || end > value.array->length()) refuse_value(column);
    text.put('[');
    for (int64_t i = begin; i < end; i++) {
        if (i > begin) text.put(',');
        put_value(value, i, text);
    }
    text.put(']');
}

template <typename Array>
static void write_list(const Column &column, int64_t index, JsonText &text)
{
    const Array *array = static_cast<const Array *>(column.array);
    put_list(column, array->value_offset(index), array->value_offset(index + 1), text);
}

template <typename Array>
static void write_list_view(const Column &column, int64_t index, JsonText &text)
{
    const Array *array = static_cast<const Array *>(column.array);
    int64_t begin = array->value_offset(index);
    put_list(column, begin, begin + array->value_length(index), text);
}

static void write_fixed_list(const Column &column, int64_t index, JsonText &text)
{
    const auto *array = static_cast<const arrow::FixedSizeListArray *>(column.array);
    int64_t begin = array->value_offset(index);
    put_list(column, begin, begin + array->value_length(index), text);
}

static void put_pair(const Column &column, int64_t index, bool object, JsonText &text)
{
    if (!object) text.put('[');
    put_value(*column.child[0], index, text);
    text.put(object ? ':' : ',');
    put_value(*column.child[1], index, text);
    if (!object) text.put(']');
}

static void write_map(const Column &column, int64_t index, JsonText &text)
{
    const auto *array = static_cast<const arrow::MapArray *>(column.array);
    int64_t begin = array->value_offset(index), end = array->value_offset(index + 1);
    Type::type key = column.child[0]->array->type_id();
    bool object = key == Type::STRING || key == Type::LARGE_STRING;
    if (begin < 0 || begin > end || end > column.child[0]->array->length()) refuse_value(column);
    text.put(object ? '{' : '[');
    for (int64_t i = begin; i < end; i++) {
        if (i > begin) text.put(',');
        put_pair(column, i, object, text);
    }
    text.put(object ? '}' : ']');
}

static void write_dictionary(const Column &column, int64_t index, JsonText &text)
{
    const auto *array = static_cast<const arrow::DictionaryArray *>(column.array);
    put_value(*column.child[0], array->GetValueIndex(index), text);
}

static void write_extension(const Column &column, int64_t index, JsonText &text)
{
    put_value(*column.child[0], index, text);
}

/* ---- making columns of a schema ---- */

static WriteValue *scalar_writer(Type::type type)
{
    switch (type) {
    case Type::NA:
        return write_null;
    case Type::BOOL:
        return write_bool;
    case Type::INT8:
        return write_integer<arrow::Int8Array>;
    case Type::INT16:
        return write_integer<arrow::Int16Array>;
    case Type::INT32:
        return write_integer<arrow::Int32Array>;
    case Type::INT64:
        return write_integer<arrow::Int64Array>;
    case Type::UINT8:
        return write_integer<arrow::UInt8Array>;
    case Type::UINT16:
        return write_integer<arrow::UInt16Array>;
    case Type::UINT32:
        return write_integer<arrow::UInt32Array>;
    case Type::UINT64:
        return write_integer<arrow::UInt64Array>;
    case Type::HALF_FLOAT:
        return write_half;
    case Type::FLOAT:
        return write_float<arrow::FloatArray>;
    case Type::DOUBLE:
        return write_float<arrow::DoubleArray>;
    case Type::STRING:
        return write_string<arrow::StringArray>;
    case Type::LARGE_STRING:
        return write_string<arrow::LargeStringArray>;
    case Type::BINARY:
        return write_binary<arrow::BinaryArray>;
    case Type::LARGE_BINARY:
        return write_binary<arrow::LargeBinaryArray>;
    case Type::STRING_VIEW:
        return write_string_view<arrow::StringViewArray>;
    case Type::BINARY_VIEW:
        return write_binary_view;
    case Type::FIXED_SIZE_BINARY:
        return write_fixed_binary;
    case Type::DATE32:
        return write_date<arrow::Date32Array, 1>;
    case Type::DATE64:
        return write_date<arrow::Date64Array, 86400000>;
    case Type::TIMESTAMP:
        return write_timestamp;
    case Type::TIME32:
        return write_time<arrow::Time32Type, arrow::Time32Array>;
    case Type::TIME64:
        return write_time<arrow::Time64Type, arrow::Time64Array>;
    case Type::DURATION:
        return write_duration;
    case Type::DECIMAL32:
        return write_decimal<arrow::Decimal32Array>;
    case Type::DECIMAL64:
        return write_decimal<arrow::Decimal64Array>;
    case Type::DECIMAL128:
        return write_decimal<arrow::Decimal128Array>;
    case Type::DECIMAL256:
        return write_decimal<arrow::Decimal256Array>;
    default:
        return nullptr;
    }
}

static WriteValue *nested_writer(Type::type type)
{
    switch (type) {
    case Type::STRUCT:
        return write_struct;
    case Type::LIST:
        return write_list<arrow::ListArray>;
    case Type::LARGE_LIST:
        return write_list<arrow::LargeListArray>;
    case Type::LIST_VIEW:
        return write_list_view<arrow::ListViewArray>;
    case Type::LARGE_LIST_VIEW:
        return write_list_view<arrow::LargeListViewArray>;
    case Type::FIXED_SIZE_LIST:
        return write_fixed_list;
    case Type::MAP:
        return write_map;
    case Type::DICTIONARY:
        return write_dictionary;
    case Type::EXTENSION:
        return write_extension;
    default:
        return nullptr;
    }
}

/* JSON text in a column of texts: told by the extension type, or, where the library does not know
 * it, by what the field says of itself. */
static bool is_json(const arrow::Field &field)
{
    if (field.type()->id() == Type::EXTENSION)
        return static_cast<const arrow::ExtensionType &>(*field.type()).extension_name() ==
               "arrow.json";
    if (field.metadata() == nullptr) return false;
    auto name = field.metadata()->Get("ARROW:extension:name");
    return name.ok() && *name == "arrow.json";
}

static WriteValue *json_writer(Type::type type)
{
    switch (type) {
    case Type::STRING:
        return write_json<arrow::StringArray>;
    case Type::LARGE_STRING:
        return write_json<arrow::LargeStringArray>;
    default:
        return nullptr;
    }
}

static std::unique_ptr<Column> make_column(const arrow::Field &field, const std::string &parent,
                                           int depth);

static void add_child(Column &column, const std::shared_ptr<arrow::DataType> &type, int depth)
{
    arrow::Field field(column.name, type);
    column.child.push_back(make_column(field, "", depth + 1));
}

static void add_children(Column &column, const arrow::Field &field, int depth)
{
    const arrow::DataType &type = *field.type();
    switch (type.id()) {
    case Type::DICTIONARY:
        add_child(column, static_cast<const arrow::DictionaryType &>(type).value_type(), depth);
        break;
    case Type::EXTENSION:
        add_child(column, static_cast<const arrow::ExtensionType &>(type).storage_type(), depth);
        if (is_json(field)) {
            Column &storage = *column.child[0];
            WriteValue *writer =
                json_writer(static_cast<const arrow::ExtensionType &>(type).storage_type()->id());
            if (writer != nullptr) storage.write = writer;
        }
        break;
    case Type::MAP: {
        const auto &map = static_cast<const arrow::MapType &>(type);
        column.child.push_back(make_column(*map.key_field(), column.name, depth + 1));
        column.child.push_back(make_column(*map.item_field(), column.name, depth + 1));
        break;
    }
    default:
        for (const std::shared_ptr<arrow::Field> &child : type.fields())
            column.child.push_back(make_column(*child, column.name, depth + 1));
    }
}

static std::unique_ptr<Column> make_column(const arrow::Field &field, const std::string &parent,
                                           int depth)
{
    auto column = std::make_unique<Column>();
    column->name = parent.empty() ? field.name() : parent + "." + field.name();
    JsonText key;
    key.put_string(field.name().data(), field.name().size());
    key.put(':');
    column->key.assign(key.data, key.length);
    Type::type type = field.type()->id();
    if (is_json(field)) column->write = json_writer(type);
    if (column->write == nullptr) column->write = scalar_writer(type);
    if (column->write != nullptr) return column;
    column->write = nested_writer(type);
    if (column->write == nullptr || depth > DEPTH_MAX)
        throw BadTable{"column " + column->name + " is of type " + field.type()->ToString() +
                       ", which cannot be read"};
    add_children(*column, field, depth);
    return column;
}

/* ---- binding ---- */

static void bind_column(Column &column, const arrow::Array &array)
{
    column.array = &array;
    switch (array.type_id()) {
    case Type::STRUCT:
        for (size_t i = 0; i < column.child.size(); i++)
            bind_column(*column.child[i],
                        *static_cast<const arrow::StructArray &>(array).field(static_cast<int>(i)));
        break;
    case Type::LIST:
        bind_column(*column.child[0], *static_cast<const arrow::ListArray &>(array).values());
        break;
    case Type::LARGE_LIST:
        bind_column(*column.child[0], *static_cast<const arrow::LargeListArray &>(array).values());
        break;
    case Type::LIST_VIEW:
        bind_column(*column.child[0], *static_cast<const arrow::ListViewArray &>(array).values());
        break;
    case Type::LARGE_LIST_VIEW:
        bind_column(*column.child[0],
                    *static_cast<const arrow::LargeListViewArray &>(array).values());
        break;
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW: {
        arrow::Status status = array.ValidateFull();
        if (!status.ok()) throw BadTable{"column " + column.name + ": " + status.message()};
        break;
    }
    case Type::FIXED_SIZE_LIST:
        bind_column(*column.child[0],
                    *static_cast<const arrow::FixedSizeListArray &>(array).values());
        break;
    case Type::MAP:
        bind_column(*column.child[0], *static_cast<const arrow::MapArray &>(array).keys());
        bind_column(*column.child[1], *static_cast<const arrow::MapArray &>(array).items());
        break;
    case Type::DICTIONARY:
        bind_column(*column.child[0],
                    *static_cast<const arrow::DictionaryArray &>(array).dictionary());
        break;
    case Type::EXTENSION:
        bind_column(*column.child[0], *static_cast<const arrow::ExtensionArray &>(array).storage());
        break;
    default:
        break;
    }
}

JsonRows::JsonRows(const arrow::Schema &schema)
{
    for (const std::shared_ptr<arrow::Field> &field : schema.fields())
        columns.push_back(make_column(*field, "", 0));
}

JsonRows::~JsonRows() = default;

void JsonRows::bind(const arrow::RecordBatch &batch)
{
    for (size_t i = 0; i < columns.size(); i++)
        bind_column(*columns[i], *batch.column(static_cast<int>(i)));
}

void JsonRows::write(int64_t index, JsonText &text)
{
    put_object(columns, index, text);
}
