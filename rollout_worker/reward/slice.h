/* Slice: bytes that somebody else owns, with their length; what graders read responses and labels
 * through. Nothing here allocates, and nothing takes more than time linear in the bytes. White
 * space and letter case are ASCII's. Any thread. */
#ifndef TROUPE_ROLLOUT_WORKER_REWARD_SLICE_H
#define TROUPE_ROLLOUT_WORKER_REWARD_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct Slice {
    const char *data; /* not NUL-terminated; may be NULL when length is 0 */
    size_t length;
} Slice;

#define SLICE_OF(literal) ((Slice){(literal), sizeof(literal) - 1})

Slice slice_from(const char *text); /* NULL gives an empty one */
/* Bytes [start, end), both clamped to the slice. */
Slice slice_part(Slice slice, size_t start, size_t end);
Slice slice_trim(Slice slice); /* without white space at both ends */

/* The last `characters_max` characters, where a byte that begins no UTF-8 sequence counts as part
 * of the character before it. */
Slice slice_tail(Slice slice, size_t characters_max);

bool slice_equal(Slice a, Slice b);
bool slice_equal_fold(Slice a, Slice b); /* ASCII letters of either case are the same */
bool slice_starts_with(Slice slice, Slice prefix);
bool slice_ends_with(Slice slice, Slice suffix);

/* Offset of the first or last occurrence of `needle`, which is not empty; -1 when there is none. */
ssize_t slice_find(Slice slice, Slice needle);
ssize_t slice_find_last(Slice slice, Slice needle);
ssize_t slice_find_fold(Slice slice, Slice needle);
size_t slice_count(Slice slice, Slice needle); /* without overlaps */

/* What follows the last `</think>`; all of it when there is none. */
Slice slice_after_think(Slice response);

bool byte_is_space(char byte);
bool byte_is_digit(char byte);
bool byte_is_letter(char byte); /* ASCII */
char byte_lower(char byte);

#endif
