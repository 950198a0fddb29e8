#include "config/stages.h"

#include <stdio.h>
#include <string.h>

static Status take_entry(const ConfigSource *source, const YamlNode *entry, StageNode *stage,
                         Error *err)
{
    Arena *arena = source->arena;
    if (entry->kind != YAML_MAPPING)
        return error_set(err, ERR_INVALID,
                         "%s: found %s, expected a stage: a name and the sections in which it "
                         "differs.\nWrite for example - {name: rl, rollout: {function: generate}}.",
                         config_place(source, entry), config_found(entry, arena));
    stage->place = entry;
    stage->sections = *entry;
    stage->sections.key = arena_alloc(arena, (size_t)entry->count * sizeof *entry->key);
    stage->sections.item = arena_alloc(arena, (size_t)entry->count * sizeof *entry->item);
    stage->sections.count = 0;
    for (int i = 0; i < entry->count; i++) {
        if (strcmp(entry->key[i]->text, "name") != 0) {
            stage->sections.key[stage->sections.count] = entry->key[i];
            stage->sections.item[stage->sections.count++] = entry->item[i];
            continue;
        }
        const YamlNode *name = entry->item[i];
        if (name->kind != YAML_SCALAR || !job_name_is_valid(name->text))
            return error_set(err, ERR_INVALID,
                             "%s: the stage's name is %s, expected at most %d letters and digits "
                             "of any script, `.`, `_` and `-`, not starting with a dot.",
                             config_place(source, name), config_found(name, arena),
                             JOB_NAME_LENGTH_MAX);
        stage->name = name->text;
    }
    return OK;
}

static Status check_names(const ConfigSource *source, const StageNodes *stages, Error *err)
{
    for (int i = 0; i < stages->count; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(stages->stage[i].name, stages->stage[j].name) == 0)
                return error_set(err, ERR_INVALID,
                                 "%s: two stages are called %s, the first in line %d.\n"
                                 "Give each a name of its own.",
                                 config_place(source, stages->stage[i].place),
                                 stages->stage[i].name, stages->stage[j].place->line);
    return OK;
}

static Status take_list(const ConfigSource *source, const YamlNode *list, StageNodes *stages,
                        Error *err)
{
    if (list->kind != YAML_SEQUENCE || list->count == 0 || list->count > STAGES_MAX)
        return error_set(err, ERR_INVALID,
                         "%s: stages is %s, expected a list of 1 to %d stages, one after the "
                         "other: each a name and the sections in which it differs.",
                         config_place(source, list),
                         list->kind == YAML_SEQUENCE && list->count == 0
                             ? "empty"
                             : config_found(list, source->arena),
                         STAGES_MAX);
    stages->stage = arena_alloc(source->arena, (size_t)list->count * sizeof *stages->stage);
    for (int i = 0; i < list->count; i++) {
        stages->stage[i].name = arena_printf(source->arena, "stage-%d", i + 1);
        TRY(take_entry(source, list->item[i], &stages->stage[i], err));
    }
    stages->count = list->count;
    return check_names(source, stages, err);
}

Status stages_cut(const ConfigSource *source, YamlNode *root, StageNodes *ret, Error *err)
{
    StageNodes stages = {0};
    const YamlNode *name = NULL;
    int kept = 0;
    for (int i = 0; root->kind == YAML_MAPPING && i < root->count; i++) {
        if (strcmp(root->key[i]->text, "stages") != 0) {
            root->key[kept] = root->key[i];
            root->item[kept++] = root->item[i];
            continue;
        }
        if (name != NULL)
            return error_set(err, ERR_INVALID,
                             "%s: stages stands twice; the first is in line %d.\nKeep one list.",
                             config_place(source, root->key[i]), name->line);
        name = root->key[i];
        TRY(take_list(source, root->item[i], &stages, err));
    }
    if (root->kind == YAML_MAPPING) root->count = kept;
    *ret = stages;
    return OK;
}

static int64_t *number_at(LoadedJob *job, const ConfigKey *key)
{
    return (int64_t *)((char *)&job->config + key->offset);
}

static bool *flag_at(LoadedJob *job, const ConfigKey *key)
{
    return (bool *)((char *)&job->config + key->offset);
}

static void share_rooms(LoadedJob *const *stage, int count)
{
    static const char *const shared[] = {"train.memory_reference", "train.memory_critic"};
    for (size_t k = 0; k < sizeof shared / sizeof *shared; k++) {
        int index = config_find(&job_table, shared[k]);
        const ConfigKey *key = config_key(&job_table, index);
        bool any = false;
        for (int i = 0; i < count; i++)
            any = any || *flag_at(stage[i], key);
        for (int i = 0; i < count; i++)
            if (stage[i]->origin[index].kind == FROM_DEFAULT) *flag_at(stage[i], key) = any;
    }
}

void stages_share_sizes(LoadedJob *const *stage, int count)
{
    share_rooms(stage, count);
    static const char *const shared[] = {"cluster.rollout_workers_max", "train.memory_length",
                                         "train.memory_tokens_per_gpu"};
    for (size_t k = 0; k < sizeof shared / sizeof *shared; k++) {
        int index = config_find(&job_table, shared[k]);
        const ConfigKey *key = config_key(&job_table, index);
        int64_t most = 0;
        for (int i = 0; i < count; i++)
            if (*number_at(stage[i], key) > most) most = *number_at(stage[i], key);
        for (int i = 0; i < count; i++)
            if (stage[i]->origin[index].kind == FROM_DEFAULT) *number_at(stage[i], key) = most;
    }
}
