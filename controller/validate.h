/* Preflight: everything that can be found wrong before a process is started, in well under a
 * second: files, model configuration, tokenizer and chat template, and whether they fit each other
 * and the layout. */
#ifndef TROUPE_CONTROLLER_VALIDATE_H
#define TROUPE_CONTROLLER_VALIDATE_H

#include "config/job.h"

/* ERR_* with a message for the user; *ret_summary (may be NULL; owned) is a few lines on what was
 * found in order. */
Status validate_job(const JobConfig *config, char **ret_summary, Error *err);

#endif
