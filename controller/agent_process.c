#include "agent_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"

#define LOG_BYTES_MAX ((int64_t)8 << 20)
#define LOG_FILES     3   /* name.log, name.log.1, name.log.2 */
#define DRAIN_MS      200 /* for output that is still in the pipes of a dead process */
#define READ_BYTES    65536

struct AgentProcess {
    ProcessOrder order;
    uv_process_t process;
    uv_pipe_t output[2]; /* stdout, stderr */
    char buffer[READ_BYTES];
    int pid, pidfd;
    char *log_path;
    int log_fd;
    int64_t log_bytes;
    char tail[STDERR_TAIL_BYTES];
    size_t tail_length;
    bool exited, told, released;
    int exit_code, signal;
    int open_handles; /* of libuv; freed when all are closed */
    int open_outputs;
    LoopTimer *grace, *drain;
};

/* ---- the log ---- */

static void rotate(AgentProcess *process)
{
    char from[4096], to[4096];
    close(process->log_fd);
    for (int i = LOG_FILES - 1; i > 0; i--) {
        snprintf(to, sizeof to, "%s.%d", process->log_path, i);
        if (i > 1)
            snprintf(from, sizeof from, "%s.%d", process->log_path, i - 1);
        else
            snprintf(from, sizeof from, "%s", process->log_path);
        rename(from, to);
    }
    process->log_fd = open(process->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    process->log_bytes = 0;
}

static void keep_tail(AgentProcess *process, const char *bytes, size_t length)
{
    size_t room = sizeof process->tail - 1;
    if (length >= room) {
        memcpy(process->tail, bytes + length - room, room);
        process->tail_length = room;
    } else {
        size_t kept = process->tail_length;
        if (kept + length > room) {
            size_t drop = kept + length - room;
            memmove(process->tail, process->tail + drop, kept - drop);
            kept -= drop;
        }
        memcpy(process->tail + kept, bytes, length);
        process->tail_length = kept + length;
    }
    process->tail[process->tail_length] = '\0';
}

static void write_log(AgentProcess *process, const char *bytes, size_t length)
{
    keep_tail(process, bytes, length);
    if (process->log_fd < 0) return;
    if (process->log_bytes + (int64_t)length > LOG_BYTES_MAX) rotate(process);
    /* A full disk must not stop the actor: what cannot be written is lost, the tail is kept in
     * memory. */
    if (file_write_all(process->log_fd, bytes, length, process->log_path, NULL) == OK)
        process->log_bytes += (int64_t)length;
}

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

/* Whole lines only, from the first line break on when the beginning was cut. */
static const char *tail_text(AgentProcess *process)
{
    char *text = process->tail;
    while (process->tail_length > 0 && text[process->tail_length - 1] == '\n')
        text[--process->tail_length] = '\0';
    if (process->tail_length < sizeof process->tail - 1) return text;
    char *line = strchr(text, '\n');
    return line != NULL ? line + 1 : text;
}

static void tell(void *argument)
{
    AgentProcess *process = argument;
    if (process->told) return;
    process->told = true;
    loop_remove_timer(process->drain);
    loop_remove_timer(process->grace);
    process->drain = process->grace = NULL;
    close_handle((uv_handle_t *)&process->output[0]);
    close_handle((uv_handle_t *)&process->output[1]);
    char reason[128];
    if (process->signal != 0)
        snprintf(reason, sizeof reason, "killed by signal %d (%s)", process->signal,
                 strsignal(process->signal));
    else
        snprintf(reason, sizeof reason, "exited with code %d", process->exit_code);
    ProcessDeath death = {
        .pid = process->pid,
        .exit_code = process->signal != 0 ? -1 : process->exit_code,
        .signal = process->signal,
        .reason = reason,
        .output_tail = tail_text(process),
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
    if (count > 0) write_log(process, buffer->base, (size_t)count);
    if (count >= 0) return;
    process->open_outputs--;
    close_handle((uv_handle_t *)stream);
    tell_when_drained(process);
}

/* ---- spawning ---- */

static char **make_arguments(const ProcessOrder *order)
{
    char **list = mem_calloc((size_t)order->num_arguments + 2, sizeof *list);
    list[0] = (char *)order->program;
    for (int i = 0; i < order->num_arguments; i++)
        list[i + 1] = (char *)order->argument[i];
    return list;
}

static char **make_environment(const ProcessOrder *order)
{
    int own = 0;
    while (environ[own] != NULL)
        own++;
    char **list = mem_calloc((size_t)(own + order->num_environment) + 1, sizeof *list);
    memcpy(list, environ, (size_t)own * sizeof *list);
    for (int i = 0; i < order->num_environment; i++)
        list[own + i] = (char *)order->environment[i];
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

static int spawn(AgentProcess *process)
{
    char **arguments = make_arguments(&process->order);
    char **environment = make_environment(&process->order);
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
    int failed = uv_spawn(loop_uv(process->order.loop), &process->process, &options);
    free(arguments);
    free(environment);
    return failed;
}

Status agent_process_spawn(const ProcessOrder *order, AgentProcess **ret, Error *err)
{
    int log_fd = open(order->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log_fd < 0)
        return error_set_errno(err, errno, "could not open the log %s", order->log_path);
    AgentProcess *process = mem_calloc(1, sizeof *process);
    struct stat info;
    process->order = *order;
    process->log_path = mem_strdup(order->log_path);
    process->log_fd = log_fd;
    process->log_bytes = fstat(log_fd, &info) == 0 ? (int64_t)info.st_size : 0;
    process->pidfd = -1;
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
    process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
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

/* Through the pidfd where there is one: a pid may have been given to somebody else. */
static void signal_it(AgentProcess *process, int number)
{
    if (process->exited) return;
    if (process->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, process->pidfd, number, NULL, 0);
    else
        kill(process->pid, number);
    kill(-process->pid, number);
}

static void grace_over(void *argument)
{
    AgentProcess *process = argument;
    loop_remove_timer(process->grace);
    process->grace = NULL;
    signal_it(process, SIGKILL);
}

void agent_process_kill(AgentProcess *process, int grace_ms)
{
    signal_it(process, grace_ms > 0 ? SIGTERM : SIGKILL);
    if (grace_ms > 0 && process->grace == NULL)
        process->grace = loop_add_timer(process->order.loop, grace_ms, 0, grace_over, process);
}

void agent_process_destroy(AgentProcess *process)
{
    if (process == NULL) return;
    CHECK(process->exited);
    if (process->log_fd >= 0) close(process->log_fd);
    if (process->pidfd >= 0) close(process->pidfd);
    free(process->log_path);
    process->log_path = NULL;
    process->released = true;
    close_handle((uv_handle_t *)&process->output[0]);
    close_handle((uv_handle_t *)&process->output[1]);
    if (process->open_handles == 0) free(process);
}

/* ---- strays ---- */

static int parent_of(int pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return -1;
    text[length] = '\0';
    const char *after_name =
        strrchr(text, ')'); /* a name may hold anything but this comes after it */
    int parent = -1;
    if (after_name != NULL && sscanf(after_name + 1, " %*c %d", &parent) != 1) parent = -1;
    return parent;
}

static bool is_known(int pid, const int *known, int num_known)
{
    for (int i = 0; i < num_known; i++)
        if (known[i] == pid) return true;
    return false;
}

int agent_reap_strays(const int *known, int num_known)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL) return 0;
    int strays = 0, self = (int)getpid();
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || parent_of(pid) != self || is_known(pid, known, num_known)) continue;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, WNOHANG); /* one that is not dead yet is met again at the next sweep */
        strays++;
    }
    closedir(proc);
    return strays;
}
