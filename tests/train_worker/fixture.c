#include "fixture.h"

#include "test.h"

#include <stdio.h>

cJSON *fixture_load(const char *name)
{
    char path[640];
    cJSON *json = NULL;
    Error err = {0};
    snprintf(path, sizeof path, "%s/train_worker/golden_policy/%s", TEST_SOURCE_DIR, name);
    assert_ok(json_read(path, 1 << 20, &json, &err), &err);
    return json;
}

const cJSON *fixture_member(const cJSON *object, const char *key)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, key);
    if (member == NULL) fail_msg("the fixture has no %s", key);
    return member;
}

double fixture_number(const cJSON *object, const char *key)
{
    const cJSON *member = fixture_member(object, key);
    if (cJSON_IsBool(member)) return cJSON_IsTrue(member) ? 1.0 : 0.0;
    assert_true(cJSON_IsNumber(member));
    return member->valuedouble;
}

const char *fixture_text(const cJSON *object, const char *key)
{
    const cJSON *member = fixture_member(object, key);
    assert_true(cJSON_IsString(member));
    return member->valuestring;
}

int fixture_numbers(const cJSON *object, const char *key, double *out, int max)
{
    const cJSON *list = fixture_member(object, key);
    int count = cJSON_GetArraySize(list);
    assert_in_range(count, 0, max);
    for (int i = 0; i < count; i++)
        out[i] = cJSON_GetArrayItem(list, i)->valuedouble;
    return count;
}
