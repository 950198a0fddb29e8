/* Stages of a job: `stages:` is a list, each entry a name and sections that replace, key by key,
 * what the file's own sections say. Each stage makes one whole JobConfig; what the run has but once
 * (ConfigKey.fixed) stands in the file's own sections alone. Used by job.c. No state; any thread.
 */
#ifndef TROUPE_CONFIG_STAGES_H
#define TROUPE_CONFIG_STAGES_H

#include "config/job_internal.h"

#define STAGES_MAX 64

typedef struct StageNode {
    const char *name; /* as written, or "stage-2"; arena memory */
    const YamlNode *place;
    YamlNode sections; /* a mapping; the name is cut out */
} StageNode;

typedef struct StageNodes {
    StageNode *stage; /* [count], arena memory */
    int count;        /* 0: the file has no stages */
} StageNodes;

/* Cuts `stages` out of the document, which then is one that config_apply reads. ERR_INVALID names
 * file, line, what was found and what was expected. */
Status stages_cut(const ConfigSource *source, YamlNode *root, StageNodes *ret, Error *err);

/* What is planned for all stages is what the largest needs, where the file does not say. */
void stages_share_sizes(LoadedJob *const *stage, int count);

#endif
