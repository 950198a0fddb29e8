#include "run_folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/memory.h"

/* The longest name below the sockets folder: an actor's name, an incarnation and ".sock". */
#define SOCKET_NAME_ROOM 40

/* The same for everybody who looks at the same run folder, by whatever name: `run` is its real
 * path. */
static char *sockets_path(const char *run)
{
    if (strlen("ipc://") + strlen(run) + strlen("/sock/") + SOCKET_NAME_ROOM < ENDPOINT_MAX)
        return path_join(run, "sock");
    char digest[65];
    digest_bytes(run, strlen(run), digest);
    return mem_printf("/tmp/troupe-%d-%.16s", (int)getuid(), digest);
}

/* Takes `path`, a real path. */
static void name_everything(char *path, RunFolder *ret)
{
    *ret = (RunFolder){.path = path};
    ret->logs = path_join(ret->path, "logs");
    ret->checkpoints = path_join(ret->path, "checkpoints");
    ret->metrics = path_join(ret->path, "metrics.jsonl");
    ret->events = path_join(ret->path, "events.jsonl");
    ret->ledger = path_join(ret->path, "ledger.jsonl");
    ret->status = path_join(ret->path, "status.json");
    ret->sockets = sockets_path(ret->path);
    ret->endpoint = mem_printf("ipc://%s/controller", ret->sockets);
}

static Status make_sockets_folder(const char *path, Error *err)
{
    TRY(folder_remove(path, err)); /* of a run that was killed; we hold the lock */
    if (mkdir(path, 0700) != 0)
        return error_set_errno(err, errno, "could not create the sockets folder %s", path);
    return OK;
}

Status run_folder_open(const char *path, RunFolder *ret, Error *err)
{
    RunFolder folder;
    TRY(folder_create(path, err));
    char *real = realpath(path, NULL);
    if (real == NULL) return error_set_errno(err, errno, "could not resolve the path %s", path);
    name_everything(real, &folder);
    Status status = run_lock_acquire(folder.path, &folder.lock, &folder.note, err);
    if (status == OK) status = folder_create(folder.logs, err);
    if (status == OK) status = folder_create(folder.checkpoints, err);
    if (status == OK) status = make_sockets_folder(folder.sockets, err);
    if (status == OK && unlink(folder.status) != 0 && errno != ENOENT)
        status = error_set_errno(err, errno, "could not remove %s", folder.status);
    if (status == OK)
        *ret = folder;
    else
        run_folder_close(&folder);
    return status;
}

Status run_folder_look(const char *path, RunFolder *ret, Error *err)
{
    char *real = realpath(path, NULL);
    if (real == NULL && errno == ENOENT)
        return error_set(err, ERR_NOT_FOUND, "%s is not a run folder: there is no such folder",
                         path);
    if (real == NULL) return error_set_errno(err, errno, "could not resolve the path %s", path);
    name_everything(real, ret);
    if (path_is_folder(ret->path)) return OK;
    run_folder_close(ret);
    return error_set(err, ERR_NOT_FOUND, "%s is not a run folder: it is a file", path);
}

char *run_folder_checkpoint(const RunFolder *folder, int64_t step)
{
    return mem_printf("%s/step_%08lld", folder->checkpoints, (long long)step);
}

void run_folder_close(RunFolder *folder)
{
    if (folder->lock != NULL) {
        folder_remove(folder->sockets, NULL);
        run_lock_release(folder->lock);
    }
    free(folder->note);
    free(folder->path);
    free(folder->logs);
    free(folder->checkpoints);
    free(folder->sockets);
    free(folder->metrics);
    free(folder->events);
    free(folder->ledger);
    free(folder->status);
    free(folder->endpoint);
    *folder = (RunFolder){0};
}
