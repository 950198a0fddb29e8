#include "rollout_worker/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "config/source_set.h"
#include "job_data/job_data.h"

#define LOOKED_RECORDS 1024 /* after which it is told */

struct Inspection {
    InspectOptions options;
    Mixture *mixture; /* all sources of the set, whichever are looked at */
    MixtureReader *reader;
    int first, num_sources; /* those that are looked at */
    const RolloutTable *table;
    void *shared, *scratch;
    Str text; /* of the record at hand */
};

static bool is_mixed(const InspectOptions *options)
{
    return options->set == NULL && options->config->data.sources.count > 0;
}

/* The key of one of the set's sources. */
static const char *source_key(const InspectOptions *options, int source)
{
    if (options->set == NULL) return train_source(options->config, source).key;
    int index = eval_set_find(options->config, options->set);
    return index >= 0 ? eval_set(options->config, index).key : "data.eval";
}

const char *inspect_set_key(const InspectOptions *options)
{
    int source = options->source != NULL ? train_source_find(options->config, options->source) : -1;
    if (is_mixed(options) && source < 0) return "data.sources";
    return source_key(options, source > 0 ? source : 0);
}

static Status refuse_set(const InspectOptions *options, Error *err)
{
    const JobConfig *config = options->config;
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

static Status refuse_source(const InspectOptions *options, Error *err)
{
    Str names = {0};
    for (int i = 0; is_mixed(options) && i < train_source_count(options->config); i++)
        str_printf(&names, " %s", train_source(options->config, i).name);
    error_set(err, ERR_INVALID, "there is no source %s; those that there are:%s", options->source,
              names.length > 0 ? str_text(&names) : " none, the job has no data.sources");
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

static JobDataOptions data_options(const InspectOptions *options, const EvalSet *eval)
{
    return (JobDataOptions){
        .config = options->config,
        .eval = eval,
        .look_only = true,
        .readers_in_order = !options->choice.by_position,
        .records_max = records_needed(options),
        .watch = options->watch,
    };
}

static Status open_mixture(Inspection *inspection, Error *err)
{
    const InspectOptions *options = &inspection->options;
    const JobConfig *config = options->config;
    int set = options->set != NULL ? eval_set_find(config, options->set) : -1;
    if (options->set != NULL && set < 0) return refuse_set(options, err);
    int only = options->source != NULL ? train_source_find(config, options->source) : -1;
    if (options->source != NULL && (only < 0 || !is_mixed(options)))
        return refuse_source(options, err);
    EvalSet eval = {0};
    if (set >= 0) eval = eval_set(config, set);
    JobDataOptions data = data_options(options, set >= 0 ? &eval : NULL);
    Status status = job_data_open(&data, &inspection->mixture, err);
    if (status == OK && options->choice.by_position)
        status = mixture_count(inspection->mixture, err);
    if (status != OK) return status;
    inspection->reader = mixture_reader_open(inspection->mixture);
    inspection->first = only >= 0 ? only : 0;
    inspection->num_sources = only >= 0 ? 1 : mixture_num_sources(inspection->mixture);
    return OK;
}

int inspection_num_sources(const Inspection *inspection)
{
    return inspection->num_sources;
}

InspectedSource inspection_source(const Inspection *inspection, int index)
{
    int source = inspection->first + index;
    const Mixture *mixture = inspection->mixture;
    const Dataset *dataset = mixture_source_dataset(mixture, source);
    bool whole = dataset == NULL || dataset_summary(dataset).whole;
    return (InspectedSource){
        .name = mixture_source_name(mixture, source),
        .key = source_key(&inspection->options, source),
        .share = (double)mixture_turns(mixture)->share[source] / (double)INTERLEAVE_UNIT,
        .records = whole ? mixture_source_records(mixture, source) : 0,
    };
}

const StringList *inspection_entries(const Inspection *inspection, int index)
{
    const Dataset *dataset = mixture_source_dataset(inspection->mixture, inspection->first + index);
    return dataset != NULL ? dataset_entries(dataset) : NULL;
}

uint64_t inspection_epoch(const Inspection *inspection)
{
    uint64_t records[INTERLEAVE_SOURCES_MAX];
    if (inspection->options.source != NULL) return inspection_source(inspection, 0).records;
    for (int i = 0; i < inspection->num_sources; i++)
        records[i] = inspection_source(inspection, i).records;
    bool all = inspection->options.config->data.stopping_strategy == STOP_ALL_EXHAUSTED;
    return interleave_epoch(mixture_turns(inspection->mixture), records,
                            all ? EPOCH_ALL_EXHAUSTED : EPOCH_FIRST_EXHAUSTED);
}

/* Records that a step takes. */
static uint64_t batch_of(const JobConfig *config)
{
    bool grouped = config->rollout.function != ROLLOUT_SFT;
    int64_t group = grouped ? config->rollout.n_samples_per_prompt : 1;
    return (uint64_t)(job_samples_per_step(config) / group);
}

static Status check_batch(const Inspection *inspection, Error *err)
{
    const JobConfig *config = inspection->options.config;
    uint64_t batch = batch_of(config), epoch = inspection_epoch(inspection), there = epoch;
    bool drops = config->data.remainder == REMAINDER_DROP;
    bool wraps = config->data.remainder == REMAINDER_WRAP && !config->rollout.only;
    if (config->train.num_steps == 0 && wraps) there *= (uint64_t)config->train.num_epochs;
    if (epoch == 0 || there >= batch) return OK;
    if (!drops && (!wraps || config->train.num_steps > 0)) return OK; /* it goes round */
    return error_set(err, ERR_INVALID,
                     "%s: a batch takes %llu records, but %s %llu: a run refuses that\n"
                     "  to do: use a smaller batch (train.global_batch_size), more data, %s",
                     inspect_set_key(&inspection->options), (unsigned long long)batch,
                     drops ? "with data.remainder: drop, an epoch has" : "all epochs together have",
                     (unsigned long long)there,
                     drops ? "or data.remainder: wrap" : "or more train.num_epochs");
}

uint64_t inspection_run(const Inspection *inspection)
{
    const JobConfig *config = inspection->options.config;
    int64_t steps = config->train.num_steps;
    if (steps == 0) return (uint64_t)config->train.num_epochs * inspection_epoch(inspection);
    int64_t records = (int64_t)inspection_epoch(inspection);
    return (uint64_t)job_positions_of_steps(config, records, (int64_t)batch_of(config), steps);
}

/* As the controller does once the data source has opened them. */
static Status check_repeat(const Inspection *inspection, int index, Error *err)
{
    TrainSource source = train_source(inspection->options.config, inspection->first + index);
    const Interleave *turns = mixture_turns(inspection->mixture);
    InspectedSource view = inspection_source(inspection, index);
    uint64_t run = inspection_run(inspection), most = (uint64_t)source.repeat * view.records;
    if (most == 0 || interleave_position(turns, inspection->first + index, most) >= run) return OK;
    return error_set(err, ERR_INVALID,
                     "%s: the run takes %llu records, of which %.4g %% are of this source: %.2f "
                     "passes over its %llu records, but its repeat is %lld\n"
                     "  to do: train less, lower its weight, or raise repeat",
                     source.key, (unsigned long long)run, 100 * view.share,
                     view.share * (double)run / (double)view.records,
                     (unsigned long long)view.records, (long long)source.repeat);
}

Status inspection_check_run(const Inspection *inspection, Error *err)
{
    TRY(check_batch(inspection, err));
    for (int i = 0; is_mixed(&inspection->options) && i < inspection->num_sources; i++)
        TRY(check_repeat(inspection, i, err));
    JobDataOptions data = data_options(&inspection->options, NULL);
    return job_data_check_windows(&data, inspection->mixture, err);
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
    Status status = open_mixture(inspection, err);
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

bool inspection_describe(const Inspection *inspection, char *text, size_t size)
{
    return mixture_describe(inspection->mixture, text, size);
}

void inspection_close(Inspection *inspection)
{
    if (inspection == NULL) return;
    if (inspection->scratch != NULL) inspection->table->close_thread(inspection->scratch);
    if (inspection->shared != NULL) inspection->table->close(inspection->shared);
    mixture_reader_close(inspection->reader);
    mixture_close(inspection->mixture);
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

/* What the rollout function makes of the text at hand. */
static void explain(Inspection *inspection, const MixtureRecord *read, uint64_t position,
                    InspectedRecord *ret)
{
    bool mixed = is_mixed(&inspection->options);
    Str *text = &inspection->text;
    RolloutRecord record = {
        .position = (int64_t)position,
        .text = text->data,
        .length = read->bad ? 0 : text->length,
        .source = ret->source,
        .at = read->at,
        .error = read->bad ? str_text(text) : "",
        .set = inspection->options.set,
        .part = mixed ? mixture_source_name(inspection->mixture, read->source) : NULL,
    };
    inspection->table->explain(inspection->shared, inspection->scratch, &record, &ret->sample,
                               &ret->trace);
    rollout_locate(&ret->sample, &record);
}

/* Record `index` of a source, in the order of its files; of a reader in that of its epoch, as it
 * was opened. */
static Status inspect_record(Inspection *inspection, int source, uint64_t index,
                             InspectedRecord *ret, Error *err)
{
    const Dataset *dataset = mixture_source_dataset(inspection->mixture, source);
    Str place = {0};
    Status status;
    MixtureRecord read = {.source = source};
    str_clear(&inspection->text);
    if (dataset != NULL) {
        RecordSource at;
        status = dataset_read(dataset, index, &inspection->text, &at, err);
        read.bad = status == ERR_DATA;
        bool known = status == OK || read.bad;
        char *stands = known ? record_source_text(&at) : mem_strdup("");
        if (known) record_source_place(&at, read.at);
        str_puts(&place, stands);
        free(stands);
        if (read.bad) str_puts(&inspection->text, err->message);
    } else {
        status = mixture_read_source(inspection->reader, source, index, &inspection->text, &place,
                                     &read, err);
    }
    if (status != OK && !read.bad) return status;
    *ret = (InspectedRecord){.index = index,
                             .numbered = true,
                             .pass = read.pass,
                             .key = source_key(&inspection->options, source),
                             .source = str_take(&place)};
    explain(inspection, &read, index, ret);
    if (inspection->options.watch != NULL) inspection->options.watch->progress++;
    return OK;
}

static Status choose_by_position(Inspection *inspection, InspectedRecord *ret, Error *err)
{
    const InspectOptions *options = &inspection->options;
    uint64_t position = options->choice.number;
    Str place = {0};
    MixtureRecord read;
    str_clear(&inspection->text);
    Status status =
        options->source != NULL
            ? mixture_read_source(inspection->reader, inspection->first, position,
                                  &inspection->text, &place, &read, err)
            : mixture_read(inspection->reader, position, &inspection->text, &place, &read, err);
    uint64_t index = 0;
    if (status == OK) status = mixture_index(inspection->reader, &read, &index, err);
    if (status != OK) {
        str_free(&place);
        return status;
    }
    *ret = (InspectedRecord){.index = index,
                             .numbered =
                                 mixture_source_dataset(inspection->mixture, read.source) != NULL,
                             .pass = read.pass,
                             .key = source_key(options, read.source),
                             .source = str_take(&place)};
    explain(inspection, &read, position, ret);
    return OK;
}

Status inspection_choose(Inspection *inspection, InspectedRecord *ret, Error *err)
{
    const InspectOptions *options = &inspection->options;
    uint64_t index = options->choice.number;
    if (options->choice.by_position) return choose_by_position(inspection, ret, err);
    uint64_t records = mixture_source_records(inspection->mixture, inspection->first);
    if (records > 0 && index >= records)
        return error_set(err, ERR_INVALID,
                         "there is no record %llu in %s: it has %llu\n"
                         "  expected: a number from 0 to %llu\n"
                         "  to do: give another --sample",
                         (unsigned long long)index, source_key(options, inspection->first),
                         (unsigned long long)records, (unsigned long long)records - 1);
    TRY(inspect_record(inspection, inspection->first, index, ret, err));
    if (ret->pass == 0) return OK;
    inspected_record_clear(ret);
    return error_set(err, ERR_INVALID,
                     "there is no record %llu in %s: its reader ends before it\n"
                     "  expected: the number of a record, from 0\n"
                     "  to do: give a smaller --sample",
                     (unsigned long long)index, source_key(options, inspection->first));
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

static Status refuse_endless(const Inspection *inspection, int source, Error *err)
{
    return error_set(err, ERR_INVALID,
                     "%s cannot be looked at as a whole: its reader does not say how many records "
                     "it has (num_records)\n  to do: give a number (--count)",
                     source_key(&inspection->options, source));
}

/* From the first on; a reader that does not say how many it has may come to its end. */
static Status summarize_records(Inspection *inspection, int source, InspectSummary *summary,
                                Error *err)
{
    const InspectOptions *options = &inspection->options;
    for (uint64_t index = 0; index < summary->records; index++) {
        InspectedRecord record = {0};
        TRY(inspect_record(inspection, source, index, &record, err));
        if (record.pass > 0) {
            inspected_record_clear(&record);
            summary->records = summary->there = index;
            break;
        }
        size_t length = record.trace.conversation.length;
        summary->json_bytes += inspection->text.length;
        count_shape(summary, record.trace.shape);
        count_sample(summary, options->listed_max, &record);
        if (length > 0) summary->length[summary->num_lengths++] = (int32_t)length;
        summary->over_max += length > (size_t)options->config->data.max_length;
        inspected_record_clear(&record);
        if (options->looked != NULL && index % LOOKED_RECORDS == LOOKED_RECORDS - 1)
            options->looked(options->context, source_key(options, source), index + 1,
                            summary->records);
    }
    return OK;
}

Status inspection_summarize(Inspection *inspection, int number, InspectSummary *ret, Error *err)
{
    int source = inspection->first + number;
    uint64_t count = inspection->options.summary_records;
    uint64_t there = mixture_source_records(inspection->mixture, source);
    if (there == 0 && count == INSPECT_ALL) return refuse_endless(inspection, source, err);
    if (there > 0 && count > there) count = there;
    InspectSummary summary = {.records = count,
                              .there = inspection_source(inspection, number).records};
    summary.length = mem_calloc(count, sizeof *summary.length);
    Status status = summarize_records(inspection, source, &summary, err);
    summary.all = summary.there == summary.records;
    summary.more = !summary.all && mixture_source_dataset(inspection->mixture, source) != NULL;
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
