/* What the Hub answers: its header lines, and the JSON of what it says of a repository and of the
 * files in it. Made by others, so everything is checked; no state, any thread. */
#ifndef TROUPE_HUB_ANSWER_H
#define TROUPE_HUB_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

#define HUB_COMMIT_BYTES   41 /* 40 lower-case hex digits and a NUL */
#define HUB_ETAG_BYTES     65
#define HUB_CODE_BYTES     64
#define HUB_MESSAGE_BYTES  256
#define HUB_FILES_MAX      (1 << 20)   /* of a repository */
#define HUB_LIST_BYTES_MAX (64u << 20) /* of one answer, and of a list that is kept */

/* The header of an answer; texts are empty, numbers -1 where it says nothing. */
typedef struct HubHeader {
    int status; /* of HTTP */
    int64_t length;
    int64_t range_begin, range_total; /* of Content-Range */
    int64_t retry_after_s;
    char etag[HUB_ETAG_BYTES];        /* of what is sent, without W/ and quotes */
    char linked_etag[HUB_ETAG_BYTES]; /* of what a redirection leads to */
    char commit[HUB_COMMIT_BYTES];
    char error_code[HUB_CODE_BYTES]; /* "GatedRepo", "RevisionNotFound" ... */
    char error_message[HUB_MESSAGE_BYTES];
    char *location; /* owned, as `next` is; NULL where there is none */
    char *next;     /* the next page of a list */
} HubHeader;

void hub_header_begin(HubHeader *header); /* frees what it had */
void hub_header_free(HubHeader *header);

/* One line, perhaps with its end; the status line begins the header anew. */
void hub_header_line(HubHeader *header, const char *line, size_t length);

/* One file of a repository. */
typedef struct HubFile {
    char *path;                 /* relative, without "." and ".." */
    char oid[HUB_COMMIT_BYTES]; /* git's, of the file or of the pointer to it */
    char etag[HUB_ETAG_BYTES];  /* the name of its blob: the SHA-256 of a large file, else `oid` */
    char xet[HUB_ETAG_BYTES];   /* "" */
    int64_t bytes;
} HubFile;

typedef struct HubFiles {
    HubFile *item; /* in byte order of their paths once sorted */
    size_t count, capacity;
} HubFiles;

void hub_files_free(HubFiles *files);
void hub_files_sort(HubFiles *files); /* and leaves each path once */
/* Of sorted ones; NULL: there is none. Borrowed. */
const HubFile *hub_files_find(const HubFiles *files, const char *path);

/* A page of /api/.../tree: appends its files. ERR_DATA names `where`. */
Status hub_answer_tree(const char *text, size_t length, const char *where, HubFiles *files,
                       Error *err);

/* /api/.../revision/X: the commit. */
Status hub_answer_commit(const char *text, size_t length, const char *where,
                         char ret[HUB_COMMIT_BYTES], Error *err);

/* The strings under `key` of each object of a list (of `list` in an object where that is not
 * NULL): ids of data sets, names of branches. What is none is passed over. */
void hub_answer_names(const char *text, size_t length, const char *list, const char *key,
                      StringList *ret);

/* The list as huggingface_hub keeps it in trees/COMMIT.json. */
Status hub_tree_read(const char *path, HubFiles *ret, Error *err); /* sorted */
char *hub_tree_write(const HubFiles *files);                       /* owned */

#endif
