/* A tool over JSON lines for test_tool_set.c; the name of the function says what it does: `echo`
 * gives its arguments back, `who` the sample and turn that ask, `object` JSON that is no text,
 * `refuse` an error for the model, `nothing` neither content nor error, `crash` ends the program,
 * `slow` waits two seconds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

static void answer(const cJSON *request, const char *name)
{
    const char *id = cJSON_GetStringValue(cJSON_GetObjectItem(request, "id"));
    Str text = {0}, line = {0};
    if (strcmp(name, "crash") == 0) {
        fprintf(stderr, "out of cheese\n");
        exit(3);
    }
    if (strcmp(name, "slow") == 0) sleep(2);
    str_printf(&line, "{\"id\": \"%s\"", id);
    if (strcmp(name, "object") == 0) str_puts(&line, ", \"content\": {\"sum\": 5.0}");
    if (strcmp(name, "refuse") == 0) str_puts(&line, ", \"error\": \"division by zero\"");
    if (strcmp(name, "echo") == 0) {
        json_append(&text, cJSON_GetObjectItem(request, "arguments"));
        str_puts(&line, ", \"content\": ");
        json_append_string(&line, str_text(&text));
    }
    if (strcmp(name, "who") == 0)
        str_printf(&line, ", \"content\": \"%d %d %d\"",
                   cJSON_GetObjectItem(request, "position")->valueint,
                   cJSON_GetObjectItem(request, "index")->valueint,
                   cJSON_GetObjectItem(request, "turn")->valueint);
    str_puts(&line, "}");
    puts(line.data);
    fflush(stdout);
    str_free(&line);
    str_free(&text);
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t length; (length = getline(&line, &capacity, stdin)) > 0;) {
        cJSON *request = NULL;
        Error err;
        if (json_parse(line, (size_t)length, "request", &request, &err) != OK) return 5;
        answer(request, cJSON_GetStringValue(cJSON_GetObjectItem(request, "name")));
        cJSON_Delete(request);
    }
    free(line);
    return 0;
}
