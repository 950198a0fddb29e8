/* SavedGroup: the samples of one prompt in a file of their own, to look at and to train from again
 * (rollout.save, rollout.load). One JSON object a line for each sample, with everything that
 * training needs of it, exactly, and its texts beside. The name of a file says set, position and,
 * in evaluations, which come again with other weights, the version; a lease that runs again writes
 * the same bytes. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_SAVED_GROUP_H
#define TROUPE_ROLLOUT_WORKER_SAVED_GROUP_H

#include "config/reward_names.h"
#include "rollout_worker/reward/reward.h"
#include "rollout_worker/rollout.h"

/* What is told beside the samples; all borrowed. */
typedef struct SavedTexts {
    Slice prompt, label;
    const Slice *response;      /* [count of the group] */
    const RewardResult *result; /* the same */
    const cJSON *const *extra;  /* the same, entries may be NULL: what a rollout function said of
                                   it; NULL: none made them */
    const RewardNames *rewards; /* of a weighted sum; NULL: there is none */
    /* What whoever loads them must know: */
    const char *const *judged; /* what rewards read, where that is not the response, else NULL */
    const bool *has_reward;    /* who made it has judged it */
    const char *judged_by;     /* else these rewards, JSON text as in the job; NULL: none */
    const uint64_t *weights;   /* digest of those of its last version; 0: not known */
} SavedTexts;

/* The answers of a run's first stage that generates lie in the folder itself, those of the second
 * in FOLDER/stage_2: positions begin anew. Owned. */
char *saved_group_root(const char *folder, int generating_before);

/* FOLDER/train/000000/000000012.jsonl, FOLDER/gsm8k-step6/000000/000000012.jsonl: positions by
 * thousands. `set` is that of an evaluation; NULL: training. The weights of version 7, which step 7
 * trains from, are those after step 6: people know evaluations by that. Owned. */
char *saved_group_path(const char *folder, const char *set, int64_t version, int64_t position);

/* What a file says of a sample that was loaded, for whoever goes on with it. */
typedef struct SavedNote {
    char *judged;     /* what rewards read; owned */
    cJSON *judged_by; /* the job's rewards; NULL: whoever made it; owned */
    uint64_t weights; /* digest of those of its last version; 0: not known */
} SavedNote;

void saved_notes_free(SavedNote *note, int count); /* accepts NULL */

/* Writes the file whole or not at all, and the folders it is in. */
Status saved_group_write(const char *path, const RolloutGroup *group, const SavedTexts *texts,
                         Error *err);

/* Adds the samples of a file as those of `record`. ERR_NOT_FOUND when there is none; ERR_DATA with
 * file, line and key when it is not what saved_group_write writes. *ret, and *ret_note, one for
 * each sample, are to be cleared by the caller in any case; both are empty before. */
Status saved_group_read(const char *path, const RolloutRecord *record, RolloutGroup *ret,
                        SavedNote **ret_note, Error *err);

/* The sample of one line, without its position; `where` names it in messages. *ret, which is
 * zeroed, is to be cleared by the caller in any case. */
Status saved_sample_read(const cJSON *json, const char *where, Sample *ret, Error *err);

#endif
