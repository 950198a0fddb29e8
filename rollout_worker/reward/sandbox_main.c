/* sandbox: runs a program isolated from everything (sandbox.h). What to run is a JSON object on
 * standard input; the answer on standard output is a line of JSON, and behind it the bytes of the
 * program's standard output and standard error:
 *
 *     echo '{"command": ["python3", "main.py"], "files": [{"name": "main.py", "text":
 * "print(1)"}]}' | sandbox
 *     {"end": "exited", "code": 0, "wall_ms": 18, "cpu_ms": 12, "starved_ms": 0, "oom_kills": 0,
 * "output": 2, "errors": 0}
 *     1
 *
 * A machine that cannot isolate gets {"refused": "unsupported", "message": "..."}, and nothing is
 * run. The library's sandbox_run starts it; it ends when the process that started it does. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "rollout_worker/reward/sandbox_helper.h"

#define REQUEST_BYTES_MAX ((size_t)256 << 20)
#define WORDS_MAX         256

/* A request and what it is made of. */
typedef struct Request {
    cJSON *json;
    SandboxRun run;
    const char *command[WORDS_MAX + 1];
    const char *readable[WORDS_MAX + 1];
    SandboxFile file[WORDS_MAX];
} Request;

static Status read_input(Str *ret, Error *err)
{
    char bytes[65536];
    for (ssize_t got; (got = read(STDIN_FILENO, bytes, sizeof bytes)) != 0;) {
        if (got < 0) return error_set_errno(err, errno, "could not read the request");
        str_append(ret, bytes, (size_t)got);
        if (ret->length > REQUEST_BYTES_MAX)
            return error_set(err, ERR_INVALID, "the request has more than %zu bytes",
                             REQUEST_BYTES_MAX);
    }
    return OK;
}

static Status read_words(const cJSON *json, const char *key, const char **ret, Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, key), *entry = NULL;
    int count = 0;
    if (list != NULL && !cJSON_IsArray(list))
        return error_set(err, ERR_INVALID, "%s is %s, expected a list", key, json_type_name(list));
    cJSON_ArrayForEach(entry, list)
    {
        if (!cJSON_IsString(entry) || count == WORDS_MAX)
            return error_set(err, ERR_INVALID, "%s is no list of at most %d texts", key, WORDS_MAX);
        ret[count++] = entry->valuestring;
    }
    ret[count] = NULL;
    return OK;
}

static Status read_files(Request *request, Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(request->json, "files"), *entry = NULL;
    cJSON_ArrayForEach(entry, list)
    {
        const char *name = NULL, *text = NULL;
        if (request->run.num_files == WORDS_MAX)
            return error_set(err, ERR_INVALID, "there are more than %d files", WORDS_MAX);
        TRY(json_string(entry, "name", "files", &name, err));
        TRY(json_string(entry, "text", "files", &text, err));
        request->file[request->run.num_files++] = (SandboxFile){name, slice_from(text)};
    }
    request->run.files = request->file;
    return OK;
}

static Status read_limits(const cJSON *json, SandboxLimits *ret, Error *err)
{
    static const char *const where = "limits";
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(json, where);
    const int64_t gigabyte = 1 << 30;
    TRY(json_int_or(limits, "wall_ms", where, 1, 86400000, &ret->wall_ms, err));
    TRY(json_int_or(limits, "cpu_ms", where, 1, 86400000, &ret->cpu_ms, err));
    TRY(json_int_or(limits, "memory_bytes", where, 1 << 20, 1024 * gigabyte, &ret->memory_bytes,
                    err));
    TRY(json_int_or(limits, "disk_bytes", where, 1 << 16, 1024 * gigabyte, &ret->disk_bytes, err));
    TRY(json_int_or(limits, "output_bytes", where, 1, gigabyte, &ret->output_bytes, err));
    TRY(json_int_or(limits, "processes", where, 1, 4096, &ret->processes, err));
    return json_int_or(limits, "open_files", where, 8, 65536, &ret->open_files, err);
}

static Status read_request(Request *request, Error *err)
{
    Str text = {0};
    const char *input = "";
    Status status = read_input(&text, err);
    if (status == OK)
        status = json_parse(str_text(&text), text.length, "the request", &request->json, err);
    str_free(&text);
    if (status != OK) return status;
    request->run.limits = sandbox_limits_default;
    TRY(read_words(request->json, "command", request->command, err));
    TRY(read_words(request->json, "readable", request->readable, err));
    if (request->command[0] == NULL)
        return error_set(err, ERR_INVALID, "the request has no command");
    TRY(read_files(request, err));
    TRY(json_string_or(request->json, "input", "the request", &input, err));
    request->run.command = request->command;
    request->run.readable = request->readable;
    request->run.input = slice_from(input);
    return read_limits(request->json, &request->run.limits, err);
}

static void append_result(Str *out, const SandboxResult *result)
{
    str_printf(out,
               "{\"end\": \"%s\", \"code\": %d, \"wall_ms\": %" PRId64 ", \"cpu_ms\": %" PRId64,
               sandbox_end_name(result->end), result->code, result->wall_ms, result->cpu_ms);
    str_printf(out, ", \"starved_ms\": %" PRId64 ", \"oom_kills\": %" PRId64, result->starved_ms,
               result->oom_kills);
    str_printf(out, ", \"output\": %zu, \"errors\": %zu}\n", result->output.length,
               result->errors.length);
    str_append(out, result->output.data, result->output.length);
    str_append(out, result->errors.data, result->errors.length);
}

int main(int argc, char **argv)
{
    const char *machine = argc == 3 && strcmp(argv[1], "--machine") == 0 ? argv[2] : "";
    if (argc > 1 && machine[0] == '\0') {
        bool help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;
        fprintf(help ? stdout : stderr,
                "usage: sandbox [--machine FOLDER] <request.json\n"
                "A request: {\"command\": [\"python3\", \"main.py\"], \"files\": [{\"name\": "
                "\"main.py\", \"text\": \"print(1)\"}],\n"
                "\"input\": \"\", \"readable\": [], \"limits\": {\"wall_ms\": 30000}}. "
                "docs/rewards.md has the rest.\n"
                "--machine, for tests: kills for want of memory are counted in FOLDER/proc and "
                "FOLDER/sys.\n");
        return help ? 0 : 2;
    }
    /* A caller that died before this line is seen by the request, which is cut, or by standard
     * output, which nobody reads (sandbox_watch.c). */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* What the caller has open and did not mark as its own must not come inside. */
    if (close_range(3, ~0U, 0) != 0) return 1;
    if (fcntl(STDERR_FILENO, F_GETFD) < 0 && open("/dev/null", O_WRONLY) != STDERR_FILENO) return 1;
    Error err = {0};
    Request *request = mem_calloc(1, sizeof *request);
    SandboxResult result = {0};
    Str out = {0};
    Status status = read_request(request, &err);
    request->run.machine = machine;
    if (status == OK) status = sandbox_watch(&request->run, &result, &err);
    if (status == OK) {
        append_result(&out, &result);
    } else {
        str_printf(&out, "{\"refused\": \"%s\", \"message\": ", status_name(status));
        json_append_string(&out, err.message);
        str_puts(&out, "}\n");
    }
    Status written = file_write_all(STDOUT_FILENO, out.data, out.length, "standard output", &err);
    sandbox_result_clear(&result);
    cJSON_Delete(request->json);
    free(request);
    str_free(&out);
    return written == OK ? 0 : 4;
}
