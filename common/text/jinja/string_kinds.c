/* Methods of strings that look at the case and the kind of their characters, or change their case.
 */
#include "text/jinja/case.h"
#include "text/jinja/chars.h"
#include "text/jinja/methods.h"

/* ---- case ---- */

#define CASE_METHOD(name, mode)                                                                    \
    static Value call_##name(Run *run, Value self, const Args *args)                               \
    {                                                                                              \
        refuse_arguments(run, args, #name);                                                        \
        return case_map(run, self, mode);                                                          \
    }

CASE_METHOD(upper, CASE_UPPER)
CASE_METHOD(lower, CASE_LOWER)
CASE_METHOD(title, CASE_TITLE)
CASE_METHOD(capitalize, CASE_CAPITALIZE)
CASE_METHOD(swapcase, CASE_SWAP)
CASE_METHOD(casefold, CASE_FOLD)

/* ---- kind ---- */

/* True when the string is not empty and all of it passes. */
static Value all_chars(Run *run, Value self, bool (*test)(uint32_t c))
{
    const String *text = self.as.string;
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size);
        run_step_char(run, c, 2);
        if (!test(c)) return value_bool(false);
        at += (size_t)size;
    }
    return value_bool(text->length > 0);
}

static bool is_alnum(uint32_t c)
{
    return char_is_alpha(c) || char_is_numeric(c);
}

#define KIND_METHOD(name, test)                                                                    \
    static Value call_##name(Run *run, Value self, const Args *args)                               \
    {                                                                                              \
        refuse_arguments(run, args, #name);                                                        \
        return all_chars(run, self, test);                                                         \
    }

KIND_METHOD(isalpha, char_is_alpha)
KIND_METHOD(isalnum, is_alnum)
KIND_METHOD(isdecimal, char_is_decimal)
KIND_METHOD(isdigit, char_is_digit)
KIND_METHOD(isnumeric, char_is_numeric)
KIND_METHOD(isspace, char_is_space)

static Value call_isprintable(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "isprintable");
    return value_bool(self.as.string->length == 0 ||
                      all_chars(run, self, char_is_printable).as.boolean);
}

static Value call_isascii(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "isascii");
    return value_bool(string_is_ascii(self.as.string));
}

static Value call_isidentifier(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "isidentifier");
    const String *text = self.as.string;
    int size;
    if (text->length == 0 || !char_begins_name(string_char(text, 0, &size)))
        return value_bool(false);
    return all_chars(run, self, char_continues_name);
}

/* Some letters with case, and all of them upper (or lower). */
static Value cased(Run *run, Value self, bool (*wanted)(uint32_t c), bool (*other)(uint32_t c))
{
    const String *text = self.as.string;
    bool found = false;
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size);
        run_step_char(run, c, 3);
        if (other(c) || char_is_title(c)) return value_bool(false);
        found = found || wanted(c);
        at += (size_t)size;
    }
    return value_bool(found);
}

static Value call_isupper(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "isupper");
    return cased(run, self, char_is_upper, char_is_lower);
}

static Value call_islower(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "islower");
    return cased(run, self, char_is_lower, char_is_upper);
}

static Value call_istitle(Run *run, Value self, const Args *args)
{
    refuse_arguments(run, args, "istitle");
    const String *text = self.as.string;
    bool after_cased = false, found = false;
    for (size_t at = 0; at < text->length;) {
        int size;
        uint32_t c = string_char(text, at, &size);
        run_step_char(run, c, 3);
        bool upper = char_is_upper(c) || char_is_title(c), lower = char_is_lower(c);
        if ((upper && after_cased) || (lower && !after_cased)) return value_bool(false);
        after_cased = upper || lower;
        found = found || after_cased;
        at += (size_t)size;
    }
    return value_bool(found);
}

/* ---- table ---- */

static const Function methods[] = {
    {"upper", call_upper},
    {"lower", call_lower},
    {"title", call_title},
    {"capitalize", call_capitalize},
    {"swapcase", call_swapcase},
    {"casefold", call_casefold},
    {"isalpha", call_isalpha},
    {"isalnum", call_isalnum},
    {"isdecimal", call_isdecimal},
    {"isdigit", call_isdigit},
    {"isnumeric", call_isnumeric},
    {"isspace", call_isspace},
    {"isprintable", call_isprintable},
    {"isidentifier", call_isidentifier},
    {"isascii", call_isascii},
    {"isupper", call_isupper},
    {"islower", call_islower},
    {"istitle", call_istitle},
};

const Function *string_kind_methods(size_t *ret_count)
{
    *ret_count = sizeof methods / sizeof methods[0];
    return methods;
}
