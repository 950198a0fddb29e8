/* Descriptors that processes give each other. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd_offer.h"

typedef struct Giver {
    int end[2]; /* of a pipe */
    atomic_int asked;
} Giver;

/* 0: the pipe's end that is read from; anything else: nothing. */
static int give(void *context, int32_t what)
{
    Giver *giver = context;
    giver->asked++;
    return what == 0 ? giver->end[0] : -1;
}

static int read_in_child(const FdOfferName *name)
{
    int fd = -1;
    char text[6] = "";
    Error err = {0};
    if (fd_offer_take(name, 0, 5000, "the giver", &fd, &err) != OK) return 1;
    if (read(fd, text, 5) != 5 || strcmp(text, "hello") != 0) return 2;
    if (fd_offer_take(name, 7, 5000, "the giver", &fd, &err) != OK || fd != -1) return 3;
    return 0;
}

static void test_another_process_gets_what_it_asks_for(void **state)
{
    (void)state;
    int status = -1;
    Error err = {0};
    Giver giver = {0};
    FdOfferName name;
    FdOffer *offer = NULL;
    assert_int_equal(pipe(giver.end), 0);
    assert_ok(fd_offer_create(give, &giver, &name, &offer, &err), &err);
    assert_int_equal(write(giver.end[1], "hello", 5), 5);
    pid_t child = fork();
    if (child == 0) {
        close(giver.end[0]); /* what was inherited is not what is given */
        _exit(read_in_child(&name));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(giver.asked, 2);
    fd_offer_destroy(offer);
    fd_offer_destroy(NULL);
    close(giver.end[0]);
    close(giver.end[1]);
}

static void test_an_offer_that_is_gone_is_said(void **state)
{
    (void)state;
    int fd = -1;
    Error err = {0};
    Giver giver = {{-1, -1}, 0};
    FdOfferName name;
    FdOffer *offer = NULL;
    assert_ok(fd_offer_create(give, &giver, &name, &offer, &err), &err);
    fd_offer_destroy(offer);
    assert_fails(fd_offer_take(&name, 0, 5000, "the giver", &fd, &err), ERR_UNAVAILABLE, &err,
                 "the giver is gone");
    assert_int_equal(fd, -1);
}

/* Whoever connects and says nothing, or less than a question, keeps the next one from nothing. */
static void test_askers_that_say_nothing_are_let_go(void **state)
{
    (void)state;
    int fd = -1;
    Error err = {0};
    Giver giver = {{STDIN_FILENO, -1}, 0};
    FdOfferName name;
    FdOffer *offer = NULL;
    assert_ok(fd_offer_create(give, &giver, &name, &offer, &err), &err);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path + 1, name.text, strlen(name.text));
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name.text));
    int silent = socket(AF_UNIX, SOCK_SEQPACKET, 0), short_one = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_int_equal(connect(silent, (struct sockaddr *)&address, length), 0);
    assert_int_equal(connect(short_one, (struct sockaddr *)&address, length), 0);
    assert_int_equal(send(short_one, "ab", 2, 0), 2);
    assert_ok(fd_offer_take(&name, 0, 10000, "the giver", &fd, &err), &err);
    assert_true(fd >= 0);
    assert_int_equal(giver.asked, 1);
    close(fd);
    close(silent);
    close(short_one);
    fd_offer_destroy(offer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_process_gets_what_it_asks_for),
        cmocka_unit_test(test_an_offer_that_is_gone_is_said),
        cmocka_unit_test(test_askers_that_say_nothing_are_let_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
