/* The reward `code`: runs the last code block of a response against the tests of its record, in a
 * sandbox (sandbox.h) and nowhere else: where the machine cannot isolate, open fails and a run does
 * not start. The record's metadata has tests: a list of {"input", "output"}: the program gets the
 * input and must write the output (lines are compared without the white space at their ends); or
 * `inputs` and `outputs`, two lists; tests: a text: Python that runs behind the program's own
 * (asserts); with `entry_point`, a name, it is followed by check(NAME), as HumanEval's tests want.
 * A program that is stopped at a limit is wrong. A sandbox that fails, and a program that is killed
 * from outside or that fails while the machine runs out of memory, is an infra_error; one that the
 * machine gave no time a timeout.
 *
 * Expected outputs never enter the sandbox. Tests as Python run in the program's own process, as
 * everyone's do: a program that looks for them there can pass without being right. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/condition.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/str.h"
#include "rollout_worker/reward/options.h"
#include "rollout_worker/reward/reward.h"
#include "rollout_worker/reward/sandbox.h"

#define WORDS_MAX      64
#define CASES_MAX      1000
#define CODE_BYTES_MAX ((size_t)1 << 20)
#define TOKEN_BYTES    33 /* 32 hexadecimal digits */

typedef struct Code {
    char *interpreter[WORDS_MAX + 2]; /* and the file's name */
    char *readable[WORDS_MAX + 1];
    char *language, *file;
    SandboxLimits limits;
    int share;          /* 1: the score is the share of cases that pass */
    int64_t concurrent; /* programs at a time */
    int64_t total_ms;   /* of all cases of a record, one after the other */
    pthread_mutex_t lock;
    pthread_cond_t freed;
    int64_t running;
} Code;

/* ---- options ---- */

static void free_words(char **words)
{
    for (int i = 0; words[i] != NULL; i++)
        free(words[i]);
}

static void code_close(void *opened)
{
    Code *self = opened;
    if (self == NULL) return;
    free_words(self->interpreter);
    free_words(self->readable);
    free(self->language);
    free(self->file);
    pthread_cond_destroy(&self->freed);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

static Status read_words(const cJSON *options, const char *key, char **ret, Error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(options, key), *entry = NULL;
    int count = cJSON_GetArraySize(list), index = 0;
    if (list == NULL) return OK;
    bool valid = cJSON_IsArray(list) && count >= 1 && count <= WORDS_MAX;
    cJSON_ArrayForEach(entry, list) valid = valid && cJSON_IsString(entry);
    if (!valid)
        return error_set(err, ERR_INVALID,
                         "option %s of reward code is %s, expected a list of texts", key,
                         json_type_name(list));
    free_words(ret);
    cJSON_ArrayForEach(entry, list) ret[index++] = mem_strdup(entry->valuestring);
    ret[index] = NULL;
    return OK;
}

static Status read_text(const cJSON *options, const char *key, char **ret, Error *err)
{
    const char *text = NULL;
    TRY(json_string_or(options, key, "code", &text, err));
    if (text == NULL) return OK;
    free(*ret);
    *ret = mem_strdup(text);
    return OK;
}

static Status read_limits(const cJSON *options, SandboxLimits *ret, Error *err)
{
    static const char *const where = "code";
    int64_t memory = ret->memory_bytes >> 20, disk = ret->disk_bytes >> 20;
    int64_t output = ret->output_bytes >> 10;
    TRY(json_int_or(options, "wall_ms", where, 1, 3600000, &ret->wall_ms, err));
    TRY(json_int_or(options, "cpu_ms", where, 1, 3600000, &ret->cpu_ms, err));
    TRY(json_int_or(options, "memory_mb", where, 1, 1 << 20, &memory, err));
    TRY(json_int_or(options, "disk_mb", where, 4, 1 << 20, &disk, err));
    TRY(json_int_or(options, "output_kb", where, 1, 1 << 18, &output, err));
    TRY(json_int_or(options, "processes", where, 1, 4096, &ret->processes, err));
    ret->memory_bytes = memory << 20;
    ret->disk_bytes = disk << 20;
    ret->output_bytes = output << 10;
    return OK;
}

static Status read_options(const cJSON *options, Code *self, Error *err)
{
    static const char *const keys[] = {
        "interpreter", "language",  "file",    "readable",  "score",     "concurrent", "wall_ms",
        "cpu_ms",      "memory_mb", "disk_mb", "output_kb", "processes", "total_ms",   NULL};
    static const char *const scores[] = {"all", "share", NULL};
    TRY(options_check(options, "code", keys, err));
    TRY(read_words(options, "interpreter", self->interpreter, err));
    TRY(read_words(options, "readable", self->readable, err));
    TRY(read_text(options, "language", &self->language, err));
    TRY(read_text(options, "file", &self->file, err));
    TRY(options_choice(options, "score", "code", scores, &self->share, err));
    TRY(json_int_or(options, "concurrent", "code", 1, 4096, &self->concurrent, err));
    TRY(json_int_or(options, "total_ms", "code", 1, 86400000, &self->total_ms, err));
    return read_limits(options, &self->limits, err);
}

/* ---- runs ---- */

/* Waits until one more program may run. */
static Status take_place(Code *self, const Wanted *wanted, Error *err)
{
    pthread_mutex_lock(&self->lock);
    while (self->running >= self->concurrent && !wanted_is_over(wanted))
        condition_wait_for(&self->freed, &self->lock, WANTED_SLICE_MS);
    Status status = wanted_check(wanted, err);
    if (status == OK) self->running++;
    pthread_mutex_unlock(&self->lock);
    return status;
}

/* Runs the interpreter on the main file; `order` has the files, the input and the limits. */
static Status run(Code *self, SandboxRun *order, SandboxResult *ret, Error *err)
{
    const char *command[WORDS_MAX + 2];
    int words = 0;
    while (self->interpreter[words] != NULL) {
        command[words] = self->interpreter[words];
        words++;
    }
    command[words++] = self->file;
    command[words] = NULL;
    order->command = command;
    order->readable = (const char *const *)self->readable;
    TRY(take_place(self, order->wanted, err));
    Status status = sandbox_run(order, ret, err);
    pthread_mutex_lock(&self->lock);
    self->running--;
    pthread_cond_signal(&self->freed);
    pthread_mutex_unlock(&self->lock);
    return status;
}

/* Isolation and interpreter are tried before a run depends on them. */
static Status try_out(Code *self, Error *err)
{
    SandboxFile file = {self->file, {0}};
    SandboxRun order = {.files = &file, .num_files = 1, .limits = self->limits};
    SandboxResult result = {0};
    Status status = run(self, &order, &result, err);
    sandbox_result_clear(&result);
    return status;
}

static Status code_open(const cJSON *options, void **ret_self, Error *err)
{
    Code *self = mem_calloc(1, sizeof *self);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    self->interpreter[0] = mem_strdup("python3");
    self->language = mem_strdup("python");
    self->file = mem_strdup("main.py");
    self->limits = sandbox_limits_default;
    self->total_ms = 300000;
    self->concurrent = cores > 1 ? cores : 1;
    pthread_mutex_init(&self->lock, NULL);
    condition_init(&self->freed);
    Status status = read_options(options, self, err);
    if (status == OK) status = try_out(self, err);
    if (status == OK)
        *ret_self = self;
    else
        code_close(self);
    return status;
}

/* ---- the program ---- */

/* The end of the line at `at`, past its line end. */
static size_t next_line(Slice text, size_t at)
{
    while (at < text.length && text.data[at] != '\n')
        at++;
    return at < text.length ? at + 1 : at;
}

static bool is_language(Slice tag, const char *language)
{
    Slice name = slice_from(language);
    if (tag.length == 0 || slice_equal_fold(tag, name)) return true;
    return strcmp(language, "python") == 0 &&
           (slice_equal_fold(tag, SLICE_OF("py")) || slice_equal_fold(tag, SLICE_OF("python3")));
}

/* The last block between ``` lines whose tag is the language or none; an unclosed one counts. */
static bool find_code(Slice text, const char *language, Slice *ret)
{
    bool found = false, inside = false, wanted = false;
    size_t start = 0;
    for (size_t at = 0; at < text.length;) {
        size_t end = next_line(text, at);
        Slice line = slice_trim(slice_part(text, at, end));
        bool fence = slice_starts_with(line, SLICE_OF("```"));
        if (fence && inside) {
            if (wanted) *ret = slice_part(text, start, at);
            found = found || wanted;
            inside = false;
        } else if (fence) {
            inside = true;
            wanted = is_language(slice_trim(slice_part(line, 3, line.length)), language);
            start = end;
        }
        at = end;
    }
    if (inside && wanted) {
        *ret = slice_part(text, start, text.length);
        found = true;
    }
    return found;
}

/* ---- what a run says ---- */

/* Why the program did not end well, in a line; NULL when it did. */
static const char *fault_of(const SandboxResult *result, char *buffer, size_t size)
{
    Slice errors = slice_trim((Slice){str_text(&result->errors), result->errors.length});
    ssize_t line = slice_find_last(errors, SLICE_OF("\n"));
    if (line >= 0) errors = slice_part(errors, (size_t)line + 1, errors.length);
    errors = slice_part(errors, 0, 100);
    if (result->end == SANDBOX_EXITED && result->code == 0) return NULL;
    if (result->end == SANDBOX_EXITED)
        snprintf(buffer, size, "exit status %d: %.*s", result->code, (int)errors.length,
                 errors.data);
    else if (result->end == SANDBOX_KILLED)
        snprintf(buffer, size, "signal %d", result->code);
    else
        snprintf(buffer, size, "%s", sandbox_end_name(result->end));
    return buffer;
}

static void fail(Status status, const Error *err, RewardResult *ret)
{
    bool permanent = status == ERR_UNSUPPORTED || status == ERR_NOT_FOUND || status == ERR_INVALID;
    reward_fail(ret, status == ERR_TIMEOUT ? REWARD_TIMEOUT : REWARD_INFRA_ERROR, "%s",
                err->message);
    ret->permanent = permanent;
}

/* Whether the machine may be to blame for how a run went, and not the program: then it is not
 * judged. `starved` and `wall_ms` are of all its runs so far. Where the kernel killed processes
 * meanwhile, one that passed is not judged either: else what is judged would be too good. What the
 * program did past a limit was measured. */
static bool is_machines_fault(const SandboxResult *result, int64_t starved, int64_t wall_ms,
                              RewardResult *ret)
{
    bool out_of_time = result->end == SANDBOX_WALL_LIMIT || result->end == SANDBOX_STARVED;
    if (result->end == SANDBOX_STARVED || (out_of_time && starved >= wall_ms / 2))
        reward_fail(ret, REWARD_TIMEOUT,
                    "this machine is too busy: the program waited %" PRId64 " of %" PRId64
                    " ms for a processor or a disk",
                    starved, wall_ms);
    else if (result->end == SANDBOX_KILLED_OUTSIDE)
        reward_fail(ret, REWARD_INFRA_ERROR,
                    "the program was killed: this machine ran out of memory");
    else if (result->oom_kills > 0 &&
             (result->end == SANDBOX_EXITED || result->end == SANDBOX_KILLED))
        reward_fail(ret, REWARD_INFRA_ERROR,
                    "this machine ran out of memory while the program ran");
    else
        return false;
    return true;
}

/* ---- tests as Python ---- */

static const char harness[] = "import sys\n"
                              "def run():\n"
                              "    token = sys.stdin.readline()\n"
                              "    sys.stdin = open('/dev/null')\n"
                              "    scope = {'__name__': '__main__'}\n"
                              "    for name in ('solution.py', 'tests.py'):\n"
                              "        with open(name, encoding='utf-8') as file:\n"
                              "            exec(compile(file.read(), name, 'exec'), scope)\n"
                              "    sys.stdout.flush()\n"
                              "    sys.__stdout__.write('\\n' + token)\n"
                              "run()\n";

static bool make_token(char token[TOKEN_BYTES])
{
    unsigned char bytes[TOKEN_BYTES / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(token + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

static bool is_name(const char *text)
{
    for (const char *at = text; *at != '\0'; at++)
        if (!byte_is_letter(*at) && *at != '_' && (at == text || !byte_is_digit(*at))) return false;
    return *text != '\0';
}

static void run_asserts(Code *self, const RewardRequest *request, Slice code, RewardResult *ret)
{
    const cJSON *metadata = request->metadata;
    const char *tests = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "tests"));
    const char *entry_point =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "entry_point"));
    char token[TOKEN_BYTES], fault[200];
    Str all = {0}, input = {0};
    SandboxResult result = {0};
    Error err = {0};
    str_puts(&all, tests);
    if (entry_point != NULL) str_printf(&all, "\ncheck(%s)\n", entry_point);
    if (!make_token(token)) {
        reward_fail(ret, REWARD_INFRA_ERROR, "no random numbers: %s", strerror(errno));
        goto done;
    }
    str_printf(&input, "%s\n", token);
    SandboxFile files[] = {{self->file, SLICE_OF(harness)},
                           {"solution.py", code},
                           {"tests.py", {all.data, all.length}}};
    SandboxRun order = {.files = files,
                        .num_files = 3,
                        .input = {input.data, input.length},
                        .limits = self->limits,
                        .wanted = request->wanted};
    Status status = run(self, &order, &result, &err);
    if (status != OK) {
        fail(status, &err, ret);
        goto done;
    }
    /* The token is only written when all of the tests have run: a program that ends itself before
     * has not passed them. */
    const char *why = fault_of(&result, fault, sizeof fault);
    bool finished = slice_ends_with((Slice){str_text(&result.output), result.output.length},
                                    (Slice){input.data, input.length});
    bool right = why == NULL && finished;
    if (is_machines_fault(&result, result.starved_ms, result.wall_ms, ret)) goto done;
    reward_judge(ret, right, right, slice_trim(code));
    if (!right) reward_explain(ret, "%s", why != NULL ? why : "it ended before the tests did");
done:
    sandbox_result_clear(&result);
    str_free(&all);
    str_free(&input);
}

/* ---- tests as inputs and outputs ---- */

/* The next line of an output without the white space at its end; false at the end of the output,
 * blank lines at which do not count. */
static bool take_line(Slice *rest, Slice *ret)
{
    if (slice_trim(*rest).length == 0) return false;
    size_t end = next_line(*rest, 0);
    Slice line = slice_part(*rest, 0, end);
    while (line.length > 0 && byte_is_space(line.data[line.length - 1]))
        line.length--;
    *ret = line;
    *rest = slice_part(*rest, end, rest->length);
    return true;
}

static bool same_output(Slice expected, Slice given)
{
    for (;;) {
        Slice a = {0}, b = {0};
        bool more = take_line(&expected, &a), more_given = take_line(&given, &b);
        if (more != more_given || !slice_equal(a, b)) return false;
        if (!more) return true;
    }
}

typedef struct Case {
    Slice input, output;
} Case;

static bool text_of(const cJSON *value, Slice *ret)
{
    if (!cJSON_IsString(value)) return false;
    *ret = slice_from(value->valuestring);
    return true;
}

/* The cases of the record; 0 when there are none or they are malformed. */
static int read_cases(const cJSON *metadata, Case *cases)
{
    const cJSON *tests = cJSON_GetObjectItemCaseSensitive(metadata, "tests"), *entry = NULL;
    const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(metadata, "inputs");
    const cJSON *outputs = cJSON_GetObjectItemCaseSensitive(metadata, "outputs");
    int count = 0;
    if (cJSON_IsArray(tests)) {
        if (cJSON_GetArraySize(tests) > CASES_MAX) return 0;
        cJSON_ArrayForEach(entry, tests)
        {
            Case *one = &cases[count++];
            if (!text_of(cJSON_GetObjectItemCaseSensitive(entry, "input"), &one->input) ||
                !text_of(cJSON_GetObjectItemCaseSensitive(entry, "output"), &one->output))
                return 0;
        }
        return count;
    }
    int size = cJSON_GetArraySize(inputs);
    if (!cJSON_IsArray(inputs) || !cJSON_IsArray(outputs) || size > CASES_MAX ||
        cJSON_GetArraySize(outputs) != size)
        return 0;
    const cJSON *output = outputs->child;
    cJSON_ArrayForEach(entry, inputs)
    {
        if (!text_of(entry, &cases[count].input) || !text_of(output, &cases[count].output))
            return 0;
        output = output->next;
        count++;
    }
    return count;
}

static void run_cases(Code *self, SandboxRun order, const Case *cases, int count, RewardResult *ret)
{
    Slice code = order.files[0].text;
    int64_t left_ms = self->total_ms, starved_ms = 0;
    char first_fault[REWARD_REASON_BYTES] = "";
    int passed = 0;
    for (int i = 0; i < count; i++) {
        SandboxResult result = {0};
        Error err = {0};
        char fault[160];
        order.input = cases[i].input;
        if (left_ms < order.limits.wall_ms) order.limits.wall_ms = left_ms;
        Status status = run(self, &order, &result, &err);
        if (status != OK) {
            fail(status, &err, ret);
            return;
        }
        const char *why = fault_of(&result, fault, sizeof fault);
        Slice output = {str_text(&result.output), result.output.length};
        if (why == NULL && !same_output(cases[i].output, output)) why = "another output";
        if (why != NULL && first_fault[0] == '\0')
            snprintf(first_fault, sizeof first_fault, "case %d of %d: %s", i + 1, count, why);
        passed += why == NULL;
        left_ms -= result.wall_ms;
        starved_ms += result.starved_ms;
        bool goes_on = i + 1 < count && (why == NULL || self->share);
        bool cut = left_ms <= 0 && (goes_on || result.end == SANDBOX_WALL_LIMIT);
        if (cut) result.end = SANDBOX_WALL_LIMIT; /* of all cases together */
        if (is_machines_fault(&result, cut ? starved_ms : result.starved_ms,
                              cut ? self->total_ms : result.wall_ms, ret)) {
            sandbox_result_clear(&result);
            return;
        }
        sandbox_result_clear(&result);
        if (why != NULL && !self->share) break;
        if (left_ms <= 0) break; /* the cases that are left have failed */
    }
    if (left_ms <= 0 && passed < count && first_fault[0] == '\0')
        snprintf(first_fault, sizeof first_fault, "no time is left after case %d of %d", passed,
                 count);
    double score = self->share ? (double)passed / count : passed == count;
    reward_judge(ret, passed == count, score, slice_trim(code));
    if (first_fault[0] != '\0') reward_explain(ret, "%s", first_fault);
}

static void code_score(void *opened, const RewardRequest *request, RewardResult *ret)
{
    Code *self = opened;
    const cJSON *metadata = request->metadata;
    const cJSON *tests = cJSON_GetObjectItemCaseSensitive(metadata, "tests");
    const cJSON *entry_point = cJSON_GetObjectItemCaseSensitive(metadata, "entry_point");
    bool python = strcmp(self->language, "python") == 0;
    Slice code = {0};
    Case *cases = mem_calloc(CASES_MAX, sizeof *cases);
    int count = read_cases(metadata, cases);
    if (count == 0 && (!cJSON_IsString(tests) || !python)) {
        reward_refuse(ret,
                      "the record's metadata has no tests: expected a list of {\"input\", "
                      "\"output\"}, inputs and outputs%s",
                      python ? ", or a text of Python" : "");
    } else if (count == 0 && entry_point != NULL &&
               (!cJSON_IsString(entry_point) || !is_name(entry_point->valuestring))) {
        reward_refuse(ret, "the record's entry_point is no name");
    } else if (!find_code(slice_after_think(request->response), self->language, &code) ||
               code.length > CODE_BYTES_MAX) {
        reward_judge(ret, false, 0, (Slice){0});
        reward_explain(ret, code.length > 0 ? "the code has more than a mebibyte"
                                            : "no code block of this language");
    } else if (count == 0) {
        run_asserts(self, request, code, ret);
    } else {
        SandboxFile file = {self->file, code};
        const SandboxRun order = {
            .files = &file, .num_files = 1, .limits = self->limits, .wanted = request->wanted};
        run_cases(self, order, cases, count, ret);
    }
    free(cases);
}

const RewardTable reward_code = {"code", code_open, code_close, code_score, NULL, code_score};
