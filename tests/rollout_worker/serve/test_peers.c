/* Tests of serve/peers: who is late is cut off, and who is heard from again and again wakes nobody.
 */
#include "test.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rollout_worker/serve/peers.h"

static void assert_cut_off(int descriptor)
{
    char byte;
    struct pollfd end = {.fd = descriptor, .events = POLLIN};
    assert_int_equal(poll(&end, 1, 20000), 1);
    assert_int_equal(read(descriptor, &byte, 1), 0);
}

static void test_peers_cut_off_who_is_late(void **state)
{
    (void)state;
    int a[2], b[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    Peers *peers = peers_create();
    Peer *patient = peers_add(peers, a[0], 600000), *hasty = peers_add(peers, b[0], 600000);
    usleep(20000); /* it sleeps until then */
    peer_expect(peers, hasty, 50);
    assert_cut_off(b[1]);
    peer_expect(peers, patient, 0);
    usleep(20000);
    peer_expect(peers, patient, 50); /* the only one whose turn it is */
    assert_cut_off(a[1]);
    peers_remove(peers, patient);
    peers_remove(peers, hasty);
    peers_destroy(peers);
    for (int i = 0; i < 2; i++)
        close(a[i]), close(b[i]);
}

/* How often the threads of this process but the first have gone to sleep. */
static long count_sleeps(void)
{
    DIR *folder = opendir("/proc/self/task");
    long count = 0;
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[300], line[200];
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid()) continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *file = fopen(path, "r");
        while (file != NULL && fgets(line, sizeof line, file) != NULL)
            if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0) count += atol(line + 24);
        if (file != NULL) fclose(file);
    }
    closedir(folder);
    return count;
}

static void test_peers_sleep_while_times_are_put_off(void **state)
{
    (void)state;
    int a[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    Peers *peers = peers_create();
    Peer *peer = peers_add(peers, a[0], 600000);
    usleep(20000);
    long before = count_sleeps();
    for (int i = 0; i < 500; i++) {
        peer_expect(peers, peer, 600000);
        usleep(100);
    }
    assert_in_range(count_sleeps() - before, 0, 20);
    peers_remove(peers, peer);
    peers_destroy(peers);
    close(a[0]), close(a[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peers_cut_off_who_is_late),
        cmocka_unit_test(test_peers_sleep_while_times_are_put_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
