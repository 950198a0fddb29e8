/* job.yaml: any bytes are either refused with a message of one to six lines, or give a
 * configuration whose text reads back to the same configuration. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "config/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_message(const Error *err)
{
    int lines = 1;
    for (const char *at = err->message; *at != '\0'; at++)
        lines += *at == '\n';
    CHECKF(err->message[0] != '\0' && lines <= 6, "%s", err->message);
    size_t size = strlen(err->message);
    CHECK(utf8_valid_prefix(err->message, size) == size);
}

/* The text up to the comments, which name another file the second time. */
static char *without_comments(char *text)
{
    Str kept = {0};
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *comment = line, *next;
        while ((next = strstr(comment + 1, "  # ")) != NULL)
            comment = next;
        str_append(&kept, line, comment > line ? (size_t)(comment - line) : strlen(line));
        str_putc(&kept, '\n');
    }
    free(text);
    return str_take(&kept);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    Error err = {0};
    JobConfig *first = NULL, *second = NULL;
    char *yaml = mem_strndup((const char *)bytes, length);
    if (job_config_parse(yaml, "job.yaml", "/", &first, &err) == OK) {
        char *text = job_config_text(first);
        CHECKF(job_config_parse(text, "text", "/", &second, &err) == OK, "%s\n%s", err.message,
               text);
        text = without_comments(text);
        char *again = without_comments(job_config_text(second));
        CHECKF(strcmp(text, again) == 0, "%s\n%s", text, again);
        free(text);
        free(again);
    } else {
        check_message(&err);
    }

    job_config_destroy(first);
    job_config_destroy(second);
    free(yaml);
    return 0;
}
