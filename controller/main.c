/* controller: runs a job, and looks at one. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actor/typed.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/plural.h"
#include "base/process.h"
#include "base/str.h"
#include "base/version.h"
#include "config/eval_set.h"
#include "config/cache_pins.h"
#include "config/model_pins.h"
#include "cluster.pb-c.h"
#include "fetch_model.h"
#include "look.h"
#include "net/socket.h"
#include "resume.h"
#include "shell.h"
#include "view/status.h"
#include "validate.h"

static const char help_run[] =
    "usage: controller --config JOB.YAML [--set KEY=VALUE]... [--verbose]\n"
    "       runs a job; the same command again resumes it from its newest checkpoint\n"
    "\n"
    "other commands (each with --help):\n"
    "  controller validate --config JOB.YAML [--set ...]   check a job, its data and memory\n"
    "  controller status --run FOLDER [--json]             what a run is doing\n"
    "  controller stop --run FOLDER                        finish the step, commit, end\n"
    "  controller swap-rollout --run FOLDER --config JOB.YAML   go on with another stage\n"
    "  controller swap-rollout --run FOLDER --undo         strike that off again\n"
    "  controller data inspect --config JOB.YAML [...]     what a record becomes\n"
    "  controller data audit RUN [...]                     proves that each sample was consumed "
    "once\n"
    "  controller samples --run FOLDER [...]               answers that a run generated\n"
    "  controller serve --model DIR [--port N] [...]       answer HTTP requests with a model\n"
    "  controller schema [KEY]                             what job.yaml can say\n"
    "  controller help [COMMAND]                           this, or what a command takes\n"
    "  controller --version\n"
    "\n"
    "options:\n"
    "  -c, --config JOB.YAML   the job file; deploy/examples has some to start from\n"
    "  -s, --set KEY=VALUE     in place of what the file says: --set train.lr=1e-5\n"
    "  -v, --verbose           log every change of every process\n"
    "\n"
    "Ctrl-C, SIGTERM or a hangup: finishes the step, commits a checkpoint, ends. Ctrl-C again:\n"
    "ends at once.\n"
    "\n"
    "Exit codes: 0 done, 1 internal error, 2 usage or configuration, 3 data,\n"
    "4 resources or environment, 5 stopped as asked.\n";

static const char help_validate[] =
    "usage: controller validate --config JOB.YAML [--set KEY=VALUE]...\n"
    "       checks a job without starting it: its files, the names and shapes of the weights, how\n"
    "       its processes and their memory fit this machine, and what becomes of the first "
    "thousand\n"
    "       records of each set of data\n"
    "\n"
    "options:\n"
    "  -c, --config JOB.YAML   the job file\n"
    "  -s, --set KEY=VALUE     in place of what the file says\n"
    "\n"
    "Exit codes: 0 the job is in order, else those of running it.\n";

static const char help_status[] =
    "usage: controller status --run FOLDER [--json]\n"
    "       prints what a run is doing, what it waits for, and its processes; of a run that is\n"
    "       done, what came of it\n"
    "\n"
    "options:\n"
    "  -r, --run FOLDER   the run folder (run_dir, or runs/<name> where the job was started)\n"
    "  -j, --json         one JSON object, for programs\n";

static const char help_stop[] =
    "usage: controller stop --run FOLDER\n"
    "       has a run finish its step, commit a checkpoint and end; returns at once. A second\n"
    "       time: the run ends at once, without a commit\n"
    "\n"
    "options:\n"
    "  -r, --run FOLDER   the run folder (run_dir, or runs/<name> where the job was started)\n";

static const char help_swap[] =
    "usage: controller swap-rollout --run FOLDER --config JOB.YAML [--set KEY=VALUE]...\n"
    "       controller swap-rollout --run FOLDER --undo\n"
    "       has a run go on as another job: after the step in work its data source and rollout\n"
    "       workers are replaced by those of JOB.YAML (sections data, rollout, algorithm, eval "
    "and\n"
    "       train of it); its train workers stay, with weights and optimizer state. The run's\n"
    "       own command resumes it in the new stage. With --undo the last swap is struck off, of "
    "a run\n"
    "       that has ended before the new stage's first checkpoint: what cannot begin holds "
    "nothing "
    "up\n"
    "\n"
    "options:\n"
    "  -r, --run FOLDER        the run folder of a run that is going on\n"
    "  -c, --config JOB.YAML   the job that takes over\n"
    "  -s, --set KEY=VALUE     in place of what that file says\n"
    "  -u, --undo              strike the last swap off; the run's own command then goes on as "
    "before\n";

static const char help_schema[] =
    "usage: controller schema [KEY]\n"
    "       prints the reference of job.yaml, or one key (train.lr) or section (train) of it\n";

static const char help_data[] =
    "usage: controller data inspect --config JOB.YAML [--sample N | --position P] [--set ...]\n"
    "       shows what becomes of a record, and figures of the data\n"
    "       controller data audit RUN\n"
    "       proves that a run consumed each sample of each epoch once\n"
    "\n"
    "Each has more options: controller help data inspect, controller help data audit.\n";

static const char help_help[] = "usage: controller help [COMMAND]\n"
                                "       prints what a command does and takes\n";

#define ASK_TIMEOUT_MS   3000 /* for an answer of a running controller */
#define STATUS_BYTES_MAX (4u << 20)
#define SWAP_TIMEOUT_MS  600000 /* which looks at the new job first */
#define CALL_TO(name)    ((CallOptions){.method = (name), .timeout_ms = ASK_TIMEOUT_MS})

typedef struct Options {
    const char *config, *run, *key;
    const char *set[64];
    int num_sets;
    bool json, help, version, undo;
    LogLevel level;
} Options;

typedef struct Command {
    const char *name;                   /* of `controller NAME`; "" is the one without a name */
    const char *help;                   /* NULL: a program of its own prints it */
    const char *letters;                /* of the options that it takes */
    bool takes_key;                     /* one argument that is not an option */
    int (*run)(const Options *options); /* NULL: main looks at the arguments itself */
} Command;

static int fail(Status status, const Error *err)
{
    fprintf(stderr, "controller: %s\n", err->message);
    return status_exit_code(status);
}

/* ---- arguments ---- */

static const struct option option_names[] = {
    {"config", required_argument, NULL, 'c'},
    {"set", required_argument, NULL, 's'},
    {"run", required_argument, NULL, 'r'},
    {"json", no_argument, NULL, 'j'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {"undo", no_argument, NULL, 'u'},
    {"version", no_argument, NULL, 'V'},
    {0},
};

static const char *name_of_option(int letter)
{
    const struct option *option = option_names;
    while (option->name != NULL && option->val != letter)
        option++;
    return option->name != NULL ? option->name : "?";
}

static Status refuse_argument(const Command *command, const char *text, Error *err)
{
    option_misuse(command->help, err, "unexpected argument %s.", text);
    if (strchr(command->letters, 's') != NULL && strchr(text, '=') != NULL)
        return error_append(err, "To replace what the job file says: --set %s", text);
    if (strchr(command->letters, 'r') != NULL)
        return error_append(err, "The run folder is given as --run %s", text);
    return err->status;
}

static Status take_option(const Command *command, int letter, Options *ret, Error *err)
{
    if (strchr(command->letters, letter) == NULL)
        return option_misuse(command->help, err, "%s does not take --%s.",
                             command->name[0] != '\0' ? command->name : "running a job",
                             name_of_option(letter));
    if (letter == 's' && ret->num_sets == (int)(sizeof ret->set / sizeof *ret->set))
        return error_set(err, ERR_INVALID, "more than %d --set options", ret->num_sets);
    switch (letter) {
    case 'c':
        ret->config = optarg;
        break;
    case 'r':
        ret->run = optarg;
        break;
    case 's':
        ret->set[ret->num_sets++] = optarg;
        break;
    case 'j':
        ret->json = true;
        break;
    case 'v':
        ret->level = LOG_DEBUG;
        break;
    case 'u':
        ret->undo = true;
        break;
    }
    return OK;
}

/* Which program `controller data WHAT` is; NULL: none. */
static const char *data_program(const char *what)
{
    return strcmp(what, "inspect") == 0 ? "data_inspect"
           : strcmp(what, "audit") == 0 ? "data_audit"
                                        : NULL;
}

/* argv[0] is skipped; options->help or ->version when these are asked for instead. */
static Status parse_options(const Command *command, int argc, char **argv, Options *ret, Error *err)
{
    ret->level = LOG_INFO;
    opterr = 0;
    for (int letter;
         (letter = getopt_long(argc, argv, ":c:s:r:jvhVu", option_names, NULL)) != -1;) {
        if (letter == '?' || letter == ':')
            return option_refuse(letter, argv, option_names, command->help, err);
        if (letter == 'h')
            ret->help = true;
        else if (letter == 'V')
            ret->version = true;
        else
            TRY(take_option(command, letter, ret, err));
    }
    if (command->takes_key && optind < argc) ret->key = argv[optind++];
    bool data = ret->key != NULL && strcmp(ret->key, "data") == 0 && optind < argc;
    if (data && data_program(argv[optind]) != NULL) /* commands of two words */
        ret->key = data_program(argv[optind++]);
    return optind < argc ? refuse_argument(command, argv[optind], err) : OK;
}

/* ---- commands ---- */

static Status load_stages(Options *options, const char *help, JobStages *ret,
                          FetchModel **ret_fetch, Error *err)
{
    if (options->config == NULL) return option_misuse(help, err, "--config JOB.YAML is missing.");
    SettingsList settings = {options->set, &options->num_sets,
                             (int)(sizeof options->set / sizeof *options->set)};
    return fetch_model_load(options->config, &settings, ret, ret_fetch, err);
}

static JobFile job_file(const Options *options)
{
    return (JobFile){options->config, options->set, options->num_sets};
}

/* What does not fit is told, and the rest is looked at all the same. */
static int look_at_disk(const JobConfig *config)
{
    Error err = {0};
    char *line = NULL;
    Status status = validate_disk(config, &line, &err);
    if (status == OK) fputs(line, stdout);
    free(line);
    return status == OK ? 0 : fail(status, &err);
}

/* What becomes of the records of each set; the worst exit code. */
static int look_at_data(const JobConfig *config, const JobFile *file)
{
    int code = look_with(file, config, "data_inspect", (const char *[]){"--brief=train", NULL});
    for (int i = 0; i < eval_set_count(config); i++) {
        char *brief = mem_printf("--brief=%s", eval_set(config, i).name);
        int found = look_with(file, config, "data_inspect", (const char *[]){brief, NULL});
        if (code == 0) code = found;
        free(brief);
    }
    return code;
}

/* What is wrong with one of several stages says which. */
static Status name_stage(const JobConfig *config, Status status, Error *err)
{
    return status == OK || config->stage == NULL ? status
                                                 : error_prefix(err, "stage %s", config->stage);
}

static int validate_stage(JobConfig *config, const JobFile *file)
{
    Error err = {0};
    char *summary = NULL;
    if (config->stage != NULL) printf("stage %s\n", config->stage);
    int code = look_at_device(file, config);
    if (code != 0) return code;
    Status status = name_stage(config, validate_job(config, &summary, &err), &err);
    if (status != OK) return fail(status, &err);
    fputs(summary, stdout);
    free(summary);
    code = look_at_tokens(file, config);
    if (code != 0) return code;
    code = look_at_function(file, config, false);
    if (code != 0) return code; /* its records would say the same again */
    if (config->rollout.offload == OFFLOAD_ON)
        printf("memory of a GPU: training and generation take turns, and each has all of it: the "
               "larger of both counts (rollout.offload)\n");
    code = look_at_host(file, config, true);
    if (code != 0) return code;
    if (config->kv_cache_decided)
        printf("memory of a rollout worker: %lld MiB for keys and values; " KV_CACHE_DECIDED "\n",
               (long long)config->rollout.kv_cache_mb);
    code = look_at_disk(config);
    int trained = look_at_memory(file, config);
    int read = look_at_data(config, file);
    return code != 0 ? code : trained != 0 ? trained : read;
}

/* What a run that is in the job's folder already makes of the job. */
static int look_at_run(const JobStages *stages)
{
    Error err = {0};
    char *line = NULL;
    Status status = resume_look(stages, &line, &err);
    if (line != NULL) fputs(line, stdout);
    free(line);
    return status == OK ? 0 : fail(status, &err);
}

static int run_validate(const Options *given)
{
    Error err = {0};
    JobStages stages = {0};
    FetchModel *fetch = NULL;
    Options options = *given;
    Status status = load_stages(&options, help_validate, &stages, &fetch, &err);
    if (status != OK) return fail(status, &err);
    fetch_model_show(fetch, &stages);
    const JobFile file = job_file(&options);
    int code = 0;
    for (int i = 0; i < stages.count; i++) {
        int found = validate_stage(stages.stage[i], &file);
        if (code == 0) code = found;
    }
    int resumed = look_at_run(&stages);
    if (code == 0) code = resumed;
    if (code == 0)
        printf("job %s is in order\n", stages.stage[0]->name);
    else
        fprintf(stderr, "controller: job %s is not in order: see above\n", stages.stage[0]->name);
    fetch_model_close(fetch);
    job_stages_free(&stages);
    return code;
}

/* Of the first that is set, as the C library chooses. */
static bool locale_is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0')
            return strcasestr(value, "utf-8") != NULL || strcasestr(value, "utf8") != NULL;
    }
    return false;
}

static Screen look_at_screen(void)
{
    const char *kind = getenv("TERM");
    bool clever = kind != NULL && kind[0] != '\0' && strcmp(kind, "dumb") != 0;
    return (Screen){.redraws = clever && isatty(STDERR_FILENO) && isatty(STDOUT_FILENO),
                    .utf8 = locale_is_utf8()};
}

/* Everything that can be found wrong before a process is started. */
static Status validate_stages(const JobStages *stages, Error *err)
{
    for (int i = 0; i < stages->count; i++) {
        const JobConfig *config = stages->stage[i];
        TRY(name_stage(config, validate_job(config, NULL, err), err));
    }
    return OK;
}

/* Train workers are made for turns when they start: where a stage wants them, all have them that
 * can. */
static void share_turns(const JobStages *stages)
{
    bool wanted = false;
    for (int i = 0; i < stages->count; i++)
        wanted |= stages->stage[i]->rollout.offload == OFFLOAD_ON;
    for (int i = 0; i < stages->count && wanted; i++) {
        JobConfig *config = stages->stage[i];
        if (config->rollout.offload == OFFLOAD_AUTO && job_may_take_turns(config))
            job_config_decide_offload(config);
    }
}

static int look_at_functions(const JobStages *stages, const Options *options)
{
    const JobFile file = job_file(options);
    int code = 0;
    for (int i = 0; i < stages->count && code == 0; i++)
        code = look_at_room(&file, stages->stage[i]);
    for (int i = 0; i < stages->count && code == 0; i++)
        code = look_at_function(&file, stages->stage[i], false);
    if (code == 0) code = look_at_tokens(&file, stages->stage[0]);
    share_turns(stages);
    for (int i = 0; i < stages->count && code == 0; i++)
        code = look_at_host(&file, stages->stage[i], false);
    return code;
}

static void log_job(const JobStages *stages, const RunFolder *folder)
{
    const JobConfig *config = stages->stage[0];
    log_event(LOG_INFO, "run", F_STR("job", config->name), F_STR("folder", folder->path));
    if (config->model.run != NULL)
        log_event(LOG_INFO, "model", F_STR("run", config->model.run),
                  F_STR("checkpoint", path_name(config->model.path)));
    if (config->rollout.offload == OFFLOAD_ON)
        log_event(LOG_INFO, "offload",
                  F_STR("what", "training and generation take turns on the GPUs that they share"));
    if (config->tokens_decided)
        log_event(LOG_INFO, "micro_batch", F_INT("tokens", config->train.max_tokens_per_gpu),
                  F_STR("why", "as the GPU's memory has room"));
    for (int i = 0; i < stages->count; i++)
        if (stages->stage[i]->kv_cache_decided)
            log_event(LOG_INFO, "kv_cache", F_INT("mb", stages->stage[i]->rollout.kv_cache_mb),
                      F_STR("why", KV_CACHE_DECIDED));
    if (folder->note != NULL) log_event(LOG_INFO, "lock_taken_over", F_STR("what", folder->note));
}

static int run_job(const Options *given)
{
    const Screen screen = look_at_screen();
    Error err = {0};
    JobStages stages = {0};
    RunFolder folder = {0};
    FetchModel *fetch = NULL;
    Options options = *given;
    signal(SIGPIPE, SIG_IGN); /* a reader of our output who leaves does not end the run */
    Status status = load_stages(&options, help_run, &stages, &fetch, &err);
    const JobConfig *config = status == OK ? stages.stage[0] : NULL; /* the run is one for all */
    const JobFile file = job_file(&options);
    int code = status == OK ? look_at_device(&file, config) : 0;
    if (status == OK && code == 0) status = fetch_model_weights(fetch, config, &err);
    if (status == OK && code == 0) status = validate_stages(&stages, &err);
    if (status == OK && code == 0) code = look_at_functions(&stages, &options);
    if (status == OK && code == 0) status = run_folder_open(config->run_dir, &folder, &err);
    if (status == OK && code == 0) status = fetch_model_keep(fetch, folder.path, &err);
    fetch_model_close(fetch);
    if (code != 0) {
        job_stages_free(&stages);
        return code;
    }
    if (status == OK) status = model_pins_keep(&stages, folder.path, &err);
    if (status == OK) status = cache_pins_keep(&stages, folder.path, &err);
    if (status == OK) status = log_open("controller", folder.events, options.level, &err);
    if (status == OK) {
        log_job(&stages, &folder);
        status = shell_run(&stages, &folder, &screen, &err);
        /* For programs; people get the message itself. */
        log_event(LOG_DEBUG, "end", F_STR("status", status_name(status)),
                  F_STR("message", err.message));
        log_close();
    }
    run_folder_close(&folder);
    job_stages_free(&stages);
    return status == OK ? 0 : fail(status, &err);
}

/* Nobody is there: the run has ended. Somebody is and says nothing: it is busy, or was stopped. */
static void explain_silence(const RunFolder *folder, int timeout_ms, Status status, Error *err)
{
    if (status == ERR_TIMEOUT) {
        error_set(err, status,
                  "the controller of %s does not answer within %d s: it is busy or stopped.",
                  folder->path, timeout_ms / 1000);
        return;
    }
    error_set(err, status, "no controller answers for %s: the run is not going on.", folder->path);
    char *path = path_join(folder->checkpoints, "latest"), *newest = NULL;
    size_t length = 0;
    if (file_read(path, 256, &newest, &length, NULL) == OK)
        error_append(err, "Newest checkpoint: %s/%.*s. The command that started it resumes it.",
                     folder->checkpoints, (int)strcspn(newest, "\n"), newest);
    free(newest);
    free(path);
}

static Status check_run_given(const Options *options, const char *help, Error *err)
{
    return options->run != NULL ? OK : option_misuse(help, err, "--run FOLDER is missing.");
}

/* Asks the controller of a run; *ret_body is owned by the caller. */
static Status ask_run(const Options *options, const CallOptions *call, uint8_t **ret_body,
                      size_t *ret_length, Error *err)
{
    RunFolder folder;
    TRY(run_folder_look(options->run, &folder, err));
    ActorIdentity self = {.name = "controller-cli", .incarnation = 1};
    Status status = ERR_UNAVAILABLE;
    if (socket_is_served(folder.endpoint))
        status =
            call_once(&self, "the controller", folder.endpoint, call, ret_body, ret_length, err);
    if (status == ERR_TIMEOUT || status == ERR_UNAVAILABLE)
        explain_silence(&folder, call->timeout_ms, status, err);
    run_folder_close(&folder);
    return status;
}

/* A run that is done has left what it would say. */
static bool read_last_status(const Options *options, char **ret_json)
{
    RunFolder folder;
    size_t length = 0;
    if (run_folder_look(options->run, &folder, NULL) != OK) return false;
    bool there = !socket_is_served(folder.endpoint) &&
                 file_read(folder.status, STATUS_BYTES_MAX, ret_json, &length, NULL) == OK;
    run_folder_close(&folder);
    return there;
}

static int run_status(const Options *options)
{
    Error err = {0};
    uint8_t *body = NULL;
    size_t length = 0;
    char *table = NULL, *json = NULL;
    Troupe__StatusReply *reply = NULL;
    Status status = check_run_given(options, help_status, &err);
    if (status == OK)
        status = ask_run(options, &CALL_TO("controller.status"), &body, &length, &err);
    if (status == OK) {
        reply = troupe__status_reply__unpack(NULL, length, body);
        if (reply == NULL) status = error_set(&err, ERR_INTERNAL, "the answer cannot be read");
        if (reply != NULL) json = mem_strdup(reply->json);
    } else if (status == ERR_UNAVAILABLE && read_last_status(options, &json)) {
        status = OK;
    }
    if (status == OK && options->json) puts(json);
    if (status == OK && !options->json) {
        status = status_table(json, &table, &err);
        if (status == OK) fputs(table, stdout);
    }
    if (reply != NULL) troupe__status_reply__free_unpacked(reply, NULL);
    free(table);
    free(json);
    free(body);
    return status == OK ? 0 : fail(status, &err);
}

static int run_stop(const Options *options)
{
    Error err = {0};
    uint8_t *body = NULL;
    size_t length = 0;
    Status status = check_run_given(options, help_stop, &err);
    if (status == OK) status = ask_run(options, &CALL_TO("controller.stop"), &body, &length, &err);
    free(body);
    return status == OK ? 0 : fail(status, &err);
}

/* The settings of a job that takes over in a run that goes on: the model is the run's, whatever the
 * job says of one. `settings` owns what is added; *ret_run, the run's configuration, is owned. */
static Status take_model_of_run(Options *options, StringList *settings, JobConfig **ret_run,
                                Error *err)
{
    RunFolder folder;
    JobConfig *config = NULL;
    char *path = NULL, *yaml = NULL;
    size_t length = 0, room = sizeof options->set / sizeof *options->set;
    TRY(run_folder_look(options->run, &folder, err));
    Status status = OK;
    if (!socket_is_served(folder.endpoint)) {
        status = ERR_UNAVAILABLE;
        explain_silence(&folder, 0, status, err);
    }
    path = path_join(folder.path, "config.effective.yaml");
    if (status == OK) status = file_read(path, CONFIG_BYTES_MAX, &yaml, &length, err);
    if (status == OK) status = job_config_parse(yaml, path, folder.path, &config, err);
    if (status == OK) job_config_fixed_settings(config, "model", settings);
    if (status == OK && options->num_sets + settings->count > (int)room)
        status =
            error_set(err, ERR_INVALID, "more than %d --set options", (int)room - settings->count);
    /* It does not begin from random weights, whatever the run began from or the job says: it may
     * stay near to what it begins from. */
    for (int i = 0; status == OK && i < settings->count; i++)
        options->set[options->num_sets++] = str_starts_with(settings->item[i], "model.init=")
                                                ? "model.init=pretrained"
                                                : settings->item[i];
    if (status == OK)
        *ret_run = config;
    else
        job_config_destroy(config);
    free(yaml);
    free(path);
    run_folder_close(&folder);
    return status;
}

/* The job that takes over from `run`: one stage, whose data the rollout workers will take.
 * *ret_code is the exit code when they will not, which was said. */
static Status load_swap(Options *options, const JobConfig *run, char **ret_text, int *ret_code,
                        Error *err)
{
    JobStages stages = {0};
    TRY(job_stages_load_next(options->config, options->set, options->num_sets, &stages, err));
    JobConfig *config = stages.stage[0];
    const char *reference = config->algorithm.reference;
    Status status = OK;
    if (stages.count > 1)
        status = error_set(err, ERR_INVALID,
                           "%s has %d stages, expected a job of one: a swap is to one stage.",
                           options->config, stages.count);
    if (status == OK) status = run_stages_check_room(run, config, err);
    /* For the programs that look at it, which do not know that it follows another job. */
    if (reference != NULL && strcmp(reference, REFERENCE_START) == 0 &&
        options->num_sets < (int)(sizeof options->set / sizeof *options->set))
        options->set[options->num_sets++] = "algorithm.reference=" REFERENCE_START;
    const JobFile file = job_file(options);
    if (status == OK) *ret_code = look_at_function(&file, config, true);
    if (status == OK && *ret_code == 0) *ret_code = look_at_data(config, &file);
    if (status == OK) *ret_text = job_config_text(config);
    job_stages_free(&stages);
    return status;
}

static int undo_swap(const Options *options)
{
    Error err = {0};
    RunFolder folder;
    StageUndone undone = {0};
    Status status = run_folder_look(options->run, &folder, &err);
    if (status == OK) {
        status = run_stages_undo(&folder, &undone, &err);
        run_folder_close(&folder);
    }
    if (status != OK) return fail(status, &err);
    printf("%s goes on as before the swap to %s: the command that started it resumes it\n",
           options->run, undone.name);
    if (undone.steps > 0)
        printf("%lld step%s of %s, of which there is no checkpoint, %s lost\n",
               (long long)undone.steps, plural(undone.steps), undone.name,
               undone.steps == 1 ? "is" : "are");
    free(undone.name);
    return 0;
}

static int run_swap(const Options *given)
{
    Error err = {0};
    Options with_model = *given, *options = &with_model;
    StringList settings = {0};
    JobConfig *run = NULL;
    uint8_t *body = NULL;
    char *text = NULL;
    size_t length = 0;
    int code = 0;
    if (given->undo && given->run != NULL) return undo_swap(given);
    Status status = check_run_given(options, help_swap, &err);
    if (status == OK && options->config == NULL)
        status = option_misuse(help_swap, &err, "--config JOB.YAML is missing.");
    if (status == OK) status = take_model_of_run(options, &settings, &run, &err);
    if (status == OK) status = load_swap(options, run, &text, &code, &err);
    job_config_destroy(run);
    string_list_free(&settings);
    if (code != 0) {
        free(text);
        return code;
    }
    if (status == OK) {
        Troupe__SwapRequest request = TROUPE__SWAP_REQUEST__INIT;
        request.job_yaml = text;
        PackedMessage packed = message_pack(&request.base);
        CallOptions call = CALL_TO("controller.swap");
        call.body = (Bytes){packed.data, packed.length};
        call.timeout_ms = SWAP_TIMEOUT_MS;
        status = ask_run(options, &call, &body, &length, &err);
        free(packed.data);
    }
    Troupe__SwapReply *reply = status == OK ? troupe__swap_reply__unpack(NULL, length, body) : NULL;
    if (reply != NULL)
        printf("%s goes on as %s after step %llu\n", options->run, reply->stage,
               (unsigned long long)reply->after_step);
    else if (status == OK)
        status = error_set(&err, ERR_INTERNAL, "the answer cannot be read");
    if (reply != NULL) troupe__swap_reply__free_unpacked(reply, NULL);
    free(text);
    free(body);
    return status == OK ? 0 : fail(status, &err);
}

static int run_schema(const Options *options)
{
    Error err = {0};
    char *text = NULL;
    if (options->key == NULL)
        text = job_config_reference();
    else if (job_config_describe(options->key, &text, &err) != OK)
        return fail(err.status, &err);
    fputs(text, stdout);
    free(text);
    return 0;
}

/* Becomes another program of Troupe. */
static int become(const char *name, char **argv)
{
    Error err = {0};
    char *program = program_path(name);
    execv(program, argv);
    error_set_errno(&err, errno, "could not start %s", program);
    free(program);
    return fail(err.status, &err);
}

static int run_data(int argc, char **argv)
{
    Error err = {0};
    const char *what = argc > 0 ? argv[0] : NULL;
    if (what != NULL && data_program(what) != NULL) return become(data_program(what), argv);
    if (what != NULL && (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0)) {
        fputs(help_data, stdout);
        return 0;
    }
    if (what == NULL)
        return fail(option_misuse(help_data, &err, "data needs to be told what."), &err);
    return fail(option_misuse(help_data, &err, "data can inspect and audit, not %s.", what), &err);
}

/* ---- which command ---- */

static int run_help(const Options *options);

static const Command commands[] = {
    {"", help_run, "csvV", false, run_job},
    {"validate", help_validate, "cs", false, run_validate},
    {"status", help_status, "rj", false, run_status},
    {"stop", help_stop, "r", false, run_stop},
    {"swap-rollout", help_swap, "rcsu", false, run_swap},
    {"schema", help_schema, "", true, run_schema},
    {"help", help_help, "", true, run_help},
    {"data", help_data, "", false, NULL},
    {"samples", NULL, "", false, NULL},
    {"serve", NULL, "", false, NULL},
};
#define NUM_COMMANDS (sizeof commands / sizeof *commands)

static Status find_command(const char *name, const Command **ret, Error *err)
{
    const char *names[NUM_COMMANDS] = {NULL}; /* the first has none */
    for (size_t i = 0; i < NUM_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            *ret = &commands[i];
            return OK;
        }
        if (i > 0) names[i] = commands[i].name;
    }
    const char *nearest = str_nearest(name, names, NUM_COMMANDS);
    error_set(err, ERR_INVALID, "unknown command %s.", name);
    if (nearest != NULL) return error_append(err, "Did you mean %s?", nearest);
    if (path_exists(name)) return error_append(err, "To run a job: controller --config %s", name);
    return error_append(err, "controller --help lists the commands.");
}

static int run_help(const Options *options)
{
    Error err = {0};
    const Command *command = &commands[0];
    if (options->key != NULL && str_starts_with(options->key, "data_") &&
        data_program(options->key + 5) != NULL)
        return become(options->key, (char *[]){(char *)options->key, "--help", NULL});
    if (options->key != NULL && find_command(options->key, &command, &err) != OK)
        return fail(err.status, &err);
    if (command->help == NULL)
        return become(command->name, (char *[]){(char *)command->name, "--help", NULL});
    fputs(command->help, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    Options options = {0};
    Error err = {0};
    if (argc < 2) {
        fputs(help_run, stderr);
        return 2;
    }
    if (strcmp(argv[1], "data") == 0) return run_data(argc - 2, argv + 2);
    if (strcmp(argv[1], "serve") == 0 || strcmp(argv[1], "samples") == 0)
        return become(argv[1], argv + 1);
    const Command *command = &commands[0];
    Status status = OK;
    if (argv[1][0] != '-') {
        status = find_command(argv[1], &command, &err);
        argc--;
        argv++;
    }
    if (status == OK) status = parse_options(command, argc, argv, &options, &err);
    if (status != OK) return fail(status, &err);
    if (options.help)
        fputs(command->help, stdout);
    else if (options.version)
        puts(TROUPE_VERSION);
    else
        return command->run(&options);
    return 0;
}
