#include "sample/sample.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "rollout.pb-c.h"

/* The arrays travel as they lie in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire form is little-endian");
_Static_assert(sizeof(float) == 4, "the wire form has 4-byte floats");

static const char *const status_names[SAMPLE_STATUS_COUNT] = {
    [SAMPLE_COMPLETED] = "completed",
    [SAMPLE_TRUNCATED] = "truncated",
    [SAMPLE_REJECTED] = "rejected",
    [SAMPLE_ABORTED] = "aborted",
};

static const char *const reason_names[REJECT_REASON_COUNT] = {
    [REJECT_NONE] = "none",
    [REJECT_NOTHING_TO_TRAIN] = "nothing_to_train",
    [REJECT_TOO_LONG] = "too_long",
    [REJECT_BAD_RECORD] = "bad_record",
    [REJECT_TEMPLATE] = "template",
    [REJECT_NOT_RENDERED] = "not_rendered",
    [REJECT_UNJUDGED] = "unjudged",
    [REJECT_FAILED] = "failed",
    [REJECT_BY_FUNCTION] = "by_function",
};

static const char *const note_names[NOTE_COUNT] = {
    [NOTE_NOT_RENDERED] = "not_rendered",       [NOTE_EMPTY_ANSWER] = "empty_answer",
    [NOTE_BAD_ARGUMENTS] = "bad_arguments",     [NOTE_UNNAMED_CALL] = "unnamed_call",
    [NOTE_SPELLED_CONTROL] = "spelled_control", [NOTE_PREFILL_CUT] = "prefill_cut",
};

const char *sample_status_name(SampleStatus status)
{
    return (unsigned)status < SAMPLE_STATUS_COUNT ? status_names[status] : "unknown";
}

const char *reject_reason_name(RejectReason reason)
{
    return (unsigned)reason < REJECT_REASON_COUNT ? reason_names[reason] : "unknown";
}

bool reject_is_of_record(RejectReason reason)
{
    return reason != REJECT_UNJUDGED && reason != REJECT_FAILED && reason != REJECT_BY_FUNCTION;
}

const char *sample_note_name(SampleNote note)
{
    return (unsigned)note < NOTE_COUNT ? note_names[note] : "unknown";
}

void sample_clear(Sample *sample)
{
    free(sample->reject_message);
    for (int i = 0; i < NOTE_COUNT; i++)
        free(sample->note_message[i]);
    free(sample->token);
    free(sample->loss_mask);
    free(sample->log_prob);
    free(sample->version_run);
    memset(sample, 0, sizeof *sample);
}

SampleMeta sample_meta(const Sample *sample)
{
    int32_t trained = 0;
    for (int32_t t = 0; t < sample->length; t++)
        trained += sample->loss_mask[t];
    return (SampleMeta){
        .position = sample->position,
        .index = sample->index,
        .status = sample->status,
        .reject_reason = sample->reject_reason,
        .length = sample->length,
        .trained_tokens = trained,
        .reward = sample->reward,
        .right = sample->right,
        .weight_version = sample->weight_version,
        .notes = sample->notes,
        .work = sample->work,
    };
}

int64_t sample_version_at(const Sample *sample, int32_t t)
{
    int32_t end = sample->prompt_length;
    CHECK(t >= end && t < sample->length);
    for (int32_t i = 0; i < sample->num_version_runs; i++) {
        end += sample->version_run[i].count;
        if (t < end) return sample->version_run[i].version;
    }
    return sample->weight_version;
}

Status sample_check_policy(const Sample *sample, Error *err)
{
    if (sample->log_prob != NULL) return OK; /* unpacking has looked at each */
    for (int32_t t = 0; t < sample->length; t++)
        if (sample->loss_mask[t])
            return error_set(err, ERR_DATA,
                             "sample %lld/%d has no log-probs, but token %d of it is to be trained "
                             "as a policy's; a rollout function for reinforcement learning reports "
                             "one for each token it samples",
                             (long long)sample->position, sample->index, t);
    return OK;
}

/* The runs as the message has them; freed by the caller. */
static void pack_runs(const Sample *sample, Troupe__Sample *message)
{
    size_t count = (size_t)sample->num_version_runs;
    message->run_version = mem_calloc(count, sizeof *message->run_version);
    message->run_count = mem_calloc(count, sizeof *message->run_count);
    message->n_run_version = message->n_run_count = count;
    for (size_t i = 0; i < count; i++) {
        message->run_version[i] = (uint64_t)sample->version_run[i].version;
        message->run_count[i] = (uint32_t)sample->version_run[i].count;
    }
}

void sample_pack(const Sample *sample, uint8_t **ret_bytes, size_t *ret_length)
{
    CHECK(sample->length >= 0 && sample->length <= SAMPLE_TOKENS_MAX);
    CHECK(sample->position >= 0 && sample->index >= 0 && sample->weight_version >= 0);
    size_t length = (size_t)sample->length;
    Troupe__Sample message = TROUPE__SAMPLE__INIT;
    message.position = (uint64_t)sample->position;
    message.index = (uint32_t)sample->index;
    message.status = (uint32_t)sample->status;
    message.prompt_length = (uint32_t)sample->prompt_length;
    message.token = (ProtobufCBinaryData){length * 4, (uint8_t *)sample->token};
    message.loss_mask = (ProtobufCBinaryData){length, sample->loss_mask};
    if (sample->log_prob != NULL)
        message.log_prob = (ProtobufCBinaryData){length * 4, (uint8_t *)sample->log_prob};
    message.temperature = sample->temperature;
    pack_runs(sample, &message);
    message.reward = sample->reward;
    message.right = sample->right;
    message.other_weights = sample->other_weights;
    message.weight_version = (uint64_t)sample->weight_version;
    message.reject_reason = (uint32_t)sample->reject_reason;
    if (sample->reject_message != NULL) message.reject_message = sample->reject_message;
    size_t size = troupe__sample__get_packed_size(&message);
    uint8_t *bytes = mem_alloc(size);
    CHECK(troupe__sample__pack(&message, bytes) == size);
    *ret_bytes = bytes;
    *ret_length = size;
    free(message.run_version);
    free(message.run_count);
}

static Status check_numbers(const Troupe__Sample *message, Error *err)
{
    if (message->position > INT64_MAX)
        return error_set(err, ERR_DATA, "position %" PRIu64 " is out of range", message->position);
    if (message->index > INT32_MAX)
        return error_set(err, ERR_DATA, "index %" PRIu32 " is out of range", message->index);
    if (message->weight_version > INT64_MAX)
        return error_set(err, ERR_DATA, "weight_version %" PRIu64 " is out of range",
                         message->weight_version);
    if (message->status >= SAMPLE_STATUS_COUNT)
        return error_set(err, ERR_DATA, "status %" PRIu32 " is not one of the %d known",
                         message->status, SAMPLE_STATUS_COUNT);
    if (message->reject_reason >= REJECT_REASON_COUNT)
        return error_set(err, ERR_DATA, "reject_reason %" PRIu32 " is not one of the %d known",
                         message->reject_reason, REJECT_REASON_COUNT);
    if (!isfinite(message->reward))
        return error_set(err, ERR_DATA, "reward is %g, expected a finite number", message->reward);
    if (!isfinite(message->temperature) || message->temperature < 0)
        return error_set(err, ERR_DATA, "temperature is %g, expected a finite number, 0 or above",
                         message->temperature);
    return OK;
}

static Status check_rejection(const Troupe__Sample *message, Error *err)
{
    bool rejected = message->status == SAMPLE_REJECTED;
    if (rejected != (message->reject_reason != REJECT_NONE))
        return error_set(err, ERR_DATA, "status %s does not go with reject_reason %s",
                         sample_status_name((SampleStatus)message->status),
                         reject_reason_name((RejectReason)message->reject_reason));
    if (rejected != (message->token.len == 0))
        return error_set(err, ERR_DATA, "a sample with status %s holds %zu token bytes",
                         sample_status_name((SampleStatus)message->status), message->token.len);
    size_t length = strlen(message->reject_message);
    if (!rejected && length > 0)
        return error_set(err, ERR_DATA, "a sample that was not rejected has a reject_message");
    if (length >= ERROR_MESSAGE_MAX)
        return error_set(err, ERR_DATA, "reject_message has %zu bytes, at most %d are taken",
                         length, ERROR_MESSAGE_MAX - 1);
    size_t valid = utf8_valid_prefix(message->reject_message, length);
    if (valid < length)
        return error_set(err, ERR_DATA, "reject_message is not UTF-8 at byte %zu", valid);
    return OK;
}

/* The arrays against each other. Gives the number of tokens. */
static Status check_lengths(const Troupe__Sample *message, int32_t *ret_length, Error *err)
{
    if (message->token.len % 4 != 0 || message->token.len / 4 > SAMPLE_TOKENS_MAX)
        return error_set(err, ERR_DATA,
                         "token has %zu bytes, expected 4 for each of at most %d tokens",
                         message->token.len, SAMPLE_TOKENS_MAX);
    size_t length = message->token.len / 4;
    if (message->loss_mask.len != length)
        return error_set(err, ERR_DATA, "loss_mask has %zu entries for %zu tokens",
                         message->loss_mask.len, length);
    if (message->log_prob.len != 0 && message->log_prob.len != length * 4)
        return error_set(err, ERR_DATA, "log_prob has %zu bytes, expected none or %zu",
                         message->log_prob.len, length * 4);
    if ((message->log_prob.len != 0) != (message->temperature > 0))
        return error_set(err, ERR_DATA,
                         "log_prob has %zu bytes at temperature %g, expected both "
                         "or neither",
                         message->log_prob.len, message->temperature);
    if (message->prompt_length > length)
        return error_set(err, ERR_DATA, "prompt_length is %" PRIu32 " of %zu tokens",
                         message->prompt_length, length);
    *ret_length = (int32_t)length;
    return OK;
}

/* Log-probs: numbers, and of trained tokens such as a policy can have. */
static Status check_log_probs(const Sample *sample, Error *err)
{
    for (int32_t t = 0; sample->log_prob != NULL && t < sample->length; t++) {
        float value = sample->log_prob[t];
        if (isnan(value)) return error_set(err, ERR_DATA, "log_prob[%d] is not a number", t);
        if (sample->loss_mask[t] == 1 && !(isfinite(value) && value <= 0))
            return error_set(err, ERR_DATA,
                             "log_prob[%d] is %g, but the token is to be trained: expected a "
                             "finite number of at most 0",
                             t, (double)value);
    }
    return OK;
}

/* The runs of versions against the tokens that they are of. */
static Status take_runs(const Troupe__Sample *message, Sample *sample, Error *err)
{
    size_t count = message->n_run_version;
    int64_t left = sample->length - sample->prompt_length, version = -1;
    if (count != message->n_run_count)
        return error_set(err, ERR_DATA, "run_version has %zu entries, run_count %zu", count,
                         message->n_run_count);
    if (count == 0) return OK;
    if (sample->log_prob == NULL)
        return error_set(err, ERR_DATA, "there are %zu runs of versions, but no log-probs", count);
    sample->version_run = mem_calloc(count, sizeof *sample->version_run);
    sample->num_version_runs = (int32_t)count;
    for (size_t i = 0; i < count; i++) {
        uint64_t found = message->run_version[i], tokens = message->run_count[i];
        if (found > INT64_MAX || (int64_t)found <= version ||
            (i == 0 && (int64_t)found != sample->weight_version))
            return error_set(err, ERR_DATA,
                             "run %zu is of version %" PRIu64 ", expected ascending versions from "
                             "weight_version %" PRId64,
                             i, found, sample->weight_version);
        if (tokens == 0 || (int64_t)tokens > left)
            return error_set(err, ERR_DATA, "run %zu has %" PRIu64 " tokens, %" PRId64 " are left",
                             i, tokens, left);
        version = (int64_t)found;
        left -= (int64_t)tokens;
        sample->version_run[i] = (VersionRun){version, (int32_t)tokens};
    }
    if (left > 0)
        return error_set(err, ERR_DATA, "the runs of versions leave out %" PRId64 " tokens", left);
    return OK;
}

static Status check_values(const Sample *sample, Error *err)
{
    for (int32_t t = 0; t < sample->length; t++) {
        if (sample->token[t] < 0)
            return error_set(err, ERR_DATA, "token %d has the negative id %d", t, sample->token[t]);
        if (sample->loss_mask[t] > 1)
            return error_set(err, ERR_DATA, "loss_mask[%d] is %d, expected 0 or 1", t,
                             sample->loss_mask[t]);
        if (sample->loss_mask[t] == 1 &&
            t < (sample->prompt_length > 1 ? sample->prompt_length : 1))
            return error_set(err, ERR_DATA,
                             "loss_mask[%d] is 1, but nothing before token %d can be trained", t,
                             sample->prompt_length > 1 ? sample->prompt_length : 1);
    }
    return check_log_probs(sample, err);
}

/* protobuf-c allocates with malloc when no allocator is given, so an array can change its owner. */
static void *take(ProtobufCBinaryData *bytes)
{
    void *data = bytes->data;
    if (bytes->len == 0) {
        free(data);
        data = NULL;
    }
    bytes->data = NULL;
    bytes->len = 0;
    return data;
}

Status sample_unpack(const uint8_t *bytes, size_t length, Sample *ret, Error *err)
{
    Sample sample = {0};
    Error inner = {0};
    Troupe__Sample *message = troupe__sample__unpack(NULL, length, bytes);
    Status status = OK;
    if (message == NULL) {
        status = error_set(&inner, ERR_DATA, "not a protobuf message of this kind");
        goto done;
    }
    if ((status = check_numbers(message, &inner)) != OK) goto done;
    if ((status = check_rejection(message, &inner)) != OK) goto done;
    if ((status = check_lengths(message, &sample.length, &inner)) != OK) goto done;
    sample.position = (int64_t)message->position;
    sample.index = (int32_t)message->index;
    sample.status = (SampleStatus)message->status;
    sample.reject_reason = (RejectReason)message->reject_reason;
    if (sample.status == SAMPLE_REJECTED)
        sample.reject_message = mem_strdup(message->reject_message);
    sample.prompt_length = (int32_t)message->prompt_length;
    sample.reward = message->reward;
    sample.right = message->right;
    sample.other_weights = message->other_weights;
    sample.weight_version = (int64_t)message->weight_version;
    sample.temperature = message->temperature;
    sample.token = take(&message->token);
    sample.loss_mask = take(&message->loss_mask);
    sample.log_prob = take(&message->log_prob);
    if ((status = check_values(&sample, &inner)) != OK) goto done;
    if ((status = take_runs(message, &sample, &inner)) != OK) goto done;
    *ret = sample;
    memset(&sample, 0, sizeof sample);
done:
    if (status != OK)
        error_set(err, status, "malformed sample of %zu bytes: %s", length, inner.message);
    if (message != NULL) troupe__sample__free_unpacked(message, NULL);
    sample_clear(&sample);
    return status;
}
