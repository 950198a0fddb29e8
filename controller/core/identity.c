/* Is it still the same data? Positions stand for records: a run that goes on with other records
 * under the same positions has trained something that nobody can tell afterwards. So a changed data
 * set is refused, by name; but who has mended a bad line must be able to go on, and says so with
 * the new data's fingerprint, which cannot be meant for any later change. */
#include "core/core.h"

#include <stdlib.h>
#include <string.h>

#include "config/source_set.h"

#define SHOWN_DIGITS 16

static bool is_named(const char *accepted, const char *fingerprint)
{
    return accepted != NULL && strncmp(accepted, fingerprint, strlen(accepted)) == 0;
}

/* In the midst of a run what is trained is committed first. */
static void refuse(Controller *c, const char *first, const char *message)
{
    if (c->step > c->saved.step)
        core_finish_until(c, ERR_DATA, first, message);
    else
        core_finish(c, ERR_DATA, "%s", message);
}

/* Whether positions may be taken to mean the same though the data are others. Of a mixture each
 * source for itself: its weight may be another one, and the source go on elsewhere. */
static bool same_number(const Controller *c, const Event *event)
{
    int64_t records = event->reply.open_set.records;
    const int64_t *of_source = event->reply.open_set.source_records;
    int count = event->reply.open_set.num_sources;
    bool was_mixed = false, same = true;
    for (int i = 0; i < count; i++) {
        int64_t before = c->saved.source[i].records;
        was_mixed = was_mixed || before != 0;
        same = same && (before == 0 || before == of_source[i]);
    }
    if (count > 1 && was_mixed) return same;
    return c->saved.records == 0 || c->saved.records == records;
}

bool identity_accept(Controller *c, const Event *event)
{
    const char *now = event->reply.open_set.fingerprint, *before = c->fingerprint[c->done.stage];
    const char *changes = event->reply.open_set.changes;
    int64_t records = event->reply.open_set.records;
    if (before == NULL || strcmp(before, now) == 0) return true;
    /* In the order `window` a change of a file moves the records behind it to other positions. */
    bool window = train_is_counted_late(c->config);
    bool acceptable = !window && same_number(c, event);
    if (acceptable && is_named(c->config->data.accept_changed, now)) {
        core_log(c, LOG_WARN, "data_changed",
                 "accepted from position %lld on: fingerprint %s, was %s%s%s",
                 (long long)c->next_position, now, before, changes[0] != '\0' ? "\n" : "", changes);
        return true;
    }
    char *message = mem_printf(
        "the training data is not what it was when this run last read it: fingerprint %.*s, was "
        "%.*s%s%s\n"
        "Put it back, or start a new run with another run_dir (model.path: %s begins with these "
        "weights).\n",
        SHOWN_DIGITS, now, SHOWN_DIGITS, before, changes[0] != '\0' ? "\n" : "", changes,
        c->checkpoint != NULL ? c->checkpoint : "its checkpoint");
    char *way = acceptable
                    ? mem_printf("Or go on with each position as it is in the data now: --set "
                                 "data.accept_changed=%.*s",
                                 SHOWN_DIGITS, now)
                : window ? mem_strdup("It cannot go on with it: in the order `window` other bytes "
                                      "may put other records into their places.")
                : event->reply.open_set.num_sources > 1
                    ? mem_strdup("It cannot go on with it: other sources, or another number of "
                                 "records in one, and every position would mean another one.")
                    : mem_printf("It cannot go on with it: %lld records were %lld, and every "
                                 "position would mean another one.",
                                 (long long)records, (long long)c->saved.records);
    char *whole = mem_printf("%s%s", message, way);
    refuse(c, acceptable ? "put the data back, or add that --set" : "put the data back", whole);
    free(whole);
    free(way);
    free(message);
    return false;
}
