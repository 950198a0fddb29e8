/* Records that are not trained, or that are odd: what a job's policies say about them, and how many
 * there were and why. Each is named in the log once, however often it comes by (in a later epoch,
 * an evaluation, after a return to a checkpoint). */
#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/plural.h"
#include "config/source_set.h"

static DataPolicy policy_for(const Controller *c, RejectReason reason)
{
    switch (reason) {
    case REJECT_NOTHING_TO_TRAIN:
        return c->config->data.nothing_to_train;
    case REJECT_TOO_LONG:
        return c->config->data.too_long;
    case REJECT_NOT_RENDERED:
        return c->config->data.not_rendered;
    default:
        return c->config->data.bad_record;
    }
}

/* Records of the set, or of one source of a mixture, that are no conversation, each once: of the
 * training set since the beginning of the run, of the evaluation set in this evaluation. */
static int64_t bad_records(const Controller *c, SetName set, int source)
{
    const Stream *stream = &c->lane[set].stream;
    if (stream->turns != NULL)
        return c->done.source[source].bad_records + stream->bad_ahead_of[source];
    return (set == SET_TRAIN ? c->done.bad_records : c->eval.bad_records) + stream->bad_ahead;
}

/* What the policy may be in place of stop. Only `sft` cuts what is too long: what is too long for
 * an answer is a prompt. */
static const char *other_policies(const Controller *c, RejectReason reason)
{
    switch (reason) {
    case REJECT_NOTHING_TO_TRAIN:
        return "data.nothing_to_train: skip";
    case REJECT_TOO_LONG:
        return push_is_used(c) ? "data.too_long: skip" : "data.too_long: skip or truncate";
    case REJECT_NOT_RENDERED:
        return "data.not_rendered: skip or keep";
    default:
        return "data.bad_record: skip";
    }
}

/* A record at which the run ends. */
static void stop_at(Controller *c, SetName set, RejectReason reason, const char *message)
{
    if (c->failure.status != OK) return;
    core_finish_committed(c, ERR_DATA, "%s", message);
    c->failure.where = set == SET_TRAIN ? AT_TRAIN_RECORD : AT_EVAL_RECORD;
    snprintf(c->failure.remedy, sizeof c->failure.remedy, "%s", other_policies(c, reason));
}

static void stop_at_too_many(Controller *c, SetName set, int source, const char *message)
{
    bool mixed = c->lane[set].stream.turns != NULL;
    if (c->failure.status != OK) return;
    core_finish_committed(c, ERR_DATA,
                          "more than %lld record%s of the %s %s were bad (data.bad_records_max). "
                          "The last: %s",
                          (long long)c->config->data.bad_records_max,
                          plural(c->config->data.bad_records_max),
                          mixed ? "source" : core_set(c, set)->name,
                          mixed ? train_source(c->config, source).name : "set", message);
    snprintf(c->failure.remedy, sizeof c->failure.remedy, "with a higher data.bad_records_max");
}

/* What is behind the place of a record ("train.jsonl:7: "). */
static const char *behind_place(const char *message)
{
    const char *colon = strstr(message, ": ");
    return colon != NULL ? colon : message;
}

/* Each message once, and no more than the list holds. `shown`: whether looking at the records shows
 * it again; what fails at an answer is met by a run alone, and whatever the record is: one reason
 * is told once. */
static void log_once(Controller *c, MessageList *list, const char *event, const char *message,
                     bool shown)
{
    for (int i = 0; i < list->count; i++)
        if (strcmp(shown ? list->message[i] : behind_place(list->message[i]),
                   shown ? message : behind_place(message)) == 0)
            return;
    if (list->count < RECORDS_LOGGED) {
        list->message[list->count++] = mem_strdup(message);
        core_log(c, LOG_WARN, event, "%s", message);
    } else if (!list->more) {
        list->more = true;
        core_log(c, LOG_WARN, event, "further ones are counted and not printed%s",
                 shown ? ": `controller data inspect --count all` lists them" : "");
    }
}

void records_forget_messages(MessageList *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->message[i]);
    *list = (MessageList){0};
}

void records_rejected(Controller *c, SetName set, const SampleMeta *meta, const char *message)
{
    if (message == NULL) message = reject_reason_name(meta->reject_reason);
    if (reject_is_of_record(meta->reject_reason) &&
        policy_for(c, meta->reject_reason) == POLICY_STOP) {
        stop_at(c, set, meta->reject_reason, message);
        return;
    }
    int64_t max = c->config->data.bad_records_max;
    int source = max > 0 ? stream_source(&c->lane[set].stream, meta->position) : 0;
    if (max > 0 && bad_records(c, set, source) > max) {
        stop_at_too_many(c, set, source, message);
        return;
    }
    log_once(c, &c->rejects_logged, "sample_skipped", message,
             reject_is_of_record(meta->reject_reason));
}

void records_noted(Controller *c, const char *message)
{
    if (message != NULL) log_once(c, &c->notes_logged, "sample_odd", message, true);
}

void records_consumed(Controller *c, const Stream *stream, int64_t end)
{
    RecordTally *tally = &c->done.tally;
    for (int64_t p = stream->base; p < end; p++) {
        const SampleMeta *first = stream_samples(stream, p); /* it speaks for its record */
        bool rejected = stream_slot(stream, p)->state == SLOT_REJECTED;
        if (rejected) tally->rejected[first->reject_reason]++;
        for (int note = 0; note < NOTE_COUNT && !rejected; note++)
            tally->noted[note] += first->notes >> note & 1;
    }
}
