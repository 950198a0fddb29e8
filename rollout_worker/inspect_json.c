/* An inspection as JSON: the same figures under the names that the code has for them. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/inspect_view.h"

static void add_count(cJSON *object, const char *key, uint64_t value)
{
    cJSON_AddNumberToObject(object, key, (double)value);
}

/* ---- the record ---- */

static cJSON *make_trace(const InspectedRecord *record)
{
    const TokenizedConversation *conversation = &record->trace.conversation;
    if (conversation->length == 0) return cJSON_CreateNull();
    cJSON *object = cJSON_CreateObject(), *mask = cJSON_CreateArray();
    for (size_t t = 0; t < conversation->length; t++)
        cJSON_AddItemToArray(mask, cJSON_CreateNumber(conversation->loss_mask[t]));
    cJSON_AddStringToObject(object, "text", conversation->text);
    cJSON_AddItemToObject(object, "ids",
                          cJSON_CreateIntArray(conversation->token, (int)conversation->length));
    cJSON_AddItemToObject(object, "loss_mask", mask);
    return object;
}

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (text != NULL)
        cJSON_AddStringToObject(object, key, text);
    else
        cJSON_AddNullToObject(object, key);
}

static cJSON *make_record(const InspectedRecord *record)
{
    const Sample *sample = &record->sample;
    bool rejected = sample->status == SAMPLE_REJECTED;
    cJSON *object = cJSON_CreateObject();
    if (record->numbered)
        add_count(object, "index", record->index);
    else
        cJSON_AddNullToObject(object, "index");
    cJSON_AddStringToObject(object, "of", record->key);
    cJSON_AddStringToObject(object, "source", record->source);
    add_text(object, "shape", record->trace.shape);
    if (record->trace.label != NULL) add_text(object, "label", record->trace.label);
    cJSON_AddStringToObject(object, "status", sample_status_name(sample->status));
    add_count(object, "tokens", (uint64_t)sample->length);
    add_count(object, "trained_tokens", (uint64_t)sample_meta(sample).trained_tokens);
    add_text(object, "reason", rejected ? reject_reason_name(sample->reject_reason) : NULL);
    add_text(object, "message", sample->reject_message);
    cJSON *odd = cJSON_AddObjectToObject(object, "odd");
    for (int i = 0; i < NOTE_COUNT; i++)
        if (sample->note_message[i] != NULL)
            cJSON_AddStringToObject(odd, sample_note_name((SampleNote)i), sample->note_message[i]);
    cJSON_AddItemToObject(object, "rendered", make_trace(record));
    return object;
}

/* ---- the summary ---- */

static cJSON *make_length(const InspectSummary *summary)
{
    uint64_t n = summary->num_lengths;
    if (n == 0) return cJSON_CreateNull();
    const int32_t *length = summary->length;
    cJSON *object = cJSON_CreateObject();
    add_count(object, "records", n);
    cJSON_AddNumberToObject(object, "least", length[0]);
    cJSON_AddNumberToObject(object, "median", length[(n - 1) / 2]);
    cJSON_AddNumberToObject(object, "nine_tenths", length[(n - 1) * 9 / 10]);
    cJSON_AddNumberToObject(object, "most", length[n - 1]);
    add_count(object, "over_max", summary->over_max);
    return object;
}

static cJSON *make_findings(const InspectSummary *summary)
{
    cJSON *list = cJSON_CreateArray();
    for (uint64_t i = 0; i < summary->num_findings; i++) {
        const InspectFinding *finding = &summary->finding[i];
        cJSON *object = cJSON_CreateObject();
        add_count(object, "index", finding->index);
        cJSON_AddStringToObject(object, "source", finding->source);
        cJSON_AddBoolToObject(object, "rejected", finding->rejected);
        cJSON_AddStringToObject(object, "reason",
                                finding->rejected ? reject_reason_name((RejectReason)finding->kind)
                                                  : sample_note_name((SampleNote)finding->kind));
        cJSON_AddStringToObject(object, "message", finding->message);
        cJSON_AddItemToArray(list, object);
    }
    return list;
}

static cJSON *make_summary(const InspectOptions *options, const InspectSummary *summary)
{
    cJSON *object = cJSON_CreateObject();
    add_count(object, "records", summary->records);
    cJSON_AddBoolToObject(object, "all", summary->all);
    if (summary->there > 0)
        add_count(object, "records_there", summary->there);
    else
        cJSON_AddNullToObject(object, "records_there");
    add_count(object, "json_bytes", summary->json_bytes);
    add_count(object, "completed", summary->completed);
    add_count(object, "truncated", summary->truncated);
    add_count(object, "tokens", summary->tokens);
    add_count(object, "trained_tokens", summary->trained);
    cJSON *shapes = cJSON_AddObjectToObject(object, "shapes");
    for (int i = 0; i < SHAPES_MAX && summary->shape[i].name != NULL; i++)
        add_count(shapes, summary->shape[i].name, summary->shape[i].records);
    cJSON_AddItemToObject(object, "length", make_length(summary));
    cJSON *rejected = cJSON_AddObjectToObject(object, "rejected");
    for (int i = REJECT_NONE + 1; i < REJECT_REASON_COUNT; i++) {
        cJSON *reason = cJSON_AddObjectToObject(rejected, reject_reason_name((RejectReason)i));
        add_count(reason, "records", summary->rejected[i]);
        cJSON_AddBoolToObject(reason, "ends_run", inspect_stops(options->config, (RejectReason)i));
    }
    cJSON *odd = cJSON_AddObjectToObject(object, "odd");
    for (int i = 0; i < NOTE_COUNT; i++)
        add_count(odd, sample_note_name((SampleNote)i), summary->odd[i]);
    cJSON_AddItemToObject(object, "findings", make_findings(summary));
    return object;
}

/* Of a mixture. */
static cJSON *make_sources(const InspectOptions *options, const Inspection *inspection,
                           const InspectSummary *summary)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < inspection_num_sources(inspection); i++) {
        InspectedSource source = inspection_source(inspection, i);
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "name", source.name);
        cJSON_AddNumberToObject(object, "share", source.share);
        if (source.records > 0)
            add_count(object, "records", source.records);
        else
            cJSON_AddNullToObject(object, "records");
        if (summary != NULL)
            cJSON_AddItemToObject(object, "summary", make_summary(options, &summary[i]));
        cJSON_AddItemToArray(list, object);
    }
    return list;
}

static cJSON *make_entries(const Inspection *inspection)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < inspection_num_sources(inspection); i++) {
        const StringList *lines = inspection_entries(inspection, i);
        for (int l = 0; lines != NULL && l < lines->count; l++)
            cJSON_AddItemToArray(list, cJSON_CreateString(lines->item[l]));
    }
    return list;
}

void inspect_view_json(const InspectOptions *options, const Inspection *inspection,
                       const InspectedRecord *record, const InspectSummary *summary, Str *out)
{
    bool mixed = inspection_num_sources(inspection) > 1;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "set", inspect_set_key(options));
    cJSON_AddItemToObject(root, "entries", make_entries(inspection));
    if (record != NULL) cJSON_AddItemToObject(root, "record", make_record(record));
    if (mixed)
        cJSON_AddItemToObject(root, "sources", make_sources(options, inspection, summary));
    else if (summary != NULL)
        cJSON_AddItemToObject(root, "summary", make_summary(options, summary));
    char *text = cJSON_PrintUnformatted(root);
    CHECK(text != NULL);
    str_puts(out, text);
    str_putc(out, '\n');
    cJSON_free(text);
    cJSON_Delete(root);
}
