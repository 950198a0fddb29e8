/* The reward `instructions`: rules that a program can check, with IFEval's names and arguments
 * (Zhou et al., "Instruction-following evaluation for large language models", 2023). The record's
 * metadata has instruction_id_list, a list of names, and kwargs, a list with the arguments of each.
 * The score is 1 when all are followed (option score: all), or the share of those that are (option
 * score: share).
 *
 * Keywords are texts here, where the reference takes them for regular expressions; words are runs
 * of letters, digits and underscores. What needs a language model or a sentence splitter is not
 * here: such a name is REWARD_INFRA_ERROR, never a wrong answer. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/instruction.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"

typedef struct Instructions {
    int share; /* 1: the score is the share of instructions that are followed */
} Instructions;

static Status instructions_open(const cJSON *options, void **ret_self, Error *err)
{
    static const char *const keys[] = {"score", NULL};
    static const char *const scores[] = {"all", "share", NULL};
    int share = 0;
    TRY(options_check(options, "instructions", keys, err));
    TRY(options_choice(options, "score", "instructions", scores, &share, err));
    Instructions *self = mem_alloc(sizeof *self);
    self->share = share;
    *ret_self = self;
    return OK;
}

static void instructions_close(void *self)
{
    free(self);
}

/* The arguments of instruction number `index`: an entry of the list, or one object for all. */
static const cJSON *arguments_of(const cJSON *metadata, int index)
{
    const cJSON *kwargs = cJSON_GetObjectItemCaseSensitive(metadata, "kwargs");
    return cJSON_IsArray(kwargs) ? cJSON_GetArrayItem(kwargs, index) : kwargs;
}

static void instructions_score(void *opened, const RewardRequest *request, RewardResult *ret)
{
    const Instructions *self = opened;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(request->metadata, "instruction_id_list");
    int count = cJSON_GetArraySize(list), followed = 0, index = 0;
    if (!cJSON_IsArray(list) || count == 0) {
        reward_refuse(ret, "the record's metadata has no instruction_id_list");
        return;
    }
    const cJSON *entry = NULL;
    Str failed = {0};
    cJSON_ArrayForEach(entry, list)
    {
        const char *name = cJSON_IsString(entry) ? entry->valuestring : "";
        Error err;
        bool follows = false;
        if (instruction_check(name, arguments_of(request->metadata, index), request->response,
                              &follows, &err) != OK) {
            reward_refuse(ret, "the record's metadata: %s", err.message);
            str_free(&failed);
            return;
        }
        if (!follows) str_printf(&failed, "%s%s", failed.length == 0 ? "" : ", ", name);
        followed += follows;
        index++;
    }
    double score = self->share ? (double)followed / count : followed == count;
    reward_judge(ret, followed == count, score, (Slice){0});
    if (followed < count) reward_explain(ret, "not followed: %s", str_text(&failed));
    str_free(&failed);
}

const RewardTable reward_instructions = {
    "instructions", instructions_open, instructions_close, instructions_score,
    NULL,           instructions_score};
