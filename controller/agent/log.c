#include "agent/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

struct AgentLog {
    AgentLogOptions options;
    char *path;
    int fd;
    int64_t bytes; /* of the current file */
    char *tail;    /* tail_max + 1 bytes */
    size_t tail_length;
    bool tail_cut;
};

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

Status agent_log_open(const AgentLogOptions *options, AgentLog **ret, Error *err)
{
    struct stat info;
    int fd = open_file(options->path);
    if (fd < 0) return error_set_errno(err, errno, "could not open the log %s", options->path);
    AgentLog *log = mem_calloc(1, sizeof *log);
    log->options = *options;
    log->path = mem_strdup(options->path);
    log->fd = fd;
    log->bytes = fstat(fd, &info) == 0 ? (int64_t)info.st_size : 0;
    log->tail = mem_calloc(options->tail_max + 1, 1);
    *ret = log;
    return OK;
}

void agent_log_close(AgentLog *log)
{
    if (log == NULL) return;
    if (log->fd >= 0) close(log->fd);
    free(log->path);
    free(log->tail);
    free(log);
}

static void rotate(AgentLog *log)
{
    if (log->fd >= 0) close(log->fd);
    for (int i = log->options.files_max - 1; i > 0; i--) {
        char *to = mem_printf("%s.%d", log->path, i);
        char *from = i > 1 ? mem_printf("%s.%d", log->path, i - 1) : mem_strdup(log->path);
        rename(from, to);
        free(from);
        free(to);
    }
    if (log->options.files_max <= 1) unlink(log->path);
    log->fd = open_file(log->path);
    log->bytes = 0;
}

static void keep_tail(AgentLog *log, const char *bytes, size_t length)
{
    size_t max = log->options.tail_max;
    if (length > max) {
        bytes += length - max;
        length = max;
        log->tail_cut = true;
    }
    if (log->tail_length + length > max) {
        size_t dropped = log->tail_length + length - max;
        memmove(log->tail, log->tail + dropped, log->tail_length - dropped);
        log->tail_length -= dropped;
        log->tail_cut = true;
    }
    memcpy(log->tail + log->tail_length, bytes, length);
    log->tail_length += length;
    log->tail[log->tail_length] = '\0';
}

void agent_log_write(AgentLog *log, const char *bytes, size_t length)
{
    keep_tail(log, bytes, length);
    if (log->bytes > 0 && log->bytes + (int64_t)length > log->options.bytes_max) rotate(log);
    if (log->fd < 0) return;
    if (file_write_all(log->fd, bytes, length, log->path, NULL) == OK)
        log->bytes += (int64_t)length;
}

/* Of the lines that the processes of a job write: "12:00:00 info  memory plan=...". */
static bool is_of_good_times(const char *line)
{
    for (int i = 0; i < 8; i++)
        if (i % 3 == 2 ? line[i] != ':' : line[i] < '0' || line[i] > '9') return false;
    return strncmp(line + 8, " info ", 6) == 0 || strncmp(line + 8, " debug ", 7) == 0;
}

/* What a process said while all went well, with the indented lines below it, is no last word. */
static void drop_good_times(AgentLog *log)
{
    char *to = log->tail;
    bool dropped = false;
    for (const char *line = log->tail, *next; *line != '\0'; line = next) {
        const char *end = strchr(line, '\n');
        next = end != NULL ? end + 1 : line + strlen(line);
        dropped = is_of_good_times(line) || (dropped && strncmp(line, "    ", 4) == 0);
        if (dropped) continue;
        memmove(to, line, (size_t)(next - line));
        to += next - line;
    }
    *to = '\0';
    log->tail_length = (size_t)(to - log->tail);
}

const char *agent_log_tail(AgentLog *log)
{
    while (log->tail_length > 0 && log->tail[log->tail_length - 1] == '\n')
        log->tail[--log->tail_length] = '\0';
    for (size_t i = 0; i < log->tail_length; i++)
        if (log->tail[i] == '\0') log->tail[i] = ' '; /* a text to others */
    const char *line = log->tail_cut ? strchr(log->tail, '\n') : NULL;
    if (line != NULL) {
        memmove(log->tail, line + 1, strlen(line));
        log->tail_cut = false;
    }
    log->tail_length = strlen(log->tail);
    drop_good_times(log);
    while (log->tail_length > 0 && log->tail[log->tail_length - 1] == '\n')
        log->tail[--log->tail_length] = '\0';
    return log->tail;
}
