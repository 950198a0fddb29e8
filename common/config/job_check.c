#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "config/job_internal.h"

Status job_refuse(const LoadedJob *job, const char *key, const char *other, Error *err,
                  const char *format, ...)
{
    Arena *arena = arena_create();
    const char *place = job_key_place(job, key, arena);
    if (place == NULL && other != NULL) place = job_key_place(job, other, arena);
    va_list args;
    va_start(args, format);
    error_setv(err, ERR_INVALID, format, args);
    va_end(args);
    if (err != NULL) error_prefix(err, "%s", place != NULL ? place : job->where);
    arena_destroy(arena);
    return ERR_INVALID;
}

static Status check_name(const LoadedJob *job, Error *err)
{
    const char *name = job->config.name;
    if (job_name_is_valid(name)) return OK;
    return job_refuse(
        job, "name", NULL, err,
        "name is \"%s\", expected at most %d letters and digits of any script, `.`, `_` and "
        "`-`, not starting with a dot.\nIt names the run folder; write for example my-first-run.",
        config_cut(name, job->arena), JOB_NAME_LENGTH_MAX);
}

/* "1, 2, 5 or 10": the ways to share `batch` evenly. */
static const char *divisors(int64_t batch, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int64_t d = 1; d <= batch && d <= WORLD_SIZE_MAX && used + 24 < size; d++)
        if (batch % d == 0)
            used += (size_t)snprintf(text + used, size - used, "%s%lld", used > 0 ? ", " : "",
                                     (long long)d);
    return text;
}

/* As the refusal of changed data prints it; a word like "yes" would be consent to any change. */
static Status check_accept_changed(const LoadedJob *job, Error *err)
{
    const char *digits = job->config.data.accept_changed;
    if (digits == NULL) return OK;
    size_t length = strlen(digits);
    if (length >= ACCEPT_DIGITS_MIN && strspn(digits, "0123456789abcdef") == length) return OK;
    return job_refuse(
        job, "data.accept_changed", NULL, err,
        "data.accept_changed is \"%s\", expected the first %d or more digits of the new "
        "data's fingerprint.\nA run that meets changed data prints them.",
        config_cut(digits, job->arena), ACCEPT_DIGITS_MIN);
}

static Status check_order(const LoadedJob *job, Error *err)
{
    if (job->config.data.shuffle || job->config.data.order.kind == ORDER_FULL) return OK;
    return job_refuse(
        job, "data.order", "data.shuffle", err,
        "data.order is %s, but data.shuffle is false, which leaves the records in the "
        "order of the files.\nRemove one of them.",
        job->config.data.order.kind == ORDER_HF ? "hf" : "window");
}

/* Which answers are saved, and which are read ahead, is not decided by what a plan passes over. */
static Status check_remainder(const LoadedJob *job, Error *err)
{
    const char *load = job->config.rollout.load;
    if (job->config.data.remainder == REMAINDER_WRAP) return OK;
    if (load == NULL && !job->config.rollout.only) return OK;
    const char *other = load != NULL ? "rollout.load" : "rollout.only";
    return job_refuse(job, "data.remainder", other, err,
                      "data.remainder is %s, but the job has %s, which takes every prompt, one "
                      "after the other.\nWrite data.remainder: wrap.",
                      job->config.data.remainder == REMAINDER_DROP ? "drop" : "pad", other);
}

static Status check_parallel(const LoadedJob *job, Error *err)
{
    int64_t tp = job->config.train.tp_size, dp = job->config.train.dp_size;
    int64_t batch = job->config.train.global_batch_size;
    if (tp * dp > WORLD_SIZE_MAX)
        return job_refuse(
            job, "train.dp_size", "train.tp_size", err,
            "train.tp_size %lld times train.dp_size %lld makes %lld train workers, at most "
            "%d are possible.\nUse a dp_size of at most %lld.",
            (long long)tp, (long long)dp, (long long)(tp * dp), WORLD_SIZE_MAX,
            (long long)(WORLD_SIZE_MAX / tp));
    if (batch % dp == 0) return OK;
    char shares[100], below[40] = "";
    if (batch > dp) snprintf(below, sizeof below, "%lld or ", (long long)(batch / dp * dp));
    return job_refuse(job, "train.global_batch_size", "train.dp_size", err,
                      "train.global_batch_size is %lld, which train.dp_size %lld does not divide: "
                      "expected a multiple of it, so that the ranks can get even shares.\n"
                      "Use a global_batch_size of %s%lld, or a dp_size of %s.",
                      (long long)batch, (long long)dp, below, (long long)((batch / dp + 1) * dp),
                      divisors(batch, shares, sizeof shares));
}

/* A process has one GPU (docs/devices.md). */
static Status check_ranks(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    if (config->rollout.ranks == RANKS_AUTO || config->rollout.function == ROLLOUT_SFT) return OK;
    if (config->train.tp_size == 1)
        return job_refuse(job, "rollout.rank_processes", "train.tp_size", err,
                          "rollout.rank_processes is for rollout workers of several "
                          "tensor-parallel ranks, but train.tp_size is 1.\nRemove it.");
    if (config->device == JOB_CPU || config->rollout.ranks == RANKS_PROCESSES) return OK;
    return job_refuse(job, "rollout.rank_processes", "device", err,
                      "rollout.rank_processes is false with device: cuda and train.tp_size %lld, "
                      "expected true or auto: a process uses one GPU.\nRemove it.",
                      (long long)config->train.tp_size);
}

static Status check_length(const LoadedJob *job, Error *err)
{
    int64_t steps = job->config.train.num_steps, epochs = job->config.train.num_epochs;
    if (steps > 0 && epochs > 0)
        return job_refuse(
            job, "train.num_epochs", "train.num_steps", err,
            "train.num_epochs is %lld and train.num_steps is %lld, expected one of them: "
            "both say when training ends.\nRemove one.",
            (long long)epochs, (long long)steps);
    if (steps == 0 && epochs == 0)
        return job_refuse(job, "train.num_epochs", "train.num_steps", err,
                          "train.num_epochs and train.num_steps are both 0, expected one above 0.\n"
                          "Write for example num_epochs: 1.");
    int64_t longest = job->config.data.max_length, room = job->config.train.max_tokens_per_gpu;
    if (longest > room)
        return job_refuse(
            job, "train.max_tokens_per_gpu", "data.max_length", err,
            "train.max_tokens_per_gpu is %lld, less than the %lld tokens that a sample may "
            "have (data.max_length).\n"
            "Raise max_tokens_per_gpu to %lld or lower max_length to %lld.",
            (long long)room, (long long)longest, (long long)longest, (long long)room);
    return OK;
}

static Status check_schedule(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    double lr = config->train.lr, min_lr = config->train.min_lr;
    int64_t steps = config->train.num_steps, warmup = config->train.warmup_steps;
    int64_t decay = config->train.decay_steps;
    bool wsd = config->train.lr_schedule == SCHEDULE_WSD;
    if (min_lr > lr)
        return job_refuse(job, "train.min_lr", "train.lr", err,
                          "train.min_lr is %g, expected at most train.lr, which is %g.\n"
                          "lr is the highest learning rate, min_lr the one at the end.",
                          min_lr, lr);
    if (wsd && decay == 0)
        return job_refuse(job, "train.lr_schedule", "train.decay_steps", err,
                          "train.lr_schedule is wsd, which needs train.decay_steps above 0.\n"
                          "Write for example decay_steps: %lld.",
                          (long long)(steps >= 10 ? steps / 10 : 100));
    if (!wsd && decay > 0)
        return job_refuse(job, "train.decay_steps", "train.lr_schedule", err,
                          "train.decay_steps is %lld, which only lr_schedule: wsd uses.\n"
                          "Remove it, or write lr_schedule: wsd.",
                          (long long)decay);
    if (steps > 0 && warmup + decay > steps)
        return job_refuse(
            job, warmup > 0 ? "train.warmup_steps" : "train.decay_steps", "train.num_steps", err,
            "train.warmup_steps %lld and train.decay_steps %lld make %lld, more than the "
            "%lld of train.num_steps.\nExpected at most %lld in all: lower them or raise "
            "num_steps.",
            (long long)warmup, (long long)decay, (long long)(warmup + decay), (long long)steps,
            (long long)steps);
    return OK;
}

static Status check_silence(const LoadedJob *job, Error *err)
{
    int64_t beat = job->config.cluster.heartbeat_ms, suspect = job->config.cluster.suspect_ms;
    int64_t dead = job->config.cluster.dead_ms;
    if (suspect < 2 * beat)
        return job_refuse(job, "cluster.suspect_ms", "cluster.heartbeat_ms", err,
                          "cluster.suspect_ms is %lld, expected at least %lld: two heartbeats of "
                          "cluster.heartbeat_ms %lld, so that one late beat alarms nobody.\n"
                          "Raise suspect_ms or lower heartbeat_ms.",
                          (long long)suspect, (long long)(2 * beat), (long long)beat);
    if (dead <= suspect)
        return job_refuse(
            job, "cluster.dead_ms", "cluster.suspect_ms", err,
            "cluster.dead_ms is %lld, expected more than cluster.suspect_ms, which is %lld.\n"
            "A process is first suspected, then dead.",
            (long long)dead, (long long)suspect);
    return OK;
}

static Status check_agents(const LoadedJob *job, Error *err)
{
    const StringList *agents = &job->config.cluster.agents;
    for (int i = 0; i < agents->count; i++) {
        const char *endpoint = agents->item[i];
        if (str_starts_with(endpoint, "tcp://"))
            return job_refuse(
                job, "cluster.agents", NULL, err,
                "cluster.agents holds \"%s\": agents of other machines are not possible "
                "yet, only those of this one.\n"
                "Write the socket of an agent here, for example ipc:///run/troupe/agent, "
                "or remove the key: then one is started.",
                config_cut(endpoint, job->arena));
        if (str_starts_with(endpoint, "ipc:///") && endpoint[7] != '\0' &&
            strlen(endpoint) < ENDPOINT_MAX)
            continue;
        return job_refuse(
            job, "cluster.agents", NULL, err,
            "cluster.agents holds \"%s\", expected ipc:///path, shorter than %d bytes.\n"
            "Write for example ipc:///run/troupe/agent.",
            config_cut(endpoint, job->arena), ENDPOINT_MAX);
    }
    if (agents->count > NODES_MAX)
        return job_refuse(job, "cluster.agents", NULL, err,
                          "cluster.agents has %d entries, at most %d", agents->count, NODES_MAX);
    return OK;
}

/* ---- reinforcement learning ---- */

/* Every key that has a default has it; released by config_release. */
static LoadedJob *job_of_defaults(Arena *arena)
{
    LoadedJob *job = arena_alloc(arena, sizeof *job);
    job->origin = arena_alloc(arena, sizeof *job->origin * (size_t)config_num_keys(&job_table));
    ConfigSource source = {
        .table = &job_table, .values = &job->config, .origin = job->origin, .arena = arena};
    config_apply_presets(&source);
    job_derive_algorithm(job);
    return job;
}

/* By how many steps answers may be behind the weights that learn from them. Those of another run
 * are of other weights as soon as this one learns otherwise. */
static int64_t age_of_answers(const JobConfig *config)
{
    int64_t age = config->rollout.max_staleness;
    return config->rollout.load != NULL && age == 0 ? 1 : age;
}

/* Keys that supervised jobs have no use for. */
static bool is_of_generation(const char *key)
{
    return str_starts_with(key, "algorithm.") ||
           config_word_in(
               "rollout.reward rollout.n_samples_per_prompt rollout.max_response_length "
               "rollout.temperature rollout.top_p rollout.top_k rollout.min_p rollout.stop "
               "rollout.repetition_penalty rollout.frequency_penalty rollout.presence_penalty "
               "rollout.stop_token_ids rollout.min_new_tokens rollout.ignore_eos "
               "rollout.max_staleness rollout.too_stale rollout.partial rollout.over_sampling "
               "rollout.concurrency rollout.kv_cache_mb rollout.offload rollout.enforce_eager "
               "rollout.rank_processes "
               "rollout.serve_port rollout.serve_host rollout.serve_token_file "
               "rollout.save rollout.load rollout.only rollout.tools rollout.failures_max "
               "rollout.unjudged_max rollout.failing_s "
               "rollout.function_options rollout.function_processes rollout.function_in_flight "
               "rollout.function_timeout_s rollout.max_turns rollout.tool_format "
               "rollout.max_tool_response_length "
               "train.num_steps_per_rollout "
               "eval.n_samples_per_prompt eval.max_response_length eval.temperature eval.top_p "
               "eval.top_k eval.min_p eval.repetition_penalty eval.frequency_penalty "
               "eval.presence_penalty eval.min_new_tokens",
               key);
}

/* The first of the keys that `is_one` names which differs from its default, or NULL. */
static const char *changed_key(const LoadedJob *job, const LoadedJob *defaults,
                               bool (*is_one)(const char *key))
{
    const char *changed = NULL;
    for (int i = 0; i < config_num_keys(&job_table) && changed == NULL; i++) {
        const ConfigKey *key = config_key(&job_table, i);
        if (!is_one(key->path)) continue;
        Str found = {0}, expected = {0};
        config_value_text(key, &job->config, &found);
        config_value_text(key, &defaults->config, &expected);
        if (strcmp(str_text(&found), str_text(&expected)) != 0) changed = key->path;
        str_free(&found);
        str_free(&expected);
    }
    return changed;
}

static Status check_serve(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    const char *host = config->rollout.serve_host;
    int64_t port = config->rollout.serve_port, last = port + config->rollout.num_workers - 1;
    if (port == 0 && (host != NULL || config->rollout.serve_token_file != NULL))
        return job_refuse(job, host != NULL ? "rollout.serve_host" : "rollout.serve_token_file",
                          NULL, err,
                          "rollout.serve_port is 0: nothing is served.\n"
                          "Write for example serve_port: 8000, or remove the key.");
    if (port > 0 && last > 65535)
        return job_refuse(job, "rollout.serve_port", NULL, err,
                          "rollout.serve_port is %lld, and %lld rollout workers would listen up to "
                          "%lld, expected at most 65535.\nUse a lower port.",
                          (long long)port, (long long)config->rollout.num_workers, (long long)last);
    bool loopback = host == NULL || str_starts_with(host, "127.") || strcmp(host, "::1") == 0;
    if (!loopback && config->rollout.serve_token_file == NULL)
        return job_refuse(job, "rollout.serve_host", NULL, err,
                          "rollout.serve_host is %s, which others can reach, but there is no "
                          "rollout.serve_token_file.\nName a file with a token in its first line, "
                          "or remove serve_host.",
                          config_cut(host, job->arena));
    return OK;
}

/* Keys that say nothing where nothing is trained, and a folder for what is made. */
static Status check_only(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    const char *key = config->rollout.load != NULL              ? "rollout.load"
                      : config->rollout.max_staleness > 0       ? "rollout.max_staleness"
                      : config->rollout.over_sampling > 1       ? "rollout.over_sampling"
                      : config->checkpoint.keep_best > 0        ? "checkpoint.keep_best"
                      : config->train.num_steps_per_rollout > 1 ? "train.num_steps_per_rollout"
                                                                : NULL;
    if (config->stage != NULL)
        return job_refuse(job, "rollout.only", NULL, err,
                          "rollout.only is true in a job with stages, which train one behind the "
                          "other.\nWrite a job file of its own, with model.path: the run whose "
                          "model is to answer.");
    if (config->rollout.save == NULL)
        return job_refuse(job, "rollout.only", NULL, err,
                          "rollout.only is true, but nothing says where the answers go.\n"
                          "Write for example save: answers in the section rollout.");
    if (key == NULL) return OK;
    return job_refuse(job, key, "rollout.only", err,
                      "%s has no effect with rollout.only, which trains nothing.\nRemove one.",
                      key);
}

static bool is_of_tools(const char *key)
{
    return config_word_in("rollout.max_turns rollout.tool_format rollout.max_tool_response_length",
                          key);
}

static bool is_of_programs(const char *key)
{
    return config_word_in("rollout.function_processes rollout.function_in_flight", key);
}

static bool is_of_functions(const char *key)
{
    return config_word_in("rollout.function_timeout_s", key);
}

/* Keys that say something of tools, or of a rollout function of the user's, where there are none.
 */
static Status check_programs(const LoadedJob *job, const LoadedJob *defaults, Error *err)
{
    const JobConfig *config = &job->config;
    RolloutFunction function = config->rollout.function;
    const char *key = changed_key(job, defaults, is_of_tools);
    if (config->rollout.tools != NULL && function != ROLLOUT_GENERATE)
        return job_refuse(job, "rollout.tools", "rollout.function", err,
                          "rollout.tools has no effect with a rollout function of your own, which "
                          "makes its calls itself.\nRemove the key, or write rollout.function: "
                          "generate.");
    if (config->rollout.tools == NULL && key != NULL)
        return job_refuse(job, key, NULL, err,
                          "%s has no effect without rollout.tools: an answer is one turn.\n"
                          "Remove the key, or name tools; docs/tools.md tells how.",
                          key);
    key = changed_key(job, defaults, is_of_programs);
    if (function != ROLLOUT_PROCESS && key != NULL)
        return job_refuse(
            job, key, "rollout.function", err,
            "%s has no effect unless rollout.function is process:COMMAND: there is no "
            "such program.\nRemove the key.",
            key);
    key = changed_key(job, defaults, is_of_functions);
    if (function == ROLLOUT_GENERATE && key != NULL)
        return job_refuse(job, key, "rollout.function", err,
                          "%s has no effect with rollout.function: generate.\nRemove the key; it "
                          "is for process:COMMAND and plugin:PATH.",
                          key);
    if (function == ROLLOUT_GENERATE && config->rollout.function_options != NULL)
        return job_refuse(
            job, "rollout.function_options", "rollout.function", err,
            "rollout.function_options has no effect with rollout.function: generate.\n"
            "Remove the key; it is for process:COMMAND and plugin:PATH.");
    return OK;
}

static Status check_groups(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    int64_t batch = config->train.global_batch_size, group = config->rollout.n_samples_per_prompt;
    if (config->rollout.reward == NULL && config->rollout.function == ROLLOUT_GENERATE)
        return job_refuse(
            job, "rollout.function", NULL, err,
            "rollout.function is generate, but rollout.reward does not say what an "
            "answer is worth.\nWrite for example reward: gsm8k; docs/rewards.md lists "
            "them all.");
    if (batch % group != 0)
        return job_refuse(
            job, "train.global_batch_size", "rollout.n_samples_per_prompt", err,
            "train.global_batch_size is %lld, which rollout.n_samples_per_prompt %lld "
            "does not divide: expected whole groups, the answers to one prompt.\n"
            "Use a global_batch_size of %lld.",
            (long long)batch, (long long)group, (long long)((batch + group - 1) / group * group));
    if (job_samples_per_step(config) > STEP_SAMPLES_MAX)
        return job_refuse(
            job, "train.num_steps_per_rollout", "train.global_batch_size", err,
            "train.num_steps_per_rollout %lld times train.global_batch_size %lld makes %lld "
            "answers in a rollout, expected at most %d.\nLower one.",
            (long long)config->train.num_steps_per_rollout, (long long)batch,
            (long long)job_samples_per_step(config), STEP_SAMPLES_MAX);
    return OK;
}

/* A prompt has a token at least, so that the limit would never be met. */
static Status check_answer_length(const LoadedJob *job, const LoadedJob *defaults, Error *err)
{
    int64_t answer = job->config.rollout.max_response_length, all = job->config.data.max_length;
    if (answer < all || answer == defaults->config.rollout.max_response_length) return OK;
    return job_refuse(
        job, "rollout.max_response_length", "data.max_length", err,
        "rollout.max_response_length is %lld, but prompt and answer together have at most %lld "
        "tokens (data.max_length).\nLower max_response_length, or raise data.max_length.",
        (long long)answer, (long long)all);
}

/* Taking turns is for those who share a GPU, and leaves no time in which both work. */
static Status check_offload(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    if (config->rollout.offload != OFFLOAD_ON) return OK;
    if (config->device == JOB_CPU)
        return job_refuse(job, "rollout.offload", "device", err,
                          "rollout.offload: true is for a GPU that training and generation share; "
                          "with device: cpu they share the machine's memory, which the kernel "
                          "gives to whoever uses it.\nRemove it, or write device: cuda.");
    if (!config->rollout.colocate)
        return job_refuse(
            job, "rollout.offload", "rollout.colocate", err,
            "rollout.offload: true is for a GPU that training and generation share, "
            "and with rollout.colocate: false each has its own.\nRemove one of them.");
    if (config->rollout.max_staleness > 0)
        return job_refuse(job, "rollout.offload", "rollout.max_staleness", err,
                          "rollout.offload: true lets training and generation take turns, but with "
                          "rollout.max_staleness above 0 they go on at the same time.\n"
                          "Remove one of them, or give generation GPUs of its own "
                          "(rollout.colocate: false).");
    if (config->rollout.only)
        return job_refuse(job, "rollout.offload", "rollout.only", err,
                          "rollout.offload: true has no effect with rollout.only: nothing is "
                          "trained.\nRemove it.");
    return OK;
}

/* A value that was chosen and would change nothing. */
static Status check_staleness(const LoadedJob *job, const LoadedJob *defaults, Error *err)
{
    const JobConfig *config = &job->config, *preset = &defaults->config;
    if (config->rollout.prefetch_steps != preset->rollout.prefetch_steps)
        return job_refuse(
            job, "rollout.prefetch_steps", "rollout.function", err,
            "rollout.prefetch_steps has no effect with rollout.function: generate: how "
            "far answers are ahead of training is what rollout.max_staleness says.\n"
            "Remove it.");
    if (config->rollout.partial != preset->rollout.partial && config->rollout.max_staleness == 0)
        return job_refuse(
            job, "rollout.partial", NULL, err,
            "rollout.partial has no effect with rollout.max_staleness 0: weights change "
            "only when no answer is in work.\nRemove it, or raise max_staleness.");
    if (config->rollout.too_stale != preset->rollout.too_stale &&
        config->rollout.over_sampling == 1.0)
        return job_refuse(
            job, "rollout.too_stale", NULL, err,
            "rollout.too_stale has no effect with rollout.over_sampling 1: no more is "
            "let out than rollout.max_staleness allows to train.\n"
            "Remove it, or write for example over_sampling: 1.5.");
    return OK;
}

static Status check_algorithm(const LoadedJob *job, Error *err)
{
    Arena *arena = arena_create();
    Status status = OK;
    AlgorithmFault fault;
    LoadedJob *defaults = job_of_defaults(arena);
    AlgorithmFacts facts = {.samples_per_prompt = job->config.rollout.n_samples_per_prompt,
                            .max_staleness = age_of_answers(&job->config),
                            .updates = job->config.train.num_steps_per_rollout,
                            .random_init = job->config.model.init == INIT_RANDOM};
    if (job->config.rollout.function == ROLLOUT_SFT) {
        const char *key = changed_key(job, defaults, is_of_generation);
        if (key != NULL)
            status = job_refuse(job, key, NULL, err,
                                "%s has no effect with rollout.function: sft, which learns from "
                                "conversations: nothing is generated and there are no rewards.\n"
                                "Remove the key, or write rollout.function: generate.",
                                key);
    } else if (check_groups(job, err) != OK || check_serve(job, err) != OK ||
               check_staleness(job, defaults, err) != OK || check_offload(job, err) != OK ||
               check_answer_length(job, defaults, err) != OK ||
               check_programs(job, defaults, err) != OK || job_check_sampling(job, err) != OK) {
        status = ERR_INVALID;
    } else if (job->config.rollout.only) {
        status = check_only(job, err);
    } else if (!algorithm_check(&job->config.algorithm, &defaults->config.algorithm, &facts,
                                &fault)) {
        status = job_refuse(job, fault.key, fault.other, err, "%s", fault.text);
    }
    config_release(&job_table, &defaults->config);
    arena_destroy(arena);
    return status;
}

/* What is planned for must hold what the job has. */
static Status check_planned(const LoadedJob *job, Error *err)
{
    const JobConfig *config = &job->config;
    const struct {
        const char *key, *other;
        int64_t planned, needed;
    } pair[] = {
        {"cluster.rollout_workers_max", "rollout.num_workers", config->cluster.rollout_workers_max,
         config->rollout.num_workers},
        {"train.memory_length", "data.max_length", config->train.memory_length,
         config->data.max_length},
        {"train.memory_tokens_per_gpu", "train.max_tokens_per_gpu",
         config->train.memory_tokens_per_gpu, job_micro_batch_tokens(config)},
    };
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++)
        if (pair[i].planned < pair[i].needed)
            return job_refuse(job, pair[i].key, pair[i].other, err,
                              "%s is %lld, less than the %lld that the job needs (%s).\n"
                              "Raise it, or remove it: then it follows from the job.",
                              pair[i].key, (long long)pair[i].planned, (long long)pair[i].needed,
                              pair[i].other);
    bool reference = !config->train.memory_reference && job_wants_reference(config);
    if (reference || (!config->train.memory_critic && job_wants_critic(config)))
        return job_refuse(job, reference ? "train.memory_reference" : "train.memory_critic", NULL,
                          err,
                          "%s is false, but the job has one.\n"
                          "Remove the key: then it follows from the job.",
                          reference ? "train.memory_reference" : "train.memory_critic");
    return OK;
}

Status job_config_check(const LoadedJob *job, Error *err)
{
    TRY(check_name(job, err));
    TRY(job_check_sources(job, err));
    TRY(check_accept_changed(job, err));
    TRY(check_order(job, err));
    TRY(check_remainder(job, err));
    TRY(check_parallel(job, err));
    TRY(check_ranks(job, err));
    TRY(check_length(job, err));
    TRY(check_planned(job, err));
    TRY(check_schedule(job, err));
    TRY(job_check_eval(job, err));
    TRY(check_algorithm(job, err));
    TRY(check_silence(job, err));
    return check_agents(job, err);
}
