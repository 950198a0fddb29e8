/* The start of a safetensors file: any bytes are either refused in one line, or describe tensors
 * that fill the data part exactly, are sorted by name and can be found by it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tensor/safetensors_header.h"

#define WHERE "model.safetensors"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_refusal(Status status, const Error *err)
{
    size_t size = strlen(err->message);
    CHECKF(status == ERR_DATA && size > 0, "%s", err->message);
    CHECKF(strstr(err->message, WHERE) == err->message, "%s", err->message);
    CHECKF(strchr(err->message, '\n') == NULL, "%s", err->message);
    CHECK(utf8_valid_prefix(err->message, size) == size);
}

static void check_header(const SafetensorsHeader *header, int64_t data_bytes)
{
    int64_t sum = 0;
    for (int i = 0; i < header->count; i++) {
        const SafetensorsTensor *tensor = &header->tensor[i];
        CHECK(tensor->begin >= 0 && tensor->begin <= tensor->end && tensor->end <= data_bytes);
        CHECK(i == 0 || strcmp(header->tensor[i - 1].name, tensor->name) < 0);
        CHECK(safetensors_header_find(header, tensor->name) == tensor);
        sum += tensor->end - tensor->begin;
        if (tensor->dtype == DTYPE_COUNT || tensor->rank > TENSOR_RANK_MAX) continue;
        Tensor view = {.dtype = tensor->dtype, .rank = tensor->rank};
        memcpy(view.shape, tensor->shape, sizeof view.shape);
        bool empty =
            tensor->begin == tensor->end; /* a product with 0 in it may overflow on the way */
        CHECK(empty || tensor_bytes(&view) == (size_t)(tensor->end - tensor->begin));
    }
    CHECK(sum == data_bytes);
}

/* The first 4 bytes choose the size of the data part, so that the fuzzer need not carry data. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    if (length < 4) return 0;
    int64_t data_bytes = bytes[0] | bytes[1] << 8 | bytes[2] << 16;
    Error err = {0};
    SafetensorsHeader header = {0};
    Status status = safetensors_header_parse((const char *)bytes + 4, length - 4, data_bytes, WHERE,
                                             &header, &err);
    if (status == OK)
        check_header(&header, data_bytes);
    else
        check_refusal(status, &err);
    safetensors_header_clear(&header);
    return 0;
}
