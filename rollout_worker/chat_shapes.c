#include "rollout_worker/chat_shapes.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "rollout_worker/chat_messages.h"
#include "rollout_worker/record.h"

static const char *const shape_names[SHAPE_COUNT] = {
    [SHAPE_MESSAGES] = "messages",
    [SHAPE_CONVERSATIONS] = "ShareGPT conversations",
    [SHAPE_ALPACA] = "Alpaca",
    [SHAPE_PROMPT] = "prompt",
    [SHAPE_PROMPT_ANSWER] = "prompt and completion",
    [SHAPE_PAIR] = "chosen and rejected",
};

const char *chat_shape_name(ChatShape shape)
{
    return shape_names[shape];
}

void chat_conversation_clear(ChatConversation *conversation)
{
    cJSON_Delete(conversation->owned[0]);
    cJSON_Delete(conversation->owned[1]);
    *conversation = (ChatConversation){0};
}

/* ---- what stands in a record ---- */

/* What a key is for. The first four are where a conversation may begin: one of them is there at
 * most. */
typedef enum {
    PART_MESSAGES,
    PART_CONVERSATIONS,
    PART_INSTRUCTION,
    PART_PROMPT,
    NUM_BEGINNINGS,
    PART_ANSWER = NUM_BEGINNINGS,
    PART_CHOSEN,
    PART_REJECTED,
    PART_SYSTEM,
    NUM_PARTS,
} Part;

static const struct {
    const char *key;
    Part part;
} part_keys[] = {
    {"messages", PART_MESSAGES},
    {"conversations", PART_CONVERSATIONS},
    {"conversation", PART_CONVERSATIONS},
    {"instruction", PART_INSTRUCTION},
    {"prompt", PART_PROMPT},
    {"completion", PART_ANSWER},
    {"response", PART_ANSWER},
    {"chosen", PART_CHOSEN},
    {"rejected", PART_REJECTED},
    {"system", PART_SYSTEM},
};

#define NUM_PART_KEYS (sizeof part_keys / sizeof part_keys[0])

typedef struct Reading {
    const cJSON *record;
    const char *source;
    const cJSON *part[NUM_PARTS]; /* NULL: absent, or null */
    ChatConversation *ret;
    Error *err;
} Reading;

static const cJSON *value_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

static bool is_text(const cJSON *value)
{
    return cJSON_IsString(value) && value->valuestring[0] != '\0';
}

static bool is_turns(const cJSON *value)
{
    return cJSON_IsString(value) || cJSON_IsArray(value) || cJSON_IsObject(value);
}

static Status refuse_mix(const Reading *reading, const cJSON *a, const cJSON *b)
{
    char found[160], remedy[160];
    snprintf(found, sizeof found, "both \"%s\" and \"%s\"", a->string, b->string);
    snprintf(remedy, sizeof remedy,
             "remove one of them, or name the one that counts, as in data.input_key: %s",
             a->string);
    return record_refuse(reading->err, reading->source, "the record mixes two shapes", found,
                         "the keys of one shape of chat data", remedy);
}

/* Finds the parts by their keys. */
static Status find_parts(Reading *reading)
{
    for (const cJSON *item = reading->record->child; item != NULL; item = item->next) {
        size_t i = 0;
        while (i < NUM_PART_KEYS && strcmp(item->string, part_keys[i].key) != 0)
            i++;
        if (i == NUM_PART_KEYS || cJSON_IsNull(item)) continue;
        const cJSON **part = &reading->part[part_keys[i].part];
        if (*part != NULL) return refuse_mix(reading, *part, item);
        *part = item;
    }
    return OK;
}

/* ---- other names for the parts ---- */

/* A question and its answer as data sets have them that are none of the shapes' own. */
static const struct {
    const char *question, *answer;
} other_names[] = {{"question", "answer"},   {"query", "answer"},   {"prompt", "answer"},
                   {"question", "response"}, {"query", "response"}, {"input", "output"}};

#define NUM_OTHER_NAMES (sizeof other_names / sizeof other_names[0])

static bool has_beginning(const Reading *reading)
{
    for (int part = 0; part < NUM_BEGINNINGS; part++)
        if (reading->part[part] != NULL) return true;
    return false;
}

/* Takes a question under another name where the record begins with nothing else, and its answer, or
 * the pair that answers it. */
static void find_other_names(Reading *reading)
{
    const cJSON **part = reading->part, *prompt = part[PART_PROMPT];
    bool pair = part[PART_CHOSEN] != NULL && part[PART_REJECTED] != NULL;
    if (has_beginning(reading) && prompt == NULL) return;
    for (size_t i = 0; i < NUM_OTHER_NAMES; i++) {
        const cJSON *question = value_of(reading->record, other_names[i].question);
        const cJSON *answer = value_of(reading->record, other_names[i].answer);
        if (prompt != NULL && question != prompt) continue;
        if (!is_text(question) && !messages_are_likely(question)) continue;
        if (pair && strcmp(other_names[i].question, "input") != 0) {
            part[PART_PROMPT] = question;
            return;
        }
        if (pair || (!is_text(answer) && !messages_are_likely(answer))) continue;
        if (part[PART_ANSWER] != NULL && part[PART_ANSWER] != answer) continue;
        part[PART_PROMPT] = question;
        part[PART_ANSWER] = answer;
        return;
    }
}

static bool begins_with(const cJSON *list, const cJSON *beginning)
{
    const cJSON *message = list->child;
    for (const cJSON *wanted = beginning->child; wanted != NULL; wanted = wanted->next) {
        if (message == NULL || !cJSON_Compare(message, wanted, true)) return false;
        message = message->next;
    }
    return true;
}

static bool is_first_question(const cJSON *prompt, const cJSON *messages)
{
    for (const cJSON *message = messages->child; message != NULL; message = message->next) {
        if (!message_has_role(message, "user")) continue;
        return cJSON_Compare(prompt, value_of(message, "content"), true);
    }
    return false;
}

/* Drops what is said twice: a prompt with which the messages begin, and messages that are those of
 * the chosen answer. */
static void drop_repetitions(Reading *reading)
{
    const cJSON **part = reading->part;
    const cJSON *prompt = part[PART_PROMPT], *messages = part[PART_MESSAGES];
    if (!cJSON_IsArray(messages) || prompt == NULL) return;
    if (part[PART_CHOSEN] != NULL) {
        if (cJSON_Compare(messages, part[PART_CHOSEN], true)) part[PART_MESSAGES] = NULL;
    } else if (cJSON_IsString(prompt) ? is_first_question(prompt, messages)
                                      : cJSON_IsArray(prompt) && begins_with(messages, prompt)) {
        part[PART_PROMPT] = NULL;
    }
}

/* "prompt", "answer", "id" and 2 more. */
static void list_keys(const cJSON *object, Str *out)
{
    int count = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        if (count < 8) str_printf(out, "%s%s", count > 0 ? ", " : "", QUOTED(member->string));
        count++;
    }
    if (count > 8) str_printf(out, " and %d more", count - 8);
}

/* The member under one of the names, in any case of letters. */
static const cJSON *find_name(const cJSON *record, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const cJSON *value = cJSON_GetObjectItem(record, names[i]); /* whatever the case */
        if (is_turns(value)) return value;
    }
    return NULL;
}

/* What a record of no shape probably meant: a key that looks like a conversation, one that is
 * nearly right, or a question and its answer under other names. */
static void advise(const cJSON *record, Str *out)
{
    static const char *const questions[] = {"question", "query", "problem",     "input",
                                            "user",     "human", "user_prompt", "goal"};
    static const char *const answers[] = {"answer",    "output", "solution", "response",
                                          "assistant", "gpt",    "target",   "completion"};
    const char *names[NUM_PART_KEYS];
    for (size_t i = 0; i < NUM_PART_KEYS; i++)
        names[i] = part_keys[i].key;
    for (const cJSON *item = record->child; item != NULL; item = item->next) {
        if (!messages_are_likely(item)) continue;
        str_printf(out, "if %s is the conversation, say so in data.input_key",
                   QUOTED(item->string));
        return;
    }
    const cJSON *question = find_name(record, questions, sizeof questions / sizeof questions[0]);
    const cJSON *answer = find_name(record, answers, sizeof answers / sizeof answers[0]);
    if (question != NULL && answer != NULL && answer != question) {
        str_printf(out,
                   "if they are question and answer, jq -c '{prompt: .%s, completion: .%s}' "
                   "renames them; for RL name the first in data.input_key, the other in "
                   "data.label_key",
                   question->string, answer->string);
        return;
    }
    if (question != NULL) {
        str_printf(out, "if %s is the prompt, say so in data.input_key", QUOTED(question->string));
        return;
    }
    for (const cJSON *item = record->child; item != NULL; item = item->next) {
        const char *nearest = str_nearest(item->string, names, NUM_PART_KEYS);
        if (nearest == NULL) continue;
        if (strcmp(nearest, item->string) == 0) { /* a shape's own key is passed over as null */
            str_printf(out,
                       "\"%s\" is null, which counts as absent: write its value, or drop the "
                       "record",
                       nearest);
            return;
        }
        str_printf(out, "is %s meant to be \"%s\"? Rename it, or name it in data.input_key",
                   QUOTED(item->string), nearest);
        return;
    }
    if (is_text(value_of(record, "text")))
        str_puts(out, "plain text is not trained; if \"text\" is a prompt for RL, say so in "
                      "data.input_key");
    else
        str_puts(out, "convert the record, or name the key of its conversation in data.input_key");
}

static Status refuse_unknown(const Reading *reading)
{
    Str found = {0}, remedy = {0};
    str_puts(&found, reading->record->child != NULL ? "the keys " : "no key at all");
    list_keys(reading->record, &found);
    advise(reading->record, &remedy);
    record_refuse(
        reading->err, reading->source, "the record is of no known shape", found.data,
        "\"messages\", \"conversations\", \"instruction\" and \"output\", \"prompt\" (and "
        "\"completion\"), or \"chosen\" and \"rejected\"",
        remedy.data);
    str_free(&found);
    str_free(&remedy);
    return ERR_DATA;
}

static Status refuse_half_pair(const Reading *reading)
{
    bool chosen = reading->part[PART_CHOSEN] != NULL;
    char what[80];
    snprintf(what, sizeof what, "\"%s\" stands without \"%s\"", chosen ? "chosen" : "rejected",
             chosen ? "rejected" : "chosen");
    return record_refuse(
        reading->err, reading->source, what, NULL, "both, or neither",
        "add the other one, or name the key of the conversation in data.input_key");
}

/* ---- building conversations ---- */

static Status append(const Reading *reading, cJSON *list, const cJSON *value, const char *role)
{
    RecordPlace place = {reading->source, value->string};
    return messages_append(list, value, role, &place, reading->err);
}

static Status append_text(const Reading *reading, cJSON *list, const cJSON *text, const char *role)
{
    RecordPlace place = {reading->source, text->string};
    if (!cJSON_IsString(text))
        return refuse_type(&place, text, "a text", "correct the record, or drop it", reading->err);
    messages_append_one(list, role, text);
    return OK;
}

/* Gives the conversation a list of its own, which is empty. */
static cJSON *own_list(Reading *reading)
{
    cJSON *list = cJSON_CreateArray();
    reading->ret->owned[0] = list;
    reading->ret->messages = list;
    return list;
}

/* A list that needs no conversion stays the record's. */
static Status read_list(Reading *reading, const cJSON *value)
{
    bool froms = cJSON_IsArray(value) && messages_have_from(value);
    reading->ret->shape = froms ? SHAPE_CONVERSATIONS : SHAPE_MESSAGES;
    reading->ret->messages = value;
    reading->ret->list_key = value->string;
    if (cJSON_IsArray(value) && !froms && !messages_have_function_call(value)) return OK;
    return append(reading, own_list(reading), value, NULL);
}

/* [["question", "answer"], ...] */
static Status append_history(const Reading *reading, cJSON *list, const cJSON *history)
{
    static const char expected[] = "a list of pairs of texts, as in [[\"question\", \"answer\"]]";
    RecordPlace place = {reading->source, "history"};
    if (history == NULL || (cJSON_IsString(history) && !is_text(history))) return OK;
    bool good = cJSON_IsArray(history);
    for (const cJSON *turn = good ? history->child : NULL; turn != NULL && good;
         turn = turn->next) {
        good = cJSON_GetArraySize(turn) == 2 && cJSON_IsString(turn->child) &&
               cJSON_IsString(turn->child->next);
        if (!good) break;
        messages_append_one(list, "user", turn->child);
        messages_append_one(list, "assistant", turn->child->next);
    }
    if (good) return OK;
    if (!cJSON_IsArray(history))
        return refuse_type(&place, history, expected, "correct the record, or drop it",
                           reading->err);
    return record_refuse(reading->err, reading->source,
                         "key \"history\" has an entry of another form", NULL, expected,
                         "correct the record, or drop it");
}

/* Alpaca's instruction and input are one question, a line each; Dolly calls the second context. */
static Status append_question(const Reading *reading, cJSON *list)
{
    const cJSON *instruction = reading->part[PART_INSTRUCTION];
    const cJSON *input = value_of(reading->record, "input");
    const cJSON *context = value_of(reading->record, "context");
    if (is_text(context) && is_text(input)) return refuse_mix(reading, input, context);
    if (!is_text(input) && context != NULL) input = context;
    if (input != NULL && !cJSON_IsString(input)) {
        RecordPlace place = {reading->source, input->string};
        return refuse_type(&place, input, "a text", "correct the record, or drop it", reading->err);
    }
    if (!is_text(input)) return append_text(reading, list, instruction, "user");
    if (!is_text(instruction) && cJSON_IsString(instruction))
        return append_text(reading, list, input, "user");
    TRY(append_text(reading, list, instruction, "user"));
    Str text = {0};
    str_printf(&text, "%s\n%s", instruction->valuestring, input->valuestring);
    cJSON *message = cJSON_GetArrayItem(list, cJSON_GetArraySize(list) - 1);
    cJSON_ReplaceItemInObjectCaseSensitive(message, "content", cJSON_CreateString(text.data));
    str_free(&text);
    return OK;
}

/* Appends what comes before an answer: whatever the record begins with. */
static Status append_beginning(const Reading *reading, cJSON *list)
{
    for (int part = 0; part < NUM_BEGINNINGS; part++) {
        if (reading->part[part] == NULL) continue;
        if (part != PART_INSTRUCTION) return append(reading, list, reading->part[part], "user");
        TRY(append_history(reading, list, value_of(reading->record, "history")));
        return append_question(reading, list);
    }
    return OK;
}

static Status read_alpaca(Reading *reading)
{
    const cJSON *output = value_of(reading->record, "output"), *answer = reading->part[PART_ANSWER];
    if (output != NULL && answer != NULL) return refuse_mix(reading, output, answer);
    if (output == NULL) output = answer;
    if (output == NULL)
        return record_refuse(reading->err, reading->source,
                             "\"instruction\" stands without \"output\"", NULL,
                             "an answer under \"output\"",
                             "add it, or name the key of the conversation in data.input_key");
    reading->ret->shape = SHAPE_ALPACA;
    cJSON *list = own_list(reading);
    TRY(append_beginning(reading, list));
    return append_text(reading, list, output, "assistant");
}

/* A prompt alone, or with its answer. An answer whose label is false is one that must not be
 * learned (TRL's unpaired preference): it is part of what is given. */
static Status read_prompt(Reading *reading)
{
    const cJSON *answer = reading->part[PART_ANSWER];
    reading->ret->shape = answer != NULL ? SHAPE_PROMPT_ANSWER : SHAPE_PROMPT;
    cJSON *list = own_list(reading);
    TRY(append_beginning(reading, list));
    reading->ret->num_prompt_messages = cJSON_GetArraySize(list);
    if (answer == NULL && cJSON_IsArray(reading->part[PART_PROMPT]))
        reading->ret->list_key = reading->part[PART_PROMPT]->string;
    if (answer != NULL) TRY(append(reading, list, answer, "assistant"));
    if (answer != NULL && cJSON_IsFalse(value_of(reading->record, "label")))
        reading->ret->num_prompt_messages = cJSON_GetArraySize(list);
    return OK;
}

/* ---- pairs ---- */

/* How many messages from the first on are the same; the last one of a list never counts. */
static int common_beginning(const cJSON *a, const cJSON *b)
{
    int count = 0;
    a = a->child;
    b = b->child;
    while (a != NULL && b != NULL && a->next != NULL && b->next != NULL &&
           cJSON_Compare(a, b, true)) {
        a = a->next;
        b = b->next;
        count++;
    }
    return count;
}

/* Whether the answers are whole conversations: where there is nothing before them, where they begin
 * with it, and, as TRL has it, beside a prompt that is a text where they are not. */
static bool answers_are_whole(const Reading *reading, const cJSON *prompt, const cJSON *chosen,
                              const cJSON *rejected)
{
    if (prompt->child == NULL) return true;
    if (begins_with(chosen, prompt) && begins_with(rejected, prompt)) return true;
    return cJSON_IsString(reading->part[PART_PROMPT]) &&
           cJSON_IsArray(reading->part[PART_CHOSEN]) &&
           !message_has_role(chosen->child, "assistant");
}

static void move_all(cJSON *from, cJSON *to)
{
    while (from->child != NULL)
        cJSON_AddItemToArray(to, cJSON_DetachItemFromArray(from, 0));
}

/* A conversation of a pair: `beginning` and `answer`, both taken; of a whole one the answer alone.
 */
static cJSON *join(cJSON *beginning, cJSON *answer, bool whole)
{
    if (!whole) move_all(answer, beginning);
    cJSON_Delete(whole ? beginning : answer);
    return whole ? answer : beginning;
}

/* Where two whole conversations part, both have to be at an answer. */
static Status check_parting(const Reading *reading, const cJSON *chosen, const cJSON *rejected,
                            int common)
{
    const cJSON *a = cJSON_GetArrayItem(chosen, common), *b = cJSON_GetArrayItem(rejected, common);
    char found[120];
    if (message_has_role(a, "assistant") && message_has_role(b, "assistant")) return OK;
    snprintf(found, sizeof found, "chosen[%d] and rejected[%d] are not both an assistant's", common,
             common);
    return record_refuse(reading->err, reading->source,
                         "\"chosen\" and \"rejected\" do not answer the same prompt", found,
                         "two conversations that are the same up to an answer",
                         "correct the record, or name the one to train on in data.input_key");
}

/* Without a prompt beside them answers are conversations, and no texts. */
static Status check_answer_form(const Reading *reading, const cJSON *answer)
{
    RecordPlace place = {reading->source, answer->string};
    if (!cJSON_IsString(answer) || has_beginning(reading)) return OK;
    bool transcript = strstr(answer->valuestring, "Human:") != NULL &&
                      strstr(answer->valuestring, "Assistant:") != NULL;
    return refuse_type(&place, answer,
                       "a list of messages, or an answer to a \"prompt\" that stands beside it",
                       transcript ? "split the transcript into messages: docs/data.md, Recipes, "
                                    "has a command for it"
                                  : "add the prompt, or convert the record",
                       reading->err);
}

static Status read_pair(Reading *reading)
{
    ChatConversation *ret = reading->ret;
    cJSON *beginning[2], *answer[2];
    Status status = OK;
    for (int i = 0; i < 2; i++) {
        beginning[i] = cJSON_CreateArray();
        answer[i] = cJSON_CreateArray();
        if (status == OK) status = append_beginning(reading, beginning[i]);
        const char *role = beginning[i]->child != NULL ? "assistant" : NULL;
        const cJSON *value = reading->part[i == 0 ? PART_CHOSEN : PART_REJECTED];
        if (status == OK) status = check_answer_form(reading, value);
        if (status == OK) status = append(reading, answer[i], value, role);
    }
    bool whole = status == OK && answers_are_whole(reading, beginning[0], answer[0], answer[1]);
    ret->shape = SHAPE_PAIR;
    ret->num_prompt_messages =
        whole ? common_beginning(answer[0], answer[1]) : cJSON_GetArraySize(beginning[0]);
    ret->owned[0] = join(beginning[0], answer[0], whole);
    ret->owned[1] = join(beginning[1], answer[1], whole);
    ret->messages = ret->owned[0];
    ret->rejected = ret->owned[1];
    if (whole)
        status = check_parting(reading, ret->messages, ret->rejected, ret->num_prompt_messages);
    return status;
}

/* ---- the whole ---- */

/* The part with which the conversation begins, or NUM_BEGINNINGS; two of them are too many. */
static Status find_beginning(const Reading *reading, int *ret)
{
    *ret = NUM_BEGINNINGS;
    for (int part = 0; part < NUM_BEGINNINGS; part++) {
        if (reading->part[part] == NULL) continue;
        if (*ret < NUM_BEGINNINGS)
            return refuse_mix(reading, reading->part[*ret], reading->part[part]);
        *ret = part;
    }
    return OK;
}

static Status read_by_shape(Reading *reading)
{
    int beginning = NUM_BEGINNINGS;
    TRY(find_parts(reading));
    find_other_names(reading);
    drop_repetitions(reading);
    TRY(find_beginning(reading, &beginning));
    const cJSON *answer = reading->part[PART_ANSWER];
    bool chosen = is_turns(reading->part[PART_CHOSEN]);
    bool rejected = is_turns(reading->part[PART_REJECTED]);
    if (chosen != rejected) return refuse_half_pair(reading);
    if (chosen && answer != NULL) return refuse_mix(reading, reading->part[PART_CHOSEN], answer);
    if (chosen) return read_pair(reading);
    if (beginning == NUM_BEGINNINGS) return refuse_unknown(reading);
    if (answer != NULL && beginning != PART_PROMPT && beginning != PART_INSTRUCTION)
        return refuse_mix(reading, reading->part[beginning], answer);
    if (beginning == PART_INSTRUCTION) return read_alpaca(reading);
    if (beginning == PART_PROMPT) return read_prompt(reading);
    return read_list(reading, reading->part[beginning]);
}

static Status refuse_missing(const Reading *reading, const char *key)
{
    Str found = {0}, what = {0}, remedy = {0};
    str_printf(&what, "key \"%.60s\" is missing", key);
    str_puts(&found, reading->record->child != NULL ? "the keys " : "no key at all");
    list_keys(reading->record, &found);
    const char *names[64];
    size_t count = 0;
    for (const cJSON *item = reading->record->child; item != NULL && count < 64; item = item->next)
        names[count++] = item->string;
    const char *nearest = str_nearest(key, names, count);
    if (nearest != NULL)
        str_printf(&remedy, "did you mean %s? Name it in data.input_key", QUOTED(nearest));
    else
        str_puts(&remedy, "name another key in data.input_key, or none: the shape then tells");
    record_refuse(reading->err, reading->source, what.data, found.data,
                  "the conversation, which data.input_key says is there", remedy.data);
    str_free(&what);
    str_free(&found);
    str_free(&remedy);
    return ERR_DATA;
}

static Status read_by_key(Reading *reading, const char *key)
{
    const cJSON *value = record_value(reading->record, key);
    reading->part[PART_SYSTEM] = value_of(reading->record, "system");
    if (value == NULL) return refuse_missing(reading, key);
    if (!cJSON_IsString(value)) {
        Status status = read_list(reading, value);
        reading->ret->list_key = key;
        return status;
    }
    reading->part[PART_PROMPT] = value;
    return read_prompt(reading);
}

/* Opens the conversation with the record's system prompt, if it has no system message of its own.
 */
static Status apply_system(Reading *reading)
{
    ChatConversation *ret = reading->ret;
    const cJSON *system = reading->part[PART_SYSTEM], *first = ret->messages->child;
    RecordPlace place = {reading->source, "system"};
    if (system == NULL || (cJSON_IsString(system) && !is_text(system))) return OK;
    if (!cJSON_IsString(system))
        return refuse_type(&place, system, "a text, the system prompt",
                           "correct the record, or rename the key", reading->err);
    if (message_has_role(first, "system") || message_has_role(first, "developer")) return OK;
    if (ret->owned[0] == NULL) {
        const cJSON *borrowed = ret->messages;
        TRY(append(reading, own_list(reading), borrowed, NULL));
    }
    for (int i = 0; i < 2 && ret->owned[i] != NULL; i++) {
        cJSON *message = cJSON_CreateObject();
        cJSON_AddStringToObject(message, "role", "system");
        cJSON_AddItemReferenceToObject(message, "content", (cJSON *)system);
        cJSON_InsertItemInArray(ret->owned[i], 0, message);
    }
    if (ret->num_prompt_messages > 0) ret->num_prompt_messages++;
    ret->num_added = 1;
    return OK;
}

Status chat_conversation_read(const cJSON *record, const char *input_key, const char *source,
                              ChatConversation *ret, Error *err)
{
    ChatConversation conversation = {0};
    Reading reading = {.record = record, .source = source, .ret = &conversation, .err = err};
    Status status = input_key != NULL ? read_by_key(&reading, input_key) : read_by_shape(&reading);
    if (status == OK) status = apply_system(&reading);
    if (status == OK)
        *ret = conversation;
    else
        chat_conversation_clear(&conversation);
    return status;
}
