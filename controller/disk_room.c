#include "disk_room.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/plural.h"
#include "base/size_text.h"
#include "model/model_config.h"
#include "model_files.h"

/* Headers and indices of the tensor files, the manifest, the job. */
#define OTHER_FILES_BYTES (128 << 10)

static int64_t file_bytes(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) ? info.st_size : 0;
}

/* Weights in their type, two moments in f32 and, where the weights are rounded, f32 masters; the
 * same again for a critic. */
static Status measure_checkpoint(const JobConfig *config, int64_t *ret, Error *err)
{
    ModelConfig model;
    TRY(model_config_read(config->model.config, &model, err));
    bool critic = job_wants_critic(config);
    int64_t each = config->model.dtype == MODEL_BF16 ? 2 + 4 + 8 : 4 + 8;
    *ret = model_config_parameters(&model) * each * (critic ? 2 : 1) + OTHER_FILES_BYTES;
    for (int i = 0; i < MODEL_FILES; i++) {
        char *path = model_file_path(config, i);
        *ret += file_bytes(path);
        free(path);
    }
    return OK;
}

static int count_checkpoints(const char *run_dir)
{
    char *root = path_join(run_dir, "checkpoints");
    DIR *entries = opendir(root);
    int count = 0;
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;)
        count += strncmp(entry->d_name, "step_", 5) == 0 && strchr(entry->d_name, '.') == NULL;
    if (entries != NULL) closedir(entries);
    free(root);
    return count;
}

/* As many as are kept, and the one that is being written: an old one goes when the new one stands.
 * A short run makes fewer. */
static int count_at_a_time(const JobConfig *config)
{
    int64_t kept = config->checkpoint.keep_last, every = config->checkpoint.interval;
    int64_t steps = config->train.num_steps;
    int64_t made = every == 0 ? 1 : steps > 0 ? (steps + every - 1) / every : 0; /* 0: unknown */
    if (kept == 0) return (int)made;
    if (job_wants_reference(config) && algorithm_refers_to_start(&config->algorithm))
        kept++; /* the one with which the stage began */
    if (config->checkpoint.keep_best > 0) {
        kept += config->checkpoint.keep_best;
        made = 0; /* evaluations make some, too */
    }
    return (int)(made == 0 || kept + 1 < made ? kept + 1 : made);
}

Status disk_room_look(const JobConfig *config, DiskRoom *ret, Error *err)
{
    DiskRoom room = {.at_a_time = count_at_a_time(config),
                     .standing = count_checkpoints(config->run_dir)};
    struct statvfs disk;
    TRY(measure_checkpoint(config, &room.checkpoint_bytes, err));
    room.place = path_existing_folder(config->run_dir);
    if (statvfs(room.place, &disk) != 0) {
        error_set_errno(err, errno, "could not measure the free room of %s", room.place);
        disk_room_free(&room);
        return err != NULL ? err->status : ERR_IO;
    }
    room.free_bytes = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
    *ret = room;
    return OK;
}

void disk_room_free(DiskRoom *room)
{
    free(room->place);
    *room = (DiskRoom){0};
}

Status disk_room_check(const DiskRoom *room, char **ret_warning, Error *err)
{
    char one[32], all[32], has[32];
    int more = room->at_a_time - room->standing;
    int64_t needs = more > 1 ? room->checkpoint_bytes * more : room->checkpoint_bytes;
    size_text((uint64_t)room->checkpoint_bytes, one);
    size_text((uint64_t)needs, all);
    size_text((uint64_t)room->free_bytes, has);
    *ret_warning = NULL;
    if (room->free_bytes < room->checkpoint_bytes)
        return error_set(err, ERR_RESOURCE,
                         "a checkpoint needs %s, but %s has %s free: the next save would fail.\n"
                         "Make room, or name another disk at run_dir.",
                         one, room->place, has);
    if (room->free_bytes < needs)
        *ret_warning =
            mem_printf("%d more checkpoint%s of %s need%s %s, but %s has %s free: a later "
                       "save would fail.\nMake room, lower checkpoint.keep_last, or name "
                       "another disk at run_dir.",
                       more, plural(more), one, more == 1 ? "s" : "", all, room->place, has);
    return OK;
}
