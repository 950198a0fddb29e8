/* Compressed files of every make, as tests of data sets read them. */
#ifndef TROUPE_TESTS_DATASET_MAKES_H
#define TROUPE_TESTS_DATASET_MAKES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/* Lines of 20 bytes to 9 KB, some of them blank, of words that compress well and badly. */
Str make_text(size_t bytes);

typedef struct Make {
    const char *name;
    size_t unit; /* text of a gzip member or zstd frame; 0: all in one */
    int level;   /* of gzip: 0 stores */
    int flush;   /* of gzip: of 100 KB within a member */
    bool padded; /* gzip: zeros behind; zstd: frames that are to be passed over, between */
} Make;

/* Appends one. */
typedef void Member(Str *out, const char *text, size_t length, const Make *make);
void gzip_member(Str *out, const char *text, size_t length, const Make *make);
void zstd_frame(Str *out, const char *text, size_t length, const Make *make);

Str compress_text(const Str *text, Member *member, const Make *make);

#endif
