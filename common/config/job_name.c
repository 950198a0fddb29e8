#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/utf8.h"
#include "config/job_internal.h"

#define DIGEST_SHOWN 6 /* hexadecimal digits of a name made of another */

/* What looks like nothing, or changes how the rest looks: spaces, fillers, controls of direction
 * and shape, punctuation of several scripts, private and unassigned planes. */
static const struct {
    uint32_t first, last;
} unfit[] = {
    {0x0080, 0x00A0}, {0x00AD, 0x00AD}, {0x034F, 0x034F},   {0x061C, 0x061C},   {0x115F, 0x1160},
    {0x1680, 0x1680}, {0x17B4, 0x17B5}, {0x180B, 0x180F},   {0x2000, 0x206F},   {0x2400, 0x243F},
    {0x3000, 0x3000}, {0x3164, 0x3164}, {0xE000, 0xF8FF},   {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},
    {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFF}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0x10FFFF},
};

int job_name_character(const char *text)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    uint32_t code_point = 0;
    if (text[0] == '\0') return 0;
    if ((unsigned char)text[0] < 0x80) return strchr(letters, text[0]) != NULL;
    int size = utf8_decode(text, strlen(text), &code_point);
    for (size_t i = 0; size > 0 && i < sizeof unfit / sizeof *unfit; i++)
        if (code_point >= unfit[i].first && code_point <= unfit[i].last) return 0;
    return size;
}

bool job_name_is_valid(const char *name)
{
    int length = 0;
    if (name[0] == '.' || name[0] == '\0') return false;
    for (int size; (size = job_name_character(name)) > 0; name += size)
        length++;
    return *name == '\0' && length <= JOB_NAME_LENGTH_MAX;
}

/* At most `length_max` characters of the text, with '-' for what may not stand in a name. */
static char *replace_unfit(const char *text, int length_max)
{
    Str name = {0};
    for (int length = 0; *text != '\0' && length < length_max; length++) {
        int size = length == 0 && *text == '.' ? 0 : job_name_character(text);
        if (size > 0)
            str_append(&name, text, (size_t)size);
        else
            str_putc(&name, '-');
        text += size > 0 ? size : 1;
    }
    return str_take(&name);
}

char *job_name_from_file(const char *path)
{
    const char *file = path_name(path);
    size_t length = strlen(file);
    if (str_ends_with(file, ".yaml")) length -= 5;
    if (str_ends_with(file, ".yml")) length -= 4;
    char *text = length > 0 ? mem_strndup(file, length) : mem_strdup("job");
    if (job_name_is_valid(text)) return text;
    char digest[DIGEST_HEX_BYTES];
    digest_bytes(text, strlen(text), digest);
    char *fit = replace_unfit(text, JOB_NAME_LENGTH_MAX - 1 - DIGEST_SHOWN);
    char *name = mem_printf("%s-%.*s", fit, DIGEST_SHOWN, digest);
    free(fit);
    free(text);
    return name;
}
