#include "dataset/watch.h"

#include <stdio.h>

/* For as long as a line is copied. */
static void enter(ReadWatch *watch)
{
    while (atomic_exchange_explicit(&watch->busy, true, memory_order_acquire))
        ;
}

static void leave(ReadWatch *watch)
{
    atomic_store_explicit(&watch->busy, false, memory_order_release);
}

void read_watch_say(ReadWatch *watch, const char *waits_for)
{
    enter(watch);
    snprintf(watch->waits_for, sizeof watch->waits_for, "%s", waits_for);
    leave(watch);
}

bool read_watch_said(ReadWatch *watch, char *ret, size_t size)
{
    enter(watch);
    snprintf(ret, size, "%s", watch->waits_for);
    leave(watch);
    return ret[0] != '\0';
}
