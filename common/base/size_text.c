#include "base/size_text.h"

#include <stdio.h>

const char *size_text(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    double value = (double)bytes / 1000;
    int unit = 0;
    while (value >= 1000 && unit < 3) {
        value /= 1000;
        unit++;
    }
    snprintf(text, 32, "%.3g %s", value, units[unit]);
    return text;
}
