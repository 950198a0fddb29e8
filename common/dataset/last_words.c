#include "dataset/last_words.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"

#define SIGNALS     5
#define STACK_BYTES (32 << 10) /* of the handler, beside what the kernel saves there */
static const int numbers[SIGNALS] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};

/* For the handler alone, which is given no context: written once before any thread, and by the
 * thread itself that is struck. */
static struct sigaction before[SIGNALS];
static _Thread_local LastWordsFill fill_now;
static _Thread_local const void *context_now;

/* One that has used up its stack has none to handle that on. */
static _Thread_local char stack[STACK_BYTES];
static _Thread_local bool has_stack;

void last_words_put(LastWords *words, const char *text)
{
    while (*text != '\0' && words->length < sizeof words->text)
        words->text[words->length++] = *text++;
}

void last_words_put_number(LastWords *words, uint64_t number)
{
    char digits[24], *at = digits + sizeof digits - 1;
    *at = '\0';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    last_words_put(words, at);
}

static void say(const char *end)
{
    LastWords words = {.length = 0};
    last_words_put(&words, end);
    fill_now(context_now, &words);
    if (words.length == sizeof words.text) words.length--;
    words.text[words.length++] = '\n';
    ssize_t written = write(STDERR_FILENO, words.text, words.length);
    (void)written; /* nobody is left to tell */
}

/* Who handled the signal before us (a sanitizer, or the kernel, which ends the process) has it once
 * we return. */
static void on_signal(int number)
{
    for (int i = 0; i < SIGNALS; i++)
        if (numbers[i] == number) sigaction(number, &before[i], NULL);
    if (fill_now != NULL) say("killed in ");
    raise(number);
}

/* On the thread that called exit(). */
static void on_exit_called(void)
{
    if (fill_now == NULL) return;
    say("exit() was called in ");
    _exit(status_exit_code(ERR_DATA));
}

void last_words_prepare(void)
{
    struct sigaction ours = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    atexit(on_exit_called);
    sigemptyset(&ours.sa_mask);
    for (int i = 0; i < SIGNALS; i++)
        sigaction(numbers[i], &ours, &before[i]);
}

/* Unless somebody else (a sanitizer) has seen to it. */
static void need_stack(void)
{
    stack_t now;
    if (sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) != 0)
        sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    has_stack = true;
}

void last_words_enter(LastWordsFill fill, const void *context)
{
    if (!has_stack) need_stack();
    context_now = context;
    fill_now = fill;
}

void last_words_leave(void)
{
    fill_now = NULL;
}
