#include "text/jinja_run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

#define STEPS_BETWEEN_CHECKS 65536

_Noreturn void run_fail(Run *run, Status status, const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    error_set(run->err, status, "%s:%d: %s", run->where, run->line, message);
    longjmp(run->failed, (int)status);
}

_Noreturn void run_fail_undefined(Run *run, Value value)
{
    const Undefined *undefined = value.as.undefined;
    if (undefined->hint != NULL) run_raise(run, "%s", undefined->hint);
    if (undefined->object == NULL)
        run_raise(run, "'%s' is undefined", message_text(run, undefined->name.as.string));
    if (!value_is_string(undefined->name))
        run_raise(run, "%s has no element %s", undefined->object,
                  message_repr(run, undefined->name));
    run_raise(run, "'%s' has no attribute %s", undefined->object,
              message_repr(run, undefined->name));
}

static _Noreturn void fail_memory(Run *run)
{
    run_fail(run, ERR_RESOURCE, "the template uses more than %zu MiB of memory",
             run->memory_max >> 20);
}

static void check_memory(Run *run, size_t more)
{
    size_t used = arena_bytes(run->arena) + run->buffers_bytes;
    if (more > run->memory_max || used > run->memory_max - more) fail_memory(run);
}

void *run_alloc(Run *run, size_t bytes)
{
    check_memory(run, bytes);
    return arena_alloc(run->arena, bytes);
}

void run_check_length(Run *run, uint64_t length)
{
    if (length > TEMPLATE_OUTPUT_BYTES_MAX)
        run_fail(run, ERR_RESOURCE, "a string longer than %u MiB", TEMPLATE_OUTPUT_BYTES_MAX >> 20);
}

void run_check(Run *run)
{
    if (run->steps > TEMPLATE_STEPS_MAX)
        run_fail(run, ERR_RESOURCE, "the template takes more than %llu steps", TEMPLATE_STEPS_MAX);
    if (clock_ms() > run->deadline_ms)
        run_fail(run, ERR_TIMEOUT, "the template takes longer than %d seconds",
                 TEMPLATE_TIME_MAX_MS / 1000);
    run->steps_check = run->steps + STEPS_BETWEEN_CHECKS;
}

void run_enter(Run *run)
{
    if (++run->depth > TEMPLATE_DEPTH_MAX)
        run_fail(run, ERR_RESOURCE, "the template recurses deeper than %d levels",
                 TEMPLATE_DEPTH_MAX);
}

/* ---- buffers ---- */

void buffer_push(Run *run)
{
    if (run->num_buffers == run->buffers_capacity) {
        size_t capacity = run->buffers_capacity == 0 ? 8 : 2 * run->buffers_capacity;
        run->buffer = mem_realloc(run->buffer, capacity, sizeof *run->buffer);
        memset(run->buffer + run->buffers_capacity, 0,
               (capacity - run->buffers_capacity) * sizeof *run->buffer);
        run->buffers_capacity = capacity;
    }
    Buffer *buffer = &run->buffer[run->num_buffers++];
    str_clear(&buffer->text);
    buffer->num_spans = 0;
}

static Buffer *top_buffer(Run *run)
{
    CHECK(run->num_buffers > 0);
    return &run->buffer[run->num_buffers - 1];
}

void buffer_drop(Run *run)
{
    Buffer *buffer = top_buffer(run);
    run->buffers_bytes -= buffer->text.length;
    run->num_buffers--;
}

Value buffer_pop(Run *run)
{
    Buffer *buffer = top_buffer(run);
    Origin first = buffer->num_spans > 0 ? buffer->span[0].origin : ORIGIN_PLAIN_TEMPLATE;
    Value value = value_text(run, str_text(&buffer->text), buffer->text.length, first);
    size_t count = 0;
    OriginRun *runs = NULL;
    for (size_t i = 0; i < buffer->num_spans; i++) {
        const BufferSpan *span = &buffer->span[i];
        if (runs != NULL && runs[count - 1].origin == span->origin) {
            runs[count - 1].end = span->end;
        } else if (runs != NULL || span->origin != first) {
            if (runs == NULL) {
                runs = run_alloc(run, (buffer->num_spans + 1) * sizeof *runs);
                runs[count++] = (OriginRun){.end = buffer->span[i - 1].end, .origin = first};
            }
            runs[count++] = (OriginRun){.end = span->end, .origin = span->origin};
        }
    }
    String *string = (String *)value.as.string;
    string->run = runs;
    string->num_runs = (uint32_t)count;
    buffer_drop(run);
    return value;
}

static void write_span(Run *run, const char *bytes, size_t length, Origin origin)
{
    if (length == 0) return;
    Buffer *buffer = top_buffer(run);
    if (buffer->text.length + length > TEMPLATE_OUTPUT_BYTES_MAX)
        run_fail(run, ERR_RESOURCE, "the template writes more than %u MiB",
                 TEMPLATE_OUTPUT_BYTES_MAX >> 20);
    run->buffers_bytes += length;
    if (run->buffers_bytes > run->memory_max) fail_memory(run);
    run->steps += length / 64;
    str_append(&buffer->text, bytes, length);
    uint32_t end = (uint32_t)buffer->text.length;
    if (buffer->num_spans > 0) {
        BufferSpan *last = &buffer->span[buffer->num_spans - 1];
        if (last->origin == origin && last->loop == run->loop_message) {
            last->end = end;
            return;
        }
    }
    if (buffer->num_spans == buffer->spans_capacity) {
        buffer->spans_capacity = buffer->spans_capacity == 0 ? 32 : 2 * buffer->spans_capacity;
        buffer->span = mem_realloc(buffer->span, buffer->spans_capacity, sizeof *buffer->span);
    }
    buffer->span[buffer->num_spans++] =
        (BufferSpan){.end = end, .origin = origin, .loop = run->loop_message};
}

void buffer_write(Run *run, const char *bytes, size_t length, Origin origin)
{
    write_span(run, bytes, length, origin);
}

void buffer_puts(Run *run, const char *text, Origin origin)
{
    write_span(run, text, strlen(text), origin);
}

/* Gives template text the place where it is written, unless it was made at a message's turn
 * already. */
static Origin emit_origin(const Run *run, Origin origin)
{
    if (origin_kind(origin) == ORIGIN_TEMPLATE && origin_message(origin) < 0)
        origin = origin_make(ORIGIN_TEMPLATE, run->loop_message) | (origin & ORIGIN_GENERATION);
    return origin | run->generation;
}

static void write_slice(Run *run, Value string, size_t begin, size_t end, bool emit)
{
    const String *text = string.as.string;
    if (text->run == NULL) {
        write_span(run, text->bytes + begin, end - begin,
                   emit ? emit_origin(run, string.origin) : string.origin);
        return;
    }
    size_t at = 0;
    for (size_t i = 0; i < text->num_runs && at < end; i++) {
        size_t from = at > begin ? at : begin;
        size_t to = text->run[i].end < end ? text->run[i].end : end;
        Origin origin = text->run[i].origin;
        if (to > from)
            write_span(run, text->bytes + from, to - from,
                       emit ? emit_origin(run, origin) : origin);
        at = text->run[i].end;
    }
}

void buffer_write_slice(Run *run, Value string, size_t begin, size_t end)
{
    write_slice(run, string, begin, end, false);
}

void buffer_write_string(Run *run, Value string)
{
    write_slice(run, string, 0, string.as.string->length, false);
}

void buffer_emit(Run *run, Value string)
{
    write_slice(run, string, 0, string.as.string->length, true);
}
