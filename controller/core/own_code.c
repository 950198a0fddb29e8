#include "core/own_code.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "config/eval_set.h"
#include "config/source_set.h"

bool own_code_is_suspect(const char *end, const char *words)
{
    if (end != NULL && strcmp(end, "exited with code 0") == 0) return true;
    if (words != NULL && strstr(words, "exit() was called in ") != NULL)
        return true; /* last_words.c */
    static const char *const signals[] = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"};
    for (size_t i = 0; end != NULL && i < sizeof signals / sizeof *signals; i++)
        if (strstr(end, signals[i]) != NULL) return true;
    return false;
}

bool own_code_is_at(const char *doing)
{
    return strstr(doing, " of the reader ") != NULL; /* user_reader_describe */
}

/* The path of a reward that is a shared object; NULL: it is none. */
static const char *plugin_path(const cJSON *reward)
{
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(reward, "options");
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(reward, "name"));
    if (name == NULL || strcmp(name, "plugin") != 0) return NULL;
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(options, "path"));
}

static bool describe_reward(const char *spec, const char *key, char *ret, size_t bytes)
{
    cJSON *json = NULL;
    Error err;
    if (spec == NULL || json_parse(spec, strlen(spec), key, &json, &err) != OK) return false;
    const char *path = plugin_path(json);
    const cJSON *entry = NULL;
    if (cJSON_IsArray(json))
        cJSON_ArrayForEach(entry, json) if (path == NULL) path = plugin_path(entry);
    if (path != NULL) snprintf(ret, bytes, "%s (plugin %s)", key, path);
    cJSON_Delete(json);
    return ret[0] != '\0';
}

void own_code_describe_reader(const JobConfig *config, char *ret, size_t bytes)
{
    ret[0] = '\0';
    for (int i = 0; i < train_source_count(config) && ret[0] == '\0'; i++) {
        TrainSource source = train_source(config, i);
        if (source.reader != NULL)
            snprintf(ret, bytes, "%s (reader %s)", source.key, source.reader);
    }
}

void own_code_describe(const JobConfig *config, char *ret, size_t bytes)
{
    ret[0] = '\0';
    if (config->rollout.function == ROLLOUT_PLUGIN) {
        snprintf(ret, bytes, "rollout.function (plugin %s)", config->rollout.function_of);
        return;
    }
    if (describe_reward(config->rollout.reward, "rollout.reward", ret, bytes)) return;
    for (int i = 0; i < eval_set_count(config); i++) {
        EvalSet set = eval_set(config, i);
        char key[128];
        snprintf(key, sizeof key, "%s.reward", set.key);
        if (describe_reward(set.reward, key, ret, bytes)) return;
    }
}
