#include "rollout_worker/tools/multi_turn.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"

#define PLACEHOLDER "(turn)"  /* for a generated turn, where what follows it is rendered */
#define CUTS_MAX    16        /* tries to make answers short enough */
#define ERROR_MARK  "error: " /* before what a tool says of a call that was wrong */

struct MultiTurn {
    MultiTurnOptions options;
    const ToolFormat *format;
};

struct Dialogue {
    const MultiTurn *multi_turn;
    cJSON *messages, *tools, *kwargs; /* owned; messages have a placeholder for each turn */
    int64_t now;
    SampleBuilder builder;
    int32_t turns, calls, call_errors;
    int32_t max_length;
    const Wanted *wanted;
    int32_t last_begin, last_end; /* of the last turn, its end token not included */
    int64_t position;
    int32_t index;
    DialogueState state;
};

static const char *const state_names[DIALOGUE_STATE_COUNT] = {
    "open", "answered", "max_turns", "max_length", "foreign_end", "aborted"};

const char *dialogue_state_name(DialogueState state)
{
    CHECK((unsigned)state < DIALOGUE_STATE_COUNT);
    return state_names[state];
}

/* ---- what dialogues share ---- */

Status multi_turn_create(const MultiTurnOptions *options, MultiTurn **ret, Error *err)
{
    const ToolFormat *format = NULL;
    if (options->max_turns < 1 || options->max_length < 2 || options->max_answer_tokens < 1)
        return error_set(err, ERR_INVALID,
                         "max_turns is %d, max_length %d and max_answer_tokens %d, expected at "
                         "least 1, 2 and 1",
                         options->max_turns, options->max_length, options->max_answer_tokens);
    if (options->format == NULL || strcmp(options->format, "auto") == 0)
        TRY(tool_format_detect(options->model, &format, err));
    else
        TRY(tool_format_find(options->format, &format, err));
    MultiTurn *multi_turn = mem_calloc(1, sizeof *multi_turn);
    multi_turn->options = *options;
    multi_turn->options.format = format->name;
    multi_turn->format = format;
    *ret = multi_turn;
    return OK;
}

void multi_turn_destroy(MultiTurn *multi_turn)
{
    free(multi_turn);
}

static void append_turn(Dialogue *dialogue, const GeneratedTurn *turn)
{
    dialogue->last_begin = dialogue->builder.length;
    sample_builder_append_generated(&dialogue->builder, &turn->tokens);
    dialogue->last_end = dialogue->builder.length - (turn->stop_token >= 0);
    dialogue->turns++;
}

/* ---- a dialogue ---- */

Status dialogue_create(const MultiTurn *multi_turn, const DialogueStart *start, Dialogue **ret,
                       Error *err)
{
    int32_t max_length = multi_turn->options.max_length;
    if (start->max_length > 0 && start->max_length < max_length) max_length = start->max_length;
    if (start->prompt_length >= max_length)
        return error_set(err, ERR_RESOURCE,
                         "the prompt has %d tokens and leaves no room for a turn within %d",
                         start->prompt_length, max_length);
    CHECK(start->prompt_length >= 1 && cJSON_IsArray(start->messages));
    Dialogue *dialogue = mem_calloc(1, sizeof *dialogue);
    dialogue->multi_turn = multi_turn;
    dialogue->messages = cJSON_Duplicate(start->messages, true);
    dialogue->tools = start->tools == NULL ? NULL : cJSON_Duplicate(start->tools, true);
    dialogue->kwargs =
        start->template_kwargs == NULL ? NULL : cJSON_Duplicate(start->template_kwargs, true);
    dialogue->now = start->now;
    dialogue->position = start->position;
    dialogue->index = start->index;
    dialogue->max_length = max_length;
    dialogue->wanted = start->wanted;
    sample_builder_append_given(&dialogue->builder, start->prompt, start->prompt_length);
    dialogue->last_begin = dialogue->last_end = start->prompt_length;
    *ret = dialogue;
    return OK;
}

void dialogue_destroy(Dialogue *dialogue)
{
    if (dialogue == NULL) return;
    cJSON_Delete(dialogue->messages);
    cJSON_Delete(dialogue->tools);
    cJSON_Delete(dialogue->kwargs);
    sample_builder_free(&dialogue->builder);
    free(dialogue);
}

const int32_t *dialogue_tokens(const Dialogue *dialogue, int32_t *ret_length)
{
    *ret_length = dialogue->builder.length;
    return dialogue->builder.token;
}

int32_t dialogue_room(const Dialogue *dialogue)
{
    return dialogue->max_length - dialogue->builder.length;
}

int32_t dialogue_turns(const Dialogue *dialogue)
{
    return dialogue->turns;
}

int32_t dialogue_calls(const Dialogue *dialogue)
{
    return dialogue->calls;
}

int32_t dialogue_call_errors(const Dialogue *dialogue)
{
    return dialogue->call_errors;
}

static const Tokenizer *tokenizer_of(const Dialogue *dialogue)
{
    return text_model_tokenizer(dialogue->multi_turn->options.model);
}

Status dialogue_answer(const Dialogue *dialogue, char **ret_text, Error *err)
{
    size_t length = 0;
    return tokenizer_decode(tokenizer_of(dialogue), dialogue->builder.token + dialogue->last_begin,
                            (size_t)(dialogue->last_end - dialogue->last_begin), false, ret_text,
                            &length, err);
}

/* ---- tools ---- */

static void free_answers(char **answer, int count)
{
    for (int i = 0; answer != NULL && i < count; i++)
        free(answer[i]);
    free(answer);
}

/* Makes the calls that are some; the others are answered with what is wrong with them. */
static Status make_calls(const Dialogue *dialogue, const ToolCalls *calls, char **ret_answer,
                         Error *err)
{
    const ToolRunner *runner = &dialogue->multi_turn->options.runner;
    const ToolCaller caller = {dialogue->position, dialogue->index, dialogue->turns,
                               dialogue->wanted};
    ToolCall *whole = mem_calloc((size_t)calls->count, sizeof *whole);
    char **answer = mem_calloc((size_t)calls->count, sizeof *answer);
    int count = 0, at = 0;
    for (int i = 0; i < calls->count; i++)
        if (calls->call[i].fault == NULL) whole[count++] = calls->call[i];
    Status status =
        count == 0 ? OK : runner->run(runner->context, &caller, whole, count, answer, err);
    for (int i = 0; status == OK && i < calls->count; i++)
        ret_answer[i] = calls->call[i].fault == NULL
                            ? answer[at++]
                            : mem_printf(ERROR_MARK "%s", calls->call[i].fault);
    free(whole);
    free(answer);
    return status;
}

/* ---- what follows a turn ---- */

static bool continues_character(char byte)
{
    return ((unsigned char)byte & 0xc0) == 0x80;
}

/* The text, or its begin and end where it has more bytes than that. */
static char *shorten(const char *text, size_t bytes_max)
{
    size_t length = strlen(text), head = bytes_max / 2, tail = length - (bytes_max - head);
    if (length <= bytes_max) return mem_strdup(text);
    while (head > 0 && continues_character(text[head]))
        head--;
    while (tail < length && continues_character(text[tail]))
        tail++;
    return mem_printf("%.*s\n[%zu bytes are left out]\n%s", (int)head, text, tail - head,
                      text + tail);
}

static void add_message(cJSON *messages, const char *role, const char *content, const char *name)
{
    cJSON *message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "role", role);
    cJSON_AddStringToObject(message, "content", content);
    if (name != NULL && *name != '\0') cJSON_AddStringToObject(message, "name", name);
    cJSON_AddItemToArray(messages, message);
}

/* Takes back what add_messages appended. */
static void drop_messages(Dialogue *dialogue, int kept)
{
    while (cJSON_GetArraySize(dialogue->messages) > kept)
        cJSON_DeleteItemFromArray(dialogue->messages, kept);
}

static void add_messages(Dialogue *dialogue, const ToolCalls *calls, char *const *answer,
                         size_t bytes_max)
{
    add_message(dialogue->messages, "assistant", PLACEHOLDER, NULL);
    for (int i = 0; i < calls->count; i++) {
        char *text = shorten(answer[i], bytes_max);
        add_message(dialogue->messages, "tool", text, calls->call[i].name);
        free(text);
    }
}

/* The tokens that follow a turn with these calls; on success the dialogue has the messages. */
static Status follow(Dialogue *dialogue, const ToolCalls *calls, char *const *answer,
                     TokenizedConversation *ret, Error *err)
{
    const MultiTurnOptions *options = &dialogue->multi_turn->options;
    const ConversationOptions rendering = {
        .add_generation_prompt = true, .template_kwargs = dialogue->kwargs, .now = dialogue->now};
    int kept = cJSON_GetArraySize(dialogue->messages);
    size_t bytes_max = 0;
    for (int i = 0; i < calls->count; i++)
        if (strlen(answer[i]) > bytes_max) bytes_max = strlen(answer[i]);
    for (int cut = 0;; cut++) {
        add_messages(dialogue, calls, answer, bytes_max);
        Status status = conversation_follow(options->model, NULL, dialogue->messages, kept,
                                            dialogue->tools, &rendering, ret, err);
        if (status == OK && ((int64_t)ret->length <= options->max_answer_tokens ||
                             cut == CUTS_MAX || bytes_max == 0))
            return OK;
        drop_messages(dialogue, kept);
        if (status != OK) return status;
        /* by the share that is too much, and a little more */
        bytes_max = bytes_max * (size_t)options->max_answer_tokens / ret->length * 7 / 8;
        tokenized_conversation_free(ret);
    }
}

/* ---- the next state ---- */

static Status close_dialogue(Dialogue *dialogue, const GeneratedTurn *turn, DialogueState state,
                             DialogueState *ret_state)
{
    append_turn(dialogue, turn);
    dialogue->state = *ret_state = state;
    return OK;
}

/* Whether the model ended its turn with a control token other than the one that the template ends
 * turns with: nothing that follows would be what the template writes. */
static bool ends_foreign(const Dialogue *dialogue, const GeneratedTurn *turn, int32_t terminator)
{
    return turn->stop_token >= 0 && turn->stop_token != terminator &&
           tokenizer_id_kind(tokenizer_of(dialogue), turn->stop_token) == TOKEN_KIND_CONTROL;
}

/* Appends the turn and what follows it, or ends the dialogue where that cannot be. */
static Status go_on(Dialogue *dialogue, const GeneratedTurn *turn, const ToolCalls *calls,
                    char *const *answer, DialogueState *ret_state, Error *err)
{
    TokenizedConversation next = {0};
    TRY(follow(dialogue, calls, answer, &next, err));
    Status status = OK;
    bool written = next.length > 0 && turn->stop_token == next.token[0]; /* by the model */
    int32_t length = (int32_t)next.length - written;
    if (ends_foreign(dialogue, turn, next.length > 0 ? next.token[0] : -1)) {
        status = close_dialogue(dialogue, turn, DIALOGUE_FOREIGN_END, ret_state);
    } else if (turn->tokens.length + length >= dialogue_room(dialogue)) {
        status = close_dialogue(dialogue, turn, DIALOGUE_MAX_LENGTH, ret_state);
    } else {
        append_turn(dialogue, turn);
        sample_builder_append_given(&dialogue->builder, next.token + written, length);
        dialogue->calls += calls->count;
        for (int i = 0; i < calls->count; i++)
            dialogue->call_errors += strncmp(answer[i], ERROR_MARK, strlen(ERROR_MARK)) == 0;
        *ret_state = DIALOGUE_OPEN;
    }
    tokenized_conversation_free(&next);
    return status;
}

/* The calls of a turn that ended. */
static Status read_calls(const Dialogue *dialogue, const GeneratedTurn *turn, ToolCalls *ret,
                         Error *err)
{
    char *text = NULL;
    size_t length = 0;
    TRY(tokenizer_decode(tokenizer_of(dialogue), turn->tokens.token,
                         (size_t)(turn->tokens.length - (turn->stop_token >= 0)), false, &text,
                         &length, err));
    tool_format_read(dialogue->multi_turn->format, text, dialogue->tools, ret);
    free(text);
    return OK;
}

Status dialogue_take(Dialogue *dialogue, const GeneratedTurn *turn, DialogueState *ret_state,
                     Error *err)
{
    CHECK(dialogue->state == DIALOGUE_OPEN && turn->tokens.length >= (turn->stop_token >= 0));
    if (turn->tokens.length > dialogue_room(dialogue))
        return error_set(err, ERR_INVALID, "the turn has %d tokens where there is room for %d",
                         turn->tokens.length, dialogue_room(dialogue));
    if (turn->finish == TURN_ABORTED)
        return close_dialogue(dialogue, turn, DIALOGUE_ABORTED, ret_state);
    if (turn->finish == TURN_AT_LIMIT)
        return close_dialogue(dialogue, turn, DIALOGUE_MAX_LENGTH, ret_state);
    ToolCalls calls = {0};
    char **answer = NULL;
    Status status = read_calls(dialogue, turn, &calls, err);
    if (status != OK) goto done;
    if (calls.count == 0) {
        status = close_dialogue(dialogue, turn, DIALOGUE_ANSWERED, ret_state);
    } else if (dialogue->turns + 1 >= dialogue->multi_turn->options.max_turns) {
        status = close_dialogue(dialogue, turn, DIALOGUE_MAX_TURNS, ret_state);
    } else {
        answer = mem_calloc((size_t)calls.count, sizeof *answer);
        status = make_calls(dialogue, &calls, answer, err);
        if (status == OK) status = go_on(dialogue, turn, &calls, answer, ret_state, err);
    }
done:
    free_answers(answer, calls.count);
    tool_calls_clear(&calls);
    return status;
}

void dialogue_to_sample(const Dialogue *dialogue, Sample *ret)
{
    DialogueState state = dialogue->state;
    bool whole = state == DIALOGUE_ANSWERED || state == DIALOGUE_FOREIGN_END;
    bool cut = state == DIALOGUE_MAX_TURNS || state == DIALOGUE_MAX_LENGTH;
    sample_builder_to_sample(&dialogue->builder, ret);
    ret->position = dialogue->position;
    ret->index = dialogue->index;
    ret->work = (SampleWork){.turns = dialogue->turns,
                             .tool_calls = dialogue->calls,
                             .tool_errors = dialogue->call_errors};
    ret->status = whole ? SAMPLE_COMPLETED : cut ? SAMPLE_TRUNCATED : SAMPLE_ABORTED;
}
