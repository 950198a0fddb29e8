#include "config/source_set.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/plural.h"
#include "config/job_internal.h"
#include "config/rows.h"

static const ConfigKey *sources_key(void)
{
    return config_key(&job_table, config_find(&job_table, "data.sources"));
}

int train_source_count(const JobConfig *config)
{
    return config->data.sources.count > 0 ? config->data.sources.count : 1;
}

TrainSource train_source(const JobConfig *config, int index)
{
    CHECK(index >= 0 && index < train_source_count(config));
    TrainSource source = {
        .name = "train",
        .key = "data.train",
        .path = &config->data.train,
        .weight = 1,
        .order = job_data_order(config),
        .reader = config->data.reader,
        .reader_options = config->data.reader_options,
        .record = eval_set_record_keys(config, -1),
    };
    if (config->data.sources.count == 0) return source;
    const ConfigKey *key = sources_key();
    const SourceRow *row = (const SourceRow *)row_at(key, &config->data.sources, index);
    source.name = row->head.name;
    source.key = row->head.path;
    source.path = &row->path;
    source.reader = row->reader;
    source.reader_options = row->reader_options;
#define GIVEN(name) row_gives(key, &row->head, name)
    if (GIVEN("weight")) source.weight = row->weight;
    if (GIVEN("repeat")) source.repeat = row->repeat;
    if (GIVEN("shuffle")) source.order.kind = row->shuffle ? config->data.order.kind : ORDER_FILES;
    if (GIVEN("input_key")) source.record.input = row->input_key;
    if (GIVEN("label_key")) source.record.label = row->label_key;
    if (GIVEN("tool_key")) source.record.tool = row->tool_key;
    if (GIVEN("metadata_key")) source.record.metadata = row->metadata_key;
#undef GIVEN
    return source;
}

bool train_is_counted_late(const JobConfig *config)
{
    for (int i = 0; i < train_source_count(config); i++) {
        TrainSource source = train_source(config, i);
        if (source.order.kind == ORDER_WINDOW && source.reader == NULL) return true;
    }
    return false;
}

char *train_wrong_count(const JobConfig *config, int64_t records)
{
    long long said = (long long)config->data.num_samples, found = (long long)records;
    if (said == 0 || said == found) return NULL;
    char *fate = train_is_counted_late(config)
                     ? mem_strdup("the run is as long as the job says, and its epochs are told by "
                                  "that number")
                     : mem_printf("an epoch has %lld", found);
    char *text = mem_printf("data.num_samples is %lld, but the training set has %lld record%s: %s",
                            said, found, plural(found), fate);
    free(fate);
    return text;
}

int train_source_find(const JobConfig *config, const char *name)
{
    const ConfigKey *key = sources_key();
    if (config->data.sources.count == 0) return strcmp(name, "train") == 0 ? 0 : -1;
    for (int i = 0; i < config->data.sources.count; i++)
        if (strcmp(row_at(key, &config->data.sources, i)->name, name) == 0) return i;
    return -1;
}

/* ---- checks ---- */

static const char SOURCES[] = "data.sources", TRAIN[] = "data.train", READER[] = "data.reader";

static Status refuse_nothing(const LoadedJob *job, Error *err)
{
    const ConfigKey *key = config_key(&job_table, config_find(&job_table, TRAIN));
    const char *place = job_key_place(job, TRAIN, job->arena);
    return error_set(err, ERR_INVALID, "%s: %s is %s: %s.\nAdd for example:\ndata:\n  train: %s",
                     place != NULL ? place : job->where, TRAIN,
                     place != NULL ? "an empty list" : "missing", key->meaning, key->example);
}

static Status check_source(const LoadedJob *job, const TrainSource *source, Error *err)
{
    bool mixed = job->config.data.sources.count > 0;
    const char *key = mixed ? SOURCES : READER;
    if (source->reader == NULL && source->reader_options != NULL)
        return job_refuse(job, mixed ? SOURCES : "data.reader_options", NULL, err,
                          "%s.reader_options has no effect without a reader.\n"
                          "Remove it, or name the shared object that reads the data.",
                          mixed ? source->key : "data");
    if (source->path->count == 0 && source->reader == NULL)
        return job_refuse(job, key, NULL, err,
                          "%s names no data: expected its path, or a reader.\n"
                          "Add for example path: data/%s.jsonl.",
                          source->key, source->name);
    return OK;
}

Status job_check_sources(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    bool mixed = config->data.sources.count > 0;
    if (!mixed && config->data.train.count == 0 && config->data.reader == NULL)
        return refuse_nothing(job, err);
    if (mixed && config->data.train.count > 0)
        return job_refuse(job, SOURCES, TRAIN, err,
                          "data.sources and data.train both say what is trained on.\n"
                          "Make data.train one of the sources, or remove one of the two keys.");
    if (mixed && (config->data.reader != NULL || config->data.reader_options != NULL))
        return job_refuse(job, READER, SOURCES, err,
                          "data.reader has no effect with data.sources, of which each may have "
                          "a reader of its own.\nMove it, and reader_options, into the source.");
    if (mixed && config->data.num_samples > 0)
        return job_refuse(job, "data.num_samples", SOURCES, err,
                          "data.num_samples has no effect with data.sources: an epoch of a mixture "
                          "is counted.\nRemove it, or write train.num_steps, which needs no "
                          "count.");
    for (int i = 0; i < train_source_count(config); i++) {
        TrainSource source = train_source(config, i);
        TRY(check_source(job, &source, err));
    }
    return OK;
}
