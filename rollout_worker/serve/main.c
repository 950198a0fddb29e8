/* serve: answers HTTP requests with one model. People call it as `controller serve`. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/process.h"
#include "config/job.h"
#include "model/kv_cache.h"
#include "rollout_worker/engine/model_folder.h"
#include "rollout_worker/engine/runner.h"
#include "rollout_worker/serve/serve.h"
#include "rollout_worker/serve/thread_generator.h"
#include "tensor/device.h"

static const char help[] =
    "usage: controller serve --model DIR [--port N] [--host ADDRESS --token-file F] [options]\n"
    "       answers OpenAI's /v1/chat/completions, /v1/completions and /v1/models and SGLang's\n"
    "       /generate with the model of a Hugging Face folder, such as a run's checkpoint\n"
    "\n"
    "options:\n"
    "  -m, --model DIR         the folder: config.json, safetensors, tokenizer, chat template\n"
    "                          or a run's folder, for its newest checkpoint\n"
    "  -p, --port N            default 8000; 0: any that is free\n"
    "      --host ADDRESS      default 127.0.0.1: this machine alone; any other wants a token\n"
    "      --token-file F      clients must give the first line of F (Authorization: Bearer)\n"
    "      --name NAME         by which clients ask for the model; default: the folder's name\n"
    "      --device KIND       cpu (the default) or cuda: the first GPU in CUDA_VISIBLE_DEVICES\n"
    "      --threads N         that compute; default: the CPUs of this machine\n"
    "      --dtype TYPE        f32 or bf16; default: f32 if the folder's weights are, else bf16\n"
    "      --max-length N      tokens of a prompt with its answer; default 8192, or less where\n"
    "                          the model takes less\n"
    "      --max-samples N     generated at a time; default 64; others wait\n"
    "      --kv-memory MIB     for keys and values; default: what these samples could take, up\n"
    "                          to half of what is free\n"
    "      --enforce-eager     on a GPU: no CUDA graphs, every kernel is launched by itself\n"
    "      --drain-seconds N   after Ctrl-C, for requests in work; default 30\n"
    "\n"
    "Ctrl-C or SIGTERM: finishes what is in work, takes no more, ends. Again: ends at once.\n"
    "\n"
    "Exit codes: 0 ended as asked, 2 usage or no model folder, 3 a file in it is malformed,\n"
    "4 memory, port in use.\n";

#define MAX_LENGTH_DEFAULT 8192
#define STEP_TOKENS        512
#define WAITING_MAX        4096

typedef struct Arguments {
    const char *model, *host, *token_file, *name;
    long long port, threads, max_length, max_samples, kv_mib, drain_seconds;
    DeviceKind device;
    DType dtype;
    bool has_dtype, enforce_eager, help;
} Arguments;

/* ---- arguments ---- */

static Status read_number(const char *option, const char *text, long long min, long long max,
                          long long *ret, Error *err)
{
    char *end = NULL;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < min || number > max)
        return error_set(err, ERR_INVALID,
                         "--%s is \"%.40s\", expected a whole number from %lld to %lld", option,
                         text, min, max);
    *ret = number;
    return OK;
}

static Status read_dtype(Arguments *arguments, const char *text, Error *err)
{
    arguments->has_dtype = true;
    if (strcmp(text, "f32") == 0 || strcmp(text, "float32") == 0)
        arguments->dtype = DTYPE_F32;
    else if (strcmp(text, "bf16") == 0 || strcmp(text, "bfloat16") == 0)
        arguments->dtype = DTYPE_BF16;
    else
        return error_set(err, ERR_INVALID, "--dtype is \"%.40s\", expected f32 or bf16", text);
    return OK;
}

static Status read_device(Arguments *arguments, const char *text, Error *err)
{
    for (DeviceKind kind = DEVICE_CPU; kind <= DEVICE_CUDA; kind++) {
        if (strcmp(text, device_kind_name(kind)) != 0) continue;
        arguments->device = kind;
        return OK;
    }
    return error_set(err, ERR_INVALID, "--device is \"%.40s\", expected cpu or cuda", text);
}

static Status take_option(Arguments *a, int letter, Error *err)
{
    switch (letter) {
    case 'm':
        a->model = optarg;
        return OK;
    case 'H':
        a->host = optarg;
        return OK;
    case 'T':
        a->token_file = optarg;
        return OK;
    case 'N':
        a->name = optarg;
        return OK;
    case 'd':
        return read_dtype(a, optarg, err);
    case 'g':
        return read_device(a, optarg, err);
    case 'p':
        return read_number("port", optarg, 0, 65535, &a->port, err);
    case 't':
        return read_number("threads", optarg, 1, 1024, &a->threads, err);
    case 'l':
        return read_number("max-length", optarg, 2, INT32_MAX, &a->max_length, err);
    case 's':
        return read_number("max-samples", optarg, 1, 4096, &a->max_samples, err);
    case 'k':
        return read_number("kv-memory", optarg, 1, 1 << 24, &a->kv_mib, err);
    case 'E':
        a->enforce_eager = true;
        return OK;
    case 'D':
        return read_number("drain-seconds", optarg, 0, 86400, &a->drain_seconds, err);
    default:
        a->help = true;
        return OK;
    }
}

static Status parse_arguments(int argc, char **argv, Arguments *ret, Error *err)
{
    static const struct option names[] = {
        {"model", required_argument, NULL, 'm'},
        {"port", required_argument, NULL, 'p'},
        {"host", required_argument, NULL, 'H'},
        {"token-file", required_argument, NULL, 'T'},
        {"name", required_argument, NULL, 'N'},
        {"threads", required_argument, NULL, 't'},
        {"device", required_argument, NULL, 'g'},
        {"dtype", required_argument, NULL, 'd'},
        {"max-length", required_argument, NULL, 'l'},
        {"max-samples", required_argument, NULL, 's'},
        {"kv-memory", required_argument, NULL, 'k'},
        {"enforce-eager", no_argument, NULL, 'E'},
        {"drain-seconds", required_argument, NULL, 'D'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, ":m:p:h", names, NULL)) != -1;) {
        if (letter == '?' || letter == ':') return option_refuse(letter, argv, names, help, err);
        TRY(take_option(ret, letter, err));
    }
    if (ret->help) return OK;
    if (optind < argc) return option_misuse(help, err, "there is an argument too many.");
    if (ret->model == NULL) return option_misuse(help, err, "--model DIR is missing.");
    return OK;
}

/* ---- the engine ---- */

typedef struct Device {
    const KernelTable *kernels;
    DeviceInfo info;
} Device;

/* As a job's rollout workers: a tenth of a GPU is for what no plan counts. 0: not known. */
static int64_t may_take(const Device *device)
{
    int64_t available = device->info.memory_free;
    return device->kernels->host_memory ? available : available - available / 10;
}

static Status refuse_room(const Arguments *a, const Device *device, const EngineMemory *memory,
                          Error *err)
{
    bool is_host = device->kernels->host_memory;
    int64_t most = (may_take(device) - memory->total + memory->pages) >> 20;
    char *text = engine_memory_plan_text(memory);
    char *cause = a->kv_mib > 0 ? mem_printf("--kv-memory: keys and values of %lld MiB make it",
                                             (long long)a->kv_mib)
                                : mem_strdup("serving takes");
    char *advice = a->kv_mib > 0 && most > 0
                       ? mem_printf("--kv-memory %lld or less, or ", (long long)most)
                       : mem_strdup("");
    Status status =
        error_set(err, ERR_RESOURCE,
                  "%s %.2f GiB, but %s %.2f GiB %s (%s).\n"
                  "Give %sa smaller --max-length or --max-samples.",
                  cause, (double)memory->total / 0x1p30, is_host ? "only" : "of",
                  (double)device->info.memory_free / 0x1p30,
                  is_host ? "are free" : "that are free on the GPU a tenth is kept", text, advice);
    free(advice);
    free(cause);
    free(text);
    return status;
}

/* `shape`: the weights, of which none is read yet. `memory_free`: beside them. */
static Status plan_engine(const Arguments *a, const ModelFolder *folder, const Weights *shape,
                          int64_t memory_free, EngineOptions *ret, Error *err)
{
    int64_t positions = folder->config.max_position_embeddings;
    int64_t length = a->max_length > 0                ? a->max_length
                     : positions < MAX_LENGTH_DEFAULT ? positions
                                                      : MAX_LENGTH_DEFAULT;
    int64_t page = kv_cache_page_bytes(folder->plan, shape->dtype, shape->kernels);
    int64_t one = (length + KV_PAGE - 1) / KV_PAGE * page, kv = one * a->max_samples;
    int64_t half = memory_free / 2;
    if (half > 0 && kv > half) kv = half;
    if (a->kv_mib > 0) kv = a->kv_mib << 20;
    *ret = (EngineOptions){
        .weights = shape,
        .max_length = (int32_t)length,
        .max_samples = (int)a->max_samples,
        .max_step_tokens = a->max_samples > STEP_TOKENS ? (int)a->max_samples : STEP_TOKENS,
        .kv_bytes = kv,
        .kv_purpose = "keys and values: give a smaller --kv-memory, --max-samples or --max-length",
        .enforce_eager = a->enforce_eager,
        .tokenizer = text_model_tokenizer(folder->text),
        .end_token = folder->ends.id,
        .num_end_tokens = folder->ends.count,
    };
    if (a->kv_mib == 0 && kv < one)
        return error_set(err, ERR_RESOURCE,
                         "keys and values of one sequence of %lld tokens take %.2f GiB, but only "
                         "%.2f GiB are free.\nGive a smaller --max-length.",
                         (long long)length, (double)one / 0x1p30, (double)(2 * half) / 0x1p30);
    return OK;
}

/* On a CPU weights twice: as they are, and packed. *ret_left: what is free beside them. */
static Status check_memory(const ModelFolder *folder, const Device *device, DType dtype,
                           int64_t *ret_left, Error *err)
{
    bool packs = device->kernels->host_memory;
    int64_t bytes = (packs ? 2 : 1) * folder->plan->size * (int64_t)dtype_size(dtype);
    int64_t available = may_take(device);
    *ret_left = available > bytes ? available - bytes : 0;
    if (available == 0 || bytes <= available) return OK;
    return error_set(
        err, ERR_RESOURCE, "the weights take %.2f GiB in %s%s, but only %.2f GiB are free%s",
        (double)bytes / 0x1p30, dtype_name(dtype),
        packs ? ", packed for matrix products included" : "", (double)available / 0x1p30,
        packs ? "" : " on the GPU beside a tenth that is kept");
}

/* All that serving will take, beside what is there: said before the weights are read. */
static Status plan_memory(const Arguments *a, const ModelFolder *folder, const Device *device,
                          DType dtype, EngineOptions *ret, Error *err)
{
    int64_t left = 0;
    Weights shape = {.kernels = device->kernels, .plan = folder->plan, .dtype = dtype};
    EngineMemory memory;
    TRY(check_memory(folder, device, dtype, &left, err));
    TRY(plan_engine(a, folder, &shape, left, ret, err));
    TRY(engine_memory_plan_make(ret, &memory, err));
    ret->weights = NULL; /* those that will be read */
    if (device->info.memory_free == 0 || memory.total <= may_take(device)) return OK;
    return refuse_room(a, device, &memory, err);
}

/* The engine's thread, with the folder's weights. */
static Status start_engine(const EngineOptions *engine, EngineThread **ret, Error *err)
{
    EngineThreadOptions options = {.engine = *engine, .tp_size = 1};
    EngineThread *thread = NULL;
    TRY(engine_thread_create(&options, &thread, err));
    const Weights *weights[] = {engine->weights};
    Status status = engine_thread_adopt(thread, weights, 0, NULL, err);
    if (status == OK)
        *ret = thread;
    else
        engine_thread_destroy(thread);
    return status;
}

static Status print_memory(void *context, Engine *engine, Error *err)
{
    (void)context, (void)err;
    printf("memory: %s\n", engine_memory_plan(engine));
    return OK;
}

/* ---- serving ---- */

static void block_signals(sigset_t *ret)
{
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(ret);
    sigaddset(ret, SIGINT);
    sigaddset(ret, SIGTERM);
    /* Under nohup it outlives its terminal. */
    if (signal(SIGHUP, SIG_DFL) == SIG_IGN)
        signal(SIGHUP, SIG_IGN);
    else
        sigaddset(ret, SIGHUP);
    /* In the main thread before there are others, which inherit it. */
    sigprocmask(SIG_BLOCK, ret, NULL);
}

static void drain(Server *server, const sigset_t *signals, int64_t seconds)
{
    int64_t deadline = clock_ms() + seconds * 1000;
    struct timespec moment = {.tv_nsec = 50000000};
    serve_drain(server);
    if (serve_calls(server) > 0) {
        printf("ending: %d requests in work; at most %lld s more, Ctrl-C: at once\n",
               serve_calls(server), (long long)seconds);
        fflush(stdout);
    }
    while (serve_calls(server) > 0 && clock_ms() < deadline)
        if (sigtimedwait(signals, NULL, &moment) > 0) return;
}

static Status serve(const Arguments *a, const EngineOptions *engine, const ModelFolder *folder,
                    const sigset_t *signals, Error *err)
{
    EngineThread *thread = NULL;
    ThreadGenerator *generator = NULL;
    Server *server = NULL;
    char *token = NULL;
    char real[PATH_MAX];
    int number = 0;
    const ToolFormat *tool_format = NULL; /* none that is known: calls stay in the text */
    if (tool_format_detect(folder->text, &tool_format, NULL) != OK) tool_format = NULL;
    const char *path = realpath(a->model, real) != NULL ? real : a->model;
    Status status = OK;
    if (a->token_file != NULL) status = serve_token_read(a->token_file, &token, err);
    if (status == OK) status = start_engine(engine, &thread, err);
    if (status != OK) goto done;
    generator = thread_generator_create(thread, WAITING_MAX);
    ServeOptions options = {
        .generator = thread_generator_front(generator),
        .model = {a->name != NULL ? a->name : path_name(path), folder->text, tool_format,
                  folder->config.vocab_size, engine->max_length, (int64_t)time(NULL)},
        .host = a->host,
        .port = (int)a->port,
        .token = token,
    };
    status = serve_start(&options, &server, err);
    if (status != OK) goto done;
    engine_thread_run(thread, print_memory, NULL, NULL);
    printf("serving %s at %s/v1%s\n", options.model.name, serve_url(server),
           token != NULL ? ", with the token" : "");
    fflush(stdout);
    while (sigwait(signals, &number) != 0)
        continue;
    drain(server, signals, a->drain_seconds);
done:
    serve_stop(server);
    engine_thread_destroy(thread);
    thread_generator_destroy(generator);
    free(token);
    return status;
}

static Status run(const Arguments *a, Error *err)
{
    ModelFolder folder = {0};
    EngineOptions engine = {0};
    sigset_t signals;
    block_signals(&signals);
    Device device;
    DeviceOptions wanted = {.num_threads = (int)a->threads};
    TRY(device_open(a->device, &wanted, &device.kernels, &device.info, err));
    Status status = model_folder_open(a->model, &folder, err);
    if (status == ERR_NOT_FOUND)
        error_append(err, "Expected a Hugging Face model folder, or the folder of a run that has a "
                          "checkpoint.");
    if (status != OK) return status;
    DType dtype = a->has_dtype ? a->dtype : folder.stored == DTYPE_F32 ? DTYPE_F32 : DTYPE_BF16;
    printf("model: %s, %lld parameters, computed in %s on %s\n", a->model,
           (long long)model_config_parameters(&folder.config), dtype_name(dtype), device.info.text);
    if (dtype == DTYPE_BF16 && device.info.note != NULL) printf("note: %s\n", device.info.note);
    if (folder.ends.count == 0)
        printf("note: the folder names no end token: answers end at their length or a stop\n");
    fflush(stdout);
    status = plan_memory(a, &folder, &device, dtype, &engine, err);
    if (status == OK) status = model_folder_load(&folder, a->model, dtype, device.kernels, err);
    engine.weights = folder.weights;
    bool asked = sigtimedwait(&signals, NULL, &(struct timespec){0}) > 0; /* while it was loaded */
    if (status == OK && !asked) status = serve(a, &engine, &folder, &signals, err);
    model_folder_close(&folder);
    return status;
}

int main(int argc, char **argv)
{
    if (process_let_threads_sleep()) execv("/proc/self/exe", argv);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    Arguments arguments = {
        .port = 8000,
        .threads = cpus > 0 ? cpus : 1,
        .max_samples = 64,
        .drain_seconds = 30,
    };
    Error err = {0};
    Status status = parse_arguments(argc, argv, &arguments, &err);
    if (status == OK && arguments.help) {
        fputs(help, stdout);
        return 0;
    }
    if (status == OK) status = log_open("serve", NULL, LOG_INFO, &err);
    char *checkpoint = status == OK ? model_path_checkpoint(arguments.model) : NULL;
    if (checkpoint != NULL) arguments.model = checkpoint;
    if (status == OK) {
        process_raise_file_limit();
        status = run(&arguments, &err);
    }
    free(checkpoint);
    if (status != OK) fprintf(stderr, "controller: serve: %s\n", err.message);
    return status_exit_code(status);
}
