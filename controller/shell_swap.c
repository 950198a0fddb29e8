/* A stage that people ask for while the run goes on (controller swap-rollout). What takes long is
 * done on a thread of its own: the files, tokenizer and template of the new job, and the memory
 * that its workers would take, which train_inspect and data_inspect know. Only what passes is fed
 * to the core and written down. Files may lie on a disk that does not answer, so nobody waits for
 * that thread: a run that ends, and a request behind one that took too long, leave it alone with
 * its SwapWork.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor/actor.h"
#include "actor/typed.h"
#include "base/clock.h"
#include "base/condition.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "cluster.pb-c.h"
#include "look.h"
#include "shell.h"
#include "validate.h"

#define END_WAIT_S 1 /* a look that was called off has so long to come to an end */

struct SwapWork {
    Shell *shell;
    Call *call;
    int64_t deadline_ms; /* whoever asked waits no longer */
    int off[2];          /* a pipe: the look is called off when [1] is closed */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;        /* with `lock`: by the thread, which has nothing more to do with it ... */
    bool left;        /* ... or by the loop: the thread frees it */
    char *now, *yaml; /* the job that runs, and the one that is asked for */
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

/* What a program said, and how it ended. */
typedef struct Words {
    char text[ERROR_MESSAGE_MAX];
    int code;
} Words;

/* Runs a program until the look is called off. */
static Status run_program(const SwapWork *swap, const char *const *arguments, Words *ret,
                          Error *err)
{
    int end = 0;
    char *program = program_path(arguments[0]);
    ProgramRun run = {.path = program,
                      .arguments = arguments,
                      .words = ret->text,
                      .words_size = sizeof ret->text,
                      .words_of = WORDS_OF_BOTH,
                      .deadline_ms = swap->deadline_ms,
                      .cancel = swap->off[0]};
    Status status = program_run(&run, &end, err);
    ret->code = WIFEXITED(end) ? WEXITSTATUS(end) : -1;
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
static Status check_train_workers(const SwapWork *swap, const char *available, Words *ret,
                                  Error *err)
{
    const char *argument[16];
    char taken[32], gpu[LOOK_GPU_BYTES];
    int count = 0;
    look_for_gpu(swap->config, gpu);
    snprintf(taken, sizeof taken, "%lld", (long long)swap->memory.taken);
    argument[count++] = "train_inspect";
    argument[count++] = "--config";
    argument[count++] = swap->asked;
    argument[count++] = "--available";
    argument[count++] = available;
    argument[count++] = "--taken";
    argument[count++] = taken;
    argument[count++] = "--bytes";
    argument[count++] = "--gpu";
    argument[count++] = gpu;
    if (swap->more_reference) argument[count++] = "--more-reference";
    if (swap->more_critic) argument[count++] = "--more-critic";
    argument[count] = NULL;
    TRY(run_program(swap, argument, ret, err));
    if (ret->code == 0) ret->text[strcspn(ret->text, "\n")] = '\0';
    return take_words(ret, err);
}

/* Beside them, its rollout workers; of what was free before the run took any: those that leave give
 * back what they have. */
static Status check_rollout_workers(const SwapWork *swap, const char *available,
                                    const char *trained, Error *err)
{
    Words words;
    long long mb = 0;
    char gpu[LOOK_GPU_BYTES];
    const char *const ask[] = {"data_inspect", "--config", swap->asked, "--check=memory",
                               "--available",  available,  "--trained", trained,
                               "--gpu",        gpu,        NULL};
    if (swap->config->rollout.function == ROLLOUT_SFT) return OK;
    look_for_gpu(swap->config, gpu);
    TRY(run_program(swap, ask, &words, err));
    TRY(take_words(&words, err));
    const char *decided = strstr(words.text, "kv_cache_mb "); /* beside what else was said */
    if (decided != NULL && sscanf(decided, "kv_cache_mb %lld", &mb) == 1)
        job_config_decide_kv_cache(swap->config, mb);
    return OK;
}

static Status check_memory(const SwapWork *swap, Error *err)
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

static void swap_free(SwapWork *swap)
{
    if (!swap->kept) job_config_destroy(swap->config);
    for (int i = 0; i < 2; i++)
        if (swap->off[i] >= 0) close(swap->off[i]);
    pthread_mutex_destroy(&swap->lock);
    pthread_cond_destroy(&swap->ended);
    free(swap->now);
    free(swap->yaml);
    free(swap->asked);
    free(swap->summary);
    free(swap);
}

/* From texts: what the run has of its own may be gone before this comes back. */
static Status prepare(SwapWork *swap, Error *err)
{
    JobConfig *now = NULL;
    TRY(job_config_parse(swap->now, "the job that runs", "/", &now, err));
    Status status = run_stages_prepare(now, swap->yaml, &swap->config, err);
    if (status == OK) {
        const JobConfig *config = swap->config;
        swap->more_reference = config->train.memory_reference && !now->train.memory_reference;
        swap->more_critic = config->train.memory_critic && !now->train.memory_critic;
    }
    job_config_destroy(now);
    return status;
}

static Status check(SwapWork *swap, Error *err)
{
    TRY(prepare(swap, err));
    TRY(validate_job(swap->config, &swap->summary, err));
    return swap->memory.taken > 0 ? check_memory(swap, err) : OK;
}

static void looked(void *argument);

static void *look(void *argument)
{
    SwapWork *swap = argument;
    swap->status = check(swap, &swap->error);
    pthread_mutex_lock(&swap->lock);
    bool left = swap->left;
    swap->done = true;
    if (!left) loop_post(swap->shell->loop, looked, swap->shell); /* it is there while not left */
    pthread_cond_signal(&swap->ended);
    pthread_mutex_unlock(&swap->lock);
    if (left) swap_free(swap);
    return NULL;
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

/* The thread is through with it. */
static void end_look(SwapWork *swap)
{
    Shell *shell = swap->shell;
    if (shell->swap_over)
        swap->status = error_set(&swap->error, ERR_UNAVAILABLE, "the run has ended");
    else if (swap->status == OK)
        take(swap);
    say_warnings(swap);
    answer(swap);
    shell->swap = NULL;
    swap_free(swap);
}

static bool is_done(SwapWork *swap)
{
    pthread_mutex_lock(&swap->lock);
    bool done = swap->done;
    pthread_mutex_unlock(&swap->lock);
    return done;
}

/* The look that has ended may have been answered for already, and another one be under way. */
static void looked(void *argument)
{
    Shell *shell = argument;
    if (shell->swap != NULL && is_done(shell->swap)) end_look(shell->swap);
}

/* Calls the look off; true when it has ended, else it is the thread's, whenever that comes back. */
static bool call_off(SwapWork *swap, int wait_s)
{
    int64_t until_ms = clock_ms() + wait_s * 1000;
    close(swap->off[1]);
    swap->off[1] = -1;
    pthread_mutex_lock(&swap->lock);
    while (!swap->done && condition_wait_until(&swap->ended, &swap->lock, until_ms))
        continue;
    bool done = swap->done;
    swap->left = !done;
    pthread_mutex_unlock(&swap->lock);
    return done;
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

static void give_up(Shell *shell, int wait_s, Status status, const char *why)
{
    SwapWork *swap = shell->swap;
    Call *call = swap->call;
    Error err = {0};
    if (call_off(swap, wait_s)) {
        swap->status = error_set(&swap->error, status, "%s", why);
        end_look(swap);
    } else {
        error_set(&err, status, "%s", why);
        call_fail(call, &err);
        shell->swap = NULL;
    }
}

static Status make_swap(Shell *shell, Call *call, SwapWork **ret, Error *err)
{
    Bytes body = call_body(call);
    if (shell->swap_over) return error_set(err, ERR_UNAVAILABLE, "the run has ended");
    if (shell->swap != NULL && clock_ms() > shell->swap->deadline_ms)
        give_up(shell, 0, ERR_TIMEOUT, "looking at the new job took too long");
    if (shell->swap != NULL)
        return error_set(err, ERR_EXISTS, "another job is being looked at for a swap");
    Troupe__SwapRequest *request = troupe__swap_request__unpack(NULL, body.length, body.data);
    if (request == NULL) return error_set(err, ERR_INVALID, "the request is unreadable");
    SwapWork *swap = mem_calloc(1, sizeof *swap);
    *swap = (SwapWork){
        .shell = shell,
        .call = call,
        .now = mem_strdup(shell->config_yaml),
        .yaml = mem_strdup(request->job_yaml),
        .deadline_ms = call_deadline_ms(call),
        .off = {-1, -1},
        .asked = path_join(shell->folder->path, "asked.yaml"),
        .memory = shell->memory,
    };
    pthread_mutex_init(&swap->lock, NULL);
    condition_init(&swap->ended);
    troupe__swap_request__free_unpacked(request, NULL);
    *ret = swap;
    return OK;
}

static Status begin_look(SwapWork *swap, Error *err)
{
    pthread_t thread;
    if (pipe2(swap->off, O_CLOEXEC) != 0)
        return error_set_errno(err, errno, "could not make a pipe");
    int failed = pthread_create(&thread, NULL, look, swap);
    if (failed != 0) return error_set_errno(err, failed, "could not start a thread");
    pthread_detach(thread);
    return OK;
}

void shell_on_swap(void *self, Call *call)
{
    Shell *shell = self;
    SwapWork *swap = NULL;
    Error err = {0};
    Status status = make_swap(shell, call, &swap, &err);
    if (status == OK) status = begin_look(swap, &err);
    if (status == OK) {
        shell->swap = swap;
        return;
    }
    if (swap != NULL) swap_free(swap);
    call_fail(call, &err);
}

void shell_swap_end(Shell *shell)
{
    shell->swap_over = true;
    if (shell->swap != NULL) give_up(shell, END_WAIT_S, ERR_UNAVAILABLE, "the run has ended");
}
