#include "core/event.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

const char *role_name(Role role)
{
    static const char *const names[ROLE_COUNT] = {"data_source", "rollout", "train"};
    CHECK((unsigned)role < ROLE_COUNT);
    return names[role];
}

const char *call_kind_name(CallKind kind)
{
    static const char *const names[CALL_KIND_COUNT] = {
        [CALL_OPEN_SET] = "data_source.open", [CALL_LEASE] = "rollout.run",
        [CALL_GIVE_UP] = "rollout.give_up",   [CALL_RELEASE_SAMPLES] = "rollout.release",
        [CALL_ADOPT] = "rollout.adopt",       [CALL_BOOTSTRAP] = "train.bootstrap",
        [CALL_START] = "train.start",         [CALL_CONFIGURE] = "train.configure",
        [CALL_FETCH] = "train.fetch",         [CALL_STEP] = "train.step",
        [CALL_EVALUATE] = "train.evaluate",   [CALL_PUBLISH] = "train.publish",
        [CALL_REST] = "rollout.rest",         [CALL_REST_RANK] = "train.rest",
        [CALL_SAVE] = "train.save",           [CALL_LEAVE] = "actor.stop",
        [CALL_MEET] = "train.meet",           [CALL_SEND] = "train.send",
        [CALL_RECEIVE] = "rollout.receive",   [CALL_ABANDON] = "weights.abandon",
        [CALL_GROUP] = "rollout.group",       [CALL_JOIN] = "rollout.join",
    };
    CHECK((unsigned)kind < CALL_KIND_COUNT);
    return names[kind];
}

Effect *effect_add(EffectList *list, EffectKind kind)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity != 0 ? 2 * list->capacity : 32;
        list->item = mem_realloc(list->item, (size_t)list->capacity, sizeof *list->item);
    }
    Effect *effect = &list->item[list->count++];
    memset(effect, 0, sizeof *effect);
    effect->kind = kind;
    return effect;
}

void effect_list_free(EffectList *list)
{
    free(list->item);
    *list = (EffectList){0};
}

DataPosition data_position(int64_t position, int64_t records)
{
    if (records <= 0) return (DataPosition){0, position, position};
    return (DataPosition){position / records, position % records, position};
}
