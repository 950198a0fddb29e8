#include "base/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/lines.h"
#include "base/str.h"

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static struct {
    pthread_mutex_t lock;
    char actor[64];
    LogLevel level;
    int events_fd;
    void (*writer)(void *, const char *);
    void *writer_context;
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO, .events_fd = -1};

Status log_open(const char *actor, const char *events_path, LogLevel level, Error *err)
{
    int fd = -1;
    if (events_path != NULL) {
        fd = open(events_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd < 0) return error_set_errno(err, errno, "could not open %s", events_path);
        int64_t end = 0;
        Status status = lines_cut_torn(fd, events_path, &end, err); /* of a kill */
        if (status != OK) {
            close(fd);
            return status;
        }
    }
    pthread_mutex_lock(&sink.lock);
    snprintf(sink.actor, sizeof sink.actor, "%s", actor);
    sink.level = level;
    if (sink.events_fd >= 0) close(sink.events_fd);
    sink.events_fd = fd;
    pthread_mutex_unlock(&sink.lock);
    return OK;
}

void log_close(void)
{
    pthread_mutex_lock(&sink.lock);
    if (sink.events_fd >= 0) close(sink.events_fd);
    sink.events_fd = -1;
    pthread_mutex_unlock(&sink.lock);
}

void log_set_writer(void (*writer)(void *, const char *), void *context)
{
    pthread_mutex_lock(&sink.lock);
    sink.writer = writer;
    sink.writer_context = context;
    pthread_mutex_unlock(&sink.lock);
}

static bool needs_quotes(const char *text)
{
    if (*text == '\0') return true;
    for (; *text != '\0'; text++)
        if (*text == ' ' || *text == '"' || *text == '=' || iscntrl((unsigned char)*text))
            return true;
    return false;
}

static bool is_block(const LogField *field)
{
    return field->kind == FIELD_STRING && field->string != NULL &&
           strchr(field->string, '\n') != NULL;
}

static void put_field_for_people(Str *line, const LogField *field)
{
    if (is_block(field)) return;
    str_printf(line, " %s=", field->key);
    if (field->kind == FIELD_INT) {
        str_printf(line, "%lld", (long long)field->integer);
    } else if (field->kind == FIELD_DOUBLE) {
        str_printf(line, "%.6g", field->real);
    } else if (field->string != NULL && !needs_quotes(field->string)) {
        str_puts(line, field->string);
    } else {
        json_append_string(line, field->string);
    }
}

static void put_field_for_programs(Str *line, const LogField *field)
{
    str_putc(line, ',');
    json_append_string(line, field->key);
    str_putc(line, ':');
    if (field->kind == FIELD_INT)
        str_printf(line, "%lld", (long long)field->integer);
    else if (field->kind == FIELD_DOUBLE && field->real - field->real == 0)
        str_printf(line, "%.9g", field->real);
    else if (field->kind == FIELD_DOUBLE) /* JSON has no infinity and no NaN */
        str_puts(line, "null");
    else
        json_append_string(line, field->string);
}

/* How many bytes could be written: a log that cannot be written must not stop the work. */
static size_t write_fully(int fd, const Str *line)
{
    size_t done = 0;
    while (done < line->length) {
        ssize_t put = write(fd, line->data + done, line->length - done);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) break;
        done += (size_t)put;
    }
    return done;
}

/* All of it or, on a full disk, nothing: the next line would be glued to what there is. */
static void write_event(int fd, const Str *line)
{
    struct stat info;
    size_t done = write_fully(fd, line);
    if (done == 0 || done == line->length || fstat(fd, &info) != 0) return;
    if (ftruncate(fd, info.st_size - (off_t)done) != 0) return;
}

void log_write(LogLevel level, const char *event, const LogField *fields, int count)
{
    char stamp[CLOCK_STAMP_BYTES];
    Str people = {0}, programs = {0};
    clock_stamp(stamp);
    pthread_mutex_lock(&sink.lock);
    if (level >= sink.level) {
        str_printf(&people, "%.8s %-5s %s", stamp + 11, level_names[level], event);
        for (int i = 0; i < count; i++)
            put_field_for_people(&people, &fields[i]);
        str_putc(&people, '\n');
        for (int i = 0; i < count; i++)
            if (is_block(&fields[i])) str_put_block(&people, fields[i].string);
        if (sink.writer != NULL)
            sink.writer(sink.writer_context, people.data);
        else
            write_fully(STDERR_FILENO, &people);
    }
    if (sink.events_fd >= 0) {
        str_printf(&programs, "{\"time\":\"%s\",\"level\":\"%s\",\"actor\":", stamp,
                   level_names[level]);
        json_append_string(&programs, sink.actor);
        str_puts(&programs, ",\"event\":");
        json_append_string(&programs, event);
        for (int i = 0; i < count; i++)
            put_field_for_programs(&programs, &fields[i]);
        str_puts(&programs, "}\n");
        write_event(sink.events_fd, &programs);
    }
    pthread_mutex_unlock(&sink.lock);
    str_free(&people);
    str_free(&programs);
}
