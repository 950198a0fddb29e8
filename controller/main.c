/* controller: runs a job, and looks at one. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/version.h"
#include "cluster.pb-c.h"
#include "shell.h"
#include "status.h"
#include "validate.h"

static const char usage[] =
    "usage: controller --config JOB.YAML [--set KEY=VALUE]...   run a job (again: resume it)\n"
    "       controller validate --config JOB.YAML [--set ...]   check a job, start nothing\n"
    "       controller status --run FOLDER [--json]             what a run is doing\n"
    "       controller stop --run FOLDER                        finish the step, commit, end\n"
    "       controller schema [KEY]                             what job.yaml can say\n"
    "       controller --version | --help\n"
    "\n"
    "Exit codes: 0 done, 1 internal error, 2 usage or configuration, 3 data,\n"
    "4 resources or environment, 5 stopped by a signal after a commit.\n";

typedef struct Options {
    const char *config, *run;
    const char *set[64];
    int num_sets;
    bool json;
    LogLevel level;
} Options;

static int fail(Status status, const Error *err)
{
    fprintf(stderr, "controller: %s\n", err->message);
    return status_exit_code(status);
}

static Status parse_options(int argc, char **argv, Options *ret, Error *err)
{
    static const struct option names[] = {
        {"config", required_argument, NULL, 'c'}, {"set", required_argument, NULL, 's'},
        {"run", required_argument, NULL, 'r'},    {"json", no_argument, NULL, 'j'},
        {"verbose", no_argument, NULL, 'v'},      {0},
    };
    ret->level = LOG_INFO;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "c:s:r:jv", names, NULL)) != -1;) {
        switch (option) {
        case 'c':
            ret->config = optarg;
            break;
        case 'r':
            ret->run = optarg;
            break;
        case 's':
            if (ret->num_sets == (int)(sizeof ret->set / sizeof *ret->set))
                return error_set(err, ERR_INVALID, "more than 64 --set options");
            ret->set[ret->num_sets++] = optarg;
            break;
        case 'j':
            ret->json = true;
            break;
        case 'v':
            ret->level = LOG_DEBUG;
            break;
        default:
            return error_set(err, ERR_INVALID, "unknown or incomplete option %s\n%s",
                             argv[optind - 1], usage);
        }
    }
    return OK;
}

static Status load_config(const Options *options, JobConfig **ret, Error *err)
{
    if (options->config == NULL)
        return error_set(err, ERR_INVALID, "--config JOB.YAML is missing\n%s", usage);
    return job_config_load(options->config, options->set, options->num_sets, ret, err);
}

static int run_validate(const Options *options)
{
    Error err = {0};
    JobConfig *config = NULL;
    char *summary = NULL;
    Status status = load_config(options, &config, &err);
    if (status == OK) status = validate_job(config, &summary, &err);
    if (summary != NULL) fputs(summary, stdout);
    free(summary);
    job_config_destroy(config);
    return status == OK ? 0 : fail(status, &err);
}

static int run_job(const Options *options)
{
    Error err = {0};
    JobConfig *config = NULL;
    RunFolder folder = {0};
    Status status = load_config(options, &config, &err);
    if (status == OK) status = validate_job(config, NULL, &err);
    if (status == OK) status = run_folder_open(config->run_dir, &folder, &err);
    if (status == OK) status = log_open("controller", folder.events, options->level, &err);
    if (status == OK) {
        log_event(LOG_INFO, "run", F_STR("job", config->name), F_STR("folder", folder.path));
        if (folder.note != NULL) log_event(LOG_INFO, "lock_taken_over", F_STR("what", folder.note));
        status = shell_run(config, &folder, &err);
        /* For programs; people get the message itself. */
        log_event(LOG_DEBUG, "end", F_STR("status", status_name(status)),
                  F_STR("message", err.message));
        log_close();
    }
    run_folder_close(&folder);
    job_config_destroy(config);
    return status == OK ? 0 : fail(status, &err);
}

/* Asks the controller of a run; *ret_body is owned by the caller. */
static Status ask_run(const Options *options, const char *method, uint8_t **ret_body,
                      size_t *ret_length, Error *err)
{
    RunFolder folder;
    if (options->run == NULL)
        return error_set(err, ERR_INVALID, "--run FOLDER is missing\n%s", usage);
    TRY(run_folder_look(options->run, &folder, err));
    ActorIdentity self = {.name = "controller-cli", .incarnation = 1};
    CallOptions call = {.method = method, .timeout_ms = 3000};
    Status status =
        call_once(&self, "the controller", folder.endpoint, &call, ret_body, ret_length, err);
    if (status == ERR_TIMEOUT || status == ERR_UNAVAILABLE)
        error_set(err, status, "no controller answers for %s: the run is not going on",
                  folder.path);
    run_folder_close(&folder);
    return status;
}

static int run_status(const Options *options)
{
    Error err = {0};
    uint8_t *body = NULL;
    size_t length = 0;
    char *table = NULL;
    Troupe__StatusReply *reply = NULL;
    Status status = ask_run(options, "controller.status", &body, &length, &err);
    if (status == OK) {
        reply = troupe__status_reply__unpack(NULL, length, body);
        if (reply == NULL) status = error_set(&err, ERR_INTERNAL, "the answer cannot be read");
    }
    if (status == OK && options->json) puts(reply->json);
    if (status == OK && !options->json) {
        status = status_table(reply->json, &table, &err);
        if (status == OK) fputs(table, stdout);
    }
    if (reply != NULL) troupe__status_reply__free_unpacked(reply, NULL);
    free(table);
    free(body);
    return status == OK ? 0 : fail(status, &err);
}

static int run_stop(const Options *options)
{
    Error err = {0};
    uint8_t *body = NULL;
    size_t length = 0;
    Status status = ask_run(options, "controller.stop", &body, &length, &err);
    free(body);
    return status == OK ? 0 : fail(status, &err);
}

static int run_schema(const char *key)
{
    Error err = {0};
    char *text = NULL;
    if (key == NULL)
        text = job_config_reference();
    else if (job_config_describe(key, &text, &err) != OK)
        return fail(err.status, &err);
    fputs(text, stdout);
    free(text);
    return 0;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 && argv[1][0] != '-' ? argv[1] : "run";
    Options options = {0};
    Error err = {0};
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts(TROUPE_VERSION);
        return 0;
    }
    if (strcmp(command, "schema") == 0) return run_schema(argc > 2 ? argv[2] : NULL);
    if (argv[1][0] != '-') {
        argc--;
        argv++;
    }
    Status status = parse_options(argc, argv, &options, &err);
    if (status != OK) return fail(status, &err);
    if (strcmp(command, "run") == 0) return run_job(&options);
    if (strcmp(command, "validate") == 0) return run_validate(&options);
    if (strcmp(command, "status") == 0) return run_status(&options);
    if (strcmp(command, "stop") == 0) return run_stop(&options);
    error_set(&err, ERR_INVALID, "unknown command %s\n%s", command, usage);
    return fail(ERR_INVALID, &err);
}
