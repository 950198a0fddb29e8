/* FdOffer: file descriptors of this process that other processes of the same user on this host may
 * have, by a socket whose name stands in no folder and goes with the process. For what cannot be
 * opened through /proc, as memory of a GPU. A thread of its own answers, one asker after the other;
 * an asker that says nothing is let go after a second, one of another user at once.
 *
 * Take: any thread, also of several processes at a time. */
#ifndef TROUPE_BASE_FD_OFFER_H
#define TROUPE_BASE_FD_OFFER_H

#include <stdint.h>

#include "base/error.h"

typedef struct FdOffer FdOffer;

/* Names an offer; plain data, to be sent to others. */
typedef struct FdOfferName {
    char text[32];
} FdOfferName;

/* The descriptor that stands for `what`, which stays the giver's; or -1, when there is nothing to
 * give but the answer that it was asked. On the offer's thread. */
typedef int (*FdGive)(void *context, int32_t what);

Status fd_offer_create(FdGive give, void *context, FdOfferName *ret_name, FdOffer **ret,
                       Error *err);
void fd_offer_destroy(FdOffer *offer); /* accepts NULL; nobody is answered any more */

/* Asks for `what` and waits for at most `timeout_ms`. *ret_fd is the caller's, -1 for an answer
 * without one. ERR_UNAVAILABLE when nobody answers to the name; `maker` names them in messages. */
Status fd_offer_take(const FdOfferName *name, int32_t what, int64_t timeout_ms, const char *maker,
                     int *ret_fd, Error *err);

#endif
