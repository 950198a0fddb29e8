/* The filter urlize: addresses in a text become links of HTML, as jinja2.utils.urlize makes them.
 * What an address is, is told by its parts: no part of it can hold the character that ends it, so
 * that nothing has to be tried twice. */
#include "text/jinja/chars.h"
#include "text/jinja/filters.h"

/* A word, or a part of one: bytes [at, end) of the escaped text. */
typedef struct Piece {
    const String *text;
    size_t at, end;
} Piece;

typedef struct Linking {
    Value text;          /* escaped */
    Value attributes;    /* rel and target */
    Value limit;         /* of the characters that are shown, or VALUE_MISSING */
    const Value *scheme; /* others that make links, too */
    size_t num_schemes;
} Linking;

/* ---- characters ---- */

static bool is_word(uint32_t c)
{
    return c == '_' || char_is_alpha(c) || char_is_numeric(c);
}

static bool is_label(uint32_t c)
{
    return is_word(c) || c == '%' || c == '-';
}

static bool is_word_or_percent(uint32_t c)
{
    return is_word(c) || c == '%';
}

/* The ASCII letter, in lower case, that Python takes c for where case does not count. */
static uint32_t fold(uint32_t c)
{
    if (c == 0x17F) return 's';
    if (c == 0x130 || c == 0x131) return 'i';
    if (c == 0x212A) return 'k';
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

static bool is_letter(uint32_t c)
{
    return fold(c) >= 'a' && fold(c) <= 'z';
}

static bool is_hex(uint32_t c)
{
    return char_is_decimal(c) || (fold(c) >= 'a' && fold(c) <= 'f');
}

/* ---- pieces ---- */

static size_t size_of(Piece piece)
{
    return piece.end - piece.at;
}

static bool starts_with(Piece piece, const char *prefix)
{
    size_t length = strlen(prefix);
    return size_of(piece) >= length && memcmp(piece.text->bytes + piece.at, prefix, length) == 0;
}

/* Steps over `prefix`, in whichever case. */
static bool skip_prefix(Piece *piece, const char *prefix)
{
    size_t at = piece->at;
    int size;
    for (; *prefix != '\0'; prefix++, at += (size_t)size)
        if (at >= piece->end || fold(string_char(piece->text, at, &size)) != (uint32_t)*prefix)
            return false;
    piece->at = at;
    return true;
}

/* Steps over what passes, at most `most` characters. Returns how many there were. */
static size_t skip_while(Piece *piece, bool (*test)(uint32_t c), size_t most)
{
    size_t count = 0;
    int size;
    while (count < most && piece->at < piece->end &&
           test(string_char(piece->text, piece->at, &size))) {
        piece->at += (size_t)size;
        count++;
    }
    return count;
}

static bool skip_byte(Piece *piece, char byte)
{
    if (piece->at == piece->end || piece->text->bytes[piece->at] != byte) return false;
    piece->at++;
    return true;
}

static size_t count_parts(Piece piece, const char *part)
{
    size_t count = 0, length = strlen(part);
    for (; size_of(piece) >= length; piece.at++) {
        if (!starts_with(piece, part)) continue;
        count++;
        piece.at += length - 1;
    }
    return count;
}

/* ---- addresses ---- */

/* The end of an address: a port, perhaps, and a path. */
static bool is_rest(Piece rest)
{
    if (skip_byte(&rest, ':') && skip_while(&rest, char_is_decimal, 5) == 0) return false;
    return size_of(rest) == 0 || strchr("/?#", rest.text->bytes[rest.at]) != NULL;
}

static bool is_ipv4(Piece host)
{
    for (int i = 0; i < 4; i++) {
        if (i > 0 && !skip_byte(&host, '.')) return false;
        if (skip_while(&host, char_is_decimal, 3) == 0) return false;
    }
    return is_rest(host);
}

static bool is_ipv6(Piece host)
{
    if (!skip_byte(&host, '[')) return false;
    for (int i = 0; i < 2; i++) {
        skip_while(&host, is_hex, 4);
        if (!skip_byte(&host, ':')) return false;
    }
    for (int i = 0; i < 6; i++) {
        skip_while(&host, is_hex, 4);
        skip_byte(&host, ':');
    }
    return skip_byte(&host, ']') && is_rest(host);
}

static bool is_top_domain(Piece label)
{
    Piece rest = label;
    size_t count = skip_while(&rest, is_letter, SIZE_MAX);
    if (count >= 2 && count <= 63 && is_rest(rest)) return true;
    if (!skip_prefix(&label, "xn--")) return false;
    count = skip_while(&label, is_word_or_percent, SIZE_MAX);
    return count >= 2 && count <= 59 && is_rest(label);
}

static bool is_known_domain(Piece label)
{
    static const char *const names[] = {"com", "net", "int", "edu", "gov", "org", "info", "mil"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Piece rest = label;
        if (skip_prefix(&rest, names[i]) && is_rest(rest)) return true;
    }
    return false;
}

/* Labels of `least` to `most` characters with dots between them, of which the last is a domain. */
static bool is_host(Piece host, size_t least, size_t most, bool (*is_domain)(Piece))
{
    for (size_t labels = 0;; labels++) {
        if ((least == 0 || labels > 0) && is_domain(host)) return true;
        size_t count = skip_while(&host, is_label, SIZE_MAX);
        if (count == 0 || count < least || count > most || !skip_byte(&host, '.')) return false;
    }
}

static bool is_address(Piece piece)
{
    Piece rest = piece;
    bool has_scheme = skip_prefix(&rest, "https://") || skip_prefix(&rest, "http://");
    if (has_scheme)
        return is_host(rest, 0, SIZE_MAX, is_top_domain) || is_ipv4(rest) || is_ipv6(rest);
    if (skip_prefix(&rest, "www.") && is_host(rest, 0, SIZE_MAX, is_top_domain)) return true;
    return is_host(piece, 2, 63, is_known_domain);
}

static bool is_mail(Piece piece)
{
    const char *bytes = piece.text->bytes;
    const char *at = memrchr(bytes + piece.at, '@', size_of(piece));
    if (at == NULL || at == bytes + piece.at) return false;
    Piece host = {.text = piece.text, .at = (size_t)(at - bytes) + 1, .end = piece.end};
    const char *dot = memrchr(bytes + host.at, '.', size_of(host));
    if (dot == NULL || skip_while(&host, is_word, 1) == 0) return false;
    size_t last = (size_t)(dot - bytes);
    while (host.at < last) /* words, dots and hyphens up to the last dot */
        if (!skip_byte(&host, '.') && !skip_byte(&host, '-') && skip_while(&host, is_word, 1) == 0)
            return false;
    return skip_byte(&host, '.') && skip_while(&host, is_word, SIZE_MAX) > 0 && size_of(host) == 0;
}

/* ---- writing ---- */

static void write_piece(Run *run, const Linking *linking, Piece piece)
{
    buffer_write_slice(run, linking->text, piece.at, piece.end);
}

/* <a href="PREFIXpiece" attributes>shown</a> */
static void write_link(Run *run, const Linking *linking, const char *prefix, Piece piece,
                       bool with_attributes)
{
    buffer_puts(run, "<a href=\"", run->literal_origin);
    buffer_puts(run, prefix, run->literal_origin);
    write_piece(run, linking, piece);
    buffer_puts(run, "\"", run->literal_origin);
    if (with_attributes) buffer_write_string(run, linking->attributes);
    buffer_puts(run, ">", run->literal_origin);
}

static void write_shown(Run *run, const Linking *linking, Piece piece)
{
    Value shown = string_slice(run, linking->text, piece.at, piece.end);
    bool limited = linking->limit.type != VALUE_MISSING &&
                   (int64_t)value_length(run, shown) > value_as_int(linking->limit);
    if (limited) shown = eval_slice(run, shown, value_none(), linking->limit, value_none());
    buffer_write_string(run, shown);
    buffer_puts(run, limited ? "...</a>" : "</a>", run->literal_origin);
}

static bool has_scheme(const Linking *linking, Piece piece)
{
    for (size_t i = 0; i < linking->num_schemes; i++) {
        const String *scheme = linking->scheme[i].as.string;
        if (size_of(piece) > scheme->length &&
            memcmp(piece.text->bytes + piece.at, scheme->bytes, scheme->length) == 0)
            return true;
    }
    return false;
}

static void write_middle(Run *run, const Linking *linking, Piece piece)
{
    const char *bytes = piece.text->bytes + piece.at;
    Piece behind = {.text = piece.text, .at = piece.at + 7, .end = piece.end};
    if (is_address(piece)) {
        bool complete = starts_with(piece, "https://") || starts_with(piece, "http://");
        write_link(run, linking, complete ? "" : "https://", piece, true);
        write_shown(run, linking, piece);
    } else if (starts_with(piece, "mailto:") && is_mail(behind)) {
        write_link(run, linking, "", piece, false);
        write_piece(run, linking, behind);
        buffer_puts(run, "</a>", run->literal_origin);
    } else if (!starts_with(piece, "www.") && !starts_with(piece, "@") &&
               memchr(bytes, ':', size_of(piece)) == NULL && is_mail(piece)) {
        write_link(run, linking, "mailto:", piece, false);
        write_piece(run, linking, piece);
        buffer_puts(run, "</a>", run->literal_origin);
    } else if (has_scheme(linking, piece)) {
        write_link(run, linking, "", piece, true);
        write_piece(run, linking, piece);
        buffer_puts(run, "</a>", run->literal_origin);
    } else {
        write_piece(run, linking, piece);
    }
}

/* The size of the bracket that `piece` begins with, of those that may stand before an address. */
static size_t opener_size(Piece piece)
{
    if (starts_with(piece, "(") || starts_with(piece, "<")) return 1;
    return starts_with(piece, "&lt;") ? 4 : 0;
}

/* The size of the bracket, dot or comma that ends [begin, end). */
static size_t closer_size(const String *text, size_t begin, size_t end)
{
    if (end > begin && strchr(")>.,", text->bytes[end - 1]) != NULL) return 1;
    return end - begin >= 4 && memcmp(text->bytes + end - 4, "&gt;", 4) == 0 ? 4 : 0;
}

/* Brackets that open inside of the address and close behind it are part of it. */
static void balance(Piece *middle, Piece *tail)
{
    static const char *const pairs[][2] = {{"(", ")"}, {"<", ">"}, {"&lt;", "&gt;"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        size_t opened = count_parts(*middle, pairs[i][0]);
        if (opened <= count_parts(*middle, pairs[i][1])) continue;
        size_t closed = count_parts(*tail, pairs[i][1]);
        for (size_t n = opened < closed ? opened : closed; n > 0; n--) {
            while (!starts_with(*tail, pairs[i][1]))
                tail->at++;
            tail->at += strlen(pairs[i][1]);
        }
        middle->end = tail->at;
    }
}

static void write_word(Run *run, const Linking *linking, Piece word)
{
    Piece middle = word;
    for (size_t size; (size = opener_size(middle)) > 0;)
        middle.at += size;
    buffer_write_slice(run, linking->text, word.at, middle.at);
    for (size_t size; (size = closer_size(word.text, middle.at, middle.end)) > 0;)
        middle.end -= size;
    Piece tail = {.text = word.text, .at = middle.end, .end = word.end};
    balance(&middle, &tail);
    write_middle(run, linking, middle);
    write_piece(run, linking, tail);
}

static void write_words(Run *run, const Linking *linking)
{
    const String *text = linking->text.as.string;
    size_t at = 0;
    while (at < text->length) {
        Piece word = {.text = text, .at = at, .end = text->length};
        Piece end = word;
        int size;
        while (end.at < text->length && !char_is_space(string_char(text, end.at, &size)))
            end.at += (size_t)size;
        word.end = end.at;
        run_step(run, 1 + linking->num_schemes + 24 * (word.end - word.at));
        if (word.end > at) write_word(run, linking, word);
        skip_while(&end, char_is_space, SIZE_MAX);
        run_step(run, end.at - word.end);
        buffer_write_slice(run, linking->text, word.end, end.at);
        at = end.at;
    }
}

/* ---- arguments ---- */

static bool text_before(Run *run, const void *context, size_t i, size_t j)
{
    const Value *item = context;
    return value_compare(run, item[i], item[j], "<") < 0;
}

/* rel="..." of the words of `rel` and those that always stand there, in order and each once. */
static void write_rel(Run *run, Value rel, bool nofollow)
{
    static const String split = {.bytes = "split", .length = 5, .chars = 5};
    Value words = value_list(run, 0);
    if (value_truth(rel)) {
        CallFunction call = method_find(rel, &split);
        if (call == NULL)
            run_raise(run, "'%s' object has no attribute 'split'", value_type_name(rel));
        words = call(run, rel, &(Args){0});
    }
    size_t count = words.as.list->count;
    Value *all = run_alloc_raw(run, (count + 2) * sizeof *all);
    if (count > 0) memcpy(all, list_items(words), count * sizeof *all);
    all[count++] = value_literal(run, "noopener");
    if (nofollow) all[count++] = value_literal(run, "nofollow");
    size_t *order = sort_order(run, count, text_before, all);
    buffer_puts(run, " rel=\"", run->literal_origin);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && value_equal(run, all[order[i]], all[order[i - 1]])) continue;
        if (i > 0) buffer_puts(run, " ", run->literal_origin);
        buffer_write_string(run, value_escape(run, value_str(run, all[order[i]])));
    }
    buffer_puts(run, "\"", run->literal_origin);
}

/* Two characters or more of a name, a colon, and two slashes at most. */
static bool is_scheme(Value value)
{
    if (!value_is_string(value)) return false;
    const String *text = value.as.string;
    Piece piece = {.text = text, .at = 0, .end = text->length};
    size_t count = 0;
    while (skip_while(&piece, is_word, 1) == 1 || skip_byte(&piece, '.') ||
           skip_byte(&piece, '+') || skip_byte(&piece, '-'))
        count++;
    if (count < 2 || !skip_byte(&piece, ':')) return false;
    return size_of(piece) == 0 ||
           (skip_byte(&piece, '/') &&
            (size_of(piece) == 0 || (skip_byte(&piece, '/') && size_of(piece) == 0)));
}

Value filter_urlize(Run *run, Value self, const Args *args)
{
    static const Param params[] = {{"trim_url_limit", false},
                                   {"nofollow", false},
                                   {"target", false},
                                   {"rel", false},
                                   {"extra_schemes", false}};
    Value values[5];
    args_bind(run, "do_urlize", args, params, 5, values);
    Linking linking = {.text = value_escape(run, self), .limit = value_missing()};
    linking.text.flags = 0;
    if (values[0].type != VALUE_MISSING && values[0].type != VALUE_NONE)
        linking.limit = value_int(arg_int(run, values[0], "trim_url_limit"));
    if (value_truth(values[4])) linking.scheme = value_items(run, values[4], &linking.num_schemes);
    for (size_t i = 0; i < linking.num_schemes; i++)
        if (!is_scheme(linking.scheme[i]))
            run_raise(run, "%s is not a valid URI scheme prefix.",
                      message_repr(run, linking.scheme[i]));
    buffer_push(run);
    write_rel(run, values[3], value_truth(values[1]));
    if (value_truth(values[2])) {
        buffer_puts(run, " target=\"", run->literal_origin);
        buffer_write_string(run, value_escape(run, values[2]));
        buffer_puts(run, "\"", run->literal_origin);
    }
    linking.attributes = buffer_pop(run);
    buffer_push(run);
    write_words(run, &linking);
    return buffer_pop(run);
}
