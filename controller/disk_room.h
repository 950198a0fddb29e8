/* DiskRoom: whether the checkpoints of a run will fit where its folder is, told before hours of
 * training are lost for it. An estimate: the weights and the optimizer's state by the model's size,
 * and the small files as they are. Any thread; looks at the file system. */
#ifndef TROUPE_CONTROLLER_DISK_ROOM_H
#define TROUPE_CONTROLLER_DISK_ROOM_H

#include "config/job.h"

typedef struct DiskRoom {
    int64_t checkpoint_bytes; /* of one */
    int at_a_time;            /* that will stand at most, the one being written included; 0: all are
                                 kept, and how many will be made is not known yet */
    int standing;             /* of them, now */
    int64_t free_bytes;       /* for this user, now */
    char *place;              /* the run folder, or what exists of its path; owned */
} DiskRoom;

/* Fails only where the model's config.json or the file system cannot be read. */
Status disk_room_look(const JobConfig *config, DiskRoom *ret, Error *err);
void disk_room_free(DiskRoom *room);

/* ERR_RESOURCE with figures when the next checkpoint does not fit; when only a later one does not,
 * OK with *ret_warning (owned), else NULL there. */
Status disk_room_check(const DiskRoom *room, char **ret_warning, Error *err);

#endif
