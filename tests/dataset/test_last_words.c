/* Tests of dataset/last_words: what a thread says whose process is ended by what it calls. */
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataset/last_words.h"

static void fill(const void *context, LastWords *ret)
{
    last_words_put(ret, context);
    last_words_put(ret, " at ");
    last_words_put_number(ret, 1700);
}

static void fault(void)
{
    raise(SIGSEGV);
}

static void leave(void)
{
    exit(0);
}

/* Frames that are used behind the call: it is none that a compiler makes a jump of. */
static int use_up(volatile char *above, int depth)
{
    volatile char frame[4096];
    frame[0] = (char)depth;
    if (depth < 0) return above[0];
    return use_up(frame, depth + 1) + frame[0];
}

static void overflow(void)
{
    volatile char first = 0;
    (void)use_up(&first, 0);
}

static void *call(void *deed)
{
    last_words_enter(fill, "the call");
    (*(void (**)(void))deed)();
    last_words_leave();
    return NULL;
}

/* In a process of its own, on a thread, as readers are called. */
static void assert_last_words(void (*deed)(void), const char *expected)
{
    int ends[2], status;
    char said[4096];
    size_t length = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        pthread_t thread;
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        dup2(ends[1], STDERR_FILENO);
        last_words_prepare();
        if (pthread_create(&thread, NULL, call, &deed) == 0) pthread_join(thread, NULL);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], said + length, sizeof said - 1 - length)) > 0;)
        length += (size_t)got;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    said[length] = '\0';
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_non_null(strstr(said, expected));
}

static void test_who_is_struck_says_where(void **state)
{
    (void)state;
    assert_last_words(fault, "killed in the call at 1700\n");
    assert_last_words(abort, "killed in the call at 1700\n");
    assert_last_words(overflow, "killed in the call at 1700\n");
    assert_last_words(leave, "exit() was called in the call at 1700\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_who_is_struck_says_where)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
