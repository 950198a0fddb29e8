#include "memory_use.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double memory_mb(const char *what)
{
    char line[256];
    double kilobytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, what, strlen(what)) == 0) kilobytes = atof(line + strlen(what));
    if (file != NULL) fclose(file);
    return kilobytes / 1024;
}
