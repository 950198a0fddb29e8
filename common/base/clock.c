#include "base/clock.h"

#include <stdio.h>
#include <time.h>

int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_ms(void)
{
    return clock_ns() / 1000000;
}

char *clock_stamp(char buffer[CLOCK_STAMP_BYTES])
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(buffer, CLOCK_STAMP_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(buffer + used, CLOCK_STAMP_BYTES - used, ".%03dZ", (int)(now.tv_nsec / 1000000));
    return buffer;
}
