/* Methods: those of strings in jinja_strings.c, all others and the look-up in jinja_methods.c.
 * Internal to common/text. */
#ifndef TROUPE_TEXT_JINJA_METHODS_H
#define TROUPE_TEXT_JINJA_METHODS_H

#include "text/jinja_run.h"

void refuse_arguments(Run *run, const Args *args, const char *name);

#endif
