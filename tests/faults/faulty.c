/* A library to be preloaded into the programs under test: makes a call of one of them hang, take
 * its time, or fail, where a test cannot wait for a disk or a thread to do so by itself. What it
 * shall do stands in the environment:
 *
 *   TROUPE_FAULT="PROGRAM FUNCTION NAME ACTION FLAG"
 *
 * PROGRAM is the executable; FUNCTION one of those below; NAME a part of the name of the file that
 * is meant ("-": any); ACTION is "hang", "sleep=SECONDS" or "errno=NUMBER". When FLAG is a path,
 * the fault strikes once, after that file was made, and removes it as it strikes; "-": every time.
 * "hold=COUNT" is another thing: after so many calls, they wait as long as the file FLAG is there.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct Rule {
    char program[32], function[32], name[128], action[32], flag[512];
} Rule;

static const Rule *rule(void)
{
    static Rule known;
    static int state; /* 0: not looked yet, 1: there is one, -1: none */
    if (state == 0) {
        const char *text = getenv("TROUPE_FAULT");
        state = text != NULL &&
                        sscanf(text, "%31s %31s %127s %31s %511s", known.program, known.function,
                               known.name, known.action, known.flag) == 5 &&
                        strcmp(program_invocation_short_name, known.program) == 0
                    ? 1
                    : -1;
    }
    return state > 0 ? &known : NULL;
}

static int is_file_meant(const Rule *r, int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = '\0';
    return strstr(path, r->name) != NULL;
}

static int is_meant(const Rule *r, const char *function, int fd)
{
    if (r == NULL || strcmp(r->function, function) != 0) return 0;
    if (strcmp(r->name, "-") != 0 && !is_file_meant(r, fd)) return 0;
    return strcmp(r->flag, "-") == 0 || unlink(r->flag) == 0;
}

/* Waits while the test has its file there. */
static void hold(const Rule *r, const char *function, int fd)
{
    static _Atomic int calls;
    if (strcmp(r->function, function) != 0 || !is_file_meant(r, fd)) return;
    if (++calls <= atoi(r->action + 5)) return;
    while (access(r->flag, F_OK) == 0)
        usleep(10000);
}

/* Whether the call shall fail now, with errno set. */
static int strikes(const char *function, int fd)
{
    const Rule *r = rule();
    if (r != NULL && strncmp(r->action, "hold=", 5) == 0) {
        hold(r, function, fd);
        return 0;
    }
    if (!is_meant(r, function, fd)) return 0;
    if (strcmp(r->action, "hang") == 0)
        for (;;)
            pause();
    if (strncmp(r->action, "sleep=", 6) == 0) usleep((useconds_t)(1e6 * atof(r->action + 6)));
    if (strncmp(r->action, "errno=", 6) != 0) return 0;
    errno = atoi(r->action + 6);
    return 1;
}

/* The function that would have been called without this library. */
#define REAL(type, name) ((type)dlsym(RTLD_NEXT, name))

typedef ssize_t (*PreadFunction)(int, void *, size_t, off_t);
typedef ssize_t (*WriteFunction)(int, const void *, size_t);
typedef ssize_t (*PwriteFunction)(int, const void *, size_t, off_t);
typedef int (*FsyncFunction)(int);
typedef void (*DeleteFunction)(void *);

EXPORT ssize_t pread(int fd, void *bytes, size_t length, off_t offset)
{
    static PreadFunction real;
    if (real == NULL) real = REAL(PreadFunction, "pread");
    return strikes("pread", fd) ? -1 : real(fd, bytes, length, offset);
}

EXPORT ssize_t write(int fd, const void *bytes, size_t length)
{
    static WriteFunction real;
    if (real == NULL) real = REAL(WriteFunction, "write");
    return strikes("write", fd) ? -1 : real(fd, bytes, length);
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    static PwriteFunction real;
    if (real == NULL) real = REAL(PwriteFunction, "pwrite");
    return strikes("pwrite", fd) ? -1 : real(fd, bytes, length, offset);
}

EXPORT int fsync(int fd)
{
    static FsyncFunction real;
    if (real == NULL) real = REAL(FsyncFunction, "fsync");
    return strikes("fsync", fd) ? -1 : real(fd);
}

/* What a rollout thread calls for every record. */
EXPORT void cJSON_Delete(void *json)
{
    static DeleteFunction real;
    if (real == NULL) real = REAL(DeleteFunction, "cJSON_Delete");
    if (!strikes("cJSON_Delete", -1)) real(json);
}
