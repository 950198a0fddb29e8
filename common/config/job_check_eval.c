/* Evaluation sets: whether what a job says of them makes sense.
 */
#include <string.h>

#include "config/eval_set.h"
#include "config/job_internal.h"
#include "config/rows.h"

static const char SETS[] = "eval.sets";

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

Status job_check_eval(const LoadedJob *job, Error *err)
{
    TRY(check_sets_exist(job, err));
    return check_rows(job, err);
}
