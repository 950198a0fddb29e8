/* Where a run begins: the newest whole checkpoint in its folder, or nothing; and whether it may go
 * on from there with the configuration that it is given now. Most of that may be changed between
 * two sessions, which is said aloud; what would make the samples or the model other ones than those
 * the checkpoint stands for is refused (the data itself is known by its fingerprint, which the data
 * source finds out later). Before any process is started; blocks for as long as reading the
 * checkpoint takes, and says so. */
#ifndef TROUPE_CONTROLLER_RESUME_H
#define TROUPE_CONTROLLER_RESUME_H

#include "checkpoint/manifest.h"
#include "core/controller.h"
#include "run_folder.h"

typedef struct Beginning {
    char *path; /* of the checkpoint; NULL: there is none */
    Manifest *manifest;
    CheckpointState state; /* where it stands; zeros: at the beginning */
} Beginning;

/* ERR_INVALID: the configuration does not go with the checkpoint; ERR_DATA: there are checkpoints,
 * and all are damaged. Logs what is resumed, passed over and changed. */
Status resume_find(const Stage *stage, int num_stages, const RunFolder *folder, Beginning *ret,
                   Error *err);
/* The same for who only looks: by the newest checkpoint, without comparing it with its digests, and
 * without logging. *ret_line (owned; NULL: the folder holds no checkpoint) says in a few lines what
 * the run would go on from, and which settings are others. */
Status resume_look(const JobStages *job, char **ret_line, Error *err);
void beginning_free(Beginning *begin);

#endif
