/* Which variable does a name mean? Jinja decides that when it compiles, and so do we: every scope
 * (template, body of a loop, macro, block) gets a slot for each name that it assigns, or that
 * nothing around it knows. A name that a scope assigns belongs to it from its first line on, and
 * begins there as what the name meant outside. A name that only some branches of an `if` assign
 * begins as the outer one too. The rules are those of Jinja's idtracking module; templates depend
 * on their corners (a `set` inside a loop does not last beyond the iteration). */
#include "text/jinja/ast.h"

/* One function: the template, a macro, a recursive loop. Its scopes share one row of slots. */
typedef struct Unit {
    struct Unit *parent;
    size_t num_slots;
} Unit;

typedef struct Binding {
    const String *name;
    uint16_t slot;
    bool stored;
    ScopeLoad load; /* kind and source; `slot` is set last */
    Unit *outer_unit;
    uint16_t outer_slot;
} Binding;

/* The slots a scope has given out, shared by the copies that branches of an `if` make of its
 * symbols. */
typedef struct SlotMap {
    const String **name;
    uint16_t *slot;
    size_t count;
} SlotMap;

typedef struct Symbols {
    struct Symbols *parent;
    Unit *unit;
    SlotMap *slots;
    Binding *binding;
    size_t count, capacity;
} Symbols;

typedef struct Resolver {
    Compile *compile;
    Template *template;
} Resolver;

/* Where a node stands, while names are resolved. */
typedef struct Frame {
    Symbols *symbols;
    bool soft;    /* directly in an `if`: unknown filters fail only when reached */
    bool in_loop; /* `break` has something to leave */
} Frame;

typedef enum { ROLE_LOAD, ROLE_STORE, ROLE_PARAMETER } Role;
typedef void (*Visit)(void *context, Node *node, Role role);

/* ---- walking ---- */

static void visit_list(const NodeList *list, Visit visit, void *context, Role role)
{
    for (size_t i = 0; i < list->count; i++)
        visit(context, list->item[i], role);
}

static void visit_one(Node *node, Visit visit, void *context, Role role)
{
    if (node != NULL) visit(context, node, role);
}

static void visit_call(Node *node, Visit visit, void *context)
{
    visit_one(node->as.call.callee, visit, context, ROLE_LOAD);
    visit_list(&node->as.call.args.positional, visit, context, ROLE_LOAD);
    visit_list(&node->as.call.args.keyword, visit, context, ROLE_LOAD);
    visit_one(node->as.call.args.star, visit, context, ROLE_LOAD);
    visit_one(node->as.call.args.star_star, visit, context, ROLE_LOAD);
}

static void visit_macro(MacroNode *macro, Visit visit, void *context)
{
    for (size_t i = 0; i < macro->num_parameters; i++)
        visit(context, macro->parameter[i], ROLE_PARAMETER);
    visit_list(&macro->defaults, visit, context, ROLE_LOAD);
    visit_list(&macro->body, visit, context, ROLE_LOAD);
}

static void visit_statement_children(Node *node, Visit visit, void *context)
{
    switch (node->kind) {
    case NODE_FOR:
        visit_one(node->as.loop.target, visit, context, ROLE_STORE);
        visit_one(node->as.loop.source, visit, context, ROLE_LOAD);
        visit_list(&node->as.loop.body, visit, context, ROLE_LOAD);
        visit_list(&node->as.loop.otherwise, visit, context, ROLE_LOAD);
        visit_one(node->as.loop.test, visit, context, ROLE_LOAD);
        break;
    case NODE_IF:
        for (size_t i = 0; i < node->as.branch.test.count; i++) {
            visit(context, node->as.branch.test.item[i], ROLE_LOAD);
            visit_list(&node->as.branch.body[i], visit, context, ROLE_LOAD);
        }
        visit_list(&node->as.branch.otherwise, visit, context, ROLE_LOAD);
        break;
    case NODE_MACRO:
    case NODE_CALL_BLOCK:
    case NODE_GENERATION:
        visit_one(node->as.macro.call, visit, context, ROLE_LOAD);
        visit_macro(node->as.macro.macro, visit, context);
        break;
    case NODE_SET:
    case NODE_SET_BLOCK:
        visit_one(node->as.set.target, visit, context, ROLE_STORE);
        visit_one(node->as.set.value, visit, context, ROLE_LOAD);
        visit_list(&node->as.set.body, visit, context, ROLE_LOAD);
        break;
    case NODE_FILTER_BLOCK:
    case NODE_WITH:
        visit_list(&node->as.block.targets, visit, context, ROLE_PARAMETER);
        visit_list(&node->as.block.values, visit, context, ROLE_LOAD);
        visit_list(&node->as.block.body, visit, context, ROLE_LOAD);
        visit_one(node->as.block.filter, visit, context, ROLE_LOAD);
        break;
    default:
        break;
    }
}

static void visit_children(Node *node, Role role, Visit visit, void *context)
{
    switch (node->kind) {
    case NODE_TUPLE:
        visit_list(&node->as.list, visit, context, role);
        break;
    case NODE_LIST:
    case NODE_DICT:
    case NODE_CONCAT:
    case NODE_OUTPUT:
        visit_list(&node->as.list, visit, context, ROLE_LOAD);
        break;
    case NODE_CONDITION:
        visit_one(node->as.condition.test, visit, context, ROLE_LOAD);
        visit_one(node->as.condition.yes, visit, context, ROLE_LOAD);
        visit_one(node->as.condition.no, visit, context, ROLE_LOAD);
        break;
    case NODE_OR:
    case NODE_AND:
    case NODE_NOT:
    case NODE_NEGATIVE:
    case NODE_POSITIVE:
    case NODE_BINARY:
        visit_one(node->as.binary.left, visit, context, ROLE_LOAD);
        visit_one(node->as.binary.right, visit, context, ROLE_LOAD);
        break;
    case NODE_COMPARE:
        visit_one(node->as.compare.first, visit, context, ROLE_LOAD);
        visit_list(&node->as.compare.operand, visit, context, ROLE_LOAD);
        break;
    case NODE_GETATTR:
    case NODE_GETITEM:
        visit_one(node->as.get.object, visit, context, ROLE_LOAD);
        visit_one(node->as.get.key, visit, context, ROLE_LOAD);
        break;
    case NODE_SLICE:
        visit_one(node->as.slice.start, visit, context, ROLE_LOAD);
        visit_one(node->as.slice.stop, visit, context, ROLE_LOAD);
        visit_one(node->as.slice.step, visit, context, ROLE_LOAD);
        break;
    case NODE_CALL:
    case NODE_FILTER:
    case NODE_TEST:
        visit_call(node, visit, context);
        break;
    default:
        visit_statement_children(node, visit, context);
        break;
    }
}

/* Is `name` read before it is assigned, in the order of the source? */
typedef struct NameSearch {
    const char *name;
    bool read, assigned;
} NameSearch;

static void search_name(void *context, Node *node, Role role)
{
    NameSearch *search = context;
    if (node->kind != NODE_NAME) {
        visit_children(node, role, search_name, search);
    } else if (string_is(node->as.name.text, search->name)) {
        if (role != ROLE_LOAD) {
            search->assigned = true;
        } else if (!search->assigned) {
            search->read = true;
        }
    }
}

static bool body_reads(const NodeList *body, const char *name)
{
    NameSearch search = {.name = name};
    visit_list(body, search_name, &search, ROLE_LOAD);
    return search.read;
}

/* Fails if anything below a loop assigns to `loop`. */
static void refuse_loop_target(void *context, Node *node, Role role)
{
    Resolver *resolver = context;
    if (node->kind == NODE_NAME && role == ROLE_STORE && string_is(node->as.name.text, "loop"))
        compile_fail(resolver->compile, node->line,
                     "Can't assign to special loop variable in for-loop target");
    visit_children(node, role, refuse_loop_target, resolver);
}

/* ---- symbols ---- */

static bool same_name(const String *a, const String *b)
{
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

static Symbols *symbols_create(Resolver *resolver, Symbols *parent, Unit *unit)
{
    Symbols *symbols = compile_alloc(resolver->compile, sizeof *symbols);
    symbols->parent = parent;
    symbols->unit = unit;
    symbols->slots = compile_alloc(resolver->compile, sizeof *symbols->slots);
    return symbols;
}

static Unit *unit_create(Resolver *resolver, Unit *parent)
{
    Unit *unit = compile_alloc(resolver->compile, sizeof *unit);
    unit->parent = parent;
    return unit;
}

static Symbols *symbols_copy(Resolver *resolver, const Symbols *symbols)
{
    Symbols *copy = compile_alloc(resolver->compile, sizeof *copy);
    *copy = *symbols;
    copy->capacity = symbols->count + 8;
    copy->binding = compile_alloc(resolver->compile, copy->capacity * sizeof *copy->binding);
    if (symbols->count > 0)
        memcpy(copy->binding, symbols->binding, symbols->count * sizeof *copy->binding);
    return copy;
}

static Binding *own_binding(const Symbols *symbols, const String *name)
{
    for (size_t i = 0; i < symbols->count; i++)
        if (same_name(symbols->binding[i].name, name)) return &symbols->binding[i];
    return NULL;
}

/* The binding that a name has here or further out; *ret_unit is the function it belongs to. */
static Binding *find_binding(const Symbols *symbols, const String *name, Unit **ret_unit)
{
    for (; symbols != NULL; symbols = symbols->parent) {
        Binding *binding = own_binding(symbols, name);
        if (binding != NULL) {
            *ret_unit = symbols->unit;
            return binding;
        }
    }
    return NULL;
}

/* The work of finding a name from here outwards. */
static void count_search(Resolver *resolver, const Symbols *symbols)
{
    uint64_t work = 0;
    for (; symbols != NULL; symbols = symbols->parent)
        work += symbols->count;
    compile_work(resolver->compile, work);
}

static uint16_t slot_of(Resolver *resolver, Symbols *symbols, const String *name)
{
    SlotMap *map = symbols->slots;
    compile_work(resolver->compile, map->count);
    for (size_t i = 0; i < map->count; i++)
        if (same_name(map->name[i], name)) return map->slot[i];
    if (symbols->unit->num_slots == UINT16_MAX)
        compile_fail(resolver->compile, 1, "more than %d variables", UINT16_MAX);
    if ((map->count & (map->count - 1)) == 0) { /* full at powers of two */
        size_t capacity = map->count == 0 ? 1 : 2 * map->count;
        const String **names = compile_alloc(resolver->compile, capacity * sizeof *names);
        uint16_t *slots = compile_alloc(resolver->compile, capacity * sizeof *slots);
        if (map->count > 0) {
            memcpy(names, map->name, map->count * sizeof *names);
            memcpy(slots, map->slot, map->count * sizeof *slots);
        }
        map->name = names;
        map->slot = slots;
    }
    map->name[map->count] = name;
    map->slot[map->count] = (uint16_t)symbols->unit->num_slots++;
    return map->slot[map->count++];
}

/* Makes (or finds) the scope's own binding of a name. */
static Binding *define(Resolver *resolver, Symbols *symbols, const String *name)
{
    compile_work(resolver->compile, symbols->count);
    Binding *binding = own_binding(symbols, name);
    if (binding != NULL) return binding;
    if (symbols->count == symbols->capacity) {
        size_t capacity = symbols->capacity == 0 ? 8 : 2 * symbols->capacity;
        Binding *grown = compile_alloc(resolver->compile, capacity * sizeof *grown);
        if (symbols->count > 0) memcpy(grown, symbols->binding, symbols->count * sizeof *grown);
        symbols->binding = grown;
        symbols->capacity = capacity;
    }
    binding = &symbols->binding[symbols->count++];
    *binding = (Binding){.name = name, .slot = slot_of(resolver, symbols, name)};
    return binding;
}

/* The name begins in this scope as what it means outside. */
static bool alias_outer(Symbols *symbols, Binding *binding)
{
    Unit *unit;
    const Binding *outer =
        symbols->parent != NULL ? find_binding(symbols->parent, binding->name, &unit) : NULL;
    if (outer == NULL) return false;
    binding->load.kind = LOAD_ALIAS;
    binding->outer_unit = unit;
    binding->outer_slot = outer->slot;
    return true;
}

static void symbols_store(Resolver *resolver, Symbols *symbols, const String *name)
{
    Binding *binding = own_binding(symbols, name);
    if (binding == NULL) {
        binding = define(resolver, symbols, name);
        if (!alias_outer(symbols, binding)) binding->load.kind = LOAD_UNDEFINED;
    }
    binding->stored = true;
}

static void symbols_parameter(Resolver *resolver, Symbols *symbols, const String *name)
{
    Binding *binding = define(resolver, symbols, name);
    binding->stored = true;
    binding->load.kind = LOAD_PARAMETER;
}

static void symbols_load(Resolver *resolver, Symbols *symbols, const String *name)
{
    Unit *unit;
    count_search(resolver, symbols);
    if (find_binding(symbols, name, &unit) == NULL)
        define(resolver, symbols, name)->load.kind = LOAD_CONTEXT;
}

/* Joins what the branches of an `if` did to copies of `symbols`. What only became stored in a
 * branch may be reached unset, so it begins as the outer variable. */
static void merge_branches(Resolver *resolver, Symbols *symbols, Symbols *const *branch,
                           size_t count)
{
    const Symbols *before = symbols_copy(resolver, symbols);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < branch[i]->count; j++) {
            const Binding *from = &branch[i]->binding[j];
            Binding *to = define(resolver, symbols, from->name);
            bool stored = to->stored || from->stored;
            *to = *from;
            to->stored = stored;
        }
    compile_work(resolver->compile, symbols->count * before->count);
    for (size_t i = 0; i < symbols->count; i++) {
        Binding *binding = &symbols->binding[i];
        const Binding *old = own_binding(before, binding->name);
        if (binding->stored && (old == NULL || !old->stored) && !alias_outer(symbols, binding))
            binding->load.kind = LOAD_CONTEXT;
    }
}

/* ---- which names a scope touches ---- */

typedef struct Analysis {
    Resolver *resolver;
    Symbols *symbols;
} Analysis;

static void analyse(void *context, Node *node, Role role);

static Symbols *analyse_branch(Analysis *analysis, const NodeList *body)
{
    Analysis inner = {.resolver = analysis->resolver,
                      .symbols = symbols_copy(analysis->resolver, analysis->symbols)};
    visit_list(body, analyse, &inner, ROLE_LOAD);
    return inner.symbols;
}

/* An `elif` counts as an `if` of its own inside the branch of all elifs, as Jinja's parser nests
 * them. */
static void analyse_if(Analysis *analysis, Node *node)
{
    analyse(analysis, node->as.branch.test.item[0], ROLE_LOAD);
    Symbols *branch[3];
    branch[0] = analyse_branch(analysis, &node->as.branch.body[0]);
    Analysis elifs = {.resolver = analysis->resolver,
                      .symbols = symbols_copy(analysis->resolver, analysis->symbols)};
    for (size_t i = 1; i < node->as.branch.test.count; i++) {
        analyse(&elifs, node->as.branch.test.item[i], ROLE_LOAD);
        Symbols *body = analyse_branch(&elifs, &node->as.branch.body[i]);
        merge_branches(analysis->resolver, elifs.symbols, &body, 1);
    }
    branch[1] = elifs.symbols;
    branch[2] = analyse_branch(analysis, &node->as.branch.otherwise);
    merge_branches(analysis->resolver, analysis->symbols, branch, 3);
}

static void analyse_name(Analysis *analysis, const String *name, Role role)
{
    if (role == ROLE_PARAMETER) {
        symbols_parameter(analysis->resolver, analysis->symbols, name);
    } else if (role == ROLE_STORE) {
        symbols_store(analysis->resolver, analysis->symbols, name);
    } else {
        symbols_load(analysis->resolver, analysis->symbols, name);
    }
}

/* Notes the names that `node` uses in the scope it stands in; stops where a scope of its own
 * begins. */
static void analyse(void *context, Node *node, Role role)
{
    Analysis *analysis = context;
    switch (node->kind) {
    case NODE_NAME:
        analyse_name(analysis, node->as.name.text, role);
        break;
    case NODE_NSREF:
        analyse_name(analysis, node->as.nsref.name->as.name.text, ROLE_LOAD);
        break;
    case NODE_IF:
        analyse_if(analysis, node);
        break;
    case NODE_MACRO:
        analyse_name(analysis, node->as.macro.macro->name, ROLE_STORE);
        break;
    case NODE_FOR:
        analyse(analysis, node->as.loop.source, ROLE_LOAD);
        break;
    case NODE_CALL_BLOCK:
        analyse(analysis, node->as.macro.call, ROLE_LOAD);
        break;
    case NODE_GENERATION:
        break;
    case NODE_FILTER_BLOCK:
        analyse(analysis, node->as.block.filter, ROLE_LOAD);
        break;
    case NODE_WITH:
        visit_list(&node->as.block.values, analyse, analysis, ROLE_LOAD);
        break;
    case NODE_SET:
        analyse(analysis, node->as.set.value, ROLE_LOAD);
        analyse(analysis, node->as.set.target, ROLE_STORE);
        break;
    case NODE_SET_BLOCK:
        analyse(analysis, node->as.set.target, ROLE_STORE);
        break;
    default:
        visit_children(node, role, analyse, analysis);
        break;
    }
}

static void analyse_list(Resolver *resolver, Symbols *symbols, const NodeList *list, Role role)
{
    Analysis analysis = {.resolver = resolver, .symbols = symbols};
    visit_list(list, analyse, &analysis, role);
}

static void analyse_node(Resolver *resolver, Symbols *symbols, Node *node, Role role)
{
    Analysis analysis = {.resolver = resolver, .symbols = symbols};
    if (node != NULL) analyse(&analysis, node, role);
}

/* ---- names to slots ---- */

static VarRef make_ref(Resolver *resolver, const Unit *from, const Unit *to, uint16_t slot)
{
    VarRef ref = {.slot = slot};
    while (from != to) {
        CHECK(from != NULL);
        from = from->parent;
        if (ref.hops++ == UINT16_MAX)
            compile_fail(resolver->compile, 1, "macros nested too deeply");
    }
    return ref;
}

static uint32_t context_name(Resolver *resolver, const String *name)
{
    Template *template = resolver->template;
    compile_work(resolver->compile, template->num_names);
    for (size_t i = 0; i < template->num_names; i++)
        if (same_name(template->name[i], name)) return (uint32_t)i;
    size_t count = template->num_names;
    if ((count & (count - 1)) == 0) {
        const String **grown =
            compile_alloc(resolver->compile, (count == 0 ? 1 : 2 * count) * sizeof *grown);
        if (count > 0) memcpy(grown, template->name, count * sizeof *grown);
        template->name = grown;
    }
    template->name[count] = name;
    const String *spelled = intern_find(&template->interned, name->bytes, name->length);
    if (spelled != NULL) ((Name *)string_name(spelled))->variable = (uint32_t)count;
    return (uint32_t) template->num_names++;
}

/* What is to be done with the slots of a scope when it is entered. */
static Scope make_scope(Resolver *resolver, const Symbols *symbols)
{
    Scope scope = {.count = symbols->count};
    scope.load = compile_alloc(resolver->compile, symbols->count * sizeof *scope.load);
    for (size_t i = 0; i < symbols->count; i++) {
        const Binding *binding = &symbols->binding[i];
        scope.load[i] = binding->load;
        scope.load[i].slot = binding->slot;
        if (binding->load.kind == LOAD_CONTEXT)
            scope.load[i].name = context_name(resolver, binding->name);
        if (binding->load.kind == LOAD_ALIAS)
            scope.load[i].outer =
                make_ref(resolver, symbols->unit, binding->outer_unit, binding->outer_slot);
    }
    return scope;
}

static void resolve(Resolver *resolver, const Frame *frame, Node *node);

static void resolve_list(Resolver *resolver, const Frame *frame, const NodeList *list)
{
    for (size_t i = 0; i < list->count; i++)
        resolve(resolver, frame, list->item[i]);
}

static VarRef resolve_name(Resolver *resolver, const Symbols *symbols, const String *name)
{
    Unit *unit = NULL;
    count_search(resolver, symbols);
    const Binding *binding = find_binding(symbols, name, &unit);
    CHECKF(binding != NULL, "the name %.*s was not analysed", (int)name->length, name->bytes);
    return make_ref(resolver, symbols->unit, unit, binding->slot);
}

static Node *copy_target(Resolver *resolver, const Node *target)
{
    Node *copy = compile_alloc(resolver->compile, sizeof *copy);
    *copy = *target;
    if (target->kind == NODE_TUPLE) {
        size_t count = target->as.list.count;
        copy->as.list.item = compile_alloc(resolver->compile, count * sizeof(Node *));
        for (size_t i = 0; i < count; i++)
            copy->as.list.item[i] = copy_target(resolver, target->as.list.item[i]);
    }
    return copy;
}

static void resolve_for(Resolver *resolver, const Frame *frame, Node *node)
{
    static const String loop_name = {.bytes = "loop", .length = 4, .chars = 4};
    refuse_loop_target(resolver, node, ROLE_LOAD);
    Unit *unit = frame->symbols->unit;
    resolve(resolver, frame, node->as.loop.source);
    if (node->as.loop.recursive) unit = unit_create(resolver, unit);

    Frame inner = {.symbols = symbols_create(resolver, frame->symbols, unit), .in_loop = true};
    node->as.loop.uses_loop = node->as.loop.recursive || body_reads(&node->as.loop.body, "loop");
    if (node->as.loop.uses_loop) {
        symbols_parameter(resolver, inner.symbols, &loop_name);
        node->as.loop.loop_slot = own_binding(inner.symbols, &loop_name)->slot;
    }
    analyse_node(resolver, inner.symbols, node->as.loop.target, ROLE_PARAMETER);
    analyse_list(resolver, inner.symbols, &node->as.loop.body, ROLE_LOAD);

    Frame otherwise = {.symbols = symbols_create(resolver, frame->symbols, unit),
                       .in_loop = frame->in_loop && !node->as.loop.recursive};
    analyse_list(resolver, otherwise.symbols, &node->as.loop.otherwise, ROLE_LOAD);

    if (node->as.loop.test != NULL) {
        Frame test = {.symbols = symbols_create(resolver, frame->symbols, unit)};
        node->as.loop.test_target = copy_target(resolver, node->as.loop.target);
        analyse_node(resolver, test.symbols, node->as.loop.test_target, ROLE_PARAMETER);
        analyse_node(resolver, test.symbols, node->as.loop.test, ROLE_LOAD);
        resolve(resolver, &test, node->as.loop.test_target);
        resolve(resolver, &test, node->as.loop.test);
        node->as.loop.test_scope = make_scope(resolver, test.symbols);
    }
    resolve(resolver, &inner, node->as.loop.target);
    resolve_list(resolver, &inner, &node->as.loop.body);
    resolve_list(resolver, &otherwise, &node->as.loop.otherwise);
    node->as.loop.scope = make_scope(resolver, inner.symbols);
    node->as.loop.else_scope = make_scope(resolver, otherwise.symbols);
    node->as.loop.num_slots = (uint16_t)unit->num_slots;
}

/* One of the names that a macro may use without declaring them. */
static bool special_parameter(Resolver *resolver, Symbols *symbols, const MacroNode *macro,
                              const String *name, uint16_t *ret_slot)
{
    if (!body_reads(&macro->body, name->bytes)) return false;
    for (size_t i = 0; i < macro->num_parameters; i++)
        if (same_name(macro->parameter[i]->as.name.text, name)) return false;
    symbols_parameter(resolver, symbols, name);
    *ret_slot = own_binding(symbols, name)->slot;
    return true;
}

static void resolve_macro(Resolver *resolver, const Frame *frame, MacroNode *macro)
{
    static const String caller = {.bytes = "caller", .length = 6, .chars = 6};
    static const String kwargs = {.bytes = "kwargs", .length = 6, .chars = 6};
    static const String varargs = {.bytes = "varargs", .length = 7, .chars = 7};
    Unit *unit = unit_create(resolver, frame->symbols->unit);
    Frame inner = {.symbols = symbols_create(resolver, frame->symbols, unit)};
    Symbols *symbols = inner.symbols;
    for (size_t i = 0; i < macro->num_parameters; i++)
        analyse_node(resolver, symbols, macro->parameter[i], ROLE_PARAMETER);
    analyse_list(resolver, symbols, &macro->defaults, ROLE_LOAD);
    macro->takes_caller = special_parameter(resolver, symbols, macro, &caller, &macro->caller_slot);
    macro->takes_kwargs = special_parameter(resolver, symbols, macro, &kwargs, &macro->kwargs_slot);
    macro->takes_varargs =
        special_parameter(resolver, symbols, macro, &varargs, &macro->varargs_slot);
    analyse_list(resolver, symbols, &macro->body, ROLE_LOAD);

    macro->parameter_slot =
        compile_alloc(resolver->compile, macro->num_parameters * sizeof(uint16_t));
    for (size_t i = 0; i < macro->num_parameters; i++)
        macro->parameter_slot[i] = own_binding(symbols, macro->parameter[i]->as.name.text)->slot;
    resolve_list(resolver, &inner, &macro->defaults);
    resolve_list(resolver, &inner, &macro->body);
    macro->scope = make_scope(resolver, symbols);
    macro->num_slots = (uint16_t)unit->num_slots;
}

/* A block whose body has a scope of its own inside the same function. */
static Frame inner_frame(Resolver *resolver, const Frame *frame)
{
    return (Frame){.symbols = symbols_create(resolver, frame->symbols, frame->symbols->unit),
                   .in_loop = frame->in_loop};
}

static void resolve_block(Resolver *resolver, const Frame *frame, Node *node)
{
    Frame inner = inner_frame(resolver, frame);
    Symbols *symbols = inner.symbols;
    if (node->kind == NODE_SET_BLOCK) {
        analyse_list(resolver, symbols, &node->as.set.body, ROLE_LOAD);
        analyse_node(resolver, symbols, node->as.set.value, ROLE_LOAD);
        resolve(resolver, frame, node->as.set.target);
        if (node->as.set.value != NULL) resolve(resolver, &inner, node->as.set.value);
        resolve_list(resolver, &inner, &node->as.set.body);
        node->as.set.scope = make_scope(resolver, symbols);
        return;
    }
    analyse_list(resolver, symbols, &node->as.block.targets, ROLE_PARAMETER);
    analyse_list(resolver, symbols, &node->as.block.body, ROLE_LOAD);
    analyse_node(resolver, symbols, node->as.block.filter, ROLE_LOAD);
    resolve_list(resolver, frame, &node->as.block.values);
    resolve_list(resolver, &inner, &node->as.block.targets);
    resolve_list(resolver, &inner, &node->as.block.body);
    if (node->as.block.filter != NULL) resolve(resolver, &inner, node->as.block.filter);
    node->as.block.scope = make_scope(resolver, symbols);
}

static void resolve_filter(Resolver *resolver, const Frame *frame, Node *node)
{
    const String *name = node->as.call.name;
    bool is_filter = node->kind == NODE_FILTER;
    node->as.call.function =
        is_filter ? filter_find(name->bytes, name->length) : test_find(name->bytes, name->length);
    if (node->as.call.function == NULL && !frame->soft)
        compile_fail(resolver->compile, node->line, "No %s named '%.*s'.",
                     is_filter ? "filter" : "test", (int)name->length, name->bytes);
}

/* Short names only: nobody counts the work of looking for them. */
static void note_entry(Node *node)
{
    const Node *object = node->as.get.object, *key = node->as.get.key;
    bool is_item = node->kind == NODE_GETITEM;
    if (object->kind != NODE_NAME || object->as.name.ref.hops > 0) return;
    if (is_item ? key->kind != NODE_CONST || !value_is_string(key->as.constant)
                : node->as.get.maybe_method)
        return;
    Value name = is_item ? key->as.constant : node->as.get.attribute;
    if (name.as.string->length <= 32) node->as.get.entry = name.as.string;
}

static void resolve_child(void *context, Node *node, Role role);

typedef struct ResolveContext {
    Resolver *resolver;
    const Frame *frame;
} ResolveContext;

static void resolve_children(Resolver *resolver, const Frame *frame, Node *node)
{
    ResolveContext context = {.resolver = resolver, .frame = frame};
    visit_children(node, ROLE_LOAD, resolve_child, &context);
}

static void resolve_child(void *context, Node *node, Role role)
{
    (void)role;
    const ResolveContext *resolve_context = context;
    resolve(resolve_context->resolver, resolve_context->frame, node);
}

static void resolve(Resolver *resolver, const Frame *frame, Node *node)
{
    Frame soft = *frame;
    soft.soft = true;
    switch (node->kind) {
    case NODE_NAME:
        node->as.name.ref = resolve_name(resolver, frame->symbols, node->as.name.text);
        break;
    case NODE_NSREF:
        resolve(resolver, frame, node->as.nsref.name);
        break;
    case NODE_FOR:
        resolve_for(resolver, frame, node);
        break;
    case NODE_MACRO:
        resolve_macro(resolver, frame, node->as.macro.macro);
        node->as.macro.ref = resolve_name(resolver, frame->symbols, node->as.macro.macro->name);
        break;
    case NODE_CALL_BLOCK:
        resolve_macro(resolver, frame, node->as.macro.macro);
        resolve(resolver, frame, node->as.macro.call);
        break;
    case NODE_GENERATION:
        resolve_macro(resolver, frame, node->as.macro.macro);
        break;
    case NODE_SET_BLOCK:
    case NODE_FILTER_BLOCK:
    case NODE_WITH:
        resolve_block(resolver, frame, node);
        break;
    case NODE_IF:
    case NODE_CONDITION:
        resolve_children(resolver, &soft, node);
        break;
    case NODE_GETATTR:
    case NODE_GETITEM:
        resolve_children(resolver, frame, node);
        note_entry(node);
        break;
    case NODE_FILTER:
    case NODE_TEST:
        resolve_filter(resolver, frame, node);
        resolve_children(resolver, frame, node);
        break;
    case NODE_BREAK:
    case NODE_CONTINUE:
        if (!frame->in_loop)
            compile_fail(resolver->compile, node->line, "%s",
                         node->kind == NODE_BREAK ? "'break' outside loop"
                                                  : "'continue' not properly in loop");
        break;
    default:
        resolve_children(resolver, frame, node);
        break;
    }
}

/* What a name stands for where no variable is given. */
static Value given_value(const String *name)
{
    const Function *function = global_find(name->bytes, name->length);
    Value value = value_missing();
    if (string_is(name, "self")) value.type = VALUE_SELF;
    if (function != NULL) {
        value.type = VALUE_FUNCTION;
        value.as.function = function;
    }
    if (value.type != VALUE_MISSING) value.origin = ORIGIN_PLAIN_TEMPLATE;
    return value;
}

void template_resolve(Compile *compile, Template *template)
{
    Resolver resolver = {.compile = compile, .template = template};
    Unit *unit = unit_create(&resolver, NULL);
    Frame root = {.symbols = symbols_create(&resolver, NULL, unit)};
    analyse_list(&resolver, root.symbols, &template->body, ROLE_LOAD);
    resolve_list(&resolver, &root, &template->body);
    template->scope = make_scope(&resolver, root.symbols);
    template->num_slots = (uint16_t)unit->num_slots;
    template->given = compile_alloc(compile, template->num_names * sizeof(Value));
    for (size_t i = 0; i < template->num_names; i++)
        template->given[i] = given_value(template->name[i]);
}
