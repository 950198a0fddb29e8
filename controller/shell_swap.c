/* A stage that people ask for while the run goes on (controller swap-rollout). What takes long is
 * done on a thread of libuv's pool: the files, tokenizer and template of the new job, and the
 * memory that its workers would take, which train_inspect and data_inspect know. Only what passes
 * is fed to the core and written down. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor/actor.h"
#include "actor/typed.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "cluster.pb-c.h"
#include "look.h"
#include "shell.h"
#include "validate.h"

struct SwapWork {
    uv_work_t work;
    Shell *shell;
    Call *call;
    JobConfig *config;
    char *summary; /* of what was found, as validate says it */
    char *asked;   /* path of the new stage's job, for train_inspect */
    RankMemory memory;
    bool more_reference, more_critic; /* that the train workers have not planned for */
    Status status;
    Error error;
    bool kept;  /* the configuration is the stages' */
    bool taken; /* by the core */
    int64_t last_step;
};

/* ---- on another thread ---- */

/* What it says, to its end, as far as it goes into `text`. */
static void read_words(int from, char *text, size_t size)
{
    char rest[512];
    size_t used = 0;
    for (;;) {
        bool full = used + 1 >= size;
        ssize_t count = read(from, full ? rest : text + used, full ? sizeof rest : size - 1 - used);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) break;
        if (!full) used += (size_t)count;
    }
    text[used] = '\0';
}

/* What a program said, and its exit code. */
typedef struct Words {
    char text[ERROR_MESSAGE_MAX];
    int code;
} Words;

/* Runs a program and waits for its end. */
static Status run_program(const char *name, char **arguments, Words *ret, Error *err)
{
    int ends[2], wait_status = 0;
    pid_t pid = 0;
    posix_spawn_file_actions_t actions;
    if (pipe2(ends, O_CLOEXEC) != 0) return error_set_errno(err, errno, "could not make a pipe");
    char *program = program_path(name);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    int failed = posix_spawn(&pid, program, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failed == 0) read_words(ends[0], ret->text, sizeof ret->text);
    close(ends[0]);
    while (failed == 0 && waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        continue;
    Status status = failed == 0 ? OK : error_set_errno(err, failed, "could not start %s", program);
    ret->code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
    free(program);
    return status;
}

/* What a program found wrong, in its own words. */
static Status take_words(const Words *words, Error *err)
{
    static const char says[] = "controller: ";
    if (words->code == 0) return OK;
    const char *message = words->text;
    if (strncmp(message, says, strlen(says)) == 0) message += strlen(says);
    size_t length = strlen(message);
    if (length > 0 && message[length - 1] == '\n') length--;
    return error_set(err,
                     words->code == status_exit_code(ERR_RESOURCE) ? ERR_RESOURCE : ERR_INVALID,
                     "%.*s", (int)length, message);
}

/* Whether the new stage's train workers would fit: those that run with what they have to take
 * beside, and those of a restart, which plan anew. *ret says how many bytes these take. */
static Status check_train_workers(const SwapWork *swap, char *available, Words *ret, Error *err)
{
    char taken[32], *argument[12];
    int count = 0;
    snprintf(taken, sizeof taken, "%lld", (long long)swap->memory.taken);
    argument[count++] = "train_inspect";
    argument[count++] = "--config";
    argument[count++] = swap->asked;
    argument[count++] = "--available";
    argument[count++] = available;
    argument[count++] = "--taken";
    argument[count++] = taken;
    argument[count++] = "--bytes";
    if (swap->more_reference) argument[count++] = "--more-reference";
    if (swap->more_critic) argument[count++] = "--more-critic";
    argument[count] = NULL;
    TRY(run_program("train_inspect", argument, ret, err));
    if (ret->code == 0) ret->text[strcspn(ret->text, "\n")] = '\0';
    return take_words(ret, err);
}

/* Beside them, its rollout workers; of what was free before the run took any: those that leave give
 * back what they have. */
static Status check_rollout_workers(SwapWork *swap, char *available, char *trained, Error *err)
{
    Words words;
    long long mb = 0;
    char *ask[] = {"data_inspect",   "--config",    swap->asked,
                   "--check=memory", "--available", available,
                   "--trained",      trained,       NULL};
    if (swap->config->rollout.function == ROLLOUT_SFT) return OK;
    TRY(run_program("data_inspect", ask, &words, err));
    TRY(take_words(&words, err));
    const char *decided = strstr(words.text, "kv_cache_mb "); /* beside what else was said */
    if (decided != NULL && sscanf(decided, "kv_cache_mb %lld", &mb) == 1)
        job_config_decide_kv_cache(swap->config, mb);
    return OK;
}

static Status check_memory(SwapWork *swap, Error *err)
{
    Words trained;
    char available[32];
    snprintf(available, sizeof available, "%lld", (long long)swap->memory.available);
    char *text = job_config_text(swap->config);
    Status status = file_write_atomic(swap->asked, text, strlen(text), err);
    free(text);
    if (status == OK) status = check_train_workers(swap, available, &trained, err);
    if (status == OK) status = check_rollout_workers(swap, available, trained.text, err);
    unlink(swap->asked);
    return status;
}

static void look(uv_work_t *work)
{
    SwapWork *swap = work->data;
    swap->status = validate_job(swap->config, &swap->summary, &swap->error);
    if (swap->status == OK && swap->memory.taken > 0)
        swap->status = check_memory(swap, &swap->error);
}

/* ---- on the loop ---- */

/* What is odd about the new job; here, as the log draws on the loop's terminal. */
static void say_warnings(const SwapWork *swap)
{
    static const char mark[] = "warning: ";
    for (const char *line = swap->summary; line != NULL && *line != '\0';) {
        size_t length = strcspn(line, "\n");
        if (strncmp(line, mark, strlen(mark)) == 0) {
            char *what = mem_strndup(line + strlen(mark), length - strlen(mark));
            log_event(LOG_WARN, "text_odd", F_STR("why", what));
            free(what);
        }
        line += length + (line[length] == '\n');
    }
}

static void answer(SwapWork *swap)
{
    Troupe__SwapReply reply = TROUPE__SWAP_REPLY__INIT;
    if (swap->status != OK) {
        call_fail(swap->call, &swap->error);
        return;
    }
    reply.stage = (char *)swap->config->stage;
    reply.after_step = (uint64_t)swap->last_step;
    call_reply_message(swap->call, &reply.base);
}

/* Whoever asked may have given up meanwhile, and would not expect it any more. */
static void take(SwapWork *swap)
{
    Shell *shell = swap->shell;
    JobConfig *config = swap->config;
    if (clock_ms() > call_deadline_ms(swap->call)) {
        swap->status = error_set(&swap->error, ERR_TIMEOUT, "looking at the new job took too long");
        return;
    }
    run_stages_keep(&shell->stages, config);
    swap->kept = true;
    shell_feed(shell, &(Event){.kind = EV_SWAP, .swap.config = config});
    if (!swap->taken)
        swap->status =
            error_set(&swap->error, ERR_UNAVAILABLE, "the run is ending: there is nothing to swap");
    else if (swap->error.status != OK)
        swap->status = error_append(&swap->error, "The run goes on with the new stage, but a "
                                                  "restart of it would not know of that.");
}

static void looked(uv_work_t *work, int cancelled)
{
    SwapWork *swap = work->data;
    Shell *shell = swap->shell;
    if (cancelled != 0 || shell->swap_over)
        swap->status = error_set(&swap->error, ERR_UNAVAILABLE, "the run has ended");
    else if (swap->status == OK)
        take(swap);
    say_warnings(swap);
    answer(swap);
    if (!swap->kept) job_config_destroy(swap->config);
    shell->swap = NULL;
    free(swap->asked);
    free(swap->summary);
    free(swap);
}

void shell_swapped(Shell *shell, const Effect *fx)
{
    SwapWork *swap = shell->swap;
    CHECK(swap != NULL);
    swap->taken = true;
    swap->last_step = fx->swapped.last_step;
    if (swap->config->kv_cache_decided)
        log_event(LOG_INFO, "kv_cache", F_INT("mb", swap->config->rollout.kv_cache_mb),
                  F_STR("why", KV_CACHE_DECIDED));
    run_stages_record(&shell->stages, swap->config, fx->swapped.stage, fx->swapped.last_step,
                      &swap->error);
    log_event(LOG_INFO, "swap", F_STR("stage", swap->config->stage),
              F_INT("after_step", fx->swapped.last_step));
}

static Status prepare(Shell *shell, Call *call, JobConfig **ret, Error *err)
{
    Bytes body = call_body(call);
    if (shell->swap != NULL)
        return error_set(err, ERR_EXISTS, "another job is being looked at for a swap");
    Troupe__SwapRequest *request = troupe__swap_request__unpack(NULL, body.length, body.data);
    if (request == NULL) return error_set(err, ERR_INVALID, "the request is unreadable");
    Status status = run_stages_prepare(shell->config, request->job_yaml, ret, err);
    troupe__swap_request__free_unpacked(request, NULL);
    return status;
}

void shell_on_swap(void *self, Call *call)
{
    Shell *shell = self;
    const JobConfig *now = shell->config;
    JobConfig *config = NULL;
    Error err = {0};
    if (prepare(shell, call, &config, &err) != OK) {
        call_fail(call, &err);
        return;
    }
    SwapWork *swap = mem_calloc(1, sizeof *swap);
    *swap = (SwapWork){
        .shell = shell,
        .call = call,
        .config = config,
        .asked = path_join(shell->folder->path, "asked.yaml"),
        .memory = shell->memory,
        .more_reference = config->train.memory_reference && !now->train.memory_reference,
        .more_critic = config->train.memory_critic && !now->train.memory_critic,
    };
    swap->work.data = swap;
    shell->swap = swap;
    uv_queue_work(loop_uv(shell->loop), &swap->work, look, looked);
}

void shell_swap_wait(Shell *shell)
{
    shell->swap_over = true;
    while (shell->swap != NULL)
        uv_run(loop_uv(shell->loop), UV_RUN_ONCE);
}
