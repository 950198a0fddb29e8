/* The filters: those over text and numbers, those over sequences and mappings, and in files of
 * their own wordwrap, pprint and urlize. Internal to common/text. */
#ifndef TROUPE_TEXT_JINJA_FILTERS_H
#define TROUPE_TEXT_JINJA_FILTERS_H

#include "text/jinja/run.h"

typedef struct FilterTable {
    const Function *filter;
    size_t count;
} FilterTable;

Value filter_wordwrap(Run *run, Value self, const Args *args);
Value filter_pprint(Run *run, Value self, const Args *args);
Value filter_urlize(Run *run, Value self, const Args *args);

FilterTable text_filters(void);
FilterTable sequence_filters(void);

#endif
