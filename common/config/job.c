#include "config/job.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "config/job_internal.h"

static LoadedJob *job_create(const char *where)
{
    LoadedJob *job = mem_calloc(1, sizeof *job);
    job->arena = arena_create();
    job->origin =
        arena_alloc(job->arena, sizeof *job->origin * (size_t)config_num_keys(&job_table));
    job->where = arena_printf(job->arena, "%s", where);
    return job;
}

void job_config_destroy(JobConfig *config)
{
    if (config == NULL) return;
    LoadedJob *job = (LoadedJob *)config;
    config_release(&job_table, config);
    arena_destroy(job->arena);
    free(job);
}

const char *job_key_place(const LoadedJob *job, const char *path, Arena *arena)
{
    const ConfigOrigin *origin = &job->origin[config_find(&job_table, path)];
    if (origin->kind == FROM_FILE) return arena_printf(arena, "%s:%d", job->where, origin->line);
    if (origin->kind == FROM_OVERRIDE) return arena_printf(arena, "--set %s", origin->override);
    return NULL;
}

/* "--set train.lr=1": the value is YAML, so that lists and quotes work as in the file. */
static Status apply_override(LoadedJob *job, const char *override, const char *working_dir,
                             Arena *arena, Error *err)
{
    const char *equals = strchr(override, '=');
    const char *where = arena_printf(arena, "--set %s", config_cut(override, arena));
    if (equals == NULL || equals == override)
        return error_set(err, ERR_INVALID,
                         "%s: expected KEY=VALUE, for example --set train.lr=1e-5", where);
    ConfigSource source = {
        .table = &job_table,
        .where = where,
        .override = arena_printf(job->arena, "%s", config_cut(override, arena)),
        .base_dir = working_dir,
        .values = &job->config,
        .origin = job->origin,
        .arena = arena,
    };
    YamlNode *value = NULL;
    if (yaml_parse(equals + 1, strlen(equals + 1), where, arena, &value, err) != OK)
        return error_set(err, ERR_INVALID,
                         "%s: what follows the = is not a valid value.\n"
                         "Write lists as [a, b], and texts with special characters in \"quotes\" "
                         "(within 'quotes' for the shell).",
                         where);
    char *path = arena_strndup(arena, override, (size_t)(equals - override));
    return config_apply_value(&source, path, value, err);
}

static Status check_required(const LoadedJob *job, Error *err)
{
    for (int i = 0; i < config_num_keys(&job_table); i++) {
        const ConfigKey *key = config_key(&job_table, i);
        if (!key->required || job->origin[i].kind != FROM_NOWHERE) continue;
        const char *dot = strchr(key->path, '.');
        return error_set(err, ERR_INVALID,
                         "%s: %s is missing: %s.\nAdd for example:\n%.*s:\n  %s: %s", job->where,
                         key->path, key->meaning, (int)(dot - key->path), key->path, dot + 1,
                         key->example);
    }
    return OK;
}

/* An override of num_steps or num_epochs replaces what the file says about the other. */
static void settle_length(LoadedJob *job)
{
    ConfigOrigin *steps = &job->origin[config_find(&job_table, "train.num_steps")];
    ConfigOrigin *epochs = &job->origin[config_find(&job_table, "train.num_epochs")];
    JobConfig *config = &job->config;
    if (steps->kind == FROM_OVERRIDE && epochs->kind == FROM_FILE && config->train.num_steps > 0)
        *epochs = (ConfigOrigin){FROM_NOWHERE, 0, NULL};
    if (epochs->kind == FROM_OVERRIDE && steps->kind == FROM_FILE && config->train.num_epochs > 0) {
        *steps = (ConfigOrigin){FROM_DEFAULT, 0, NULL};
        config->train.num_steps = 0;
    }
    if (epochs->kind == FROM_NOWHERE)
        config->train.num_epochs = config->train.num_steps > 0 ? 0 : 1;
}

static bool is_unset(const LoadedJob *job, const char *path)
{
    return job->origin[config_find(&job_table, path)].kind == FROM_NOWHERE;
}

void job_derive_algorithm(LoadedJob *job)
{
    AlgorithmConfig *algorithm = &job->config.algorithm;
    bool plus_plus = algorithm->advantage_estimator == ADVANTAGE_REINFORCE_PLUS_PLUS ||
                     algorithm->advantage_estimator == ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE;
    if (is_unset(job, "algorithm.normalize_advantages"))
        algorithm->normalize_advantages = plus_plus;
    if (is_unset(job, "algorithm.eps_clip_high")) algorithm->eps_clip_high = algorithm->eps_clip;
    if (is_unset(job, "algorithm.kl_estimator"))
        algorithm->kl_estimator = algorithm->kl_loss_coef != 0.0 ? KL_K3 : KL_K1;
}

/* A run in place of a model stands for its newest checkpoint. */
static void settle_models(LoadedJob *job)
{
    JobConfig *config = &job->config;
    char **path[] = {&config->model.path, &config->algorithm.reference, &config->algorithm.critic};
    for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
        char *checkpoint = *path[i] != NULL ? model_path_checkpoint(*path[i]) : NULL;
        if (checkpoint == NULL) continue;
        if (i == 0) config->model.run = arena_printf(job->arena, "%s", *path[i]);
        free(*path[i]);
        *path[i] = checkpoint;
    }
}

/* Defaults that follow from other values. */
static void derive(LoadedJob *job, const char *working_dir)
{
    JobConfig *config = &job->config;
    settle_models(job);
    if (config->name == NULL) config->name = job_name_from_file(job->where);
    if (config->run_dir == NULL)
        config->run_dir = mem_printf("%s/runs/%s", working_dir, config->name);
    if (config->model.config == NULL)
        config->model.config = path_join(config->model.path, "config.json");
    if (config->model.tokenizer == NULL) config->model.tokenizer = mem_strdup(config->model.path);
    ConfigOrigin *origin = job->origin;
    settle_length(job);
    job_derive_algorithm(job);
    if (origin[config_find(&job_table, "train.max_tokens_per_gpu")].kind == FROM_NOWHERE)
        config->train.max_tokens_per_gpu =
            config->data.max_length > 4096 ? config->data.max_length : 4096;
    for (int i = 0; i < config_num_keys(&job_table); i++)
        if (origin[i].kind == FROM_NOWHERE) origin[i].kind = FROM_DEFAULT;
}

static Status current_folder(char **ret, Error *err)
{
    *ret = getcwd(NULL, 0);
    return *ret != NULL ? OK : error_set_errno(err, errno, "could not find the working directory");
}

typedef struct JobText {
    const char *yaml;
    size_t length;
    const char *where, *base_dir;
    const char *const *overrides;
    int num_overrides;
} JobText;

static Status read_file_values(LoadedJob *job, const JobText *text, const char *working_dir,
                               Arena *arena, Error *err)
{
    YamlNode *root = NULL;
    TRY(yaml_parse(text->yaml, text->length, text->where, arena, &root, err));
    ConfigSource source = {
        .table = &job_table,
        .where = text->where,
        .base_dir = text->base_dir,
        .output_dir = working_dir,
        .values = &job->config,
        .origin = job->origin,
        .arena = arena,
    };
    return config_apply(&source, root, err);
}

static Status job_read(const JobText *text, JobConfig **ret, Error *err)
{
    LoadedJob *job = job_create(text->where);
    Arena *arena = arena_create();
    char *working_dir = NULL;
    Status status = current_folder(&working_dir, err);
    if (status == OK) {
        job->base_dir = arena_printf(job->arena, "%s", text->base_dir);
        job->working_dir = arena_printf(job->arena, "%s", working_dir);
        status = read_file_values(job, text, working_dir, arena, err);
    }
    for (int i = 0; status == OK && i < text->num_overrides; i++)
        status = apply_override(job, text->overrides[i], working_dir, arena, err);
    if (status == OK) status = check_required(job, err);
    if (status != OK) goto done;
    ConfigSource presets = {.table = &job_table,
                            .where = "default",
                            .base_dir = working_dir,
                            .values = &job->config,
                            .origin = job->origin,
                            .arena = arena};
    config_apply_presets(&presets);
    derive(job, working_dir);
    status = job_config_check(job, err);
    if (status != OK) goto done;
    *ret = &job->config;
    job = NULL;
done:
    free(working_dir);
    arena_destroy(arena);
    if (job != NULL) job_config_destroy(&job->config);
    return status;
}

Status job_config_parse(const char *yaml, const char *where, const char *base_dir, JobConfig **ret,
                        Error *err)
{
    char folder[PATH_MAX];
    if (realpath(base_dir != NULL ? base_dir : ".", folder) == NULL)
        return error_set_errno(err, errno, "%s: could not find the folder %s of its paths", where,
                               base_dir != NULL ? base_dir : ".");
    JobText text = {.yaml = yaml, .length = strlen(yaml), .where = where, .base_dir = folder};
    return job_read(&text, ret, err);
}

Status job_config_load(const char *path, const char *const *overrides, int num_overrides,
                       JobConfig **ret, Error *err)
{
    char *yaml = NULL, *parent = path_folder(path);
    char folder[PATH_MAX];
    size_t length = 0;
    Status status = OK;
    if (path_is_folder(path)) {
        status =
            error_set(err, ERR_INVALID,
                      "%s is a folder, expected a job file.\nGive the file itself, for example "
                      "%s/job.yaml",
                      path, path);
        goto done;
    }
    status = file_read(path, CONFIG_BYTES_MAX, &yaml, &length, err);
    if (status == ERR_NOT_FOUND)
        error_set(err, status,
                  "job file %s does not exist.\nGive one that does (--config PATH), or start from "
                  "one of deploy/examples.",
                  path);
    if (status != OK) goto done;
    if (realpath(parent, folder) == NULL) {
        status = error_set_errno(err, errno, "could not find the folder of %s", path);
        goto done;
    }
    JobText text = {yaml, length, path, folder, overrides, num_overrides};
    status = job_read(&text, ret, err);
done:
    free(yaml);
    free(parent);
    return status;
}
