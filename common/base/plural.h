/* Counts of one. */
#ifndef TROUPE_BASE_PLURAL_H
#define TROUPE_BASE_PLURAL_H

#include <stdint.h>

/* What follows a noun behind its count: "%d rank%s", of 1 and of any other number. */
static inline const char *plural(int64_t count)
{
    return count == 1 ? "" : "s";
}

#endif
