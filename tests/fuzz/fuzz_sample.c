/* A Sample from another process: any bytes are either refused in one line, or give a sample that
 * fits together and packs into something that gives it again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "sample/sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_sample(const Sample *sample)
{
    SampleMeta meta = sample_meta(sample);
    CHECK(meta.trained_tokens >= 0 && meta.trained_tokens <= sample->length);
    CHECK((sample->status == SAMPLE_REJECTED) == (sample->length == 0));
    CHECK(sample->prompt_length <= sample->length);
    for (int32_t t = 0; t < sample->length; t++)
        CHECK(sample->token[t] >= 0 && sample->loss_mask[t] <= 1);
    CHECK((sample->log_prob != NULL) == (sample->temperature > 0));
    if (sample->length > sample->prompt_length)
        CHECK(sample_version_at(sample, sample->length - 1) >= sample->weight_version);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    Error err = {0};
    Sample sample = {0}, again = {0};
    if (sample_unpack(bytes, length, &sample, &err) != OK) {
        size_t size = strlen(err.message);
        CHECK(err.status == ERR_DATA && utf8_valid_prefix(err.message, size) == size);
        CHECK(strchr(err.message, '\n') == NULL);
        return 0;
    }
    check_sample(&sample);
    uint8_t *packed = NULL;
    size_t packed_length = 0;
    sample_pack(&sample, &packed, &packed_length);
    CHECK(sample_unpack(packed, packed_length, &again, &err) == OK);
    CHECK(again.position == sample.position && again.length == sample.length);
    CHECK(sample.length == 0 || memcmp(again.token, sample.token, (size_t)sample.length * 4) == 0);
    free(packed);
    sample_clear(&sample);
    sample_clear(&again);
    return 0;
}
