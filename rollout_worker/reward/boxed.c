#include "rollout_worker/reward/boxed.h"

#include <string.h>

#define BOXES_MAX         16
#define BOXES_BETWEEN_MAX 24 /* bytes between two boxes of one answer */

typedef struct Box {
    size_t start, end; /* of the whole command */
    Slice content;
} Box;

/* The content of the brace group at `open`; false when it does not end. */
static bool match_braces(Slice text, size_t open, size_t *ret_close)
{
    int depth = 0;
    for (size_t i = open; i < text.length; i++) {
        char byte = text.data[i];
        if (byte == '\\') {
            i++;
        } else if (byte == '{') {
            depth++;
        } else if (byte == '}' && --depth == 0) {
            *ret_close = i;
            return true;
        }
    }
    return false;
}

static Box read_box(Slice text, size_t start, size_t command_bytes)
{
    size_t at = start + command_bytes;
    while (at < text.length && byte_is_space(text.data[at]))
        at++;
    size_t close = 0;
    if (at < text.length && text.data[at] == '{') {
        if (match_braces(text, at, &close))
            return (Box){start, close + 1, slice_part(text, at + 1, close)};
        return (Box){start, text.length, slice_part(text, at + 1, text.length)};
    }
    size_t end = at;
    while (end < text.length && !byte_is_space(text.data[end]) && text.data[end] != '$')
        end++;
    return (Box){start, end, slice_part(text, at, end)};
}

static bool find_box_before(Slice text, size_t limit, Box *ret)
{
    Slice part = slice_part(text, 0, limit);
    ssize_t boxed = slice_find_last(part, SLICE_OF("\\boxed"));
    ssize_t fbox = slice_find_last(part, SLICE_OF("\\fbox"));
    if (boxed < 0 && fbox < 0) return false;
    *ret = boxed > fbox ? read_box(text, (size_t)boxed, 6) : read_box(text, (size_t)fbox, 5);
    return true;
}

bool boxed_find_last(Slice text, Slice *ret)
{
    Box box = {0};
    if (!find_box_before(text, text.length, &box)) return false;
    *ret = slice_trim(box.content);
    return true;
}

/* Only separators and typography. */
static bool is_separator(Slice between)
{
    static const char *const parts[] = {"and", "or",  "\\text{", "\\quad", "\\qquad",
                                        "\\;", "\\,", "}",       ",",      ";",
                                        "$",   " ",   "\n",      "\\)",    "\\("};
    bool separates = false;
    if (between.length > BOXES_BETWEEN_MAX) return false;
    while (between.length > 0) {
        size_t taken = 0;
        for (size_t i = 0; i < sizeof parts / sizeof parts[0] && taken == 0; i++) {
            if (!slice_starts_with(between, slice_from(parts[i]))) continue;
            taken = strlen(parts[i]);
            separates = separates || i < 2 || *parts[i] == ',' || *parts[i] == ';';
        }
        if (taken == 0) return false;
        between = slice_part(between, taken, between.length);
    }
    return separates;
}

bool boxed_find_answer(Slice text, Str *scratch, Slice *ret)
{
    Box box[BOXES_MAX];
    int count = 0;
    size_t limit = text.length;
    while (count < BOXES_MAX && find_box_before(text, limit, &box[count])) {
        limit = box[count].start;
        if (count > 0 && !is_separator(slice_part(text, box[count].end, box[count - 1].start)))
            break;
        count++;
    }
    if (count == 0) return false;
    if (count == 1) {
        *ret = slice_trim(box[0].content);
        return true;
    }
    str_clear(scratch);
    for (int i = count - 1; i >= 0; i--) {
        if (scratch->length > 0) str_putc(scratch, ',');
        str_append(scratch, box[i].content.data, box[i].content.length);
    }
    *ret = (Slice){scratch->data, scratch->length};
    return true;
}
