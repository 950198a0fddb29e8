/* Tests of common/tensor/safetensors: files of the reference package read and written again byte
 * for byte, slices, folders of shards, and a corpus of malformed files, each refused by name. */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "tensor/safetensors.h"
#include "tensor/safetensors_header.h"

#define FIXTURES TEST_SOURCE_DIR "/tensor/fixtures/safetensors/"

/* A small whole number as an IEEE half, for which not every compiler has a type. */
static uint16_t half_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value == 0) return 0;
    return (uint16_t)(bits >> 16 & 0x8000u) |
           (uint16_t)(((bits >> 23 & 0xff) - 127 + 15) << 10 | (bits >> 13 & 0x3ff));
}

/* The values of make_safetensors_fixtures.py in the bytes of a type. */
static void *make_values(DType dtype, int64_t count)
{
    unsigned char *bytes = mem_calloc((size_t)count, dtype_size(dtype));
    for (int64_t i = 0; i < count; i++) {
        int value = (int)(7 * i % 23) - (dtype == DTYPE_U8 ? 0 : 3);
        float real = (float)value;
        uint16_t half = half_of(real);
        int64_t wide = value;
        uint16_t brain = bf16_from_f32(real);
        const void *from = dtype == DTYPE_F32    ? (const void *)&real
                           : dtype == DTYPE_BF16 ? (const void *)&brain
                           : dtype == DTYPE_F16  ? (const void *)&half
                                                 : (const void *)&wide;
        memcpy(bytes + (size_t)i * dtype_size(dtype), from, dtype_size(dtype));
    }
    return bytes;
}

/* The tensors of all_types.safetensors in the order in which they lie there. */
static const SafetensorsEntry all_types[] = {
    {"i64", DTYPE_I64, 1, {5}},
    {"empty", DTYPE_F32, 2, {0, 7}},
    {"f32.weight", DTYPE_F32, 2, {3, 4}},
    {"scalar", DTYPE_F32, 0, {0}},
    {"i32", DTYPE_I32, 3, {2, 1, 3}},
    {"bf16.weight", DTYPE_BF16, 4, {2, 3, 2, 2}},
    {"f16", DTYPE_F16, 1, {6}},
    {"qu\"oted\\ \n \xc3\xa9", DTYPE_F16, 1, {1}},
    {"u8", DTYPE_U8, 1, {3}},
};
#define ALL_TYPES_COUNT ((int)(sizeof all_types / sizeof all_types[0]))

static Tensor entry_tensor(const SafetensorsEntry *entry)
{
    Tensor tensor = {.dtype = entry->dtype, .rank = entry->rank};
    memcpy(tensor.shape, entry->shape, sizeof tensor.shape);
    return tensor;
}

static void test_safetensors_reads_every_type_of_the_reference_file(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsReader *reader = NULL;
    assert_ok(safetensors_open(FIXTURES "all_types.safetensors", "model", &reader, &err), &err);
    assert_int_equal(safetensors_count(reader), ALL_TYPES_COUNT);
    for (int i = 1; i < ALL_TYPES_COUNT; i++)
        assert_true(strcmp(safetensors_name(reader, i - 1), safetensors_name(reader, i)) < 0);
    for (int i = 0; i < ALL_TYPES_COUNT; i++) {
        Tensor expected = entry_tensor(&all_types[i]), found = {0};
        assert_ok(safetensors_describe(reader, all_types[i].name, &found, &err), &err);
        assert_int_equal(found.dtype, expected.dtype);
        assert_true(tensor_same_shape(&found, &expected));
        int64_t count = tensor_count(&expected);
        void *values = make_values(expected.dtype, count);
        void *read = mem_calloc((size_t)count, 8);
        assert_ok(safetensors_read(reader, all_types[i].name, 0, count, read, &err), &err);
        assert_memory_equal(read, values, tensor_bytes(&expected));
        free(read);
        free(values);
    }
    safetensors_close(reader);
}

static void test_safetensors_reads_any_slice(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsReader *reader = NULL;
    uint16_t *all = make_values(DTYPE_BF16, 24), part[24];
    assert_ok(safetensors_open(FIXTURES "all_types.safetensors", "model", &reader, &err), &err);
    for (int64_t first = 0; first <= 24; first++) {
        for (int64_t count = 0; first + count <= 24; count++) {
            memset(part, 0xEE, sizeof part);
            assert_ok(safetensors_read(reader, "bf16.weight", first, count, part, &err), &err);
            assert_memory_equal(part, all + first, (size_t)count * 2);
            if (count < 24) assert_int_equal(part[count], 0xEEEE);
        }
    }
    assert_fails(safetensors_read(reader, "bf16.weight", 20, 5, part, &err), ERR_INVALID, &err,
                 "5 elements from number 20");
    assert_fails(safetensors_read(reader, "bf16.weight", -1, 1, part, &err), ERR_INVALID, &err,
                 "it has 24");
    assert_fails(safetensors_read(reader, "bf16.weight", INT64_MAX, INT64_MAX, part, &err),
                 ERR_INVALID, &err, "it has 24");
    free(all);
    safetensors_close(reader);
}

static void test_safetensors_missing_tensor_names_file_and_nearest(void **state)
{
    (void)state;
    Error err = {0};
    Tensor tensor;
    SafetensorsReader *reader = NULL;
    assert_ok(safetensors_open(FIXTURES "sharded", "model", &reader, &err), &err);
    assert_fails(safetensors_describe(reader, "model.layers.0.mlp.up_porj.weight", &tensor, &err),
                 ERR_NOT_FOUND, &err, "nearest name is \"model.layers.0.mlp.up_proj.weight\"");
    assert_non_null(strstr(err.message, "sharded"));
    assert_non_null(strstr(err.message, "up_porj"));
    assert_fails(safetensors_describe(reader, "x", &tensor, &err), ERR_NOT_FOUND, &err,
                 "it holds 4, the first is \"lm_head.weight\"");
    safetensors_close(reader);
}

static void test_safetensors_unsupported_tensors_do_not_spoil_the_others(void **state)
{
    (void)state;
    Error err = {0};
    Tensor tensor;
    SafetensorsReader *reader = NULL;
    assert_ok(safetensors_open(FIXTURES "unsupported.safetensors", "model", &reader, &err), &err);
    assert_fails(safetensors_describe(reader, "f64", &tensor, &err), ERR_UNSUPPORTED, &err,
                 "dtype F64");
    assert_fails(safetensors_describe(reader, "five", &tensor, &err), ERR_UNSUPPORTED, &err,
                 "5 dimensions");
    float plain[2];
    assert_ok(safetensors_read(reader, "plain", 0, 2, plain, &err), &err);
    assert_true(plain[0] == -3 && plain[1] == 4);
    safetensors_close(reader);
}

static void test_safetensors_reads_a_folder_of_shards(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsReader *reader = NULL;
    assert_ok(safetensors_open(FIXTURES "sharded", "model", &reader, &err), &err);
    const char *const names[] = {"lm_head.weight", "model.embed_tokens.weight",
                                 "model.layers.0.mlp.up_proj.weight", "model.norm.weight"};
    const int64_t counts[] = {8, 8, 6, 2};
    assert_int_equal(safetensors_count(reader), 4);
    for (int i = 0; i < 4; i++) {
        uint16_t read[8], *values = make_values(DTYPE_BF16, counts[i]);
        assert_string_equal(safetensors_name(reader, i), names[i]);
        assert_ok(safetensors_read(reader, names[i], 0, counts[i], read, &err), &err);
        assert_memory_equal(read, values, (size_t)counts[i] * 2);
        free(values);
    }
    safetensors_close(reader);
}

/* ---- writing ---- */

static void read_whole(const char *path, char **ret_bytes, size_t *ret_length)
{
    Error err = {0};
    assert_ok(file_read(path, 1 << 20, ret_bytes, ret_length, &err), &err);
}

static void test_safetensors_writes_what_the_reference_package_writes(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsWriter *writer = NULL;
    const char *metadata[] = {"format", "pt"};
    unlink("w.safetensors");
    assert_ok(
        safetensors_create("w.safetensors", all_types, ALL_TYPES_COUNT, metadata, 1, &writer, &err),
        &err);
    for (int i = 0; i < ALL_TYPES_COUNT; i++) {
        Tensor tensor = entry_tensor(&all_types[i]);
        size_t bytes = tensor_bytes(&tensor), half = bytes / 2;
        char *values = make_values(tensor.dtype, tensor_count(&tensor));
        assert_ok(safetensors_write(writer, values, half, &err), &err);
        assert_ok(safetensors_write(writer, values + half, bytes - half, &err), &err);
        free(values);
    }
    int64_t size = 0;
    char sha256[65], expected_sha256[65];
    assert_ok(safetensors_finish(writer, &size, sha256, &err), &err);
    char *ours = NULL, *theirs = NULL;
    size_t our_length = 0, their_length = 0;
    read_whole("w.safetensors", &ours, &our_length);
    read_whole(FIXTURES "all_types.safetensors", &theirs, &their_length);
    assert_int_equal(our_length, their_length);
    assert_memory_equal(ours, theirs, our_length);
    assert_int_equal(size, our_length);
    digest_bytes(theirs, their_length, expected_sha256);
    assert_string_equal(sha256, expected_sha256);
    free(ours);
    free(theirs);
}

static void test_safetensors_index_is_what_transformers_writes(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsPlace places[] = {
        {"model.norm.weight", "model-00002-of-00002.safetensors", 4},
        {"lm_head.weight", "model-00002-of-00002.safetensors", 16},
        {"model.layers.0.mlp.up_proj.weight", "model-00001-of-00002.safetensors", 12},
        {"model.embed_tokens.weight", "model-00001-of-00002.safetensors", 16},
    };
    char *text = NULL, *expected = NULL;
    size_t length = 0, expected_length = 0;
    assert_ok(safetensors_index_text(places, 4, &text, &length, &err), &err);
    read_whole(FIXTURES "sharded/model.safetensors.index.json", &expected, &expected_length);
    assert_int_equal(length, expected_length);
    assert_string_equal(text, expected);
    free(text);
    free(expected);
    places[0].tensor = "lm_head.weight";
    assert_fails(safetensors_index_text(places, 4, &text, &length, &err), ERR_INVALID, &err,
                 "\"lm_head.weight\" is in both");
    cJSON *json = NULL;
    assert_ok(safetensors_index_text(places, 0, &text, &length, &err), &err);
    assert_ok(json_parse(text, length, "x", &json, &err), &err);
    cJSON_Delete(json);
    free(text);
}

static void test_safetensors_writer_refuses_and_leaves_nothing(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsWriter *writer = NULL;
    const SafetensorsEntry one[] = {{"a", DTYPE_F32, 1, {4}}};
    const SafetensorsEntry twice[] = {{"a", DTYPE_F32, 1, {4}}, {"a", DTYPE_F32, 1, {4}}};
    const SafetensorsEntry crooked[] = {{"a", DTYPE_BF16, 1, {1}}, {"b", DTYPE_F32, 1, {4}}};
    const SafetensorsEntry reserved[] = {{"__metadata__", DTYPE_F32, 1, {4}}};
    unlink("r.safetensors");
    assert_fails(safetensors_create("r.safetensors", twice, 2, NULL, 0, &writer, &err), ERR_INVALID,
                 &err, "two tensors are called \"a\"");
    assert_fails(safetensors_create("r.safetensors", crooked, 2, NULL, 0, &writer, &err),
                 ERR_INVALID, &err, "\"b\" (f32) would start at byte 2");
    assert_fails(safetensors_create("r.safetensors", reserved, 1, NULL, 0, &writer, &err),
                 ERR_INVALID, &err, "__metadata__");
    assert_false(path_exists("r.safetensors"));

    float data[5] = {0};
    int64_t bytes = 0;
    char sha256[65];
    assert_ok(safetensors_create("r.safetensors", one, 1, NULL, 0, &writer, &err), &err);
    SafetensorsWriter *second = NULL;
    assert_fails(safetensors_create("r.safetensors", one, 1, NULL, 0, &second, &err), ERR_EXISTS,
                 &err, "r.safetensors");
    assert_true(path_exists("r.safetensors"));
    assert_fails(safetensors_write(writer, data, 20, &err), ERR_INVALID, &err,
                 "20 bytes to write, the header leaves room for 16");
    assert_ok(safetensors_write(writer, data, 12, &err), &err);
    assert_fails(safetensors_finish(writer, &bytes, sha256, &err), ERR_INVALID, &err,
                 "before the file was finished");
    assert_false(path_exists("r.safetensors"));

    assert_ok(safetensors_create("r.safetensors", one, 1, NULL, 0, &writer, &err), &err);
    safetensors_abandon(writer);
    assert_false(path_exists("r.safetensors"));
    safetensors_abandon(NULL);
    assert_fails(safetensors_create("no/such/folder", one, 1, NULL, 0, &writer, &err),
                 ERR_NOT_FOUND, &err, "no/such/folder");
}

static void test_safetensors_writer_reserves_all_room_first(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsWriter *writer = NULL;
    const SafetensorsEntry big[] = {{"a", DTYPE_F32, 1, {1 << 20}}};
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 65536;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    unlink("big.safetensors");
    Status status = safetensors_create("big.safetensors", big, 1, NULL, 0, &writer, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, ERR_RESOURCE);
    assert_non_null(strstr(err.message, "could not reserve 419"));
    assert_non_null(strstr(err.message, "big.safetensors"));
    assert_false(path_exists("big.safetensors"));
}

/* ---- what is refused ---- */

typedef struct BadFile {
    const char *what;
    const char *header;
    int data_bytes;
    const char *message;
} BadFile;

#define ONE    "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
#define A      "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"
#define T(s)   "{\"a\":{" s "}}"
#define DTYPE  "\"dtype\":\"F32\""
#define SHAPE  "\"shape\":[1]"
#define OFFSET "\"data_offsets\":[0,4]"

static const BadFile bad_files[] = {
    {"empty header", "", 0, "does not begin with '{'"},
    {"leading space", " " ONE, 4, "does not begin with '{'"},
    {"a list", "[]", 0, "does not begin with '{'"},
    {"not JSON", "{\"a\":}", 0, "not valid JSON"},
    {"cut JSON", "{\"a\":{", 0, "ends too soon"},
    {"two values", ONE "{}", 4, "more text after"},
    {"not UTF-8", "{\"\xff\":{" DTYPE "," SHAPE "," OFFSET "}}", 4, "not valid UTF-8"},
    {"overlong UTF-8", "{\"\xc0\x80\":{" DTYPE "," SHAPE "," OFFSET "}}", 4, "not valid UTF-8"},
    {"lone surrogate", "{\"\\ud800\":{" DTYPE "," SHAPE "," OFFSET "}}", 4, "not valid JSON"},
    {"NUL in a name", "{\"a\\u0000b\":{" DTYPE "," SHAPE "," OFFSET "}}", 4, "NUL"},
    {"raw control character", "{\"a\nb\":{" DTYPE "," SHAPE "," OFFSET "}}", 4,
     "control character 0x0a"},
    {"tensor twice", "{" A "," A "}", 4, "\"a\" stands twice"},
    {"escaped twin", "{" A ",\"\\u0061\":{" DTYPE ",\"shape\":[0],\"data_offsets\":[4,4]}}", 4,
     "\"a\" stands twice"},
    {"member twice", T(DTYPE "," DTYPE "," SHAPE "," OFFSET), 4, "has \"dtype\" twice"},
    {"unknown member", T(DTYPE "," SHAPE "," OFFSET ",\"strides\":[1]"), 4,
     "unknown member \"strides\""},
    {"no dtype", T(SHAPE "," OFFSET), 4, "has no \"dtype\""},
    {"no shape", T(DTYPE "," OFFSET), 4, "has no \"shape\""},
    {"no offsets", T(DTYPE "," SHAPE), 4, "has no \"data_offsets\""},
    {"tensor not an object", "{\"a\":[]}", 0, "\"a\" is a list, expected an object"},
    {"unknown dtype", T("\"dtype\":\"F128\"," SHAPE "," OFFSET), 4, "unknown dtype \"F128\""},
    {"dtype not a string", T("\"dtype\":32," SHAPE "," OFFSET), 4, "dtype is a number"},
    {"shape not a list", T(DTYPE ",\"shape\":1," OFFSET), 4, "shape is a number"},
    {"shape of strings", T(DTYPE ",\"shape\":[\"1\"]," OFFSET), 4, "shape holds a string"},
    {"negative shape", T(DTYPE ",\"shape\":[-1]," OFFSET), 4, "byte 0x2d"},
    {"fractional shape", T(DTYPE ",\"shape\":[1.0]," OFFSET), 4, "byte 0x2e"},
    {"exponent",
     T(DTYPE ",\"shape\":[1],"
             "\"data_offsets\":[0,4e0]"),
     4, "byte 0x65"},
    {"leading zero", T(DTYPE ",\"shape\":[01]," OFFSET), 4, "leading zero"},
    {"number too large", T(DTYPE ",\"shape\":[9007199254740993000]," OFFSET), 4, "expected 0 to"},
    {"product overflow", T(DTYPE ",\"shape\":[4294967296,4294967296]," OFFSET), 4,
     "product of its shape overflows"},
    {"bits overflow", T(DTYPE ",\"shape\":[9007199254740992,256]," OFFSET), 4,
     "size in bits overflows"},
    {"part of a byte", T("\"dtype\":\"F4\"," SHAPE "," OFFSET), 4, "fill no whole bytes"},
    {"size against shape", T(DTYPE ",\"shape\":[2]," OFFSET), 4,
     "need 8 bytes, its data_offsets hold 4"},
    {"one offset", T(DTYPE "," SHAPE ",\"data_offsets\":[4]"), 4, "list of two numbers"},
    {"three offsets", T(DTYPE "," SHAPE ",\"data_offsets\":[0,4,8]"), 4, "list of two numbers"},
    {"begin after end", T(DTYPE "," SHAPE ",\"data_offsets\":[4,0]"), 4, "end before it"},
    {"overlap", "{" A ",\"b\":{" DTYPE "," SHAPE ",\"data_offsets\":[2,6]}}", 6,
     "\"b\" begins at byte 2 inside \"a\""},
    {"hole at the start", T(DTYPE "," SHAPE ",\"data_offsets\":[4,8]"), 8,
     "bytes 0 to 4 before tensor \"a\""},
    {"hole in the middle", "{" A ",\"b\":{" DTYPE "," SHAPE ",\"data_offsets\":[5,9]}}", 9,
     "bytes 4 to 5 before tensor \"b\""},
    {"bytes at the end", ONE, 5, "1 bytes after the last tensor"},
    {"no tensor but bytes", "{}", 1, "1 bytes after the last tensor"},
    {"cut data", ONE, 3, "is cut: its header promises 4 bytes"},
    {"metadata not an object", "{\"__metadata__\":\"x\"}", 0, "__metadata__ is a string"},
    {"metadata of numbers", "{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ \"a\" is a number"},
    {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ stands twice"},
    {"metadata key twice", "{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0,
     "__metadata__ has \"a\" twice"},
    {"null", "{\"__metadata__\":null}", 0, "outside strings"},
};

static void write_file(const char *path, const void *bytes, size_t length)
{
    Error err = {0};
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_ok(file_write_all(fd, bytes, length, path, &err), &err);
    close(fd);
}

static void write_parts(const char *path, uint64_t claimed, const char *header, int data_bytes)
{
    Str file = {0};
    for (int i = 0; i < 8; i++)
        str_putc(&file, (char)(claimed >> 8 * i));
    str_puts(&file, header);
    for (int i = 0; i < data_bytes; i++)
        str_putc(&file, 0);
    write_file(path, str_text(&file), file.length);
    str_free(&file);
}

static void refuse_file(const char *what, const char *message)
{
    Error err = {0};
    SafetensorsReader *untouched = NULL;
    Status status = safetensors_open("bad.safetensors", "model", &untouched, &err);
    if (status != ERR_DATA || strstr(err.message, message) == NULL)
        fail_msg("%s: %s \"%s\", expected data \"%s\"", what, status_name(status), err.message,
                 message);
    assert_non_null(strstr(err.message, "bad.safetensors"));
    assert_null(untouched);
}

static void test_safetensors_refuses_every_malformed_header(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        const BadFile *bad = &bad_files[i];
        write_parts("bad.safetensors", strlen(bad->header), bad->header, bad->data_bytes);
        refuse_file(bad->what, bad->message);
    }
    Str deep = {0};
    str_puts(&deep, "{\"a\":");
    for (int i = 0; i < 100000; i++)
        str_putc(&deep, '[');
    write_parts("bad.safetensors", deep.length, str_text(&deep), 0);
    refuse_file("nesting", "nesting deeper than 200");
    str_free(&deep);
}

static void test_safetensors_refuses_impossible_header_lengths(void **state)
{
    (void)state;
    write_file("bad.safetensors", "1234567", 7);
    refuse_file("7 bytes", "has 7 bytes");
    write_file("bad.safetensors", "", 0);
    refuse_file("no bytes", "has 0 bytes");
    const uint64_t lengths[] = {strlen(ONE) + 5, 100000001, 1ULL << 31, 1ULL << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        write_parts("bad.safetensors", lengths[i], ONE, 4);
        refuse_file("length", "its header is said to have");
    }
    /* 100,000,001 bytes are refused for their number, also when they are there. */
    write_parts("bad.safetensors", 100000001, ONE, 4);
    assert_int_equal(truncate("bad.safetensors", 100000100), 0);
    refuse_file("cap", "the format allows 100000000");
    unlink("bad.safetensors");
}

static void test_safetensors_accepts_the_odd_but_legal(void **state)
{
    (void)state;
    Error err = {0};
    const struct {
        const char *header;
        int data_bytes, count;
    } good[] = {
        {"{}", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {ONE "   \n", 4, 1},
        {"{\"\":{" DTYPE "," SHAPE "," OFFSET "}}", 4, 1},
        {"{\"z\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]},"
         "\"e\":{\"dtype\":\"U8\",\"shape\":[0,9007199254740992,9007199254740992],"
         "\"data_offsets\":[1,1]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         2, 3},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        SafetensorsReader *reader = NULL;
        write_parts("odd.safetensors", strlen(good[i].header), good[i].header, good[i].data_bytes);
        assert_ok(safetensors_open("odd.safetensors", "model", &reader, &err), &err);
        assert_int_equal(safetensors_count(reader), good[i].count);
        safetensors_close(reader);
    }
}

/* Single flipped bits and cuts anywhere in the reference file: the file is refused, or it says
 * something else that is still consistent; never a crash, never a read outside. */
static void test_safetensors_survives_flipped_bits_and_cuts(void **state)
{
    (void)state;
    char *bytes = NULL;
    size_t length = 0, header_length;
    read_whole(FIXTURES "all_types.safetensors", &bytes, &length);
    header_length = (unsigned char)bytes[0] | (size_t)(unsigned char)bytes[1] << 8;
    int refused = 0;
    for (size_t bit = 0; bit < header_length * 8; bit++) {
        Error err = {0};
        SafetensorsHeader header = {0};
        char *copy = memcpy(mem_alloc(header_length), bytes + 8, header_length);
        copy[bit / 8] ^= (char)(1 << bit % 8);
        if (safetensors_header_parse(copy, header_length, (int64_t)(length - 8 - header_length),
                                     "flipped", &header, &err) == OK)
            safetensors_header_clear(&header);
        else
            refused++;
        free(copy);
    }
    assert_true(refused > (int)header_length * 4);
    for (size_t cut = 0; cut < length; cut++) {
        write_file("bad.safetensors", bytes, cut);
        refuse_file("cut", "bad.safetensors");
    }
    free(bytes);
}

static void test_safetensors_notices_a_change_under_its_hands(void **state)
{
    (void)state;
    Error err = {0};
    float value;
    SafetensorsReader *reader = NULL;
    write_parts("moving.safetensors", strlen(ONE), ONE, 4);
    assert_ok(safetensors_open("moving.safetensors", "model", &reader, &err), &err);
    assert_ok(safetensors_read(reader, "a", 0, 1, &value, &err), &err);
    struct timespec later[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    write_parts("moving.safetensors", strlen(ONE), ONE, 4);
    assert_int_equal(utimensat(AT_FDCWD, "moving.safetensors", later, 0), 0);
    assert_fails(safetensors_read(reader, "a", 0, 1, &value, &err), ERR_DATA, &err, "was changed");
    assert_int_equal(truncate("moving.safetensors", 20), 0);
    assert_fails(safetensors_read(reader, "a", 0, 1, &value, &err), ERR_DATA, &err, "ends at byte");
    safetensors_close(reader);
}

/* ---- folders ---- */

static void write_index(const char *weight_map)
{
    char *text = mem_printf("{\"metadata\":{\"total_size\":4},\"weight_map\":%s}", weight_map);
    write_file("folder/model.safetensors.index.json", text, strlen(text));
    free(text);
}

static void test_safetensors_index_may_only_name_what_is_beside_it(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsReader *reader = NULL;
    assert_ok(folder_remove("folder", &err), &err);
    assert_ok(folder_create("folder", &err), &err);
    write_parts("outside.safetensors", strlen(ONE), ONE, 4);
    write_parts("folder/one.safetensors", strlen(ONE), ONE, 4);
    const struct {
        const char *weight_map, *message;
    } bad[] = {
        {"{\"a\":\"../outside.safetensors\"}", "expected the name of a .safetensors file"},
        {"{\"a\":\"/etc/passwd\"}", "expected the name of a .safetensors file"},
        {"{\"a\":\"sub/one.safetensors\"}", "expected the name of a .safetensors file"},
        {"{\"a\":\"..\"}", "expected the name of a .safetensors file"},
        {"{\"a\":\"\"}", "expected the name of a .safetensors file"},
        {"{\"a\":\".safetensors\"}", "expected the name of a .safetensors file"},
        {"{\"a\":\"one.bin\"}", "expected the name of a .safetensors file"},
        {"{\"a\":7}", "is a number, expected a string"},
        {"[]", "\"weight_map\" is a list"},
        {"{\"a\":\"two.safetensors\"}", "that file is not there"},
        {"{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}",
         "names tensor \"b\" in \"one.safetensors\", which does not hold it"},
        {"{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}", "names tensor \"a\" twice"},
        {"{\"a\":\"folder.safetensors\"}", "not a regular file"},
    };
    assert_ok(folder_create("folder/folder.safetensors", &err), &err);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_index(bad[i].weight_map);
        Status status = safetensors_open("folder", "model", &reader, &err);
        if (status == OK || strstr(err.message, bad[i].message) == NULL)
            fail_msg("%s: %s \"%s\"", bad[i].weight_map, status_name(status), err.message);
        assert_null(reader);
    }
    write_index("{\"a\":\"one.safetensors\"}");
    assert_ok(safetensors_open("folder", "model", &reader, &err), &err);
    safetensors_close(reader);
}

static void test_safetensors_folder_without_weights_says_what_to_do(void **state)
{
    (void)state;
    Error err = {0};
    SafetensorsReader *reader = NULL;
    assert_ok(folder_remove("folder", &err), &err);
    assert_ok(folder_create("folder", &err), &err);
    assert_fails(safetensors_open("folder", "model", &reader, &err), ERR_NOT_FOUND, &err,
                 "holds neither model.safetensors nor model.safetensors.index.json");
    write_file("folder/pytorch_model.bin", "PK", 2);
    assert_fails(safetensors_open("folder", "model", &reader, &err), ERR_UNSUPPORTED, &err,
                 "safe_serialization=True");
    assert_fails(safetensors_open("folder/pytorch_model.bin", "model", &reader, &err),
                 ERR_UNSUPPORTED, &err, "pickle");
    write_parts("folder/optimizer.safetensors", strlen(ONE), ONE, 4);
    assert_ok(safetensors_open("folder", "optimizer", &reader, &err), &err);
    safetensors_close(reader);
    reader = NULL;
    assert_fails(safetensors_open("folder/none.safetensors", "model", &reader, &err), ERR_NOT_FOUND,
                 &err, "folder/none.safetensors");
    assert_int_equal(mkfifo("folder/pipe.safetensors", 0600), 0);
    assert_fails(safetensors_open("folder/pipe.safetensors", "model", &reader, &err), ERR_INVALID,
                 &err, "not a regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_reads_every_type_of_the_reference_file),
        cmocka_unit_test(test_safetensors_reads_any_slice),
        cmocka_unit_test(test_safetensors_missing_tensor_names_file_and_nearest),
        cmocka_unit_test(test_safetensors_unsupported_tensors_do_not_spoil_the_others),
        cmocka_unit_test(test_safetensors_reads_a_folder_of_shards),
        cmocka_unit_test(test_safetensors_writes_what_the_reference_package_writes),
        cmocka_unit_test(test_safetensors_index_is_what_transformers_writes),
        cmocka_unit_test(test_safetensors_writer_refuses_and_leaves_nothing),
        cmocka_unit_test(test_safetensors_writer_reserves_all_room_first),
        cmocka_unit_test(test_safetensors_refuses_every_malformed_header),
        cmocka_unit_test(test_safetensors_refuses_impossible_header_lengths),
        cmocka_unit_test(test_safetensors_accepts_the_odd_but_legal),
        cmocka_unit_test(test_safetensors_survives_flipped_bits_and_cuts),
        cmocka_unit_test(test_safetensors_notices_a_change_under_its_hands),
        cmocka_unit_test(test_safetensors_index_may_only_name_what_is_beside_it),
        cmocka_unit_test(test_safetensors_folder_without_weights_says_what_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
