/* The filter wordwrap: Python's textwrap.wrap over every line of a text, with the words that it
 * cuts a line into (white space, words up to a hyphen inside, dashes between words) and what it
 * does with a word too long for a line. Every byte keeps its origin. */
#include "text/jinja/chars.h"
#include "text/jinja/filters.h"

/* Kinds of a character; bits. */
enum { IS_BLANK = 1, IS_WORD = 2, IS_LETTER = 4, IS_JOINED = 8, IS_DASH = 16, IS_SPACE = 32 };

/* A line of the text, and what it is cut into. Places are characters; piece i is from cut[i] to
 * cut[i + 1]. */
typedef struct Paragraph {
    Value string;
    const uint8_t *kind;    /* [length] */
    const uint32_t *offset; /* [length + 1] in bytes */
    size_t length;
    size_t *cut;
    size_t num_pieces;
} Paragraph;

typedef struct Wrapping {
    size_t width;
    bool break_words, break_on_hyphens;
    Value *line; /* what comes out, growing */
    size_t num_lines, capacity;
} Wrapping;

static uint8_t kind_of(uint32_t c)
{
    bool word = c == '_' || char_is_alpha(c) || char_is_numeric(c);
    bool joined = word || (c < 0x80 && c != '\0' && strchr("!\"'&.,?", (int)c) != NULL);
    bool blank = c == ' ' || (c >= 9 && c <= 13);
    return (uint8_t)((blank ? IS_BLANK : 0) | (word ? IS_WORD : 0) |
                     (word && !char_is_decimal(c) ? IS_LETTER : 0) | (joined ? IS_JOINED : 0) |
                     (c == '-' ? IS_DASH : 0) | (char_is_space(c) ? IS_SPACE : 0));
}

static bool has(const Paragraph *paragraph, size_t at, uint8_t kind)
{
    return at < paragraph->length && (paragraph->kind[at] & kind) != 0;
}

/* The length of a dash of two hyphens or more before a word; 0: there is none. */
static size_t dash_length(const Paragraph *paragraph, size_t at)
{
    size_t end = at;
    while (has(paragraph, end, IS_DASH))
        end++;
    return end - at >= 2 && has(paragraph, end, IS_WORD) ? end - at : 0;
}

/* May a line end behind the hyphen at `at`? Two letters are before it, or one behind another
 * hyphen, and two behind it. */
static bool breaks_behind(const Paragraph *paragraph, size_t at)
{
    if (at < 2 || !has(paragraph, at - 1, IS_LETTER) || !has(paragraph, at + 1, IS_LETTER))
        return false;
    bool before = has(paragraph, at - 2, IS_LETTER) ||
                  (at >= 3 && has(paragraph, at - 2, IS_DASH) && has(paragraph, at - 3, IS_LETTER));
    bool behind = has(paragraph, at + 2, IS_LETTER) ||
                  (has(paragraph, at + 2, IS_DASH) && has(paragraph, at + 3, IS_LETTER));
    return before && behind;
}

static size_t piece_end(const Paragraph *paragraph, size_t at, bool break_on_hyphens)
{
    bool blank = has(paragraph, at, IS_BLANK);
    size_t dash = !blank && break_on_hyphens && at > 0 && has(paragraph, at - 1, IS_JOINED)
                      ? dash_length(paragraph, at)
                      : 0;
    if (dash > 0) return at + dash;
    size_t end = at + 1;
    for (; end < paragraph->length && has(paragraph, end, IS_BLANK) == blank; end++) {
        if (blank || !break_on_hyphens || !has(paragraph, end, IS_DASH)) continue;
        if (breaks_behind(paragraph, end)) return end + 1;
        if (has(paragraph, end - 1, IS_JOINED) && dash_length(paragraph, end) > 0) return end;
    }
    return end;
}

static Paragraph read_paragraph(Run *run, Value string, bool break_on_hyphens)
{
    const String *text = string.as.string;
    Paragraph paragraph = {.string = string, .length = string_chars(text)};
    uint8_t *kind = run_alloc_raw(run, paragraph.length + 1);
    uint32_t *offset = run_alloc_raw(run, (paragraph.length + 1) * sizeof *offset);
    size_t count = 0;
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size);
        run_step_char(run, c, 4);
        kind[count] = kind_of(c);
        offset[count++] = (uint32_t)at;
        at += (size_t)size;
    }
    offset[count] = text->length;
    paragraph.kind = kind;
    paragraph.offset = offset;
    paragraph.cut = run_alloc_raw(run, (count + 1) * sizeof *paragraph.cut);
    for (size_t at = 0; at < count; at = piece_end(&paragraph, at, break_on_hyphens))
        paragraph.cut[paragraph.num_pieces++] = at;
    paragraph.cut[paragraph.num_pieces] = count;
    return paragraph;
}

static bool is_blank(const Paragraph *paragraph, size_t begin, size_t end)
{
    while (begin < end && has(paragraph, begin, IS_SPACE))
        begin++;
    return begin == end;
}

static void push_line(Run *run, Wrapping *wrapping, Value line)
{
    if (wrapping->num_lines == wrapping->capacity) {
        size_t capacity = wrapping->capacity == 0 ? 16 : 2 * wrapping->capacity;
        Value *grown = run_alloc_raw(run, capacity * sizeof *grown);
        if (wrapping->num_lines > 0)
            memcpy(grown, wrapping->line, wrapping->num_lines * sizeof *grown);
        wrapping->line = grown;
        wrapping->capacity = capacity;
    }
    line.flags = 0;
    wrapping->line[wrapping->num_lines++] = line;
}

/* How much of a word too long for any line goes into `room` characters that are left of this one.
 */
static size_t part_length(const Paragraph *paragraph, size_t begin, size_t room, bool at_hyphens)
{
    size_t hyphen = begin + room;
    if (!at_hyphens) return room;
    while (hyphen > begin && !has(paragraph, hyphen - 1, IS_DASH))
        hyphen--;
    size_t other = begin; /* the first that is no hyphen */
    while (other < hyphen && has(paragraph, other, IS_DASH))
        other++;
    return hyphen > begin + 1 && other + 1 < hyphen ? hyphen - begin : room;
}

/* One paragraph's lines. A line is the pieces from `begin` to `end`, of which the last begins at
 * `last`; a piece that is cut in two begins at `at`. */
static void wrap_paragraph(Run *run, Wrapping *wrapping, const Paragraph *paragraph)
{
    const size_t *cut = paragraph->cut;
    size_t first_line = wrapping->num_lines, i = 0, at = 0, count = paragraph->num_pieces;
    while (i < count) {
        run_step(run, 2);
        if (wrapping->num_lines > first_line && is_blank(paragraph, at, cut[i + 1])) at = cut[++i];
        size_t begin = at, last = at, pieces = 0;
        for (; i < count && cut[i + 1] - begin <= wrapping->width; pieces++) {
            last = at;
            at = cut[++i];
        }
        if (i < count && cut[i + 1] - at > wrapping->width) {
            if (wrapping->break_words) {
                last = at;
                at += part_length(paragraph, at, wrapping->width - (at - begin),
                                  wrapping->break_on_hyphens);
                pieces++;
            } else if (pieces == 0) {
                at = cut[++i];
                pieces = 1;
            }
        }
        size_t end = at;
        if (pieces > 0 && is_blank(paragraph, last, end)) {
            end = last;
            pieces--;
        }
        if (pieces == 0) continue;
        push_line(
            run, wrapping,
            string_slice(run, paragraph->string, paragraph->offset[begin], paragraph->offset[end]));
    }
}

Value filter_wordwrap(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"width", false},
                                   {"break_long_words", false},
                                   {"wrapstring", false},
                                   {"break_on_hyphens", false}};
    Value values[4];
    args_bind(run, "do_wordwrap", args, params, 4, values);
    int64_t width = values[0].type != VALUE_MISSING ? arg_int(run, values[0], "width") : 79;
    bool is_given = values[2].type != VALUE_MISSING && values[2].type != VALUE_NONE;
    Value separator = is_given ? values[2] : value_literal(run, "\n");
    if (self.type == VALUE_UNDEFINED) run_fail_undefined(run, self);
    if (!value_is_string(self))
        run_raise(run, "'%s' object has no attribute 'splitlines'", value_type_name(self));
    if (!value_is_string(separator))
        run_raise(run, "'%s' object has no attribute 'join'", value_type_name(separator));
    Wrapping wrapping = {.width = width > 0 ? (size_t)width : 1,
                         .break_words = values[1].type == VALUE_MISSING || value_truth(values[1]),
                         .break_on_hyphens =
                             values[3].type == VALUE_MISSING || value_truth(values[3])};
    size_t count;
    Value *lines = string_lines(run, self, false, &count);
    for (size_t i = 0; i < count; i++) {
        if (width <= 0) run_raise(run, "invalid width %lld (must be > 0)", (long long)width);
        size_t before = wrapping.num_lines;
        Paragraph paragraph = read_paragraph(run, lines[i], wrapping.break_on_hyphens);
        wrap_paragraph(run, &wrapping, &paragraph);
        if (wrapping.num_lines == before) push_line(run, &wrapping, value_literal(run, ""));
    }
    Value list = value_list(run, wrapping.num_lines);
    if (wrapping.num_lines > 0)
        memcpy(list_items(list), wrapping.line, wrapping.num_lines * sizeof(Value));
    static const String join = {.bytes = "join", .length = 4, .chars = 4};
    return string_method_find(&join)(run, separator, &(Args){.positional = &list, .count = 1});
}
