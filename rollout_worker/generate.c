/* Rollout function `generate`: the policy answers a record's prompt, n samples at once, and each
 * answer gets its reward.
 *
 * The prompt is the record's conversation up to its last user message (all of it in a record that
 * is a prompt), rendered by the model's chat template with what asks for an answer. The label is
 * the record's own, or, where it has none, the answer that stood behind the prompt: so data of
 * supervised training serve as they are. Ids, log-probs and mask come from the engine and are never
 * made again from text; text goes to the rewards only. A label that the rewards cannot use rejects
 * the record before anything is generated.
 *
 * `run` blocks its thread until engine and rewards are done, so that it reads from top to bottom;
 * there are as many threads as prompts in work. The noise of a token belongs to (seed of the job,
 * set, position, index, token's position), so that the samples of a version of the weights are the
 * same on any worker, in any order, in any company. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "rollout_worker/chat_check.h"
#include "rollout_worker/label.h"
#include "rollout_worker/policy.h"
#include "rollout_worker/record.h"
#include "rollout_worker/reward/retry.h"
#include "rollout_worker/reward/reward_set.h"
#include "rollout_worker/saved_group.h"

#define TOKENIZER_CACHE_BYTES (256u << 10) /* per thread, and there are many */
#define THREADS_MAX           1024
#define PAUSE_SLICE_MS        50 /* in which a thread that waits looks whether it is to end */

/* Evaluations draw other noise than training, and each set other noise than the others. */
#define EVAL_SAMPLE ((uint64_t)1 << 63)

/* How the prompts of a set are answered and judged. */
typedef struct AnswerRules {
    const char *name; /* of the set of an evaluation; NULL: it is training */
    RewardSet *rewards;
    int num_samples;
    SamplingParams params; /* but for what the prompt decides */
} AnswerRules;

typedef struct Generate {
    const JobConfig *config;
    ChatText text;
    AnswerRules *rules; /* [num_rules]: of training, then of each evaluation set */
    int num_rules;
    Policy *policy;
    pthread_mutex_t mutex; /* of the retries */
    RewardRetry retry;
    atomic_bool ended;
    atomic_int judging;        /* threads that wait for rewards */
    atomic_uint_fast64_t done; /* prompts */
} Generate;

/* A record on its way. */
typedef struct Task {
    Generate *generate;
    TokenizerCache *cache;
    const RolloutRecord *record;
    const AnswerRules *rules;
    cJSON *json;
    ChatRecord chat;
    cJSON *messages; /* of the prompt: a list that refers to the record's */
    char *label;     /* as text; NULL: none */
    TokenizedConversation prompt;
    ChatNotes notes; /* what is odd */
    int num_samples;
    Generation *generation; /* [num_samples] */
    char **response;        /* [num_samples] as text */
    size_t *response_bytes;
    RewardResult *result; /* [num_samples] */
} Task;

/* ---- open, close ---- */

static int64_t min_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static Status open_rewards(const char *text, const char *key, RewardSet **ret, Error *err)
{
    cJSON *spec = NULL;
    if (text == NULL) return error_set(err, ERR_INVALID, "%s is missing", key);
    TRY(json_parse(text, strlen(text), key, &spec, err));
    Status status = reward_set_open(spec, ret, err);
    cJSON_Delete(spec);
    return status == OK ? OK : error_prefix(err, "%s", key);
}

static void put_stops(SamplingParams *params, const StringList *stop)
{
    params->stop = (const char *const *)stop->item;
    params->num_stop = (int)stop->count;
}

static Status open_training(const JobConfig *config, AnswerRules *ret, Error *err)
{
    SamplingParams params = sampling_defaults();
    params.temperature = config->rollout.temperature;
    params.top_p = config->rollout.top_p;
    params.top_k = (int32_t)config->rollout.top_k;
    params.min_p = config->rollout.min_p;
    params.max_new_tokens = (int32_t)config->rollout.max_response_length;
    params.seed = (uint64_t)config->seed;
    put_stops(&params, &config->rollout.stop);
    *ret =
        (AnswerRules){.num_samples = (int)config->rollout.n_samples_per_prompt, .params = params};
    return open_rewards(config->rollout.reward, "rollout.reward", &ret->rewards, err);
}

static Status open_set(const JobConfig *config, int index, AnswerRules *ret, Error *err)
{
    EvalSet set = eval_set(config, index);
    SamplingParams params = sampling_defaults();
    int64_t most = set.max_response_length;
    params.temperature = set.temperature;
    params.top_p = set.top_p;
    params.top_k = (int32_t)set.top_k;
    params.min_p = set.min_p;
    params.max_new_tokens = (int32_t)(most > 0 ? most : config->rollout.max_response_length);
    params.seed = (uint64_t)config->seed;
    put_stops(&params, set.stop);
    *ret = (AnswerRules){
        .name = set.name, .num_samples = (int)set.n_samples_per_prompt, .params = params};
    return open_rewards(set.reward, set.key, &ret->rewards, err);
}

static Status open_rules(Generate *generate, Error *err)
{
    const JobConfig *config = generate->config;
    generate->num_rules = 1 + eval_set_count(config);
    generate->rules = mem_calloc((size_t)generate->num_rules, sizeof *generate->rules);
    TRY(open_training(config, &generate->rules[0], err));
    for (int i = 1; i < generate->num_rules; i++)
        TRY(open_set(config, i - 1, &generate->rules[i], err));
    return OK;
}

static void close_rules(Generate *generate)
{
    for (int i = 0; i < generate->num_rules; i++)
        reward_set_close(generate->rules[i].rewards);
    free(generate->rules);
}

/* Training's for a set that the job does not have: there are no records of one. */
static const AnswerRules *find_rules(const Generate *generate, const RolloutRecord *record)
{
    for (int i = 1; record->set != NULL && i < generate->num_rules; i++)
        if (strcmp(generate->rules[i].name, record->set) == 0) return &generate->rules[i];
    return &generate->rules[0];
}

static void generate_close(void *shared)
{
    Generate *generate = shared;
    if (generate == NULL) return;
    policy_destroy(generate->policy);
    close_rules(generate);
    chat_text_close(&generate->text);
    pthread_mutex_destroy(&generate->mutex);
    free(generate);
}

static Status generate_open(const JobConfig *config, void **ret_shared, Error *err)
{
    Generate *generate = mem_calloc(1, sizeof *generate);
    generate->config = config;
    pthread_mutex_init(&generate->mutex, NULL);
    Status status = reward_retry_init(&generate->retry, &reward_retry_defaults, err);
    if (status == OK) status = open_rules(generate, err);
    if (status == OK) status = chat_text_open(config, &generate->text, err);
    if (status == OK) status = policy_create(&generate->text, &generate->policy, err);
    if (status == OK)
        *ret_shared = generate;
    else
        generate_close(generate);
    return status;
}

static void *generate_open_thread(const void *shared)
{
    const Generate *generate = shared;
    return tokenizer_cache_create(text_model_tokenizer(generate->text.model),
                                  TOKENIZER_CACHE_BYTES);
}

static void generate_close_thread(void *scratch)
{
    tokenizer_cache_destroy(scratch);
}

/* Enough that the prompts of any set fill the engine. */
static int generate_num_threads(const JobConfig *config)
{
    int64_t group = config->rollout.n_samples_per_prompt;
    for (int i = 0; i < eval_set_count(config); i++)
        group = min_of(group, eval_set(config, i).n_samples_per_prompt);
    int64_t threads = config->rollout.concurrency / group;
    return threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : (int)threads;
}

static void generate_end(void *shared)
{
    Generate *generate = shared;
    atomic_store(&generate->ended, true);
    policy_end(generate->policy);
}

static Status generate_adopt(void *shared, const RolloutWeights *weights, RolloutAdoption *ret,
                             Error *err)
{
    Generate *generate = shared;
    return policy_adopt(generate->policy, weights, ret, err);
}

static const Policy *generate_policy(const void *shared, const ChatText **ret_text)
{
    const Generate *generate = shared;
    *ret_text = &generate->text;
    return generate->policy;
}

static const char *generate_memory_plan(const void *shared)
{
    const Generate *generate = shared;
    return policy_memory_plan(generate->policy);
}

static void generate_describe(const void *shared, RolloutActivity *ret)
{
    const Generate *generate = shared;
    const EngineThread *engine = policy_engine(generate->policy);
    ret->progress = engine_thread_progress(engine) + generate->done;
    ret->working = engine_thread_working(engine);
    ret->waiting_for = ret->working > 0                      ? ""
                       : engine_thread_waiting(engine) > 0   ? "weights of the train workers"
                       : atomic_load(&generate->judging) > 0 ? "rewards"
                                                             : "";
}

/* ---- the prompt ---- */

static bool role_is(const cJSON *message, const char *role)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(message, "role");
    return cJSON_IsString(value) && strcmp(value->valuestring, role) == 0;
}

/* How many of the messages are the prompt: those that the record says are; else all up to the last
 * user message; else, where nobody asked, those before the last turn of the assistant. */
static int count_prompt(const ChatConversation *conversation)
{
    int given = conversation->num_prompt_messages, last_user = 0, last_other = 0, at = 0;
    const cJSON *message;
    cJSON_ArrayForEach(message, conversation->messages)
    {
        at++;
        if (given > 0 && at > given) break;
        if (role_is(message, "user")) last_user = at;
        if (!role_is(message, "assistant")) last_other = at;
    }
    if (given > 0) return last_other; /* an answer is not asked for behind an answer */
    return last_user > 0 ? last_user : last_other;
}

static Status take_prompt(Task *task, Error *err)
{
    const ChatConversation *conversation = &task->chat.conversation;
    int count = count_prompt(conversation), at = 0;
    if (count == 0)
        return record_refuse(err, task->record->source, "there is nothing to answer", NULL,
                             "a message of the user before those of the assistant",
                             "add the question, or drop the record");
    task->messages = cJSON_CreateArray();
    cJSON *message;
    cJSON_ArrayForEach(message, conversation->messages) if (at++ < count)
        CHECK(cJSON_AddItemReferenceToArray(task->messages, message));
    return OK;
}

static Status read_record(Task *task, Error *err)
{
    const RolloutRecord *record = task->record;
    const ChatText *text = &task->generate->text;
    ConversationOptions options = {.add_generation_prompt = true, .keep_text = true};
    if (record->error[0] != '\0') return error_set(err, ERR_DATA, "%s", record->error);
    TRY(record_parse(record->text, record->length, record->source, &task->json, err));
    TRY(chat_text_read(text, record, task->json, &task->chat, err));
    TRY(take_prompt(task, err));
    task->label = label_take(&task->chat, cJSON_GetArraySize(task->messages));
    TRY(label_check(task->rules->rewards, record, task->json, &task->chat, task->label, err));
    TRY(chat_text_encode(text, task->cache, record, &task->chat, task->messages, options,
                         &task->prompt, err));
    chat_notes_of_prompt(record, &task->chat, cJSON_GetArraySize(task->messages), &task->prompt,
                         &task->notes);
    return OK;
}

/* A sample has to have room for one token of an answer. */
static bool is_too_long(const Task *task)
{
    return task->prompt.length >= (size_t)task->generate->config->data.max_length;
}

static void reject_too_long(const Task *task, Sample *ret)
{
    long long max_length = (long long)task->generate->config->data.max_length;
    char *message = mem_printf("%s: the prompt has %zu tokens and leaves no room for an answer\n"
                               "  expected: at most %lld (data.max_length less one)\n"
                               "  to do: raise data.max_length, or drop the record",
                               task->record->source, task->prompt.length, max_length - 1);
    rollout_reject(ret, REJECT_TOO_LONG, message);
    free(message);
}

/* Whether the prompt cannot be used, and then says why. */
static bool is_refused(const Task *task, Sample *ret)
{
    bool loses = task->generate->config->data.not_rendered != POLICY_KEEP;
    if (loses && task->notes.text[NOTE_NOT_RENDERED] != NULL)
        rollout_reject(ret, REJECT_NOT_RENDERED, task->notes.text[NOTE_NOT_RENDERED]);
    else if (is_too_long(task))
        reject_too_long(task, ret);
    else
        return false;
    return true;
}

static void task_clear(Task *task)
{
    for (int i = 0; i < task->num_samples; i++) {
        if (task->generation != NULL) generation_clear(&task->generation[i]);
        if (task->result != NULL) reward_result_clear(&task->result[i]);
        if (task->response != NULL) free(task->response[i]);
    }
    free(task->generation);
    free(task->result);
    free(task->response);
    free(task->response_bytes);
    tokenized_conversation_free(&task->prompt);
    free(task->label);
    chat_notes_clear(&task->notes);
    cJSON_Delete(task->messages);
    chat_record_clear(&task->chat);
    cJSON_Delete(task->json);
}

/* ---- answers ---- */

static SamplingParams sampling_of(const Task *task)
{
    SamplingParams params = task->rules->params;
    int64_t room = task->generate->config->data.max_length - (int64_t)task->prompt.length;
    params.max_new_tokens = (int32_t)min_of(room, params.max_new_tokens);
    return params;
}

static Status is_cancelled(const Task *task, Error *err)
{
    const atomic_bool *given_up = task->record->given_up;
    if ((given_up == NULL || !atomic_load(given_up)) && !atomic_load(&task->generate->ended))
        return OK;
    return error_set(err, ERR_CANCELLED, "nobody wants these samples any more");
}

/* Whose noise it is. */
static uint64_t sample_id(const Task *task)
{
    uint64_t position = (uint64_t)task->record->position;
    const char *set = task->rules->name;
    return set == NULL ? position : rng_key(position, set) | EVAL_SAMPLE;
}

static Status generate_answers(Task *task, Error *err)
{
    task->num_samples = task->rules->num_samples;
    task->generation = mem_calloc((size_t)task->num_samples, sizeof *task->generation);
    GenerateRequest request = {
        .sample = sample_id(task),
        .num_samples = task->num_samples,
        .prompt = task->prompt.token,
        .prompt_length = (int32_t)task->prompt.length,
        .params = sampling_of(task),
    };
    TRY(engine_thread_generate(policy_engine(task->generate->policy), &request,
                               task->record->given_up, task->generation, err));
    for (int i = 0; i < task->num_samples; i++)
        if (task->generation[i].finish == FINISH_ABORT)
            return error_set(err, ERR_CANCELLED, "the samples were given up on their way");
    return OK;
}

/* As the rewards see it: without the token that ended it. */
static Status decode_answers(Task *task, Error *err)
{
    const Tokenizer *tokenizer = text_model_tokenizer(task->generate->text.model);
    task->response = mem_calloc((size_t)task->num_samples, sizeof *task->response);
    task->response_bytes = mem_calloc((size_t)task->num_samples, sizeof *task->response_bytes);
    for (int i = 0; i < task->num_samples; i++) {
        const Generation *generation = &task->generation[i];
        size_t count = (size_t)generation->length - (generation->stop_token >= 0);
        TRY(tokenizer_decode(tokenizer, generation->token, count, false, &task->response[i],
                             &task->response_bytes[i], err));
    }
    return OK;
}

/* ---- rewards ---- */

static void score(const Task *task, RewardResult *ret)
{
    size_t count = (size_t)task->num_samples;
    RewardRequest *requests = mem_calloc(count, sizeof *requests);
    for (int i = 0; i < task->num_samples; i++)
        requests[i] = (RewardRequest){
            .prompt = {task->prompt.text, task->prompt.text_length},
            .response = {task->response[i], task->response_bytes[i]},
            .label = slice_from(task->label != NULL ? task->label : ""),
            .metadata = task->chat.metadata,
            .position = task->record->position,
            .index = i,
        };
    reward_set_score(task->rules->rewards, requests, task->num_samples, ret);
    free(requests);
}

static Status wait_ms(const Task *task, int64_t delay_ms, Error *err)
{
    Status status = is_cancelled(task, err);
    for (int64_t left = delay_ms; left > 0 && status == OK; left -= PAUSE_SLICE_MS) {
        struct timespec slice = {0, min_of(left, PAUSE_SLICE_MS) * 1000000};
        nanosleep(&slice, NULL);
        status = is_cancelled(task, err);
    }
    return status;
}

/* Whether an earlier attempt has said all that is to be said. */
static bool is_settled(const RewardResult *result, int attempt)
{
    return attempt > 1 && (reward_outcome_trains(result->outcome) || result->permanent);
}

/* What is to be done after an attempt: *ret_delay_ms is how long until the next one, -1 when all
 * samples are judged or given up. ERR_RESOURCE, which ends the run, past the limits: another worker
 * would meet the same verifier. */
static Status note_results(Task *task, const RewardResult *fresh, int attempt,
                           int64_t *ret_delay_ms, Error *err)
{
    Generate *generate = task->generate;
    Status status = OK;
    *ret_delay_ms = -1;
    pthread_mutex_lock(&generate->mutex);
    for (int i = 0; i < task->num_samples && status == OK; i++) {
        int64_t delay_ms;
        if (is_settled(&task->result[i], attempt)) continue;
        RewardAction action = reward_retry_next(&generate->retry, &fresh[i], attempt, &delay_ms);
        if (action == REWARD_RETRY && delay_ms > *ret_delay_ms) *ret_delay_ms = delay_ms;
        if (action == REWARD_STOP) status = reward_retry_stop(&generate->retry, err);
    }
    pthread_mutex_unlock(&generate->mutex);
    if (status != OK && err != NULL) err->status = ERR_RESOURCE;
    return status == OK ? OK : ERR_RESOURCE;
}

/* Judges the group until every sample is judged or given up. The whole group is judged again where
 * some of it was not, as a reward may compare; what was judged before stays as it is. */
static Status judge(Task *task, Error *err)
{
    size_t count = (size_t)task->num_samples;
    Status status = OK;
    int64_t delay_ms = 0;
    task->result = mem_calloc(count, sizeof *task->result);
    for (int attempt = 1; status == OK && delay_ms >= 0; attempt++) {
        RewardResult *fresh = mem_calloc(count, sizeof *fresh);
        status = wait_ms(task, delay_ms, err);
        if (status == OK) {
            score(task, fresh);
            status = note_results(task, fresh, attempt, &delay_ms, err);
        }
        for (size_t i = 0; i < count; i++) {
            RewardResult *kept = &task->result[i];
            if (status != OK || is_settled(kept, attempt)) {
                reward_result_clear(&fresh[i]);
                continue;
            }
            reward_result_clear(kept);
            *kept = fresh[i];
        }
        free(fresh);
    }
    return status;
}

/* ---- samples ---- */

static void reject_unjudged(const Task *task, const RewardResult *result, Sample *ret)
{
    char *message =
        mem_printf("%s: an answer could not be judged: %s%s%s\n"
                   "  to do: %s",
                   task->record->source, reward_outcome_name(result->outcome),
                   result->reason[0] != '\0' ? ", " : "", result->reason,
                   result->permanent ? "correct the record's label or metadata, or drop the record"
                                     : "see to what judges it (rollout.reward)");
    rollout_reject(ret, REJECT_UNJUDGED, message);
    free(message);
}

static void fill_group(const Task *task, RolloutGroup *ret)
{
    for (int i = 0; i < task->num_samples; i++) {
        const RewardResult *result = &task->result[i];
        Sample *sample = rollout_group_add(ret, task->record), made;
        if (!reward_outcome_trains(result->outcome)) {
            reject_unjudged(task, result, sample);
            continue;
        }
        generation_to_sample(&task->generation[i], task->prompt.token, &made);
        made.position = sample->position;
        made.index = sample->index;
        made.reward = (float)result->score;
        made.right = result->outcome == REWARD_OK;
        *sample = made;
        if (i == 0) chat_notes_put(&task->notes, sample); /* told once for the record */
    }
}

/* The group as it is in rollout.save, for people and for rollout.load. */
static Status save_group(const Task *task, const RolloutGroup *group, Error *err)
{
    const char *folder = task->generate->config->rollout.save;
    int64_t version =
        task->generation[0].num_version_runs > 0 ? task->generation[0].version_run[0].version : 0;
    Slice *response = mem_calloc((size_t)task->num_samples, sizeof *response);
    for (int i = 0; i < task->num_samples; i++)
        response[i] = (Slice){task->response[i], task->response_bytes[i]};
    SavedTexts texts = {.prompt = {task->prompt.text, task->prompt.text_length},
                        .label = slice_from(task->label != NULL ? task->label : ""),
                        .response = response,
                        .result = task->result};
    char *path = saved_group_path(folder, task->rules->name, version, task->record->position);
    Status status = saved_group_write(path, group, &texts, err);
    free(path);
    free(response);
    return status == OK ? OK : error_prefix(err, "rollout.save");
}

/* Answers that were saved are of use only behind the prompt that they answer. */
static Status check_loaded(const Task *task, const RolloutGroup *group, const char *path,
                           Error *err)
{
    int32_t length = (int32_t)task->prompt.length;
    for (int i = 0; i < group->count; i++) {
        const Sample *sample = &group->sample[i];
        if (sample->status == SAMPLE_REJECTED) continue;
        if (sample->prompt_length != length ||
            memcmp(sample->token, task->prompt.token, (size_t)length * sizeof *sample->token) != 0)
            return error_set(err, ERR_DATA,
                             "rollout.load: %s answers another prompt than %s, which stands at its "
                             "position now\n  expected: answers of a run with the same data, seed "
                             "and model",
                             path, task->record->source);
    }
    return OK;
}

static Status load_group(const Task *task, RolloutGroup *ret, Error *err)
{
    const char *folder = task->generate->config->rollout.load;
    char *path = saved_group_path(folder, NULL, 0, task->record->position);
    Status status = saved_group_read(path, task->record, ret, err);
    if (status == OK)
        status = check_loaded(task, ret, path, err);
    else
        error_prefix(err, "rollout.load");
    free(path);
    return status;
}

static Status answer_prompt(Task *task, RolloutGroup *ret, Error *err)
{
    if (task->generate->config->rollout.load != NULL && task->rules->name == NULL)
        return load_group(task, ret, err);
    TRY(generate_answers(task, err));
    TRY(decode_answers(task, err));
    atomic_fetch_add(&task->generate->judging, 1);
    Status status = judge(task, err);
    atomic_fetch_sub(&task->generate->judging, 1);
    if (status != OK) return status;
    TRY(is_cancelled(task, err)); /* whoever answers in its place saves it */
    fill_group(task, ret);
    return task->generate->config->rollout.save != NULL ? save_group(task, ret, err) : OK;
}

static Status generate_run(void *shared, void *scratch, const RolloutRecord *record,
                           RolloutGroup *ret, Error *err)
{
    Task task = {.generate = shared,
                 .cache = scratch,
                 .record = record,
                 .rules = find_rules(shared, record)};
    Error refusal = {0};
    Sample refused = {.position = record->position};
    Status status = read_record(&task, &refusal);
    if (status != OK)
        rollout_reject(&refused, chat_reject_reason(status), refusal.message);
    else if (!is_refused(&task, &refused))
        status = answer_prompt(&task, ret, err);
    if (refused.status == SAMPLE_REJECTED) {
        *rollout_group_add(ret, record) = refused;
        status = OK;
    }
    task.generate->done++;
    task_clear(&task);
    return status;
}

/* The prompt alone: an answer takes weights. */
static void generate_explain(void *shared, void *scratch, const RolloutRecord *record, Sample *ret,
                             RolloutTrace *ret_trace)
{
    Task task = {.generate = shared,
                 .cache = scratch,
                 .record = record,
                 .rules = find_rules(shared, record)};
    Error refusal = {0};
    ret->position = record->position;
    Status status = read_record(&task, &refusal);
    if (task.messages != NULL) ret_trace->shape = chat_shape_name(task.chat.conversation.shape);
    if (status != OK) {
        rollout_reject(ret, chat_reject_reason(status), refusal.message);
    } else if (!is_refused(&task, ret)) {
        size_t length = task.prompt.length;
        ret->length = ret->prompt_length = (int32_t)length;
        ret->token = mem_calloc(length, sizeof *ret->token);
        ret->loss_mask = mem_calloc(length, sizeof *ret->loss_mask);
        memcpy(ret->token, task.prompt.token, length * sizeof *ret->token);
        chat_notes_put(&task.notes, ret);
    }
    ret_trace->label = task.label;
    task.label = NULL;
    ret_trace->conversation = task.prompt;
    task.prompt = (TokenizedConversation){0};
    task_clear(&task);
}

const RolloutTable rollout_generate = {
    .name = "generate",
    .open = generate_open,
    .close = generate_close,
    .open_thread = generate_open_thread,
    .close_thread = generate_close_thread,
    .run = generate_run,
    .explain = generate_explain,
    .num_threads = generate_num_threads,
    .adopt = generate_adopt,
    .end = generate_end,
    .describe = generate_describe,
    .memory_plan = generate_memory_plan,
    .policy = generate_policy,
};
