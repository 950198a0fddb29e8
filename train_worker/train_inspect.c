/* train_inspect: says what a job's train workers would need of this machine. People see it as a
 * part of `controller validate`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/options.h"
#include "base/plural.h"
#include "base/str.h"
#include "job_options.h"
#include "memory_plan.h"
#include "model/weight_board.h"
#include "rank_group.h"

static const char usage[] =
    "usage: train_inspect --config JOB.YAML [--stage NAME] [--set KEY=VALUE]...\n"
    "                     [--available BYTES] [--taken BYTES [--more-reference] [--more-critic]]\n"
    "                     [--bytes | --device | --tokens | --host [--turns]] [--gpu ID]\n"
    "       prints the memory that the train workers of a job would take; takes none of it.\n"
    "       `controller validate` and the start of a run ask this: people ask them\n"
    "\n"
    "  --config JOB.YAML   the job file\n"
    "  --stage NAME        of a job with several stages; default the first\n"
    "  --set KEY=VALUE     in place of what the file says\n"
    "  --available BYTES   of this machine, or of the GPU, in place of what is free now\n"
    "  --taken BYTES       by each of its train workers, which run and have to take more: whether\n"
    "                      that fits, too\n"
    "  --gpu ID            where the job wants a GPU: this one of them; \"\": the first\n"
    "  --bytes             of all train workers, and nothing else\n"
    "  --tokens            of a micro-batch, as many as a GPU has memory for, and nothing else\n"
    "  --host              what train workers on GPUs take of the host's memory (--available is of "
    "that,\n"
    "                      then), and whether it fits; --turns: when generation has the GPUs in "
    "its "
    "turn\n"
    "  --device            only whether the job's device is there, and what several of them need "
    "to\n"
    "                      work together; prints nothing\n";

typedef struct Arguments {
    const char *config, *stage, *gpu;
    const char *set[64];
    int num_sets;
    int64_t available, taken; /* -1: as the machine has now; 0: none runs */
    int more_reference, more_critic, only_bytes, only_device, only_tokens, host, turns;
    bool help;
} Arguments;

static Status parse_bytes(const char *option, const char *text, int64_t *ret, Error *err)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < 0)
        return error_set(err, ERR_INVALID, "%s: found %s, expected a number of bytes", option,
                         text);
    *ret = value;
    return OK;
}

static Status parse_arguments(int argc, char **argv, Arguments *ret, Error *err)
{
    const struct option names[] = {
        {"available", required_argument, NULL, 'a'},
        {"taken", required_argument, NULL, 't'},
        {"more-reference", no_argument, &ret->more_reference, 1},
        {"more-critic", no_argument, &ret->more_critic, 1},
        {"bytes", no_argument, &ret->only_bytes, 1},
        {"device", no_argument, &ret->only_device, 1},
        {"tokens", no_argument, &ret->only_tokens, 1},
        {"host", no_argument, &ret->host, 1},
        {"turns", no_argument, &ret->turns, 1},
        {"gpu", required_argument, NULL, 'g'},
        {"config", required_argument, NULL, 'c'},
        {"set", required_argument, NULL, 's'},
        {"stage", required_argument, NULL, 'S'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    opterr = 0;
    ret->available = -1;
    for (int letter; (letter = getopt_long(argc, argv, ":c:s:S:h", names, NULL)) != -1;) {
        if (letter == 'c')
            ret->config = optarg;
        else if (letter == 's' && ret->num_sets < (int)(sizeof ret->set / sizeof *ret->set))
            ret->set[ret->num_sets++] = optarg;
        else if (letter == 'S')
            ret->stage = optarg;
        else if (letter == 'g')
            ret->gpu = optarg;
        else if (letter == 'a')
            TRY(parse_bytes("--available", optarg, &ret->available, err));
        else if (letter == 't')
            TRY(parse_bytes("--taken", optarg, &ret->taken, err));
        else if (letter == 0)
            continue;
        else if (letter == 'h')
            ret->help = true;
        else if (letter == 's')
            return error_set(err, ERR_INVALID, "more than %d --set options", ret->num_sets);
        else
            return option_refuse(letter, argv, names, usage, err);
    }
    if (!ret->help && (optind < argc || ret->config == NULL))
        return error_set(err, ERR_INVALID, "expected a job file and nothing else\n%s", usage);
    return OK;
}

/* What train workers compute on and in. */
typedef struct Room {
    const KernelTable *kernels; /* NULL: the CPU's, which are not loaded for this */
    char device[sizeof(DeviceInfo){0}.text];
    const DeviceMemory *memory; /* NULL: the host's */
    int64_t available;
} Room;

/* Of another device than the CPU this tells whether it is there. */
static Status find_room(const JobConfig *config, const Arguments *arguments, Room *ret, Error *err)
{
    DeviceInfo device = {.memory_free = 0};
    *ret = (Room){.available = arguments->host ? -1 : arguments->available};
    if (arguments->gpu != NULL && arguments->gpu[0] != '\0')
        setenv("CUDA_VISIBLE_DEVICES", arguments->gpu, 1);
    if (job_device(config) != DEVICE_CPU &&
        (job_open_device(config, &ret->kernels, &device, err) != OK ||
         rank_group_check(config, err) != OK))
        return job_config_locate(config, err);
    memcpy(ret->device, device.text, sizeof ret->device);
    ret->memory = device.memory;
    if (ret->available < 0)
        ret->available = ret->kernels != NULL ? device.memory_free : memory_available();
    return OK;
}

/* Of a network of one train worker. */
typedef struct WorkerPlan {
    int64_t bytes, kept; /* kept: while it rests, in the host's memory */
    char *text;          /* owned; NULL: there is no such network */
} WorkerPlan;

/* A critic beside what is taken. */
static Status plan_critic(const JobConfig *config, const Room *room, int64_t taken, WorkerPlan *ret,
                          Error *err)
{
    TrainerOptions options = {0};
    TRY(job_critic_options(config, room->available, taken, &options, err));
    options.kernels = room->kernels;
    Status status = trainer_plan(&options, (int)config->train.tp_size, &ret->bytes, &ret->kept,
                                 &ret->text, err);
    return status == OK ? OK : error_prefix(err, "the critic");
}

/* What train workers that run have to take beside what they have. */
static Status check_running(const JobConfig *config, const Arguments *arguments, const Room *room,
                            Error *err)
{
    static const char way[] =
        "Lower what the new stage asks for; or stop the run, write train.%s: true into its job "
        "file, give the same command again, and swap then: it plans for it from the start.";
    int64_t share = job_memory_share(config, room->available), taken = arguments->taken;
    TrainerOptions options = {0};
    WorkerPlan critic = {0};
    if (share == 0) return OK; /* no limit is known */
    TRY(job_trainer_options(config, room->available, &options, err));
    options.kernels = room->kernels;
    int64_t more = trainer_reference_bytes(&options, (int)config->train.tp_size);
    if (arguments->more_reference) taken += more;
    if (arguments->more_reference && taken > share) {
        error_set(err, ERR_RESOURCE,
                  "the train workers that run have %.2f GiB each and may use %.2f GiB; a reference "
                  "model would take %.2f GiB more.",
                  (double)arguments->taken / 0x1p30, (double)share / 0x1p30, (double)more / 0x1p30);
        return error_append(err, way, "memory_reference");
    }
    if (!arguments->more_critic) return OK;
    Status status = plan_critic(config, room, taken, &critic, err);
    free(critic.text);
    return status == OK ? OK : error_append(err, way, "memory_critic");
}

/* Of one train worker, as it would plan. */
static Status plan_worker(const JobConfig *config, const Room *room, WorkerPlan *ret,
                          WorkerPlan *ret_critic, Error *err)
{
    TrainerOptions options = {0};
    WorkerPlan policy = {0};
    *ret_critic = (WorkerPlan){0};
    TRY(job_trainer_options(config, room->available, &options, err));
    options.kernels = room->kernels;
    TRY(trainer_plan(&options, (int)config->train.tp_size, &policy.bytes, &policy.kept,
                     &policy.text, err));
    Status status = OK;
    if (job_has_room_for_critic(config))
        status = plan_critic(config, room, policy.bytes, ret_critic, err);
    if (status == OK)
        *ret = policy;
    else
        free(policy.text);
    return status;
}

/* What a GPU that shares no memory shows for generation lies in the host's; "" where it does. */
static int64_t shown_by_host(const JobConfig *config, const Room *room, char *why, size_t size,
                             Error *err)
{
    ModelConfig model;
    why[0] = '\0';
    int slots = job_shown_weights(config);
    bool shares = room->memory != NULL && room->memory->can_share(why, size);
    if (shares || slots == 0 || model_config_read(config->model.config, &model, err) != OK)
        return 0;
    WeightPlan *plan = weight_plan_create(&model, 0, (int)config->train.tp_size);
    int64_t bytes = weight_board_bytes(plan, job_dtype(config), slots);
    weight_plan_destroy(plan);
    return bytes;
}

/* All train workers are on this machine. The GPUs' own memory is another matter. */
static Status inspect_host(const JobConfig *config, const Arguments *arguments, const Room *room,
                           Error *err)
{
    WorkerPlan policy = {0}, critic = {0};
    char why[256] = "";
    int64_t ranks = config->train.tp_size * config->train.dp_size;
    if (room->kernels == NULL) return OK;
    TRY(plan_worker(config, room, &policy, &critic, err));
    free(policy.text);
    free(critic.text);
    int64_t kept = arguments->turns ? (policy.kept + critic.kept) * ranks : 0;
    int64_t shown = ranks * shown_by_host(config, room, why, sizeof why, err);
    int64_t available = arguments->available >= 0 ? arguments->available : memory_available();
    if (kept + shown == 0) return OK;
    Str text = {0};
    if (kept > 0)
        str_printf(&text, "%.2f GiB, pinned, while generation has the GPUs (rollout.offload)",
                   (double)kept / 0x1p30);
    if (shown > 0)
        str_printf(&text, "%s%.2f GiB of weights for generation, which the GPU cannot share (%s)",
                   kept > 0 ? ", and " : "", (double)shown / 0x1p30, why);
    Status status = OK;
    if (available > 0 && kept + shown > available / 10 * 9)
        status = error_set(err, ERR_RESOURCE,
                           "train workers keep %s in the host's memory, of which %.2f GiB are free "
                           "and a tenth is kept.\nWrite rollout.offload: false or colocate: false, "
                           "lower train.dp_size, or use a machine with more memory.",
                           str_text(&text), (double)available / 0x1p30);
    else
        printf("memory of the host: %.2f GiB available, of which train workers keep %s\n",
               (double)available / 0x1p30, str_text(&text));
    str_free(&text);
    return status;
}

/* More than these gain nothing: products fill a GPU with fewer. */
#define TOKENS_MOST 32768

/* No more than a rank has in a step, either. Nothing where not even the job's own tokens fit:
 * whoever plans for these tells that. */
static Status inspect_tokens(const JobConfig *config, const Room *room, Error *err)
{
    TrainerOptions options = {0};
    WorkerPlan policy = {0}, critic = {0};
    TRY(job_trainer_options(config, room->available, &options, err));
    Status status = plan_worker(config, room, &policy, &critic, err);
    free(policy.text);
    free(critic.text);
    if (status != OK) return status == ERR_RESOURCE ? OK : status;
    options.kernels = room->kernels;
    int64_t samples = config->train.global_batch_size / config->train.dp_size;
    int64_t step = samples * config->data.max_length, most = options.max_tokens;
    while (most < step && 2 * most <= TOKENS_MOST)
        most *= 2;
    printf("max_tokens_per_gpu %lld\n",
           (long long)trainer_plan_tokens(&options, (int)config->train.tp_size, most));
    return OK;
}

static Status inspect(const JobConfig *config, const Arguments *arguments, Error *err)
{
    long long ranks = config->train.tp_size * config->train.dp_size;
    WorkerPlan policy = {0}, critic = {0};
    Room room;
    TRY(find_room(config, arguments, &room, err));
    if (arguments->only_device) return OK;
    if (arguments->taken == 0) TRY(job_check_memory(config, room.available, err));
    if (arguments->only_tokens) return inspect_tokens(config, &room, err);
    if (arguments->host) return inspect_host(config, arguments, &room, err);
    if (!arguments->only_bytes && room.kernels != NULL) printf("device: %s\n", room.device);
    TRY(plan_worker(config, &room, &policy, &critic, err));
    int64_t bytes = policy.bytes + critic.bytes;
    if (!arguments->only_bytes) printf("memory of a train worker: %s\n", policy.text);
    if (!arguments->only_bytes && critic.text != NULL)
        printf("memory of its critic: %s\n", critic.text);
    free(policy.text);
    free(critic.text);
    if (arguments->taken > 0) TRY(check_running(config, arguments, &room, err));
    if (arguments->only_bytes)
        printf("%lld\n", (long long)bytes * ranks);
    else if (ranks > 1 && room.kernels != NULL)
        printf("memory of this GPU: %.2f GiB available, %lld train workers take %.2f GiB each, of "
               "a GPU of their own\n",
               (double)room.available / 0x1p30, ranks, (double)bytes / 0x1p30);
    else
        printf("memory of this %s: %.2f GiB available, %lld train worker%s take%s %.2f GiB\n",
               room.kernels != NULL ? "GPU" : "machine", (double)room.available / 0x1p30, ranks,
               plural(ranks), ranks == 1 ? "s" : "", (double)(bytes * ranks) / 0x1p30);
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
    if (status == OK) status = inspect(config, &arguments, &err);
    job_config_destroy(config);
    if (status != OK) fprintf(stderr, "controller: %s\n", err.message);
    return status_exit_code(status);
}
