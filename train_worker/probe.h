/* Probe: how many FLOP/s of matrix products this rank's share of the machine gives, measured with
 * products as large as they are in training: what MFU is a share of. One measurement takes a few
 * hundredths of a second (on a GPU thousandths, so that the products are made larger until the time
 * of a call does not count) and may fall into a busy moment, so it is repeated and the highest rate
 * counts. All ranks of a job measure at the same moments, as they compute: a rank alone would have
 * the whole machine's memory and clock. Used by the compute thread. */
#ifndef TROUPE_TRAIN_WORKER_PROBE_H
#define TROUPE_TRAIN_WORKER_PROBE_H

#include "tensor/kernels.h"

typedef struct Probe Probe;

Probe *probe_create(const KernelTable *kernels, DType dtype); /* allocates all it needs */
void probe_destroy(Probe *probe);                             /* accepts NULL */

/* Measures once more. */
void probe_run(Probe *probe);

double probe_rate(const Probe *probe); /* FLOP/s, the highest so far; 0 before the first */

/* Whether to measure after the `count`th step (from 1) of this process: often at first, when its
 * start has just disturbed the machine, then ever less. Equal on all ranks. */
bool probe_is_due(int64_t count);

#endif
