#include "view/live_line.h"

#include <math.h>

#include "base/error.h"
#include "base/utf8.h"

#define GAP "  "

void live_line_clear(LiveLine *line)
{
    for (int i = 0; i < line->count; i++)
        str_clear(&line->piece[i].text);
    line->count = 0;
}

void live_line_free(LiveLine *line)
{
    for (int i = 0; i < LIVE_PIECES_MAX; i++)
        str_free(&line->piece[i].text);
    line->count = 0;
}

Str *live_line_add(LiveLine *line, int rank)
{
    CHECK(line->count < LIVE_PIECES_MAX);
    LivePiece *piece = &line->piece[line->count++];
    piece->rank = rank;
    return &piece->text;
}

void live_put_ascii(Str *text, const char *from)
{
    for (; *from != '\0'; from++)
        if ((unsigned char)*from < 0x80)
            str_putc(text, *from);
        else
            str_printf(text, "\\x%02x", (unsigned char)*from);
}

/* The pieces with a rank of at most `rank_max`. */
static void join(const LiveLine *line, int rank_max, Str *ret)
{
    Str text = {0};
    for (int i = 0; i < line->count; i++) {
        const LivePiece *piece = &line->piece[i];
        if (piece->rank > rank_max || piece->text.length == 0) continue;
        if (text.length > 0) str_puts(&text, GAP);
        str_put_escaped(&text, str_text(&piece->text));
    }
    str_clear(ret);
    if (line->ascii)
        live_put_ascii(ret, str_text(&text));
    else
        str_puts(ret, str_text(&text));
    str_free(&text);
}

/* Blocks of the Unicode tables EastAsianWidth (W, F) and of combining marks: enough for names. */
static const struct {
    uint32_t first, last;
    int columns;
} wide[] = {
    {0x0300, 0x036F, 0},   {0x0483, 0x0489, 0},   {0x0591, 0x05BD, 0},   {0x064B, 0x065F, 0},
    {0x1100, 0x115F, 2},   {0x200B, 0x200F, 0},   {0x20D0, 0x20F0, 0},   {0x2E80, 0x303E, 2},
    {0x3041, 0xA4CF, 2},   {0xA960, 0xA97F, 2},   {0xAC00, 0xD7A3, 2},   {0xF900, 0xFAFF, 2},
    {0xFE00, 0xFE0F, 0},   {0xFE30, 0xFE6F, 2},   {0xFF00, 0xFF60, 2},   {0xFFE0, 0xFFE6, 2},
    {0x1F300, 0x1F64F, 2}, {0x1F900, 0x1F9FF, 2}, {0x20000, 0x3FFFD, 2},
};

static int columns_of(uint32_t code_point)
{
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (code_point >= wide[i].first && code_point <= wide[i].last) return wide[i].columns;
    return 1;
}

/* The bytes at the start of `text` that fit into `columns`. The text is valid UTF-8:
 * str_put_escaped saw to it. */
static size_t bytes_within(const Str *text, int columns)
{
    size_t end = 0;
    int width = 0;
    while (end < text->length) {
        uint32_t code_point = 0;
        int size = utf8_decode(text->data + end, text->length - end, &code_point);
        CHECK(size > 0);
        if (width + columns_of(code_point) > columns) break;
        width += columns_of(code_point);
        end += (size_t)size;
    }
    return end;
}

static bool fits(const Str *text, int columns)
{
    return bytes_within(text, columns) == text->length;
}

/* Cuts to `columns`, the last three of them dots where there is room for that. */
static void cut(Str *text, int columns)
{
    bool dots = columns >= 8;
    Str shorter = {0};
    str_append(&shorter, text->data, bytes_within(text, dots ? columns - 3 : columns));
    if (dots) str_puts(&shorter, "...");
    str_free(text);
    *text = shorter;
}

void live_line_fit(const LiveLine *line, int columns, Str *ret)
{
    int rank = 0;
    for (int i = 0; i < line->count; i++)
        if (line->piece[i].rank > rank) rank = line->piece[i].rank;
    Str text = {0};
    for (join(line, rank, &text); rank > 0 && !fits(&text, columns); join(line, rank, &text))
        rank--;
    if (!fits(&text, columns)) cut(&text, columns > 0 ? columns : 0);
    str_puts(ret, str_text(&text));
    str_free(&text);
}

void live_put_duration(Str *text, double seconds)
{
    seconds = floor(seconds + 0.5);
    if (seconds < 60)
        str_printf(text, "%.0fs", seconds);
    else if (seconds < 3600)
        str_printf(text, "%dm%02ds", (int)seconds / 60, (int)seconds % 60);
    else if (seconds < 48 * 3600)
        str_printf(text, "%dh%02dm", (int)(seconds / 3600), (int)(seconds / 60) % 60);
    else
        str_printf(text, "%.0fd%02dh", floor(seconds / 86400), (int)fmod(seconds / 3600, 24));
}

void live_put_rate(Str *text, double per_second)
{
    if (per_second < 10000)
        str_printf(text, "%.0f", per_second);
    else
        str_printf(text, "%.1fk", per_second / 1000);
}
