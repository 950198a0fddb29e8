#include "tensor/safetensors_header.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/str.h"

/* All element types of the format (its dtype list as of library version 0.8). */
static const struct {
    const char *name;
    int bits;
} format_types[] = {
    {"F32", 32},        {"BF16", 16},       {"F16", 16}, {"I32", 32},    {"I64", 64},
    {"U8", 8},          {"BOOL", 8},        {"I8", 8},   {"I16", 16},    {"U16", 16},
    {"U32", 32},        {"U64", 64},        {"F64", 64}, {"C64", 64},    {"F8_E5M2", 8},
    {"F8_E4M3", 8},     {"F8_E8M0", 8},     {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6},
    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
};
#define FORMAT_TYPE_COUNT (sizeof format_types / sizeof format_types[0])

/* The largest integer that cJSON's doubles hold exactly; no file comes near it. */
#define INTEGER_MAX (INT64_C(1) << 53)

/* Outside its strings a header can hold nothing but punctuation, white space and plain decimal
 * digits: no sign, fraction, exponent, true, false or null. Checked on the text, because a JSON
 * parser that yields doubles cannot tell 8 from 8.0 or 8e0. */
static Status check_bytes(const char *text, size_t length, const char *where, Error *err)
{
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (in_string) {
            if (c < 0x20)
                return error_set(err, ERR_DATA,
                                 "%s: control character 0x%02x in a string at header byte %zu",
                                 where, c, i);
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '\0' || strchr("{}[]:, \t\r\n0123456789", c) == NULL) {
            return error_set(err, ERR_DATA,
                             "%s: byte 0x%02x at header byte %zu; outside strings only whole "
                             "numbers and punctuation can stand there",
                             where, c, i);
        } else if (c == '0' && i + 1 < length && text[i + 1] >= '0' && text[i + 1] <= '9' &&
                   !(i > 0 && text[i - 1] >= '0' && text[i - 1] <= '9')) {
            return error_set(err, ERR_DATA, "%s: number with a leading zero at header byte %zu",
                             where, i);
        }
    }
    return OK;
}

static Status whole_number(const cJSON *value, const char *where, const char *name,
                           const char *what, int64_t *ret, Error *err)
{
    if (!cJSON_IsNumber(value))
        return error_set(err, ERR_DATA, "%s: tensor %s: %s holds %s, expected a whole number",
                         where, QUOTED(name), what, json_type_name(value));
    if (!(value->valuedouble >= 0 && value->valuedouble <= (double)INTEGER_MAX))
        return error_set(err, ERR_DATA, "%s: tensor %s: %s holds %g, expected 0 to %" PRId64, where,
                         QUOTED(name), what, value->valuedouble, INTEGER_MAX);
    *ret = (int64_t)value->valuedouble;
    return OK;
}

static Status parse_type(const cJSON *value, const char *where, SafetensorsTensor *tensor,
                         int *ret_bits, Error *err)
{
    if (!cJSON_IsString(value))
        return error_set(err, ERR_DATA, "%s: tensor %s: dtype is %s, expected a string", where,
                         QUOTED(tensor->name), json_type_name(value));
    for (size_t i = 0; i < FORMAT_TYPE_COUNT; i++) {
        if (strcmp(format_types[i].name, value->valuestring) != 0) continue;
        tensor->dtype_name = format_types[i].name;
        *ret_bits = format_types[i].bits;
        if (dtype_from_safetensors_name(tensor->dtype_name, &tensor->dtype, NULL) != OK)
            tensor->dtype = DTYPE_COUNT;
        return OK;
    }
    return error_set(err, ERR_DATA, "%s: tensor %s: unknown dtype %s", where, QUOTED(tensor->name),
                     QUOTED(value->valuestring));
}

static Status parse_shape(const cJSON *value, const char *where, SafetensorsTensor *tensor,
                          int64_t *ret_count, Error *err)
{
    if (!cJSON_IsArray(value))
        return error_set(err, ERR_DATA, "%s: tensor %s: shape is %s, expected a list", where,
                         QUOTED(tensor->name), json_type_name(value));
    int64_t count = 1;
    bool overflow = false, empty = false;
    for (const cJSON *item = value->child; item != NULL; item = item->next) {
        int64_t size = 0;
        TRY(whole_number(item, where, tensor->name, "shape", &size, err));
        if (tensor->rank < TENSOR_RANK_MAX) tensor->shape[tensor->rank] = size;
        tensor->rank++;
        empty = empty || size == 0;
        overflow = overflow || __builtin_mul_overflow(count, size, &count);
    }
    if (overflow && !empty)
        return error_set(err, ERR_DATA, "%s: tensor %s: the product of its shape overflows", where,
                         QUOTED(tensor->name));
    *ret_count = empty ? 0 : count;
    return OK;
}

static Status parse_offsets(const cJSON *value, const char *where, SafetensorsTensor *tensor,
                            Error *err)
{
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) != 2)
        return error_set(err, ERR_DATA, "%s: tensor %s: data_offsets must be a list of two numbers",
                         where, QUOTED(tensor->name));
    TRY(whole_number(value->child, where, tensor->name, "data_offsets", &tensor->begin, err));
    TRY(whole_number(value->child->next, where, tensor->name, "data_offsets", &tensor->end, err));
    if (tensor->begin > tensor->end)
        return error_set(err, ERR_DATA,
                         "%s: tensor %s: data_offsets begin at %" PRId64
                         " and end before it, at %" PRId64,
                         where, QUOTED(tensor->name), tensor->begin, tensor->end);
    return OK;
}

static Status check_size(const char *where, const SafetensorsTensor *tensor, int64_t count,
                         int bits, Error *err)
{
    int64_t total_bits = 0;
    if (__builtin_mul_overflow(count, (int64_t)bits, &total_bits))
        return error_set(err, ERR_DATA, "%s: tensor %s: its size in bits overflows", where,
                         QUOTED(tensor->name));
    if (total_bits % 8 != 0)
        return error_set(err, ERR_DATA,
                         "%s: tensor %s: %" PRId64 " elements of %s fill no whole bytes", where,
                         QUOTED(tensor->name), count, tensor->dtype_name);
    if (total_bits / 8 != tensor->end - tensor->begin)
        return error_set(err, ERR_DATA,
                         "%s: tensor %s: its shape and dtype (%" PRId64 " x %s) need %" PRId64
                         " bytes, its data_offsets hold %" PRId64,
                         where, QUOTED(tensor->name), count, tensor->dtype_name, total_bits / 8,
                         tensor->end - tensor->begin);
    return OK;
}

static Status parse_tensor(const cJSON *object, const char *where, SafetensorsTensor *tensor,
                           Error *err)
{
    static const char *const members[] = {"dtype", "shape", "data_offsets"};
    const cJSON *found[3] = {NULL};
    tensor->name = mem_strdup(object->string);
    if (!cJSON_IsObject(object))
        return error_set(err, ERR_DATA, "%s: tensor %s is %s, expected an object", where,
                         QUOTED(tensor->name), json_type_name(object));
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        int which = 0;
        while (which < 3 && strcmp(members[which], member->string) != 0)
            which++;
        if (which == 3)
            return error_set(err, ERR_DATA, "%s: tensor %s has the unknown member %s", where,
                             QUOTED(tensor->name), QUOTED(member->string));
        if (found[which] != NULL)
            return error_set(err, ERR_DATA, "%s: tensor %s has \"%s\" twice", where,
                             QUOTED(tensor->name), members[which]);
        found[which] = member;
    }
    for (int i = 0; i < 3; i++)
        if (found[i] == NULL)
            return error_set(err, ERR_DATA, "%s: tensor %s has no \"%s\"", where,
                             QUOTED(tensor->name), members[i]);
    int64_t count = 0;
    int bits = 0;
    TRY(parse_type(found[0], where, tensor, &bits, err));
    TRY(parse_shape(found[1], where, tensor, &count, err));
    TRY(parse_offsets(found[2], where, tensor, err));
    return check_size(where, tensor, count, bits, err);
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static Status check_metadata(const cJSON *object, const char *where, Error *err)
{
    if (!cJSON_IsObject(object))
        return error_set(err, ERR_DATA, "%s: __metadata__ is %s, expected an object", where,
                         json_type_name(object));
    int count = cJSON_GetArraySize(object);
    const char **names = mem_calloc((size_t)count, sizeof *names);
    Status status = OK;
    int used = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        names[used++] = member->string;
        if (!cJSON_IsString(member) && status == OK)
            status = error_set(err, ERR_DATA, "%s: __metadata__ %s is %s, expected a string", where,
                               QUOTED(member->string), json_type_name(member));
    }
    qsort(names, (size_t)count, sizeof *names, compare_text);
    for (int i = 1; i < count && status == OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status =
                error_set(err, ERR_DATA, "%s: __metadata__ has %s twice", where, QUOTED(names[i]));
    free(names);
    return status;
}

static int compare_tensor_name(const void *a, const void *b)
{
    return strcmp(((const SafetensorsTensor *)a)->name, ((const SafetensorsTensor *)b)->name);
}

static int compare_tensor_place(const void *a, const void *b)
{
    const SafetensorsTensor *x = *(const SafetensorsTensor *const *)a;
    const SafetensorsTensor *y = *(const SafetensorsTensor *const *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* Every byte of the data part belongs to exactly one tensor: nothing can hide between or behind
 * them. */
static Status check_places(const SafetensorsHeader *header, int64_t data_bytes, const char *where,
                           Error *err)
{
    const SafetensorsTensor **order = mem_calloc((size_t)header->count, sizeof *order);
    for (int i = 0; i < header->count; i++)
        order[i] = &header->tensor[i];
    qsort(order, (size_t)header->count, sizeof *order, compare_tensor_place);
    Status status = OK;
    int64_t at = 0;
    for (int i = 0; i < header->count && status == OK; i++) {
        if (order[i]->begin < at)
            status = error_set(
                err, ERR_DATA,
                "%s: tensor %s begins at byte %" PRId64 " inside %s, which ends at %" PRId64, where,
                QUOTED(order[i]->name), order[i]->begin, QUOTED(order[i - 1]->name), at);
        else if (order[i]->begin > at)
            status = error_set(err, ERR_DATA,
                               "%s: bytes %" PRId64 " to %" PRId64
                               " before tensor %s belong to no tensor",
                               where, at, order[i]->begin, QUOTED(order[i]->name));
        at = order[i]->end;
    }
    if (status == OK && at > data_bytes)
        status = error_set(err, ERR_DATA,
                           "%s is cut: its header promises %" PRId64 " bytes of tensors, %" PRId64
                           " are there",
                           where, at, data_bytes);
    else if (status == OK && at < data_bytes)
        status = error_set(err, ERR_DATA,
                           "%s: %" PRId64 " bytes after the last tensor belong to no tensor", where,
                           data_bytes - at);
    free(order);
    return status;
}

/* Fills `header`, also partly on failure: the caller clears it. */
static Status parse_members(const cJSON *json, int64_t data_bytes, const char *where,
                            SafetensorsHeader *header, Error *err)
{
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_DATA, "%s: the header is %s, expected an object", where,
                         json_type_name(json));
    bool metadata = false;
    header->tensor = mem_calloc((size_t)cJSON_GetArraySize(json), sizeof *header->tensor);
    for (const cJSON *member = json->child; member != NULL; member = member->next) {
        if (strcmp(member->string, "__metadata__") != 0) {
            TRY(parse_tensor(member, where, &header->tensor[header->count++], err));
            continue;
        }
        if (metadata) return error_set(err, ERR_DATA, "%s: __metadata__ stands twice", where);
        metadata = true;
        TRY(check_metadata(member, where, err));
    }
    qsort(header->tensor, (size_t)header->count, sizeof *header->tensor, compare_tensor_name);
    for (int i = 1; i < header->count; i++)
        if (strcmp(header->tensor[i - 1].name, header->tensor[i].name) == 0)
            return error_set(err, ERR_DATA, "%s: tensor %s stands twice", where,
                             QUOTED(header->tensor[i].name));
    return check_places(header, data_bytes, where, err);
}

Status safetensors_header_parse(const char *text, size_t length, int64_t data_bytes,
                                const char *where, SafetensorsHeader *ret, Error *err)
{
    if (length > SAFETENSORS_HEADER_MAX)
        return error_set(err, ERR_DATA, "%s: the header has %zu bytes, the format allows %u", where,
                         length, SAFETENSORS_HEADER_MAX);
    if (length == 0 || text[0] != '{')
        return error_set(err, ERR_DATA, "%s: the header does not begin with '{'", where);
    TRY(check_bytes(text, length, where, err));
    cJSON *json = NULL;
    TRY(json_parse(text, length, where, &json, err));
    SafetensorsHeader header = {0};
    Status status = parse_members(json, data_bytes, where, &header, err);
    cJSON_Delete(json);
    if (status != OK) {
        safetensors_header_clear(&header);
        return status;
    }
    *ret = header;
    return OK;
}

void safetensors_header_clear(SafetensorsHeader *header)
{
    for (int i = 0; i < header->count; i++)
        free(header->tensor[i].name);
    free(header->tensor);
    *header = (SafetensorsHeader){0};
}

const SafetensorsTensor *safetensors_header_find(const SafetensorsHeader *header, const char *name)
{
    SafetensorsTensor key = {.name = (char *)name};
    if (header->count == 0) return NULL;
    return bsearch(&key, header->tensor, (size_t)header->count, sizeof key, compare_tensor_name);
}
