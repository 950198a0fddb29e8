/* How a number of bytes is written for people. Any thread. */
#ifndef TROUPE_BASE_SIZE_TEXT_H
#define TROUPE_BASE_SIZE_TEXT_H

#include <stdint.h>

/* "11.1 MB", "7.24 GB"; powers of 1000. Returns `text`. */
const char *size_text(uint64_t bytes, char text[32]);

#endif
