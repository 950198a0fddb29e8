#include "config/reward_names.h"

#include <stdio.h>
#include <string.h>

static const char *name_of(const cJSON *entry)
{
    if (cJSON_IsString(entry)) return entry->valuestring;
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "name"));
    return name != NULL ? name : "";
}

RewardNames reward_names_of(const cJSON *spec)
{
    RewardNames names = {0};
    const cJSON *entry = NULL, *other = NULL;
    if (!cJSON_IsArray(spec) || cJSON_GetArraySize(spec) < 2) return names;
    cJSON_ArrayForEach(entry, spec)
    {
        int before = 0;
        if (names.count == REWARDS_MAX) break;
        for (other = spec->child; other != entry; other = other->next)
            before += strcmp(name_of(other), name_of(entry)) == 0;
        char *name = names.name[names.count++];
        if (before == 0)
            snprintf(name, sizeof *names.name, "%.40s", name_of(entry));
        else
            snprintf(name, sizeof *names.name, "%.40s_%d", name_of(entry), before + 1);
    }
    return names;
}

RewardNames reward_names(const char *json)
{
    cJSON *spec = json != NULL ? cJSON_Parse(json) : NULL;
    RewardNames names = reward_names_of(spec);
    cJSON_Delete(spec);
    return names;
}
