/* The reward `process`: a program of the user's that judges responses, in any language
 * (process/process_pool.h runs it; scorer_json.h has the form of requests and answers,
 * docs/rewards.md the description for users). A program that fails is an infra_error, one that is
 * silent a timeout. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/process/child.h"
#include "rollout_worker/process/process_pool.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/scorer_json.h"

typedef struct Scorer {
    ProcessPool *pool;
    char name[CHILD_NAME_BYTES]; /* its command */
    double right_above;
    bool group;
} Scorer;

static void process_close(void *opened)
{
    Scorer *scorer = opened;
    if (scorer == NULL) return;
    process_pool_close(scorer->pool);
    free(scorer);
}

static Status read_options(const cJSON *options, Scorer *scorer, ProcessPoolOptions *ret,
                           Error *err)
{
    static const char *const keys[] = {"command",    "processes",   "in_flight",
                                       "timeout_ms", "restart_ms",  "restart_ms_max",
                                       "group",      "right_above", NULL};
    static const char *const where = "process";
    TRY(options_check(options, where, keys, err));
    TRY(json_bool_or(options, "group", where, &scorer->group, err));
    TRY(json_double_or(options, "right_above", where, &scorer->right_above, err));
    return process_pool_read_options(options, "the options of reward process", ret, err);
}

static Status process_open(const cJSON *options, void **ret_self, Error *err)
{
    Scorer *scorer = mem_calloc(1, sizeof *scorer);
    ProcessPoolOptions pool = process_pool_defaults();
    pool.line_bytes_max = SCORER_ANSWER_BYTES_MAX;
    Status status = read_options(options, scorer, &pool, err);
    if (status == OK) status = process_pool_open(&pool, &scorer->pool, err);
    child_name(pool.argv, scorer->name);
    process_pool_options_clear(&pool);
    if (status == OK)
        *ret_self = scorer;
    else
        process_close(scorer);
    return status;
}

Status reward_process_watch(void *opened, int64_t until_ms, Error *err)
{
    const Scorer *scorer = opened;
    return process_pool_watch(scorer->pool, until_ms, err);
}

static Exchange *ask(Scorer *scorer, const RewardRequest *requests, int count)
{
    Str line = {0};
    char id[32];
    uint64_t number = process_pool_next_id(scorer->pool);
    snprintf(id, sizeof id, "%" PRIu64, number);
    scorer_append_request(&line, id, requests, count, scorer->group, true);
    str_puts(&line, "}\n");
    Exchange *exchange = exchange_start(scorer->pool, number, &line, 0);
    exchange_watch(exchange, requests[0].wanted);
    return exchange;
}

static void take_answer(Scorer *scorer, Exchange *exchange, const Wanted *wanted, int count,
                        RewardResult *ret)
{
    cJSON *answer = NULL;
    char reason[EXCHANGE_REASON_BYTES];
    ExchangeOutcome outcome = exchange_wait(exchange, &answer, reason);
    if (outcome != EXCHANGE_MESSAGE && outcome != EXCHANGE_UNWANTED)
        wanted_note_failure(wanted, reason); /* before those that are waited for after it */
    for (int i = 0; outcome != EXCHANGE_MESSAGE && i < count; i++) {
        reward_fail(&ret[i], outcome == EXCHANGE_TIMEOUT ? REWARD_TIMEOUT : REWARD_INFRA_ERROR,
                    "%s", reason);
        ret[i].told = true;
    }
    if (outcome == EXCHANGE_MESSAGE && scorer->group)
        scorer_read_answers(answer, NULL, scorer->right_above, count, ret);
    else if (outcome == EXCHANGE_MESSAGE)
        scorer_read_answer(answer, NULL, scorer->right_above, ret);
    for (int i = 0; outcome == EXCHANGE_MESSAGE && i < count; i++)
        scorer_name(scorer->name, &ret[i]);
    cJSON_Delete(answer);
    exchange_end(exchange);
}

/* The responses of a group go out in one line where the scorer takes groups, else in a line each,
 * all at once as far as in_flight and the number of programs allow. */
static void process_score_group(void *opened, const RewardRequest *requests, int count,
                                RewardResult *ret)
{
    Scorer *scorer = opened;
    int lines = scorer->group ? 1 : count;
    Exchange **exchange = mem_calloc((size_t)lines, sizeof(Exchange *));
    for (int i = 0; i < lines; i++)
        exchange[i] = ask(scorer, &requests[i], count / lines);
    for (int i = 0; i < lines; i++)
        take_answer(scorer, exchange[i], requests[0].wanted, count / lines, &ret[i]);
    free(exchange);
}

static void process_score(void *opened, const RewardRequest *request, RewardResult *ret)
{
    process_score_group(opened, request, 1, ret);
}

const RewardTable reward_process = {"process",     process_open,        process_close,
                                    process_score, process_score_group, NULL};
