#include "rollout_worker/browse.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/rng.h"
#include "checkpoint/manifest.h"
#include "config/stage_list.h"
#include "rollout_worker/saved_group.h"
#include "sample/score.h"

#define FILE_BYTES_MAX (1u << 30)

/* What a step consumed. */
typedef struct StepSpan {
    int64_t step, first, end;
    int64_t *rejected; /* [num_rejected], ascending, owned */
    int num_rejected;
} StepSpan;

struct Browser {
    BrowseOptions options;
    StageList stages;        /* that the run has entered */
    const StageEntry *stage; /* of them; NULL: the run does not say */
    char *label, *told;      /* of the stage: its name or number, and for people; NULL: it is not
                                worth telling */
    int64_t last_step;       /* of the stage */
    JobConfig *config;       /* of the stage */
    char *folder;            /* of the set's files */
    StepSpan *span;          /* [num_spans], ascending */
    int num_spans;
    int64_t *position; /* [num_positions] of groups that are there, ascending */
    size_t num_positions;
};

/* ---- which step consumed what ---- */

static void drop_spans(Browser *browser)
{
    for (int i = 0; i < browser->num_spans; i++)
        free(browser->span[i].rejected);
    free(browser->span);
    browser->span = NULL;
    browser->num_spans = 0;
}

/* A stage has positions of its own, which begin at 0. */
static void take_record(void *context, const LedgerRecord *record)
{
    Browser *browser = context;
    size_t count = (size_t)browser->num_spans;
    if (browser->stage != NULL && record->step <= browser->stage->steps_before) return;
    if (record->step > browser->last_step) return;
    if (browser->options.step >= 0 && record->step != browser->options.step) return;
    browser->span = mem_realloc(browser->span, count + 1, sizeof *browser->span);
    StepSpan *span = &browser->span[browser->num_spans++];
    *span = (StepSpan){.step = record->step,
                       .first = record->first,
                       .end = record->end,
                       .num_rejected = record->num_rejected};
    span->rejected = mem_calloc((size_t)record->num_rejected, sizeof *span->rejected);
    if (record->num_rejected > 0)
        memcpy(span->rejected, record->rejected,
               (size_t)record->num_rejected * sizeof *span->rejected);
}

/* The checkpoint from whose line on the ledger has what is asked for; NULL: from its start. One
 * that cannot be read is none. Owned. */
static Manifest *find_start(const Browser *browser)
{
    StringList paths = {0};
    Manifest *found = NULL;
    int64_t before = browser->stage != NULL ? browser->stage->steps_before : 0;
    char *root = path_join(browser->options.run, "checkpoints");
    if (browser->options.step > before) before = browser->options.step - 1;
    (void)checkpoint_list(root, &paths, NULL);
    for (int i = 0; i < paths.count && found == NULL; i++) { /* the newest first */
        Manifest *manifest = NULL;
        if (checkpoint_verify(paths.item[i], false, &manifest, NULL) != OK) continue;
        if (manifest->step <= before)
            found = manifest;
        else
            manifest_destroy(manifest);
    }
    string_list_free(&paths);
    free(root);
    return found;
}

static Status read_ledger(Browser *browser, Error *err)
{
    char *path = path_join(browser->options.run, "ledger.jsonl");
    Manifest *start = find_start(browser);
    Status status = OK;
    if (path_exists(path))
        status = ledger_read_behind(path, start != NULL ? start->ledger_head : "",
                                    start != NULL ? &start->ledger_mark : NULL, take_record,
                                    browser, err);
    manifest_destroy(start);
    free(path);
    return status;
}

static const StepSpan *find_span(const Browser *browser, int64_t position)
{
    for (int i = 0; i < browser->num_spans; i++)
        if (position >= browser->span[i].first && position < browser->span[i].end)
            return &browser->span[i];
    return NULL;
}

static bool span_rejects(const StepSpan *span, int64_t position)
{
    for (int i = 0; i < span->num_rejected; i++)
        if (span->rejected[i] == position) return true;
    return false;
}

/* ---- which groups are there ---- */

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Calls `take` for each entry of a folder; one that does not exist has none. */
static Status list_folder(const char *path, void (*take)(void *context, const char *name),
                          void *context, Error *err)
{
    DIR *folder = opendir(path);
    if (folder == NULL && errno == ENOENT) return OK;
    if (folder == NULL) return error_set_errno(err, errno, "could not open folder %s", path);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.') take(context, entry->d_name);
    closedir(folder);
    return OK;
}

static void take_file(void *context, const char *name)
{
    Browser *browser = context;
    char *end = NULL;
    long long position = strtoll(name, &end, 10);
    if (end == name || strcmp(end, ".jsonl") != 0) return;
    size_t count = browser->num_positions;
    if ((count & (count - 1)) == 0)
        browser->position =
            mem_realloc(browser->position, count > 0 ? 2 * count : 1, sizeof *browser->position);
    browser->position[browser->num_positions++] = position;
}

static void take_thousand(void *context, const char *name)
{
    Browser *browser = context;
    char *path = path_join(browser->folder, name);
    list_folder(path, take_file, browser, NULL);
    free(path);
}

static bool is_wanted(const Browser *browser, int64_t position)
{
    const BrowseOptions *options = &browser->options;
    if (options->position >= 0 && position != options->position) return false;
    if (options->step < 0 || options->set != NULL) return true;
    const StepSpan *span = find_span(browser, position);
    return span != NULL && span->step == options->step;
}

static Status find_groups(Browser *browser, Error *err)
{
    size_t kept = 0;
    TRY(list_folder(browser->folder, take_thousand, browser, err));
    qsort(browser->position, browser->num_positions, sizeof *browser->position, by_number);
    for (size_t i = 0; i < browser->num_positions; i++)
        if (is_wanted(browser, browser->position[i]))
            browser->position[kept++] = browser->position[i];
    browser->num_positions = kept;
    if (kept > 0) return OK;
    error_set(err, ERR_NOT_FOUND,
              "no answers of that step or position are saved in %s.\n"
              "Without --step and --position all that are there are looked at.",
              browser->folder);
    if (browser->told == NULL) return err->status;
    return error_append(err, "That is %s: --stage shows another one.", browser->told);
}

/* ---- which folder ---- */

typedef struct Evaluations {
    const char *set;
    int64_t newest; /* step that the newest one came after */
    Str seen;       /* the steps, for messages */
} Evaluations;

static void take_evaluation(void *context, const char *name)
{
    static const char mark[] = "-step";
    Evaluations *evaluations = context;
    size_t length = strlen(evaluations->set), begin = length + sizeof mark - 1;
    char *end = NULL;
    if (strncmp(name, evaluations->set, length) != 0) return;
    if (strncmp(name + length, mark, sizeof mark - 1) != 0) return;
    long long step = strtoll(name + begin, &end, 10);
    if (*end != '\0') return;
    str_printf(&evaluations->seen, " %lld", step);
    if (step > evaluations->newest) evaluations->newest = step;
}

static Status find_set_folder(Browser *browser, const char *saved, Error *err)
{
    const BrowseOptions *options = &browser->options;
    Evaluations evaluations = {.set = options->set};
    TRY(list_folder(saved, take_evaluation, &evaluations, err));
    int64_t step = options->step >= 0 ? options->step : evaluations.newest;
    browser->folder = mem_printf("%s/%s-step%lld", saved, options->set, (long long)step);
    Status status = OK;
    if (!path_is_folder(browser->folder))
        status = error_set(err, ERR_NOT_FOUND, "no answers to set %s%s are saved in %s.\n%s%s.",
                           options->set, options->step >= 0 ? " after that step" : "", saved,
                           evaluations.seen.length > 0 ? "It was evaluated after steps"
                                                       : "No evaluation of it is there",
                           str_text(&evaluations.seen));
    str_free(&evaluations.seen);
    return status;
}

static Status read_config(Browser *browser, Error *err)
{
    const char *run = browser->options.run;
    char *path = path_join(run, "config.effective.yaml"), *text = NULL;
    size_t length = 0;
    Status status = OK;
    if (!path_exists(path))
        status = error_set(err, ERR_NOT_FOUND, "%s is not a run folder: it has no %s", run,
                           path_name(path));
    if (status == OK) status = file_read(path, CONFIG_BYTES_MAX, &text, &length, err);
    if (status == OK) status = job_config_parse(text, path, run, &browser->config, err);
    free(text);
    free(path);
    return status;
}

/* NULL: nothing is saved. */
static const char *saved_folder(const BrowseOptions *options, const JobConfig *config)
{
    if (options->folder != NULL) return options->folder;
    return config->rollout.save != NULL ? config->rollout.save : config->rollout.load;
}

static char *stage_root(const char *saved, const StageEntry *stage)
{
    return saved_group_root(saved, stage != NULL ? stage->generating_before : 0);
}

static Status find_folder(Browser *browser, Error *err)
{
    const BrowseOptions *options = &browser->options;
    const char *saved = saved_folder(options, browser->config);
    if (browser->config->rollout.function == ROLLOUT_SFT && browser->told != NULL)
        return error_set(err, ERR_NOT_FOUND, "%s generates no answers: --stage shows another one.",
                         browser->told);
    if (saved == NULL)
        return error_set(err, ERR_NOT_FOUND,
                         "the run in %s saves no answers: its job has no rollout.save.\n"
                         "Add for example save: answers to its section rollout: a run that is not "
                         "over saves what it generates from then on. To see what the model of one "
                         "that is over answers, write a job with rollout.only and model.path: %s.",
                         options->run, options->run);
    if (!path_is_folder(saved))
        return error_set(err, ERR_NOT_FOUND,
                         "%s, where the run's answers are saved, is not there (yet).\n"
                         "If it was moved, name it with --answers.",
                         saved);
    char *root = stage_root(saved, browser->stage);
    Status status = OK;
    if (options->set != NULL)
        status = find_set_folder(browser, root, err);
    else
        browser->folder = path_join(root, "train");
    free(root);
    return status;
}

/* ---- which stage ---- */

static bool has_saved(const BrowseOptions *options, const StageEntry *stage,
                      const JobConfig *config)
{
    const char *saved = saved_folder(options, config);
    if (saved == NULL || config->rollout.function == ROLLOUT_SFT) return false;
    char *root = stage_root(saved, stage);
    bool there = path_is_folder(root);
    free(root);
    return there;
}

static void tell_stage(Browser *browser, const StageEntry *stage)
{
    const StageList *stages = &browser->stages;
    const StageEntry *last = &stages->entry[stages->count - 1];
    browser->stage = stage;
    if (stage < last) browser->last_step = stage[1].steps_before;
    if (stages->count == 1 && stage->name == NULL) return;
    browser->label =
        stage->name != NULL ? mem_strdup(stage->name) : mem_printf("%d", stage->number);
    browser->told =
        mem_printf("stage %s (%d of %d so far)", browser->label, stage->number, last->number);
}

static Status refuse_stage(const Browser *browser, Error *err)
{
    Str names = {0};
    for (int i = 0; i < browser->stages.count; i++) {
        const StageEntry *stage = &browser->stages.entry[i];
        str_printf(&names, "%s%d", i > 0 ? ", " : "", stage->number);
        if (stage->name != NULL) str_printf(&names, " (%s)", stage->name);
    }
    error_set(err, ERR_NOT_FOUND,
              "the run in %s entered no stage %s (yet).\nIts stages so far: %s.",
              browser->options.run, browser->options.stage,
              names.length > 0 ? str_text(&names) : "it does not say");
    str_free(&names);
    return err->status;
}

/* *ret_taken: it was asked for, or it saved answers. */
static Status try_stage(Browser *browser, const StageEntry *stage, bool *ret_taken, Error *err)
{
    const BrowseOptions *options = &browser->options;
    JobConfig *config = NULL;
    TRY(stage_list_config(options->run, stage->number, &config, err));
    *ret_taken = options->stage != NULL || has_saved(options, stage, config);
    if (*ret_taken) {
        job_config_destroy(browser->config);
        browser->config = config;
        tell_stage(browser, stage);
    } else {
        job_config_destroy(config);
    }
    return OK;
}

/* The one that is asked for; else the last one that saved anything, or the run as it stands. */
static Status find_stage(Browser *browser, Error *err)
{
    const char *wanted = browser->options.stage;
    bool taken = false;
    browser->last_step = INT64_MAX;
    TRY(read_config(browser, err));
    TRY(stage_list_read(browser->options.run, &browser->stages, err));
    int index = browser->stages.count - 1;
    if (wanted != NULL) index = stage_list_find(&browser->stages, wanted);
    if (wanted != NULL && index < 0) return refuse_stage(browser, err);
    for (; index >= 0 && !taken; index--)
        TRY(try_stage(browser, &browser->stages.entry[index], &taken, err));
    return OK;
}

Status browser_open(const BrowseOptions *options, Browser **ret, Error *err)
{
    Browser *browser = mem_calloc(1, sizeof *browser);
    browser->options = *options;
    Status status = find_stage(browser, err);
    if (status == OK) status = find_folder(browser, err);
    if (status == OK && options->set == NULL) status = read_ledger(browser, err);
    if (status == OK) status = find_groups(browser, err);
    if (status == OK)
        *ret = browser;
    else
        browser_close(browser);
    return status;
}

void browser_close(Browser *browser)
{
    if (browser == NULL) return;
    drop_spans(browser);
    stage_list_free(&browser->stages);
    job_config_destroy(browser->config);
    free(browser->label);
    free(browser->told);
    free(browser->position);
    free(browser->folder);
    free(browser);
}

const JobConfig *browser_config(const Browser *browser)
{
    return browser->config;
}

const char *browser_stage(const Browser *browser)
{
    return browser->told;
}

/* ---- one group ---- */

typedef struct Group {
    cJSON **json;   /* [count], owned */
    Sample *sample; /* [count] */
    int count;
    GroupVerdict verdict;
    double *advantage; /* [count] */
} Group;

static void group_clear(Group *group)
{
    for (int i = 0; i < group->count; i++) {
        cJSON_Delete(group->json[i]);
        sample_clear(&group->sample[i]);
    }
    free(group->json);
    free(group->sample);
    free(group->advantage);
    *group = (Group){0};
}

static Status add_line(Group *group, const char *text, size_t length, const char *where,
                       int64_t position, Error *err)
{
    size_t count = (size_t)group->count + 1;
    group->json = mem_realloc(group->json, count, sizeof *group->json);
    group->sample = mem_realloc(group->sample, count, sizeof *group->sample);
    group->json[group->count] = NULL;
    Sample *sample = &group->sample[group->count];
    *sample = (Sample){.position = position, .index = group->count};
    group->count++;
    TRY(json_parse(text, length, where, &group->json[group->count - 1], err));
    return saved_sample_read(group->json[group->count - 1], where, sample, err);
}

/* The advantage is the score where every token of a sample gets the same, and nothing but rewards
 * goes into it. */
static bool rewards_are_all(const AlgorithmConfig *algorithm)
{
    return advantage_needs_group(algorithm->advantage_estimator) && algorithm->kl_coef == 0 &&
           !algorithm->normalize_advantages;
}

static void find_advantages(const Browser *browser, Group *group)
{
    const AlgorithmConfig *algorithm = &browser->config->algorithm;
    size_t size = (size_t)group->count;
    double *reward = mem_calloc(size, sizeof *reward), *score = mem_calloc(size, sizeof *score);
    int64_t *one = mem_calloc(size, sizeof *one);
    int *which = mem_calloc(size, sizeof *which), count = 0;
    GroupCounts counts;
    group->advantage = mem_calloc(size, sizeof *group->advantage);
    for (int i = 0; i < group->count; i++) {
        SampleMeta meta = sample_meta(&group->sample[i]);
        group->advantage[i] = NAN;
        if (!sample_meta_trains(&meta)) continue;
        reward[count] = (double)meta.reward;
        which[count++] = i;
    }
    bool known = browser->options.set == NULL && rewards_are_all(algorithm);
    if (known && sample_scores(algorithm, one, reward, count, score, &counts, NULL) == OK)
        for (int i = 0; i < count; i++)
            group->advantage[which[i]] = score[i];
    free(which);
    free(one);
    free(score);
    free(reward);
}

static void judge(const Browser *browser, Group *group)
{
    GroupFilter filter = group_filter(&browser->config->algorithm);
    SampleMeta *meta = mem_calloc((size_t)group->count, sizeof *meta);
    for (int i = 0; i < group->count; i++)
        meta[i] = sample_meta(&group->sample[i]);
    group->verdict =
        browser->options.set == NULL ? group_judge(&filter, meta, group->count) : GROUP_KEPT;
    free(meta);
    find_advantages(browser, group);
}

static Status read_group(const Browser *browser, int64_t position, Group *ret, Error *err)
{
    char *text = NULL, *path = mem_printf("%s/%06lld/%09lld.jsonl", browser->folder,
                                          (long long)(position / 1000), (long long)position);
    size_t bytes = 0;
    Status status = file_read(path, FILE_BYTES_MAX, &text, &bytes, err);
    const char *at = text, *end = status == OK ? text + bytes : text;
    for (int line = 1; status == OK && at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline != NULL ? newline : end) - at);
        char *where = mem_printf("%s:%d", path, line);
        status = add_line(ret, at, length, where, position, err);
        free(where);
        at += length + 1;
    }
    if (status == OK) judge(browser, ret);
    free(text);
    free(path);
    return status;
}

/* ---- one answer ---- */

static double log_prob_mean(const Sample *sample)
{
    double sum = 0;
    int64_t count = 0;
    for (int32_t t = 0; t < sample->length && sample->log_prob != NULL; t++) {
        if (!sample->loss_mask[t]) continue;
        sum += (double)sample->log_prob[t];
        count++;
    }
    return count > 0 ? sum / (double)count : NAN;
}

static BrowsedAnswer answer_of(const Browser *browser, const Group *group, int index)
{
    const Sample *sample = &group->sample[index];
    const StepSpan *span =
        browser->options.set == NULL ? find_span(browser, sample->position) : NULL;
    SampleMeta meta = sample_meta(sample);
    return (BrowsedAnswer){
        .json = group->json[index],
        .stage = browser->label,
        .sample = sample,
        .group_size = group->count,
        .step = span != NULL ? span->step : 0,
        .trained = span != NULL && !span_rejects(span, sample->position) &&
                   group->verdict == GROUP_KEPT && sample_meta_trains(&meta),
        .verdict = group->verdict,
        .advantage = group->advantage[index],
        .log_prob_mean = log_prob_mean(sample),
    };
}

static bool has_prompt(const Browser *browser, const cJSON *json)
{
    const char *wanted = browser->options.prompt;
    const cJSON *prompt = cJSON_GetObjectItemCaseSensitive(json, "prompt");
    return wanted == NULL ||
           (cJSON_IsString(prompt) && strstr(prompt->valuestring, wanted) != NULL);
}

/* ---- choosing ---- */

/* An answer that may be shown. */
typedef struct Candidate {
    int64_t position;
    int index;
    double key; /* the least are shown first */
} Candidate;

static int by_key(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return x->index - y->index;
}

static double key_of(const BrowseOptions *options, const Sample *sample)
{
    uint64_t place = rng_mix((uint64_t)sample->position) + (uint64_t)sample->index;
    switch (options->order) {
    case BROWSE_BEST:
        return -(double)sample->reward;
    case BROWSE_WORST:
        return (double)sample->reward;
    case BROWSE_RANDOM:
        return (double)(rng_mix(options->seed ^ rng_mix(place)) >> 11);
    default:
        return 0;
    }
}

typedef struct Choice {
    Candidate *item; /* [count] */
    size_t count;
} Choice;

static bool is_candidate(const Browser *browser, const Group *group, int index)
{
    BrowseOrder order = browser->options.order;
    bool by_reward = order == BROWSE_BEST || order == BROWSE_WORST;
    if (by_reward && group->sample[index].status == SAMPLE_REJECTED) return false;
    return has_prompt(browser, group->json[index]);
}

/* Keeps the first `count` by their keys, and no more than twice as many meanwhile. */
static void add_candidates(const Browser *browser, const Group *group, Choice *choice)
{
    size_t most = browser->options.count;
    for (int i = 0; i < group->count; i++) {
        if (!is_candidate(browser, group, i)) continue;
        const Sample *sample = &group->sample[i];
        choice->item = mem_realloc(choice->item, choice->count + 1, sizeof *choice->item);
        choice->item[choice->count++] =
            (Candidate){sample->position, i, key_of(&browser->options, sample)};
    }
    if (choice->count <= 2 * most) return;
    qsort(choice->item, choice->count, sizeof *choice->item, by_key);
    choice->count = most;
}

static Status choose(const Browser *browser, Choice *ret, Error *err)
{
    bool in_order = browser->options.order == BROWSE_IN_ORDER;
    for (size_t i = 0; i < browser->num_positions; i++) {
        Group group = {0};
        Status status = read_group(browser, browser->position[i], &group, err);
        if (status == OK) add_candidates(browser, &group, ret);
        group_clear(&group);
        TRY(status);
        if (in_order && ret->count >= browser->options.count) break;
    }
    if (ret->count == 0) return OK;
    qsort(ret->item, ret->count, sizeof *ret->item, by_key);
    if (ret->count > browser->options.count) ret->count = browser->options.count;
    return OK;
}

Status browser_show(Browser *browser, void (*show)(void *context, const BrowsedAnswer *answer),
                    void *context, uint64_t *ret_shown, Error *err)
{
    Choice choice = {0};
    Group group = {0};
    int64_t open = -1; /* position of the group */
    *ret_shown = 0;
    Status status = choose(browser, &choice, err);
    for (size_t i = 0; status == OK && i < choice.count; i++) {
        const Candidate *candidate = &choice.item[i];
        if (candidate->position != open) {
            group_clear(&group);
            status = read_group(browser, candidate->position, &group, err);
            open = candidate->position;
        }
        if (status != OK || candidate->index >= group.count) continue;
        BrowsedAnswer answer = answer_of(browser, &group, candidate->index);
        show(context, &answer);
        ++*ret_shown;
    }
    group_clear(&group);
    free(choice.item);
    return status;
}
