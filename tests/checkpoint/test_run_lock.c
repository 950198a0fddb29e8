/* Tests of the run lock: one living holder, who is named; a dead one's lock is free at once. */
#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/run_lock.h"

static int start(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(folder_remove("locked", &err), &err);
    assert_ok(folder_create("locked", &err), &err);
    return 0;
}

typedef struct Holder {
    pid_t pid;
    int from, to; /* ends of pipes */
} Holder;

/* A process that takes the lock, says so, and holds it until it is told to release it (or is
 * killed). With a program of its own running beside it, which must not inherit the lock. */
static Holder start_holder(void)
{
    int out[2], in[2];
    char byte;
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(in), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        RunLock *lock = NULL;
        if (run_lock_acquire("locked", &lock, NULL, NULL) != OK) _exit(1);
        pid_t program = fork();
        if (program == 0) {
            for (int fd = 0; fd < 2; fd++) {
                close(out[fd]);
                close(in[fd]);
            }
            execlp("sleep", "sleep", "1", (char *)NULL);
            _exit(1);
        }
        if (write(out[1], "x", 1) != 1 || read(in[0], &byte, 1) != 1) _exit(1);
        run_lock_release(lock);
        _exit(0);
    }
    close(out[1]);
    close(in[0]);
    assert_int_equal(read(out[0], &byte, 1), 1);
    return (Holder){pid, out[0], in[1]};
}

static void end_holder(const Holder *holder)
{
    int status;
    assert_int_equal(waitpid(holder->pid, &status, 0), holder->pid);
    close(holder->from);
    close(holder->to);
}

/* The holder's program may not have become "sleep" yet, and until then it has the holder's
 * descriptors: hence more than one try, all of them long before it ends. */
static Status acquire_soon(RunLock **lock, char **note, Error *err)
{
    Status status = ERR_EXISTS;
    for (int i = 0; i < 500 && status == ERR_EXISTS; i++) {
        status = run_lock_acquire("locked", lock, note, err);
        if (status == ERR_EXISTS) usleep(1000);
    }
    return status;
}

static void test_run_lock_names_its_living_holder(void **state)
{
    (void)state;
    Error err = {0};
    RunLock *lock = NULL;
    char *note = (char *)"untouched";
    Holder holder = start_holder();
    char *expected = mem_printf("in use by pid %d on host ", (int)holder.pid);
    assert_fails(run_lock_acquire("locked", &lock, &note, &err), ERR_EXISTS, &err, expected);
    assert_non_null(strstr(err.message, " since 20"));
    assert_null(lock);
    assert_string_equal(note, "untouched");
    assert_int_equal(write(holder.to, "x", 1), 1);
    end_holder(&holder);
    assert_ok(acquire_soon(&lock, &note, &err), &err);
    assert_null(note); /* it was given back */
    run_lock_release(lock);
    free(expected);
}

static void test_run_lock_of_a_killed_run_is_taken_over_with_a_note(void **state)
{
    (void)state;
    Error err = {0};
    RunLock *lock = NULL;
    char *note = NULL;
    Holder holder = start_holder();
    char *expected = mem_printf("pid %d on host ", (int)holder.pid);
    assert_int_equal(kill(holder.pid, SIGKILL), 0);
    end_holder(&holder);
    assert_ok(acquire_soon(&lock, &note, &err), &err);
    assert_non_null(note);
    assert_non_null(strstr(note, expected));
    free(note);
    run_lock_release(lock);
    assert_ok(run_lock_acquire("locked", &lock, &note, &err), &err);
    assert_null(note);
    run_lock_release(lock);
    run_lock_release(NULL);
    free(expected);
}

static void test_run_lock_excludes_within_one_process(void **state)
{
    (void)state;
    Error err = {0};
    RunLock *lock = NULL, *second = NULL;
    assert_ok(run_lock_acquire("locked", &lock, NULL, &err), &err);
    assert_fails(run_lock_acquire("locked", &second, NULL, &err), ERR_EXISTS, &err,
                 "in use by pid");
    run_lock_release(lock);
    assert_fails(run_lock_acquire("no/such/run", &second, NULL, &err), ERR_NOT_FOUND, &err,
                 "no/such/run/lock");
}

int main(void)
{
#define FRESH(test) cmocka_unit_test_setup(test, start)
    const struct CMUnitTest tests[] = {
        FRESH(test_run_lock_names_its_living_holder),
        FRESH(test_run_lock_of_a_killed_run_is_taken_over_with_a_note),
        FRESH(test_run_lock_excludes_within_one_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
