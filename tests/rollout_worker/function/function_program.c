/* A rollout function over JSON lines for test_process_function.c. It says what the record's
 * `script` says: its first message when the record comes, the next one after each reply. A message
 * that is a text does something else: "crash" ends the program, "silent" says nothing, "lag" says
 * nothing unless the program has had no other record, and then goes on, "$reply" fails with the
 * last line that came. Any number of records at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define RECORDS_MAX 1024

typedef struct Record {
    char id[32];
    cJSON *json; /* the request */
    int step;
} Record;

static Record records[RECORDS_MAX];
static int count;

static Record *find(const char *id)
{
    for (int i = 0; i < count; i++)
        if (strcmp(records[i].id, id) == 0) return &records[i];
    return NULL;
}

static void say_next(Record *record, const char *line)
{
    const cJSON *script =
        cJSON_GetObjectItem(cJSON_GetObjectItem(record->json, "record"), "script");
    const cJSON *step = cJSON_GetArrayItem(script, record->step++);
    const char *text = cJSON_GetStringValue(step);
    if (text != NULL && strcmp(text, "lag") == 0) {
        if (count > 1) return;
        step = cJSON_GetArrayItem(script, record->step++);
        text = cJSON_GetStringValue(step);
    }
    if (step == NULL) exit(6);
    if (text != NULL && strcmp(text, "silent") == 0) return;
    if (text != NULL && strcmp(text, "noise") == 0) {
        printf("hello world\n");
        fflush(stdout);
        return;
    }
    if (text != NULL && strcmp(text, "crash") == 0) {
        fprintf(stderr, "out of cheese\n");
        exit(3);
    }
    cJSON *message = text == NULL ? cJSON_Duplicate(step, true) : cJSON_CreateObject();
    if (text != NULL) {
        cJSON_AddStringToObject(message, "type", "failed");
        cJSON_AddStringToObject(message, "error", line);
    }
    cJSON_AddStringToObject(message, "id", record->id);
    Str out = {0};
    json_append(&out, message);
    puts(out.data);
    fflush(stdout);
    str_free(&out);
    cJSON_Delete(message);
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t length; (length = getline(&line, &capacity, stdin)) > 0;) {
        cJSON *json = NULL;
        Error err;
        if (json_parse(line, (size_t)length, "line", &json, &err) != OK) return 5;
        const char *id = cJSON_GetStringValue(cJSON_GetObjectItem(json, "id"));
        const char *type = cJSON_GetStringValue(cJSON_GetObjectItem(json, "type"));
        Record *record = find(id);
        if (strcmp(type, "rollout") == 0 && count < RECORDS_MAX) {
            record = &records[count++];
            snprintf(record->id, sizeof record->id, "%s", id);
            record->json = json;
            json = NULL;
        }
        if (strcmp(type, "cancel") != 0) say_next(record, line);
        cJSON_Delete(json);
    }
    for (int i = 0; i < count; i++)
        cJSON_Delete(records[i].json);
    free(line);
    return 0;
}
