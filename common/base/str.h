/* Str: a growable byte string that is always NUL-terminated. Zero-initialise it (Str s = {0}),
 * append, and free it with str_free or hand it on with str_take. May hold NUL bytes: `length`
 * decides. Not shared between threads. */
#ifndef TROUPE_BASE_STR_H
#define TROUPE_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct Str {
    char *data; /* NULL while nothing was appended */
    size_t length;
    size_t capacity;
} Str;

void str_free(Str *str);  /* leaves an empty Str */
void str_clear(Str *str); /* keeps the memory */
void str_reserve(Str *str, size_t capacity);
void str_append(Str *str, const void *bytes, size_t length);
void str_puts(Str *str, const char *text);
void str_putc(Str *str, char byte);
void str_printf(Str *str, const char *format, ...) __attribute__((format(printf, 2, 3)));
void str_vprintf(Str *str, const char *format, va_list args);
const char *str_text(const Str *str); /* "" for an empty Str; borrowed */
char *str_take(Str *str);             /* the caller owns the bytes; leaves an empty Str */

/* Strings in order; zero-initialise. */
typedef struct StringList {
    char **item; /* owned, as the strings are */
    int count;
} StringList;

void string_list_append(StringList *list, const char *text); /* copies */
void string_list_free(StringList *list);                     /* leaves an empty list */

#define STR_QUOTED_BYTES 256
/* A name that others chose, as a message shows it: in double quotes, on one line (control
 * characters and bytes that are not UTF-8 become '?'), cut to about 200 bytes. Returns `buffer`. */
char *str_quoted(const char *text, char buffer[STR_QUOTED_BYTES]);
/* The same in a buffer that lives until the end of the block. */
#define QUOTED(text) str_quoted((text), (char[STR_QUOTED_BYTES]){0})

/* Appends a text that others made so that it stays on its line and tells the terminal nothing:
 * control characters and bytes that are not UTF-8 are written as \n, \t or \x1b. */
void str_put_escaped(Str *str, const char *text);
/* The same of each of its lines, on a line of its own behind four spaces. */
void str_put_block(Str *str, const char *text);

bool str_starts_with(const char *text, const char *prefix);
bool str_ends_with(const char *text, const char *suffix);

/* Number of single-character edits (insert, delete, replace, swap neighbours) between two names:
 * optimal string alignment distance. Used for "did you mean". */
int str_distance(const char *a, const char *b);

/* The candidate nearest to `name`, or NULL if none is near enough to be meant. `names` has `count`
 * entries; NULL entries are passed over. */
const char *str_nearest(const char *name, const char *const *names, size_t count);

#endif
