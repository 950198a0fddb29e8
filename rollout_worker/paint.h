/* Painter: the text of tokens, with what the trainer makes of them to be seen: green where it is
 * trained, dim where it is cut; without colors between brackets. Control characters are escaped. */
#ifndef TROUPE_ROLLOUT_WORKER_PAINT_H
#define TROUPE_ROLLOUT_WORKER_PAINT_H

#include <stdbool.h>

#include "base/str.h"

#define PAINT_OPENING "⟦"
#define PAINT_CLOSING "⟧"

/* What a token is to the trainer. */
typedef enum { TOKEN_GIVEN, TOKEN_TRAINED, TOKEN_CUT } TokenUse;

/* Zero-initialise but for the first two; ends with paint(TOKEN_GIVEN). */
typedef struct Painter {
    Str *out; /* borrowed */
    bool color;
    TokenUse use;
} Painter;

void paint(Painter *painter, TokenUse use); /* of what comes now */
void paint_text(Painter *painter, const char *text, size_t length);

#endif
