/* Run: one rendering in progress. Internal to common/text.
 *
 * Errors leave by longjmp: everything a run allocates belongs to its arena or its buffers, so there
 * is nothing to release on the way, and an evaluator of forty operators stays readable.
 * chat_template.c catches it and turns it into a Status; nothing else may. One thread per Run. */
#ifndef TROUPE_TEXT_JINJA_RUN_H
#define TROUPE_TEXT_JINJA_RUN_H

#include <setjmp.h>
#include <stdalign.h>

#include "text/jinja/value.h"

/* What a template may use up. A plain conversation needs a thousandth of each. */
#define TEMPLATE_SOURCE_BYTES_MAX  (4u << 20)
#define TEMPLATE_COMPILE_BYTES_MAX ((size_t)256 << 20)
#define TEMPLATE_COMPILE_WORK_MAX  200000000 /* about a second */
#define TEMPLATE_OUTPUT_BYTES_MAX  (256u << 20)
#define TEMPLATE_STEPS_MAX         50000000 /* about a second; no clock, so that a result is one */
#define TEMPLATE_DEPTH_MAX         1500     /* nested evaluations: bounds the C stack */
#define TEMPLATE_NESTING_MAX       150      /* brackets or tags inside each other, in the source */
#define TEMPLATE_HEIGHT_MAX        500      /* of the tree of one expression */
#define TEMPLATE_MEMORY_BYTES_MAX  (256u << 20) /* and 16 times the bytes of the variables */

/* Those of them that a rendering may be given smaller. */
typedef struct TemplateLimits {
    uint64_t steps;
    size_t memory_bytes;
} TemplateLimits;

/* chat_template_render within limits of the caller's choice. */
Status chat_template_render_within(const ChatTemplate *chat_template, const cJSON *variables,
                                   int64_t now, const TemplateLimits *limits, Rendering *ret,
                                   Error *err);

typedef struct BufferSpan {
    uint32_t end;
    Origin origin;
    int32_t loop; /* the message at which the innermost loop over messages stood when it was
                     written, or -1 */
} BufferSpan;

#define ORIGIN_NOTHING UINT32_MAX

/* Text being written, with its origins: the output, or what a macro, a block or a filter collects.
 * The last span is open: its end is set when another origin follows or the text is taken. */
typedef struct Buffer {
    char *text;
    size_t length, capacity;
    BufferSpan *span;
    size_t num_spans, spans_capacity;
    bool owns_text, owns_spans; /* else they are in the run's memory, as short ones are */
    Origin origin;              /* of the open span, or ORIGIN_NOTHING */
    int32_t loop;               /* and its message */
} Buffer;

/* The variables of one call of a macro (or of the template itself). */
typedef struct Activation {
    struct Activation *parent; /* of the function around it in the source */
    Value slot[];
} Activation;

typedef struct Template Template;   /* ast.h */
typedef struct MacroNode MacroNode; /* ast.h */

struct Macro {
    const MacroNode *node;
    Activation *closure; /* of the function it was defined in */
};

/* The variable `loop`, and what drives the loop. */
struct Loop {
    const Node *node;
    Activation *activation;
    Iterator iterator;
    Value before, current, after; /* VALUE_MISSING: none (yet) */
    int64_t index0;
    int64_t length; /* -1: not yet known */
    int depth0;
    Value changed; /* arguments of the last changed(), or VALUE_MISSING */
};

/* Memory of a run, handed out upwards and freed whole. */
typedef struct MemoryBlock {
    struct MemoryBlock *next;
    alignas(16) char bytes[];
} MemoryBlock;

#define RUN_FIRST_BLOCK_BYTES (48u << 10) /* enough for most conversations; on the stack */

/* Where a failure goes that a generator keeps to itself (value_produce). */
typedef struct Guard {
    struct Guard *outer;
    jmp_buf failed;
    char *message; /* in the run's memory */
} Guard;

struct Run {
    const Template *template;
    const char *where;
    char *memory_top, *memory_end; /* room in the newest block */
    MemoryBlock *block;            /* all but the first */
    size_t memory_used;
    jmp_buf failed;
    Guard *guard; /* innermost, or NULL */
    Error *err;
    int line; /* of the statement in progress */

    const Value *context; /* per name of the template: input variable, global, or VALUE_MISSING */
    const Undefined *undefined; /* the attribute that was missing last, or NULL */
    Buffer *buffer;             /* a stack; [0] is the output */
    Buffer *top;                /* its innermost */
    size_t num_buffers, buffers_capacity;
    size_t buffers_bytes; /* of memory that they hold */

    char *text_top, *text_end; /* room behind the string made last, so that a + b + c copies once */
    OriginRun *runs_top, *runs_end;

    bool may_stand;        /* in a loop over numbers, before a message was taken by one */
    int32_t loop_message;  /* at which the innermost loop over messages stands, or -1 */
    Origin literal_origin; /* of text of the template evaluated here */
    Origin generation;     /* ORIGIN_GENERATION inside {% generation %}, else 0 */
    int64_t now;           /* seconds since 1970 */

    int depth;
    uint64_t steps, steps_max;
    size_t memory_max;

    alignas(16) char first_block[RUN_FIRST_BLOCK_BYTES];
};

/* Leaves the run: "where:line: message". */
_Noreturn void run_fail(Run *run, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Leaves the run if a string of `length` bytes would be too long. */
void run_check_length(Run *run, uint64_t length);
#define run_raise(run, ...) run_fail(run, ERR_DATA, __VA_ARGS__)

/* For any use of an undefined value but printing it and asking for its truth. */
_Noreturn void run_fail_undefined(Run *run, Value undefined);

void *run_alloc_block(Run *run, size_t bytes); /* `bytes` of a new block */

/* Not zeroed; aligned to 16 bytes. Leaves the run when its memory is used up. */
static inline void *run_alloc_raw(Run *run, size_t bytes)
{
    size_t rounded = (bytes + 15) & ~(size_t)15;
    if ((size_t)(run->memory_end - run->memory_top) < rounded || rounded < bytes)
        return run_alloc_block(run, bytes);
    void *memory = run->memory_top;
    run->memory_top += rounded;
    return memory;
}

static inline void *run_alloc(Run *run, size_t bytes) /* zeroed */
{
    return memset(run_alloc_raw(run, bytes), 0, bytes);
}

_Noreturn void run_fail_steps(Run *run);

/* Counts work, about one unit per node evaluated. All that takes longer with longer input counts,
 * for this is what ends a template that means harm. */
static inline void run_step(Run *run, uint64_t work)
{
    run->steps += work;
    if (run->steps > run->steps_max) run_fail_steps(run);
}
/* A search through `bytes` for a part; memmem is slowest where much of a long part matches. */
static inline void run_step_search(Run *run, uint64_t bytes, uint64_t part)
{
    run_step(run, 1 + bytes / (part <= 8 ? 32 : 8) + part / 16);
}
static inline void run_step_bytes(Run *run, uint64_t bytes) /* that are copied or looked through */
{
    run_step(run, bytes / 64);
}
/* One character whose kind is looked up, or whose case; `looks` tables are searched for it. */
static inline void run_step_char(Run *run, uint32_t c, uint64_t looks)
{
    run_step(run, c < 0x80 ? 1 : 1 + looks);
}

_Noreturn void run_fail_depth(Run *run);
static inline void run_enter(Run *run) /* one level deeper */
{
    if (++run->depth > TEMPLATE_DEPTH_MAX) run_fail_depth(run);
}
static inline void run_leave(Run *run)
{
    run->depth--;
}

/* ---- variables (import.c) ---- */

/* Per name of the template: what `variables` hold under it, a global, or VALUE_MISSING. Only what
 * the template mentions is taken; texts are borrowed. */
const Value *import_variables(Run *run, const cJSON *variables);
Value value_import(Run *run, const cJSON *json, Origin origin);
/* A string of the input; `ret` holds it, and has to live as long as the value. */
Value import_string(Run *run, const char *bytes, Origin origin, String *ret);
/* Are all members of the object surely named differently? Of two with one name the last counts. */
bool json_keys_differ(const cJSON *json);
/* What the member of a message with this name is; ORIGIN_OTHER: nothing special. */
OriginKind message_member_kind(const char *name, size_t length);

/* ---- buffers ---- */

void buffer_push(Run *run);
Value buffer_pop(Run *run);                   /* the text collected, as a string */
void buffer_drop(Run *run);                   /* forgets it */
Value buffer_retract(Run *run, size_t begin); /* takes back what was written from `begin` on */

void buffer_close(Buffer *buffer); /* ends the open span */

/* Room for `length` more bytes of the origin that is being written, at the end of the innermost
 * buffer; NULL if there is none or the origin is another. */
static inline char *buffer_room(const Run *run, size_t length, Origin origin)
{
    const Buffer *buffer = run->top;
    bool same = buffer->origin == origin && buffer->loop == run->loop_message;
    bool fits = buffer->capacity - buffer->length > length;
    return same && fits ? buffer->text + buffer->length : NULL;
}

/* memcpy of less than 64 bytes without a call. */
static inline void copy_short(char *to, const char *from, size_t length)
{
    if (length >= 32) {
        memcpy(to, from, 32);
        memcpy(to + length - 32, from + length - 32, 32);
    } else if (length >= 16) {
        memcpy(to, from, 16);
        memcpy(to + length - 16, from + length - 16, 16);
    } else if (length >= 8) {
        memcpy(to, from, 8);
        memcpy(to + length - 8, from + length - 8, 8);
    } else if (length >= 4) {
        memcpy(to, from, 4);
        memcpy(to + length - 4, from + length - 4, 4);
    } else if (length > 0) {
        to[0] = from[0];
        to[length / 2] = from[length / 2];
        to[length - 1] = from[length - 1];
    }
}

void buffer_write(Run *run, const char *bytes, size_t length, Origin origin);

static inline void buffer_puts(Run *run, const char *text, Origin origin)
{
    buffer_write(run, text, strlen(text), origin);
}

void buffer_write_slice(Run *run, Value string, size_t begin, size_t end);
void buffer_write_string(Run *run, Value string);
/* As a template's output statement does it: template text takes the message of the loop it stands
 * in. */
void buffer_emit(Run *run, Value string);

/* ---- text of values (text.c): appended to the innermost buffer ---- */

void write_str(Run *run, Value value);  /* str(value) */
void write_repr(Run *run, Value value); /* repr(value) */
Value value_str(Run *run,
                Value value); /* str(value); strings stay themselves, less their markup flag */
Value value_soft_str(Run *run, Value value);     /* as value_str, but markup stays markup */
char *format_double(double real, char text[32]); /* repr of a float */

typedef struct JsonStyle {
    bool ensure_ascii, sort_keys;
    const String *indent;                /* per level, or NULL for one line */
    bool indents_blank;                  /* `indent` is nothing but spaces */
    Value item_separator, key_separator; /* strings */
} JsonStyle;
void write_json(Run *run, Value value, const JsonStyle *style);

Value value_escape(Run *run, Value value); /* HTML, as markup */

/* A NUL-terminated copy for messages, shortened. */
const char *message_text(Run *run, const String *string);
const char *message_repr(Run *run, Value value);

/* ---- evaluation ---- */

Value eval_node(Run *run, Activation *activation, const Node *node); /* eval.c */
/* Applies a filter or test node to `subject`, which is not evaluated again. */
Value eval_filter(Run *run, Activation *activation, const Node *node, Value subject);
/* A call node, with `caller` as an additional keyword argument. */
Value eval_call_block(Run *run, Activation *activation, const Node *call, Value caller);
void exec_template(Run *run); /* exec.c */
void assign_target(Run *run, Activation *activation, const Node *target, Value value);
Value eval_macro(Run *run, const Macro *macro, const Args *args);
Value eval_loop_call(Run *run, const Loop *loop, Value items); /* loop(items) of a recursive loop */
Value loop_attribute(Run *run, Loop *loop, const String *name); /* VALUE_MISSING: has none such */

Value eval_call(Run *run, Value callee, const Args *args);
Value eval_getattr(Run *run, Value object, Value name);
Value eval_getitem(Run *run, Value object, Value key);
Value eval_slice(Run *run, Value object, Value start, Value stop, Value step);

typedef enum {
    BINARY_ADD,
    BINARY_SUB,
    BINARY_MUL,
    BINARY_DIV,
    BINARY_FLOORDIV,
    BINARY_MOD,
    BINARY_POW
} BinaryOp;
Value eval_binary(Run *run, BinaryOp op, Value a, Value b); /* ops.c */
Value eval_negative(Run *run, Value value, bool negate);    /* -value, or +value */

/* ---- tables: filters, tests, methods, globals; NULL when there is no such name ---- */

static inline bool name_is_dunder(const String *name) /* "__class__" and its like */
{
    return name->length > 4 && memcmp(name->bytes, "__", 2) == 0 &&
           memcmp(name->bytes + name->length - 2, "__", 2) == 0;
}

const Function *filter_find(const char *name, size_t length);
const Function *test_find(const char *name, size_t length);
const Function *global_find(const char *name, size_t length);
/* Does this name hide an entry of a dict when it is asked for as an attribute? */
bool dict_method_known(const String *name);
/* Is there anything but an entry of a dict that could be found by this name? Namespaces, loops and
 * cyclers aside. */
bool attribute_known(const String *name);
/* The function of a method, NULL if the object has none such or the sandbox forbids it because it
 * would change the object. */
CallFunction method_find(Value object, const String *name);
CallFunction string_method_find(const String *name);
/* The method as a value: undefined if it is forbidden, VALUE_MISSING if there is none. */
Value method_bind(Run *run, Value object, const String *name);

/* str % args, and str.format */
Value format_percent(Run *run, Value format, Value arguments);
Value format_braces(Run *run, Value format, const Args *args);

/* ---- arguments of builtins ---- */

typedef struct Param {
    const char *name;
    bool required;
} Param;

/* Sorts positional and keyword arguments into values[0..count), VALUE_MISSING where none was given.
 * `function` names it in messages. */
void args_bind(Run *run, const char *function, const Args *args, const Param *params, size_t count,
               Value *values);
int64_t arg_int(Run *run, Value value, const char *what); /* VALUE_MISSING is not allowed */

#endif
