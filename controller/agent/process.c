#include "agent/process.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/log.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/process.h"

enum {
    LOG_BYTES_MAX = 8 << 20,
    LOG_FILES_MAX = 3,
    DRAIN_MS = 200, /* for output that is still in the pipes of a dead process */
    READ_BYTES = 16384,
};

struct AgentProcess {
    ProcessOrder order;
    uv_process_t process;
    uv_pipe_t output[2]; /* stdout, stderr */
    char buffer[READ_BYTES];
    int pid;
    char parent[16]; /* this process, as its actors are told */
    AgentLog *log;
    int64_t oom_kills; /* when it was started */
    bool exited, told, released;
    bool killed_by_agent;
    int exit_code, signal;
    int open_handles; /* of libuv; freed when all are closed */
    int open_outputs;
    LoopTimer *drain;
};

/* ---- death ---- */

static void on_closed(uv_handle_t *handle)
{
    AgentProcess *process = handle->data;
    process->open_handles--;
    if (process->open_handles == 0 && process->released) free(process);
}

static void close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle)) uv_close(handle, on_closed);
}

static void describe_death(const AgentProcess *process, char *text, size_t size)
{
    if (process->signal == 0) {
        snprintf(text, size, "exited with code %d", process->exit_code);
        return;
    }
    const char *name = sigabbrev_np(process->signal);
    int used = snprintf(text, size, "killed by signal %d (SIG%s)", process->signal,
                        name != NULL ? name : "?");
    if (process->signal != SIGKILL || used >= (int)size) return;
    if (process->killed_by_agent)
        snprintf(text + used, size - (size_t)used, " by its agent");
    else if (process_count_oom_kills("") > process->oom_kills)
        snprintf(text + used, size - (size_t)used, ": the machine ran out of memory");
}

static void tell(void *argument)
{
    AgentProcess *process = argument;
    if (process->told) return;
    process->told = true;
    loop_remove_timer(process->drain);
    process->drain = NULL;
    close_handle((uv_handle_t *)&process->output[0]);
    close_handle((uv_handle_t *)&process->output[1]);
    char reason[128];
    describe_death(process, reason, sizeof reason);
    ProcessDeath death = {
        .pid = process->pid,
        .exit_code = process->signal != 0 ? -1 : process->exit_code,
        .signal = process->signal,
        .reason = reason,
        .output_tail = agent_log_tail(process->log),
    };
    process->order.on_death(process->order.context, process, &death);
}

static void tell_when_drained(AgentProcess *process)
{
    if (!process->exited || process->told) return;
    if (process->open_outputs == 0)
        tell(process);
    else if (process->drain == NULL)
        process->drain = loop_add_timer(process->order.loop, DRAIN_MS, 0, tell, process);
}

static void on_process_exit(uv_process_t *handle, int64_t exit_code, int signal_number)
{
    AgentProcess *process = handle->data;
    kill(-process->pid, SIGKILL); /* whatever else is in its group */
    process->exited = true;
    process->exit_code = (int)exit_code;
    process->signal = signal_number;
    close_handle((uv_handle_t *)handle);
    tell_when_drained(process);
}

/* ---- output ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    AgentProcess *process = handle->data;
    (void)suggested;
    *buffer = uv_buf_init(process->buffer, sizeof process->buffer);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    AgentProcess *process = stream->data;
    if (count > 0) agent_log_write(process->log, buffer->base, (size_t)count);
    if (count >= 0) return;
    process->open_outputs--;
    close_handle((uv_handle_t *)stream);
    tell_when_drained(process);
}

/* ---- spawning ---- */

static char **make_arguments(AgentProcess *process)
{
    const ProcessOrder *order = &process->order;
    char **list = mem_calloc((size_t)order->num_arguments + 4, sizeof *list);
    snprintf(process->parent, sizeof process->parent, "%d", (int)getpid());
    list[0] = (char *)order->program;
    list[1] = "--parent";
    list[2] = process->parent;
    for (int i = 0; i < order->num_arguments; i++)
        list[i + 3] = (char *)order->argument[i];
    return list;
}

static void init_handles(AgentProcess *process)
{
    uv_loop_t *loop = loop_uv(process->order.loop);
    for (int i = 0; i < 2; i++) {
        uv_pipe_init(loop, &process->output[i], 0);
        process->output[i].data = process;
    }
    process->process.data = process;
    process->open_handles = 3;
}

#define VISIBLE "CUDA_VISIBLE_DEVICES="

/* Ours, with another CUDA_VISIBLE_DEVICES; its one new text is *ret_text. */
static char **make_environment(const char *visible_gpus, char **ret_text)
{
    int count = 0, kept = 0;
    while (environ[count] != NULL)
        count++;
    char **list = mem_calloc((size_t)count + 2, sizeof *list);
    for (int i = 0; i < count; i++)
        if (strncmp(environ[i], VISIBLE, strlen(VISIBLE)) != 0) list[kept++] = environ[i];
    list[kept] = *ret_text = mem_printf(VISIBLE "%s", visible_gpus);
    return list;
}

/* Runs this thread on those of its CPUs that are in `cpus`, if any; a process inherits that from
 * the thread that starts it. False: nothing was changed. */
static bool move_to(const cpu_set_t *cpus, cpu_set_t *ret_before)
{
    cpu_set_t both;
    if (cpus == NULL || sched_getaffinity(0, sizeof *ret_before, ret_before) != 0) return false;
    CPU_AND(&both, cpus, ret_before);
    return CPU_COUNT(&both) > 0 && sched_setaffinity(0, sizeof both, &both) == 0;
}

static int spawn(AgentProcess *process)
{
    char **arguments = make_arguments(process), **environment = NULL, *visible = NULL;
    cpu_set_t before;
    if (process->order.visible_gpus != NULL)
        environment = make_environment(process->order.visible_gpus, &visible);
    uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE}};
    for (int i = 0; i < 2; i++) {
        stdio[i + 1].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
        stdio[i + 1].data.stream = (uv_stream_t *)&process->output[i];
    }
    uv_process_options_t options = {
        .exit_cb = on_process_exit,
        .file = process->order.program,
        .args = arguments,
        .env = environment,
        .flags = UV_PROCESS_DETACHED,
        .stdio_count = 3,
        .stdio = stdio,
    };
    bool moved = move_to(process->order.cpus, &before);
    int failed = uv_spawn(loop_uv(process->order.loop), &process->process, &options);
    if (moved) sched_setaffinity(0, sizeof before, &before);
    free(visible);
    free(environment);
    free(arguments);
    return failed;
}

Status agent_process_spawn(const ProcessOrder *order, AgentProcess **ret, Error *err)
{
    AgentLog *log = NULL;
    TRY(agent_log_open(&(AgentLogOptions){.path = order->log_path,
                                          .bytes_max = LOG_BYTES_MAX,
                                          .files_max = LOG_FILES_MAX,
                                          .tail_max = STDERR_TAIL_BYTES - 1},
                       &log, err));
    AgentProcess *process = mem_calloc(1, sizeof *process);
    process->order = *order;
    process->log = log;
    process->oom_kills = process_count_oom_kills("");
    init_handles(process);
    int failed = spawn(process);
    if (failed != 0) {
        error_set(err, failed == UV_ENOENT ? ERR_NOT_FOUND : ERR_RESOURCE, "could not start %s: %s",
                  order->program, uv_strerror(failed));
        process->exited = true;
        close_handle((uv_handle_t *)&process->process);
        agent_process_destroy(process);
        return err != NULL ? err->status : ERR_RESOURCE;
    }
    process->pid = process->process.pid;
    process->open_outputs = 2;
    for (int i = 0; i < 2; i++)
        uv_read_start((uv_stream_t *)&process->output[i], on_alloc, on_read);
    *ret = process;
    return OK;
}

int agent_process_pid(const AgentProcess *process)
{
    return process->pid;
}

/* The pid cannot be anybody else's: libuv reaps it and says so in one step. */
void agent_process_kill(AgentProcess *process)
{
    process->killed_by_agent = true;
    if (!process->exited) kill(-process->pid, SIGKILL);
}

void agent_process_destroy(AgentProcess *process)
{
    if (process == NULL) return;
    CHECK(process->exited);
    agent_log_close(process->log);
    process->log = NULL;
    process->released = true;
    close_handle((uv_handle_t *)&process->output[0]);
    close_handle((uv_handle_t *)&process->output[1]);
    if (process->open_handles == 0) free(process);
}
