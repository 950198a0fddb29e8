#include "resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "keeper.h"
#include "model/model_config.h"
#include "model_files.h"

#define CHECKING_SAID_MS 5000

/* How every refusal ends. */
#define REMEDY                                                                                     \
    "Put it back, or start a new run with another run_dir (model.path: %s begins with these "      \
    "weights)."

/* ---- finding it ---- */

static void warn_of_damage(void *context, const char *path, const Error *why)
{
    (void)context;
    log_event(LOG_WARN, "checkpoint_damaged", F_STR("path", path), F_STR("why", why->message));
}

static void say_checking(void *context, const char *path, int64_t done, int64_t bytes)
{
    char what[128];
    (void)context;
    snprintf(what, sizeof what, "%.1f of %.1f GB compared with their digests", (double)done / 1e9,
             (double)bytes / 1e9);
    log_event(LOG_INFO, "checking", F_STR("checkpoint", path), F_STR("what", what));
}

void beginning_free(Beginning *begin)
{
    free(begin->path);
    manifest_destroy(begin->manifest);
    *begin = (Beginning){0};
}

/* ---- may it go on? ---- */

/* The configuration of the session that made the checkpoint. */
static Status read_old_config(const char *checkpoint, JobConfig **ret, Error *err)
{
    char *path = path_join(checkpoint, "job.yaml"), *text = NULL;
    size_t length = 0;
    Status status = file_read(path, CONFIG_BYTES_MAX, &text, &length, err);
    if (status == OK) status = job_config_parse(text, path, checkpoint, ret, err);
    free(text);
    free(path);
    return status;
}

static Status refuse_key(const char *key, const char *before, const char *now,
                         const char *checkpoint, Error *err)
{
    return error_set(
        err, ERR_INVALID,
        "%s is %s, but the run in this folder began with %s: its samples would come in "
        "another order.\n" REMEDY,
        key, now, before, checkpoint);
}

static Status check_number(const char *key, int64_t before, int64_t now, const char *checkpoint,
                           Error *err)
{
    char old_text[24], new_text[24];
    if (before == now) return OK;
    snprintf(old_text, sizeof old_text, "%lld", (long long)before);
    snprintf(new_text, sizeof new_text, "%lld", (long long)now);
    return refuse_key(key, old_text, new_text, checkpoint, err);
}

static Status check_order_keys(const JobConfig *before, const JobConfig *now,
                               const char *checkpoint, Error *err)
{
    static const char *const kinds[] = {
        [ORDER_FULL] = "full", [ORDER_WINDOW] = "window", [ORDER_HF] = "hf"};
    static const char *const releases[HF_RELEASES] = {"4.3", "4.8", "5.0", "5.2"};
    const DataOrder *a = &before->data.order, *b = &now->data.order;
    if (a->kind != b->kind)
        return refuse_key("data.order", kinds[a->kind], kinds[b->kind], checkpoint, err);
    if (b->kind == ORDER_WINDOW)
        return check_number("data.window_mb", a->window_mb, b->window_mb, checkpoint, err);
    if (b->kind == ORDER_FULL) return OK;
    if (a->hf_release != b->hf_release)
        return refuse_key("data.hf_version", releases[a->hf_release], releases[b->hf_release],
                          checkpoint, err);
    return check_number("data.hf_buffer_size", a->hf_buffer_size, b->hf_buffer_size, checkpoint,
                        err);
}

/* What the data source would refuse later, without naming the key. */
static Status check_order(const JobConfig *before, const JobConfig *now, const char *checkpoint,
                          Error *err)
{
    if (before->data.shuffle != now->data.shuffle)
        return refuse_key("data.shuffle", before->data.shuffle ? "true" : "false",
                          now->data.shuffle ? "true" : "false", checkpoint, err);
    if (now->data.shuffle) TRY(check_order_keys(before, now, checkpoint, err));
    if (!now->data.shuffle && now->data.sources.count < 2) return OK;
    return check_number("seed", before->seed, now->seed, checkpoint, err);
}

static bool same_model(const ModelConfig *a, const ModelConfig *b)
{
    return a->architecture == b->architecture && a->vocab_size == b->vocab_size &&
           a->hidden_size == b->hidden_size && a->intermediate_size == b->intermediate_size &&
           a->num_hidden_layers == b->num_hidden_layers &&
           a->num_attention_heads == b->num_attention_heads &&
           a->num_key_value_heads == b->num_key_value_heads && a->head_dim == b->head_dim &&
           a->rope_theta == b->rope_theta && a->rms_norm_eps == b->rms_norm_eps &&
           a->qk_norm == b->qk_norm && a->tie_word_embeddings == b->tie_word_embeddings;
}

static Status check_model(const JobConfig *config, const char *checkpoint, Error *err)
{
    ModelConfig before, now;
    TRY(model_config_read(checkpoint, &before, err));
    TRY(model_config_read(config->model.config, &now, err));
    if (same_model(&before, &now)) return OK;
    return error_set(err, ERR_INVALID,
                     "%s describes another model than %s/config.json, with which the run in this "
                     "folder began.\n" REMEDY,
                     config->model.config, checkpoint, checkpoint);
}

/* The digest of file i as the checkpoint has it; "" when it has none. */
static const char *old_digest(const Manifest *manifest, int i)
{
    for (int f = 0; f < manifest->num_files; f++)
        if (strcmp(manifest->file[f].name, model_file[i].name) == 0)
            return manifest->file[f].sha256;
    return "";
}

static Status check_text_files(const JobConfig *config, const Beginning *begin, Error *err)
{
    for (int i = 0; i < MODEL_FILES; i++) {
        if (!model_file[i].makes_tokens) continue;
        char digest[DIGEST_HEX_BYTES] = "", *path = model_file_path(config, i);
        Status status = path_exists(path) ? digest_file(path, digest, NULL, err) : OK;
        if (status == OK && strcmp(digest, old_digest(begin->manifest, i)) != 0)
            status = error_set(err, ERR_INVALID,
                               "%s is not the %s with which the run in this folder began (%s has "
                               "that one): the same records would become other tokens.\n" REMEDY,
                               path, model_file[i].name, begin->path, begin->path);
        free(path);
        TRY(status);
    }
    return OK;
}

/* ret_changes: what is other than it was, to be told once the run goes on; NULL: nothing. */
static Status check_config(const JobConfig *config, const Beginning *begin, char **ret_changes,
                           Error *err)
{
    JobConfig *before = NULL;
    Error why = {0};
    if (read_old_config(begin->path, &before, &why) != OK) {
        log_event(LOG_WARN, "settings_unknown", F_STR("checkpoint", begin->path),
                  F_STR("why", why.message));
        return OK;
    }
    *ret_changes = job_config_changes(before, config);
    Status status = check_order(before, config, begin->path, err);
    job_config_destroy(before);
    return status;
}

/* The stage that it stands in must be there yet. */
static Status find_stage(const Stage *stage, int num_stages, Beginning *begin, Error *err)
{
    begin->state = keeper_read_state(begin->manifest);
    if (begin->state.stage < num_stages) {
        const JobConfig *config = stage[begin->state.stage].config;
        begin->state.best = keeper_read_best(begin->manifest, config);
        keeper_read_sources(begin->manifest, config, &begin->state);
        return OK;
    }
    return error_set(err, ERR_INVALID, "%s is of stage %d, but the job file has %d.\n" REMEDY,
                     begin->path, begin->state.stage + 1, num_stages, begin->path);
}

/* The reference model of the stage may be the weights that it began with. */
static Status check_stage_start(const JobConfig *config, const RunFolder *folder,
                                const Beginning *begin, Error *err)
{
    const CheckpointState *state = &begin->state;
    if (!keeper_needs_start(config, state->stage_begin) || state->step == state->stage_begin)
        return OK;
    Manifest *manifest = NULL;
    char *path = run_folder_checkpoint(folder, state->stage_begin);
    Status status = path_exists(path)
                        ? checkpoint_verify(path, true, &manifest, err)
                        : error_set(err, ERR_NOT_FOUND, "%s is not there (any more).", path);
    if (status != OK)
        error_append(err,
                     "algorithm.reference is start_of_stage, and with this checkpoint the stage "
                     "began. Put it back, or name a model folder at algorithm.reference.");
    manifest_destroy(manifest);
    free(path);
    return status;
}

/* What a run would be refused for before its first process; a checkpoint of a stage that was
 * swapped in is not of the job file. */
static Status look_at_checkpoint(const JobStages *job, const char *path, char **ret_line,
                                 Error *err)
{
    Beginning begin = {.path = mem_strdup(path)};
    char *changes = NULL;
    Status status = checkpoint_verify(path, false, &begin.manifest, err);
    int stage = status == OK ? keeper_read_state(begin.manifest).stage : 0;
    if (status == OK && stage < job->count) {
        const JobConfig *config = job->stage[stage];
        status = check_config(config, &begin, &changes, err);
        if (status == OK) status = check_model(config, begin.path, err);
        if (status == OK) status = check_text_files(config, &begin, err);
    }
    if (status == OK)
        *ret_line =
            mem_printf("run: goes on from step %lld (%s), if data.train is what it was\n%s%s%s",
                       (long long)begin.manifest->step, path, changes != NULL ? "changed: " : "",
                       changes != NULL ? changes : "", changes != NULL ? "\n" : "");
    free(changes);
    beginning_free(&begin);
    return status;
}

Status resume_look(const JobStages *job, char **ret_line, Error *err)
{
    RunFolder folder;
    StringList all = {0};
    *ret_line = NULL;
    if (!path_is_folder(job->stage[0]->run_dir)) return OK;
    TRY(run_folder_look(job->stage[0]->run_dir, &folder, err));
    Status status = checkpoint_list(folder.checkpoints, &all, err);
    if (status == OK && all.count > 0) status = look_at_checkpoint(job, all.item[0], ret_line, err);
    string_list_free(&all);
    run_folder_close(&folder);
    return status;
}

Status resume_find(const Stage *stage, int num_stages, const RunFolder *folder, Beginning *ret,
                   Error *err)
{
    Beginning begin = {0};
    char *changes = NULL;
    const CheckpointWatch watch = {
        .skipped = warn_of_damage, .checking = say_checking, .interval_ms = CHECKING_SAID_MS};
    TRY(checkpoint_find_latest(folder->checkpoints, &begin.path, &begin.manifest, &watch, err));
    if (begin.path == NULL) return OK;
    Status status = controller_check_start(
        &(ControllerStart){.stage = stage, .num_stages = num_stages, .checkpoint = begin.path},
        err);
    if (status == OK) status = find_stage(stage, num_stages, &begin, err);
    if (status != OK) goto done;
    const JobConfig *config = stage[begin.state.stage].config;
    log_event(LOG_INFO, "resuming", F_INT("step", begin.manifest->step), F_STR("from", begin.path));
    status = check_config(config, &begin, &changes, err);
    if (status == OK) status = check_model(config, begin.path, err);
    if (status == OK) status = check_text_files(config, &begin, err);
    if (status == OK) status = check_stage_start(config, folder, &begin, err);
    if (status == OK && changes != NULL)
        log_event(LOG_WARN, "settings_changed", F_STR("what", changes));
done:
    free(changes);
    if (status == OK)
        *ret = begin;
    else
        beginning_free(&begin);
    return status;
}
