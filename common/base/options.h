/* What getopt_long refuses, in words, for every program alike. Reads getopt's own variables: on the
 * main thread, right after getopt_long returned. */
#ifndef TROUPE_BASE_OPTIONS_H
#define TROUPE_BASE_OPTIONS_H

#include <getopt.h>

#include "base/error.h"

/* For an answer of ':' or '?' (the option string begins with ':', opterr is 0): names the option
 * and, where it is unknown, the nearest one of the list. Always ERR_INVALID. */
Status option_refuse(int answer, char *const *argv, const struct option *list, Error *err);

#endif
