#include "rollout_worker/process/wanted.h"

#include <stddef.h>
#include <time.h>

bool wanted_is_over(const Wanted *wanted)
{
    if (wanted == NULL) return false;
    return (wanted->given_up != NULL && atomic_load(wanted->given_up)) ||
           (wanted->ended != NULL && atomic_load(wanted->ended)) || trouble_lasts(wanted->trouble);
}

Status wanted_check(const Wanted *wanted, Error *err)
{
    if (!wanted_is_over(wanted)) return OK;
    TRY(trouble_check(wanted->trouble, err));
    return error_set(err, ERR_CANCELLED, "nobody wants these samples any more");
}

Status wanted_pause(const Wanted *wanted, int64_t delay_ms, Error *err)
{
    Status status = wanted_check(wanted, err);
    for (int64_t left = delay_ms; left > 0 && status == OK; left -= WANTED_SLICE_MS) {
        struct timespec slice = {0, (left < WANTED_SLICE_MS ? left : WANTED_SLICE_MS) * 1000000};
        nanosleep(&slice, NULL);
        status = wanted_check(wanted, err);
    }
    return status;
}

void wanted_note_failure(const Wanted *wanted, const char *why)
{
    if (wanted != NULL) trouble_note(wanted->trouble, why);
}
