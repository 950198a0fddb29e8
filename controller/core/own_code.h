/* Shared objects of the user's that rollout workers load: what they break is the worker, and
 * whoever reads of its death is told of them. Pure; any thread. */
#ifndef TROUPE_CONTROLLER_CORE_OWN_CODE_H
#define TROUPE_CONTROLLER_CORE_OWN_CODE_H

#include <stdbool.h>
#include <stddef.h>

#include "config/job.h"

/* Whether a process that ended so ("killed by signal 11 (SIGSEGV)"), with these last words (may be
 * NULL), was perhaps ended by code of the user's: by a fault, by exit(), or with code 0, with which
 * none of ours ends unless it is told to stop. */
bool own_code_is_suspect(const char *end, const char *words);

/* Whether what a data source is at ("next_batch of the reader csv (/lib/csv.so) of data.train") is
 * code of the user's. */
bool own_code_is_at(const char *doing);

/* Code of the job's own that runs in a rollout worker: "rollout.reward (plugin ./seg.so)", the
 * first that it names; "" where there is none. */
void own_code_describe(const JobConfig *config, char *ret, size_t bytes);
/* The same of the data source: "data.train (reader ./csv.so)". */
void own_code_describe_reader(const JobConfig *config, char *ret, size_t bytes);

#endif
