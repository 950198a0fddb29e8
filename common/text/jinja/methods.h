/* Methods: those of strings in strings.c and string_kinds.c, all others and the look-up in
 * methods.c. Internal to common/text. */
#ifndef TROUPE_TEXT_JINJA_METHODS_H
#define TROUPE_TEXT_JINJA_METHODS_H

#include "text/jinja/run.h"

void refuse_arguments(Run *run, const Args *args, const char *name);
const Function *string_kind_methods(size_t *ret_count);     /* those of string_kinds.c */
Value string_strip(Run *run, Value self, const Args *args); /* str.strip */

#endif
