/* data_inspect: shows what a job makes of its data. People call it as `controller data inspect`. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "rollout_worker/inspect_view.h"

static const char help[] =
    "usage: controller data inspect --config JOB.YAML [--sample N | --position P] [--set "
    "KEY=VALUE]...\n"
    "       prints a record as the model sees it, with what is trained of it, and figures of the\n"
    "       first records; reads no more of the data than that takes, and starts nothing\n"
    "\n"
    "options:\n"
    "  -c, --config JOB.YAML   the job file\n"
    "  -s, --set KEY=VALUE     in place of what the file says\n"
    "  -n, --sample N          the record to show, counted from 0 in the order of the files;\n"
    "                          default 0\n"
    "  -p, --position P        show instead the record at position P of the run's stream, as the\n"
    "                          ledger and messages name it (reads all of the data once, or the\n"
    "                          run's index)\n"
    "  -k, --count K           summarise the first K records; default 1000, 0: none\n"
    "  -e, --eval              data.eval in place of data.train\n"
    "      --brief[=SET]       no record, and of the first K only what was made of them; SET is "
    "train\n"
    "                          or eval\n"
    "      --color[=WHEN]      always, never, or auto: on a terminal (the default)\n"
    "\n"
    "Exit codes: 0 shown, 2 usage or configuration, 3 data: a record was met that would end a\n"
    "run, or the data cannot be read.\n";

#define COUNT_MAX 1000000

typedef struct Arguments {
    const char *config;
    const char *set[64];
    int num_sets;
    bool color, help, numbered, brief;
    InspectOptions inspect;
} Arguments;

static int fail(const Error *err)
{
    fprintf(stderr, "controller: data inspect: %s\n", err->message);
    return status_exit_code(err->status);
}

static Status refuse_use(Error *err, const char *what)
{
    return error_set(err, ERR_INVALID, "%s\n%.*s", what, (int)strcspn(help, "\n"), help);
}

static Status read_number(const char *option, const char *text, uint64_t max, uint64_t *ret,
                          Error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || strchr(text, '-') != NULL || number > max)
        return error_set(err, ERR_INVALID,
                         "%s is \"%.40s\", expected a whole number from 0 to %llu", option, text,
                         (unsigned long long)max);
    *ret = number;
    return OK;
}

static Status read_color(const char *when, bool *ret, Error *err)
{
    if (when == NULL || strcmp(when, "always") == 0)
        *ret = true;
    else if (strcmp(when, "never") == 0)
        *ret = false;
    else if (strcmp(when, "auto") != 0)
        return error_set(err, ERR_INVALID,
                         "--color is \"%.40s\", expected one of always, never, auto", when);
    return OK;
}

static Status read_brief(Arguments *arguments, const char *set, Error *err)
{
    arguments->brief = true;
    if (set == NULL) return OK;
    arguments->inspect.eval = strcmp(set, "eval") == 0;
    if (arguments->inspect.eval || strcmp(set, "train") == 0) return OK;
    return error_set(err, ERR_INVALID, "--brief is \"%.40s\", expected train or eval", set);
}

static Status choose(Arguments *arguments, const char *option, bool by_position, Error *err)
{
    InspectChoice *choice = &arguments->inspect.choice;
    if (arguments->numbered && choice->by_position != by_position)
        return refuse_use(err, "--sample and --position are two ways to name one record.");
    arguments->numbered = true;
    choice->by_position = by_position;
    return read_number(option, optarg, INT64_MAX - 1, &choice->number, err);
}

static Status take_option(Arguments *arguments, int letter, Error *err)
{
    switch (letter) {
    case 'c':
        arguments->config = optarg;
        return OK;
    case 's':
        if (arguments->num_sets == (int)(sizeof arguments->set / sizeof *arguments->set))
            return error_set(err, ERR_INVALID, "more than %d --set options", arguments->num_sets);
        arguments->set[arguments->num_sets++] = optarg;
        return OK;
    case 'n':
        return choose(arguments, "--sample", false, err);
    case 'p':
        return choose(arguments, "--position", true, err);
    case 'k':
        return read_number("--count", optarg, COUNT_MAX, &arguments->inspect.summary_records, err);
    case 'e':
        arguments->inspect.eval = true;
        return OK;
    case 'C':
        return read_color(optarg, &arguments->color, err);
    case 'b':
        return read_brief(arguments, optarg, err);
    case 'h':
        arguments->help = true;
        return OK;
    default:
        return refuse_use(err, "an option is unknown or lacks its value.");
    }
}

static Status parse_arguments(int argc, char **argv, Arguments *ret, Error *err)
{
    static const struct option names[] = {
        {"config", required_argument, NULL, 'c'}, {"set", required_argument, NULL, 's'},
        {"sample", required_argument, NULL, 'n'}, {"position", required_argument, NULL, 'p'},
        {"count", required_argument, NULL, 'k'},  {"eval", no_argument, NULL, 'e'},
        {"brief", optional_argument, NULL, 'b'},  {"color", optional_argument, NULL, 'C'},
        {"help", no_argument, NULL, 'h'},         {0},
    };
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, "c:s:n:p:k:eh", names, NULL)) != -1;)
        TRY(take_option(ret, letter, err));
    if (ret->help) return OK;
    if (optind < argc) return refuse_use(err, "there is an argument too many.");
    if (ret->config == NULL) return refuse_use(err, "--config JOB.YAML is missing.");
    return OK;
}

static Status show_record(Inspection *inspection, const Arguments *arguments, bool *ret_stops,
                          Error *err)
{
    const InspectOptions *options = &arguments->inspect;
    InspectedRecord record = {0};
    Str out = {0};
    TRY(inspection_choose(inspection, &record, err));
    inspect_view_record(options, &record, arguments->color, &out);
    fputs(str_text(&out), stdout);
    *ret_stops = record.sample.status == SAMPLE_REJECTED &&
                 inspect_stops(options->config, record.sample.reject_reason);
    str_free(&out);
    inspected_record_clear(&record);
    return OK;
}

static Status show_summary(Inspection *inspection, const Arguments *arguments, bool *ret_stops,
                           Error *err)
{
    const InspectOptions *options = &arguments->inspect;
    InspectSummary summary = {0};
    Str out = {0};
    if (options->summary_records == 0) return OK;
    TRY(inspection_summarize(inspection, &summary, err));
    if (arguments->brief)
        inspect_view_brief(options, &summary, &out);
    else
        inspect_view_summary(options, &summary, &out);
    printf("%s%s", arguments->brief ? "" : "\n", str_text(&out));
    if (arguments->brief && summary.completed + summary.truncated == 0)
        *ret_stops = true; /* a run would have nothing to train on */
    for (int reason = 0; reason < REJECT_REASON_COUNT; reason++)
        *ret_stops = *ret_stops || (summary.rejected[reason] > 0 &&
                                    inspect_stops(options->config, (RejectReason)reason));
    str_free(&out);
    inspect_summary_clear(&summary);
    return OK;
}

static int inspect(Arguments *arguments)
{
    Error err = {0};
    JobConfig *config = NULL;
    Inspection *inspection = NULL;
    bool stops = false;
    Status status =
        job_config_load(arguments->config, arguments->set, arguments->num_sets, &config, &err);
    arguments->inspect.config = config;
    if (status == OK) status = job_config_check_data(config, &err);
    if (status == OK) status = inspection_open(&arguments->inspect, &inspection, &err);
    if (status == OK && !arguments->brief)
        status = show_record(inspection, arguments, &stops, &err);
    if (status == OK) status = show_summary(inspection, arguments, &stops, &err);
    if (status == ERR_UNSUPPORTED && arguments->brief) { /* a part of a check, which goes on */
        printf("%s: %s\n", arguments->inspect.eval ? "data.eval" : "data.train", err.message);
        status = OK;
    }
    inspection_close(inspection);
    job_config_destroy(config);
    fflush(stdout);
    if (status != OK) return fail(&err);
    return stops ? status_exit_code(ERR_DATA) : 0;
}

int main(int argc, char **argv)
{
    const char *terminal = getenv("TERM"), *no_color = getenv("NO_COLOR");
    Arguments arguments = {.inspect = {.summary_records = 1000}};
    arguments.color = isatty(STDOUT_FILENO) && (no_color == NULL || no_color[0] == '\0') &&
                      terminal != NULL && strcmp(terminal, "dumb") != 0;
    Error err = {0};
    if (parse_arguments(argc, argv, &arguments, &err) != OK) return fail(&err);
    if (arguments.help) {
        fputs(help, stdout);
        return 0;
    }
    return inspect(&arguments);
}
