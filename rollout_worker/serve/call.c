#include "rollout_worker/serve/call.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/memory.h"

#define LOOK_MS 50 /* between looks at whether the client is still there */

/* A prompt's way back. */
typedef struct Post {
    CallInbox *inbox;
    uint64_t id;      /* the generator's, once `submitted` */
    int first_choice; /* its samples are choices from here on */
    int left;         /* samples without a last word; 0: nothing more comes */
    bool submitted;
} Post;

/* What the generator's thread brings, until the HTTP thread takes it. */
struct CallInbox {
    pthread_mutex_t lock;
    pthread_cond_t news;
    bool wants_tokens;
    TokenEvent *event; /* index: of the choice */
    int count, capacity;
    Generation *result; /* [num_results]; index: of the choice */
    int num_results;
    bool failed;
    Error failure;
    Post *post; /* [num_posts] */
    int num_posts;
    TokenEvent *spare; /* the HTTP thread's, to exchange for `event` */
    int spare_capacity;
};

/* ---- the generator's thread ---- */

static void on_token(void *context, const TokenEvent *event)
{
    const Post *post = context;
    CallInbox *inbox = post->inbox;
    if (!inbox->wants_tokens) return;
    pthread_mutex_lock(&inbox->lock);
    if (inbox->count == inbox->capacity) {
        inbox->capacity = inbox->capacity * 2 + 16;
        inbox->event = mem_realloc(inbox->event, (size_t)inbox->capacity, sizeof *inbox->event);
    }
    inbox->event[inbox->count] = *event;
    inbox->event[inbox->count++].index = event->index + (uint32_t)post->first_choice;
    pthread_cond_signal(&inbox->news);
    pthread_mutex_unlock(&inbox->lock);
}

static void on_result(void *context, Generation *result)
{
    Post *post = context;
    CallInbox *inbox = post->inbox;
    pthread_mutex_lock(&inbox->lock);
    Generation *to = &inbox->result[inbox->num_results++];
    *to = *result;
    to->index += (uint32_t)post->first_choice;
    post->left--;
    pthread_cond_signal(&inbox->news);
    pthread_mutex_unlock(&inbox->lock);
}

static void on_failure(void *context, const Error *err)
{
    Post *post = context;
    CallInbox *inbox = post->inbox;
    pthread_mutex_lock(&inbox->lock);
    if (!inbox->failed) inbox->failure = *err;
    inbox->failed = true;
    post->left = 0;
    pthread_cond_signal(&inbox->news);
    pthread_mutex_unlock(&inbox->lock);
}

/* ---- lifecycle ---- */

static CallInbox *inbox_create(const ServeRequest *request, int samples)
{
    CallInbox *inbox = mem_calloc(1, sizeof *inbox);
    pthread_mutex_init(&inbox->lock, NULL);
    condition_init(&inbox->news);
    inbox->wants_tokens = request->stream;
    inbox->result = mem_calloc((size_t)samples, sizeof *inbox->result);
    inbox->num_posts = request->num_prompts;
    inbox->post = mem_calloc((size_t)inbox->num_posts, sizeof *inbox->post);
    return inbox;
}

static void inbox_destroy(CallInbox *inbox)
{
    for (int i = 0; i < inbox->num_results; i++)
        generation_clear(&inbox->result[i]);
    pthread_cond_destroy(&inbox->news);
    pthread_mutex_destroy(&inbox->lock);
    free(inbox->event);
    free(inbox->spare);
    free(inbox->result);
    free(inbox->post);
    free(inbox);
}

static void make_id(Call *call)
{
    static const char *const PREFIXES[] = {
        [API_CHAT] = "chatcmpl-", [API_COMPLETION] = "cmpl-", [API_GENERATE] = ""};
    uint64_t random[2];
    CHECK(getrandom(random, sizeof random, 0) == sizeof random);
    snprintf(call->id, sizeof call->id, "%s%012llx%012llx", PREFIXES[call->request.api],
             (unsigned long long)(random[0] >> 16), (unsigned long long)(random[1] >> 16));
}

static void make_choices(Call *call)
{
    const ServeRequest *request = &call->request;
    const Tokenizer *tokenizer = text_model_tokenizer(call->model->text);
    call->choice = mem_calloc((size_t)call->num_choices, sizeof *call->choice);
    int index = 0;
    for (int p = 0; p < request->num_prompts; p++) {
        const ServePrompt *prompt = &request->prompt[p];
        call->inbox->post[p] = (Post){.inbox = call->inbox, .first_choice = index};
        for (int i = 0; i < prompt->n; i++, index++) {
            CallChoice *choice = &call->choice[index];
            choice->prompt = prompt;
            choice->index = index;
            choice_text_init(&choice->text, tokenizer, &prompt->params, request->keep_special,
                             request->keep_stop);
        }
    }
}

Status call_start(const Generator *generator, const ServeModel *model, ServeRequest *request,
                  Call **ret, Refusal *refusal)
{
    Call *call = mem_calloc(1, sizeof *call);
    call->request = *request;
    *request = (ServeRequest){0};
    call->model = model;
    call->generator = *generator;
    call->created = (int64_t)time(NULL);
    call->started_ns = clock_ns();
    make_id(call);
    call->num_choices = serve_request_samples(&call->request);
    call->inbox = inbox_create(&call->request, call->num_choices);
    make_choices(call);
    Status status = OK;
    for (int p = 0; status == OK && p < call->request.num_prompts; p++) {
        const ServePrompt *prompt = &call->request.prompt[p];
        Post *post = &call->inbox->post[p];
        GenerationSink sink = {on_token, on_result, on_failure, post};
        GenerateRequest asked = {
            .num_samples = prompt->n,
            .prompt = prompt->token,
            .prompt_length = prompt->length,
            .params = prompt->params,
        };
        post->left = prompt->n;
        status = generator->submit(generator->self, &asked, &sink, &post->id, &refusal->error);
        post->submitted = status == OK;
        if (status != OK) post->left = 0;
    }
    if (status == OK)
        *ret = call;
    else
        call_destroy(call);
    return status;
}

void call_abort(Call *call)
{
    CallInbox *inbox = call->inbox;
    for (int i = 0; i < inbox->num_posts; i++) {
        pthread_mutex_lock(&inbox->lock);
        bool goes_on = inbox->post[i].submitted && inbox->post[i].left > 0;
        pthread_mutex_unlock(&inbox->lock);
        if (goes_on) call->generator.abort(call->generator.self, inbox->post[i].id);
    }
}

/* Until nobody may call a sink any more. */
static void wait_for_last_words(CallInbox *inbox)
{
    pthread_mutex_lock(&inbox->lock);
    for (int i = 0; i < inbox->num_posts; i++)
        while (inbox->post[i].left > 0)
            pthread_cond_wait(&inbox->news, &inbox->lock);
    pthread_mutex_unlock(&inbox->lock);
}

void call_destroy(Call *call)
{
    if (call == NULL) return;
    if (!call_is_finished(call)) call_abort(call);
    wait_for_last_words(call->inbox);
    for (int i = 0; i < call->num_choices; i++) {
        CallChoice *choice = &call->choice[i];
        choice_text_clear(&choice->text);
        generation_clear(&choice->result);
        free(choice->token);
        free(choice->log_prob);
    }
    inbox_destroy(call->inbox);
    free(call->choice);
    serve_request_clear(&call->request);
    free(call);
}

/* ---- waiting ---- */

static Status add_token(CallChoice *choice, int32_t token, float log_prob, Error *err)
{
    if (choice->length == choice->capacity) {
        choice->capacity = choice->capacity * 2 + 32;
        size_t n = (size_t)choice->capacity;
        choice->token = mem_realloc(choice->token, n, sizeof *choice->token);
        choice->log_prob = mem_realloc(choice->log_prob, n, sizeof *choice->log_prob);
    }
    TRY(choice_text_push(&choice->text, token, err));
    choice->token[choice->length] = token;
    choice->log_prob[choice->length++] = log_prob;
    return OK;
}

static Status finish_choice(Call *call, CallChoice *choice, const Generation *result, Error *err)
{
    choice->result = *result;
    choice->finished = true;
    call->num_finished++;
    while (choice->length < result->length)
        TRY(add_token(choice, result->token[choice->length], result->log_prob[choice->length],
                      err));
    free(choice->result.token);
    free(choice->result.log_prob);
    choice->result.token = NULL;
    choice->result.log_prob = NULL;
    return choice_text_finish(&choice->text, result->stop_string, err);
}

static bool client_is_gone(int fd)
{
    struct pollfd look = {.fd = fd, .events = POLLRDHUP};
    if (fd < 0) return false;
    return poll(&look, 1, 0) > 0 && (look.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/* With the lock held. */
static Status wait_for_news(CallInbox *inbox, int fd, Refusal *refusal)
{
    while (inbox->count == 0 && inbox->num_results == 0 && !inbox->failed) {
        condition_wait_for(&inbox->news, &inbox->lock, LOOK_MS);
        if (client_is_gone(fd))
            return error_set(&refusal->error, ERR_CANCELLED, "the client has gone");
    }
    if (!inbox->failed) return OK;
    refusal->error = inbox->failure;
    return inbox->failure.status;
}

Status call_wait(Call *call, int fd, Refusal *refusal)
{
    CallInbox *inbox = call->inbox;
    TokenEvent *event = NULL;
    Generation *result = mem_calloc((size_t)call->num_choices, sizeof *result);
    int count = 0, capacity = 0, num_results = 0;
    pthread_mutex_lock(&inbox->lock);
    Status status = wait_for_news(inbox, fd, refusal);
    if (status == OK) {
        event = inbox->event;
        count = inbox->count;
        capacity = inbox->capacity;
        inbox->event = inbox->spare;
        inbox->capacity = inbox->spare_capacity;
        inbox->count = 0;
        num_results = inbox->num_results;
        memcpy(result, inbox->result, (size_t)num_results * sizeof *result);
        inbox->num_results = 0;
        inbox->spare = event;
        inbox->spare_capacity = capacity;
    }
    pthread_mutex_unlock(&inbox->lock);
    for (int i = 0; status == OK && i < count; i++)
        status = add_token(&call->choice[event[i].index], event[i].token, event[i].log_prob,
                           &refusal->error);
    for (int i = 0; i < num_results; i++) {
        if (status == OK)
            status =
                finish_choice(call, &call->choice[result[i].index], &result[i], &refusal->error);
        else
            generation_clear(&result[i]);
    }
    call->weight_version = call->generator.state(call->generator.self).weight_version;
    free(result);
    return status;
}
