/* A scorer over JSON lines for test_scorers.c; the first argument says how it behaves:
 *
 *   length      the score is the length of the response; `slow` in it waits two seconds, `crash`
 *               ends the program, `noise` prints a line that is no answer,
 *               `foreign` answers another id
 *   reverse     answers two requests at a time, the second one first
 *   dead        ends at once, with a word on standard error
 *   once FILE   is `length`, but ends at a request when FILE is not there, and makes it
 *   later FILE  is `length`, but ends at every request for as long as FILE is not there
 *   silent FILE reads and answers nothing; FILE, if there is one, is a byte longer for each start
 *   context     the score is 1000 times the length of the label, and the length of the prompt
 *   rank        the score is the response's place in its group
 *   child FILE  starts a process that sleeps for ever, writes its pid to FILE, and is `length` */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

static cJSON *read_request(void)
{
    static char *line;
    static size_t capacity;
    ssize_t length = getline(&line, &capacity, stdin);
    if (length <= 0) exit(0);
    cJSON *request = NULL;
    Error err;
    if (json_parse(line, (size_t)length, "request", &request, &err) != OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(5);
    }
    return request;
}

static const char *text(const cJSON *request, const char *key)
{
    const cJSON *value = cJSON_GetObjectItem(request, key);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static void answer(cJSON *request)
{
    const cJSON *group = cJSON_GetObjectItem(request, "responses"), *entry = NULL;
    printf("{\"id\": \"%s\", ", text(request, "id"));
    if (group != NULL) {
        const char *comma = "";
        printf("\"scores\": [");
        cJSON_ArrayForEach(entry, group)
        {
            printf("%s%zu", comma, strlen(entry->valuestring));
            comma = ", ";
        }
        printf("], \"extra\": {\"n\": %d}}\n", cJSON_GetArraySize(group));
    } else {
        printf("\"score\": %zu, \"answer\": \"%s\", \"extra\": {\"pid\": %d}}\n",
               strlen(text(request, "response")), text(request, "label"), (int)getpid());
    }
    fflush(stdout);
    cJSON_Delete(request);
}

static void end_unless_there(const char *path)
{
    if (access(path, F_OK) == 0) return;
    FILE *file = fopen(path, "w");
    if (file != NULL) fclose(file);
    exit(7);
}

static void judge_lengths(const char *once)
{
    for (;;) {
        cJSON *request = read_request();
        if (once != NULL) end_unless_there(once);
        const char *response = text(request, "response");
        if (strstr(response, "slow") != NULL) sleep(2);
        if (strstr(response, "noise") != NULL) {
            printf("loading the model ...\n");
            fflush(stdout);
        }
        if (strstr(response, "foreign") != NULL) {
            printf("{\"id\": \"zzz\", \"score\": 1}\n");
            fflush(stdout);
        }
        if (strstr(response, "crash") != NULL) {
            fprintf(stderr, "warming up\nout of cheese\n");
            exit(3);
        }
        answer(request);
    }
}

static void judge_context(void)
{
    for (;;) {
        cJSON *request = read_request();
        printf("{\"id\": \"%s\", \"score\": %zu}\n", text(request, "id"),
               1000 * strlen(text(request, "label")) + strlen(text(request, "prompt")));
        fflush(stdout);
        cJSON_Delete(request);
    }
}

static void judge_rank(void)
{
    for (;;) {
        cJSON *request = read_request();
        int count = cJSON_GetArraySize(cJSON_GetObjectItem(request, "responses"));
        printf("{\"id\": \"%s\", \"scores\": [", text(request, "id"));
        for (int i = 0; i < count; i++)
            printf("%s%d", i > 0 ? ", " : "", i);
        printf("]}\n");
        fflush(stdout);
        cJSON_Delete(request);
    }
}

static void judge_later(const char *path)
{
    for (;;) {
        cJSON *request = read_request();
        if (access(path, F_OK) != 0) exit(7);
        answer(request);
    }
}

static void make_child(const char *path)
{
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    FILE *file = fopen(path, "w");
    if (file == NULL) exit(6);
    fprintf(file, "%d\n", (int)pid);
    fclose(file);
}

static void count_start(const char *path)
{
    FILE *file = fopen(path, "a");
    if (file == NULL) exit(6);
    fputc('.', file);
    fclose(file);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "dead") == 0) {
        fprintf(stderr, "no such model\n");
        return 4;
    }
    if (strcmp(mode, "silent") == 0 && argc > 2) count_start(argv[2]);
    while (strcmp(mode, "silent") == 0)
        cJSON_Delete(read_request());
    if (strcmp(mode, "context") == 0) judge_context();
    if (strcmp(mode, "rank") == 0) judge_rank();
    if (strcmp(mode, "later") == 0) judge_later(argv[2]);
    if (strcmp(mode, "child") == 0) make_child(argv[2]);
    while (strcmp(mode, "reverse") == 0) {
        cJSON *first = read_request(), *second = read_request();
        answer(second);
        answer(first);
    }
    judge_lengths(strcmp(mode, "once") == 0 ? argv[2] : NULL);
}
