#include "agent/reservation.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/memory.h"

/* A CPU in the units that are counted: fractions add up exactly. */
#define CPU_UNIT 10000.0
#define CPUS_MAX 1e9

typedef struct Amounts {
    int64_t cpu_units, gpu, memory_bytes;
} Amounts;

typedef struct HeldBundle {
    int index, gpu_of; /* as in BundleSpec */
    BundleGpus gpus;   /* its own */
} HeldBundle;

typedef struct Group {
    char *name, *job_name;
    uint64_t job;
    HeldBundle *bundle;
    int num_bundles;
    Amounts held;
    bool committed;
    int64_t expires_ms;
} Group;

struct Reservations {
    Amounts total;
    Group *group;
    int num_groups, capacity;
};

static Amounts to_amounts(const NodeResources *resources)
{
    return (Amounts){llround(resources->cpu * CPU_UNIT), resources->gpu, resources->memory_bytes};
}

static NodeResources to_resources(const Amounts *amounts)
{
    return (NodeResources){(double)amounts->cpu_units / CPU_UNIT, (int)amounts->gpu,
                           amounts->memory_bytes};
}

static Amounts count_free(const Reservations *reservations)
{
    Amounts room = reservations->total;
    for (int i = 0; i < reservations->num_groups; i++) {
        const Amounts *held = &reservations->group[i].held;
        room.cpu_units -= held->cpu_units;
        room.gpu -= held->gpu;
        room.memory_bytes -= held->memory_bytes;
    }
    CHECK(room.cpu_units >= 0 && room.gpu >= 0 && room.memory_bytes >= 0);
    return room;
}

NodeResources reservations_total(const Reservations *reservations)
{
    return to_resources(&reservations->total);
}

NodeResources reservations_free(const Reservations *reservations)
{
    Amounts room = count_free(reservations);
    return to_resources(&room);
}

static int find(const Reservations *reservations, const char *group)
{
    for (int i = 0; i < reservations->num_groups; i++)
        if (strcmp(reservations->group[i].name, group) == 0) return i;
    return -1;
}

static int find_of_job(const Reservations *reservations, const char *group, uint64_t job)
{
    int index = find(reservations, group);
    return index >= 0 && reservations->group[index].job == job ? index : -1;
}

static void drop(Reservations *reservations, int index)
{
    Group *group = &reservations->group[index];
    free(group->name);
    free(group->job_name);
    free(group->bundle);
    reservations->group[index] = reservations->group[--reservations->num_groups];
}

static int place_of(const HeldBundle *bundle, int count, int index)
{
    for (int i = 0; i < count; i++)
        if (bundle[i].index == index) return i;
    return -1;
}

/* Whoever uses another one's GPUs has none, and that one is here and has its own. */
static Status check_sharing(const BundleSpec *bundle, int num_bundles, Error *err)
{
    for (int i = 0; i < num_bundles; i++) {
        bool found = bundle[i].gpu_of == 0;
        for (int o = 0; o < num_bundles && !found; o++)
            found = bundle[o].index == bundle[i].gpu_of - 1 && bundle[o].gpu_of == 0 &&
                    bundle[i].need.gpu == 0;
        if (!found)
            return error_set(err, ERR_INVALID,
                             "bundle %d is to use the GPUs of bundle %d, which has none here",
                             bundle[i].index, bundle[i].gpu_of - 1);
    }
    return OK;
}

/* The sum of the bundles' needs; what comes over the wire may be any number. */
static Status add_up(const BundleSpec *bundle, int num_bundles, Amounts *ret, Error *err)
{
    Amounts sum = {0};
    if (num_bundles < 1 || num_bundles > BUNDLES_MAX)
        return error_set(err, ERR_INVALID, "a group of %d bundles: expected 1 to %d", num_bundles,
                         BUNDLES_MAX);
    for (int i = 0; i < num_bundles; i++) {
        const NodeResources *need = &bundle[i].need;
        if (!(need->cpu >= 0 && need->cpu <= CPUS_MAX) || need->gpu < 0 || need->memory_bytes < 0 ||
            need->memory_bytes > INT64_MAX / BUNDLES_MAX)
            return error_set(err, ERR_INVALID,
                             "bundle %d needs %g CPUs, %d GPUs and %" PRId64
                             " bytes: these are not amounts",
                             bundle[i].index, need->cpu, need->gpu, need->memory_bytes);
        Amounts amounts = to_amounts(need);
        sum.cpu_units += amounts.cpu_units;
        sum.gpu += amounts.gpu;
        sum.memory_bytes += amounts.memory_bytes;
    }
    *ret = sum;
    return OK;
}

static Group *append_group(Reservations *reservations)
{
    if (reservations->num_groups == reservations->capacity) {
        reservations->capacity = reservations->capacity > 0 ? 2 * reservations->capacity : 16;
        reservations->group = mem_realloc(reservations->group, (size_t)reservations->capacity,
                                          sizeof *reservations->group);
    }
    return &reservations->group[reservations->num_groups++];
}

static void mark_held(const Reservations *reservations, bool held[NODE_GPUS_MAX])
{
    for (int g = 0; g < reservations->num_groups; g++) {
        const Group *group = &reservations->group[g];
        for (int b = 0; b < group->num_bundles; b++)
            for (int i = 0; i < group->bundle[b].gpus.count; i++)
                held[group->bundle[b].gpus.gpu[i]] = true;
    }
}

/* There are enough: they were counted. `held` is of groups other than this one. */
static HeldBundle *give_gpus(const BundleSpec *bundle, int num_bundles, bool held[NODE_GPUS_MAX])
{
    HeldBundle *list = mem_calloc((size_t)num_bundles, sizeof *list);
    int next = 0;
    for (int b = 0; b < num_bundles; b++) {
        list[b] = (HeldBundle){.index = bundle[b].index, .gpu_of = bundle[b].gpu_of};
        for (int i = 0; i < bundle[b].need.gpu; i++, next++) {
            while (next < NODE_GPUS_MAX && held[next])
                next++;
            CHECK(next < NODE_GPUS_MAX);
            list[b].gpus.gpu[list[b].gpus.count++] = next;
        }
    }
    return list;
}

Status reservations_prepare(Reservations *reservations, const char *group, ReservationOwner owner,
                            const BundleSpec *bundle, int num_bundles, int64_t expires_ms,
                            bool *ret_granted, Error *err)
{
    Amounts need;
    bool held[NODE_GPUS_MAX] = {false};
    TRY(add_up(bundle, num_bundles, &need, err));
    TRY(check_sharing(bundle, num_bundles, err));
    int index = find(reservations, group);
    if (index >= 0) {
        if (reservations->group[index].job != owner.job)
            return error_set(err, ERR_EXISTS, "placement group %s belongs to job %s", group,
                             reservations->group[index].job_name);
        reservations->group[index].expires_ms = expires_ms;
        *ret_granted = true;
        return OK;
    }
    Amounts room = count_free(reservations);
    *ret_granted = need.cpu_units <= room.cpu_units && need.gpu <= room.gpu &&
                   need.memory_bytes <= room.memory_bytes;
    if (!*ret_granted) return OK;
    mark_held(reservations, held);
    Group *added = append_group(reservations);
    *added = (Group){.name = mem_strdup(group),
                     .job_name = mem_strdup(owner.job_name),
                     .job = owner.job,
                     .num_bundles = num_bundles,
                     .held = need,
                     .expires_ms = expires_ms};
    added->bundle = give_gpus(bundle, num_bundles, held);
    return OK;
}

Status reservations_commit(Reservations *reservations, const char *group, uint64_t job, Error *err)
{
    int index = find_of_job(reservations, group, job);
    if (index < 0)
        return error_set(err, ERR_NOT_FOUND, "placement group %s holds nothing here (any more)",
                         group);
    reservations->group[index].committed = true;
    return OK;
}

void reservations_release(Reservations *reservations, const char *group, uint64_t job)
{
    int index = find_of_job(reservations, group, job);
    if (index >= 0) drop(reservations, index);
}

void reservations_release_job(Reservations *reservations, uint64_t job)
{
    for (int i = reservations->num_groups - 1; i >= 0; i--)
        if (reservations->group[i].job == job) drop(reservations, i);
}

void reservations_expire(Reservations *reservations, int64_t now_ms)
{
    for (int i = reservations->num_groups - 1; i >= 0; i--)
        if (!reservations->group[i].committed && reservations->group[i].expires_ms <= now_ms)
            drop(reservations, i);
}

Status reservations_find(const Reservations *reservations, const char *group, uint64_t job,
                         int bundle, BundleGpus *ret_gpus, Error *err)
{
    int index = find_of_job(reservations, group, job);
    if (index < 0 || !reservations->group[index].committed)
        return error_set(err, ERR_NOT_FOUND, "placement group %s is not committed here", group);
    const Group *found = &reservations->group[index];
    int place = place_of(found->bundle, found->num_bundles, bundle);
    if (place < 0)
        return error_set(err, ERR_NOT_FOUND, "placement group %s has no bundle %d on this node",
                         group, bundle);
    const HeldBundle *holder = &found->bundle[place];
    if (holder->gpu_of != 0)
        holder = &found->bundle[place_of(found->bundle, found->num_bundles, holder->gpu_of - 1)];
    *ret_gpus = holder->gpus;
    return OK;
}

int reservations_count(const Reservations *reservations)
{
    return reservations->num_groups;
}

HeldGroup reservations_group(const Reservations *reservations, int index)
{
    CHECK(index >= 0 && index < reservations->num_groups);
    const Group *group = &reservations->group[index];
    return (HeldGroup){.group = group->name,
                       .owner = {group->job, group->job_name},
                       .held = to_resources(&group->held),
                       .committed = group->committed};
}

Reservations *reservations_create(const NodeResources *total)
{
    Reservations *reservations = mem_calloc(1, sizeof *reservations);
    CHECK(total->gpu <= NODE_GPUS_MAX);
    reservations->total = to_amounts(total);
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
