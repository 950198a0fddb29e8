/* Upper and lower case of whole strings as Python has them: full mappings (one letter may become
 * three), title case by word, final sigma. Internal to common/text. */
#ifndef TROUPE_TEXT_JINJA_CASE_H
#define TROUPE_TEXT_JINJA_CASE_H

#include "text/jinja/value.h"

typedef enum {
    CASE_UPPER,
    CASE_LOWER,
    CASE_TITLE,       /* str.title() */
    CASE_CAPITALIZE,  /* str.capitalize() */
    CASE_SWAP,        /* str.swapcase() */
    CASE_FOLD,        /* str.casefold() */
    CASE_TITLE_WORDS, /* Jinja's filter `title`: words end at - ( { [ < and white space */
} CaseMode;

Value case_map(Run *run, Value string, CaseMode mode); /* every byte keeps its origin */

#endif
