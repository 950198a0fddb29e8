#include "text/jinja/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

_Noreturn void run_fail(Run *run, Status status, const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    Guard *guard = status == ERR_DATA ? run->guard : NULL;
    if (guard != NULL) {
        run->guard = guard->outer;
        guard->message = run_alloc(run, strlen(message) + 1);
        strcpy(guard->message, message);
        longjmp(guard->failed, 1);
    }
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

#define BLOCK_BYTES ((size_t)64 << 10)

void *run_alloc_block(Run *run, size_t bytes)
{
    size_t used = run->memory_used + run->buffers_bytes;
    if (bytes > run->memory_max || used > run->memory_max - bytes) fail_memory(run);
    size_t size = bytes > BLOCK_BYTES / 4 ? bytes : BLOCK_BYTES;
    MemoryBlock *block = mem_alloc(sizeof *block + size);
    block->next = run->block;
    run->block = block;
    run->memory_used += size;
    if (size == BLOCK_BYTES) { /* the rest is for what comes next */
        run->memory_end = block->bytes + size;
        run->memory_top = block->bytes + ((bytes + 15) & ~(size_t)15);
    }
    return block->bytes;
}

void run_check_length(Run *run, uint64_t length)
{
    if (length > TEMPLATE_OUTPUT_BYTES_MAX)
        run_fail(run, ERR_RESOURCE, "a string longer than %u MiB", TEMPLATE_OUTPUT_BYTES_MAX >> 20);
}

_Noreturn void run_fail_steps(Run *run)
{
    run_fail(run, ERR_RESOURCE, "the template takes more than %llu steps",
             (unsigned long long)run->steps_max);
}

_Noreturn void run_fail_depth(Run *run)
{
    run_fail(run, ERR_RESOURCE, "the template recurses deeper than %d levels", TEMPLATE_DEPTH_MAX);
}

/* ---- generators ---- */

static void drop_buffers(Run *run, size_t count)
{
    run->num_buffers = count;
    run->top = &run->buffer[count - 1];
}

Value value_produce(Run *run, Produce produce, Value self, const Args *args)
{
    Generator *generator = run_alloc(run, sizeof *generator);
    Guard *guard = run_alloc(run, sizeof *guard);
    size_t num_buffers = run->num_buffers;
    int depth = run->depth, line = run->line;
    guard->outer = run->guard;
    run->guard = guard;
    if (setjmp(guard->failed) == 0) {
        produce(run, self, args, generator);
        run->guard = guard->outer;
    } else {
        drop_buffers(run, num_buffers);
        run->depth = depth;
        run->line = line;
        generator->failure = guard->message;
    }
    return (Value){
        .type = VALUE_GENERATOR, .origin = ORIGIN_PLAIN_TEMPLATE, .as.generator = generator};
}

/* ---- buffers ---- */

void buffer_push(Run *run)
{
    if (run->num_buffers == run->buffers_capacity) {
        size_t capacity = run->buffers_capacity == 0 ? 8 : 2 * run->buffers_capacity;
        Buffer *grown = run_alloc(run, capacity * sizeof *grown);
        if (run->num_buffers > 0) memcpy(grown, run->buffer, run->num_buffers * sizeof *grown);
        run->buffer = grown;
        run->buffers_capacity = capacity;
    }
    run->top = &run->buffer[run->num_buffers++];
    run->top->length = 0;
    run->top->num_spans = 0;
    run->top->origin = ORIGIN_NOTHING;
}

void buffer_drop(Run *run)
{
    CHECK(run->num_buffers > 1);
    run->top = &run->buffer[--run->num_buffers - 1];
}

void buffer_close(Buffer *buffer)
{
    if (buffer->num_spans > 0) buffer->span[buffer->num_spans - 1].end = (uint32_t)buffer->length;
}

/* The text from `begin` on, with its origins, as a string. */
static Value buffer_text(Run *run, const Buffer *buffer, size_t begin)
{
    size_t first = begin > 0 ? buffer->num_spans : 0; /* what is taken is near the end */
    while (first > 0 && buffer->span[first - 1].end > begin)
        first--;
    bool empty = first == buffer->num_spans;
    Origin origin = empty ? ORIGIN_PLAIN_TEMPLATE : buffer->span[first].origin;
    const char *bytes = buffer->length > begin ? buffer->text + begin : "";
    Value value = value_text(run, bytes, buffer->length - begin, origin);
    size_t last = first;
    while (last < buffer->num_spans && buffer->span[last].origin == origin)
        last++;
    if (last == buffer->num_spans) return value;
    OriginRun *runs = run_alloc_raw(run, (buffer->num_spans - first) * sizeof *runs);
    size_t count = 0;
    for (size_t i = first; i < buffer->num_spans; i++) {
        const BufferSpan *span = &buffer->span[i];
        bool same = count > 0 && runs[count - 1].origin == span->origin;
        if (!same) runs[count++].origin = span->origin;
        runs[count - 1].end = span->end - (uint32_t)begin;
    }
    String *string = (String *)value.as.string;
    string->run = runs;
    string->num_runs = (uint32_t)count;
    return value;
}

Value buffer_pop(Run *run)
{
    buffer_close(run->top);
    Value value = buffer_text(run, run->top, 0);
    buffer_drop(run);
    return value;
}

Value buffer_retract(Run *run, size_t begin)
{
    Buffer *buffer = run->top;
    buffer_close(buffer);
    Value value = buffer_text(run, buffer, begin);
    while (buffer->num_spans > 0 &&
           (buffer->num_spans > 1 ? buffer->span[buffer->num_spans - 2].end : 0) >= begin)
        buffer->num_spans--;
    buffer->length = begin;
    const BufferSpan *open = buffer->num_spans > 0 ? &buffer->span[buffer->num_spans - 1] : NULL;
    buffer->origin = open != NULL ? open->origin : ORIGIN_NOTHING;
    buffer->loop = open != NULL ? open->loop : -1;
    return value;
}

static void buffer_grow(Run *run, Buffer *buffer, size_t length)
{
    if (length > TEMPLATE_OUTPUT_BYTES_MAX)
        run_fail(run, ERR_RESOURCE, "the template writes more than %u MiB",
                 TEMPLATE_OUTPUT_BYTES_MAX >> 20);
    size_t least = run->num_buffers == 1 ? 4096 : 1024; /* the output is the longest */
    if (buffer->text == NULL && length < least) {
        buffer->text = run_alloc_raw(run, least);
        buffer->capacity = least;
        return;
    }
    size_t capacity = buffer->capacity < 4096 ? 4096 : buffer->capacity;
    while (capacity <= length)
        capacity *= 2;
    run->buffers_bytes += capacity - (buffer->owns_text ? buffer->capacity : 0);
    if (run->buffers_bytes + run->memory_used > run->memory_max) fail_memory(run);
    char *grown = mem_realloc(buffer->owns_text ? buffer->text : NULL, capacity, 1);
    if (!buffer->owns_text && buffer->length > 0) memcpy(grown, buffer->text, buffer->length);
    buffer->text = grown;
    buffer->capacity = capacity;
    buffer->owns_text = true;
}

#define FIRST_SPANS 64

static void spans_grow(Run *run, Buffer *buffer)
{
    if (buffer->span == NULL) {
        buffer->span = run_alloc_raw(run, FIRST_SPANS * sizeof *buffer->span);
        buffer->spans_capacity = FIRST_SPANS;
        return;
    }
    size_t capacity = 2 * buffer->spans_capacity, bytes = capacity * sizeof *buffer->span;
    run->buffers_bytes += buffer->owns_spans ? bytes / 2 : bytes;
    if (run->buffers_bytes + run->memory_used > run->memory_max) fail_memory(run);
    BufferSpan *grown =
        mem_realloc(buffer->owns_spans ? buffer->span : NULL, capacity, sizeof *buffer->span);
    if (!buffer->owns_spans) memcpy(grown, buffer->span, buffer->num_spans * sizeof *grown);
    buffer->span = grown;
    buffer->spans_capacity = capacity;
    buffer->owns_spans = true;
}

static void open_span(Run *run, Buffer *buffer, Origin origin)
{
    if (buffer->num_spans == buffer->spans_capacity) spans_grow(run, buffer);
    BufferSpan *span = &buffer->span[buffer->num_spans];
    if (buffer->num_spans++ > 0) span[-1].end = (uint32_t)buffer->length;
    *span = (BufferSpan){.origin = origin, .loop = run->loop_message};
    buffer->origin = origin;
    buffer->loop = run->loop_message;
}

void buffer_write(Run *run, const char *bytes, size_t length, Origin origin)
{
    Buffer *buffer = run->top;
    if (length == 0) return;
    if (buffer->capacity - buffer->length <= length)
        buffer_grow(run, buffer, buffer->length + length);
    if (buffer->origin != origin || buffer->loop != run->loop_message)
        open_span(run, buffer, origin);
    char *to = buffer->text + buffer->length;
    buffer->length += length;
    if (length < 64) {
        copy_short(to, bytes, length);
    } else {
        run_step(run, length / 64);
        memcpy(to, bytes, length);
    }
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
        buffer_write(run, text->bytes + begin, end - begin,
                     emit ? emit_origin(run, string.origin) : string.origin);
        return;
    }
    size_t at = 0;
    for (size_t i = 0; i < text->num_runs && at < end; i++) {
        size_t from = at > begin ? at : begin;
        size_t to = text->run[i].end < end ? text->run[i].end : end;
        Origin origin = text->run[i].origin;
        if (to > from)
            buffer_write(run, text->bytes + from, to - from,
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
    const String *text = string.as.string;
    if (text->run == NULL) {
        buffer_write(run, text->bytes, text->length, emit_origin(run, string.origin));
    } else {
        write_slice(run, string, 0, text->length, true);
    }
}
