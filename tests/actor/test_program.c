/* The smallest actor: what tests of ActorProcess and of the node agent start. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actor/actor_process.h"

/* Beside the loop, while the process beats. */
static Status prepare(ActorProcess *process, Error *err)
{
    const JobConfig *config = actor_process_config(process);
    if (strcmp(config->name, "unprepared") == 0)
        return error_set(err, ERR_RESOURCE, "there is no such device");
    if (strcmp(config->name, "slow") == 0) sleep(2);
    return OK;
}

static Status start(ActorProcess *process, void **ret_self, Error *err)
{
    const JobConfig *config = actor_process_config(process);
    if (strcmp(config->name, "refuse") == 0)
        return error_set(err, ERR_DATA, "this job cannot be started");
    char doing[64];
    snprintf(doing, sizeof doing, "learning rate %g", config->train.lr);
    actor_process_set_doing(process, doing);
    *ret_self = process;
    return OK;
}

static void stop(void *self)
{
    (void)self;
    fprintf(stderr, "stopped cleanly\n");
}

static void describe(void *self, ActorReport *report)
{
    TrainPlace place = actor_process_train_place(self);
    snprintf(report->waiting_for, sizeof report->waiting_for, "rank %d of %d", place.tp_rank,
             place.tp_size);
}

/* test.crash: dies as its body says: "abort", "exit 3", "segv". */
static void on_crash(void *self, Call *call)
{
    (void)self;
    char how[32] = "";
    Bytes body = call_body(call);
    memcpy(how, body.data, body.length < sizeof how ? body.length : sizeof how - 1);
    fprintf(stderr, "about to die: %s\n", how);
    signal(SIGSEGV, SIG_DFL); /* a sanitizer may have taken it */
    if (strcmp(how, "abort") == 0) abort();
    if (strcmp(how, "segv") == 0) raise(SIGSEGV);
    _exit(3);
}

/* test.stray: leaves a child behind that fled its process group, and says its pid. */
static void on_stray(void *self, Call *call)
{
    (void)self;
    int ready[2];
    char text[32];
    if (pipe(ready) != 0) abort();
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild != 0) _exit(0);
        setsid();
        int length = snprintf(text, sizeof text, "%d", (int)getpid());
        if (write(ready[1], text, (size_t)length) != length) abort();
        for (;;)
            pause();
    }
    ssize_t length = read(ready[0], text, sizeof text);
    close(ready[0]);
    close(ready[1]);
    call_reply(call, (Bytes){(uint8_t *)text, length > 0 ? (size_t)length : 0}, (Bytes){0});
}

/* test.print: writes its body to standard output, "$NAME" replaced from the environment. */
static void on_print(void *self, Call *call)
{
    (void)self;
    char text[256] = "";
    Bytes body = call_body(call);
    memcpy(text, body.data, body.length < sizeof text ? body.length : sizeof text - 1);
    for (char *at = text; *at != '\0';) {
        size_t length = *at == '$' ? strspn(at + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") : 0;
        if (length == 0) {
            putchar(*at++);
            continue;
        }
        char name[64] = "";
        memcpy(name, at + 1, length < sizeof name ? length : sizeof name - 1);
        const char *value = getenv(name);
        fputs(value != NULL ? value : "nothing", stdout);
        at += 1 + length;
    }
    fflush(stdout);
    call_reply(call, (Bytes){0}, (Bytes){0});
}

/* test.fail: cannot go on. */
static void on_fail(void *self, Call *call)
{
    Error why;
    error_set(&why, ERR_UNAVAILABLE, "what it works with is lost");
    call_reply(call, (Bytes){0}, (Bytes){0});
    actor_process_fail(self, &why);
}

static const ActorMethod methods[] = {
    {"test.fail", on_fail},
    {"test.crash", on_crash},
    {"test.stray", on_stray},
    {"test.print", on_print},
};

int main(int argc, char **argv)
{
    const ActorProcessSpec spec = {
        .program = "test_program",
        .methods = methods,
        .num_methods = sizeof methods / sizeof *methods,
        .prepare = prepare,
        .start = start,
        .stop = stop,
        .describe = describe,
    };
    return actor_process_run(argc, argv, &spec);
}
