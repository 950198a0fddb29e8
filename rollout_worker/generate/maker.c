#include "rollout_worker/generate/maker.h"

#include <stdlib.h>

#include "base/memory.h"

Status maker_generate(const MakerHost *host, const GenerateRequest *request, const Wanted *wanted,
                      Generation *ret, Error *err)
{
    GenerateRequest asked = *request;
    SamplingParams *params = &asked.params;
    if (params->min_new_tokens > params->max_new_tokens)
        params->min_new_tokens = params->max_new_tokens; /* there is no more room */
    TRY(wanted_check(wanted, err));
    TRY(engine_thread_generate(policy_engine(host->policy), &asked, wanted->given_up, ret, err));
    bool aborted = false;
    for (int i = 0; i < request->num_samples; i++)
        aborted = aborted || ret[i].finish == FINISH_ABORT;
    if (!aborted) return OK;
    for (int i = 0; i < request->num_samples; i++)
        generation_clear(&ret[i]);
    return error_set(err, ERR_CANCELLED, "the samples were given up on their way");
}

Status maker_first_turns(const MakerHost *host, const MakerTask *task, Generation *ret, Error *err)
{
    const TokenizedConversation *prompt = &task->prompt->conversation;
    GenerateRequest request = {
        .sample = task->sample,
        .num_samples = task->num_samples,
        .prompt = prompt->token,
        .prompt_length = (int32_t)prompt->length,
        .params = task->params,
    };
    request.params.max_new_tokens = maker_room(host, task, request.prompt_length);
    return maker_generate(host, &request, task->wanted, ret, err);
}

int32_t maker_room(const MakerHost *host, const MakerTask *task, int64_t prompt_length)
{
    int64_t room = host->config->data.max_length - prompt_length;
    return room < task->params.max_new_tokens ? (int32_t)room : task->params.max_new_tokens;
}

Status maker_text(const MakerHost *host, const Generation *turn, char **ret, size_t *ret_bytes,
                  Error *err)
{
    const Tokenizer *tokenizer = text_model_tokenizer(host->text->model);
    size_t count = (size_t)turn->length - (turn->stop_token >= 0);
    return tokenizer_decode(tokenizer, turn->token, count, false, ret, ret_bytes, err);
}

/* ---- one turn ---- */

static Status once_open(const MakerHost *host, void **ret_self, Error *err)
{
    (void)err;
    *ret_self = mem_alloc(sizeof *host);
    *(MakerHost *)*ret_self = *host;
    return OK;
}

static Status once_make(void *self, const MakerTask *task, Answer *ret, Error *err)
{
    const MakerHost *host = self;
    const int32_t *prompt = task->prompt->conversation.token;
    Generation *made = mem_calloc((size_t)task->num_samples, sizeof *made);
    Status status = maker_first_turns(host, task, made, err);
    bool generated = status == OK;
    for (int i = 0; status == OK && i < task->num_samples; i++) {
        generation_to_sample(&made[i], prompt, &ret[i].sample);
        ret[i].sample.work.turns = 1;
        status = maker_text(host, &made[i], &ret[i].response, &ret[i].response_bytes, err);
    }
    for (int i = 0; generated && i < task->num_samples; i++)
        generation_clear(&made[i]);
    for (int i = 0; status != OK && i < task->num_samples; i++)
        answer_clear(&ret[i]);
    free(made);
    return status;
}

const AnswerMaker make_once = {
    .needs_room = true, .open = once_open, .close = free, .make = once_make};
