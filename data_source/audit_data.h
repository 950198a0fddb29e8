/* The audit with the data at hand: that the positions of an epoch are one for each record, and in
 * which file and line a position stands. Of a stage whose data changed it looks at the positions
 * of the last: which records those before stood for only the data of then could tell. One
 * thread. */
#ifndef TROUPE_DATA_SOURCE_AUDIT_DATA_H
#define TROUPE_DATA_SOURCE_AUDIT_DATA_H

#include "config/job.h"
#include "data_source/audit.h"

/* Opens the data of a stage as its data source does, but writes no index, and goes through every
 * consumed position. What is found goes into *audit, and `mapped` or `not_mapped` of the stage are
 * set. Fails when the files cannot be read; `not_mapped` says so then, too. */
Status audit_records(Audit *audit, AuditStage *stage, const JobConfig *config, Error *err);

#endif
