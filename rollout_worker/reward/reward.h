/* Reward: what a response is worth. A reward is a table of functions found by its name; job.yaml
 * names one or several with weights (reward_set.h), docs/rewards.md has a section for each.
 *
 * The outcome is typed because a verifier that fails is not a model that fails: only REWARD_OK and
 * REWARD_WRONG may train. REWARD_INFRA_ERROR and REWARD_TIMEOUT carry no score; the caller tries
 * again, counts, and gives the sample up or stops the run (retry.h). A grader that ran to its end
 * therefore never answers with either, whatever the response contains; one whose label or metadata
 * cannot be used answers REWARD_INFRA_ERROR with `permanent` set.
 *
 * Threads: open and close on any thread, once each. score and score_group are called from the
 * threads of the rollout worker's pool, concurrently, on the same opened reward: what they share is
 * const, or locked by the reward itself. A call may block (a process, a server) up to its timeout,
 * never longer. Graders of this folder do work linear in the response, within a fixed bound of
 * memory. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_REWARD_H
#define TROUPE_ROLLOUT_WORKER_REWARD_REWARD_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "rollout_worker/process/wanted.h"
#include "rollout_worker/reward/slice.h"

typedef enum {
    REWARD_OK = 0,      /* judged and right: the highest score that this reward gives */
    REWARD_WRONG,       /* judged and not, or not wholly, right: worth what `score` says */
    REWARD_INFRA_ERROR, /* not judged: the verifier, the label or the machine is at fault */
    REWARD_TIMEOUT,     /* not judged: the verifier did not answer in time */
    REWARD_OUTCOME_COUNT,
} RewardOutcome;

const char *reward_outcome_name(RewardOutcome outcome); /* "ok", "wrong", ... */
bool reward_outcome_trains(RewardOutcome outcome);

/* What is to be judged; all borrowed, const during the call. Any bytes; UTF-8 is not assumed. */
typedef struct RewardRequest {
    Slice prompt;          /* as text, when the caller has it */
    Slice response;        /* the text the model generated */
    Slice label;           /* the expected answer of the record, as text */
    const cJSON *metadata; /* the record's metadata object, or NULL */
    int64_t position;      /* of the record in the data source's stream ... */
    int32_t index;         /* ... and of the sample in its group: together they name a sample */
    const Wanted *wanted;  /* who waits long looks whether anybody does: then it is not judged;
                              NULL: for ever */
} RewardRequest;

#define REWARD_REASON_BYTES 200
#define REWARD_ANSWER_BYTES 200

typedef struct RewardResult {
    RewardOutcome outcome;
    double score;   /* finite; 0 unless judged */
    bool permanent; /* not judged, and trying again cannot help ... */
    bool of_record; /* ... for what the record's label or metadata are */
    bool told;      /* not judged, and who waits was told of it already (RewardRequest.wanted) */
    bool hopeless;  /* not judged, and the run cannot go on: the reason says why */
    char reason[REWARD_REASON_BYTES]; /* UTF-8: why, for people; may be empty */
    char answer[REWARD_ANSWER_BYTES]; /* UTF-8: what was taken for the answer; may be empty */
    char *extra;                      /* JSON of what else the reward has to say, or NULL; owned */
    int num_parts; /* of a weighted sum (reward_set.h); 0: one reward said all of it ... */
    double part[REWARDS_MAX]; /* ... and the scores of its rewards; NAN: not judged */
} RewardResult;

void reward_result_clear(RewardResult *result); /* frees `extra`, zeroes the struct */

typedef struct RewardTable {
    const char *name;
    /* Checks the options (a JSON object of the job file, or NULL for none; an unknown key is an
     * error that names the nearest) and makes what all threads share. *ret may become NULL. */
    Status (*open)(const cJSON *options, void **ret_self, Error *err);
    void (*close)(void *self); /* accepts NULL */
    /* Judges one response. *ret is zeroed before. */
    void (*score)(void *self, const RewardRequest *request, RewardResult *ret);
    /* Judges the n responses to one prompt at once; NULL: each is judged alone. ret[i] belongs to
     * requests[i]. */
    void (*score_group)(void *self, const RewardRequest *requests, int count, RewardResult *ret);
    /* Says of the label and the metadata of a record, before there is a response (the request's is
     * empty), what `score` would refuse whatever the response: REWARD_INFRA_ERROR with `permanent`;
     * every other result means nothing. Does no more than a grader's work. NULL: that cannot be
     * told, or nothing is read. */
    void (*check)(void *self, const RewardRequest *request, RewardResult *ret);
} RewardTable;

/* The table of a name; an unknown one is ERR_INVALID and its message lists all. */
Status reward_table_find(const char *name, const RewardTable **ret, Error *err);
const RewardTable *reward_table_at(int index); /* NULL past the end */

/* How a reward says what it found. Texts are copied, cut to fit at a whole character, and bytes
 * that are not UTF-8 or are control characters become '?'. */
void reward_judge(RewardResult *ret, bool right, double score, Slice answer);
void reward_fail(RewardResult *ret, RewardOutcome outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* As reward_fail with REWARD_INFRA_ERROR and `permanent`. */
void reward_refuse(RewardResult *ret, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void reward_explain(RewardResult *ret, const char *format, ...) /* sets the reason only */
    __attribute__((format(printf, 2, 3)));

extern const RewardTable reward_gsm8k;
extern const RewardTable reward_dapo;
extern const RewardTable reward_math;
extern const RewardTable reward_deepscaler;
extern const RewardTable reward_gpqa;
extern const RewardTable reward_f1;
extern const RewardTable reward_format;
extern const RewardTable reward_instructions;
extern const RewardTable reward_random;
extern const RewardTable reward_code;
extern const RewardTable reward_process;
Status reward_process_watch(void *opened, int64_t until_ms, Error *err); /* process_pool_watch */
extern const RewardTable reward_http;
extern const RewardTable reward_plugin_table; /* reward_plugin is the function of its interface */

#endif
