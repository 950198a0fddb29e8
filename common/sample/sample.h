/* Sample: one sequence with what training needs to know of it; the unit that flows from rollout
 * workers to train ranks, in SFT and RL alike (slime's Sample). All per-token arrays have
 * `length` entries, always: token t's loss_mask says whether *predicting token t* is trained
 * (from the logits of row t-1).
 *
 * A group is all samples of one position: there is no other group id, and its size is how many
 * there are. A sample that a policy made says for each token with which log-prob it was drawn, at
 * which temperature, and from which version of the weights; what other hands wrote (prompts, tool
 * output between turns) has mask 0 and log-prob 0. Advantages are no part of a sample: they follow
 * from its group, and the train side takes them. */
#ifndef TROUPE_SAMPLE_SAMPLE_H
#define TROUPE_SAMPLE_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"

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
    REJECT_BAD_RECORD,   /* malformed JSON, wrong roles, missing keys */
    REJECT_TEMPLATE,     /* the chat template refused the conversation */
    REJECT_NOT_RENDERED, /* the chat template passed over part of it */
    REJECT_UNJUDGED,     /* its reward could not be taken: the verifier failed, not the model */
    REJECT_FAILED,       /* a tool or rollout function of the job's own failed, not the record */
    REJECT_BY_FUNCTION,  /* the rollout function passed it over */
    REJECT_REASON_COUNT,
} RejectReason;

/* What is odd about a record of which a sample was made nevertheless. */
typedef enum {
    NOTE_NOT_RENDERED,    /* as REJECT_NOT_RENDERED, and kept by policy */
    NOTE_EMPTY_ANSWER,    /* an assistant's message that is learned says nothing */
    NOTE_BAD_ARGUMENTS,   /* the arguments of a tool call are not, or do not spell, an object */
    NOTE_UNNAMED_CALL,    /* a tool call says not which function */
    NOTE_SPELLED_CONTROL, /* a text spells a special token, and stays text */
    NOTE_PREFILL_CUT,     /* a prompt ends in an assistant's message, which is left out */
    NOTE_COUNT,
} SampleNote;

const char *sample_status_name(SampleStatus status);
const char *reject_reason_name(RejectReason reason);
/* Whether it says something of the record: else of one answer to it, or of the job's own programs.
 */
bool reject_is_of_record(RejectReason reason);
const char *sample_note_name(SampleNote note);

/* `count` tokens that were sampled from weights of one version. */
typedef struct VersionRun {
    int64_t version;
    int32_t count;
} VersionRun;

/* How a sample of a policy's came about: figures for people. They stay where the sample is made,
 * and go to the controller with its meta. */
typedef struct SampleWork {
    int32_t turns;           /* that were generated, and are trained */
    int32_t tool_calls;      /* that were made ... */
    int32_t tool_errors;     /* ... and were answered with an error, which the model reads */
    int32_t retries;         /* of tools, rollout function and rewards that failed */
    float tool_s, judge_s;   /* waited for tools, and for rewards (of the whole group) */
    int32_t num_parts;       /* of a weighted sum of rewards; 0: there is one reward ... */
    float part[REWARDS_MAX]; /* ... and what each of them said, without its weight */
} SampleWork;

typedef struct Sample {
    int64_t position; /* in the ordered stream: the identity of the prompt, and of its group */
    int32_t index;    /* within its group: 0 in SFT */
    SampleStatus status;
    RejectReason reject_reason;
    char *reject_message; /* owned; NULL unless rejected */
    uint32_t notes;       /* bits 1 << SampleNote; these and their text stay where it is made */
    char *note_message[NOTE_COUNT]; /* of each; owned, NULL: none */
    int32_t length;                 /* tokens, prompt and response together */
    int32_t prompt_length;          /* tokens before the first trained one */
    int32_t *token;                 /* [length], owned */
    uint8_t *loss_mask;             /* [length], 0 or 1, owned; loss_mask[0] is 0 */
    float *log_prob;   /* [length], owned; NULL in SFT. Of trained tokens finite, at most 0 */
    float temperature; /* that log_prob is of logits divided by; 0 in SFT */
    float reward;
    bool right;              /* judged, and right: what pass@k counts */
    int64_t weight_version;  /* of the oldest weights that made any of it; 0 in SFT */
    VersionRun *version_run; /* [num_version_runs], owned: tokens prompt_length to length - 1, in
                                order, versions ascending; NULL: all of weight_version */
    int32_t num_version_runs;
    bool other_weights; /* of another run: not known to be those that this one calls by their
                           versions, so nothing of it is compared with these */
    SampleWork work;
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
    bool right;
    int64_t weight_version;
    uint32_t notes; /* bits 1 << SampleNote */
    SampleWork work;
} SampleMeta;

void sample_clear(Sample *sample); /* frees the arrays, zeroes the struct */
SampleMeta sample_meta(const Sample *sample);

/* The version of the weights that token t >= prompt_length was sampled from. */
int64_t sample_version_at(const Sample *sample, int32_t t);

/* Whether a policy can be trained on it: ERR_DATA when a token that is to be trained has no
 * log-prob. */
Status sample_check_policy(const Sample *sample, Error *err);

/* Wire form (protobuf message Sample of rollout.proto). Packing gives bytes owned by the caller;
 * unpacking checks lengths, masks and caps and refuses what does not fit together. */
void sample_pack(const Sample *sample, uint8_t **ret_bytes, size_t *ret_length);
Status sample_unpack(const uint8_t *bytes, size_t length, Sample *ret, Error *err);

#endif
