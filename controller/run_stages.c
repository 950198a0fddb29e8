#include "run_stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "checkpoint/ledger.h"
#include "checkpoint/manifest.h"
#include "checkpoint/run_lock.h"
#include "keeper.h"

#define STAGES_EVER 4096 /* of a run, where its job file is not there to say */

static JobConfig *keep(RunStages *stages, JobConfig *config)
{
    size_t count = (size_t)stages->num_swapped + 1;
    stages->swapped = mem_realloc(stages->swapped, count, sizeof *stages->swapped);
    stages->swapped[stages->num_swapped++] = config;
    return config;
}

/* From here on the list ends with this stage, which comes after last_step. */
static void put_last(RunStages *stages, const JobConfig *config, int stage, int64_t last_step)
{
    stages->stage = mem_realloc(stages->stage, (size_t)stage + 1, sizeof *stages->stage);
    stages->stage[stage - 1].swapped = true;
    stages->stage[stage - 1].last_step = last_step;
    stages->stage[stage] = (Stage){.config = config};
    stages->count = stage + 1;
}

static char *list_path(const RunStages *stages)
{
    return path_join(stages->folder->path, "swaps.jsonl");
}

/* ---- earlier sessions ---- */

static Status read_config(RunStages *stages, const char *name, JobConfig **ret, Error *err)
{
    char *path = path_join(stages->folder->path, name), *text = NULL;
    size_t length = 0;
    Status status = file_read(path, CONFIG_BYTES_MAX, &text, &length, err);
    if (status == OK) status = job_config_parse(text, path, stages->folder->path, ret, err);
    free(text);
    free(path);
    return status;
}

static Status read_swap(RunStages *stages, const char *where, const char *line, Error *err)
{
    int64_t stage = 0, last_step = 0;
    const char *name = NULL;
    JobConfig *config = NULL;
    cJSON *json = cJSON_Parse(line);
    Status status =
        json != NULL ? OK : error_set(err, ERR_DATA, "%s: a line is no JSON: %s", where, line);
    if (status == OK) status = json_int(json, "stage", where, 1, stages->count, &stage, err);
    if (status == OK)
        status = json_int(json, "last_step", where, 0, INT64_C(1) << 53, &last_step, err);
    if (status == OK) status = json_string(json, "config", where, &name, err);
    if (status == OK) status = read_config(stages, name, &config, err);
    if (status == OK) put_last(stages, keep(stages, config), (int)stage, last_step);
    if (status != OK)
        error_append(err, "Without it nobody can tell what the run became; to begin anew with its "
                          "newest weights, name its folder as model.path of another run.");
    cJSON_Delete(json);
    return status;
}

static Status read_swaps(RunStages *stages, Error *err)
{
    char *path = list_path(stages), *text = NULL;
    size_t length = 0;
    Status status = OK;
    if (path_exists(path)) status = file_read(path, CONFIG_BYTES_MAX, &text, &length, err);
    char *line = text;
    for (char *end; status == OK && line != NULL && (end = strchr(line, '\n')) != NULL;
         line = end + 1) {
        *end = '\0';
        status = read_swap(stages, path, line, err);
    }
    free(text);
    free(path);
    return status;
}

Status run_stages_open(const JobStages *job, const RunFolder *folder, RunStages *ret, Error *err)
{
    RunStages stages = {.folder = folder, .count = job->count};
    stages.stage = mem_calloc((size_t)job->count, sizeof *stages.stage);
    for (int i = 0; i < job->count; i++)
        stages.stage[i].config = job->stage[i];
    Status status = read_swaps(&stages, err);
    if (status == OK)
        *ret = stages;
    else
        run_stages_close(&stages);
    return status;
}

void run_stages_close(RunStages *stages)
{
    for (int i = 0; i < stages->num_swapped; i++)
        job_config_destroy(stages->swapped[i]);
    free(stages->swapped);
    free(stages->stage);
    *stages = (RunStages){0};
}

/* ---- a swap ---- */

Status run_stages_check_room(const JobConfig *now, const JobConfig *asked, Error *err)
{
    const struct {
        const char *what, *key, *planned;
        int64_t has, wants;
    } room[] = {
        {"rollout workers", "rollout.num_workers", "cluster.rollout_workers_max",
         now->cluster.rollout_workers_max, asked->rollout.num_workers},
        {"samples of so many tokens", "data.max_length", "train.memory_length",
         now->train.memory_length, asked->data.max_length},
        {"micro-batches of so many tokens", "train.max_tokens_per_gpu",
         "train.memory_tokens_per_gpu", now->train.memory_tokens_per_gpu,
         job_micro_batch_tokens(asked)},
    };
    for (size_t i = 0; i < sizeof room / sizeof *room; i++)
        if (room[i].wants > room[i].has)
            return error_set(err, ERR_INVALID,
                             "the run has room for %s: %lld, the new stage asks for %lld (%s).\n"
                             "Lower it; or stop the run, write %s: %lld into its job file, give "
                             "the same command again, and swap then.",
                             room[i].what, (long long)room[i].has, (long long)room[i].wants,
                             room[i].key, room[i].planned, (long long)room[i].wants);
    return OK;
}

#define NEW_STAGE "the new stage"

/* A line of a text that nobody has seen: behind its value stands where that came from. */
static void name_place(const char *yaml, Error *err)
{
    static const char mark[] = NEW_STAGE ":", origin[] = "  # ";
    char *rest = err->message;
    const char *line = yaml, *place = NULL;
    if (!str_starts_with(err->message, mark)) return;
    long number = strtol(err->message + strlen(mark), &rest, 10);
    if (*rest == ':' && rest[1] >= '0' && rest[1] <= '9') (void)strtol(rest + 1, &rest, 10);
    if (number < 1 || *rest != ':') return;
    while (line != NULL && --number > 0)
        line = strchr(line, '\n') != NULL ? strchr(line, '\n') + 1 : NULL;
    size_t length = line != NULL ? strcspn(line, "\n") : 0;
    for (const char *at = line; at != NULL && at + strlen(origin) < line + length; at++)
        if (str_starts_with(at, origin)) place = at + strlen(origin);
    length = place != NULL ? (size_t)(line + length - place) : 0;
    if (length == 0 || str_starts_with(place, "default")) {
        place = NEW_STAGE;
        length = strlen(place);
    }
    char *message = mem_printf("%.*s%s", (int)length, place, rest);
    snprintf(err->message, sizeof err->message, "%s", message);
    free(message);
}

static Status parse_grafted(const JobConfig *now, const JobConfig *asked, JobConfig **ret,
                            Error *err)
{
    char *text = job_config_graft(now, asked);
    Status status = job_config_parse(text, NEW_STAGE, "/", ret, err);
    if (status != OK) name_place(text, err);
    free(text);
    return status;
}

Status run_stages_prepare(const JobConfig *now, const char *yaml, JobConfig **ret, Error *err)
{
    JobConfig *asked = NULL;
    if (now->rollout.only)
        return error_set(err, ERR_INVALID,
                         "this run trains nothing (rollout.only is true), so no stage can go on "
                         "with what it learnt.\nRun the other job by itself.");
    Status status = job_config_parse(yaml, NEW_STAGE, "/", &asked, err);
    if (status == OK) status = run_stages_check_room(now, asked, err);
    if (status == OK) status = parse_grafted(now, asked, ret, err);
    if (status != OK) name_place(yaml, err);
    job_config_destroy(asked);
    return status;
}

void run_stages_keep(RunStages *stages, JobConfig *config)
{
    keep(stages, config);
}

/* The list is short: it is written anew, whole. */
static Status append_line(const char *path, const char *line, Error *err)
{
    char *before = NULL;
    size_t length = 0;
    if (path_exists(path)) TRY(file_read(path, CONFIG_BYTES_MAX, &before, &length, err));
    char *text = mem_printf("%s%s", before != NULL ? before : "", line);
    Status status = file_write_atomic(path, text, strlen(text), err);
    free(text);
    free(before);
    return status;
}

Status run_stages_record(RunStages *stages, const JobConfig *config, int stage, int64_t last_step,
                         Error *err)
{
    put_last(stages, config, stage, last_step);
    char name[64];
    char *folder = path_join(stages->folder->path, "swaps"), *list = list_path(stages);
    snprintf(name, sizeof name, "swaps/stage_%d_after_step_%lld.yaml", stage, (long long)last_step);
    char *path = path_join(stages->folder->path, name), *text = job_config_text(config);
    char *line = mem_printf("{\"stage\":%d,\"last_step\":%lld,\"config\":\"%s\"}\n", stage,
                            (long long)last_step, name);
    Status status = folder_create(folder, err);
    if (status == OK) status = file_write_atomic(path, text, strlen(text), err);
    if (status == OK) status = append_line(list, line, err);
    free(line);
    free(text);
    free(path);
    free(list);
    free(folder);
    return status;
}

/* ---- undone ---- */

/* The newest checkpoint must be of a stage before it. *ret is owned, NULL where there is none. */
static Status check_untouched(const RunFolder *folder, const JobConfig *config, int stage,
                              Manifest **ret, Error *err)
{
    char *path = NULL;
    Manifest *manifest = NULL;
    TRY(checkpoint_find_latest(folder->checkpoints, &path, &manifest, NULL, err));
    Status status = OK;
    if (manifest != NULL && keeper_read_state(manifest).stage >= stage)
        status = error_set(err, ERR_INVALID,
                           "%s is a checkpoint of the stage %s, which was swapped in: it began, "
                           "and cannot be undone.\nTo go on otherwise from a checkpoint, swap "
                           "another stage in, or name it as model.path of another run.",
                           path, config->stage);
    if (status == OK)
        *ret = manifest;
    else
        manifest_destroy(manifest);
    free(path);
    return status;
}

static Status drop_last_line(const RunStages *stages, Error *err)
{
    char *path = list_path(stages), *text = NULL;
    size_t length = 0;
    Status status = file_read(path, CONFIG_BYTES_MAX, &text, &length, err);
    if (status == OK && length > 0) {
        size_t end = length - 1; /* of the last line, but for its newline */
        while (end > 0 && text[end - 1] != '\n')
            end--;
        status = file_write_atomic(path, text, end, err);
    }
    free(text);
    free(path);
    return status;
}

static void note_step(void *context, const LedgerRecord *record)
{
    *(int64_t *)context = record->step;
}

/* As far as the ledger can be read: what a kill left of its end is nothing to a resume. */
static int64_t steps_behind(const RunFolder *folder, const Manifest *newest, int64_t last_step)
{
    int64_t step = last_step;
    (void)ledger_read_behind(folder->ledger, newest != NULL ? newest->ledger_head : "",
                             newest != NULL ? &newest->ledger_mark : NULL, note_step, &step, NULL);
    return step > last_step ? step - last_step : 0;
}

static Status undo_last(const RunFolder *folder, StageUndone *ret, Error *err)
{
    RunStages stages = {.folder = folder, .count = STAGES_EVER};
    Manifest *newest = NULL;
    stages.stage = mem_calloc(STAGES_EVER, sizeof *stages.stage);
    Status status = read_swaps(&stages, err);
    if (status == OK && stages.num_swapped == 0)
        status = error_set(err, ERR_NOT_FOUND, "%s: no stage was swapped in.", folder->path);
    const JobConfig *last = status == OK ? stages.swapped[stages.num_swapped - 1] : NULL;
    if (status == OK) status = check_untouched(folder, last, stages.count - 1, &newest, err);
    if (status == OK) status = drop_last_line(&stages, err);
    if (status == OK)
        *ret =
            (StageUndone){mem_strdup(last->stage),
                          steps_behind(folder, newest, stages.stage[stages.count - 2].last_step)};
    manifest_destroy(newest);
    run_stages_close(&stages);
    return status;
}

Status run_stages_undo(const RunFolder *folder, StageUndone *ret, Error *err)
{
    RunLock *lock = NULL;
    char *note = NULL;
    Status status = run_lock_acquire(folder->path, &lock, &note, err);
    free(note);
    if (status != OK) return error_append(err, "A swap is undone when the run has ended.");
    status = undo_last(folder, ret, err);
    run_lock_release(lock);
    return status;
}
