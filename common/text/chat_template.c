#include "text/chat_template.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/jinja/ast.h"

struct ChatTemplate {
    Arena *arena;
    char *where;
    Template tree;
};

/* ---- compiling ---- */

static Status compile_guarded(Compile *compile, const char *source, size_t length, Template *tree)
{
    int status = setjmp(compile->failed);
    if (status != 0) return (Status)status;
    template_parse(compile, source, length, tree);
    template_resolve(compile, tree);
    return OK;
}

Status chat_template_compile(const char *source, size_t length, const char *where,
                             ChatTemplate **ret, Error *err)
{
    if (length > TEMPLATE_SOURCE_BYTES_MAX)
        return error_set(err, ERR_DATA, "%s: a template of %zu bytes; at most %u are accepted",
                         where, length, TEMPLATE_SOURCE_BYTES_MAX);
    size_t valid = utf8_valid_prefix(source, length);
    if (valid < length)
        return error_set(err, ERR_DATA, "%s: not valid UTF-8 at byte %zu", where, valid);
    ChatTemplate *chat_template = mem_calloc(1, sizeof *chat_template);
    chat_template->arena = arena_create();
    chat_template->where = mem_strdup(where);
    Compile *compile = arena_alloc(chat_template->arena, sizeof *compile);
    compile->arena = chat_template->arena;
    compile->where = chat_template->where;
    compile->err = err;
    Status status = compile_guarded(compile, source, length, &chat_template->tree);
    if (status == OK) {
        *ret = chat_template;
    } else {
        chat_template_destroy(chat_template);
    }
    return status;
}

void chat_template_destroy(ChatTemplate *chat_template)
{
    if (chat_template == NULL) return;
    arena_destroy(chat_template->arena);
    free(chat_template->where);
    free(chat_template);
}

void chat_template_list_variables(const ChatTemplate *chat_template, StringList *ret)
{
    const Template *tree = &chat_template->tree;
    for (size_t i = 0; i < tree->num_names; i++) {
        if (tree->given[i].type != VALUE_MISSING) continue; /* a global function */
        char *name = mem_strndup(tree->name[i]->bytes, tree->name[i]->length);
        string_list_append(ret, name);
        free(name);
    }
}

/* ---- rendering ---- */

static Status render_guarded(Run *run, const cJSON *variables)
{
    int status = setjmp(run->failed);
    if (status != 0) return (Status)status;
    buffer_push(run);
    run->context = import_variables(run, variables);
    exec_template(run);
    return OK;
}

static void take_rendering(Run *run, Rendering *ret)
{
    Buffer *output = run->top;
    buffer_close(output);
    *ret = (Rendering){.length = output->length,
                       .has_generation_blocks = run->template->has_generation};
    ret->span = mem_alloc(output->num_spans * sizeof *ret->span);
    uint32_t begin = 0;
    for (size_t i = 0; i < output->num_spans; i++) {
        const BufferSpan *from = &output->span[i];
        OriginKind kind = origin_kind(from->origin);
        bool of_template = kind == ORIGIN_TEMPLATE;
        int32_t message = origin_message(from->origin);
        ret->span[i] = (OriginSpan){.begin = begin,
                                    .end = from->end,
                                    .kind = kind,
                                    .message = of_template ? -1 : message,
                                    .loop_message = of_template ? message : from->loop,
                                    .generation = (from->origin & ORIGIN_GENERATION) != 0};
        begin = from->end;
    }
    ret->num_spans = output->num_spans;
    ret->text = output->owns_text ? output->text : mem_alloc(ret->length + 1);
    if (!output->owns_text && ret->length > 0) memcpy(ret->text, output->text, ret->length);
    ret->text[ret->length] = '\0'; /* a buffer has room for it */
    output->owns_text = false;
}

static void destroy_run(Run *run)
{
    for (size_t i = 0; i < run->buffers_capacity; i++) {
        if (run->buffer[i].owns_text) free(run->buffer[i].text);
        if (run->buffer[i].owns_spans) free(run->buffer[i].span);
    }
    for (MemoryBlock *block = run->block; block != NULL;) {
        MemoryBlock *next = block->next;
        free(block);
        block = next;
    }
}

Status chat_template_render_within(const ChatTemplate *chat_template, const cJSON *variables,
                                   int64_t now, const TemplateLimits *limits, Rendering *ret,
                                   Error *err)
{
    Error local;
    Run on_stack, *run = &on_stack;
    memset(run, 0, offsetof(Run, first_block));
    run->memory_top = run->first_block;
    run->memory_end = run->first_block + sizeof run->first_block;
    run->template = &chat_template->tree;
    run->where = chat_template->where;
    run->err = err != NULL ? err : &local;
    run->line = 1;
    run->loop_message = -1;
    run->literal_origin = ORIGIN_PLAIN_TEMPLATE;
    run->now = now;
    run->steps_max = limits->steps;
    run->memory_max = limits->memory_bytes;
    Status status = render_guarded(run, variables);
    if (status == OK) take_rendering(run, ret);
    destroy_run(run);
    return status;
}

Status chat_template_render(const ChatTemplate *chat_template, const cJSON *variables, int64_t now,
                            Rendering *ret, Error *err)
{
    static const TemplateLimits limits = {.steps = TEMPLATE_STEPS_MAX,
                                          .memory_bytes = TEMPLATE_MEMORY_BYTES_MAX};
    return chat_template_render_within(chat_template, variables, now, &limits, ret, err);
}

void rendering_free(Rendering *rendering)
{
    free(rendering->text);
    free(rendering->span);
    *rendering = (Rendering){0};
}
