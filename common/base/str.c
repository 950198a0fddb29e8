#include "base/str.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/utf8.h"

void str_free(Str *str)
{
    free(str->data);
    *str = (Str){0};
}

void str_clear(Str *str)
{
    str->length = 0;
    if (str->data != NULL) str->data[0] = '\0';
}

void str_reserve(Str *str, size_t capacity)
{
    if (capacity < str->capacity) return;
    CHECK(capacity < SIZE_MAX / 4);
    size_t grown = str->capacity < 64 ? 64 : str->capacity;
    while (grown <= capacity)
        grown *= 2;
    str->data = mem_realloc(str->data, grown, 1);
    str->capacity = grown;
}

void str_append(Str *str, const void *bytes, size_t length)
{
    str_reserve(str, str->length + length + 1);
    if (length > 0) memcpy(str->data + str->length, bytes, length);
    str->length += length;
    str->data[str->length] = '\0';
}

void str_puts(Str *str, const char *text)
{
    str_append(str, text, strlen(text));
}

void str_putc(Str *str, char byte)
{
    str_append(str, &byte, 1);
}

void str_vprintf(Str *str, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    CHECK(length >= 0);
    str_reserve(str, str->length + (size_t)length + 1);
    vsnprintf(str->data + str->length, (size_t)length + 1, format, args);
    str->length += (size_t)length;
}

void str_printf(Str *str, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    str_vprintf(str, format, args);
    va_end(args);
}

const char *str_text(const Str *str)
{
    return str->data != NULL ? str->data : "";
}

char *str_take(Str *str)
{
    char *bytes = str->data != NULL ? str->data : mem_strdup("");
    *str = (Str){0};
    return bytes;
}

void string_list_append(StringList *list, const char *text)
{
    list->item = mem_realloc(list->item, (size_t)list->count + 1, sizeof *list->item);
    list->item[list->count++] = mem_strdup(text);
}

void string_list_free(StringList *list)
{
    for (int i = 0; i < list->count; i++)
        free(list->item[i]);
    free(list->item);
    *list = (StringList){0};
}

char *str_quoted(const char *text, char buffer[STR_QUOTED_BYTES])
{
    static const size_t shown_max = 200;
    size_t length = strlen(text), used = 0, at = 0;
    buffer[used++] = '"';
    while (at < length && used < shown_max) {
        uint32_t code_point = 0;
        int size = utf8_decode(text + at, length - at, &code_point);
        bool plain = size > 1 || (size == 1 && code_point >= 0x20 && code_point != 0x7F);
        if (plain)
            memcpy(buffer + used, text + at, (size_t)size);
        else
            buffer[used] = '?';
        used += plain ? (size_t)size : 1;
        at += size > 0 ? (size_t)size : 1;
    }
    strcpy(buffer + used, at < length ? "...\"" : "\"");
    return buffer;
}

static bool is_control(uint32_t code_point)
{
    return code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0);
}

void str_put_escaped(Str *str, const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        uint32_t code_point = 0;
        int size = utf8_decode(text, left, &code_point);
        if (size > 0 && !is_control(code_point))
            str_append(str, text, (size_t)size);
        else if (*text == '\n' || *text == '\t')
            str_puts(str, *text == '\n' ? "\\n" : "\\t");
        else
            str_printf(str, "\\x%02x", size > 0 ? (unsigned)code_point : (unsigned char)*text);
        text += size > 0 ? size : 1;
        left -= size > 0 ? (size_t)size : 1;
    }
}

void str_put_block(Str *str, const char *text)
{
    for (const char *line = text; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        char *alone = mem_strndup(line, length);
        str_puts(str, "    ");
        str_put_escaped(str, alone);
        str_putc(str, '\n');
        free(alone);
        line += length + (line[length] == '\n');
    }
}

bool str_starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool str_ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return m <= n && memcmp(text + n - m, suffix, m) == 0;
}

#define NAME_MAX_COMPARED 63

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

int str_distance(const char *a, const char *b)
{
    int n = (int)strnlen(a, NAME_MAX_COMPARED), m = (int)strnlen(b, NAME_MAX_COMPARED);
    int rows[3][NAME_MAX_COMPARED + 1];
    for (int j = 0; j <= m; j++)
        rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int cost = a[i - 1] != b[j - 1];
            row[j] = min_int(min_int(above[j] + 1, row[j - 1] + 1), above[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = min_int(row[j], above2[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

const char *str_nearest(const char *name, const char *const *names, size_t count)
{
    const char *best = NULL;
    int best_distance = 1 + (int)strlen(name) / 3;
    if (best_distance > 4) best_distance = 4;
    for (size_t i = 0; i < count; i++) {
        if (names[i] == NULL) continue;
        int distance = str_distance(name, names[i]);
        if (distance <= best_distance && (best == NULL || distance < best_distance)) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}
