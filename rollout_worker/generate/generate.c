/* Rollout functions that generate: the policy answers a record's prompt, n samples at once, and
 * each answer gets its reward. How a prompt becomes answers is a maker's (maker.h): `generate` asks
 * for one turn or, with tools, several; `process` and `plugin` do what the user's own function
 * says. Everything else is here and the same for all: which prompt a record is (prompt.h), rewards
 * (judge.h), what becomes of both, saved groups. Ids, log-probs and mask come from the engine and
 * are never made again from text; text goes to the rewards only.
 *
 * `run` blocks its thread until engine and rewards are done, so that it reads from top to bottom;
 * there are as many threads as prompts in work. The noise of a token belongs to (seed of the job,
 * set, position, index, token's position), so that the samples of a version of the weights are the
 * same on any worker, in any order, in any company. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "config/eval_set.h"
#include "rollout_worker/generate/judge.h"
#include "rollout_worker/generate/maker.h"
#include "rollout_worker/saved_group.h"

#define TOKENIZER_CACHE_BYTES (256u << 10) /* per thread, and there are many */
#define THREADS_MAX           1024
#define WATCH_MS              300

/* Evaluations draw other noise than training, and each set other noise than the others. */
#define EVAL_SAMPLE ((uint64_t)1 << 63)
/* Positions begin anew in every stage; the first one that generates draws what a job of its own
 * would. */
#define STAGE_SAMPLE ((uint64_t)1 << 44)

/* How the prompts of a set are answered and judged. */
typedef struct AnswerRules {
    const char *name;   /* of the set of an evaluation; NULL: it is training */
    const char *key;    /* names it in messages */
    const char *reward; /* JSON text; NULL: none is named */
    Judge *judge;       /* NULL: no rewards are named, and whoever makes answers judges them */
    int num_samples;
    SamplingParams params; /* max_new_tokens as if a prompt left all the room */
} AnswerRules;

typedef struct Generate {
    const JobConfig *config;
    ChatText text;
    AnswerRules *rules; /* [num_rules]: of training, then of each evaluation set */
    int num_rules;
    Policy *policy;
    const AnswerMaker *maker;
    void *made; /* the maker's own */
    atomic_bool ended;
    atomic_int making;         /* threads in the maker */
    atomic_uint_fast64_t done; /* prompts */
    atomic_bool judges_anew;   /* and has said so */
} Generate;

/* A record on its way. */
typedef struct Task {
    Generate *generate;
    const RolloutRecord *record;
    const AnswerRules *rules;
    Wanted wanted;
    Prompt prompt;
    int num_samples;
    Answer *answer;       /* [num_samples] */
    RewardResult *result; /* [num_samples] */
} Task;

/* ---- the rules of each set ---- */

static Status open_judge(const JobConfig *config, const char *text, const char *key, Judge **ret,
                         Error *err)
{
    if (text != NULL) return judge_open(text, key, config, ret, err);
    if (config->rollout.function != ROLLOUT_GENERATE) return OK;
    return error_set(err, ERR_INVALID, "%s is missing", key);
}

/* The lists are those of the configuration but for the ids, which are a copy. */
static SamplingParams params_of(const EvalSet *set, int64_t most, int64_t seed)
{
    SamplingParams params = {
        .temperature = set->temperature,
        .top_k = (int32_t)set->top_k,
        .top_p = set->top_p,
        .min_p = set->min_p,
        .repetition_penalty = set->penalty.repetition,
        .frequency_penalty = set->penalty.frequency,
        .presence_penalty = set->penalty.presence,
        .stop = (const char *const *)set->stop->item,
        .num_stop = set->stop->count,
        .num_stop_token_ids = set->stop_token_ids->count,
        .min_new_tokens = (int32_t)set->min_new_tokens,
        .max_new_tokens = (int32_t)most,
        .seed = (uint64_t)seed,
        .ignore_eos = set->ignore_eos,
    };
    int32_t *ids = mem_calloc((size_t)set->stop_token_ids->count + 1, sizeof *ids);
    for (int i = 0; i < set->stop_token_ids->count; i++)
        ids[i] = (int32_t)set->stop_token_ids->item[i];
    params.stop_token_id = ids;
    return params;
}

static Status open_training(const JobConfig *config, AnswerRules *ret, Error *err)
{
    EvalSet same = {
        .temperature = config->rollout.temperature,
        .top_p = config->rollout.top_p,
        .top_k = config->rollout.top_k,
        .min_p = config->rollout.min_p,
        .penalty = config->rollout.penalty,
        .stop = &config->rollout.stop,
        .stop_token_ids = &config->rollout.stop_token_ids,
        .min_new_tokens = config->rollout.min_new_tokens,
        .ignore_eos = config->rollout.ignore_eos,
    };
    *ret = (AnswerRules){.key = "rollout",
                         .reward = config->rollout.reward,
                         .num_samples = (int)config->rollout.n_samples_per_prompt,
                         .params =
                             params_of(&same, config->rollout.max_response_length, config->seed)};
    return open_judge(config, config->rollout.reward, "rollout.reward", &ret->judge, err);
}

static Status open_set(const JobConfig *config, int index, AnswerRules *ret, Error *err)
{
    EvalSet set = eval_set(config, index);
    int64_t most = set.max_response_length;
    if (most == 0) most = config->rollout.max_response_length;
    *ret = (AnswerRules){.name = set.name,
                         .key = set.key,
                         .reward = set.reward,
                         .num_samples = (int)set.n_samples_per_prompt,
                         .params = params_of(&set, most, config->seed)};
    bool own = set.reward != config->rollout.reward;
    char *key = own ? mem_printf("%s.reward", set.key)
                    : mem_printf("rollout.reward, evaluation set %s", set.name);
    Status status = open_judge(config, set.reward, key, &ret->judge, err);
    free(key);
    return status;
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

/* What only the model tells: which ids there are. */
static Status check_rules(const Generate *generate, Error *err)
{
    ModelConfig model;
    TRY(model_config_read(generate->config->model.config, &model, err));
    for (int i = 0; i < generate->num_rules; i++) {
        const AnswerRules *rules = &generate->rules[i];
        if (sampling_check(&rules->params, model.vocab_size, err) != OK)
            return error_prefix(err, "%s", rules->key);
    }
    return OK;
}

static void close_rules(Generate *generate)
{
    for (int i = 0; i < generate->num_rules; i++) {
        judge_close(generate->rules[i].judge);
        free((int32_t *)generate->rules[i].params.stop_token_id);
    }
    free(generate->rules);
}

/* Training's for a set that the job does not have: there are no records of one. */
static const AnswerRules *find_rules(const Generate *generate, const RolloutRecord *record)
{
    for (int i = 1; record->set != NULL && i < generate->num_rules; i++)
        if (strcmp(generate->rules[i].name, record->set) == 0) return &generate->rules[i];
    return &generate->rules[0];
}

static int threads_that_wait_for_rewards(const Generate *generate)
{
    int count = 0;
    for (int i = 0; i < generate->num_rules; i++)
        count += judge_waiting(generate->rules[i].judge);
    return count;
}

/* ---- open, close ---- */

static void generate_close(void *shared)
{
    Generate *generate = shared;
    if (generate == NULL) return;
    if (generate->made != NULL) generate->maker->close(generate->made);
    policy_destroy(generate->policy);
    close_rules(generate);
    chat_text_close(&generate->text);
    free(generate);
}

static const AnswerMaker *maker_of(const JobConfig *config)
{
    if (config->rollout.function != ROLLOUT_GENERATE) return &make_function;
    return config->rollout.tools != NULL ? &make_turns : &make_once;
}

static Status open_parts(Generate *generate, Error *err)
{
    const JobConfig *config = generate->config;
    TRY(open_rules(generate, err));
    TRY(chat_text_open(config, &generate->text, err));
    TRY(policy_create(&generate->text, &generate->policy, err));
    TRY(check_rules(generate, err));
    const MakerHost host = {config, &generate->text, generate->policy};
    generate->maker = maker_of(config);
    return generate->maker->open(&host, &generate->made, err);
}

static Status generate_open(const JobConfig *config, void **ret_shared, Error *err)
{
    Generate *generate = mem_calloc(1, sizeof *generate);
    generate->config = config;
    Status status = open_parts(generate, err);
    if (status == OK)
        *ret_shared = generate;
    else
        generate_close(generate);
    return status;
}

/* A program that cannot even start ends at once; what needs longer to fail is met by the run. */
static Status generate_try_programs(void *shared, Error *err)
{
    Generate *generate = shared;
    int64_t until_ms = clock_ms() + WATCH_MS;
    for (int i = 0; i < generate->num_rules; i++) {
        RewardSet *rewards = judge_rewards(generate->rules[i].judge);
        if (rewards == NULL || reward_set_watch(rewards, until_ms, err) == OK) continue;
        const char *key = i == 0 ? "rollout.reward" : eval_set(generate->config, i - 1).key;
        return error_prefix(err, "%s", key);
    }
    if (generate->maker->watch == NULL) return OK;
    return generate->maker->watch(generate->made, until_ms, err);
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
        if (eval_set(config, i).n_samples_per_prompt < group)
            group = eval_set(config, i).n_samples_per_prompt;
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

static Status generate_receive(void *shared, const RolloutMove *move, uint64_t *ret_digest,
                               Error *err)
{
    const Generate *generate = shared;
    return policy_receive(generate->policy, move, ret_digest, err);
}

static void generate_abandon(void *shared, uint64_t move)
{
    const Generate *generate = shared;
    policy_abandon(generate->policy, move);
}

static Status generate_rest(void *shared, int64_t *ret_bytes, Error *err)
{
    const Generate *generate = shared;
    return policy_rest(generate->policy, ret_bytes, err);
}

static Status generate_make_group(void *shared, RankGroupId *ret, Error *err)
{
    const Generate *generate = shared;
    return policy_make_group(generate->policy, ret, err);
}

static Status generate_join(void *shared, const RankGroupId *id, Error *err)
{
    Generate *generate = shared;
    return policy_join(generate->policy, id, err);
}

static void generate_watch(void *shared, EngineLost lost, void *context)
{
    Generate *generate = shared;
    policy_watch(generate->policy, lost, context);
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

static bool describe_judge(const Judge *judge, char *ret, size_t bytes)
{
    return judge_waiting(judge) > 0 && trouble_describe(judge_trouble(judge), ret, bytes);
}

/* The first that there is, of training's rewards, the maker, and rewards of evaluations; what
 * nobody waits for now is past. */
static void describe_trouble(const Generate *generate, char *ret, size_t bytes)
{
    const AnswerMaker *maker = generate->maker;
    bool making = maker->trouble != NULL && atomic_load(&generate->making) > 0;
    if (describe_judge(generate->rules[0].judge, ret, bytes)) return;
    if (making && trouble_describe(maker->trouble(generate->made), ret, bytes)) return;
    for (int i = 1; i < generate->num_rules; i++)
        if (describe_judge(generate->rules[i].judge, ret, bytes)) return;
}

static void generate_describe(const void *shared, RolloutActivity *ret)
{
    const Generate *generate = shared;
    const EngineThread *engine = policy_engine(generate->policy);
    ret->progress =
        engine_thread_progress(engine) + policy_progress(generate->policy) + generate->done;
    bool rests = engine_thread_rests(engine); /* training has the GPU: nobody is held up here */
    ret->working = rests ? 0 : engine_thread_working(engine);
    describe_trouble(generate, ret->trouble, sizeof ret->trouble);
    ret->waiting_for = ret->working > 0                    ? ""
                       : rests                             ? "the GPU, which training uses"
                       : engine_thread_waiting(engine) > 0 ? "weights of the train workers"
                       : threads_that_wait_for_rewards(generate) > 0 ? "rewards"
                       : generate->maker == &make_once               ? ""
                       : atomic_load(&generate->making) == 0         ? ""
                       : generate->maker == &make_turns              ? "tools (rollout.tools)"
                                                                     : "the rollout function";
}

/* ---- answers ---- */

static void task_clear(Task *task)
{
    for (int i = 0; i < task->num_samples; i++) {
        if (task->answer != NULL) answer_clear(&task->answer[i]);
        if (task->result != NULL) reward_result_clear(&task->result[i]);
    }
    free(task->answer);
    free(task->result);
    prompt_clear(&task->prompt);
}

/* Whose noise it is. */
static uint64_t sample_id(const Task *task)
{
    uint64_t position = (uint64_t)task->record->position;
    const char *set = task->rules->name;
    uint64_t stage = (uint64_t)task->generate->config->generating_before;
    CHECK(position < STAGE_SAMPLE);
    return set == NULL ? position + stage * STAGE_SAMPLE : rng_key(position, set) | EVAL_SAMPLE;
}

static Status make_answers(Task *task, Error *err)
{
    Generate *generate = task->generate;
    task->num_samples = task->rules->num_samples;
    task->answer = mem_calloc((size_t)task->num_samples, sizeof *task->answer);
    task->result = mem_calloc((size_t)task->num_samples, sizeof *task->result);
    const MakerTask made = {
        .prompt = &task->prompt,
        .num_samples = task->num_samples,
        .sample = sample_id(task),
        .params = task->rules->params,
        .rewards = task->rules->judge != NULL,
        .wanted = &task->wanted,
    };
    for (int i = 0; i < task->num_samples; i++) {
        task->answer[i].sample.position = task->record->position;
        task->answer[i].sample.index = i;
    }
    atomic_fetch_add(&generate->making, 1);
    Status status = generate->maker->make(generate->made, &made, task->answer, err);
    atomic_fetch_sub(&generate->making, 1);
    return status;
}

/* ---- rewards ---- */

static bool is_to_be_judged(const Answer *answer)
{
    return answer->sample.status != SAMPLE_REJECTED && !answer->has_reward;
}

static RewardRequest request_of(const Task *task, const Wanted *wanted, int i)
{
    const Prompt *prompt = &task->prompt;
    return (RewardRequest){
        .prompt = {prompt->conversation.text, prompt->conversation.text_length},
        .response = {task->answer[i].response, task->answer[i].response_bytes},
        .label = slice_from(prompt->label != NULL ? prompt->label : ""),
        .metadata = prompt->chat.metadata,
        .position = task->record->position,
        .index = i,
        .wanted = wanted,
    };
}

/* Judges those of the group that are there and that nobody has judged. */
static Status judge(Task *task, Error *err)
{
    size_t most = (size_t)task->num_samples;
    RewardRequest *request = mem_calloc(most, sizeof *request);
    RewardResult *result = mem_calloc(most, sizeof *result);
    Wanted wanted = task->wanted;
    wanted.trouble = judge_trouble(task->rules->judge);
    int64_t began = clock_ns();
    int count = 0, attempts = 0, at = 0;
    for (int i = 0; i < task->num_samples; i++)
        if (is_to_be_judged(&task->answer[i])) request[count++] = request_of(task, &wanted, i);
    const RewardGroup group = {request, count, &wanted};
    Status status =
        count == 0 ? OK : judge_group(task->rules->judge, &group, result, &attempts, err);
    float judge_s = (float)((double)(clock_ns() - began) / 1e9);
    for (int i = 0; i < task->num_samples; i++) {
        if (!is_to_be_judged(&task->answer[i])) continue;
        SampleWork *work = &task->answer[i].sample.work;
        task->result[i] = result[at++];
        work->judge_s = judge_s;
        if (at == 1 && attempts > 1) work->retries += attempts - 1; /* once for the group */
    }
    free(request);
    free(result);
    return status;
}

/* ---- samples ---- */

static void reject_unjudged(const Task *task, const RewardResult *result, Answer *answer)
{
    const char *todo = result->of_record   ? "correct the record's label or metadata, or drop it"
                       : result->permanent ? "correct what judges it: asking again cannot help"
                                           : "see to what judges it";
    char *message = mem_printf("%s: an answer could not be judged: %s%s%s\n"
                               "  to do: %s (%s)",
                               task->record->source, reward_outcome_name(result->outcome),
                               result->reason[0] != '\0' ? ", " : "", result->reason, todo,
                               judge_key(task->rules->judge));
    char *response = answer->response; /* people may want to see it */
    size_t response_bytes = answer->response_bytes;
    answer->response = NULL;
    answer_reject(answer, REJECT_UNJUDGED, message);
    answer->response = response;
    answer->response_bytes = response_bytes;
    free(message);
}

static void take_result(const Task *task, const RewardResult *result, Answer *answer)
{
    if (!is_to_be_judged(answer)) return;
    if (!reward_outcome_trains(result->outcome)) {
        reject_unjudged(task, result, answer);
        return;
    }
    answer->sample.reward = (float)result->score;
    answer->sample.right = result->outcome == REWARD_OK;
    SampleWork *work = &answer->sample.work;
    work->num_parts = 0; /* of a saved one: it had others */
    for (int i = 0; i < result->num_parts; i++)
        work->part[work->num_parts++] = (float)result->part[i];
}

/* Moves the samples to the group; their texts stay. */
static void fill_group(Task *task, RolloutGroup *ret)
{
    for (int i = 0; i < task->num_samples; i++) {
        Answer *answer = &task->answer[i];
        Sample *sample = rollout_group_add(ret, task->record);
        take_result(task, &task->result[i], answer);
        answer->sample.position = sample->position;
        answer->sample.index = sample->index;
        *sample = answer->sample;
        answer->sample = (Sample){0};
        if (i == 0 && sample->status != SAMPLE_REJECTED) /* told once for the record */
            chat_notes_put(&task->prompt.notes, sample);
    }
}

/* ---- saved groups ---- */

/* What people are shown: with several turns all of them and what stands between. */
static Status response_text(const Task *task, const Sample *sample, const Answer *answer,
                            char **ret_owned, Slice *ret, Error *err)
{
    size_t length = 0;
    *ret = (Slice){answer->response, answer->response_bytes};
    if (sample->work.turns < 2) return OK;
    TRY(tokenizer_decode(
        text_model_tokenizer(task->generate->text.model), sample->token + sample->prompt_length,
        (size_t)(sample->length - sample->prompt_length), false, ret_owned, &length, err));
    *ret = (Slice){*ret_owned, length};
    return OK;
}

/* The oldest weights in the group: in an evaluation it has one version. */
static int64_t group_version(const RolloutGroup *group)
{
    for (int i = 0; i < group->count; i++)
        if (group->sample[i].status != SAMPLE_REJECTED) return group->sample[i].weight_version;
    return 0;
}

/* By which whoever loads the sample knows whether he has the same weights. */
static uint64_t digest_of(const Task *task, const Sample *sample)
{
    if (sample->status == SAMPLE_REJECTED) return 0;
    int last = sample->num_version_runs - 1;
    int64_t version = last >= 0 ? sample->version_run[last].version : sample->weight_version;
    return policy_weights_digest(task->generate->policy, version);
}

/* What is told of a group's samples, by place; the lists are owned, what they hold is not. */
typedef struct SavedLists {
    Slice *response;
    char **owned;
    const char **judged;
    const cJSON **extra;
    bool *has_reward;
    uint64_t *weights;
} SavedLists;

static void saved_lists_free(SavedLists *lists, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(lists->owned[i]);
    free(lists->response);
    free(lists->owned);
    free(lists->judged);
    free(lists->extra);
    free(lists->has_reward);
    free(lists->weights);
}

static Status fill_lists(const Task *task, const RolloutGroup *group, SavedLists *lists, Error *err)
{
    size_t count = (size_t)task->num_samples;
    *lists = (SavedLists){
        .response = mem_calloc(count, sizeof *lists->response),
        .owned = mem_calloc(count, sizeof *lists->owned),
        .judged = mem_calloc(count, sizeof *lists->judged),
        .extra = mem_calloc(count, sizeof *lists->extra),
        .has_reward = mem_calloc(count, sizeof *lists->has_reward),
        .weights = mem_calloc(count, sizeof *lists->weights),
    };
    for (size_t i = 0; i < count; i++) {
        const Answer *answer = &task->answer[i];
        TRY(response_text(task, &group->sample[i], answer, &lists->owned[i], &lists->response[i],
                          err));
        if (lists->owned[i] != NULL) lists->judged[i] = answer->response;
        lists->extra[i] = answer->extra;
        lists->has_reward[i] = answer->has_reward;
        lists->weights[i] = digest_of(task, &group->sample[i]);
    }
    return OK;
}

/* The group as it is in rollout.save, for people and for rollout.load. */
static Status save_group(const Task *task, const RolloutGroup *group, Error *err)
{
    const JobConfig *config = task->generate->config;
    const RewardSet *rewards = judge_rewards(task->rules->judge);
    char *root = saved_group_root(config->rollout.save, config->generating_before);
    char *path =
        saved_group_path(root, task->rules->name, group_version(group), task->record->position);
    SavedLists lists;
    Status status = fill_lists(task, group, &lists, err);
    const SavedTexts texts = {
        .prompt = {task->prompt.conversation.text, task->prompt.conversation.text_length},
        .label = slice_from(task->prompt.label != NULL ? task->prompt.label : ""),
        .response = lists.response,
        .result = task->result,
        .extra = lists.extra,
        .rewards = rewards != NULL ? reward_set_names(rewards) : NULL,
        .judged = lists.judged,
        .has_reward = lists.has_reward,
        .judged_by = task->rules->reward,
        .weights = lists.weights,
    };
    if (status == OK) status = saved_group_write(path, group, &texts, err);
    saved_lists_free(&lists, (size_t)task->num_samples);
    free(path);
    free(root);
    return status == OK ? OK : error_prefix(err, "rollout.save");
}

/* Answers that were saved are of use only behind the prompt that they answer; what a rollout
 * function makes of a record may begin otherwise. */
static Status check_loaded(const Task *task, const RolloutGroup *group, const char *path,
                           Error *err)
{
    const TokenizedConversation *prompt = &task->prompt.conversation;
    int32_t length = (int32_t)prompt->length;
    for (int i = 0; i < group->count; i++) {
        const Sample *sample = &group->sample[i];
        bool own = task->generate->config->rollout.function != ROLLOUT_GENERATE;
        if (sample->status == SAMPLE_REJECTED || own) continue;
        if (sample->prompt_length != length ||
            memcmp(sample->token, prompt->token, (size_t)length * sizeof *sample->token) != 0)
            return error_set(err, ERR_DATA,
                             "rollout.load: %s answers another prompt than %s, which stands at its "
                             "position now\n  expected: answers of a run with the same data, seed "
                             "and model",
                             path, task->record->source);
    }
    return OK;
}

/* The reward that an answer has is taken where the job names the same rewards, or none. */
static bool is_judged(const Task *task, const SavedNote *note)
{
    if (task->rules->judge == NULL || note->judged_by == NULL) return true;
    cJSON *rewards = cJSON_Parse(task->rules->reward);
    bool same = cJSON_Compare(rewards, note->judged_by, true);
    cJSON_Delete(rewards);
    if (!same && !atomic_exchange(&task->generate->judges_anew, true))
        log_event(LOG_INFO, "judged_anew",
                  F_STR("why", "the answers of rollout.load have rewards of others than "
                               "rollout.reward now names"));
    return same;
}

/* As if the task had made them; the samples are moved. */
static void take_loaded(Task *task, RolloutGroup *group, SavedNote *note)
{
    task->num_samples = group->count;
    task->answer = mem_calloc((size_t)group->count, sizeof *task->answer);
    task->result = mem_calloc((size_t)group->count, sizeof *task->result);
    for (int i = 0; i < group->count; i++) {
        Sample *sample = &group->sample[i];
        uint64_t digest = digest_of(task, sample);
        sample->other_weights = digest == 0 || digest != note[i].weights;
        task->answer[i] = (Answer){
            .sample = *sample,
            .has_reward = is_judged(task, &note[i]),
            .response = note[i].judged,
            .response_bytes = strlen(note[i].judged),
        };
        *sample = (Sample){0};
        note[i].judged = NULL;
    }
}

static Status load_group(Task *task, Error *err)
{
    const JobConfig *config = task->generate->config;
    char *root = saved_group_root(config->rollout.load, config->generating_before);
    char *path = saved_group_path(root, NULL, 0, task->record->position);
    RolloutGroup group = {0};
    SavedNote *note = NULL;
    Status status = saved_group_read(path, task->record, &group, &note, err);
    if (status == ERR_NOT_FOUND)
        error_set(err, status,
                  "no answers are saved for position %lld (%s)\n"
                  "  expected: no more steps than the run that saved them made (train.num_steps)",
                  (long long)task->record->position, path);
    if (status == OK && group.count == 0)
        status = error_set(err, ERR_DATA, "%s holds no answers", path);
    if (status == OK && group.count > task->rules->num_samples)
        status = error_set(err, ERR_INVALID,
                           "%s has %d answers, rollout.n_samples_per_prompt is %d\n"
                           "  expected: as many as the run that saved them made",
                           path, group.count, task->rules->num_samples);
    if (status == OK)
        status = check_loaded(task, &group, path, err);
    else
        error_prefix(err, "rollout.load");
    if (status == OK) take_loaded(task, &group, note);
    saved_notes_free(note, group.count);
    rollout_group_clear(&group);
    free(path);
    free(root);
    return status;
}

/* ---- a record ---- */

static Status answer_prompt(Task *task, RolloutGroup *ret, Error *err)
{
    const JobConfig *config = task->generate->config;
    bool loads = config->rollout.load != NULL && task->rules->name == NULL;
    TRY(loads ? load_group(task, err) : make_answers(task, err));
    TRY(judge(task, err));
    TRY(wanted_check(&task->wanted, err)); /* whoever answers in its place saves it */
    fill_group(task, ret);
    return config->rollout.save != NULL && !loads ? save_group(task, ret, err) : OK;
}

static Status read_prompt(Task *task, TokenizerCache *cache, Error *err)
{
    const Generate *generate = task->generate;
    const AnswerMaker *maker = generate->maker;
    const PromptUse use = {
        .text = &generate->text,
        .tools = maker->tools != NULL ? maker->tools(generate->made) : NULL,
        .rewards = maker == &make_function ? NULL : judge_rewards(task->rules->judge),
    };
    return prompt_read(&use, cache, task->record, &task->prompt, err);
}

static bool is_refused(const Task *task, Sample *ret)
{
    const Generate *generate = task->generate;
    return prompt_is_refused(&task->prompt, generate->config, generate->maker->needs_room, ret);
}

static Status generate_run(void *shared, void *scratch, const RolloutRecord *record,
                           RolloutGroup *ret, Error *err)
{
    Generate *generate = shared;
    Task task = {.generate = generate,
                 .record = record,
                 .rules = find_rules(generate, record),
                 .wanted = {.given_up = record->given_up, .ended = &generate->ended}};
    Error refusal = {0};
    Sample refused = {.position = record->position};
    Status status = read_prompt(&task, scratch, &refusal);
    if (status != OK)
        rollout_reject(&refused, chat_reject_reason(status), refusal.message);
    else if (!is_refused(&task, &refused))
        status = answer_prompt(&task, ret, err);
    if (refused.status == SAMPLE_REJECTED) {
        *rollout_group_add(ret, record) = refused;
        status = OK;
    }
    generate->done++;
    task_clear(&task);
    return status;
}

/* The prompt alone: an answer takes weights. */
static void generate_explain(void *shared, void *scratch, const RolloutRecord *record, Sample *ret,
                             RolloutTrace *ret_trace)
{
    Task task = {.generate = shared, .record = record, .rules = find_rules(shared, record)};
    Error refusal = {0};
    ret->position = record->position;
    Status status = read_prompt(&task, scratch, &refusal);
    if (task.prompt.messages != NULL)
        ret_trace->shape = chat_shape_name(task.prompt.chat.conversation.shape);
    if (status != OK) {
        rollout_reject(ret, chat_reject_reason(status), refusal.message);
    } else if (!is_refused(&task, ret)) {
        size_t length = task.prompt.conversation.length;
        ret->length = ret->prompt_length = (int32_t)length;
        ret->token = mem_calloc(length, sizeof *ret->token);
        ret->loss_mask = mem_calloc(length, sizeof *ret->loss_mask);
        memcpy(ret->token, task.prompt.conversation.token, length * sizeof *ret->token);
        chat_notes_put(&task.prompt.notes, ret);
    }
    ret_trace->label = task.prompt.label;
    task.prompt.label = NULL;
    ret_trace->conversation = task.prompt.conversation;
    task.prompt.conversation = (TokenizedConversation){0};
    task_clear(&task);
}

static char *generate_warnings(const void *shared)
{
    const Generate *generate = shared;
    return chat_text_warnings(&generate->text);
}

#define GENERATES                                                                                  \
    .open = generate_open, .close = generate_close, .open_thread = generate_open_thread,           \
    .close_thread = generate_close_thread, .run = generate_run, .explain = generate_explain,       \
    .warnings = generate_warnings, .num_threads = generate_num_threads, .adopt = generate_adopt,   \
    .receive = generate_receive, .abandon = generate_abandon, .rest = generate_rest,               \
    .make_group = generate_make_group, .join = generate_join, .end = generate_end,                 \
    .describe = generate_describe, .watch = generate_watch, .memory_plan = generate_memory_plan,   \
    .policy = generate_policy, .try_programs = generate_try_programs

const RolloutTable rollout_generate = {.name = "generate", GENERATES};
const RolloutTable rollout_process = {.name = "process", GENERATES};
const RolloutTable rollout_plugin_table = {.name = "plugin", GENERATES};
