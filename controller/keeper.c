#include "keeper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "checkpoint/ledger.h"
#include "checkpoint/manifest.h"
#include "config/source_set.h"
#include "model_files.h"
#include "tensor/safetensors.h"

typedef struct Commit {
    uv_work_t work;
    Keeper *keeper;
    uint64_t save;
    const JobConfig *config; /* of the stage in which it was ordered; and its text, owned */
    char *config_yaml;
    char *folder;
    Manifest *manifest;
    SafetensorsPlace *place; /* of all ranks' tensors; names owned */
    int num_places;
    char *committed; /* where it is now */
    Error error;
    Status status;
} Commit;

struct Keeper {
    KeeperOptions options;
    Ledger *ledger;
    char head[DIGEST_HEX_BYTES]; /* of the ledger at the last committed checkpoint; "": the
                                    beginning */
    LedgerMark mark;             /* where that stands, where it is known */
    Error ledger_error;          /* status OK: it is whole */
    uint64_t save;               /* the save under way */
    Manifest *manifest;          /* of it; NULL: there is none */
    SafetensorsPlace *place;
    int num_places;
    Commit *commit; /* running; one at a time */
    int news;       /* on their way */
    bool closing;
};

#define COUNT_STAGE       "stage"
#define COUNT_STAGE_BEGIN "stage_begin"

/* News that is told from outside of the call that made it. */
typedef struct News {
    Keeper *keeper;
    EventKind kind;
    uint64_t save;
    char *folder;
    Error error;
} News;

static void tell(void *argument)
{
    News *news = argument;
    Event event = {.kind = news->kind, .status = news->error.status};
    event.message = news->error.message;
    if (news->kind == EV_CHECKPOINT_BEGUN) {
        event.checkpoint.save = news->save;
        event.checkpoint.path = news->folder;
    }
    news->keeper->news--;
    if (!news->keeper->closing) news->keeper->options.feed(news->keeper->options.context, &event);
    free(news->folder);
    free(news);
}

static void tell_later(Keeper *keeper, const News *what)
{
    News *news = mem_alloc(sizeof *news);
    *news = *what;
    news->keeper = keeper;
    keeper->news++;
    loop_post(keeper->options.loop, tell, news);
}

/* ---- the places of tensors, for the two index files ---- */

static void places_free(SafetensorsPlace *place, int count)
{
    for (int i = 0; i < count; i++) {
        free((char *)place[i].tensor);
        free((char *)place[i].file);
    }
    free(place);
}

static void forget_save(Keeper *keeper)
{
    places_free(keeper->place, keeper->num_places);
    keeper->place = NULL;
    keeper->num_places = 0;
    manifest_destroy(keeper->manifest);
    keeper->manifest = NULL;
}

static bool is_under_way(const Keeper *keeper, uint64_t save)
{
    return keeper->manifest != NULL && keeper->save == save;
}

void keeper_add_files(Keeper *keeper, uint64_t save, const SavedFileInfo *file, int count)
{
    if (!is_under_way(keeper, save)) return;
    for (int f = 0; f < count; f++) {
        manifest_add_file(keeper->manifest, file[f].name, file[f].bytes, file[f].sha256);
        int total = keeper->num_places + file[f].num_tensors;
        keeper->place = mem_realloc(keeper->place, (size_t)total, sizeof *keeper->place);
        for (int t = 0; t < file[f].num_tensors; t++)
            keeper->place[keeper->num_places++] = (SafetensorsPlace){
                .tensor = mem_strdup(file[f].tensor[t]),
                .file = mem_strdup(file[f].name),
                .bytes = file[f].tensor_bytes[t],
            };
    }
}

/* ---- begin ---- */

void keeper_begin(Keeper *keeper, uint64_t save, int64_t step)
{
    News news = {.kind = EV_CHECKPOINT_BEGUN, .save = save};
    forget_save(keeper);
    keeper->manifest = manifest_create();
    keeper->save = save;
    checkpoint_begin(keeper->options.folder->checkpoints, step, &news.folder, &news.error);
    tell_later(keeper, &news);
}

void keeper_abandon(Keeper *keeper, uint64_t save, const char *folder)
{
    if (is_under_way(keeper, save)) forget_save(keeper);
    checkpoint_abandon(folder);
}

/* ---- commit, on a thread of the pool ---- */

/* The index over the files <stem>-*, if there are any. */
static Status add_index(Commit *commit, const char *stem, Error *err)
{
    SafetensorsPlace *some = mem_calloc((size_t)commit->num_places + 1, sizeof *some);
    char *text = NULL, *name = mem_printf("%s.safetensors.index.json", stem);
    char *begin = mem_printf("%s-", stem);
    size_t length = 0;
    int count = 0;
    for (int i = 0; i < commit->num_places; i++)
        if (str_starts_with(commit->place[i].file, begin)) some[count++] = commit->place[i];
    Status status = OK;
    if (count > 0) status = safetensors_index_text(some, count, &text, &length, err);
    if (status == OK && count > 0)
        status = checkpoint_add_bytes(commit->folder, name, text, length, commit->manifest, err);
    free(text);
    free(name);
    free(begin);
    free(some);
    return status;
}

/* Those of a model folder that there are, so that the checkpoint is one like any other. */
static Status add_model_files(Commit *commit, const JobConfig *config, Error *err)
{
    Status status = OK;
    for (int i = 0; i < MODEL_FILES && status == OK; i++) {
        char *path = model_file_path(config, i);
        if (path_exists(path))
            status = checkpoint_add_copy(commit->folder, model_file[i].name, path, commit->manifest,
                                         err);
        free(path);
    }
    return status;
}

/* The model's config.json with the type that the weights beside it are stored in. */
static Status add_config(Commit *commit, const JobConfig *config, Error *err)
{
    cJSON *json = NULL;
    TRY(json_read(config->model.config, CONFIG_BYTES_MAX, &json, err));
    const char *type = config->model.dtype == MODEL_BF16 ? "bfloat16" : "float32";
    static const char *const keys[] = {"dtype", "torch_dtype"}; /* newer and older files */
    bool said = false;
    for (int i = 0; i < 2; i++) {
        if (cJSON_GetObjectItemCaseSensitive(json, keys[i]) == NULL && (i == 0 || said)) continue;
        cJSON_DeleteItemFromObjectCaseSensitive(json, keys[i]);
        cJSON_AddStringToObject(json, keys[i], type);
        said = true;
    }
    char *text = cJSON_Print(json);
    Status status = checkpoint_add_bytes(commit->folder, "config.json", text, strlen(text),
                                         commit->manifest, err);
    cJSON_free(text);
    cJSON_Delete(json);
    return status;
}

bool keeper_needs_start(const JobConfig *config, int64_t stage_begin)
{
    return stage_begin > 0 && job_refers_to_start(config);
}

static Status prune(const Commit *commit, Error *err)
{
    const char *root = commit->keeper->options.folder->checkpoints;
    const Manifest *manifest = commit->manifest;
    int64_t step[KEEP_BEST_MAX + 1], begin = manifest_count(manifest, COUNT_STAGE_BEGIN);
    int count = manifest->num_best < KEEP_BEST_MAX ? manifest->num_best : KEEP_BEST_MAX;
    for (int i = 0; i < count; i++)
        step[i] = manifest->best[i].step;
    if (keeper_needs_start(commit->config, begin)) step[count++] = begin;
    CheckpointKeep keep = {.last = (int)commit->config->checkpoint.keep_last,
                           .path = commit->committed,
                           .step = step,
                           .num_steps = count};
    return checkpoint_prune(root, &keep, err);
}

/* The steps that the checkpoint has are not made again, and so their lines are not, either: they
 * are on the disk before it is. Where they cannot be, that costs them alone. */
static void flush_metrics(const Keeper *keeper)
{
    Error err = {0};
    const RunFolder *folder = keeper->options.folder;
    if (file_sync(folder->metrics, &err) != OK || file_sync_folder(folder->path, &err) != OK)
        log_event(LOG_WARN, "metrics_not_flushed", F_STR("why", err.message));
}

static Status write_commit(Commit *commit, Error *err)
{
    const Keeper *keeper = commit->keeper;
    const JobConfig *config = commit->config;
    TRY(add_index(commit, "model", err));
    TRY(add_index(commit, "optimizer", err));
    TRY(add_index(commit, "critic_model", err));
    TRY(add_index(commit, "critic_optimizer", err));
    TRY(add_config(commit, config, err));
    TRY(add_model_files(commit, config, err));
    TRY(checkpoint_add_bytes(commit->folder, "job.yaml", commit->config_yaml,
                             strlen(commit->config_yaml), commit->manifest, err));
    /* Nothing is appended and nothing cut off while a commit is under way. */
    TRY(ledger_sync(keeper->ledger, err));
    flush_metrics(keeper);
    const char *root = keeper->options.folder->checkpoints;
    TRY(checkpoint_commit(root, commit->folder, commit->manifest, &commit->committed, err));
    checkpoint_name_best(root, commit->manifest);
    return prune(commit, err);
}

static void run_commit(uv_work_t *work)
{
    Commit *commit = work->data;
    commit->status = commit->error.status;
    if (commit->status == OK) commit->status = write_commit(commit, &commit->error);
    /* A commit that stands but could not tidy up behind it stands. */
    if (commit->status != OK && commit->committed != NULL) commit->status = OK;
}

static void take_head(Keeper *keeper, const Manifest *manifest)
{
    snprintf(keeper->head, sizeof keeper->head, "%s", manifest->ledger_head);
    keeper->mark = manifest->ledger_mark;
}

static void commit_done(uv_work_t *work, int status)
{
    Commit *commit = work->data;
    Keeper *keeper = commit->keeper;
    (void)status;
    keeper->commit = NULL;
    if (commit->status == OK) take_head(keeper, commit->manifest);
    Event event = {.kind = EV_CHECKPOINT_DONE, .status = commit->status};
    event.message = commit->error.message;
    event.checkpoint.save = commit->save;
    event.checkpoint.path = commit->committed;
    if (commit->status != OK) checkpoint_abandon(commit->folder);
    if (!keeper->closing) keeper->options.feed(keeper->options.context, &event);
    manifest_destroy(commit->manifest);
    places_free(commit->place, commit->num_places);
    free(commit->committed);
    free(commit->config_yaml);
    free(commit->folder);
    free(commit);
}

static void add_count(Manifest *manifest, const char *prefix, const char *name, int64_t value)
{
    char *whole = mem_printf("%s_%s", prefix, name);
    if (value > 0) manifest_add_count(manifest, whole, value);
    free(whole);
}

static void add_tally(Manifest *manifest, const RecordTally *tally)
{
    for (int i = 0; i < REJECT_REASON_COUNT; i++)
        add_count(manifest, "rejected", reject_reason_name((RejectReason)i), tally->rejected[i]);
    for (int i = 0; i < NOTE_COUNT; i++)
        add_count(manifest, "odd", sample_note_name((SampleNote)i), tally->noted[i]);
}

static int64_t count_of(const Manifest *manifest, const char *prefix, const char *name)
{
    char *whole = mem_printf("%s_%s", prefix, name);
    int64_t value = manifest_count(manifest, whole);
    free(whole);
    return value;
}

static RecordTally read_tally(const Manifest *manifest)
{
    RecordTally tally = {0};
    for (int i = 0; i < REJECT_REASON_COUNT; i++)
        tally.rejected[i] = count_of(manifest, "rejected", reject_reason_name((RejectReason)i));
    for (int i = 0; i < NOTE_COUNT; i++)
        tally.noted[i] = count_of(manifest, "odd", sample_note_name((SampleNote)i));
    return tally;
}

/* ---- the sources of a mixture: "source_chat_samples" ---- */

static const struct {
    const char *name;
    size_t offset;
} source_count[] = {
    {"records", offsetof(SourceTally, records)},
    {"samples", offsetof(SourceTally, samples)},
    {"tokens", offsetof(SourceTally, tokens)},
    {"rejected", offsetof(SourceTally, rejected)},
    {"bad_records", offsetof(SourceTally, bad_records)},
};
enum { SOURCE_COUNTS = sizeof source_count / sizeof *source_count };

static char *source_prefix(const JobConfig *config, int source)
{
    return mem_printf("source_%s", train_source(config, source).name);
}

static void add_sources(Manifest *manifest, const JobConfig *config, const CheckpointState *state)
{
    for (int i = 0; i < config->data.sources.count; i++) {
        char *prefix = source_prefix(config, i);
        const char *tally = (const char *)&state->source[i];
        for (int k = 0; k < SOURCE_COUNTS; k++)
            add_count(manifest, prefix, source_count[k].name,
                      *(const int64_t *)(tally + source_count[k].offset));
        free(prefix);
    }
}

void keeper_read_sources(const Manifest *manifest, const JobConfig *config, CheckpointState *ret)
{
    for (int i = 0; i < config->data.sources.count; i++) {
        char *prefix = source_prefix(config, i), *tally = (char *)&ret->source[i];
        for (int k = 0; k < SOURCE_COUNTS; k++)
            *(int64_t *)(tally + source_count[k].offset) =
                count_of(manifest, prefix, source_count[k].name);
        free(prefix);
    }
}

#define EVALUATED "evaluated_step"

/* "gsm8k/reward, max": values of another figure say nothing beside these. Owned. */
static char *best_metric(const JobConfig *config)
{
    return mem_printf("%s, %s", config->eval.best_metric,
                      config->eval.best_mode == BEST_MIN ? "min" : "max");
}

static void add_best(Manifest *manifest, const JobConfig *config, const BestList *best)
{
    if (config->checkpoint.keep_best == 0) return;
    manifest->best_metric = best_metric(config);
    for (int i = 0; i < best->count; i++)
        manifest_add_best(manifest, best->item[i].step, best->item[i].value);
}

BestList keeper_read_best(const Manifest *manifest, const JobConfig *config)
{
    BestList best = {0};
    if (config->checkpoint.keep_best == 0 || manifest->best_metric == NULL) return best;
    char *metric = best_metric(config);
    if (strcmp(metric, manifest->best_metric) != 0)
        log_event(LOG_WARN, "best_begins_anew", F_STR("by", metric),
                  F_STR("was", manifest->best_metric));
    else
        for (int i = 0; i < manifest->num_best && i < config->checkpoint.keep_best; i++)
            best.item[best.count++] = (BestItem){manifest->best[i].step, manifest->best[i].value};
    free(metric);
    return best;
}

CheckpointState keeper_read_state(const Manifest *manifest)
{
    return (CheckpointState){.step = manifest->step,
                             .next_position = manifest->next_position,
                             .consumed_samples = manifest->consumed_samples,
                             .rejected_samples = manifest->rejected_samples,
                             .trained_tokens = manifest->trained_tokens,
                             .bad_records = manifest->bad_records,
                             .records = manifest->records,
                             .tally = read_tally(manifest),
                             .stage = (int)manifest_count(manifest, COUNT_STAGE),
                             .stage_begin = manifest_count(manifest, COUNT_STAGE_BEGIN),
                             .evaluated = manifest_count(manifest, EVALUATED)};
}

void keeper_set_config(Keeper *keeper, const JobConfig *config, const char *config_yaml)
{
    keeper->options.config = config;
    keeper->options.config_yaml = config_yaml;
}

void keeper_commit(Keeper *keeper, const CommitOrder *order)
{
    CHECK(keeper->commit == NULL && is_under_way(keeper, order->save));
    const JobConfig *config = keeper->options.config;
    Manifest *manifest = keeper->manifest;
    char digest[DIGEST_HEX_BYTES];
    digest_bytes(keeper->options.config_yaml, strlen(keeper->options.config_yaml), digest);
    manifest->step = order->state.step;
    manifest->generation = order->generation;
    manifest->next_position = order->state.next_position;
    manifest->consumed_samples = order->state.consumed_samples;
    manifest->rejected_samples = order->state.rejected_samples;
    manifest->trained_tokens = order->state.trained_tokens;
    manifest->bad_records = order->state.bad_records;
    manifest->records = order->state.records;
    add_tally(manifest, &order->state.tally);
    add_sources(manifest, config, &order->state);
    manifest_add_count(manifest, COUNT_STAGE, order->state.stage);
    manifest_add_count(manifest, COUNT_STAGE_BEGIN, order->state.stage_begin);
    DataPosition at = data_position(order->state.next_position, order->state.records);
    manifest_add_count(manifest, "epoch_id", at.epoch_id);
    manifest_add_count(manifest, "consumed_count", at.consumed_count);
    manifest_add_count(manifest, "global_consumed_count", at.global_consumed_count);
    if (order->state.evaluated > 0) manifest_add_count(manifest, EVALUATED, order->state.evaluated);
    add_best(manifest, config, &order->state.best);
    manifest->data_fingerprint = mem_strdup(order->data_fingerprint);
    manifest->config_sha256 = mem_strdup(digest);
    manifest->ledger_head = mem_strdup(ledger_head(keeper->ledger));
    manifest->ledger_mark = *ledger_mark(keeper->ledger);
    manifest->tp_size = (int)config->train.tp_size;
    manifest->dp_size = (int)config->train.dp_size;
    Commit *commit = mem_calloc(1, sizeof *commit);
    commit->keeper = keeper;
    commit->save = order->save;
    commit->error = keeper->ledger_error;
    commit->config = config;
    commit->config_yaml = mem_strdup(keeper->options.config_yaml);
    commit->folder = mem_strdup(order->folder);
    commit->manifest = manifest;
    commit->place = keeper->place;
    commit->num_places = keeper->num_places;
    commit->work.data = commit;
    keeper->manifest = NULL;
    keeper->place = NULL;
    keeper->num_places = 0;
    keeper->commit = commit;
    uv_queue_work(loop_uv(keeper->options.loop), &commit->work, run_commit, commit_done);
}

/* ---- ledger ---- */

static int by_position(const void *a, const void *b)
{
    const PlannedSample *x = a, *y = b;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* What a plan is to the ledger; the arrays are owned. */
typedef struct LedgerPlan {
    PlannedSample *sample; /* by position */
    int64_t *accepted, *rejected;
    const char **why;
    LedgerPart *part;
    int32_t *index; /* of all parts */
    int num_accepted, num_parts;
} LedgerPlan;

static void free_ledger_plan(LedgerPlan *of)
{
    free(of->sample);
    free(of->accepted);
    free(of->rejected);
    free(of->why);
    free(of->part);
    free(of->index);
}

/* A group is its position, once; it is told where not all of its samples were trained. */
static void add_groups(const Plan *plan, LedgerPlan *of)
{
    int count = plan->num_samples, size;
    for (int i = 0; i < count; i++)
        of->index[i] = of->sample[i].index;
    for (int i = 0; i < count; i += size) {
        for (size = 1; i + size < count && of->sample[i + size].position == of->sample[i].position;)
            size++;
        of->accepted[of->num_accepted++] = of->sample[i].position;
        if (size < plan->group_size)
            of->part[of->num_parts++] = (LedgerPart){of->sample[i].position, &of->index[i], size};
    }
}

static LedgerPlan ledger_plan(const Plan *plan)
{
    size_t count = (size_t)plan->num_samples + 1, rejected = (size_t)plan->rejected + 1;
    LedgerPlan of = {.sample = mem_calloc(count, sizeof *of.sample),
                     .accepted = mem_calloc(count, sizeof *of.accepted),
                     .rejected = mem_calloc(rejected, sizeof *of.rejected),
                     .why = mem_calloc(rejected, sizeof *of.why),
                     .part = mem_calloc(count, sizeof *of.part),
                     .index = mem_calloc(count, sizeof *of.index)};
    memcpy(of.sample, plan->sample, (size_t)plan->num_samples * sizeof *of.sample);
    qsort(of.sample, (size_t)plan->num_samples, sizeof *of.sample, by_position);
    add_groups(plan, &of);
    for (int i = 0; i < plan->rejected; i++) {
        of.rejected[i] = plan->passed[i].position;
        of.why[i] = plan->passed[i].why;
    }
    return of;
}

static Status append(Keeper *keeper, const LedgerEntry *entry, Error *err)
{
    const Plan *plan = entry->plan;
    LedgerPlan of = ledger_plan(plan);
    CHECK(of.num_accepted + plan->rejected == plan->end_position - plan->first_position);
    LedgerRecord record = {
        .step = plan->step,
        .first = plan->first_position,
        .end = plan->end_position,
        .accepted = of.accepted,
        .num_accepted = of.num_accepted,
        .rejected = of.rejected,
        .num_rejected = plan->rejected,
        .why = of.why,
        .data = entry->data,
        .stage = entry->stage,
        .records = entry->records > 0 ? entry->records : 0,
        .group_size = plan->group_size,
        .part = of.part,
        .num_parts = of.num_parts,
    };
    Status status = ledger_append(keeper->ledger, &record, err);
    free_ledger_plan(&of);
    return status;
}

static Status rewind_ledger(Keeper *keeper, Error *err)
{
    CHECK(keeper->commit == NULL);
    ledger_close(keeper->ledger);
    keeper->ledger = NULL;
    return ledger_open(keeper->options.folder->ledger, keeper->head, &keeper->mark, &keeper->ledger,
                       NULL, err);
}

static void tell_of_ledger(Keeper *keeper)
{
    tell_later(keeper, &(News){.kind = EV_LEDGER_FAILED, .error = keeper->ledger_error});
}

void keeper_append(Keeper *keeper, const LedgerEntry *entry)
{
    if (keeper->ledger_error.status != OK) return;
    if (append(keeper, entry, &keeper->ledger_error) != OK) tell_of_ledger(keeper);
}

void keeper_rewind(Keeper *keeper)
{
    if (keeper->ledger_error.status != OK) return;
    if (rewind_ledger(keeper, &keeper->ledger_error) != OK) tell_of_ledger(keeper);
}

/* ---- life ---- */

Status keeper_create(const KeeperOptions *options, Keeper **ret, Error *err)
{
    Keeper *keeper = mem_calloc(1, sizeof *keeper);
    keeper->options = *options;
    if (options->begin != NULL) {
        take_head(keeper, options->begin);
        checkpoint_name_best(options->folder->checkpoints, options->begin);
    }
    Status status = rewind_ledger(keeper, err);
    if (status == OK)
        *ret = keeper;
    else
        keeper_destroy(keeper);
    return status;
}

void keeper_destroy(Keeper *keeper)
{
    if (keeper == NULL) return;
    keeper->closing = true;
    while (keeper->commit != NULL || keeper->news > 0)
        uv_run(loop_uv(keeper->options.loop), UV_RUN_ONCE);
    forget_save(keeper);
    ledger_close(keeper->ledger);
    free(keeper);
}
