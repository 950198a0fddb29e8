/* Answers of several turns with tools between them (tools/multi_turn.h). The first turns of a group
 * are one request, so that the prompt is computed once; from there on each answer has a thread of
 * its own, which reads from top to bottom: a turn, its calls, the next turn. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/generate/failures.h"
#include "rollout_worker/generate/maker.h"
#include "rollout_worker/tools/multi_turn.h"
#include "rollout_worker/tools/tool_set.h"

typedef struct Turns {
    MakerHost host;
    ToolSet *tools;
    MultiTurn *multi_turn;
    Failures *failures;
} Turns;

static void turns_close(void *self)
{
    Turns *turns = self;
    if (turns == NULL) return;
    multi_turn_destroy(turns->multi_turn);
    tool_set_close(turns->tools);
    failures_destroy(turns->failures);
    free(turns);
}

static Status open_tools(Turns *turns, Error *err)
{
    const char *text = turns->host.config->rollout.tools;
    cJSON *spec = NULL;
    TRY(json_parse(text, strlen(text), "rollout.tools", &spec, err));
    Status status = tool_set_open(spec, &turns->tools, err);
    cJSON_Delete(spec);
    return status == OK ? OK : error_prefix(err, "rollout.tools");
}

static Status open_turns(Turns *turns, Error *err)
{
    const JobConfig *config = turns->host.config;
    TRY(open_tools(turns, err));
    const MultiTurnOptions options = {
        .model = turns->host.text->model,
        .runner = tool_set_runner(turns->tools),
        .format = config->rollout.tool_format,
        .max_turns = (int32_t)config->rollout.max_turns,
        .max_length = (int32_t)config->data.max_length,
        .max_answer_tokens = (int32_t)config->rollout.max_tool_response_length,
    };
    Status status = multi_turn_create(&options, &turns->multi_turn, err);
    if (status == ERR_UNSUPPORTED)
        error_append(err,
                     "The template is %s. Name another file with model.chat_template, for example "
                     "deploy/examples/tools/chat_template.jinja.",
                     config->model.chat_template != NULL ? config->model.chat_template
                                                         : config->model.tokenizer);
    return status == OK ? OK : error_prefix(err, "rollout.tools");
}

static Status turns_open(const MakerHost *host, void **ret_self, Error *err)
{
    Turns *turns = mem_calloc(1, sizeof *turns);
    turns->host = *host;
    turns->failures = failures_create((FailuresOf){"a tool", "rollout.tools"}, host->config);
    Status status = open_turns(turns, err);
    if (status == OK)
        *ret_self = turns;
    else
        turns_close(turns);
    return status;
}

static Status turns_watch(void *self, int64_t until_ms, Error *err)
{
    Turns *turns = self;
    Status status = tool_set_watch(turns->tools, until_ms, err);
    return status == OK ? OK : error_prefix(err, "rollout.tools");
}

static Trouble *turns_trouble(const void *self)
{
    const Turns *turns = self;
    return failures_trouble(turns->failures);
}

static const cJSON *turns_tools(const void *self)
{
    const Turns *turns = self;
    return tool_set_functions(turns->tools);
}

/* ---- one answer ---- */

/* What its thread works with. */
typedef struct Speaker {
    Turns *turns;
    const MakerTask *task;
    const cJSON *tools;   /* of the prompt: a list */
    const Wanted *wanted; /* the task's, with the tools' trouble */
    int index;
    Generation turn; /* the last one; owned */
    Answer *answer;
    int64_t tool_ns;
    int retries;
    Status status;
    Error err;
    pthread_t thread;
    bool running;
} Speaker;

static Status create_dialogue(const Speaker *speaker, Dialogue **ret, Error *err)
{
    const Prompt *prompt = speaker->task->prompt;
    int32_t length = (int32_t)prompt->conversation.length;
    const DialogueStart start = {
        .messages = prompt->messages,
        .tools = speaker->tools,
        .template_kwargs = prompt->chat.template_kwargs,
        .now = CHAT_TEMPLATE_TIME,
        .prompt = prompt->conversation.token,
        .prompt_length = length,
        .position = prompt->record->position,
        .index = speaker->index,
        .max_length = length + maker_room(&speaker->turns->host, speaker->task, length),
        .wanted = speaker->wanted,
    };
    return dialogue_create(speaker->turns->multi_turn, &start, ret, err);
}

static GeneratedTurn turn_of(const Generation *made)
{
    return (GeneratedTurn){
        .tokens = {made->token, made->log_prob, made->length, made->version_run,
                   made->num_version_runs, made->temperature},
        .finish = made->finish == FINISH_STOP ? TURN_STOPPED : TURN_AT_LIMIT,
        .stop_token = made->stop_token,
    };
}

/* Has the turn's calls made, again where a tool fails. *ret_lost: they were given up. */
static Status take_turn(Speaker *speaker, Dialogue *dialogue, DialogueState *ret_state,
                        bool *ret_lost, Error *err)
{
    const GeneratedTurn turn = turn_of(&speaker->turn);
    Failures *failures = speaker->turns->failures;
    for (int attempt = 1;; attempt++) {
        bool again = false;
        int64_t began = clock_ns();
        int32_t calls = dialogue_calls(dialogue);
        Status status = dialogue_take(dialogue, &turn, ret_state, err);
        speaker->tool_ns += clock_ns() - began;
        if (status == OK && dialogue_calls(dialogue) > calls) failures_note_success(failures);
        if (status == ERR_CANCELLED) TRY(trouble_check(speaker->wanted->trouble, err));
        if (status == OK || !failures_are_of(status)) return status;
        const Error why = *err;
        TRY(failures_note(failures, &why, attempt, speaker->wanted, &again, err));
        if (!again) {
            *ret_lost = true;
            *err = why;
            return OK;
        }
        speaker->retries++;
    }
}

static Status next_turn(Speaker *speaker, const Dialogue *dialogue, Error *err)
{
    int32_t length = 0;
    GenerateRequest request = {
        .sample = speaker->task->sample,
        .first_index = (uint32_t)speaker->index,
        .num_samples = 1,
        .prompt = dialogue_tokens(dialogue, &length),
        .params = speaker->task->params,
    };
    request.prompt_length = length;
    request.params.max_new_tokens = dialogue_room(dialogue);
    generation_clear(&speaker->turn);
    return maker_generate(&speaker->turns->host, &request, speaker->task->wanted, &speaker->turn,
                          err);
}

static Status finish_answer(Speaker *speaker, const Dialogue *dialogue, Error *err)
{
    Answer *answer = speaker->answer;
    dialogue_to_sample(dialogue, &answer->sample);
    answer->sample.work.retries = speaker->retries;
    answer->sample.work.tool_s = (float)((double)speaker->tool_ns / 1e9);
    return maker_text(&speaker->turns->host, &speaker->turn, &answer->response,
                      &answer->response_bytes, err);
}

static void give_up(Speaker *speaker, const Error *why)
{
    const RolloutRecord *record = speaker->task->prompt->record;
    char *message = mem_printf("%s: an answer was given up because a tool failed: %s\n"
                               "  to do: see to the tool (rollout.tools)",
                               record->source, why->message);
    speaker->answer->sample.work.retries = speaker->retries;
    answer_reject(speaker->answer, REJECT_FAILED, message);
    free(message);
}

static Status speak(Speaker *speaker, Error *err)
{
    Dialogue *dialogue = NULL;
    DialogueState state = DIALOGUE_OPEN;
    bool lost = false;
    TRY(create_dialogue(speaker, &dialogue, err));
    Status status = take_turn(speaker, dialogue, &state, &lost, err);
    while (status == OK && !lost && state == DIALOGUE_OPEN) {
        status = next_turn(speaker, dialogue, err);
        if (status == OK) status = take_turn(speaker, dialogue, &state, &lost, err);
    }
    if (status == OK && lost)
        give_up(speaker, err);
    else if (status == OK)
        status = finish_answer(speaker, dialogue, err);
    dialogue_destroy(dialogue);
    return status;
}

static void *speaker_main(void *argument)
{
    Speaker *speaker = argument;
    speaker->status = speak(speaker, &speaker->err);
    return NULL;
}

/* ---- a group ---- */

/* Where there is no thread to be had an answer is made on this one, after the others. */
static void run_speakers(Speaker *speakers, int count)
{
    for (int i = 1; i < count; i++)
        speakers[i].running =
            pthread_create(&speakers[i].thread, NULL, speaker_main, &speakers[i]) == 0;
    for (int i = 0; i < count; i++)
        if (!speakers[i].running) speaker_main(&speakers[i]);
    for (int i = 1; i < count; i++)
        if (speakers[i].running) pthread_join(speakers[i].thread, NULL);
}

/* A record may have its tools as a text. */
static cJSON *tools_of(const Prompt *prompt)
{
    const cJSON *tools = prompt->chat.tools;
    cJSON *list = NULL;
    Error err;
    if (!cJSON_IsString(tools)) return cJSON_Duplicate(tools, true);
    if (json_parse(tools->valuestring, strlen(tools->valuestring), "tools", &list, &err) != OK)
        return NULL;
    return list;
}

static Status turns_make(void *self, const MakerTask *task, Answer *ret, Error *err)
{
    Turns *turns = self;
    size_t count = (size_t)task->num_samples;
    Generation *first = mem_calloc(count, sizeof *first);
    Speaker *speakers = mem_calloc(count, sizeof *speakers);
    const Wanted wanted = {.given_up = task->wanted->given_up,
                           .ended = task->wanted->ended,
                           .trouble = failures_trouble(turns->failures)};
    cJSON *tools = tools_of(task->prompt);
    Status status = maker_first_turns(&turns->host, task, first, err);
    if (status != OK) goto done;
    for (size_t i = 0; i < count; i++)
        speakers[i] = (Speaker){.turns = turns,
                                .task = task,
                                .tools = tools,
                                .wanted = &wanted,
                                .index = (int)i,
                                .turn = first[i],
                                .answer = &ret[i]};
    run_speakers(speakers, task->num_samples);
    for (size_t i = 0; i < count; i++) {
        generation_clear(&speakers[i].turn);
        if (status != OK || speakers[i].status == OK) continue;
        status = speakers[i].status;
        if (err != NULL) *err = speakers[i].err;
    }
    for (size_t i = 0; status != OK && i < count; i++)
        answer_clear(&ret[i]);
done:
    cJSON_Delete(tools);
    free(speakers);
    free(first);
    return status;
}

const AnswerMaker make_turns = {.needs_room = true,
                                .open = turns_open,
                                .close = turns_close,
                                .watch = turns_watch,
                                .trouble = turns_trouble,
                                .tools = turns_tools,
                                .make = turns_make};
