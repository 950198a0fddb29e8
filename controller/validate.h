/* Preflight: everything that can be found wrong before a process is started, in well under a
 * second: files, model configuration, names and shapes of the weights, tokenizer and chat template,
 * whether they fit each other and the layout, and whether the machine offers what the job
 * reserves. Every run begins with it; `controller validate` goes on with what takes longer: the
 * data (data_inspect) and the memory (train_inspect). */
#ifndef TROUPE_CONTROLLER_VALIDATE_H
#define TROUPE_CONTROLLER_VALIDATE_H

#include "config/job.h"

/* ERR_* with a message for the user; *ret_summary (may be NULL; owned) is a few lines on what was
 * found in order, and what is odd; with NULL that goes to the log. */
Status validate_job(const JobConfig *config, char **ret_summary, Error *err);

/* ERR_RESOURCE when the next checkpoint will not fit the disk; *ret_line (owned) says what it takes
 * and what is free, and warns when a later one will not fit. */
Status validate_disk(const JobConfig *config, char **ret_line, Error *err);

#endif
