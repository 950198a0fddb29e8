/* Tests of common/base: errors, strings, files, JSON, random numbers, queues. */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "base/lines.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/queue.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/utf8.h"

static void test_error_prefix_keeps_status(void **state)
{
    (void)state;
    Error err = {0};
    assert_int_equal(error_set(&err, ERR_DATA, "byte %d is bad", 7), ERR_DATA);
    assert_int_equal(error_prefix(&err, "reading %s", "x"), ERR_DATA);
    assert_string_equal(err.message, "reading x: byte 7 is bad");
    assert_int_equal(error_append(&err, "Mend byte %d.", 7), ERR_DATA);
    assert_string_equal(err.message, "reading x: byte 7 is bad\nMend byte 7.");
}

static void test_error_message_keeps_whole_characters(void **state)
{
    (void)state;
    Error err;
    error_set(&err, ERR_DATA, "key \"%.3s\" is unknown", "a\xE4\xBD\xA0");
    assert_string_equal(err.message, "key \"a\" is unknown");
    char text[ERROR_MESSAGE_MAX];
    memset(text, 'x', sizeof text);
    memcpy(text + sizeof text - 4, "\xE4\xBD\xA0", 4);
    error_set(&err, ERR_DATA, ".%s", text);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_MAX - 3);
}

static void test_str_nearest_finds_typo_and_refuses_strangers(void **state)
{
    (void)state;
    const char *names[] = {"learning_rate", "batch_size", NULL, "steps"};
    assert_string_equal(str_nearest("lerning_rate", names, 4), "learning_rate");
    assert_string_equal(str_nearest("bacth_size", names, 4), "batch_size");
    assert_null(str_nearest("optimizer", names, 4));
    assert_int_equal(str_distance("ab", "ba"), 1);
}

/* The known answers of Random123's kat_vectors for philox4x32-10. */
static void test_rng_equals_published_vectors(void **state)
{
    (void)state;
    RngBlock zero = rng_block(0, 0, 0);
    const uint32_t expected_zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    assert_memory_equal(zero.word, expected_zero, sizeof expected_zero);
    RngBlock ones = rng_block(UINT64_MAX, UINT64_MAX, UINT64_MAX);
    const uint32_t expected_ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    assert_memory_equal(ones.word, expected_ones, sizeof expected_ones);
    RngBlock pi = rng_block(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u);
    const uint32_t expected_pi[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    assert_memory_equal(pi.word, expected_pi, sizeof expected_pi);
}

static void test_file_write_atomic_replaces_and_leaves_nothing(void **state)
{
    (void)state;
    Error err = {0};
    assert_ok(folder_remove("atomic", &err), &err);
    assert_ok(folder_create("atomic/a/b", &err), &err);
    assert_ok(file_write_atomic("atomic/a/b/f", "one", 3, &err), &err);
    assert_ok(file_write_atomic("atomic/a/b/f", "second", 6, &err), &err);
    char *bytes = NULL;
    size_t length = 0;
    assert_ok(file_read("atomic/a/b/f", 100, &bytes, &length, &err), &err);
    assert_int_equal(length, 6);
    assert_string_equal(bytes, "second");
    free(bytes);
    assert_fails(file_read("atomic/a/b/f", 5, &bytes, &length, &err), ERR_INVALID, &err, "6 bytes");
    assert_fails(file_read("atomic/none", 5, &bytes, &length, &err), ERR_NOT_FOUND, &err, "none");
    assert_int_equal(rmdir("atomic/a/b"), -1);
    assert_ok(folder_remove("atomic", &err), &err);
    assert_false(path_exists("atomic"));
}

static void test_json_names_the_place(void **state)
{
    (void)state;
    Error err = {0};
    cJSON *json = NULL;
    const char *bad = "{\"a\": 1,\n \"b\" 2}";
    assert_fails(json_parse(bad, strlen(bad), "x.json", &json, &err), ERR_DATA, &err, "x.json:2:");
    const char *nul = "{\"a\": \"b\\u0000c\"}";
    assert_fails(json_parse(nul, strlen(nul), "x.json", &json, &err), ERR_DATA, &err, "NUL");
    const char *escaped = "{\"a\": \"b\\\\u0000c\"}"; /* a backslash, then text: not a NUL */
    assert_ok(json_parse(escaped, strlen(escaped), "x.json", &json, &err), &err);
    cJSON_Delete(json);
    const char *cut = "{\"a\": [1, 2";
    assert_fails(json_parse(cut, strlen(cut), "x.json", &json, &err), ERR_DATA, &err, "too soon");
    /* what is a line of a file already has no line of its own */
    assert_fails(json_parse(cut, strlen(cut), "x.jsonl:7", &json, &err), ERR_DATA, &err,
                 "x.jsonl:7:12: ");
    const char *good = "{\"n\": 3, \"s\": \"t\", \"f\": 1.5}";
    assert_ok(json_parse(good, strlen(good), "x.json", &json, &err), &err);
    int64_t n = 0;
    assert_ok(json_int(json, "n", "x.json", 0, 10, &n, &err), &err);
    assert_int_equal(n, 3);
    assert_fails(json_int(json, "n", "x.json", 4, 10, &n, &err), ERR_INVALID, &err, "4 to 10");
    assert_fails(json_int(json, "f", "x.json", 0, 10, &n, &err), ERR_INVALID, &err, "whole");
    assert_fails(json_int(json, "s", "x.json", 0, 10, &n, &err), ERR_INVALID, &err, "a string");
    assert_fails(json_int(json, "z", "x.json", 0, 10, &n, &err), ERR_NOT_FOUND, &err, "\"z\"");
    assert_ok(json_int_or(json, "z", "x.json", 0, 10, &n, &err), &err);
    assert_int_equal(n, 3);
    cJSON_Delete(json);
}

static void test_utf8_refuses_what_the_standard_refuses(void **state)
{
    (void)state;
    const char *bad[] = {"\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                         "\xE2\x82", "\x80",         "\xFF"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(utf8_valid_prefix(bad[i], strlen(bad[i])), 0);
    for (uint32_t code = 1; code <= 0x10FFFF; code++) {
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        char bytes[4];
        uint32_t back = 0;
        int size = utf8_encode(code, bytes);
        assert_int_equal(utf8_decode(bytes, (size_t)size, &back), size);
        assert_int_equal(back, code);
    }
}

static void *put_many(void *queue)
{
    for (intptr_t i = 1; i <= 1000; i++)
        queue_put(queue, (void *)i);
    queue_close(queue);
    return NULL;
}

static void test_queue_keeps_order_over_threads_and_ends(void **state)
{
    (void)state;
    Queue *queue = queue_create(7);
    pthread_t thread;
    pthread_create(&thread, NULL, put_many, queue);
    for (intptr_t i = 1; i <= 1000; i++)
        assert_int_equal((intptr_t)queue_take(queue, -1), i);
    assert_null(queue_take(queue, -1));
    pthread_join(thread, NULL);
    assert_false(queue_put(queue, queue));
    queue_destroy(queue);
}

/* The vectors of FIPS 180-4's examples. */
static void test_digest_equals_published_vectors(void **state)
{
    (void)state;
    Error err = {0};
    char hex[DIGEST_HEX_BYTES];
    digest_bytes("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    digest_bytes("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    size_t length = 3000001; /* more than one piece of digest_file, and no multiple of it */
    char *bytes = mem_calloc(length, 1);
    char of_file[DIGEST_HEX_BYTES];
    int64_t file_length = 0;
    digest_bytes(bytes, length, hex);
    assert_ok(file_write_atomic("digest", bytes, length, &err), &err);
    assert_ok(digest_file("digest", of_file, &file_length, &err), &err);
    assert_int_equal(file_length, length);
    assert_string_equal(of_file, hex);
    assert_int_equal(unlink("digest"), 0);
    assert_fails(digest_file("digest", of_file, NULL, &err), ERR_NOT_FOUND, &err, "digest");
    assert_fails(digest_file(".", of_file, NULL, &err), ERR_INVALID, &err, "not a regular file");
    free(bytes);
}

static void test_json_keeps_how_numbers_were_written(void **state)
{
    (void)state;
    Error err = {0};
    cJSON *json = NULL;
    const char *text =
        "{\"a\\\"1.5\": [1, -1.0, \"2.5\", {\"b\": 1e3}], \"c\": 12345678901234567890, \"d\": 7}";
    assert_ok(json_parse(text, strlen(text), "x", &json, &err), &err);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "a\"1.5");
    assert_null(cJSON_GetArrayItem(list, 0)->valuestring);
    assert_string_equal(cJSON_GetArrayItem(list, 1)->valuestring, "-1.0");
    assert_string_equal(cJSON_GetArrayItem(list, 2)->valuestring, "2.5");
    assert_string_equal(cJSON_GetArrayItem(list, 3)->child->valuestring, "1e3");
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(json, "c")->valuestring,
                        "12345678901234567890");
    assert_null(cJSON_GetObjectItemCaseSensitive(json, "d")->valuestring);
    cJSON_Delete(json);
}

static void test_str_quoted_fits_on_one_line_of_utf8(void **state)
{
    (void)state;
    char text[1000];
    assert_string_equal(QUOTED("a.b"), "\"a.b\"");
    assert_string_equal(QUOTED("a\nb\xff\xc3\xa9\x7f"), "\"a?b?\xc3\xa9?\"");
    assert_string_equal(QUOTED(""), "\"\"");
    for (size_t length = 1; length + 4 < sizeof text; length++) {
        for (size_t i = 0; i < length; i++)
            memcpy(text + 4 * (i / 4), "\xf0\x9f\x98\x80", 5);
        const char *quoted = QUOTED(text);
        size_t size = strlen(quoted);
        assert_true(size < STR_QUOTED_BYTES);
        assert_int_equal(utf8_valid_prefix(quoted, size), size);
        assert_int_equal(quoted[size - 1], '"');
    }
}

static void test_json_append_string_is_read_back(void **state)
{
    (void)state;
    Error err = {0};
    Str text = {0};
    cJSON *json = NULL;
    const char *value = "a\"b\\c\n\x01\x1f/\xc3\xa9";
    json_append_string(&text, value);
    assert_ok(json_parse(str_text(&text), text.length, "x", &json, &err), &err);
    assert_string_equal(json->valuestring, value);
    cJSON_Delete(json);
    str_free(&text);
}

static void note_done(void *context, int64_t bytes_done)
{
    *(int64_t *)context = bytes_done;
}

static void test_digest_files_digests_each_as_alone(void **state)
{
    (void)state;
    enum { FILES = 40 };
    static DigestJob job[FILES];
    char name[FILES][16], hex[DIGEST_HEX_BYTES], text[1000];
    int64_t done = -1;
    Error err = {0};
    for (int i = 0; i < FILES; i++) {
        snprintf(name[i], sizeof name[i], "digest-%d", i);
        memset(text, 'a' + i % 26, sizeof text);
        if (i != 7) assert_ok(file_write_atomic(name[i], text, (size_t)(i * 20), &err), &err);
        job[i].path = name[i];
    }
    unlink(name[7]);
    digest_files(job, FILES, &(DigestWatch){.progress = note_done, .context = &done});
    assert_true(done >= 0);
    for (int i = 0; i < FILES; i++) {
        memset(text, 'a' + i % 26, sizeof text);
        digest_bytes(text, (size_t)(i * 20), hex);
        assert_int_equal(job[i].error.status, i == 7 ? ERR_NOT_FOUND : OK);
        if (i != 7) assert_string_equal(job[i].hex, hex);
        unlink(name[i]);
    }
    assert_non_null(strstr(job[7].error.message, "digest-7"));
    digest_files(job, 0, NULL);
}

static void keep_line(void *context, const char *line)
{
    str_puts(context, line);
}

static void test_log_says_the_same_to_people_and_programs(void **state)
{
    (void)state;
    Error err = {0};
    Str seen = {0};
    char *events = NULL;
    size_t length = 0;
    unlink("events.jsonl");
    assert_ok(log_open("tester", "events.jsonl", LOG_INFO, &err), &err);
    log_set_writer(keep_line, &seen);
    log_event(LOG_DEBUG, "quiet", F_INT("n", 1));
    log_event(LOG_WARN, "skipped", F_STR("what", "a.jsonl:3: no\n  found: \x1b[31mred\n"),
              F_INT("n", 2), F_STR("who", "a b"));
    log_set_writer(NULL, NULL);
    log_close();
    const char *line = str_text(&seen);
    assert_true(strlen(line) > 9);
    assert_string_equal(line + 9, "warn  skipped n=2 who=\"a b\"\n"
                                  "    a.jsonl:3: no\n"
                                  "      found: \\x1b[31mred\n");
    assert_ok(file_read("events.jsonl", 4096, &events, &length, &err), &err);
    assert_non_null(strstr(events, "\"event\":\"quiet\",\"n\":1}\n"));
    assert_non_null(strstr(events, "\"event\":\"skipped\",\"what\":\"a.jsonl:3: no\\n  found: "
                                   "\\u001b[31mred\\n\",\"n\":2,\"who\":\"a b\"}\n"));
    free(events);
    str_free(&seen);
}

/* A kill or a full disk ends in the midst of a line, and the next session writes the next one. */
static void test_log_keeps_no_torn_line(void **state)
{
    (void)state;
    Error err = {0};
    char *events = NULL;
    static const char torn[] = "{\"whole\":1}\n{\"time\":\"20";
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_ok(file_write_atomic("events.jsonl", torn, strlen(torn), &err), &err);
    assert_ok(log_open("tester", "events.jsonl", LOG_ERROR, &err), &err);
    log_event(LOG_INFO, "first", F_INT("n", 1));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    rlim_t whole = limit.rlim_cur;
    limit.rlim_cur = 120; /* less than two lines */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    log_event(LOG_INFO, "lost", F_INT("n", 2));
    limit.rlim_cur = whole;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    log_event(LOG_INFO, "third", F_INT("n", 3));
    log_close();
    assert_ok(file_read("events.jsonl", 4096, &events, NULL, &err), &err);
    assert_memory_equal(events, torn, 12);
    const char *first = strchr(events, '\n') + 1, *third = strchr(first, '\n') + 1;
    assert_true(str_starts_with(first, "{\"time\":\""));
    assert_true(str_starts_with(third, "{\"time\":\""));
    assert_non_null(strstr(first, "\"event\":\"first\",\"n\":1}\n"));
    assert_true(str_ends_with(third, "\"event\":\"third\",\"n\":3}\n"));
    assert_null(strstr(events, "lost"));
    free(events);
}

/* A line of so many letters, at every length around the pieces in which a file is read. */
static void test_lines_before_finds_the_line_that_ends_there(void **state)
{
    (void)state;
    Error err = {0};
    Str text = {0}, line = {0};
    static const size_t lengths[] = {1,     2,     4094,  4095,  4096,  4097, 1,
                                     32767, 32768, 32769, 60000, 20000, 1};
    enum { LINES = sizeof lengths / sizeof *lengths };
    for (int i = 0; i < LINES; i++) {
        for (size_t k = 0; k + 1 < lengths[i]; k++)
            str_putc(&text, (char)('a' + i));
        str_putc(&text, '\n');
    }
    str_puts(&text, "torn");
    assert_ok(file_write_atomic("lines", text.data, text.length, &err), &err);
    int fd = open("lines", O_RDWR);
    int64_t end = (int64_t)text.length, begin = 0;
    assert_ok(lines_before(fd, end, 60000, "lines", &line, &begin, &err), &err);
    assert_string_equal(str_text(&line), "torn");
    assert_ok(lines_cut_torn(fd, "lines", &end, &err), &err);
    assert_int_equal(end, begin);
    for (int i = LINES - 1; i >= 0; i--, end = begin) {
        assert_ok(lines_before(fd, end, 60000, "lines", &line, &begin, &err), &err);
        assert_int_equal(line.length, lengths[i]);
        assert_int_equal(begin, end - (int64_t)lengths[i]);
        assert_memory_equal(line.data, text.data + begin, lengths[i]);
    }
    assert_int_equal(begin, 0);
    assert_fails(lines_before(fd, 1 << 20, 60000, "lines", &line, &begin, &err), ERR_DATA, &err,
                 "lines ends at byte");
    end = (int64_t)text.length - 4 - 1 - 20000;
    assert_fails(lines_before(fd, end, 59999, "lines", &line, &begin, &err), ERR_DATA, &err,
                 "has no beginning within 59999 bytes");
    close(fd);
    str_free(&line);
    str_free(&text);
}

static void test_str_put_escaped_keeps_a_text_on_its_line(void **state)
{
    (void)state;
    Str text = {0};
    str_put_escaped(&text, "a\nb\tc\x7f\xc2\x9b\xff \xc3\xa9\xe4\xbd\xa0");
    assert_string_equal(str_text(&text), "a\\nb\\tc\\x7f\\x9b\\xff \xc3\xa9\xe4\xbd\xa0");
    str_free(&text);
}

static void test_json_append_writes_values_as_python_does(void **state)
{
    (void)state;
    static const char written[] = "{\"a\": [1, 2.50, -1e5, 12345678901234567890], \"é\": {\"x\": "
                                  "null, \"y\": [], \"z\": {}}, "
                                  "\"b\": true, \"c\": false, \"d\": \"q\\\"\\\\\\n\"}";
    Error err = {0};
    cJSON *json = NULL;
    assert_ok(json_parse(written, strlen(written), "x", &json, &err), &err);
    Str text = {0};
    json_append(&text, json);
    assert_string_equal(str_text(&text), written);
    str_free(&text);
    cJSON_Delete(json);
}

static void test_process_is_known_by_pid_and_start(void **state)
{
    (void)state;
    uint64_t own = 0, ticks = 0;
    assert_true(process_start_ticks(getpid(), &own));
    assert_true(process_is_alive(getpid(), own));
    assert_false(process_is_alive(getpid(), own + 1)); /* another process of the same pid */
    assert_false(process_is_alive(0, own));
    assert_false(process_start_ticks(INT32_MAX, &ticks));
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    assert_true(process_start_ticks(pid, &ticks));
    assert_true(ticks >= own);
    assert_int_equal(kill(pid, SIGKILL), 0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_false(process_is_alive(pid, ticks)); /* a zombie */
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(process_is_alive(pid, ticks));
}

/* No signal, of which a person learns nothing. */
static void test_memory_that_is_refused_says_for_what(void **state)
{
    (void)state;
    char words[256] = "";
    int ends[2], wait_status = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        volatile size_t bytes = (size_t)1 << 60;
        assert_null(memory_purpose("keys and values: lower rollout.concurrency"));
#ifdef TROUPE_SANITIZED
        memory_refused(bytes); /* its own allocator ends the process in its own way */
#else
        free(mem_alloc(bytes));
#endif
        _exit(0);
    }
    close(ends[1]);
    assert_true(read(ends[0], words, sizeof words - 1) > 0);
    close(ends[0]);
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_true(WIFEXITED(wait_status));
    assert_int_equal(WEXITSTATUS(wait_status), status_exit_code(ERR_RESOURCE));
    assert_string_equal(words, "out of memory: could not allocate 1099511627776.0 MiB for keys and "
                               "values: lower rollout.concurrency\n");
}

/* A file of a machine that a test makes up, in the current folder. */
static void put_file(const char *root, const char *name, const char *text)
{
    char *path = mem_printf("%s/%s", root, name);
    for (char *at = path; (at = strchr(at + 1, '/')) != NULL; *at = '/') {
        *at = '\0';
        mkdir(path, 0755);
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    free(path);
}

static void test_process_counts_kills_of_its_own_control_group(void **state)
{
    (void)state;
    char root[] = "machine_XXXXXX";
    assert_non_null(mkdtemp(root));
    assert_int_equal(process_count_oom_kills(root), -1);
    put_file(root, "proc/vmstat", "nr_free_pages 7\noom_kill 41\n");
    assert_int_equal(process_count_oom_kills(root), 41); /* the machine's: there is no other */
    put_file(root, "proc/self/cgroup", "3:cpu:/\n0::/pod/a\n");
    assert_int_equal(process_count_oom_kills(root), 41); /* nor is it told */
    put_file(root, "sys/fs/cgroup/pod/a/memory.events", "oom 9\noom_kill 2\noom_group_kill 1\n");
    assert_int_equal(process_count_oom_kills(root), 2);
    put_file(root, "proc/self/cgroup", "4:memory:/pod/b\n0::/\n");
    put_file(root, "sys/fs/cgroup/memory/pod/b/memory.oom_control",
             "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
    assert_int_equal(process_count_oom_kills(root), 5);
    char *command = mem_printf("rm -r %s", root);
    assert_int_equal(system(command), 0);
    free(command);
}

/* ---- programs ---- */

static Status run_shell(const char *script, ProgramRun run, int *ret_end, Error *err)
{
    const char *const arguments[] = {"sh", "-c", script, NULL};
    run.path = "/bin/sh";
    run.arguments = arguments;
    return program_run(&run, ret_end, err);
}

static void test_program_run_tells_words_and_end(void **state)
{
    (void)state;
    Error err = {0};
    char words[8];
    int end = 0;
    ProgramRun run = {.words = words, .words_size = sizeof words, .cancel = -1};
    assert_ok(run_shell("echo out; echo words >&2; exit 4", run, &end, &err), &err);
    assert_true(WIFEXITED(end) && WEXITSTATUS(end) == 4);
    assert_string_equal(words, "words\n");
    run.words_of = WORDS_OF_OUTPUT;
    assert_ok(run_shell("echo out; exec 2>&-; exit 0", run, &end, &err), &err);
    assert_string_equal(words, "out\n");
    run.words_of = WORDS_OF_BOTH;
    assert_ok(run_shell("echo a; echo b >&2; echo c", run, &end, &err), &err);
    assert_string_equal(words, "a\nb\nc\n");
    run.words_of = WORDS_OF_ERRORS;
    const char *much = "i=0; while [ $i -lt 9999 ]; do echo 123456789 >&2; i=$((i + 1)); done";
    assert_ok(run_shell(much, run, &end, &err), &err); /* more than a pipe holds */
    assert_true(WIFEXITED(end) && WEXITSTATUS(end) == 0);
    assert_string_equal(words, "1234567");
    assert_ok(run_shell("exec 2>&-; kill -9 $$", run, &end, &err), &err);
    assert_true(WIFSIGNALED(end) && WTERMSIG(end) == SIGKILL);
    assert_string_equal(words, "");
    assert_ok(run_shell("exit 3", (ProgramRun){.cancel = -1}, &end, &err), &err);
    assert_true(WIFEXITED(end) && WEXITSTATUS(end) == 3);
    run.path = "/nowhere/program";
    run.arguments = (const char *const[]){"program", NULL};
    assert_fails(program_run(&run, &end, &err), ERR_NOT_FOUND, &err, "/nowhere/program");
}

static pid_t written_pid(const char *path)
{
    char *text = NULL;
    size_t length = 0;
    while (file_read(path, 64, &text, &length, NULL) != OK || length == 0) {
        free(text);
        text = NULL;
        usleep(10000);
    }
    pid_t pid = atoi(text);
    free(text);
    return pid;
}

/* One that hangs, and has closed what we read, is killed at the deadline and when it is called off.
 */
static void test_program_run_leaves_none_that_hangs(void **state)
{
    (void)state;
    static const char *const hangs[] = {"exec sleep 1000", "exec sleep 1000 2>&-"};
    Error err = {0};
    char words[64];
    int end = 0, call[2];
    ProgramRun run = {.words = words, .words_size = sizeof words, .cancel = -1};
    for (int i = 0; i < 2; i++) {
        run.deadline_ms = clock_ms() + 300;
        assert_fails(run_shell(hangs[i], run, &end, &err), ERR_TIMEOUT, &err, "in time");
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is there any more */
    }
    assert_int_equal(pipe(call), 0);
    close(call[1]);
    run.deadline_ms = 0;
    run.cancel = call[0];
    assert_fails(run_shell(hangs[0], run, &end, &err), ERR_CANCELLED, &err, "called off");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    close(call[0]);
}

static void test_program_run_ends_with_who_runs_it(void **state)
{
    (void)state;
    Error err = {0};
    int end = 0;
    unlink("hangs.pid");
    pid_t runner = fork();
    assert_true(runner >= 0);
    if (runner == 0) {
        run_shell("echo $$ > hangs.pid; exec sleep 1000", (ProgramRun){.cancel = -1}, &end, &err);
        _exit(0);
    }
    pid_t program = written_pid("hangs.pid");
    uint64_t ticks = 0;
    assert_true(process_start_ticks(program, &ticks));
    assert_int_equal(kill(runner, SIGKILL), 0);
    assert_int_equal(waitpid(runner, NULL, 0), runner);
    for (int i = 0; i < 500 && process_is_alive(program, ticks); i++)
        usleep(10000);
    assert_false(process_is_alive(program, ticks));
    unlink("hangs.pid");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_prefix_keeps_status),
        cmocka_unit_test(test_error_message_keeps_whole_characters),
        cmocka_unit_test(test_str_nearest_finds_typo_and_refuses_strangers),
        cmocka_unit_test(test_rng_equals_published_vectors),
        cmocka_unit_test(test_file_write_atomic_replaces_and_leaves_nothing),
        cmocka_unit_test(test_json_names_the_place),
        cmocka_unit_test(test_utf8_refuses_what_the_standard_refuses),
        cmocka_unit_test(test_queue_keeps_order_over_threads_and_ends),
        cmocka_unit_test(test_digest_equals_published_vectors),
        cmocka_unit_test(test_json_keeps_how_numbers_were_written),
        cmocka_unit_test(test_str_quoted_fits_on_one_line_of_utf8),
        cmocka_unit_test(test_json_append_string_is_read_back),
        cmocka_unit_test(test_digest_files_digests_each_as_alone),
        cmocka_unit_test(test_log_keeps_no_torn_line),
        cmocka_unit_test(test_lines_before_finds_the_line_that_ends_there),
        cmocka_unit_test(test_log_says_the_same_to_people_and_programs),
        cmocka_unit_test(test_str_put_escaped_keeps_a_text_on_its_line),
        cmocka_unit_test(test_json_append_writes_values_as_python_does),
        cmocka_unit_test(test_process_is_known_by_pid_and_start),
        cmocka_unit_test(test_memory_that_is_refused_says_for_what),
        cmocka_unit_test(test_process_counts_kills_of_its_own_control_group),
        cmocka_unit_test(test_program_run_tells_words_and_end),
        cmocka_unit_test(test_program_run_leaves_none_that_hangs),
        cmocka_unit_test(test_program_run_ends_with_who_runs_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
