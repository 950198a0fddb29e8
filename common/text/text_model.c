#include "text/text_model.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/str.h"
#include "text/special_tokens.h"

#define CHAT_TEMPLATE_BYTES_MAX (4u << 20)

/* ---- rendering ---- */

static cJSON *reference_or_null(cJSON *object, const char *key, const cJSON *value)
{
    if (value == NULL) return cJSON_AddNullToObject(object, key);
    cJSON_AddItemReferenceToObject(object, key, (cJSON *)value);
    return NULL;
}

/* The names a template sees, as apply_chat_template passes them: the model's tokens, then what the
 * caller adds, and the four that are always there. */
static cJSON *make_variables(const TextModel *model, const ChatVariables *variables)
{
    cJSON *object = cJSON_CreateObject();
    reference_or_null(object, "messages", variables->messages);
    reference_or_null(object, "tools", variables->tools);
    cJSON_AddBoolToObject(object, "add_generation_prompt", variables->add_generation_prompt);
    const cJSON *kwargs = variables->kwargs != NULL ? variables->kwargs->child : NULL;
    for (; kwargs != NULL; kwargs = kwargs->next)
        if (cJSON_GetObjectItemCaseSensitive(object, kwargs->string) == NULL)
            cJSON_AddItemReferenceToObject(object, kwargs->string, (cJSON *)kwargs);
    if (cJSON_GetObjectItemCaseSensitive(object, "documents") == NULL)
        cJSON_AddNullToObject(object, "documents");
    for (const cJSON *token = model->tokens->child; token != NULL; token = token->next)
        if (cJSON_GetObjectItemCaseSensitive(object, token->string) == NULL)
            cJSON_AddItemReferenceToObject(object, token->string, (cJSON *)token);
    return object;
}

bool text_model_spells(const TextModel *model, const char *word)
{
    const char *text = str_text(&model->sources);
    size_t length = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++)
        if (at > text && (at[-1] == '"' || at[-1] == '\'') && at[length] == at[-1]) return true;
    return false;
}

Status text_model_render(const TextModel *model, const ChatVariables *variables, Rendering *ret,
                         Error *err)
{
    const ChatTemplate *chat_template = model->chat_template;
    if (cJSON_GetArraySize(variables->tools) > 0 && model->tool_template != NULL)
        chat_template = model->tool_template;
    cJSON *object = make_variables(model, variables);
    int64_t now = variables->now != 0 ? variables->now : (int64_t)time(NULL);
    Status status = chat_template_render(chat_template, object, now, ret, err);
    cJSON_Delete(object);
    return status;
}

/* ---- learning how the template behaves ---- */

static const char probe_tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"qFq\",\"description\":\"d\",\"parameters\":"
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"description\":\"d\"}},"
    "\"required\":[\"a\"]}}}]";

static Status render_probe(const TextModel *model, const char *messages_json,
                           const char *tools_json, bool prompt, Rendering *ret)
{
    cJSON *messages = cJSON_Parse(messages_json);
    cJSON *tools = tools_json != NULL ? cJSON_Parse(tools_json) : NULL;
    CHECK(messages != NULL && (tools != NULL) == (tools_json != NULL));
    Status status = text_model_render(
        model,
        &(ChatVariables){
            .messages = messages, .tools = tools, .add_generation_prompt = prompt, .now = 1},
        ret, NULL);
    cJSON_Delete(messages);
    cJSON_Delete(tools);
    return status;
}

/* Where the text written at no message's place begins at the end of the rendering. */
static size_t tail_begin(const Rendering *rendering)
{
    size_t begin = rendering->length;
    for (size_t i = rendering->num_spans; i > 0; i--) {
        const OriginSpan *span = &rendering->span[i - 1];
        if (span->kind != ORIGIN_TEMPLATE || span->loop_message >= 0) break;
        begin = span->begin;
    }
    return begin;
}

/* Reasoning begins in the generation prompt of some models, so that a reader of the answer need not
 * find out whether there is any; it is part of what is trained nevertheless. */
static void cut_reasoning(char *header)
{
    static const char *const openers[] = {"<think>",      "[THINK]",   "<|START_THINKING|>",
                                          "<thought",     "<|think",   "<|inner_",
                                          "<seed:think>", "<reasoning"};
    for (size_t i = 0; i < sizeof openers / sizeof openers[0]; i++) {
        char *at = strstr(header, openers[i]);
        if (at != NULL) *at = '\0';
    }
}

/* What the generation prompt adds, or NULL where the template fails. Where it is not simply added:
 * what stands at the end at no message's place. */
static char *prompt_header(const TextModel *model, const char *tools_json)
{
    static const char question[] = "[{\"role\":\"user\",\"content\":\"x\"}]";
    Rendering with = {0}, without = {0};
    char *header = NULL;
    if (render_probe(model, question, tools_json, true, &with) == OK) {
        size_t begin = tail_begin(&with);
        if (render_probe(model, question, tools_json, false, &without) == OK &&
            str_starts_with(with.text, without.text))
            begin = without.length;
        header = mem_strdup(with.text + begin);
        cut_reasoning(header);
    }
    rendering_free(&with);
    rendering_free(&without);
    return header;
}

static char *learn_header(const TextModel *model)
{
    char *header = prompt_header(model, NULL);
    if (header == NULL) header = prompt_header(model, probe_tools); /* some want tools always */
    return header != NULL ? header : mem_strdup("");
}

/* Do contents that spell qXq and qYq come out as that text? */
static bool renders_text(const TextModel *model, const char *messages_json)
{
    Rendering rendering = {0};
    bool renders = render_probe(model, messages_json, NULL, false, &rendering) == OK &&
                   strstr(rendering.text, "qXq") != NULL && strstr(rendering.text, "qYq") != NULL &&
                   strstr(rendering.text, "'type'") == NULL &&
                   strstr(rendering.text, "\"type\"") == NULL;
    rendering_free(&rendering);
    return renders;
}

static void learn_content(TextModel *model)
{
    model->takes_strings = renders_text(model, "[{\"role\":\"user\",\"content\":\"qXq\"},"
                                               "{\"role\":\"assistant\",\"content\":\"qYq\"}]");
    model->takes_parts = renders_text(
        model, "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"qXq\"}]},"
               "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"qYq\"}]}]");
}

/* A question, a tool call, its answer and, with `last`, what comes of it. */
static char *tool_conversation(const char *content, const char *arguments_json, const char *last)
{
    return mem_printf(
        "[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",%s\"tool_calls\":[{\"id\":"
        "\"call00001\",\"type\":\"function\",\"function\":{\"name\":\"qFq\",\"arguments\":%s}}]},"
        "{\"role\":\"tool\",\"name\":\"qFq\",\"tool_call_id\":\"call00001\",\"content\":\"y\"}%s]",
        content, arguments_json, last);
}

static const char tool_conclusion[] = ",{\"role\":\"assistant\",\"content\":\"z\"}";
static const char arguments_object[] = "{\"qKq\":\"qVq\"}";
static const char arguments_text[] = "\"{\\\"qKq\\\": \\\"qVq\\\"}\"";
static const char *const missing_contents[] = {[CONTENT_ABSENT] = "",
                                               [CONTENT_NULL] = "\"content\":null,",
                                               [CONTENT_EMPTY] = "\"content\":\"\","};

/* Do the arguments of a tool call, given like this, come out as the model would write them: the
 * name and the value, neither as the text of a Python object nor escaped a second time? */
static bool renders_arguments(const TextModel *model, const char *content,
                              const char *arguments_json)
{
    char *messages_json = tool_conversation(content, arguments_json, tool_conclusion);
    Rendering rendering = {0};
    bool renders = render_probe(model, messages_json, probe_tools, false, &rendering) == OK &&
                   strstr(rendering.text, "qKq") != NULL && strstr(rendering.text, "qVq") != NULL &&
                   strstr(rendering.text, "'qKq'") == NULL &&
                   strstr(rendering.text, "\\\"qKq") == NULL;
    rendering_free(&rendering);
    free(messages_json);
    return renders;
}

static void learn_tool_calls(TextModel *model)
{
    for (int i = CONTENT_ABSENT; i <= CONTENT_EMPTY; i++) {
        model->missing_content = (MissingContent)i;
        model->takes_argument_objects =
            renders_arguments(model, missing_contents[i], arguments_object);
        model->takes_argument_texts = renders_arguments(model, missing_contents[i], arguments_text);
        if (model->takes_argument_objects || model->takes_argument_texts) return;
    }
    model->missing_content = CONTENT_ABSENT;
}

/* Where the text written at a message's place begins; the rendering's end if there is none. */
static size_t place_begin(const Rendering *rendering, int32_t message)
{
    for (size_t i = 0; i < rendering->num_spans; i++)
        if (rendering->span[i].loop_message == message) return rendering->span[i].begin;
    return rendering->length;
}

/* What an answer that follows a tool's begins with that the prompt for it has already: "" if it
 * goes on where the prompt ends, NULL if it is not told where it begins. */
static char *learn_continuation(const TextModel *model)
{
    const char *content = missing_contents[model->missing_content];
    const char *arguments = model->takes_argument_objects ? arguments_object : arguments_text;
    char *asked_json = tool_conversation(content, arguments, "");
    char *whole_json = tool_conversation(content, arguments, tool_conclusion);
    Rendering asked = {0}, whole = {0};
    char *continuation = NULL;
    if (render_probe(model, asked_json, probe_tools, true, &asked) == OK &&
        render_probe(model, whole_json, probe_tools, false, &whole) == OK &&
        str_starts_with(whole.text, asked.text)) {
        size_t begin = place_begin(&whole, 3);
        if (begin < whole.length) {
            if (begin > asked.length) begin = asked.length;
            continuation = mem_strndup(whole.text + begin, asked.length - begin);
            cut_reasoning(continuation);
        }
    }
    rendering_free(&asked);
    rendering_free(&whole);
    free(asked_json);
    free(whole_json);
    return continuation;
}

/* ---- loading ---- */

/* A file of the model's folder, *ret NULL if there is none. */
static Status read_optional(const char *folder, const char *name, cJSON **ret, Error *err)
{
    char *path = path_join(folder, name);
    Status status = path_exists(path) ? json_read(path, JSON_FILE_BYTES_MAX, ret, err) : OK;
    free(path);
    return status;
}

static Status compile_source(TextModel *model, const char *source, size_t length, const char *where,
                             Error *err)
{
    model->header_rule = header_rule_of(source, length);
    str_append(&model->sources, source, length);
    return chat_template_compile(source, length, where, &model->chat_template, err);
}

static Status compile_for_tools(TextModel *model, const char *source, size_t length,
                                const char *where, Error *err)
{
    str_append(&model->sources, source, length);
    return chat_template_compile(source, length, where, &model->tool_template, err);
}

/* Compiles the template for chats, or that for chats with tools. */
typedef Status (*Compile)(TextModel *model, const char *source, size_t length, const char *where,
                          Error *err);

static Status compile_file(TextModel *model, const char *path, Error *err)
{
    char *source = NULL;
    size_t length = 0;
    TRY(file_read(path, CHAT_TEMPLATE_BYTES_MAX, &source, &length, err));
    Status status = compile_source(model, source, length, path, err);
    free(source);
    return status;
}

static Status check_source(const cJSON *value, const char *where, Error *err)
{
    if (cJSON_IsString(value)) return OK;
    return error_set(err, ERR_DATA, "%s: chat_template is %s, expected a string", where,
                     json_type_name(value));
}

/* Lines are counted within the value, not within the file around it. */
static Status compile_within(TextModel *model, const cJSON *value, const char *where,
                             const char *name, Compile compile, Error *err)
{
    char *place = mem_printf("%s: chat_template%s", where, name);
    Status status = compile(model, value->valuestring, strlen(value->valuestring), place, err);
    free(place);
    return status;
}

static Status compile_value(TextModel *model, const cJSON *value, const char *where,
                            const char *name, Error *err)
{
    TRY(check_source(value, where, err));
    return compile_within(model, value, where, name, compile_source, err);
}

/* A list of {"name": ..., "template": ...}: the one called default, and tool_use for chats with
 * tools. */
static Status compile_named(TextModel *model, const cJSON *list, const char *where, Error *err)
{
    const cJSON *item, *chosen = NULL, *for_tools = NULL;
    cJSON_ArrayForEach(item, list)
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "name"));
        const cJSON *source = cJSON_GetObjectItemCaseSensitive(item, "template");
        if (name != NULL && strcmp(name, "default") == 0) chosen = source;
        if (name != NULL && strcmp(name, "tool_use") == 0) for_tools = source;
    }
    if (chosen == NULL)
        return error_set(err, ERR_DATA,
                         "%s: chat_template is a list without a template named \"default\"", where);
    TRY(compile_value(model, chosen, where, " \"default\"", err));
    if (for_tools == NULL) return OK;
    TRY(check_source(for_tools, where, err));
    return compile_within(model, for_tools, where, " \"tool_use\"", compile_for_tools, err);
}

/* A template of its own file, such as transformers saves them, if there is one. */
static Status compile_additional(TextModel *model, const char *folder, const char *name,
                                 Compile compile, Error *err)
{
    char *file = mem_printf("additional_chat_templates/%s.jinja", name);
    char *path = path_join(folder, file), *source = NULL;
    size_t length = 0;
    Status status = OK;
    if (path_exists(path)) {
        status = file_read(path, CHAT_TEMPLATE_BYTES_MAX, &source, &length, err);
        if (status == OK) status = compile(model, source, length, path, err);
    }
    free(source);
    free(path);
    free(file);
    return status;
}

/* Files win over the config, all of it: with templates of their own files, its are not looked at.
 */
static Status load_template_files(TextModel *model, const char *folder, Error *err)
{
    char *own = path_join(folder, "chat_template.jinja");
    char *others = path_join(folder, "additional_chat_templates");
    Status status = OK;
    if (path_is_folder(others)) {
        status = compile_additional(model, folder, "default", compile_source, err);
        if (status == OK)
            status = compile_additional(model, folder, "tool_use", compile_for_tools, err);
    }
    if (status == OK && model->chat_template == NULL && path_exists(own))
        status = compile_file(model, own, err);
    if (status == OK && model->chat_template == NULL && model->tool_template != NULL)
        status = error_set(err, ERR_NOT_FOUND,
                           "%s: a template for tools in additional_chat_templates, but no "
                           "chat_template.jinja for conversations without them",
                           folder);
    free(own);
    free(others);
    return status;
}

static Status load_template(TextModel *model, const char *folder, const char *template_path,
                            const cJSON *config, Error *err)
{
    if (template_path != NULL) return compile_file(model, template_path, err);
    TRY(load_template_files(model, folder, err));
    if (model->chat_template != NULL) return OK;
    char *where = path_join(folder, "tokenizer_config.json");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(config, "chat_template");
    Status status;
    if (cJSON_IsArray(value)) {
        status = compile_named(model, value, where, err);
    } else if (value != NULL && !cJSON_IsNull(value)) {
        status = compile_value(model, value, where, "", err);
    } else {
        status = error_set(err, ERR_NOT_FOUND,
                           "%s: no chat template\n"
                           "  expected chat_template.jinja, or chat_template in "
                           "tokenizer_config.json, in that folder\n"
                           "  a base model has none: name one with model.chat_template",
                           folder);
    }
    free(where);
    return status;
}

/* Does only the line that names a token know it? */
static bool is_only_named(const TokenizerExtras *extras, const cJSON *tokenizer, const char *text)
{
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(tokenizer, "model");
    const cJSON *vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab");
    for (size_t i = 0; i < extras->count; i++)
        if (extras->token[i].id < 0 && strcmp(extras->token[i].content, text) == 0)
            return cJSON_GetObjectItemCaseSensitive(vocab, text) == NULL;
    return false;
}

/* transformers would make such an end token up, with an id that no model has ever written. */
static Status check_eos(TextModel *model, const char *folder, const cJSON *tokenizer,
                        const TokenizerExtras *extras, Error *err)
{
    const char *eos =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model->tokens, "eos_token"));
    model->eos_id = eos != NULL ? tokenizer_token_id(model->tokenizer, eos) : -1;
    if (eos != NULL && (model->eos_id < 0 || is_only_named(extras, tokenizer, eos)))
        return error_set(err, ERR_DATA,
                         "%s: eos_token \"%s\" is neither in tokenizer.json nor among the added "
                         "tokens of the files beside it",
                         folder, eos);
    return OK;
}

/* The files that transformers' AutoTokenizer reads. */
typedef struct FolderFiles {
    cJSON *tokenizer, *config, *map, *added;
} FolderFiles;

static Status read_files(const char *path, const char *folder, FolderFiles *files, Error *err)
{
    TRY(json_read(path, JSON_FILE_BYTES_MAX, &files->tokenizer, err));
    TRY(read_optional(folder, "tokenizer_config.json", &files->config, err));
    TRY(read_optional(folder, "special_tokens_map.json", &files->map, err));
    return read_optional(folder, "added_tokens.json", &files->added, err);
}

static Status load_tokenizer(TextModel *model, const char *path, const char *folder,
                             const FolderFiles *files, Error *err)
{
    SpecialTokens special = {0};
    TokenFiles sources = {folder, files->tokenizer, files->config, files->map, files->added};
    TRY(special_tokens_read(&sources, &special, err));
    Status status =
        tokenizer_build(files->tokenizer, path, &special.extras, &model->tokenizer, err);
    if (status == OK) {
        cJSON_Delete(model->tokens);
        model->tokens = special.named;
        special.named = NULL;
        status = check_eos(model, folder, files->tokenizer, &special.extras, err);
    }
    special_tokens_free(&special);
    return status;
}

static Status load(TextModel *model, const char *path, const char *folder,
                   const char *template_path, Error *err)
{
    FolderFiles files = {0};
    Status status = read_files(path, folder, &files, err);
    if (status == OK) status = load_tokenizer(model, path, folder, &files, err);
    if (status == OK) status = load_template(model, folder, template_path, files.config, err);
    if (status == OK) {
        model->header = learn_header(model);
        learn_content(model);
        learn_tool_calls(model);
        model->continuation = learn_continuation(model);
    }
    cJSON_Delete(files.tokenizer);
    cJSON_Delete(files.config);
    cJSON_Delete(files.map);
    cJSON_Delete(files.added);
    return status;
}

Status text_model_load(const char *folder, const char *template_path, TextModel **ret, Error *err)
{
    TextModel *model = mem_calloc(1, sizeof *model);
    model->tokens = cJSON_CreateObject();
    bool is_folder = path_is_folder(folder);
    char *parent = is_folder ? mem_strdup(folder) : path_folder(folder);
    char *path = is_folder ? path_join(folder, "tokenizer.json") : mem_strdup(folder);
    Status status = load(model, path, parent, template_path, err);
    free(parent);
    free(path);
    if (status == OK) {
        *ret = model;
    } else {
        text_model_destroy(model);
    }
    return status;
}

void text_model_destroy(TextModel *model)
{
    if (model == NULL) return;
    tokenizer_destroy(model->tokenizer);
    chat_template_destroy(model->chat_template);
    chat_template_destroy(model->tool_template);
    cJSON_Delete(model->tokens);
    free(model->header);
    free(model->continuation);
    str_free(&model->sources);
    free(model);
}

const Tokenizer *text_model_tokenizer(const TextModel *model)
{
    return model->tokenizer;
}

int32_t text_model_eos_id(const TextModel *model)
{
    return model->eos_id;
}

bool text_model_parses_arguments(const TextModel *model)
{
    return model->takes_argument_objects && !model->takes_argument_texts;
}
