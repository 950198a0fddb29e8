#include "live_line.h"

#include <math.h>

#include "base/error.h"

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

/* The pieces with a rank of at most `rank_max`. */
static void join(const LiveLine *line, int rank_max, Str *ret)
{
    str_clear(ret);
    for (int i = 0; i < line->count; i++) {
        const LivePiece *piece = &line->piece[i];
        if (piece->rank > rank_max || piece->text.length == 0) continue;
        if (ret->length > 0) str_puts(ret, GAP);
        str_put_escaped(ret, str_text(&piece->text));
    }
}

static bool starts_code_point(char byte)
{
    return ((unsigned char)byte & 0xC0) != 0x80;
}

static int width_of(const Str *text)
{
    int width = 0;
    for (size_t i = 0; i < text->length; i++)
        width += starts_code_point(text->data[i]);
    return width;
}

/* Cuts to `columns` code points, the last three of them dots where there is room for that. */
static void cut(Str *text, int columns)
{
    const char *dots = columns >= 8 ? "..." : "";
    int keep = columns >= 8 ? columns - 3 : columns;
    size_t end = 0;
    for (; end < text->length; end++)
        if (starts_code_point(text->data[end]) && keep-- <= 0) break;
    Str shorter = {0};
    str_append(&shorter, text->data, end);
    str_puts(&shorter, dots);
    str_free(text);
    *text = shorter;
}

void live_line_fit(const LiveLine *line, int columns, Str *ret)
{
    int rank = 0;
    for (int i = 0; i < line->count; i++)
        if (line->piece[i].rank > rank) rank = line->piece[i].rank;
    Str text = {0};
    for (join(line, rank, &text); rank > 0 && width_of(&text) > columns; join(line, rank, &text))
        rank--;
    if (width_of(&text) > columns) cut(&text, columns > 0 ? columns : 0);
    str_puts(ret, str_text(&text));
    str_free(&text);
}

void live_put_duration(Str *text, double seconds)
{
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
