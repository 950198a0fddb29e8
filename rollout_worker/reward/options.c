#include "rollout_worker/reward/options.h"

#include <string.h>

#include "base/json.h"
#include "base/str.h"

static size_t count_names(const char *const *names)
{
    size_t count = 0;
    while (names[count] != NULL)
        count++;
    return count;
}

Status options_append_names(const char *found, const char *const *names, Error *err)
{
    Str list = {0};
    for (size_t i = 0; names[i] != NULL; i++)
        str_printf(&list, "%s%s", i == 0 ? "" : ", ", names[i]);
    error_append(err, "expected: %s", list.length == 0 ? "none" : str_text(&list));
    str_free(&list);
    const char *nearest = str_nearest(found, names, count_names(names));
    if (nearest != NULL) error_append(err, "did you mean %s?", nearest);
    return err == NULL ? ERR_INVALID : err->status;
}

Status options_check(const cJSON *options, const char *reward, const char *const *keys, Error *err)
{
    if (options == NULL) return OK;
    if (!cJSON_IsObject(options))
        return error_set(err, ERR_INVALID, "the options of reward %s are %s, expected an object",
                         reward, json_type_name(options));
    const cJSON *entry = NULL;
    cJSON_ArrayForEach(entry, options)
    {
        bool known = false;
        for (size_t i = 0; keys[i] != NULL; i++)
            known = known || strcmp(keys[i], entry->string) == 0;
        if (known) continue;
        error_set(err, ERR_INVALID, "reward %s has no option %s", reward, QUOTED(entry->string));
        return options_append_names(entry->string, keys, err);
    }
    return OK;
}

Status options_choice(const cJSON *options, const char *key, const char *reward,
                      const char *const *names, int *ret, Error *err)
{
    const char *text = NULL;
    TRY(json_string_or(options, key, reward, &text, err));
    if (text == NULL) return OK;
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) != 0) continue;
        *ret = i;
        return OK;
    }
    error_set(err, ERR_INVALID, "option %s of reward %s is %s", key, reward, QUOTED(text));
    return options_append_names(text, names, err);
}
