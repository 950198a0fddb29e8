/* The filters, in two files: those over text and numbers, and those over sequences and mappings.
 * Internal to common/text. */
#ifndef TROUPE_TEXT_JINJA_FILTERS_H
#define TROUPE_TEXT_JINJA_FILTERS_H

#include "text/jinja/run.h"

typedef struct FilterTable {
    const Function *filter;
    size_t count;
} FilterTable;

FilterTable text_filters(void);
FilterTable sequence_filters(void);

#endif
