/* Faults of the disk and of the machine, for tests that are linked with --wrap for the calls below:
 * the k-th call that changes the disk kills the process (in the middle of it, when it is a write)
 * or fails with an errno. What was written but not flushed can then be lost, as a power cut loses
 * it. State lies in shared memory, so that a parent sees what its killed child did. One armed
 * process at a time. */
#ifndef TROUPE_TESTS_DISK_FAULTS_H
#define TROUPE_TESTS_DISK_FAULTS_H

typedef enum { FAULT_NONE, FAULT_KILL, FAULT_ERRNO } FaultKind;

void faults_init(void);
/* Forgets everything and counts calls from 1 again; with FAULT_NONE it only counts. */
void faults_arm(FaultKind kind, int at, int errnum);
void faults_disarm(void);
void faults_fail_reads(int errnum); /* of digests; 0: no more */
int faults_count(void);             /* calls since faults_arm */
const char *faults_hit(void);       /* the name of the call that was hit, or "" */

typedef enum {
    LOSE_NOTHING, /* kill -9: the kernel still has it all */
    LOSE_DATA,    /* of files not flushed since their last write: their second half is zeros */
    LOSE_DATA_AND_NAMES /* and new names, renames in folders not flushed since are undone */
} Loss;

/* Makes the loss happen below `root`. */
void faults_power_cut(const char *root, Loss loss);

#endif
