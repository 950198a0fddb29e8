#include "rollout_worker/engine/stop_matcher.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/str.h"

struct StopMatcher {
    DecodeStream *stream;
    const SamplingParams *params;
    size_t longest; /* stop string */
    Str text;       /* the last bytes: as many as a string that ends later may begin with */
};

StopMatcher *stop_matcher_create(const Tokenizer *tokenizer, const SamplingParams *params)
{
    StopMatcher *matcher = mem_calloc(1, sizeof *matcher);
    matcher->stream = decode_stream_create(tokenizer, false);
    matcher->params = params;
    for (int i = 0; i < params->num_stop; i++) {
        size_t length = strlen(params->stop[i]);
        if (length > matcher->longest) matcher->longest = length;
    }
    return matcher;
}

void stop_matcher_destroy(StopMatcher *matcher)
{
    if (matcher == NULL) return;
    decode_stream_destroy(matcher->stream);
    str_free(&matcher->text);
    free(matcher);
}

/* Where the first occurrence of `stop` ends that ends behind the first `seen` bytes; 0: none. */
static size_t find_end(const Str *text, size_t seen, const char *stop)
{
    size_t length = strlen(stop);
    size_t begin = seen >= length ? seen - length + 1 : 0; /* earlier ones ended before */
    if (text->length < length || begin > text->length - length) return 0;
    const char *found = memmem(text->data + begin, text->length - begin, stop, length);
    return found == NULL ? 0 : (size_t)(found - text->data) + length;
}

Status stop_matcher_push(StopMatcher *matcher, int32_t token, bool armed, int *ret_stop, Error *err)
{
    char *piece = NULL;
    size_t length = 0, first_end = 0;
    TRY(decode_stream_step(matcher->stream, token, &piece, &length, err));
    size_t seen = matcher->text.length;
    str_append(&matcher->text, piece, length);
    free(piece);
    *ret_stop = -1;
    for (int i = 0; i < matcher->params->num_stop && armed; i++) {
        size_t end = find_end(&matcher->text, seen, matcher->params->stop[i]);
        if (end == 0 || (*ret_stop >= 0 && end >= first_end)) continue;
        first_end = end;
        *ret_stop = i;
    }
    size_t keep = matcher->longest > 0 ? matcher->longest - 1 : 0;
    if (matcher->text.length > keep) {
        size_t drop = matcher->text.length - keep;
        memmove(matcher->text.data, matcher->text.data + drop, keep);
        matcher->text.length = keep;
        if (matcher->text.data != NULL) matcher->text.data[keep] = '\0';
    }
    return OK;
}
