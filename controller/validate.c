#include "validate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/data_path.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/size_text.h"
#include "base/str.h"
#include "config/eval_set.h"
#include "config/model_pins.h"
#include "config/source_set.h"
#include "disk_room.h"
#include "local_node.h"
#include "model/model_config.h"
#include "model/weights_check.h"
#include "text/text_check.h"

/* Shows what is wrong with the chat template before the first sample does; *ret_warnings (owned)
 * what is odd. */
static Status try_text(const JobConfig *config, const TextModel *text, char **ret_warnings,
                       Error *err)
{
    const char *kwargs_text = config->data.apply_chat_template_kwargs;
    cJSON *kwargs = kwargs_text != NULL ? cJSON_Parse(kwargs_text) : NULL;
    Status status = text_model_try(text, kwargs, err);
    if (status == OK) *ret_warnings = text_model_warnings(text, kwargs);
    cJSON_Delete(kwargs);
    return status;
}

/* A line each; without `out` to the log, as `event`. */
static void put_warnings(const char *event, const char *warnings, Str *out)
{
    for (const char *line = warnings; line != NULL && *line != '\0';) {
        int length = (int)strcspn(line, "\n");
        if (out != NULL)
            str_printf(out, "warning: %.*s\n", length, line);
        else {
            char *text = mem_strndup(line, (size_t)length);
            log_event(LOG_WARN, event, F_STR("why", text));
            free(text);
        }
        line += length + (line[length] == '\n');
    }
}

/* Learning goes on with it, but not towards what was asked for, and no figure tells. */
static void warn_of_bias(const JobConfig *config, Str *out)
{
    char *keys = job_sampling_bias(config);
    if (keys == NULL) return;
    char *warning =
        mem_printf("answers that train are not drawn from the policy itself (%s), but the gradient "
                   "is computed as if they were: it is biased. Leave that to evaluations (eval.*); "
                   "see sampling.md",
                   keys);
    put_warnings("sampling_biased", warning, out);
    free(warning);
    free(keys);
}

static bool names(const StringList *paths, int count, const char *path)
{
    for (int i = 0; i < count; i++)
        if (strcmp(paths->item[i], path) == 0) return true;
    return false;
}

/* A data set whose split is told by who takes it: training and evaluation take others of it. */
static bool is_split_by_key(const char *text)
{
    DataPath path = data_path_parse(text);
    char *saved = path_join(path.path, "state.json"); /* of one split, by save_to_disk */
    bool whole = path.hub.repo != NULL ? path.path[0] == '\0'
                                       : path_is_folder(path.path) && !path_exists(saved);
    whole = whole && path.split == NULL;
    free(saved);
    data_path_free(&path);
    return whole;
}

/* A path that is there twice, in one set or in two. */
static void warn_of_twice(const JobConfig *config, Str *out)
{
    for (int i = 0; i < train_source_count(config); i++) {
        TrainSource source = train_source(config, i);
        for (int a = 0; a < source.path->count && source.reader == NULL; a++) {
            const char *path = source.path->item[a];
            Str warning = {0};
            if (names(source.path, a, path))
                str_printf(&warning, "%s names %s twice: its records come twice an epoch\n",
                           source.key, path);
            for (int e = 0; e < eval_set_count(config) && warning.length == 0; e++) {
                EvalSet set = eval_set(config, e);
                if (names(set.path, set.path->count, path) && !is_split_by_key(path))
                    str_printf(&warning, "%s and %s both name %s: what is evaluated is trained\n",
                               source.key, set.key, path);
            }
            put_warnings("data_twice", str_text(&warning), out);
            str_free(&warning);
        }
    }
}

/* Of some source's files: a reader of the user's shuffles by itself. */
static bool has_order(const JobConfig *config, OrderKind kind)
{
    for (int i = 0; i < train_source_count(config); i++) {
        TrainSource source = train_source(config, i);
        if (source.reader == NULL && source.order.kind == kind) return true;
    }
    return false;
}

/* Keys that the job gives, and that change nothing in it. */
static void warn_of_idle_keys(const JobConfig *config, Str *out)
{
    bool window = has_order(config, ORDER_WINDOW), hf = has_order(config, ORDER_HF);
    bool counts_itself = config->data.reader == NULL; /* a reader need not say how many it has */
    bool skips = config->data.bad_record == POLICY_SKIP;
    char *checkpoint = model_path_checkpoint(config->run_dir);
    const char *shuffled = config->data.shuffle ? "" : " and data.shuffle: true";
    const struct {
        const char *key;
        bool idle, of_order;
        const char *needs;
    } row[] = {
        {"data.window_mb", !window, true, "data.order: window"},
        {"data.hf_version", !hf, true, "data.order: hf"},
        {"data.hf_buffer_size", !hf, true, "data.order: hf"},
        {"data.num_samples", !window && counts_itself, true, "data.order: window"},
        {"data.bad_records_max", !skips, false, "data.bad_record: skip"},
        {"data.accept_changed", checkpoint == NULL, false,
         "a checkpoint in the run folder: this run begins with the data as they are"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        if (!row[i].idle || !job_config_departs(config, row[i].key)) continue;
        char *warning = mem_printf("%s has no effect without %s%s", row[i].key, row[i].needs,
                                   row[i].of_order ? shuffled : "");
        put_warnings("no_effect", warning, out);
        free(warning);
    }
    free(checkpoint);
}

static void warn_of_set_aside(const JobConfig *config, Str *out)
{
    const char *aside = job_config_set_aside(config);
    if (aside == NULL) return;
    char *warning =
        mem_printf("--set of %s takes the place of all of %s in the job file",
                   strcmp(aside, "data.train") == 0 ? "data.sources" : "data.train", aside);
    put_warnings("set_aside", warning, out);
    free(warning);
}

static void warn_of_lost_pins(const JobConfig *config, Str *out)
{
    if (!model_pins_are_lost(config)) return;
    char *warning =
        mem_printf("the run in %s has checkpoints, but models.json is not there, which says with "
                   "which checkpoint of %s it began: the newest one is taken (%s)",
                   config->run_dir, config->pin[0].run, config->pin[0].checkpoint);
    put_warnings("models_unknown", warning, out);
    free(warning);
}

static Status load_text(const JobConfig *config, TextModel **ret, Error *err)
{
    Status status = text_model_load(config->model.tokenizer, config->model.chat_template, ret, err);
    if (status != OK)
        error_append(err, "Correct the file, or name another one at model.tokenizer or "
                          "model.chat_template.");
    return status;
}

static char *summarize(const JobConfig *config, const ModelConfig *model, const TextModel *text,
                       const char *warnings)
{
    bool embedded = config->cluster.agents.count == 0;
    double cpus = local_node_cpus_needed(config);
    char *place = embedded ? mem_printf("of %g offered, this machine has %ld",
                                        local_node_cpus(config), sysconf(_SC_NPROCESSORS_ONLN))
                           : mem_printf("of cluster.agents, which were not asked");
    bool kept = config->model.run != NULL && config->pin[0].kept;
    char *weights = config->model.run == NULL
                        ? mem_strdup("")
                        : mem_printf("weights: %s of %s: %s\n",
                                     kept ? "as this run began, a checkpoint" : "newest checkpoint",
                                     config->model.run, path_name(config->model.path));
    Str summary = {0};
    str_printf(
        &summary,
        "model: %lld parameters, %d layers, hidden size %d, vocabulary %lld (tokenizer %d)\n%s"
        "layout: tp %lld x dp %lld, %lld rollout worker%s, batch of %lld sample%s; %g CPU%s %s\n",
        (long long)model_config_parameters(model), model->num_hidden_layers, model->hidden_size,
        (long long)model->vocab_size, (int)tokenizer_vocab_size(text_model_tokenizer(text)),
        weights, (long long)config->train.tp_size, (long long)config->train.dp_size,
        (long long)config->rollout.num_workers, plural(config->rollout.num_workers),
        (long long)config->train.global_batch_size, plural(config->train.global_batch_size), cpus,
        cpus == 1 ? "" : "s", place);
    put_warnings("text_odd", warnings, &summary);
    warn_of_bias(config, &summary);
    warn_of_lost_pins(config, &summary);
    warn_of_twice(config, &summary);
    warn_of_idle_keys(config, &summary);
    warn_of_set_aside(config, &summary);
    free(place);
    free(weights);
    return str_take(&summary);
}

Status validate_disk(const JobConfig *config, char **ret_line, Error *err)
{
    DiskRoom room;
    char *warning = NULL, one[32], has[32], most[64] = "all are kept";
    TRY(disk_room_look(config, &room, err));
    Status status = disk_room_check(&room, &warning, err);
    if (room.at_a_time > 0)
        snprintf(most, sizeof most, "at most %d stand at a time", room.at_a_time);
    if (status == OK)
        *ret_line = mem_printf("disk: a checkpoint takes %s, %s; %s has %s free\n%s%s%s",
                               size_text((uint64_t)room.checkpoint_bytes, one), most, room.place,
                               size_text((uint64_t)room.free_bytes, has),
                               warning != NULL ? "warning: " : "", warning != NULL ? warning : "",
                               warning != NULL ? "\n" : "");
    free(warning);
    disk_room_free(&room);
    return status;
}

Status validate_job(const JobConfig *config, char **ret_summary, Error *err)
{
    TextModel *text = NULL;
    char *warnings = NULL;
    ModelConfig model;
    Status status = job_config_check_files(config, err);
    if (status == OK) status = model_config_read(config->model.config, &model, err);
    if (status == OK) status = model_config_check_parallel(&model, (int)config->train.tp_size, err);
    if (status == OK && config->model.init == INIT_PRETRAINED && !config->model.weights_to_come)
        status = weights_check_folder(config->model.path, &model, err);
    if (status == OK && config->cluster.agents.count == 0) status = local_node_check(config, err);
    if (status == OK) status = load_text(config, &text, err);
    if (status == OK)
        status = model_config_check_tokenizer(&model, config->model.config,
                                              tokenizer_vocab_size(text_model_tokenizer(text)),
                                              config->model.tokenizer, err);
    if (status == OK) status = try_text(config, text, &warnings, err);
    if (status == OK && ret_summary != NULL)
        *ret_summary = summarize(config, &model, text, warnings);
    else
        put_warnings("text_odd", warnings, NULL);
    if (status == OK && ret_summary == NULL) {
        warn_of_bias(config, NULL);
        warn_of_lost_pins(config, NULL);
        warn_of_twice(config, NULL);
        warn_of_idle_keys(config, NULL);
        warn_of_set_aside(config, NULL);
    }
    free(warnings);
    text_model_destroy(text);
    return status;
}
