/* What an audit says, for people and for programs. */
#ifndef TROUPE_DATA_SOURCE_AUDIT_VIEW_H
#define TROUPE_DATA_SOURCE_AUDIT_VIEW_H

#include "data_source/audit.h"

/* Findings are listed up to listed_max of the audit. */
void audit_view(const Audit *audit, Str *out);
/* One JSON object on one line. */
void audit_view_json(const Audit *audit, Str *out);

#endif
