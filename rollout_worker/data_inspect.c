/* data_inspect: shows what a job makes of its data. People call it as `controller data inspect`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/options.h"
#include "dataset/file_pool.h"
#include "dataset/last_words.h"
#include "job_data/job_model.h"
#include "rollout_worker/inspect_view.h"
#include "rollout_worker/inspect_watch.h"
#include "rollout_worker/policy_server.h"

static const char help[] =
    "usage: controller data inspect --config JOB.YAML [--sample N | --position P] [--set "
    "KEY=VALUE]...\n"
    "       prints a record as the model sees it, with what is trained of it, and figures of the\n"
    "       first records; reads no more of the data than that takes, and starts nothing\n"
    "\n"
    "options:\n"
    "  -c, --config JOB.YAML   the job file\n"
    "  -s, --set KEY=VALUE     in place of what the file says\n"
    "      --stage NAME        of a job with several stages; default the first\n"
    "  -n, --sample N          the record to show, counted from 0 in the order of the files (of\n"
    "                          the first source of a mixture; of a reader of your own in the\n"
    "                          order that it has without shuffling); default 0\n"
    "  -p, --position P        show instead the record at position P of the run's stream, as the\n"
    "                          ledger and messages name it (reads all of the data once, or the\n"
    "                          run's index)\n"
    "  -k, --count K           summarise the first K records; default 1000, 0: none, all: all of\n"
    "                          them, which reads all of the data\n"
    "  -l, --list L            list the first L of these that are rejected or odd; default 20\n"
    "  -e, --eval[=SET]        data.eval, or that set of eval.sets, in place of data.train\n"
    "      --source NAME       of data.sources that one alone; --position is of its own stream "
    "then\n"
    "      --json              all of it as one JSON object on one line, for programs\n"
    "      --color[=WHEN]      always, never, or auto: on a terminal (the default)\n"
    "\n"
    "What `controller validate` and the start of a run ask, in place of a record:\n"
    "      --brief[=SET]       of the first K records only what was made of them; SET is train,\n"
    "                          eval, or one of eval.sets\n"
    "      --check[=PART]      whether the rollout function, its rewards and tools can be opened,\n"
    "                          which starts and ends their programs, and whether memory is\n"
    "                          enough; functions or memory: that alone\n"
    "      --available BYTES   with --check: of memory, or of a GPU's, in place of what is free\n"
    "      --trained BYTES     with --check: of it that train workers take\n"
    "      --gpu ID            with --check: where the job wants a GPU, this one of them\n"
    "\n"
    "Exit codes: 0 shown, 2 usage or configuration, 3 data: a record was met that would end a\n"
    "run, or the data cannot be read.\n";

#define COUNT_MAX 1000000
#define SAID_MS   5000

typedef struct Arguments {
    const char *config, *stage;
    const char *set[64];
    int num_sets;
    bool color, help, numbered, brief, json, check;
    const char *part;            /* of the check; NULL: all of it */
    uint64_t available, trained; /* bytes; UINT64_MAX: as the machine has now */
    InspectOptions inspect;
    int64_t said_ms; /* how far it is; 0: never */
} Arguments;

/* A part of another command speaks as that does. */
static int fail(const Arguments *arguments, const Error *err)
{
    bool part = arguments->brief || arguments->check;
    fprintf(stderr, "controller: %s%s\n", part ? "" : "data inspect: ", err->message);
    return status_exit_code(err->status);
}

static void read_brief(Arguments *arguments, const char *set)
{
    arguments->brief = true;
    if (set != NULL) arguments->inspect.set = strcmp(set, "train") != 0 ? set : NULL;
}

static Status choose(Arguments *arguments, const char *option, bool by_position, Error *err)
{
    InspectChoice *choice = &arguments->inspect.choice;
    if (arguments->numbered && choice->by_position != by_position)
        return option_misuse(help, err, "--sample and --position are two ways to name one record.");
    arguments->numbered = true;
    choice->by_position = by_position;
    return option_number(option, optarg, INT64_MAX - 1, &choice->number, err);
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
    case 'S':
        arguments->stage = optarg;
        return OK;
    case 'n':
        return choose(arguments, "--sample", false, err);
    case 'p':
        return choose(arguments, "--position", true, err);
    case 'k':
        arguments->inspect.summary_records = INSPECT_ALL;
        if (strcmp(optarg, "all") == 0) return OK;
        return option_number("--count", optarg, COUNT_MAX, &arguments->inspect.summary_records,
                             err);
    case 'l':
        return option_number("--list", optarg, COUNT_MAX, &arguments->inspect.listed_max, err);
    case 'e':
        arguments->inspect.set = optarg != NULL ? optarg : "eval";
        return OK;
    case 'o':
        arguments->inspect.source = optarg;
        return OK;
    case 'j':
        arguments->json = true;
        return OK;
    case 'C':
        return option_color(optarg, &arguments->color, err);
    case 'b':
        read_brief(arguments, optarg);
        return OK;
    case 'K':
        arguments->check = true;
        arguments->part = optarg;
        return OK;
    case 'A':
        return option_number("--available", optarg, INT64_MAX, &arguments->available, err);
    case 'g':
        if (optarg[0] != '\0') setenv("CUDA_VISIBLE_DEVICES", optarg, 1);
        return OK;
    case 'T':
        return option_number("--trained", optarg, INT64_MAX, &arguments->trained, err);
    case 'h':
        arguments->help = true;
        return OK;
    default:
        return OK;
    }
}

static Status parse_arguments(int argc, char **argv, Arguments *ret, Error *err)
{
    static const struct option names[] = {
        {"config", required_argument, NULL, 'c'},  {"set", required_argument, NULL, 's'},
        {"sample", required_argument, NULL, 'n'},  {"position", required_argument, NULL, 'p'},
        {"count", required_argument, NULL, 'k'},   {"eval", optional_argument, NULL, 'e'},
        {"brief", optional_argument, NULL, 'b'},   {"source", required_argument, NULL, 'o'},
        {"color", optional_argument, NULL, 'C'},   {"list", required_argument, NULL, 'l'},
        {"json", no_argument, NULL, 'j'},          {"stage", required_argument, NULL, 'S'},
        {"check", optional_argument, NULL, 'K'},   {"available", required_argument, NULL, 'A'},
        {"trained", required_argument, NULL, 'T'}, {"gpu", required_argument, NULL, 'g'},
        {"help", no_argument, NULL, 'h'},          {0},
    };
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, ":c:s:n:p:k:l:eh", names, NULL)) != -1;) {
        if (letter == '?' || letter == ':') return option_refuse(letter, argv, names, help, err);
        TRY(take_option(ret, letter, err));
    }
    if (ret->help) return OK;
    if (optind < argc) return option_misuse(help, err, "there is an argument too many.");
    if (ret->config == NULL) return option_misuse(help, err, "--config JOB.YAML is missing.");
    return OK;
}

/* A look at all of a large data set takes its time, and says every few seconds how far it is. */
static void say_looked(void *context, const char *key, uint64_t records, uint64_t of)
{
    Arguments *arguments = context;
    int64_t now_ms = clock_ms();
    if (arguments->said_ms == 0) arguments->said_ms = now_ms;
    if (now_ms - arguments->said_ms < SAID_MS) return;
    arguments->said_ms = now_ms;
    fprintf(stderr, "controller: data inspect: looked at %llu of %llu records of %s\n",
            (unsigned long long)records, (unsigned long long)of, key);
}

/* What is to be shown, as far as it is asked for. */
typedef struct Shown {
    InspectedRecord record;
    InspectSummary *summary; /* [num_summaries] of each source */
    int num_summaries;
    bool has_record;
} Shown;

static Status look(Inspection *inspection, const Arguments *arguments, Shown *ret, Error *err)
{
    if (!arguments->brief) {
        TRY(inspection_choose(inspection, &ret->record, err));
        ret->has_record = true;
    }
    if (arguments->inspect.summary_records == 0) return OK;
    int count = inspection_num_sources(inspection);
    ret->summary = mem_calloc((size_t)count, sizeof *ret->summary);
    for (; ret->num_summaries < count; ret->num_summaries++)
        TRY(inspection_summarize(inspection, ret->num_summaries, &ret->summary[ret->num_summaries],
                                 err));
    return OK;
}

static void clear_shown(Shown *shown)
{
    inspected_record_clear(&shown->record);
    for (int i = 0; i < shown->num_summaries; i++)
        inspect_summary_clear(&shown->summary[i]);
    free(shown->summary);
}

/* The options by which a source's summary is shown. */
static InspectOptions options_of(const Arguments *arguments, const Inspection *inspection, int i)
{
    InspectOptions options = arguments->inspect;
    if (inspection_num_sources(inspection) > 1)
        options.source = inspection_source(inspection, i).name;
    return options;
}

static void show_text(const Inspection *inspection, const Shown *shown, const Arguments *arguments,
                      Str *out)
{
    inspect_view_entries(inspection, out);
    if (shown->has_record)
        inspect_view_record(&arguments->inspect, &shown->record, arguments->color, out);
    if (inspection_num_sources(inspection) > 1) {
        if (shown->has_record) str_putc(out, '\n');
        inspect_view_mixture(inspection, out);
    }
    for (int i = 0; i < shown->num_summaries; i++) {
        InspectOptions options = options_of(arguments, inspection, i);
        if (arguments->brief) {
            inspect_view_brief(&options, &shown->summary[i], out);
        } else {
            str_putc(out, '\n');
            inspect_view_summary(&options, &shown->summary[i], out);
        }
    }
}

static void show(const Inspection *inspection, const Shown *shown, const Arguments *arguments)
{
    Str out = {0};
    if (arguments->json)
        inspect_view_json(&arguments->inspect, inspection,
                          shown->has_record ? &shown->record : NULL, shown->summary, &out);
    else
        show_text(inspection, shown, arguments, &out);
    fputs(str_text(&out), stdout);
    str_free(&out);
}

/* Beside what is shown, which may be for a program. A check has told of it already. */
static void warn(const Inspection *inspection, const Arguments *arguments)
{
    if (arguments->brief) return;
    char *warnings = inspection_warnings(inspection);
    for (const char *line = warnings; line != NULL && *line != '\0';) {
        int length = (int)strcspn(line, "\n");
        fprintf(stderr, "controller: data inspect: warning: %.*s\n", length, line);
        line += length + (line[length] == '\n');
    }
    free(warnings);
}

/* Whether a run would end at what was met. */
static bool would_stop(const Shown *shown, const Arguments *arguments)
{
    const JobConfig *config = arguments->inspect.config;
    const Sample *sample = &shown->record.sample;
    bool stops = shown->has_record && sample->status == SAMPLE_REJECTED &&
                 inspect_stops(config, sample->reject_reason);
    for (int i = 0; i < shown->num_summaries; i++) {
        const InspectSummary *summary = &shown->summary[i];
        for (int reason = 0; reason < REJECT_REASON_COUNT; reason++)
            stops = stops ||
                    (summary->rejected[reason] > 0 && inspect_stops(config, (RejectReason)reason));
        bool nothing = summary->completed + summary->truncated == 0; /* to train on */
        stops = stops || (arguments->brief && nothing);
    }
    return stops;
}

static Status open_inspection(const JobConfig *config, const Arguments *arguments, Inspection **ret,
                              Error *err)
{
    Status status = rollout_enter_working_dir(config, err);
    if (status == OK) status = inspection_open(&arguments->inspect, ret, err);
    return status == OK ? OK : job_config_locate(config, err);
}

static void tell_waiting(void *told_ms, const char *waits_for)
{
    if (hub_watch_is_time(told_ms, waits_for))
        fprintf(stderr, "controller: model.path: waiting for %s\n", waits_for);
}

static int inspect(Arguments *arguments)
{
    Error err = {0};
    JobConfig *config = NULL;
    Inspection *inspection = NULL;
    InspectWatch *watch = NULL;
    Shown shown = {0};
    _Atomic int64_t told_ms = 0;
    JobSource source = {arguments->config, arguments->stage, arguments->set, arguments->num_sets,
                        .watch = {.waits = tell_waiting, .context = (void *)&told_ms}};
    Status status = job_model_load(&source, &config, &err);
    arguments->inspect.config = config;
    if (status == OK) status = job_config_check_data(config, &err);
    if (status == OK) {
        watch = inspect_watch_start(&arguments->inspect);
        arguments->inspect.watch = inspect_watch_of(watch);
        status = open_inspection(config, arguments, &inspection, &err);
    }
    if (status == OK) {
        inspect_watch_opened(watch, inspection);
        warn(inspection, arguments);
        status = look(inspection, arguments, &shown, &err);
    }
    inspect_watch_stop(watch);
    bool trains = arguments->brief && arguments->inspect.set == NULL;
    if (status == OK && trains) { /* after what was found of it */
        show(inspection, &shown, arguments);
        status = inspection_check_run(inspection, &err);
        if (status != OK) job_config_locate(config, &err);
    }
    if (status == OK && !trains) show(inspection, &shown, arguments);
    bool stops = status == OK && would_stop(&shown, arguments);
    if (status == ERR_UNSUPPORTED && arguments->brief && config != NULL &&
        !inspection_is_possible(config)) { /* a part of a check, which goes on */
        const char *key = inspect_set_key(&arguments->inspect);
        bool named = str_starts_with(err.message, key);
        printf("%s%s%s\n", named ? "" : key, named ? "" : ": ", err.message);
        status = OK;
    }
    clear_shown(&shown);
    inspection_close(inspection);
    job_config_destroy(config);
    fflush(stdout);
    if (status != OK) return fail(arguments, &err);
    return stops ? status_exit_code(ERR_DATA) : 0;
}

static bool has_part(const Arguments *arguments, const char *part)
{
    return arguments->part == NULL || strcmp(arguments->part, part) == 0;
}

/* What is decided here is the one thing that a check prints: for the controller, which reads it. */
static Status check_memory(const RolloutTable *table, const void *shared,
                           const Arguments *arguments, Error *err)
{
    const ChatText *text = NULL;
    const Policy *policy = table->policy != NULL ? table->policy(shared, &text) : NULL;
    if (policy == NULL) return OK;
    MemoryRoom room = {.available = policy_memory_free(policy),
                       .trained = (int64_t)arguments->trained};
    if (arguments->available != UINT64_MAX) room.available = (int64_t)arguments->available;
    TRY(policy_find_room(policy, &room, err));
    if (room.takes_turns) printf("takes_turns\n");
    if (room.kv_cache_mb > 0) printf("kv_cache_mb %lld\n", (long long)room.kv_cache_mb);
    return OK;
}

static Status try_function(const JobConfig *config, const Arguments *arguments, Error *err)
{
    const RolloutTable *table = rollout_table(config->rollout.function);
    bool functions = has_part(arguments, "functions");
    void *shared = NULL;
    Status status = rollout_enter_working_dir(config, err);
    if (status == OK) status = table->open(config, &shared, err);
    if (status == OK && has_part(arguments, "memory"))
        status = check_memory(table, shared, arguments, err);
    if (status == OK && functions)
        status = policy_server_check(config, arguments->part == NULL, err);
    if (status == OK && functions && table->try_programs != NULL)
        status = table->try_programs(shared, err);
    if (shared != NULL) table->close(shared);
    return status == OK ? OK : job_config_locate(config, err);
}

static int check(const Arguments *arguments)
{
    Error err = {0};
    JobConfig *config = NULL;
    Status status = job_config_load(arguments->config, arguments->stage, arguments->set,
                                    arguments->num_sets, &config, &err);
    if (status == OK) status = try_function(config, arguments, &err);
    job_config_destroy(config);
    return status == OK ? 0 : fail(arguments, &err);
}

/* Records become the same on any device, and functions are opened alike: what does not plan memory
 * needs no GPU to be there, nor turns on it. */
static void leave_device(Arguments *arguments)
{
    static const char *const settings[] = {"device=cpu", "rollout.offload=auto"};
    bool plans = arguments->check && has_part(arguments, "memory");
    int most = (int)(sizeof arguments->set / sizeof *arguments->set);
    for (int i = 0; i < 2 && !plans && arguments->num_sets < most; i++)
        arguments->set[arguments->num_sets++] = settings[i];
}

int main(int argc, char **argv)
{
    Arguments arguments = {
        .available = UINT64_MAX,
        .inspect = {.summary_records = 1000, .listed_max = 20, .looked = say_looked}};
    arguments.inspect.context = &arguments;
    arguments.color = option_color_auto();
    Error err = {0};
    if (parse_arguments(argc, argv, &arguments, &err) != OK) return fail(&arguments, &err);
    if (arguments.help) {
        fputs(help, stdout);
        return 0;
    }
    leave_device(&arguments);
    file_pool_raise_limit();
    last_words_prepare();
    return arguments.check ? check(&arguments) : inspect(&arguments);
}
