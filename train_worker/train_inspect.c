/* train_inspect: says what a job's train workers would need of this machine. People see it as a
 * part of `controller validate`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/options.h"
#include "job_options.h"
#include "memory_plan.h"

static const char usage[] =
    "usage: train_inspect --config JOB.YAML [--stage NAME] [--set KEY=VALUE]...\n"
    "       prints the memory that the train workers of a job would take; takes none of it\n";

typedef struct Arguments {
    const char *config, *stage;
    const char *set[64];
    int num_sets;
    bool help;
} Arguments;

static Status parse_arguments(int argc, char **argv, Arguments *ret, Error *err)
{
    static const struct option names[] = {
        {"config", required_argument, NULL, 'c'},
        {"set", required_argument, NULL, 's'},
        {"stage", required_argument, NULL, 'S'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, ":c:s:S:h", names, NULL)) != -1;) {
        if (letter == 'c')
            ret->config = optarg;
        else if (letter == 's' && ret->num_sets < (int)(sizeof ret->set / sizeof *ret->set))
            ret->set[ret->num_sets++] = optarg;
        else if (letter == 'S')
            ret->stage = optarg;
        else if (letter == 'h')
            ret->help = true;
        else if (letter == 's')
            return error_set(err, ERR_INVALID, "more than %d --set options", ret->num_sets);
        else
            return option_refuse(letter, argv, names, err);
    }
    if (!ret->help && (optind < argc || ret->config == NULL))
        return error_set(err, ERR_INVALID, "expected a job file and nothing else\n%s", usage);
    return OK;
}

static Status inspect(const JobConfig *config, Error *err)
{
    int tp_size = (int)config->train.tp_size;
    long long ranks = config->train.tp_size * config->train.dp_size;
    TrainerOptions options = {0};
    char *plan = NULL;
    int64_t bytes = 0, available = memory_available();
    TRY(job_trainer_options(config, available, &options, err));
    TRY(trainer_plan(&options, tp_size, &bytes, &plan, err));
    printf("memory of a train worker: %s\n", plan);
    if (job_wants_critic(config)) {
        int64_t critic = 0;
        free(plan);
        options.model.value_head = true;
        options.with_reference = false;
        TRY(trainer_plan(&options, tp_size, &critic, &plan, err));
        printf("memory of its critic: %s\n", plan);
        bytes += critic;
    }
    printf("memory of this machine: %.2f GiB available, %lld train worker%s take%s %.2f GiB\n",
           (double)available / 0x1p30, ranks, ranks == 1 ? "" : "s", ranks == 1 ? "s" : "",
           (double)(bytes * ranks) / 0x1p30);
    free(plan);
    return OK;
}

int main(int argc, char **argv)
{
    Arguments arguments = {0};
    Error err = {0};
    JobConfig *config = NULL;
    Status status = parse_arguments(argc, argv, &arguments, &err);
    if (status == OK && arguments.help) {
        fputs(usage, stdout);
        return 0;
    }
    if (status == OK)
        status = job_config_load(arguments.config, arguments.stage, arguments.set,
                                 arguments.num_sets, &config, &err);
    if (status == OK) status = inspect(config, &err);
    job_config_destroy(config);
    if (status != OK) fprintf(stderr, "controller: %s\n", err.message);
    return status_exit_code(status);
}
