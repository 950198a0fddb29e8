#include "config/yaml.h"

#include <string.h>
#include <yaml.h>

#include "base/limits.h"
#include "base/str.h"
#include "base/utf8.h"

typedef struct Anchor {
    const char *name;
    YamlNode *node;
} Anchor;

typedef struct Reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one being looked at; owned */
    const char *text, *where;
    size_t length;
    Arena *arena;
    Anchor anchor[CONFIG_ALIASES_MAX];
    int num_anchors, num_aliases, num_nodes;
    Error *err;
} Reader;

static Status refuse(Reader *reader, int line, int column, const char *what)
{
    return error_set(reader->err, ERR_INVALID, "%s:%d:%d: %s", reader->where, line, column, what);
}

/* The start of a line (from 1) of the text. */
static const char *line_start(const Reader *reader, int line)
{
    const char *at = reader->text, *end = at + reader->length;
    while (line > 1 && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        at++;
        line--;
    }
    return at != NULL ? at : end;
}

/* What libyaml says, what it means to someone who wrote a job file, and what to do. */
typedef struct SyntaxHint {
    const char *problem; /* a part of libyaml's text */
    const char *meaning, *advice;
    bool at_context; /* the mistake is where the construct began, not where it was noticed */
} SyntaxHint;

static const SyntaxHint syntax_hints[] = {
    {"unexpected end of stream", "a quote is opened and never closed", "Close it.", true},
    {"while scanning an alias", "a text starts with *, which has a meaning of its own in YAML",
     "Put it in \"quotes\".", false},
    {"while scanning an anchor", "a text starts with &, which has a meaning of its own in YAML",
     "Put it in \"quotes\".", false},
    {"cannot start any token",
     "a text starts with a character that has a meaning of its own in YAML",
     "Put it in \"quotes\".", false},
    {"mapping values are not allowed", "a second `key:` where a value is expected",
     "Put texts that hold `: ` in \"quotes\"; write one `key: value` a line.", false},
    {"could not find expected ':'", "a key without its colon", "Write `key: value`.", true},
    {"did not find expected key", "this line does not fit the lines above it",
     "Start all keys of a section in the same column.", false},
    {"did not find expected ',' or", "a list or section in brackets is not closed",
     "Write [a, b] or {key: value}; texts in them that hold [, ] or , in \"quotes\", as "
     "[\"a.jsonl@[:20]\", b].",
     true},
};

static const SyntaxHint *find_hint(const yaml_parser_t *parser)
{
    for (size_t i = 0; i < sizeof syntax_hints / sizeof *syntax_hints; i++)
        if ((parser->problem != NULL && strstr(parser->problem, syntax_hints[i].problem) != NULL) ||
            (parser->context != NULL && strstr(parser->context, syntax_hints[i].problem) != NULL))
            return &syntax_hints[i];
    return NULL;
}

/* A line that is one word or more without a colon runs on into the next, which libyaml then blames.
 */
static bool is_bare_line(const char *line)
{
    size_t length = strcspn(line, "\r\n"), indent = strspn(line, " ");
    return indent < length && memchr(line, ':', length) == NULL && line[indent] != '-' &&
           line[indent] != '#';
}

static Status refuse_syntax(Reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    SyntaxHint hint = {NULL, parser->problem != NULL ? parser->problem : "cannot be parsed",
                       "Write `key: value` lines, indented by spaces.", false};
    const SyntaxHint *known = find_hint(parser);
    if (known != NULL) hint = *known;
    yaml_mark_t mark = hint.at_context ? parser->context_mark : parser->problem_mark;
    int line = (int)mark.line + 1, column = (int)mark.column + 1;
    const char *start = line_start(reader, line);
    if (start[strspn(start, " ")] == '\t') {
        column = (int)strspn(start, " ") + 1;
        hint.meaning = "the line is indented with a tab; YAML allows spaces only";
        hint.advice = "Replace each tab by two spaces.";
    } else if (known != NULL && strstr(known->problem, "mapping values") != NULL && line > 1 &&
               is_bare_line(line_start(reader, line - 1))) {
        start = line_start(reader, --line);
        column = (int)strspn(start, " ") + 1;
        hint.meaning = "a line without a colon";
        hint.advice = "Write `key: value`.";
    }
    size_t length = strcspn(start, "\r\n");
    size_t shown = utf8_valid_prefix(start, length < 80 ? length : 80); /* whole characters */
    return error_set(reader->err, ERR_INVALID, "%s:%d:%d: not valid YAML: %s.\nFound: %s\n%s",
                     reader->where, line, column, hint.meaning,
                     arena_strndup(reader->arena, start, shown), hint.advice);
}

static Status next_event(Reader *reader)
{
    yaml_event_delete(&reader->event);
    return yaml_parser_parse(&reader->parser, &reader->event) ? OK : refuse_syntax(reader);
}

/* A copy in the arena; NULL for NULL. */
static const char *keep(const Reader *reader, const yaml_char_t *text)
{
    return text != NULL
               ? arena_strndup(reader->arena, (const char *)text, strlen((const char *)text))
               : NULL;
}

static Status node_create(Reader *reader, YamlKind kind, YamlNode **ret_node)
{
    int line = (int)reader->event.start_mark.line + 1;
    int column = (int)reader->event.start_mark.column + 1;
    if (++reader->num_nodes > CONFIG_NODES_MAX)
        return refuse(reader, line, column,
                      "more than 20000 values in one file (CONFIG_NODES_MAX). Is it a job file?");
    YamlNode *node = arena_alloc(reader->arena, sizeof *node);
    node->kind = kind;
    node->line = line;
    node->column = column;
    *ret_node = node;
    return OK;
}

/* `name` is in the arena, or NULL for none. */
static Status anchor_add(Reader *reader, const char *name, YamlNode *node)
{
    if (name == NULL) return OK;
    if (reader->num_anchors == CONFIG_ALIASES_MAX)
        return refuse(reader, node->line, node->column,
                      "more than 64 anchors (CONFIG_ALIASES_MAX)");
    reader->anchor[reader->num_anchors++] = (Anchor){name, node};
    return OK;
}

/* An alias is the anchored node itself, so repeating it costs nothing; one inside its own anchor is
 * unknown, because anchors are entered when their node is complete. */
static Status alias_find(Reader *reader, YamlNode **ret_node)
{
    YamlNode *here = NULL;
    TRY(node_create(reader, YAML_SCALAR, &here));
    if (++reader->num_aliases > CONFIG_ALIASES_MAX)
        return refuse(reader, here->line, here->column,
                      "more than 64 aliases (CONFIG_ALIASES_MAX)");
    const char *name = keep(reader, reader->event.data.alias.anchor);
    for (int i = reader->num_anchors - 1; i >= 0; i--) {
        if (strcmp(reader->anchor[i].name, name) != 0) continue;
        *ret_node = reader->anchor[i].node;
        return OK;
    }
    return error_set(
        reader->err, ERR_INVALID,
        "%s:%d:%d: alias *%s has no anchor of that name before it.\n"
        "A text that starts with * must stand in \"quotes\".",
        reader->where, here->line, here->column,
        arena_strndup(reader->arena, name, utf8_valid_prefix(name, strnlen(name, 60))));
}

static void children_append(Reader *reader, YamlNode *node, YamlNode *key, YamlNode *value)
{
    /* Room doubles at 4, 8, 16 ...; what the arena holds of the smaller arrays is at most as much
     * again. */
    if (node->count == 0 || (node->count >= 4 && (node->count & (node->count - 1)) == 0)) {
        size_t room = node->count == 0 ? 4 : (size_t)node->count * 2;
        YamlNode **item = arena_alloc(reader->arena, room * sizeof *item);
        YamlNode **keys = arena_alloc(reader->arena, room * sizeof *keys);
        if (node->count > 0) {
            memcpy(item, node->item, (size_t)node->count * sizeof *item);
            memcpy(keys, node->key, (size_t)node->count * sizeof *keys);
        }
        node->item = item;
        node->key = keys;
    }
    node->key[node->count] = key;
    node->item[node->count++] = value;
}

static Status read_node(Reader *reader, int depth, YamlNode **ret_node);

static Status read_scalar(Reader *reader, YamlNode **ret_node)
{
    YamlNode *node = NULL;
    TRY(node_create(reader, YAML_SCALAR, &node));
    const char *value = (const char *)reader->event.data.scalar.value;
    size_t length = reader->event.data.scalar.length;
    if (memchr(value, '\0', length) != NULL)
        return refuse(reader, node->line, node->column, "a text with an escaped NUL (\\0)");
    node->text = arena_strndup(reader->arena, value, length);
    node->quoted = reader->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (reader->event.data.scalar.tag != NULL)
        return refuse(reader, node->line, node->column,
                      "tags (!name) mean nothing in a job file: remove the tag");
    *ret_node = node;
    return anchor_add(reader, keep(reader, reader->event.data.scalar.anchor), node);
}

/* A sequence or mapping: the event looked at is its start, and afterwards its end. */
static Status read_collection(Reader *reader, int depth, YamlNode **ret_node)
{
    bool mapping = reader->event.type == YAML_MAPPING_START_EVENT;
    YamlNode *node = NULL;
    TRY(node_create(reader, mapping ? YAML_MAPPING : YAML_SEQUENCE, &node));
    if (depth >= CONFIG_DEPTH_MAX)
        return refuse(reader, node->line, node->column,
                      "lists and sections nested deeper than 16 levels (CONFIG_DEPTH_MAX)");
    const char *anchor = keep(reader, mapping ? reader->event.data.mapping_start.anchor
                                              : reader->event.data.sequence_start.anchor);
    yaml_event_type_t end = mapping ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    for (;;) {
        YamlNode *key = NULL, *value = NULL;
        TRY(next_event(reader));
        if (reader->event.type == end) break;
        if (mapping) {
            TRY(read_node(reader, depth + 1, &key));
            if (key->kind != YAML_SCALAR)
                return refuse(reader, key->line, key->column,
                              "a list or section stands where the name of a key is expected");
            TRY(next_event(reader));
        }
        TRY(read_node(reader, depth + 1, &value));
        children_append(reader, node, key, value);
    }
    *ret_node = node;
    return anchor_add(reader, anchor, node);
}

static Status read_node(Reader *reader, int depth, YamlNode **ret_node)
{
    switch (reader->event.type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(reader, ret_node);
    case YAML_ALIAS_EVENT:
        return alias_find(reader, ret_node);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return read_collection(reader, depth, ret_node);
    default:
        return error_set(reader->err, ERR_INTERNAL, "%s: unexpected YAML event %d", reader->where,
                         (int)reader->event.type);
    }
}

static Status read_stream(Reader *reader, YamlNode **ret_root)
{
    YamlNode *root = NULL;
    TRY(next_event(reader));
    while (reader->event.type == YAML_STREAM_START_EVENT ||
           reader->event.type == YAML_DOCUMENT_START_EVENT ||
           reader->event.type == YAML_DOCUMENT_END_EVENT)
        TRY(next_event(reader));
    if (reader->event.type == YAML_STREAM_END_EVENT) {
        TRY(node_create(reader, YAML_SCALAR, &root));
        root->text = "";
        *ret_root = root;
        return OK;
    }
    TRY(read_node(reader, 0, &root));
    do {
        TRY(next_event(reader));
    } while (reader->event.type == YAML_DOCUMENT_END_EVENT);
    if (reader->event.type != YAML_STREAM_END_EVENT) {
        return refuse(reader, (int)reader->event.start_mark.line + 1, 1,
                      "a second YAML document starts here; a job file is one. Remove the `---`.");
    }
    *ret_root = root;
    return OK;
}

/* Bytes that no editor shows and that no parser need see. */
static Status check_bytes(const Reader *reader)
{
    size_t valid = utf8_valid_prefix(reader->text, reader->length);
    int line = 1;
    for (size_t i = 0; i < reader->length; i++) {
        unsigned char byte = (unsigned char)reader->text[i];
        if (byte == '\n') line++;
        if (i < valid && (byte >= ' ' || byte == '\t' || byte == '\r' || byte == '\n') &&
            byte != 127)
            continue;
        return error_set(reader->err, ERR_INVALID,
                         "%s:%d: byte 0x%02x, %s; a job file is UTF-8 text.", reader->where, line,
                         byte, i == valid ? "which is not valid UTF-8" : "a control character");
    }
    return OK;
}

Status yaml_parse(const char *text, size_t length, const char *where, Arena *arena,
                  YamlNode **ret_root, Error *err)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    if (length >= 3 && memcmp(text, byte_order_mark, 3) == 0) {
        text += 3;
        length -= 3;
    }
    if (length > CONFIG_BYTES_MAX)
        return error_set(err, ERR_INVALID,
                         "%s has %zu bytes, at most %u are read (CONFIG_BYTES_MAX)", where, length,
                         CONFIG_BYTES_MAX);
    text = arena_strndup(arena, text, length); /* with a NUL after the last line, for messages */
    Reader reader = {.text = text, .length = length, .where = where, .arena = arena, .err = err};
    TRY(check_bytes(&reader));
    CHECK(yaml_parser_initialize(&reader.parser));
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    Status status = read_stream(&reader, ret_root);
    yaml_event_delete(&reader.event);
    yaml_parser_delete(&reader.parser);
    return status;
}

static bool is_null_word(const char *text)
{
    return text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
           strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0;
}

bool yaml_is_null(const YamlNode *node)
{
    return node->kind == YAML_SCALAR && !node->quoted && is_null_word(node->text);
}

const char *yaml_quote(const char *text, Arena *arena)
{
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./$";
    if (text[strspn(text, safe)] == '\0' && !is_null_word(text)) return text;
    Str quoted = {0};
    str_putc(&quoted, '"');
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char byte = (unsigned char)*at;
        if (byte == '"' || byte == '\\')
            str_printf(&quoted, "\\%c", byte);
        else if (byte < ' ' || byte == 127)
            str_printf(&quoted, "\\x%02x", byte);
        else
            str_putc(&quoted, (char)byte);
    }
    str_putc(&quoted, '"');
    const char *result = arena_strndup(arena, str_text(&quoted), quoted.length);
    str_free(&quoted);
    return result;
}
