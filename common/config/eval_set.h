/* Evaluation sets: data.eval, whose name is "eval", and those of eval.sets, in this order; each
 * with what holds for it, whether it says so itself or another key does. And what is measured on
 * them, by which evaluations may be compared. Pure; any thread. */
#ifndef TROUPE_CONFIG_EVAL_SET_H
#define TROUPE_CONFIG_EVAL_SET_H

#include "config/job.h"

/* The fields of a record that are looked at. */
typedef struct RecordKeys {
    const char *input; /* NULL: the shape tells */
    const char *label, *tool, *metadata;
} RecordKeys;

/* Borrowed from the configuration. */
typedef struct EvalSet {
    const char *name; /* "eval", "gsm8k": on the wire, in folders and in metrics */
    const char *key;  /* "data.eval", "eval.sets.gsm8k" */
    const StringList *path;
    RecordKeys record;
    /* of generation: */
    const char *reward; /* JSON text, as rollout.reward */
    int64_t n_samples_per_prompt, max_response_length, top_k, min_new_tokens;
    double temperature, top_p, min_p;
    PenaltyConfig penalty;
    const StringList *stop;
    const IntList *stop_token_ids;
    bool ignore_eos;
} EvalSet;

int eval_set_count(const JobConfig *config);
EvalSet eval_set(const JobConfig *config, int index);
int eval_set_find(const JobConfig *config, const char *name); /* -1: none, such as "train" */
int64_t eval_set_samples_max(const JobConfig *config); /* answers to a prompt in any; at least 1 */

/* Of the training set where `index` is -1. */
RecordKeys eval_set_record_keys(const JobConfig *config, int index);

/* ---- what is measured ---- */

typedef enum {
    FIGURE_LOSS,
    FIGURE_PERPLEXITY,
    FIGURE_TOKEN_ACCURACY,
    FIGURE_REWARD,
    FIGURE_ACCURACY,
    FIGURE_PASS_AT, /* k stands beside */
    FIGURE_RESPONSE_LENGTH,
    FIGURE_TRUNCATED,
    FIGURE_COUNT,
} EvalFigure;

const char *eval_figure_name(EvalFigure figure); /* "loss", "pass@", "response_len/mean" */
bool eval_figure_is_generated(EvalFigure figure);

typedef struct EvalGoal {
    int set;
    EvalFigure figure;
    int k; /* of pass@k */
} EvalGoal;

/* What eval.best_metric names. False when it is set and names no figure of a set. */
bool eval_goal(const JobConfig *config, EvalGoal *ret);

/* What is the better of it, as far as its name tells; BEST_UNSAID for a length. */
BestMode eval_figure_mode(EvalFigure figure);

#endif
