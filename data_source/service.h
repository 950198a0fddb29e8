/* DataService: the data source's answers. It opens the sets of the job ("train", "eval", those of
 * eval.sets) when they are first asked for, so that a data source that was started anew serves any
 * position at once, and keeps no position of its own: the caller's is the only one. Files are
 * indexed and read on a few threads; calls come and answers go on the loop thread. */
#ifndef TROUPE_DATA_SOURCE_SERVICE_H
#define TROUPE_DATA_SOURCE_SERVICE_H

#include "actor/actor.h"
#include "config/job.h"
#include "net/loop.h"

typedef struct DataService DataService;

/* `config` is borrowed for the service's life. */
DataService *data_service_create(Loop *loop, const JobConfig *config);
/* After the loop has stopped. Ends an indexing and waits for reads that are under way; their calls
 * stay unanswered. */
void data_service_destroy(DataService *service); /* accepts NULL */

/* data_source.open and data_source.read; their `self` is the DataService. */
extern const ActorMethod data_service_methods[];
extern const int data_service_num_methods;

/* Changes whenever a thread gets on; any thread. */
uint64_t data_service_progress(DataService *service);
/* Calls that are not answered yet: while there are some, the progress must change. Loop thread. */
int data_service_working(const DataService *service);
/* "idle", "reading train 64..127", "indexing the files of data.train, 41.3 of 100.0 GB": for
 * heartbeats. Loop thread. */
void data_service_describe(DataService *service, char *ret_doing, size_t size);
/* What people are to be told once, or "": a data.num_samples that turned out wrong. Loop thread. */
void data_service_notice(const DataService *service, char *ret, size_t size);

#endif
