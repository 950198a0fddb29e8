#include "agent_reservation.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

typedef struct Group {
    char *name, *job;
    int *bundle; /* indices */
    int num_bundles;
    NodeResources held;
    bool committed;
    int64_t expires_ms;
} Group;

struct Reservations {
    NodeResources total;
    Group *group;
    int num_groups;
};

/* CPUs come in fractions: a sum of tenths must not be refused for the last bit. */
#define CPU_SLACK 1e-9

NodeResources reservations_total(const Reservations *reservations)
{
    return reservations->total;
}

/* Counted from the groups each time: there is no second book that could disagree. */
NodeResources reservations_free(const Reservations *reservations)
{
    NodeResources room = reservations->total;
    for (int i = 0; i < reservations->num_groups; i++) {
        room.cpu -= reservations->group[i].held.cpu;
        room.gpu -= reservations->group[i].held.gpu;
        room.memory_bytes -= reservations->group[i].held.memory_bytes;
    }
    if (room.cpu < CPU_SLACK) room.cpu = 0;
    return room;
}

static int find(const Reservations *reservations, const char *group)
{
    for (int i = 0; i < reservations->num_groups; i++)
        if (strcmp(reservations->group[i].name, group) == 0) return i;
    return -1;
}

static void drop(Reservations *reservations, int index)
{
    Group *group = &reservations->group[index];
    free(group->name);
    free(group->job);
    free(group->bundle);
    reservations->group[index] = reservations->group[--reservations->num_groups];
}

bool reservations_prepare(Reservations *reservations, const char *group, const char *job,
                          const BundleSpec *bundle, int num_bundles, int64_t expires_ms)
{
    if (find(reservations, group) >= 0) return true;
    NodeResources need = {0}, room = reservations_free(reservations);
    for (int i = 0; i < num_bundles; i++) {
        need.cpu += bundle[i].need.cpu;
        need.gpu += bundle[i].need.gpu;
        need.memory_bytes += bundle[i].need.memory_bytes;
    }
    if (need.cpu > room.cpu + CPU_SLACK || need.gpu > room.gpu ||
        need.memory_bytes > room.memory_bytes)
        return false;
    reservations->group = mem_realloc(reservations->group, (size_t)reservations->num_groups + 1,
                                      sizeof *reservations->group);
    Group *added = &reservations->group[reservations->num_groups++];
    *added = (Group){.name = mem_strdup(group),
                     .job = mem_strdup(job),
                     .num_bundles = num_bundles,
                     .held = need,
                     .expires_ms = expires_ms};
    added->bundle = mem_calloc((size_t)num_bundles, sizeof *added->bundle);
    for (int i = 0; i < num_bundles; i++)
        added->bundle[i] = bundle[i].index;
    return true;
}

Status reservations_commit(Reservations *reservations, const char *group, Error *err)
{
    int index = find(reservations, group);
    if (index < 0)
        return error_set(err, ERR_NOT_FOUND, "placement group %s holds nothing here (any more)",
                         group);
    reservations->group[index].committed = true;
    return OK;
}

void reservations_release(Reservations *reservations, const char *group)
{
    int index = find(reservations, group);
    if (index >= 0) drop(reservations, index);
}

void reservations_release_job(Reservations *reservations, const char *job)
{
    for (int i = reservations->num_groups - 1; i >= 0; i--)
        if (strcmp(reservations->group[i].job, job) == 0) drop(reservations, i);
}

void reservations_expire(Reservations *reservations, int64_t now_ms)
{
    for (int i = reservations->num_groups - 1; i >= 0; i--)
        if (!reservations->group[i].committed && reservations->group[i].expires_ms <= now_ms)
            drop(reservations, i);
}

Status reservations_find(const Reservations *reservations, const char *group, int bundle,
                         const char **ret_job, Error *err)
{
    int index = find(reservations, group);
    if (index < 0 || !reservations->group[index].committed)
        return error_set(err, ERR_NOT_FOUND, "placement group %s is not committed here", group);
    const Group *found = &reservations->group[index];
    for (int i = 0; i < found->num_bundles; i++) {
        if (found->bundle[i] != bundle) continue;
        *ret_job = found->job;
        return OK;
    }
    return error_set(err, ERR_NOT_FOUND, "placement group %s has no bundle %d on this node", group,
                     bundle);
}

int reservations_count(const Reservations *reservations)
{
    return reservations->num_groups;
}

HeldGroup reservations_group(const Reservations *reservations, int index)
{
    CHECK(index >= 0 && index < reservations->num_groups);
    const Group *group = &reservations->group[index];
    return (HeldGroup){group->name, group->job, group->held, group->committed};
}

Reservations *reservations_create(const NodeResources *total)
{
    Reservations *reservations = mem_calloc(1, sizeof *reservations);
    reservations->total = *total;
    return reservations;
}

void reservations_destroy(Reservations *reservations)
{
    if (reservations == NULL) return;
    while (reservations->num_groups > 0)
        drop(reservations, 0);
    free(reservations->group);
    free(reservations);
}
