#include "config/job_text.h"

#include <string.h>

#include "test.h"

JobConfig *parse_job(const char *yaml)
{
    JobConfig *config = NULL;
    Error err = {0};
    assert_ok(job_config_parse(yaml, "job.yaml", "/", &config, &err), &err);
    return config;
}

int count_lines(const char *text)
{
    int lines = 1;
    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

void assert_refused(const char *yaml, const char *const *parts)
{
    JobConfig *config = NULL;
    Error err = {0};
    Status status = job_config_parse(yaml, "job.yaml", "/", &config, &err);
    if (status != ERR_INVALID) fail_msg("gave %s for:\n%s", status_name(status), yaml);
    for (; *parts != NULL; parts++)
        if (strstr(err.message, *parts) == NULL)
            fail_msg("\"%s\" is not in the message:\n%s", *parts, err.message);
    assert_true(count_lines(err.message) <= 6);
    assert_int_equal(status_exit_code(status), 2);
}
