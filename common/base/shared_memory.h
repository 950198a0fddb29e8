/* Memory that several processes of one host map: an anonymous file (memfd), reached by the others
 * through /proc/<pid>/fd/<fd> of the process that made it, so that no name exists which somebody
 * would have to remove. All of it is allocated before use and sealed against shrinking: a full
 * machine is an error here, never a SIGBUS later. It lives as long as its descriptor or a mapping
 * of it does. Any thread. */
#ifndef TROUPE_BASE_SHARED_MEMORY_H
#define TROUPE_BASE_SHARED_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define SHARED_MEMORY_PAGE ((size_t)4096)

/* Names one memory of one process; plain data, to be sent to others. */
typedef struct SharedMemoryId {
    unsigned char nonce[16];
    uint64_t bytes, start_ticks;
    int32_t pid, fd;
} SharedMemoryId;

/* Stands at the beginning of the memory and tells it from any other; part of a user's own header.
 */
typedef struct SharedMemory {
    char magic[8];
    unsigned char nonce[16];
    uint64_t bytes, maker_start_ticks;
    int32_t maker_pid;
} SharedMemory;

/* Makes `bytes` of zeroed memory, header included, and maps it. The descriptor stays open until
 * shared_memory_discard. `name` shows in /proc/<pid>/maps. */
Status shared_memory_create(const char *name, size_t bytes, SharedMemoryId *ret_id,
                            SharedMemory **ret, Error *err);

/* Maps the memory that an id names, read-only unless `writable`, and checks that it is that memory.
 * ERR_UNAVAILABLE when its maker is gone or no longer holds it. `maker` names it in messages
 * ("rank 0"). */
Status shared_memory_open(const SharedMemoryId *id, const char *maker, bool writable,
                          SharedMemory **ret, Error *err);

void shared_memory_unmap(SharedMemory *memory); /* accepts NULL */

/* True when this process made the memory and still holds its descriptor. */
bool shared_memory_is_held_here(const SharedMemoryId *id);

/* Closes the descriptor where this process holds it: nobody can open the memory from then on, those
 * who have mapped it keep it. */
void shared_memory_discard(const SharedMemoryId *id);

#endif
