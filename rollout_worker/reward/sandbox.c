#include "rollout_worker/reward/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/process.h"
#include "rollout_worker/reward/scorer_json.h"

#define HEADER_BYTES_MAX 8192
#define GRACE_MS         5000 /* for the helper, past the program's limit */

/* ---- the request ---- */

/* A part of the path is . or .. */
static bool has_dots(const char *path)
{
    for (const char *at = path; (at = strstr(at, "/.")) != NULL; at++) {
        const char *end = at[2] == '.' ? at + 3 : at + 2;
        if (*end == '/' || *end == '\0') return true;
    }
    return false;
}

static Status check_files(const SandboxRun *run, Error *err)
{
    int64_t bytes = 0;
    for (int i = 0; i < run->num_files; i++) {
        const char *name = run->files[i].name;
        bool plain =
            name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL && strlen(name) <= 200;
        for (int k = 0; k < i; k++)
            plain = plain && strcmp(name, run->files[k].name) != 0;
        if (!plain)
            return error_set(err, ERR_INVALID,
                             "%s is no name for a file of a sandbox: expected one without '/', not "
                             "twice, and not hidden",
                             QUOTED(name));
        bytes += (int64_t)run->files[i].text.length;
    }
    if (bytes > run->limits.disk_bytes / 2)
        return error_set(err, ERR_INVALID,
                         "the files of a sandbox have %" PRId64
                         " bytes, expected at most half of its disk of %" PRId64,
                         bytes, run->limits.disk_bytes);
    return OK;
}

static bool can_be_shown(const char *path)
{
    static const char *const never[] = {"/proc", "/sys", "/dev", "/box", "/run", "/var/run"};
    if (path[0] != '/' || path[1] == '\0' || strlen(path) >= 1000 || has_dots(path)) return false;
    for (size_t k = 0; k < sizeof never / sizeof never[0]; k++) {
        size_t length = strlen(never[k]);
        if (strncmp(path, never[k], length) == 0 && (path[length] == '\0' || path[length] == '/'))
            return false;
    }
    return true;
}

static Status check_readable(const SandboxRun *run, Error *err)
{
    for (int i = 0; run->readable != NULL && run->readable[i] != NULL; i++) {
        if (i == SANDBOX_READABLE_MAX)
            return error_set(err, ERR_INVALID, "a sandbox shows at most %d paths",
                             SANDBOX_READABLE_MAX);
        if (!can_be_shown(run->readable[i]))
            return error_set(
                err, ERR_INVALID,
                "%s cannot be shown in a sandbox: expected an absolute path that is not "
                "/, without `..`, and not below /proc, /sys, /dev, /run or /box",
                QUOTED(run->readable[i]));
    }
    return OK;
}

static void append_words(Str *out, const char *key, const char *const *words)
{
    str_printf(out, "\"%s\": [", key);
    for (int i = 0; words != NULL && words[i] != NULL; i++) {
        if (i > 0) str_puts(out, ", ");
        json_append_string(out, words[i]);
    }
    str_puts(out, "], ");
}

/* Text for the helper: JSON has no NUL for it, and a program text has no use for one. */
static void append_text(Str *out, Slice text)
{
    Str clean = {0};
    if (text.length > 0 && memchr(text.data, '\0', text.length) != NULL) {
        for (size_t i = 0; i < text.length; i++)
            str_putc(&clean, text.data[i] == '\0' ? '\xff' : text.data[i]);
        text = (Slice){clean.data, clean.length};
    }
    scorer_append_text(out, text);
    str_free(&clean);
}

static void append_request(Str *out, const SandboxRun *run)
{
    const SandboxLimits *limits = &run->limits;
    str_putc(out, '{');
    append_words(out, "command", run->command);
    append_words(out, "readable", run->readable);
    str_puts(out, "\"files\": [");
    for (int i = 0; i < run->num_files; i++) {
        str_printf(out, "%s{\"name\": ", i == 0 ? "" : ", ");
        json_append_string(out, run->files[i].name);
        str_puts(out, ", \"text\": ");
        append_text(out, run->files[i].text);
        str_putc(out, '}');
    }
    str_puts(out, "], \"input\": ");
    append_text(out, run->input);
    str_printf(out, ", \"limits\": {\"wall_ms\": %" PRId64 ", \"cpu_ms\": %" PRId64,
               limits->wall_ms, limits->cpu_ms);
    str_printf(out, ", \"memory_bytes\": %" PRId64 ", \"disk_bytes\": %" PRId64,
               limits->memory_bytes, limits->disk_bytes);
    str_printf(out,
               ", \"output_bytes\": %" PRId64 ", \"processes\": %" PRId64
               ", \"open_files\": %" PRId64 "}}",
               limits->output_bytes, limits->processes, limits->open_files);
}

/* ---- the helper ---- */

typedef struct Helper {
    pid_t pid;
    int input, output;
} Helper;

static Status find_helper(const SandboxRun *run, char **ret, Error *err)
{
    char *path = run->helper == NULL ? program_path("sandbox") : mem_strdup(run->helper);
    if (access(path, X_OK) != 0) {
        error_set(err, ERR_UNSUPPORTED,
                  "nothing can be run in isolation: the helper %s is not there or no program\n"
                  "It is built with the other programs (ninja -C build programs) and stands beside "
                  "them.",
                  QUOTED(path));
        free(path);
        return ERR_UNSUPPORTED;
    }
    *ret = path;
    return OK;
}

/* posix_spawn does not copy the address space, whatever its size. */
static Status start_helper(const char *path, Helper *ret, Error *err)
{
    int to[2] = {-1, -1}, from[2] = {-1, -1};
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) {
        int number = errno;
        if (to[0] >= 0) close(to[0]), close(to[1]);
        return error_set_errno(err, number, "could not open a pipe");
    }
    char *argv[] = {(char *)"sandbox", NULL}, *environment[] = {NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    pid_t pid = 0;
    int number = posix_spawn(&pid, path, &actions, &attributes, argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    if (number != 0) {
        close(to[1]);
        close(from[0]);
        return error_set_errno(err, number, "could not start the helper %s", QUOTED(path));
    }
    fcntl(to[1], F_SETFL, O_WRONLY | O_NONBLOCK);
    fcntl(from[0], F_SETFL, O_RDONLY | O_NONBLOCK);
    *ret = (Helper){pid, to[1], from[0]};
    return OK;
}

static void stop_helper(Helper *helper)
{
    if (helper->input >= 0) close(helper->input);
    if (helper->output >= 0) close(helper->output);
    if (helper->pid > 0) {
        kill(helper->pid, SIGKILL);
        while (waitpid(helper->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    *helper = (Helper){0, -1, -1};
}

/* Writes the request and reads the answer to its end. */
static Status talk(Helper *helper, const SandboxRun *run, const Str *request, Str *answer,
                   Error *err)
{
    const size_t answer_max = 2 * (size_t)run->limits.output_bytes + HEADER_BYTES_MAX;
    const int64_t end_ms = clock_ms() + run->limits.wall_ms + GRACE_MS;
    const int64_t slice_ms = run->wanted == NULL ? 1000 : WANTED_SLICE_MS;
    size_t written = 0;
    char bytes[65536];
    for (;;) {
        struct pollfd fds[2] = {{.fd = helper->input, .events = POLLOUT},
                                {.fd = helper->output, .events = POLLIN}};
        int64_t left = end_ms - clock_ms();
        if (left <= 0)
            return error_set(err, ERR_TIMEOUT, "the sandbox's helper gave no answer in time");
        TRY(wanted_check(run->wanted, err));
        if (poll(fds, 2, (int)(left > slice_ms ? slice_ms : left)) < 0 && errno != EINTR)
            return error_set_errno(err, errno, "could not wait for the sandbox's helper");
        if (fds[0].revents != 0) {
            ssize_t got = write(helper->input, request->data + written, request->length - written);
            if (got > 0) written += (size_t)got;
            if (got < 0 && errno != EAGAIN && errno != EINTR)
                return error_set_errno(err, errno, "could not write to the sandbox's helper");
            if (written == request->length) {
                close(helper->input);
                helper->input = -1;
            }
        }
        if (fds[1].revents == 0) continue;
        ssize_t got = read(helper->output, bytes, sizeof bytes);
        if (got == 0) return OK;
        if (got > 0) str_append(answer, bytes, (size_t)got);
        if (answer->length > answer_max)
            return error_set(err, ERR_IO, "the sandbox's helper says more than it should");
    }
}

/* ---- the answer ---- */

static Status read_refusal(const cJSON *header, Error *err)
{
    const char *name = NULL, *message = NULL;
    TRY(json_string(header, "refused", "the sandbox's answer", &name, err));
    TRY(json_string(header, "message", "the sandbox's answer", &message, err));
    for (int i = 1; i < STATUS_COUNT; i++)
        if (strcmp(status_name((Status)i), name) == 0)
            return error_set(err, (Status)i, "%s", message);
    return error_set(err, ERR_INTERNAL, "%s", message);
}

static Status read_answer(const Str *answer, SandboxResult *ret, Error *err)
{
    static const char *const where = "the sandbox's answer";
    const char *line = answer->length == 0 ? NULL : memchr(answer->data, '\n', answer->length);
    const char *end = NULL;
    int64_t output = 0, errors = 0, code = 0;
    if (line == NULL || line - answer->data > HEADER_BYTES_MAX)
        return error_set(err, ERR_IO, "the sandbox's helper ended without an answer");
    size_t at = (size_t)(line - answer->data) + 1;
    cJSON *header = NULL;
    TRY(json_parse(answer->data, at - 1, where, &header, err));
    Status status;
    if (cJSON_HasObjectItem(header, "refused")) {
        status = read_refusal(header, err);
        goto done;
    }
    status = json_string(header, "end", where, &end, err);
    if (status == OK) status = json_int(header, "code", where, 0, 255, &code, err);
    if (status == OK) status = json_int(header, "wall_ms", where, 0, INT64_MAX, &ret->wall_ms, err);
    if (status == OK) status = json_int(header, "cpu_ms", where, 0, INT64_MAX, &ret->cpu_ms, err);
    if (status == OK)
        status = json_int(header, "starved_ms", where, 0, INT64_MAX, &ret->starved_ms, err);
    if (status == OK)
        status = json_int(header, "oom_kills", where, 0, INT64_MAX, &ret->oom_kills, err);
    if (status == OK) status = json_int(header, "output", where, 0, INT64_MAX, &output, err);
    if (status == OK) status = json_int(header, "errors", where, 0, INT64_MAX, &errors, err);
    if (status != OK) goto done;
    int kind = 0;
    while (kind < SANDBOX_END_COUNT && strcmp(sandbox_end_name((SandboxEnd)kind), end) != 0)
        kind++;
    if (kind == SANDBOX_END_COUNT || (uint64_t)output + (uint64_t)errors != answer->length - at) {
        status = error_set(err, ERR_IO, "the sandbox's helper gave an answer that is cut");
        goto done;
    }
    ret->end = (SandboxEnd)kind;
    ret->code = (int)code;
    str_append(&ret->output, answer->data + at, (size_t)output);
    str_append(&ret->errors, answer->data + at + output, (size_t)errors);
done:
    cJSON_Delete(header);
    return status;
}

Status sandbox_run(const SandboxRun *run, SandboxResult *ret, Error *err)
{
    char *path = NULL;
    Helper helper = {0, -1, -1};
    Str request = {0}, answer = {0};
    SandboxResult result = {0};
    sigset_t pipe_signal, before;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    Status status = check_files(run, err);
    if (status == OK) status = check_readable(run, err);
    if (status == OK) status = find_helper(run, &path, err);
    if (status == OK) status = start_helper(path, &helper, err);
    if (status == OK) {
        append_request(&request, run);
        status = talk(&helper, run, &request, &answer, err);
    }
    stop_helper(&helper);
    if (status == OK) status = read_answer(&answer, &result, err);
    if (status == OK) {
        sandbox_result_clear(ret);
        *ret = result;
    } else {
        sandbox_result_clear(&result);
    }
    const struct timespec now = {0};
    if (sigismember(&before, SIGPIPE) == 0) /* one that is pending would come when unblocked */
        while (sigtimedwait(&pipe_signal, NULL, &now) > 0)
            continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(path);
    str_free(&request);
    str_free(&answer);
    return status;
}
