/* data_audit: proves from a run's ledger what was consumed. People call it as `controller data
 * audit`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/options.h"
#include "config/stage_list.h"
#include "data_source/audit_data.h"
#include "data_source/audit_view.h"
#include "dataset/file_pool.h"

static const char help[] =
    "usage: controller data audit RUN [--json]\n"
    "       controller data audit --config JOB.YAML [--set KEY=VALUE]... [--json]\n"
    "       proves from a run's ledger and checkpoints that each sample of each epoch was "
    "consumed\n"
    "       exactly once (trained, or rejected for a reason), or names the exceptions; with the\n"
    "       data at hand also that positions are one to one with its records. Writes nothing; the\n"
    "       run may go on meanwhile\n"
    "\n"
    "options:\n"
    "  -r, --run FOLDER        the run folder; the same as RUN\n"
    "  -c, --config JOB.YAML   the run of this job, and the data that its stages name; else what\n"
    "                          the checkpoints say of it\n"
    "  -s, --set KEY=VALUE     in place of what the file says\n"
    "      --checkpoint DIR    compare with this checkpoint, wherever it is, in place of the "
    "run's\n"
    "      --data              look at the data, and fail where it is not there\n"
    "      --no-data           do not look at it; default: where it is there\n"
    "  -l, --list L            list the first L exceptions, and the first L rejected positions of\n"
    "                          each stage; default 20\n"
    "      --json              all of it as one JSON object on one line, for programs\n"
    "\n"
    "Exit codes: 0 exactly once, 2 usage, or no such run, 3 exceptions, or the data cannot be "
    "read.\n";

#define LIST_MAX 1000000

typedef enum { DATA_IF_THERE, DATA_NEEDED, DATA_LEFT } DataWish;

typedef struct Arguments {
    const char *config;
    const char *set[64];
    int num_sets;
    bool json, help;
    DataWish data;
    AuditOptions audit;
} Arguments;

static int fail(const Error *err)
{
    fprintf(stderr, "controller: data audit: %s\n", err->message);
    return status_exit_code(err->status);
}

static Status take_option(Arguments *arguments, int letter, Error *err)
{
    uint64_t number = 0;
    switch (letter) {
    case 'r':
        arguments->audit.run = optarg;
        return OK;
    case 'c':
        arguments->config = optarg;
        return OK;
    case 's':
        if (arguments->num_sets == (int)(sizeof arguments->set / sizeof *arguments->set))
            return error_set(err, ERR_INVALID, "more than %d --set options", arguments->num_sets);
        arguments->set[arguments->num_sets++] = optarg;
        return OK;
    case 'p':
        arguments->audit.checkpoint = optarg;
        return OK;
    case 'd':
        arguments->data = DATA_NEEDED;
        return OK;
    case 'n':
        arguments->data = DATA_LEFT;
        return OK;
    case 'l':
        TRY(option_number("--list", optarg, LIST_MAX, &number, err));
        arguments->audit.listed_max = (int64_t)number;
        return OK;
    case 'j':
        arguments->json = true;
        return OK;
    default:
        arguments->help = true;
        return OK;
    }
}

static Status parse_arguments(int argc, char **argv, Arguments *ret, Error *err)
{
    static const struct option names[] = {
        {"run", required_argument, NULL, 'r'},  {"config", required_argument, NULL, 'c'},
        {"set", required_argument, NULL, 's'},  {"checkpoint", required_argument, NULL, 'p'},
        {"data", no_argument, NULL, 'd'},       {"no-data", no_argument, NULL, 'n'},
        {"list", required_argument, NULL, 'l'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},       {0},
    };
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, ":r:c:s:l:h", names, NULL)) != -1;) {
        if (letter == '?' || letter == ':') return option_refuse(letter, argv, names, help, err);
        TRY(take_option(ret, letter, err));
    }
    if (ret->help) return OK;
    if (optind < argc && ret->audit.run == NULL) ret->audit.run = argv[optind++];
    if (optind < argc) return option_misuse(help, err, "there is an argument too many.");
    if (ret->audit.run == NULL && ret->config == NULL)
        return option_misuse(help, err, "which run: its folder, or --config JOB.YAML?");
    return OK;
}

/* ---- the job of a stage ---- */

static Status read_config(const char *folder, const char *name, JobConfig **ret, Error *err)
{
    char *path = path_join(folder, name), *text = NULL;
    size_t length = 0;
    Status status = file_read(path, CONFIG_BYTES_MAX, &text, &length, err);
    if (status == OK) status = job_config_parse(text, path, folder, ret, err);
    free(text);
    free(path);
    return status;
}

/* As the newest checkpoint of the stage has it, or else the run folder: of each stage that was
 * entered, and in those of earlier versions of the last. */
static Status find_config(const Audit *audit, const AuditStage *stage, const char *run,
                          JobConfig **ret, Error *err)
{
    for (int i = 0; i < audit->num_checkpoints; i++) {
        const AuditCheckpoint *checkpoint = &audit->checkpoint[i];
        if (checkpoint->manifest != NULL &&
            manifest_count(checkpoint->manifest, "stage") == stage->number)
            return read_config(checkpoint->path, "job.yaml", ret, err);
    }
    if (stage_list_config(run, stage->number + 1, ret, NULL) == OK) return OK;
    if (stage == &audit->stage[audit->num_stages - 1])
        return read_config(run, "config.effective.yaml", ret, err);
    return error_set(
        err, ERR_NOT_FOUND,
        "neither a checkpoint nor the run folder says which its data is: --config JOB.YAML");
}

static Status look_at_stage(Audit *audit, AuditStage *stage, const Arguments *arguments,
                            const JobStages *stages, Error *err)
{
    JobConfig *found = NULL;
    const JobConfig *config = NULL;
    Error why = {0};
    Status status = OK;
    if (stages != NULL && stage->number < stages->count)
        config = stages->stage[stage->number];
    else
        status = find_config(audit, stage, arguments->audit.run, &found, &why);
    if (status != OK) stage->not_mapped = mem_strdup(why.message);
    if (status == OK) status = audit_records(audit, stage, config != NULL ? config : found, &why);
    job_config_destroy(found);
    if (status == OK || arguments->data != DATA_NEEDED) return OK;
    return error_set(err, status, "%s", why.message);
}

/* ---- how far it is ---- */

#define SHOWN_EVERY_MS 500

typedef struct Progress {
    int64_t shown_ms; /* when; at first the start: what is done sooner is not worth a line */
    bool shown;
} Progress;

static void show_progress(void *context, const char *what, int64_t done, int64_t all)
{
    Progress *progress = context;
    int64_t now = clock_ms();
    if (now - progress->shown_ms < SHOWN_EVERY_MS) return;
    progress->shown_ms = now;
    progress->shown = true;
    fprintf(stderr, "\r\033[K%s: %lld %%", what, (long long)(all > 0 ? 100 * done / all : 100));
    fflush(stderr);
}

static void end_progress(const Progress *progress)
{
    if (!progress->shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
}

/* ---- the whole ---- */

static Status audit_job(Arguments *arguments, const JobStages *stages, Audit *audit, Error *err)
{
    if (arguments->audit.run == NULL) arguments->audit.run = stages->stage[0]->run_dir;
    TRY(audit_run(&arguments->audit, audit, err));
    for (int i = 0; i < audit->num_stages && arguments->data != DATA_LEFT; i++)
        TRY(look_at_stage(audit, &audit->stage[i], arguments, stages, err));
    return OK;
}

int main(int argc, char **argv)
{
    Arguments arguments = {.audit = {.listed_max = 20}};
    Error err = {0};
    JobStages stages = {0};
    Audit audit = {0};
    Str out = {0};
    Progress progress = {.shown_ms = clock_ms()};
    if (isatty(STDERR_FILENO)) arguments.audit.watch = (AuditWatch){&progress, show_progress};
    if (parse_arguments(argc, argv, &arguments, &err) != OK) return fail(&err);
    file_pool_raise_limit();
    if (arguments.help) {
        fputs(help, stdout);
        return 0;
    }
    Status status = OK;
    if (arguments.config != NULL)
        status =
            job_stages_load(arguments.config, arguments.set, arguments.num_sets, &stages, &err);
    if (status == OK)
        status = audit_job(&arguments, arguments.config != NULL ? &stages : NULL, &audit, &err);
    end_progress(&progress);
    if (status == OK) {
        if (arguments.json)
            audit_view_json(&audit, &out);
        else
            audit_view(&audit, &out);
        fputs(str_text(&out), stdout);
        fflush(stdout);
    }
    bool found = audit.num_findings > 0;
    str_free(&out);
    audit_clear(&audit);
    job_stages_free(&stages);
    if (status != OK) return fail(&err);
    return found ? status_exit_code(ERR_DATA) : 0;
}
