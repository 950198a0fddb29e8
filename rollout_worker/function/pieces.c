#include "rollout_worker/function/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

#define PLACEHOLDER "(turn)" /* for an output, where what follows it is rendered */

/* ---- outputs ---- */

void output_table_clear(OutputTable *table)
{
    for (int i = 0; i < table->count; i++) {
        free(table->output[i].call);
        free(table->output[i].prompt);
        generation_clear(&table->output[i].generation);
    }
    free(table->output);
    *table = (OutputTable){0};
}

void output_table_add(OutputTable *table, const char *call, int number, Generation *generation,
                      const int32_t *prompt, int32_t prompt_length)
{
    if (table->count == table->capacity) {
        table->capacity = 2 * table->capacity + 8;
        table->output = mem_realloc(table->output, (size_t)table->capacity, sizeof *table->output);
    }
    size_t bytes = (size_t)prompt_length * sizeof *prompt;
    Output *output = &table->output[table->count++];
    *output = (Output){.call = mem_strdup(call),
                       .number = number,
                       .generation = *generation,
                       .prompt = mem_alloc(bytes),
                       .prompt_length = prompt_length};
    memcpy(output->prompt, prompt, bytes);
    *generation = (Generation){0};
}

static const Output *find_output(const OutputTable *table, const char *call, int number)
{
    for (int i = 0; i < table->count; i++)
        if (table->output[i].number == number && strcmp(table->output[i].call, call) == 0)
            return &table->output[i];
    return NULL;
}

/* ---- resolving ---- */

typedef struct Resolver {
    const PieceContext *context;
    SampleBuilder *builder;
    const Output *last;     /* trained */
    const Output *previous; /* the piece before this one, if it is an output */
    cJSON *messages;        /* owned: of the conversation so far, outputs as placeholders */
    const cJSON *tools, *kwargs;
    int turn; /* the last placeholder in messages; -1: none */
} Resolver;

static const cJSON *member(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static Status add_tokens(Resolver *resolver, const cJSON *list, Error *err)
{
    int32_t vocab = tokenizer_vocab_size(text_model_tokenizer(resolver->context->model));
    const cJSON *entry = NULL;
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "tokens is %s, expected a list", json_type_name(list));
    cJSON_ArrayForEach(entry, list)
    {
        double value = cJSON_IsNumber(entry) ? entry->valuedouble : -1;
        int32_t id = value >= 0 && value < vocab ? (int32_t)value : -1;
        if (id != value)
            return error_set(err, ERR_DATA,
                             "tokens has an entry that is no id of the vocabulary of %d", vocab);
        sample_builder_append_given(resolver->builder, &id, 1);
    }
    return OK;
}

static Status add_text(Resolver *resolver, const cJSON *text, bool special, Error *err)
{
    Encoding encoding = {0};
    const SpecialRanges nowhere = {0};
    if (!cJSON_IsString(text))
        return error_set(err, ERR_DATA, "text is %s, expected a text", json_type_name(text));
    Status status = tokenizer_encode(text_model_tokenizer(resolver->context->model), NULL,
                                     text->valuestring, strlen(text->valuestring),
                                     special ? NULL : &nowhere, false, &encoding, err);
    for (size_t i = 0; status == OK && i < encoding.length; i++)
        sample_builder_append_given(resolver->builder, &encoding.span[i].id, 1);
    encoding_free(&encoding);
    return status;
}

static Status add_messages(Resolver *resolver, const cJSON *piece, Error *err)
{
    const PieceContext *context = resolver->context;
    const cJSON *messages = member(piece, "messages"), *kwargs = member(piece, "template_kwargs");
    TokenizedConversation prompt = {0};
    if (resolver->messages != NULL)
        return error_set(err, ERR_DATA,
                         "a sequence has one piece of messages; what comes later in "
                         "the conversation follows in `follow`");
    if (kwargs == NULL) kwargs = context->template_kwargs;
    if (kwargs != NULL) TRY(conversation_check_kwargs(kwargs, err));
    const ConversationOptions options = {
        .add_generation_prompt = true, .template_kwargs = kwargs, .now = context->now};
    resolver->tools = member(piece, "tools");
    resolver->kwargs = kwargs;
    TRY(conversation_encode(context->model, NULL, messages, resolver->tools, &options, &prompt,
                            err));
    sample_builder_append_given(resolver->builder, prompt.token, (int32_t)prompt.length);
    tokenized_conversation_free(&prompt);
    resolver->messages = cJSON_Duplicate(messages, true);
    return OK;
}

static Status add_output(Resolver *resolver, const cJSON *piece, Error *err)
{
    const cJSON *name = member(piece, "output"), *trained = member(piece, "trained");
    const cJSON *call = cJSON_GetArrayItem(name, 0), *number = cJSON_GetArrayItem(name, 1);
    SampleBuilder *builder = resolver->builder;
    if (!cJSON_IsString(call) || !cJSON_IsNumber(number) || cJSON_GetArraySize(name) != 2)
        return error_set(err, ERR_DATA, "output is no [call, number]");
    const Output *output =
        find_output(resolver->context->outputs, call->valuestring, number->valueint);
    if (output == NULL)
        return error_set(err, ERR_DATA, "there is no output %d of a call %s", number->valueint,
                         QUOTED(call->valuestring));
    const Generation *made = &output->generation;
    if (cJSON_IsFalse(trained)) {
        sample_builder_append_given(builder, made->token, made->length);
    } else {
        bool same = builder->length == output->prompt_length &&
                    memcmp(builder->token, output->prompt,
                           (size_t)builder->length * sizeof *builder->token) == 0;
        if (!same)
            return error_set(err, ERR_DATA,
                             "output %d of call %s stands behind other tokens than it was "
                             "generated from: it cannot be trained there (\"trained\": false)",
                             output->number, QUOTED(output->call));
        if (builder->num_runs > 0 && builder->temperature != made->temperature)
            return error_set(err, ERR_DATA,
                             "the outputs of a sample were made at different temperatures");
        const GeneratedTokens tokens = {
            made->token,       made->log_prob,         made->length,
            made->version_run, made->num_version_runs, made->temperature};
        sample_builder_append_generated(builder, &tokens);
        resolver->last = output;
    }
    resolver->previous = output;
    if (resolver->messages == NULL) return OK;
    cJSON *turn = cJSON_CreateObject();
    cJSON_AddStringToObject(turn, "role", "assistant");
    cJSON_AddStringToObject(turn, "content", PLACEHOLDER);
    cJSON_AddItemToArray(resolver->messages, turn);
    resolver->turn = cJSON_GetArraySize(resolver->messages) - 1;
    return OK;
}

/* What the template writes between an output and the next turn, with these messages between. */
static Status add_follow(Resolver *resolver, const cJSON *list, Error *err)
{
    const PieceContext *context = resolver->context;
    const cJSON *message = NULL;
    TokenizedConversation next = {0};
    if (resolver->previous == NULL || resolver->messages == NULL)
        return error_set(err, ERR_DATA,
                         "follow stands right behind an output, in a sequence that begins with "
                         "messages");
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "follow is %s, expected a list of messages",
                         json_type_name(list));
    cJSON_ArrayForEach(message, list)
        cJSON_AddItemToArray(resolver->messages, cJSON_Duplicate(message, true));
    const ConversationOptions options = {
        .add_generation_prompt = true, .template_kwargs = resolver->kwargs, .now = context->now};
    TRY(conversation_follow(context->model, NULL, resolver->messages, resolver->turn,
                            resolver->tools, &options, &next, err));
    const Generation *made = &resolver->previous->generation;
    bool written = next.length > 0 && made->stop_token == next.token[0]; /* by the model */
    sample_builder_append_given(resolver->builder, next.token + written,
                                (int32_t)next.length - written);
    tokenized_conversation_free(&next);
    return OK;
}

static Status add_piece(Resolver *resolver, const cJSON *piece, Error *err)
{
    Status status;
    bool is_output = member(piece, "output") != NULL;
    if (is_output)
        status = add_output(resolver, piece, err);
    else if (member(piece, "messages") != NULL)
        status = add_messages(resolver, piece, err);
    else if (member(piece, "follow") != NULL)
        status = add_follow(resolver, member(piece, "follow"), err);
    else if (member(piece, "text") != NULL)
        status =
            add_text(resolver, member(piece, "text"), cJSON_IsTrue(member(piece, "special")), err);
    else if (member(piece, "tokens") != NULL)
        status = add_tokens(resolver, member(piece, "tokens"), err);
    else
        status = error_set(err, ERR_DATA,
                           "a piece has none of messages, output, follow, text and tokens");
    if (!is_output) resolver->previous = NULL;
    return status;
}

Status pieces_resolve(const PieceContext *context, const cJSON *list, SampleBuilder *builder,
                      const Output **ret_last, Error *err)
{
    Resolver resolver = {.context = context, .builder = builder, .turn = -1};
    if (!cJSON_IsArray(list))
        return error_set(err, ERR_DATA, "expected a list of pieces, got %s",
                         list == NULL ? "nothing" : json_type_name(list));
    Status status = OK;
    int index = 0;
    Error inner = {0};
    for (const cJSON *piece = list->child; piece != NULL && status == OK; piece = piece->next) {
        status = add_piece(&resolver, piece, &inner);
        if (status != OK) error_set(err, ERR_DATA, "pieces[%d]: %s", index, inner.message);
        index++;
    }
    *ret_last = resolver.last;
    cJSON_Delete(resolver.messages);
    return status == OK ? OK : ERR_DATA;
}
