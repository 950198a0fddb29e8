/* Answers by a rollout function of the user's: a program (`process:COMMAND`) or a shared object
 * (`plugin:PATH`). What it fails at by itself is tried again and then given up; what it says of a
 * record is believed. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "rollout_worker/function/plugin_function.h"
#include "rollout_worker/function/process_function.h"
#include "rollout_worker/generate/failures.h"
#include "rollout_worker/generate/maker.h"

typedef struct UserFunction {
    MakerHost host;
    cJSON *options;
    ProcessFunction *process; /* one of these ... */
    PluginFunction *plugin;   /* ... is NULL */
    Failures *failures;
    atomic_bool told_of_bias;
} UserFunction;

static void function_close(void *self)
{
    UserFunction *function = self;
    if (function == NULL) return;
    process_function_close(function->process);
    plugin_function_close(function->plugin);
    failures_destroy(function->failures);
    cJSON_Delete(function->options);
    free(function);
}

static int64_t timeout_ms(const JobConfig *config)
{
    int64_t milliseconds = (int64_t)(config->rollout.function_timeout_s * 1000);
    return milliseconds < 1 ? 1 : milliseconds;
}

static Status open_process(UserFunction *function, const FunctionHost *host, Error *err)
{
    const JobConfig *config = function->host.config;
    ProcessPoolOptions options = process_pool_defaults();
    options.processes = config->rollout.function_processes;
    options.in_flight = config->rollout.function_in_flight;
    options.timeout_ms = timeout_ms(config);
    Status status = process_pool_read_command(config->rollout.function_of, &options, err);
    if (status == OK) status = process_function_open(&options, host, &function->process, err);
    process_pool_options_clear(&options);
    return status;
}

static Status open_function(UserFunction *function, Error *err)
{
    const JobConfig *config = function->host.config;
    const char *text = config->rollout.function_options;
    if (text != NULL)
        TRY(json_parse(text, strlen(text), "rollout.function_options", &function->options, err));
    const FunctionHost host = {.model = function->host.text->model,
                               .model_path = config->model.path,
                               .template_kwargs = function->host.text->reader.template_kwargs,
                               .options = function->options};
    Status status = config->rollout.function == ROLLOUT_PROCESS
                        ? open_process(function, &host, err)
                        : plugin_function_open(config->rollout.function_of, &host,
                                               timeout_ms(config), &function->plugin, err);
    return status == OK ? OK : error_prefix(err, "rollout.function");
}

static Status function_open(const MakerHost *host, void **ret_self, Error *err)
{
    UserFunction *function = mem_calloc(1, sizeof *function);
    function->host = *host;
    function->failures =
        failures_create((FailuresOf){"the rollout function", "rollout.function"}, host->config);
    Status status = open_function(function, err);
    if (status == OK)
        *ret_self = function;
    else
        function_close(function);
    return status;
}

static Status function_watch(void *self, int64_t until_ms, Error *err)
{
    UserFunction *function = self;
    if (function->process == NULL) return OK;
    Status status = process_function_watch(function->process, until_ms, err);
    return status == OK ? OK : error_prefix(err, "rollout.function");
}

static Trouble *function_trouble(const void *self)
{
    const UserFunction *function = self;
    return failures_trouble(function->failures);
}

/* ---- a record ---- */

/* The engine as a function has it: what it ends with is not the function's doing. */
typedef struct Lender {
    UserFunction *function;
    const FunctionTask *task;
    Status lost; /* OK: it has not ended */
    Error why;
} Lender;

/* The controller has told of what the job itself says. */
static void tell_of_bias(Lender *lender, const SamplingParams *params)
{
    const FunctionTask *task = lender->task;
    if (task->evaluation || sampling_is_plain(params) || !sampling_is_plain(&task->params)) return;
    if (atomic_exchange(&lender->function->told_of_bias, true)) return;
    log_event(LOG_WARN, "sampling_biased",
              F_STR("why", "the rollout function asks for answers to train on that are not drawn "
                           "from the policy itself (filters, penalties, min_new_tokens or "
                           "temperature 0): the gradient is biased; see sampling.md"));
}

static Status lend_engine(void *context, const GenerateRequest *request, Generation *ret,
                          Error *err)
{
    Lender *lender = context;
    tell_of_bias(lender, &request->params);
    Status status =
        maker_generate(&lender->function->host, request, lender->task->wanted, ret, err);
    if (status == OK || status == ERR_INVALID || status == ERR_RESOURCE) return status;
    lender->lost = status;
    lender->why = *err;
    return status;
}

/* ret_own: a failure is the function's, not the engine's. */
static Status try_function(UserFunction *function, const FunctionTask *task, Answer *ret,
                           bool *ret_own, Error *err)
{
    Lender lender = {.function = function, .task = task};
    const FunctionEngine engine = {lend_engine, &lender};
    Status status = function->process != NULL
                        ? process_function_run(function->process, task, &engine, ret, err)
                        : plugin_function_run(function->plugin, task, &engine, ret, err);
    *ret_own = lender.lost == OK;
    if (status == OK || *ret_own) return status;
    *err = lender.why;
    return lender.lost;
}

static void reject_all(const MakerTask *task, RejectReason reason, const char *message, Answer *ret)
{
    for (int i = 0; i < task->num_samples; i++) {
        ret[i].sample.position = task->prompt->record->position;
        ret[i].sample.index = i;
        answer_reject(&ret[i], reason, message);
    }
}

/* What the function itself passes over has the record's place, as all that is. */
static void place_rejections(const MakerTask *task, Answer *ret)
{
    for (int i = 0; i < task->num_samples; i++) {
        Sample *sample = &ret[i].sample;
        if (sample->status != SAMPLE_REJECTED || sample->reject_message == NULL) continue;
        char *message = mem_printf("%s: passed over by the rollout function: %s",
                                   task->prompt->record->source, sample->reject_message);
        free(sample->reject_message);
        sample->reject_message = message;
    }
}

static void refuse_record(const MakerTask *task, const Error *why, Answer *ret)
{
    char *message = mem_printf("%s: %s\n  to do: correct the record, or drop it; "
                               "data.bad_record: skip passes over such ones",
                               task->prompt->record->source, why->message);
    reject_all(task, REJECT_BAD_RECORD, message, ret);
    free(message);
}

static void give_up(const MakerTask *task, const Error *why, Answer *ret)
{
    char *message = mem_printf("%s: given up because the rollout function failed: %s\n"
                               "  to do: see to it (rollout.function)",
                               task->prompt->record->source, why->message);
    reject_all(task, REJECT_FAILED, message, ret);
    free(message);
}

static FunctionTask function_task(const UserFunction *function, const MakerTask *task,
                                  const Wanted *wanted)
{
    const Prompt *prompt = task->prompt;
    return (FunctionTask){.record = prompt->json,
                          .messages = prompt->messages,
                          .tools = prompt->chat.tools,
                          .metadata = prompt->chat.metadata,
                          .label = prompt->label,
                          .position = prompt->record->position,
                          .num_samples = task->num_samples,
                          .evaluation = prompt->record->set != NULL,
                          .sample = task->sample,
                          .max_length = (int32_t)function->host.config->data.max_length,
                          .params = task->params,
                          .now = CHAT_TEMPLATE_TIME,
                          .rewards = task->rewards,
                          .wanted = wanted};
}

/* Tries until the function has said something, or is given up. */
static Status function_make(void *self, const MakerTask *task, Answer *ret, Error *err)
{
    UserFunction *function = self;
    const Wanted wanted = {.given_up = task->wanted->given_up,
                           .ended = task->wanted->ended,
                           .trouble = failures_trouble(function->failures)};
    const FunctionTask whole = function_task(function, task, &wanted);
    bool again = true, own = false;
    Status status = OK;
    Error why = {0};
    int attempt = 0;
    while (again) {
        status = try_function(function, &whole, ret, &own, &why);
        again = status != OK && own && failures_are_of(status);
        if (again) TRY(failures_note(function->failures, &why, ++attempt, &wanted, &again, err));
    }
    if (status == ERR_CANCELLED) TRY(trouble_check(wanted.trouble, err));
    if (status == OK || (own && status == ERR_DATA)) failures_note_success(function->failures);
    if (status != OK && own && status == ERR_DATA)
        refuse_record(task, &why, ret);
    else if (status != OK && own && failures_are_of(status))
        give_up(task, &why, ret);
    else if (status != OK)
        return error_set(err, status, "%s", why.message);
    if (status == OK) place_rejections(task, ret);
    ret[0].sample.work.retries = attempt;
    return OK;
}

const AnswerMaker make_function = {.open = function_open,
                                   .close = function_close,
                                   .watch = function_watch,
                                   .trouble = function_trouble,
                                   .make = function_make};
