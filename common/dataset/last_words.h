/* Last words of a process that a user's code ends, by a fault (SIGSEGV, SIGABRT, SIGBUS, SIGFPE,
 * SIGILL) or by exit(): a line on stderr that says in which call the thread was, and how far that
 * had come. Then the process dies as it would have, but that whoever calls exit(0) has not done
 * what was asked: its code is that of bad data. What fills LastWords runs in a signal handler: it
 * may read what the thread itself has written, take no lock and allocate nothing. */
#ifndef TROUPE_DATASET_LAST_WORDS_H
#define TROUPE_DATASET_LAST_WORDS_H

#include <stddef.h>
#include <stdint.h>

typedef struct LastWords {
    char text[1024];
    size_t length;
} LastWords;

typedef void (*LastWordsFill)(const void *context, LastWords *ret);

/* Of the process, once, from its main file. */
void last_words_prepare(void);

/* This thread enters a call of such code, and has left it. */
void last_words_enter(LastWordsFill fill, const void *context);
void last_words_leave(void);

/* Appended as far as there is room; safe in a signal handler. */
void last_words_put(LastWords *words, const char *text);
void last_words_put_number(LastWords *words, uint64_t number);

#endif
