#include "base/fd_offer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/memory.h"

#define ASK_TIMEOUT_MS 1000
#define ASKERS_MAX     64 /* that wait to be answered */

struct FdOffer {
    FdGive give;
    void *context;
    int listener, end; /* end: readable when it is over */
    pthread_t thread;
};

/* ---- both sides ---- */

/* An abstract name: no file, so nobody has to remove it. */
static socklen_t address_of(const FdOfferName *name, struct sockaddr_un *ret)
{
    size_t length = strnlen(name->text, sizeof name->text);
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret->sun_path + 1, name->text, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

static void set_timeout(int fd, int64_t ms)
{
    struct timeval time = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

/* Sockets of abstract names have no permissions: both sides look who the other one is. */
static bool is_our_user(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == getuid();
}

typedef union Control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
} Control;

/* ---- giving ---- */

static void send_answer(int asker, int32_t what, int fd)
{
    Control control = {0};
    struct iovec data = {.iov_base = &what, .iov_len = sizeof what};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    (void)sendmsg(asker, &message, MSG_NOSIGNAL); /* who has gone wants nothing */
}

static void answer(const FdOffer *offer, int asker)
{
    int32_t what = 0;
    set_timeout(asker, ASK_TIMEOUT_MS);
    if (is_our_user(asker) && recv(asker, &what, sizeof what, 0) == (ssize_t)sizeof what)
        send_answer(asker, what, offer->give(offer->context, what));
    close(asker);
}

static void *offer_main(void *argument)
{
    const FdOffer *offer = argument;
    struct pollfd on[] = {{.fd = offer->listener, .events = POLLIN},
                          {.fd = offer->end, .events = POLLIN}};
    for (;;) {
        if (poll(on, 2, -1) < 0 && errno != EINTR) return NULL;
        if (on[1].revents != 0) return NULL;
        if ((on[0].revents & POLLIN) == 0) continue;
        int asker = accept4(offer->listener, NULL, NULL, SOCK_CLOEXEC);
        if (asker >= 0) answer(offer, asker);
    }
}

static Status listen_at(FdOffer *offer, FdOfferName *ret_name, Error *err)
{
    uint64_t nonce = 0;
    struct sockaddr_un address;
    FdOfferName name = {{0}};
    if (getrandom(&nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce)
        return error_set_errno(err, errno, "could not draw a random name");
    snprintf(name.text, sizeof name.text, "troupe-%016llx", (unsigned long long)nonce);
    offer->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    offer->end = eventfd(0, EFD_CLOEXEC);
    socklen_t length = address_of(&name, &address);
    if (offer->listener < 0 || offer->end < 0 ||
        bind(offer->listener, (const struct sockaddr *)&address, length) != 0 ||
        listen(offer->listener, ASKERS_MAX) != 0)
        return error_set_errno(err, errno, "could not listen at a local socket");
    *ret_name = name;
    return OK;
}

Status fd_offer_create(FdGive give, void *context, FdOfferName *ret_name, FdOffer **ret, Error *err)
{
    FdOffer *offer = mem_calloc(1, sizeof *offer);
    *offer = (FdOffer){.give = give, .context = context, .listener = -1, .end = -1};
    Status status = listen_at(offer, ret_name, err);
    int errnum = status == OK ? pthread_create(&offer->thread, NULL, offer_main, offer) : 0;
    if (errnum != 0)
        status = error_set_errno(err, errnum, "could not start a thread that gives descriptors");
    if (status == OK) {
        *ret = offer;
        return OK;
    }
    if (offer->listener >= 0) close(offer->listener);
    if (offer->end >= 0) close(offer->end);
    free(offer);
    return status;
}

void fd_offer_destroy(FdOffer *offer)
{
    if (offer == NULL) return;
    const uint64_t one = 1;
    CHECK(write(offer->end, &one, sizeof one) == (ssize_t)sizeof one);
    pthread_join(offer->thread, NULL);
    close(offer->listener);
    close(offer->end);
    free(offer);
}

/* ---- asking ---- */

static Status receive_answer(int fd, int32_t what, const char *maker, int *ret_fd, Error *err)
{
    Control control = {0};
    int32_t got = 0;
    struct iovec data = {.iov_base = &got, .iov_len = sizeof got};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (length != (ssize_t)sizeof got || got != what)
        return error_set(err, ERR_UNAVAILABLE,
                         "%s did not give the descriptor it was asked for: %s", maker,
                         length < 0 ? strerror(errno) : "it has gone");
    *ret_fd = -1;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(ret_fd, CMSG_DATA(header), sizeof *ret_fd);
    return OK;
}

static Status ask_at(int fd, const FdOfferName *name, int32_t what, const char *maker, int *ret_fd,
                     Error *err)
{
    struct sockaddr_un address;
    socklen_t length = address_of(name, &address);
    if (connect(fd, (const struct sockaddr *)&address, length) != 0 || !is_our_user(fd))
        return error_set(err, ERR_UNAVAILABLE,
                         "%s is gone, or of another user or network namespace: nobody answers at "
                         "its local socket",
                         maker);
    if (send(fd, &what, sizeof what, MSG_NOSIGNAL) != (ssize_t)sizeof what)
        return error_set(err, ERR_UNAVAILABLE, "%s does not listen any more", maker);
    return receive_answer(fd, what, maker, ret_fd, err);
}

Status fd_offer_take(const FdOfferName *name, int32_t what, int64_t timeout_ms, const char *maker,
                     int *ret_fd, Error *err)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return error_set_errno(err, errno, "could not make a socket");
    set_timeout(fd, timeout_ms);
    Status status = ask_at(fd, name, what, maker, ret_fd, err);
    close(fd);
    return status;
}
