/* Sample: one sequence with what training needs to know of it; the unit that flows from rollout
 * workers to train ranks, in SFT and RL alike (slime's Sample). All per-token arrays have
 * `length` entries, always: token t's loss_mask says whether *predicting token t* is trained
 * (from the logits of row t-1). */
#ifndef TROUPE_SAMPLE_SAMPLE_H
#define TROUPE_SAMPLE_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum {
    SAMPLE_COMPLETED = 0, /* whole */
    SAMPLE_TRUNCATED,     /* cut to the length limit by policy, or generation hit its limit */
    SAMPLE_REJECTED, /* carries no sample: `reject_reason` says why; consumed but never trained */
    SAMPLE_ABORTED,  /* generation was stopped; to be redone or resumed */
    SAMPLE_STATUS_COUNT,
} SampleStatus;

typedef enum {
    REJECT_NONE = 0,
    REJECT_NOTHING_TO_TRAIN, /* no token carries loss */
    REJECT_TOO_LONG,
    REJECT_BAD_RECORD, /* malformed JSON, wrong roles, missing keys */
    REJECT_TEMPLATE,   /* the chat template refused the conversation */
    REJECT_REASON_COUNT,
} RejectReason;

const char *sample_status_name(SampleStatus status);
const char *reject_reason_name(RejectReason reason);

typedef struct Sample {
    int64_t position; /* in the ordered stream: the identity of the prompt */
    int32_t index;    /* within its group: 0 in SFT */
    SampleStatus status;
    RejectReason reject_reason;
    char *reject_message;  /* owned; NULL unless rejected */
    int32_t length;        /* tokens, prompt and response together */
    int32_t prompt_length; /* tokens before the first trained one */
    int32_t *token;        /* [length], owned */
    uint8_t *loss_mask;    /* [length], 0 or 1, owned; loss_mask[0] is 0 */
    float *log_prob;       /* [length], owned; NULL in SFT */
    float reward;
    int64_t weight_version; /* of the weights that generated it; 0 in SFT */
} Sample;

/* What the controller plans with: everything but the payload. */
typedef struct SampleMeta {
    int64_t position;
    int32_t index;
    SampleStatus status;
    RejectReason reject_reason;
    int32_t length;
    int32_t trained_tokens; /* ones in loss_mask */
    float reward;
    int64_t weight_version;
} SampleMeta;

void sample_clear(Sample *sample); /* frees the arrays, zeroes the struct */
SampleMeta sample_meta(const Sample *sample);

/* Wire form (protobuf message Sample of rollout.proto). Packing gives bytes owned by the caller;
 * unpacking checks lengths, masks and caps and refuses what does not fit together. */
void sample_pack(const Sample *sample, uint8_t **ret_bytes, size_t *ret_length);
Status sample_unpack(const uint8_t *bytes, size_t length, Sample *ret, Error *err);

#endif
