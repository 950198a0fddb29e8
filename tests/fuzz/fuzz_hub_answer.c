/* What a server in the Hub's place answers, and names of the Hub: whatever the bytes are, a list of
 * files has paths that lead nowhere but below a folder, checksums that can be names of files, and
 * is the same after it was kept; a refusal is a message of one to six lines. The first byte
 * chooses. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/data_path.h"
#include "base/file.h"
#include "base/memory.h"
#include "hub/answer.h"

#define KEPT "fuzz-hub-tree.json"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_message(const Error *err)
{
    int lines = 1;
    for (const char *at = err->message; *at != '\0'; at++)
        lines += *at == '\n';
    CHECKF(err->message[0] != '\0' && lines <= 6, "%s", err->message);
}

static void check_path(const char *path)
{
    char *framed = mem_printf("/%s/", path);
    CHECK(path[0] != '\0' && path[0] != '/');
    CHECK(strstr(framed, "/../") == NULL && strstr(framed, "/./") == NULL);
    CHECK(strstr(framed, "//") == NULL);
    free(framed);
}

static void check_hex(const char *text)
{
    size_t length = strlen(text);
    CHECK((length == 40 || length == 64) && strspn(text, "0123456789abcdef") == length);
}

static void check_kept(const HubFiles *files)
{
    Error err = {0};
    HubFiles again = {0};
    char *text = hub_tree_write(files);
    CHECK(file_write_atomic(KEPT, text, strlen(text), &err) == OK);
    CHECKF(hub_tree_read(KEPT, &again, &err) == OK, "%s", err.message);
    CHECK(again.count == files->count);
    for (size_t i = 0; i < files->count; i++) {
        const HubFile *a = &files->item[i], *b = &again.item[i];
        CHECK(strcmp(a->path, b->path) == 0 && strcmp(a->etag, b->etag) == 0);
        CHECK(strcmp(a->oid, b->oid) == 0 && a->bytes == b->bytes && strcmp(a->xet, b->xet) == 0);
        CHECK(hub_files_find(files, a->path) == a);
    }
    hub_files_free(&again);
    free(text);
}

static void check_tree(const char *text, size_t length)
{
    Error err = {0};
    HubFiles files = {0};
    Status status = hub_answer_tree(text, length, "the list", &files, &err);
    if (status != OK) check_message(&err);
    hub_files_sort(&files);
    for (size_t i = 0; i < files.count; i++) {
        check_path(files.item[i].path);
        check_hex(files.item[i].etag);
        CHECK(files.item[i].bytes >= 0);
    }
    if (status == OK && files.count < 64) check_kept(&files);
    hub_files_free(&files);
}

static void check_header(const char *text, size_t length)
{
    HubHeader header = {0};
    hub_header_begin(&header);
    for (size_t at = 0; at < length;) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t line = end != NULL ? (size_t)(end - text) + 1 - at : length - at;
        hub_header_line(&header, text + at, line);
        at += line;
    }
    CHECK(header.commit[0] == '\0' || strlen(header.commit) == 40);
    CHECK(header.length >= -1 && header.range_begin >= -1 && header.range_total >= -1);
    CHECK(memchr(header.etag, '\0', sizeof header.etag) != NULL);
    hub_header_free(&header);
}

static void check_name(const char *text)
{
    DataPath path = data_path_parse(text);
    if (path.hub.repo != NULL && path.path[0] != '\0') {
        char *closed = mem_strdup(path.path); /* a folder may end in a slash */
        size_t length = strlen(closed);
        if (closed[length - 1] == '/') closed[length - 1] = '\0';
        check_path(closed);
        free(closed);
    }
    if (path.hub.repo != NULL) CHECK(strstr(path.hub.revision, "..") == NULL);
    data_path_free(&path);
    char *expanded = hub_name_expand(text, "/nowhere");
    if (expanded != NULL) CHECK(strncmp(expanded, "hf://datasets/", 14) == 0);
    free(expanded);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    if (length == 0) return 0;
    char *text = mem_strndup((const char *)bytes + 1, length - 1);
    char commit[HUB_COMMIT_BYTES] = "";
    StringList names = {0};
    Error err = {0};
    switch (bytes[0]) {
    case 't':
        check_tree(text, length - 1);
        break;
    case 'h':
        check_header(text, length - 1);
        break;
    case 'c':
        if (hub_answer_commit(text, length - 1, "the answer", commit, &err) == OK)
            check_hex(commit);
        else
            check_message(&err);
        break;
    case 'n':
        hub_answer_names(text, length - 1, "branches", "name", &names);
        hub_answer_names(text, length - 1, NULL, "id", &names);
        string_list_free(&names);
        break;
    default:
        check_name(text);
    }
    free(text);
    return 0;
}
