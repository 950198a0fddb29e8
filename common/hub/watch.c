#include "hub/watch.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/str.h"

#define PAUSE_SLICE_MS 100
#define SAY_MS         1000 /* from text to text */
#define PEOPLE_MS      30000
#define SLOW_BYTES_S   1000 /* a second; what is slower is told */
#define TEXT_BYTES     512

/* ---- who waits ---- */

bool hub_watch_goes_on(const HubWatch *watch, int64_t new_bytes)
{
    return watch->go_on == NULL || watch->go_on(watch->context, new_bytes);
}

void hub_watch_waits(const HubWatch *watch, const char *waits_for)
{
    if (watch->waits != NULL) watch->waits(watch->context, waits_for);
}

Status hub_watch_give_up(Error *err)
{
    return error_set(err, ERR_CANCELLED, "the data is not wanted any more");
}

Status hub_watch_pause(const HubWatch *watch, int64_t ms, Error *err)
{
    for (int64_t end = clock_ms() + ms, left; (left = end - clock_ms()) > 0;) {
        int64_t slice = left < PAUSE_SLICE_MS ? left : PAUSE_SLICE_MS;
        if (!hub_watch_goes_on(watch, 0)) return hub_watch_give_up(err);
        nanosleep(&(struct timespec){.tv_nsec = slice * 1000000}, NULL);
    }
    return hub_watch_goes_on(watch, 0) ? OK : hub_watch_give_up(err);
}

bool hub_watch_is_time(_Atomic int64_t *told_ms, const char *waits_for)
{
    int64_t now = clock_ms(), told = *told_ms;
    if (waits_for[0] == '\0' || (told != 0 && now - told < PEOPLE_MS)) return false;
    return atomic_compare_exchange_strong(told_ms, &told, now);
}

/* ---- a request without bytes ---- */

void hub_silence_begin(HubSilence *silence)
{
    silence->begun_ms = silence->byte_ms = silence->window_ms = clock_ms();
    silence->window_bytes = silence->said_ms = 0;
}

/* Scheme, host and port alone: the rest of an address may be secret. */
void hub_silence_host(HubSilence *silence, const char *url)
{
    const char *name = strstr(url, "://"), *user;
    name = name != NULL ? name + 3 : url;
    size_t length = strcspn(name, "/?#");
    if ((user = memchr(name, '@', length)) != NULL) {
        length -= (size_t)(user + 1 - name);
        name = user + 1;
    }
    snprintf(silence->host, sizeof silence->host, "%s%.*s",
             str_starts_with(url, "http://") ? "http://" : "https://", (int)length, name);
}

void hub_silence_bytes(HubSilence *silence, int64_t bytes)
{
    int64_t now = clock_ms();
    if (now - silence->byte_ms >= silence->access->tell_ms) { /* how fast it is now */
        silence->window_ms = now;
        silence->window_bytes = 0;
    }
    silence->byte_ms = now;
    silence->window_bytes += bytes;
}

/* Until the last try has failed, as the tries before it may have. */
static int64_t give_up_s(const HubSilence *silence, int64_t now_ms)
{
    const HubAccess *access = silence->access;
    int64_t left = silence->begun_ms + access->stall_ms - now_ms, backoff = silence->backoff_ms;
    if (left < 0) left = 0;
    for (int64_t i = silence->tries + 1; i < silence->tries_max; i++) {
        left += backoff + access->stall_ms;
        backoff = 2 * backoff < access->backoff_ms_max ? 2 * backoff : access->backoff_ms_max;
    }
    return (left + 999) / 1000;
}

/* "https://huggingface.co (a.parquet of a/set); no answer for 12 s (try 2 of 6, ...)"; false: bytes
 * come as they should. */
static bool describe(const HubSilence *silence, int64_t now_ms, char ret[TEXT_BYTES])
{
    long long quiet_ms = now_ms - silence->byte_ms, window_ms = now_ms - silence->window_ms;
    long long bytes = silence->window_bytes;
    int used = snprintf(ret, TEXT_BYTES, "%s (%.160s); ", silence->host, silence->what);
    if (used < 0 || used >= TEXT_BYTES) return false;
    char *rest = ret + used;
    size_t size = TEXT_BYTES - (size_t)used;
    if (quiet_ms >= silence->access->tell_ms && silence->next_ms > 0)
        snprintf(rest, size, "%s; asked again in %lld s (try %lld of %lld)", silence->trouble,
                 (long long)(silence->next_ms - now_ms + 999) / 1000, (long long)silence->tries + 1,
                 (long long)silence->tries_max);
    else if (quiet_ms >= silence->access->tell_ms)
        snprintf(rest, size, "no answer for %lld s (try %lld of %lld, gives up in %lld s)%s%s",
                 quiet_ms / 1000, (long long)silence->tries + 1, (long long)silence->tries_max,
                 (long long)give_up_s(silence, now_ms), silence->trouble[0] != '\0' ? "; " : "",
                 silence->trouble);
    else if (window_ms > 0 && bytes * 1000 < SLOW_BYTES_S * window_ms)
        snprintf(rest, size, "slow: %lld bytes in %lld s", bytes, window_ms / 1000);
    else
        return false;
    return true;
}

void hub_silence_end(HubSilence *silence)
{
    const void *own = silence;
    silence->said_ms = 0;
    silence->said_quiet = false;
    if (atomic_compare_exchange_strong(silence->speaker, &own, NULL))
        hub_watch_waits(silence->watch, "");
}

/* How fast bytes come is judged over windows of `tell_ms`; that none come, at any time. */
void hub_silence_look(HubSilence *silence)
{
    char text[TEXT_BYTES];
    const void *nobody = NULL;
    int64_t now = clock_ms();
    bool window = now - silence->window_ms >= silence->access->tell_ms;
    bool quiet = now - silence->byte_ms >= silence->access->tell_ms;
    if (silence->said_quiet && !quiet) hub_silence_end(silence);
    if (!window || (quiet && silence->said_ms > 0 && now - silence->said_ms < SAY_MS)) return;
    if (!describe(silence, now, text)) {
        hub_silence_end(silence);
    } else if (atomic_compare_exchange_strong(silence->speaker, &nobody, silence) ||
               nobody == silence) {
        silence->said_ms = now;
        silence->said_quiet = quiet;
        hub_watch_waits(silence->watch, text);
    }
    if (quiet) return;
    silence->window_ms = now;
    silence->window_bytes = 0;
}
