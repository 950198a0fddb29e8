/* Job files as texts of a test, good ones and such as are refused. A failure fails the test. */
#ifndef TROUPE_TESTS_CONFIG_JOB_TEXT_H
#define TROUPE_TESTS_CONFIG_JOB_TEXT_H

#include "config/job.h"

/* "job.yaml" of the folder "/"; owned by the caller. */
JobConfig *parse_job(const char *yaml);

/* Of a message. */
int count_lines(const char *text);

/* Fails unless the text is refused with every one of the given parts in the message (NULL ends
 * them), which is no longer than six lines. */
void assert_refused(const char *yaml, const char *const *parts);
#define REFUSED(yaml, ...) assert_refused(yaml, (const char *const[]){__VA_ARGS__, NULL})

#endif
