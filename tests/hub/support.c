#include "hub/support.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "dataset/files.h"
#include "test.h"

extern char **environ;

#define REQUESTS SERVER_ROOT "/requests.jsonl"
#define SERVER   TEST_SOURCE_DIR "/hub/hub_server.py"

bool hub_server_is_possible(void)
{
    return system("python3 -c 'import http.server, ssl' 2>/dev/null") == 0;
}

bool hub_make_certificate(void)
{
    static const char command[] =
        "mkdir -p tls && cd tls && test -s cert.pem || {"
        " openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=test authority'"
        "  -keyout ca.key -out ca.pem &&"
        " openssl req -newkey rsa:2048 -nodes -subj '/CN=localhost' -keyout key.pem -out r.pem &&"
        " printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > names &&"
        " openssl x509 -req -in r.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650"
        "  -extfile names -out cert.pem; } 2>/dev/null";
    return system(command) == 0;
}

void hub_server_start(const char *scheme, HubServer *ret)
{
    int in[2], out[2];
    char text[64] = "";
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    bool tls = strcmp(scheme, "https") == 0;
    char *plain[] = {"python3", SERVER, SERVER_ROOT, NULL};
    char *secret[] = {"python3", SERVER, SERVER_ROOT, "--tls", "tls/cert.pem", "tls/key.pem", NULL};
    assert_int_equal(
        posix_spawnp(&ret->pid, "python3", &actions, NULL, tls ? secret : plain, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    ret->input = in[1];
    for (size_t length = 0; strchr(text, '\n') == NULL;) {
        ssize_t got = read(out[0], text + length, sizeof text - 1 - length);
        assert_true(got > 0);
        length += (size_t)got;
    }
    close(out[0]);
    assert_int_equal(sscanf(text, "%d %d", &ret->port, &ret->cdn_port), 2);
}

void hub_server_stop(HubServer *server)
{
    close(server->input);
    waitpid(server->pid, NULL, 0);
}

HubAccess hub_server_access(const char *scheme, const HubServer *server)
{
    return (HubAccess){
        .endpoint = mem_printf("%s://127.0.0.1:%d", scheme, server->port),
        .cache = mem_strdup(HUB_CACHE),
        .ca_file = strcmp(scheme, "https") == 0 ? mem_strdup("tls/ca.pem") : NULL,
        .stall_ms = 30000,
        .attempts = 4,
        .tell_ms = 60000,
        .backoff_ms = 1,
        .backoff_ms_max = 4,
    };
}

void hub_make_fresh(void)
{
    make_fresh(SERVER_ROOT "/repos");
    make_fresh("cache");
    hub_set_faults("[]");
    hub_forget_requests();
    hub_set_refs("a/set", "{\"branches\": {\"main\": \"" COMMIT_A "\"}}");
}

void hub_put(const char *repo, const char *commit, const char *path, const char *text)
{
    char *place = mem_printf(SERVER_ROOT "/repos/%s/%s/%s", repo, commit, path);
    write_text(place, text);
    free(place);
}

void hub_put_lines(const char *repo, const char *commit, const char *path, int begin, int end)
{
    Str text = {0};
    for (int i = begin; i < end; i++)
        str_printf(&text, "{\"prompt\": \"%d\", \"completion\": \"number %d\"}\n", i, i);
    hub_put(repo, commit, path, str_text(&text));
    str_free(&text);
}

void hub_set_refs(const char *repo, const char *json)
{
    char *path = mem_printf(SERVER_ROOT "/repos/%s/refs.json", repo);
    write_text(path, json);
    free(path);
}

void hub_set_faults(const char *json)
{
    Error err = {0};
    assert_ok(file_write_atomic(SERVER_ROOT "/faults.json", json, strlen(json), &err), &err);
}

int hub_requests_with(const char *part)
{
    char *text = NULL;
    size_t length = 0;
    int count = 0;
    Error err = {0};
    if (!path_exists(REQUESTS)) return 0;
    assert_ok(file_read(REQUESTS, 64 << 20, &text, &length, &err), &err);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        count += strstr(line, part) != NULL;
    free(text);
    return count;
}

void hub_forget_requests(void)
{
    unlink(REQUESTS);
}
