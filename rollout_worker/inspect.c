#include "rollout_worker/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/eval_set.h"
#include "dataset/stream.h"

struct Inspection {
    InspectOptions options;
    Stream *stream;
    const Dataset *dataset; /* of `stream` */
    const RolloutTable *table;
    void *shared, *scratch;
    Str text; /* of the record at hand */
};

const char *inspect_set_key(const InspectOptions *options)
{
    if (options->set == NULL) return "data.train";
    int index = eval_set_find(options->config, options->set);
    return index >= 0 ? eval_set(options->config, index).key : "data.eval";
}

static Status find_files(const InspectOptions *options, StringList *ret, Error *err)
{
    const JobConfig *config = options->config;
    int index = options->set != NULL ? eval_set_find(config, options->set) : -1;
    *ret = index >= 0 ? *eval_set(config, index).path : config->data.train;
    if (options->set == NULL || index >= 0) return OK;
    if (strcmp(options->set, "eval") == 0)
        return error_set(err, ERR_INVALID, "the job names no files of data.eval");
    Str names = {0};
    for (int i = 0; i < eval_set_count(config); i++)
        str_printf(&names, " %s", eval_set(config, i).name);
    error_set(err, ERR_INVALID, "the job has no evaluation set %s; those that it has:%s",
              options->set, names.length > 0 ? str_text(&names) : " none");
    str_free(&names);
    return ERR_INVALID;
}

/* A position may lead to any record, so it takes the whole data set. */
static uint64_t records_needed(const InspectOptions *options)
{
    uint64_t chosen = options->choice.number + 1;
    if (options->choice.by_position) return 0;
    return chosen > options->summary_records ? chosen : options->summary_records;
}

static Status open_stream(Inspection *inspection, Error *err)
{
    const InspectOptions *options = &inspection->options;
    const JobConfig *config = options->config;
    StringList paths;
    TRY(find_files(options, &paths, err));
    char *index_folder = path_join(config->run_dir, "index");
    char *hub_commits = path_join(config->run_dir, DATASET_HUB_COMMITS);
    DataOrder order = {.kind = ORDER_FILES};
    if (options->set == NULL) order = job_data_order(config); /* as the run's data source */
    StreamOptions stream = {
        .key = inspect_set_key(options),
        .path = (const char *const *)paths.item,
        .num_paths = paths.count,
        .index_folder = index_folder,
        .index_read_only = true,
        .records_max = records_needed(options),
        .order = order,
        .seed = (uint64_t)config->seed,
        .hub_commits = hub_commits,
        .hub_bytes_max = (int64_t)(config->data.cache_gb * 1e9),
    };
    Status status = stream_open(&stream, &inspection->stream, err);
    if (status == OK) inspection->dataset = stream_dataset(inspection->stream);
    free(index_folder);
    free(hub_commits);
    return status;
}

bool inspection_is_possible(const JobConfig *config)
{
    return rollout_table(config->rollout.function)->explain != NULL;
}

static Status open_table(Inspection *inspection, Error *err)
{
    const JobConfig *config = inspection->options.config;
    inspection->table = rollout_table(config->rollout.function);
    if (inspection->table->explain == NULL)
        return error_set(err, ERR_UNSUPPORTED,
                         "samples of rollout.function %s cannot be looked at without a run",
                         inspection->table->name);
    TRY(inspection->table->open(config, &inspection->shared, err));
    inspection->scratch = inspection->table->open_thread(inspection->shared);
    return OK;
}

Status inspection_open(const InspectOptions *options, Inspection **ret, Error *err)
{
    Inspection *inspection = mem_calloc(1, sizeof *inspection);
    inspection->options = *options;
    Status status = open_stream(inspection, err);
    if (status == OK) status = open_table(inspection, err);
    if (status == OK) {
        *ret = inspection;
        inspection = NULL;
    }
    inspection_close(inspection);
    return status;
}

char *inspection_warnings(const Inspection *inspection)
{
    const RolloutTable *table = inspection->table;
    return table->warnings != NULL ? table->warnings(inspection->shared) : NULL;
}

void inspection_close(Inspection *inspection)
{
    if (inspection == NULL) return;
    if (inspection->scratch != NULL) inspection->table->close_thread(inspection->scratch);
    if (inspection->shared != NULL) inspection->table->close(inspection->shared);
    stream_close(inspection->stream);
    str_free(&inspection->text);
    free(inspection);
}

/* ---- one record ---- */

void inspected_record_clear(InspectedRecord *record)
{
    free(record->source);
    sample_clear(&record->sample);
    rollout_trace_clear(&record->trace);
    *record = (InspectedRecord){0};
}

static Status inspect_record(Inspection *inspection, uint64_t index, uint64_t position,
                             InspectedRecord *ret, Error *err)
{
    RecordSource source;
    str_clear(&inspection->text);
    Status status = dataset_read(inspection->dataset, index, &inspection->text, &source, err);
    if (status != OK && status != ERR_DATA) return status;
    *ret = (InspectedRecord){.index = index};
    ret->source = mem_printf("%s:%llu", source.path, (unsigned long long)source.line);
    RolloutRecord record = {
        .position = (int64_t)position,
        .text = inspection->text.data,
        .length = inspection->text.length,
        .source = ret->source,
        .error = status == OK ? "" : err->message,
        .set = inspection->options.set,
    };
    inspection->table->explain(inspection->shared, inspection->scratch, &record, &ret->sample,
                               &ret->trace);
    return OK;
}

Status inspection_choose(Inspection *inspection, InspectedRecord *ret, Error *err)
{
    const InspectOptions *options = &inspection->options;
    uint64_t records = dataset_summary(inspection->dataset).records;
    uint64_t index = options->choice.number;
    if (options->choice.by_position) {
        StreamReader *reader = stream_reader_open(inspection->stream);
        StreamPlace place = {0};
        Status status = stream_place(reader, options->choice.number, &place, err);
        stream_reader_close(reader);
        TRY(status);
        index = place.index;
    }
    if (index >= records)
        return error_set(err, ERR_INVALID,
                         "there is no record %llu in %s: it has %llu\n"
                         "  expected: a number from 0 to %llu\n"
                         "  to do: give another --sample",
                         (unsigned long long)index, inspect_set_key(options),
                         (unsigned long long)records, (unsigned long long)records - 1);
    return inspect_record(inspection, index, options->choice.number, ret, err);
}

/* ---- the first records ---- */

void inspect_summary_clear(InspectSummary *summary)
{
    for (uint64_t i = 0; i < summary->num_findings; i++) {
        free(summary->finding[i].source);
        free(summary->finding[i].message);
    }
    free(summary->finding);
    free(summary->length);
    *summary = (InspectSummary){0};
}

static void count_shape(InspectSummary *summary, const char *name)
{
    int i = 0;
    if (name == NULL) return;
    while (i < SHAPES_MAX - 1 && summary->shape[i].name != NULL && summary->shape[i].name != name)
        i++;
    summary->shape[i].name = name;
    summary->shape[i].records++;
}

const InspectFinding *inspect_first(const InspectSummary *summary, bool rejected, int kind)
{
    for (uint64_t i = 0; i < summary->num_findings; i++)
        if (summary->finding[i].rejected == rejected && summary->finding[i].kind == kind)
            return &summary->finding[i];
    return NULL;
}

static void find(InspectSummary *summary, uint64_t listed_max, const InspectedRecord *record,
                 bool rejected, int kind)
{
    uint64_t count = summary->num_findings;
    const char *message =
        rejected ? record->sample.reject_message : record->sample.note_message[kind];
    if (count >= listed_max && inspect_first(summary, rejected, kind) != NULL) return;
    if ((count & (count - 1)) == 0) /* grows at powers of two */
        summary->finding = mem_realloc(summary->finding, 2 * count + 1, sizeof *summary->finding);
    summary->finding[summary->num_findings++] = (InspectFinding){
        .rejected = rejected,
        .kind = kind,
        .index = record->index,
        .source = mem_strdup(record->source),
        .message = mem_strdup(message),
    };
}

static void count_sample(InspectSummary *summary, uint64_t listed_max,
                         const InspectedRecord *record)
{
    const Sample *sample = &record->sample;
    if (sample->status == SAMPLE_REJECTED) {
        summary->rejected[sample->reject_reason]++;
        find(summary, listed_max, record, true, sample->reject_reason);
        return;
    }
    for (int note = 0; note < NOTE_COUNT; note++) {
        if ((sample->notes >> note & 1) == 0) continue;
        summary->odd[note]++;
        find(summary, listed_max, record, false, note);
    }
    SampleMeta meta = sample_meta(sample);
    summary->completed += sample->status == SAMPLE_COMPLETED;
    summary->truncated += sample->status == SAMPLE_TRUNCATED;
    summary->tokens += (uint64_t)meta.length;
    summary->trained += (uint64_t)meta.trained_tokens;
}

static int compare_lengths(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

Status inspection_summarize(Inspection *inspection, InspectSummary *ret, Error *err)
{
    DatasetSummary set = dataset_summary(inspection->dataset);
    uint64_t count = inspection->options.summary_records;
    if (count > set.records) count = set.records;
    InspectSummary summary = {.records = count, .all = set.whole && count == set.records};
    summary.length = mem_calloc(count, sizeof *summary.length);
    Status status = OK;
    for (uint64_t index = 0; index < count && status == OK; index++) {
        InspectedRecord record = {0};
        status = inspect_record(inspection, index, index, &record, err);
        if (status != OK) break;
        size_t length = record.trace.conversation.length;
        summary.json_bytes += inspection->text.length;
        count_shape(&summary, record.trace.shape);
        count_sample(&summary, inspection->options.listed_max, &record);
        if (length > 0) summary.length[summary.num_lengths++] = (int32_t)length;
        summary.over_max += length > (size_t)inspection->options.config->data.max_length;
        inspected_record_clear(&record);
    }
    qsort(summary.length, summary.num_lengths, sizeof *summary.length, compare_lengths);
    if (status == OK)
        *ret = summary;
    else
        inspect_summary_clear(&summary);
    return status;
}

bool inspect_stops(const JobConfig *config, RejectReason reason)
{
    DataPolicy policy = reason == REJECT_TOO_LONG           ? config->data.too_long
                        : reason == REJECT_NOTHING_TO_TRAIN ? config->data.nothing_to_train
                        : reason == REJECT_NOT_RENDERED     ? config->data.not_rendered
                                                            : config->data.bad_record;
    return policy == POLICY_STOP;
}
