#include "arguments.h"

#include <stdbool.h>
#include <string.h>

const char *argument_value(const char *argument, const char *name)
{
    size_t length = strlen(name);
    bool same = strncmp(argument, name, length) == 0 && argument[length] == '=';
    return same ? argument + length + 1 : NULL;
}
