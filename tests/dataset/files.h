/* Files that the tests of data sets make in their scratch folder; a failure fails the test. */
#ifndef TROUPE_TESTS_DATASET_FILES_H
#define TROUPE_TESTS_DATASET_FILES_H

#include <stddef.h>

/* Empties the folder, and makes it where it is not there. */
void make_fresh(const char *folder);
/* Writes the file anew, and makes the folder that it is in. */
void write_file(const char *path, const void *bytes, size_t length);
void write_text(const char *path, const char *text);

#endif
