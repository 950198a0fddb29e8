/* JobConfig: everything job.yaml can say, checked once, then const. Defaults stand only in the key
 * table (job_table.c), from which the reference in docs/, `controller schema` and every message are
 * printed too. Paths are absolute after loading: relative ones are taken from the folder of the job
 * file, in an override and for run_dir from the working directory. Strings and lists belong to the
 * JobConfig. Only the functions below make one: it is never copied or declared. */
#ifndef TROUPE_CONFIG_JOB_H
#define TROUPE_CONFIG_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/data_order.h"
#include "base/error.h"
#include "base/str.h"
#include "config/algorithm.h"
#include "config/int_list.h"
#include "config/row_list.h"

typedef enum { INIT_PRETRAINED, INIT_RANDOM } ModelInit;
typedef enum { JOB_CPU, JOB_CUDA } JobDevice;
typedef enum { MODEL_F32, MODEL_BF16 } ModelDType;
typedef enum { POLICY_SKIP, POLICY_STOP, POLICY_TRUNCATE, POLICY_KEEP } DataPolicy;
typedef enum { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_WSD } LrSchedule;
typedef enum { PACK, SPREAD, STRICT_PACK, STRICT_SPREAD } PlacementStrategy;
typedef enum { ROLLOUT_SFT, ROLLOUT_GENERATE, ROLLOUT_PROCESS, ROLLOUT_PLUGIN } RolloutFunction;
typedef enum { RESUME_AUTO, RESUME_NEVER } ResumeMode;
typedef enum { OFFLOAD_AUTO, OFFLOAD_ON, OFFLOAD_OFF } OffloadMode;
typedef enum { RANKS_AUTO, RANKS_PROCESSES, RANKS_THREADS } RankMode;
typedef enum { TOO_STALE_RECOMPUTE, TOO_STALE_DROP } TooStalePolicy;
typedef enum { PARTIAL_RECOMPUTE, PARTIAL_KEEP } PartialPolicy;
typedef enum { BEST_UNSAID, BEST_MAX, BEST_MIN } BestMode;
typedef enum { STOP_FIRST_EXHAUSTED, STOP_ALL_EXHAUSTED } StoppingStrategy;
typedef enum { REMAINDER_WRAP, REMAINDER_DROP, REMAINDER_PAD } RemainderPolicy;

/* What is taken off the logits of tokens that were seen (docs/sampling.md). */
typedef struct PenaltyConfig {
    double repetition; /* 1: nothing */
    double frequency, presence;
} PenaltyConfig;

/* A name of eval.sets; eval_set.h tells what holds for it. */
typedef struct EvalSetRow {
    RowHead head;
    StringList path, stop;
    char *reward; /* JSON text */
    int64_t n_samples_per_prompt, max_response_length, top_k, min_new_tokens;
    double temperature, top_p, min_p;
    PenaltyConfig penalty;
    IntList stop_token_ids;
    bool ignore_eos;
    char *input_key, *label_key, *tool_key, *metadata_key;
} EvalSetRow;

/* A name of data.sources; source_set.h tells what holds for it. */
typedef struct SourceRow {
    RowHead head;
    StringList path;
    double weight;
    int64_t repeat;
    bool shuffle;
    char *reader, *reader_options;
    char *input_key, *label_key, *tool_key, *metadata_key;
} SourceRow;

#define ACCEPT_DIGITS_MIN 8 /* of data.accept_changed */

/* A run in place of a model: which of its checkpoints is meant. Borrowed from the JobConfig. */
typedef struct ModelPin {
    const char *key;        /* "model.path" */
    const char *run;        /* what was written for it */
    const char *checkpoint; /* what the key is */
    bool kept;              /* as the run folder has it: the choice of an earlier session */
} ModelPin;

#define MODEL_PINS_MAX 3

typedef struct JobConfig {
    bool kv_cache_decided; /* rollout.kv_cache_mb is what memory was free for (cache_pins.h) */
    bool tokens_open;      /* train.max_tokens_per_gpu is to be what a GPU has memory for ... */
    bool tokens_decided;   /* ... and is (cache_pins.h) */
    const char *stage;     /* its name, when it is one of several stages; else NULL */
    int generating_before; /* stages of the run before it that generate: noise and saved answers of
                              each are its own. Known to actors, which the controller tells; not in
                              the text */
    char *name;            /* default: the job file's name without its ending */
    char *run_dir;         /* default: runs/<name> beside the working directory */
    int64_t seed;
    JobDevice device; /* what train workers compute on, and rollout workers that generate */

    ModelPin pin[MODEL_PINS_MAX]; /* of model.path, algorithm.reference, algorithm.critic, ... */
    int num_pins;                 /* ... as far as a run stands in their place */

    struct {
        char *path;           /* Hugging Face folder */
        const char *run;      /* what was written for it, when that is a run whose newest checkpoint
                                 `path` is (its folder, or checkpoints/latest in it), or whose best
                                 one (checkpoints/best); else NULL */
        bool weights_to_come; /* they will be fetched before a run, and are not looked for now; not
                                 in the text */
        ModelInit init;
        char *config;        /* config.json; default <path>/config.json */
        char *tokenizer;     /* folder or tokenizer.json; default <path> */
        char *chat_template; /* file; NULL: the tokenizer folder's own */
        ModelDType dtype;
    } model;

    struct {
        StringList train, eval; /* entries as base/data_path.h has them, in this order */
        RowList sources;        /* of SourceRow, in place of `train`: source_set.h */
        StoppingStrategy stopping_strategy;
        char *reader, *reader_options; /* of `train`; a shared object and the JSON text of an
                                          object, or NULL */
        char *input_key; /* NULL: the shape of each record tells where its conversation is */
        char *label_key, *tool_key, *metadata_key;
        char *apply_chat_template_kwargs; /* the JSON text of an object, or NULL */
        bool shuffle;
        DataOrder order;     /* of a shuffled set: see job_data_order */
        int64_t num_samples; /* records of data.train, as the job has it; 0: it does not say */
        RemainderPolicy remainder; /* what becomes of the end of an epoch that fills no batch */
        int64_t reader_threads;
        int64_t max_length;          /* tokens a sample may have */
        DataPolicy too_long;         /* skip, truncate (keeps the head) or stop */
        DataPolicy nothing_to_train; /* skip or stop */
        DataPolicy bad_record;       /* skip or stop */
        DataPolicy not_rendered;     /* stop, skip or keep (trains what is rendered) */
        int64_t bad_records_max;     /* with skip: stop when more than this many were skipped; 0: no
                                        limit */
        char *accept_changed;        /* first digits of a data fingerprint, or NULL */
        double cache_gb; /* that the run may add to the cache of the Hub, all sets together; 0: what
                            its disk has */
    } data;

    struct {
        RolloutFunction function;
        char *function_of; /* ROLLOUT_PROCESS: the command; ROLLOUT_PLUGIN: the path; else NULL */
        char *working_dir; /* where programs of the job start; default: the job file's folder */
        int64_t num_workers;
        bool colocate;          /* with a device other than the CPU: they use the train workers' */
        OffloadMode offload;    /* ... in turns, each with all of a GPU's memory; auto: not (yet) */
        RankMode ranks;         /* see job_has_rank_processes */
        int64_t lease_size;     /* positions per lease */
        int64_t prefetch_steps; /* global batches leased ahead of the one in training */
        /* of generation: */
        char *reward;                     /* JSON text, as reward_set.h reads it; NULL: none */
        char *tools;                      /* JSON text, as tool_set.h reads it; NULL: none */
        char *tool_format;                /* a name of tool_format.h, or "auto" */
        int64_t max_turns;                /* with tools */
        int64_t max_tool_response_length; /* tokens of what the tools say behind one turn */
        int64_t failures_max;   /* of tools and rollout function, of a worker's last 1000 */
        int64_t unjudged_max;   /* answers without a reward, the same */
        double failing_s;       /* that either may fail at every try; 0: for ever */
        char *function_options; /* JSON text of an object, or NULL; as the next: of the user's */
        int64_t function_processes, function_in_flight; /* programs; records of one at a time */
        double function_timeout_s;    /* that a function may be silent where it is its turn */
        int64_t n_samples_per_prompt; /* a group; 1 without generation */
        int64_t max_response_length;  /* tokens */
        double temperature, top_p, min_p;
        int64_t top_k; /* 0: off */
        PenaltyConfig penalty;
        StringList stop;
        IntList stop_token_ids;
        int64_t min_new_tokens; /* at most max_response_length */
        bool ignore_eos;
        int64_t max_staleness;    /* versions that the weights of a sample may be behind those it
                                     trains; 0: none */
        TooStalePolicy too_stale; /* what becomes of groups that are further behind */
        PartialPolicy partial;    /* what becomes of keys and values when weights change */
        double over_sampling;     /* times the groups of a step that are let out at once; >= 1 */
        int64_t concurrency;      /* samples that a worker generates at a time */
        bool only;                /* nothing is trained */
        char *save, *load;        /* folders of groups of samples (saved_group.h); NULL: none */
        int64_t kv_cache_mb;      /* of a worker, all its ranks together; 0: enough for all of these
                                     at their longest */
        bool enforce_eager;       /* on a GPU: steps of decoding are not recorded */
        int64_t serve_port;       /* of the first worker, for HTTP requests; 0: none */
        char *serve_host, *serve_token_file; /* NULL: loopback; NULL: no token */
    } rollout;

    struct {
        int64_t tp_size, dp_size;
        int64_t threads;   /* per train worker; 0: the CPUs of its bundle */
        int64_t num_steps; /* 0: from num_epochs */
        int64_t num_epochs;
        int64_t global_batch_size;     /* samples per optimizer step */
        int64_t num_steps_per_rollout; /* optimizer steps on what is generated for one step */
        int64_t max_tokens_per_gpu;    /* packed tokens per micro-batch */
        int64_t micro_batch_size; /* samples per micro-batch; 0: packed by max_tokens_per_gpu */
        int64_t memory_length, memory_tokens_per_gpu; /* that memory is planned for; at least what
                                                         the job needs after loading */
        bool memory_reference, memory_critic; /* planned for, too: at least what the job wants */
        double memory_gb; /* GiB that all train workers may take; 0: most of what is free */
        double lr, min_lr;
        LrSchedule lr_schedule;
        int64_t warmup_steps, decay_steps; /* decay_steps: the D of WSD */
        double adam_beta1, adam_beta2, adam_eps, weight_decay, clip_grad;
    } train;

    AlgorithmConfig algorithm;

    struct {
        int64_t interval; /* steps; 0: only at the end */
        bool before_train;
        /* of generation: */
        int64_t n_samples_per_prompt;
        int64_t max_response_length; /* 0: rollout's */
        double temperature;          /* 0: greedy */
        double top_p, min_p;
        int64_t top_k; /* 0: off */
        PenaltyConfig penalty;
        int64_t min_new_tokens;
        RowList sets;      /* of EvalSetRow; what they leave out stands above: eval_set.h */
        char *best_metric; /* "gsm8k/reward"; NULL: none */
        BestMode best_mode;
    } eval;

    struct {
        int64_t interval; /* steps; 0: only at the end */
        int64_t keep_last;
        int64_t keep_best; /* by eval.best_metric, besides keep_last; 0: none */
        ResumeMode resume;
    } checkpoint;

    struct {
        StringList agents; /* endpoints; empty: start one for this machine */
        PlacementStrategy strategy;
        double cpus_per_train_worker, cpus_per_rollout_worker, cpus_per_data_source;
        double
            cpus; /* of the embedded agent; 0: what the machine has, at least what the job needs */
        int64_t heartbeat_ms, suspect_ms, dead_ms; /* silence */
        int64_t progress_s; /* no progress for so long: report, then restart */
        int64_t collective_timeout_s;
        int64_t restarts_max, restarts_window_s; /* Erlang's intensity and period */
        int64_t rollout_workers_max;             /* that the placement group has room for; at least
                                                    rollout.num_workers after loading */
    } cluster;
} JobConfig;

/* Reads, overrides and checks; of a file with several stages the one called `stage`, or the first
 * when that is NULL. `overrides` are `key.path=value` texts applied after the file, the
 * last of equal keys counting. A failure names file:line:column and key path, what was found, what
 * was expected, and the nearest valid name, in at most six lines. Starts nothing and reads no file
 * but the job file; a run folder in place of a model is looked into for its newest checkpoint,
 * unless the job's own run folder says which one it is (model_pins.h). */
Status job_config_load(const char *path, const char *stage, const char *const *overrides,
                       int num_overrides, JobConfig **ret, Error *err);

/* All stages of a job file, one after the other: what a run works through. A file without `stages`
 * makes one, whose name is NULL. Released by job_stages_free. */
typedef struct JobStages {
    JobConfig **stage; /* [count] */
    int count;
} JobStages;
Status job_stages_load(const char *path, const char *const *overrides, int num_overrides,
                       JobStages *ret, Error *err);
/* The same of a job that takes the place of another while that goes on: its first stage, too, is
 * behind one, by whose weights a reference model is meant where the job names none. */
Status job_stages_load_next(const char *path, const char *const *overrides, int num_overrides,
                            JobStages *ret, Error *err);
void job_stages_free(JobStages *stages); /* entries that were taken out are NULL */

/* Says before a run starts what rollout workers have for keys and values, where the job does not: 0
 * for rollout.kv_cache_mb becomes this. */
void job_config_decide_kv_cache(JobConfig *config, int64_t mb);

/* The same of rollout.offload: auto, where training and generation do not fit a GPU at once. */
void job_config_decide_offload(JobConfig *config);

/* What tokens_open waits for: tokens of a micro-batch, no fewer than the job has. */
void job_config_decide_tokens(JobConfig *config, int64_t tokens);

/* Says of a job that is only looked at that its weights are not there yet, and will be. */
void job_config_expect_weights(JobConfig *config);

/* Whether training and generation use the same GPUs, and one after the other: they could take
 * turns.
 */
bool job_may_take_turns(const JobConfig *config);

/* Whether each tensor-parallel rank of a rollout worker is a process of its own, "rollout-0" and
 * "rollout-0.1" and so on, with a part of the worker's CPUs, and a GPU. */
bool job_has_rank_processes(const JobConfig *config);

/* The keys by which answers that train are drawn from another distribution than the policy's, which
 * is the one that learns: "rollout.top_p 0.9, rollout.top_k 20", or NULL where there are none.
 * Owned. */
char *job_sampling_bias(const JobConfig *config);

/* Samples of a step: of all its optimizer steps. */
int64_t job_samples_per_step(const JobConfig *config);

/* Steps that whole epochs of `records` positions make when nothing is rejected, of `batch`
 * positions each, as data.remainder says; and the positions that so many steps take from the
 * beginning of an epoch. */
int64_t job_steps_of_epochs(const JobConfig *config, int64_t records, int64_t batch,
                            int64_t epochs);
int64_t job_positions_of_steps(const JobConfig *config, int64_t records, int64_t batch,
                               int64_t steps);

/* The order of the training set: data.order, where data.shuffle asks for one. */
DataOrder job_data_order(const JobConfig *config);

/* What a stage wants beside the policy: it learns by rewards, and these need a reference model, or
 * a critic. */
bool job_wants_reference(const JobConfig *config);
/* ... which is the weights that the stage begins with. */
bool job_refers_to_start(const JobConfig *config);
bool job_wants_critic(const JobConfig *config);

/* Tokens of the largest micro-batch that a stage makes. */
int64_t job_micro_batch_tokens(const JobConfig *config);

/* The same from text that job_config_text made: how an actor gets its configuration. */
Status job_config_parse(const char *yaml, const char *where, const char *base_dir, JobConfig **ret,
                        Error *err);
void job_config_destroy(JobConfig *config); /* accepts NULL */

/* The effective configuration as YAML with every key, each with a comment that says where its value
 * came from (default, job file line, override). Owned by the caller. */
char *job_config_text(const JobConfig *config);

/* The same of a job that takes the place of `run` while that goes on: what a run has but once (its
 * folder, model, layout, cluster, checkpoints) is the run's, all else the job's. A stage called as
 * the job, whose reference model is by default what it begins with. Owned. */
char *job_config_graft(const JobConfig *run, const JobConfig *job);

/* What a run has but once of a section, as `--set` takes it: appends "model.path=/m", and
 * "model.config=null" for what is left to its default. */
void job_config_fixed_settings(const JobConfig *config, const char *section, StringList *ret);

/* What may stand for a model folder: the newest checkpoint below a run's folder, below its folder
 * of checkpoints, or beside its file checkpoints/latest; of checkpoints/best the one that it names.
 * NULL when `path` is none of these, or there is none. Owned by the caller. */
char *model_path_checkpoint(const char *path);

/* data.train or data.sources, which the job's file gives and --set of the other one replaces; else
 * NULL. */
const char *job_config_set_aside(const JobConfig *config);
/* Whether the job says a key, and something else than its default. */
bool job_config_departs(const JobConfig *config, const char *path);

/* The keys whose values differ between two configurations, one a line: "train.lr: 0.002 -> 0.001
 * (--set train.lr=1e-3)", the place being that of the new value. NULL when there are none. Owned.
 */
char *job_config_changes(const JobConfig *before, const JobConfig *after);

/* What only the file system can tell: files and folders that exist and are readable, globs that
 * match, sizes that divide. */
Status job_config_check_files(const JobConfig *config, Error *err);
/* Of these the ones that looking at the data needs: tokenizer, chat template, data files. */
Status job_config_check_data(const JobConfig *config, Error *err);

/* For a failure that was found when what a key names was opened: `err`'s message begins with the
 * key's path ("rollout.reward: there is no ..."). It gets the form that all others have: where the
 * key was written before it, and below it what the key is for, unless further lines say already
 * what to do. A message that begins otherwise stays. Returns err->status. */
Status job_config_locate(const JobConfig *config, Error *err);

/* The reference of all keys (type, range, default, meaning) as Markdown. Owned by the caller. */
char *job_config_reference(void);

/* One key ("train.lr") or section ("train") of it as plain text, for `controller schema KEY`. *ret
 * is owned. An unknown name is an error that gives the nearest. */
Status job_config_describe(const char *path, char **ret, Error *err);

#endif
