#include "text/chat_template.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/jinja_ast.h"

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

/* ---- variables: from JSON to values that know their origin ---- */

/* The number of code points, or CHARS_UNKNOWN if the bytes are not UTF-8. */
static uint32_t count_chars(const char *bytes, size_t length)
{
    uint64_t high = 0;
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        high |= word;
    }
    for (; at < length; at++)
        high |= (uint64_t)(unsigned char)bytes[at];
    if ((high & 0x8080808080808080u) == 0) return (uint32_t)length;
    if (utf8_valid_prefix(bytes, length) < length) return CHARS_UNKNOWN;
    uint32_t chars = 0;
    for (size_t i = 0; i < length; i++)
        chars += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return chars;
}

static Value import_text(Run *run, const char *bytes, Origin origin)
{
    size_t length = bytes != NULL ? strlen(bytes) : 0;
    run->memory_max += 16 * length;
    if (length > TEMPLATE_OUTPUT_BYTES_MAX)
        run_fail(run, ERR_RESOURCE, "a string of %zu MiB in the variables", length >> 20);
    String *string = run_alloc_raw(run, sizeof *string);
    *string = (String){.bytes = bytes, .length = (uint32_t)length};
    string->chars = count_chars(bytes, length);
    if (string->chars == CHARS_UNKNOWN)
        run_raise(run, "a string in the variables is not valid UTF-8");
    return value_of_string(string, origin);
}

/* A key that the template spells is the template's own String. */
static Value import_key(Run *run, const char *key, Origin origin)
{
    size_t length = strlen(key);
    const String *known = intern_find(&run->template->interned, key, length);
    return known != NULL ? value_of_string(known, origin) : import_text(run, key, origin);
}

/* A number keeps the kind it was written as: 1.0 is a float, 1 is not (base/json.h). */
static Value import_number(Run *run, const cJSON *json, Origin origin)
{
    const char *spelling = json->valuestring;
    Value value = value_float(json->valuedouble);
    bool whole = spelling != NULL ? strpbrk(spelling, ".eE") == NULL
                                  : json->valuedouble == floor(json->valuedouble);
    if (whole && spelling != NULL) {
        errno = 0;
        value = value_int(strtoll(spelling, NULL, 10));
        if (errno == ERANGE) {
            value = import_text(run, spelling, origin);
            value.type = VALUE_BIGINT;
        }
    } else if (whole && fabs(json->valuedouble) < 9.2e18) {
        value = value_int((int64_t)json->valuedouble);
    }
    value.origin = origin;
    return value;
}

typedef Origin (*MemberOrigin)(const char *key, Origin inherited);

static Value import(Run *run, const cJSON *json, Origin origin);

static size_t count_children(const cJSON *json)
{
    size_t count = 0;
    for (const cJSON *item = json->child; item != NULL; item = item->next)
        count++;
    return count;
}

static Value import_list(Run *run, const cJSON *json, Origin origin)
{
    Value list = value_list(run, count_children(json));
    list.origin = origin;
    size_t count = 0;
    for (const cJSON *item = json->child; item != NULL; item = item->next)
        list_items(list)[count++] = import(run, item, origin);
    return list;
}

static Value import_object(Run *run, const cJSON *json, Origin origin, MemberOrigin member_origin,
                           int32_t message)
{
    Dict *dict = dict_create(run, count_children(json));
    dict->message = message;
    dict->interned = true;
    for (const cJSON *item = json->child; item != NULL; item = item->next) {
        Origin member = member_origin != NULL ? member_origin(item->string, origin) : origin;
        dict_put(run, dict, import_key(run, item->string, origin), import(run, item, member));
    }
    return value_of_dict(dict, origin);
}

static Value import(Run *run, const cJSON *json, Origin origin)
{
    Value value = value_none();
    run_enter(run);
    run_step(run, 1);
    run->memory_max += 256; /* what the value itself takes up */
    switch (json->type & 0xFF) {
    case cJSON_String:
        value = import_text(run, json->valuestring, origin);
        break;
    case cJSON_Number:
        value = import_number(run, json, origin);
        break;
    case cJSON_True:
    case cJSON_False:
        value = value_bool((json->type & 0xFF) == cJSON_True);
        break;
    case cJSON_Array:
        value = import_list(run, json, origin);
        break;
    case cJSON_Object:
        value = import_object(run, json, origin, NULL, -1);
        break;
    default:
        break;
    }
    value.origin = origin;
    run_leave(run);
    return value;
}

static Origin message_member_origin(const char *key, Origin inherited)
{
    static const struct {
        const char *key;
        OriginKind kind;
    } kinds[] = {
        {"content", ORIGIN_CONTENT},      {"reasoning_content", ORIGIN_REASONING},
        {"tool_calls", ORIGIN_TOOL_CALL}, {"role", ORIGIN_ROLE},
        {"reasoning", ORIGIN_REASONING},  {"thinking", ORIGIN_REASONING},
        {"thought", ORIGIN_REASONING},    {"thoughts", ORIGIN_REASONING},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (*key == *kinds[i].key && strcmp(key, kinds[i].key) == 0)
            return origin_make(kinds[i].kind, origin_message(inherited));
    return inherited;
}

static Value import_messages(Run *run, const cJSON *json)
{
    size_t count = (size_t)cJSON_GetArraySize(json);
    if (count > ORIGIN_MESSAGES_MAX)
        run_fail(run, ERR_RESOURCE, "a conversation of %zu messages", count);
    Value list = value_list(run, count);
    list.origin = origin_make(ORIGIN_OTHER, -1);
    int32_t index = 0;
    for (const cJSON *item = json->child; item != NULL; item = item->next, index++) {
        Origin origin = origin_make(ORIGIN_OTHER, index);
        run->memory_max += 1024;
        list_items(list)[index] =
            cJSON_IsObject(item) ? import_object(run, item, origin, message_member_origin, index)
                                 : import(run, item, origin);
    }
    return list;
}

/* bos_token and its like come from the model's own files: they may be control tokens. */
static bool is_token_name(const String *name)
{
    static const char suffix[] = "_token";
    size_t length = sizeof suffix - 1;
    return name->length > length &&
           memcmp(name->bytes + name->length - length, suffix, length) == 0;
}

static Value import_variable(Run *run, const String *name, const cJSON *json)
{
    if (string_is(name, "messages") && cJSON_IsArray(json)) return import_messages(run, json);
    bool is_token = is_token_name(name) && cJSON_IsString(json);
    return import(run, json, is_token ? ORIGIN_PLAIN_TEMPLATE : origin_make(ORIGIN_OTHER, -1));
}

static const cJSON *find_variable(const cJSON *variables, const String *name)
{
    const cJSON *item = variables != NULL ? variables->child : NULL;
    for (; item != NULL; item = item->next)
        if (*item->string == *name->bytes &&
            strncmp(item->string, name->bytes, name->length) == 0 &&
            item->string[name->length] == '\0')
            return item;
    return NULL;
}

/* Only what the template mentions is imported. */
static const Value *import_variables(Run *run, const cJSON *variables)
{
    const Template *tree = run->template;
    Value *context = run_alloc(run, tree->num_names * sizeof *context);
    for (size_t i = 0; i < tree->num_names; i++) {
        const cJSON *json = find_variable(variables, tree->name[i]);
        if (string_is(tree->name[i], "self")) {
            context[i] = (Value){.type = VALUE_SELF, .origin = ORIGIN_PLAIN_TEMPLATE};
        } else if (json != NULL) {
            context[i] = import_variable(run, tree->name[i], json);
        } else if (tree->global[i] != NULL) {
            context[i] = (Value){.type = VALUE_FUNCTION,
                                 .origin = ORIGIN_PLAIN_TEMPLATE,
                                 .as.function = tree->global[i]};
        }
    }
    return context;
}

/* ---- rendering ---- */

static Status render_guarded(Run *run, const cJSON *variables)
{
    int status = setjmp(run->failed);
    if (status != 0) return (Status)status;
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
    ret->text = output->text != NULL ? output->text : mem_alloc(1); /* has room for the NUL */
    ret->text[ret->length] = '\0';
    output->text = NULL;
}

static void destroy_run(Run *run)
{
    for (size_t i = 0; i < run->buffers_capacity; i++) {
        free(run->buffer[i].text);
        free(run->buffer[i].span);
    }
    free(run->buffer);
    for (MemoryBlock *block = run->block; block != NULL;) {
        MemoryBlock *next = block->next;
        free(block);
        block = next;
    }
    free(run);
}

Status chat_template_render_within(const ChatTemplate *chat_template, const cJSON *variables,
                                   int64_t now, const TemplateLimits *limits, Rendering *ret,
                                   Error *err)
{
    Error local;
    Run *run = mem_alloc(sizeof *run);
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
    buffer_push(run);
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
