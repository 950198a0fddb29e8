#include "dataset/text_probe.h"

#include <stdlib.h>

#include "base/memory.h"
#include "dataset/block_text.h"
#include "dataset/file_probe.h"
#include "dataset/look_alike.h"
#include "dataset/text_source.h"

#define PROBE_MAGIC     UINT64_C(0x3162727070725400) /* on a little-endian machine */
#define SAMPLE_BYTES    (64u << 10)  /* of the file, of which the share is taken; ... */
#define SAMPLE_MORE     (256u << 10) /* ... of files whose first block is longer */
#define SAMPLE_TEXT_MAX (4u << 20)
#define SHARE_MAX       (64u * TEXT_SHARE_UNIT)
#define BLOCK_UNIT      1024u

enum { COUNT_HASH, COUNT_CODEC, COUNT_BLOCK_BYTES, COUNT_SHARE }; /* of the sidecar's head */

/* Decodes what the first `length` bytes of the file give. */
static Status decode_sample(const TextInput *whole, const TextCodec *codec, size_t length,
                            uint8_t *bytes, size_t *ret_length, Error *err)
{
    TextInput input = *whole;
    if (input.file_bytes > length) input.file_bytes = length;
    TextDecoder *decoder = NULL;
    ResumePoint from = {.unit = true};
    TRY(codec->open(&input, &from, NULL, &decoder, err));
    TextChunk chunk = {0};
    Status status = OK;
    Error damage = {0};
    size_t done = 0;
    while (done < SAMPLE_TEXT_MAX && status == OK && !chunk.end) {
        status = codec->step(decoder, bytes + done, SAMPLE_TEXT_MAX - done, &chunk, &damage);
        done += chunk.length;
    }
    codec->close(decoder);
    if (status != OK) *err = damage;
    *ret_length = done;
    return status;
}

/* How much text a byte of the file gives decides how the file is cut, so it is rounded: a decoder
 * may give a few bytes more or less of what is cut off. */
static void cut_file(uint64_t file_bytes, uint64_t sample, uint64_t sample_text, IndexHead *head)
{
    if (sample > file_bytes) sample = file_bytes;
    uint64_t share = (sample_text * TEXT_SHARE_UNIT + sample / 2) / (sample > 0 ? sample : 1);
    if (share < TEXT_SHARE_UNIT) share = TEXT_SHARE_UNIT;
    if (share > SHARE_MAX) share = SHARE_MAX;
    uint64_t bytes = (uint64_t)TEXT_BLOCK_BYTES * TEXT_SHARE_UNIT / share;
    head->count[COUNT_SHARE] = share;
    head->count[COUNT_BLOCK_BYTES] = (bytes + BLOCK_UNIT - 1) / BLOCK_UNIT * BLOCK_UNIT;
}

static Status take_sample(const TextInput *input, const TextCodec *codec, IndexHead *head,
                          Error *err)
{
    uint8_t *bytes = mem_alloc(SAMPLE_TEXT_MAX);
    size_t length = 0, sample = SAMPLE_BYTES;
    Status status = decode_sample(input, codec, sample, bytes, &length, err);
    if (status == OK && length == 0) {
        sample = SAMPLE_MORE;
        status = decode_sample(input, codec, sample, bytes, &length, err);
    }
    LookAlike look = {.path = input->path,
                      .text = (const char *)bytes,
                      .length = length < LOOK_ALIKE_BYTES ? length : LOOK_ALIKE_BYTES,
                      .whole = sample >= input->file_bytes && length <= LOOK_ALIKE_BYTES};
    if (status == OK) status = look_alike_check(&look, err);
    if (status == OK) cut_file(input->file_bytes, sample, length, head);
    free(bytes);
    return status;
}

static Status build(void *context, SidecarWriter *writer, IndexHead *head, Error *err)
{
    const TextInput *input = context;
    const TextCodec *codec = NULL;
    (void)writer;
    TRY(text_codec_find(input, &codec, err));
    TRY(file_probe(input->file, &head->count[COUNT_HASH], err));
    head->count[COUNT_CODEC] = text_codec_number(codec);
    return codec != NULL ? take_sample(input, codec, head, err) : OK;
}

static const SidecarKind probe_kind = {".probe", PROBE_MAGIC, build};

bool text_probe_known(const SidecarOptions *options)
{
    IndexHead head;
    return sidecar_known(&probe_kind, options, &head);
}

Status text_probe(const TextInput *input, IndexFolder *folder, TextProbe *ret, Error *err)
{
    SidecarOptions sidecar = {.file = input->file, .folder = folder, .context = (void *)input};
    Sidecar *known = NULL;
    TRY(sidecar_open(&probe_kind, &sidecar, &known, err));
    const uint64_t *count = known->head.count;
    *ret = (TextProbe){.hash = count[COUNT_HASH],
                       .codec = text_codec_of(count[COUNT_CODEC]),
                       .block_bytes = count[COUNT_BLOCK_BYTES],
                       .share = count[COUNT_SHARE]};
    sidecar_close(known);
    return OK;
}
