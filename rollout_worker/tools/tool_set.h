/* ToolSet: the tools of a job. An entry is a program that lives as long as the job and speaks JSON
 * lines (process/process_pool.h), with one or more functions that the model may call:
 *
 *     [{"name": "calculator", "description": "...", "parameters": {...},
 *       "command": ["python3", "calculator.py"], "timeout_s": 10}]
 *
 * or a server (`url` in the place of `command`); one with several functions has a list of them,
 * `functions`, in the place of the first three keys. docs/tools.md has the protocol. Const once
 * opened: calls may be made on any number of threads. */
#ifndef TROUPE_ROLLOUT_WORKER_TOOLS_TOOL_SET_H
#define TROUPE_ROLLOUT_WORKER_TOOLS_TOOL_SET_H

#include "rollout_worker/tools/multi_turn.h"

typedef struct ToolSet ToolSet;

/* Starts the programs. ERR_INVALID names the entry and what is wrong with it. */
Status tool_set_open(const cJSON *spec, ToolSet **ret, Error *err);
void tool_set_close(ToolSet *set); /* accepts NULL */

/* process_pool_watch of its programs; names the tool whose program has ended. */
Status tool_set_watch(ToolSet *set, int64_t until_ms, Error *err);

/* All functions as chat templates take them: a list of {"type": "function", "function": {...}}.
 * Borrowed. */
const cJSON *tool_set_functions(const ToolSet *set);

/* Makes the calls, for multi_turn.h. */
ToolRunner tool_set_runner(ToolSet *set);

#endif
