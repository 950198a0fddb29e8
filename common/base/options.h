/* Options: what getopt_long refuses, in words, and values that several programs take. Reads
 * getopt's own variables: on the main thread, right after getopt_long returned. */
#ifndef TROUPE_BASE_OPTIONS_H
#define TROUPE_BASE_OPTIONS_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Says what is wrong with the arguments and, below it, the first line of `help`: how the program is
 * used. Always ERR_INVALID. */
Status option_misuse(const char *help, Error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for an answer of ':' or '?' (the option string begins with ':', opterr is 0): names the
 * option and, where it is unknown, the nearest one of the list. */
Status option_refuse(int answer, char *const *argv, const struct option *list, const char *help,
                     Error *err);

/* The value of `option` ("--count") as a whole number up to `max`, else ERR_INVALID. */
Status option_number(const char *option, const char *text, uint64_t max, uint64_t *ret, Error *err);

/* The value of --color (NULL: it has none, which is always): *ret stays as it is for auto. */
Status option_color(const char *when, bool *ret, Error *err);
/* What auto means for standard output: a terminal that is not dumb, and no NO_COLOR. */
bool option_color_auto(void);

#endif
