#include "dataset/look_alike.h"

#include <stdint.h>
#include <string.h>

#include "base/file.h"
#include "base/str.h"

#define LINES_COMPARED 5 /* of a table: they have as many columns */

typedef struct Kind {
    const char *found, *remedy;
} Kind;

#define READER "or name a reader (data.reader)"

static const Kind
    document = {"a JSON document over several lines",
                "make a line of each object: jq -c . FILE, or jq -c '.data[]' FILE where they are "
                "a list in it"},
    list = {"one JSON list", "make a line of each element: jq -c '.[]' FILE"},
    workbook = {"an Excel workbook",
                "save its sheet as CSV, and make JSONL of that: docs/data.md, Recipes"},
    parquet_end = {"the end of a Parquet file, without its beginning", "fetch or write it again"},
    arrow_end = {"the end of an Arrow file, without its beginning", "fetch or write it again"},
    binary = {"binary data, no text, or text in UTF-16",
              "name another file, or fetch it again: its beginning may be lost"},
    markup = {"XML or HTML", "make a JSON object of each record, " READER},
    tsv = {"TSV", "make a JSON object of each row: docs/data.md, Recipes, " READER},
    csv = {"CSV", "make a JSON object of each row: docs/data.md, Recipes, " READER},
    plain = {"plain text", "make a JSON object of each record: docs/data.md, Records"};

/* "a.csv", and "a.csv.gz". */
static bool is_named(const LookAlike *look, const char *ending)
{
    size_t length = strlen(look->path), size = strlen(ending);
    if (str_ends_with(look->path, ".gz")) length -= 3;
    if (str_ends_with(look->path, ".zst")) length -= 4;
    return length >= size && memcmp(look->path + length - size, ending, size) == 0;
}

/* ---- by its first bytes ---- */

typedef struct Magic {
    const char *begin;
    size_t length;
    Kind kind;
} Magic;

static const Magic magics[] = {
    {"\xFD\x37zXZ", 5, {"compressed with xz", "decompress it with unxz"}},
    {"BZh", 3, {"compressed with bzip2", "decompress it with bunzip2"}},
    {"\x04\x22\x4D\x18", 4, {"compressed with lz4", "decompress it with unlz4"}},
    {"PK\x03\x04", 4, {"a zip archive", "unpack it with unzip"}},
    {"\xFF\xFE", 2, {"UTF-16 text", "convert it to UTF-8 with iconv -f UTF-16 -t UTF-8"}},
    {"\xFE\xFF", 2, {"UTF-16 text", "convert it to UTF-8 with iconv -f UTF-16 -t UTF-8"}},
};

static const Kind *find_magic(const LookAlike *look)
{
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        if (look->length < magics[i].length ||
            memcmp(look->text, magics[i].begin, magics[i].length) != 0)
            continue;
        bool zip = look->text[0] == 'P';
        bool excel =
            is_named(look, ".xlsx") || memmem(look->text, look->length, "xl/workbook", 11) != NULL;
        return zip && excel ? &workbook : &magics[i].kind;
    }
    return NULL;
}

static const Kind *find_tail(const LookAlike *look)
{
    if (look->tail == NULL) return NULL;
    if (memcmp(look->tail + LOOK_ALIKE_TAIL - 4, "PAR1", 4) == 0) return &parquet_end;
    if (memcmp(look->tail + LOOK_ALIKE_TAIL - 6, "ARROW1", 6) == 0) return &arrow_end;
    return NULL;
}

/* ---- by its lines ---- */

typedef struct Line {
    const char *at; /* without the space around it */
    size_t length, indent;
} Line;

typedef struct Lines {
    const char *at, *end;
    bool whole; /* the last one needs no end */
} Lines;

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next line that is not blank and is there to its end. */
static bool next_line(Lines *lines, Line *ret)
{
    while (lines->at < lines->end) {
        const char *begin = lines->at;
        const char *end = memchr(begin, '\n', (size_t)(lines->end - begin));
        if (end == NULL && !lines->whole) return false;
        lines->at = end != NULL ? end + 1 : lines->end;
        if (end == NULL) end = lines->end;
        const char *first = begin;
        while (first < end && is_space(*first))
            first++;
        while (end > first && is_space(end[-1]))
            end--;
        if (end == first) continue;
        *ret = (Line){first, (size_t)(end - first), (size_t)(first - begin)};
        return true;
    }
    return false;
}

static size_t skip_mark(const char *text, size_t length)
{
    return length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

static Lines lines_of(const LookAlike *look)
{
    const char *end = look->text + look->length;
    return (Lines){look->text + skip_mark(look->text, look->length), end, look->whole};
}

/* One of the lines is an object that stands by itself, as deep as the first line. */
static bool has_object(const LookAlike *look)
{
    Lines lines = lines_of(look);
    Line line, first;
    for (bool begun = false; next_line(&lines, &line); begun = true) {
        if (!begun) first = line;
        if (line.indent == first.indent && line.at[0] == '{' && line.at[line.length - 1] == '}')
            return true;
    }
    return false;
}

/* How many columns a line has; what stands between quotes is one. */
static size_t count_columns(const Line *line, char separator)
{
    size_t columns = 1;
    bool quoted = false;
    for (size_t i = 0; i < line->length; i++) {
        quoted = quoted != (line->at[i] == '"');
        columns += !quoted && line->at[i] == separator;
    }
    return columns;
}

static bool is_table(const LookAlike *look, char separator)
{
    Lines lines = lines_of(look);
    Line line;
    size_t columns = 0;
    int count = 0;
    while (count < LINES_COMPARED && next_line(&lines, &line)) {
        size_t here = count_columns(&line, separator);
        if (here < 2 || (count > 0 && here != columns)) return false;
        columns = here;
        count++;
    }
    return count >= 2;
}

/* A value by itself, which JSONL may have, though no record is one. */
static bool is_scalar(const Line *line)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++)
        if (line->length == strlen(words[i]) && memcmp(line->at, words[i], line->length) == 0)
            return true;
    size_t number = 0;
    while (number < line->length && memchr("-0123456789.eE+", line->at[number], 15) != NULL)
        number++;
    return line->at[0] == '"' || number == line->length;
}

static const Kind *find_text(const LookAlike *look)
{
    Lines lines = lines_of(look);
    Line first, second;
    if (!next_line(&lines, &first)) return NULL;
    bool more = next_line(&lines, &second);
    if (first.at[0] == '{') return more && second.at[0] != '{' ? &document : NULL;
    if (first.at[0] == '<') return &markup;
    if (is_named(look, ".tsv") || is_table(look, '\t')) return &tsv;
    if (is_named(look, ".csv") || is_table(look, ',') || is_table(look, ';')) return &csv;
    return more && !is_scalar(&first) && !is_scalar(&second) ? &plain : NULL;
}

bool look_alike_is_odd(const char *head, size_t length)
{
    size_t at = skip_mark(head, length);
    while (at < length && (is_space(head[at]) || head[at] == '\n'))
        at++;
    if (at == length) return length > 0;
    if (head[at] != '{') return true;
    do
        at++;
    while (at < length && is_space(head[at]));
    return at < length && head[at] == '\n';
}

static const Kind *find_kind(const LookAlike *look)
{
    const Kind *kind = find_magic(look);
    if (kind != NULL) return kind;
    size_t at = skip_mark(look->text, look->length);
    while (at < look->length && (is_space(look->text[at]) || look->text[at] == '\n'))
        at++;
    if (at == look->length) return NULL;
    if (look->text[at] == '[') return &list;
    if (has_object(look)) return NULL;
    kind = find_tail(look);
    if (kind == NULL && memchr(look->text, '\0', look->length) != NULL) kind = &binary;
    return kind != NULL ? kind : find_text(look);
}

Status look_alike_check(const LookAlike *look, Error *err)
{
    const Kind *kind = find_kind(look);
    bool half = kind == &parquet_end || kind == &arrow_end;
    if (kind == NULL) return OK;
    return error_set(err, ERR_UNSUPPORTED, "%s is %s\n  expected: %s\n  to do: %s", look->path,
                     kind->found, half ? "a whole file" : "JSONL, one JSON object per line",
                     kind->remedy);
}
