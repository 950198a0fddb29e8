/* What /proc says of a process: whether one that somebody named earlier is still the same one and
 * still alive (pids are used again, so a process is named by its pid and the time at which it
 * started), and whose child it is; whether memory has ended; where a program of Troupe stands, and
 * how one is run that looks at something and says what it found. Any thread. */
#ifndef TROUPE_BASE_PROCESS_H
#define TROUPE_BASE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* The start time of a process in clock ticks since boot (proc(5), stat field 22). False when
 * there is no such process or only its zombie. */
bool process_start_ticks(pid_t pid, uint64_t *ret_ticks);

/* The parent of a process or zombie; -1 when there is none of this pid. */
pid_t process_parent(pid_t pid);

/* True while that very process lives; false for a zombie, another process of the same pid, or
 * none. */
bool process_is_alive(pid_t pid, uint64_t start_ticks);

/* Names the host as far as processes can see each other's memory there: the boot of its kernel and
 * the namespace of its process ids, which a container has for itself. Owned by the caller. */
char *process_host(void);

/* The path of a program of Troupe: they stand beside each other, so it is in this one's folder.
 * Owned by the caller. */
char *program_path(const char *name);

/* What of a program's words is taken; the rest goes where ours does, but that the output of one
 * whose errors are taken goes nowhere. */
typedef enum { WORDS_OF_ERRORS, WORDS_OF_OUTPUT, WORDS_OF_BOTH } ProgramWords;

typedef struct ProgramRun {
    const char *path;
    const char *const *arguments; /* NULL ends them; the first is the program's name */
    char *words;                  /* takes what it says, cut; NULL: nothing is taken */
    size_t words_size;            /* with the final '\0' */
    ProgramWords words_of;
    int64_t deadline_ms; /* of clock_ms: then it is killed; 0: there is none */
    int cancel;          /* it is killed once this can be read, or its other end is closed; -1: no
                            descriptor */
} ProgramRun;

/* Runs a program and waits for its end. *ret_end is what waitpid says of that. A program that is
 * given up is killed, and one whose process (or thread) that called this dies, too: none is left
 * behind. ERR_TIMEOUT, ERR_CANCELLED: it was given up, also where not even SIGKILL ends it within a
 * second (the disk does not answer). Errors of exec name the path. */
Status program_run(const ProgramRun *run, int *ret_end, Error *err);

/* Has OpenMP's threads that wait for work spin for some ten microseconds, which is longer than what
 * lies between two products of a decoding step, and then sleep, instead of spinning for
 * milliseconds: on CPUs that others use too, a thread that spins takes the time that the one it
 * waits for needs. For this process's children, and for itself once it has been started again: the
 * library reads its settings before main. False when the environment says something already. */
bool process_let_threads_sleep(void);

/* Lets this process open as many files and sockets as the system grants: the usual soft limit of
 * 1,024 is there for select(), which nobody uses here. */
void process_raise_file_limit(void);

/* Processes that the kernel has killed so far because memory had ended: of this process's control
 * group where it tells (memory.events, or memory.oom_control of version 1), else of the whole
 * machine; -1 when neither is told. `root` is in front of /proc and /sys: "", but in tests. */
int64_t process_count_oom_kills(const char *root);

#endif
