#include "config/job.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "config/eval_set.h"
#include "config/job_internal.h"
#include "config/cache_pins.h"
#include "config/model_pins.h"
#include "config/stages.h"

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
/* "stages.NAME.KEY" is of one stage: *path becomes KEY. False: of another one than this. */
static Status pick_layer(const ConfigSource *source, const StageNodes *stages, const char *name,
                         const char **path, bool *ret_mine, Error *err)
{
    static const char prefix[] = "stages.";
    *ret_mine = true;
    if (!str_starts_with(*path, prefix)) return OK;
    const char *rest = *path + strlen(prefix), *names[STAGES_MAX] = {NULL};
    for (int i = 0; i < stages->count; i++) {
        size_t length = strlen(names[i] = stages->stage[i].name);
        if (strncmp(rest, names[i], length) != 0 || rest[length] != '.') continue;
        *ret_mine = strcmp(names[i], name) == 0;
        *path = rest + length + 1;
        return OK;
    }
    if (stages->count == 0)
        return error_set(err, ERR_INVALID, "%s: the job file has no stages.", source->where);
    char *asked = arena_strndup(source->arena, rest, strcspn(rest, "."));
    const char *nearest = str_nearest(asked, names, (size_t)stages->count);
    return error_set(err, ERR_INVALID,
                     "%s: there is no stage called %s.\nDid you mean stages.%s, as in --set "
                     "stages.%s.train.lr=1e-5?",
                     source->where, asked, nearest != NULL ? nearest : names[0],
                     nearest != NULL ? nearest : names[0]);
}

static Status apply_override(LoadedJob *job, const char *override, const StageNodes *stages,
                             const char *working_dir, Arena *arena, Error *err)
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
                         "(within 'quotes' for the shell): '[\"a.jsonl@[:20]\", b]'.",
                         where);
    const char *path = arena_strndup(arena, override, (size_t)(equals - override)), *whole = path;
    bool mine = true;
    TRY(pick_layer(&source, stages, job->config.stage, &path, &mine, err));
    if (!mine) return OK;
    if (path != whole) source.layer = arena_printf(arena, "the stage %s", job->config.stage);
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

/* The file's own sections, a stage's, overrides: what comes later replaces what says the same. */
static int rank_of(const ConfigOrigin *origin)
{
    if (origin->kind == FROM_OVERRIDE) return 3;
    if (origin->kind == FROM_FILE) return origin->layered ? 2 : 1;
    return 0;
}

/* What a stage or an override trains on replaces what the file says, in whatever form that is. */
static void settle_data(LoadedJob *job)
{
    int train = config_find(&job_table, "data.train"),
        sources = config_find(&job_table, "data.sources");
    int by = rank_of(&job->origin[train]) - rank_of(&job->origin[sources]);
    int old = by > 0 ? sources : train;
    if (by == 0 || (by > 0 && job->config.data.train.count == 0) ||
        (by < 0 && job->config.data.sources.count == 0))
        return;
    config_value_release(config_key(&job_table, old), &job->config);
    bool set = job->origin[by > 0 ? train : sources].kind == FROM_OVERRIDE;
    if (set && rank_of(&job->origin[old]) > 0) job->set_aside = config_key(&job_table, old)->path;
    job->origin[old] = (ConfigOrigin){.kind = FROM_NOWHERE};
}

/* num_steps and num_epochs say the same in two ways: the later one replaces the other. */
static void settle_length(LoadedJob *job)
{
    ConfigOrigin *steps = &job->origin[config_find(&job_table, "train.num_steps")];
    ConfigOrigin *epochs = &job->origin[config_find(&job_table, "train.num_epochs")];
    JobConfig *config = &job->config;
    if (rank_of(steps) > rank_of(epochs) && config->train.num_steps > 0)
        *epochs = (ConfigOrigin){.kind = FROM_NOWHERE};
    if (rank_of(epochs) > rank_of(steps) && rank_of(steps) > 0 && config->train.num_epochs > 0) {
        *steps = (ConfigOrigin){.kind = FROM_DEFAULT};
        config->train.num_steps = 0;
    }
    if (epochs->kind == FROM_NOWHERE)
        config->train.num_epochs = config->train.num_steps > 0 ? 0 : 1;
}

DataOrder job_data_order(const JobConfig *config)
{
    DataOrder order = config->data.order;
    if (!config->data.shuffle) order.kind = ORDER_FILES;
    return order;
}

int64_t job_samples_per_step(const JobConfig *config)
{
    return config->train.global_batch_size * config->train.num_steps_per_rollout;
}

/* Of one epoch by itself; 0: it does not fill a batch. */
static int64_t steps_of_epoch(const JobConfig *config, int64_t records, int64_t batch)
{
    bool pads = config->data.remainder == REMAINDER_PAD;
    return (records + (pads ? batch - 1 : 0)) / batch;
}

int64_t job_steps_of_epochs(const JobConfig *config, int64_t records, int64_t batch, int64_t epochs)
{
    if (config->data.remainder == REMAINDER_WRAP) return records * epochs / batch;
    return steps_of_epoch(config, records, batch) * epochs;
}

int64_t job_positions_of_steps(const JobConfig *config, int64_t records, int64_t batch,
                               int64_t steps)
{
    if (config->data.remainder == REMAINDER_WRAP) return steps * batch;
    int64_t of_epoch = steps_of_epoch(config, records, batch);
    if (of_epoch == 0) return steps * batch;
    return steps / of_epoch * records + steps % of_epoch * batch;
}

int64_t job_micro_batch_tokens(const JobConfig *config)
{
    if (config->train.micro_batch_size > 0)
        return config->train.micro_batch_size * config->data.max_length;
    return config->train.max_tokens_per_gpu;
}

static bool learns_by_rewards(const JobConfig *config)
{
    return config->rollout.function != ROLLOUT_SFT && !config->rollout.only;
}

bool job_wants_reference(const JobConfig *config)
{
    return learns_by_rewards(config) && algorithm_uses_reference(&config->algorithm);
}

bool job_refers_to_start(const JobConfig *config)
{
    return job_wants_reference(config) && algorithm_refers_to_start(&config->algorithm);
}

bool job_wants_critic(const JobConfig *config)
{
    return learns_by_rewards(config) && config->algorithm.advantage_estimator == ADVANTAGE_PPO;
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
    if (is_unset(job, "algorithm.eps_clip"))
        algorithm->eps_clip = algorithm_eps_clip(algorithm->policy_loss);
    if (is_unset(job, "algorithm.eps_clip_high"))
        algorithm->eps_clip_high =
            algorithm_eps_clip_high(algorithm->policy_loss, algorithm->eps_clip);
    if (is_unset(job, "algorithm.correction_low"))
        algorithm->correction_low = algorithm_correction_low(algorithm->correction);
    if (is_unset(job, "algorithm.correction_high"))
        algorithm->correction_high = algorithm_correction_high(algorithm->correction);
    if (is_unset(job, "algorithm.kl_estimator"))
        algorithm->kl_estimator = algorithm->kl_loss_coef != 0.0 ? KL_K3 : KL_K1;
}

/* A run in place of a model stands for its newest checkpoint, and goes on standing for that one in
 * later sessions, whatever becomes of it meanwhile. */
static Status settle_models(LoadedJob *job, Error *err)
{
    JobConfig *config = &job->config;
    const struct {
        const char *key;
        char **path;
    } models[MODEL_PINS_MAX] = {{"model.path", &config->model.path},
                                {"algorithm.reference", &config->algorithm.reference},
                                {"algorithm.critic", &config->algorithm.critic}};
    for (int i = 0; i < MODEL_PINS_MAX; i++) {
        char **path = models[i].path;
        if (*path != NULL && strcmp(*path, REFERENCE_START) == 0) continue;
        char *kept = NULL;
        if (*path != NULL) TRY(model_pins_find(config->run_dir, *path, &kept, err));
        char *checkpoint = kept != NULL    ? kept
                           : *path != NULL ? model_path_checkpoint(*path)
                                           : NULL;
        if (checkpoint == NULL) continue;
        ModelPin *pin = &config->pin[config->num_pins++];
        *pin = (ModelPin){.key = models[i].key,
                          .run = arena_printf(job->arena, "%s", *path),
                          .checkpoint = arena_printf(job->arena, "%s", checkpoint),
                          .kept = kept != NULL};
        if (i == 0) config->model.run = pin->run;
        free(*path);
        *path = checkpoint;
    }
    return OK;
}

/* A stage behind another stays near to what that one left. */
static void settle_reference(LoadedJob *job)
{
    JobConfig *config = &job->config;
    if (is_unset(job, "algorithm.reference") && job_wants_reference(config))
        config->algorithm.reference = mem_strdup(REFERENCE_START);
}

void job_config_decide_kv_cache(JobConfig *config, int64_t mb)
{
    CHECK(config->rollout.kv_cache_mb == 0 && mb > 0);
    config->rollout.kv_cache_mb = mb;
    config->kv_cache_decided = true;
}

bool job_may_take_turns(const JobConfig *config)
{
    return config->device != JOB_CPU && config->rollout.function != ROLLOUT_SFT &&
           config->rollout.colocate && config->rollout.max_staleness == 0 && !config->rollout.only;
}

void job_config_expect_weights(JobConfig *config)
{
    config->model.weights_to_come = true;
}

bool job_has_rank_processes(const JobConfig *config)
{
    if (config->train.tp_size == 1 || config->rollout.function == ROLLOUT_SFT) return false;
    return config->rollout.ranks == RANKS_PROCESSES || config->device != JOB_CPU;
}

void job_config_decide_offload(JobConfig *config)
{
    CHECK(config->rollout.offload == OFFLOAD_AUTO && job_may_take_turns(config));
    config->rollout.offload = OFFLOAD_ON;
}

void job_config_decide_tokens(JobConfig *config, int64_t tokens)
{
    CHECK(config->tokens_open && tokens >= config->train.max_tokens_per_gpu);
    config->train.max_tokens_per_gpu = config->train.memory_tokens_per_gpu = tokens;
    config->tokens_open = false;
    config->tokens_decided = true;
}

/* Supervised training alone on a GPU takes what there is memory for; what generates beside it, now
 * or in another stage, wants that memory too. */
static void settle_tokens(LoadedJob *job, bool behind)
{
    JobConfig *config = &job->config;
    config->tokens_open = config->device != JOB_CPU && config->rollout.function == ROLLOUT_SFT &&
                          !behind && config->stage == NULL && config->train.micro_batch_size == 0 &&
                          is_unset(job, "train.max_tokens_per_gpu") &&
                          is_unset(job, "train.memory_tokens_per_gpu");
}

/* As an earlier session of the run decided. */
static void settle_pinned_tokens(JobConfig *config)
{
    int64_t tokens = config->tokens_open ? cache_pins_tokens(config) : 0;
    if (tokens >= config->train.max_tokens_per_gpu && tokens > 0)
        job_config_decide_tokens(config, tokens);
}

/* The same of keys and values. */
static void settle_kv_cache(JobConfig *config)
{
    if (config->rollout.function == ROLLOUT_SFT || config->rollout.kv_cache_mb > 0) return;
    int64_t mb = cache_pins_find(config);
    if (mb > 0) job_config_decide_kv_cache(config, mb);
}

static void settle_best(LoadedJob *job)
{
    EvalGoal goal;
    if (is_unset(job, "eval.best_mode") && eval_goal(&job->config, &goal))
        job->config.eval.best_mode = eval_figure_mode(goal.figure);
}

/* Programs start in the folder of the job file, and there the path of a plugin begins, too, or as
 * everything in an override at the working directory. */
static void settle_programs(LoadedJob *job, const char *working_dir)
{
    JobConfig *config = &job->config;
    const ConfigOrigin *origin = &job->origin[config_find(&job_table, "rollout.function")];
    if (config->rollout.working_dir == NULL)
        config->rollout.working_dir = mem_strdup(job->base_dir);
    if (config->rollout.function != ROLLOUT_PLUGIN) return;
    char *path = config_resolve_path(origin->kind == FROM_OVERRIDE ? working_dir : job->base_dir,
                                     config->rollout.function_of);
    free(config->rollout.function_of);
    config->rollout.function_of = path;
}

/* Defaults that follow from other values; `behind`: of a stage behind another. */
static Status derive(LoadedJob *job, const char *working_dir, bool behind, Error *err)
{
    JobConfig *config = &job->config;
    settle_programs(job, working_dir);
    if (config->name == NULL) config->name = job_name_from_file(job->where);
    if (config->run_dir == NULL)
        config->run_dir = mem_printf("%s/runs/%s", working_dir, config->name);
    TRY(settle_models(job, err));
    if (behind) settle_reference(job);
    settle_kv_cache(config);
    if (config->model.config == NULL)
        config->model.config = path_join(config->model.path, "config.json");
    if (config->model.tokenizer == NULL) config->model.tokenizer = mem_strdup(config->model.path);
    ConfigOrigin *origin = job->origin;
    settle_data(job);
    settle_length(job);
    job_derive_algorithm(job);
    settle_best(job);
    settle_tokens(job, behind);
    if (is_unset(job, "train.max_tokens_per_gpu"))
        config->train.max_tokens_per_gpu =
            config->data.max_length > 4096 ? config->data.max_length : 4096;
    if (is_unset(job, "cluster.rollout_workers_max"))
        config->cluster.rollout_workers_max = config->rollout.num_workers;
    if (is_unset(job, "train.memory_length")) config->train.memory_length = config->data.max_length;
    if (is_unset(job, "train.memory_tokens_per_gpu"))
        config->train.memory_tokens_per_gpu = job_micro_batch_tokens(config);
    settle_pinned_tokens(config);
    if (is_unset(job, "train.memory_reference"))
        config->train.memory_reference = job_wants_reference(config);
    if (is_unset(job, "train.memory_critic"))
        config->train.memory_critic = job_wants_critic(config);
    for (int i = 0; i < config_num_keys(&job_table); i++)
        if (origin[i].kind == FROM_NOWHERE) origin[i].kind = FROM_DEFAULT;
    return OK;
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
    int stage;    /* which one is read, when there are some */
    bool follows; /* it takes over from another job */
} JobText;

/* *ret_stages: those that the file has. */
static Status read_file_values(LoadedJob *job, const JobText *text, const char *working_dir,
                               Arena *arena, StageNodes *ret_stages, Error *err)
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
    StageNodes stages = {0};
    TRY(stages_cut(&source, root, &stages, err));
    *ret_stages = stages;
    TRY(config_apply(&source, root, err));
    if (text->stage >= stages.count) return OK;
    const StageNode *stage = &stages.stage[text->stage];
    job->config.stage = arena_printf(job->arena, "%s", stage->name);
    source.layer = arena_printf(arena, "the stage %s", stage->name);
    return config_apply(&source, &stage->sections, err);
}

static Status read_stage(const JobText *text, int *ret_stages, LoadedJob **ret, Error *err)
{
    LoadedJob *job = job_create(text->where);
    Arena *arena = arena_create();
    char *working_dir = NULL;
    StageNodes stages = {0};
    Status status = current_folder(&working_dir, err);
    if (status == OK) {
        job->base_dir = arena_printf(job->arena, "%s", text->base_dir);
        job->working_dir = arena_printf(job->arena, "%s", working_dir);
        status = read_file_values(job, text, working_dir, arena, &stages, err);
        *ret_stages = stages.count;
    }
    if (status == OK) settle_data(job); /* before an override reaches into what a stage replaced */
    for (int i = 0; status == OK && i < text->num_overrides; i++)
        status = apply_override(job, text->overrides[i], &stages, working_dir, arena, err);
    if (status == OK) status = check_required(job, err);
    if (status != OK) goto done;
    ConfigSource presets = {.table = &job_table,
                            .where = "default",
                            .base_dir = working_dir,
                            .values = &job->config,
                            .origin = job->origin,
                            .arena = arena};
    config_apply_presets(&presets);
    status = derive(job, working_dir, text->follows || text->stage > 0, err);
    if (status == OK) status = job_config_check(job, err);
    if (status != OK) goto done;
    *ret = job;
    job = NULL;
done:
    free(working_dir);
    arena_destroy(arena);
    if (job != NULL) job_config_destroy(&job->config);
    return status;
}

void job_stages_free(JobStages *stages)
{
    for (int i = 0; i < stages->count; i++)
        job_config_destroy(stages->stage[i]);
    free(stages->stage);
    *stages = (JobStages){0};
}

/* All stages; a file without any makes one. */
static Status read_all(JobText *text, JobStages *ret, Error *err)
{
    JobStages stages = {0};
    LoadedJob *job[STAGES_MAX];
    Status status = OK;
    int count = 1;
    for (int i = 0; i < count && status == OK; i++) {
        text->stage = i;
        status = read_stage(text, &count, &job[i], err);
        if (status == OK && count == 0) count = 1;
        if (status != OK) break;
        stages.stage = mem_realloc(stages.stage, (size_t)count, sizeof *stages.stage);
        stages.stage[stages.count++] = &job[i]->config;
    }
    if (status == OK) stages_share_sizes(job, stages.count);
    if (status == OK)
        *ret = stages;
    else
        job_stages_free(&stages);
    return status;
}

/* The one of this name; the first when it is NULL. */
static Status pick_stage(JobStages *stages, const char *where, const char *name, JobConfig **ret,
                         Error *err)
{
    const char *names[STAGES_MAX] = {NULL};
    for (int i = 0; i < stages->count; i++) {
        names[i] = stages->stage[i]->stage;
        if (name != NULL && (names[i] == NULL || strcmp(names[i], name) != 0)) continue;
        *ret = stages->stage[i];
        stages->stage[i] = NULL;
        return OK;
    }
    if (names[0] == NULL)
        return error_set(err, ERR_INVALID, "%s has no stages, so none is called %s.", where, name);
    const char *nearest = str_nearest(name, names, (size_t)stages->count);
    return error_set(err, ERR_INVALID, "%s has no stage called %s. Did you mean %s?", where, name,
                     nearest != NULL ? nearest : names[0]);
}

static Status job_read(JobText *text, const char *stage, JobConfig **ret, Error *err)
{
    JobStages stages = {0};
    TRY(read_all(text, &stages, err));
    Status status = pick_stage(&stages, text->where, stage, ret, err);
    job_stages_free(&stages);
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
    return job_read(&text, NULL, ret, err);
}

/* The text of a job file and the folder of its paths. */
static Status read_file(const char *path, char **ret_yaml, size_t *ret_length,
                        char folder[PATH_MAX], Error *err)
{
    if (path_is_folder(path))
        return error_set(err, ERR_INVALID,
                         "%s is a folder, expected a job file.\nGive the file itself, for example "
                         "%s/job.yaml",
                         path, path);
    Status status = file_read(path, CONFIG_BYTES_MAX, ret_yaml, ret_length, err);
    if (status == ERR_NOT_FOUND)
        error_set(err, status,
                  "job file %s does not exist.\nGive one that does (--config PATH), or start from "
                  "one of deploy/examples.",
                  path);
    if (status != OK) return status;
    char *parent = path_folder(path);
    if (realpath(parent, folder) == NULL)
        status = error_set_errno(err, errno, "could not find the folder of %s", path);
    free(parent);
    return status;
}

static Status load_stages(const char *path, JobText *text, JobStages *ret, Error *err)
{
    char folder[PATH_MAX], *yaml = NULL;
    Status status = read_file(path, &yaml, &text->length, folder, err);
    text->where = path;
    text->yaml = yaml;
    text->base_dir = folder;
    if (status == OK) status = read_all(text, ret, err);
    free(yaml);
    return status;
}

Status job_stages_load(const char *path, const char *const *overrides, int num_overrides,
                       JobStages *ret, Error *err)
{
    JobText text = {.overrides = overrides, .num_overrides = num_overrides};
    return load_stages(path, &text, ret, err);
}

Status job_stages_load_next(const char *path, const char *const *overrides, int num_overrides,
                            JobStages *ret, Error *err)
{
    JobText text = {.overrides = overrides, .num_overrides = num_overrides, .follows = true};
    return load_stages(path, &text, ret, err);
}

Status job_config_load(const char *path, const char *stage, const char *const *overrides,
                       int num_overrides, JobConfig **ret, Error *err)
{
    JobStages stages = {0};
    TRY(job_stages_load(path, overrides, num_overrides, &stages, err));
    Status status = pick_stage(&stages, path, stage, ret, err);
    job_stages_free(&stages);
    return status;
}
