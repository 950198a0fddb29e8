/* LiveLine: the one line on a terminal that is drawn over and over. It is made of pieces with a
 * rank of importance and cut to the terminal's width by leaving out whole pieces, the least
 * important first, so that it never wraps (a wrapped line cannot be drawn over). Loop thread. */
#ifndef TROUPE_CONTROLLER_VIEW_LIVE_LINE_H
#define TROUPE_CONTROLLER_VIEW_LIVE_LINE_H

#include "base/str.h"

#define LIVE_PIECES_MAX 16

typedef struct LivePiece {
    Str text;
    int rank; /* 0: the most important */
} LivePiece;

/* Zero-initialise. */
typedef struct LiveLine {
    LivePiece piece[LIVE_PIECES_MAX]; /* [count] in the order in which they are shown */
    int count;
    bool ascii; /* the terminal knows nothing else: other characters are escaped */
} LiveLine;

void live_line_clear(LiveLine *line);
void live_line_free(LiveLine *line);

/* A new last piece to print into; valid until the line is cleared. */
Str *live_line_add(LiveLine *line, int rank);

/* Appends the line as it fits into `columns`: what is left of one piece that is too long by itself
 * ends in "...". Control characters are escaped; Chinese, Japanese and Korean characters count as
 * two columns, combining ones as none. */
void live_line_fit(const LiveLine *line, int columns, Str *ret);

/* Appends a text with \xe4 for each byte that is not ASCII. */
void live_put_ascii(Str *text, const char *from);

/* Figures as they are shown on a line: "45s", "12m03s", "3h07m", "5d04h"; "812", "12.3k". */
void live_put_duration(Str *text, double seconds);
void live_put_rate(Str *text, double per_second);

#endif
