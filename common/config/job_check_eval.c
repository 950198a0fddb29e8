/* Evaluation sets, and which evaluation is the best: whether what a job says of them makes sense.
 */
#include <string.h>

#include "config/eval_set.h"
#include "config/job_internal.h"
#include "config/rows.h"

#define NAMES_COMPARED 256

static const char SETS[] = "eval.sets", METRIC[] = "eval.best_metric";

static Status check_sets_exist(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    if (eval_set_count(config) > 0 || (config->eval.interval == 0 && !config->eval.before_train))
        return OK;
    bool interval = config->eval.interval > 0;
    return job_refuse(job, interval ? "eval.interval" : "eval.before_train", NULL, err,
                      "eval.%s asks for evaluations, but data.eval names no file.\n"
                      "Add the held-out file (data: eval: test.jsonl) or remove the key.",
                      interval ? "interval" : "before_train");
}

/* The first key that an evaluation without generation has no use for, or NULL. */
static const char *key_of_generation(const RowHead *row)
{
    static const char *const others[] = {"path", "input_key", "label_key", "tool_key",
                                         "metadata_key"};
    const ConfigKey *sets = config_key(&job_table, config_find(&job_table, SETS));
    for (int i = 0; i < config_num_keys(sets->rows); i++) {
        const char *name = config_key(sets->rows, i)->path;
        bool of_data = false;
        for (size_t k = 0; k < sizeof others / sizeof *others; k++)
            of_data = of_data || strcmp(name, others[k]) == 0;
        if (!of_data && (row->given >> i & 1)) return name;
    }
    return NULL;
}

static Status check_rows(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    const ConfigKey *sets = config_key(&job_table, config_find(&job_table, SETS));
    for (int i = 0; i < config->eval.sets.count; i++) {
        const RowHead *row = row_at(sets, &config->eval.sets, i);
        if (strcmp(row->name, "train") == 0 || strcmp(row->name, "eval") == 0)
            return job_refuse(job, SETS, NULL, err,
                              "%s has a name that is taken: train is data.train, eval is "
                              "data.eval.\nGive the set another name.",
                              row->path);
        const char *name = key_of_generation(row);
        if (name != NULL && config->rollout.function == ROLLOUT_SFT)
            return job_refuse(job, SETS, NULL, err,
                              "%s.%s has no effect with rollout.function: sft: an evaluation "
                              "measures the loss of given answers.\n"
                              "Remove the key, or write rollout.function: generate.",
                              row->path, name);
    }
    return OK;
}

/* The name of a figure of this job's evaluations that was probably meant, or NULL. Arena memory. */
static const char *nearest_metric(const LoadedJob *job, bool generates)
{
    const JobConfig *config = &job->config;
    const char *names[NAMES_COMPARED];
    size_t count = 0;
    for (int i = 0; i < eval_set_count(config); i++)
        for (EvalFigure figure = 0; figure < FIGURE_COUNT && count < NAMES_COMPARED; figure++)
            if (eval_figure_is_generated(figure) == generates && figure != FIGURE_PASS_AT)
                names[count++] = arena_printf(job->arena, "%s/%s", eval_set(config, i).name,
                                              eval_figure_name(figure));
    return str_nearest(config->eval.best_metric, names, count);
}

static Status refuse_metric(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    bool generates = config->rollout.function != ROLLOUT_SFT;
    const char *nearest = nearest_metric(job, generates);
    Str sets = {0}, figures = {0};
    for (int i = 0; i < eval_set_count(config); i++)
        str_printf(&sets, "%s%s", i > 0 ? ", " : "", eval_set(config, i).name);
    for (EvalFigure figure = 0; figure < FIGURE_COUNT; figure++)
        if (eval_figure_is_generated(figure) == generates)
            str_printf(&figures, "%s%s%s", figures.length > 0 ? ", " : "", eval_figure_name(figure),
                       figure == FIGURE_PASS_AT ? "1, 2, 4 .." : "");
    job_refuse(job, METRIC, NULL, err,
               "eval.best_metric is \"%s\", which names no figure of an evaluation of this job: "
               "expected SET/FIGURE.\nSets: %s. Figures: %s.\npass@k needs k answers to a "
               "prompt.%s%s%s",
               config_cut(config->eval.best_metric, job->arena), str_text(&sets),
               str_text(&figures), nearest != NULL ? "\nDid you mean " : "",
               nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
    str_free(&sets);
    str_free(&figures);
    return ERR_INVALID;
}

static Status check_best(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    EvalGoal goal = {0};
    if (config->eval.best_metric == NULL && config->checkpoint.keep_best > 0)
        return job_refuse(job, "checkpoint.keep_best", NULL, err,
                          "checkpoint.keep_best is %lld, but eval.best_metric does not say what is "
                          "best.\nWrite for example best_metric: %s in the section eval.",
                          (long long)config->checkpoint.keep_best,
                          config->rollout.function == ROLLOUT_SFT ? "eval/loss" : "eval/accuracy");
    if (config->eval.best_metric == NULL)
        return config->eval.best_mode == BEST_UNSAID
                   ? OK
                   : job_refuse(job, "eval.best_mode", NULL, err,
                                "eval.best_mode has no effect without eval.best_metric.\n"
                                "Remove it.");
    if (!eval_goal(config, &goal) ||
        eval_figure_is_generated(goal.figure) != (config->rollout.function != ROLLOUT_SFT))
        return refuse_metric(job, err);
    if (config->checkpoint.keep_best == 0)
        return job_refuse(job, METRIC, NULL, err,
                          "eval.best_metric has no effect without checkpoint.keep_best.\n"
                          "Remove it, or write keep_best: 1 in the section checkpoint.");
    if (config->eval.best_mode == BEST_UNSAID)
        return job_refuse(job, METRIC, NULL, err,
                          "eval.best_metric is %s, of which the name does not tell what is "
                          "better.\nWrite best_mode: max or best_mode: min.",
                          config->eval.best_metric);
    return OK;
}

Status job_check_eval(const LoadedJob *job, Error *err)
{
    TRY(check_sets_exist(job, err));
    TRY(check_rows(job, err));
    return check_best(job, err);
}
